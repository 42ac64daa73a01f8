#include "devices/pic/pic.h"

#include <gtest/gtest.h>

#include "devices/test_device.h"

namespace kite::devices {
namespace {

using testing::FakeLines;
using testing::read_reg;
using testing::restore_state;
using testing::saved_state;
using testing::with_patched_field;
using testing::write_reg;

constexpr uint8_t kEoi = 0x20;

class PicTest : public ::testing::Test {
 protected:
  // As a PC's firmware does: vectors 0x20 and 0x28, everything unmasked.
  static void initialize(Pic& pic, uint8_t icw4 = 0x01) {
    write_reg(pic.master_ports(), 0, 0x11);
    write_reg(pic.master_ports(), 1, 0x20);
    write_reg(pic.master_ports(), 1, 0x04);
    write_reg(pic.master_ports(), 1, icw4);
    write_reg(pic.slave_ports(), 0, 0x11);
    write_reg(pic.slave_ports(), 1, 0x28);
    write_reg(pic.slave_ports(), 1, 0x02);
    write_reg(pic.slave_ports(), 1, icw4);
  }
  void SetUp() override { initialize(pic_); }
  void command(uint8_t value) { write_reg(pic_.master_ports(), 0, value); }
  void mask(uint8_t value) { write_reg(pic_.master_ports(), 1, value); }
  uint64_t irr() {
    command(0x0a);
    return read_reg(pic_.master_ports(), 0);
  }
  uint64_t isr() {
    command(0x0b);
    return read_reg(pic_.master_ports(), 0);
  }
  void pulse(uint32_t line) {
    pic_.set_irq(line, true);
    pic_.set_irq(line, false);
  }

