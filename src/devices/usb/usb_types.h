// USB controllers and devices for -device, -global, the monitor and the help text, and how the board makes them.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "async/clock.h"
#include "bus/pci.h"
#include "devices/storage/disk.h"
#include "devices/usb/usb_bus.h"
#include "memory/guest_memory.h"
#include "object/object_type.h"
#include "support/result.h"

namespace kite::devices {

void register_usb_types(TypeRegistry& registry);

[[nodiscard]] bool is_usb_controller(std::string_view type);
[[nodiscard]] bool is_usb_device(std::string_view type);  // what goes into a port
inline constexpr std::string_view kUsbStorage = "usb-storage";

struct MadeUsbController {
  std::unique_ptr<bus::PciDevice> function;
  UsbBus* bus;
};
Result<MadeUsbController> make_usb_controller(std::string_view type, const std::string& path, std::string bus_name,
                                              const PropertyMap& properties, const bus::PciBus& pci,
                                              GuestMemory& memory, Clock& clock);
// A keyboard, a mouse, a tablet.
std::unique_ptr<UsbDevice> make_usb_input(std::string_view type, const std::string& path, Clock& clock);
// `disk` has a drive; `cdrom`: of discs.
Result<std::unique_ptr<UsbDevice>> make_usb_storage(const std::string& path, const PropertyMap& properties,
                                                    const DiskConfig& disk, bool cdrom, Clock& clock);

}  // namespace kite::devices
