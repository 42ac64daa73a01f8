// What translated code does of the operating system's instructions itself: string instructions within a page, access
// rights, the bases of segments.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"

namespace kite::jit {
namespace {

using cpu::TestMachine;
namespace x = x86;

constexpr uint64_t kData = TestMachine::kData, kPage = 0x1000;
constexpr uint8_t kGp = 13, kPf = 14;

class EmitSystemTest : public testing::Test {
 protected:
  EmitSystemTest() {
    auto made = Translator::create(m.cpu(), {.code_bytes = size_t{1} << 20, .threshold = 1});
    if (!made) throw std::runtime_error(made.error().message);
    translator = std::move(*made);
    m.cpu().translator = translator.get();
    m.gpr(x::kRdi) = kData;
  }
  ~EmitSystemTest() override { m.cpu().translator = nullptr; }
  [[nodiscard]] uint64_t interpreted(x::Op op) const {
    return translator->fall_backs().not_emitted[static_cast<size_t>(op)];
  }
  [[nodiscard]] uint64_t left(x::Op op) const { return translator->fall_backs().slow[static_cast<size_t>(op)]; }
  // Runs `code` with the pages of the operands in the TLB.
  void run_warm(const std::vector<uint8_t>& code) {
    const uint64_t rdi = m.gpr(x::kRdi), rsi = m.gpr(x::kRsi), rcx = m.gpr(x::kRcx), rax = m.gpr(x::kRax);
    m.run({0x8a, 0x06, 0x8a, 0x07, 0x88, 0x07});  // mov al, [rsi]; mov al, [rdi]; mov [rdi], al
    m.gpr(x::kRdi) = rdi, m.gpr(x::kRsi) = rsi, m.gpr(x::kRcx) = rcx, m.gpr(x::kRax) = rax;
    m.run(code, TestMachine::kCode + 0x100);
  }

  TestMachine m;
  std::unique_ptr<Translator> translator;
};

TEST_F(EmitSystemTest, RepMovsCopiesWithinAPage) {
  for (uint64_t i = 0; i < 64; ++i) m.poke<uint8_t>(kData + i, static_cast<uint8_t>(i + 1));
  m.gpr(x::kRsi) = kData;
  m.gpr(x::kRdi) = kData + kPage + 8;
  m.gpr(x::kRcx) = 8;
  run_warm({0xf3, 0x48, 0xa5});  // rep movsq
  EXPECT_EQ(m.vector(), std::nullopt);
  for (uint64_t i = 0; i < 64; ++i) EXPECT_EQ(m.peek<uint8_t>(kData + kPage + 8 + i), i + 1);
  EXPECT_EQ(m.gpr(x::kRcx), 0u);
  EXPECT_EQ(m.gpr(x::kRsi), kData + 64);
  EXPECT_EQ(m.gpr(x::kRdi), kData + kPage + 72);
  EXPECT_EQ(interpreted(x::Op::kMovs) + left(x::Op::kMovs), 0u);
}

TEST_F(EmitSystemTest, RepMovsRepeatsWhatItOverlaps) {
  m.poke<uint8_t>(kData, 0x5a);
  m.gpr(x::kRsi) = kData;
  m.gpr(x::kRdi) = kData + 1;
  m.gpr(x::kRcx) = 100;
  run_warm({0xf3, 0xa4});  // rep movsb
  for (uint64_t i = 0; i <= 100; ++i) EXPECT_EQ(m.peek<uint8_t>(kData + i), 0x5a);
  EXPECT_EQ(left(x::Op::kMovs), 0u);
}

TEST_F(EmitSystemTest, RepStosFillsAWholePage) {
  m.gpr(x::kRsi) = kData;
  const std::pair<unsigned, std::vector<uint8_t>> widths[] = {
      {0, {0xf3, 0xaa}}, {1, {0xf3, 0x66, 0xab}}, {2, {0xf3, 0xab}}, {3, {0xf2, 0x48, 0xab}}};
  for (const auto& [log, code] : widths) {
    m.gpr(x::kRdi) = kData;
    m.gpr(x::kRax) = 0x1122334455667788;
    m.gpr(x::kRcx) = kPage >> log;
    m.poke<uint8_t>(kData + kPage, 0);
    run_warm(code);
    const uint64_t mask = log == 3 ? ~uint64_t{0} : (uint64_t{1} << (8u << log)) - 1;
    for (uint64_t at = 0; at < kPage; at += 1u << log)
      ASSERT_EQ(m.peek<uint64_t>(kData + at) & mask, 0x1122334455667788 & mask) << at;
    EXPECT_EQ(m.peek<uint8_t>(kData + kPage), 0u);
    EXPECT_EQ(m.gpr(x::kRdi), kData + kPage);
    EXPECT_EQ(m.gpr(x::kRcx), 0u);
  }
  EXPECT_EQ(interpreted(x::Op::kStos) + left(x::Op::kStos), 0u);
}

TEST_F(EmitSystemTest, NothingToRepeatTouchesNothing) {
  m.gpr(x::kRdi) = m.gpr(x::kRsi) = 0xdead'0000'0000'0000;  // not canonical
  m.gpr(x::kRcx) = 0;
  m.run({0xf3, 0xa4, 0xf3, 0xab});  // rep movsb; rep stosd
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x::kRdi), 0xdead'0000'0000'0000);
}

TEST_F(EmitSystemTest, RepStosFaultsInTheMiddle) {
  m.set_pte(kData + kPage, 0);
  m.gpr(x::kRsi) = kData;
  m.gpr(x::kRdi) = kData + kPage - 10;
  m.gpr(x::kRcx) = 30;
  run_warm({0xf3, 0xaa});  // rep stosb
  EXPECT_EQ(m.vector(), kPf);
  EXPECT_EQ(m.gpr(x::kRdi), kData + kPage);
  EXPECT_EQ(m.gpr(x::kRcx), 20u);
  EXPECT_EQ(m.cpu().arch.cr2, kData + kPage);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 0x100);
}

