// The types of this folder for -device.
#pragma once

#include "object/object_type.h"

namespace kite::devices {

void register_vga_types(TypeRegistry& registry);

}  // namespace kite::devices
