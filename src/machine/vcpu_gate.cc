#include "machine/vcpu_gate.h"

#include <algorithm>

namespace kite::machine {

namespace {
thread_local bool t_inside_run = false;
}

bool VcpuGate::inside_run() { return t_inside_run; }

void VcpuGate::add(Vcpu& vcpu) {
  std::lock_guard lock(mutex_);
  vcpus_.push_back(&vcpu);
}

bool VcpuGate::enter(const Vcpu* vcpu) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this, vcpu] {
    return shut_down_ || (!closed_ && !exclusive_ && std::ranges::find(held_, vcpu) == held_.end());
  });
  if (shut_down_) return false;
  ++running_;
  t_inside_run = true;
  return true;
}

void VcpuGate::leave() {
  std::lock_guard lock(mutex_);
  t_inside_run = false;
  --running_;
  changed_.notify_all();
}

void VcpuGate::exclusive(const std::function<void()>& work) {
  std::unique_lock lock(mutex_);
  if (t_inside_run) {
    --running_;  // this vCPU stands still in a callback: it is parked
    changed_.notify_all();
  }
  changed_.wait(lock, [this] { return !exclusive_; });
  exclusive_ = true;
  kick_all();
  changed_.wait(lock, [this] { return running_ == 0; });
  lock.unlock();
  work();
  lock.lock();
  exclusive_ = false;
  if (t_inside_run) ++running_;
  changed_.notify_all();
}

void VcpuGate::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  kick_all();
}

void VcpuGate::wait_parked() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return running_ == 0; });
}

void VcpuGate::open() {
  std::lock_guard lock(mutex_);
  closed_ = false;
  changed_.notify_all();
}

void VcpuGate::hold(std::vector<const Vcpu*> vcpus) {
  std::lock_guard lock(mutex_);
  held_ = std::move(vcpus);
}

void VcpuGate::shut_down() {
  std::lock_guard lock(mutex_);
  shut_down_ = true;
  kick_all();
  changed_.notify_all();
}

void VcpuGate::kick_all() {
  for (Vcpu* vcpu : vcpus_) vcpu->kick();
}

}  // namespace kite::machine
