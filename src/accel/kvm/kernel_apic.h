// KernelApic: the local APIC that KVM keeps for a vCPU, as cpu::Cpu wants it, for instructions that the fall-back
// executes. Registers are read from KVM_GET_LAPIC; a write does what the hardware would: KVM_SET_LAPIC for registers,
// messages for the interrupt command register, an EOI that reaches the I/O APIC. On the vCPU's thread, between two
// KVM_RUNs.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "accel/kvm/kvm_abi.h"
#include "accel/kvm/kvm_calls.h"
#include "accel/local_apic.h"
#include "x86/topology.h"

namespace kite {

class KernelApic final : public LocalApic {
 public:
  // What an APIC does beyond its own registers.
  struct Wiring {
    std::function<void(uint64_t address, uint32_t data)> send;  // an MSI
    std::function<void(uint8_t vector)> end_of_interrupt;       // of a level-triggered one, to the I/O APICs
    uint32_t cpu_count = 1;
    x86::CpuTopology topology = {};  // which has their APIC ids
    uint32_t apic_id = 0;
  };
  // Both outlive this.
  KernelApic(const KvmFd& vcpu, Wiring wiring) : vcpu_(vcpu), wiring_(std::move(wiring)) {}

  // Before an instruction: what KVM_GET_SREGS said. After it: what goes back, if it differs.
  void begin(uint64_t base, uint64_t cr8) {
    base_ = base;
    cr8_ = static_cast<uint8_t>(cr8);
  }

  // LocalApic. External interrupts are KVM's business: there never is one here.
  [[nodiscard]] bool has_interrupt() const override { return false; }
  std::optional<uint8_t> acknowledge() override { return std::nullopt; }
  [[nodiscard]] uint64_t base() const override { return base_; }
  bool set_base(uint64_t value) override;
  uint32_t mmio_read(uint32_t offset) override;
  void mmio_write(uint32_t offset, uint32_t value) override;
  bool msr_read(uint32_t index, uint64_t& value) override;
  bool msr_write(uint32_t index, uint64_t value) override;
  [[nodiscard]] uint8_t cr8() const override { return cr8_; }
  void set_cr8(uint8_t value) override { cr8_ = value; }
  [[nodiscard]] uint64_t tsc_deadline() const override;
  void set_tsc_deadline(uint64_t value) override;
  void reset(bool) override {}

 private:
  [[nodiscard]] bool fetch(kvm_lapic_state& page) const;
  void end_of_interrupt();
  void command(uint32_t low);
  // KVM_GET_MSRS or KVM_SET_MSRS of one register.
  bool access_msr(unsigned long request, uint32_t index, uint64_t& value) const;

  const KvmFd& vcpu_;
  Wiring wiring_;
  uint64_t base_ = 0;
  uint8_t cr8_ = 0;
};

}  // namespace kite
