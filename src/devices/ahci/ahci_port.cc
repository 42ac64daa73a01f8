#include "devices/ahci/ahci_port.h"

#include <bit>

#include "devices/ahci/ahci_regs.h"

namespace kite::devices {

using namespace ahci;
using namespace ata;

AhciPort::AhciPort(AtaBus::Config bus, Wiring wiring)
    : wiring_(std::move(wiring)), bus_(std::move(bus), *this, wiring_.lock, [this] { device_changed(); }) {
  reset_power();
}

// --- resets

void AhciPort::device_changed() {
  const std::lock_guard lock(wiring_.lock);
  reset_power();
}

void AhciPort::reset_power() {
  state_ = State{};
  state_.cmd = kSud | kPod;
  state_.tfd = kTfdReset;
  state_.sig = 0xffffffff;
  state_.signature_due = device() != nullptr;
  issued_ = 0;
  stopping_ = false;
  if (const AtaDevice* disk = device()) state_.sig = disk->is_packet_device() ? 0xeb140101 : 0x00000101;
}

void AhciPort::reset_adapter() {
  reset_power();
  if (AtaDevice* disk = device()) {
    disk->assert_reset();
    disk->release_reset();
  }
}

bool AhciPort::busy() const { return device() != nullptr && device()->io_running(); }

// [AHCI] 10.4.2: COMRESET while DET is 1.
void AhciPort::write_sctl(uint32_t value) {
  const uint32_t before = state_.sctl & kDetMask, now = value & kDetMask;
  state_.sctl = value & kSctlBits;
  AtaDevice* const disk = device();
  if (disk == nullptr || before == now) return;
  if (now == kDetReset) {
    stop_engine();
    disk->assert_reset();
    state_.tfd = kTfdReset;
    state_.running = state_.halted = false;
  } else if (before == kDetReset) {
    disk->release_reset();
    set_tfd(kBsy, 0);
    state_.serr |= kSerrExchanged;
    state_.is |= kPcs;
    state_.signature_due = true;
  }
  settle();
}

// --- registers

uint32_t AhciPort::read(uint64_t offset) const {
  switch (offset) {
    case kPxClb: return static_cast<uint32_t>(state_.clb);
    case kPxClbu: return static_cast<uint32_t>(state_.clb >> 32);
    case kPxFb: return static_cast<uint32_t>(state_.fb);
    case kPxFbu: return static_cast<uint32_t>(state_.fb >> 32);
    case kPxIs: return state_.is;
    case kPxIe: return state_.ie;
    case kPxCmd: return state_.cmd | ((state_.cmd & kCr) != 0 ? uint32_t{state_.slot} << kCcsShift : 0);
    case kPxTfd: return state_.tfd;
    case kPxSig: return state_.sig;
    case kPxSsts: {
      const uint32_t det = state_.sctl & kDetMask;
      return device() == nullptr ? 0 : det == kDetReset ? 0x1 : det == kDetOff ? kDetOff : kLinkUp;
    }
    case kPxSctl: return state_.sctl;
    case kPxSerr: return state_.serr;
    case kPxSact: return state_.sact;
    case kPxCi: return state_.ci;
    default: return 0;
  }
}

void AhciPort::write(uint64_t offset, uint32_t value) {
  const auto set_low = [value](uint64_t& reg, uint32_t mask) { reg = (reg & ~uint64_t{0xffffffff}) | (value & mask); };
  const auto set_high = [value](uint64_t& reg) { reg = (reg & 0xffffffff) | uint64_t{value} << 32; };
  switch (offset) {
    case kPxClb: set_low(state_.clb, ~0x3ffu); break;
    case kPxClbu: set_high(state_.clb); break;
    case kPxFb: set_low(state_.fb, ~0xffu); break;
    case kPxFbu: set_high(state_.fb); break;
    case kPxIs: state_.is &= ~(value & ~kFollowsSerr); break;
    case kPxIe: state_.ie = value & kInterruptBits; break;
    case kPxCmd: write_cmd(value); break;
    case kPxSctl: write_sctl(value); break;
    case kPxSerr:
      state_.serr &= ~value;
      if ((state_.serr & kSerrExchanged) == 0) state_.is &= ~kPcs;
      break;
    case kPxSact:
      if ((state_.cmd & kSt) != 0) state_.sact |= value;
      break;
    case kPxCi:
      if ((state_.cmd & kSt) != 0) state_.ci |= value;
      process();
      break;
    default: break;
  }
}

void AhciPort::write_cmd(uint32_t value) {
  const uint32_t before = state_.cmd;
  state_.cmd = (before & ~kCmdWritable) | (value & kCmdWritable);
  if ((value & kClo) != 0) state_.tfd &= ~uint32_t{kBsy | kDrq};  // [AHCI] 3.3.7: then CLO reads 0 again
  if ((state_.cmd & kFre) != 0) state_.cmd |= kFr;
  if ((state_.cmd & kFre) == 0) state_.cmd &= ~kFr;
  if ((before & kSt) != 0 && (state_.cmd & kSt) == 0) stop_engine();
  settle();
  if ((before & kSt) == 0 && (state_.cmd & kSt) != 0 && !stopping_) {
    state_.cmd |= kCr;
    state_.slot = 0;
  }
  process();
}

// [AHCI] 3.3.7, 10.3.2: PxCI and PxSACT are cleared; CR stays until nothing moves any more.
void AhciPort::stop_engine() {
  state_.ci = state_.sact = state_.queued = 0;
  issued_ = 0;
  state_.halted = state_.running = false;
  if (AtaDevice* disk = device()) disk->abandon();
  stopping_ = (state_.cmd & kCr) != 0;
}

void AhciPort::settle() {
  AtaDevice* const disk = device();
  if (stopping_ && !busy()) {
    stopping_ = false;
    state_.cmd &= ~kCr;
    if ((state_.cmd & kSt) != 0) state_.cmd |= kCr;  // started again meanwhile
  }
  if (!state_.signature_due || disk == nullptr || disk->resetting() || (state_.cmd & kFre) == 0) return;
  state_.signature_due = false;
  post_d2h(*disk, false);
}

void AhciPort::start() {
  settle();
  resume_queued();
  pump();
  process();
}

void AhciPort::ata_changed(AtaDevice&) {
  settle();
  pump();
  process();
  wiring_.changed();
}

bool AhciPort::possible(const State& state) {
  constexpr uint32_t kCmdBits = kCmdWritable | kSud | kPod | kFr | kCr;
  return (state.clb & 0x3ff) == 0 && (state.fb & 0xff) == 0 && (state.ie & ~kInterruptBits) == 0 &&
         (state.cmd & ~kCmdBits) == 0 && state.tfd <= 0xffff && (state.sctl & ~kSctlBits) == 0 && state.slot < kSlots &&
         state.entry <= 0x10000 && state.used <= 0x400000;
}

// A transfer under way is begun again by whoever restores this.
AhciPort::State AhciPort::snapshot() const {
  State state = state_;
  if (state.running && device() != nullptr && device()->dma_running()) {
    state.entry = begun_entry_;
    state.used = begun_used_;
  }
  return state;
}

void AhciPort::restore(const State& state) {
  state_ = state;
  issued_ = 0;
  stopping_ = false;
}

}  // namespace kite::devices
