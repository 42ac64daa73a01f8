#include "devices/ich9/ich9_smbus.h"

#include "devices/ich9/ich9_smbus_regs.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace ich9_smbus_regs;

constexpr uint16_t kBase = 0xb100;
constexpr uint8_t kRead = 1, kFirst = 0x50 << 1;

class Ich9SmbusTest : public ::testing::Test {
 protected:
  Ich9SmbusTest() {
    EXPECT_TRUE(bus_.attach(device_, 31, 3));
    device_.config_write(0x20, 4, kBase);
    device_.config_write(0x04, 2, 1);
  }
  static std::vector<Ich9Smbus::Eeprom> eeproms() {
    std::vector<Ich9Smbus::Eeprom> all(2);
    for (unsigned i = 0; i < 256; ++i) all[0][i] = static_cast<uint8_t>(i ^ 0x5a);
    return all;
  }
  uint32_t run(uint8_t address, uint8_t command, Command kind) {
    ports_.out(kBase + kHstSts, 0xff);
    ports_.out(kBase + kXmitSlva, address);
    ports_.out(kBase + kHstCmd, command);
    ports_.out(kBase + kHstCnt, kStart | static_cast<unsigned>(kind) << kCommandShift | kIntrEnable);
    return ports_.in(kBase + kHstSts) & (kIntr | kDevErr);
  }

  FakeLines lines_;
  TestSpace memory_{uint64_t{1} << 32}, ports_;
  bus::PciBus bus_{memory_.root(), ports_.root(), lines_};
  Ich9Smbus device_{"smbus", eeproms()};
};

TEST_F(Ich9SmbusTest, HasItsIdentity) { EXPECT_EQ(device_.config_read(0, 4), 0x29308086U); }

TEST_F(Ich9SmbusTest, ReadsABytePlaceByPlace) {
  EXPECT_EQ(run(kFirst | kRead, 0x10, kByteData), kIntr);
  EXPECT_EQ(ports_.in(kBase + kHstD0), 0x10U ^ 0x5a);
  run(kFirst | kRead, 0, kByte);  // goes on where it was
  EXPECT_EQ(ports_.in(kBase + kHstD0), 0x11U ^ 0x5a);
}

TEST_F(Ich9SmbusTest, ReadsWordsAcrossTheEnd) {
  EXPECT_EQ(run(kFirst | kRead, 0xff, kWordData), kIntr);
  EXPECT_EQ(ports_.in(kBase + kHstD0), 0xffU ^ 0x5a);
  EXPECT_EQ(ports_.in(kBase + kHstD1), 0x00U ^ 0x5a);
}

TEST_F(Ich9SmbusTest, WritesStay) {
  ports_.out(kBase + kHstD0, 0x77);
  EXPECT_EQ(run(kFirst + 2, 0x20, kByteData), kIntr);
  EXPECT_EQ(run((kFirst + 2) | kRead, 0x20, kByteData), kIntr);
  EXPECT_EQ(ports_.in(kBase + kHstD0), 0x77U);
  device_.reset();
  device_.config_write(0x20, 4, kBase);
  device_.config_write(0x04, 2, 1);
  run((kFirst + 2) | kRead, 0x20, kByteData);
  EXPECT_EQ(ports_.in(kBase + kHstD0), 0x77U);
}

TEST_F(Ich9SmbusTest, ReadsABlock) {
  EXPECT_EQ(run(kFirst | kRead, 0xf8, kBlock), kIntr);
  EXPECT_EQ(ports_.in(kBase + kHstD0), 32U);
  ports_.in(kBase + kHstCnt);
  for (unsigned i = 0; i < 32; ++i) EXPECT_EQ(ports_.in(kBase + kHostBlockDb), ((0xf8 + i) & 0xff) ^ 0x5aU);
}

TEST_F(Ich9SmbusTest, NobodyAtAnAddressIsAnError) {
  EXPECT_EQ(run(0x30 << 1 | kRead, 0, kByteData), kDevErr);
  EXPECT_EQ(run((kFirst + 4) | kRead, 0, kByteData), kDevErr);
}

TEST_F(Ich9SmbusTest, InterruptLastsUntilTheStatusIsCleared) {
  run(kFirst | kRead, 0, kByteData);
  EXPECT_TRUE(lines_.level(bus::PciBus::pirq_of(31, 2)));
  ports_.out(kBase + kHstSts, 0xff);
  EXPECT_FALSE(lines_.level(bus::PciBus::pirq_of(31, 2)));
}

TEST_F(Ich9SmbusTest, StatusIsASemaphore) {
  EXPECT_EQ(ports_.in(kBase + kHstSts) & kInUse, 0U);
  EXPECT_EQ(ports_.in(kBase + kHstSts) & kInUse, kInUse);
  ports_.out(kBase + kHstSts, kInUse);
  EXPECT_EQ(ports_.in(kBase + kHstSts) & kInUse, 0U);
}

TEST_F(Ich9SmbusTest, StateTravels) {
  ports_.out(kBase + kHstD0, 0x77);
  run(kFirst + 2, 0x20, kByteData);
  Ich9Smbus other("smbus", std::vector<Ich9Smbus::Eeprom>(2));
  ASSERT_TRUE(restore_state(other, saved_state(device_)));
  EXPECT_EQ(saved_state(other), saved_state(device_));
}

TEST_F(Ich9SmbusTest, RefusesAPlaceBeyondTheBlock) {
  EXPECT_FALSE(restore_state(device_, with_patched_field(saved_state(device_), 1, 7, 32, 1)));
}

}  // namespace
}  // namespace kite::devices
