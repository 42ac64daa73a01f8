// Control registers, EFER, MSRs, CPUID and the instructions around them.
#include "cpu/control.h"

#include <gtest/gtest.h>

#include "cpu/mmu.h"
#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
using x86::FeatureWord;
using x86::Seg;
using x86::Vector;
namespace cr0 = x86::cr0;
namespace cr4 = x86::cr4;
namespace efer = x86::efer;
namespace msr = x86::msr;
namespace flag = x86::flag;

constexpr uint64_t kCode = TestMachine::kCode, kData = TestMachine::kData;

x86::CpuSpec without(FeatureWord word, unsigned bit) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.features[static_cast<size_t>(word)] &= ~(1u << bit);
  return spec;
}
bool refused(Cpu& cpu, bool done) {
  const bool fault = cpu.exception && cpu.exception->vector == Vector::kGp && cpu.exception->error_code == 0;
  cpu.exception.reset();
  return !done && fault;
}
bool control_refused(Cpu& cpu, unsigned number, uint64_t value) {
  return refused(cpu, cpu.write_control(number, value));
}
bool msr_refused(Cpu& cpu, uint32_t index, uint64_t value) { return refused(cpu, cpu.write_msr(index, value)); }
uint64_t msr_value(Cpu& cpu, uint32_t index) {
  uint64_t value = 0;
  EXPECT_TRUE(cpu.read_msr(index, value)) << std::hex << index;
  return value;
}

TEST(Cr0, InvalidCombinations) {
  TestMachine m(Mode::k32);
  auto& cpu = m.cpu();
  EXPECT_TRUE(control_refused(cpu, 0, uint64_t{1} << 32));
  EXPECT_TRUE(control_refused(cpu, 0, cr0::kPg));
  EXPECT_TRUE(control_refused(cpu, 0, cr0::kPe | cr0::kNw));
  EXPECT_FALSE(control_refused(cpu, 0, cr0::kPe | cr0::kNw | cr0::kCd));
}

TEST(Cr0, IgnoresReservedBitsAndKeepsEt) {
  TestMachine m(Mode::k32);
  ASSERT_TRUE(m.cpu().write_control(0, cr0::kPe | 1u << 20));
  EXPECT_EQ(m.cpu().arch.cr0, cr0::kPe | cr0::kEt);
}

TEST(Cr0, ActivatesLongMode) {
  TestMachine m(Mode::k32);
  TestMachine tables(Mode::k64);
  m.load(TestMachine::kPml4, std::span(tables.ram->host() + TestMachine::kPml4, 0x7000));
  auto& cpu = m.cpu();
  ASSERT_TRUE(cpu.write_msr(msr::kEfer, efer::kLme));
  EXPECT_TRUE(control_refused(cpu, 0, cpu.arch.cr0 | cr0::kPg));  // no PAE
  ASSERT_TRUE(cpu.write_control(4, cr4::kPae));
  ASSERT_TRUE(cpu.write_control(3, TestMachine::kPml4));
  cpu.seg(Seg::kCs).attributes = 0xa09b;
  EXPECT_TRUE(control_refused(cpu, 0, cpu.arch.cr0 | cr0::kPg));  // CS.L
  cpu.seg(Seg::kCs).attributes = 0xc09b;
  ASSERT_TRUE(cpu.write_control(0, cpu.arch.cr0 | cr0::kPg));
  EXPECT_TRUE(cpu.long_mode());
  EXPECT_FALSE(cpu.code64);
  EXPECT_TRUE(msr_refused(cpu, msr::kEfer, 0));  // LME while paging
  EXPECT_TRUE(control_refused(cpu, 4, 0));       // PAE in long mode
  ASSERT_TRUE(cpu.write_control(0, cpu.arch.cr0 & ~cr0::kPg));
  EXPECT_FALSE(cpu.long_mode());
  EXPECT_EQ(cpu.arch.efer, efer::kLme);
}

TEST(Cr0, PagingStaysOnIn64BitCode) {
  TestMachine m;
  EXPECT_TRUE(control_refused(m.cpu(), 0, m.cpu().arch.cr0 & ~cr0::kPg));
}

