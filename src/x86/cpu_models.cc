// The CPU models. A model's flags are written with the names of feature_names().
#include <algorithm>
#include <cstdlib>

#include "x86/cpuid.h"
#include "x86/host_features.h"

namespace kite::x86 {

namespace {

struct ModelRow {
  std::string_view name;
  std::string_view description;
  std::string_view vendor;
  uint32_t family, model, stepping;
  uint32_t level, xlevel;
  std::string_view model_id;
  std::string_view flags;  // separated by blanks
  bool takes_all_offered = false;
};

constexpr std::string_view kAmd = "AuthenticAMD", kIntel = "GenuineIntel";

constexpr ModelRow kRows[] = {
    {.name = "qemu64",
     .description = "plain 64-bit CPU, the default",
     .vendor = kAmd,
     .family = 15,
     .model = 107,
     .stepping = 1,
     .level = 0xd,
     .xlevel = 0x8000000a,
     .model_id = "QEMU Virtual CPU version 2.5+",
     .flags = "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
              "pni cx16 hypervisor syscall nx lm lahf-lm svm"},
    {.name = "qemu32",
     .description = "plain 32-bit CPU",
     .vendor = kIntel,
     .family = 6,
     .model = 6,
     .stepping = 3,
     .level = 4,
     .xlevel = 0x80000004,
     .model_id = "QEMU Virtual CPU version 2.5+",
     .flags = "fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2 pni hypervisor"},
    {.name = "kvm64",
     .description = "what every 64-bit KVM host has",
     .vendor = kIntel,
     .family = 15,
     .model = 6,
     .stepping = 1,
     .level = 0xd,
     .xlevel = 0x80000008,
     .model_id = "Common KVM processor",
     .flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
              "pni cx16 hypervisor syscall nx lm"},
    {.name = "kvm32",
     .description = "what every 32-bit KVM host has",
     .vendor = kIntel,
     .family = 15,
     .model = 6,
     .stepping = 1,
     .level = 5,
     .xlevel = 0x80000008,
     .model_id = "Common 32-bit KVM processor",
     .flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
              "pni hypervisor"},
    {.name = "Nehalem",
     .description = "Intel Core i7 9xx (Nehalem Class Core i7)",
     .vendor = kIntel,
     .family = 6,
     .model = 26,
     .stepping = 3,
     .level = 11,
     .xlevel = 0x80000008,
     .model_id = "Intel Core i7 9xx (Nehalem Class Core i7)",
     .flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
              "pni ssse3 cx16 sse4.1 sse4.2 popcnt hypervisor syscall nx lm lahf-lm"},
    {.name = "Westmere",
     .description = "Westmere E56xx/L56xx/X56xx (Nehalem-C)",
     .vendor = kIntel,
     .family = 6,
     .model = 44,
     .stepping = 1,
     .level = 11,
     .xlevel = 0x80000008,
     .model_id = "Westmere E56xx/L56xx/X56xx (Nehalem-C)",
     .flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
              "pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes hypervisor syscall nx lm lahf-lm arat"},
    {.name = "SandyBridge",
     .description = "Intel Xeon E312xx (Sandy Bridge)",
     .vendor = kIntel,
     .family = 6,
     .model = 42,
     .stepping = 1,
     .level = 0xd,
     .xlevel = 0x80000008,
     .model_id = "Intel Xeon E312xx (Sandy Bridge)",
     .flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
              "pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes xsave avx hypervisor "
              "syscall nx rdtscp lm lahf-lm xsaveopt arat"},
    {.name = "Haswell",
     .description = "Intel Core Processor (Haswell)",
     .vendor = kIntel,
     .family = 6,
     .model = 60,
     .stepping = 4,
     .level = 0xd,
     .xlevel = 0x80000008,
     .model_id = "Intel Core Processor (Haswell)",
     .flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
              "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c "
              "rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm syscall nx rdtscp lm lahf-lm abm "
              "xsaveopt arat"},
    {.name = "Skylake-Server",
     .description = "Intel Xeon Processor (Skylake)",
     .vendor = kIntel,
     .family = 6,
     .model = 85,
     .stepping = 4,
     .level = 0xd,
     .xlevel = 0x80000008,
     .model_id = "Intel Xeon Processor (Skylake)",
     .flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
              "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c "
              "rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx smap "
              "clwb avx512cd avx512bw avx512vl pku syscall nx pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch "
              "xsaveopt xsavec xgetbv1 arat"},
    {.name = "EPYC",
     .description = "AMD EPYC Processor",
     .vendor = kAmd,
     .family = 23,
     .model = 1,
     .stepping = 2,
     .level = 0xd,
     .xlevel = 0x8000001e,
     .model_id = "AMD EPYC Processor",
     .flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
              "pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand hypervisor "
              "fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt sha-ni syscall nx mmxext fxsr-opt pdpe1gb "
              "rdtscp lm lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext "
              "xsaveopt xsavec xgetbv1 arat"},
    {.name = "max",
     .description = "everything that the accelerator offers",
     .vendor = kAmd,
     .family = 15,
     .model = 107,
     .stepping = 1,
     .level = 0xd,
     .xlevel = 0x8000000a,
     .model_id = "Kite virtual CPU",
     .flags = "",
     .takes_all_offered = true},
};

FeatureSet parse_flags(std::string_view flags) {
  FeatureSet set{};
  while (!flags.empty()) {
    const std::string_view name = flags.substr(0, flags.find(' '));
    flags.remove_prefix(std::min(name.size() + 1, flags.size()));
    const auto names = feature_names();
    const auto row = std::ranges::find(names, name, &FeatureName::name);
    if (row == names.end()) std::abort();  // a table above misspells a flag
    set[static_cast<size_t>(row->word)] |= uint32_t{1} << row->bit;
  }
  return set;
}

CpuModel host_model() {
  static const HostIdentity host = host_identity();  // the model keeps views of its strings
  return {.name = "host",
          .description = "this machine's CPU, as far as the accelerator offers it",
          .vendor = host.vendor,
          .family = host.family,
          .model = host.model,
          .stepping = host.stepping,
          .level = host.level,
          .xlevel = host.xlevel,
          .model_id = host.model_id,
          .features = {},
          .takes_all_offered = true};
}

std::vector<CpuModel> build_models() {
  std::vector<CpuModel> models;
  for (const ModelRow& row : kRows)
    models.push_back({row.name, row.description, row.vendor, row.family, row.model, row.stepping, row.level, row.xlevel,
                      row.model_id, parse_flags(row.flags), row.takes_all_offered});
  models.push_back(host_model());
  return models;
}

}  // namespace

std::span<const CpuModel> cpu_models() {
  static const std::vector<CpuModel> models = build_models();
  return models;
}

}  // namespace kite::x86
