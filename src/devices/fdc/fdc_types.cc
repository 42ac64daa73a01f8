#include "devices/fdc/fdc_types.h"

#include <algorithm>

#include "devices/storage/disk.h"

namespace kite::devices {

void register_floppy_types(TypeRegistry& registry) {
  registry.add({.name = "isa-fdc",
                .parent = "isa-device",
                .description = "82078 floppy disk controller",
                .bus = "ISA",
                .properties = {
                    property::unsigned_integer("iobase", "first port", 0x3f0, 0, 0xfff8),
                    property::unsigned_integer("irq", "ISA interrupt", 6, 0, 15),
                    property::unsigned_integer("dma", "DMA channel", 2, 0, 3),
                    property::choice("fallback", "type of a drive of no given type without a disk", "288",
                                     {"120", "144", "288"}),
                }});
  std::vector<Property> properties = disk_properties();
  // Floppy drives have no serial number.
  std::erase_if(properties, [](const Property& one) { return one.name == "serial"; });
  properties.push_back(property::string("bus", "the controller's bus; the first with room"));
  properties.push_back(property::signed_integer("unit", "drive A (0) or B (1); -1: the first that is free", -1));
  properties.push_back(property::choice("drive-type", "type of the drive; auto: by the disk that is in it", "auto",
                                        {"auto", "120", "144", "288"}));
  registry.add({.name = "floppy",
                .parent = "device",
                .description = "Floppy disk drive",
                .bus = "floppy-bus",
                .properties = std::move(properties)});
}

}  // namespace kite::devices
