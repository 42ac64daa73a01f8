// Two CPUs over one memory, both in translated code: atomics, code that the other writes, pages that the other maps.
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <initializer_list>
#include <thread>
#include <vector>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"

namespace kite::jit {
namespace {

using cpu::TestMachine;
namespace x = x86;

constexpr Gpa kFirstCode = TestMachine::kCode, kSecondCode = 0x14000, kSecondStack = 0x28000;
constexpr Gpa kData = TestMachine::kData, kCallee = 0x50000;

// Blocks are translated when they are first entered.
class TwoCpus : public testing::Test {
 protected:
  explicit TwoCpus(uint32_t threshold = 1) : threshold_(threshold) {
    for (Side& side : sides_) {
      side.cpu->config.cpu_count = static_cast<uint32_t>(sides_.size());
      auto made = Translator::create(*side.cpu, {.code_bytes = size_t{4} << 20, .threshold = threshold_});
      if (!made) throw std::runtime_error(made.error().message);
      side.translator = std::move(*made);
      side.cpu->translator = side.translator.get();
    }
    sides_[1].cpu->state.gpr[x::kRsp] = kSecondStack;
  }
  ~TwoCpus() override {
    for (Side& side : sides_) side.cpu->translator = nullptr;
  }

  uint64_t& gpr(unsigned side, unsigned number) { return sides_[side].cpu->state.gpr[number]; }
  void load(unsigned side, std::initializer_list<uint8_t> code) {
    sides_[side].cpu->state.rip = side == 0 ? kFirstCode : kSecondCode;
    sides_[side].end = sides_[side].cpu->state.rip + code.size();
    m.load(sides_[side].cpu->state.rip, std::span(code.begin(), code.size()));
  }
  // Both at once, until both have executed the HLT at the end of their code.
  void run() {
    std::array<std::future<cpu::Exit>, 2> exits;
    for (size_t i = 0; i < 2; ++i) {
      Side& side = sides_[i];
      side.cpu->arch.activity = x86::Activity::kActive;
      exits[i] =
          std::async(std::launch::async, [this, &side] { return side.cpu->run(m, side.requests, m.sipi_vector); });
    }
    constexpr std::chrono::minutes kHung{2};
    for (auto& exit : exits)
      if (exit.wait_for(kHung) != std::future_status::ready) stop();
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(exits[i].get(), cpu::Exit::kHalted) << "CPU " << i;
      EXPECT_EQ(sides_[i].cpu->state.rip, sides_[i].end) << "CPU " << i;
      EXPECT_EQ(sides_[i].translator->counters().runs.value() != 0, threshold_ == 1) << "CPU " << i;
    }
  }

  TestMachine m;

 private:
  struct Side {
    cpu::Cpu* cpu = nullptr;
    uint64_t end = 0;
    std::unique_ptr<Translator> translator = {};
    std::atomic<uint32_t> requests{0};
  };

  void stop() {
    for (Side& side : sides_) {
      side.requests.fetch_or(request::kKick);
      side.cpu->translation.alarm.fetch_or(cpu::TranslationArea::kRequest);
    }
  }

