#include "devices/vga/vga_types.h"

#include "devices/vga/vga.h"

namespace kite::devices {

void register_vga_types(TypeRegistry& registry) {
  registry.add({.name = "VGA",
                .parent = "pci-device",
                .description = "VGA card with Bochs' display interface",
                .bus = "PCI",
                .properties = {
                    property::unsigned_integer("vgamem_mb", "its memory in MiB, made a power of two", Vga::kUsualMegs,
                                               1, VgaCore::kMostMegs),
                    property::boolean("edid", "its monitor tells of itself", true),
                    property::unsigned_integer("xres", "width that the monitor prefers", 1280, 64, 4095),
                    property::unsigned_integer("yres", "height that the monitor prefers", 800, 64, 4095),
                    property::string("romfile", "the VGA BIOS, a file or a name that is searched; empty: none",
                                     "vgabios-stdvga.bin"),
                }});
}

}  // namespace kite::devices
