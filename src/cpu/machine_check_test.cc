#include "cpu/machine_check.h"

#include <gtest/gtest.h>

#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

constexpr uint64_t kCorrected = mc_status::kValid | 0x135,
                   kUncorrected = mc_status::kValid | mc_status::kUncorrected | 1;
constexpr uint32_t kBank = 3;

// All banks are reported, and #MC is taken.
class McMachine : public TestMachine {
 public:
  McMachine() {
    cpu().arch.cr4 |= x86::cr4::kMce;
    cpu().arch.mcg_ctl = ~uint64_t{0};
    for (auto& bank : cpu().arch.mc_bank) bank[0] = ~uint64_t{0};
  }
  Exit report(uint64_t status) {
    cpu().machine_checks().add(
        {.bank = kBank, .status = status, .mcg_status = mcg_status::kRestartIpValid, .address = 0x1000, .misc = 0x8c});
    requests |= request::kMachineCheck;
    return run({0x48, 0xff, 0xc3});  // inc rbx
  }
  [[nodiscard]] const std::array<uint64_t, 4>& bank() { return cpu().arch.mc_bank[kBank]; }
};

TEST(MachineCheck, UncorrectedErrorsRaiseMc) {
  McMachine m;
  m.report(kUncorrected);
  EXPECT_EQ(m.vector(), 18);
  EXPECT_EQ(m.gpr(x86::kRbx), 0u);
  EXPECT_EQ(m.cpu().arch.mcg_status, mcg_status::kInProgress | mcg_status::kRestartIpValid);
  EXPECT_EQ(m.bank()[1], kUncorrected);
  EXPECT_EQ(m.bank()[2], 0x1000u);
  EXPECT_EQ(m.bank()[3], 0x8cu);
}

TEST(MachineCheck, CorrectedErrorsAreLoggedAlone) {
  McMachine m;
  m.report(kCorrected);
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x86::kRbx), 1u);
  EXPECT_EQ(m.bank()[1], kCorrected);
}

TEST(MachineCheck, AnErrorIsOverwrittenByAWorseOneOnly) {
  McMachine m;
  m.report(kCorrected);
  m.report(kCorrected | 2);
  EXPECT_EQ(m.bank()[1], kCorrected | mc_status::kOverflow);
  m.report(kUncorrected);
  EXPECT_EQ(m.bank()[1], kUncorrected | mc_status::kOverflow);
}

TEST(MachineCheck, BanksThatAreOffReportNothing) {
  McMachine m;
  m.cpu().arch.mc_bank[kBank][0] = 0;
  m.report(kUncorrected);
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.bank()[1], kUncorrected);
}

TEST(MachineCheck, ShutsDownWithoutMceAndDuringAnother) {
  McMachine off, twice;
  off.cpu().arch.cr4 &= ~x86::cr4::kMce;
  EXPECT_EQ(off.report(kUncorrected), Exit::kShutdown);
  twice.report(kUncorrected);
  EXPECT_EQ(twice.report(kUncorrected), Exit::kShutdown);
}

TEST(MachineCheck, WakesAHaltedCpu) {
  McMachine m;
  m.run({});
  m.cpu().machine_checks().add({.bank = kBank, .status = kUncorrected});
  m.requests |= request::kMachineCheck;
  EXPECT_TRUE(m.cpu().has_work(m.requests));
  m.cpu().run(m, m.requests, m.sipi_vector);
  EXPECT_EQ(m.vector(), 18);
}

}  // namespace
}  // namespace kite::cpu
