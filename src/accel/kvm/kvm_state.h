// A vCPU's state in KVM's own structs, and its conversion to and from x86::ArchState.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "accel/kvm/kvm_abi.h"
#include "x86/arch_state.h"
#include "x86/cpuid.h"

namespace kite {

// Everything that KVM keeps of one vCPU. What a KVM lacks (XCRs, the local APIC) stays zero and is not written.
struct KvmCpuState {
  kvm_regs regs{};
  kvm_sregs2 sregs{};          // `flags` says whether the PDPTEs are there; interrupt_bitmap is not part of sregs2
  std::vector<uint8_t> xsave;  // KVM_GET_XSAVE2's area, standard format; empty: `fpu` holds the registers
  kvm_fpu fpu{};
  kvm_xcrs xcrs{};
  kvm_debugregs debugregs{};
  kvm_vcpu_events events{};  // what is being injected or pending: exceptions, interrupts, NMIs
  kvm_mp_state mp_state{};
  std::vector<kvm_msr_entry> msrs;
  kvm_lapic_state lapic{};
  bool has_lapic = false;
};

// The clock side of the two conversions: ArchState keeps the TSC as an offset to the guest clock's.
struct KvmTimeBase {
  uint64_t clock_tsc = 0;  // the guest clock in TSC ticks, now
};

void to_arch(const KvmCpuState& from, const KvmTimeBase& time, x86::ArchState& to);
// Leaves alone what ArchState does not know (pending events but for NMIs, the local APIC, AVX registers).
void from_arch(const x86::ArchState& from, const KvmTimeBase& time, KvmCpuState& to);

// The MSRs that are read and written with a vCPU's state: those that KVM lists and CPUID announces to this guest.
// 0x10a (IA32_ARCH_CAPABILITIES) is none of them unless CPUID.7.EDX[29] is set.
std::vector<uint32_t> state_msr_list(std::span<const uint32_t> listed_by_kvm, const x86::CpuSpec& cpu);

}  // namespace kite
