#include "devices/pc_testdev/pc_testdev.h"

#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;

class PcTestdevTest : public ::testing::Test {
 protected:
  PcTestdevTest() : device_(make()) {
    ports_.map(0xe0, device_->latch_region());
    ports_.map(0xe4, device_->flush_region());
    ports_.map(0xe8, device_->byte_latch_region());
    ports_.map(0x2000, device_->line_region());
  }
  std::unique_ptr<PcTestdev> make() {
    PcTestdev::Wiring wiring{.lines = {}, .flush = [this](Gpa page) { flushed_.push_back(page); }};
    for (uint32_t i = 0; i < PcTestdev::kLines; ++i) wiring.lines[i] = lines_.line(i);
    auto made = PcTestdev::create("pc-testdev", std::move(wiring));
    EXPECT_TRUE(made) << made.error().message;
    return std::move(*made);
  }

  FakeLines lines_;
  std::vector<Gpa> flushed_;
  std::unique_ptr<PcTestdev> device_;
  TestSpace ports_;
};

TEST_F(PcTestdevTest, LatchKeepsADword) {
  ports_.out(0xe0, 0x87654321, 4);
  EXPECT_EQ(ports_.in(0xe0, 4), 0x87654321U);
}

TEST_F(PcTestdevTest, LatchReadsInPartsLittleEndian) {
  ports_.out(0xe0, 0x87654321, 4);
  EXPECT_EQ(ports_.in(0xe2, 2), 0x8765U);
  EXPECT_EQ(ports_.in(0xe3), 0x87U);
}

TEST_F(PcTestdevTest, LatchIsWrittenInParts) {
  ports_.out(0xe0, 0x87654321, 4);
  ports_.out(0xe2, 0x8866, 2);
  ports_.out(0xe1, 0x55);
  EXPECT_EQ(ports_.in(0xe0, 4), 0x88665521U);
}

TEST_F(PcTestdevTest, ByteLatchSplitsAWideWrite) {
  ports_.out(0xe8, 0x87654321, 4);
  EXPECT_EQ(ports_.in(0xe0, 4), 0x87654321U);
}

TEST_F(PcTestdevTest, ByteLatchCombinesAWideRead) {
  ports_.out(0xe0, 0x87654321, 4);
  EXPECT_EQ(ports_.in(0xe8, 4), 0x87654321U);
}

TEST_F(PcTestdevTest, FlushNamesThePage) {
  ports_.out(0xe4, 0x12345678, 4);
  EXPECT_EQ(flushed_, std::vector<Gpa>{0x12345000});
}

TEST_F(PcTestdevTest, LinesFollowTheirPorts) {
  ports_.out(0x2000 + 23, 1);
  EXPECT_TRUE(lines_.level(23));
  ports_.out(0x2000 + 23, 0);
  EXPECT_FALSE(lines_.level(23));
}

TEST_F(PcTestdevTest, DwordWriteDrivesOneLine) {
  ports_.out(0x200b, 1, 4);
  EXPECT_TRUE(lines_.level(11));
  EXPECT_FALSE(lines_.level(12));
  ports_.out(0x200b, 0, 4);
  EXPECT_FALSE(lines_.level(11));
}

TEST_F(PcTestdevTest, ResetLowersTheLines) {
  ports_.out(0x2005, 1);
  device_->reset();
  EXPECT_FALSE(lines_.level(5));
}

TEST_F(PcTestdevTest, MemoryIsRamLike) {
  EXPECT_EQ(device_->memory_region()->kind(), RegionKind::kRamDevice);
  EXPECT_EQ(device_->memory_region()->size(), 0x10000U);
}

TEST_F(PcTestdevTest, StateTravels) {
  ports_.out(0xe0, 0xcafe1234, 4);
  ports_.out(0x2007, 1);
  device_->memory_region()->block()->host()[0xffff] = 0x5a;
  const auto other = make();
  lines_.take_rises(7);
  ASSERT_TRUE(restore_state(*other, saved_state(*device_)));
  EXPECT_EQ(read_reg(other->latch_region(), 0, 4), 0xcafe1234U);
  EXPECT_TRUE(lines_.level(7));
  EXPECT_EQ(other->memory_region()->block()->host()[0xffff], 0x5a);
  write_reg(other->line_region(), 7, 0);
  EXPECT_FALSE(lines_.level(7));
}

TEST_F(PcTestdevTest, RefusesALineThatDoesNotExist) {
  ports_.out(0xe0, 1, 4);
  EXPECT_FALSE(restore_state(*device_, with_patched_field(saved_state(*device_), 2, 0, 1u << 24, 4)));
  EXPECT_EQ(ports_.in(0xe0, 4), 1U);
}

}  // namespace
}  // namespace kite::devices
