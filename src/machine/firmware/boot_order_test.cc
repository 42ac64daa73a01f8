#include "machine/firmware/boot_order.h"

#include <gtest/gtest.h>

namespace kite::machine {
namespace {

std::string text(const BootOrder& order, bool strict) {
  const std::vector<uint8_t> bytes = order.file(strict);
  EXPECT_EQ(bytes.back(), 0);
  return {bytes.begin(), bytes.end() - 1};
}

TEST(BootOrder, TheLowestIndexComesFirst) {
  BootOrder order;
  ASSERT_TRUE(order.add(5, BootOrder::pci_path("ethernet", 0x18, "/ethernet-phy@0"), "net0"));
  ASSERT_TRUE(order.add(1, BootOrder::pci_path("ide", 0x09, "/drive@0/disk@0"), "disk0"));
  EXPECT_EQ(text(order, false), "/pci@i0cf8/ide@1,1/drive@0/disk@0\n/pci@i0cf8/ethernet@3/ethernet-phy@0");
}

TEST(BootOrder, AnIndexIsGivenOnce) {
  BootOrder order;
  ASSERT_TRUE(order.add(1, "/a", "first"));
  const auto second = order.add(1, "/b", "second");
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("taken by first"), std::string::npos);
}

TEST(BootOrder, StrictEndsWithAHalt) {
  BootOrder order;
  EXPECT_EQ(text(order, true), "HALT");
  ASSERT_TRUE(order.add(0, "/a", "a"));
  EXPECT_EQ(text(order, true), "/a\nHALT");
}

}  // namespace
}  // namespace kite::machine
