// The ranges that places in user code remember, as the guest sees them.
#include "accel/jit/ranges.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"

namespace kite::jit {
namespace {

using cpu::TestMachine;
namespace x = x86;

constexpr uint64_t kUserPage = 7;  // present, writable, user

class RangesTest : public testing::Test {
 protected:
  explicit RangesTest(uint32_t first_entries = 0) {
    auto made = Translator::create(
        m.cpu(),
        {.code_bytes = size_t{1} << 20, .threshold = 1, .first_entries = first_entries, .busy_cycles = ~uint64_t{0}});
    if (!made) throw std::runtime_error(made.error().message);
    translator = std::move(*made);
    m.cpu().translator = translator.get();
    for (unsigned page = 0; page < 3; ++page)
      m.set_pte(TestMachine::kData + page * kPageSize, (TestMachine::kData + page * kPageSize) | kUserPage);
    m.enter_user();
    m.gpr(x::kRdi) = TestMachine::kData;
    m.gpr(x::kRcx) = 100;
  }
  ~RangesTest() override { m.cpu().translator = nullptr; }
  // Once more from the start.
  void again(std::initializer_list<uint8_t> code) {
    m.enter_user();
    m.gpr(x::kRcx) = 100;
    m.run(code);
  }
  [[nodiscard]] uint32_t filled() { return m.cpu().translation.filled_count; }

  TestMachine m;
  std::unique_ptr<Translator> translator;
};

constexpr std::initializer_list<uint8_t> kLoads = {0x48, 0x8b, 0x07, 0xff,
                                                   0xc9, 0x75, 0xf9};  // 1: mov rax, [rdi]; dec ecx; jnz
constexpr std::initializer_list<uint8_t> kStores = {0x48, 0x89, 0x07, 0xff,
                                                    0xc9, 0x75, 0xf9};  // 1: mov [rdi], rax; dec ecx; jnz

TEST_F(RangesTest, AreFilledByPlacesThatStay) {
  m.poke<uint64_t>(TestMachine::kData, 77);
  m.run(kLoads);
  EXPECT_EQ(m.gpr(x::kRax), 77u);
  EXPECT_GE(filled(), 1u);
}

TEST_F(RangesTest, GoWithTheirPage) {
  m.poke<uint64_t>(TestMachine::kData, 1);
  m.poke<uint64_t>(TestMachine::kData + 2 * kPageSize, 2);
  m.run(kLoads);
  ASSERT_EQ(filled(), 1u);
  m.cpu().flush_page(TestMachine::kData + 64 * kPageSize);
  EXPECT_EQ(filled(), 1u);
  m.set_pte(TestMachine::kData, (TestMachine::kData + 2 * kPageSize) | kUserPage);  // flushes it
  EXPECT_EQ(filled(), 0u);
  again(kLoads);
  EXPECT_EQ(m.gpr(x::kRax), 2u);
}

// The long-mode tables map memory above 2 MiB with large pages.
TEST_F(RangesTest, GoWithTheLargePageThatTheyAreAPartOf) {
  constexpr uint64_t kLarge = uint64_t{2} << 20, kPlace = 2 * kLarge + 5 * kPageSize;
  m.gpr(x::kRdi) = kPlace;
  m.run(kLoads);
  ASSERT_EQ(filled(), 1u);
  m.cpu().flush_page(kPlace + 100 * kPageSize);
  EXPECT_EQ(filled(), 0u);
}

TEST_F(RangesTest, GoWithTheWholeTlb) {
  m.run(kStores);
  m.set_pte(TestMachine::kData, (TestMachine::kData) | (kUserPage & ~uint64_t{2}));  // read-only
  m.cpu().flush_tlb(false);
  EXPECT_EQ(filled(), 0u);
  again(kStores);
  EXPECT_EQ(m.vector(), 14);
}

TEST_F(RangesTest, EndWhereTheMemoryDoes) {
  m.run(kLoads);
  m.gpr(x::kRdi) = TestMachine::kData + kPageSize - 4;
  m.set_pte(TestMachine::kData + kPageSize, 0);
  m.cpu().flush_page(TestMachine::kData + kPageSize);
  again(kLoads);
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.cpu().arch.cr2, TestMachine::kData + kPageSize);
}

TEST_F(RangesTest, StoresAcrossPagesAreSeenOnBoth) {
  // Both pages are known first, so that one range has them.
  m.gpr(x::kRdi) = TestMachine::kData + kPageSize;
  m.run(kStores);
  m.gpr(x::kRdi) = TestMachine::kData + kPageSize - 4;
  again(kStores);
  const uint32_t generation = m.ram->mark_code(TestMachine::kData + kPageSize);
  again(kStores);
  EXPECT_NE(m.ram->code_generation(TestMachine::kData + kPageSize)->load(), generation);
}

// 1: inc rax; mov [rdi], rax; cmp dword [rsi], 0; je
constexpr std::initializer_list<uint8_t> kStoresUntilTold = {0x48, 0xff, 0xc0, 0x48, 0x89, 0x07,
                                                             0x83, 0x3e, 0x00, 0x74, 0xf5};

// Stores while another thread marks the page or collects what is dirty.
class WatchedRangesTest : public RangesTest {
 protected:
  static constexpr uint64_t kTold = TestMachine::kData + 2 * kPageSize;

