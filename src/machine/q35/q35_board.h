// The PC of 2009: Q35 memory controller hub and ICH9, with PCI Express.
//
// RAM below 4 GiB: up to 2.75 GiB, or 2 GiB where there is more. 00.0 host bridge, 1f.0 LPC bridge, 1f.3 SMBus; 1f.2,
// where the chip has its SATA controller, is empty. PCI Express configuration space is where firmware puts it; without
// firmware at 0xb0000000.
#pragma once

#include "devices/acpi_cpus/acpi_cpus.h"
#include "devices/ich9/ich9_lpc.h"
#include "devices/ich9/ich9_smbus.h"
#include "devices/mch/mch.h"
#include "machine/pc/pc_chassis.h"

namespace kite::machine {

class Q35Board final : public PcChassis {
 public:
  static Result<std::unique_ptr<Board>> create(BoardContext context);

  [[nodiscard]] std::string_view name() const override { return "q35"; }
  [[nodiscard]] std::shared_ptr<Region> smram() override { return context_.smm ? mch_->smram() : nullptr; }

 protected:
  Result<> add_chipset() override;
  Result<> add_disk_controllers() override;
  Result<> add_usb_controllers() override;
  [[nodiscard]] std::vector<bus::Device*> chipset() override;
  Result<> add_firmware_files(devices::FwCfg& fw_cfg) override;
  [[nodiscard]] devices::AcpiPm& acpi_pm() override { return lpc_->pm(); }
  [[nodiscard]] bus::IrqLine isa_source(uint32_t irq) override { return lpc_->isa_source(irq); }
  void open_shadow_ram(bool writable) override;
  uint16_t program_chipset() override;
  [[nodiscard]] uint8_t isa_irq_of(uint8_t slot, uint8_t pin) const override;
  void describe(boot::AcpiConfig& config) const override;
  [[nodiscard]] uint64_t pci_hole_start() const override { return kPciHoleStart; }
  [[nodiscard]] std::string product() const override { return "Standard PC (Q35 + ICH9, 2009)"; }
  [[nodiscard]] std::vector<boot::E820Entry> reserved_ranges() const override;

 private:
  static constexpr uint16_t kPmBase = 0x600;
  static constexpr uint64_t kEcamBase = 0xb0000000, kEcamBytes = 0x10000000, kPciHoleStart = 0xc0000000;
  static constexpr uint32_t kRcba = 0xfed1c000;

  explicit Q35Board(BoardContext context);

  std::unique_ptr<devices::Ich9Lpc> lpc_;
  std::unique_ptr<devices::Mch> mch_;
  std::unique_ptr<devices::AcpiCpus> cpus_;
  std::unique_ptr<devices::Ich9Smbus> smbus_;  // with blank EEPROMs, as memory modules have them
};

}  // namespace kite::machine
