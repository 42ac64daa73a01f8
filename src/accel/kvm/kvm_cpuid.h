// The CPUID that a vCPU's guest sees: the CPU model's leaves, with KVM's own at 0x40000000.
#pragma once

#include <cstdint>
#include <vector>

#include "accel/kvm/kvm_abi.h"
#include "accel/kvm/kvm_system.h"
#include "accel/vcpu.h"

namespace kite {

// The paravirtual features (leaf 0x40000001, EAX) that guests get: those that KVM offers, without those that need local
// APICs in the kernel when there are none, and without those that hang where KVM has no hardware underneath (hypercalls
// of kernel code: yielding, waking and interrupting other processors).
uint32_t kvm_guest_features(const KvmSystem& system, bool kernel_local_apic);

// For KVM_SET_CPUID2.
std::vector<kvm_cpuid_entry2> guest_cpuid(const KvmSystem& system, const VcpuConfig& config, uint64_t tsc_hz,
                                          bool kernel_local_apic);

}  // namespace kite
