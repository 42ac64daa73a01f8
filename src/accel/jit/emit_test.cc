// What is emitted natively, as far as tests/streams cannot tell: that it is, and how it meets what is not.
#include <gtest/gtest.h>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"

namespace kite::jit {
namespace {

using cpu::TestMachine;
namespace x = x86;

class EmitTest : public testing::Test {
 protected:
  EmitTest() {
    auto made = Translator::create(m.cpu(), {.code_bytes = size_t{1} << 20, .threshold = 1});
    if (!made) throw std::runtime_error(made.error().message);
    translator = std::move(*made);
    m.cpu().translator = translator.get();
    m.gpr(x::kRdi) = TestMachine::kData;
  }
  ~EmitTest() override { m.cpu().translator = nullptr; }
  [[nodiscard]] uint64_t interpreted(x::Op op) const {
    return translator->fall_backs().not_emitted[static_cast<size_t>(op)];
  }

  TestMachine m;
  std::unique_ptr<Translator> translator;
};

TEST_F(EmitTest, X87StaysInTheHostsUnit) {
  m.gpr(x::kRcx) = 1000;
  // fld1; fld1; faddp; fistp dword [rdi]; dec ecx; jnz
  m.run({0xd9, 0xe8, 0xd9, 0xe8, 0xde, 0xc1, 0xdb, 0x1f, 0xff, 0xc9, 0x75, 0xf4});
  EXPECT_EQ(m.peek<uint32_t>(TestMachine::kData), 2u);
  EXPECT_EQ(interpreted(x::Op::kX87), 0u);
  EXPECT_LT(translator->fall_backs().slow[static_cast<size_t>(x::Op::kX87)], 10u);
}

TEST_F(EmitTest, X87PointersAreTheGuests) {
  m.run({0xd9, 0xe8, 0x90, 0x48, 0x0f, 0xae, 0x07});  // fld1; nop; fxsave64 [rdi]
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kData + 8), TestMachine::kCode);
}

TEST_F(EmitTest, UnmaskedX87ExceptionsReachTheGuest) {
  constexpr uint16_t kDivisionUnmasked = 0x37b;
  m.poke<uint16_t>(TestMachine::kData, kDivisionUnmasked);
  m.run({0xd9, 0x2f, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b});  // fldcw [rdi]; fld1; fldz; fdivp; fwait
  EXPECT_EQ(m.vector(), 16);
}

TEST_F(EmitTest, VectorRegistersOutliveTheInterpreter) {
  m.gpr(x::kRax) = 0x1234;
  // movq xmm5, rax; xor eax, eax; cpuid; movq rsi, xmm5
  m.run({0x66, 0x48, 0x0f, 0x6e, 0xe8, 0x31, 0xc0, 0x0f, 0xa2, 0x66, 0x48, 0x0f, 0x7e, 0xee});
  EXPECT_EQ(m.gpr(x::kRsi), 0x1234u);
  EXPECT_EQ(interpreted(x::Op::kSse), 0u);
}

TEST_F(EmitTest, StacAndClacBetweenCallsAndReturns) {
  m.gpr(x::kRcx) = 200;
  // 1: call f; dec ecx; jnz 1b; hlt; f: stac; clac; ret
  m.run({0xe8, 5, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, 0xf4, 0x0f, 0x01, 0xcb, 0x0f, 0x01, 0xca, 0xc3});
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x::kRcx), 0u);
  EXPECT_EQ(m.gpr(x::kRsp), TestMachine::kStackTop);
}

TEST_F(EmitTest, LoopneBetweenCallsAndReturns) {
  m.gpr(x::kRcx) = 100;
  m.run({0xe8, 3, 0, 0, 0, 0xe0, 0xf9, 0xf4, 0x85, 0xe4, 0xc3});  // 1: call f; loopne 1b; hlt; f: test esp, esp; ret
  EXPECT_EQ(m.gpr(x::kRcx), 0u);
  EXPECT_EQ(m.gpr(x::kRsp), TestMachine::kStackTop);
}

TEST_F(EmitTest, TheInterruptFlagIsChangedInPlace) {
  m.run({0xfa, 0x9c, 0x58, 0xfb, 0x9c, 0x5a});  // cli; pushf; pop rax; sti; pushf; pop rdx
  EXPECT_EQ(m.gpr(x::kRax) & x::flag::kIf, 0u);
  EXPECT_EQ(m.gpr(x::kRdx) & x::flag::kIf, x::flag::kIf);
  EXPECT_EQ(interpreted(x::Op::kCli) + interpreted(x::Op::kSti) + interpreted(x::Op::kPushf), 0u);
}

TEST_F(EmitTest, HighByteRegistersAreNative) {
  m.gpr(x::kRax) = 0x1200;
  m.gpr(x::kRbx) = 0x3400;
  m.run({0x00, 0xfc, 0x80, 0xcf, 0x01, 0x86, 0xc0});  // add ah, bh; or bh, 1; xchg al, al
  EXPECT_EQ(m.gpr(x::kRax), 0x4600u);
  EXPECT_EQ(m.gpr(x::kRbx), 0x3500u);
  EXPECT_EQ(interpreted(x::Op::kAdd) + interpreted(x::Op::kOr), 0u);
}

// The bytes that a block becomes on a machine of so many CPUs.
uint64_t host_bytes(uint32_t cpus, std::initializer_list<uint8_t> code) {
  TestMachine m;
  m.cpu().config.cpu_count = cpus;
  auto translator = Translator::create(m.cpu(), {.code_bytes = size_t{1} << 20, .threshold = 1});
  if (!translator) throw std::runtime_error(translator.error().message);
  m.cpu().translator = translator->get();
  m.gpr(x::kRdi) = TestMachine::kData;
  m.run(code);
  m.cpu().translator = nullptr;
  return (*translator)->counters().host_bytes.value();
}

TEST(EmitLockTest, OneCpuNeedsNoLock) {
  const auto saved = [](std::initializer_list<uint8_t> code) { return host_bytes(2, code) - host_bytes(1, code); };
  EXPECT_EQ(saved({0xf0, 0xff, 0x07}), 1u);                    // lock inc dword [rdi]
  EXPECT_EQ(saved({0xf0, 0x0f, 0xb1, 0x0f}), 1u);              // lock cmpxchg [rdi], ecx
  EXPECT_EQ(saved({0xf0, 0x83, 0x44, 0x24, 0xfc, 0x00}), 0u);  // lock add dword [rsp-4], 0
  EXPECT_EQ(saved({0xf0, 0x83, 0x0f, 0x00}), 0u);              // lock or dword [rdi], 0
}

}  // namespace
}  // namespace kite::jit