TEST(Cr3, ReservedAboveThePhysicalWidth) {
  TestMachine m;
  EXPECT_TRUE(control_refused(m.cpu(), 3, uint64_t{1} << kPhysicalBits));
  EXPECT_TRUE(control_refused(m.cpu(), 3, uint64_t{1} << 63 | TestMachine::kPml4));
  ASSERT_TRUE(m.cpu().write_control(4, m.cpu().arch.cr4 | cr4::kPcide));
  EXPECT_FALSE(control_refused(m.cpu(), 3, uint64_t{1} << 63 | TestMachine::kPml4));
  EXPECT_EQ(m.cpu().arch.cr3, TestMachine::kPml4);
}

TEST(Cr4, BitsFollowTheFeatures) {
  struct Case {
    uint64_t bit;
    FeatureWord word;
    unsigned feature;
  };
  for (const Case& c : {Case{cr4::kSmep, FeatureWord::k7Ebx, 7}, Case{cr4::kSmap, FeatureWord::k7Ebx, 20},
                        Case{cr4::kUmip, FeatureWord::k7Ecx, 2}, Case{cr4::kFsgsbase, FeatureWord::k7Ebx, 0},
                        Case{cr4::kPge, FeatureWord::k1Edx, 13}, Case{cr4::kDe, FeatureWord::k1Edx, 2},
                        Case{cr4::kVme, FeatureWord::k1Edx, 1}, Case{cr4::kPvi, FeatureWord::k1Edx, 1},
                        Case{cr4::kPke, FeatureWord::k7Ecx, 3}, Case{cr4::kPks, FeatureWord::k7Ecx, 31},
                        Case{cr4::kLamSup, FeatureWord::k71Eax, 26}}) {
    TestMachine with, missing(Mode::k64, without(c.word, c.feature));
    EXPECT_FALSE(control_refused(with.cpu(), 4, with.cpu().arch.cr4 | c.bit)) << c.bit;
    EXPECT_TRUE(control_refused(missing.cpu(), 4, missing.cpu().arch.cr4 | c.bit)) << c.bit;
  }
}

TEST(Cr4, NeverOfferedBitsAreReserved) {
  TestMachine m;
  for (const uint64_t bit :
       {cr4::kVmxe, uint64_t{1} << 15, uint64_t{1} << 19, uint64_t{1} << 23, uint64_t{1} << 25, uint64_t{1} << 32})
    EXPECT_TRUE(control_refused(m.cpu(), 4, m.cpu().arch.cr4 | bit)) << bit;
}

TEST(Cr4, PcideNeedsLongModeAndAnEmptyPcid) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_control(3, TestMachine::kPml4 | 0x18));
  EXPECT_TRUE(control_refused(m.cpu(), 4, m.cpu().arch.cr4 | cr4::kPcide));
  TestMachine legacy(Mode::k32);
  EXPECT_TRUE(control_refused(legacy.cpu(), 4, cr4::kPcide));
}

TEST(Cr8, IsTheTaskPriority) {
  TestMachine m;
  m.gpr(x86::kRax) = 9;
  m.run({0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc3});  // mov cr8, rax; mov rbx, cr8
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.apic.task_priority, 9);
  EXPECT_EQ(m.gpr(x86::kRbx), 9u);
  EXPECT_TRUE(control_refused(m.cpu(), 8, 16));
}

TEST(Control, UnknownRegistersAreUndefined) {
  TestMachine m;
  m.run({0x0f, 0x20, 0xc8});  // mov rax, cr1
  EXPECT_EQ(m.vector(), 6);
}

TEST(Control, PrivilegedInstructions) {
  const std::vector<std::vector<uint8_t>> codes = {{0x0f, 0x20, 0xc0}, {0x0f, 0x22, 0xc0}, {0x0f, 0x32},
                                                   {0x0f, 0x30},       {0x0f, 0x06},       {0xf4},
                                                   {0x0f, 0x08},       {0x0f, 0x09},       {0x0f, 0x01, 0x38},
                                                   {0x0f, 0x01, 0xf8}, {0x0f, 0x01, 0x10}, {0x0f, 0x00, 0xd0},
                                                   {0x0f, 0x00, 0xd8}, {0x0f, 0x01, 0xf0}};
  for (const auto& code : codes) {
    TestMachine m;
    m.enter_user();
    m.gpr(x86::kRax) = kData;
    m.step(code);
    EXPECT_EQ(m.cpu().state.rip, TestMachine::kHandlers + 13 * 16) << int{code[1 % code.size()]};
    EXPECT_EQ(m.frame(1), kCode);
  }
}

