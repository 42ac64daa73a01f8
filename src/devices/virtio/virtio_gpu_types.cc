#include "devices/virtio/virtio_gpu_types.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace kite::devices {

using namespace virtio_gpu;

namespace {

std::vector<Property> gpu_properties() {
  std::vector<Property> properties = virtio_pci_properties();
  std::vector<Property> own{
      property::choice("disable-legacy", "no legacy interface; there is none, and off is refused", "auto",
                       {"on", "off", "auto"}),
      property::boolean("disable-modern", "no modern interface; it has no other", false),
      property::unsigned_integer("max_outputs", "screens; there is one", 1, 1, 16),
      property::unsigned_integer("xres", "width that the monitor prefers", 1280, 64, 4095),
      property::unsigned_integer("yres", "height that the monitor prefers", 800, 64, 4095),
      property::boolean("edid", "its monitor tells of itself", true),
      property::size("max_hostmem", "most memory that the guest's pictures take", VirtioGpu::kUsualBytes),
      property::boolean("blob", "pictures that stay in the guest's memory; not supported", false),
  };
  std::ranges::move(own, std::back_inserter(properties));
  return properties;
}

struct Parts {
  VirtioGpu::Config gpu;
  VirtioPci::Config transport;
};

Result<Parts> make_parts(std::string_view type, const std::string& path, const PropertyMap& properties,
                         const bus::PciBus& pci) {
  constexpr uint64_t kMib = uint64_t{1} << 20;
  constexpr uint16_t kVectors = 3;  // configuration, and a queue each
  if (properties.string("disable-legacy") == "off")
    return fail("-device {}: disable-legacy=off: it has no legacy interface; leave it out", type);
  if (properties.boolean("disable-modern"))
    return fail("-device {}: disable-modern=on: it has no other interface; leave it out", type);
  if (const uint64_t outputs = properties.integer("max_outputs"); outputs != 1)
    return fail("-device {}: max_outputs={}: this version of Kite has one screen; leave it out", type, outputs);
  if (properties.boolean("blob"))
    return fail("-device {}: blob=on: pictures are copied from the guest's memory here; leave it out", type);
  const uint64_t bytes = properties.integer("max_hostmem");
  if (bytes < kMib || bytes > VirtioGpu::kMostBytes)
    return fail("-device {}: max_hostmem={}: give 1M to {}M, which a saved machine has room for", type, bytes,
                VirtioGpu::kMostBytes / kMib);
  KITE_ASSIGN(VirtioPci::Config transport,
              make_virtio_pci_config(type, properties, pci, kVectors, VirtioModel::kNonTransitional));
  transport.class_code = kClass;
  return Parts{.gpu = {.name = path,
                       .xres = static_cast<uint32_t>(properties.integer("xres")),
                       .yres = static_cast<uint32_t>(properties.integer("yres")),
                       .edid = properties.boolean("edid"),
                       .max_bytes = bytes},
               .transport = transport};
}

}  // namespace

void register_virtio_gpu_types(TypeRegistry& registry) {
  registry.add({.name = "virtio-gpu-pci",
                .parent = "pci-device",
                .description = "virtio graphics card",
                .bus = "PCI",
                .properties = gpu_properties()});
  add_short_virtio_name(registry, "virtio-gpu");
  std::vector<Property> properties = gpu_properties();
  properties.push_back(property::string("romfile", "the VGA BIOS, a file or a name that is searched; empty: none",
                                        "vgabios-virtio.bin"));
  registry.add({.name = "virtio-vga",
                .parent = "pci-device",
                .description = "virtio graphics card that is a VGA until a driver takes it over",
                .bus = "PCI",
                .properties = std::move(properties)});
}

Result<std::unique_ptr<VirtioPci>> make_virtio_gpu(std::string_view type, const std::string& path,
                                                   const PropertyMap& properties, const bus::PciBus& pci,
                                                   display::Console* console, GuestMemory& memory, Executor& home) {
  KITE_ASSIGN(Parts parts, make_parts(type, path, properties, pci));
  auto gpu = std::make_unique<VirtioGpu>(std::move(parts.gpu), console, memory, home, make_virtio_options(properties));
  return std::make_unique<VirtioPci>(path, parts.transport, std::move(gpu));
}

Result<std::unique_ptr<VirtioVga>> make_virtio_vga(const std::string& path, const PropertyMap& properties,
                                                   const bus::PciBus& pci, const std::vector<uint8_t>& rom,
                                                   const VirtioVga::Wiring& wiring, GuestMemory& memory,
                                                   Executor& home) {
  KITE_ASSIGN(Parts parts, make_parts("virtio-vga", path, properties, pci));
  parts.transport.class_code = kVgaClass;
  parts.transport.beside_vga = true;
  auto gpu = std::make_unique<VirtioGpu>(std::move(parts.gpu), nullptr, memory, home, make_virtio_options(properties));
  return VirtioVga::create(path, parts.transport, std::move(gpu), rom, wiring);
}

}  // namespace kite::devices
