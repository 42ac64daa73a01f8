#include "accel/kvm/kvm_probe.h"

#include <gtest/gtest.h>

#include "accel/kvm/test_kvm.h"

namespace kite {
namespace {

class KvmProbeTest : public ::testing::Test {
 protected:
  Result<KvmSpeed> probe() {
    auto system = KvmSystem::open(kvm_);
    EXPECT_TRUE(system) << system.error().message;
    return probe_kvm_speed(**system, [this] { return kvm_.now_ns; });
  }
  std::string refusal() {
    const auto speed = probe();
    EXPECT_FALSE(speed);
    return speed ? std::string{} : speed.error().message;
  }
  TestKvm kvm_;
};

TEST_F(KvmProbeTest, HardwareIsReal) {
  kvm_.ns_per_instruction = 0.3;
  const auto speed = probe();
  ASSERT_TRUE(speed);
  EXPECT_TRUE(speed->real());
  EXPECT_GT(speed->per_second, 3'000'000'000u);
  EXPECT_EQ(kvm_.runs, 1u);
}

TEST_F(KvmProbeTest, EmulationIsNot) {
  kvm_.ns_per_instruction = 500;
  const auto speed = probe();
  ASSERT_TRUE(speed);
  EXPECT_FALSE(speed->real());
  EXPECT_EQ(speed->per_second, 2'000'000u);
}

TEST_F(KvmProbeTest, AFastRoundEndsTheProbeAndSlowOnesDoWithinMilliseconds) {
  kvm_.ns_per_instruction = 5000;
  ASSERT_TRUE(probe());
  EXPECT_EQ(kvm_.runs, 1u);
  EXPECT_LT(kvm_.now_ns, 20'000'000);
}

TEST_F(KvmProbeTest, NothingIsLeftBehind) {
  ASSERT_TRUE(probe());
  EXPECT_EQ(kvm_.open_descriptors(), 0u);
  EXPECT_EQ(kvm_.mappings(), 0u);
}

TEST_F(KvmProbeTest, AGuestThatDoesNotHaltFailsTheProbe) {
  kvm_.exit_reason = KVM_EXIT_INTERNAL_ERROR;
  EXPECT_EQ(refusal(), "the probe guest does not run: exit reason 17 in place of its HLT");
}

TEST_F(KvmProbeTest, AKvmThatCannotRunSaysWhy) {
  kvm_.run_error = EFAULT;
  EXPECT_EQ(refusal(), "the probe guest does not run: Bad address");
  kvm_.run_error = EINTR;
  EXPECT_EQ(refusal(), "the probe guest does not run: Interrupted system call");
}

TEST_F(KvmProbeTest, WhatIsRefusedIsNamed) {
  kvm_.refused = {{KVM_CREATE_VM, ENOMEM}};
  EXPECT_EQ(refusal(), "the probe guest's VM cannot be made: Cannot allocate memory");
  kvm_.refused = {{KVM_SET_SREGS, EINVAL}};
  EXPECT_EQ(refusal(), "the probe guest cannot enter 64-bit mode: Invalid argument");
}

}  // namespace
}  // namespace kite