  template <class Other>
  void run_beside(Other other, std::initializer_list<uint8_t> code = kStoresUntilTold) {
    m.gpr(x::kRsi) = kTold;
    auto result = std::async(std::launch::async, [&] {
      other();
      std::atomic_ref(*reinterpret_cast<uint32_t*>(m.ram->host() + kTold)).store(1);
    });
    m.run(code);
    result.get();
  }
  [[nodiscard]] uint64_t value() const {
    return std::atomic_ref(*reinterpret_cast<uint64_t*>(m.ram->host() + TestMachine::kData)).load();
  }
};

// Where there are other CPUs, who may decode code from the page at any time.
TEST_F(WatchedRangesTest, StoresAreSeenByWhoMarksThePage) {
  m.cpu().config.cpu_count = 2;
  constexpr unsigned kMarks = 200;
  unsigned seen = 0;
  run_beside([&] {
    while (value() == 0) std::this_thread::yield();
    for (; seen < kMarks; ++seen) {
      const uint32_t generation = m.ram->mark_code(TestMachine::kData);
      const auto is_seen = [&] { return m.ram->code_generation(TestMachine::kData)->load() != generation; };
      constexpr std::chrono::seconds kHung{20};
      const auto end = std::chrono::steady_clock::now() + kHung;
      while (!is_seen() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      if (!is_seen()) return;
    }
  });
  EXPECT_EQ(seen, kMarks);
}

// Behind the mark no store goes unnoticed, whatever the code had looked at before: the page itself, or its neighbour,
// which the range was filled for.
TEST_F(WatchedRangesTest, WhatIsStoredBehindTheMarkIsSeen) {
  // 1: inc rax; mov edx, ecx; shr edx, 20; shl edx, 12; mov [rdi+rdx], rax; dec ecx; cmp dword [rsi], 0; je
  const std::initializer_list<uint8_t> from_neighbour = {0x48, 0xff, 0xc0, 0x89, 0xca, 0xc1, 0xea, 0x14,
                                                         0xc1, 0xe2, 0x0c, 0x48, 0x89, 0x04, 0x17, 0xff,
                                                         0xc9, 0x83, 0x3e, 0x00, 0x74, 0xea};
  m.cpu().config.cpu_count = 2;
  constexpr uint64_t kStoredTo = kUserPage | 0x60;  // accessed and dirty: the TLB takes it in with its neighbour
  m.set_pte(TestMachine::kData, TestMachine::kData | kStoredTo);
  for (const auto& code : {from_neighbour, kStoresUntilTold}) {
    m.poke<uint64_t>(TestMachine::kData, 0);
    m.poke<uint32_t>(kTold, 0);
    m.cpu().flush_tlb(false);
    m.enter_user();
    m.gpr(x::kRcx) = 0x100000 + 5000;  // behind the trial
    unsigned changes = 0, unseen = 0;
    const auto mark = [&] {
      const uint32_t generation = m.ram->mark_code(TestMachine::kData);
      const auto is_seen = [&] { return m.ram->code_generation(TestMachine::kData)->load() != generation; };
      const uint64_t marked = value();
      for (unsigned i = 0; i < 100 && !is_seen(); ++i) __builtin_ia32_pause();
      if (is_seen() || value() == marked) return;
      ++changes;
      constexpr std::chrono::seconds kHung{2};  // the look comes behind the store
      const auto end = std::chrono::steady_clock::now() + kHung;
      while (!is_seen() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      unseen += is_seen() ? 0 : 1;
    };
    run_beside(
        [&] {
          while (value() == 0) std::this_thread::yield();
          for (unsigned round = 0; round < 1000 && unseen == 0; ++round) mark();
        },
        code);
    EXPECT_EQ(unseen, 0u) << changes;
  }
}

// The same of a place that has no range yet: what it has found in the TLB holds until code is left.
TEST_F(WatchedRangesTest, WhatTheTlbKnewBeforeTheMarkIsSeen) {
  m.cpu().translator = nullptr;
  translator.reset();  // one of a Cpu at a time hears of watched pages
  auto made =
      Translator::create(m.cpu(), {.code_bytes = size_t{1} << 20, .threshold = 1, .first_entries = 0, .patience = 255});
  ASSERT_TRUE(made);
  translator = std::move(*made);
  m.cpu().translator = translator.get();
  m.cpu().config.cpu_count = 2;
  // mov edx, [rdi] (for the store below, too); mov [rsi], ecx; loads from pages that nobody knows yet, which take some
  // microseconds; mov [rdi], rax
  constexpr uint64_t kUnknown = TestMachine::kData + 3 * kPageSize, kPages = 8;
  std::vector<uint8_t> code{0x8b, 0x17, 0x89, 0x0e};
  for (uint8_t i = 0; i < kPages; ++i) {
    m.set_pte(kUnknown + i * kPageSize, (kUnknown + i * kPageSize) | kUserPage);
    code.insert(code.end(), {0x44, 0x8b, 0x83, 0x00, static_cast<uint8_t>(i << 4), 0x00, 0x00});  // mov r8d, [rbx+...]
  }
  code.insert(code.end(), {0x48, 0x89, 0x07});
  unsigned early = 0;
  for (uint64_t round = 1; round <= 250; ++round) {
    m.poke<uint32_t>(kTold, 0);
    m.ram->page_state(TestMachine::kData)[RamBlock::kToUnlooked].store(0);
    m.enter_user();
    m.gpr(x::kRsi) = kTold;
    m.gpr(x::kRax) = round;
    m.gpr(x::kRbx) = kUnknown;
    m.gpr(x::kRcx) = 1;
    ASSERT_EQ(::madvise(m.ram->host() + kUnknown, kPages * kPageSize, MADV_DONTNEED), 0);
    uint32_t generation = 0;
    uint64_t marked = 0;
    std::atomic<bool> waits{false};
    auto marker = std::async(std::launch::async, [&] {
      waits.store(true);
      const std::atomic_ref told(*reinterpret_cast<uint32_t*>(m.ram->host() + kTold));
      while (told.load() == 0) __builtin_ia32_pause();
      generation = m.ram->mark_code(TestMachine::kData);
      marked = value();
    });
    while (!waits.load()) std::this_thread::yield();
    m.run(code);
    marker.get();
    if (marked == round) continue;  // stored to before
    ++early;
    ASSERT_NE(m.ram->code_generation(TestMachine::kData)->load(), generation) << "round " << round;
  }
  RecordProperty("early", static_cast<int>(early));
}

TEST_F(WatchedRangesTest, NoStoreIsMissingFromTheDirtyLog) {
  // What is missing shows at the end alone.
  for (unsigned i = 0; i < 100; ++i) {
    const uint32_t cpus = i % 2 + 1;
    m.cpu().config.cpu_count = cpus;
    m.poke<uint64_t>(TestMachine::kData, 0);
    m.poke<uint32_t>(kTold, 0);
    m.cpu().flush_tlb(false);
    m.enter_user();
    uint64_t copy = 0;
    unsigned copies = 0;
    const auto collect = [&] {
      constexpr uint64_t kPage = TestMachine::kData >> kPageShift;
      if ((m.ram->collect_dirty()[kPage / 64] >> (kPage % 64) & 1) == 0) return;
      copy = value();
      ++copies;
    };
    run_beside([&] {
      while (value() == 0) std::this_thread::yield();
      m.ram->set_dirty_logging(true);
      copy = value();
      while (value() == copy) std::this_thread::yield();
      for (unsigned round = 0; round < 20; ++round) collect();
    });
    collect();
    m.ram->set_dirty_logging(false);
    EXPECT_EQ(copy, value()) << cpus << " CPUs";
    EXPECT_GE(copies, 1u);
  }
}

// Where there is one CPU, a page that it takes code from after a place has stored to it by a range.
TEST_F(RangesTest, CodeWhereRangesStoredIsWrittenAnew) {
  constexpr uint64_t kFunction = TestMachine::kData + 0x200;
  m.poke<uint8_t>(kFunction, 0xb0);  // mov al, 0; ret
  m.poke<uint8_t>(kFunction + 1, 0);
  m.poke<uint8_t>(kFunction + 2, 0xc3);
  m.gpr(x::kRdi) = kFunction + 1;
  m.gpr(x::kRsi) = kFunction;
  m.gpr(x::kRbx) = m.gpr(x::kRax) = 0;
  m.gpr(x::kRsp) = TestMachine::kData + 2 * kPageSize - 8;
  m.gpr(x::kRcx) = 200;
  // 1: mov [rdi], cl; cmp ecx, 100; ja 2f; call rsi; cmp al, cl; je 2f; inc ebx; 2: dec ecx; jnz 1b
  m.run({0x88, 0x0f, 0x83, 0xf9, 0x64, 0x77, 0x08, 0xff, 0xd6, 0x38, 0xc8, 0x74, 0x02, 0xff, 0xc3, 0xff, 0xc9, 0x75,
         0xed});
  EXPECT_EQ(m.gpr(x::kRbx), 0u) << "calls of what was there before";
}

TEST_F(RangesTest, APlaceThatMovesAsksTheTlb) {
  for (unsigned page = 0; page < 16; ++page) {
    m.set_pte(TestMachine::kData + page * kPageSize, (TestMachine::kData + (page ^ 5) * kPageSize) | kUserPage);
    m.poke<uint64_t>(TestMachine::kData + (page ^ 5) * kPageSize, page + 1);
  }
  m.gpr(x::kRcx) = 100'000;
  // 1: mov edx, ecx; and edx, 15; shl edx, 12; add rax, [rdi+rdx]; dec ecx; jnz
  m.run({0x89, 0xca, 0x83, 0xe2, 0x0f, 0xc1, 0xe2, 0x0c, 0x48, 0x03, 0x04, 0x17, 0xff, 0xc9, 0x75, 0xf0});
  EXPECT_EQ(m.gpr(x::kRax), 100'000u / 16 * (16 * 17 / 2));
}

// What its block was once counted again for says nothing of what it does later.
TEST_F(RangesTest, APlaceThatWasDoubtedMayMove) {
  m.cpu().translator = nullptr;
  auto made = Translator::create(m.cpu(), {.code_bytes = size_t{1} << 20,
                                           .threshold = 1,
                                           .first_entries = 0,
                                           .busy_cycles = ~uint64_t{0},
                                           .trial_entries = ~uint32_t{0}});
  ASSERT_TRUE(made);
  translator = std::move(*made);
  m.cpu().translator = translator.get();
  for (unsigned page = 0; page < 16; ++page)
    m.set_pte(TestMachine::kData + page * kPageSize, (TestMachine::kData + (page ^ 5) * kPageSize) | kUserPage);
  const std::initializer_list<uint8_t> code = {0x89, 0xca, 0x83, 0xe2, 0x0f, 0xc1, 0xe2, 0x0c,
                                               0x48, 0x03, 0x04, 0x17, 0xff, 0xc9, 0x75, 0xf0};
  constexpr uint64_t kPlace = TestMachine::kCode + 8;  // add rax, [rdi+rdx]
  m.gpr(x::kRcx) = 16;
  m.run(code);
  for (unsigned i = 0; i < 16; ++i) m.cpu().translation.records[i].doubted = true;
  ASSERT_FALSE(translator->moves(kPlace));
  m.enter_user();
  m.gpr(x::kRcx) = 1'000'000;
  m.run(code);
  EXPECT_TRUE(translator->moves(kPlace));
}

// Blocks are on trial from the second entry on here.
class WindowsTest : public RangesTest {
 protected:
  WindowsTest() : RangesTest(1) {}
};

// 1: mov [rdi], rax; mov [rdi+8], rdx; add rbx, [rdi]; dec ecx; jnz
constexpr std::initializer_list<uint8_t> kPair = {0x48, 0x89, 0x07, 0x48, 0x89, 0x57, 0x08,
                                                  0x48, 0x03, 0x1f, 0xff, 0xc9, 0x75, 0xf2};

TEST_F(WindowsTest, HoldWhatIsNear) {
  m.gpr(x::kRax) = 5;
  m.gpr(x::kRdx) = 6;
  m.gpr(x::kRbx) = 0;
  m.run(kPair);
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kData), 5u);
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kData + 8), 6u);
  EXPECT_EQ(m.gpr(x::kRbx), 500u);
}

