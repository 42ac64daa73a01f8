// /dev/kvm as an accelerator: one VM with its memory slots, interrupt chips and vCPUs.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "accel/accelerator.h"
#include "accel/kvm/kvm_system.h"

namespace kite {

struct KvmVm;
class KvmVcpu;
class KvmStatistics;

enum class KernelIrqchip : uint8_t { kOn, kSplit, kOff };

struct KvmOptions {
  std::string device = "/dev/kvm";
  std::optional<KernelIrqchip> irqchip;  // not given: on
  uint32_t dirty_ring_entries = 0;       // a power of two; 0: dirty bitmaps
  bool kernel_pit = true;                // with irqchip on: KVM's 8254
};

class KvmAccelerator final : public Accelerator {
 public:
  // Makes the VM. A failure's message is complete: what was asked, what is missing, what to do.
  static Result<std::unique_ptr<KvmAccelerator>> create(std::shared_ptr<KvmSystem> system, const KvmOptions& options);
  ~KvmAccelerator() override;  // after its vCPUs, before the address spaces

  [[nodiscard]] std::string_view name() const override { return "kvm"; }
  [[nodiscard]] x86::FeatureSet offered_features() const override;
  Result<> attach_memory(AddressSpace& memory) override;
  Result<> attach_ports(AddressSpace& ports) override;
  Result<std::unique_ptr<Vcpu>> create_vcpu(const VcpuConfig& config) override;
  [[nodiscard]] uint64_t tsc_hz() const override;
  [[nodiscard]] IrqChip* irq_chip() override;
  [[nodiscard]] QueuedWrites* queued_writes() override;
  // The processor's debug registers, and INT3. [SDM 3B 18.2]
  [[nodiscard]] DebugLimits debug_limits() const override { return {.watches = 4, .any_watch = false, .int3 = true}; }
  void time_stopped() override;
  void time_resumed() override;
  [[nodiscard]] std::vector<uint8_t> save_clock() override;
  Result<> restore_clock(const std::vector<uint8_t>& bytes) override;

  [[nodiscard]] KvmSystem& system() const { return *system_; }
  [[nodiscard]] const KvmOptions& options() const { return options_; }
  [[nodiscard]] KernelIrqchip irqchip() const { return options_.irqchip.value_or(KernelIrqchip::kOn); }
  [[nodiscard]] bool kernel_local_apics() const { return irqchip() != KernelIrqchip::kOff; }
  // The VM's descriptor: KVM_GET_STATS_FD and other questions about the whole VM.
  [[nodiscard]] const KvmFd& vm_fd() const;
  // The vCPUs that exist, in order of creation.
  [[nodiscard]] std::vector<KvmVcpu*> vcpus() const;

 private:
  friend class KvmVcpu;
  class CoalescedWrites;

  KvmAccelerator(std::shared_ptr<KvmSystem> system, const KvmOptions& options);
  Result<> build();
  Result<> create_vm();
  Result<> create_interrupt_chips();
  Result<> create_dirty_rings();
  void enable_options();
  [[nodiscard]] bool enable(uint32_t capability, uint64_t argument = 0);
  void filter_msrs();
  void exit_all_vcpus();
  void attach(KvmVcpu& vcpu);
  void forget(KvmVcpu& vcpu);

  std::shared_ptr<KvmSystem> system_;
  KvmOptions options_;
  AddressSpace* memory_ = nullptr;
  AddressSpace* ports_ = nullptr;
  std::unique_ptr<KvmVm> vm_;
  std::unique_ptr<KvmStatistics> statistics_;  // of the VM; null where KVM has none
  std::unique_ptr<CoalescedWrites> coalesced_;
  // Between time_stopped() and time_resumed().
  std::optional<kvm_clock_data> stopped_clock_;
  mutable std::mutex vcpus_mutex_;
  std::vector<KvmVcpu*> vcpus_;
};

}  // namespace kite
