#include "boot/acpi.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <numeric>
#include <span>
#include <string_view>
#include <type_traits>

#include "boot/acpi_table.h"
#include "boot/dsdt.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::boot {
namespace {

constexpr uint32_t kLocalApicBase = 0xfee00000, kIoApicBase = 0xfec00000;
constexpr uint32_t kMostApicIds = 255;  // 8-bit ids; beyond them x2APIC entries
// General purpose event blocks: [PIIX4] apart from the others, [ICH9] 13.8.3.9 behind them.
struct GpeBlock {
  uint16_t base;
  uint8_t bytes;  // status and enable together
};
GpeBlock gpe_block(const AcpiConfig& config) {
  if (config.chipset == AcpiChipset::kIch9) return {static_cast<uint16_t>(config.pm_base + 0x20), 16};
  return {0xafe0, 4};
}
constexpr uint16_t kApmCommandPort = 0xb2;
constexpr uint16_t kResetPort = 0xcf9;  // [PIIX3] 2.5.4.1
constexpr uint8_t kResetValue = 0x06;

// [ACPI 6.4] 5.2.9, as revision 3 had it (244 bytes).
AcpiTable build_fadt(const AcpiConfig& config, uint32_t facs, uint32_t dsdt) {
  constexpr uint8_t kDesktop = 1, kCenturyRegister = 0x32;
  constexpr uint16_t kNoSuchState = 0xffff;  // C2 and C3 latencies beyond what the specification allows
  // IA-PC boot flags [ACPI 6.4] table 5.11
  constexpr uint16_t kLegacyDevices = 1u << 0, k8042 = 1u << 1, kNoVga = 1u << 2;
  // Fixed feature flags [ACPI 6.4] table 5.10. The power button is a fixed feature (its flag is clear), there is no
  // sleep button, the timer has 24 bits.
  constexpr uint32_t kWbinvd = 1u << 0, kProcC1 = 1u << 2, kSleepButtonNotFixed = 1u << 5, kResetSupported = 1u << 10;
  const uint16_t pm = config.pm_base;
  const GpeBlock gpe = gpe_block(config);
  const auto boot_flags = static_cast<uint16_t>(kLegacyDevices | k8042 | (config.vga ? 0 : kNoVga));

  AcpiTable fadt("FACP", 3);
  fadt.pointer<uint32_t>(facs).pointer<uint32_t>(dsdt).value<uint8_t>(0).value<uint8_t>(kDesktop);
  fadt.value<uint16_t>(config.sci_irq);
  const bool switched = config.acpi_enable != 0 || config.acpi_disable != 0;
  fadt.value<uint32_t>(switched ? kApmCommandPort : 0);
  fadt.value<uint8_t>(config.acpi_enable).value<uint8_t>(config.acpi_disable).zeros(2);  // no S4BIOS, no P-states
  fadt.value<uint32_t>(pm).value<uint32_t>(0);                                           // PM1a, PM1b events
  fadt.value<uint32_t>(pm + 4u).value<uint32_t>(0);                                      // PM1a, PM1b control
  fadt.value<uint32_t>(0).value<uint32_t>(pm + 8u);                                      // PM2 control, PM timer
  fadt.value<uint32_t>(gpe.base).value<uint32_t>(0);                                     // GPE0, GPE1
  for (const uint8_t length : std::array<uint8_t, 6>{4, 2, 0, 4, gpe.bytes, 0})
    fadt.value<uint8_t>(length);             // of the same, in this order
  fadt.value<uint8_t>(0).value<uint8_t>(0);  // GPE1 base, C-state control
  fadt.value<uint16_t>(kNoSuchState).value<uint16_t>(kNoSuchState);
  fadt.zeros(4).zeros(2);  // cache flush and duty cycle: not needed, not there
  fadt.value<uint8_t>(0).value<uint8_t>(0).value<uint8_t>(kCenturyRegister);  // RTC day and month alarm, century
  fadt.value<uint16_t>(boot_flags).value<uint8_t>(0);
  fadt.value<uint32_t>(kWbinvd | kProcC1 | kSleepButtonNotFixed | kResetSupported);
  fadt.port(kResetPort, 8, 1).value<uint8_t>(kResetValue).zeros(3);
  // 64-bit addresses. The FACS has only one of its two set, as 5.2.9 asks.
  fadt.value<uint64_t>(0).pointer<uint64_t>(dsdt);
  fadt.port(pm, 32, 2).no_address().port(pm + 4u, 16, 2).no_address();
  fadt.no_address().port(pm + 8u, 32, 3).port(gpe.base, static_cast<uint8_t>(8 * gpe.bytes), 1).no_address();
  return fadt;
}

// [ACPI 6.4] 5.2.12.
AcpiTable build_madt(const AcpiConfig& config) {
  constexpr uint32_t kPcatCompatible = 1, kEnabled = 1;
  constexpr uint16_t kConforming = 0x0, kActiveHighLevel = 0x0d;
  AcpiTable madt("APIC", 3);
  madt.value<uint32_t>(kLocalApicBase).value<uint32_t>(kPcatCompatible);
  for (uint32_t index = 0; index < config.cpu_count; ++index) {
    const uint32_t id = config.topology.apic_id(index);
    if (id < kMostApicIds)
      madt.value<uint8_t>(0)
          .value<uint8_t>(8)
          .value<uint8_t>(static_cast<uint8_t>(index))
          .value<uint8_t>(static_cast<uint8_t>(id))
          .value<uint32_t>(kEnabled);
    else
      madt.value<uint8_t>(9)
          .value<uint8_t>(16)
          .value<uint16_t>(0)
          .value<uint32_t>(id)
          .value<uint32_t>(kEnabled)
          .value<uint32_t>(index);
  }
  madt.value<uint8_t>(1).value<uint8_t>(12).value<uint8_t>(0).value<uint8_t>(0);  // I/O APIC 0, GSIs from 0
  madt.value<uint32_t>(kIoApicBase).value<uint32_t>(0);
  const auto override_source = [&madt](uint8_t irq, uint32_t gsi, uint16_t flags) {
    madt.value<uint8_t>(2).value<uint8_t>(10).value<uint8_t>(0).value<uint8_t>(irq);
    madt.value<uint32_t>(gsi).value<uint16_t>(flags);
  };
  override_source(0, 2, kConforming);  // the timer is wired to input 2
  for (uint8_t irq = 3; irq < 16;
       ++irq)  // PIRQ targets and the SCI are level-triggered and, on this board, active high
    if (irq == 5 || irq == 10 || irq == 11 || irq == config.sci_irq) override_source(irq, irq, kActiveHighLevel);
  madt.value<uint8_t>(4).value<uint8_t>(6).value<uint8_t>(0xff).value<uint16_t>(kConforming).value<uint8_t>(1);
  if (config.cpu_count > kMostApicIds)  // the same for x2APIC processors
    madt.value<uint8_t>(10)
        .value<uint8_t>(12)
        .value<uint16_t>(kConforming)
        .value<uint32_t>(UINT32_MAX)
        .value<uint8_t>(1)
        .zeros(3);
  return madt;
}

// [IA-PC HPET 1.0a] 3.2.4.
AcpiTable build_hpet() {
  constexpr uint32_t kBlockId = 0x8086a201;  // three 64-bit comparators, legacy replacement, revision 1
  constexpr uint16_t kLeastTick = 100;
  AcpiTable hpet("HPET", 1);
  hpet.value<uint32_t>(kBlockId);
  hpet.value<uint8_t>(0).value<uint8_t>(0).value<uint8_t>(0).value<uint8_t>(0).value<uint64_t>(kHpetBase);
  hpet.value<uint8_t>(0).value<uint16_t>(kLeastTick).value<uint8_t>(0);
  return hpet;
}

// [PCI firmware 3.0] 4.1.2.
AcpiTable build_mcfg(const AcpiConfig& config) {
  AcpiTable mcfg("MCFG", 1);
  mcfg.zeros(8).value<uint64_t>(config.ecam_base).value<uint16_t>(0).value<uint8_t>(0);
  mcfg.value<uint8_t>(static_cast<uint8_t>((config.ecam_bytes >> 20) - 1)).zeros(4);
  return mcfg;
}

// [ACPI 6.4] 5.2.16.
AcpiTable build_srat(const AcpiConfig& config) {
  constexpr uint32_t kEnabled = 1;
  const auto low = [](uint64_t value) { return static_cast<uint32_t>(value); };
  const auto high = [](uint64_t value) { return static_cast<uint32_t>(value >> 32); };
  AcpiTable srat("SRAT", 3);
  srat.value<uint32_t>(1).zeros(8);
  for (uint32_t index = 0; index < config.cpu_count; ++index) {
    const uint32_t id = config.topology.apic_id(index), node = config.numa.node_of_cpu[index];
    if (id < kMostApicIds) {
      srat.value<uint8_t>(0).value<uint8_t>(16).value<uint8_t>(static_cast<uint8_t>(node));
      srat.value<uint8_t>(static_cast<uint8_t>(id)).value<uint32_t>(kEnabled).zeros(1);
      srat.value<uint16_t>(static_cast<uint16_t>(node >> 8)).value<uint8_t>(static_cast<uint8_t>(node >> 24)).zeros(4);
    } else {
      srat.value<uint8_t>(2).value<uint8_t>(24).zeros(2).value<uint32_t>(node).value<uint32_t>(id);
      srat.value<uint32_t>(kEnabled).zeros(8);
    }
  }
  for (const AcpiNuma::Memory& memory : config.numa.memory) {
    srat.value<uint8_t>(1).value<uint8_t>(40).value<uint32_t>(memory.node).zeros(2);
    srat.value<uint32_t>(low(memory.base)).value<uint32_t>(high(memory.base));
    srat.value<uint32_t>(low(memory.bytes)).value<uint32_t>(high(memory.bytes));
    srat.zeros(4).value<uint32_t>(kEnabled).zeros(8);
  }
  return srat;
}

// [ACPI 6.4] 5.2.17.
AcpiTable build_slit(const AcpiNuma& numa) {
  uint64_t nodes = 1;
  while (nodes * nodes < numa.distances.size()) ++nodes;
  AcpiTable slit("SLIT", 1);
  slit.value<uint64_t>(nodes).append(numa.distances);
  return slit;
}

}  // namespace

