#include "devices/vga/vga_core.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "devices/section.h"

namespace kite::devices {

using namespace vga_regs;

namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr size_t kMostRom = 256 << 10;
// [VGA] 2-65: the cursor is seen for 8 frames of 16, blinking text for 16 of 32, at 70 Hz.
constexpr int64_t kFrameNs = 1'000'000'000 / 70, kCursorNs = 8 * kFrameNs, kTextNs = 16 * kFrameNs;

struct VgaFields {
  std::array<uint8_t, 8> general;  // misc, feature, enable, four indexes, status 1
  std::array<bool, 2> flags;       // attribute data, big-endian
  std::array<uint8_t, 8> sequencer;
  std::array<uint8_t, kCrtcRegisters> crtc;
  std::array<uint8_t, kGraphicsRegisters> graphics;
  std::array<uint8_t, kAttributeRegisters> attribute;
  uint32_t latch;
  std::array<uint8_t, 8> dac_state;  // mask, state, read, write, component, three parts of a color
  std::array<uint8_t, 768> dac;
  uint16_t dispi_index;
  std::array<uint16_t, kDispiRegisters> dispi;
  std::vector<uint8_t> memory;
};
template <class Codec>
void visit(Codec& codec, uint16_t first, VgaFields& wire) {
  codec.field(first++, wire.general);
  codec.field(first++, wire.flags);
  codec.field(first++, wire.sequencer);
  codec.field(first++, wire.crtc);
  codec.field(first++, wire.graphics);
  codec.field(first++, wire.attribute);
  codec.field(first++, wire.latch);
  codec.field(first++, wire.dac_state);
  codec.field(first++, wire.dac);
  codec.field(first++, wire.dispi_index);
  codec.field(first++, wire.dispi);
  codec.field(first++, wire.memory);
}

VgaFields to_wire(const VgaState& state) {
  const auto& [misc, feature, enable, sequencer_index, crtc_index, graphics_index, attribute_index, attribute_data,
               sequencer, crtc, graphics, attribute, status1, latch, dac_mask, dac_state, dac_read, dac_write,
               dac_component, dac_latch, dac, dispi_index, dispi, big_endian] = state;
  return {
      .general = {misc, feature, enable, sequencer_index, crtc_index, graphics_index, attribute_index, status1},
      .flags = {attribute_data, big_endian},
      .sequencer = sequencer,
      .crtc = crtc,
      .graphics = graphics,
      .attribute = attribute,
      .latch = latch,
      .dac_state = {dac_mask, dac_state, dac_read, dac_write, dac_component, dac_latch[0], dac_latch[1], dac_latch[2]},
      .dac = dac,
      .dispi_index = dispi_index,
      .dispi = dispi,
      .memory = {}};
}

VgaState from_wire(const VgaFields& wire) {
  const auto& general = wire.general;
  const auto& dac = wire.dac_state;
  return {.misc = general[0],
          .feature = general[1],
          .enable = general[2],
          .sequencer_index = general[3],
          .crtc_index = general[4],
          .graphics_index = general[5],
          .attribute_index = general[6],
          .attribute_data = wire.flags[0],
          .sequencer = wire.sequencer,
          .crtc = wire.crtc,
          .graphics = wire.graphics,
          .attribute = wire.attribute,
          .status1 = general[7],
          .latch = wire.latch,
          .dac_mask = dac[0],
          .dac_state = dac[1],
          .dac_read = dac[2],
          .dac_write = dac[3],
          .dac_component = dac[4],
          .dac_latch = {dac[5], dac[6], dac[7]},
          .dac = wire.dac,
          .dispi_index = wire.dispi_index,
          .dispi = wire.dispi,
          .big_endian = wire.flags[1]};
}

}  // namespace

