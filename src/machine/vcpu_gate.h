// VcpuGate: who may execute guest code now. vCPU threads pass it around every Vcpu::run(); pausing the machine and
// changing the memory map close it. Any number of threads may ask for exclusivity at once, vCPUs in the middle of an
// instruction included: they take turns, and one that waits counts as parked.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "accel/vcpu.h"

namespace kite::machine {

class VcpuGate {
 public:
  void add(Vcpu& vcpu);  // before any thread runs

  // vCPU thread: blocks while the gate is closed, or `vcpu` held. False: the machine is going away, do not run.
  bool enter(const Vcpu* vcpu = nullptr);
  void leave();

  // Runs `work` with every vCPU parked. From a vCPU inside run() (in a CpuIo callback), from a vCPU thread outside it,
  // or from any other thread.
  void exclusive(const std::function<void()>& work);

  // Closes the gate without waiting (any thread, vCPUs included): no vCPU gets beyond its current instruction block.
  void close();
  // Waits until every vCPU is parked. Not from inside run().
  void wait_parked();
  void open();
  // These, and no others, do not get in although the gate is open. While it is closed.
  void hold(std::vector<const Vcpu*> vcpus);
  // Lets every waiting thread go with enter() answering false.
  void shut_down();

  // Whether the calling thread is a vCPU inside run().
  [[nodiscard]] static bool inside_run();

 private:
  void kick_all();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Vcpu*> vcpus_;
  std::vector<const Vcpu*> held_;
  uint32_t running_ = 0;
  bool closed_ = true;
  bool exclusive_ = false;
  bool shut_down_ = false;
};

}  // namespace kite::machine
