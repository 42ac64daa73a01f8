// What every PC of ours has in common, whatever its chip set: RAM, interrupt controllers, local APICs, timers, the
// devices of an AT, serial ports, fw_cfg, CMOS, what -device adds, and the start of a kernel without firmware. A board
// derives from it and adds its host bridge, ISA bridge and power management.
//
// Memory: RAM from 0 up to the board's split, the rest from 4 GiB; PCI memory between; IOAPIC at 0xfec00000, HPET at
// 0xfed00000, local APICs at 0xfee00000.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "boot/acpi.h"
#include "boot/loader.h"
#include "bus/pci.h"
#include "devices/acpi_pci_hotplug/acpi_pci_hotplug.h"
#include "devices/acpi_pm/acpi_pm.h"
#include "devices/apic/apic_bus.h"
#include "devices/apic/cpu_apic.h"
#include "devices/fpu_error/fpu_error.h"
#include "devices/fw_cfg/fw_cfg.h"
#include "devices/hpet/hpet.h"
#include "devices/i8042/i8042.h"
#include "devices/i8237/i8237.h"
#include "devices/ioapic/io_apic.h"
#include "devices/pic/pic.h"
#include "devices/pit/pit.h"
#include "devices/port92/port92.h"
#include "devices/rtc/rtc.h"
#include "devices/serial/isa_serial.h"
#include "devices/usb/usb_bus.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_serial.h"
#include "machine/board.h"
#include "machine/firmware/boot_order.h"
#include "machine/firmware/system_rom.h"
#include "machine/interrupt_events.h"
#include "machine/pc/gsi.h"
#include "machine/pc/kernel_irq.h"
#include "machine/pc/pc_disk_devices.h"

namespace kite::machine {

struct SerialPlace {
  uint16_t port;
  uint8_t irq;
};
inline constexpr SerialPlace kSerialPlaces[] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};  // COM1..4

class PcChassis : public Board {
 public:
  ~PcChassis() override;

  [[nodiscard]] std::vector<bus::Device*> devices() override;
  [[nodiscard]] LocalApic* local_apic(uint32_t index) override {
    return index < apics_.size() ? apics_[index].get() : nullptr;
  }
  [[nodiscard]] ExtInt* ext_int() override { return kernel_irq_ != nullptr ? pic_.get() : nullptr; }
  void connect_cpu(uint32_t index, Vcpu& vcpu) override;
  Result<> load_software(std::vector<std::unique_ptr<Vcpu>>& vcpus) override;
  void power_button() override;
  void before_wake() override;
  [[nodiscard]] std::vector<bus::Device*> kept_in_sleep() override { return {chipset().front()}; }
  Result<> wake(std::vector<std::unique_ptr<Vcpu>>& vcpus) override;
  void fpu_error() override { fpu_error_->ferr(); }
  Result<> plug(const DeviceConfig& device) override;
  Result<> request_unplug(std::string_view id) override;
  [[nodiscard]] std::vector<std::unique_ptr<bus::Device>> take_out(std::string_view slot) override;
  [[nodiscard]] std::vector<std::string> unplugged_by_reset() override;
  [[nodiscard]] bus::PciBus* pci() override { return pci_.get(); }
  [[nodiscard]] devices::VirtioBalloon* balloon() override;
  [[nodiscard]] std::vector<devices::Pflash*> flash_chips() override { return system_rom_->chips(); }
  [[nodiscard]] std::vector<devices::UsbBus*> usb_buses() override;
  [[nodiscard]] IrqTap* irq_tap(std::string_view path) override;

 protected:
  static constexpr uint64_t kFourGib = uint64_t{1} << 32;
  static constexpr uint64_t kIoApicBase = 0xfec00000, kHpetBase = 0xfed00000;
  static constexpr uint64_t kAcpiBytes = 0x20000;  // at the top of low RAM

  // How a board divides RAM: all of it below 4 GiB while it is smaller than `most_low`, else `split_low` there.
  struct RamSplit {
    uint64_t most_low, split_low;
  };
  PcChassis(BoardContext context, RamSplit split);
  // After construction, by the deriving class's create().
  Result<> build();

