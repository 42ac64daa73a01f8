#include "boot/acpi.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <span>
#include <string>

#include "boot/dsdt.h"
#include "support/bytes.h"

namespace kite::boot {
namespace {

constexpr uint64_t kAddress = 0x7fe0040;

AcpiConfig pc_config() {
  return {.cpu_count = 4,
          .hpet = true,
          .serial_ports = 0x3,
          .pci_hole_start = 0xc0000000,
          .pci_hole_end = 0xfec00000,
          .pci_hole64_start = uint64_t{1} << 32,
          .pci_hole64_end = uint64_t{1} << 36};
}

// A root bus with a bridge at 5.0 that leads to a bus of its own, and one at 6.1 to a bus that has no number.
HotplugBus hotplug_tree() {
  return {
      .number = 0,
      .slots = 0xffffff9c,
      .behind = {{.bridge = 5 << 3, .number = 1, .slots = 0xffffffff},
                 {.bridge = 6 << 3 | 1, .number = {}, .behind = {{.bridge = 0, .number = 2, .slots = 0x80000001}}}}};
}

uint8_t sum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(std::accumulate(bytes.begin(), bytes.end(), 0));
}

// The tables as a system finds them, following pointers from the RSDP.
class Tables {
 public:
  explicit Tables(const AcpiConfig& config) : all(build_acpi(config)) { place_acpi(all, kAddress); }
  [[nodiscard]] std::span<const uint8_t> at(uint64_t address) const {
    EXPECT_GE(address, kAddress);
    EXPECT_LT(address, kAddress + all.blob.size());
    const auto rest = std::span(all.blob).subspan(address - kAddress);
    return rest.first(load<uint32_t>(&rest[4]));
  }
  [[nodiscard]] std::vector<uint64_t> roots(bool wide) const {
    const auto table = at(wide ? load<uint64_t>(&all.rsdp[24]) : load<uint32_t>(&all.rsdp[16]));
    std::vector<uint64_t> found;
    for (size_t offset = 36; offset < table.size(); offset += wide ? 8 : 4)
      found.push_back(load_le(&table[offset], wide ? 8 : 4));
    return found;
  }
  [[nodiscard]] std::span<const uint8_t> find(std::string_view signature) const {
    for (const uint64_t address : roots(true)) {
      const auto table = at(address);
      if (std::equal(signature.begin(), signature.end(), table.begin())) return table;
    }
    return {};
  }
  [[nodiscard]] std::span<const uint8_t> dsdt() const { return at(load<uint64_t>(&find("FACP")[140])); }

