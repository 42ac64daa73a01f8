// PCI Express root port with a slot that can be hot-plugged: pcie-root-port (1b36:000c) and ioh3420 (8086:3420, of
// Intel's X58). [PCIe 3.0] 6.7, 7.8.
//
// The slot has an attention button, presence detection, a power controller and both indicators, and interrupts with MSI
// or INTA. A card goes in with plugged(); to take it out, request_unplug() presses the button, the guest lets go of the
// device and switches the slot's power off, and that ejects it. Without power the slot is silent.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "bus/pci.h"
#include "bus/pci_msi.h"

namespace kite::devices {

class PcieRootPort final : public bus::PciBridge {
 public:
  enum class Model : uint8_t { kGeneric, kIoh3420 };
  struct Config {
    Model model = Model::kGeneric;
    std::string bus_name;  // of the link: the port's id
    uint8_t port = 0;      // port number in the link capabilities
    uint16_t slot = 0;     // physical slot number, 13 bits
    bool hotplug = true;   // the slot has what hot-plugging needs
  };
  struct Wiring {
    // The guest switched the slot off after request_unplug(). On the writing vCPU's thread with this port's
    // configuration lock held: only take note.
    std::function<void()> eject;
  };
  PcieRootPort(std::string path, Config config, Wiring wiring);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  [[nodiscard]] bool hotplug() const { return static_config_.hotplug; }
  // Main thread, every vCPU parked, after the secondary bus was changed.
  void plugged();
  void unplugged();
  // Main thread. Refused with the reason where there is nothing to take out, the slot cannot, or the guest is at it.
  Result<> request_unplug();
  [[nodiscard]] bool unplug_requested();

 protected:
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;
  void config_loaded() override;

 private:
  // The following hold config_lock_.
  [[nodiscard]] bool occupied() const;
  [[nodiscard]] bool powered() const;
  void slot_control_written(uint16_t before);
  void note(uint16_t events);  // slot status events; interrupts
  void show_presence();        // presence, link state
  void update_interrupt();

  // Static configuration.
  const Config static_config_;

  // Wiring.
  Wiring wiring_;
  bus::MsiCapability msi_;

  // State; the rest is in the configuration space, under config_lock_.
  struct State {
    bool unplug_requested = false;
  };
  State state_;
  uint16_t slot_control_ = 0;  // as last seen. Derived from the configuration space
  bool asserted_ = false;      // an enabled event is pending. Derived
};

}  // namespace kite::devices
