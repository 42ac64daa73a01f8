// What the board calls to know and make virtio-balloon-pci.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "devices/virtio/virtio_balloon.h"
#include "devices/virtio/virtio_pci.h"
#include "object/object_type.h"

namespace kite::devices {

// virtio-balloon-pci, -transitional, -non-transitional.
void register_virtio_balloon_types(TypeRegistry& registry);

// `pci` is where it will be attached, `path` its bus::Device path.
Result<std::unique_ptr<VirtioPci>> make_virtio_balloon(std::string_view type, const std::string& path,
                                                       const PropertyMap& properties, const bus::PciBus& pci,
                                                       uint64_t ram_bytes, VirtioBalloon::Wiring wiring,
                                                       GuestMemory& memory, Executor& home);

}  // namespace kite::devices
