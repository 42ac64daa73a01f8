// AHCI adapter of the ICH9: 8086:2922, six ports, registers at BAR 5 and as an index-data pair at BAR 4, INTx and MSI.
// [AHCI] 1.3.1; [ICH9] 316972-004, chapter 14. Without command completion coalescing, enclosure management, port
// multipliers, staggered spin-up and link power states.
#pragma once

#include <array>
#include <memory>
#include <mutex>

#include "bus/pci.h"
#include "bus/pci_msi.h"
#include "devices/ahci/ahci_port.h"
#include "devices/ahci/ahci_regs.h"
#include "devices/io_window.h"

namespace kite::devices {

class Ahci final : public bus::PciDevice {
 public:
  struct Wiring {
    GuestMemory& memory;
    std::array<std::string, ahci::kPorts> bus_names = {"ide.0", "ide.1", "ide.2", "ide.3", "ide.4", "ide.5"};
  };
  Ahci(std::string path, Wiring wiring);

  [[nodiscard]] AtaBus& bus(unsigned port) { return ports_[port]->bus(); }

  void reset() override;
  void start() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  uint64_t read_abar(uint64_t offset, unsigned size);
  void write_abar(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_pair(uint64_t offset, unsigned size);
  void write_pair(uint64_t offset, unsigned size, uint64_t value);
  void set_reset_values();

  // The following hold lock_.
  [[nodiscard]] uint32_t read_register(uint64_t offset) const;
  void write_register(uint64_t offset, uint32_t value);
  void write_ghc(uint32_t value);
  [[nodiscard]] bool ports_busy() const;
  void changed();  // interrupts, and the end of a reset
  void drive_interrupt(bool again);

  // Wiring.
  IoWindow<Ahci> abar_window_, pair_window_;
  bus::MsiCapability msi_;

  // State; the rest is in the configuration space.
  struct State {
    uint32_t ghc = 0, is = 0;
    uint32_t index = 0;  // of the index-data pair
    bool level = false;
  };
  std::mutex lock_;
  State state_;
  std::array<std::unique_ptr<AhciPort>, ahci::kPorts> ports_;
};

}  // namespace kite::devices
