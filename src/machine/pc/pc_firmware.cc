// What firmware would have left behind when a kernel is started without any: shadow RAM, BARs, interrupt routing, power
// management base, memory types, ACPI tables.
#include <algorithm>
#include <tuple>
#include <utility>

#include "boot/acpi.h"
#include "devices/fdc/fdc.h"
#include "machine/firmware/firmware_tables.h"
#include "machine/pc/pc_chassis.h"
#include "machine/pc/pci_setup.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::machine {

namespace {

constexpr uint64_t kRsdpAddress = 0xe0000;

x86::Mtrrs firmware_mtrrs(uint64_t pci_hole) {
  constexpr uint64_t kWriteBack = 0x0606060606060606, kWriteProtect = 0x0505050505050505, kUncached = 0;
  constexpr uint64_t kPhysicalMask = (uint64_t{1} << 40) - 1, kValid = 1u << 11;
  x86::Mtrrs mtrr;
  mtrr.def_type = kValid | 1u << 10 | 6;  // MTRRs and fixed ranges on, write-back elsewhere [SDM 3A 11.11.2.1]
  mtrr.fixed = {kWriteBack, kWriteBack, kUncached};
  std::fill(mtrr.fixed.begin() + 3, mtrr.fixed.end(), kWriteProtect);
  const uint64_t bytes = (uint64_t{1} << 32) - pci_hole;
  mtrr.base[0] = pci_hole;  // uncached
  mtrr.mask[0] = (kPhysicalMask & ~(bytes - 1)) | kValid;
  return mtrr;
}

}  // namespace

void PcChassis::commit_maps() {
  if (context_.memory.stale()) context_.memory.commit();
  if (context_.ports.stale()) context_.ports.commit();
}

void PcChassis::program_devices() {
  const uint16_t level_triggered = program_chipset();
  set_up_pci(*pci_, {.memory_start = pci_hole_start(),
                     .memory_end = kIoApicBase,
                     .port_start = 0xc000,
                     .irq_of = [this](uint8_t slot, uint8_t pin) { return isa_irq_of(slot, pin); }});
  commit_maps();

  if (context_.irq_chip != nullptr) context_.irq_chip->program_as_firmware(level_triggered);
  const auto out = [this](uint16_t port, uint8_t value) { context_.ports.write(port, 1, value); };
  out(0x4d0, static_cast<uint8_t>(level_triggered));
  out(0x4d1, static_cast<uint8_t>(level_triggered >> 8));
  // The 8259 pair at vectors 0x08 and 0x70, everything masked but the cascade [8259A "initialization command words"].
  for (const auto& [port, vector, cascade, mask] :
       {std::tuple<uint16_t, uint8_t, uint8_t, uint8_t>{0x20, 0x08, 0x04, 0xfb}, {0xa0, 0x70, 0x02, 0xff}}) {
    out(port, 0x11);
    out(static_cast<uint16_t>(port + 1), vector);
    out(static_cast<uint16_t>(port + 1), cascade);
    out(static_cast<uint16_t>(port + 1), 0x01);
    out(static_cast<uint16_t>(port + 1), mask);
  }
  // Counter 0 as the system timer at 18.2 Hz: mode 2, divisor 65536.
  out(0x43, 0x34);
  out(0x40, 0);
  out(0x40, 0);
  for (auto& apic : apics_) apic->enter_virtual_wire_mode();
}

boot::AcpiNuma PcChassis::acpi_numa() const {
  boot::AcpiNuma numa{.node_of_cpu = context_.numa.node_of_cpu, .distances = context_.numa.distances};
  uint64_t at = 0;
  for (uint32_t node = 0; node < context_.numa.nodes.size(); ++node) {
    const uint64_t end = at + context_.numa.nodes[node].bytes;
    if (at < std::min(end, ram_low_)) numa.memory.push_back({at, std::min(end, ram_low_) - at, node});
    if (const uint64_t start = std::max(at, ram_low_); start < end)
      numa.memory.push_back({kFourGib + (start - ram_low_), end - start, node});
    at = end;
  }
  return numa;
}