  // --- what the chip set decides ---
  // What pci_hotplug() asks of its board, but for the event.
  [[nodiscard]] devices::AcpiPciHotplug::Wiring hotplug_wiring(std::function<void()> notify);
  [[nodiscard]] std::optional<boot::HotplugBus> hotplug_tree() const;  // for the ACPI tables
  // Makes host bridge, ISA bridge, power management and `pci_`.
  virtual Result<> add_chipset() = 0;
  // In the order in which they are reset and saved; the first is the host bridge, which keeps its registers in S3.
  [[nodiscard]] virtual std::vector<bus::Device*> chipset() = 0;
  [[nodiscard]] virtual devices::AcpiPm& acpi_pm() = 0;
  // For an ISA device that may share `irq` (0..15) with PCI.
  [[nodiscard]] virtual bus::IrqLine isa_source(uint32_t irq) = 0;
  // Shadow RAM at 0xc0000-0xfffff: readable always, writable or not.
  virtual void open_shadow_ram(bool writable) = 0;
  // Interrupt routing and power management as firmware leaves them; answers the level-triggered ISA interrupts.
  virtual uint16_t program_chipset() = 0;
  // The ISA interrupt to which program_chipset() routes pin 1..4 of a slot on the root bus.
  [[nodiscard]] virtual uint8_t isa_irq_of(uint8_t slot, uint8_t pin) const = 0;
  // Where functions come to and go from the root bus, and buses behind plain bridges, while the machine runs; null:
  // the root bus keeps what it has, and what is behind bridges the guest finds when it looks.
  [[nodiscard]] virtual devices::AcpiPciHotplug* pci_hotplug() const { return nullptr; }
  // The chip set's own disk controllers, after everything else of the chip set: add_board_device().
  virtual Result<> add_disk_controllers() { return {}; }
  // Those of -usb.
  virtual Result<> add_usb_controllers() = 0;
  [[nodiscard]] bool has_floppy_drive() const;  // -drive if=floppy, -fda
  // A part of the board by its type, as -device makes it, with these properties.
  Result<> add_board_device(std::string type, std::vector<std::pair<std::string, std::string>> values);
  // What the chip set adds to the tables: `config` holds what the chassis knows.
  virtual void describe(boot::AcpiConfig& config) const = 0;
  // 32-bit window for BARs; its end is kIoApicBase.
  [[nodiscard]] virtual uint64_t pci_hole_start() const = 0;
  // As SMBIOS names the machine.
  [[nodiscard]] virtual std::string product() const { return "Standard PC"; }
  // Address ranges besides RAM that operating systems are told of.
  [[nodiscard]] virtual std::vector<boot::E820Entry> reserved_ranges() const { return {}; }

  // By the properties "disable_s3" and "disable_s4" of the function that has power management.
  void offer_sleep(const PropertyMap& power) {
    no_s3_ = power.integer("disable_s3") != 0;
    no_s4_ = power.integer("disable_s4") != 0;
  }
  // SLP_EN was written with this SLP_TYP.
  void sleep(uint8_t type);
  void map_port(uint16_t port, const std::shared_ptr<Region>& region) { context_.ports.root().add(port, region); }
  // Where devices get eventfds that interrupt; null in a machine without an executor.
  [[nodiscard]] bus::InterruptEvents* interrupt_events() { return interrupt_events_.get(); }
  void hard_reset() { context_.requests.reset(); }
  void soft_reset();  // INIT to every processor
  // Files of the board's own.
  virtual Result<> add_firmware_files(devices::FwCfg& fw_cfg) { return (void)fw_cfg, Result<>{}; }
  void smi(bool all);  // SMI#, of the bootstrap processor unless firmware has asked for all of them
  [[nodiscard]] std::vector<boot::E820Entry> e820() const;

 private:
  // Carries what a local APIC asks of its CPU to the vCPU, once that exists.
  class CpuPort;

