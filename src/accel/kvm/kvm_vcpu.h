// KvmVcpu: a vCPU file of /dev/kvm. run() is the exit loop; every reason that KVM can give has its answer there.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "accel/kvm/fallback.h"
#include "accel/kvm/kvm_accelerator.h"
#include "accel/kvm/kvm_state.h"
#include "accel/vcpu.h"

namespace kite {

// How often each exit reason was seen; written by the vCPU's thread, read by any.
struct KvmExitCounts {
  static constexpr size_t kReasons = 48;  // the last one counts every unknown reason
  std::array<std::atomic<uint64_t>, kReasons> by_reason{};
  std::atomic<uint64_t> runs{0};         // KVM_RUN calls
  std::atomic<uint64_t> interrupted{0};  // that came back with EINTR
};
std::string_view kvm_exit_name(uint32_t reason);  // "IO", "MMIO", ...; "unknown" for what today's interface lacks

class KvmVcpu final : public Vcpu {
 public:
  ~KvmVcpu() override;

  // Vcpu.
  HaltReason run(CpuIo& io) override;
  void get_state(x86::ArchState& state) override;
  void set_state(const x86::ArchState& state) override;
  void reset() override;
  [[nodiscard]] bool has_work(uint32_t requests) const override;
  [[nodiscard]] int64_t tsc_offset() const override;
  [[nodiscard]] std::string internal_error() const override { return internal_error_; }

  // vCPU thread or while it is not in run(): the whole state in KVM's form. Every part of save() that load() is given
  // goes back as it was, pending events included.
  Result<> save(KvmCpuState& state);
  Result<> load(const KvmCpuState& state);

  [[nodiscard]] const KvmFd& fd() const { return fd_; }
  [[nodiscard]] const VcpuConfig& config() const { return config_; }
  [[nodiscard]] KvmAccelerator& accelerator() const { return owner_; }
  [[nodiscard]] const KvmExitCounts& exit_counts() const { return counts_; }

 private:
  friend class KvmAccelerator;
  KvmVcpu(KvmAccelerator& owner, const VcpuConfig& config);
  void interrupt_running() override;

  KvmAccelerator& owner_;
  VcpuConfig config_;
  KvmFd fd_;
  KvmMapping map_;
  KvmExitCounts counts_;
  std::unique_ptr<EmulationFallback> fallback_;
  std::string internal_error_;
};

}  // namespace kite
