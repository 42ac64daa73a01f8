// Controllers and disks of a PC: one table of how each type is made. The board creates them for -device, device_add and
// its own (piix3-ide, isa-fdc, ich9-ahci, -drive if=...) from the same lines.
//
// How a type is added (pc_disk_devices.cc; object types are registered in the device's own folder):
//  - A PCI function, controller or disk: write a maker, Result<MadeDevice> make_x(const DiskParts&), and a line in
//    kMakers: {"nvme", Place::kPci, DriveNeed::kOptional, "/namespace@1,0", &make_x}. The board attaches the function
//    and resets it. `boot_rest` is what follows the function in an Open Firmware path, for types with a bootindex of
//    their own; "" for others.
//  - An ISA controller: the same with Place::kIsa; the maker maps its ports (parts.map_port) and asks for its interrupt
//    (parts.isa_irq).
//  - A disk on a DiskBus: a line in kOnBus: {"ide-hd", "IDE", DriveNeed::kDisk}; the bus's attach() makes it.
// A controller hands its buses over in MadeDevice::buses; it names them with parts.bus_name(). They live as long as it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/clock.h"
#include "async/executor.h"
#include "bus/device.h"
#include "bus/interrupt_event.h"
#include "bus/irq_line.h"
#include "bus/pci_bus.h"
#include "devices/i8237/i8237.h"
#include "devices/storage/disk.h"
#include "devices/storage/disk_bus.h"
#include "machine/drive_store.h"
#include "machine/machine_config.h"
#include "memory/guest_memory.h"
#include "memory/region.h"
#include "support/result.h"

namespace kite::machine {

// What a maker has to build with. References outlive the device; the rest is for the time of the call.
struct DiskParts {
  const DeviceConfig& device;                        // type, id, properties (all of them, with defaults), drive
  const std::string& path;                           // for bus::Device
  GuestMemory& memory;                               // for DMA
  Clock& clock;                                      // guest time
  uint32_t cpu_count;                                // for queues one a CPU
  bus::InterruptEvents* interrupt_events = nullptr;  // eventfds that interrupt; null in machines without an executor
  Executor* executor = nullptr;                      // the main loop; null as above
  Executor* block_executor = nullptr;                // the block thread's, as the Drives have; null without disks
  const bus::PciBus* pci_bus = nullptr;              // PCI: the bus that the function will be on
  // Bus `number` of this controller: "ID.0" when it has an id, else the next free name of the word ("ide" -> "ide.1").
  std::function<std::string(std::string_view word, unsigned number)> bus_name;
  // ISA only.
  std::function<bus::IrqLine(uint32_t irq)> isa_irq;
  devices::I8237* dma = nullptr;
  // The memory of -object memory-backend-ram with this id; "" is none.
  std::function<Result<std::shared_ptr<RamBlock>>(const std::string& id)> memory_backend;
  std::function<void(uint16_t port, const std::shared_ptr<Region>& region)> map_port;

  // The device's own disk, for types that are disks themselves. device.drive may be null where the table says so.
  [[nodiscard]] Result<devices::DiskConfig> disk() const {
    return devices::make_disk_config(device.type, device.id.empty() ? path : device.id, device.properties,
                                     device.drive);
  }
};

struct MadeDevice {
  std::unique_ptr<bus::Device> device;  // a bus::PciDevice for Place::kPci
  std::vector<devices::DiskBus*> buses;
};

struct DiskMaker {
  enum class Place : uint8_t { kPci, kIsa };
  std::string_view type;
  Place place;
  DriveNeed need;
  std::string_view boot_rest;
  Result<MadeDevice> (*make)(const DiskParts& parts);
};
// A type that sits on a DiskBus of this kind (DiskBus::kind()).
struct DiskOnBus {
  std::string_view type;
  std::string_view bus_kind;
  DriveNeed need;
};

// Null: the type is not in the table.
const DiskMaker* find_disk_maker(std::string_view type);
const DiskOnBus* find_disk_on_bus(std::string_view type);

}  // namespace kite::machine
