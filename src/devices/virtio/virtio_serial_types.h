// What the board calls to know and make virtio-serial-pci and its ports.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_serial_port.h"
#include "object/object_type.h"

namespace kite::devices {

// virtio-serial-pci, -transitional, -non-transitional; virtserialport and virtconsole, which go on its bus.
void register_virtio_serial_types(TypeRegistry& registry);

[[nodiscard]] bool is_virtio_serial_port(std::string_view type);

// `pci` is where it will be attached, `path` its bus::Device path.
Result<std::unique_ptr<VirtioPci>> make_virtio_serial(std::string_view type, const std::string& path,
                                                      std::string bus_name, const PropertyMap& properties,
                                                      const bus::PciBus& pci, GuestMemory& memory, Executor& home);

// Plugged into `serial`. `changed` as VirtioSerialPort::Config has it.
Result<std::unique_ptr<VirtioSerialPort>> make_virtio_serial_port(std::string_view type, const std::string& path,
                                                                  const PropertyMap& properties, Chardev* chardev,
                                                                  VirtioSerial& serial,
                                                                  std::function<void(bool open)> changed);

}  // namespace kite::devices
