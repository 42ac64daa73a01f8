// Suspend to RAM: the vCPUs stand still, devices and guest time go on, until something wakes the machine up.
#include <algorithm>

#include "machine/drive_store.h"
#include "machine/machine.h"
#include "support/log.h"

namespace kite::machine {

void Machine::request_suspend() {
  {
    std::lock_guard lock(requests_mutex_);
    requests_.suspend = true;
  }
  gate_.close();
  services_.executor.post([this] { serve_requests(); });
}

void Machine::request_wake() {
  {
    std::lock_guard lock(requests_mutex_);
    requests_.wake = true;
  }
  services_.executor.post([this] { serve_requests(); });
}

void Machine::request_hibernate() {
  {
    std::lock_guard lock(requests_mutex_);
    requests_.hibernate = true;
  }
  request_shutdown(Cause::kGuestShutdown);
}

void Machine::suspend() {
  if (state_ != RunState::kRunning) return;
  gate_.close();
  gate_.wait_parked();
  io_.drain_coalesced();
  state_ = RunState::kSuspended;
  emit({.kind = MachineEvent::Kind::kSuspend});
}

Result<> Machine::system_wakeup() {
  if (state_ != RunState::kSuspended)
    return fail("the machine is in state '{}': only a suspended one can be woken up", run_state_name(state_));
  wake();
  return {};
}

void Machine::wake() {
  if (state_ != RunState::kSuspended) return;
  halt_now();
  if (services_.drives != nullptr) services_.drives->cancel_waiting();
  board_->before_wake();
  const std::vector<bus::Device*> kept = board_->kept_in_sleep();
  for (bus::Device* device : board_->devices())
    if (std::ranges::find(kept, device) == kept.end()) device->reset();
  for (auto& vcpu : vcpus_) vcpu->reset();
  io_.apply_map_changes();
  const auto woken = board_->wake(vcpus_);
  io_.apply_map_changes();
  if (!woken) {
    log::error("wake-up: {}", woken.error().message);
    state_ = RunState::kInternalError;
    emit({.kind = MachineEvent::Kind::kStop});
    return;
  }
  emit({.kind = MachineEvent::Kind::kWakeup});
  for (bus::Device* device : board_->devices()) device->start();
  state_ = RunState::kRunning;
  set_clock_running(true);
  wake_disks();
  gate_.open();
}

}  // namespace kite::machine
