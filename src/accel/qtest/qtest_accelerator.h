// The accelerator of the qtest protocol: vCPUs that never execute. A test client drives the devices and the clock.
#pragma once

#include <memory>

#include "accel/accelerator.h"

namespace kite {

class QtestAccelerator final : public Accelerator {
 public:
  [[nodiscard]] std::string_view name() const override { return "qtest"; }
  // Nothing runs, so every flag can be shown.
  [[nodiscard]] x86::FeatureSet offered_features() const override;
  Result<> attach_memory(AddressSpace&) override { return {}; }
  Result<std::unique_ptr<Vcpu>> create_vcpu(const VcpuConfig& config) override;
  [[nodiscard]] bool executes() const override { return false; }
};

}  // namespace kite
