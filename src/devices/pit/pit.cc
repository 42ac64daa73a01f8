#include "devices/pit/pit.h"

#include <algorithm>
#include <utility>

#include "devices/section.h"

namespace kite::devices {
namespace {

constexpr uint64_t kControlOffset = 3;
constexpr unsigned kReadBack = 3;

// OUT0 is followed no faster than this many pulses, about 10 us: edges that are nearer to each other are shown as one,
// as they are one to an interrupt controller that has not been answered yet.
constexpr uint64_t kShortestInterval = 12;

// Port 0x61. [PIIX3] 2.5.6
constexpr uint8_t kGate2 = 1u << 0;         // rw
constexpr uint8_t kSpeakerWritable = 0x0f;  // rw gate, speaker data, and the two NMI source switches
constexpr uint8_t kRefresh = 1u << 4;       // r- toggles with every refresh request
constexpr uint8_t kOut2 = 1u << 5;          // r-
constexpr uint64_t kRefreshPulses = 18;     // what firmware programs into counter 1: 15.09 us

struct PitStateV1 {
  static constexpr uint32_t kVersion = 1;
  template <class T>
  using Three = std::array<T, 3>;
  Three<uint8_t> mode{}, bcd{}, access{}, gate{}, counting{}, reload_waits{}, write_high_next{}, write_low{},
      read_high_next{}, latched_bytes{}, status_latched{}, status{};
  Three<uint16_t> latch{};
  Three<uint32_t> reload{}, active{};
  Three<uint64_t> anchor{}, base{}, reload_at{};
  uint8_t speaker = 0, irq_level = 0, rise_expected = 0;
  uint64_t rise_at = 0, not_before = 0;
};

template <class Codec>
void visit(Codec& codec, PitStateV1& s) {
  uint16_t number = 1;
  for (auto* field : {&s.mode, &s.bcd, &s.access, &s.gate, &s.counting, &s.reload_waits, &s.write_high_next,
                      &s.write_low, &s.read_high_next, &s.latched_bytes, &s.status_latched, &s.status})
    codec.field(number++, *field);
  codec.field(number++, s.latch);
  for (auto* field : {&s.reload, &s.active}) codec.field(number++, *field);
  for (auto* field : {&s.anchor, &s.base, &s.reload_at}) codec.field(number++, *field);
  for (auto* field : {&s.speaker, &s.irq_level, &s.rise_expected}) codec.field(number++, *field);
  codec.field(number++, s.rise_at);
  codec.field(number++, s.not_before);
}

void to_wire(const PitCounter& counter, size_t i, PitStateV1& w) {
  const auto& [mode, bcd, access, gate, reload, active, counting, anchor, base, reload_waits, reload_at,
               write_high_next, write_low, read_high_next, latched_bytes, latch, status_latched, status] = counter;
  w.mode[i] = mode;
  w.bcd[i] = bcd;
  w.access[i] = static_cast<uint8_t>(access);
  w.gate[i] = gate;
  w.reload[i] = reload;
  w.active[i] = active;
  w.counting[i] = counting;
  w.anchor[i] = anchor;
  w.base[i] = base;
  w.reload_waits[i] = reload_waits;
  w.reload_at[i] = reload_at;
  w.write_high_next[i] = write_high_next;
  w.write_low[i] = write_low;
  w.read_high_next[i] = read_high_next;
  w.latched_bytes[i] = latched_bytes;
  w.latch[i] = latch;
  w.status_latched[i] = status_latched;
  w.status[i] = status;
}

const char* impossible(const PitStateV1& w, size_t i) {
  constexpr uint32_t kLargest = 0x10000;
  for (const auto* flags :
       {&w.bcd, &w.gate, &w.counting, &w.reload_waits, &w.write_high_next, &w.read_high_next, &w.status_latched})
    if ((*flags)[i] > 1) return "a flag is neither 0 nor 1";
  if (w.mode[i] > 5) return "the mode is above 5";
  if (w.access[i] < 1 || w.access[i] > 3) return "the access mode is not 1, 2 or 3";
  if (w.latched_bytes[i] > 2) return "more than two bytes are latched";
  if (w.reload[i] > kLargest || w.active[i] > kLargest) return "a count is above 65536";
  if (w.active[i] != 0 && w.reload[i] == 0) return "it counts without a count";
  if (w.counting[i] != 0 && w.active[i] == 0) return "it counts from nothing";
  if (w.reload_waits[i] != 0 && (w.active[i] == 0 || (w.mode[i] != 2 && w.mode[i] != 3)))
    return "a count waits for a cycle that there is not";
  return nullptr;
}

PitCounter from_wire(const PitStateV1& w, size_t i) {
  return {.mode = w.mode[i],
          .bcd = w.bcd[i] != 0,
          .access = static_cast<PitCounter::Access>(w.access[i]),
          .gate = w.gate[i] != 0,
          .reload = w.reload[i],
          .active = w.active[i],
          .counting = w.counting[i] != 0,
          .anchor = w.anchor[i],
          .base = w.base[i],
          .reload_waits = w.reload_waits[i] != 0,
          .reload_at = w.reload_at[i],
          .write_high_next = w.write_high_next[i] != 0,
          .write_low = w.write_low[i],
          .read_high_next = w.read_high_next[i] != 0,
          .latched_bytes = w.latched_bytes[i],
          .latch = w.latch[i],
          .status_latched = w.status_latched[i] != 0,
          .status = w.status[i]};
}

}  // namespace

Pit::Pit(std::string path, bus::IrqLine irq, Clock& clock)
    : Device(std::move(path)), irq_(irq), clock_(clock), timer_(clock, [this] { timer_fired(); }) {
  constexpr AccessRule kBytes{.min_size = 1, .max_size = 1};
  counter_region_ = Region::io("pit", 4, counter_window_, kBytes);
  speaker_region_ = Region::io("pit-speaker", 1, speaker_window_, kBytes);
  state_.counters[2].gate = false;
}

uint64_t Pit::read_counter(uint64_t offset, unsigned) {
  if (offset >= kControlOffset) return 0xff;  // the control word register cannot be read
  const std::lock_guard guard(lock_);
  return state_.counters[offset].read(now());
}

void Pit::write_counter(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard guard(lock_);
  const uint64_t at = now();
  drive_irq(at);
  if (offset == kControlOffset) {
    write_control(at, static_cast<uint8_t>(value));
  } else {
    state_.counters[offset & 3].write_count(at, static_cast<uint8_t>(value));
  }
  drive_irq(at);
  schedule(at);
}

void Pit::write_control(uint64_t now, uint8_t value) {
  const unsigned select = value >> 6;
  if (select == kReadBack) return read_back(now, value);
  if ((value & 0x30) == 0) return state_.counters[select].latch_count(now);
  state_.counters[select].write_control(value);
}

// [8254] read-back command: bit 5 low latches counts, bit 4 low latches status, bits 3:1 choose counters.
void Pit::read_back(uint64_t now, uint8_t command) {
  for (unsigned i = 0; i < state_.counters.size(); ++i) {
    if ((command >> (i + 1) & 1) == 0) continue;
    if ((command & 0x20) == 0) state_.counters[i].latch_count(now);
    if ((command & 0x10) == 0) state_.counters[i].latch_status(now);
  }
}

uint64_t Pit::read_speaker(uint64_t, unsigned) {
  const std::lock_guard guard(lock_);
  const uint64_t at = now();
  const bool refresh = (at / kRefreshPulses & 1) != 0;
  return state_.speaker | (refresh ? kRefresh : 0u) | (state_.counters[2].out(at) ? kOut2 : 0u);
}

void Pit::write_speaker(uint64_t, unsigned, uint64_t value) {
  const std::lock_guard guard(lock_);
  state_.speaker = static_cast<uint8_t>(value) & kSpeakerWritable;
  state_.counters[2].set_gate(now(), (state_.speaker & kGate2) != 0);
}

// Brings IRQ 0 to where OUT0 is at `now`, with an edge for the edges that have passed since it was last looked at.
void Pit::drive_irq(uint64_t now) {
  PitCounter& counter = state_.counters[0];
  const bool level = counter.out(now);
  if (state_.rise_expected && now >= state_.rise_at) {
    if (state_.irq_level) irq_.lower();
    irq_.raise();
    state_.irq_level = true;
  }
  if (level != state_.irq_level) irq_.set(level);
  state_.irq_level = level;
  const auto rise = counter.next_rise(now);
  state_.rise_expected = rise.has_value();
  state_.rise_at = rise.value_or(0);
}

void Pit::schedule(uint64_t now) {
  const auto next = state_.counters[0].next_change(now);
  if (!next) return timer_.disarm();
  timer_.arm_at(kRate.to_ns(std::max(*next, state_.not_before)));
}

void Pit::timer_fired() {
  const std::lock_guard guard(lock_);
  if (stopped_) return;
  const uint64_t at = now();
  drive_irq(at);
  state_.not_before = at + kShortestInterval;
  schedule(at);
}

void Pit::reset() {
  const std::lock_guard guard(lock_);
  state_ = {};
  state_.counters[2].gate = false;
  irq_.set(state_.irq_level);
  timer_.disarm();
}

void Pit::start() {
  const std::lock_guard guard(lock_);
  stopped_ = false;
  drive_irq(now());
  schedule(now());
}

void Pit::stop() {
  const std::lock_guard guard(lock_);
  stopped_ = true;
}

void Pit::save(StateWriter& writer) {
  const std::lock_guard guard(lock_);
  const auto& [counters, speaker, irq_level, rise_expected, rise_at, not_before] = state_;
  PitStateV1 wire;
  for (size_t i = 0; i < counters.size(); ++i) to_wire(counters[i], i, wire);
  wire.speaker = speaker;
  wire.irq_level = irq_level;
  wire.rise_expected = rise_expected;
  wire.rise_at = rise_at;
  wire.not_before = not_before;
  save_section(writer, path(), wire);
}

void Pit::restore(StateReader& reader) {
  PitStateV1 wire;
  if (!restore_section(reader, path(), wire)) return;
  for (size_t i = 0; i < 3; ++i)
    if (const char* reason = impossible(wire, i)) reader.reject(fmt::format("{}: counter {}: {}", path(), i, reason));
  if ((wire.speaker & ~kSpeakerWritable) != 0 || wire.irq_level > 1 || wire.rise_expected > 1)
    reader.reject(fmt::format("{}: a flag has an unknown value", path()));
  if ((wire.speaker & kGate2) != wire.gate[2] || wire.gate[0] != 1 || wire.gate[1] != 1)
    reader.reject(fmt::format("{}: a gate differs from its wire", path()));
  if (!reader.ok()) return;
  const std::lock_guard guard(lock_);
  for (size_t i = 0; i < 3; ++i) state_.counters[i] = from_wire(wire, i);
  state_.speaker = wire.speaker;
  state_.irq_level = wire.irq_level != 0;
  state_.rise_expected = wire.rise_expected != 0;
  state_.rise_at = wire.rise_at;
  state_.not_before = wire.not_before;
  schedule(now());
}

}  // namespace kite::devices
