// isa-debug-exit: a write ends the process with status (value << 1) | 1. Reads answer 0. It holds no state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "bus/device.h"

namespace kite::devices {

class DebugExit final : public bus::Device, private IoHandler {
 public:
  struct Config {
    uint16_t iosize = 4;  // 1..8
  };
  static constexpr uint16_t kDefaultPort = 0x501;  // where a user's own lands unless told otherwise
  // `exit` gets the process status; called with no lock held, on the writing vCPU's thread.
  DebugExit(std::string path, Config config, std::function<void(int status)> exit);

  void reset() override {}
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

 private:
  uint64_t io_read(uint64_t offset, unsigned size) override;
  void io_write(uint64_t offset, unsigned size, uint64_t value) override;

  // Wiring.
  std::function<void(int)> exit_;
  std::shared_ptr<Region> region_;
};

}  // namespace kite::devices
