// A vCPU's state in KVM's own structs, and its conversion to and from x86::ArchState.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "accel/kvm/kvm_abi.h"
#include "x86/arch_state.h"
#include "x86/cpuid.h"

namespace kite {

// Everything that KVM keeps of one vCPU. What a KVM lacks (XCRs, the local APIC) stays zero and is not written.
struct KvmCpuState {
  kvm_regs regs{};
  kvm_sregs2 sregs{};          // `flags` says whether the PDPTEs are there
  std::vector<uint8_t> xsave;  // KVM_GET_XSAVE's area, standard format; empty: `fpu` holds the registers
  kvm_fpu fpu{};
  kvm_xcrs xcrs{};
  kvm_debugregs debugregs{};
  kvm_vcpu_events events{};  // what is being injected or pending: exceptions, interrupts, NMIs
  kvm_mp_state mp_state{};   // with local APICs of ours: KVM's names for Activity all the same
  std::vector<kvm_msr_entry> msrs;
  kvm_lapic_state lapic{};
  bool has_lapic = false;
  // The time-stamp counter moves by itself: only a state that changes it writes it back.
  bool writes_tsc = false;
  uint64_t tsc_offset_seen = 0;  // what to_arch() made of it

  // The value of an MSR that is part of this state.
  [[nodiscard]] std::optional<uint64_t> msr(uint32_t index) const;
  // Sets one that is part of this state; others are left alone.
  void set_msr(uint32_t index, uint64_t value);
};

// The clock side of the two conversions: ArchState keeps the TSC as an offset to the guest clock's.
struct KvmTimeBase {
  uint64_t clock_tsc = 0;  // the guest clock in TSC ticks, now
};

void to_arch(KvmCpuState& from, const KvmTimeBase& time, x86::ArchState& to);
// Leaves alone what ArchState does not know (pending events but for NMIs, the local APIC, AVX-512 registers).
void from_arch(const x86::ArchState& from, const KvmTimeBase& time, KvmCpuState& to);

// Power-on: nothing is pending, the vector registers, XCR0 and the MSRs hold their initial values, KVM's own
// paravirtual MSRs are off (so that KVM writes no more into the memory they name), the TSC starts at 0.
void reset_kvm_state(KvmCpuState& state);

// A local APIC's page as after power-on or INIT, which keeps the id [SDM 3A 11.4.7]; the version stays.
void reset_kvm_lapic(kvm_lapic_state& lapic, uint32_t id, bool power_on);
// As firmware leaves it: software-enabled, LINT0 = ExtINT on the bootstrap processor, LINT1 = NMI.
void set_virtual_wire_mode(kvm_lapic_state& lapic, bool bootstrap);

kvm_segment to_kvm_segment(const x86::SegmentRegister& segment);
x86::SegmentRegister from_kvm_segment(const kvm_segment& segment);

// The MSRs that are read and written with a vCPU's state: those that KVM keeps and CPUID announces to this guest, which
// also sees KVM's paravirtual features `kvm_features` (leaf 0x40000001). IA32_ARCH_CAPABILITIES (0x10a) is none of them
// unless CPUID.7.EDX[29] is set.
std::vector<uint32_t> state_msr_list(std::span<const uint32_t> listed_by_kvm, const x86::CpuSpec& cpu,
                                     uint32_t kvm_features, bool kernel_local_apic);

}  // namespace kite
