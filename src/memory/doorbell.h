// Doorbells: places in a region where a write signals an eventfd instead of calling the region's handler, so that who
// serves the device hears of it without a vCPU's detour. Any accelerator honours them; KVM does so in the kernel
// (ioeventfd). Devices use them through bus/doorbell.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "support/fd.h"

namespace kite {

struct DoorbellSpot {
  uint64_t offset = 0;            // within the region
  unsigned size = 0;              // of the write, in bytes: 1, 2, 4 or 8; 0: any, and then `value` is not given
  std::optional<uint64_t> value;  // what must be written; not given: anything
  std::shared_ptr<const Fd> event;

  bool operator==(const DoorbellSpot&) const = default;
  // Whether a write of `bytes` bytes at `at`, an offset within the region, rings it.
  [[nodiscard]] bool rung_by(uint64_t at, unsigned bytes, uint64_t written) const {
    return at == offset && (size == 0 || size == bytes) && (!value || *value == written);
  }
};
using DoorbellSpots = std::vector<DoorbellSpot>;

// Adds one to the eventfd's count; never blocks.
void ring(const DoorbellSpot& spot);

}  // namespace kite
