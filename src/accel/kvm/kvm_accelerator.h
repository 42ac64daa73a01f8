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

class KvmVm;
class KvmMemorySlots;
class KvmCoalesced;
class KvmDoorbells;
class KvmIrqChip;
class KvmVcpu;

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
  Result<std::unique_ptr<Vcpu>> create_vcpu(const VcpuConfig& config) override;

  [[nodiscard]] KvmSystem& system() const { return *system_; }
  [[nodiscard]] const KvmOptions& options() const { return options_; }
  [[nodiscard]] KernelIrqchip irqchip() const { return options_.irqchip.value_or(KernelIrqchip::kOn); }
  // The VM's descriptor: KVM_GET_STATS_FD and other questions about the whole VM.
  [[nodiscard]] const KvmFd& vm_fd() const;
  // The vCPUs that exist, in order of creation.
  [[nodiscard]] std::vector<KvmVcpu*> vcpus() const;

 private:
  friend class KvmVcpu;
  KvmAccelerator(std::shared_ptr<KvmSystem> system, const KvmOptions& options);
  Result<> build();
  void forget(KvmVcpu& vcpu);

  std::shared_ptr<KvmSystem> system_;
  KvmOptions options_;
  AddressSpace* memory_ = nullptr;
  std::unique_ptr<KvmVm> vm_;
  mutable std::mutex vcpus_mutex_;
  std::vector<KvmVcpu*> vcpus_;
};

}  // namespace kite
