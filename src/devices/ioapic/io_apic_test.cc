#include "devices/ioapic/io_apic.h"

#include <gtest/gtest.h>

#include "devices/apic/test_apic.h"

namespace kite::devices {
namespace {

using testing::ApicMachine;
using testing::read_reg;
using testing::Reg;
using testing::restore_state;
using testing::saved_state;
using testing::with_patched_field;
using testing::write_reg;

using Vectors = std::vector<int>;

constexpr uint32_t kLevel = 1u << 15, kMasked = 1u << 16, kRemoteIrr = 1u << 14, kLogical = 1u << 11;

class IoApicTest : public ::testing::Test {
 protected:
  static uint32_t get(IoApic& ioapic, uint8_t reg) {
    write_reg(ioapic.region(), 0x00, reg, 4);
    return static_cast<uint32_t>(read_reg(ioapic.region(), 0x10, 4));
  }
  static void put(IoApic& ioapic, uint8_t reg, uint32_t value) {
    write_reg(ioapic.region(), 0x00, reg, 4);
    write_reg(ioapic.region(), 0x10, value, 4);
  }
  uint32_t get(uint8_t reg) { return get(ioapic_, reg); }
  void put(uint8_t reg, uint32_t value) { put(ioapic_, reg, value); }
  void route(unsigned input, uint32_t low, uint8_t destination = 0) {
    put(static_cast<uint8_t>(0x11 + 2 * input), uint32_t{destination} << 24);
    put(static_cast<uint8_t>(0x10 + 2 * input), low);
  }
  uint32_t low(unsigned input) { return get(static_cast<uint8_t>(0x10 + 2 * input)); }
  void set(unsigned input, bool level) { ioapic_.set_irq(input, level); }
  void toggle(unsigned input) {
    set(input, true);
    set(input, false);
  }

  ApicMachine m_{2};
  IoApic ioapic_{"ioapic", {}, m_.bus};
};

TEST_F(IoApicTest, IdentificationRegisters) {
  EXPECT_EQ(get(1), 0x00170020u);
  put(1, 0);
  EXPECT_EQ(get(1), 0x00170020u);
  put(0, 0xffffffff);
  EXPECT_EQ(get(0), 0x0f000000u);
  EXPECT_EQ(get(2), 0x0f000000u);
  put(2, 0);
  EXPECT_EQ(get(2), 0x0f000000u);
  EXPECT_EQ(get(0x40), 0u);
}

TEST_F(IoApicTest, ResetMasksEverything) {
  route(3, 0x51);
  ioapic_.reset();
  for (unsigned input = 0; input < IoApic::kInputs; ++input) EXPECT_EQ(low(input), kMasked);
}

TEST_F(IoApicTest, StatusBitsCannotBeWritten) {
  route(3, 0xffffffff & ~kLevel);
  EXPECT_EQ(low(3), 0x12fffu);
}

TEST_F(IoApicTest, WindowTakesOnly32Bits) {
  write_reg(ioapic_.region(), 0x00, 0x16, 1);
  write_reg(ioapic_.region(), 0x10, 0x51, 1);
  EXPECT_EQ(low(3), kMasked);
}

TEST_F(IoApicTest, EdgeIsSentOnce) {
  route(14, 0x76);
  toggle(14);
  EXPECT_EQ(m_.serve(0), (Vectors{0x76}));
  set(14, true);
  set(14, true);
  EXPECT_EQ(m_.serve(0), (Vectors{0x76}));
  EXPECT_EQ(low(14) & kRemoteIrr, 0u);
}

TEST_F(IoApicTest, EdgeAtAMaskedInputIsLost) {
  route(14, kMasked | 0x76);
  toggle(14);
  set(14, true);
  route(14, 0x76);
  EXPECT_EQ(m_.serve(0), Vectors{});
  set(14, false);
  set(14, true);
  EXPECT_EQ(m_.serve(0), (Vectors{0x76}));
}

TEST_F(IoApicTest, LevelSetsRemoteIrrUntilEoi) {
  route(14, kLevel | 0x77);
  set(14, true);
  EXPECT_EQ(low(14), kLevel | kRemoteIrr | 0x77);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x77);
  set(14, false);
  EXPECT_NE(low(14) & kRemoteIrr, 0u);
  m_.write(0, Reg::EOI, 0);
  EXPECT_EQ(low(14) & kRemoteIrr, 0u);
  EXPECT_FALSE(m_.apics[0]->has_interrupt());
}

TEST_F(IoApicTest, LevelsUnderWayCoalesce) {
  route(14, kLevel | 0x98);
  set(14, true);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x98);
  set(14, false);
  set(14, true);
  set(14, false);
  m_.write(0, Reg::EOI, 0);
  EXPECT_EQ(m_.serve(0), Vectors{});
}

