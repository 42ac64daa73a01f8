// -device on the PC: what a user can add to the board besides PCI devices (pc_pci_devices.cc).
#include <algorithm>

#include "devices/debug_exit/debug_exit.h"
#include "devices/debugcon/debugcon.h"
#include "devices/pc_testdev/pc_testdev.h"
#include "devices/virtio/virtio_serial_types.h"
#include "machine/pc/pc_chassis.h"

namespace kite::machine {

Result<std::string> PcChassis::free_path(const DeviceConfig& device) {
  const auto taken = [this](std::string_view path) {
    const std::vector<bus::Device*> all = devices();
    return std::ranges::any_of(all, [path](const bus::Device* other) { return other->path() == path; });
  };
  if (!device.id.empty()) {
    if (taken(device.id)) return fail("-device {}: the id '{}' is taken", device.type, device.id);
    return device.id;
  }
  for (size_t number = user_devices_.size();; ++number)
    if (std::string path = fmt::format("{}.{}", device.type, number); !taken(path)) return path;
}

Result<> PcChassis::add_pc_testdev() {
  devices::PcTestdev::Wiring wiring;
  for (uint32_t line = 0; line < devices::PcTestdev::kLines; ++line) wiring.lines[line] = {*gsi_, line};
  // The page was dropped and mapped again: nobody may keep a translation of it.
  wiring.flush = [this](Gpa) {
    for (Vcpu* vcpu : vcpus_) vcpu->post(request::kFlush);
  };
  KITE_ASSIGN(auto made, devices::PcTestdev::create("pc-testdev", std::move(wiring)));
  using Test = devices::PcTestdev;
  map_port(Test::kLatchPort, made->latch_region());
  map_port(Test::kFlushPort, made->flush_region());
  map_port(Test::kByteLatchPort, made->byte_latch_region());
  map_port(Test::kLinePort, made->line_region());
  context_.memory.root().add(Test::kMemoryAddress, made->memory_region());
  user_devices_.push_back(std::move(made));
  return {};
}

Result<> PcChassis::add_user_serial(const DeviceConfig& device, const std::string& path) {
  const SerialPlace usual = kSerialPlaces[device.properties.integer("index")];
  const uint64_t port = device.properties.integer("iobase"), irq = device.properties.integer("irq");
  const uint32_t line = irq != 0 ? static_cast<uint32_t>(irq) : usual.irq;
  const uint16_t base = port != 0 ? static_cast<uint16_t>(port) : usual.port;
  auto made = std::make_unique<devices::IsaSerial>(path, isa_source(line), context_.clock, device.chardev);
  map_port(base, made->region());
  for (uint8_t index = 0; index < std::size(kSerialPlaces); ++index)
    if (kSerialPlaces[index].port == base && kSerialPlaces[index].irq == line) serial_ports_.push_back(index);
  user_devices_.push_back(std::move(made));
  return {};
}

Result<> PcChassis::add_user_device(const DeviceConfig& device) {
  KITE_ASSIGN(const std::string path, free_path(device));
  if (is_pci_device(device)) return add_pci_device(device, path, false);
  if (find_disk_on_bus(device.type) != nullptr) return add_disk_on_bus(device, path, false);
  if (is_usb_device(device)) return add_usb_device(device, path);
  if (find_disk_maker(device.type) != nullptr) return add_isa_disk(device, path);
  if (devices::is_virtio_serial_port(device.type)) return add_serial_port(device, path);
  if (device.type == "pc-testdev") return add_pc_testdev();
  if (device.type == "isa-serial") return add_user_serial(device, path);
  if (device.type == "isa-debugcon") {
    const auto readback = static_cast<uint32_t>(device.properties.integer("readback"));
    auto made =
        std::make_unique<devices::Debugcon>(path, devices::Debugcon::Config{.readback = readback}, device.chardev);
    map_port(static_cast<uint16_t>(device.properties.integer("iobase")), made->region());
    user_devices_.push_back(std::move(made));
    return {};
  }
  if (device.type == "isa-debug-exit") {
    const auto size = static_cast<uint16_t>(device.properties.integer("iosize"));
    auto made =
        std::make_unique<devices::DebugExit>(path, devices::DebugExit::Config{.iosize = size}, context_.requests.exit);
    map_port(static_cast<uint16_t>(device.properties.integer("iobase")), made->region());
    user_devices_.push_back(std::move(made));
    return {};
  }
  return fail("-device {}: the board {} has no place for it; it is part of the board already", device.type, name());
}

}  // namespace kite::machine
