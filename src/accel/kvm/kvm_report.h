// Words for people: the names of exits, and what to say when a vCPU cannot go on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "accel/kvm/kvm_abi.h"
#include "x86/arch_state.h"

namespace kite {

// "IO", "MMIO", ... as <linux/kvm.h> names them; "unknown" for what it lacks.
std::string_view kvm_exit_name(uint32_t reason);
// True for the exits of other architectures, which an x86 vCPU cannot have.
bool kvm_exit_is_foreign(uint32_t reason);
std::string_view internal_error_name(uint32_t suberror);
// What to do about KVM_EXIT_FAIL_ENTRY with this reason of the processor's.
std::string_view fail_entry_hint(uint64_t reason);

// The registers in a dozen lines.
std::string describe_registers(const x86::ArchState& state);
// "0f c7 4d 00 ..."
std::string describe_code(std::span<const uint8_t> bytes);

}  // namespace kite