TEST_F(IoApicTest, LevelStillHighIsSentAgainAfterEoi) {
  route(14, kLevel | 0x9a);
  set(14, true);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x9a);
  m_.write(0, Reg::EOI, 0);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x9a);
  set(14, false);
  m_.write(0, Reg::EOI, 0);
  EXPECT_EQ(m_.apics[0]->acknowledge(), std::nullopt);
}

TEST_F(IoApicTest, UnmaskingALevelThatIsHighSendsIt) {
  route(14, kLevel | kMasked | 0x82);
  set(14, true);
  EXPECT_EQ(m_.serve(0), Vectors{});
  route(14, kLevel | 0x82);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x82);
}

TEST_F(IoApicTest, MaskedInTheHandlerAndUnmaskedLater) {
  route(14, kLevel | 0x83);
  set(14, true);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x83);
  route(14, kLevel | kMasked | 0x83);
  m_.write(0, Reg::EOI, 0);
  EXPECT_EQ(m_.serve(0), Vectors{});
  route(14, kLevel | 0x83);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x83);
}

TEST_F(IoApicTest, TriggerModeShowsInTmr) {
  route(14, kLevel | 0x79);
  set(14, true);
  EXPECT_TRUE(m_.bit(0, Reg::TMR, 0x79));
  set(14, false);
  m_.serve(0);
  EXPECT_TRUE(m_.bit(0, Reg::TMR, 0x79));  // until the next acceptance
  route(14, 0x79);
  toggle(14);
  EXPECT_FALSE(m_.bit(0, Reg::TMR, 0x79));
}

TEST_F(IoApicTest, DestinationMovedWhileUnderWayStillEnds) {
  route(14, kLevel | 0x84);
  set(14, true);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x84);
  set(14, false);
  put(0x11 + 2 * 14, 1u << 24);
  EXPECT_NE(low(14) & kRemoteIrr, 0u);
  m_.write(0, Reg::EOI, 0);
  EXPECT_EQ(low(14) & kRemoteIrr, 0u);
}

TEST_F(IoApicTest, Destinations) {
  route(4, 0x85, 1);
  toggle(4);
  EXPECT_EQ(m_.requested(0x85), 0b10u);
  m_.write(0, Reg::LDR, 0x01000000);
  m_.write(1, Reg::LDR, 0x02000000);
  route(5, kLogical | 0x86, 0x03);
  toggle(5);
  EXPECT_EQ(m_.requested(0x86), 0b11u);
  m_.write(0, Reg::TPR, 0xf0);
  route(6, kLogical | 0x100 | 0x87, 0x03);
  toggle(6);
  EXPECT_EQ(m_.requested(0x87), 0b10u);
}

TEST_F(IoApicTest, NmiAndExtIntAreEdgesEvenIfMarkedLevel) {
  route(4, kLevel | 0x400);
  set(4, true);
  EXPECT_EQ(m_.cpus[0]->nmis, 1);
  EXPECT_EQ(low(4) & kRemoteIrr, 0u);
  route(0, 0x700);
  m_.pic.vector = 0x30;
  toggle(0);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x30);
}

TEST_F(IoApicTest, ReservedDeliveryModesSendNothing) {
  route(4, 0x300 | 0x51);
  toggle(4);
  route(4, 0x600 | 0x51);
  toggle(4);
  EXPECT_TRUE(m_.cpus[0]->sipis.empty());
  EXPECT_EQ(m_.requested(0x51), 0u);
}