AcpiTables build_acpi(const AcpiConfig& config) {
  assert(config.cpu_count >= 1 && config.cpu_count <= kMostCpus);
  AcpiSet set;
  const uint32_t facs = set.add_facs();
  AcpiTable dsdt("DSDT", 2);
  dsdt.append(build_dsdt_code(config));
  const uint32_t dsdt_at = set.add(std::move(dsdt));
  std::vector<uint32_t> tables = {set.add(build_fadt(config, facs, dsdt_at)), set.add(build_madt(config))};
  if (config.hpet) tables.push_back(set.add(build_hpet()));
  if (config.ecam_bytes != 0) tables.push_back(set.add(build_mcfg(config)));
  if (!config.numa.distances.empty()) {
    tables.push_back(set.add(build_srat(config)));
    tables.push_back(set.add(build_slit(config.numa)));
  }
  for (const std::vector<uint8_t>& table : config.user_tables) tables.push_back(set.add_whole(table));
  return set.finish(tables);
}

Result<> check_acpi_table(const std::vector<uint8_t>& table) {
  constexpr size_t kHeader = 36, kMost = 1 << 20;
  if (table.size() < kHeader || table.size() > kMost)
    return fail("an ACPI table has {} bytes to {} KiB, not {}", kHeader, kMost >> 10, table.size());
  if (const auto length = load<uint32_t>(&table[4]); length != table.size())
    return fail("the ACPI table says that it has {} bytes, but there are {}", length, table.size());
  if (static_cast<uint8_t>(std::accumulate(table.begin(), table.end(), 0)) != 0)
    return fail("the bytes of the ACPI table do not add up to 0: its checksum is wrong");
  return {};
}

}  // namespace kite::boot
