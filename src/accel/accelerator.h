// Accelerator: a way to run guest code. kvm, jit (also "tcg"), qtest.
#pragma once

#include <memory>
#include <string_view>

#include "accel/vcpu.h"
#include "memory/address_space.h"

namespace kite {

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
  // False for qtest: vCPUs never run and time is the client's.
  [[nodiscard]] virtual bool executes() const { return true; }
};

}  // namespace kite
