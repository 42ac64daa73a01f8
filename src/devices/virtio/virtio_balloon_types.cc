#include "devices/virtio/virtio_balloon_types.h"

namespace kite::devices {

using namespace virtio_balloon;

void register_virtio_balloon_types(TypeRegistry& registry) {
  add_virtio_pci_types(
      registry, "virtio-balloon-pci", "virtio memory balloon",
      {property::boolean("deflate-on-oom", "the guest may take memory back before it runs out", false),
       property::boolean("free-page-reporting", "the host takes back memory that the guest has free", false),
       property::boolean("free-page-hint", "free memory is not migrated; not supported", false),
       property::boolean("page-poison", "the guest says what it fills free memory with", true)});
  add_short_virtio_name(registry, "virtio-balloon");
}

Result<std::unique_ptr<VirtioPci>> make_virtio_balloon(std::string_view type, const std::string& path,
                                                       const PropertyMap& properties, const bus::PciBus& pci,
                                                       uint64_t ram_bytes, VirtioBalloon::Wiring wiring,
                                                       GuestMemory& memory, Executor& home) {
  if (properties.boolean("free-page-hint"))
    return fail(
        "-device {}: free-page-hint=on: this version of Kite has no use for hints; free-page-reporting=on gives "
        "free memory back at once",
        type);
  VirtioBalloon::Config config{.name = path,
                               .ram_bytes = ram_bytes,
                               .deflate_on_oom = properties.boolean("deflate-on-oom"),
                               .page_poison = properties.boolean("page-poison"),
                               .reporting = properties.boolean("free-page-reporting")};
  constexpr uint16_t kVectors = 2;  // configuration, and all queues
  KITE_ASSIGN(VirtioPci::Config transport, make_virtio_pci_config(type, properties, pci, kVectors));
  transport.legacy_device_id = kLegacyDeviceId;
  transport.class_code = kClass;
  auto device = std::make_unique<VirtioBalloon>(std::move(config), std::move(wiring), memory, home,
                                                make_virtio_options(properties));
  return std::make_unique<VirtioPci>(path, transport, std::move(device));
}

}  // namespace kite::devices
