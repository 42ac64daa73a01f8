#include "x86/cpuid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "x86/host_features.h"

namespace kite::x86 {
namespace {

constexpr FeatureSet all_offered() {
  FeatureSet set{};
  set.fill(0xffffffff);
  return set;
}

// What a plain interpreter offers: qemu64 without svm.
FeatureSet plain_offered() {
  FeatureSet set = parse_cpu("qemu64", all_offered())->features;
  set[static_cast<size_t>(FeatureWord::k80000001Ecx)] &= ~4u;
  return set;
}

CpuSpec spec(std::string_view text, const FeatureSet& offered = all_offered()) {
  auto parsed = parse_cpu(text, offered);
  EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().message);
  return parsed ? *parsed : CpuSpec{};
}

std::string refusal(std::string_view text) {
  const auto parsed = parse_cpu(text, all_offered());
  return parsed ? "" : parsed.error().message;
}

std::string text_of(std::initializer_list<uint32_t> registers) {
  std::string text;
  for (const uint32_t value : registers) {
    char chars[4];
    std::memcpy(chars, &value, 4);
    text.append(chars, 4);
  }
  return text;
}

TEST(FeatureNames, AreUniqueAndInTheirWords) {
  std::set<std::string_view> seen;
  for (const FeatureName& row : feature_names()) {
    EXPECT_TRUE(seen.insert(row.name).second) << row.name;
    EXPECT_LT(row.bit, 32);
    EXPECT_LT(row.word, FeatureWord::kCount);
  }
}

TEST(CpuModels, HaveVendorsOf12CharactersAndUniqueNames) {
  std::set<std::string_view> seen;
  for (const CpuModel& model : cpu_models()) {
    EXPECT_EQ(model.vendor.size(), 12u) << model.name;
    EXPECT_TRUE(seen.insert(model.name).second) << model.name;
    EXPECT_LE(model.model_id.size(), 48u) << model.name;
  }
}

TEST(CpuModels, TheGenerationsAreThere) {
  for (const char* const name : {"base",
                                 "max",
                                 "host",
                                 "qemu64",
                                 "qemu32",
                                 "kvm64",
                                 "kvm32",
                                 "Nehalem",
                                 "Westmere",
                                 "SandyBridge",
                                 "IvyBridge",
                                 "Haswell",
                                 "Haswell-noTSX-IBRS",
                                 "Broadwell",
                                 "Skylake-Client",
                                 "Skylake-Server",
                                 "Cascadelake-Server",
                                 "Icelake-Server",
                                 "Opteron_G1",
                                 "Opteron_G5",
                                 "EPYC",
                                 "EPYC-IBPB",
                                 "EPYC-Rome",
                                 "EPYC-Milan",
                                 "EPYC-Milan-v1"})
    EXPECT_TRUE(parse_cpu(name, plain_offered())) << name;
  EXPECT_NE(refusal("max-v1"), "");
}

TEST(CpuModels, InheritAndDiffer) {
  FeatureSet all;
  all.fill(0xffffffff);
  const CpuSpec with = *parse_cpu("Haswell", all), lacking = *parse_cpu("Haswell-noTSX", all);
  EXPECT_TRUE(with.has(FeatureWord::k7Ebx, 11));  // rtm
  EXPECT_FALSE(lacking.has(FeatureWord::k7Ebx, 11));
  EXPECT_TRUE(lacking.has(FeatureWord::k7Ebx, 5));  // avx2
  EXPECT_TRUE(lacking.has(FeatureWord::k1Edx, 1));  // vme, from far up
  EXPECT_EQ(lacking.signature(), 0x306c1u);
}

TEST(ParseCpu, NamesTheModelsFlagsThatCannotBeGiven) {
  EXPECT_EQ(spec("Westmere", plain_offered()).missing,
            (std::vector<std::string>{"vme", "pclmulqdq", "ssse3", "sse4.1", "sse4.2", "popcnt", "aes", "arat"}));
  EXPECT_TRUE(spec("Westmere,check=off", plain_offered()).missing.empty());
}

TEST(ParseCpu, PassesOverSvmOfTheDefaultModel) {
  const CpuSpec cpu = spec("qemu64", plain_offered());
  EXPECT_FALSE(cpu.has(FeatureWord::k80000001Ecx, 2));
  EXPECT_TRUE(cpu.missing.empty());
  EXPECT_EQ(spec("qemu64,+svm", plain_offered()).missing, std::vector<std::string>{"svm"});
}

TEST(ParseCpu, LeastLevelsRaiseAndDoNotLower) {
  EXPECT_EQ(spec("qemu64,min-level=0x16").level, 0x16u);
  EXPECT_EQ(spec("qemu64,min-level=2").level, 0xdu);
  EXPECT_EQ(spec("qemu64,min-xlevel=0x8000001f").xlevel, 0x8000001fu);
}

TEST(ParseCpu, TakesSettingsThatMeanNothingHere) {
  EXPECT_TRUE(parse_cpu("max,migratable=off,host-phys-bits=on,l3-cache", plain_offered()));
}

TEST(ParseCpu, ListsWhatWasAskedForAndCannotBeGiven) {
  const CpuSpec cpu = spec("qemu64,+avx2,avx=on,+sse2", plain_offered());
  EXPECT_EQ(cpu.missing, (std::vector<std::string>{"avx", "avx2"}));
}

TEST(ParseCpu, EnforceListsTheModelsFlagsToo) {
  const CpuSpec cpu = spec("qemu64,enforce", plain_offered());
  EXPECT_TRUE(cpu.enforce);
  EXPECT_EQ(cpu.missing, std::vector<std::string>{"svm"});
  EXPECT_TRUE(spec("qemu64,-svm,enforce", plain_offered()).missing.empty());
}

TEST(ParseCpu, AliasesNameTheSameBit) {
  for (const char* const text :
       {"qemu32,+sse4.1", "qemu32,+sse4_1", "qemu32,+sse4-1", "qemu32,sse4.1=on", "qemu32,sse4_1"})
    EXPECT_TRUE(spec(text).has(FeatureWord::k1Ecx, 19)) << text;
  EXPECT_FALSE(spec("qemu64,-sse3").has(FeatureWord::k1Ecx, 0));
  EXPECT_FALSE(spec("qemu64,-lahf_lm").has(FeatureWord::k80000001Ecx, 0));
  EXPECT_FALSE(spec("qemu64,lm=off").has(FeatureWord::k80000001Edx, 29));
  EXPECT_FALSE(spec("qemu64,-xd,-i64").has(FeatureWord::k80000001Edx, 20));
}

TEST(ParseCpu, MinusStandsAboveAll) {
  EXPECT_FALSE(spec("qemu64,-popcnt,+popcnt").has(FeatureWord::k1Ecx, 23));
  EXPECT_TRUE(spec("qemu64,+popcnt,popcnt=off").has(FeatureWord::k1Ecx, 23));
  EXPECT_TRUE(spec("qemu64,popcnt=off,popcnt=on").has(FeatureWord::k1Ecx, 23));
}

TEST(ParseCpu, SetsTheIdentity) {
  const CpuSpec cpu =
      spec("qemu64,vendor=GenuineIntel,family=6,model=0x55,stepping=4,level=22,xlevel=8,model-id=A name");
  EXPECT_EQ(cpu.vendor, "GenuineIntel");
  EXPECT_EQ(cpu.signature(), 0x50654u);
  EXPECT_EQ(cpu.level, 22u);
  EXPECT_EQ(cpu.xlevel, 0x80000008u);
  EXPECT_EQ(cpu.model_id, "A name");
}

TEST(ParseCpu, SaysWhatIsWrong) {
  EXPECT_NE(refusal("quemu64").find("did you mean 'qemu64'"), std::string::npos) << refusal("quemu64");
  EXPECT_NE(refusal("qemu64,+ss4.1").find("sse4.1"), std::string::npos) << refusal("qemu64,+ss4.1");
  EXPECT_NE(refusal("qemu64,enforc"), "");
  EXPECT_NE(refusal("qemu64,family=x").find("family=x"), std::string::npos);
  EXPECT_NE(refusal("qemu64,family=271"), "");
  EXPECT_NE(refusal("qemu64,vendor=short"), "");
  EXPECT_NE(refusal("qemu64,vendor"), "");
  EXPECT_NE(refusal("qemu64,,avx"), "");
  EXPECT_NE(refusal("qemu64,avx=maybe"), "");
  EXPECT_NE(refusal(""), "");
  EXPECT_NE(refusal("qemu64,+"), "");
}

TEST(ParseCpu, RaisesLevelsToWhereTheFlagsAre) {
  EXPECT_EQ(spec("qemu32").level, 4u);
  EXPECT_EQ(spec("qemu32,+smep").level, 7u);
  EXPECT_EQ(spec("qemu32,+xsave").level, 0xdu);
  EXPECT_EQ(spec("qemu32,+invtsc").xlevel, 0x80000007u);
  EXPECT_EQ(spec("qemu32,+smep,level=4").level, 4u);
}

TEST(ParseCpu, MaxTakesWhatIsOfferedButNotWhatFollowsCr4) {
  const CpuSpec cpu = spec("max");
  EXPECT_TRUE(cpu.has(FeatureWord::k7Ebx, 5));
  EXPECT_FALSE(cpu.has(FeatureWord::k1Ecx, 27));
  EXPECT_FALSE(cpu.has(FeatureWord::k7Ecx, 4));
  EXPECT_FALSE(spec("max", plain_offered()).has(FeatureWord::k7Ebx, 5));
}

TEST(ParseCpu, DropsAvxWithoutXsave) {
  const CpuSpec cpu = spec("max,-xsave");
  EXPECT_FALSE(cpu.has(FeatureWord::k1Ecx, 28));
  EXPECT_FALSE(cpu.has(FeatureWord::k7Ebx, 5));
  EXPECT_FALSE(cpu.has(FeatureWord::kD1Eax, 1));
}

TEST(Cpuid, Leaf0And1OfTheDefaultModel) {
  const CpuSpec cpu = spec("qemu64", plain_offered());
  const CpuidRegs zero = cpuid(cpu, {}, 0, 0);
  EXPECT_EQ(zero.eax, 0xdu);
  EXPECT_EQ(text_of({zero.ebx, zero.edx, zero.ecx}), "AuthenticAMD");
  const CpuidRegs one = cpuid(cpu, {}, 1, 0);
  EXPECT_EQ(one.eax, 0x60fb1u);
  EXPECT_EQ(one.edx, 0x078bfbfdu);
  EXPECT_EQ(one.ecx, 0x80002001u);
  EXPECT_EQ(one.ebx, 0x800u);
}

TEST(Cpuid, DynamicBitsOfLeaf1) {
  const CpuSpec cpu = spec("qemu64,+xsave");
  const CpuidRegs regs =
      cpuid(cpu, {.apic_id = 3, .topology = {.cores = 4}, .apic_enabled = false, .osxsave = true}, 1, 0);
  EXPECT_EQ(regs.ebx >> 24, 3u);
  EXPECT_EQ((regs.ebx >> 16) & 0xff, 4u);
  EXPECT_TRUE(regs.edx & (1u << 28));
  EXPECT_FALSE(regs.edx & (1u << 9));
  EXPECT_TRUE(regs.ecx & (1u << 27));
  EXPECT_FALSE(cpuid(spec("qemu64"), {.osxsave = true}, 1, 0).ecx & (1u << 27));
}

TEST(Cpuid, ExtendedLeaves) {
  const CpuSpec cpu = spec("qemu64", plain_offered());
  EXPECT_EQ(cpuid(cpu, {}, 0x80000000, 0).eax, 0x8000000au);
  const CpuidRegs one = cpuid(cpu, {}, 0x80000001, 0);
  EXPECT_EQ(one.edx, 0x2193fbfdu);  // the copies of leaf 1, syscall, nx, lm
  EXPECT_EQ(one.ecx, 1u);
  EXPECT_EQ(cpuid(spec("kvm64"), {}, 0x80000001, 0).edx, 0x20100800u);
  std::string brand;
  for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; ++leaf) {
    const CpuidRegs regs = cpuid(cpu, {}, leaf, 0);
    brand += text_of({regs.eax, regs.ebx, regs.ecx, regs.edx});
  }
  EXPECT_STREQ(brand.c_str(), "QEMU Virtual CPU version 2.5+");
  EXPECT_EQ(cpuid(cpu, {.physical_bits = 40, .linear_bits = 48}, 0x80000008, 0).eax, 0x3028u);
  EXPECT_EQ(cpuid(spec("qemu32,xlevel=8"), {}, 0x80000008, 0).eax, 36u);
}

