// pci-testdev: a PCI function, 1b36:0005, whose two BARs (BAR 0 memory, BAR 1 ports) run the same exit-cost tests.
//
// Each BAR starts with a header (pci_testdev_regs.h): the guest writes a test's number, reads its width, offset, datum
// and name, writes the datum to the offset and finds the writes that matched in `count`.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "bus/pci.h"

namespace kite::devices {

class PciTestdev final : public bus::PciDevice {
 public:
  explicit PciTestdev(std::string path);
  ~PciTestdev() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  static constexpr unsigned kBars = 2;
  static constexpr uint8_t kNoBar = 0xff;
  class BarHandler;
  struct State {
    uint8_t bar = kNoBar;  // whose test is selected
    uint8_t test = 0;
    uint32_t count = 0;
  };

  [[nodiscard]] uint8_t header_byte(unsigned bar, uint64_t offset) const;  // lock_ held
  uint64_t read(unsigned bar, uint64_t offset, unsigned size);
  void write(unsigned bar, uint64_t offset, unsigned size, uint64_t value);

  // Wiring.
  std::array<std::unique_ptr<BarHandler>, kBars> handlers_;

  // State; the rest is in the configuration space, under config_lock_.
  std::mutex lock_;
  State state_;
};

}  // namespace kite::devices
