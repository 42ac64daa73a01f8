// Limits on the rate of requests, for the throttle filter and for drives (iops, bps and their bursts).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "block/options.h"
#include "support/result.h"

namespace kite::block {

// Rates in units (bytes or operations) a second; 0: no limit. A burst is what may pass at once beyond the rate.
struct RateLimit {
  uint64_t rate = 0;
  uint64_t burst = 0;  // "max": units a second for burst_seconds
  uint64_t burst_seconds = 1;
};

// A bucket that leaks at the rate. Time is passed in, so that it can be tested.
class LeakyBucket {
 public:
  void configure(RateLimit limit) { limit_ = limit; }
  [[nodiscard]] bool limits() const { return limit_.rate != 0; }
  // How long this many units have to wait at `now_ns`, in ns; 0: they pass, and are counted.
  int64_t take(uint64_t units, int64_t now_ns);
  // Counts them, and answers when they may pass, in ns from now: whoever comes later passes later.
  int64_t reserve(uint64_t units, int64_t now_ns);

 private:
  int64_t leak(int64_t now_ns);  // answers how long what is in the bucket takes to leave room
  RateLimit limit_;
  double level_ = 0;  // units
  int64_t last_ns_ = 0;
};

struct ThrottleLimits {
  enum Kind : size_t { kTotal, kRead, kWrite, kKinds };
  std::array<RateLimit, kKinds> bytes, operations;
  uint64_t operation_bytes = 0;  // larger requests count as several operations; 0: never

  [[nodiscard]] bool any() const;
};
// Takes "PREFIXbps-total", "-max", "-max-length", "PREFIXiops-size" and their like out of the options.
Result<ThrottleLimits> take_throttle_limits(BlockOptions& options, const std::string& prefix);

// Who shares the limits. Of one executor.
class ThrottleGroup {
 public:
  void configure(const ThrottleLimits& limits);
  [[nodiscard]] const ThrottleLimits& limits() const { return limits_; }
  [[nodiscard]] uint64_t generation() const { return generation_; }  // counts configure()
  // How long a request waits before it may go, in ns.
  int64_t reserve(bool write, uint64_t bytes, int64_t now_ns);

 private:
  ThrottleLimits limits_;
  std::array<LeakyBucket, ThrottleLimits::kKinds> bytes_, operations_;
  uint64_t generation_ = 0;
};

}  // namespace kite::block