// What the window does not know, each access finds by itself: the first store is done, the second faults.
TEST_F(WindowsTest, FaultWhereTheAccessDoes) {
  m.run(kPair);
  m.set_pte(TestMachine::kData + kPageSize, 0);
  m.gpr(x::kRdi) = TestMachine::kData + kPageSize - 8;
  m.gpr(x::kRax) = 77;
  again(kPair);
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.cpu().arch.cr2, TestMachine::kData + kPageSize);
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kData + kPageSize - 8), 77u);
}

TEST_F(WindowsTest, FollowTheStack) {
  m.gpr(x::kRax) = 3;
  m.gpr(x::kRdx) = 4;
  m.gpr(x::kRbx) = m.gpr(x::kRsi) = 0;
  m.gpr(x::kRsp) = TestMachine::kData + 0x800;
  // 1: push rax; push rdx; sub rsp, 16; mov [rsp+8], rax; add rbx, [rsp+8]; add rsp, 16; pop rsi; pop rdi; dec; jnz
  m.run({0x50, 0x52, 0x48, 0x83, 0xec, 0x10, 0x48, 0x89, 0x44, 0x24, 0x08, 0x48, 0x03,
         0x5c, 0x24, 0x08, 0x48, 0x83, 0xc4, 0x10, 0x5e, 0x5f, 0xff, 0xc9, 0x75, 0xe6});
  EXPECT_EQ(m.gpr(x::kRbx), 300u);
  EXPECT_EQ(m.gpr(x::kRsi), 4u);
  EXPECT_EQ(m.gpr(x::kRdi), 3u);
}