TEST_F(IoApicTest, LevelThatNobodyTookIsSentWhenSomebodyCanTakeIt) {
  m_.write(0, Reg::SVR, 0xff);
  route(14, kLevel | 0x51);
  set(14, true);
  EXPECT_EQ(low(14) & kRemoteIrr, 0u);
  m_.write(0, Reg::SVR, 0x1ff);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x51);
}

TEST_F(IoApicTest, EoiRegisterEndsALevel) {
  m_.write(0, Reg::SVR, 0x11ff);  // no broadcast
  route(14, kLevel | 0x51);
  set(14, true);
  EXPECT_EQ(m_.apics[0]->acknowledge(), 0x51);
  set(14, false);
  m_.write(0, Reg::EOI, 0);
  EXPECT_NE(low(14) & kRemoteIrr, 0u);
  write_reg(ioapic_.region(), 0x40, 0x51, 4);
  EXPECT_EQ(low(14) & kRemoteIrr, 0u);
}

TEST_F(IoApicTest, OldVersionHasNoEoiRegisterAndEndsByEdge) {
  IoApic old("ioapic", {.version = 0x11}, m_.bus);
  EXPECT_EQ(get(old, 1), 0x00170011u);
  put(old, 0x10 + 2 * 14, kLevel | 0x51);
  old.set_irq(14, true);
  old.set_irq(14, false);
  write_reg(old.region(), 0x40, 0x51, 4);
  EXPECT_NE(get(old, 0x10 + 2 * 14) & kRemoteIrr, 0u);
  put(old, 0x10 + 2 * 14, kMasked | 0x51);
  put(old, 0x10 + 2 * 14, kLevel | 0x51);
  EXPECT_EQ(get(old, 0x10 + 2 * 14) & kRemoteIrr, 0u);
}

TEST_F(IoApicTest, InputsOutOfRangeAreIgnored) {
  ioapic_.set_irq(24, true);
  ioapic_.set_irq(0xffffffff, true);
  EXPECT_FALSE(m_.apics[0]->has_interrupt());
}

std::vector<int> finish_service(IoApic& ioapic, ApicMachine& m) {
  std::vector<int> seen;
  for (int i = 0; i < 6; ++i) {
    if (i == 2) ioapic.set_irq(14, false);
    if (i == 3) ioapic.set_irq(5, true);  // no edge: it was high already
    if (i == 4) write_reg(ioapic.region(), 0x10, 0x0152, 4);
    if (const auto vector = m.apics[0]->acknowledge()) seen.push_back(*vector);
    m.write(0, Reg::EOI, 0);
    seen.push_back(static_cast<int>(read_reg(ioapic.region(), 0x10, 4)));
  }
  return seen;
}

TEST_F(IoApicTest, RestoredInTheMiddleFinishesIdentically) {
  route(14, kLevel | 0x77);
  route(5, 0x61);
  put(0, 0x05000000);
  set(5, true);
  set(14, true);
  m_.apics[0]->acknowledge();
  write_reg(ioapic_.region(), 0, 0x10 + 2 * 14, 4);
  ApicMachine other(2);
  IoApic copy("ioapic", {}, other.bus);
  ASSERT_TRUE(restore_state(copy, saved_state(ioapic_)));
  ASSERT_TRUE(restore_state(*other.apics[0], saved_state(*m_.apics[0])));
  EXPECT_EQ(finish_service(copy, other), finish_service(ioapic_, m_));
  EXPECT_EQ(saved_state(copy), saved_state(ioapic_));
}

TEST_F(IoApicTest, ImpossibleStatesAreRejectedAndChangeNothing) {
  route(3, 0x51);
  const auto good = saved_state(ioapic_);
  struct Case {
    uint16_t field;
    size_t at;
    uint64_t value;
    size_t size;
  };
  for (const Case c : {Case{1, 24, 0x20000, 8},
                       {1, 24, kRemoteIrr, 8},
                       {1, 0, uint64_t{1} << 40, 8},
                       {2, 0, 0x1000000, 4},
                       {3, 0, 1, 4}}) {
    EXPECT_FALSE(restore_state(ioapic_, with_patched_field(good, c.field, c.at, c.value, c.size))) << c.field;
    EXPECT_EQ(saved_state(ioapic_), good) << c.field;
  }
}

}  // namespace
}  // namespace kite::devices