  Result<> add_ram();
  Result<std::shared_ptr<RamBlock>> whole_memory();
  Result<std::shared_ptr<Region>> main_memory();
  void add_interrupt_controllers();
  void add_local_apics();
  void add_timers();
  void add_isa_devices();
  void add_serial_ports();
  Result<> add_user_device(const DeviceConfig& device);
  // The id, or a name made up; refused when it is taken.
  Result<std::string> free_path(const DeviceConfig& device);
  // pc_pci_devices.cc.
  [[nodiscard]] static bool is_pci_device(const DeviceConfig& device);
  Result<bus::PciBus*> bus_for(const DeviceConfig& device);
  Result<std::unique_ptr<bus::PciDevice>> make_pci_device(const DeviceConfig& device, const std::string& path,
                                                          const bus::PciBus& bus);
  Result<std::unique_ptr<bus::PciDevice>> make_network_card(const DeviceConfig& device, const std::string& path,
                                                            const bus::PciBus& bus);
  [[nodiscard]] Result<std::vector<uint8_t>> card_rom(const DeviceConfig& device) const;
  Result<> add_pci_device(const DeviceConfig& device, const std::string& path, bool running);
  // pc_virtio.cc.
  [[nodiscard]] static bool is_virtio_device(std::string_view type);
  Result<std::unique_ptr<bus::PciDevice>> make_virtio_device(const DeviceConfig& device, const std::string& path,
                                                             const bus::PciBus& bus);
  Result<std::unique_ptr<devices::VirtioPci>> make_balloon(const DeviceConfig& device, const std::string& path,
                                                           const bus::PciBus& bus);
  Result<std::unique_ptr<devices::VirtioPci>> make_rng(const DeviceConfig& device, const std::string& path,
                                                       const bus::PciBus& bus);
  Result<std::unique_ptr<devices::VirtioPci>> make_serial(const DeviceConfig& device, const std::string& path,
                                                          const bus::PciBus& bus);
  [[nodiscard]] std::vector<devices::VirtioSerial*> serial_controllers();
  Result<devices::VirtioSerial*> serial_bus_for(const DeviceConfig& device);
  Result<> add_serial_port(const DeviceConfig& device, const std::string& path);
  std::vector<std::unique_ptr<bus::Device>> take_serial_port(std::string_view path);
  [[nodiscard]] static std::vector<std::string> serial_ports_of(bus::PciDevice& function);
  // pc_display.cc.
  [[nodiscard]] bool has_vga() const;
  [[nodiscard]] static bool is_display(std::string_view type);
  [[nodiscard]] static bool is_display(bus::PciDevice& function);
  Result<std::vector<uint8_t>> vga_rom(const DeviceConfig& device) const;
  Result<std::unique_ptr<bus::PciDevice>> make_display(const DeviceConfig& device, const std::string& path,
                                                       const bus::PciBus& bus);
  Result<> add_user_serial(const DeviceConfig& device, const std::string& path);
  Result<> add_pc_testdev();
  // pc_usb.cc.
  struct UsbPlug {
    std::unique_ptr<devices::UsbDevice> device;
    devices::UsbBus* bus;
  };
  [[nodiscard]] static bool is_usb_device(const DeviceConfig& device);
  Result<std::unique_ptr<bus::PciDevice>> make_usb_controller(const DeviceConfig& device, const std::string& path,
                                                              const bus::PciBus& bus);
  void forget_usb_controller(bus::Device& device);  // its bus goes with it
  Result<devices::UsbBus*> usb_bus_for(const DeviceConfig& device, const devices::UsbDevice& made);
  Result<devices::UsbBus*> plug_usb(const DeviceConfig& device, devices::UsbDevice& made);
  Result<> add_usb_device(const DeviceConfig& device, const std::string& path);
  Result<> add_usb_storage(DeviceConfig device, const std::string& path);
  Result<UsbPlug> plug_usb_storage(const DeviceConfig& device, const std::string& path, bool cdrom);
  void unplug_usb(UsbPlug& plug);
  std::vector<std::unique_ptr<bus::Device>> take_usb(std::string_view path);
  // pc_disks.cc: controllers and disks.
  void tell_geometry();
  Result<> add_board_disks();                                       // the chip set's controllers; IDE and floppy drives
  Result<> add_added_disks();                                       // -drive if=virtio and scsi, after -device
  Result<> add_drives(std::span<const DriveInterface> interfaces);  // of -drive
  Result<> add_disk_on_bus(DeviceConfig device, const std::string& path, bool running);
  Result<> add_isa_disk(DeviceConfig device, const std::string& path);
  Result<std::unique_ptr<bus::PciDevice>> make_pci_disk(DeviceConfig device, const std::string& path);
  void forget_disk_device(bus::Device& device);  // its buses go with it
  // pc_hotplug.cc.
  // Bridges and display adapters do not come and go.
  [[nodiscard]] static bool stays(bus::PciDevice& function);
  [[nodiscard]] bool takes_functions(const bus::PciBus& bus) const;
  [[nodiscard]] std::vector<bus::PciBus*> hotplug_buses() const;
  [[nodiscard]] std::optional<unsigned> hotplug_number(const bus::PciBus& bus) const;
  [[nodiscard]] uint32_t removable_slots(const bus::PciBus& bus) const;
  [[nodiscard]] std::vector<bus::PciDevice*> removable_functions(const bus::PciBus& bus, uint32_t slots) const;
  void plugged(const bus::PciDevice& function);
  Result<> request_function_unplug(bus::PciDevice& function);
  // The disk, or the function and the disks behind it, out of every list; in the order in which they may be destroyed.
  std::vector<std::unique_ptr<bus::Device>> take_disk(std::string_view path);
  std::vector<std::unique_ptr<bus::Device>> take_function(bus::PciDevice& function);
  Result<> claim_drive(DeviceConfig& device, DriveNeed need);
  void own_drive(const DeviceConfig& device, const std::string& path);
  void give_back(block::Drive* drive);
  [[nodiscard]] static std::string pci_boot_path(bus::PciDevice& function);
  Result<> note_boot_place(const DeviceConfig& device, const std::string& path, std::string place);
  Result<devices::DiskBus*> disk_bus_for(const DeviceConfig& device, std::string_view kind);
  [[nodiscard]] DiskParts disk_parts(const DeviceConfig& device, const std::string& path);
  [[nodiscard]] std::string controller_boot_path(const devices::DiskBus& bus) const;
  [[nodiscard]] int64_t rtc_offset() const;

