#include "devices/ahci/ahci_types.h"

namespace kite::devices {

void register_ahci_types(TypeRegistry& registry) {
  for (const char* name : {"ich9-ahci", "ahci"})
    registry.add({.name = name,
                  .parent = "pci-device",
                  .description = "AHCI adapter of the ICH9, six Serial ATA ports",
                  .bus = "PCI",
                  .properties = {}});
}

}  // namespace kite::devices
