// isa-debugcon: a port whose written bytes go to a chardev, as firmware uses for its log (port 0x402). Reads answer a
// fixed byte, by which firmware knows that the port is there.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "bus/device.h"
#include "chardev/chardev.h"

namespace kite::devices {

class Debugcon final : public bus::Device, private IoHandler, private ChardevClient {
 public:
  struct Config {
    uint32_t readback = 0xe9;  // what reads answer
  };
  static constexpr uint16_t kDefaultPort = 0xe9;
  static constexpr uint16_t kFirmwarePort = 0x402;
  // `chardev` may be null; it outlives the device.
  Debugcon(std::string path, Config config, Chardev* chardev);
  ~Debugcon() override;

  void reset() override {}
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // 1 byte.
  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

 private:
  // A port cannot make the guest wait; what the host does not take is kept up to this bound, then dropped.
  static constexpr size_t kBacklog = 64 * 1024;

  uint64_t io_read(uint64_t offset, unsigned size) override;
  void io_write(uint64_t offset, unsigned size, uint64_t value) override;
  size_t can_receive() override { return 0; }
  void received(std::span<const uint8_t>) override {}
  void writable() override;
  void drain();

  // Static configuration.
  const Config config_;

  // Wiring.
  Chardev* const chardev_;
  std::shared_ptr<Region> region_;
  std::mutex lock_;
  std::vector<uint8_t> backlog_;  // on its way to the host; no part of the guest's state
  bool draining_ = false;         // one thread at a time hands bytes over, without the lock
  bool drain_again_ = false;      // somebody found it draining
  bool full_ = false;             // the chardev took a part, and will say when there is room
};

}  // namespace kite::devices
