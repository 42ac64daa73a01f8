// Delivery of exceptions and interrupts, and what the run loop does around single-stepped instructions.
//
// Everything is delivered between instructions, with cpu.state.rip as the return address: the faulting instruction for
// faults (KITE_FAULT put it there), the next instruction for traps and interrupts. Delivery changes nothing until all
// of its checks and stack writes have passed.
//
// The run loop:
//   if (cpu.exception && !deliver_exception(cpu)) return Exit::kShutdown;
//   if (must_step(cpu)) {              // else: whole blocks; none of this can matter
//     if (begin_step(cpu)) { run exactly one instruction; if (!cpu.exception) end_step(cpu); }
//   }
// A repeated string instruction ends after an iteration that left cpu.debug_hits non-zero, or when
// cpu.debug.one_element is set, with rip at itself while iterations remain.
#pragma once

#include <cstdint>

#include "cpu/cpu.h"

namespace kite::cpu {

// Delivers cpu.exception, which must have a value, with the rules for contributory exceptions and double faults
// (SDM 3A 6.15). False: triple fault, the CPU shuts down.
bool deliver_exception(Cpu& cpu);
// Takes an external interrupt that was acknowledged. The caller has looked at IF and the shadow. False: shutdown.
bool deliver_interrupt(Cpu& cpu, uint8_t vector);
// Takes an NMI and blocks further ones until IRET. The caller has looked at nmi_blocked. False: shutdown.
bool deliver_nmi(Cpu& cpu);

// Whether instructions must be run one at a time, between begin_step() and end_step(): single step, an armed
// breakpoint, RF to be cleared, or a debug trap that MOV SS holds back.
[[nodiscard]] inline bool must_step(const Cpu& cpu) {
  return (cpu.state.rflags & (x86::flag::kTf | x86::flag::kRf)) != 0 || cpu.debug_hits != 0 ||
         (cpu.debug.code_armed | cpu.debug.data_armed | cpu.debug.io_armed) != 0;
}
// Before the instruction at rip: notes TF and looks at instruction breakpoints. False: #DB was raised, as a fault.
bool begin_step(Cpu& cpu);
// After an instruction that raised nothing: clears RF, and raises #DB as a trap when a single step or data breakpoint
// is due. False: raised.
bool end_step(Cpu& cpu);

// Raises #DB with these bits in DR6 (SDM 3B 18.2.3: B0-B3 are set anew, the rest is sticky). Answers false.
bool raise_debug(Cpu& cpu, uint64_t bits);
// Whether an enabled instruction breakpoint stands at `linear`; raises #DB if so. RF holds it back.
bool code_breakpoint_hit(Cpu& cpu, uint64_t linear);
// Notes data breakpoints (mmu.cc) and I/O breakpoints (Cpu::check_io) that an access touches.
void note_data_access(Cpu& cpu, uint64_t linear, unsigned bytes, bool write);
void note_io_access(Cpu& cpu, uint16_t port, unsigned bytes);
// Whether a data breakpoint lies in the 4 KiB page at `page`.
bool data_breakpoint_in_page(const Cpu& cpu, uint64_t page);

}  // namespace kite::cpu