Result<std::unique_ptr<VgaCore>> VgaCore::create(const std::string& path, const Config& config, const Wiring& wiring) {
  const uint64_t bytes = std::bit_ceil(std::clamp<uint64_t>(config.memory_megs, 1, kMostMegs)) * kMib;
  KITE_ASSIGN(const auto memory, RamBlock::create(path + ".vram", bytes));
  return std::unique_ptr<VgaCore>(new VgaCore(config, wiring, memory));
}

VgaCore::VgaCore(const Config& config, const Wiring& wiring, const std::shared_ptr<RamBlock>& memory)
    : edid_(config.edid),
      wiring_(wiring),
      ports_window_(*this, &VgaCore::read_ports, &VgaCore::write_ports),
      dispi_window_(*this, &VgaCore::read_dispi, &VgaCore::write_dispi),
      memory_window_(*this, &VgaCore::read_window, &VgaCore::write_window),
      mmio_window_(*this, &VgaCore::read_mmio, &VgaCore::write_mmio),
      port_region_(Region::io("vga", kPortBytes, ports_window_, {.min_size = 1, .max_size = 1})),
      dispi_region_(Region::io("dispi", kDispiPorts, dispi_window_, {.min_size = 1, .max_size = 2, .unaligned = true})),
      window_region_(Region::coalesced("vga-window", kWindowBytes, memory_window_, {.min_size = 1, .max_size = 8})),
      memory_region_(Region::ram_device("vga.vram", memory)),
      mmio_region_(Region::io("vga.mmio", kMmioBytes, mmio_window_, {.min_size = 1, .max_size = 4})),
      chip_(memory),
      picture_(memory) {
  wiring_.ports.add(kFirstPort, port_region_);
  wiring_.ports.add(kDispiPort, dispi_region_);
  wiring_.memory.add(kWindow, window_region_);
}

VgaCore::~VgaCore() {
  wiring_.memory.remove(window_region_);
  wiring_.ports.remove(dispi_region_);
  wiring_.ports.remove(port_region_);
}

Result<std::shared_ptr<Region>> make_vga_rom(const std::string& path, const std::vector<uint8_t>& image) {
  if (image.size() > kMostRom)
    return fail("{}: the VGA BIOS has {} bytes; at most {} fit", path, image.size(), kMostRom);
  KITE_ASSIGN(auto block, RamBlock::create(path + ".rom", std::max<uint64_t>(std::bit_ceil(image.size()), kPageSize)));
  std::ranges::copy(image, block->host());
  return Region::rom("vga.rom", std::move(block));
}

void VgaCore::reset() {
  const std::lock_guard lock(lock_);
  chip_.reset();
}

// --- what the guest accesses

uint64_t VgaCore::read_ports(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  return chip_.read_port(static_cast<uint16_t>(kFirstPort + offset));
}

void VgaCore::write_ports(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  chip_.write_port(static_cast<uint16_t>(kFirstPort + offset), static_cast<uint8_t>(value));
}

uint64_t VgaCore::read_dispi(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  if (size != 2 || offset > 2) return 0xffff;
  return chip_.read_dispi_port(static_cast<unsigned>(std::min<uint64_t>(offset, 1)));
}

void VgaCore::write_dispi(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  if (size != 2 || offset > 2) return;
  chip_.write_dispi_port(static_cast<unsigned>(std::min<uint64_t>(offset, 1)), static_cast<uint16_t>(value));
}

uint64_t VgaCore::read_window(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  uint64_t value = 0;
  for (unsigned byte = 0; byte < size; ++byte) value |= uint64_t{chip_.read_window(offset + byte)} << (8 * byte);
  return value;
}

void VgaCore::write_window(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  for (unsigned byte = 0; byte < size; ++byte)
    chip_.write_window(offset + byte, static_cast<uint8_t>(value >> (8 * byte)));
}