TEST(Cpuid, BeyondTheLastLeafVendorsDiffer) {
  const CpuSpec amd = spec("qemu64,level=1"), intel = spec("kvm64,level=1");
  EXPECT_EQ(cpuid(amd, {}, 0x20, 0), CpuidRegs{});
  EXPECT_EQ(cpuid(amd, {}, 0x8fffffff, 0), CpuidRegs{});
  EXPECT_EQ(cpuid(intel, {}, 0x20, 0), cpuid(intel, {}, 1, 0));
  EXPECT_EQ(cpuid(intel, {}, 0x8fffffff, 0), cpuid(intel, {}, 1, 0));
}

TEST(Cpuid, HypervisorSignatureOnlyWithItsBit) {
  const CpuidRegs regs = cpuid(spec("qemu64"), {}, 0x40000000, 0);
  EXPECT_EQ(text_of({regs.ebx, regs.ecx, regs.edx}), "KiteKiteKite");
  EXPECT_EQ(cpuid(spec("qemu64"), {}, 0x40000001, 0), CpuidRegs{});
  EXPECT_EQ(cpuid(spec("qemu64,-hypervisor"), {}, 0x40000000, 0), CpuidRegs{});
}

TEST(Cpuid, TopologyNeedsItsLevel) {
  const CpuidDynamic six{.apic_id = 5, .topology = {.cores = 6}};
  const CpuSpec cpu = spec("Nehalem");
  EXPECT_EQ(cpuid(cpu, six, 0xb, 0), (CpuidRegs{.eax = 0, .ebx = 1, .ecx = 0x100, .edx = 5}));
  EXPECT_EQ(cpuid(cpu, six, 0xb, 1), (CpuidRegs{.eax = 3, .ebx = 6, .ecx = 0x201, .edx = 5}));
  EXPECT_EQ(cpuid(cpu, six, 0xb, 2), (CpuidRegs{.eax = 0, .ebx = 0, .ecx = 2, .edx = 5}));
  EXPECT_EQ(cpuid(spec("qemu64,level=5"), six, 0xb, 1), CpuidRegs{});
}

