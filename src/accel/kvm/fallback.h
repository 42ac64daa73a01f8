// EmulationFallback: what carries on when KVM reports that it cannot emulate an instruction (KVM_EXIT_INTERNAL_ERROR,
// suberror KVM_INTERNAL_ERROR_EMULATION). One a vCPU; used on the vCPU's thread only, between two KVM_RUNs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "accel/cpu_io.h"
#include "accel/kvm/kvm_abi.h"
#include "accel/vcpu.h"
#include "memory/address_space.h"

namespace kite {

class KvmVcpu;

class EmulationFallback {
 public:
  enum class Outcome : uint8_t {
    kGoOn,      // at least one instruction (or event delivery) is done and the vCPU's state is written back: KVM_RUN
    kHalted,    // likewise, and the instruction was HLT
    kShutdown,  // a triple fault
    kGaveUp,    // nothing changed; `report` says why
  };

  virtual ~EmulationFallback() = default;
  // `run` is the vCPU's kvm_run with the exit in it. New registers may go back through it (kvm_dirty_regs): the vCPU
  // then knows that it has to enter the kernel before its state is looked at. `report` is only read after kGaveUp.
  virtual Outcome emulate(KvmVcpu& vcpu, kvm_run& run, CpuIo& io, std::string& report) = 0;
  // How many instructions were executed so far; any thread.
  [[nodiscard]] virtual uint64_t executed() const { return 0; }
};

// Over cpu::Cpu. `memory` is the space that the vCPU runs in.
std::unique_ptr<EmulationFallback> make_emulation_fallback(const VcpuConfig& config, AddressSpace& memory);

}  // namespace kite
