#include "machine/vcpu_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

namespace kite::machine {
namespace {

// A vCPU that spins until it is kicked, as one in guest code does.
class SpinningVcpu final : public Vcpu {
 public:
  HaltReason run(CpuIo&) override { return spin(); }
  HaltReason spin() {
    inside.store(true);
    while ((requests_.load() & request::kKick) == 0) {
      if (in_callback) in_callback();
    }
    requests_.fetch_and(~request::kKick);
    inside.store(false);
    return HaltReason::kKicked;
  }
  void get_state(x86::ArchState&) override {}
  void set_state(const x86::ArchState&) override {}
  void reset() override {}
  [[nodiscard]] bool has_work(uint32_t) const override { return true; }

  std::atomic<bool> inside{false};
  std::function<void()> in_callback;  // what the guest does in the middle of an instruction
};

class VcpuGateTest : public ::testing::Test {
 protected:
  void start() {
    for (auto& vcpu : vcpus_) gate_.add(vcpu);
    for (auto& vcpu : vcpus_)
      threads_.emplace_back([this, &vcpu] {
        while (gate_.enter(&vcpu)) {
          vcpu.spin();
          gate_.leave();
        }
      });
  }
  void wait_running() {
    for (auto& vcpu : vcpus_)
      while (!vcpu.inside.load()) std::this_thread::yield();
  }
  // A test whose callbacks touch its own variables calls this before they go out of scope.
  void finish() {
    gate_.shut_down();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }
  void TearDown() override { finish(); }

  VcpuGate gate_;
  SpinningVcpu vcpus_[2];
  std::vector<std::thread> threads_;
};

TEST_F(VcpuGateTest, NothingRunsWhileTheGateIsClosed) {
  start();
  gate_.wait_parked();
  EXPECT_FALSE(vcpus_[0].inside.load() || vcpus_[1].inside.load());
}

TEST_F(VcpuGateTest, AVcpuThatIsHeldStaysWhileTheOtherRuns) {
  gate_.hold({&vcpus_[0]});
  start();
  gate_.open();
  while (!vcpus_[1].inside.load()) std::this_thread::yield();
  EXPECT_FALSE(vcpus_[0].inside.load());
  gate_.close();
  gate_.wait_parked();
  gate_.hold({});
  gate_.open();
  wait_running();
}

TEST_F(VcpuGateTest, ClosingParksRunningVcpus) {
  start();
  gate_.open();
  wait_running();
  gate_.close();
  gate_.wait_parked();
  EXPECT_FALSE(vcpus_[0].inside.load() || vcpus_[1].inside.load());
}

TEST_F(VcpuGateTest, ExclusiveWorkSeesEveryVcpuParkedAndLetsThemGoOn) {
  start();
  gate_.open();
  wait_running();
  bool alone = false;
  gate_.exclusive([&] { alone = !vcpus_[0].inside.load() && !vcpus_[1].inside.load(); });
  EXPECT_TRUE(alone);
  wait_running();
}

TEST_F(VcpuGateTest, VcpusInCallbacksTakeTurns) {
  std::atomic<int> in_work{0}, most{0}, done{0};
  for (auto& vcpu : vcpus_)
    vcpu.in_callback = [&, rounds = 0]() mutable {
      if (rounds++ >= 50) return;
      gate_.exclusive([&] {
        most.store(std::max(most.load(), ++in_work));
        --in_work;
        ++done;
      });
    };
  start();
  gate_.open();
  while (done.load() < 100) std::this_thread::yield();
  finish();
  EXPECT_EQ(most.load(), 1);
}

TEST_F(VcpuGateTest, InsideRunIsKnownPerThread) {
  EXPECT_FALSE(VcpuGate::inside_run());
  std::atomic<int> answer{-1};
  vcpus_[0].in_callback = [&] { answer.store(VcpuGate::inside_run() ? 1 : 0); };
  start();
  gate_.open();
  while (answer.load() < 0) std::this_thread::yield();
  finish();
  EXPECT_EQ(answer.load(), 1);
}

}  // namespace
}  // namespace kite::machine
