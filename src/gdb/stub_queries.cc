// What GDB asks about the machine, and about the stub.
#include <algorithm>

#include "gdb/stub.h"
#include "monitor/human_commands.h"

namespace kite::gdb {

namespace {

// QEMU's names: bits of what a single step is.
enum StepBits : uint64_t { kStepEnable = 1, kStepNoIrq = 2 };

}  // namespace

void Stub::extended(std::string_view) { reply("OK"); }

// --- threads

// [E.2, H] g: for registers and memory, c: for s and c.
void Stub::choose_thread(std::string_view rest) {
  const bool runs = take(rest, "c");
  if (!runs && !take(rest, "g")) return reply("");
  const auto meant = threads(rest);
  if (!meant) return reply(kBadArgument);
  if (rest != "-1" && rest != "0") (runs ? run_thread_ : thread_) = meant->first;
  reply("OK");
}

void Stub::thread_alive(std::string_view rest) {
  const auto meant = threads(rest);
  reply_ok(meant && meant->end - meant->first == 1);
}

void Stub::current_thread(std::string_view rest) {
  if (!rest.empty()) return unknown(rest);  // qCRC
  reply(fmt::format("QC{:02x}", thread_ + 1));
}

void Stub::first_threads(std::string_view rest) {
  next_thread_ = 0;
  more_threads(rest);
}

void Stub::more_threads(std::string_view) {
  constexpr size_t kAtOnce = 256;
  std::string text;
  for (size_t end = std::min(machine_.vcpu_count(), next_thread_ + kAtOnce); next_thread_ < end; ++next_thread_)
    text += fmt::format("{}{:02x}", text.empty() ? "m" : ",", next_thread_ + 1);
  reply(text.empty() ? "l" : text);
}

void Stub::thread_info(std::string_view rest) {
  const auto meant = threads(rest);
  if (!meant) return reply(kBadArgument);
  const bool runs = state_of(meant->first).activity == x86::Activity::kActive;
  reply(to_hex(fmt::format("CPU#{} [{}]", meant->first, runs ? "running" : "halted ")));
}

void Stub::attached(std::string_view) { reply("1"); }

// --- what the stub can do

void Stub::supported(std::string_view rest) {
  take(rest, ":");
  while (!rest.empty()) {
    const std::string_view feature = rest.substr(0, rest.find(';'));
    rest.remove_prefix(std::min(rest.size(), feature.size() + 1));
    tells_sw_ |= feature == "swbreak+";
    tells_hw_ |= feature == "hwbreak+";
  }
  reply(fmt::format("PacketSize={:x};qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+",
                    PacketReader::kMostBytes));
}

// [E.4, qXfer] "ANNEX:OFFSET,LENGTH"; 'l' in front of the last part.
void Stub::description(std::string_view rest) {
  if (!take(rest, "target.xml:")) return reply("E00");
  const auto offset = take_number(rest);
  const bool comma = take(rest, ",");
  const auto length = take_number(rest);
  if (!offset || !comma || !length || !rest.empty() || *offset > description_.size()) return reply("E00");
  const std::string_view left = std::string_view(description_).substr(*offset);
  const std::string_view part = left.substr(0, std::min<uint64_t>(*length, PacketReader::kMostBytes / 2));
  described_ = true;
  reply(fmt::format("{}{}", part.size() == left.size() ? 'l' : 'm', part));
}

void Stub::acknowledge_no_more(std::string_view) {
  reply("OK");
  acknowledges_ = false;
}

// --- Kite's monitor

// [E.4, qRcmd] What it says comes in packets of its own.
void Stub::monitor_command(std::string_view rest) {
  const auto line = from_hex(rest);
  if (!line) return reply(kBadArgument);
  const std::string said =
      monitor::run_human_command(monitor_, {reinterpret_cast<const char*>(line->data()), line->size()});
  constexpr size_t kAtOnce = PacketReader::kMostBytes / 2 - 1;
  for (std::string_view left = said; !left.empty(); left.remove_prefix(std::min(left.size(), kAtOnce)))
    reply("O" + to_hex(left.substr(0, kAtOnce)));
  reply("OK");
}

// --- QEMU's own packets

void Stub::physical_mode(std::string_view) { reply(view_.physical() ? "1" : "0"); }

void Stub::set_physical_mode(std::string_view rest) {
  const auto mode = take_number(rest);
  if (!mode || !rest.empty()) return reply(kBadArgument);
  view_.set_physical(*mode != 0);
  reply("OK");
}

void Stub::step_bits(std::string_view) {
  reply(fmt::format("ENABLE={:x},NOIRQ={:x}", uint64_t{kStepEnable}, uint64_t{kStepNoIrq}));
}

void Stub::step_mode(std::string_view) {
  reply(fmt::format("{:#x}", kStepEnable | (hold_interrupts_ ? kStepNoIrq : 0)));
}

void Stub::set_step_mode(std::string_view rest) {
  take(rest, "0x");
  const auto bits = take_number(rest);
  if (!bits || !rest.empty() || (*bits & kStepEnable) == 0 || *bits > (kStepEnable | kStepNoIrq))
    return reply(kBadArgument);
  hold_interrupts_ = (*bits & kStepNoIrq) != 0;
  reply("OK");
}

}  // namespace kite::gdb