TEST(Control, LmswSetsPeButNeverClearsIt) {
  TestMachine m(Mode::k32);
  m.gpr(x86::kRax) = 0xa;                       // TS, MP
  m.run({0x0f, 0x01, 0xf0, 0x0f, 0x01, 0xe3});  // lmsw ax; smsw ebx
  EXPECT_EQ(m.cpu().arch.cr0 & 15, cr0::kPe | cr0::kMp | cr0::kTs);
  EXPECT_EQ(m.gpr(x86::kRbx) & 15, 0xbu);
  m.run({0x0f, 0x06});  // clts
  EXPECT_EQ(m.cpu().arch.cr0 & cr0::kTs, 0u);
}

TEST(Control, RealModeEntersProtectedMode) {
  TestMachine m(Mode::kReal);
  m.step({0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0}, 3);  // mov eax, cr0; or al, 1; mov cr0, eax
  EXPECT_TRUE(m.cpu().protected_mode());
  EXPECT_EQ(m.cpu().code_width, 2);
  EXPECT_EQ(m.cpu().state.rip, 8u);
}

TEST(Efer, ReservedBitsByFeature) {
  TestMachine m;
  const uint64_t old = m.cpu().arch.efer;
  EXPECT_TRUE(msr_refused(m.cpu(), msr::kEfer, old | efer::kSvme));
  EXPECT_TRUE(msr_refused(m.cpu(), msr::kEfer, old | 2));
  TestMachine no_nx(Mode::k32, without(FeatureWord::k80000001Edx, 20));
  EXPECT_TRUE(msr_refused(no_nx.cpu(), msr::kEfer, efer::kNxe));
  EXPECT_FALSE(msr_refused(m.cpu(), msr::kEfer, old & ~efer::kLma));  // LMA is read-only, not reserved
  EXPECT_EQ(m.cpu().arch.efer, old);
}

TEST(Msr, UnknownOnesFault) {
  TestMachine m;
  uint64_t value = 0;
  EXPECT_TRUE(refused(m.cpu(), m.cpu().read_msr(0xdeadbeef, value)));
  EXPECT_TRUE(msr_refused(m.cpu(), 0x11, 0));
}

TEST(Msr, AddressesAreCanonical) {
  TestMachine m;
  for (const uint32_t index : {msr::kLstar, msr::kCstar, msr::kFsBase, msr::kGsBase, msr::kKernelGsBase,
                               msr::kSysenterEsp, msr::kSysenterEip}) {
    EXPECT_TRUE(msr_refused(m.cpu(), index, uint64_t{1} << 56)) << index;
    EXPECT_FALSE(msr_refused(m.cpu(), index, 0xffff800000000000)) << index;
    EXPECT_EQ(msr_value(m.cpu(), index), 0xffff800000000000) << index;
  }
}

TEST(Msr, PatTypes) {
  TestMachine m;
  EXPECT_FALSE(msr_refused(m.cpu(), msr::kPat, 0x0706050401000607));
  EXPECT_TRUE(msr_refused(m.cpu(), msr::kPat, 0x02));
  EXPECT_TRUE(msr_refused(m.cpu(), msr::kPat, uint64_t{8} << 56));
}

TEST(Msr, Mtrrs) {
  TestMachine m;
  auto& cpu = m.cpu();
  EXPECT_EQ(msr_value(cpu, msr::kMtrrCap), 0x508u);
  EXPECT_FALSE(msr_refused(cpu, msr::kMtrrPhysBase0, 0xc0000006));
  EXPECT_TRUE(msr_refused(cpu, msr::kMtrrPhysBase0, 0xc0000002));
  EXPECT_TRUE(msr_refused(cpu, msr::kMtrrPhysBase0, 0xc0000106));
  EXPECT_FALSE(msr_refused(cpu, msr::kMtrrPhysBase0 + 1, 0xff00000800));
  EXPECT_TRUE(msr_refused(cpu, msr::kMtrrPhysBase0 + 1, uint64_t{1} << 40 | 0x800));
  EXPECT_FALSE(msr_refused(cpu, msr::kMtrrFix4kF8000, 0x0606060606060606));
  EXPECT_TRUE(msr_refused(cpu, msr::kMtrrFix64k, 0x03));
  EXPECT_EQ(cpu.arch.mtrr.fixed[10], 0x0606060606060606u);
  EXPECT_FALSE(msr_refused(cpu, msr::kMtrrDefType, 0xc06));
  EXPECT_TRUE(msr_refused(cpu, msr::kMtrrDefType, 0x1c06));
}

