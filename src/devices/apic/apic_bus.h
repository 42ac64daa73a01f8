// ApicBus: what connects the local APICs with each other, with the IOAPICs and with message-signalled interrupts. It
// has no lock: the members are fixed while the machine is built, and accepting an interrupt is atomic in each local
// APIC.
//
// Message address: [SDM 3A 11.11]. 0xFEE00000-0xFEEFFFFF is message space; a processor's own register page lies over
// it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "bus/irq_line.h"
#include "bus/msi.h"
#include "devices/apic/apic_message.h"
#include "devices/apic/ext_int.h"
#include "memory/guest_memory.h"
#include "memory/region.h"

namespace kite::devices {

class CpuApic;

// Processors whose local APICs are an accelerator's, and no devices here: the bus ends at this. Any thread, with an
// interrupt controller's lock held.
class RemoteApics {
 public:
  virtual ~RemoteApics() = default;
  virtual bool send_msi(uint64_t address, uint32_t data) = 0;  // whether somebody took it
  virtual void set_intr(bool level) = 0;                       // the 8259's INT
  virtual void nmi() = 0;                                      // the NMI wire rose
};

// An IOAPIC, as the processors know it. Both functions are called on a processor's thread and take the IOAPIC's lock.
class EoiListener {
 public:
  virtual ~EoiListener() = default;
  virtual void end_of_interrupt(uint8_t vector) = 0;  // of a level-triggered interrupt
  virtual void destinations_changed() = 0;            // a message that nobody took may find somebody now
};

class ApicBus final : public bus::IrqSink, public bus::MsiSink, private IoHandler {
 public:
  static constexpr uint64_t kMessageBase = 0xfee00000;
  static constexpr uint64_t kMessageSize = 0x100000;

  ApicBus();

  // While the machine is built. CpuApic and IoApic attach themselves; the 8259 is named by the board.
  void attach(CpuApic& apic);
  void attach(EoiListener& listener);
  void set_ext_int(ExtInt& ext_int) { ext_int_ = &ext_int; }
  void set_remote(RemoteApics& remote) { remote_ = &remote; }  // instead of attach(CpuApic&)
  void set_memory(GuestMemory& memory) { memory_ = &memory; }  // for messages to elsewhere

  // The 8259's INT, wired to LINT0 of every processor, and the NMI wire on LINT1.
  [[nodiscard]] bus::IrqLine intr_line() { return {*this, kIntr}; }
  [[nodiscard]] bus::IrqLine nmi_line() { return {*this, kNmi}; }
  void set_irq(uint32_t line, bool level) override;

  // Any thread. Answers whether at least one processor took the message.
  bool send(const ApicMessage& message);
  // A write of `data` to `address`, from a device. Outside of message space it is what the wires carry: a write to
  // memory (set_memory()). What is no message and reaches no memory is dropped.
  bool send_msi(uint64_t address, uint32_t data) override;

  // Message space as the processors see it: mapped at kMessageBase with a low priority; reads answer all ones.
  [[nodiscard]] const std::shared_ptr<Region>& message_region() const { return region_; }

  // For the local APICs.
  enum class Shorthand : uint8_t { kNone = 0, kSelf = 1, kAll = 2, kOthers = 3 };
  bool send_ipi(const ApicMessage& message, Shorthand shorthand, CpuApic& sender);
  void end_of_interrupt(uint8_t vector);
  void destinations_changed();
  [[nodiscard]] ExtInt* ext_int() const { return ext_int_; }
  [[nodiscard]] std::span<CpuApic* const> apics() const { return apics_; }

 private:
  enum Line : uint32_t { kIntr = 0, kNmi = 1 };
  uint64_t io_read(uint64_t offset, unsigned size) override;
  void io_write(uint64_t offset, unsigned size, uint64_t value) override;
  bool send_lowest_priority(const ApicMessage& message);

  // Wiring.
  std::vector<CpuApic*> apics_;
  std::vector<EoiListener*> listeners_;
  ExtInt* ext_int_ = nullptr;
  RemoteApics* remote_ = nullptr;
  GuestMemory* memory_ = nullptr;
  std::shared_ptr<Region> region_;
};

}  // namespace kite::devices
