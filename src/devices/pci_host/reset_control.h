// The reset control register at port 0xcf9, a part of Intel's ISA bridges. [PIIX3] 2.5.4.1, [ICH9] 13.7.5. The port
// lies inside the host bridge's configuration address register, which passes byte accesses on to it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "memory/region.h"

namespace kite::devices {

enum class ResetKind : uint8_t {
  kSoft,  // INIT to the processors
  kHard,  // the whole machine
};

class ResetControl final : public IoHandler {
 public:
  static constexpr uint16_t kPort = 0xcf9;
  static constexpr uint8_t kHard = 1u << 1;  // hard, else soft
  static constexpr uint8_t kCpu = 1u << 2;   // a change from 0 to 1 resets
  static constexpr uint8_t kFull = 1u << 3;  // [ICH9]: power goes off and on again

  // `reset` is called with no lock held, on the writing vCPU's thread. `writable`: the bits that there are.
  ResetControl(std::function<void(ResetKind)> reset, uint8_t writable)
      : reset_(std::move(reset)), writable_(writable) {}

  uint64_t io_read(uint64_t, unsigned) override { return value(); }
  void io_write(uint64_t, unsigned, uint64_t written) override {
    const auto next = static_cast<uint8_t>(written & writable_);
    const uint8_t before = value_.exchange(next, std::memory_order_relaxed);
    if ((next & ~before & kCpu) != 0) reset_((next & kHard) != 0 ? ResetKind::kHard : ResetKind::kSoft);
  }

  // State of the owner's section, within `writable`.
  [[nodiscard]] uint8_t value() const { return value_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint8_t writable() const { return writable_; }
  void set_value(uint8_t value) { value_.store(value & writable_, std::memory_order_relaxed); }

 private:
  const std::function<void(ResetKind)> reset_;
  const uint8_t writable_;
  std::atomic<uint8_t> value_{0};
};

}  // namespace kite::devices