  FakeLines intr_;
  Pic pic_{"pic", intr_.line()};
};

TEST_F(PicTest, EdgeRaisesIntAndIsAnsweredWithItsVector) {
  pic_.set_irq(3, true);
  EXPECT_TRUE(pic_.pending());
  EXPECT_TRUE(intr_.level());
  EXPECT_EQ(pic_.acknowledge(), 0x23);
  EXPECT_FALSE(intr_.level());
  EXPECT_EQ(isr(), 0x08u);
  EXPECT_EQ(irr(), 0u);
}

TEST_F(PicTest, SecondChipAnswersThroughTheCascade) {
  pic_.set_irq(12, true);
  EXPECT_EQ(irr(), 0x04u);
  EXPECT_EQ(pic_.acknowledge(), 0x2c);
  EXPECT_EQ(isr(), 0x04u);
  write_reg(pic_.slave_ports(), 0, 0x0b);
  EXPECT_EQ(read_reg(pic_.slave_ports(), 0), 0x10u);
}

TEST_F(PicTest, LowerPriorityWaitsForTheEndOfTheHigher) {
  pulse(3);
  pulse(5);
  EXPECT_EQ(pic_.acknowledge(), 0x23);
  EXPECT_FALSE(pic_.pending());
  command(kEoi);
  EXPECT_EQ(pic_.acknowledge(), 0x25);
}

TEST_F(PicTest, HigherPriorityInterruptsTheLower) {
  pulse(5);
  EXPECT_EQ(pic_.acknowledge(), 0x25);
  pulse(1);
  EXPECT_EQ(pic_.acknowledge(), 0x21);
  command(kEoi);  // ends the higher one
  EXPECT_EQ(isr(), 0x20u);
}

TEST_F(PicTest, SecondInterruptOfTheSecondChipFollowsTheFirst) {
  pulse(9);
  pulse(10);
  EXPECT_EQ(pic_.acknowledge(), 0x29);
  write_reg(pic_.slave_ports(), 0, kEoi);
  command(kEoi);
  EXPECT_TRUE(pic_.pending());
  EXPECT_EQ(pic_.acknowledge(), 0x2a);
}

TEST_F(PicTest, MaskedInputRemembersItsEdge) {
  mask(0x08);
  pulse(3);
  EXPECT_FALSE(pic_.pending());
  EXPECT_EQ(irr(), 0x08u);
  mask(0x00);
  EXPECT_EQ(pic_.acknowledge(), 0x23);
}

TEST_F(PicTest, LevelThatGoesAwayIsSpuriousAndNotInService) {
  write_reg(pic_.elcr_ports(), 0, 0x20);
  pic_.set_irq(5, true);
  EXPECT_TRUE(pic_.pending());
  pic_.set_irq(5, false);
  EXPECT_FALSE(pic_.pending());
  EXPECT_EQ(pic_.acknowledge(), 0x27);
  EXPECT_EQ(isr(), 0u);
}

TEST_F(PicTest, LevelStillHighAsksAgainAfterEoi) {
  write_reg(pic_.elcr_ports(), 1, 0x08);  // input 11
  pic_.set_irq(11, true);
  EXPECT_EQ(pic_.acknowledge(), 0x2b);
  write_reg(pic_.slave_ports(), 0, kEoi);
  command(kEoi);
  EXPECT_TRUE(pic_.pending());
  pic_.set_irq(11, false);
  EXPECT_FALSE(pic_.pending());
}

TEST_F(PicTest, ElcrKeepsTheFixedInputsEdgeTriggered) {
  write_reg(pic_.elcr_ports(), 0, 0xff);
  write_reg(pic_.elcr_ports(), 1, 0xff);
  EXPECT_EQ(read_reg(pic_.elcr_ports(), 0), 0xf8u);
  EXPECT_EQ(read_reg(pic_.elcr_ports(), 1), 0xdeu);
}

TEST_F(PicTest, ElcrWriteKeepsTheEdgesOfOtherInputs) {
  pulse(1);
  write_reg(pic_.elcr_ports(), 0, 0x20);
  EXPECT_EQ(pic_.acknowledge(), 0x21);
}

TEST_F(PicTest, SpecificEoiEndsTheNamedLevel) {
  pulse(5);
  pic_.acknowledge();
  pulse(1);
  pic_.acknowledge();
  command(0x65);
  EXPECT_EQ(isr(), 0x02u);
}

TEST_F(PicTest, RotationGivesTheServedInputTheLowestPriority) {
  pulse(3);
  pic_.acknowledge();
  command(0xa0);  // rotate on non-specific EOI
  pulse(3);
  pulse(4);
  EXPECT_EQ(pic_.acknowledge(), 0x24);
}

TEST_F(PicTest, SetPriorityCommandRotates) {
  command(0xc3);  // input 3 is the lowest: 4 is the highest
  pulse(0);
  pulse(4);
  EXPECT_EQ(pic_.acknowledge(), 0x24);
}

TEST_F(PicTest, AutoEoiLeavesNothingInService) {
  initialize(pic_, 0x03);
  pulse(3);
  EXPECT_EQ(pic_.acknowledge(), 0x23);
  EXPECT_EQ(isr(), 0u);
}

TEST_F(PicTest, AutoEoiCanRotate) {
  initialize(pic_, 0x03);
  command(0x80);
  pulse(3);
  pic_.acknowledge();
  pulse(3);
  pulse(4);
  EXPECT_EQ(pic_.acknowledge(), 0x24);
}

TEST_F(PicTest, SpecialMaskModeLetsLowerPrioritiesThrough) {
  pulse(3);
  pic_.acknowledge();
  pulse(5);
  mask(0x08);
  EXPECT_FALSE(pic_.pending());
  command(0x68);
  EXPECT_EQ(pic_.acknowledge(), 0x25);
}

TEST_F(PicTest, SpecialFullyNestedModeLetsTheSecondChipInterruptItself) {
  initialize(pic_, 0x11);
  pulse(10);
  pic_.acknowledge();
  pulse(8);
  EXPECT_EQ(pic_.acknowledge(), 0x28);
}

TEST_F(PicTest, WithoutSpecialNestingTheSecondChipWaits) {
  pulse(10);
  pic_.acknowledge();
  pulse(8);
  EXPECT_FALSE(pic_.pending());
}

TEST_F(PicTest, PollAnswersAndAcknowledges) {
  pulse(6);
  command(0x0c);
  EXPECT_EQ(read_reg(pic_.master_ports(), 0), 0x86u);
  EXPECT_EQ(isr(), 0x40u);
  command(0x0c);
  EXPECT_EQ(read_reg(pic_.master_ports(), 0), 0u);
}

TEST_F(PicTest, InitializationForgetsEdgesAndUnmasks) {
  mask(0xff);
  pulse(3);
  initialize(pic_);
  EXPECT_FALSE(pic_.pending());
  EXPECT_EQ(read_reg(pic_.master_ports(), 1), 0u);
}

TEST_F(PicTest, SingleModeExpectsNoThirdWord) {
  command(0x13);
  mask(0x40);
  mask(0x01);
  mask(0xaa);
  EXPECT_EQ(read_reg(pic_.master_ports(), 1), 0xaau);
  pulse(0);
  EXPECT_EQ(pic_.acknowledge(), 0x40);
}

TEST_F(PicTest, CascadeInputAndLinesOutOfRangeAreIgnored) {
  pic_.set_irq(2, true);
  pic_.set_irq(16, true);
  pic_.set_irq(0xffffffff, true);
  EXPECT_FALSE(pic_.pending());
}

TEST_F(PicTest, MaskingTheSourceTakesTheCascadeRequestBack) {
  pulse(9);
  EXPECT_TRUE(pic_.pending());
  write_reg(pic_.slave_ports(), 1, 0xff);
  EXPECT_FALSE(pic_.pending());
}

TEST_F(PicTest, ResetMasksEverything) {
  pulse(3);
  pic_.reset();
  pulse(4);
  EXPECT_FALSE(pic_.pending());
  EXPECT_FALSE(intr_.level());
  EXPECT_EQ(read_reg(pic_.master_ports(), 1), 0xffu);
}

// A run that is interrupted in the middle of nested service: what it answers from there on.
std::vector<uint64_t> finish_service(Pic& pic) {
  std::vector<uint64_t> seen;
  write_reg(pic.master_ports(), 1, 0x04);  // the ICW3 that was still missing
  write_reg(pic.master_ports(), 1, 0x01);
  for (int i = 0; i < 8; ++i) {
    seen.push_back(pic.pending());
    seen.push_back(pic.acknowledge());
    seen.push_back(read_reg(pic.master_ports(), 0));
    write_reg(pic.slave_ports(), 0, kEoi);
    write_reg(pic.master_ports(), 0, kEoi);
    if (i == 3) pic.set_irq(11, false);
  }
  return seen;
}

TEST_F(PicTest, RestoredInTheMiddleFinishesIdentically) {
  write_reg(pic_.elcr_ports(), 1, 0x08);
  pic_.set_irq(11, true);
  pulse(9);
  pic_.acknowledge();
  command(0x11);  // and in the middle of the initialization words
  mask(0x50);
  pulse(6);
  pulse(1);
  FakeLines other_intr;
  Pic other("pic", other_intr.line());
  ASSERT_TRUE(restore_state(other, saved_state(pic_)));
  EXPECT_EQ(other_intr.level(), intr_.level());
  EXPECT_EQ(finish_service(other), finish_service(pic_));
  EXPECT_EQ(saved_state(other), saved_state(pic_));
}

TEST_F(PicTest, ImpossibleStatesAreRejectedAndChangeNothing) {
  pulse(3);
  const auto good = saved_state(pic_);
  struct Case {
    uint16_t field;
    uint8_t value;
  };
  for (const Case c : {Case{5, 0x01}, {6, 0x21}, {7, 8}, {8, 4}, {9, 2}, {16, 0xff}}) {
    EXPECT_FALSE(restore_state(pic_, with_patched_field(good, c.field, 0, c.value, 1))) << c.field;
    EXPECT_EQ(saved_state(pic_), good);
  }
}

TEST_F(PicTest, LevelRequestThatContradictsItsLineIsRejected) {
  write_reg(pic_.elcr_ports(), 0, 0x20);
  pic_.set_irq(5, true);
  EXPECT_FALSE(restore_state(pic_, with_patched_field(saved_state(pic_), 1, 0, 0, 1)));
}

}  // namespace
}  // namespace kite::devices
