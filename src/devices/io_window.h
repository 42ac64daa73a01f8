// IoWindow: one range of ports or memory of a device that has several; forwards to two of the device's functions, which
// take the device's lock.
#pragma once

#include <cstdint>

#include "memory/region.h"

namespace kite::devices {

template <class Owner>
class IoWindow final : public IoHandler {
 public:
  using Read = uint64_t (Owner::*)(uint64_t offset, unsigned size);
  using Write = void (Owner::*)(uint64_t offset, unsigned size, uint64_t value);

  IoWindow(Owner& owner, Read read, Write write) : owner_(owner), read_(read), write_(write) {}
  uint64_t io_read(uint64_t offset, unsigned size) override { return (owner_.*read_)(offset, size); }
  void io_write(uint64_t offset, unsigned size, uint64_t value) override { (owner_.*write_)(offset, size, value); }

 private:
  Owner& owner_;
  Read read_;
  Write write_;
};

}  // namespace kite::devices
