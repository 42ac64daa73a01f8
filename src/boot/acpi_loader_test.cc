#include "boot/acpi_loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>

#include "support/bytes.h"

namespace kite::boot {
namespace {

AcpiConfig config() { return {.cpu_count = 2, .hpet = true, .pci_hole_start = 0xc0000000, .pci_hole_end = 0xfec00000}; }

// Carries the script out as firmware does; answers the files as they are afterwards.
using Files = std::map<std::string, std::vector<uint8_t>>;
Files run_script(const AcpiTables& tables, uint64_t tables_at, uint64_t rsdp_at) {
  Files files = {{kAcpiTablesFile, tables.blob}, {kAcpiRsdpFile, tables.rsdp}};
  std::map<std::string, uint64_t> address;
  const std::vector<uint8_t> script = acpi_loader_script(tables);
  const auto name = [&](size_t at) { return std::string(reinterpret_cast<const char*>(&script[at])); };
  for (size_t at = 0; at < script.size(); at += 128) {
    const std::string file = name(at + 4);
    switch (load<uint32_t>(&script[at])) {
      case 1: address[file] = script[at + 64] == 2 ? rsdp_at : tables_at; break;
      case 2: {
        uint8_t* place = &files.at(file).at(load<uint32_t>(&script[at + 116]));
        store_le(place, script[at + 120], load_le(place, script[at + 120]) + address.at(name(at + 60)));
        break;
      }
      case 3: {
        auto& bytes = files.at(file);
        uint8_t& sum = bytes.at(load<uint32_t>(&script[at + 60]));
        EXPECT_EQ(sum, 0);  // OVMF sums over what is there
        const auto from = bytes.begin() + load<uint32_t>(&script[at + 64]);
        sum = static_cast<uint8_t>(-std::accumulate(from, from + load<uint32_t>(&script[at + 68]), 0));
        break;
      }
      default: ADD_FAILURE() << "unknown command";
    }
  }
  return files;
}

TEST(AcpiLoader, TheScriptPlacesTheTablesAsADirectStartDoes) {
  constexpr uint64_t kTables = 0x7fe0000, kRsdp = 0xf5000;
  const AcpiTables built = build_acpi(config());
  AcpiTables placed = built;
  place_acpi(placed, kTables);
  const Files files = run_script(built, kTables, kRsdp);
  EXPECT_EQ(files.at(kAcpiTablesFile), placed.blob);
  EXPECT_EQ(files.at(kAcpiRsdpFile), placed.rsdp);
}

TEST(AcpiLoader, MemoryIsAllocatedBeforeItIsUsed) {
  const std::vector<uint8_t> script = acpi_loader_script(build_acpi(config()));
  ASSERT_EQ(script.size() % 128, 0U);
  EXPECT_EQ(load<uint32_t>(&script[0]), 1U);
  EXPECT_EQ(load<uint32_t>(&script[60]), 64U);
  EXPECT_EQ(load<uint32_t>(&script[128]), 1U);
}

TEST(AcpiTableCheck, RefusesWhatFirmwareWouldStumbleOver) {
  AcpiTables tables = build_acpi(config());
  place_acpi(tables, 0);
  const uint32_t length = load<uint32_t>(&tables.blob[tables.sums[1].start + 4]);
  std::vector<uint8_t> table(tables.blob.begin() + tables.sums[1].start,
                             tables.blob.begin() + tables.sums[1].start + length);
  EXPECT_TRUE(check_acpi_table(table));
  table.back() ^= 1;
  EXPECT_FALSE(check_acpi_table(table));
  table.pop_back();
  EXPECT_FALSE(check_acpi_table(table));
  EXPECT_FALSE(check_acpi_table({}));
}

}  // namespace
}  // namespace kite::boot
