// A vCPU as one section of saved state, "cpu/N": its registers, what was asked of it and not begun, and what its
// accelerator keeps besides.
#pragma once

#include <cstddef>

#include "accel/vcpu.h"
#include "state/codec.h"

namespace kite::machine {

// Whether a processor can be in this state, whatever runs on it.
[[nodiscard]] bool is_possible(const x86::ArchState& state);

// Both while the vCPU is not in run(). restore_vcpu() rejects impossible states through the reader, and then changes
// nothing.
void save_vcpu(StateWriter& writer, size_t index, Vcpu& vcpu);
void restore_vcpu(StateReader& reader, size_t index, Vcpu& vcpu);

}  // namespace kite::machine
