// PciBridge: a PCI-to-PCI bridge of any kind (bridge, root port, switch port): type 1 header, secondary bus, windows.
// [PCI bridge 1.2] 3.2.
//
// What lies behind it has address containers of its own, and the windows are aliases of these in the containers above.
// INTx pins rotate by slot onto the bridge's own pins. Of bridge control it does: ISA enable, VGA enable with 16-bit
// decode, secondary bus reset.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "bus/pci_bus.h"
#include "bus/pci_device.h"

namespace kite::bus {

class PciBridge : public PciDevice, private IrqSink {
 public:
  struct Secondary {
    std::string name;      // of the secondary bus
    bool express = false;  // it is a PCI Express link
    uint8_t slots = 32;
  };
  PciBridge(std::string path, const PciIds& ids, PciGeneration generation, const Secondary& secondary);
  ~PciBridge() override;

  [[nodiscard]] PciBridge* as_bridge() override { return this; }
  [[nodiscard]] PciBus& secondary() { return secondary_; }
  [[nodiscard]] const PciBus& secondary() const { return secondary_; }
  [[nodiscard]] uint8_t secondary_number() const { return secondary_number_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint8_t subordinate_number() const { return subordinate_number_.load(std::memory_order_relaxed); }

  // As programmed; `enabled` when the command register opens it and it is not empty.
  struct Window {
    uint64_t base = 0, limit = 0;  // inclusive
    bool enabled = false;
  };
  [[nodiscard]] Window io_window();
  [[nodiscard]] Window memory_window();
  [[nodiscard]] Window prefetchable_window();

 protected:
  // Both call these when they override.
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;
  void config_loaded() override;
  void leaving() override { close_windows(); }
  void reset_bridge();  // reset_config(), windows closed, bus numbers 0
  // What is behind answers configuration accesses, or is silent (an empty or unpowered slot). config_lock_ held or not.
  void set_link_up(bool up) { link_up_.store(up, std::memory_order_relaxed); }

 private:
  friend class PciBus;
  struct Piece {
    bool io = false;
    uint64_t base = 0, size = 0;
    bool operator==(const Piece&) const = default;
  };
  void set_irq(uint32_t pin, bool level) override;
  [[nodiscard]] bool forwards(uint8_t bus) const;
  [[nodiscard]] bool link_up() const { return link_up_.load(std::memory_order_relaxed); }
  // The following hold config_lock_.
  [[nodiscard]] Window decode_io() const;
  [[nodiscard]] Window decode_memory() const;
  [[nodiscard]] Window decode_prefetchable() const;
  [[nodiscard]] std::vector<Piece> pieces() const;
  void update_windows();
  void close_windows();
  void load_registers();
  void reset_secondary();

  // Wiring.
  std::shared_ptr<Region> memory_, ports_;  // of the secondary bus
  PciBus secondary_;

  // Derived from the configuration space, under config_lock_; the atomics are read without it.
  std::atomic<uint8_t> secondary_number_{0}, subordinate_number_{0};
  std::atomic<bool> link_up_{true};
  std::vector<Piece> shown_;
  std::vector<std::shared_ptr<Region>> aliases_;  // of shown_
};

}  // namespace kite::bus