// Two sockets of three cores of two threads: the last thread of all.
TEST(Cpuid, ThreadsCoresAndSocketsAreToldApart) {
  const CpuidDynamic last{.apic_id = 13, .topology = {.sockets = 2, .cores = 3, .threads = 2}};
  const CpuSpec intel = spec("Nehalem");
  EXPECT_EQ(cpuid(intel, last, 0xb, 0), (CpuidRegs{.eax = 1, .ebx = 2, .ecx = 0x100, .edx = 13}));
  EXPECT_EQ(cpuid(intel, last, 0xb, 1), (CpuidRegs{.eax = 3, .ebx = 6, .ecx = 0x201, .edx = 13}));
  EXPECT_EQ(cpuid(intel, last, 1, 0).ebx >> 16 & 0xff, 6u);
  EXPECT_EQ(cpuid(intel, last, 4, 0).eax >> 14, 3u << 12 | 1u);  // L1: two threads; four ids of cores
  EXPECT_EQ(cpuid(intel, last, 4, 3).eax >> 14, 3u << 12 | 7u);  // L3: eight ids
  EXPECT_EQ(cpuid(intel, last, 0x1f, 0), cpuid(intel, last, intel.level, 0));
  const CpuSpec amd = spec("EPYC");
  EXPECT_EQ(cpuid(amd, last, 0x8000001e, 0), (CpuidRegs{.eax = 13, .ebx = 0x102, .ecx = 1, .edx = 0}));
  EXPECT_EQ(cpuid(amd, last, 0x80000008, 0).ecx, 0x3005u);
}