// An aligned word of the registers that are words there; zero elsewhere.
uint16_t VgaCore::read_mmio_word(uint64_t offset) {
  if (offset >= kMmioDispi && offset < kMmioDispiEnd)
    return chip_.read_dispi(static_cast<uint16_t>((offset - kMmioDispi) / 2));
  if (offset < kMmioExtension || offset >= kMmioExtensionEnd) return 0;
  const uint32_t value = offset < kMmioByteOrder    ? kExtensionBytes
                         : chip_.state().big_endian ? kBigEndian
                                                    : kLittleEndian;
  return static_cast<uint16_t>(value >> (8 * (offset & 2)));
}

uint64_t VgaCore::read_mmio(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  uint64_t value = 0;
  for (unsigned byte = 0; byte < size; ++byte) {
    const uint64_t at = offset + byte;
    uint8_t part = 0;
    if (at < edid_.size())
      part = edid_[at];
    else if (at >= kMmioVga && at < kMmioVgaEnd)
      part = chip_.read_port(static_cast<uint16_t>(kAttribute + at - kMmioVga));
    else
      part = static_cast<uint8_t>(read_mmio_word(at & ~uint64_t{1}) >> (8 * (at & 1)));
    value |= uint64_t{part} << (8 * byte);
  }
  return value;
}

void VgaCore::write_mmio(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  if (offset >= kMmioVga && offset < kMmioVgaEnd) {
    for (unsigned byte = 0; byte < size; ++byte)
      chip_.write_port(static_cast<uint16_t>(kAttribute + offset - kMmioVga + byte),
                       static_cast<uint8_t>(value >> (8 * byte)));
  } else if (offset >= kMmioDispi && offset < kMmioDispiEnd && size == 2) {
    chip_.write_dispi(static_cast<uint16_t>((offset - kMmioDispi) / 2), static_cast<uint16_t>(value));
  } else if (offset == kMmioByteOrder && size == 4 && (value == kLittleEndian || value == kBigEndian)) {
    chip_.set_big_endian(value == kBigEndian);
  }
}

// --- what people see

display::Mode VgaCore::draw(display::Surface& surface, bool all) {
  VgaState state;
  {
    const std::lock_guard lock(lock_);
    state = chip_.state();
  }
  RamBlock& memory = *chip_.memory();
  const bool logged = memory.dirty_logging();
  const std::vector<uint64_t> dirty = logged ? memory.collect_dirty() : std::vector<uint64_t>{};
  const int64_t now = wiring_.clock.now();
  const VgaPicture::Phases phases{.cursor = now / kCursorNs % 2 == 0, .text = now / kTextNs % 2 == 0};
  return picture_.draw(state, phases, logged && !all ? &dirty : nullptr, surface);
}

void VgaCore::watched(bool on) {
  RamBlock& memory = *chip_.memory();
  if (memory.dirty_logging() != on) memory.set_dirty_logging(on);
}

// --- saved state

void VgaCore::save_fields(StateWriter& writer, uint16_t first) {
  VgaFields wire{};
  {
    const std::lock_guard lock(lock_);
    wire = to_wire(chip_.state());
  }
  const RamBlock& memory = *chip_.memory();
  wire.memory.assign(memory.host(), memory.host() + memory.size());
  visit(writer, first, wire);
}

void VgaCore::restore_fields(StateReader& reader, uint16_t first) {
  VgaFields wire{};
  visit(reader, first, wire);
  const uint64_t bytes = chip_.memory()->size();
  if (!reader.ok() || !require(reader, wire.memory.size() == bytes, "the card has memory of another size here") ||
      !require(reader, VgaChip::possible(from_wire(wire), bytes), "the registers are impossible"))
    return;
  restored_ = {.state = from_wire(wire), .memory = std::move(wire.memory)};
}

void VgaCore::apply_restored() {
  const Restored restored = std::exchange(restored_, {});
  RamBlock& memory = *chip_.memory();
  const std::lock_guard lock(lock_);
  chip_.set_state(restored.state);
  std::ranges::copy(restored.memory, memory.host());
  memory.note_write(0, memory.size());
}

}  // namespace kite::devices
