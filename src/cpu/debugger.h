// Debugger: what a debugger outside of the machine asks of a CPU. The guest sees nothing of it: its own debug registers
// and RFLAGS.TF (debug.cc) are as they would be without.
//
// Blocks end in front of a breakpoint, and what leads there leads to the run loop instead, in decoded and in translated
// code alike; only the instruction at a breakpoint costs something. While data is watched or one instruction is asked
// for, instructions run one at a time, as for the guest's own breakpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "accel/vcpu.h"
#include "cpu/cpu.h"

namespace kite::cpu {

struct Debugger {
  GuestDebug asked;                 // breakpoints sorted
  std::vector<uint64_t> fences;     // sorted: breakpoints that blocks end in front of, those of before included
  bool stepped = false;             // the one instruction is over
  std::optional<size_t> watch_hit;  // of asked.watches, by the running instruction
  DebugStop stop;                   // the last

  // Other wishes. True: blocks were decoded that end elsewhere.
  bool ask(const GuestDebug& wishes);
};

// Whether the run loop must look at the instruction at `linear`. Code whose linear address is not its rip may be there
// at another time: then every place on a page that is as far from its start as a breakpoint.
[[nodiscard]] bool is_fenced(const Cpu& cpu, uint64_t linear);
// Between instructions. Whether it stops because of what the last instruction did; because of the one at rip.
bool stops_behind(Cpu& cpu);
bool stops_at_breakpoint(Cpu& cpu);
// Whether the instruction at rip must be run by itself.
[[nodiscard]] bool debugger_steps(const Cpu& cpu);
// Behind that instruction, which may have called out to where the debugger has left.
void end_debuggers_step(Cpu& cpu);
[[nodiscard]] bool debugger_watches_data(const Cpu& cpu);
// Looks for the debugger's watchpoints. An access that reads and writes is told as both.
void note_debuggers_access(Cpu& cpu, uint64_t linear, unsigned bytes, bool write);
[[nodiscard]] bool debugger_watches_page(const Cpu& cpu, uint64_t page);

}  // namespace kite::cpu
