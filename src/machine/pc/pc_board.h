// The PC of 1996: 82441FX host bridge, PIIX3 ISA bridge, PIIX4 power management.
//
// RAM below 4 GiB: up to 3.5 GiB, or 3 GiB where there is more.
#pragma once

#include "devices/i440fx/i440fx.h"
#include "devices/piix3/piix3.h"
#include "devices/piix4_pm/piix4_pm.h"
#include "machine/pc/pc_chassis.h"

namespace kite::machine {

class PcBoard final : public PcChassis {
 public:
  static Result<std::unique_ptr<Board>> create(BoardContext context);

  [[nodiscard]] std::string_view name() const override { return "pc"; }
  [[nodiscard]] std::shared_ptr<Region> smram() override { return context_.smm ? host_bridge_->smram() : nullptr; }

 protected:
  Result<> add_chipset() override;
  Result<> add_disk_controllers() override;
  Result<> add_usb_controllers() override { return add_board_device("piix3-usb-uhci", {{"addr", "1.2"}}); }
  [[nodiscard]] devices::AcpiPciHotplug* pci_hotplug() const override { return hotplug_.get(); }
  [[nodiscard]] std::vector<bus::Device*> chipset() override {
    return {host_bridge_.get(), piix3_.get(), pm_.get(), hotplug_.get()};
  }
  [[nodiscard]] devices::AcpiPm& acpi_pm() override { return pm_->pm(); }
  [[nodiscard]] bus::IrqLine isa_source(uint32_t irq) override { return piix3_->isa_source(irq); }
  void open_shadow_ram(bool writable) override;
  uint16_t program_chipset() override;
  [[nodiscard]] uint8_t isa_irq_of(uint8_t slot, uint8_t pin) const override;
  void describe(boot::AcpiConfig& config) const override;
  [[nodiscard]] std::string product() const override { return "Standard PC (i440FX + PIIX, 1996)"; }
  [[nodiscard]] uint64_t pci_hole_start() const override { return ram_low_ > 0xc0000000 ? 0xe0000000 : 0xc0000000; }

 private:
  static constexpr uint16_t kPmBase = 0x600;

  explicit PcBoard(BoardContext context);

  std::unique_ptr<devices::Piix3> piix3_;
  std::unique_ptr<devices::I440fx> host_bridge_;
  std::unique_ptr<devices::Piix4Pm> pm_;
  std::unique_ptr<devices::AcpiPciHotplug> hotplug_;
};

}  // namespace kite::machine
