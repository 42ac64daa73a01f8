// TickRate: an oscillator that has been running since its clock read 0. Tick n happens at to_ns(n); conversions are
// exact, so a device that keeps its times in ticks never drifts.
#pragma once

#include <cstdint>
#include <limits>

namespace kite::devices {

class TickRate {
 public:
  explicit constexpr TickRate(uint64_t hz) : hz_(hz) {}

  [[nodiscard]] constexpr uint64_t hz() const { return hz_; }

  // The last tick at or before `ns`; times before 0 count as 0.
  [[nodiscard]] constexpr uint64_t to_ticks(int64_t ns) const {
    if (ns <= 0) return 0;
    return saturate(static_cast<unsigned __int128>(ns) * hz_ / kNsPerSecond, std::numeric_limits<uint64_t>::max());
  }
  // The first nanosecond at which to_ticks() answers at least `ticks`; saturates at the end of time.
  [[nodiscard]] constexpr int64_t to_ns(uint64_t ticks) const {
    const auto ns = (static_cast<unsigned __int128>(ticks) * kNsPerSecond + hz_ - 1) / hz_;
    return static_cast<int64_t>(saturate(ns, static_cast<uint64_t>(std::numeric_limits<int64_t>::max())));
  }

 private:
  static constexpr uint64_t kNsPerSecond = 1'000'000'000;
  static constexpr uint64_t saturate(unsigned __int128 value, uint64_t limit) {
    return value > limit ? limit : static_cast<uint64_t>(value);
  }
  uint64_t hz_;
};

}  // namespace kite::devices
