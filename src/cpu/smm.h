// System-management mode: entering it, leaving it, and the map that the processor state is saved in (APM 2 10.2, 10.3;
// SDM 3C 32.4). A CPU in this mode sees VcpuConfig::smm_memory. Internal to cpu/.
#pragma once

#include "cpu/cpu.h"

namespace kite::cpu {

// Takes an SMI: saves the state at SMBASE and goes on at SMBASE + 8000H. Between instructions.
void enter_smm(Cpu& cpu);
// RSM. False: the saved state is impossible, and the CPU shuts down. The caller has seen that the CPU is in the mode.
bool leave_smm(Cpu& cpu);

}  // namespace kite::cpu
