// DiskBus: a bus that disks sit on: an IDE channel, an AHCI port, a SCSI bus, a floppy controller's cable. Controllers
// own theirs; the board finds them by name for -device ...,bus=NAME.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "bus/device.h"
#include "devices/storage/disk.h"
#include "object/object_type.h"
#include "support/result.h"

namespace kite::devices {

// One -device for such a bus, resolved against its type.
struct DiskDevice {
  std::string type;  // "ide-hd", "scsi-cd", ...
  std::string path;  // for bus::Device: the id, or a generated one
  DiskConfig disk;
  const PropertyMap& properties;  // for those of the type's own ("unit", "lun", "scsi-id", ...); alive during attach()
};

class DiskBus {
 public:
  virtual ~DiskBus() = default;
  [[nodiscard]] virtual std::string name() const = 0;           // "ide.0", "scsi0.0"
  [[nodiscard]] virtual std::string_view kind() const = 0;      // as ObjectType::bus: "IDE", "SCSI", "floppy-bus"
  [[nodiscard]] virtual bool has_room() const = 0;              // for a device that names no unit
  [[nodiscard]] virtual bool hotplug() const { return false; }  // devices may come and go while the machine runs

  // Makes the device and puts it on the bus. While the machine is built, or (hotplug) with every vCPU parked. The
  // device belongs to whoever called: it goes before the controller does.
  virtual Result<std::unique_ptr<bus::Device>> attach(const DiskDevice& device) = 0;
  // Takes a device of attach() off the bus, before it is destroyed; its requests are cancelled and waited for.
  virtual void detach(bus::Device& device) = 0;
  // Where firmware finds it, for boot order: the part of an Open Firmware path below the controller's
  // ("drive@0/disk@1"), or "" when it cannot boot.
  [[nodiscard]] virtual std::string boot_path(const bus::Device& device) const = 0;
};

}  // namespace kite::devices
