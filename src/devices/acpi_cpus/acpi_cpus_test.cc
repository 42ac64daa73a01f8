#include "devices/acpi_cpus/acpi_cpus.h"

#include "devices/acpi_cpus/acpi_cpus_regs.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace acpi_cpus_regs;

class AcpiCpusTest : public ::testing::Test {
 protected:
  AcpiCpusTest() { ports_.map(kIch9Port, device_.region()); }
  uint64_t in(Reg reg, unsigned size = 4) { return ports_.in(kIch9Port + reg, size); }
  void select(uint32_t number) { ports_.out(kIch9Port + kSelector, number, 4); }
  void command(uint8_t value) { ports_.out(kIch9Port + kCommand, value, 1); }

  TestSpace ports_;
  AcpiCpus device_{"cpus", {{.apic_id = 0}, {.apic_id = 0x1'0000'0004}, {.apic_id = 6, .enabled = false}}};
};

// As OVMF counts them: each number is selected until that fails.
TEST_F(AcpiCpusTest, ProcessorsAreCounted) {
  select(0);
  select(0);
  command(kNextEvent);
  EXPECT_EQ(in(kCommandData2), 0U);
  unsigned possible = 0, present = 0;
  do {
    present += in(kStatus, 1) & kEnabled;
    select(++possible);
    command(kNextEvent);
  } while (in(kCommandData) == possible);
  EXPECT_EQ(possible, 3U);
  EXPECT_EQ(present, 2U);
}

TEST_F(AcpiCpusTest, TellsTheIdOfTheSelectedOne) {
  select(1);
  command(kArchId);
  EXPECT_EQ(in(kCommandData), 4U);
  EXPECT_EQ(in(kCommandData2), 1U);
  EXPECT_EQ(in(kStatus, 1), kEnabled);
  select(2);
  EXPECT_EQ(in(kCommandData), 6U);
  EXPECT_EQ(in(kStatus, 1), 0U);
}

TEST_F(AcpiCpusTest, NothingIsBehindTheLastOne) {
  for (const uint32_t number : {3U, UINT32_MAX}) {
    select(number);
    command(kArchId);
    EXPECT_EQ(in(kCommandData), 0U);
    EXPECT_EQ(in(kStatus, 1), 0U);
  }
  select(1);
  EXPECT_EQ(in(kCommandData), 1U);  // the command was for nobody
}

TEST_F(AcpiCpusTest, StateTravels) {
  select(1);
  command(kArchId);
  const std::vector<uint8_t> state = saved_state(device_);
  device_.reset();
  EXPECT_EQ(in(kCommandData), 0U);
  ASSERT_TRUE(restore_state(device_, state));
  EXPECT_EQ(in(kCommandData), 4U);
  EXPECT_FALSE(restore_state(device_, with_patched_field(state, 2, 0, 4, 1)));
}

}  // namespace
}  // namespace kite::devices
