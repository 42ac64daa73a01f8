// Port 0x92, system control port A: [ISA System Architecture] "PS/2 compatible port 92h".
//
//   bit 0  INIT_NOW: a change from 0 to 1 resets the processors
//   bit 1  A20 gate. Address line 20 is never masked in this machine: the bit is kept, nothing else
//   bits 7:2 read 0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "bus/device.h"

namespace kite::devices {

class Port92 final : public bus::Device, private IoHandler {
 public:
  // `init_reset` is called with no lock held, on the writing vCPU's thread.
  Port92(std::string path, std::function<void()> init_reset);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // For port 0x92, 1 byte.
  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

 private:
  uint64_t io_read(uint64_t offset, unsigned size) override;
  void io_write(uint64_t offset, unsigned size, uint64_t value) override;

  // Wiring.
  std::function<void()> init_reset_;
  std::shared_ptr<Region> region_;

  // State.
  struct State {
    uint8_t control = 0;
  };
  std::mutex lock_;
  State state_;
};

}  // namespace kite::devices
