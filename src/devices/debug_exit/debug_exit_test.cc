#include "devices/debug_exit/debug_exit.h"

#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;

class DebugExitTest : public ::testing::Test {
 protected:
  DebugExitTest() { ports_.map(0xf4, device_.region()); }
  std::vector<int> statuses_;
  DebugExit device_{"exit", {}, [this](int status) { statuses_.push_back(status); }};
  TestSpace ports_;
};

TEST_F(DebugExitTest, ByteWriteExitsWithOddStatus) {
  ports_.out(0xf4, 0);
  EXPECT_EQ(statuses_, std::vector<int>{1});
}

TEST_F(DebugExitTest, DwordWriteExitsOnce) {
  ports_.out(0xf4, 0x10, 4);
  EXPECT_EQ(statuses_, std::vector<int>{0x21});
}

TEST_F(DebugExitTest, ReadsAnswerZero) {
  EXPECT_EQ(ports_.in(0xf4, 4), 0U);
  EXPECT_TRUE(statuses_.empty());
}

TEST_F(DebugExitTest, StateTravels) { EXPECT_TRUE(restore_state(device_, saved_state(device_))); }

}  // namespace
}  // namespace kite::devices