boot::AcpiConfig PcChassis::acpi_config() const {
  constexpr uint64_t kGib = uint64_t{1} << 30, kMost = uint64_t{1} << 40;
  boot::AcpiConfig config;
  config.cpu_count = context_.config.cpu_count;
  config.topology = context_.config.topology;
  config.numa = acpi_numa();
  config.hpet = hpet_ != nullptr;
  config.vga = has_vga();
  config.pci_hole_start = pci_hole_start();
  config.pci_hole_end = kIoApicBase;
  if (system_rom_->starts()) {
    // Firmware places BARs as it likes: anywhere beside RAM.
    config.pci_hole_start = ram_low_;
    config.pci_hole64_start = align_up(kFourGib + ram_high_, kGib);
    config.pci_hole64_end = kMost;
  }
  for (const uint8_t index : serial_ports_)
    config.serial_ports = static_cast<uint8_t>(config.serial_ports | 1u << index);
  config.user_tables = context_.config.firmware.acpi_tables;
  describe(config);
  return config;
}

Result<> PcChassis::tell_firmware() {
  uint8_t floppies = 0;
  for (const auto& device : user_devices_)
    if (auto* const fdc = dynamic_cast<devices::Fdc*>(device.get()); fdc != nullptr) floppies = fdc->cmos_types();
  const FirmwareFacts facts{.config = context_.config,
                            .cpu = context_.cpu,
                            .numa = context_.numa,
                            .product = product(),
                            .ram_low = ram_low_,
                            .ram_high = ram_high_,
                            .floppies = floppies,
                            .acpi = [this] { return acpi_config(); },
                            .reserved = reserved_ranges()};
  fill_cmos(*rtc_, facts);
  tell_geometry();
  if (system_rom_->starts() && !context_.config.kernel_path.empty())
    KITE_TRY(offer_kernel(*fw_cfg_, facts, boot_order_));
  KITE_TRY(add_firmware_files(*fw_cfg_));
  return fill_fw_cfg(*fw_cfg_, facts, boot_order_);
}

Result<uint64_t> PcChassis::place_acpi() {
  const uint64_t address = ram_low_ - kAcpiBytes;
  const boot::AcpiConfig config = acpi_config();
  boot::AcpiTables tables = boot::build_acpi(config);
  boot::place_acpi(tables, address);
  if (tables.blob.size() > kAcpiBytes)
    return fail("the ACPI tables for {} CPUs take {} bytes, more than the {} set aside", config.cpu_count,
                tables.blob.size(), kAcpiBytes);
  facs_address_ = address + tables.facs;
  KITE_TRY(guest_memory_.write(address, tables.blob));
  KITE_TRY(guest_memory_.write(kRsdpAddress, tables.rsdp));
  return kRsdpAddress;
}

Result<> PcChassis::load_software(std::vector<std::unique_ptr<Vcpu>>& vcpus) {
  const BootConfig& boot = context_.config.boot;
  asleep_.store(false);
  if (std::exchange(booted_, true) && !boot.once.empty()) set_boot_order(*rtc_, boot, boot.order);
  KITE_TRY(tell_boot_order(*fw_cfg_, boot, boot_order_));  // devices may have come and gone
  if (system_rom_->starts() || context_.config.kernel_path.empty()) return {};
  return start_kernel(vcpus);
}

Result<> PcChassis::start_kernel(std::vector<std::unique_ptr<Vcpu>>& vcpus) {
  const MachineConfig& config = context_.config;
  constexpr uint64_t kLeast = 16 << 20;
  if (config.ram_bytes < kLeast) return fail("-m {}M: booting a kernel takes at least 16M", config.ram_bytes >> 20);

  open_shadow_ram(true);
  commit_maps();
  uint64_t rsdp = 0;
  if (config.acpi) {
    KITE_ASSIGN(rsdp, place_acpi());
  }
  boot::KernelRequest request{.kernel_path = config.kernel_path,
                              .initrd_path = config.initrd_path,
                              .command_line = config.command_line,
                              .ram_below_4g = ram_low_,
                              .ram_above_4g = ram_high_,
                              .e820 = e820(),
                              .acpi_rsdp = rsdp};
  KITE_ASSIGN(boot::LoadedKernel kernel, boot::load_kernel(request, guest_memory_));
  open_shadow_ram(false);
  program_devices();
  commit_maps();

  set_firmware_mtrrs(vcpus);
  x86::ArchState state;
  vcpus[0]->get_state(state);
  kernel.entry.misc_enable = state.misc_enable;  // hangs on the CPU model
  kernel.entry.mtrr = state.mtrr;
  vcpus[0]->set_state(kernel.entry);
  return {};
}

void PcChassis::set_firmware_mtrrs(std::vector<std::unique_ptr<Vcpu>>& vcpus) {
  const x86::Mtrrs mtrr = firmware_mtrrs(pci_hole_start());
  for (auto& vcpu : vcpus) {
    x86::ArchState state;
    vcpu->get_state(state);
    state.mtrr = mtrr;
    vcpu->set_state(state);
  }
}

}  // namespace kite::machine