// The stack is on two pages that are not next to each other in memory: the interpreter does that for a while.
TEST_F(WindowsTest, OnTwoPagesAreDoneWithoutTheInterpreter) {
  m.set_pte(TestMachine::kData, (TestMachine::kData + 2 * kPageSize) | kUserPage);
  m.gpr(x::kRsp) = TestMachine::kData + kPageSize + 8;
  m.gpr(x::kRax) = 3;
  m.gpr(x::kRdx) = 4;
  m.gpr(x::kRbx) = 0;
  m.gpr(x::kRcx) = 10'000;
  // 1: push rax; push rdx; pop rsi; pop rdi; add rbx, rsi; sub rdx, -1; dec ecx; jnz
  m.run({0x50, 0x52, 0x5e, 0x5f, 0x48, 0x01, 0xf3, 0x48, 0x83, 0xea, 0xff, 0xff, 0xc9, 0x75, 0xf1});
  EXPECT_EQ(m.gpr(x::kRbx), 10'000u * (4 + 10'003) / 2);
  EXPECT_EQ(m.gpr(x::kRdi), 3u);
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kData + kPageSize), 3u);
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kData + 3 * kPageSize - 8), 10'003u);
  uint64_t interpreted = 0;
  const Translator::FallBacks all = translator->fall_backs();
  for (size_t i = 0; i < all.slow.size(); ++i) interpreted += all.slow[i] + all.not_emitted[i];
  EXPECT_LT(interpreted, 1000u);
}

TEST_F(WindowsTest, StoresInThemAreSeenByWhoWatches) {
  m.run(kPair);
  const uint32_t generation = m.ram->mark_code(TestMachine::kData);
  again(kPair);
  EXPECT_NE(m.ram->code_generation(TestMachine::kData)->load(), generation);
}

}  // namespace
}  // namespace kite::jit
