#include "cpu/debugger.h"

#include <algorithm>
#include <utility>

#include "cpu/block.h"

namespace kite::cpu {

namespace {

using Watch = GuestDebug::Watch;

bool overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) {
  return a <= b + (b_bytes - 1) && b <= a + (a_bytes - 1);
}

bool sees(const Watch& watch, bool write) {
  switch (watch.kind) {
    case Watch::Kind::kExecute: return false;
    case Watch::Kind::kWrite: return write;
    case Watch::Kind::kRead: return !write;
    case Watch::Kind::kAccess: return true;
  }
  return false;
}

bool watches_data(const GuestDebug& asked) {
  return std::ranges::any_of(asked.watches, [](const Watch& watch) { return watch.kind != Watch::Kind::kExecute; });
}

}  // namespace

// A breakpoint that is taken out and put in again, as gdb does around each step, costs no decoding.
bool Debugger::ask(const GuestDebug& wishes) {
  asked = wishes;
  for (const Watch& watch : asked.watches)
    if (watch.kind == Watch::Kind::kExecute) asked.breakpoints.push_back(watch.address);
  std::ranges::sort(asked.breakpoints);
  stepped = false;
  watch_hit.reset();
  if (std::ranges::includes(fences, asked.breakpoints)) return false;
  fences = asked.breakpoints;
  return true;
}

void Cpu::set_debugger(const GuestDebug& wishes) {
  const bool wanted = wishes != GuestDebug{};
  if (!wanted && debugger == nullptr) return;
  if (wanted && debugger == nullptr) debugger = std::make_unique<Debugger>();
  const bool fenced = !debugger->fences.empty();
  if (wanted ? debugger->ask(wishes) : fenced) map_changed(true);
  if (!wanted) debugger.reset();
  debug_hits &= ~(1u << kDebuggersBit);
  update_debug();
}

DebugStop Cpu::debug_stop() const { return debugger != nullptr ? debugger->stop : DebugStop{}; }

bool debugger_watches_data(const Cpu& cpu) { return cpu.debugger != nullptr && watches_data(cpu.debugger->asked); }

bool is_fenced(const Cpu& cpu, uint64_t linear) {
  if (cpu.debugger == nullptr) return false;
  const std::vector<uint64_t>& fences = cpu.debugger->fences;
  if ((cpu.mode_key & mode::kZeroCs) != 0) return std::ranges::binary_search(fences, linear);
  return std::ranges::any_of(fences, [linear](uint64_t fence) { return ((fence ^ linear) & (kPageSize - 1)) == 0; });
}

bool stops_behind(Cpu& cpu) {
  Debugger& debugger = *cpu.debugger;
  const bool hit = (cpu.debug_hits >> kDebuggersBit & 1) != 0;
  if (!hit && !debugger.stepped) return false;
  cpu.debug_hits &= ~(1u << kDebuggersBit);
  debugger.stop = {.rip = cpu.code_linear(),
                   .dr6 = std::exchange(debugger.stepped, false) ? x86::dr6::kBs : uint64_t{0},
                   .watch = std::exchange(debugger.watch_hit, std::nullopt)};
  return true;
}

// A step begins at a breakpoint and leaves it.
bool stops_at_breakpoint(Cpu& cpu) {
  Debugger& debugger = *cpu.debugger;
  const uint64_t linear = cpu.code_linear();
  if (debugger.asked.single_step || !std::ranges::binary_search(debugger.asked.breakpoints, linear)) return false;
  debugger.stop = {.rip = linear, .breakpoint = true};
  return true;
}

bool debugger_steps(const Cpu& cpu) { return cpu.debugger->asked.single_step || is_fenced(cpu, cpu.code_linear()); }

void end_debuggers_step(Cpu& cpu) {
  if (cpu.debugger == nullptr) return;
  cpu.debugger->stepped = std::exchange(cpu.debugger->asked.single_step, false);
  cpu.debugger->asked.hold_interrupts = false;
}

void note_debuggers_access(Cpu& cpu, uint64_t linear, unsigned bytes, bool write) {
  Debugger& debugger = *cpu.debugger;
  for (size_t i = 0; i < debugger.asked.watches.size(); ++i) {
    const Watch& watch = debugger.asked.watches[i];
    if (!sees(watch, write) || !overlaps(watch.address, watch.bytes, linear, bytes)) continue;
    if (!debugger.watch_hit) debugger.watch_hit = i;
    cpu.debug_hits |= 1u << kDebuggersBit;
  }
}

bool debugger_watches_page(const Cpu& cpu, uint64_t page) {
  return std::ranges::any_of(cpu.debugger->asked.watches, [page](const Watch& watch) {
    return watch.kind != Watch::Kind::kExecute && overlaps(watch.address, watch.bytes, page, kPageSize);
  });
}

}  // namespace kite::cpu
