// virtio-rng: random numbers of the host's for a guest. [VIRTIO 1.2] 5.4. `max_bytes` of them in each `period_ms` of
// guest time; a request that comes when they are used up waits for the next.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/clock.h"
#include "devices/virtio/virtio_device.h"
#include "entropy/entropy_source.h"

namespace kite::devices {

namespace virtio_rng {
inline constexpr uint16_t kType = 4;
inline constexpr uint16_t kLegacyDeviceId = 0x1005;
inline constexpr uint32_t kClass = 0x00ff00;  // of no class that PCI knows
}  // namespace virtio_rng

class VirtioRng final : public VirtioDevice {
 public:
  struct Config {
    std::string name;
    uint64_t max_bytes = UINT64_MAX;
    uint64_t period_ms = 65536;
  };
  // `clock` is guest time; the source's executor is `home`.
  VirtioRng(Config config, std::unique_ptr<entropy::EntropySource> source, Clock& clock, GuestMemory& memory,
            Executor& home, const Options& options);
  ~VirtioRng() override;

 private:
  using Chain = std::unique_ptr<VirtioChain>;
  static constexpr uint64_t kMostAtOnce = 65536;  // bytes of one request; 5.4.6.2 allows less than it has room for

  void serve(uint16_t queue) override;
  void read_config(std::span<uint8_t> config) override { (void)config; }
  void cancel_requests() override;
  void queue_reset(uint16_t queue) override { (void)queue, cancel_requests(); }
  bool fill(Chain& chain);  // false: not now, the chain is still there
  void next_period();

  // Static configuration and wiring.
  const Config config_;
  Clock& clock_;
  std::unique_ptr<entropy::EntropySource> source_;

  // Bookkeeping; home executor.
  uint64_t left_;  // of this period
  Chain waiting_;
  std::vector<uint8_t> bytes_;  // scratch
  std::unique_ptr<Timer> period_end_;
};

}  // namespace kite::devices
