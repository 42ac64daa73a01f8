#include "block/throttle.h"

#include <algorithm>

namespace kite::block {

int64_t LeakyBucket::leak(int64_t now_ns) {
  if (limit_.rate == 0) return 0;
  constexpr double kSecond = 1e9;
  constexpr double kDefaultBurst = 0.1;  // seconds of the rate that may come at once
  const auto rate = static_cast<double>(limit_.rate);
  const double room = limit_.burst != 0 ? static_cast<double>(limit_.burst) * static_cast<double>(limit_.burst_seconds)
                                        : rate * kDefaultBurst;
  if (now_ns > last_ns_) level_ = std::max(0.0, level_ - static_cast<double>(now_ns - last_ns_) / kSecond * rate);
  last_ns_ = std::max(last_ns_, now_ns);
  // A request may overfill the bucket, whatever its size; the next one waits until it has leaked.
  return level_ > room ? static_cast<int64_t>((level_ - room) / rate * kSecond) + 1 : 0;
}

int64_t LeakyBucket::take(uint64_t units, int64_t now_ns) {
  const int64_t wait = leak(now_ns);
  if (wait == 0 && limits()) level_ += static_cast<double>(units);
  return wait;
}

int64_t LeakyBucket::reserve(uint64_t units, int64_t now_ns) {
  const int64_t wait = leak(now_ns);
  if (limits()) level_ += static_cast<double>(units);
  return wait;
}

bool ThrottleLimits::any() const {
  const auto limits = [](const RateLimit& limit) { return limit.rate != 0; };
  return std::ranges::any_of(bytes, limits) || std::ranges::any_of(operations, limits);
}

Result<ThrottleLimits> take_throttle_limits(BlockOptions& options, const std::string& prefix) {
  static constexpr const char* kNames[] = {"total", "read", "write"};
  constexpr uint64_t kLargest = uint64_t{1} << 50;
  ThrottleLimits limits;
  for (const bool bytes : {true, false}) {
    auto& all = bytes ? limits.bytes : limits.operations;
    for (size_t kind = 0; kind < ThrottleLimits::kKinds; ++kind) {
      const std::string name = fmt::format("{}{}-{}", prefix, bytes ? "bps" : "iops", kNames[kind]);
      RateLimit& limit = all[kind];
      KITE_ASSIGN(limit.rate, options.take_size(name, 0));
      KITE_ASSIGN(limit.burst, options.take_size(name + "-max", 0));
      KITE_ASSIGN(limit.burst_seconds, options.take_unsigned(name + "-max-length", 1, 1, 3600));
      if (limit.rate > kLargest || limit.burst > kLargest)
        return fail("bps/iops/max values must be within [0, {}]", kLargest);
      if (limit.burst != 0 && limit.rate == 0) return fail("bps_max/iops_max require corresponding bps/iops values");
      if (limit.burst != 0 && limit.burst < limit.rate) return fail("{}-max is smaller than {}", name, name);
    }
    const auto& [total, read, write] = all;
    if (total.rate != 0 && (read.rate != 0 || write.rate != 0))
      return fail("bps/iops/max total values and read/write values cannot be used at the same time");
  }
  KITE_ASSIGN(limits.operation_bytes, options.take_size(prefix + "iops-size", 0));
  return limits;
}

void ThrottleGroup::configure(const ThrottleLimits& limits) {
  limits_ = limits;
  ++generation_;
  for (size_t kind = 0; kind < ThrottleLimits::kKinds; ++kind) {
    bytes_[kind] = {};
    operations_[kind] = {};
    bytes_[kind].configure(limits.bytes[kind]);
    operations_[kind].configure(limits.operations[kind]);
  }
}

int64_t ThrottleGroup::reserve(bool write, uint64_t bytes, int64_t now_ns) {
  const uint64_t unit = limits_.operation_bytes;
  const uint64_t operations = unit == 0 ? 1 : std::max<uint64_t>((bytes + unit - 1) / unit, 1);
  int64_t wait = 0;
  for (const size_t kind :
       {size_t{ThrottleLimits::kTotal}, size_t{write ? ThrottleLimits::kWrite : ThrottleLimits::kRead}}) {
    wait = std::max(wait, bytes_[kind].reserve(bytes, now_ns));
    wait = std::max(wait, operations_[kind].reserve(operations, now_ns));
  }
  return wait;
}

}  // namespace kite::block
