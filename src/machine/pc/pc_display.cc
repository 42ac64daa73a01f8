// The display adapter of a PC.
#include <algorithm>

#include "boot/image_bytes.h"
#include "devices/vga/vga.h"
#include "machine/pc/pc_chassis.h"

namespace kite::machine {

bool PcChassis::has_vga() const {
  return std::ranges::any_of(user_devices_,
                             [](const auto& device) { return dynamic_cast<devices::Vga*>(device.get()) != nullptr; });
}

Result<std::unique_ptr<bus::PciDevice>> PcChassis::make_vga(const DeviceConfig& device, const std::string& path) {
  constexpr uint64_t kMostRom = 256 << 10;
  if (has_vga()) return fail("-device VGA: there is one already, at the ports that it would have; use -vga none");
  const PropertyMap& properties = device.properties;
  devices::Vga::Config config{.memory_megs = properties.integer("vgamem_mb"),
                              .edid = properties.boolean("edid"),
                              .xres = static_cast<uint32_t>(properties.integer("xres")),
                              .yres = static_cast<uint32_t>(properties.integer("yres")),
                              .rom = {}};
  // A guest that no CPU runs has no use for it.
  const bool guest_runs =
      std::ranges::find(context_.config.accelerators, "qtest") == context_.config.accelerators.end();
  if (const std::string name = properties.string("romfile"); !name.empty()) {
    const auto file = find_firmware(name, context_.config.firmware.directories);
    if (!file && guest_runs) return fail("-device VGA,romfile={}: {}", name, file.error().message);
    if (file) {
      KITE_ASSIGN(config.rom, boot::read_file(*file, "VGA BIOS", kMostRom));
    }
  }
  KITE_ASSIGN(auto made, devices::Vga::create(path, std::move(config),
                                              {.memory = *pci_memory_,
                                               .ports = context_.ports.root(),
                                               .clock = context_.clock,
                                               .console = context_.console}));
  return std::unique_ptr<bus::PciDevice>(std::move(made));
}

}  // namespace kite::machine