TEST(Msr, MachineCheckBanks) {
  TestMachine m;
  auto& cpu = m.cpu();
  EXPECT_EQ(msr_value(cpu, msr::kMcgCap) & 0xff, 10u);
  EXPECT_FALSE(msr_refused(cpu, msr::kMcgCtl, ~uint64_t{0}));
  EXPECT_TRUE(msr_refused(cpu, msr::kMcgCtl, 5));
  EXPECT_FALSE(msr_refused(cpu, msr::kMc0Ctl, ~uint64_t{0}));
  EXPECT_TRUE(msr_refused(cpu, msr::kMc0Ctl + 1, 5));
  EXPECT_FALSE(msr_refused(cpu, msr::kMc0Ctl + 1, 0));
  EXPECT_TRUE(msr_refused(cpu, msr::kMc0Ctl + 40, 0));
}

TEST(Msr, SpeculationControlOnlyWhenOffered) {
  TestMachine m;
  EXPECT_FALSE(msr_refused(m.cpu(), msr::kSpecCtrl, 7));
  EXPECT_TRUE(msr_refused(m.cpu(), msr::kSpecCtrl, 8));
  x86::CpuSpec spec = TestMachine::everything();
  spec.features[static_cast<size_t>(FeatureWord::k7Edx)] = 0;
  spec.features[static_cast<size_t>(FeatureWord::k80000008Ebx)] = 0;
  TestMachine none(Mode::k64, spec);
  uint64_t value = 0;
  EXPECT_TRUE(refused(none.cpu(), none.cpu().read_msr(msr::kSpecCtrl, value)));
  EXPECT_TRUE(msr_refused(none.cpu(), msr::kPredCmd, 1));
}

TEST(Msr, AmdOnes) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.vendor = "AuthenticAMD";
  TestMachine amd(Mode::k64, spec), intel;
  uint64_t value = 0;
  EXPECT_EQ(msr_value(amd.cpu(), msr::kSyscfg), 0u);
  EXPECT_FALSE(msr_refused(amd.cpu(), msr::kHwcr, 0x40));
  EXPECT_FALSE(msr_refused(amd.cpu(), msr::kPerfEventSelect0, 0x430076));
  EXPECT_FALSE(refused(amd.cpu(), amd.cpu().read_msr(0xc0010055, value)));
  EXPECT_EQ(value, 0u);
  EXPECT_EQ(msr_value(amd.cpu(), 0xc0010004), 0u);
  EXPECT_TRUE(refused(intel.cpu(), intel.cpu().read_msr(msr::kHwcr, value)));
}

TEST(Msr, ReadAndWriteByInstruction) {
  TestMachine m;
  m.gpr(x86::kRcx) = msr::kLstar;
  m.gpr(x86::kRax) = 0xffffffff80001000;
  m.gpr(x86::kRdx) = 0x11111111ffffffff;
  m.run({0x0f, 0x30, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x32});  // wrmsr; xor eax, eax; xor edx, edx; rdmsr
  EXPECT_EQ(m.cpu().arch.lstar, 0xffffffff80001000u);
  EXPECT_EQ(m.gpr(x86::kRax), 0x80001000u);
  EXPECT_EQ(m.gpr(x86::kRdx), 0xffffffffu);
}

