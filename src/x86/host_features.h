// What the CPU that runs this program has, by its own CPUID instruction.
#pragma once

#include <cstdint>
#include <string>

#include "x86/cpuid.h"

namespace kite::x86 {

// The CPUID instruction itself.
CpuidRegs host_cpuid(uint32_t leaf, uint32_t subleaf = 0);

// Every feature word of the host; words of leaves that it does not have are zero. Includes bits that follow the
// operating system's state (OSXSAVE, OSPKE) and features that nobody here has heard of.
FeatureSet host_features();

struct HostIdentity {
  std::string vendor;
  std::string model_id;  // brand string, trimmed
  uint32_t family = 0, model = 0, stepping = 0;
  uint32_t level = 0, xlevel = 0;
};
HostIdentity host_identity();

}  // namespace kite::x86
