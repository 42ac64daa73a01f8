#include "boot/acpi.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <numeric>
#include <span>
#include <string_view>
#include <type_traits>

#include "boot/dsdt.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::boot {
namespace {

constexpr uint32_t kLocalApicBase = 0xfee00000, kIoApicBase = 0xfec00000;
constexpr uint16_t kGpeBase = 0xafe0;
constexpr uint16_t kResetPort = 0xcf9;  // [PIIX3] 2.5.4.1
constexpr uint8_t kResetValue = 0x06;
constexpr size_t kChecksumOffset = 9, kLengthOffset = 4;

uint8_t checksum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0));
}

// A table under construction: bytes appended in the order of the specification.
class Table {
 public:
  // [ACPI 6.4] 5.2.6: the header all tables share.
  Table(std::string_view signature, uint8_t revision) {
    text(signature, 4).value<uint32_t>(0).value<uint8_t>(revision).value<uint8_t>(0);
    text("KITE", 6).text("KITEPC", 8).value<uint32_t>(1).text("KITE", 4).value<uint32_t>(1);
  }

  template <class T>
  Table& value(std::type_identity_t<T> value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    store<T>(&bytes_[at], value);
    return *this;
  }
  Table& text(std::string_view text, size_t width) {
    for (size_t i = 0; i < width; ++i) bytes_.push_back(static_cast<uint8_t>(i < text.size() ? text[i] : ' '));
    return *this;
  }
  Table& zeros(size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  Table& append(std::span<const uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  // [ACPI 6.4] 5.2.3.2: Generic Address Structure. `access`: 1 byte, 2 word, 3 dword.
  Table& port(uint64_t address, uint8_t bits, uint8_t access) {
    constexpr uint8_t kSystemIo = 1;
    return value<uint8_t>(kSystemIo).value<uint8_t>(bits).value<uint8_t>(0).value<uint8_t>(access).value<uint64_t>(
        address);
  }
  Table& no_address() { return zeros(12); }

  [[nodiscard]] std::vector<uint8_t> finish() {
    store(&bytes_[kLengthOffset], static_cast<uint32_t>(bytes_.size()));
    bytes_[kChecksumOffset] = checksum(bytes_);
    return std::move(bytes_);
  }

 private:
  std::vector<uint8_t> bytes_;
};

// [ACPI 6.4] 5.2.10. No header of the common kind, no checksum.
std::vector<uint8_t> build_facs() {
  constexpr uint8_t kVersion = 2;
  std::vector<uint8_t> facs(64);
  std::ranges::copy(std::string_view("FACS"), facs.begin());
  store(&facs[4], static_cast<uint32_t>(facs.size()));
  facs[32] = kVersion;
  return facs;
}

// [ACPI 6.4] 5.2.9, as revision 3 had it (244 bytes).
std::vector<uint8_t> build_fadt(const AcpiConfig& config, uint32_t facs, uint32_t dsdt) {
  constexpr uint8_t kDesktop = 1, kCenturyRegister = 0x32;
  constexpr uint16_t kNoSuchState = 0xffff;  // C2 and C3 latencies beyond what the specification allows
  // IA-PC boot flags [ACPI 6.4] table 5.11
  constexpr uint16_t kLegacyDevices = 1u << 0, k8042 = 1u << 1, kNoVga = 1u << 2;
  // Fixed feature flags [ACPI 6.4] table 5.10. The power button is a fixed feature (its flag is clear), there is no
  // sleep button, the timer has 24 bits.
  constexpr uint32_t kWbinvd = 1u << 0, kProcC1 = 1u << 2, kSleepButtonNotFixed = 1u << 5, kResetSupported = 1u << 10;
  const uint16_t pm = config.pm_base;
  const auto boot_flags = static_cast<uint16_t>(kLegacyDevices | k8042 | (config.vga ? 0 : kNoVga));

  Table fadt("FACP", 3);
  fadt.value<uint32_t>(facs).value<uint32_t>(dsdt).value<uint8_t>(0).value<uint8_t>(kDesktop);
  fadt.value<uint16_t>(config.sci_irq);
  fadt.value<uint32_t>(0).zeros(4);             // SMI_CMD and its values: no SMM, the machine is always in ACPI mode
  fadt.value<uint32_t>(pm).value<uint32_t>(0);  // PM1a, PM1b events
  fadt.value<uint32_t>(pm + 4u).value<uint32_t>(0);   // PM1a, PM1b control
  fadt.value<uint32_t>(0).value<uint32_t>(pm + 8u);   // PM2 control, PM timer
  fadt.value<uint32_t>(kGpeBase).value<uint32_t>(0);  // GPE0, GPE1
  for (const uint8_t length : std::array<uint8_t, 6>{4, 2, 0, 4, 4, 0})
    fadt.value<uint8_t>(length);             // of the same, in this order
  fadt.value<uint8_t>(0).value<uint8_t>(0);  // GPE1 base, C-state control
  fadt.value<uint16_t>(kNoSuchState).value<uint16_t>(kNoSuchState);
  fadt.zeros(4).zeros(2);  // cache flush and duty cycle: not needed, not there
  fadt.value<uint8_t>(0).value<uint8_t>(0).value<uint8_t>(kCenturyRegister);  // RTC day and month alarm, century
  fadt.value<uint16_t>(boot_flags).value<uint8_t>(0);
  fadt.value<uint32_t>(kWbinvd | kProcC1 | kSleepButtonNotFixed | kResetSupported);
  fadt.port(kResetPort, 8, 1).value<uint8_t>(kResetValue).zeros(3);
  // 64-bit addresses. The FACS has only one of its two set, as 5.2.9 asks.
  fadt.value<uint64_t>(0).value<uint64_t>(dsdt);
  fadt.port(pm, 32, 2).no_address().port(pm + 4u, 16, 2).no_address();
  fadt.no_address().port(pm + 8u, 32, 3).port(kGpeBase, 32, 1).no_address();
  return fadt.finish();
}

// [ACPI 6.4] 5.2.12.
std::vector<uint8_t> build_madt(const AcpiConfig& config) {
  constexpr uint32_t kPcatCompatible = 1, kEnabled = 1;
  constexpr uint16_t kConforming = 0x0, kActiveHighLevel = 0x0d;
  constexpr uint32_t kMostApicIds = 255;  // 8-bit ids; beyond them x2APIC entries
  Table madt("APIC", 3);
  madt.value<uint32_t>(kLocalApicBase).value<uint32_t>(kPcatCompatible);
  for (uint32_t id = 0; id < config.cpu_count; ++id) {
    if (id < kMostApicIds)
      madt.value<uint8_t>(0)
          .value<uint8_t>(8)
          .value<uint8_t>(static_cast<uint8_t>(id))
          .value<uint8_t>(static_cast<uint8_t>(id))
          .value<uint32_t>(kEnabled);
    else
      madt.value<uint8_t>(9)
          .value<uint8_t>(16)
          .value<uint16_t>(0)
          .value<uint32_t>(id)
          .value<uint32_t>(kEnabled)
          .value<uint32_t>(id);
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
  return madt.finish();
}

// [IA-PC HPET 1.0a] 3.2.4.
std::vector<uint8_t> build_hpet() {
  constexpr uint32_t kBlockId = 0x8086a201;  // three 64-bit comparators, legacy replacement, revision 1
  constexpr uint16_t kLeastTick = 100;
  Table hpet("HPET", 1);
  hpet.value<uint32_t>(kBlockId);
  hpet.value<uint8_t>(0).value<uint8_t>(0).value<uint8_t>(0).value<uint8_t>(0).value<uint64_t>(kHpetBase);
  hpet.value<uint8_t>(0).value<uint16_t>(kLeastTick).value<uint8_t>(0);
  return hpet.finish();
}

// [ACPI 6.4] 5.2.5.3.
std::vector<uint8_t> build_rsdp(uint32_t rsdt, uint64_t xsdt) {
  constexpr size_t kFirstPart = 20, kFirstChecksum = 8, kSecondChecksum = 32;
  std::vector<uint8_t> rsdp(36);
  std::ranges::copy(std::string_view("RSD PTR "), rsdp.begin());
  std::ranges::copy(std::string_view("KITE  "), rsdp.begin() + 9);
  rsdp[15] = 2;  // revision
  store(&rsdp[16], rsdt);
  store(&rsdp[20], static_cast<uint32_t>(rsdp.size()));
  store(&rsdp[24], xsdt);
  rsdp[kFirstChecksum] = checksum(std::span(rsdp).first(kFirstPart));
  rsdp[kSecondChecksum] = checksum(rsdp);
  return rsdp;
}

template <class Pointer>
std::vector<uint8_t> build_root(std::string_view signature, const std::vector<uint32_t>& tables) {
  Table root(signature, 1);
  for (const uint32_t table : tables) root.value<Pointer>(table);
  return root.finish();
}

}  // namespace

AcpiTables build_acpi(const AcpiConfig& config, uint64_t address) {
  assert(config.cpu_count >= 1 && config.cpu_count <= kMostCpus);
  AcpiTables result;
  const auto place = [&](std::vector<uint8_t> table, uint64_t alignment = 16) {
    const uint64_t at = align_up(address + result.blob.size(), alignment);
    result.blob.resize(at - address);
    result.blob.insert(result.blob.end(), table.begin(), table.end());
    return static_cast<uint32_t>(at);
  };
  const uint32_t facs = place(build_facs(), 64);
  Table dsdt("DSDT", 2);
  const uint32_t dsdt_address = place(dsdt.append(build_dsdt_code(config)).finish());
  std::vector<uint32_t> tables = {place(build_fadt(config, facs, dsdt_address)), place(build_madt(config))};
  if (config.hpet) tables.push_back(place(build_hpet()));
  const uint32_t rsdt = place(build_root<uint32_t>("RSDT", tables));
  const uint32_t xsdt = place(build_root<uint64_t>("XSDT", tables));
  result.rsdp = build_rsdp(rsdt, xsdt);
  return result;
}

}  // namespace kite::boot
