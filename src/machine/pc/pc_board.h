// The PC of 1996: 82441FX host bridge, PIIX3 ISA bridge, PIIX4 power management, the ISA devices of an AT.
//
// Memory: RAM from 0 (up to 3 GiB or 3.5 GiB), the rest from 4 GiB; PCI memory between; IOAPIC at 0xfec00000, local
// APICs at 0xfee00000.
#pragma once

#include <memory>
#include <vector>

#include "boot/loader.h"
#include "bus/pci.h"
#include "devices/apic/apic_bus.h"
#include "devices/apic/cpu_apic.h"
#include "devices/fpu_error/fpu_error.h"
#include "devices/fw_cfg/fw_cfg.h"
#include "devices/hpet/hpet.h"
#include "devices/i440fx/i440fx.h"
#include "devices/i8042/i8042.h"
#include "devices/ioapic/io_apic.h"
#include "devices/pic/pic.h"
#include "devices/piix3/piix3.h"
#include "devices/piix4_pm/piix4_pm.h"
#include "devices/pit/pit.h"
#include "devices/port92/port92.h"
#include "devices/rtc/rtc.h"
#include "devices/serial/isa_serial.h"
#include "machine/board.h"
#include "machine/pc/gsi.h"

namespace kite::machine {

struct SerialPlace {
  uint16_t port;
  uint8_t irq;
};
inline constexpr SerialPlace kSerialPlaces[] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};  // COM1..4

class PcBoard final : public Board {
 public:
  static Result<std::unique_ptr<Board>> create(BoardContext context);
  ~PcBoard() override;

  [[nodiscard]] std::string_view name() const override { return "pc"; }
  [[nodiscard]] std::vector<bus::Device*> devices() override;
  [[nodiscard]] LocalApic* local_apic(uint32_t index) override { return apics_[index].get(); }
  void connect_cpu(uint32_t index, Vcpu& vcpu) override;
  Result<> load_software(std::vector<std::unique_ptr<Vcpu>>& vcpus) override;
  void power_button() override { pm_->press_power_button(); }
  void fpu_error() override { fpu_error_->ferr(); }
  [[nodiscard]] IrqTap* irq_tap(std::string_view path) override;

 private:
  static constexpr uint64_t kFourGib = uint64_t{1} << 32;
  static constexpr uint64_t kIoApicBase = 0xfec00000, kHpetBase = 0xfed00000;
  static constexpr uint16_t kPmBase = 0x600;
  static constexpr uint64_t kAcpiBytes = 0x20000;  // at the top of low RAM

  // Carries what a local APIC asks of its CPU to the vCPU, once that exists.
  class CpuPort;

  explicit PcBoard(BoardContext context);
  Result<> build();
  Result<> add_ram();
  void add_interrupt_controllers();
  void add_local_apics();
  Result<> add_pci();
  void add_timers();
  void add_isa_devices();
  void add_serial_ports();
  Result<> fill_fw_cfg();
  void fill_cmos();
  Result<> add_user_device(const DeviceConfig& device);
  Result<> add_user_serial(const DeviceConfig& device, const std::string& path);
  Result<> add_pc_testdev();
  [[nodiscard]] int64_t rtc_offset() const;
  [[nodiscard]] uint64_t pci_hole_start() const { return ram_low_ > 0xc0000000 ? 0xe0000000 : 0xc0000000; }
  [[nodiscard]] std::vector<boot::E820Entry> e820() const;
  void map_port(uint16_t port, const std::shared_ptr<Region>& region) { context_.ports.root().add(port, region); }

  // pc_firmware.cc: what firmware would have left behind.
  void commit_maps();
  void program_chipset();
  void assign_bars();
  Result<uint64_t> place_acpi();

  BoardContext context_;
  GuestMemory guest_memory_;
  uint64_t ram_low_ = 0;   // bytes from 0
  uint64_t ram_high_ = 0;  // bytes from 4 GiB

  std::shared_ptr<Region> ram_;
  std::shared_ptr<Region> pci_memory_;
  std::vector<std::unique_ptr<CpuPort>> cpu_ports_;
  std::unique_ptr<devices::ApicBus> apic_bus_;
  std::unique_ptr<devices::Pic> pic_;
  std::unique_ptr<devices::IoApic> ioapic_;
  std::unique_ptr<GsiLines> gsi_;
  std::vector<std::unique_ptr<devices::CpuApic>> apics_;
  std::unique_ptr<devices::Piix3> piix3_;
  std::unique_ptr<bus::PciBus> pci_;
  std::unique_ptr<devices::I440fx> host_bridge_;
  std::unique_ptr<devices::Piix4Pm> pm_;
  std::unique_ptr<LegacyTimerLines> legacy_timers_;
  std::unique_ptr<devices::Pit> pit_;
  std::unique_ptr<devices::Rtc> rtc_;
  std::unique_ptr<devices::Hpet> hpet_;  // null with -machine hpet=off
  std::unique_ptr<devices::I8042> keyboard_;
  std::unique_ptr<devices::Port92> port92_;
  std::unique_ptr<devices::FpuError> fpu_error_;
  std::unique_ptr<devices::FwCfg> fw_cfg_;
  std::vector<std::unique_ptr<devices::IsaSerial>> serial_;
  std::vector<uint8_t> serial_ports_;  // which of COM1..4 exist
  std::vector<std::unique_ptr<bus::Device>> user_devices_;
  std::vector<Vcpu*> vcpus_;
  IrqTap ioapic_tap_;
};

}  // namespace kite::machine
