// PCI buses: the root bus, whose host bridge calls config_read/write, and those behind bridges (pci_bridge.h). A bus
// finds functions by bus number and devfn, wires INTx pins, carries messages upstream and holds the address containers
// in which BARs land. [PCI 3.0] 3.2.2.3, [PCI bridge 1.2] 3.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "bus/irq_line.h"
#include "bus/msi.h"
#include "bus/pci_device.h"
#include "memory/region.h"
#include "support/result.h"

namespace kite::bus {

class PciBus {
 public:
  struct Config {
    std::string name = "pci.0";  // for -device bus=
    bool express = false;        // a PCI Express link or root complex
    uint8_t slots = 32;          // 1 on a link
    MsiSink* msi = nullptr;      // root bus: where messages go
    // The line of the sink that pin 1..4 of a slot drives; below kMostLines.
    unsigned (*line_of)(uint8_t slot, uint8_t pin) = &PciBus::pirq_of;
  };
  static constexpr unsigned kMostLines = 128;

  // A root bus. BARs land in `memory` and `ports` (containers); shared lines are ORed here.
  PciBus(Region& memory, Region& ports, IrqSink& intx) : PciBus(memory, ports, intx, Config{}, nullptr) {}
  PciBus(Region& memory, Region& ports, IrqSink& intx, Config config)
      : PciBus(memory, ports, intx, std::move(config), nullptr) {}

  // Pin 1..4 of a slot on a 440FX board's bus: 0 PIRQA .. 3 PIRQD. The pins rotate from slot to slot.
  [[nodiscard]] static unsigned pirq_of(uint8_t slot, uint8_t pin) { return (slot + pin + 2u) & 3u; }
  // Behind a bridge: pin 0..3 of the bridge. [PCI bridge 1.2] 9.1.
  [[nodiscard]] static unsigned swizzled_pin(uint8_t slot, uint8_t pin) { return (slot + pin - 1u) & 3u; }
  // One line for each pin of each slot, for host bridges whose wiring is programmable.
  [[nodiscard]] static unsigned line_of_slot(uint8_t slot, uint8_t pin) { return slot * 4u + pin - 1u; }

  // Bus and devices may go in either order; the containers outlive both.
  ~PciBus();
  PciBus(const PciBus&) = delete;
  PciBus& operator=(const PciBus&) = delete;

  // While the machine is built, or with every vCPU parked.
  Result<> attach(PciDevice& device, uint8_t slot, uint8_t function);
  void detach(PciDevice& device);
  [[nodiscard]] PciDevice* find(uint8_t devfn) const { return devices_[devfn]; }
  [[nodiscard]] std::vector<PciDevice*> devices() const;  // by devfn
  [[nodiscard]] Result<uint8_t> free_slot() const;
  [[nodiscard]] const std::string& name() const { return config_.name; }
  [[nodiscard]] bool express() const { return config_.express; }
  [[nodiscard]] uint8_t slots() const { return config_.slots; }
  [[nodiscard]] PciBridge* bridge() const { return bridge_; }  // above it; null for a root bus
  [[nodiscard]] uint8_t number() const;                        // as the guest numbered it; the root bus is 0

  // Root bus: whatever function of the hierarchy `bus` and `devfn` lead to. All ones where there is none.
  uint32_t config_read(uint8_t bus, uint8_t devfn, uint16_t offset, unsigned size);
  void config_write(uint8_t bus, uint8_t devfn, uint16_t offset, unsigned size, uint32_t value);

 private:
  friend class PciBridge;
  friend class PciDevice;
  PciBus(Region& memory, Region& ports, IrqSink& intx, Config config, PciBridge* bridge);
  void forget(const PciDevice& device);
  [[nodiscard]] PciDevice* route(uint8_t bus, uint8_t devfn) const;
  // `forwarded`: the pin of a bridge is driven for a device behind it, not for itself.
  void set_intx(uint8_t devfn, uint8_t pin, bool level, bool forwarded);
  [[nodiscard]] bool may_master() const;
  bool send_msi(uint64_t address, uint32_t data) const;
  void mark_multifunction(uint8_t slot);

  // Static configuration and wiring.
  const Config config_;
  Region& memory_;
  Region& ports_;
  IrqSink& intx_;
  PciBridge* const bridge_;

  std::array<PciDevice*, 256> devices_{};
  std::vector<PciBridge*> bridges_;  // among devices_, by devfn
  std::mutex intx_lock_;             // parent buses' come after it
  // Who asserts a line: a bit for each function, and one for each bridge in the name of those behind it.
  std::vector<std::array<uint64_t, 8>> asserted_;
};

}  // namespace kite::bus
