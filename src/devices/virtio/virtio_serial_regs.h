// The console device. [VIRTIO 1.2] 5.3.
#pragma once

#include <cstdint>

namespace kite::devices::virtio_serial {

inline constexpr uint16_t kType = 3;
inline constexpr uint16_t kLegacyDeviceId = 0x1003;
inline constexpr uint32_t kClass = 0x078000;  // communication controller of another kind

// 5.3.2: port 0 has queues 0 and 1, port n > 0 has 2n+2 and 2n+3.
inline constexpr uint16_t kControlReceive = 2, kControlTransmit = 3;
constexpr uint16_t receive_queue(uint32_t port) { return static_cast<uint16_t>(port == 0 ? 0 : 2 * port + 2); }
constexpr uint16_t transmit_queue(uint32_t port) { return static_cast<uint16_t>(receive_queue(port) + 1); }
constexpr uint32_t port_of(uint16_t queue) { return queue < 2 ? 0 : (queue - 2u) / 2; }
constexpr uint32_t queues_of(uint32_t ports) { return ports == 1 ? 2 : 2 * ports + 2; }
inline constexpr uint32_t kMostPorts = 511;

// 5.3.3; SIZE is not offered.
inline constexpr uint64_t kMultiport = 1u << 1, kEmergencyWrite = 1u << 2;

// 5.3.4
enum Config : uint8_t {
  kMostPortsAt = 4,  // r-  32  with MULTIPORT
  kEmergencyAt = 8,  // -w  32  with EMERG_WRITE
  kConfigBytes = 12,
};

// 5.3.6.2 Control messages: u32 port, u16 event, u16 value; behind PORT_NAME the name.
enum Event : uint16_t {
  kDeviceReady = 0,  // the driver's
  kPortAdd = 1,      // the device's
  kPortRemove = 2,   // the device's
  kPortReady = 3,    // the driver's
  kConsolePort = 4,  // the device's
  kPortOpen = 6,     // both
  kPortName = 7,     // the device's
};
inline constexpr unsigned kMessageBytes = 8;
inline constexpr size_t kMostNameBytes = 1024;

}  // namespace kite::devices::virtio_serial
