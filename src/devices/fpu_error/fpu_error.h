// The PC's x87 error logic: FERR# raises IRQ 13, a write to port 0xf0 lowers it and asserts IGNNE#. Only with CR0.NE
// clear does the processor use it. [PIIX3] 290550-002 3.6 "Coprocessor error"; ISA ports 0xf0, 0xf1.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "bus/device.h"

namespace kite::devices {

class FpuError final : public bus::Device, private IoHandler {
 public:
  FpuError(std::string path, bus::IrqLine irq13);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  void ferr();  // any thread: the processor signals FERR#
  // For port 0xf0, 2 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

 private:
  uint64_t io_read(uint64_t offset, unsigned size) override;
  void io_write(uint64_t offset, unsigned size, uint64_t value) override;

  // Wiring.
  const bus::IrqLine irq13_;
  std::shared_ptr<Region> region_;
  std::mutex lock_;

  // State.
  struct State {
    bool pending = false;
  } state_;
};

}  // namespace kite::devices
