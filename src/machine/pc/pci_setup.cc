#include "machine/pc/pci_setup.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "support/bits.h"
#include "support/log.h"

namespace kite::machine {

namespace {

namespace pci = bus::pci;
constexpr uint64_t kMib = 1 << 20, kIoGranule = 0x1000;
// For what may come, behind a bridge with nothing there yet.
constexpr uint64_t kHotplugMemory = 2 * kMib;

class Setup {
 public:
  explicit Setup(const PciResources& resources)
      : resources_(resources), memory_(resources.memory_start), port_(resources.port_start) {}

  void number_buses(bus::PciBus& bus) {
    for (bus::PciDevice* device : bus.devices()) {
      bus::PciBridge* const bridge = device->as_bridge();
      if (bridge == nullptr || last_bus_ == 0xff) continue;
      bridge->config_write(pci::kPrimaryBus, 1, bus.number());
      bridge->config_write(pci::kSecondaryBus, 1, ++last_bus_);
      bridge->config_write(pci::kSubordinateBus, 1, 0xff);
      number_buses(bridge->secondary());
      bridge->config_write(pci::kSubordinateBus, 1, last_bus_);
    }
  }

  // The bus's own BARs, the largest first, then what is behind its bridges.
  void assign(bus::PciBus& bus) {
    struct Want {
      bus::PciDevice* device;
      unsigned index;
      bus::PciDevice::BarInfo info;
    };
    std::vector<Want> wants;
    for (bus::PciDevice* device : bus.devices())
      for (unsigned index = 0; index < bus::PciDevice::kBars; ++index)
        if (const auto info = device->bar(index); info.size != 0) wants.push_back({device, index, info});
    std::sort(wants.begin(), wants.end(), [](const Want& a, const Want& b) {
      return std::tuple(b.info.size, a.device->devfn(), a.index) < std::tuple(a.info.size, b.device->devfn(), b.index);
    });
    for (const Want& want : wants) assign_bar(*want.device, want.index, want.info);
    for (bus::PciDevice* device : bus.devices())
      if (device->as_bridge() != nullptr) assign_windows(*device->as_bridge());
  }

  // [PCI bridge 1.2] 9.1: the pin turns with each bridge on the way up.
  void route_interrupts(bus::PciBus& bus) {
    for (bus::PciDevice* device : bus.devices()) {
      if (uint8_t pin = device->interrupt_pin(); pin != 0) {
        const bus::PciDevice* at = device;
        for (; at->bus()->bridge() != nullptr; at = at->bus()->bridge())
          pin = static_cast<uint8_t>(bus::PciBus::swizzled_pin(at->devfn() >> 3, pin) + 1);
        device->config_write(pci::kInterruptLine, 1, resources_.irq_of(at->devfn() >> 3, pin));
      }
      if (device->as_bridge() != nullptr) route_interrupts(device->as_bridge()->secondary());
    }
  }

 private:
  static void enable(bus::PciDevice& device, uint16_t bits) {
    device.config_write(pci::kCommand, 2, device.config_read(pci::kCommand, 2) | bits);
  }

  void assign_bar(bus::PciDevice& device, unsigned index, const bus::PciDevice::BarInfo& info) {
    uint64_t& next = info.io ? port_ : memory_;
    const uint64_t end = info.io ? resources_.port_end : resources_.memory_end;
    const uint64_t address = align_up(next, info.size);
    if (address + info.size > end) {
      log::warn("{}: no room for BAR {} of {} bytes; the guest finds it unassigned", device.path(), index, info.size);
      return;
    }
    next = address + info.size;
    const auto offset = static_cast<uint16_t>(pci::kBar0 + 4 * index);
    device.config_write(offset, 4, static_cast<uint32_t>(address));
    if (info.is_64) device.config_write(static_cast<uint16_t>(offset + 4), 4, 0);
    enable(device, info.io ? pci::kCommandIo : pci::kCommandMemory);
  }

  void assign_windows(bus::PciBridge& bridge) {
    memory_ = align_up(memory_, kMib);
    port_ = align_up(port_, kIoGranule);
    const uint64_t memory = memory_, port = port_;
    assign(bridge.secondary());
    if (memory_ == memory && memory + kHotplugMemory <= resources_.memory_end) memory_ += kHotplugMemory;
    // Ports are few, and functions of PCI Express do without.
    if (port_ == port && !bridge.secondary().express() && port + kIoGranule <= resources_.port_end) port_ += kIoGranule;
    memory_ = std::min(align_up(memory_, kMib), resources_.memory_end);
    port_ = align_up(port_, kIoGranule);
    // A base above the limit closes a window.
    const bool has_memory = memory_ > memory, has_ports = port_ > port;
    bridge.config_write(pci::kMemoryBase, 2, has_memory ? static_cast<uint32_t>(memory >> 16) : 0xfff0);
    bridge.config_write(pci::kMemoryLimit, 2, has_memory ? static_cast<uint32_t>((memory_ - 1) >> 16) : 0);
    bridge.config_write(pci::kIoBase, 1, has_ports ? static_cast<uint32_t>(port >> 8) : 0xf0);
    bridge.config_write(pci::kIoLimit, 1, has_ports ? static_cast<uint32_t>((port_ - 1) >> 8) : 0);
    bridge.config_write(pci::kPrefetchableBase, 2, 0xfff0);
    bridge.config_write(pci::kPrefetchableLimit, 2, 0);
    enable(bridge, pci::kCommandIo | pci::kCommandMemory | pci::kCommandMaster);
  }

  const PciResources& resources_;
  uint64_t memory_, port_;  // the next free address
  uint8_t last_bus_ = 0;
};

}  // namespace

void set_up_pci(bus::PciBus& root, const PciResources& resources) {
  Setup setup(resources);
  setup.number_buses(root);
  setup.assign(root);
  setup.route_interrupts(root);
}

}  // namespace kite::machine
