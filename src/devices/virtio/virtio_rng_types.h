// What the board calls to know and make virtio-rng-pci.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_rng.h"
#include "object/object_type.h"

namespace kite::devices {

// virtio-rng-pci, -transitional, -non-transitional; the objects rng-builtin and rng-random.
void register_virtio_rng_types(TypeRegistry& registry);

// `pci` is where it will be attached, `path` its bus::Device path.
Result<std::unique_ptr<VirtioPci>> make_virtio_rng(std::string_view type, const std::string& path,
                                                   const PropertyMap& properties, const bus::PciBus& pci,
                                                   std::unique_ptr<entropy::EntropySource> source, Clock& clock,
                                                   GuestMemory& memory, Executor& home);

}  // namespace kite::devices
