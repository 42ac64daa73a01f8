#include "accel/jit/jit_accelerator.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "metrics/metrics.h"
#include "x86/host_features.h"

namespace kite {
namespace {

class NoDevices final : public CpuIo {
 public:
  uint32_t pio_read(uint16_t, unsigned) override { return 0xffffffff; }
  void pio_write(uint16_t, unsigned, uint32_t value) override {
    if (on_write) on_write(value);
  }
  uint64_t mmio_read(Gpa, unsigned) override { return ~uint64_t{0}; }
  void mmio_write(Gpa, unsigned, uint64_t) override {}
  void exclusive(const std::function<void()>& work) override { work(); }
  void fpu_error() override {}

  std::function<void(uint32_t)> on_write;
};

// One real-mode vCPU at 0x1000 over 64 KiB of RAM, with and without a translator.
class JitAcceleratorTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    spec_.features = accelerator_.offered_features();
    memory_.root().add(0, Region::ram("ram", block_));
    memory_.commit();
    ASSERT_TRUE(accelerator_.attach_memory(memory_));
    VcpuConfig config;
    config.cpu = &spec_;
    config.clock = &clock_;
    auto made = accelerator_.create_vcpu(config);
    ASSERT_TRUE(made);
    vcpu_ = std::move(*made);
    start(0x1000);
  }
  void start(uint64_t rip) {
    x86::ArchState state;
    state.reset(true, true, 0);
    state.rip = rip;
    for (auto& segment : state.seg) segment.selector = 0;
    for (auto& segment : state.seg) segment.base = 0;
    vcpu_->set_state(state);
  }
  static void put(RamBlock& block, uint64_t at, std::vector<uint8_t> code) {
    std::memcpy(block.host() + at, code.data(), code.size());
    block.note_write(at, code.size());
  }
  uint64_t rax() {
    x86::ArchState state;
    vcpu_->get_state(state);
    return state.gpr[x86::kRax];
  }

  x86::CpuSpec spec_;
  ManualClock clock_;
  std::shared_ptr<RamBlock> block_ = *RamBlock::create("ram", 0x10000);
  AddressSpace memory_{"memory", uint64_t{1} << 52};
  JitAccelerator accelerator_{{.translate = GetParam()}};
  NoDevices io_;
  std::unique_ptr<Vcpu> vcpu_;
};

TEST_P(JitAcceleratorTest, RunsUntilHalted) {
  put(*block_, 0x1000, {0x40, 0xf4});  // inc ax; hlt
  EXPECT_EQ(vcpu_->run(io_), HaltReason::kHalted);
  EXPECT_EQ(rax(), 1u);
}

TEST_P(JitAcceleratorTest, KickEndsTheRunOnce) {
  put(*block_, 0x1000, {0xeb, 0xfe});  // jmp .
  vcpu_->kick();
  EXPECT_EQ(vcpu_->run(io_), HaltReason::kKicked);
}

TEST_P(JitAcceleratorTest, NmiWakesTheWaitForWork) {
  put(*block_, 0x1000, {0xf4});
  ASSERT_EQ(vcpu_->run(io_), HaltReason::kHalted);
  std::thread other([&] { vcpu_->post(request::kNmi); });
  vcpu_->wait_for_work();
  other.join();
  put(*block_, 8, {0x00, 0x20, 0x00, 0x00});  // vector 2: 0000:2000
  put(*block_, 0x2000, {0xb8, 0x05, 0x00, 0xf4});
  EXPECT_EQ(vcpu_->run(io_), HaltReason::kHalted);
  EXPECT_EQ(rax(), 5u);
}

TEST_P(JitAcceleratorTest, RemovedMemoryIsNotRunFrom) {
  auto other = *RamBlock::create("other", 0x10000);
  put(*block_, 0x1000, {0xb8, 0x01, 0x00, 0xf4});  // mov ax, 1; hlt
  put(*other, 0x1000, {0xb8, 0x02, 0x00, 0xf4});
  vcpu_->run(io_);
  memory_.root().add(0, Region::ram("other", other), 1);
  memory_.commit();
  start(0x1000);
  vcpu_->run(io_);
  EXPECT_EQ(rax(), 2u);
}

