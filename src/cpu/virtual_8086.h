// Virtual interrupts: what CR4.VME gives to virtual-8086 mode and CR4.PVI to protected mode at privilege 3. Below IOPL
// 3 a program then works on VIF in place of IF (SDM 3B 21.3, 21.4). Internal to cpu/.
#pragma once

#include <cstdint>

#include "cpu/cpu.h"

namespace kite::cpu {

// CLI and STI where IF is not the program's own: change VIF, or raise. False: #GP(0).
bool clear_virtual_interrupt(Cpu& cpu);
bool set_virtual_interrupt(Cpu& cpu);

// Whether the running virtual-8086 program is below IOPL 3 with VME, and the operand of PUSHF, POPF or IRET is 16 bits
// wide: then these see VIF at the place of IF, and IOPL as 3.
bool has_virtual_flags(const Cpu& cpu, unsigned bytes);
// FLAGS as such a program sees it.
uint16_t virtual_flags(const Cpu& cpu);
// Loads it. False: #GP(0), for TF, or for an interrupt flag that would be set while an interrupt is pending.
bool load_virtual_flags(Cpu& cpu, uint16_t value);

// How INT n is served in virtual-8086 mode (SDM table 21-2).
enum class IntRoute : uint8_t {
  kRaised,    // an exception was raised
  kIdt,       // through the IDT
  kRealMode,  // through the program's own vector table at 0
};
IntRoute route_software_interrupt(Cpu& cpu, uint8_t vector);
// Enters the handler of the vector table at 0 of the virtual-8086 task. False: an exception was raised.
bool enter_real_mode_handler(Cpu& cpu, uint8_t vector, uint64_t next_rip);

}  // namespace kite::cpu