  AcpiTables all;
};

std::string text_of(std::span<const uint8_t> bytes) { return {bytes.begin(), bytes.end()}; }

TEST(Acpi, TheRootPointerHasBothChecksums) {
  const Tables tables(pc_config());
  ASSERT_EQ(tables.all.rsdp.size(), 36U);
  EXPECT_EQ(text_of(std::span(tables.all.rsdp).first(8)), "RSD PTR ");
  EXPECT_EQ(sum(std::span(tables.all.rsdp).first(20)), 0);
  EXPECT_EQ(sum(tables.all.rsdp), 0);
  EXPECT_EQ(tables.all.rsdp[15], 2);
}

TEST(Acpi, BothRootTablesNameTheSame) {
  const Tables tables(pc_config());
  EXPECT_EQ(tables.roots(false), tables.roots(true));
  EXPECT_EQ(tables.roots(true).size(), 3U);
}

TEST(Acpi, EveryTableIsWholeAndAligned) {
  const Tables tables(pc_config());
  auto addresses = tables.roots(true);
  addresses.push_back(load<uint32_t>(&tables.all.rsdp[16]));
  addresses.push_back(load<uint64_t>(&tables.all.rsdp[24]));
  addresses.push_back(load<uint64_t>(&tables.find("FACP")[140]));
  for (const uint64_t address : addresses) {
    EXPECT_EQ(address % 16, 0U);
    EXPECT_EQ(sum(tables.at(address)), 0) << text_of(tables.at(address).first(4));
  }
}

TEST(Acpi, TheFacsIsAlignedTo64) {
  const Tables tables(pc_config());
  const auto facs = load<uint32_t>(&tables.find("FACP")[36]);
  EXPECT_EQ(facs % 64, 0U);
  EXPECT_EQ(text_of(tables.at(facs).first(4)), "FACS");
  EXPECT_EQ(tables.at(facs).size(), 64U);
}

TEST(Acpi, TheFadtDescribesThePowerManagement) {
  const Tables tables(pc_config());
  const auto fadt = tables.find("FACP");
  ASSERT_EQ(fadt.size(), 244U);
  EXPECT_EQ(load<uint16_t>(&fadt[46]), 9);
  EXPECT_EQ(load<uint32_t>(&fadt[48]), 0U) << "no SMI";
  EXPECT_EQ(load<uint32_t>(&fadt[56]), 0x600U);
  EXPECT_EQ(load<uint32_t>(&fadt[64]), 0x604U);
  EXPECT_EQ(load<uint32_t>(&fadt[76]), 0x608U);
  EXPECT_EQ(load<uint32_t>(&fadt[80]), 0xafe0U);
  EXPECT_EQ(fadt[88], 4);
  EXPECT_EQ(fadt[89], 2);
  EXPECT_EQ(fadt[91], 4);
  EXPECT_EQ(fadt[92], 4);
  EXPECT_EQ(load<uint16_t>(&fadt[109]) & 3, 3);
  EXPECT_NE(load<uint32_t>(&fadt[112]) & 1u << 10, 0U);
  EXPECT_EQ(fadt[116], 1);
  EXPECT_EQ(load<uint64_t>(&fadt[120]), 0xcf9U);
  EXPECT_EQ(fadt[128], 6);
  EXPECT_EQ(load<uint64_t>(&fadt[140]), load<uint32_t>(&fadt[40]));
  EXPECT_EQ(load<uint64_t>(&fadt[152]), 0x600U);
  EXPECT_EQ(load<uint64_t>(&fadt[176]), 0x604U);
  EXPECT_EQ(load<uint64_t>(&fadt[212]), 0x608U);
  EXPECT_EQ(load<uint64_t>(&fadt[224]), 0xafe0U);
}

// Entries of the MADT by type.
std::multimap<uint8_t, std::vector<uint8_t>> madt_entries(std::span<const uint8_t> madt) {
  std::multimap<uint8_t, std::vector<uint8_t>> entries;
  for (size_t at = 44; at + 1 < madt.size() && madt[at + 1] != 0; at += madt[at + 1])
    entries.emplace(madt[at], std::vector<uint8_t>(&madt[at], &madt[at] + madt[at + 1]));
  return entries;
}

TEST(Acpi, TheMadtNamesEveryProcessor) {
  const Tables tables(pc_config());
  const auto entries = madt_entries(tables.find("APIC"));
  ASSERT_EQ(entries.count(0), 4U);
  uint8_t id = 0;
  for (auto [at, end] = entries.equal_range(0); at != end; ++at, ++id) {
    EXPECT_EQ(at->second[2], id);
    EXPECT_EQ(at->second[3], id);
    EXPECT_EQ(at->second[4], 1);
  }
}

TEST(Acpi, TheMadtTellsHowIrqsReachTheIoApic) {
  const Tables tables(pc_config());
  const auto entries = madt_entries(tables.find("APIC"));
  std::map<uint8_t, std::pair<uint32_t, uint16_t>> overrides;
  for (auto [at, end] = entries.equal_range(2); at != end; ++at)
    overrides[at->second[3]] = {load<uint32_t>(&at->second[4]), load<uint16_t>(&at->second[8])};
  const std::map<uint8_t, std::pair<uint32_t, uint16_t>> expected = {
      {0, {2, 0}}, {5, {5, 0xd}}, {9, {9, 0xd}}, {10, {10, 0xd}}, {11, {11, 0xd}}};
  EXPECT_EQ(overrides, expected);
  ASSERT_EQ(entries.count(1), 1U);
  EXPECT_EQ(load<uint32_t>(&entries.find(1)->second[4]), 0xfec00000U);
  ASSERT_EQ(entries.count(4), 1U);
  EXPECT_EQ(entries.find(4)->second[5], 1);
}

TEST(Acpi, ManyProcessorsGetWideIds) {
  AcpiConfig config = pc_config();
  config.cpu_count = 300;
  const Tables tables(config);
  const auto entries = madt_entries(tables.find("APIC"));
  EXPECT_EQ(entries.count(0), 255U);
  ASSERT_EQ(entries.count(9), 45U);
  EXPECT_EQ(load<uint32_t>(&entries.find(9)->second[4]), 255U);
  EXPECT_EQ(entries.count(10), 1U);
}

TEST(Acpi, ProcessorsKeepTheirNumbersWhereIdsLeaveGaps) {
  AcpiConfig config = pc_config();
  config.topology = {.sockets = 2, .cores = 3};
  const Tables tables(config);
  const auto entries = madt_entries(tables.find("APIC"));
  std::map<uint8_t, uint8_t> ids;
  for (auto [at, end] = entries.equal_range(0); at != end; ++at) ids[at->second[2]] = at->second[3];
  EXPECT_EQ(ids, (std::map<uint8_t, uint8_t>{{0, 0}, {1, 1}, {2, 2}, {3, 4}}));
}

TEST(Acpi, NodesAreToldOnlyWhereThereAreAny) {
  AcpiConfig config = pc_config();
  EXPECT_TRUE(Tables(config).find("SRAT").empty());
  EXPECT_TRUE(Tables(config).find("SLIT").empty());
  config.topology = {.sockets = 2, .cores = 3};
  config.numa = {.node_of_cpu = {0, 0, 0, 1},
                 .memory = {{0, 0x8000000, 0}, {0x1'0000'0000, 0x2000'0000, 1}},
                 .distances = {10, 21, 31, 10}};
  const Tables tables(config);
  const auto slit = tables.find("SLIT"), srat = tables.find("SRAT");
  ASSERT_EQ(slit.size(), 48U);
  EXPECT_EQ(load<uint64_t>(&slit[36]), 2U);
  EXPECT_EQ(slit[45], 21);
  EXPECT_EQ(slit[46], 31);
  ASSERT_EQ(srat.size(), 48U + 4 * 16 + 2 * 40);
  const auto fourth = srat.subspan(48 + 3 * 16), high = srat.subspan(48 + 4 * 16 + 40);
  EXPECT_EQ(fourth[2], 1);  // the node
  EXPECT_EQ(fourth[3], 4);  // the APIC id
  EXPECT_EQ(load<uint32_t>(&high[2]), 1U);
  EXPECT_EQ(load<uint64_t>(&high[8]), 0x1'0000'0000U);
  EXPECT_EQ(load<uint64_t>(&high[16]), 0x2000'0000U);
  EXPECT_EQ(load<uint32_t>(&high[28]), 1U);
}

TEST(Acpi, TheHpetIsOptional) {
  AcpiConfig config = pc_config();
  EXPECT_EQ(load<uint64_t>(&Tables(config).find("HPET")[44]), 0xfed00000U);
  config.hpet = false;
  EXPECT_TRUE(Tables(config).find("HPET").empty());
}

TEST(Acpi, OnlyPresentSerialPortsAreNamed) {
  AcpiConfig config = pc_config();
  config.serial_ports = 0x5;
  const Tables tables(config);
  const std::string code = text_of(tables.dsdt());
  EXPECT_NE(code.find("COM1"), std::string::npos);
  EXPECT_EQ(code.find("COM2"), std::string::npos);
  EXPECT_NE(code.find("COM3"), std::string::npos);
}

TEST(Acpi, SlotsThatComeAndGoAreNamedOnlyWithHotplug) {
  AcpiConfig config = pc_config();
  EXPECT_EQ(text_of(Tables(config).dsdt()).find("_EJ0"), std::string::npos);
  config.hotplug = HotplugBus{.number = 0, .slots = 1U << 31};
  const Tables tables(config);
  const std::string code = text_of(tables.dsdt());
  EXPECT_NE(code.find("SF8_"), std::string::npos);
  EXPECT_EQ(code.find("S08_"), std::string::npos);
  EXPECT_NE(code.find("_EJ0"), std::string::npos);
  EXPECT_NE(code.find("_E01"), std::string::npos);
}

TEST(Acpi, TheSizeLimitOfTheBoardHolds) {
  AcpiConfig config = pc_config();
  config.cpu_count = 255;
  config.hotplug = hotplug_tree();
  EXPECT_LE(build_acpi(config).blob.size(), 0x20000U);
}

// The reference disassembler takes our byte code apart, and its compiler finds nothing to say about what it reads.
class AcpiReference : public ::testing::TestWithParam<uint32_t> {};

TEST_P(AcpiReference, AcceptsTheTables) {
  if (std::system("command -v iasl >/dev/null 2>&1") != 0) GTEST_SKIP() << "iasl (acpica-tools) is not installed";
  AcpiConfig config = pc_config();
  config.cpu_count = GetParam();
  config.hotplug = hotplug_tree();
  config.numa = {.node_of_cpu = std::vector<uint32_t>(config.cpu_count, 1),
                 .memory = {{0, 0x8000000, 1}},
                 .distances = {10, 20, 20, 10}};
  if (config.cpu_count == 1) config = {.pci_hole_start = 0xe0000000, .pci_hole_end = 0xfec00000};
  const Tables tables(config);
  const std::string folder =
      ::testing::TempDir() + "kite_acpi_" + std::to_string(::getpid()) + "_" + std::to_string(config.cpu_count);
  ASSERT_EQ(std::system(("mkdir -p " + folder).c_str()), 0);
  const auto check = [&](const std::string& name, std::span<const uint8_t> table) {
    const std::string base = folder + "/" + name;
    std::FILE* const file = std::fopen((base + ".aml").c_str(), "wb");
    ASSERT_NE(file, nullptr);
    std::fwrite(table.data(), 1, table.size(), file);
    std::fclose(file);
    const std::string quiet = " >" + base + ".log 2>&1";
    EXPECT_EQ(std::system(("iasl -d " + base + ".aml" + quiet).c_str()), 0) << name;
    EXPECT_NE(std::system(("grep -Ei 'error|warning|unknown|invalid' " + base + ".log").c_str()), 0) << name;
    EXPECT_EQ(std::system(("iasl -we -p " + base + ".again " + base + ".dsl" + quiet).c_str()), 0)
        << std::system(("cat " + base + ".log").c_str());
  };
  check("dsdt", tables.dsdt());
  check("facp", tables.find("FACP"));
  check("apic", tables.find("APIC"));
  if (config.hpet) check("hpet", tables.find("HPET"));
  if (!config.numa.distances.empty()) check("srat", tables.find("SRAT"));
  if (!config.numa.distances.empty()) check("slit", tables.find("SLIT"));
  EXPECT_EQ(std::system(("rm -rf " + folder).c_str()), 0);
}

INSTANTIATE_TEST_SUITE_P(Processors, AcpiReference, ::testing::Values(1, 4, 300));

}  // namespace
}  // namespace kite::boot
