// What the board calls to know and make virtio-scsi-pci.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_scsi.h"
#include "object/object_type.h"

namespace kite::devices {

// virtio-scsi-pci, -transitional, -non-transitional.
void register_virtio_scsi_types(TypeRegistry& registry);

struct VirtioScsiMade {
  std::unique_ptr<VirtioPci> function;
  ScsiBus* bus;  // the function's
};
// `pci` is where it will be attached, `path` its bus::Device path, `bus_name` that of its SCSI bus; `home` best the
// executor of the disks that it will have.
Result<VirtioScsiMade> make_virtio_scsi(std::string_view type, const std::string& path, std::string bus_name,
                                        const PropertyMap& properties, const bus::PciBus& pci, uint32_t cpu_count,
                                        GuestMemory& memory, Executor& home);

}  // namespace kite::devices