TEST(Cpuid, DiesHaveALeafOfTheirOwn) {
  const CpuidDynamic dies{.apic_id = 6, .topology = {.sockets = 1, .dies = 2, .cores = 2, .threads = 2}};
  const CpuSpec intel = spec("Nehalem");
  EXPECT_EQ(cpuid(intel, dies, 0, 0).eax, 0x1fu);
  EXPECT_EQ(cpuid(intel, dies, 0x1f, 0), (CpuidRegs{.eax = 1, .ebx = 2, .ecx = 0x100, .edx = 6}));
  EXPECT_EQ(cpuid(intel, dies, 0x1f, 1), (CpuidRegs{.eax = 2, .ebx = 4, .ecx = 0x201, .edx = 6}));
  EXPECT_EQ(cpuid(intel, dies, 0x1f, 2), (CpuidRegs{.eax = 3, .ebx = 8, .ecx = 0x502, .edx = 6}));
  EXPECT_EQ(cpuid(intel, dies, 0x1f, 3), (CpuidRegs{.eax = 0, .ebx = 0, .ecx = 3, .edx = 6}));
  EXPECT_EQ(cpuid(intel, dies, 4, 3).eax >> 14 & 0xfff, 3u);  // a die's
  EXPECT_EQ(cpuid(spec("EPYC"), dies, 0x8000001e, 0).ecx, 0x101u);
}

