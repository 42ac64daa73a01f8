// The local APIC of one processor: xAPIC and x2APIC, with its timer. The register page is reached through
// kite::LocalApic by the processor itself; everybody else sends messages over the ApicBus. Accepting an interrupt takes
// no lock: IRR and TMR are atomic, and the processor is told through ApicCpu. 4 KiB at IA32_APIC_BASE (0xfee00000 after
// reset), MSRs 0x800-0x8ff. [SDM 3A 11].
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "accel/local_apic.h"
#include "bus/device.h"
#include "devices/apic/apic_bus.h"
#include "devices/apic/apic_cpu.h"
#include "devices/apic/apic_message.h"
#include "devices/apic/apic_regs.h"
#include "devices/apic/apic_timer.h"

namespace kite::devices {

struct CpuApicConfig {
  uint32_t id = 0;              // the initial APIC id; xAPIC mode shows its low 8 bits
  bool bootstrap = false;       // IA32_APIC_BASE.BSP
  bool x2apic = false;          // CPUID offers x2APIC
  bool tsc_deadline = false;    // CPUID offers the TSC deadline timer
  bool directed_eoi = true;     // SVR bit 12 can suppress EOI broadcasts (for IOAPICs with an EOI register)
  unsigned physical_bits = 40;  // of IA32_APIC_BASE
  uint64_t timer_hz = 1'000'000'000;
  uint64_t tsc_hz = 1'000'000'000;
};

class CpuApic final : public bus::Device, public LocalApic {
 public:
  // Attaches itself to `bus`, which outlives it.
  CpuApic(std::string path, const CpuApicConfig& config, ApicBus& bus, ApicCpu& cpu, Clock& clock);

  // bus::Device. reset() is power-on.
  void reset() override { reset(true); }
  void start() override { timer_.start(); }
  void stop() override { timer_.stop(); }
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // LocalApic.
  [[nodiscard]] bool has_interrupt() const override;
  std::optional<uint8_t> acknowledge() override;
  [[nodiscard]] uint64_t base() const override { return base_.load(std::memory_order_acquire); }
  bool set_base(uint64_t value) override;
  uint32_t mmio_read(uint32_t offset) override;
  void mmio_write(uint32_t offset, uint32_t value) override;
  bool msr_read(uint32_t index, uint64_t& value) override;
  bool msr_write(uint32_t index, uint64_t value) override;
  [[nodiscard]] uint8_t cr8() const override;
  void set_cr8(uint8_t value) override;
  [[nodiscard]] uint64_t tsc_deadline() const override;
  void set_tsc_deadline(uint64_t value) override;
  void reset(bool power_on) override;

  // What firmware leaves behind, for boards without one: software-enabled, LINT0 = ExtINT on the bootstrap processor
  // (virtual wire mode, [MP 1.4] 3.6.2.2), LINT1 = NMI. While the vCPU is not running.
  void enter_virtual_wire_mode();

  // For ApicBus; any thread.
  [[nodiscard]] bool matches(const ApicMessage& message) const;
  bool accept(const ApicMessage& message);  // whether it was taken
  void set_lint(unsigned pin, bool level);
  [[nodiscard]] bool accepts_fixed() const;  // enabled by hardware and software
  [[nodiscard]] uint8_t arbitration_priority() const;
  [[nodiscard]] bool enabled() const { return (base() & apic::kBaseEnable) != 0; }
  [[nodiscard]] bool x2apic_mode() const { return (base() & apic::kBaseX2Apic) != 0; }

 private:
  using Words = std::array<uint32_t, 8>;
  using Bitmap = std::array<std::atomic<uint32_t>, 8>;  // one bit a vector

  // What is saved; the live values are the atomics below.
  struct State {
    uint64_t base = 0;
    uint32_t id = 0, tpr = 0, ldr = 0, dfr = 0, svr = 0;
    uint64_t icr = 0;
    uint32_t esr = 0, esr_pending = 0;
    std::array<uint32_t, apic::kLvtCount> lvt{};
    Words isr{}, tmr{}, irr{};
    std::array<bool, 2> lint_level{};
    bool ext_int_message = false;
    ApicTimer::State timer;
  };
  [[nodiscard]] State snapshot() const;
  void apply(const State& state);
  [[nodiscard]] const char* impossible(const State& state) const;
  [[nodiscard]] const char* impossible_timer(const State& state) const;

  // The processor's thread.
  [[nodiscard]] uint32_t read_register(apic::Reg reg);
  void write_register(apic::Reg reg, uint32_t value);
  void write_lvt(unsigned entry, uint32_t value);
  void write_svr(uint32_t value);
  void write_icr(uint64_t value);
  void send_self(uint8_t vector);
  void end_of_interrupt();
  void reevaluate_lints();
  void clear_registers();

  // Any thread.
  void report_error(uint32_t bits);
  void deliver_local(unsigned entry);
  void set_request(uint8_t vector, bool level);
  void wake_if_pending();
  [[nodiscard]] bool matches_logical(uint32_t destination, bool wide) const;
  [[nodiscard]] uint32_t visible_ldr() const;
  [[nodiscard]] bool ext_int_accepted() const;
  [[nodiscard]] uint8_t processor_priority() const;

  [[nodiscard]] bool base_is_legal(uint64_t value) const;
  [[nodiscard]] bool msr_value_fits(apic::Reg reg, uint64_t value) const;
  [[nodiscard]] uint32_t lvt_writable(unsigned entry) const;
  [[nodiscard]] uint32_t svr_writable() const;

  // Static configuration.
  CpuApicConfig config_;

  // Wiring.
  ApicBus& bus_;
  ApicCpu& cpu_;

  // State. Atomic because senders read and write it from other threads; written by the processor's own thread unless
  // said otherwise.
  std::atomic<uint64_t> base_{0};
  std::atomic<uint32_t> id_{0};  // xAPIC: the writable 8-bit id; x2APIC: the initial id
  std::atomic<uint32_t> tpr_{0};
  std::atomic<uint32_t> ldr_{0};
  std::atomic<uint32_t> dfr_{0};
  std::atomic<uint32_t> svr_{0};
  std::atomic<uint64_t> icr_{0};
  std::atomic<uint32_t> esr_{0};
  std::atomic<uint32_t> esr_pending_{0};                      // any thread
  std::array<std::atomic<uint32_t>, apic::kLvtCount> lvt_{};  // remote IRR: any thread
  Bitmap isr_{};
  Bitmap tmr_{};                                   // any thread
  Bitmap irr_{};                                   // any thread
  std::array<std::atomic<bool>, 2> lint_level_{};  // any thread
  std::atomic<bool> ext_int_message_{false};       // any thread: an ExtINT came over the bus
  mutable ApicTimer timer_;
};

}  // namespace kite::devices
