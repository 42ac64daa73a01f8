#include "boot/smbios.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <span>

#include "support/bytes.h"

namespace kite::boot {
namespace {

constexpr uint64_t kGib = uint64_t{1} << 30;

SmbiosMachine machine() {
  return {.product = "Test PC",
          .uuid = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06},
          .sockets = 2,
          .ram_low = 3 * kGib,
          .ram_high = 30 * kGib};
}

// Structures by type, each with its strings, as a reader takes the table apart.
struct Read {
  std::vector<uint8_t> formatted;
  std::vector<std::string> strings;
  [[nodiscard]] std::string text(size_t offset) const {
    const uint8_t number = formatted.at(offset);
    return number == 0 ? "" : strings.at(number - 1);
  }
};
std::multimap<uint8_t, Read> read_all(const std::vector<uint8_t>& all) {
  std::multimap<uint8_t, Read> found;
  for (size_t at = 0; at < all.size();) {
    const size_t length = all.at(at + 1);
    Read structure{
        .formatted = {all.begin() + static_cast<ptrdiff_t>(at), all.begin() + static_cast<ptrdiff_t>(at + length)},
        .strings = {}};
    size_t next = at + length;
    while (all.at(next) != 0) {
      structure.strings.emplace_back(reinterpret_cast<const char*>(&all[next]));
      next += structure.strings.back().size() + 1;
    }
    next += structure.strings.empty() ? 2 : 1;
    found.emplace(all[at], std::move(structure));
    at = next;
  }
  return found;
}

uint8_t sum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(std::accumulate(bytes.begin(), bytes.end(), 0));
}

TEST(Smbios, DescribesProcessorsAndMemory) {
  const auto found = read_all(build_smbios({}, machine()).structures);
  EXPECT_EQ(found.count(4), 2U);
  EXPECT_EQ(found.count(17), 3U);  // 33 GiB in devices of 16
  EXPECT_EQ(found.count(19), 2U);
  EXPECT_EQ(found.count(127), 1U);
  EXPECT_EQ(found.count(0), 0U);  // firmware adds its own
  EXPECT_EQ(found.find(1)->second.text(5), "Test PC");
}

TEST(Smbios, TheUuidsFirstFieldsAreLittleEndian) {
  const auto found = read_all(build_smbios({}, machine()).structures);
  const auto& system = found.find(1)->second.formatted;
  EXPECT_EQ(load<uint32_t>(&system[8]), 0x01020304U);
  EXPECT_EQ(load<uint16_t>(&system[12]), 0x0506U);
}

TEST(Smbios, TheUsersFieldsReplaceTheDefaults) {
  SmbiosConfig config;
  config.system.serial = "4711";
  config.bios.given = true;
  config.bios.vendor = "Somebody";
  config.oem_strings = {"one", "two"};
  const auto found = read_all(build_smbios(config, machine()).structures);
  EXPECT_EQ(found.find(1)->second.text(7), "4711");
  EXPECT_EQ(found.find(0)->second.text(4), "Somebody");
  EXPECT_EQ(found.find(11)->second.strings, config.oem_strings);
}

TEST(Smbios, BothAnchorsAddUpToZero) {
  SmbiosConfig config;
  const SmbiosTables old = build_smbios(config, machine());
  ASSERT_EQ(old.anchor.size(), 0x1fU);
  EXPECT_EQ(sum(old.anchor), 0);
  EXPECT_EQ(sum(std::span(old.anchor).subspan(0x10)), 0);
  EXPECT_EQ(load<uint16_t>(&old.anchor[0x16]), old.structures.size());
  EXPECT_EQ(load<uint16_t>(&old.anchor[0x1c]), read_all(old.structures).size());
  config.entry_point = SmbiosEntryPoint::k64;
  const SmbiosTables wide = build_smbios(config, machine());
  ASSERT_EQ(wide.anchor.size(), 0x18U);
  EXPECT_EQ(sum(wide.anchor), 0);
}

TEST(Smbios, AStructureFromAFileIsChecked) {
  EXPECT_TRUE(check_smbios_structure({200, 4, 0, 1, 0, 0}));
  EXPECT_TRUE(check_smbios_structure({200, 4, 0, 1, 'a', 0, 0}));
  EXPECT_FALSE(check_smbios_structure({200, 4, 0, 1, 'a', 0}));
  EXPECT_FALSE(check_smbios_structure({200, 9, 0, 1, 0, 0}));
  EXPECT_FALSE(check_smbios_structure({200, 4, 0, 1, 0, 0, 7}));
  EXPECT_FALSE(check_smbios_structure({}));
}

}  // namespace
}  // namespace kite::boot