TEST(Cpuid, CacheLeavesAgree) {
  const CpuidRegs l1 = cpuid(spec("Nehalem"), {}, 4, 0);
  const uint32_t bytes = ((l1.ebx >> 22) + 1) * ((l1.ebx & 0xfff) + 1) * (l1.ecx + 1);
  EXPECT_EQ(bytes, 32u << 10);
  EXPECT_EQ(cpuid(spec("EPYC"), {}, 0x80000005, 0).ecx >> 24, 32u);
  EXPECT_EQ(cpuid(spec("Nehalem"), {}, 4, 4), CpuidRegs{});
  EXPECT_EQ(cpuid(spec("EPYC"), {}, 4, 0), CpuidRegs{});
}

TEST(Cpuid, XsaveAreaFollowsXcr0) {
  const CpuSpec cpu = spec("qemu64,+xsave,+avx,+xsavec");
  EXPECT_EQ(supported_xcr0(cpu), 7u);
  EXPECT_EQ(cpuid(cpu, {.xcr0 = 3}, 0xd, 0), (CpuidRegs{.eax = 7, .ebx = 576, .ecx = 832, .edx = 0}));
  EXPECT_EQ(cpuid(cpu, {.xcr0 = 7}, 0xd, 0).ebx, 832u);
  EXPECT_EQ(cpuid(cpu, {.xcr0 = 7}, 0xd, 1).ebx, 832u);
  EXPECT_EQ(cpuid(cpu, {}, 0xd, 2), (CpuidRegs{.eax = 256, .ebx = 576, .ecx = 0, .edx = 0}));
  EXPECT_EQ(cpuid(cpu, {}, 0xd, 5), CpuidRegs{});
  EXPECT_EQ(cpuid(spec("qemu64"), {}, 0xd, 0), CpuidRegs{});
}

TEST(HostFeatures, HasWhatEvery64BitCpuHas) {
  const FeatureSet host = host_features();
  EXPECT_TRUE((host[static_cast<size_t>(FeatureWord::k1Edx)] >> 26) & 1);         // sse2
  EXPECT_TRUE((host[static_cast<size_t>(FeatureWord::k80000001Edx)] >> 29) & 1);  // lm
  EXPECT_EQ(host_identity().vendor.size(), 12u);
}

TEST(HostFeatures, HostModelHasItsIdentity) {
  const CpuSpec cpu = spec("host", host_features());
  const uint32_t signature = host_cpuid(1).eax;
  EXPECT_EQ(cpu.signature() & 0x0fff0fff, signature & 0x0fff0fff);
}

TEST(ParseCpu, TakesAnApicId) {
  EXPECT_EQ(parse_cpu("qemu64,apic-id=0", all_offered())->apic_id, 0u);
  EXPECT_EQ(parse_cpu("qemu64,apic-id=7", all_offered())->apic_id, 7u);
  EXPECT_FALSE(parse_cpu("qemu64,apic-id=256", all_offered()));
  EXPECT_FALSE(parse_cpu("qemu64,apic-id=on", all_offered()));
}

}  // namespace
}  // namespace kite::x86
