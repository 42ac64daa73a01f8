// Machine checks that somebody else reports: what hardware would do with an error of memory or bus (SDM 3B 16.3, 16.9).
// Internal to cpu/.
#pragma once

#include <mutex>
#include <utility>
#include <vector>

#include "accel/vcpu.h"
#include "cpu/cpu.h"

namespace kite::cpu {

// Errors on their way to a CPU. Any thread.
class MachineCheckQueue {
 public:
  void add(const MachineCheck& error) {
    const std::lock_guard lock(mutex_);
    errors_.push_back(error);
  }
  [[nodiscard]] std::vector<MachineCheck> take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(errors_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<MachineCheck> errors_;
};

// Logs the error in its bank; an uncorrected one raises #MC, or shuts the CPU down when that is not enabled or another
// is being handled. Between instructions.
void report_machine_check(Cpu& cpu, const MachineCheck& error);

}  // namespace kite::cpu
