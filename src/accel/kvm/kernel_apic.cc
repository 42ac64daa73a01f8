#include "accel/kvm/kernel_apic.h"

#include <cstring>

#include "x86/registers.h"

namespace kite {

namespace {

// Registers of the page [SDM 3A table 11-1].
constexpr uint32_t kTpr = 0x080, kEoi = 0x0b0, kIsr = 0x100, kTmr = 0x180, kIcrLow = 0x300, kIcrHigh = 0x310,
                   kInitialCount = 0x380, kCurrentCount = 0x390, kEnd = 0x400;
constexpr uint32_t kTscDeadlineMsr = 0x6e0;

// struct kvm_msrs with one entry.
struct OneMsr {
  uint32_t count = 1;
  uint32_t reserved = 0;
  kvm_msr_entry entry{};
};

uint32_t get(const kvm_lapic_state& page, uint32_t offset) {
  uint32_t value;
  std::memcpy(&value, page.regs + offset, sizeof value);
  return value;
}
void put(kvm_lapic_state& page, uint32_t offset, uint32_t value) {
  std::memcpy(page.regs + offset, &value, sizeof value);
}

}  // namespace

bool KernelApic::fetch(kvm_lapic_state& page) const { return vcpu_.ioctl(KVM_GET_LAPIC, &page) >= 0; }

bool KernelApic::set_base(uint64_t value) {
  base_ = value;  // KVM checks it with the other system registers
  return true;
}

uint32_t KernelApic::mmio_read(uint32_t offset) {
  kvm_lapic_state page{};
  if (offset + sizeof(uint32_t) > kEnd || !fetch(page)) return 0;
  return get(page, offset);
}

void KernelApic::mmio_write(uint32_t offset, uint32_t value) {
  if (offset + sizeof value > kEnd) return;
  if (offset == kEoi) return end_of_interrupt();
  if (offset == kIcrLow) return command(value);
  kvm_lapic_state page{};
  if (!fetch(page)) return;
  put(page, offset, value);
  // KVM starts a timer that is set so from its current count.
  if (offset == kInitialCount) put(page, kCurrentCount, value);
  if (offset == kTpr) cr8_ = static_cast<uint8_t>(value >> 4 & 15);
  (void)vcpu_.ioctl(KVM_SET_LAPIC, &page);
}

// [SDM 3A 11.8.5] The highest vector in service ends.
void KernelApic::end_of_interrupt() {
  kvm_lapic_state page{};
  if (!fetch(page)) return;
  for (uint32_t word = 8; word-- > 0;) {
    const uint32_t in_service = get(page, kIsr + word * 16);
    if (in_service == 0) continue;
    const auto place = static_cast<uint32_t>(31 - __builtin_clz(in_service));
    put(page, kIsr + word * 16, in_service & ~(1u << place));
    const bool level = (get(page, kTmr + word * 16) >> place & 1) != 0;
    if (vcpu_.ioctl(KVM_SET_LAPIC, &page) >= 0 && level && wiring_.end_of_interrupt)
      wiring_.end_of_interrupt(static_cast<uint8_t>(word * 32 + place));
    return;
  }
}

// [SDM 3A 11.6.1] The command becomes messages [SDM 3A 11.11], one to each processor for the shorthands.
void KernelApic::command(uint32_t low) {
  constexpr uint32_t kStatus = 1u << 12, kLogical = 1u << 11, kLevelAssert = 1u << 14, kTrigger = 1u << 15;
  constexpr uint32_t kDeliveryAndVector = 0x7ff;
  kvm_lapic_state page{};
  if (!fetch(page)) return;
  put(page, kIcrLow, low & ~kStatus);
  (void)vcpu_.ioctl(KVM_SET_LAPIC, &page);
  const uint32_t data = low & (kDeliveryAndVector | kLevelAssert | kTrigger);
  const auto address = [&](uint32_t destination) {
    return uint64_t{0xfee00000} | uint64_t{destination & 0xff} << 12 | ((low & kLogical) != 0 ? 4 : 0);
  };
  const uint32_t shorthand = low >> 18 & 3;
  if (shorthand == 0) return wiring_.send(address(get(page, kIcrHigh) >> 24), data);
  for (uint32_t index = 0; index < wiring_.cpu_count; ++index) {
    const uint32_t id = wiring_.topology.apic_id(index);
    const bool self = id == wiring_.apic_id;
    if (shorthand == 1 ? !self : shorthand == 3 && self) continue;
    wiring_.send(uint64_t{0xfee00000} | uint64_t{id} << 12, data);
  }
}

bool KernelApic::access_msr(unsigned long request, uint32_t index, uint64_t& value) const {
  OneMsr list{.count = 1, .entry = {.index = index, .reserved = 0, .data = value}};
  if (vcpu_.ioctl(request, &list) != 1) return false;
  value = list.entry.data;
  return true;
}

bool KernelApic::msr_read(uint32_t index, uint64_t& value) { return access_msr(KVM_GET_MSRS, index, value); }
bool KernelApic::msr_write(uint32_t index, uint64_t value) { return access_msr(KVM_SET_MSRS, index, value); }

uint64_t KernelApic::tsc_deadline() const {
  uint64_t value = 0;
  return access_msr(KVM_GET_MSRS, kTscDeadlineMsr, value) ? value : 0;
}

void KernelApic::set_tsc_deadline(uint64_t value) { (void)access_msr(KVM_SET_MSRS, kTscDeadlineMsr, value); }

}  // namespace kite
