#include "machine/q35/q35_board.h"

#include "devices/acpi_cpus/acpi_cpus_regs.h"
#include "devices/acpi_pm/acpi_pm_regs.h"
#include "devices/ich9/ich9_lpc_regs.h"
#include "devices/mch/mch_regs.h"
#include "machine/board_versions.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::machine {

namespace {

constexpr uint8_t kPirqIrqs[4] = {10, 10, 11, 11};  // PIRQA..D, and again PIRQE..H
constexpr uint8_t kSciIrq = 9;
constexpr uint8_t kPamReadWrite = 0x33, kPamReadOnly = 0x11;

}  // namespace

Q35Board::Q35Board(BoardContext context)
    : PcChassis(std::move(context), {.most_low = kEcamBase, .split_low = 0x80000000}) {}

Result<std::unique_ptr<Board>> Q35Board::create(BoardContext context) {
  std::unique_ptr<Q35Board> board(new Q35Board(std::move(context)));
  KITE_TRY(board->build());
  return board;
}

Result<> Q35Board::add_chipset() {
  KITE_ASSIGN(const PropertyMap mch, context_.types.resolve({.type = "mch", .id = "", .values = {}}, ""));
  KITE_ASSIGN(const PropertyMap lpc, context_.types.resolve({.type = "ICH9-LPC", .id = "", .values = {}}, ""));
  offer_sleep(lpc);
  const auto reset = [this](devices::ResetKind kind) {
    if (kind == devices::ResetKind::kHard)
      hard_reset();
    else
      soft_reset();
  };
  devices::Ich9Lpc::Wiring wiring{.clock = context_.clock,
                                  .ports = context_.ports.root(),
                                  .memory = context_.memory.root(),
                                  .gsis = {},
                                  .reset = reset,
                                  .sleep = [this](uint8_t type) { sleep(type); },
                                  .smi = [this](bool all) { smi(all); },
                                  .watchdog = context_.requests.watchdog};
  for (uint32_t gsi = 0; gsi < devices::Ich9Lpc::kGsis; ++gsi) wiring.gsis[gsi] = {*gsi_, gsi};
  lpc_ = std::make_unique<devices::Ich9Lpc>(
      "ich9-lpc", devices::Ich9Lpc::Config{.no_reboot = lpc.boolean("noreboot"), .smm = context_.smm},
      std::move(wiring));
  pci_ = std::make_unique<bus::PciBus>(
      *pci_memory_, context_.ports.root(), *lpc_,
      bus::PciBus::Config{
          .name = "pcie.0", .express = true, .msi = apic_bus_.get(), .line_of = &bus::PciBus::line_of_slot});
  mch_ = std::make_unique<devices::Mch>(
      "mch",
      devices::Mch::Config{.ram_below_4g = ram_low_,
                           .extended_tseg_mbytes = static_cast<uint16_t>(mch.integer("extended-tseg-mbytes")),
                           .smram_at_smbase = version_has(context_.config.board, BoardFeature::kSmramAtSmbase)},
      devices::Mch::Wiring{.system_memory = context_.memory.root(),
                           .ram = ram_,
                           .pci = pci_memory_,
                           .bus = *pci_,
                           .reset_control = lpc_->reset_control()});
  KITE_TRY(pci_->attach(*mch_, 0, 0));
  smbus_ = std::make_unique<devices::Ich9Smbus>(
      "ich9-smbus", std::vector<devices::Ich9Smbus::Eeprom>(devices::Ich9Smbus::kMostEeproms));
  KITE_TRY(pci_->attach(*lpc_, 31, 0));
  KITE_TRY(pci_->attach(*smbus_, 31, 3));
  std::vector<devices::AcpiCpus::Processor> processors;
  for (uint32_t index = 0; index < context_.config.max_cpus; ++index)
    processors.push_back(
        {.apic_id = context_.config.topology.apic_id(index), .enabled = index < context_.config.cpu_count});
  cpus_ = std::make_unique<devices::AcpiCpus>("acpi-cpus", std::move(processors));
  map_port(devices::acpi_cpus_regs::kIch9Port, cpus_->region());
  map_port(0xcf8, mch_->config_ports());
  map_port(devices::ich9_lpc_regs::kApmPort, lpc_->apm_region());
  return {};
}

Result<> Q35Board::add_disk_controllers() {
  KITE_TRY(add_board_device("ich9-ahci", {{"addr", "1f.2"}}));
  // A floppy controller only where somebody has a floppy.
  return has_floppy_drive() ? add_board_device("isa-fdc", {}) : Result<>{};
}