TEST(Tsc, FollowsTheClockAndItsOffset) {
  TestMachine m;
  m.clock.advance(1000);
  const uint64_t before = m.cpu().tsc();
  m.clock.advance(500);
  EXPECT_EQ(m.cpu().tsc() - before, 500u);
  ASSERT_TRUE(m.cpu().write_msr(msr::kTsc, 7));
  EXPECT_EQ(m.cpu().tsc(), 7u);
  EXPECT_EQ(msr_value(m.cpu(), msr::kTscAdjust), 7 - before - 500);
  ASSERT_TRUE(m.cpu().write_msr(msr::kTscAdjust, 7 - before - 500 + 100));
  EXPECT_EQ(m.cpu().tsc(), 107u);
}

TEST(Tsc, OtherFrequencies) {
  TestMachine m;
  m.cpu().config.tsc_hz = 2'500'000'000;
  const uint64_t before = m.cpu().tsc();
  m.clock.advance(3'000'000'000);
  EXPECT_EQ(m.cpu().tsc() - before, 7'500'000'000u);
}

TEST(Tsc, TsdKeepsItToTheKernel) {
  TestMachine m;
  m.cpu().arch.cr4 |= cr4::kTsd;
  m.enter_user();
  m.run({0x0f, 0x31});
  EXPECT_EQ(m.vector(), 13);
}

TEST(Tsc, RdtscpGivesTscAux) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_msr(msr::kTscAux, 0x55));
  EXPECT_TRUE(msr_refused(m.cpu(), msr::kTscAux, uint64_t{1} << 32));
  m.run({0x0f, 0x01, 0xf9});
  EXPECT_EQ(m.gpr(x86::kRcx), 0x55u);
}

TEST(Cpuid, ClearsTheUpperHalves) {
  TestMachine m;
  for (const unsigned reg : {x86::kRax, x86::kRbx, x86::kRcx, x86::kRdx}) m.gpr(reg) = ~uint64_t{0} << 32;
  m.run({0x0f, 0xa2});
  EXPECT_EQ(m.gpr(x86::kRbx), 0x756e6547u);  // "Genu"
  EXPECT_EQ(m.gpr(x86::kRcx) >> 32, 0u);
}

TEST(System, SwapgsAndFsgsbase) {
  TestMachine m;
  m.cpu().seg(Seg::kGs).base = 0x1000;
  m.cpu().arch.kernel_gs_base = 0x2000;
  m.run({0x0f, 0x01, 0xf8});
  EXPECT_EQ(m.cpu().seg(Seg::kGs).base, 0x2000u);
  EXPECT_EQ(m.cpu().arch.kernel_gs_base, 0x1000u);
  m.run({0xf3, 0x48, 0x0f, 0xae, 0xc8});  // rdgsbase rax
  EXPECT_EQ(m.vector(), 6);
  m.cpu().set_state(m.initial_state());
  m.cpu().arch.cr4 |= cr4::kFsgsbase;
  m.gpr(x86::kRax) = 0x4444;
  m.run({0xf3, 0x48, 0x0f, 0xae, 0xd0, 0xf3, 0x48, 0x0f, 0xae, 0xc3});  // wrfsbase rax; rdfsbase rbx
  EXPECT_EQ(m.gpr(x86::kRbx), 0x4444u);
  m.gpr(x86::kRax) = uint64_t{1} << 60;
  m.run({0xf3, 0x48, 0x0f, 0xae, 0xd0});
  EXPECT_EQ(m.vector(), 13);
}

TEST(System, StacAndClacChangeWhatIsReachable) {
  TestMachine m;
  m.set_pte(kData, kData | 7);
  ASSERT_TRUE(m.cpu().write_control(4, m.cpu().arch.cr4 | cr4::kSmap));
  for (Gpa page = TestMachine::kCode; page < TestMachine::kStackTop; page += 0x1000) m.set_pte(page, page | 3);
  for (Gpa page = 0; page < TestMachine::kRing0Stack; page += 0x1000) m.set_pte(page, page | 3);
  m.gpr(x86::kRbx) = kData;
  m.run({0x0f, 0x01, 0xcb, 0x8b, 0x03, 0x0f, 0x01, 0xca, 0x8b, 0x03});  // stac; mov; clac; mov
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.faulting_rip(), kCode + 8);
}

TEST(System, InvlpgIgnoresWhatItCannotTranslate) {
  TestMachine m;
  m.gpr(x86::kRbx) = uint64_t{1} << 50;
  m.run({0x0f, 0x01, 0x3b});
  EXPECT_EQ(m.vector(), std::nullopt);
}

