#include "devices/piix3/piix3.h"

#include "devices/piix3/piix3_regs.h"
#include "devices/test_device.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace piix3_regs;

class Piix3Test : public ::testing::Test {
 protected:
  Piix3::Wiring wiring() {
    Piix3::Wiring wiring{.isa_irqs = {}, .reset = [this](ResetKind kind) { resets_.push_back(kind); }};
    for (uint32_t i = 0; i < 16; ++i) wiring.isa_irqs[i] = lines_.line(i);
    return wiring;
  }
  void route(unsigned pirq, uint8_t value) { bridge_.config_write(static_cast<uint8_t>(kPirqrcA + pirq), 1, value); }

  FakeLines lines_;
  std::vector<ResetKind> resets_;
  Piix3 bridge_{"piix3", wiring()};
};

TEST_F(Piix3Test, HasItsIdentity) {
  EXPECT_EQ(bridge_.config_read(0x00, 4), 0x70008086U);
  EXPECT_EQ(bridge_.config_read(0x08, 4), 0x06010000U);
  EXPECT_EQ(bridge_.config_read(0x0e, 1), 0x80U);
  EXPECT_EQ(bridge_.config_read(0x04, 4), 0x02000007U);
}

TEST_F(Piix3Test, RoutesAreOffAfterReset) {
  EXPECT_EQ(bridge_.config_read(kPirqrcA, 4), 0x80808080U);
  bridge_.set_irq(0, true);
  for (uint32_t irq = 0; irq < 16; ++irq) EXPECT_FALSE(lines_.level(irq)) << irq;
}

TEST_F(Piix3Test, RoutedPirqReachesItsInterrupt) {
  route(2, 11);
  bridge_.set_irq(2, true);
  EXPECT_TRUE(lines_.level(11));
  bridge_.set_irq(2, false);
  EXPECT_FALSE(lines_.level(11));
}

TEST_F(Piix3Test, SharedInterruptIsHighWhileAnySourceIs) {
  route(0, 10);
  route(1, 10);
  bridge_.set_irq(0, true);
  bridge_.set_irq(1, true);
  bridge_.set_irq(0, false);
  EXPECT_TRUE(lines_.level(10));
  bridge_.set_irq(1, false);
  EXPECT_FALSE(lines_.level(10));
}

TEST_F(Piix3Test, IsaSourceSharesWithPci) {
  route(0, 9);
  const bus::IrqLine sci = bridge_.isa_source(9);
  sci.raise();
  bridge_.set_irq(0, true);
  sci.lower();
  EXPECT_TRUE(lines_.level(9));
  bridge_.set_irq(0, false);
  EXPECT_FALSE(lines_.level(9));
}

TEST_F(Piix3Test, RoutingAnActivePirqMovesItsLevel) {
  route(0, 10);
  bridge_.set_irq(0, true);
  route(0, 5);
  EXPECT_FALSE(lines_.level(10));
  EXPECT_TRUE(lines_.level(5));
}

TEST_F(Piix3Test, ReservedInterruptsAreNotRouted) {
  bridge_.set_irq(0, true);
  for (const uint8_t irq : std::initializer_list<uint8_t>{0, 1, 2, 8, 13}) {
    route(0, irq);
    EXPECT_FALSE(lines_.level(irq)) << int{irq};
  }
}

TEST_F(Piix3Test, DwordWriteRoutesAllFour) {
  bridge_.config_write(kPirqrcA, 4, 0x0b0a0905);
  for (uint32_t pirq = 0; pirq < 4; ++pirq) bridge_.set_irq(pirq, true);
  EXPECT_TRUE(lines_.level(5) && lines_.level(9) && lines_.level(10) && lines_.level(11));
}

TEST_F(Piix3Test, LinesThatDoNotExistAreIgnored) {
  bridge_.set_irq(7, true);
  bridge_.set_irq(32, true);
  bridge_.set_irq(0xffffffff, true);
  for (uint32_t irq = 0; irq < 16; ++irq) EXPECT_FALSE(lines_.level(irq)) << irq;
}

TEST_F(Piix3Test, ResetControlChoosesTheKind) {
  bridge_.reset_control().io_write(0, 1, ResetControl::kHard);
  EXPECT_TRUE(resets_.empty());
  bridge_.reset_control().io_write(0, 1, ResetControl::kHard | ResetControl::kCpu);
  EXPECT_EQ(resets_, std::vector{ResetKind::kHard});
}

TEST_F(Piix3Test, SoftResetNeedsARisingEdge) {
  bridge_.reset_control().io_write(0, 1, ResetControl::kCpu);
  bridge_.reset_control().io_write(0, 1, ResetControl::kCpu);
  EXPECT_EQ(resets_, std::vector{ResetKind::kSoft});
}

TEST_F(Piix3Test, ResetClearsRoutesAndControl) {
  route(0, 10);
  bridge_.set_irq(0, true);
  bridge_.reset_control().io_write(0, 1, ResetControl::kHard);
  bridge_.reset();
  EXPECT_FALSE(lines_.level(10));
  EXPECT_EQ(bridge_.config_read(kPirqrcA, 1), 0x80U);
  EXPECT_EQ(bridge_.reset_control().io_read(0, 1), 0U);
}

TEST_F(Piix3Test, StateTravelsWithAnInterruptHigh) {
  route(3, 11);
  bridge_.set_irq(3, true);
  const auto saved = saved_state(bridge_);
  lines_.set_irq(11, false);
  Piix3 other("piix3", wiring());
  ASSERT_TRUE(restore_state(other, saved));
  EXPECT_TRUE(lines_.level(11));
  other.set_irq(3, false);
  EXPECT_FALSE(lines_.level(11));
}

TEST_F(Piix3Test, RefusesAnImpossibleResetControl) {
  EXPECT_FALSE(restore_state(bridge_, with_patched_field(saved_state(bridge_), 1, 0, 0xf0, 1)));
}

TEST_F(Piix3Test, RefusedExtraFieldChangesNothing) {
  route(0, 10);
  auto longer = saved_state(bridge_);
  route(0, 11);
  const size_t length_at = sizeof(uint16_t) + load<uint16_t>(longer.data()) + sizeof(uint32_t);
  store(longer.data() + length_at, load<uint32_t>(longer.data() + length_at) + 7);
  longer.insert(longer.end(), {0x34, 0x12, 1, 0, 0, 0, 0x55});  // field 0x1234, one byte
  EXPECT_FALSE(restore_state(bridge_, longer));
  EXPECT_EQ(bridge_.config_read(kPirqrcA, 1), 11U);
}

TEST_F(Piix3Test, RefusesReadOnlyBitsOfAnotherDevice) {
  route(0, 10);
  EXPECT_FALSE(restore_state(bridge_, with_patched_field(saved_state(bridge_), 0xf000, 0, 0x1234, 2)));
  EXPECT_EQ(bridge_.config_read(kPirqrcA, 1), 10U);
}

}  // namespace
}  // namespace kite::devices