Result<> Q35Board::add_usb_controllers() {
  KITE_TRY(add_board_device("ich9-usb-uhci1", {{"addr", "1d.0"}, {"multifunction", "on"}}));
  KITE_TRY(add_board_device("ich9-usb-uhci2", {{"addr", "1d.1"}}));
  return add_board_device("ich9-usb-uhci3", {{"addr", "1d.2"}});
}

std::vector<bus::Device*> Q35Board::chipset() { return {mch_.get(), lpc_.get(), smbus_.get(), cpus_.get()}; }

// What firmware may ask for, what it asks for, and whether it gets that: the last is answered when it is read.
Result<> Q35Board::add_firmware_files(devices::FwCfg& fw_cfg) {
  if (!context_.smm) return {};
  constexpr std::string_view kAsked = "etc/smi/requested-features", kGranted = "etc/smi/features-ok";
  const auto bytes_of = [](uint64_t value) {
    std::vector<uint8_t> bytes(sizeof value);
    store(bytes.data(), value);
    return bytes;
  };
  KITE_TRY(fw_cfg.add_file("etc/smi/supported-features", bytes_of(devices::Ich9Lpc::kSmiFeatures)));
  KITE_TRY(fw_cfg.add_file(std::string(kAsked), bytes_of(0), devices::FwCfg::FileAccess::kWritable));
  KITE_TRY(fw_cfg.add_file(std::string(kGranted), {0}));
  fw_cfg.refresh_file(kGranted, [this, &fw_cfg, kAsked]() -> std::vector<uint8_t> {
    return {lpc_->take_smi_features(load<uint64_t>(fw_cfg.file_while_refreshing(kAsked).data()))};
  });
  return {};
}

void Q35Board::open_shadow_ram(bool writable) {
  for (unsigned pam = 0; pam < devices::ShadowRam::kRegisters; ++pam)
    mch_->config_write(static_cast<uint16_t>(devices::mch_regs::kPam0 + pam), 1,
                       writable ? kPamReadWrite : kPamReadOnly);
}

uint8_t Q35Board::isa_irq_of(uint8_t slot, uint8_t pin) const { return kPirqIrqs[lpc_->pirq_of(slot, pin) % 4]; }

uint16_t Q35Board::program_chipset() {
  using namespace devices::ich9_lpc_regs;
  uint16_t level = 1u << kSciIrq;
  for (uint8_t pirq = 0; pirq < 4; ++pirq) {
    lpc_->config_write(static_cast<uint16_t>(kPirqaRout + pirq), 1, kPirqIrqs[pirq]);
    lpc_->config_write(static_cast<uint16_t>(kPirqeRout + pirq), 1, kPirqIrqs[pirq]);
    level = static_cast<uint16_t>(level | 1u << kPirqIrqs[pirq]);
  }
  lpc_->config_write(kPmbase, 4, kPmBase | 1);
  lpc_->config_write(kAcpiCntl, 1, kAcpiEnable);
  lpc_->config_write(devices::ich9_lpc_regs::kRcba, 4, kRcba | kRcbaEnable);
  mch_->config_write(devices::mch_regs::kPciexbar, 4, static_cast<uint32_t>(kEcamBase) | 1);
  // ACPI is always on, as there is no SMM to switch it.
  lpc_->pm().set_sci_enabled(true);
  return level;
}

void Q35Board::describe(boot::AcpiConfig& config) const {
  using namespace devices::ich9_lpc_regs;
  // Where firmware has put things; the usual place before.
  const uint32_t base = lpc_->config_read(kPmbase, 2) & kPmbaseAddress;
  const uint64_t ecam = mch_->config_read(devices::mch_regs::kPciexbar, 4);
  const uint64_t ecam_base = ecam & 0xf0000000;
  const bool ecam_on = (ecam & 1) != 0 && ecam_base >= ram_low_ && ecam_base + kEcamBytes <= kIoApicBase;
  config.chipset = boot::AcpiChipset::kIch9;
  config.pm_base = base != 0 ? static_cast<uint16_t>(base) : kPmBase;
  config.suspend_to_ram = !no_s3_;
  config.suspend_to_disk = !no_s4_;
  config.sci_irq = kSciIrq;
  config.acpi_enable = kApmAcpiEnable;
  config.acpi_disable = kApmAcpiDisable;
  config.ecam_base = ecam_on ? ecam_base : kEcamBase;
  config.ecam_bytes = kEcamBytes;
}

std::vector<boot::E820Entry> Q35Board::reserved_ranges() const {
  if (system_rom_->starts()) return {};  // firmware tells of what it has placed
  return {{.base = kEcamBase, .size = kEcamBytes, .type = boot::E820Type::kReserved},
          {.base = kRcba, .size = devices::ich9_lpc_regs::kRcrbSize, .type = boot::E820Type::kReserved}};
}

}  // namespace kite::machine
