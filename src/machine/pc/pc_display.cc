// The display adapters of a PC.
#include <algorithm>

#include "boot/image_bytes.h"
#include "devices/vga/vga.h"
#include "devices/virtio/virtio_gpu_types.h"
#include "machine/pc/pc_chassis.h"

namespace kite::machine {

namespace {

bool is_vga(const bus::Device& device) {
  return dynamic_cast<const devices::Vga*>(&device) != nullptr ||
         dynamic_cast<const devices::VirtioVga*>(&device) != nullptr;
}

}  // namespace

bool PcChassis::has_vga() const {
  return std::ranges::any_of(user_devices_, [](const auto& device) { return is_vga(*device); });
}

bool PcChassis::is_display(std::string_view type) {
  return type == "VGA" || type == "virtio-vga" || type == "virtio-gpu-pci" || type == "virtio-gpu";
}

bool PcChassis::is_display(bus::PciDevice& function) {
  auto* const virtio = dynamic_cast<devices::VirtioPci*>(&function);
  return is_vga(function) || (virtio != nullptr && dynamic_cast<devices::VirtioGpu*>(&virtio->device()) != nullptr);
}

Result<std::vector<uint8_t>> PcChassis::vga_rom(const DeviceConfig& device) const {
  constexpr uint64_t kMostRom = 256 << 10;
  const std::string name = device.properties.string("romfile");
  if (name.empty()) return std::vector<uint8_t>{};
  const auto file = find_firmware(name, context_.config.firmware.directories);
  if (file) return boot::read_file(*file, "VGA BIOS", kMostRom);
  // A guest that no CPU runs has no use for it.
  const bool guest_runs =
      std::ranges::find(context_.config.accelerators, "qtest") == context_.config.accelerators.end();
  if (guest_runs) return fail("-device {},romfile={}: {}", device.type, name, file.error().message);
  return std::vector<uint8_t>{};
}

Result<std::unique_ptr<bus::PciDevice>> PcChassis::make_display(const DeviceConfig& device, const std::string& path,
                                                                const bus::PciBus& bus) {
  const PropertyMap& properties = device.properties;
  const bool is_virtio = device.type != "VGA";
  if (is_virtio && context_.executor == nullptr)
    return fail("-device {}: this machine has nobody to serve it", device.type);
  if (is_virtio && device.type != "virtio-vga") {
    KITE_ASSIGN(auto card, devices::make_virtio_gpu(device.type, path, properties, bus, context_.console, guest_memory_,
                                                    *context_.executor));
    return std::unique_ptr<bus::PciDevice>(std::move(card));
  }
  if (has_vga())
    return fail("-device {}: there is a VGA already, at the ports that it would have; use -vga none", device.type);
  KITE_ASSIGN(std::vector<uint8_t> rom, vga_rom(device));
  const devices::VgaCore::Wiring wiring{
      .memory = *pci_memory_, .ports = context_.ports.root(), .clock = context_.clock};
  if (is_virtio) {
    KITE_ASSIGN(auto card,
                devices::make_virtio_vga(path, properties, bus, rom, {.vga = wiring, .console = context_.console},
                                         guest_memory_, *context_.executor));
    return std::unique_ptr<bus::PciDevice>(std::move(card));
  }
  KITE_ASSIGN(auto card, devices::Vga::create(path,
                                              {.memory_megs = properties.integer("vgamem_mb"),
                                               .edid = properties.boolean("edid"),
                                               .xres = static_cast<uint32_t>(properties.integer("xres")),
                                               .yres = static_cast<uint32_t>(properties.integer("yres")),
                                               .rom = std::move(rom)},
                                              {.vga = wiring, .console = context_.console}));
  return std::unique_ptr<bus::PciDevice>(std::move(card));
}

}  // namespace kite::machine
