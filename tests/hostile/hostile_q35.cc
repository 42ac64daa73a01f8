// What a hostile guest, and a hostile client of the monitor, do to the q35 board besides what every PC has to bear.
#include "hostile/hostile_board.h"

namespace kite::hostile {

namespace {

constexpr uint64_t kEcam = 0xb0000000, kRoot = 0xfed1c000;
constexpr uint8_t kLpc = 0xf8;                            // 1f.0
constexpr uint8_t kPorts[] = {0x10, 0x11};                // 02.0 and 02.1: root ports
constexpr uint8_t kBridges[] = {0x10, 0x11, 0x18, 0x20};  // and 03.0: bridge, 04.0: ioh3420
constexpr uint8_t kBridgeRegisters[] = {0x04, 0x10, 0x18, 0x19, 0x1a, 0x1c, 0x1d, 0x20,
                                        0x22, 0x24, 0x26, 0x28, 0x2c, 0x3c, 0x3e};
constexpr uint16_t kSlotRegisters[] = {0xa8, 0xaa, 0xa0, 0x98, 0x9a, 0x60, 0x62, 0x64, 0x6c, 0x70, 0x74};
constexpr uint8_t kHostRegisters[] = {0x50, 0x60, 0x64, 0x90, 0x93, 0x96, 0x97, 0x9c, 0x9d, 0x9e};
constexpr uint8_t kLpcRegisters[] = {0x40, 0x44, 0x60, 0x63, 0x64, 0x68, 0x6b, 0xa0, 0xf0};
constexpr const char* kHotDevices[] = {"pci-testdev,bus=port0,id=hot0",     "pci-testdev,bus=port1,id=hot1",
                                       "pci-testdev,bus=port1,id=hot0",     "pci-testdev,bus=nowhere,id=hot2",
                                       "pcie-pci-bridge,bus=port0,id=hot3", "pci-testdev,bus=pcie.0,id=hot4",
                                       "usb-mouse,bus=xhci,id=hot5",        "usb-kbd,bus=uhci,id=hot5"};
constexpr const char* kIds[] = {"hot0", "hot1", "hot5", "cold", "port0", "behind", "nobody"};

}  // namespace

std::vector<const char*> HostileBoard::q35_devices() {
  return {"pcie-root-port,id=port0,addr=2.0,multifunction=on",
          "pcie-root-port,id=port1,addr=2.1",
          "i82801b11-bridge,id=dmi,addr=3",
          "ioh3420,id=port2,addr=4",
          "pci-testdev,id=cold,bus=port0",
          "pci-bridge,id=conventional,bus=dmi,addr=1",
          "pci-testdev,id=behind,bus=conventional,addr=5.3"};
}

void HostileBoard::q35() {
  if (!q35_) return any_config();
  switch (below(10)) {
    case 0: return q35_ecam();
    case 1: return q35_open();
    case 2: config_write(0, pick(kHostRegisters), value(), width()); break;
    case 3: config_write(kLpc, pick(kLpcRegisters), value(), width()); break;
    case 4: config_write(pick(kBridges), pick(kBridgeRegisters), value(), width()); break;
    case 5: config_write(pick(kPorts), static_cast<uint8_t>(pick(kSlotRegisters)), value(), width()); break;
    case 6: out(static_cast<uint16_t>(0x600 + below(0x80)), value(), width()); break;  // events, SMI, TCO
    case 7: machine_->io().mmio_write(kRoot + 0x3100 + below(0x320), width(), value()); break;
    case 8: return q35_plug();
    default: return q35_slot();
  }
}

// As firmware leaves it, more or less.
void HostileBoard::q35_open() {
  config_write(kLpc, 0x40, 0x601, 4);
  config_write(kLpc, 0x44, 0x80, 1);
  config_write(kLpc, 0xf0, static_cast<uint32_t>(kRoot) | 1, 4);
  config_write(0, 0x60, static_cast<uint32_t>(kEcam) | 1 | below(4) << 1, 4);
  uint8_t bus = 1;
  for (const uint8_t bridge : kBridges) {
    config_write(bridge, 0x19, bus, 1);
    config_write(bridge, 0x1a, static_cast<uint32_t>(bus + below(3)), 1);
    config_write(bridge, 0x04, 7, 2);
    bus = static_cast<uint8_t>(bus + 2);
  }
}

void HostileBoard::q35_ecam() {
  const uint64_t address =
      kEcam + (uint64_t{below(10)} << 20 | uint64_t{below(4)} << 15 | uint64_t{byte()} << 4 | below(16));
  if (flip())
    machine_->io().mmio_read(address, 1u << below(4));
  else
    machine_->io().mmio_write(address, 1u << below(4), value());
}

// A slot as a driver uses it: events on, power, acknowledgement.
void HostileBoard::q35_slot() {
  const uint8_t port = pick(kPorts);
  config_write(port, 0x62, below(2), 1);
  config_write(port, 0xa8, 0x103b | (flip() ? 0x400u : 0u) | below(4) << 8, 2);
  config_write(port, 0xaa, 0xffff, 2);
  config_read(port, 0xaa, 2);
}

// The client's side.
void HostileBoard::q35_plug() {
  if (flip()) {
    const auto options = parse_object_options(pick(kHotDevices), "driver");
    if (options) (void)machine_->add_device(*options);
  } else {
    (void)machine_->remove_device(pick(kIds));
  }
}

}  // namespace kite::hostile
