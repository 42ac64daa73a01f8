// Which accelerator runs the machine: the first of the list that works here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "accel/accelerator.h"
#include "accel/kvm/kvm_calls.h"
#include "machine/machine_config.h"
#include "support/result.h"

namespace kite::machine {

// The host as the choice sees it; tests put their own in its place.
struct AcceleratorHost {
  KvmCalls& kvm = host_kvm_calls();
  std::function<int64_t()> now_ns;  // a monotonic clock; empty: the host's
};

// Tries config.accelerators in order. `auto` takes kvm where a probe finds real virtualization, else jit, and says in
// one line on stderr what it took and why. An accelerator that was not the first of the list is announced, too, with
// the reasons why those before it failed. A failure's message names every one that was tried.
Result<std::unique_ptr<Accelerator>> choose_accelerator(const MachineConfig& config, const AcceleratorHost& host = {});

}  // namespace kite::machine
