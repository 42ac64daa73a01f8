// virtio-balloon: memory that a guest gives back for a while. [VIRTIO 1.2] 5.5.
//
// The host says how much the guest should keep; the driver names pages that it will not use, and these are given back
// to the host. Free pages that a driver reports (F_REPORTING) are given back, too, and it may use them again at any
// time. Page numbers are a guest's: what is not RAM is skipped. Long lists are worked off in pieces, so that whoever
// else lives on the executor has his turn.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/clock.h"
#include "devices/virtio/virtio_balloon_regs.h"
#include "devices/virtio/virtio_device.h"

namespace kite::devices {

class VirtioBalloon final : public VirtioDevice {
 public:
  struct Config {
    std::string name;
    uint64_t ram_bytes = 0;  // of the machine
    bool deflate_on_oom = false;
    bool page_poison = true;  // the driver says what it fills free pages with
    bool reporting = false;
  };
  struct Wiring {
    Clock& clock;     // guest time, for polling
    Clock& realtime;  // for the time of the last statistics
    // The guest has `bytes` of its memory now. Any thread, with the device's lock held.
    std::function<void(uint64_t bytes)> changed;
  };
  VirtioBalloon(Config config, Wiring wiring, GuestMemory& memory, Executor& home, const Options& options);
  ~VirtioBalloon() override;

  // How much memory the guest should have; what is over the machine's is the machine's. Home executor.
  void set_target(uint64_t bytes);
  // How much it has, as its driver says. Any thread.
  [[nodiscard]] uint64_t actual();
  // guest-stats, guest-stats-polling-interval.
  [[nodiscard]] std::vector<LiveProperty> live_properties() override;

 private:
  using Chain = std::unique_ptr<VirtioChain>;
  static constexpr size_t kStatCount = std::size(virtio_balloon::kStatNames);
  static constexpr uint64_t kUnknown = UINT64_MAX;  // a statistic that the driver does not give

  // A chain that is worked off in pieces.
  struct Work {
    Chain chain;
    uint64_t done = 0;  // bytes of it
  };
  struct State {
    uint32_t wanted = 0, actual = 0;  // pages in the balloon
    uint32_t poison = 0;
    std::array<uint8_t, 4> actual_written{};  // bytes of a legacy driver's that are not complete yet
  };

  void serve(uint16_t queue) override;
  void read_config(std::span<uint8_t> config) override;
  void config_written(uint32_t offset, std::span<const uint8_t> bytes) override;
  void driver_ready() override;
  void device_reset() override;
  void cancel_requests() override;
  void queue_reset(uint16_t queue) override;
  void save_type(StateWriter& writer) override;
  void restore_type(StateReader& reader) override;
  void apply_type() override;

  void refuse(Chain chain, std::string_view why);
  void drop_old(Work& work);
  void serve_deflate();
  void serve_stats();
  void set_actual(uint32_t pages);  // locked
  // Takes up to `most` units of a chain and answers how many it took, 1 at least; the chain is gone when it has ended.
  using Step = uint64_t (VirtioBalloon::*)(Work& work, uint64_t most);
  void work_off(uint16_t queue, Work& work, Step step, uint64_t most);
  uint64_t take_pages(Work& work, uint64_t most);
  uint64_t take_report(Work& work, uint64_t most);
  void discard_pages(std::span<uint32_t> numbers);
  [[nodiscard]] bool may_discard_reported();
  // Statistics; home executor.
  void take_stats(const VirtioChain& chain);
  void poll();
  void arm_poll(int64_t seconds);
  Result<> set_interval(int64_t seconds);

  // Static configuration and wiring.
  const Config config_;
  Wiring wiring_;

  // State, under the device's lock.
  State state_;
  std::atomic<bool> first_stats_{true};  // of this life: what a legacy driver gives first is not initialized

  // Bookkeeping; home executor.
  Work inflating_, reporting_;
  Chain stats_chain_;
  std::array<uint64_t, kStatCount> stats_;
  int64_t last_update_ = 0;        // seconds since 1970; 0: never
  int64_t interval_ = 0;           // seconds; 0: nothing is asked for
  std::vector<uint32_t> numbers_;  // scratch
  std::unique_ptr<Timer> poll_timer_;
  State restored_;
};

}  // namespace kite::devices
