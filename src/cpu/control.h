// What the MSRs and the instructions of system software share with the control registers. Internal to cpu/.
#pragma once

#include <cstdint>

#include "cpu/cpu.h"

namespace kite::cpu {

// IA32_EFER: reserved bits by offered features, LME only while paging is off. False: #GP was raised.
bool write_efer(Cpu& cpu, uint64_t value);

// The bits that may be set, by the features that are offered; of EFER without LMA, which follows CR0.PG.
[[nodiscard]] uint64_t offered_cr4(const Cpu& cpu);
[[nodiscard]] uint64_t offered_efer(const Cpu& cpu);

}  // namespace kite::cpu
