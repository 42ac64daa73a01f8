#include "accel/qtest/qtest_accelerator.h"

#include <gtest/gtest.h>

#include <thread>

namespace kite {
namespace {

class Nothing final : public CpuIo {
 public:
  uint32_t pio_read(uint16_t, unsigned) override { return 0; }
  void pio_write(uint16_t, unsigned, uint32_t) override {}
  uint64_t mmio_read(Gpa, unsigned) override { return 0; }
  void mmio_write(Gpa, unsigned, uint64_t) override {}
  void exclusive(const std::function<void()>& work) override { work(); }
  void fpu_error() override {}
};

TEST(QtestAccelerator, VcpuNeverRuns) {
  QtestAccelerator accelerator;
  auto vcpu = *accelerator.create_vcpu({});
  Nothing io;
  x86::ArchState before;
  vcpu->get_state(before);
  EXPECT_EQ(vcpu->run(io), HaltReason::kHalted);
  x86::ArchState after;
  vcpu->get_state(after);
  EXPECT_EQ(after.rip, before.rip);
  EXPECT_FALSE(accelerator.executes());
}

TEST(QtestAccelerator, InterruptIsNoWork) {
  auto vcpu = *QtestAccelerator().create_vcpu({});
  EXPECT_FALSE(vcpu->has_work(request::kInterrupt | request::kNmi | request::kInit));
}

TEST(QtestAccelerator, KickWakesAndIsReported) {
  auto vcpu = *QtestAccelerator().create_vcpu({});
  Nothing io;
  std::thread other([&] { vcpu->kick(); });
  vcpu->wait_for_work();
  other.join();
  EXPECT_EQ(vcpu->run(io), HaltReason::kKicked);
  EXPECT_EQ(vcpu->run(io), HaltReason::kHalted);
}

}  // namespace
}  // namespace kite
