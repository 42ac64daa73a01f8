// The XSAVE feature set: XCR0, layouts, the initial state, what makes #GP (SDM 1, chapter 13).
#include <gtest/gtest.h>

#include <cstring>

#include "cpu/test_machine.h"
#include "support/bytes.h"

namespace kite::cpu {
namespace {

namespace xcr0 = x86::xcr0;
constexpr int kUd = 6, kNm = 7, kGp = 13;
constexpr Gpa kArea = TestMachine::kData;
constexpr uint64_t kAll = xcr0::kX87 | xcr0::kSse | xcr0::kAvx | xcr0::kPkru;
constexpr std::array<uint8_t, 3> kXgetbv = {0x0f, 0x01, 0xd0}, kXsetbv = {0x0f, 0x01, 0xd1};
// Of [rbx]
constexpr std::array<uint8_t, 3> kXsave = {0x0f, 0xae, 0x23}, kXrstor = {0x0f, 0xae, 0x2b},
                                 kXsaveopt = {0x0f, 0xae, 0x33}, kXsavec = {0x0f, 0xc7, 0x23},
                                 kXsaves = {0x0f, 0xc7, 0x2b}, kXrstors = {0x0f, 0xc7, 0x1b};

class Xsave : public testing::Test {
 protected:
  void SetUp() override { fresh(); }
  void fresh() {
    m.cpu().set_state(m.initial_state());
    m.cpu().arch.cr4 |= x86::cr4::kOsxsave;
    m.cpu().arch.xcr0 = kAll;
    m.gpr(x86::kRbx) = kArea;
  }
  void run(std::span<const uint8_t> code, uint64_t mask) {
    m.gpr(x86::kRax) = mask;
    m.gpr(x86::kRdx) = mask >> 32;
    m.run(code);
  }
  uint64_t header(unsigned i) { return m.peek<uint64_t>(kArea + 512 + 8 * i); }
  uint8_t* xmm(unsigned i) { return m.cpu().arch.fx.bytes.data() + x86::kFxXmm0 + 16 * i; }
  uint8_t* ymm_high(unsigned i) { return m.cpu().arch.ymm_high.reg[i].data(); }
  TestMachine m;
};

TEST_F(Xsave, XsetbvRefusesWhatDoesNotGoTogether) {
  for (const uint64_t wrong :
       {uint64_t{0}, xcr0::kSse, xcr0::kX87 | xcr0::kAvx, uint64_t{1} << 40 | 1, uint64_t{1} << 63 | 1}) {
    fresh();
    m.gpr(x86::kRcx) = 0;
    run(kXsetbv, wrong);
    EXPECT_EQ(m.vector(), kGp) << std::hex << wrong;
  }
  fresh();
  run(kXsetbv, xcr0::kX87 | xcr0::kSse | xcr0::kAvx);
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.cpu().arch.xcr0, 7u);
}

TEST_F(Xsave, XgetbvAnswersXcr0AndWhatIsInUse) {
  m.gpr(x86::kRcx) = 0;
  run(kXgetbv, 0);
  EXPECT_EQ(m.gpr(x86::kRax), kAll);
  store<uint32_t>(ymm_high(3), 1);
  m.gpr(x86::kRcx) = 1;
  run(kXgetbv, 0);
  EXPECT_EQ(m.gpr(x86::kRax) & (xcr0::kSse | xcr0::kAvx | xcr0::kPkru), xcr0::kAvx);
  m.gpr(x86::kRcx) = 2;
  run(kXgetbv, 0);
  EXPECT_EQ(m.vector(), kGp);
}

TEST_F(Xsave, UndefinedWithoutOsxsave) {
  m.cpu().arch.cr4 &= ~x86::cr4::kOsxsave;
  m.cpu().arch.cr0 |= x86::cr0::kTs;
  run(kXsave, 7);
  EXPECT_EQ(m.vector(), kUd);
  fresh();
  m.cpu().arch.cr0 |= x86::cr0::kTs;
  run(kXsave, 7);
  EXPECT_EQ(m.vector(), kNm);
}

TEST_F(Xsave, AreaIsAligned) {
  m.gpr(x86::kRbx) = kArea + 32;
  run(kXsave, 7);
  EXPECT_EQ(m.vector(), kGp);
}

TEST_F(Xsave, StandardFormKeepsWhatWasNotAskedFor) {
  store<uint32_t>(ymm_high(2), 0x77);
  store<uint32_t>(xmm(2), 0x66);
  m.poke<uint64_t>(kArea + 512, xcr0::kX87 | xcr0::kAvx);
  m.poke<uint32_t>(kArea + x86::kFxXmm0, 0xaaaa);
  run(kXsave, xcr0::kAvx);
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.peek<uint32_t>(kArea + 576 + 32), 0x77u);
  EXPECT_EQ(m.peek<uint32_t>(kArea + x86::kFxXmm0), 0xaaaau);
  EXPECT_EQ(header(0), xcr0::kX87 | xcr0::kAvx);
  EXPECT_EQ(m.peek<uint32_t>(kArea + 24), 0x1f80u);  // MXCSR goes with SSE and with AVX
}

TEST_F(Xsave, OptimisedFormLeavesInitialStateOut) {
  m.poke<uint32_t>(kArea + 576, 0x5555);
  m.poke<uint64_t>(kArea + 512, kAll);
  run(kXsaveopt, xcr0::kSse | xcr0::kAvx);
  EXPECT_EQ(m.peek<uint32_t>(kArea + 576), 0x5555u);
  EXPECT_EQ(header(0), xcr0::kX87 | xcr0::kPkru);
}

