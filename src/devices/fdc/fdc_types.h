// The types of the floppy controller: isa-fdc, and floppy, a drive on its bus.
#pragma once

#include "object/object_type.h"

namespace kite::devices {

void register_floppy_types(TypeRegistry& registry);

}  // namespace kite::devices
