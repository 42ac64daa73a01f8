// Doorbell: a place in a device's region that a guest writes to say "there is work". A write of the right size and
// value signals an eventfd, and the device's handler does not see it: whoever serves the device waits for the eventfd,
// and the vCPU goes on at once. The device need not know how that comes about: the map's dispatch does it, or KVM in
// the kernel (ioeventfd).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "memory/region.h"
#include "support/result.h"

namespace kite::bus {

class Doorbell {
 public:
  // Writes of `size` bytes (1, 2, 4 or 8; 0: of any size) at `offset` of `region`, which has a handler; with `value`
  // only those that write it, which needs a size. It counts from the next commit of the map on
  // (MachineIo::apply_map_changes follows every access), and until the next commit after its destruction. Fails for a
  // place outside the region, a size that is none, and when the host has no descriptor left.
  static Result<Doorbell> create(std::shared_ptr<Region> region, uint64_t offset, unsigned size,
                                 std::optional<uint64_t> value = std::nullopt);
  Doorbell(Doorbell&&) = default;
  Doorbell& operator=(Doorbell&& other) noexcept;
  ~Doorbell();

  // Readable when it rang. Non-blocking; for Executor::watch().
  [[nodiscard]] int fd() const { return spot_.event->get(); }
  // How often it rang since the last call (a count, not one event each).
  [[nodiscard]] uint64_t take();

 private:
  Doorbell(std::shared_ptr<Region> region, DoorbellSpot spot) : region_(std::move(region)), spot_(std::move(spot)) {}

  std::shared_ptr<Region> region_;
  DoorbellSpot spot_;
};

}  // namespace kite::bus
