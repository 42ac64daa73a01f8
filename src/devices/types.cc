#include "devices/types.h"

#include <array>
#include <utility>

#include "devices/ahci/ahci_types.h"
#include "devices/debug_exit/debug_exit.h"
#include "devices/debugcon/debugcon.h"
#include "devices/e1000/e1000_types.h"
#include "devices/fdc/fdc_types.h"
#include "devices/ide/ide_types.h"
#include "devices/nvme/nvme_types.h"
#include "devices/scsi/scsi_bus.h"
#include "devices/usb/usb_types.h"
#include "devices/vga/vga_types.h"
#include "devices/virtio/virtio_balloon_types.h"
#include "devices/virtio/virtio_gpu_types.h"
#include "devices/virtio/virtio_net_types.h"
#include "devices/virtio/virtio_rng_types.h"
#include "devices/virtio/virtio_scsi_types.h"
#include "devices/virtio/virtio_serial_types.h"
#include "devices/virtio/virtio_types.h"

namespace kite::devices {
namespace {

constexpr uint64_t kLastPort = 0xffff;
constexpr uint64_t kLastIrq = 15;

ObjectType abstract_type(std::string name, std::string parent, std::string bus, std::string description,
                         std::vector<Property> properties = {}) {
  return {.name = std::move(name),
          .parent = std::move(parent),
          .description = std::move(description),
          .bus = std::move(bus),
          .abstract = true,
          .user_creatable = false,
          .properties = std::move(properties)};
}

void add_roots(TypeRegistry& registry) {
  registry.add(abstract_type("object", "", "", "What -object makes"));
  registry.add(abstract_type("memory-backend", "object", "", "Memory that the board or a device asks for by its id",
                             {property::size("size", "bytes", 0),
                              property::boolean("share", "what is written reaches the file, where there is one", false),
                              property::boolean("prealloc", "all of it is taken from the host at once", false)}));
  registry.add({.name = "memory-backend-ram",
                .parent = "memory-backend",
                .description = "Memory of this process",
                .bus = "",
                .properties = {}});
  Property path = property::string("mem-path", "the file, or the directory for one without a name");
  path.default_value.reset();
  path.required = true;
  registry.add({.name = "memory-backend-file",
                .parent = "memory-backend",
                .description = "Memory that is a file: huge pages, or what others see too",
                .bus = "",
                .properties = {std::move(path)}});
  registry.add(
      {.name = "secret",
       .parent = "object",
       .description = "A password that others ask for by its id",
       .bus = "",
       .properties = {property::string("data", "the password itself, which everybody sees who lists processes"),
                      property::string("file", "the file that holds it"),
                      property::choice("format", "how it is written there", "raw", {"raw", "base64"})}});
  registry.add(abstract_type("device", "", "", "Anything a machine is made of"));
  registry.add(abstract_type("sys-bus-device", "device", "System", "A device wired to the board itself"));
  registry.add(abstract_type("isa-device", "device", "ISA", "A device at fixed ports"));
  registry.add(abstract_type("pci-device", "device", "PCI", "A PCI function",
                             {property::string("addr", "slot and function (slot[.function]); the first free slot"),
                              property::string("bus", "the PCI bus: the id of its bridge; the first one"),
                              property::boolean("multifunction", "the slot has more functions than one", false)}));
}

ObjectType isa_serial() {
  return {.name = "isa-serial",
          .parent = "isa-device",
          .description = "16550A UART",
          .bus = "ISA",
          .properties = {
              property::unsigned_integer("index", "which of the four usual places: 0 is COM1", 0, 0, 3),
              property::unsigned_integer("iobase", "first port; 0: the usual one of index", 0, 0, kLastPort - 7),
              property::unsigned_integer("irq", "ISA interrupt; 0: the usual one of index", 0, 0, kLastIrq),
              property::link("chardev", "where its line goes", "chardev"),
          }};
}

ObjectType isa_debug_exit() {
  return {.name = "isa-debug-exit",
          .parent = "isa-device",
          .description = "Ports whose writes end the process with status (value << 1) | 1",
          .bus = "ISA",
          .properties = {
              property::unsigned_integer("iobase", "first port", DebugExit::kDefaultPort, 0, kLastPort - 7),
              property::unsigned_integer("iosize", "ports", 2, 1, 8),
          }};
}

ObjectType isa_debugcon() {
  return {.name = "isa-debugcon",
          .parent = "isa-device",
          .description = "A port whose written bytes go to a chardev",
          .bus = "ISA",
          .properties = {
              property::unsigned_integer("iobase", "the port", Debugcon::kDefaultPort, 0, kLastPort),
              property::unsigned_integer("readback", "what reads of the port answer", 0xe9, 0, 0xffffffff),
              property::link("chardev", "where its bytes go", "chardev"),
          }};
}

ObjectType root_port(std::string name, std::string description) {
  return {.name = std::move(name),
          .parent = "pci-device",
          .description = std::move(description),
          .bus = "PCI",
          .properties = {
              property::unsigned_integer("port", "port number", 0, 0, 0xff),
              property::unsigned_integer("chassis", "chassis number; it tells the user where the slot is", 0, 0, 0xff),
              property::unsigned_integer("slot", "slot number", 0, 0, 0x1fff),
              property::boolean("hotplug", "devices can come and go while the machine runs", true),
          }};
}

ObjectType pci_bridge() {
  return {
      .name = "pci-bridge",
      .parent = "pci-device",
      .description = "Bridge from PCI to PCI",
      .bus = "PCI",
      .properties = {
          property::unsigned_integer("chassis_nr", "chassis number; it tells the user where the bus is", 0, 0, 0xff),
      }};
}

ObjectType mch() {
  return {.name = "mch",
          .parent = "pci-device",
          .description = "Q35 memory controller hub",
          .bus = "PCI",
          .user_creatable = false,
          .properties = {property::unsigned_integer(
              "extended-tseg-mbytes", "size of the TSEG that firmware may ask for, in MiB; 0: none", 16, 0, 0xfff)}};
}

ObjectType pflash() {
  return {.name = "cfi.pflash01",
          .parent = "sys-bus-device",
          .description = "flash chip with the Intel command set (-drive if=pflash)",
          .bus = "System",
          .user_creatable = false,
          .properties = {
              property::boolean("secure", "only system management mode programs and erases; others find ROM", false)}};
}

// Sleep states that the ACPI tables do not offer.
std::vector<Property> sleep_properties(std::vector<Property> others = {}) {
  others.push_back(property::unsigned_integer("disable_s3", "1: no suspend to RAM", 0, 0, 1));
  others.push_back(property::unsigned_integer("disable_s4", "1: no suspend to disk", 0, 0, 1));
  return others;
}

ObjectType piix4_pm() {
  return {.name = "PIIX4_PM",
          .parent = "pci-device",
          .description = "82371AB power management",
          .bus = "PCI",
          .user_creatable = false,
          .properties = sleep_properties()};
}

ObjectType ich9_lpc() {
  return {.name = "ICH9-LPC",
          .parent = "pci-device",
          .description = "ICH9 LPC bridge with power management and the TCO watchdog",
          .bus = "PCI",
          .user_creatable = false,
          .properties =
              sleep_properties({property::boolean("noreboot", "the TCO watchdog never acts when it expires", true)})};
}

// Name, parent, bus, description of the types without properties.
struct PlainType {
  const char* name;
  const char* parent;
  const char* bus;
  const char* description;
  bool user_creatable;
};
constexpr std::array kPlainTypes{
    PlainType{"pc-testdev", "isa-device", "ISA", "Test device of kvm-unit-tests", true},
    PlainType{"pci-testdev", "pci-device", "PCI", "Exit-cost test device of kvm-unit-tests", true},
    PlainType{"ICH9-SMB", "pci-device", "PCI", "ICH9 SMBus controller", false},
    PlainType{"smbus-eeprom", "device", "", "256-byte EEPROM on the SMBus", false},
    PlainType{"i82801b11-bridge", "pci-device", "PCI", "DMI to PCI bridge of the ICH9", true},
    PlainType{"pcie-pci-bridge", "pci-device", "PCI", "Bridge from PCI Express to PCI", true},
    PlainType{"i8042", "isa-device", "ISA", "Keyboard controller with PS/2 keyboard and mouse", true},
    PlainType{"i440FX-pcihost", "sys-bus-device", "System", "82441FX host bridge's system side", false},
    PlainType{"i440FX", "pci-device", "PCI", "82441FX host bridge", false},
    PlainType{"PIIX3", "pci-device", "PCI", "82371SB PCI to ISA bridge", false},
    PlainType{"port92", "isa-device", "ISA", "System control port A", false},
    PlainType{"fw_cfg_io", "sys-bus-device", "System", "Firmware configuration", false},
    PlainType{"isa-i8259", "isa-device", "ISA", "8259A interrupt controller", false},
    PlainType{"i8237", "isa-device", "ISA", "8237A DMA controllers", false},
    PlainType{"isa-pit", "isa-device", "ISA", "8254 interval timer", false},
    PlainType{"mc146818rtc", "isa-device", "ISA", "MC146818 real-time clock", false},
    PlainType{"ioapic", "sys-bus-device", "System", "82093AA I/O APIC", false},
    PlainType{"apic", "device", "", "Local APIC of a CPU", false},
    PlainType{"hpet", "sys-bus-device", "System", "High precision event timer", false},
};

}  // namespace

void register_device_types(TypeRegistry& registry) {
  add_roots(registry);
  registry.add(isa_serial());
  registry.add(isa_debug_exit());
  registry.add(isa_debugcon());
  registry.add(root_port("pcie-root-port", "PCI Express root port with a hot-plug slot"));
  registry.add(root_port("ioh3420", "Root port of Intel's X58, with a hot-plug slot"));
  registry.add(pci_bridge());
  registry.add(mch());
  registry.add(pflash());
  registry.add(piix4_pm());
  registry.add(ich9_lpc());
  register_ahci_types(registry);
  register_ide_types(registry);
  register_scsi_types(registry);
  register_virtio_scsi_types(registry);
  register_virtio_types(registry);
  register_virtio_net_types(registry);
  register_e1000_types(registry);
  register_virtio_balloon_types(registry);
  register_virtio_rng_types(registry);
  register_virtio_serial_types(registry);
  register_virtio_gpu_types(registry);
  register_nvme_types(registry);
  register_floppy_types(registry);
  register_usb_types(registry);
  register_vga_types(registry);
  for (const PlainType& type : kPlainTypes)
    registry.add({.name = type.name,
                  .parent = type.parent,
                  .description = type.description,
                  .bus = type.bus,
                  .user_creatable = type.user_creatable,
                  .properties = {}});
}

}  // namespace kite::devices
