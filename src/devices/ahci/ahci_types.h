// The types of AHCI: the controllers ich9-ahci and ahci, which are one; its disks are those of ide/ide_types.h.
#pragma once

#include "devices/ahci/ahci.h"
#include "object/object_type.h"

namespace kite::devices {

void register_ahci_types(TypeRegistry& registry);

}  // namespace kite::devices