  const uint32_t threshold_;
  std::unique_ptr<cpu::Cpu> second_ = m.make_second_cpu();
  std::array<Side, 2> sides_{{{.cpu = &m.cpu()}, {.cpu = second_.get()}}};
};

TEST_F(TwoCpus, LockedInstructionsLoseNothing) {
  constexpr uint64_t kRounds = 20'000;
  const std::initializer_list<uint8_t> code = {
      0xf0, 0x48, 0xff, 0x07,                 // 1: lock inc qword [rdi]
      0xba, 1,    0,    0,    0,              // mov edx, 1
      0xf0, 0x48, 0x0f, 0xc1, 0x57, 0x08,     // lock xadd [rdi+8], rdx
      0x48, 0x8b, 0x47, 0x10,                 // 2: mov rax, [rdi+16]
      0x48, 0x8d, 0x50, 0x01,                 // lea rdx, [rax+1]
      0xf0, 0x48, 0x0f, 0xb1, 0x57, 0x10,     // lock cmpxchg [rdi+16], rdx
      0x75, 0xf0,                             // jne 2b
      0xba, 1,    0,    0,    0,              // 3: mov edx, 1
      0x87, 0x57, 0x18,                       // xchg [rdi+24], edx
      0x85, 0xd2, 0x74, 0x04, 0xf3, 0x90,     // test edx, edx; jz 4f; pause
      0xeb, 0xf0,                             // jmp 3b
      0x48, 0xff, 0x47, 0x20,                 // 4: inc qword [rdi+32], which the lock at [rdi+24] protects
      0xc7, 0x47, 0x18, 0,    0,    0,    0,  // mov dword [rdi+24], 0
      0xff, 0xc9, 0x75, 0xc2, 0xf4};          // dec ecx; jnz 1b; hlt
  for (const unsigned side : {0u, 1u}) {
    load(side, code);
    gpr(side, x::kRdi) = kData;
    gpr(side, x::kRcx) = kRounds;
  }
  run();
  for (const uint64_t offset : {0u, 8u, 16u, 32u}) EXPECT_EQ(m.peek<uint64_t>(kData + offset), 2 * kRounds) << offset;
}

// The second writes a new immediate into the function that the first calls, and waits for it to be answered.
TEST_F(TwoCpus, WhatOneWritesTheOtherExecutes) {
  m.load(kCallee, std::array<uint8_t, 3>{0xb0, 0x00, 0xc3});  // mov al, 0; ret
  load(0, {0xff, 0xd3,                                        // 1: call rbx
           0x38, 0xc8, 0x75, 0xfa,                            // cmp al, cl; jne 1b
           0x88, 0x0f, 0xfe, 0xc1,                            // mov [rdi], cl; inc cl
           0x80, 0xf9, 50, 0x75, 0xf1, 0xf4});                // cmp cl, 50; jne 1b; hlt
  load(1, {0x88, 0x4b, 0x01,                                  // 1: mov [rbx+1], cl
           0x38, 0x0f, 0x75, 0xfc, 0xfe, 0xc1,                // 2: cmp [rdi], cl; jne 2b; inc cl
           0x80, 0xf9, 50, 0x75, 0xf2, 0xf4});                // cmp cl, 50; jne 1b; hlt
  for (const unsigned side : {0u, 1u}) {
    gpr(side, x::kRbx) = kCallee;
    gpr(side, x::kRdi) = kData;
    gpr(side, x::kRcx) = 1;
  }
  run();
  EXPECT_EQ(m.peek<uint8_t>(kData), 49u);
}

// No block gets warm: what runs are the instructions that were decoded first.
class TwoInterpretingCpus : public TwoCpus {
 protected:
  TwoInterpretingCpus() : TwoCpus(~uint32_t{0}) {}
};

// The second writes the immediate of the function that the first calls twice, one after the other, so that the second
// time is often while the first CPU decodes it anew: the NOPs take it a while. Old instructions must not be kept with
// the new bytes.
TEST_F(TwoInterpretingCpus, WhatIsWrittenWhileTheOtherDecodesIsExecutedToo) {
  std::vector<uint8_t> callee = {0xb8, 0, 0, 0, 0};  // mov eax, 0
  callee.insert(callee.end(), 90, 0x90);
  callee.push_back(0xc3);  // ret
  m.load(kCallee, callee);
  load(0, {0xff, 0xd3, 0x39, 0xc8, 0x74, 0x04,  // 1: call rbx; cmp eax, ecx; je 2f
           0xf3, 0x90, 0xeb, 0xf6,              // pause; jmp 1b
           0x89, 0x0f, 0xff, 0xc1,              // 2: mov [rdi], ecx; inc ecx
           0x81, 0xf9, 0x20, 0x4e, 0,    0,     // cmp ecx, 20000
           0x75, 0xea, 0xf4});                  // jne 1b; hlt
  load(1, {0x89, 0x53, 0x01,                    // 1: mov [rbx+1], edx
           0x69, 0xc1, 0xb1, 0x79, 0x37, 0x9e,  // imul eax, ecx, 0x9e3779b1
           0xc1, 0xe8, 20,   0xff, 0xc0,        // shr eax, 20; inc eax
           0xff, 0xc8, 0x75, 0xfc,              // 2: dec eax; jnz 2b
           0x89, 0x4b, 0x01,                    // mov [rbx+1], ecx
           0x39, 0x0f, 0x74, 0x04,              // 3: cmp [rdi], ecx; je 4f
           0xf3, 0x90, 0xeb, 0xf8,              // pause; jmp 3b
           0xff, 0xc1,                          // 4: inc ecx
           0x81, 0xf9, 0x20, 0x4e, 0,    0,     // cmp ecx, 20000
           0x75, 0xd9, 0xf4});                  // jne 1b; hlt
  for (const unsigned side : {0u, 1u}) {
    gpr(side, x::kRbx) = kCallee;
    gpr(side, x::kRdi) = kData;
    gpr(side, x::kRcx) = 1;
  }
  run();
  EXPECT_EQ(m.peek<uint32_t>(kData), 19'999u);
}

// The second maps one of two pages of code at a place, by turns, and tells the first, which drops its translation and
// calls it.
TEST_F(TwoCpus, AMappingThatTheOtherChangesIsSeenAfterInvlpg) {
  constexpr Gpa kPages = 0x60000;  // the number of the second is odd
  constexpr uint64_t kPlace = 0x70000;
  m.load(kPages, std::array<uint8_t, 3>{0xb0, 0x00, 0xc3});           // mov al, 0; ret
  m.load(kPages + 0x1000, std::array<uint8_t, 3>{0xb0, 0x01, 0xc3});  // mov al, 1; ret
  load(0, {0x39, 0x0f, 0x75, 0xfc,                                    // 1: cmp [rdi], ecx; jne 1b
           0x0f, 0x01, 0x3b, 0xff, 0xd3,                              // invlpg [rbx]; call rbx
           0x88, 0x47, 0x08, 0x89, 0x4f, 0x04,                        // mov [rdi+8], al; mov [rdi+4], ecx
           0xff, 0xc1, 0x81, 0xf9, 100,  0,    0, 0,                  // inc ecx; cmp ecx, 100
           0x75, 0xe7, 0xf4});                                        // jne 1b; hlt
  load(1, {0x4d, 0x87, 0xc1,                                          // 1: xchg r8, r9
           0x4c, 0x89, 0x06, 0x89, 0x0f,                              // mov [rsi], r8; mov [rdi], ecx
           0x39, 0x4f, 0x04, 0x75, 0xfb,                              // 2: cmp [rdi+4], ecx; jne 2b
           0x8a, 0x47, 0x08,                                          // mov al, [rdi+8]
           0x4c, 0x89, 0xc2, 0x48, 0xc1, 0xea, 12,                    // mov rdx, r8; shr rdx, 12
           0x80, 0xe2, 0x01, 0x38, 0xd0,                              // and dl, 1; cmp al, dl
           0x74, 0x03, 0x49, 0xff, 0xc2,                              // je 3f; inc r10
           0xff, 0xc1, 0x81, 0xf9, 100,  0,    0,  0,                 // 3: inc ecx; cmp ecx, 100
           0x75, 0xd5, 0xf4});                                        // jne 1b; hlt
  for (const unsigned side : {0u, 1u}) {
    gpr(side, x::kRdi) = kData;
    gpr(side, x::kRcx) = 1;
  }
  gpr(0, x::kRbx) = kPlace;
  gpr(1, x::kRsi) = TestMachine::kPt + (kPlace >> 12) * 8;
  gpr(1, x::kR8) = kPages | 7;
  gpr(1, x::kR9) = (kPages + 0x1000) | 7;
  run();
  EXPECT_EQ(m.peek<uint32_t>(kData + 4), 99u);
  EXPECT_EQ(gpr(1, x::kR10), 0u) << "calls that went to the page of before";
}

}  // namespace
}  // namespace kite::jit
