#include "devices/pic/pic.h"

#include <string_view>
#include <utility>

#include "devices/section.h"

namespace kite::devices {
namespace {

constexpr unsigned kCascadeInput = 2;
constexpr unsigned kSpuriousInput = 7;
constexpr std::array<uint8_t, 2> kCascade{1u << kCascadeInput, 0};
// [PIIX3] 2.5.9: the timer, the keyboard, the cascade, the RTC and the FPU are always edge-triggered.
constexpr std::array<uint8_t, 2> kElcrWritable{0xf8, 0xde};

struct PicStateV1 {
  static constexpr uint32_t kVersion = 1;
  using Pair = std::array<uint8_t, 2>;
  Pair lines{}, irr{}, isr{}, imr{}, elcr{}, vector_base{}, lowest_priority{}, init_step{}, single{}, needs_icw4{},
      auto_eoi{}, fully_nested{}, rotate_on_aeoi{}, special_mask{}, read_isr{}, poll{};
};

template <class Codec>
void visit(Codec& codec, PicStateV1& s) {
  uint16_t number = 1;
  for (auto* pair :
       {&s.lines, &s.irr, &s.isr, &s.imr, &s.elcr, &s.vector_base, &s.lowest_priority, &s.init_step, &s.single,
        &s.needs_icw4, &s.auto_eoi, &s.fully_nested, &s.rotate_on_aeoi, &s.special_mask, &s.read_isr, &s.poll})
    codec.field(number++, *pair);
}

void to_wire(const PicChip& chip, size_t i, PicStateV1& w) {
  const auto& [lines, irr, isr, imr, elcr, vector_base, lowest_priority, init_step, single, needs_icw4, auto_eoi,
               fully_nested, rotate_on_aeoi, special_mask, read_isr, poll] = chip;
  w.lines[i] = lines;
  w.irr[i] = irr;
  w.isr[i] = isr;
  w.imr[i] = imr;
  w.elcr[i] = elcr;
  w.vector_base[i] = vector_base;
  w.lowest_priority[i] = lowest_priority;
  w.init_step[i] = static_cast<uint8_t>(init_step);
  w.single[i] = single;
  w.needs_icw4[i] = needs_icw4;
  w.auto_eoi[i] = auto_eoi;
  w.fully_nested[i] = fully_nested;
  w.rotate_on_aeoi[i] = rotate_on_aeoi;
  w.special_mask[i] = special_mask;
  w.read_isr[i] = read_isr;
  w.poll[i] = poll;
}

const char* impossible(const PicStateV1& w, size_t i) {
  for (const auto* flags : {&w.single, &w.needs_icw4, &w.auto_eoi, &w.fully_nested, &w.rotate_on_aeoi, &w.special_mask,
                            &w.read_isr, &w.poll})
    if ((*flags)[i] > 1) return "a flag is neither 0 nor 1";
  if (w.lowest_priority[i] > 7) return "the lowest priority is above 7";
  if ((w.vector_base[i] & 7) != 0) return "the vector base is not a multiple of 8";
  if (w.init_step[i] > static_cast<uint8_t>(PicChip::InitStep::kIcw4)) return "the initialization step is unknown";
  if ((w.elcr[i] & ~kElcrWritable[i]) != 0) return "an input that is always edge-triggered is level-triggered";
  if (((w.irr[i] ^ w.lines[i]) & w.elcr[i]) != 0) return "a level-triggered request differs from its line";
  return nullptr;
}

PicChip from_wire(const PicStateV1& w, size_t i) {
  return {.lines = w.lines[i],
          .irr = w.irr[i],
          .isr = w.isr[i],
          .imr = w.imr[i],
          .elcr = w.elcr[i],
          .vector_base = w.vector_base[i],
          .lowest_priority = w.lowest_priority[i],
          .init_step = static_cast<PicChip::InitStep>(w.init_step[i]),
          .single = w.single[i] != 0,
          .needs_icw4 = w.needs_icw4[i] != 0,
          .auto_eoi = w.auto_eoi[i] != 0,
          .fully_nested = w.fully_nested[i] != 0,
          .rotate_on_aeoi = w.rotate_on_aeoi[i] != 0,
          .special_mask = w.special_mask[i] != 0,
          .read_isr = w.read_isr[i] != 0,
          .poll = w.poll[i] != 0};
}

}  // namespace

Pic::Pic(std::string path, bus::IrqLine intr) : Device(std::move(path)), intr_(intr) {
  constexpr AccessRule kBytes{.min_size = 1, .max_size = 1};
  master_region_ = Region::io("pic-master", 2, master_window_, kBytes);
  slave_region_ = Region::io("pic-slave", 2, slave_window_, kBytes);
  elcr_region_ = Region::io("pic-elcr", 2, elcr_window_, kBytes);
}

void Pic::set_irq(uint32_t line, bool level) {
  if (line >= 16 || line == kCascadeInput) return;
  const std::lock_guard guard(lock_);
  state_.chips[line / 8].set_line(line % 8, level);
  update_output();
}

// The second chip's INT is the first chip's input 2, and there it counts as long as it lasts; the first chip's INT is
// ours.
void Pic::update_output() {
  auto& [master, slave] = state_.chips;
  const bool cascade = slave.requested(kCascade[1]).has_value();
  master.set_line(kCascadeInput, cascade);
  if (!cascade) master.irr &= static_cast<uint8_t>(~kCascade[0]);
  const bool level = master.requested(kCascade[0]).has_value();
  if (intr_level_.exchange(level, std::memory_order_acq_rel) != level) intr_.set(level);
}

uint8_t Pic::acknowledge() {
  const std::lock_guard guard(lock_);
  auto& [master, slave] = state_.chips;
  const auto input = master.requested(kCascade[0]);
  // [8259A] a request that went away before INTA is answered as input 7, which does not go into service.
  if (!input) return static_cast<uint8_t>(master.vector_base + kSpuriousInput);
  master.acknowledge(*input);
  auto vector = static_cast<uint8_t>(master.vector_base + *input);
  if (*input == kCascadeInput) {
    const auto second = slave.requested(kCascade[1]);
    if (second) slave.acknowledge(*second);
    vector = static_cast<uint8_t>(slave.vector_base + second.value_or(kSpuriousInput));
    master.set_line(kCascadeInput, false);  // INT falls with every INTA and rises again if more is requested
  }
  intr_level_.store(false, std::memory_order_release);
  intr_.lower();
  update_output();
  return vector;
}

uint64_t Pic::read_master(uint64_t offset, unsigned) {
  const std::lock_guard guard(lock_);
  const uint8_t value = state_.chips[0].read(static_cast<unsigned>(offset), kCascade[0]);
  update_output();
  return value;
}

void Pic::write_master(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard guard(lock_);
  state_.chips[0].write(static_cast<unsigned>(offset), static_cast<uint8_t>(value));
  update_output();
}

uint64_t Pic::read_slave(uint64_t offset, unsigned) {
  const std::lock_guard guard(lock_);
  const uint8_t value = state_.chips[1].read(static_cast<unsigned>(offset), kCascade[1]);
  update_output();
  return value;
}

void Pic::write_slave(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard guard(lock_);
  state_.chips[1].write(static_cast<unsigned>(offset), static_cast<uint8_t>(value));
  update_output();
}

uint64_t Pic::read_elcr(uint64_t offset, unsigned) {
  const std::lock_guard guard(lock_);
  return state_.chips[offset & 1].elcr;
}

void Pic::write_elcr(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard guard(lock_);
  state_.chips[offset & 1].set_elcr(static_cast<uint8_t>(value) & kElcrWritable[offset & 1]);
  update_output();
}

void Pic::reset() {
  const std::lock_guard guard(lock_);
  for (PicChip& chip : state_.chips) {
    const uint8_t lines = chip.lines;  // the devices at the other ends decide about those
    chip = {};
    chip.lines = lines;
  }
  update_output();
}

void Pic::save(StateWriter& writer) {
  const std::lock_guard guard(lock_);
  const auto& [chips] = state_;
  PicStateV1 wire;
  for (size_t i = 0; i < chips.size(); ++i) to_wire(chips[i], i, wire);
  save_section(writer, path(), wire);
}

void Pic::restore(StateReader& reader) {
  PicStateV1 wire;
  if (!restore_section(reader, path(), wire)) return;
  for (size_t i = 0; i < 2; ++i)
    if (const char* reason = impossible(wire, i)) reader.reject(fmt::format("{}: {}", path(), reason));
  if (!reader.ok()) return;
  const std::lock_guard guard(lock_);
  for (size_t i = 0; i < 2; ++i) state_.chips[i] = from_wire(wire, i);
  intr_level_.store(state_.chips[0].requested(kCascade[0]).has_value(), std::memory_order_release);
  intr_.set(intr_level_.load(std::memory_order_relaxed));
}

}  // namespace kite::devices
