#include "devices/types.h"

#include <gtest/gtest.h>

namespace kite::devices {
namespace {

class DeviceTypesTest : public ::testing::Test {
 protected:
  DeviceTypesTest() { register_device_types(registry_); }
  TypeRegistry registry_;
};

TEST_F(DeviceTypesTest, EveryTypeIsADeviceOrABackEndAndHasADescription) {
  for (const ObjectType* type : registry_.all()) {
    EXPECT_TRUE(registry_.is_a(type->name, "device") || registry_.is_a(type->name, "object")) << type->name;
    EXPECT_FALSE(type->description.empty()) << type->name;
  }
}

TEST_F(DeviceTypesTest, SerialPortResolvesItsProperties) {
  const auto values =
      registry_.resolve({.type = "isa-serial", .id = "", .values = {{"iobase", "0x2f8"}, {"irq", "3"}}}, "-device");
  ASSERT_TRUE(values) << values.error().message;
  EXPECT_EQ(values->integer("iobase"), 0x2f8U);
  EXPECT_EQ(values->integer("index"), 0U);
}

TEST_F(DeviceTypesTest, PortsPastTheLastAreRefused) {
  EXPECT_FALSE(registry_.resolve({.type = "isa-debug-exit", .id = "", .values = {{"iobase", "0x10000"}}}, "-device"));
}

TEST_F(DeviceTypesTest, BoardPartsAreNotForUsers) {
  for (const char* name : {"i440FX", "PIIX3", "PIIX4_PM", "isa-pit", "ioapic"})
    EXPECT_FALSE(registry_.resolve({.type = name, .id = "", .values = {}}, "-device")) << name;
}

TEST_F(DeviceTypesTest, PciFunctionsInheritTheirAddress) {
  EXPECT_TRUE(registry_.resolve({.type = "pci-testdev", .id = "", .values = {{"addr", "4.0"}}}, "-device"));
}

}  // namespace
}  // namespace kite::devices
