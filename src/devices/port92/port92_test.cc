#include "devices/port92/port92.h"

#include "devices/test_device.h"

namespace kite::devices {
namespace {

using namespace kite::testing;

class Port92Test : public ::testing::Test {
 protected:
  int resets_ = 0;
  Port92 port_{"port92", [this] { ++resets_; }};
};

TEST_F(Port92Test, A20IsOnAfterReset) { EXPECT_EQ(read_reg(port_.region(), 0), 0x02U); }

TEST_F(Port92Test, KeepsTheA20Bit) {
  write_reg(port_.region(), 0, 0x00);
  EXPECT_EQ(read_reg(port_.region(), 0), 0x00U);
}

TEST_F(Port92Test, ReservedBitsReadZero) {
  write_reg(port_.region(), 0, 0xfe);
  EXPECT_EQ(read_reg(port_.region(), 0), 0x02U);
}

TEST_F(Port92Test, InitNowResetsOnceAtItsRisingEdge) {
  write_reg(port_.region(), 0, 0x01);
  write_reg(port_.region(), 0, 0x03);
  EXPECT_EQ(resets_, 1);
}

TEST_F(Port92Test, InitNowResetsAgainAfterItFell) {
  write_reg(port_.region(), 0, 0x01);
  write_reg(port_.region(), 0, 0x00);
  write_reg(port_.region(), 0, 0x01);
  EXPECT_EQ(resets_, 2);
}

TEST_F(Port92Test, RestoredBitDoesNotResetAgain) {
  write_reg(port_.region(), 0, 0x01);
  Port92 other("port92", [this] { resets_ += 100; });
  ASSERT_TRUE(restore_state(other, saved_state(port_)));
  write_reg(other.region(), 0, 0x01);
  EXPECT_EQ(resets_, 1);
}

TEST_F(Port92Test, RefusesBitsThatDoNotExist) {
  EXPECT_FALSE(restore_state(port_, with_patched_field(saved_state(port_), 1, 0, 0x80, 1)));
  EXPECT_EQ(read_reg(port_.region(), 0), 0x02U);
}

}  // namespace
}  // namespace kite::devices
