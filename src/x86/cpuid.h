// CPUID models: what a guest sees. A model is a table of leaves built from named feature flags; `-cpu NAME,+flag,-flag`
// edits it. Only what the executing CPU can give survives: the accelerator says what it offers, and flags that were
// asked for and cannot be given are reported by name (fatal with `enforce`).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/result.h"
#include "x86/topology.h"

namespace kite::x86 {

struct CpuidRegs {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  bool operator==(const CpuidRegs&) const = default;
};

// The words of feature bits that flags live in.
enum class FeatureWord : uint8_t {
  k1Edx,
  k1Ecx,
  k7Ebx,
  k7Ecx,
  k7Edx,
  k71Eax,
  k80000001Edx,
  k80000001Ecx,
  k80000007Edx,
  k80000008Ebx,
  kD1Eax,
  k6Eax,
  kCount
};
inline constexpr size_t kFeatureWords = static_cast<size_t>(FeatureWord::kCount);
using FeatureSet = std::array<uint32_t, kFeatureWords>;

struct FeatureName {
  std::string_view name;  // as QEMU and libvirt spell it: "sse4.1", "pni", "syscall", "vmx"; aliases are extra rows
  FeatureWord word;
  uint8_t bit;
};
std::span<const FeatureName> feature_names();

struct CpuModel {
  std::string_view name;
  std::string_view description;
  std::string_view vendor;  // 12 characters
  uint32_t family = 0, model = 0, stepping = 0;
  uint32_t level = 0, xlevel = 0;
  std::string_view model_id;  // brand string
  FeatureSet features{};
  bool takes_all_offered = false;  // max, host: every offered flag
};
std::span<const CpuModel> cpu_models();

// What the command line asked for, resolved against `offered`.
struct CpuSpec {
  std::string model_name;
  std::string vendor;
  std::string model_id;
  uint32_t family = 0, model = 0, stepping = 0, level = 0, xlevel = 0;
  FeatureSet features{};
  std::vector<std::string> missing;  // flags asked for that cannot be given, by name
  bool enforce = false;
  uint32_t apic_id = 0;  // asked for by apic-id=; the first CPU's

  [[nodiscard]] bool has(FeatureWord word, unsigned bit) const {
    return (features[static_cast<size_t>(word)] >> bit) & 1;
  }
  [[nodiscard]] uint32_t signature() const;  // CPUID.1:EAX
};
// Flags that are not offered go to `missing`, whether the text asks for them or the model has them; not with
// `check=off`. SVM is passed over unless it is asked for or `enforce` is given: the default model has it by name only.
// It is for the caller to refuse a spec with `enforce` and `missing`, with a message of its own. HYPERVISOR is always
// offered. "qemu64,+sse4.1,-pni,enforce" and "model,flag=on,level=13,vendor=...,model-id=...". Unknown models and flags
// are refused with the nearest known one.
Result<CpuSpec> parse_cpu(std::string_view text, const FeatureSet& offered);

// What the CPUID instruction answers. The bits that follow state (OSXSAVE, APIC enabled) come in through `dynamic`.
struct CpuidDynamic {
  uint32_t apic_id = 0;
  CpuTopology topology = {};
  bool apic_enabled = true;
  bool osxsave = false;
  uint8_t physical_bits = 40;
  uint8_t linear_bits = 48;
  uint64_t tsc_hz = 0;
  uint64_t xcr0 = 1;  // leaf 0xD tells the size of the area that it enables
  uint64_t xss = 0;
  bool ospke = false;
};
// The XCR0 bits that the CPU has by its flags; 0 without XSAVE.
uint64_t supported_xcr0(const CpuSpec& spec);
CpuidRegs cpuid(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t leaf, uint32_t subleaf);

}  // namespace kite::x86