TEST_P(JitAcceleratorTest, MapChangeByAnInstructionHoldsForTheNext) {
  auto other = *RamBlock::create("other", 0x10000);
  put(*block_, 0x1000, {0xe6, 0x80, 0xb8, 0x01, 0x00, 0xf4});  // out 0x80, al; mov ax, 1; hlt
  put(*other, 0x1000, {0xe6, 0x80, 0xb8, 0x02, 0x00, 0xf4});
  io_.on_write = [&](uint32_t) {
    memory_.root().add(0, Region::ram("other", other), 1);
    memory_.commit();
  };
  vcpu_->run(io_);
  EXPECT_EQ(rax(), 2u);
}

TEST_P(JitAcceleratorTest, TripleFaultIsShutdown) {
  x86::ArchState state;
  vcpu_->get_state(state);
  state.idtr.limit = 0;
  vcpu_->set_state(state);
  put(*block_, 0x1000, {0x0f, 0x0b});  // ud2
  EXPECT_EQ(vcpu_->run(io_), HaltReason::kShutdown);
}

TEST_P(JitAcceleratorTest, ResetStartsAtTheResetVector) {
  vcpu_->reset();
  x86::ArchState state;
  vcpu_->get_state(state);
  EXPECT_EQ(state.rip, 0xfff0u);
  EXPECT_EQ(state.seg[static_cast<size_t>(x86::Seg::kCs)].base, 0xffff0000u);
}

// The names of vCPU 0's metrics, and their values.
std::map<std::string, uint64_t> metrics_of_vcpu() {
  std::map<std::string, uint64_t> values;
  metrics::Registry::process().for_each([&](const metrics::Source& source) {
    if (source.subject() != metrics::Subject::of_vcpu(0)) return;
    for (const metrics::Sample& sample : source.read()) values[sample.description.name] = sample.values.front();
  });
  return values;
}

TEST_P(JitAcceleratorTest, CountsWhatItDoes) {
  put(*block_, 0x1000, {0xa1, 0x00, 0x20, 0xf4});  // mov ax, [0x2000]; hlt
  vcpu_->run(io_);
  const auto values = metrics_of_vcpu();
  EXPECT_EQ(values.at("jit.blocks-decoded"), 1u);
  EXPECT_EQ(values.at("jit.tlb-misses-read"), 1u);
  EXPECT_EQ(values.at("jit.tlb-misses-fetch"), 1u);
  EXPECT_EQ(values.contains("jit.blocks-translated"), GetParam());
  vcpu_.reset();
  EXPECT_FALSE(metrics_of_vcpu().contains("jit.blocks-decoded"));
}

INSTANTIATE_TEST_SUITE_P(, JitAcceleratorTest, testing::Bool(),
                         [](const auto& chosen) { return chosen.param ? "translates" : "interprets"; });

TEST(JitFeatures, BorrowedInstructionsNeedTheHost) {
  const x86::FeatureSet offered = JitAccelerator().offered_features();
  const x86::FeatureSet host = x86::host_features();
  constexpr auto kEcx = static_cast<size_t>(x86::FeatureWord::k1Ecx);
  constexpr uint32_t kBorrowed = 1u << 0 | 1u << 9 | 1u << 19 | 1u << 20;  // sse3 ssse3 sse4.1 sse4.2
  EXPECT_EQ(offered[kEcx] & kBorrowed, host[kEcx] & kBorrowed);
}

TEST(JitFeatures, WhatNobodyImplementsIsNotOffered) {
  const x86::FeatureSet offered = JitAccelerator().offered_features();
  EXPECT_EQ(offered[static_cast<size_t>(x86::FeatureWord::k1Ecx)] & (1u << 5), 0u);         // vmx
  EXPECT_EQ(offered[static_cast<size_t>(x86::FeatureWord::k7Ebx)] & (1u << 16), 0u);        // avx512f
  EXPECT_EQ(offered[static_cast<size_t>(x86::FeatureWord::k80000001Ecx)] & (1u << 2), 0u);  // svm
  EXPECT_EQ(offered[static_cast<size_t>(x86::FeatureWord::k80000001Ecx)] & (1u << 6), 0u);  // sse4a, on AMD hosts too
}

}  // namespace
}  // namespace kite
