// Which RAM below 4 GiB a loader may still use.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "boot/loader.h"
#include "support/result.h"

namespace kite::boot {

class BootMap {
 public:
  static constexpr uint64_t kEnd = uint64_t{1} << 32;

  // Free at first: what `e820` calls RAM, below 4 GiB. `ram_below_4g` is for messages.
  BootMap(std::span<const E820Entry> e820, uint64_t ram_below_4g);

  // Takes exactly [base, base+size). The error names `what` and tells how to make room.
  Result<> claim(uint64_t base, uint64_t size, std::string_view what);

  struct Want {
    uint64_t size = 0;
    uint64_t alignment = 16;   // a power of two
    uint64_t lowest = 0x1000;  // page 0 holds what real mode and firmware use
    uint64_t limit = kEnd;     // the last byte lies below
  };
  // Takes the highest or the lowest place that fits.
  Result<uint64_t> claim_high(const Want& want, std::string_view what);
  Result<uint64_t> claim_low(const Want& want, std::string_view what);
  [[nodiscard]] bool is_free(uint64_t base, uint64_t size) const;
  // What has been claimed, in the order in which it was.
  [[nodiscard]] const std::vector<LoadedRange>& claims() const { return claims_; }

 private:
  struct Range {
    uint64_t start;
    uint64_t end;
  };
  [[nodiscard]] std::optional<uint64_t> find(const Want& want, bool high) const;
  Result<uint64_t> claim_found(const Want& want, bool high, std::string_view what);
  void take(uint64_t base, uint64_t size);

  uint64_t ram_below_4g_;
  std::vector<Range> free_;  // sorted, disjoint
  std::vector<LoadedRange> claims_;
};

}  // namespace kite::boot