TEST_F(EmitSystemTest, ACountThatWrapsIsNotWithinAPage) {
  m.set_pte(kData + kPage, 0);
  m.gpr(x::kRsi) = kData;
  m.gpr(x::kRcx) = uint64_t{1} << 61;  // times 8 is 0
  run_warm({0xf3, 0x48, 0xab});        // rep stosq
  EXPECT_EQ(m.vector(), kPf);
  EXPECT_EQ(m.gpr(x::kRdi), kData + kPage);
}

TEST_F(EmitSystemTest, BackwardStringsAreTheInterpreters) {
  m.gpr(x::kRsi) = kData + 7;
  m.gpr(x::kRdi) = kData + 15;
  m.gpr(x::kRcx) = 8;
  m.poke<uint64_t>(kData, 0x1122334455667788);
  run_warm({0xfd, 0xf3, 0xa4, 0xfc});  // std; rep movsb; cld
  EXPECT_EQ(m.peek<uint64_t>(kData + 8), 0x1122334455667788u);
  EXPECT_EQ(m.gpr(x::kRdi), kData + 7);
  EXPECT_EQ(left(x::Op::kMovs), 1u);
}

TEST_F(EmitSystemTest, RepStosOverItsOwnBlockEndsIt) {
  m.gpr(x::kRax) = 0x90;
  m.gpr(x::kRcx) = 2;
  m.gpr(x::kRdi) = TestMachine::kCode + 0x109;
  m.gpr(x::kRsi) = kData;
  // mov dl, [rdi]; mov [rdi], dl; rep stosb; mov ebx, ebx; ud2, which becomes nop; nop
  run_warm({0x8a, 0x17, 0x88, 0x17, 0xf3, 0xaa, 0x90, 0x89, 0xdb, 0x0f, 0x0b});
  EXPECT_EQ(m.vector(), std::nullopt);
}

