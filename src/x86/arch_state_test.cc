#include "x86/arch_state.h"

#include <gtest/gtest.h>

#include "support/bytes.h"

namespace kite::x86 {
namespace {

TEST(ArchState, PowerOnStartsAtTheResetVector) {
  ArchState state;
  state.gpr[kRax] = 5;
  state.lstar = 7;
  state.reset(true, true, 0x60fb1);
  const SegmentRegister& cs = state.seg[static_cast<size_t>(Seg::kCs)];
  EXPECT_EQ(cs.base + state.rip, 0xfffffff0u);
  EXPECT_EQ(cs.selector, 0xf000);
  EXPECT_EQ(state.cr0, 0x60000010u);
  EXPECT_EQ(state.gpr[kRdx], 0x60fb1u);
  EXPECT_EQ(state.gpr[kRax], 0u);
  EXPECT_EQ(state.lstar, 0u);
  EXPECT_EQ(state.rflags, 2u);
  EXPECT_EQ(state.activity, Activity::kActive);
  EXPECT_EQ(load<uint16_t>(state.fx.bytes.data()), 0x40);
  EXPECT_EQ(load<uint32_t>(state.fx.bytes.data() + 24), 0x1f80u);
}

TEST(ArchState, OtherProcessorsWaitForSipi) {
  ArchState state;
  state.reset(true, false, 0);
  EXPECT_EQ(state.activity, Activity::kWaitForSipi);
}

TEST(ArchState, InitKeepsCachesFpuTscAndMtrrs) {
  ArchState state;
  state.reset(true, true, 0);
  state.cr0 = cr0::kPe | cr0::kPg | cr0::kCd;
  state.fx.bytes[160] = 9;
  state.tsc_offset = 11;
  state.mtrr.def_type = 0x806;
  state.efer = efer::kLme;
  state.reset(false, true, 0);
  EXPECT_EQ(state.cr0, cr0::kCd | cr0::kEt);
  EXPECT_EQ(state.fx.bytes[160], 9);
  EXPECT_EQ(state.tsc_offset, 11u);
  EXPECT_EQ(state.mtrr.def_type, 0x806u);
  EXPECT_EQ(state.efer, 0u);
}

}  // namespace
}  // namespace kite::x86
