#include "x86/host_features.h"

#include <cpuid.h>

#include <array>
#include <cstring>

namespace kite::x86 {

namespace {

constexpr uint32_t kExtended = 0x80000000;

// The leaf's registers, or zeroes where the host does not have it: an Intel CPU answers a leaf beyond its last one with
// the contents of another (SDM 2A, CPUID).
CpuidRegs known_leaf(uint32_t leaf, uint32_t subleaf = 0) {
  const uint32_t last = host_cpuid(leaf & kExtended).eax;
  return leaf <= last ? host_cpuid(leaf, subleaf) : CpuidRegs{};
}

void append(std::string& text, uint32_t reg) {
  std::array<char, 4> chars;
  std::memcpy(chars.data(), &reg, chars.size());
  text.append(chars.data(), chars.size());
}

std::string brand_string() {
  std::string text;
  for (uint32_t leaf = kExtended + 2; leaf <= kExtended + 4; ++leaf) {
    const CpuidRegs regs = known_leaf(leaf);
    for (const uint32_t reg : {regs.eax, regs.ebx, regs.ecx, regs.edx}) append(text, reg);
  }
  text.resize(std::strlen(text.c_str()));
  const size_t first = text.find_first_not_of(' ');
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

}  // namespace

CpuidRegs host_cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidRegs regs;
  __cpuid_count(leaf, subleaf, regs.eax, regs.ebx, regs.ecx, regs.edx);
  return regs;
}

FeatureSet host_features() {
  FeatureSet set{};
  const auto word = [&set](FeatureWord which) -> uint32_t& { return set[static_cast<size_t>(which)]; };
  const CpuidRegs basic = known_leaf(1), structured = known_leaf(7), extended = known_leaf(kExtended + 1);
  word(FeatureWord::k1Edx) = basic.edx;
  word(FeatureWord::k1Ecx) = basic.ecx;
  word(FeatureWord::k7Ebx) = structured.ebx;
  word(FeatureWord::k7Ecx) = structured.ecx;
  word(FeatureWord::k7Edx) = structured.edx;
  if (structured.eax >= 1) word(FeatureWord::k71Eax) = known_leaf(7, 1).eax;
  word(FeatureWord::k80000001Edx) = extended.edx;
  word(FeatureWord::k80000001Ecx) = extended.ecx;
  word(FeatureWord::k80000007Edx) = known_leaf(kExtended + 7).edx;
  word(FeatureWord::k80000008Ebx) = known_leaf(kExtended + 8).ebx;
  word(FeatureWord::kD1Eax) = known_leaf(0xd, 1).eax;
  word(FeatureWord::k6Eax) = known_leaf(6).eax;
  return set;
}

HostIdentity host_identity() {
  HostIdentity host;
  const CpuidRegs zero = host_cpuid(0);
  for (const uint32_t reg : {zero.ebx, zero.edx, zero.ecx}) append(host.vendor, reg);
  host.model_id = brand_string();
  const uint32_t signature = host_cpuid(1).eax;
  host.family = (signature >> 8) & 15;
  host.model = (signature >> 4) & 15;
  host.stepping = signature & 15;
  if (host.family == 6 || host.family == 15) host.model |= ((signature >> 16) & 15) << 4;
  if (host.family == 15) host.family += (signature >> 20) & 0xff;
  host.level = zero.eax;
  host.xlevel = host_cpuid(kExtended).eax;
  return host;
}

}  // namespace kite::x86
