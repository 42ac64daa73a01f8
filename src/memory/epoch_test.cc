#include "memory/epoch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace kite {
namespace {

TEST(Epoch, FreesAtOnceWithoutReaders) {
  bool freed = false;
  epoch_retire([&] { freed = true; });
  EXPECT_TRUE(freed);
}

TEST(Epoch, KeepsWhatAReaderMayHold) {
  bool freed = false;
  {
    const EpochGuard guard;
    epoch_retire([&] { freed = true; });
    epoch_collect();
    EXPECT_FALSE(freed);
  }
  epoch_collect();
  EXPECT_TRUE(freed);
}

TEST(Epoch, GuardsNest) {
  bool freed = false;
  {
    const EpochGuard outer;
    {
      const EpochGuard inner;
    }
    epoch_retire([&] { freed = true; });
    EXPECT_FALSE(freed);
  }
  epoch_collect();
  EXPECT_TRUE(freed);
}

TEST(Epoch, AReaderThatEnteredLaterDoesNotHoldItBack) {
  std::atomic<int> stage{0};
  bool freed = false;
  std::thread early([&] {
    const EpochGuard guard;
    stage.store(1);
    stage.notify_all();
    stage.wait(1);
  });
  stage.wait(0);
  epoch_retire([&] { freed = true; });
  EXPECT_FALSE(freed);
  const EpochGuard late;
  stage.store(2);
  stage.notify_all();
  early.join();
  epoch_collect();
  EXPECT_TRUE(freed);
}

TEST(Epoch, AFreeMayRetireAgain) {
  bool freed = false;
  epoch_retire([&] { epoch_retire([&] { freed = true; }); });
  EXPECT_TRUE(freed);
}

TEST(Epoch, ReadersNeverSeeAFreedObject) {
  constexpr int kReplacements = 20'000;
  constexpr uint64_t kAlive = 0x600dULL;
  struct Object {
    std::atomic<uint64_t> mark{kAlive};
  };
  // Objects are poisoned instead of freed, so that a reader that comes too late sees it in any build.
  std::vector<std::unique_ptr<Object>> graveyard;
  auto first = std::make_unique<Object>();
  std::atomic<Object*> current{first.get()};
  graveyard.push_back(std::move(first));
  std::atomic<bool> stop{false};
  std::atomic<int> dead_seen{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i)
    readers.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        const EpochGuard guard;
        const Object* const object = current.load(std::memory_order_acquire);
        for (int look = 0; look < 4; ++look)
          if (object->mark.load(std::memory_order_relaxed) != kAlive) dead_seen.fetch_add(1);
      }
    });
  for (int i = 0; i < kReplacements; ++i) {
    auto next = std::make_unique<Object>();
    Object* const old = current.exchange(next.get());
    graveyard.push_back(std::move(next));
    epoch_retire([old] { old->mark.store(0); });
  }
  stop.store(true);
  for (auto& reader : readers) reader.join();
  epoch_collect();
  EXPECT_EQ(dead_seen.load(), 0);
}

TEST(Epoch, SlotsOfEndedThreadsAreUsedAgain) {
  for (int i = 0; i < 100; ++i) std::thread([] { const EpochGuard guard; }).join();
  bool freed = false;
  epoch_retire([&] { freed = true; });
  EXPECT_TRUE(freed);
}

class ProcessWideBarrier : public ::testing::TestWithParam<void (*)()> {};

// The store buffer litmus test with a fence on one side only: with the barrier at least one side sees the other.
TEST_P(ProcessWideBarrier, OrdersAPlainStoreAndLoadOfAnotherThread) {
  constexpr int kRounds = 5'000;
  struct alignas(64) Word {
    std::atomic<int> value{0};
  };
  Word x, y, round, answered;
  const auto spin = [](int turns) {
    for (volatile int i = 0; i < turns; i = i + 1) {
    }
  };
  const auto await = [](const Word& word, int value) {
    for (int turn = 0; word.value.load(std::memory_order_acquire) < value; ++turn)
      if (turn > 10'000) std::this_thread::yield();  // the other has no CPU
  };
  int seen_by_fast = 0;
  std::thread fast([&] {
    for (int i = 1; i <= kRounds; ++i) {
      await(round, i);
      spin(i * 7 % 61);  // so that the two meet now and then
      x.value.store(i, std::memory_order_relaxed);
      std::atomic_signal_fence(std::memory_order_seq_cst);
      seen_by_fast = y.value.load(std::memory_order_relaxed);
      answered.value.store(i, std::memory_order_release);
    }
  });
  int missed = 0;
  for (int i = 1; i <= kRounds; ++i) {
    round.value.store(i, std::memory_order_release);
    spin(i * 13 % 61);
    y.value.store(i, std::memory_order_relaxed);
    GetParam()();
    const int seen_by_slow = x.value.load(std::memory_order_relaxed);
    await(answered, i);
    if (seen_by_slow != i && seen_by_fast != i) ++missed;
  }
  fast.join();
  EXPECT_EQ(missed, 0);
}

INSTANTIATE_TEST_SUITE_P(Means, ProcessWideBarrier,
                         ::testing::Values(&process_wide_barrier, &process_wide_barrier_by_protection));

}  // namespace
}  // namespace kite
