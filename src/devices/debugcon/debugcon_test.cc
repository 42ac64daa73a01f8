#include "devices/debugcon/debugcon.h"

#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;

TEST(DebugconTest, WrittenBytesReachTheHost) {
  FakeChardev host;
  Debugcon device("debugcon", {}, &host);
  for (const char letter : std::string("boot")) write_reg(device.region(), 0, static_cast<uint8_t>(letter));
  EXPECT_EQ(host.output(), "boot");
}

TEST(DebugconTest, ReadAnswersTheReadbackByte) {
  Debugcon device("debugcon", {.readback = 0x1e9}, nullptr);
  EXPECT_EQ(read_reg(device.region(), 0), 0xe9U);
}

TEST(DebugconTest, WithoutAHostWritesGoNowhere) {
  Debugcon device("debugcon", {}, nullptr);
  write_reg(device.region(), 0, 'x');
  EXPECT_EQ(read_reg(device.region(), 0), 0xe9U);
}

TEST(DebugconTest, BytesWaitForASlowHost) {
  FakeChardev host;
  Debugcon device("debugcon", {}, &host);
  host.set_room(1);
  for (const char letter : std::string("abc")) write_reg(device.region(), 0, static_cast<uint8_t>(letter));
  EXPECT_EQ(host.output(), "a");
  host.set_room(10);
  EXPECT_EQ(host.output(), "abc");
}

TEST(DebugconTest, BacklogOfAStuckHostIsBounded) {
  FakeChardev host;
  Debugcon device("debugcon", {}, &host);
  host.set_room(0);
  for (int i = 0; i < 100'000; ++i) write_reg(device.region(), 0, 'x');
  host.set_room(SIZE_MAX);
  EXPECT_EQ(host.output().size(), 64U * 1024);
}

TEST(DebugconTest, ClosedHostLosesBytes) {
  FakeChardev host;
  Debugcon device("debugcon", {}, &host);
  host.set_open(false);
  write_reg(device.region(), 0, 'x');
  host.set_open(true);
  write_reg(device.region(), 0, 'y');
  EXPECT_EQ(host.output(), "y");
}

TEST(DebugconTest, UnplugsItselfAtTheEnd) {
  FakeChardev host;
  {
    const Debugcon device("debugcon", {}, &host);
  }
  EXPECT_EQ(host.client(), nullptr);
}

}  // namespace
}  // namespace kite::devices
