#include "machine/pc/pc_board.h"

#include "devices/acpi_pci_hotplug/acpi_pci_hotplug_regs.h"
#include "devices/piix4_pm/piix4_pm_regs.h"

namespace kite::machine {

namespace {

constexpr uint8_t kPirqIrqs[4] = {10, 10, 11, 11};  // PIRQA..D
constexpr uint8_t kSciIrq = 9;
constexpr uint8_t kPmBaseRegister = 0x40;

// [440FX] 3.2.19: two bits a segment, 1 read enable, 2 write enable.
constexpr uint8_t kPam0 = 0x59, kPamCount = 7;
constexpr uint8_t kPamReadWrite = 0x33, kPamReadOnly = 0x11;

}  // namespace

PcBoard::PcBoard(BoardContext context)
    : PcChassis(std::move(context), {.most_low = 0xe0000000, .split_low = 0xc0000000}) {}

Result<std::unique_ptr<Board>> PcBoard::create(BoardContext context) {
  std::unique_ptr<PcBoard> board(new PcBoard(std::move(context)));
  KITE_TRY(board->build());
  return board;
}

Result<> PcBoard::add_chipset() {
  std::array<bus::IrqLine, 16> isa_lines;
  for (uint32_t irq = 0; irq < 16; ++irq) isa_lines[irq] = {*gsi_, irq};
  piix3_ = std::make_unique<devices::Piix3>(
      "piix3", devices::Piix3::Wiring{.isa_irqs = isa_lines, .reset = [this](devices::ResetKind kind) {
                                        if (kind == devices::ResetKind::kHard)
                                          hard_reset();
                                        else
                                          soft_reset();
                                      }});
  pci_ = std::make_unique<bus::PciBus>(*pci_memory_, context_.ports.root(), *piix3_,
                                       bus::PciBus::Config{.name = "pci.0", .msi = apic_bus_.get()});
  host_bridge_ = std::make_unique<devices::I440fx>(
      "i440fx", devices::I440fx::Config{.cpu_count = context_.config.cpu_count, .smm = context_.smm},
      devices::I440fx::Wiring{.system_memory = context_.memory.root(),
                              .ram = ram_,
                              .pci = pci_memory_,
                              .bus = *pci_,
                              .reset_control = piix3_->reset_control()});
  devices::Piix4Pm::Wiring power{.clock = context_.clock,
                                 .sci = piix3_->isa_source(9),
                                 .ports = context_.ports.root(),
                                 .sleep = [this](uint8_t type) { sleep(type); }};
  if (context_.smm) power.smi = [this] { smi(false); };
  KITE_ASSIGN(const PropertyMap pm, context_.types.resolve({.type = "PIIX4_PM", .id = "", .values = {}}, ""));
  offer_sleep(pm);
  pm_ = std::make_unique<devices::Piix4Pm>("piix4-pm", std::move(power));
  namespace hotplug_regs = devices::acpi_pci_hotplug_regs;
  hotplug_ = std::make_unique<devices::AcpiPciHotplug>("acpi-pci-hotplug",
                                                       hotplug_wiring([this] { pm_->raise_gpe(hotplug_regs::kGpe); }));
  KITE_TRY(pci_->attach(*host_bridge_, 0, 0));
  KITE_TRY(pci_->attach(*piix3_, 1, 0));
  KITE_TRY(pci_->attach(*pm_, 1, 3));
  map_port(0xcf8, host_bridge_->config_ports());
  map_port(0xafe0, pm_->gpe_region());
  map_port(0xb2, pm_->apm_region());
  map_port(hotplug_regs::kPort, hotplug_->region());
  return {};
}

Result<> PcBoard::add_disk_controllers() {
  KITE_TRY(add_board_device("piix3-ide", {{"addr", "1.1"}}));
  return add_board_device("isa-fdc", {});
}

void PcBoard::open_shadow_ram(bool writable) {
  for (uint8_t pam = 0; pam < kPamCount; ++pam)
    host_bridge_->config_write(static_cast<uint8_t>(kPam0 + pam), 1, writable ? kPamReadWrite : kPamReadOnly);
}

// The power management function's INTA is wired to the SCI.
uint8_t PcBoard::isa_irq_of(uint8_t slot, uint8_t pin) const {
  return slot == 1 && pin == 1 ? kSciIrq : kPirqIrqs[bus::PciBus::pirq_of(slot, pin)];
}

uint16_t PcBoard::program_chipset() {
  uint16_t level = 1u << kSciIrq;
  for (uint8_t pirq = 0; pirq < 4; ++pirq) {
    piix3_->config_write(static_cast<uint8_t>(0x60 + pirq), 1, kPirqIrqs[pirq]);
    level = static_cast<uint16_t>(level | 1u << kPirqIrqs[pirq]);
  }
  // Power management at kPmBase; ACPI is always on, as there is no SMM to switch it.
  pm_->config_write(kPmBaseRegister, 4, kPmBase | 1);
  pm_->config_write(0x80, 1, 1);
  context_.ports.commit();
  context_.ports.write(kPmBase + 4, 2, 1);  // PM1 control: SCI_EN
  return level;
}

void PcBoard::describe(boot::AcpiConfig& config) const {
  // Where firmware has put it; the usual place before.
  const auto base = static_cast<uint16_t>(pm_->config_read(kPmBaseRegister, 2) & 0xffc0);
  config.pm_base = base != 0 ? base : kPmBase;
  config.sci_irq = kSciIrq;
  config.suspend_to_ram = !no_s3_;
  config.suspend_to_disk = !no_s4_;
  config.hotplug = hotplug_tree();
  config.acpi_enable = devices::piix4_pm_regs::kApmAcpiEnable;
  config.acpi_disable = devices::piix4_pm_regs::kApmAcpiDisable;
}

}  // namespace kite::machine
