// How fast a KVM runs a guest's kernel code. Where /dev/kvm is real hardware virtualization that is the host's own
// speed; where the kernel has nothing but its instruction emulator underneath, it is a thousandth of it, and the
// software CPU is the better choice.
#pragma once

#include <cstdint>
#include <functional>

#include "accel/kvm/kvm_system.h"
#include "support/result.h"

namespace kite {

// Instructions per second that tell one kind from the other: hardware does billions, emulation one or two millions.
inline constexpr uint64_t kRealKvmSpeed = 10'000'000;

struct KvmSpeed {
  uint64_t per_second = 0;  // instructions, in the fastest round
  [[nodiscard]] bool real() const { return per_second >= kRealKvmSpeed; }
};

// Runs a guest of its own, an ALU loop in 64-bit mode at CPL 0, in rounds until one was fast enough or a few
// milliseconds have gone; then the VM is gone, too. `now_ns` is a monotonic clock in nanoseconds. Fails when the guest
// does not run as it should, with the reason.
Result<KvmSpeed> probe_kvm_speed(const KvmSystem& system, const std::function<int64_t()>& now_ns);

}  // namespace kite
