// The pair of 8259A interrupt controllers of a PC, the second cascaded into input 2 of the first, and the edge/level
// control registers of the PIIX3.
// Ports 0x20-0x21, 0xa0-0xa1, 0x4d0-0x4d1. [8259A] Intel 231468-003; [PIIX3] Intel 290550-002, 2.5.9.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "bus/device.h"
#include "devices/apic/ext_int.h"
#include "devices/io_window.h"
#include "devices/pic/pic_chip.h"

namespace kite::devices {

class Pic final : public bus::Device, public bus::IrqSink, public ExtInt {
 public:
  // `intr` is the INT output of the first chip (ApicBus::intr_line()).
  Pic(std::string path, bus::IrqLine intr);

  // Two ports each, for 0x20, 0xa0 and 0x4d0.
  [[nodiscard]] const std::shared_ptr<Region>& master_ports() const { return master_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& slave_ports() const { return slave_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& elcr_ports() const { return elcr_region_; }

  // Inputs 0-15; 2 is the cascade and is ignored. A leaf lock: may be called with any device's lock held.
  void set_irq(uint32_t line, bool level) override;

  [[nodiscard]] bool pending() const override { return intr_level_.load(std::memory_order_acquire); }
  uint8_t acknowledge() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  struct State {
    std::array<PicChip, 2> chips;
  };

  uint64_t read_master(uint64_t offset, unsigned size);
  void write_master(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_slave(uint64_t offset, unsigned size);
  void write_slave(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_elcr(uint64_t offset, unsigned size);
  void write_elcr(uint64_t offset, unsigned size, uint64_t value);
  void update_output();

  // Wiring.
  bus::IrqLine intr_;
  IoWindow<Pic> master_window_{*this, &Pic::read_master, &Pic::write_master};
  IoWindow<Pic> slave_window_{*this, &Pic::read_slave, &Pic::write_slave};
  IoWindow<Pic> elcr_window_{*this, &Pic::read_elcr, &Pic::write_elcr};
  std::shared_ptr<Region> master_region_, slave_region_, elcr_region_;

  // State, guarded by lock_. intr_level_ follows from it.
  std::mutex lock_;
  State state_;
  std::atomic<bool> intr_level_{false};
};

}  // namespace kite::devices
