// Hot-plug of conventional PCI slots as ACPI does it: registers that the DSDT's methods read and write
// (boot/dsdt_hotplug.cc), and an event that makes the system call them. Registers: acpi_pci_hotplug_regs.h.
//
// A function that arrives sets its slot in UP; device_del sets it in DOWN. The system lets go of what is in the slot,
// in its own time, and writes EJECT; it may also do so unasked. Buses have numbers, 0 the root bus; which others there
// are is the board's affair.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "bus/device.h"
#include "devices/io_window.h"

namespace kite::devices {

class AcpiPciHotplug final : public bus::Device {
 public:
  static constexpr unsigned kMostBuses = 256;
  struct Wiring {
    // No lock held; the last two on the accessing vCPU's thread.
    std::function<void()> notify;                             // raise the general purpose event
    std::function<uint32_t(unsigned bus)> removable;          // slots whose content may go, a bit each
    std::function<void(unsigned bus, uint32_t slots)> eject;  // the guest has let go of these slots
  };
  AcpiPciHotplug(std::string path, Wiring wiring);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // For port 0xae00, 20 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

  // The host's side, any thread. `bus` < kMostBuses, `slot` < 32.
  void plugged(unsigned bus, uint8_t slot);
  // Asks, or asks again: a system that was not up yet has missed it.
  void request_unplug(unsigned bus, uint8_t slot);
  [[nodiscard]] uint32_t unplug_requests(unsigned bus);

 private:
  struct State {
    std::array<uint32_t, kMostBuses> up{};
    std::array<uint32_t, kMostBuses> down{};
    uint32_t bus = 0;
  };
  uint64_t read(uint64_t offset, unsigned size);
  void write(uint64_t offset, unsigned size, uint64_t value);

  // Wiring.
  Wiring wiring_;
  IoWindow<AcpiPciHotplug> window_;
  std::shared_ptr<Region> region_;

  // State.
  std::mutex lock_;  // a leaf
  State state_;
};

}  // namespace kite::devices
