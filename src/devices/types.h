// The types of this room for -device, -global, the monitor and the help text.
#pragma once

#include "object/object_type.h"

namespace kite::devices {

// Adds the abstract roots ("device", "isa-device", "pci-device", "sys-bus-device") and every device type. Once a
// registry.
void register_device_types(TypeRegistry& registry);

}  // namespace kite::devices
