#include "devices/apic/apic_bus.h"

#include "devices/apic/cpu_apic.h"

namespace kite::devices {

// [SDM 3A 11.11]
MsiMessage msi_of(const ApicMessage& message) {
  return {
      .address = ApicBus::kMessageBase | (message.destination & 0xff) << 12 | (message.logical ? 1u << 2 : 0u),
      .data = message.vector | static_cast<uint32_t>(message.mode) << 8 | (message.level ? 1u << 15 | 1u << 14 : 0u)};
}

ApicBus::ApicBus() {
  region_ = Region::io("apic-messages", kMessageSize, *this, {.min_size = 1, .max_size = 8, .unaligned = true});
}

void ApicBus::attach(CpuApic& apic) { apics_.push_back(&apic); }

void ApicBus::attach(EoiListener& listener) { listeners_.push_back(&listener); }

void ApicBus::set_irq(uint32_t line, bool level) {
  if (remote_ != nullptr) {
    if (line == kIntr) remote_->set_intr(level);
    if (line == kNmi && level) remote_->nmi();
  }
  for (CpuApic* apic : apics_) apic->set_lint(line, level);
}

bool ApicBus::send(const ApicMessage& message) {
  if (remote_ != nullptr) {
    const MsiMessage msi = msi_of(message);
    return remote_->send_msi(msi.address, msi.data);
  }
  if (message.mode == DeliveryMode::kLowestPriority) return send_lowest_priority(message);
  bool taken = false;
  for (CpuApic* apic : apics_)
    if (apic->matches(message)) taken |= apic->accept(message);
  return taken;
}

// [SDM 3A 11.6.2.4] the one of the named processors that runs at the lowest priority takes it; the first among equals.
bool ApicBus::send_lowest_priority(const ApicMessage& message) {
  CpuApic* best = nullptr;
  uint8_t best_priority = 0;
  for (CpuApic* apic : apics_) {
    if (!apic->matches(message) || !apic->accepts_fixed()) continue;
    const uint8_t priority = apic->arbitration_priority();
    if (best != nullptr && priority >= best_priority) continue;
    best = apic;
    best_priority = priority;
  }
  return best != nullptr && best->accept(message);
}

bool ApicBus::send_ipi(const ApicMessage& message, Shorthand shorthand, CpuApic& sender) {
  switch (shorthand) {
    case Shorthand::kNone: return send(message);
    case Shorthand::kSelf: return sender.accept(message);
    case Shorthand::kAll:
    case Shorthand::kOthers: break;
  }
  bool taken = false;
  for (CpuApic* apic : apics_)
    if (apic != &sender || shorthand == Shorthand::kAll) taken |= apic->accept(message);
  return taken;
}

bool ApicBus::send_msi(uint64_t address, uint32_t data) {
  // [SDM 3A 11.11.1] address: 31:20 = 0xfee, 19:12 destination, 3 redirection hint, 2 destination mode.
  // [SDM 3A 11.11.2] data: 15 trigger mode, 14 level, 10:8 delivery mode, 7:0 vector.
  if (address < kMessageBase || address - kMessageBase >= kMessageSize) {
    if (memory_ != nullptr) static_cast<void>(memory_->store(address, data));
    return false;
  }
  if (remote_ != nullptr) return remote_->send_msi(address, data);
  const bool level = (data & 1u << 15) != 0;
  if (level && (data & 1u << 14) == 0) return false;  // a level that goes away is no message to a processor
  const bool hint = (address & 1u << 3) != 0;
  ApicMessage message{.destination = static_cast<uint32_t>(address >> 12 & 0xff),
                      .logical = (address & 1u << 2) != 0,
                      .mode = static_cast<DeliveryMode>(data >> 8 & 7),
                      .vector = static_cast<uint8_t>(data),
                      .level = level};
  if (hint && message.mode == DeliveryMode::kFixed) message.mode = DeliveryMode::kLowestPriority;
  if (message.mode == DeliveryMode::kReserved || message.mode == DeliveryMode::kStartup) return false;
  return send(message);
}

void ApicBus::end_of_interrupt(uint8_t vector) {
  for (EoiListener* listener : listeners_) listener->end_of_interrupt(vector);
}

void ApicBus::destinations_changed() {
  for (EoiListener* listener : listeners_) listener->destinations_changed();
}

uint64_t ApicBus::io_read(uint64_t, unsigned size) { return size == 8 ? ~uint64_t{0} : (uint64_t{1} << size * 8) - 1; }

void ApicBus::io_write(uint64_t offset, unsigned size, uint64_t value) {
  if (size == 4 && offset % 4 == 0) send_msi(kMessageBase + offset, static_cast<uint32_t>(value));
}

}  // namespace kite::devices
