// The software CPU as an accelerator: "jit", also named "tcg". A vCPU is a cpu::Cpu; guest code is interpreted from
// blocks of decoded instructions.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "accel/accelerator.h"
#include "accel/jit/jit_options.h"

namespace kite {

class JitVcpu;
namespace jit {
class PerfMap;
}

class JitAccelerator final : public Accelerator, private MapObserver {
 public:
  explicit JitAccelerator(const JitOptions& options = {});
  ~JitAccelerator() override;  // after its vCPUs, before the address space

  [[nodiscard]] std::string_view name() const override { return "jit"; }
  [[nodiscard]] x86::FeatureSet offered_features() const override;
  Result<> attach_memory(AddressSpace& memory) override;
  Result<std::unique_ptr<Vcpu>> create_vcpu(const VcpuConfig& config) override;
  [[nodiscard]] bool has_smm() const override { return true; }
  Result<> attach_smm_memory(AddressSpace& memory) override;

 private:
  friend class JitVcpu;

  void range_removed(const FlatRange& range) override;
  void range_added(const FlatRange&) override {}
  void commit_done() override;
  void forget(JitVcpu& vcpu);

  Result<> make_perf_map();

  JitOptions options_;
  std::shared_ptr<jit::PerfMap> perf_map_;  // once a vCPU needs it
  AddressSpace* memory_ = nullptr;
  AddressSpace* smm_memory_ = nullptr;
  bool memory_removed_ = false;  // by the commit under way: decoded code may point into it
  std::mutex vcpus_mutex_;
  std::vector<JitVcpu*> vcpus_;
};

}  // namespace kite
