#include "devices/apic/cpu_apic.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "support/bits.h"
#include "support/log.h"

namespace kite::devices {
namespace {

using apic::Reg;

constexpr unsigned kRegisters = 0x40;
constexpr uint32_t kMsrBase = 0x800;
constexpr uint32_t kXapicBroadcast = 0xff;
constexpr uint32_t kX2apicBroadcast = 0xffffffff;

// What can be done to a register in each mode. [SDM 3A tables 11-1 and 11-6]
enum : uint8_t { kXr = 1, kXw = 2, k2r = 4, k2w = 8, kBothR = kXr | k2r, kBothRw = kXr | kXw | k2r | k2w };

constexpr std::array<uint8_t, kRegisters> make_access() {
  std::array<uint8_t, kRegisters> access{};
  const auto set = [&access](Reg reg, unsigned flags, unsigned count = 1) {
    for (unsigned i = 0; i < count; ++i) access[static_cast<size_t>(reg) + i] = static_cast<uint8_t>(flags);
  };
  set(Reg::ID, kXr | kXw | k2r);
  set(Reg::VERSION, kBothR);
  set(Reg::TPR, kBothRw);
  set(Reg::APR, kXr);
  set(Reg::PPR, kBothR);
  set(Reg::EOI, kXw | k2w);
  set(Reg::RRD, kXr);
  set(Reg::LDR, kXr | kXw | k2r);
  set(Reg::DFR, kXr | kXw);
  set(Reg::SVR, kBothRw);
  set(Reg::ISR, kBothR, 8);
  set(Reg::TMR, kBothR, 8);
  set(Reg::IRR, kBothR, 8);
  set(Reg::ESR, kBothRw);
  set(Reg::ICR, kBothRw);
  set(Reg::ICR_HIGH, kXr | kXw);
  set(Reg::LVT_TIMER, kBothRw, apic::kLvtCount);
  set(Reg::TIMER_INITIAL, kBothRw);
  set(Reg::TIMER_CURRENT, kBothR);
  set(Reg::TIMER_DIVIDE, kBothRw);
  set(Reg::SELF_IPI, k2w);
  return access;
}

constexpr std::array<uint8_t, kRegisters> kAccess = make_access();

bool allowed(unsigned reg, unsigned flag) { return reg < kRegisters && (kAccess[reg] & flag) != 0; }

constexpr bool in_bank(Reg reg, Reg first) {
  return reg >= first && static_cast<unsigned>(reg) < static_cast<unsigned>(first) + 8;
}
constexpr size_t bank_index(Reg reg, Reg first) { return static_cast<size_t>(reg) - static_cast<size_t>(first); }

constexpr bool is_lvt(Reg reg) { return reg >= Reg::LVT_TIMER && reg <= Reg::LVT_ERROR; }
constexpr unsigned lvt_entry(Reg reg) { return static_cast<unsigned>(reg) - static_cast<unsigned>(Reg::LVT_TIMER); }

DeliveryMode mode_of(uint32_t lvt) { return static_cast<DeliveryMode>(lvt >> apic::kLvtModeShift & 7); }
bool is_masked(uint32_t lvt) { return (lvt & apic::kLvtMasked) != 0; }
bool is_level(uint32_t lvt) { return mode_of(lvt) == DeliveryMode::kFixed && (lvt & apic::kLvtLevel) != 0; }

// -1: none.
int highest(const std::array<std::atomic<uint32_t>, 8>& bitmap) {
  for (int word = 7; word >= 0; --word) {
    const uint32_t bits = bitmap[static_cast<size_t>(word)].load(std::memory_order_seq_cst);
    if (bits != 0) return word * 32 + 31 - std::countl_zero(bits);
  }
  return -1;
}

constexpr uint32_t vector_bit(uint8_t vector) { return 1u << (vector & 31); }

}  // namespace

CpuApic::CpuApic(std::string path, const CpuApicConfig& config, ApicBus& bus, ApicCpu& cpu, Clock& clock)
    : Device(std::move(path)),
      config_(config),
      bus_(bus),
      cpu_(cpu),
      timer_(clock, config.timer_hz, config.tsc_hz, [this] { deliver_local(apic::kLvtTimer); }) {
  bus.attach(*this);
  reset(true);
}

// ---- Reset and mode

void CpuApic::clear_registers() {
  tpr_ = 0;
  ldr_ = 0;
  dfr_ = apic::kDfrFlat;
  svr_ = apic::kSvrReset;
  icr_ = 0;
  esr_ = 0;
  esr_pending_ = 0;
  for (auto& entry : lvt_) entry = apic::kLvtMasked;
  for (Bitmap* bitmap : {&isr_, &tmr_, &irr_})
    for (auto& word : *bitmap) word = 0;
  ext_int_message_ = false;
  timer_.reset();
}

void CpuApic::reset(bool power_on) {
  if (power_on) {
    base_ = apic::kBaseDefault | apic::kBaseEnable | (config_.bootstrap ? apic::kBaseBsp : 0);
    id_ = config_.id & 0xff;
  }
  clear_registers();  // [SDM 3A 11.4.7.3] INIT: as power-on, but the id and IA32_APIC_BASE stay
}

bool CpuApic::base_is_legal(uint64_t value) const {
  const uint64_t address = low_mask(config_.physical_bits) & ~low_mask(12);
  const uint64_t flags = apic::kBaseBsp | apic::kBaseEnable | (config_.x2apic ? apic::kBaseX2Apic : 0);
  if ((value & ~(address | flags)) != 0) return false;
  return (value & apic::kBaseX2Apic) == 0 || (value & apic::kBaseEnable) != 0;
}

bool CpuApic::set_base(uint64_t value) {
  if (!base_is_legal(value)) return false;
  const uint64_t old = base();
  const bool enable = (value & apic::kBaseEnable) != 0;
  const bool x2apic = (value & apic::kBaseX2Apic) != 0;
  // [SDM 3A 11.12.5] x2APIC mode is entered from xAPIC mode only, and left only for disabled.
  if (x2apic && (old & apic::kBaseEnable) == 0) return false;
  if (enable && !x2apic && (old & apic::kBaseX2Apic) != 0) return false;
  if (!enable && (old & apic::kBaseEnable) != 0) {
    clear_registers();
    id_ = config_.id & 0xff;
  }
  if (x2apic && (old & apic::kBaseX2Apic) == 0) id_ = config_.id;
  base_ = value;
  if (value != old) bus_.destinations_changed();
  wake_if_pending();
  return true;
}

void CpuApic::enter_virtual_wire_mode() {
  svr_ = apic::kSvrReset | apic::kSvrEnable;
  const auto mode_bits = [](DeliveryMode mode) { return static_cast<uint32_t>(mode) << apic::kLvtModeShift; };
  if (config_.bootstrap) lvt_[apic::kLvtLint0] = mode_bits(DeliveryMode::kExtInt);
  lvt_[apic::kLvtLint1] = mode_bits(DeliveryMode::kNmi);
}

// ---- Priorities, and the processor's side

uint8_t CpuApic::processor_priority() const {
  const auto tpr = static_cast<uint8_t>(tpr_.load(std::memory_order_relaxed));
  const int in_service = std::max(highest(isr_), 0);
  return tpr >> 4 >= in_service >> 4 ? tpr : static_cast<uint8_t>(in_service & 0xf0);
}

// [SDM 3A 11.6.2.4] APR: the highest of TPR, the interrupt in service and the highest request.
uint8_t CpuApic::arbitration_priority() const {
  const auto tpr = static_cast<uint8_t>(tpr_.load(std::memory_order_relaxed));
  const int in_service = std::max(highest(isr_), 0);
  const int requested = std::max(highest(irr_), 0);
  if (tpr >> 4 >= requested >> 4 && tpr >> 4 > in_service >> 4) return tpr;
  return static_cast<uint8_t>(std::max({tpr & in_service & 0xf0, in_service & 0xf0, requested & 0xf0}));
}

bool CpuApic::ext_int_accepted() const {
  const ExtInt* ext_int = bus_.ext_int();
  if (ext_int == nullptr || !ext_int->pending()) return false;
  if (!enabled()) return true;  // [SDM 3A 11.4.3] LINT0 is INTR then
  if (ext_int_message_.load(std::memory_order_seq_cst)) return true;
  const uint32_t lint0 = lvt_[apic::kLvtLint0].load(std::memory_order_seq_cst);
  return !is_masked(lint0) && mode_of(lint0) == DeliveryMode::kExtInt;
}

bool CpuApic::has_interrupt() const {
  if (ext_int_accepted()) return true;
  if (!enabled()) return false;
  const int requested = highest(irr_);
  return requested >= 0 && requested >> 4 > processor_priority() >> 4;
}

std::optional<uint8_t> CpuApic::acknowledge() {
  if (ext_int_accepted()) {
    ext_int_message_ = false;
    const uint8_t vector = bus_.ext_int()->acknowledge();
    wake_if_pending();
    return vector;
  }
  if (!has_interrupt()) return std::nullopt;
  const auto vector = static_cast<uint8_t>(highest(irr_));
  irr_[vector / 32].fetch_and(~vector_bit(vector));
  isr_[vector / 32].fetch_or(vector_bit(vector));
  wake_if_pending();
  return vector;
}

void CpuApic::wake_if_pending() {
  if (has_interrupt()) cpu_.interrupt();
}

uint8_t CpuApic::cr8() const { return static_cast<uint8_t>(tpr_.load(std::memory_order_relaxed) >> 4); }

void CpuApic::set_cr8(uint8_t value) {
  tpr_ = (value & 0xfu) << 4;
  wake_if_pending();
}

uint64_t CpuApic::tsc_deadline() const { return timer_.deadline(); }

void CpuApic::set_tsc_deadline(uint64_t value) { timer_.set_deadline(value, cpu_.tsc_offset()); }

// ---- Messages from outside

uint32_t CpuApic::visible_ldr() const {
  if (!x2apic_mode()) return ldr_.load(std::memory_order_relaxed);
  const uint32_t id = id_.load(std::memory_order_relaxed);
  return id >> 4 << 16 | 1u << (id & 0xf);  // [SDM 3A 11.12.10.2]
}

bool CpuApic::matches_logical(uint32_t destination, bool wide) const {
  const uint32_t ldr = visible_ldr();
  if (x2apic_mode()) return ldr >> 16 == destination >> 16 && (ldr & destination & 0xffff) != 0;
  if (wide && destination > 0xff) return false;
  const uint32_t id = ldr >> 24;
  if (dfr_.load(std::memory_order_relaxed) == apic::kDfrFlat) return (id & destination) != 0;
  return id >> 4 == destination >> 4 && (id & destination & 0xf) != 0;
}

bool CpuApic::matches(const ApicMessage& message) const {
  if (!enabled()) return false;
  const uint32_t destination = message.destination;
  if (destination == (message.wide ? kX2apicBroadcast : kXapicBroadcast)) return true;
  if (message.logical) return matches_logical(destination, message.wide);
  return destination == id_.load(std::memory_order_relaxed);
}

bool CpuApic::accepts_fixed() const {
  return enabled() && (svr_.load(std::memory_order_acquire) & apic::kSvrEnable) != 0;
}

void CpuApic::set_request(uint8_t vector, bool level) {
  // [SDM 3A 11.8.4] TMR is written as the interrupt is accepted, before IRR shows it.
  if (level) {
    tmr_[vector / 32].fetch_or(vector_bit(vector));
  } else {
    tmr_[vector / 32].fetch_and(~vector_bit(vector));
  }
  irr_[vector / 32].fetch_or(vector_bit(vector));
  cpu_.interrupt();
}

bool CpuApic::accept(const ApicMessage& message) {
  if (!enabled()) return false;
  switch (message.mode) {
    case DeliveryMode::kFixed:
    case DeliveryMode::kLowestPriority:
      if (!accepts_fixed()) return false;
      if (message.vector < apic::kFirstLegalVector) {
        report_error(apic::kEsrReceiveIllegal);
        return false;
      }
      set_request(message.vector, message.level);
      return true;
    case DeliveryMode::kNmi: cpu_.nmi(); return true;
    case DeliveryMode::kInit: cpu_.init(); return true;
    case DeliveryMode::kStartup: cpu_.sipi(message.vector); return true;
    case DeliveryMode::kExtInt:
      ext_int_message_ = true;
      cpu_.interrupt();
      return true;
    case DeliveryMode::kSmi: cpu_.smi(); return true;
    case DeliveryMode::kReserved: return false;
  }
  return false;
}

// ---- Local sources

void CpuApic::deliver_local(unsigned entry) {
  const uint32_t lvt = lvt_[entry].load(std::memory_order_seq_cst);
  if (is_masked(lvt) || !enabled()) return;
  const auto vector = static_cast<uint8_t>(lvt);
  switch (mode_of(lvt)) {
    case DeliveryMode::kFixed:
      if (vector < apic::kFirstLegalVector) return report_error(apic::kEsrReceiveIllegal);
      if (is_level(lvt)) lvt_[entry].fetch_or(apic::kLvtRemoteIrr);
      return set_request(vector, is_level(lvt));
    case DeliveryMode::kNmi: return cpu_.nmi();
    case DeliveryMode::kInit: return cpu_.init();
    case DeliveryMode::kSmi: return cpu_.smi();
    case DeliveryMode::kExtInt: return cpu_.interrupt();
    case DeliveryMode::kLowestPriority:
    case DeliveryMode::kStartup:
    case DeliveryMode::kReserved: return;
  }
}

void CpuApic::set_lint(unsigned pin, bool level) {
  const bool rises = level && !lint_level_[pin].exchange(level, std::memory_order_seq_cst);
  if (!level) lint_level_[pin].store(false, std::memory_order_seq_cst);
  if (!enabled()) {
    // [SDM 3A 11.4.3] a disabled APIC passes LINT0 and LINT1 to the processor as INTR and NMI.
    if (pin == 0 && level) cpu_.interrupt();
    if (pin == 1 && rises) cpu_.nmi();
    return;
  }
  const unsigned entry = apic::kLvtLint0 + pin;
  const uint32_t lvt = lvt_[entry].load(std::memory_order_seq_cst);
  if (is_level(lvt) ? level && (lvt & apic::kLvtRemoteIrr) == 0 : rises) {
    deliver_local(entry);
  } else if (level) {
    wake_if_pending();
  }
}

// Level-triggered local inputs that are still high ask again.
void CpuApic::reevaluate_lints() {
  for (unsigned pin = 0; pin < lint_level_.size(); ++pin) {
    const uint32_t lvt = lvt_[apic::kLvtLint0 + pin].load(std::memory_order_seq_cst);
    if (lint_level_[pin].load(std::memory_order_seq_cst) && is_level(lvt) && (lvt & apic::kLvtRemoteIrr) == 0)
      deliver_local(apic::kLvtLint0 + pin);
  }
}

void CpuApic::report_error(uint32_t bits) {
  if ((~esr_pending_.fetch_or(bits) & bits) == 0) return;
  const uint32_t lvt = lvt_[apic::kLvtError].load(std::memory_order_seq_cst);
  if (is_masked(lvt)) return;
  const auto vector = static_cast<uint8_t>(lvt);
  if (vector >= apic::kFirstLegalVector) return set_request(vector, false);
  esr_pending_.fetch_or(apic::kEsrReceiveIllegal);
}

void CpuApic::end_of_interrupt() {
  const int in_service = highest(isr_);
  if (in_service < 0) return;
  const auto vector = static_cast<uint8_t>(in_service);
  isr_[vector / 32].fetch_and(~vector_bit(vector));
  if ((tmr_[vector / 32].load() & vector_bit(vector)) != 0) {
    for (const unsigned entry : {apic::kLvtLint0, apic::kLvtLint1})
      if (static_cast<uint8_t>(lvt_[entry].load()) == vector) lvt_[entry].fetch_and(~apic::kLvtRemoteIrr);
    reevaluate_lints();
    // [SDM 3A 11.8.5] the end of a level-triggered interrupt is told to the IOAPICs.
    if ((svr_.load() & apic::kSvrNoBroadcast) == 0) bus_.end_of_interrupt(vector);
  }
  wake_if_pending();
}

// ---- Registers

uint32_t CpuApic::lvt_writable(unsigned entry) const {
  constexpr uint32_t kMaskAndVector = apic::kLvtMasked | 0xff;
  constexpr uint32_t kMode = 7u << apic::kLvtModeShift;
  constexpr uint32_t kPolarity = 1u << 13;  // wires carry "asserted" here: stored, without effect
  switch (entry) {
    case apic::kLvtTimer: return kMaskAndVector | 1u << 17 | (config_.tsc_deadline ? 1u << 18 : 0);
    case apic::kLvtError: return kMaskAndVector;
    case apic::kLvtLint0:
    case apic::kLvtLint1: return kMaskAndVector | kMode | kPolarity | apic::kLvtLevel;
    default: return kMaskAndVector | kMode;
  }
}

uint32_t CpuApic::svr_writable() const {
  return 0xff | apic::kSvrEnable | apic::kSvrFocus | (config_.directed_eoi ? apic::kSvrNoBroadcast : 0);
}

void CpuApic::write_lvt(unsigned entry, uint32_t value) {
  value &= lvt_writable(entry);
  // [SDM 3A 11.4.7.2] while the APIC is disabled by software the mask bits cannot be cleared.
  if ((svr_.load() & apic::kSvrEnable) == 0) value |= apic::kLvtMasked;
  if (is_level(value)) value |= lvt_[entry].load() & apic::kLvtRemoteIrr;
  lvt_[entry].store(value, std::memory_order_seq_cst);
  if (entry == apic::kLvtTimer) timer_.set_mode(static_cast<ApicTimer::Mode>(value >> 17 & 3));
  reevaluate_lints();
  wake_if_pending();
}

void CpuApic::write_svr(uint32_t value) {
  value &= svr_writable();
  const uint32_t old = svr_.exchange(value, std::memory_order_seq_cst);
  if ((value & apic::kSvrEnable) != 0) {
    if ((old & apic::kSvrEnable) == 0) bus_.destinations_changed();
    return;
  }
  for (auto& entry : lvt_) entry.fetch_or(apic::kLvtMasked);
}

void CpuApic::write_icr(uint64_t value) {
  const bool wide = x2apic_mode();
  value &= 0xffffffff'00000000 | apic::kIcrWritable;
  icr_.store(value, std::memory_order_relaxed);
  const auto low = static_cast<uint32_t>(value);
  const auto mode = static_cast<DeliveryMode>(low >> 8 & 7);
  // [SDM 3A 11.6.1] INIT level de-assert is history: no processor of this kind does anything about it.
  if (mode == DeliveryMode::kInit && (low & apic::kIcrLevel) != 0 && (low & apic::kIcrAssert) == 0) return;
  if (mode == DeliveryMode::kReserved || mode == DeliveryMode::kExtInt)
    return log::guest_error("{}: an IPI with delivery mode {} was dropped", path(), static_cast<unsigned>(mode));
  const auto vector = static_cast<uint8_t>(low);
  const bool has_vector = mode == DeliveryMode::kFixed || mode == DeliveryMode::kLowestPriority;
  if (has_vector && vector < apic::kFirstLegalVector) return report_error(apic::kEsrSendIllegal);
  const auto destination = static_cast<uint32_t>(wide ? value >> 32 : value >> 56);
  bus_.send_ipi({.destination = destination,
                 .wide = wide,
                 .logical = (low & apic::kIcrLogical) != 0,
                 .mode = mode,
                 .vector = vector},
                static_cast<ApicBus::Shorthand>(low >> apic::kIcrShorthandShift & 3), *this);
}

void CpuApic::send_self(uint8_t vector) {
  if (vector < apic::kFirstLegalVector) return report_error(apic::kEsrSendIllegal);
  accept({.vector = vector});
}

uint32_t CpuApic::read_register(Reg reg) {
  if (in_bank(reg, Reg::ISR)) return isr_[bank_index(reg, Reg::ISR)].load();
  if (in_bank(reg, Reg::TMR)) return tmr_[bank_index(reg, Reg::TMR)].load();
  if (in_bank(reg, Reg::IRR)) return irr_[bank_index(reg, Reg::IRR)].load();
  if (is_lvt(reg)) return lvt_[lvt_entry(reg)].load();
  switch (reg) {
    case Reg::ID: return x2apic_mode() ? id_.load() : id_.load() << 24;
    case Reg::VERSION: return apic::kVersion | (config_.directed_eoi ? apic::kVersionDirectedEoi : 0);
    case Reg::TPR: return tpr_.load();
    case Reg::APR: return arbitration_priority();
    case Reg::PPR: return processor_priority();
    case Reg::LDR: return visible_ldr();
    case Reg::DFR: return dfr_.load() << 28 | 0x0fffffff;
    case Reg::SVR: return svr_.load();
    case Reg::ESR: return esr_.load();
    case Reg::ICR: return static_cast<uint32_t>(icr_.load());
    case Reg::ICR_HIGH: return static_cast<uint32_t>(icr_.load() >> 32);
    case Reg::TIMER_INITIAL: return timer_.initial();
    case Reg::TIMER_CURRENT: return timer_.current();
    case Reg::TIMER_DIVIDE: return timer_.divide();
    default: return 0;
  }
}

void CpuApic::write_register(Reg reg, uint32_t value) {
  if (is_lvt(reg)) return write_lvt(lvt_entry(reg), value);
  switch (reg) {
    case Reg::ID: id_ = value >> 24; return bus_.destinations_changed();
    case Reg::TPR: tpr_ = value & 0xff; return wake_if_pending();
    case Reg::EOI: return end_of_interrupt();
    case Reg::LDR: ldr_ = value & 0xff000000; return bus_.destinations_changed();
    case Reg::DFR: dfr_ = value >> 28; return bus_.destinations_changed();
    case Reg::SVR: return write_svr(value);
    case Reg::ESR: esr_ = esr_pending_.exchange(0); return;  // [SDM 3A 11.5.3] a write shows what was collected
    case Reg::ICR: return write_icr((icr_.load() & 0xffffffff'00000000) | value);
    case Reg::ICR_HIGH: icr_ = (icr_.load() & 0xffffffff) | uint64_t{value & 0xff000000} << 32; return;
    case Reg::TIMER_INITIAL: return timer_.set_initial(value);
    case Reg::TIMER_DIVIDE: return timer_.set_divide(static_cast<uint8_t>(value));
    case Reg::SELF_IPI: return send_self(static_cast<uint8_t>(value));
    default: return;
  }
}

// [SDM 3A 11.12.2] in x2APIC mode the register page is not there.
uint32_t CpuApic::mmio_read(uint32_t offset) {
  if (x2apic_mode() || (offset & 0xf) != 0) return 0;
  if (allowed(offset >> 4, kXr)) return read_register(static_cast<Reg>(offset >> 4));
  if (!allowed(offset >> 4, kXw)) report_error(apic::kEsrIllegalRegister);
  return 0;
}

void CpuApic::mmio_write(uint32_t offset, uint32_t value) {
  if (x2apic_mode() || (offset & 0xf) != 0) return;
  if (allowed(offset >> 4, kXw)) return write_register(static_cast<Reg>(offset >> 4), value);
  if (!allowed(offset >> 4, kXr)) report_error(apic::kEsrIllegalRegister);
}

bool CpuApic::msr_read(uint32_t index, uint64_t& value) {
  const uint32_t reg = index - kMsrBase;
  if (!x2apic_mode() || !allowed(reg, k2r)) return false;
  value = static_cast<Reg>(reg) == Reg::ICR ? icr_.load() : read_register(static_cast<Reg>(reg));
  return true;
}

// [SDM 3A 11.12.1.3] reserved bits of an x2APIC register must be written as 0; so must EOI and ESR.
bool CpuApic::msr_value_fits(Reg reg, uint64_t value) const {
  constexpr uint64_t kDeliveryStatus = 1u << 12;  // r-
  if (is_lvt(reg)) {
    const bool lint = reg == Reg::LVT_LINT0 || reg == Reg::LVT_LINT1;
    return (value & ~(lvt_writable(lvt_entry(reg)) | kDeliveryStatus | (lint ? apic::kLvtRemoteIrr : 0))) == 0;
  }
  switch (reg) {
    case Reg::TPR:
    case Reg::SELF_IPI: return value <= 0xff;
    case Reg::EOI:
    case Reg::ESR: return value == 0;
    case Reg::SVR: return (value & ~uint64_t{svr_writable()}) == 0;
    case Reg::ICR: return (value & 0xffffffff & ~(apic::kIcrWritable | kDeliveryStatus)) == 0;
    case Reg::TIMER_DIVIDE: return (value & ~uint64_t{0x0b}) == 0;
    default: return value <= 0xffffffff;
  }
}

bool CpuApic::msr_write(uint32_t index, uint64_t value) {
  const uint32_t number = index - kMsrBase;
  if (!x2apic_mode() || !allowed(number, k2w)) return false;
  const auto reg = static_cast<Reg>(number);
  if (!msr_value_fits(reg, value)) return false;
  if (reg == Reg::ICR) {
    write_icr(value);
  } else {
    write_register(reg, static_cast<uint32_t>(value));
  }
  return true;
}

}  // namespace kite::devices
