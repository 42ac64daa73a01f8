// What the board calls to know and make virtio devices.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "devices/storage/disk.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_blk_regs.h"
#include "devices/virtio/virtio_pci.h"
#include "object/object_type.h"

namespace kite::devices {

// The property num-queues: as many as there are CPUs.
inline constexpr uint64_t kQueuePerCpu = 0xffff;
inline constexpr size_t kMostSerialBytes = 20;

// virtio-blk-pci, -transitional, -non-transitional.
void register_virtio_types(TypeRegistry& registry);

// One of these; `bus` is where it will be attached, `path` its bus::Device path.
Result<std::unique_ptr<VirtioPci>> make_virtio_blk(std::string_view type, const std::string& path,
                                                   const PropertyMap& properties, const bus::PciBus& bus,
                                                   DiskConfig disk, uint32_t cpu_count, GuestMemory& memory);

}  // namespace kite::devices