TEST_F(EmitSystemTest, StacAndClacStayInTranslatedCode) {
  constexpr uint64_t kPresentWritable = 3, kUser = 4;
  for (uint64_t page = 0; page < 0x200; ++page) m.set_pte(page << 12, page << 12 | kPresentWritable);
  m.set_pte(kData, kData | kPresentWritable | kUser);
  m.cpu().flush_tlb(false);
  ASSERT_TRUE(m.cpu().write_control(4, m.cpu().arch.cr4 | x86::cr4::kSmap));
  m.poke<uint32_t>(kData, 77);
  m.gpr(x::kRsi) = kData + kPage;
  m.gpr(x::kRcx) = 200;
  // 1: stac; mov eax, [rdi]; clac; mov edx, [rsi]; dec ecx; jnz 1b; mov ebx, [rdi]
  m.run({0x0f, 0x01, 0xcb, 0x8b, 0x07, 0x0f, 0x01, 0xca, 0x8b, 0x16, 0xff, 0xc9, 0x75, 0xf2, 0x8b, 0x1f});
  EXPECT_EQ(m.gpr(x::kRax), 77u);
  EXPECT_EQ(m.gpr(x::kRcx), 0u);
  EXPECT_EQ(m.vector(), kPf);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 14);
  EXPECT_EQ(m.pushed_flags() & x86::flag::kAc, 0u);
  EXPECT_EQ(interpreted(x::Op::kStac) + left(x::Op::kStac) + interpreted(x::Op::kClac) + left(x::Op::kClac), 0u);
  EXPECT_LT(translator->counters().runs.value(), 50u);
}

TEST_F(EmitSystemTest, BasesAreReadAndWritten) {
  ASSERT_TRUE(m.cpu().write_control(4, m.cpu().arch.cr4 | x86::cr4::kFsgsbase));
  m.gpr(x::kRax) = kData;
  m.gpr(x::kR12) = 0xffff'8000'1234'5678;
  // wrfsbase rax; wrgsbase r12; rdfsbase rdx; rdgsbase r13; rdgsbase ebx; wrgsbase r12d; rdgsbase rsi
  m.run({0xf3, 0x48, 0x0f, 0xae, 0xd0, 0xf3, 0x49, 0x0f, 0xae, 0xdc, 0xf3, 0x48, 0x0f, 0xae, 0xc2, 0xf3, 0x49,
         0x0f, 0xae, 0xcd, 0xf3, 0x0f, 0xae, 0xcb, 0xf3, 0x41, 0x0f, 0xae, 0xdc, 0xf3, 0x48, 0x0f, 0xae, 0xce});
  EXPECT_EQ(m.gpr(x::kRdx), kData);
  EXPECT_EQ(m.gpr(x::kR13), 0xffff'8000'1234'5678);
  EXPECT_EQ(m.gpr(x::kRbx), 0x1234'5678u);
  EXPECT_EQ(m.gpr(x::kRsi), 0x1234'5678u);
  for (const x::Op op : {x::Op::kRdfsbase, x::Op::kRdgsbase, x::Op::kWrfsbase, x::Op::kWrgsbase})
    EXPECT_EQ(interpreted(op) + left(op), 0u);
}

TEST_F(EmitSystemTest, ABaseThatIsNotCanonicalFaults) {
  ASSERT_TRUE(m.cpu().write_control(4, m.cpu().arch.cr4 | x86::cr4::kFsgsbase));
  m.gpr(x::kRax) = 0x1000'0000'0000'0000;
  m.run({0xf3, 0x48, 0x0f, 0xae, 0xd0});  // wrfsbase rax
  EXPECT_EQ(m.vector(), kGp);
}

TEST_F(EmitSystemTest, BasesNeedTheirControlBit) {
  m.run({0xf3, 0x48, 0x0f, 0xae, 0xc0});  // rdfsbase rax
  EXPECT_EQ(m.vector(), 6);
}

}  // namespace
}  // namespace kite::jit
