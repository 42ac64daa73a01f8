// 82093AA I/O APIC with 24 inputs; as version 0x20 it also has the EOI register of later chip sets.
// 4 KiB at 0xfec00000: 0x00 register select, 0x10 window, 0x40 EOI. [82093AA] Intel 290566-001; [ICH] Intel
// 290655, 9.5.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "bus/device.h"
#include "devices/apic/apic_bus.h"

namespace kite::devices {

struct IoApicConfig {
  uint8_t version = 0x20;  // 0x11 or 0x20
};

// Hears what each input sends, for an accelerator that reports the ends of level-triggered interrupts by it. Called
// with the IOAPIC's lock held.
class PinListener {
 public:
  virtual ~PinListener() = default;
  virtual void pin_changed(unsigned input, const std::optional<ApicMessage>& message) = 0;  // nothing: masked
};

class IoApic final : public bus::Device, public bus::IrqSink, public EoiListener, private IoHandler {
 public:
  static constexpr unsigned kInputs = 24;

  // Attaches itself to `bus`, which outlives it.
  IoApic(std::string path, const IoApicConfig& config, ApicBus& bus);

  // While the machine is built.
  void set_pin_listener(PinListener& listener) { pin_listener_ = &listener; }

  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

  // Inputs 0-23, the level meaning asserted whatever the polarity bit says. A leaf lock, as in end_of_interrupt.
  void set_irq(uint32_t line, bool level) override;
  void end_of_interrupt(uint8_t vector) override;
  void destinations_changed() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  struct State {
    std::array<uint64_t, kInputs> entries{};
    uint32_t levels = 0;  // of the inputs
    uint32_t id = 0;      // register 0, bits 27:24
    uint8_t select = 0;
  };

  uint64_t io_read(uint64_t offset, unsigned size) override;
  void io_write(uint64_t offset, unsigned size, uint64_t value) override;
  // Callers hold lock_.
  [[nodiscard]] uint32_t read_register() const;
  void write_register(uint32_t value);
  void write_entry(unsigned input, bool high, uint32_t value);
  void evaluate(unsigned input);  // a level-triggered input: sends if it has to
  bool deliver(unsigned input);
  [[nodiscard]] std::optional<ApicMessage> message_of(unsigned input) const;  // whether masked or not
  void tell_pin(unsigned input);
  void end_level(uint8_t vector);

  // Static configuration.
  IoApicConfig config_;

  // Wiring.
  ApicBus& bus_;
  PinListener* pin_listener_ = nullptr;
  std::shared_ptr<Region> region_;

  // State, guarded by lock_.
  std::mutex lock_;
  State state_;
};

}  // namespace kite::devices