// PKRU follows the header at once when AVX is not asked for, and AVX otherwise.
TEST_F(Xsave, CompactedFormClosesGaps) {
  m.cpu().set_pkru(0x55555554);
  store<uint32_t>(ymm_high(0), 9);
  run(kXsavec, xcr0::kPkru);
  EXPECT_EQ(m.peek<uint64_t>(kArea + 576), 0x55555554u);
  EXPECT_EQ(header(1), uint64_t{1} << 63 | xcr0::kPkru);
  run(kXsavec, xcr0::kAvx | xcr0::kPkru);
  EXPECT_EQ(m.peek<uint32_t>(kArea + 576), 9u);
  EXPECT_EQ(m.peek<uint64_t>(kArea + 576 + 256), 0x55555554u);
  EXPECT_EQ(header(0), xcr0::kAvx | xcr0::kPkru);
}

TEST_F(Xsave, CompactedFormSavesMxcsrThatIsNotTheInitialOne) {
  store<uint32_t>(m.cpu().arch.fx.bytes.data() + 24, 0x1fa0);
  run(kXsavec, xcr0::kSse);
  EXPECT_EQ(header(0), xcr0::kSse);
  EXPECT_EQ(m.peek<uint32_t>(kArea + 24), 0x1fa0u);
}

TEST_F(Xsave, RestoreInitialisesWhatTheAreaDoesNotHold) {
  store<uint32_t>(ymm_high(1), 1);
  store<uint32_t>(xmm(1), 2);
  store<uint16_t>(m.cpu().arch.fx.bytes.data(), uint16_t{0x27f});
  m.cpu().set_pkru(4);
  m.poke<uint32_t>(kArea + 24, 0x1f80);
  run(kXrstor, xcr0::kX87 | xcr0::kAvx | xcr0::kPkru);
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(load<uint32_t>(ymm_high(1)), 0u);
  EXPECT_EQ(load<uint32_t>(xmm(1)), 2u);  // not asked for
  EXPECT_EQ(load<uint16_t>(m.cpu().arch.fx.bytes.data()), 0x37f);
  EXPECT_EQ(m.cpu().arch.pkru, 0u);
}

TEST_F(Xsave, EveryFormComesBack) {
  const std::pair<std::span<const uint8_t>, std::span<const uint8_t>> kForms[] = {
      {kXsave, kXrstor}, {kXsaveopt, kXrstor}, {kXsavec, kXrstor}, {kXsaves, kXrstors}};
  for (const auto& [save, restore] : kForms) {
    fresh();
    std::array<uint8_t, 64> zeroes{};
    m.load(kArea + 512, zeroes);
    for (unsigned i = 0; i < 16; ++i) {
      store<uint64_t>(xmm(i) + 8, i + 1);
      store<uint64_t>(ymm_high(i), 100 + i);
    }
    m.cpu().set_pkru(0x10);
    const x86::FxState fx = m.cpu().arch.fx;
    run(save, kAll);
    ASSERT_EQ(m.vector(), std::nullopt);
    std::memset(xmm(0), 0xee, 256);
    std::memset(ymm_high(0), 0xee, 256);
    m.cpu().set_pkru(0);
    run(restore, kAll);
    ASSERT_EQ(m.vector(), std::nullopt);
    EXPECT_EQ(m.cpu().arch.fx.bytes, fx.bytes);
    for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(load<uint64_t>(ymm_high(i)), 100u + i);
    EXPECT_EQ(m.cpu().arch.pkru, 0x10u);
  }
}

// [SDM 1, 13.8.1 and 13.8.2]
TEST_F(Xsave, WrongHeadersAreRefused) {
  struct Case {
    unsigned word;
    uint64_t value;
    uint64_t xcomp_bv;
  };
  constexpr uint64_t kCompacted = uint64_t{1} << 63;
  constexpr Case kCases[] = {{0, 1u << 20, 0},
                             {1, 1, 0},
                             {2, 1, 0},
                             {0, xcr0::kAvx, kCompacted},
                             {3, 1, kCompacted},
                             {7, 1, kCompacted},
                             {1, kCompacted | 1u << 20, 0}};
  for (const Case& wrong : kCases) {
    fresh();
    std::array<uint8_t, 64> zeroes{};
    m.load(kArea + 512, zeroes);
    m.poke<uint32_t>(kArea + 24, 0x1f80);
    m.poke<uint64_t>(kArea + 520, wrong.xcomp_bv);
    m.poke<uint64_t>(kArea + 512 + 8 * wrong.word, wrong.value);
    run(kXrstor, kAll);
    EXPECT_EQ(m.vector(), kGp) << wrong.word << " " << std::hex << wrong.value;
  }
}

TEST_F(Xsave, SupervisorFormsWantPrivilegeAndCompaction) {
  std::array<uint8_t, 64> zeroes{};
  m.load(kArea + 512, zeroes);
  run(kXrstors, kAll);
  EXPECT_EQ(m.vector(), kGp);
}

TEST(XsaveIn16Bit, TheAreaWrapsWithItsAddress) {
  TestMachine m(TestMachine::Mode::k32);
  m.cpu().arch.cr4 |= x86::cr4::kOsxsave;
  m.cpu().arch.xcr0 = xcr0::kX87 | xcr0::kSse;
  m.gpr(x86::kRbx) = 0xfec0;
  m.poke<uint64_t>(0xc0, xcr0::kSse);  // XSTATE_BV, 512 bytes behind the start
  m.poke<uint64_t>(0xfec0 + 160, 0x1122334455667788);
  m.gpr(x86::kRax) = xcr0::kSse;
  m.run({0x67, 0x0f, 0xae, 0x2f});  // xrstor [bx]
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(load_le(m.cpu().arch.fx.bytes.data() + x86::kFxXmm0, 8), 0x1122334455667788u);
}

}  // namespace
}  // namespace kite::cpu
