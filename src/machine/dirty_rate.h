// DirtyRate: how fast the guest writes its memory. For some seconds of the host's time the dirty log of all RAM is on,
// or pages picked at random are compared with what they held. The machine may be stopped, go on and be reset meanwhile.
// Main executor's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "async/clock.h"
#include "machine/page_sample.h"
#include "memory/address_space.h"
#include "support/result.h"

namespace kite::machine {

class DirtyRate {
 public:
  enum class Mode : uint8_t { kPageSampling, kDirtyBitmap };
  enum class Status : uint8_t { kUnstarted, kMeasuring, kMeasured };

  static constexpr int64_t kLeastSeconds = 1, kMostSeconds = 60;
  static constexpr int64_t kFewestSamples = 128, kUsualSamples = 512, kMostSamples = 16384;  // pages per GiB of RAM
  struct Order {
    int64_t seconds = kLeastSeconds;
    Mode mode = Mode::kPageSampling;
    std::optional<int64_t> samples = {};  // per GiB; of Mode::kPageSampling only
  };
  // The measurement that was ordered last.
  struct Report {
    Status status = Status::kUnstarted;
    Mode mode = Mode::kPageSampling;
    int64_t start = 0;  // of the clock, in seconds
    int64_t seconds = 0;
    int64_t samples = 0;          // per GiB; 0: none are taken
    uint64_t mib_per_second = 0;  // once it is measured
  };

  // `clock` goes on while the machine is stopped.
  DirtyRate(AddressSpace& memory, Clock& clock);
  ~DirtyRate();
  DirtyRate(const DirtyRate&) = delete;
  DirtyRate& operator=(const DirtyRate&) = delete;

  // Refused while one is under way, while somebody else has the dirty log, and when a number is out of its range.
  Result<> start(const Order& order);
  [[nodiscard]] const Report& report() const { return report_; }

 private:
  // Samples are looked at in slices, so that the main loop goes on meanwhile in large machines.
  enum class Phase : uint8_t { kIdle, kRemembering, kWaiting, kComparing };
  static constexpr size_t kSlice = 256;  // pages

  [[nodiscard]] Result<> check(const Order& order) const;
  void proceed();
  void remember();
  void period_over();
  void compare();
  void finish(uint64_t pages);
  void set_logging(bool on);
  [[nodiscard]] int64_t period_end() const;

  AddressSpace& memory_;
  Clock& clock_;
  Report report_;
  Phase phase_ = Phase::kIdle;
  int64_t began_ = 0, ended_ = 0;
  std::vector<std::shared_ptr<RamBlock>> blocks_;  // while it measures; the map may drop them
  std::optional<PageSample> sample_;
  Timer timer_;
};

}  // namespace kite::machine
