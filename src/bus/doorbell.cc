#include "bus/doorbell.h"

#include <sys/eventfd.h>

#include <bit>
#include <cerrno>

namespace kite::bus {

Result<Doorbell> Doorbell::create(std::shared_ptr<Region> region, uint64_t offset, unsigned size,
                                  std::optional<uint64_t> value) {
  if (region->handler() == nullptr) return fail("region '{}' has no handler: nothing to ring at", region->name());
  if (size > 8 || (size != 0 && !std::has_single_bit(size)))
    return fail("a doorbell for writes of {} bytes: 1, 2, 4, 8 or 0 for any", size);
  if (size == 0 && value) return fail("a doorbell that waits for a value needs a size");
  if (offset >= region->size() || size > region->size() - offset)
    return fail("a doorbell at {:#x} lies outside of region '{}'", offset, region->name());
  Fd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!event.valid()) return fail("cannot make an eventfd: {}", errno_text(errno));
  DoorbellSpot spot{
      .offset = offset, .size = size, .value = value, .event = std::make_shared<const Fd>(std::move(event))};
  region->add_doorbell(spot);
  return Doorbell(std::move(region), std::move(spot));
}

Doorbell& Doorbell::operator=(Doorbell&& other) noexcept {
  if (this == &other) return *this;
  if (region_ != nullptr) region_->remove_doorbell(spot_);
  region_ = std::move(other.region_);
  spot_ = std::move(other.spot_);
  return *this;
}

Doorbell::~Doorbell() {
  if (region_ != nullptr) region_->remove_doorbell(spot_);
}

uint64_t Doorbell::take() {
  eventfd_t count = 0;
  return eventfd_read(fd(), &count) == 0 ? count : 0;
}

}  // namespace kite::bus
