// What the board calls to know and make virtio-net-pci.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_pci.h"
#include "object/object_type.h"

namespace kite::devices {

// virtio-net-pci, -transitional, -non-transitional.
void register_virtio_net_types(TypeRegistry& registry);

// Whether it is one of these.
bool is_virtio_net(std::string_view type);

// `pci` is where it will be attached, `path` its bus::Device path; `backend` may be null, `home` is its executor.
Result<std::unique_ptr<VirtioPci>> make_virtio_net(std::string_view type, const std::string& path,
                                                   const PropertyMap& properties, const bus::PciBus& pci,
                                                   const net::MacAddress& mac, net::NetBackend* backend,
                                                   GuestMemory& memory, Executor& home);

}  // namespace kite::devices
