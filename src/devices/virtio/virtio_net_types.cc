#include "devices/virtio/virtio_net_types.h"

#include <array>

#include "devices/virtio/virtio_net_regs.h"

namespace kite::devices {

using namespace virtio_net;

namespace {

// Properties that offer a feature.
struct Feature {
  const char* name;
  const char* description;
  uint64_t bits;
};
constexpr std::array kFeatures{
    Feature{"csum", "the device completes checksums of what the guest sends", kChecksum},
    Feature{"guest_csum", "the guest hears which checksums are good already", kGuestChecksum},
    Feature{"mrg_rxbuf", "a frame may be received in more buffers than one", kMergeable},
    Feature{"status", "the guest sees whether the link is up", kStatus},
    Feature{"ctrl_vq", "a queue for commands; without it, none of the ctrl_* below", kControl},
    Feature{"ctrl_rx", "the guest says which frames it wants", kControlReceive},
    Feature{"ctrl_rx_extra", "it can say so in more ways", kControlReceiveExtra},
    Feature{"ctrl_vlan", "it says which VLANs it wants", kControlVlan},
    Feature{"ctrl_mac_addr", "it sets the card's address by a command", kControlMac},
};
constexpr uint64_t kControls = kControlReceive | kControlReceiveExtra | kControlVlan | kControlMac;

std::vector<Property> net_properties() {
  std::vector<Property> properties{
      property::string("mac", "the card's address; the next one of 52:54:00:12:34:56 and up"),
      property::link("netdev", "the -netdev that its cable goes to", "netdev"),
      property::unsigned_integer("host_mtu", "the longest packet, as the guest is told; 0: it is not", 0, 0, 0xffff),
      property::signed_integer("bootindex", "place in the order of what firmware boots; -1: none", -1),
      property::boolean("mq", "more pairs of queues than one; not supported", false),
      property::string("romfile", "firmware of the card's own; only none is supported"),
  };
  for (const Feature& feature : kFeatures)
    properties.push_back(property::boolean(feature.name, feature.description, true));
  return properties;
}

}  // namespace

void register_virtio_net_types(TypeRegistry& registry) {
  add_virtio_pci_types(registry, "virtio-net-pci", "virtio network card", net_properties());
  add_short_virtio_name(registry, "virtio-net");
}

bool is_virtio_net(std::string_view type) { return type == "virtio-net" || type.starts_with("virtio-net-pci"); }

Result<std::unique_ptr<VirtioPci>> make_virtio_net(std::string_view type, const std::string& path,
                                                   const PropertyMap& properties, const bus::PciBus& pci,
                                                   const net::MacAddress& mac, net::NetBackend* backend,
                                                   GuestMemory& memory, Executor& home) {
  if (properties.boolean("mq")) return fail("-device {}: mq=on: this version of Kite has one pair of queues", type);
  if (!properties.string("romfile").empty())
    return fail("-device {}: romfile={}: this version of Kite has no firmware on cards; leave it out", type,
                properties.string("romfile"));
  const uint64_t mtu = properties.integer("host_mtu");
  if (mtu != 0 && mtu < kLeastMtu)
    return fail("-device {}: host_mtu={}: an Ethernet has {} at least", type, mtu, kLeastMtu);
  VirtioNet::Config config{.name = path,
                           .model = type == "virtio-net" ? "virtio-net-pci" : std::string(type),
                           .mac = mac,
                           .backend = backend,
                           .mtu = static_cast<uint16_t>(mtu)};
  for (const Feature& feature : kFeatures)
    if (properties.boolean(feature.name)) config.features |= feature.bits;
  if ((config.features & kControl) == 0) config.features &= ~kControls;
  const auto vectors = static_cast<uint16_t>((config.features & kControl) != 0 ? 4 : 3);
  KITE_ASSIGN(VirtioPci::Config transport, make_virtio_pci_config(type, properties, pci, vectors));
  transport.legacy_device_id = kLegacyDeviceId;
  transport.class_code = kClass;
  auto device = std::make_unique<VirtioNet>(std::move(config), memory, home, make_virtio_options(properties));
  return std::make_unique<VirtioPci>(path, transport, std::move(device));
}

}  // namespace kite::devices
