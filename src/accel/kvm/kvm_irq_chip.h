// KVM's interrupt controllers as an IrqChip: local APICs alone (kernel-irqchip=split) or with the 8259 pair, the IOAPIC
// and the 8254 (kernel-irqchip=on).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "accel/irq_chip.h"
#include "accel/kvm/kvm_abi.h"
#include "accel/kvm/kvm_system.h"

namespace kite {

class KvmIrqChip final : public IrqChip {
 public:
  static constexpr uint32_t kPins = 24;
  enum class Parts : uint8_t { kLocalApics, kControllers, kControllersAndTimer };

  // Makes the parts in `vm`, before any vCPU.
  static Result<std::unique_ptr<KvmIrqChip>> create(const KvmSystem& system, const KvmFd& vm, Parts parts);

  [[nodiscard]] bool has_io_controllers() const override { return parts_ != Parts::kLocalApics; }
  [[nodiscard]] bool has_timer() const override { return parts_ == Parts::kControllersAndTimer; }
  void set_line(uint32_t gsi, bool level) override;
  bool send_msi(const MsiWrite& message) override;
  Result<uint32_t> add_route(const MsiWrite& message) override;
  Result<> change_route(uint32_t gsi, const MsiWrite& message) override;
  void remove_route(uint32_t gsi) override;
  Result<> attach_event(int event_fd, uint32_t gsi, int resample_fd) override;
  void detach_event(int event_fd, uint32_t gsi) override;
  void set_pin(uint32_t pin, const std::optional<MsiWrite>& message) override;
  void set_eoi_listener(std::function<void(uint8_t vector)> listener) override { eoi_ = std::move(listener); }
  void reset() override;
  void program_as_firmware(uint16_t level_triggered) override;
  void set_timer_silenced(bool silenced) override;
  [[nodiscard]] Result<std::vector<uint8_t>> get_state() override;
  Result<> set_state(const std::vector<uint8_t>& state) override;

  // For the vCPUs: an EOI exit, and how to reach a local APIC's page.
  void end_of_interrupt(uint8_t vector) {
    if (eoi_) eoi_(vector);
  }
  void set_wire_mode_handler(std::function<void()> handler) { wire_mode_ = std::move(handler); }
  // Guest time stands still in between: the 8254 makes no ticks.
  void time_stopped();
  void time_resumed();

 private:
  // What get_state() holds, byte for byte.
  struct State {
    uint32_t has_timer = 0, reserved = 0;
    std::array<kvm_irqchip, 3> chips{};  // both 8259s, the IOAPIC
    kvm_pit_state2 timer{};
  };

  KvmIrqChip(const KvmSystem& system, const KvmFd& vm, Parts parts);
  Result<> make_parts();
  Result<> read(State& state) const;
  Result<> write(State& state);  // the timer's part counts from time_resumed() on while time is stopped
  Result<> apply_routes();       // callers hold mutex_

  const KvmFd& vm_;
  const Parts parts_;
  const uint32_t route_limit_;
  const bool signals_;  // KVM_SIGNAL_MSI
  const bool events_, resamples_;
  State initial_;
  std::function<void(uint8_t)> eoi_;
  std::function<void()> wire_mode_;
  std::optional<kvm_pit_state2> stopped_timer_;

  std::mutex mutex_;  // a leaf
  std::array<std::optional<MsiWrite>, kPins> pins_{};
  std::map<uint32_t, MsiWrite> routes_;
};

}  // namespace kite
