// IoWindow: one range of ports or memory of a device that has several; forwards to two of the device's functions, which
// take the device's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "memory/region.h"

namespace kite::devices {

template <class Owner>
class IoWindow final : public IoHandler {
 public:
  using Read = uint64_t (Owner::*)(uint64_t offset, unsigned size);
  using Write = void (Owner::*)(uint64_t offset, unsigned size, uint64_t value);

  // For places that repeated INS and OUTS use; answer the bytes that they moved.
  using ReadMany = size_t (Owner::*)(uint64_t offset, unsigned size, std::span<uint8_t> to);
  using WriteMany = size_t (Owner::*)(uint64_t offset, unsigned size, std::span<const uint8_t> from);

  IoWindow(Owner& owner, Read read, Write write, ReadMany read_many = nullptr, WriteMany write_many = nullptr)
      : owner_(owner), read_(read), write_(write), read_many_(read_many), write_many_(write_many) {}
  uint64_t io_read(uint64_t offset, unsigned size) override { return (owner_.*read_)(offset, size); }
  void io_write(uint64_t offset, unsigned size, uint64_t value) override { (owner_.*write_)(offset, size, value); }
  size_t io_read_many(uint64_t offset, unsigned size, std::span<uint8_t> to) override {
    return read_many_ == nullptr ? 0 : (owner_.*read_many_)(offset, size, to);
  }
  size_t io_write_many(uint64_t offset, unsigned size, std::span<const uint8_t> from) override {
    return write_many_ == nullptr ? 0 : (owner_.*write_many_)(offset, size, from);
  }

 private:
  Owner& owner_;
  Read read_;
  Write write_;
  ReadMany read_many_;
  WriteMany write_many_;
};

}  // namespace kite::devices
