// The processors of a board for those who ask by number: firmware that has system management mode needs to know them
// all before it starts any. Processors of Kite's neither come nor go while the machine runs, so there is never an
// event. Registers: acpi_cpus_regs.h.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bus/device.h"
#include "devices/io_window.h"

namespace kite::devices {

class AcpiCpus final : public bus::Device {
 public:
  struct Processor {
    uint64_t apic_id = 0;
    bool enabled = true;  // false: there could be one, and there is none
  };
  AcpiCpus(std::string path, std::vector<Processor> processors);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // 12 bytes, for the port that the board has it at.
  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

 private:
  struct State {
    uint32_t selector = 0;
    uint8_t command = 0;
  };
  uint64_t read(uint64_t offset, unsigned size);
  void write(uint64_t offset, unsigned size, uint64_t value);

  // Static configuration.
  const std::vector<Processor> processors_;

  // Wiring.
  IoWindow<AcpiCpus> window_;
  std::shared_ptr<Region> region_;

  // State.
  std::mutex lock_;  // a leaf
  State state_;
};

}  // namespace kite::devices
