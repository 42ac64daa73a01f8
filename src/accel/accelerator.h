// Accelerator: a way to run guest code. kvm, jit (also "tcg"), qtest.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "accel/irq_chip.h"
#include "accel/vcpu.h"
#include "memory/address_space.h"

namespace kite {

// Writes to coalesced regions that an accelerator queued by itself (KVM's ring).
class QueuedWrites {
 public:
  virtual ~QueuedWrites() = default;
  // Whether any region is queued at all: then somebody has to look now and then.
  [[nodiscard]] virtual bool in_use() const = 0;
  // Any thread, a few loads.
  [[nodiscard]] virtual bool empty() const = 0;
  // Dispatches them to the address spaces, oldest first. Any thread that holds no device lock.
  virtual void drain() = 0;
};

class Accelerator {
 public:
  virtual ~Accelerator() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  // Flags that this accelerator can give a guest.
  [[nodiscard]] virtual x86::FeatureSet offered_features() const = 0;
  // The guest-physical space that vCPUs run in; observed for as long as the accelerator lives. Once, before
  // create_vcpu.
  virtual Result<> attach_memory(AddressSpace& memory) = 0;
  virtual Result<std::unique_ptr<Vcpu>> create_vcpu(const VcpuConfig& config) = 0;
  // The ports, for what an accelerator does with them by itself (doorbells, coalesced writes); observed likewise.
  virtual Result<> attach_ports(AddressSpace& ports) { return (void)ports, Result<>{}; }

  // Whether vCPUs have system-management mode. Then, before create_vcpu: the space that they see in it, which shows
  // what attach_memory()'s does where SMRAM does not lie over it; observed likewise.
  [[nodiscard]] virtual bool has_smm() const { return false; }
  virtual Result<> attach_smm_memory(AddressSpace& memory) { return (void)memory, Result<>{}; }

  // Ticks of a vCPU's time-stamp counter per second.
  [[nodiscard]] virtual uint64_t tsc_hz() const { return 1'000'000'000; }
  // The interrupt hardware that the accelerator has of its own, or null: the board has all of it.
  [[nodiscard]] virtual IrqChip* irq_chip() { return nullptr; }
  [[nodiscard]] virtual QueuedWrites* queued_writes() { return nullptr; }
  // Guest time stops and goes on (main thread, vCPUs parked): time-stamp counters and paravirtual clocks stand still in
  // between, as the machine's clock does.
  virtual void time_stopped() {}
  virtual void time_resumed() {}
  // The paravirtual clock, for a saved machine; while time is stopped. Empty: there is none.
  [[nodiscard]] virtual std::vector<uint8_t> save_clock() { return {}; }
  virtual Result<> restore_clock(const std::vector<uint8_t>& bytes) {
    if (bytes.empty()) return {};
    return fail("the machine was saved under another accelerator");
  }

  // What Vcpu::set_debug() takes.
  [[nodiscard]] virtual DebugLimits debug_limits() const { return {}; }

  // False for qtest: vCPUs never run and time is the client's.
  [[nodiscard]] virtual bool executes() const { return true; }
};

}  // namespace kite