TEST(System, InvpcidChecksItsDescriptor) {
  TestMachine m;
  m.gpr(x86::kRbx) = kData;
  const auto invpcid = [&](uint64_t type, uint64_t pcid, uint64_t address) {
    m.cpu().set_state(m.initial_state());
    m.gpr(x86::kRbx) = kData;
    m.gpr(x86::kRax) = type;
    m.poke<uint64_t>(kData, pcid);
    m.poke<uint64_t>(kData + 8, address);
    m.run({0x66, 0x0f, 0x38, 0x82, 0x03});
    return m.vector();
  };
  EXPECT_EQ(invpcid(0, 0, 0x1000), std::nullopt);
  EXPECT_EQ(invpcid(2, 5, 0), std::nullopt);
  EXPECT_EQ(invpcid(4, 0, 0), 13);
  EXPECT_EQ(invpcid(1, 5, 0), 13);  // PCIDE is off
  EXPECT_EQ(invpcid(2, 0x1000, 0), 13);
  EXPECT_EQ(invpcid(0, 0, uint64_t{1} << 60), 13);
}

TEST(System, Xcr0) {
  TestMachine m;
  m.run({0x0f, 0x01, 0xd0});  // xgetbv without OSXSAVE
  EXPECT_EQ(m.vector(), 6);
  m.cpu().set_state(m.initial_state());
  m.cpu().arch.cr4 |= cr4::kOsxsave;
  m.gpr(x86::kRax) = 3;
  m.run({0x0f, 0x01, 0xd1, 0x31, 0xc0, 0x0f, 0x01, 0xd0});  // xsetbv; xor eax, eax; xgetbv
  EXPECT_EQ(m.gpr(x86::kRax), 3u);
  m.gpr(x86::kRax) = 2;
  m.run({0x0f, 0x01, 0xd1});
  EXPECT_EQ(m.vector(), 13);
}

TEST(System, UndefinedOnPurpose) {
  for (const auto& code : std::vector<std::vector<uint8_t>>{{0x0f, 0x0b},
                                                            {0x0f, 0xb9, 0xc0},
                                                            {0x0f, 0xff, 0xc0},
                                                            {0x0f, 0xaa},
                                                            {0x0f, 0x01, 0xc1},
                                                            {0x0f, 0x01, 0xd9}}) {
    TestMachine m;
    m.run(code);
    EXPECT_EQ(m.vector(), 6) << int{code[1]};
    EXPECT_EQ(m.faulting_rip(), kCode);
  }
}

TEST(System, BoundAndInto) {
  TestMachine m(Mode::k32);
  m.poke<int32_t>(kData, -5);
  m.poke<int32_t>(kData + 4, 5);
  m.gpr(x86::kRbx) = kData;
  m.gpr(x86::kRax) = 0xfffffffb;
  m.run({0x62, 0x03, 0xce});  // bound eax, [ebx]; into
  EXPECT_EQ(m.vector(), std::nullopt);
  m.gpr(x86::kRax) = 6;
  m.run({0x62, 0x03});
  EXPECT_EQ(m.vector(), 5);
  EXPECT_EQ(m.faulting_rip(), kCode);
  m.cpu().set_state(m.initial_state());
  m.cpu().state.cc = flag::kOf;
  m.run({0xce});
  EXPECT_EQ(m.vector(), 4);
  EXPECT_EQ(m.faulting_rip(), kCode + 1);
}

TEST(System, HltWaitsBehindItself) {
  TestMachine m;
  EXPECT_EQ(m.run({}), Exit::kHalted);
  EXPECT_EQ(m.cpu().state.rip, kCode + 1);
  EXPECT_EQ(m.cpu().arch.activity, x86::Activity::kHalted);
}

TEST(System, MwaitAndMonitor) {
  TestMachine m;
  m.gpr(x86::kRax) = kData;
  m.run({0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9});
  EXPECT_EQ(m.vector(), std::nullopt);
  m.gpr(x86::kRcx) = 2;
  m.run({0x0f, 0x01, 0xc9});
  EXPECT_EQ(m.vector(), 13);
}

}  // namespace
}  // namespace kite::cpu
