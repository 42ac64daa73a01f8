#include "accel/kvm/kvm_cpuid.h"

#include <algorithm>
#include <iterator>

#include "x86/host_features.h"

namespace kite {

namespace {

using x86::CpuidRegs;
using x86::FeatureWord;

// KVM's leaves [Linux Documentation/virt/kvm/x86/cpuid.rst].
constexpr uint32_t kSignatureLeaf = 0x40000000, kFeatureLeaf = 0x40000001, kExtendedLeaf = 0x80000000;
enum KvmFeature : uint32_t {
  kPvEoi = 1u << 6,
  kPvUnhalt = 1u << 7,
  kPvSendIpi = 1u << 11,
  kPollControl = 1u << 12,
  kPvSchedYield = 1u << 13,
  kAsyncPf = 1u << 4,
  kAsyncPfVmexit = 1u << 10,
  kAsyncPfInt = 1u << 14,
  kMsiExtDestId = 1u << 15,
  kHcMapGpaRange = 1u << 16,
  kMigrationControl = 1u << 17,
};
constexpr uint32_t kNeedsKernelApic =
    kPvEoi | kPvUnhalt | kPvSendIpi | kPvSchedYield | kPollControl | kAsyncPf | kAsyncPfVmexit | kAsyncPfInt;
constexpr uint32_t kNeedsHypercalls = kPvUnhalt | kPvSendIpi | kPvSchedYield;
// What needs a monitor's help that nothing here gives.
constexpr uint32_t kNotServed = kMsiExtDestId | kHcMapGpaRange | kMigrationControl;

// Hardware virtualization: this processor has it, so KVM runs on it.
bool real_virtualization() {
  const x86::FeatureSet host = x86::host_features();
  const bool vmx = (host[static_cast<size_t>(FeatureWord::k1Ecx)] >> 5 & 1) != 0;
  const bool svm = (host[static_cast<size_t>(FeatureWord::k80000001Ecx)] >> 2 & 1) != 0;
  return vmx || svm;
}

class Builder {
 public:
  Builder(const x86::CpuSpec& spec, const x86::CpuidDynamic& dynamic) : spec_(spec), dynamic_(dynamic) {}

  void add(uint32_t leaf) { push(leaf, 0, 0, ask(leaf, 0)); }
  // All subleaves up to `last`; empty ones are left out but for the first.
  void add_subleaves(uint32_t leaf, uint32_t last) {
    for (uint32_t index = 0; index <= last; ++index)
      if (const CpuidRegs regs = ask(leaf, index); index == 0 || regs != CpuidRegs{})
        push(leaf, index, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, regs);
  }
  // Subleaves until one says "no more", which is part of the answer.
  void add_until(uint32_t leaf, bool (*last)(const CpuidRegs&)) {
    constexpr uint32_t kMost = 32;
    for (uint32_t index = 0; index < kMost; ++index) {
      const CpuidRegs regs = ask(leaf, index);
      push(leaf, index, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, regs);
      if (last(regs)) return;
    }
  }
  void push(uint32_t leaf, uint32_t index, uint32_t flags, const CpuidRegs& regs) {
    kvm_cpuid_entry2 entry{};
    entry.function = leaf;
    entry.index = index;
    entry.flags = flags;
    entry.eax = regs.eax;
    entry.ebx = regs.ebx;
    entry.ecx = regs.ecx;
    entry.edx = regs.edx;
    entries_.push_back(entry);
  }
  std::vector<kvm_cpuid_entry2> take() { return std::move(entries_); }

 private:
  [[nodiscard]] CpuidRegs ask(uint32_t leaf, uint32_t index) const { return x86::cpuid(spec_, dynamic_, leaf, index); }

  const x86::CpuSpec& spec_;
  const x86::CpuidDynamic& dynamic_;
  std::vector<kvm_cpuid_entry2> entries_;
};

bool no_cache(const CpuidRegs& regs) { return (regs.eax & 0x1f) == 0; }
bool no_level(const CpuidRegs& regs) { return (regs.ecx >> 8 & 0xff) == 0; }

void add_leaf(Builder& builder, uint32_t leaf) {
  switch (leaf) {
    case 0x4:
    case 0x8000001d: return builder.add_until(leaf, no_cache);
    case 0x7: return builder.add_subleaves(leaf, 2);
    case 0xb:
    case 0x1f: return builder.add_until(leaf, no_level);
    case 0xd: return builder.add_subleaves(leaf, 63);
    case 0x14:
    case 0x17:
    case 0x18: return builder.add_subleaves(leaf, 1);
    default: return builder.add(leaf);
  }
}

uint8_t physical_bits(const KvmSystem& system) {
  constexpr uint8_t kShown = 40;
  const kvm_cpuid_entry2* const sizes = system.find_cpuid(0x80000008);
  const auto host = static_cast<uint8_t>(sizes == nullptr ? 36 : sizes->eax & 0xff);
  return host == 0 ? kShown : std::min(kShown, host);
}

}  // namespace

uint32_t kvm_guest_features(const KvmSystem& system, bool kernel_local_apic) {
  const kvm_cpuid_entry2* const offered = system.find_cpuid(kFeatureLeaf);
  uint32_t features = offered == nullptr ? 0 : offered->eax & ~kNotServed;
  if (!kernel_local_apic) features &= ~kNeedsKernelApic;
  if (!real_virtualization()) features &= ~kNeedsHypercalls;
  return features;
}

std::vector<kvm_cpuid_entry2> guest_cpuid(const KvmSystem& system, const VcpuConfig& config, uint64_t tsc_hz,
                                          bool kernel_local_apic) {
  const x86::CpuSpec& spec = *config.cpu;
  // KVM keeps the bits that follow state (APIC, OSXSAVE, OSPKE, the size of the XSAVE area) up to date by itself.
  const x86::CpuidDynamic dynamic{.apic_id = config.apic_id,
                                  .topology = config.topology,
                                  .physical_bits = physical_bits(system),
                                  .linear_bits = static_cast<uint8_t>(spec.has(FeatureWord::k7Ecx, 16) ? 57 : 48),
                                  .tsc_hz = tsc_hz};
  Builder builder(spec, dynamic);
  constexpr uint32_t kMostBasic = 0x20, kMostExtended = 0x80000021;
  const uint32_t last_basic = x86::cpuid(spec, dynamic, 0, 0).eax;
  for (uint32_t leaf = 0; leaf <= std::min(last_basic, kMostBasic); ++leaf) add_leaf(builder, leaf);
  constexpr unsigned kHypervisor = 31;
  if (spec.has(FeatureWord::k1Ecx, kHypervisor)) {
    if (const kvm_cpuid_entry2* signature = system.find_cpuid(kSignatureLeaf); signature != nullptr) {
      builder.push(kSignatureLeaf, 0, 0,
                   {.eax = kFeatureLeaf, .ebx = signature->ebx, .ecx = signature->ecx, .edx = signature->edx});
      builder.push(kFeatureLeaf, 0, 0,
                   {.eax = kvm_guest_features(system, kernel_local_apic), .ebx = 0, .ecx = 0, .edx = 0});
    }
  }
  for (uint32_t leaf = kExtendedLeaf; leaf <= std::min(std::max(spec.xlevel, kExtendedLeaf), kMostExtended); ++leaf)
    add_leaf(builder, leaf);
  return builder.take();
}

}  // namespace kite
