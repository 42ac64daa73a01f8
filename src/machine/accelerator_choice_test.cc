#include "machine/accelerator_choice.h"

#include <gtest/gtest.h>

#include "accel/kvm/kvm_system.h"
#include "accel/kvm/test_kvm.h"

namespace kite::machine {
namespace {

using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

class AcceleratorChoiceTest : public ::testing::Test {
 protected:
  // The name of what was chosen, or the failure's message; `said_` gets what was written to stderr.
  std::string choose(std::vector<std::string> names) {
    config_.accelerators = std::move(names);
    CaptureStderr();
    const auto made = choose_accelerator(config_, {.kvm = kvm_, .now_ns = [this] { return kvm_.now_ns; }});
    said_ = GetCapturedStderr();
    return made ? std::string((*made)->name()) : made.error().message;
  }
  [[nodiscard]] size_t lines_said() const { return static_cast<size_t>(std::ranges::count(said_, '\n')); }

  MachineConfig config_;
  TestKvm kvm_;
  std::string said_;
};

// --- auto

TEST_F(AcceleratorChoiceTest, AutoTakesAFastKvm) {
  kvm_.ns_per_instruction = 0.3;
  EXPECT_EQ(choose({"auto"}), "kvm");
  EXPECT_TRUE(contains(said_, "accelerator kvm: real virtualization (3")) << said_;
  EXPECT_EQ(lines_said(), 1u);
}

TEST_F(AcceleratorChoiceTest, AutoLeavesASlowKvm) {
  kvm_.ns_per_instruction = 500;
  EXPECT_EQ(choose({"auto"}), "jit");
  EXPECT_TRUE(contains(said_, "accelerator jit: /dev/kvm only emulates here (2.0 million")) << said_;
  EXPECT_EQ(lines_said(), 1u);
}

TEST_F(AcceleratorChoiceTest, AutoSaysWhatKeepsItFromKvm) {
  const auto says = [this](std::string_view reason) {
    EXPECT_EQ(choose({"auto"}), "jit");
    EXPECT_TRUE(contains(said_, reason)) << said_;
    EXPECT_EQ(lines_said(), 1u);
  };
  kvm_.open_error = ENOENT;
  says("no such device");
  kvm_.open_error = EACCES;
  says("no permission");
  kvm_.open_error = 0;
  kvm_.api_version = 11;
  says("version 11");
  kvm_.api_version = KVM_API_VERSION;
  kvm_.missing = {KVM_CAP_IMMEDIATE_EXIT};
  says("IMMEDIATE_EXIT");
  kvm_.missing.clear();
  kvm_.run_error = EFAULT;
  says("does not run");
}

TEST_F(AcceleratorChoiceTest, AutoDoesNotProbeForAMachineWithoutCpus) {
  config_.board = "none";
  EXPECT_EQ(choose({"auto"}), "jit");
  EXPECT_TRUE(kvm_.opened.empty());
}

// --- kvm alone never falls back

TEST_F(AcceleratorChoiceTest, ASlowKvmThatWasAskedForIsTaken) {
  kvm_.ns_per_instruction = 500;
  EXPECT_EQ(choose({"kvm"}), "kvm");
  EXPECT_EQ(kvm_.runs, 0u);
  EXPECT_EQ(said_, "");
}

TEST_F(AcceleratorChoiceTest, AbsentKvmSaysHowToGetIt) {
  kvm_.open_error = ENOENT;
  const std::string message = choose({"kvm"});
  EXPECT_TRUE(contains(message, "-accel kvm: /dev/kvm: there is no such device")) << message;
  EXPECT_TRUE(contains(message, "modprobe")) << message;
  EXPECT_TRUE(contains(message, "-accel jit")) << message;
}

TEST_F(AcceleratorChoiceTest, ForbiddenKvmSaysWhoMay) {
  kvm_.open_error = EACCES;
  const std::string message = choose({"kvm"});
  EXPECT_TRUE(contains(message, "-accel kvm: /dev/kvm: no permission")) << message;
  EXPECT_TRUE(contains(message, "group")) << message;
}

TEST_F(AcceleratorChoiceTest, BusyKvmSaysWhoHoldsIt) {
  kvm_.open_error = EBUSY;
  EXPECT_TRUE(contains(choose({"kvm"}), "another hypervisor"));
}

TEST_F(AcceleratorChoiceTest, OldKvmNamesBothVersions) {
  kvm_.api_version = 11;
  const std::string message = choose({"kvm"});
  EXPECT_TRUE(contains(message, "version 11")) << message;
  EXPECT_TRUE(contains(message, "12")) << message;
}

TEST_F(AcceleratorChoiceTest, EveryMissingCapabilityIsNamedWithItsPurpose) {
  for (const KvmCapability& capability : KvmSystem::required()) {
    kvm_.missing = {capability.number};
    const std::string message = choose({"kvm"});
    EXPECT_TRUE(contains(message, capability.name)) << message;
    EXPECT_TRUE(contains(message, capability.why)) << message;
  }
}

TEST_F(AcceleratorChoiceTest, SettingsThatThisKvmLacksAreRefused) {
  config_.kvm.kernel_irqchip = KvmConfig::Irqchip::kSplit;
  kvm_.missing = {KVM_CAP_SPLIT_IRQCHIP};
  const std::string message = choose({"kvm"});
  EXPECT_TRUE(contains(message, "SPLIT_IRQCHIP") || contains(message, "split")) << message;
}

// --- lists

TEST_F(AcceleratorChoiceTest, ListsAreTriedInOrderAndSayWhy) {
  kvm_.open_error = EACCES;
  EXPECT_EQ(choose({"xen", "kvm", "tcg"}), "jit");
  EXPECT_TRUE(contains(said_, "-accel xen: ")) << said_;
  EXPECT_TRUE(contains(said_, "no permission")) << said_;
  EXPECT_TRUE(contains(said_, "using accelerator jit")) << said_;
}

TEST_F(AcceleratorChoiceTest, AListThatFailsNamesEveryReason) {
  kvm_.open_error = ENOENT;
  const std::string message = choose({"kvm", "xen"});
  EXPECT_TRUE(contains(message, "no such device")) << message;
  EXPECT_TRUE(contains(message, "Xen device model")) << message;
}

TEST_F(AcceleratorChoiceTest, UnknownNamesGetTheNearest) {
  EXPECT_TRUE(contains(choose({"kwm"}), "did you mean 'kvm'"));
}

}  // namespace
}  // namespace kite::machine