  // pc_firmware.cc: what firmware is told; without it, what it would have left behind.
  Result<> tell_firmware();
  [[nodiscard]] boot::AcpiConfig acpi_config() const;
  [[nodiscard]] boot::AcpiNuma acpi_numa() const;
  Result<> start_kernel(std::vector<std::unique_ptr<Vcpu>>& vcpus);
  void set_firmware_mtrrs(std::vector<std::unique_ptr<Vcpu>>& vcpus);
  // pc_sleep.cc.
  Result<> resume_kernel(std::vector<std::unique_ptr<Vcpu>>& vcpus);
  void rtc_interrupt();
  void commit_maps();
  void program_devices();
  Result<uint64_t> place_acpi();

 protected:
  BoardContext context_;
  const RamSplit split_;
  GuestMemory guest_memory_;
  uint64_t ram_low_ = 0;                // bytes from 0
  uint64_t ram_high_ = 0;               // bytes from 4 GiB
  bool no_s3_ = false, no_s4_ = false;  // states that the tables do not offer

  std::shared_ptr<Region> ram_;
  std::shared_ptr<Region> pci_memory_;
  std::unique_ptr<SystemRom> system_rom_;
  BootOrder boot_order_;             // add_chipset() and add_user_device() fill it in
  bool booted_ = false;              // a reset from now on is not the first
  std::atomic<bool> asleep_{false};  // in S3
  uint16_t wake_status_ = 0;         // PM1 status bits that tell what woke the machine
  uint64_t facs_address_ = 0;        // of tables that place_acpi() wrote
  std::vector<std::unique_ptr<CpuPort>> cpu_ports_;
  std::unique_ptr<devices::ApicBus> apic_bus_;
  // What of this the accelerator has is not made: pic_ and ioapic_ are null then, apics_ empty.
  std::unique_ptr<KernelIrq> kernel_irq_;
  std::unique_ptr<devices::Pic> pic_;
  std::unique_ptr<devices::IoApic> ioapic_;
  std::unique_ptr<GsiLines> gsi_;
  std::vector<std::unique_ptr<devices::CpuApic>> apics_;
  std::unique_ptr<bus::InterruptEvents> interrupt_events_;
  std::unique_ptr<bus::PciBus> pci_;
  std::unique_ptr<LegacyTimerLines> legacy_timers_;
  std::unique_ptr<devices::Pit> pit_;  // null where the accelerator has it
  std::unique_ptr<devices::Rtc> rtc_;
  std::unique_ptr<devices::Hpet> hpet_;  // null with -machine hpet=off
  std::unique_ptr<devices::I8042> keyboard_;
  std::unique_ptr<devices::I8237> dma_;
  std::unique_ptr<devices::Port92> port92_;
  std::unique_ptr<devices::FpuError> fpu_error_;
  std::unique_ptr<devices::FwCfg> fw_cfg_;
  std::vector<std::unique_ptr<devices::IsaSerial>> serial_;
  std::vector<uint8_t> serial_ports_;  // which of COM1..4 exist
  std::vector<std::unique_ptr<bus::Device>> user_devices_;
  // Disk buses and what controls them; disks that sit on them, which go before their controllers do.
  struct BusPlace {
    devices::DiskBus* bus;
    bus::Device* controller;
    std::string boot_path;  // ISA: of the controller; PCI: made when it is asked for
  };
  struct DiskPlace {
    std::unique_ptr<bus::Device> device;
    devices::DiskBus* bus;
    block::Drive* drive;
  };
  std::vector<BusPlace> disk_buses_;
  std::vector<DiskPlace> disks_;
  // USB buses with their controllers, and what is plugged in, which goes before they do.
  struct UsbPlace {
    devices::UsbBus* bus;
    bus::Device* controller;
  };
  std::vector<UsbPlace> usb_places_;
  std::vector<UsbPlug> usb_devices_;
  std::vector<std::string> unplugging_;  // paths of devices that device_del named, where no guest can be asked
  std::vector<Vcpu*> vcpus_;
  IrqTap ioapic_tap_;
};

}  // namespace kite::machine
