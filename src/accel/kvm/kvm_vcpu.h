// KvmVcpu: a vCPU file of /dev/kvm. run() is the exit loop (kvm_vcpu.cc); every reason that KVM can give has its answer
// in kvm_exits.cc.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "accel/kvm/fallback.h"
#include "accel/kvm/kvm_accelerator.h"
#include "accel/kvm/kvm_report.h"
#include "accel/kvm/kvm_state.h"
#include "accel/kvm/kvm_statistics.h"
#include "accel/vcpu.h"

namespace kite {

struct KvmVm;

// How often each exit reason was seen; written by the vCPU's thread, read by any.
struct KvmExitCounts {
  static constexpr size_t kReasons = 48;  // the last one counts every unknown reason
  std::array<std::atomic<uint64_t>, kReasons> by_reason{};
  std::atomic<uint64_t> runs{0};         // KVM_RUN calls
  std::atomic<uint64_t> interrupted{0};  // that came back with EINTR
};

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
  Result<> set_debug(const GuestDebug& debug) override;
  [[nodiscard]] DebugStop debug_stop() const override { return debug_stop_; }
  std::optional<Gpa> debug_translate(uint64_t linear) override;
  [[nodiscard]] std::string internal_error() const override { return internal_error_; }
  [[nodiscard]] std::vector<uint8_t> save_own() override;
  Result<> restore_own(const std::vector<uint8_t>& bytes) override;

  // vCPU thread or while it is not in run(): the whole state in KVM's form. Everything that save() gives goes back by
  // load() as it was, pending events included; parts that equal those of `known`, a state that the vCPU is in, are not
  // written. The TSC moves by itself and is only written when `writes_tsc` says so.
  Result<> save(KvmCpuState& state) const;
  Result<> load(const KvmCpuState& state, const KvmCpuState* known = nullptr);
  // The fall-back has left new registers in kvm_run: the kernel takes them when it is entered again.
  void registers_wait_in_run() { incomplete_ = ready_stale_ = true; }
  // For to_arch() and from_arch().
  [[nodiscard]] KvmTimeBase time_base() const;

  // Whether a debugger has asked for anything.
  [[nodiscard]] bool debugged() const { return debug_ != GuestDebug{}; }

  [[nodiscard]] const KvmFd& fd() const { return fd_; }
  [[nodiscard]] const VcpuConfig& config() const { return config_; }
  [[nodiscard]] KvmAccelerator& accelerator() const { return owner_; }
  [[nodiscard]] const KvmExitCounts& exit_counts() const { return counts_; }
  [[nodiscard]] const EmulationFallback& fallback() const { return *fallback_; }

  // Any thread: returns when the vCPU has left the kernel once since the call, or was not in it.
  void exit_once();
  // While it is not in run().
  void enter_virtual_wire_mode();  // with a local APIC in the kernel: see IrqChip
  void time_stopped();
  void time_resumed();

 private:
  friend class KvmAccelerator;
  using Stop = std::optional<HaltReason>;  // nothing: go on

  KvmVcpu(KvmAccelerator& owner, const VcpuConfig& config);
  Result<> open();
  Result<> set_up_cpu();
  void interrupt_running() override;

  // --- the loop (kvm_vcpu.cc)
  void enter_thread();
  int enter_kernel();
  Stop serve_requests();
  Stop complete_instruction();
  void prepare_injection();
  void after_kernel();
  bool wakes_up();
  void take_init();
  void take_sipi();
  Stop run_failed(int error);

  // --- exits (kvm_exits.cc)
  Stop handle_exit();
  Stop on_io();
  Stop on_mmio();
  Stop on_msr(bool write);
  Stop on_hypercall();
  Stop on_hyperv();
  Stop on_xen();
  Stop on_system_event();
  Stop on_internal_error();
  Stop step_emulated();
  HaltReason end_step();
  Stop on_debug();
  Stop on_notify();
  Stop on_dirty_ring_full();
  Stop foreign_exit();
  uint64_t mmio_read(Gpa address, unsigned size);
  void mmio_write(Gpa address, unsigned size, uint64_t value);
  [[nodiscard]] bool in_apic_page(Gpa address) const;
  Stop give_up(std::string what);

  [[nodiscard]] uint64_t clock_tsc() const;
  [[nodiscard]] std::optional<uint64_t> read_msr(uint32_t index) const;
  bool write_msr(uint32_t index, uint64_t value) const;
  void load_msrs(const KvmCpuState& state, const KvmCpuState* known);
  bool move_tsc(uint64_t target);

  // Static configuration and wiring.
  KvmAccelerator& owner_;
  KvmVm& vm_;
  const VcpuConfig config_;
  const bool kernel_apic_;
  KvmFd fd_;
  KvmMapping map_;
  kvm_run* run_ = nullptr;  // in map_
  std::vector<uint32_t> msr_list_;
  std::unique_ptr<EmulationFallback> fallback_;

  // Of the vCPU's thread, or of who holds the parked vCPU.
  CpuIo* io_ = nullptr;      // valid inside run()
  bool incomplete_ = false;  // the kernel has to be entered again to finish the instruction that exited
  bool ready_stale_ = true;  // ready_for_interrupt_injection is older than the state
  x86::Activity activity_ = x86::Activity::kActive;  // without a local APIC in the kernel
  bool halted_with_if_ = false;
  uint64_t seen_cr8_ = 0, seen_apic_base_ = 0;
  std::optional<uint64_t> stopped_tsc_;
  GuestDebug debug_;
  DebugStop debug_stop_;
  std::string internal_error_;

  // Any thread.
  std::atomic<bool> in_kernel_{false};
  std::atomic<int> thread_id_{0};
  KvmExitCounts counts_;
  std::unique_ptr<KvmStatistics> statistics_;  // null where KVM has none
  std::unique_ptr<KvmExitMetrics> exit_metrics_;
};

}  // namespace kite
