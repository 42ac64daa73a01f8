#include "accel/kvm/kvm_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace kite {
namespace {

using x86::ArchState;
namespace msr = x86::msr;

KvmCpuState empty_state() {
  KvmCpuState state;
  state.xsave.resize(4096);
  state.xcrs.nr_xcrs = 1;
  for (const uint32_t index : {msr::kTsc, msr::kStar, msr::kPat, msr::kMtrrPhysBase0 + 3})
    state.msrs.push_back({.index = index, .reserved = 0, .data = 0});
  return state;
}

TEST(KvmStateTest, AStateSurvivesTheWayToKvmAndBack) {
  ArchState in;
  in.reset(true, true, 0x663);
  for (size_t i = 0; i < 16; ++i) in.gpr[i] = i * 0x1111;
  in.rip = 0xffffffff81000000;
  in.seg[1] = {.selector = 8, .attributes = 0xa09b, .limit = 0xffffffff, .base = 0};
  in.star = 0x23001000000000;
  in.pat = 0x0007040600070406;
  in.mtrr.mask[1] = 0xff00000800;
  in.xcr0 = 7;
  in.fx.bytes[200] = 9;
  in.ymm_high.reg[3][1] = 7;
  in.activity = x86::Activity::kHalted;
  in.nmi_blocked = true;
  in.interrupt_shadow = true;
  KvmCpuState kvm = empty_state();
  from_arch(in, {}, kvm);
  ArchState out;
  to_arch(kvm, {}, out);
  EXPECT_EQ(out.gpr, in.gpr);
  EXPECT_EQ(out.rip, in.rip);
  EXPECT_EQ(out.seg, in.seg);
  EXPECT_EQ(out.star, in.star);
  EXPECT_EQ(out.pat, in.pat);
  EXPECT_EQ(out.mtrr.mask[1], in.mtrr.mask[1]);
  EXPECT_EQ(out.xcr0, 7u);
  EXPECT_EQ(out.fx.bytes, in.fx.bytes);
  EXPECT_EQ(out.ymm_high.reg, in.ymm_high.reg);
  EXPECT_EQ(out.activity, in.activity);
  EXPECT_TRUE(out.nmi_blocked);
  EXPECT_TRUE(out.interrupt_shadow);
}

TEST(KvmStateTest, TheTscIsOnlyWrittenWhenItWasChanged) {
  KvmCpuState kvm = empty_state();
  kvm.set_msr(msr::kTsc, 5000);
  ArchState arch;
  to_arch(kvm, {.clock_tsc = 1000}, arch);
  EXPECT_EQ(arch.tsc_offset, 4000u);
  from_arch(arch, {.clock_tsc = 1100}, kvm);
  EXPECT_FALSE(kvm.writes_tsc);
  arch.tsc_offset = 10;
  from_arch(arch, {.clock_tsc = 1100}, kvm);
  EXPECT_TRUE(kvm.writes_tsc);
  EXPECT_EQ(kvm.msr(msr::kTsc), 1110u);
}

TEST(KvmStateTest, PdptesCountWithPaePagingOutsideOfLongModeOnly) {
  ArchState arch;
  arch.pdpte[0] = 0x1001;
  arch.cr0 = x86::cr0::kPe | x86::cr0::kPg;
  arch.cr4 = x86::cr4::kPae;
  KvmCpuState kvm = empty_state();
  from_arch(arch, {}, kvm);
  EXPECT_EQ(kvm.sregs.flags, uint64_t{KVM_SREGS2_FLAGS_PDPTRS_VALID});
  EXPECT_EQ(kvm.sregs.pdptrs[0], 0x1001u);
  arch.efer = x86::efer::kLme | x86::efer::kLma;
  from_arch(arch, {}, kvm);
  EXPECT_EQ(kvm.sregs.flags, 0u);
}

TEST(KvmStateTest, OnlyMsrsThatCpuidAnnouncesAreKept) {
  const uint32_t listed[] = {msr::kTsc, msr::kArchCapabilities, msr::kStar, msr::kTscDeadline, 0x4b564d01};
  x86::CpuSpec cpu;
  const auto has = [](const std::vector<uint32_t>& list, uint32_t index) {
    return std::ranges::find(list, index) != list.end();
  };
  auto list = state_msr_list(listed, cpu, 0, true);
  EXPECT_TRUE(has(list, msr::kTsc));
  EXPECT_FALSE(has(list, msr::kArchCapabilities));
  EXPECT_FALSE(has(list, msr::kStar));
  EXPECT_FALSE(has(list, msr::kTscDeadline));
  EXPECT_FALSE(has(list, 0x4b564d01));
  cpu.features[static_cast<size_t>(x86::FeatureWord::k7Edx)] = 1u << 29;
  cpu.features[static_cast<size_t>(x86::FeatureWord::k1Ecx)] = 1u << 24;
  list = state_msr_list(listed, cpu, 1u << 3, true);
  EXPECT_TRUE(has(list, msr::kArchCapabilities));
  EXPECT_TRUE(has(list, msr::kTscDeadline));
  EXPECT_TRUE(has(list, 0x4b564d01));
  EXPECT_FALSE(has(state_msr_list(listed, cpu, 0, false), msr::kTscDeadline));  // its deadline is ours
}

TEST(KvmStateTest, AResetForgetsPendingEventsAndParavirtualMsrs) {
  KvmCpuState kvm = empty_state();
  kvm.msrs.push_back({.index = 0x4b564d01, .reserved = 0, .data = 0x1001});
  kvm.events.exception.pending = 1;
  reset_kvm_state(kvm);
  EXPECT_EQ(kvm.msr(0x4b564d01), 0u);
  EXPECT_EQ(kvm.events.exception.pending, 0);
}

TEST(KvmStateTest, ALocalApicKeepsItsIdThroughInit) {
  kvm_lapic_state lapic{};
  reset_kvm_lapic(lapic, 5, true);
  const auto reg = [&lapic](size_t offset) {
    uint32_t value = 0;
    std::memcpy(&value, lapic.regs + offset, sizeof value);
    return value;
  };
  set_virtual_wire_mode(lapic, true);
  EXPECT_EQ(reg(0x350), 0x700u);
  reset_kvm_lapic(lapic, 9, false);
  EXPECT_EQ(reg(0x20), 5u << 24);
  EXPECT_EQ(reg(0x350), 0x10000u);
  EXPECT_EQ(reg(0xf0), 0xffu);
}

}  // namespace
}  // namespace kite
