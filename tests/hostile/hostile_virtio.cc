// A hostile driver of the virtio balloon, random number generator, serial ports and graphics card, and what the host
// does to these.
#include <nlohmann/json.hpp>

#include "devices/virtio/test_gpu_commands.h"
#include "devices/virtio/virtio_gpu.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_regs.h"
#include "devices/virtio/virtio_serial_regs.h"
#include "hostile/hostile_board.h"

namespace kite::hostile {

namespace {

using namespace devices::virtio_pci;  // NOLINT: the registers

constexpr unsigned kDevices = 4, kFirstSlot = 0x10, kSerial = 2, kScreen = 3;
constexpr uint64_t kRegisters = 0xc1000000, kRegistersEach = 0x10000;
constexpr unsigned kNotify = 0x3000, kDeviceConfig = 0x2000;
constexpr uint16_t kQueues = 6, kRingSize = 8;
constexpr uint64_t kRings = 0x40000, kRingEach = 0x1000, kAvail = 0x100, kUsed = 0x200, kBuffers = 0x80000;

constexpr uint16_t kSaid[] = {devices::virtio_serial::kDeviceReady, devices::virtio_serial::kPortReady,
                              devices::virtio_serial::kPortOpen, 9};

constexpr uint64_t registers_of(unsigned device) { return kRegisters + device * kRegistersEach; }
constexpr uint64_t ring_of(unsigned device, uint16_t queue) { return kRings + (device * kQueues + queue) * kRingEach; }

}  // namespace

void HostileBoard::virtio() {
  const unsigned device = below(kDevices);
  machine::MachineIo& io = machine_->io();
  switch (below(20)) {
    case 0: return virtio_set_up(device);
    case 1:
    case 2: return virtio_host();
    case 6: return virtio_open_ports();
    case 8:
    case 9:
    case 10: return virtio_draw();
    case 7: io.mmio_write(registers_of(device) + below(kCommonBytes), width(), value()); break;
    case 3: io.mmio_write(registers_of(device) + kDeviceConfig + below(16), width(), value()); break;
    case 4: io.mmio_read(registers_of(device) + kDeviceConfig * below(2) + below(64), width()); break;
    case 5: config_write(static_cast<uint8_t>((kFirstSlot + device) << 3), byte(), value(), width()); break;
    default: virtio_request(device);
  }
}

// As a driver does it, with some of what is offered.
void HostileBoard::virtio_set_up(unsigned device) {
  const auto devfn = static_cast<uint8_t>((kFirstSlot + device) << 3);
  const uint64_t at = registers_of(device);
  config_write(devfn, 0x20, static_cast<uint32_t>(at), 4);
  config_write(devfn, 0x24, 0, 4);
  config_write(devfn, 0x04, 7, 2);
  machine::MachineIo& io = machine_->io();
  const auto put = [&](uint64_t offset, unsigned size, uint64_t what) { io.mmio_write(at + offset, size, what); };
  for (const unsigned status : {0u, 1u, 3u}) put(kDeviceStatus, 1, status);
  executor_->run_once(0);
  // The lower half as it comes, VERSION_1 mostly, packed rings sometimes.
  const uint32_t refused = below(4) != 0 ? 0 : value();
  put(kDeviceFeatureSelect, 4, 0);
  const auto low = static_cast<uint32_t>(io.mmio_read(at + kDeviceFeature, 4));
  put(kDriverFeatureSelect, 4, 0);
  put(kDriverFeature, 4, low & ~refused);
  put(kDriverFeatureSelect, 4, 1);
  put(kDriverFeature, 4, (below(16) != 0 ? 1 : 0) | (device == 0 && below(4) == 0 ? 4 : 0));
  put(kDeviceStatus, 1, 11);
  for (uint16_t queue = 0; queue < kQueues; ++queue) {
    const uint64_t ring = ring_of(device, queue);
    for (uint64_t offset = 0; offset < kUsed + 0x80; offset += 8) io.mmio_write(ring + offset, 8, 0);
    put(kQueueSelect, 2, queue);
    put(kQueueSize, 2, kRingSize);
    put(kQueueDescriptors, 4, ring);
    put(kQueueDriver, 4, ring + kAvail);
    put(kQueueDevice, 4, ring + kUsed);
    put(kQueueEnable, 2, 1);
  }
  put(kDeviceStatus, 1, 15);
}

// One buffer and a kick, as it should be; `room` bytes behind the buffer are for an answer.
void HostileBoard::virtio_offer(unsigned device, uint16_t queue, uint64_t buffer, uint32_t bytes, bool write,
                                uint32_t room) {
  machine::MachineIo& io = machine_->io();
  const uint64_t ring = ring_of(device, queue);
  const auto index = static_cast<uint16_t>(io.mmio_read(ring + kAvail + 2, 2));
  const uint64_t slot = index % kRingSize;
  io.mmio_write(ring + slot * 16, 8, buffer);
  const uint64_t next = (slot + 1) % kRingSize;
  const uint64_t flags = (write ? devices::virtio::kWrite : 0u) | (room != 0 ? devices::virtio::kNext : 0u);
  io.mmio_write(ring + slot * 16 + 8, 8, bytes | flags << 32 | next << 48);
  if (room != 0) {
    io.mmio_write(ring + next * 16, 8, buffer + bytes);
    io.mmio_write(ring + next * 16 + 8, 8, room | uint64_t{devices::virtio::kWrite} << 32);
  }
  io.mmio_write(ring + kAvail + 4 + slot * 2, 2, slot);
  io.mmio_write(ring + kAvail + 2, 2, static_cast<uint16_t>(index + 1));
  io.mmio_write(registers_of(device) + kNotify + 4u * queue, 2, queue);
  executor_->run_once(0);
}

// What the driver of the serial device says first, and room for what it hears.
void HostileBoard::virtio_open_ports() {
  using namespace devices::virtio_serial;  // NOLINT: the messages
  if (flip()) virtio_set_up(kSerial);
  const auto say = [&](uint64_t port, Event event) {
    machine_->io().mmio_write(kBuffers, 8, port | uint64_t{event} << 32 | uint64_t{1} << 48);
    virtio_offer(kSerial, kControlTransmit, kBuffers, kMessageBytes, false);
  };
  for (unsigned count = below(kRingSize); count > 0; --count)
    virtio_offer(kSerial, kControlReceive, kBuffers + 0x100 + count * 0x40, 0x40, true);
  say(0, kDeviceReady);
  for (const unsigned port : {0u, 1u}) {
    say(port, kPortReady);
    if (flip()) say(port, kPortOpen);
    for (unsigned count = below(4); count > 0; --count)
      virtio_offer(kSerial, receive_queue(port), kBuffers + 0x400 + count * 0x40, 1 + below(0x40), true);
  }
}

// Some chains, mostly such as make sense, and a kick.
void HostileBoard::virtio_request(unsigned device) {
  machine::MachineIo& io = machine_->io();
  const auto queue = static_cast<uint16_t>(below(kQueues));
  const uint64_t ring = ring_of(device, queue);
  using devices::virtio::Status;
  const uint64_t status = io.mmio_read(registers_of(device) + kDeviceStatus, 1);
  if ((status & (Status::kDriverOk | Status::kNeedsReset)) != Status::kDriverOk && flip()) virtio_set_up(device);
  for (unsigned count = 1 + below(4); count > 0; --count) {
    const uint64_t buffer = kBuffers + below(64) * 0x400;
    // Numbers of pages and of statistics, or what a driver says of a port.
    for (unsigned word = below(4); word > 0; --word) io.mmio_write(buffer + word * 4, 4, below(2048));
    if (device == kSerial && queue == devices::virtio_serial::kControlTransmit)
      io.mmio_write(buffer, 8, below(3) | uint64_t{pick(kSaid)} << 32 | uint64_t{below(4) != 0} << 48);
    const unsigned slot = below(kRingSize);
    io.mmio_write(ring + slot * 16, 8, below(16) != 0 ? buffer : uint64_t{value()} << 20);
    io.mmio_write(ring + slot * 16 + 8, 4, below(16) != 0 ? 8 + below(512) : value());
    // Packed rings take the last two the other way round.
    const unsigned flags = (flip() ? devices::virtio::kWrite : 0) | (below(4) == 0 ? devices::virtio::kNext : 0);
    io.mmio_write(ring + slot * 16 + 12, 2, below(16) != 0 ? flags : value());
    io.mmio_write(ring + slot * 16 + 14, 2, flip() ? below(kRingSize) : below(4) << 14 | 0x80 | flags);
    const auto index = static_cast<uint16_t>(io.mmio_read(ring + kAvail + 2, 2));
    io.mmio_write(ring + kAvail + 4 + index % kRingSize * 2u, 2, slot);
    io.mmio_write(ring + kAvail + 2, 2, static_cast<uint16_t>(index + 1));
  }
  io.mmio_write(registers_of(device) + kNotify + 4u * queue, 2, queue);
  for (unsigned turns = below(4); turns > 0; --turns) executor_->run_once(0);
}

// Some commands for the graphics card, and a look at the screen.
void HostileBoard::virtio_draw() {
  constexpr uint64_t kRequest = kBuffers + 0x10000;
  machine::MachineIo& io = machine_->io();
  if (below(8) == 0 || (io.mmio_read(registers_of(kScreen) + kDeviceStatus, 1) & devices::virtio::kDriverOk) == 0)
    virtio_set_up(kScreen);
  for (unsigned count = 1 + below(4); count > 0; --count) {
    std::vector<uint32_t> words =
        testing::gpu_command([this](uint32_t bound) { return below(bound); }, static_cast<uint32_t>(kBuffers));
    if (below(8) == 0) words[below(static_cast<uint32_t>(words.size()))] = value();
    const uint16_t queue = words[0] >= devices::virtio_gpu::kUpdateCursor ? 1 : 0;
    for (size_t word = 0; word < words.size(); ++word) io.mmio_write(kRequest + word * 4, 4, words[word]);
    virtio_offer(kScreen, queue, kRequest, static_cast<uint32_t>(words.size() * 4), false, 8u << below(8));
  }
  auto* const function = dynamic_cast<devices::VirtioPci*>(machine_->board().find_device("screen"));
  if (function == nullptr || below(4) != 0) return;
  auto& gpu = dynamic_cast<devices::VirtioGpu&>(function->device());
  gpu.watched(flip());
  gpu.draw(surface_, flip());
}

void HostileBoard::virtio_host() {
  HostileConsole& console = consoles_[5 + below(2)];
  switch (below(5)) {
    case 0: return console.set_open(flip());
    case 1: return console.set_room(flip() ? below(20) : SIZE_MAX);
    case 2: {
      const std::array<uint8_t, 200> text{byte(), byte(), byte()};
      return console.type(std::span(text).first(1 + below(text.size())));
    }
    case 3:
      if (auto* const balloon = machine_->board().balloon(); balloon != nullptr) balloon->set_target(value());
      return;
    default: break;
  }
  auto* const balloon = machine_->board().balloon();
  if (balloon == nullptr) return;
  for (const LiveProperty& property : balloon->live_properties())
    if (property.set) static_cast<void>(property.set(below(3)));
}

}  // namespace kite::hostile
