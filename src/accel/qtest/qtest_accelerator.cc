#include "accel/qtest/qtest_accelerator.h"

namespace kite {

namespace {

// Holds state and halts. Requests other than a kick stay pending, as on a CPU that is held in reset.
class QtestVcpu final : public Vcpu {
 public:
  explicit QtestVcpu(const VcpuConfig& config) : config_(config) { reset(); }

  HaltReason run(CpuIo&) override {
    const uint32_t seen = requests_.fetch_and(~request::kKick, std::memory_order_seq_cst);
    return (seen & request::kKick) != 0 ? HaltReason::kKicked : HaltReason::kHalted;
  }
  void get_state(x86::ArchState& state) override { state = state_; }
  void set_state(const x86::ArchState& state) override { state_ = state; }
  void reset() override {
    state_.reset(true, config_.index == 0, config_.cpu == nullptr ? 0 : config_.cpu->signature());
  }
  [[nodiscard]] bool has_work(uint32_t requests) const override { return (requests & request::kKick) != 0; }

 private:
  VcpuConfig config_;
  x86::ArchState state_;
};

}  // namespace

x86::FeatureSet QtestAccelerator::offered_features() const {
  x86::FeatureSet every;
  every.fill(~uint32_t{0});
  return every;
}

Result<std::unique_ptr<Vcpu>> QtestAccelerator::create_vcpu(const VcpuConfig& config) {
  return std::make_unique<QtestVcpu>(config);
}

}  // namespace kite
