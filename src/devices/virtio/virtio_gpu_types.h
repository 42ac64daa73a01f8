// What the board calls to know and make virtio-gpu-pci and virtio-vga.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio/virtio_gpu.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_vga.h"
#include "object/object_type.h"

namespace kite::devices {

// virtio-gpu-pci, virtio-vga.
void register_virtio_gpu_types(TypeRegistry& registry);

// virtio-gpu-pci. `pci` is where it will be attached, `path` its bus::Device path; `console` may be null.
Result<std::unique_ptr<VirtioPci>> make_virtio_gpu(std::string_view type, const std::string& path,
                                                   const PropertyMap& properties, const bus::PciBus& pci,
                                                   display::Console* console, GuestMemory& memory, Executor& home);

// virtio-vga, with the VGA BIOS `rom`.
Result<std::unique_ptr<VirtioVga>> make_virtio_vga(const std::string& path, const PropertyMap& properties,
                                                   const bus::PciBus& pci, const std::vector<uint8_t>& rom,
                                                   const VirtioVga::Wiring& wiring, GuestMemory& memory,
                                                   Executor& home);

}  // namespace kite::devices
