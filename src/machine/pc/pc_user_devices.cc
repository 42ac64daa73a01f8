// -device on the PC: what a user can add to the board.
#include "devices/debug_exit/debug_exit.h"
#include "devices/debugcon/debugcon.h"
#include "devices/pc_testdev/pc_testdev.h"
#include "devices/pci_testdev/pci_testdev.h"
#include "machine/pc/pc_chassis.h"

namespace kite::machine {

namespace {

std::string user_path(const DeviceConfig& device, size_t number) {
  return device.id.empty() ? fmt::format("{}.{}", device.type, number) : device.id;
}

}  // namespace

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
  const std::string path = user_path(device, user_devices_.size());
  for (const bus::Device* other : devices())
    if (other->path() == path) return fail("-device {}: the id '{}' is taken", device.type, path);
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
  if (device.type == "pci-testdev") {
    auto made = std::make_unique<devices::PciTestdev>(path);
    KITE_ASSIGN(const uint8_t slot, pci_->free_slot());
    KITE_TRY(pci_->attach(*made, slot, 0));
    user_devices_.push_back(std::move(made));
    return {};
  }
  return fail("-device {}: the board {} has no place for it; it is part of the board already", device.type, name());
}

}  // namespace kite::machine
