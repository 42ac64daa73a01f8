#include "boot/option_rom/option_rom.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <span>

#include "support/bytes.h"

namespace kite::boot {
namespace {

uint8_t sum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(std::accumulate(bytes.begin(), bytes.end(), 0));
}

TEST(OptionRom, FirmwareFindsAValidImage) {
  const std::vector<uint8_t> rom = kernel_option_rom();
  EXPECT_EQ(load<uint16_t>(rom.data()), 0xaa55);
  EXPECT_EQ(rom[2] * 512U, rom.size());
  EXPECT_EQ(sum(rom), 0);
}

TEST(OptionRom, ItsPlugAndPlayHeaderNamesABootEntry) {
  const std::vector<uint8_t> rom = kernel_option_rom();
  const auto header = std::span(rom).subspan(load<uint16_t>(&rom[0x1a]), 32);
  EXPECT_EQ(std::memcmp(header.data(), "$PnP", 4), 0);
  EXPECT_EQ(sum(header), 0);
  const auto entry = load<uint16_t>(&header[0x1a]);
  EXPECT_GT(entry, 0);
  EXPECT_LT(entry, rom.size());
}

}  // namespace
}  // namespace kite::boot
