#include "x86/arch_state.h"

#include "support/bytes.h"

namespace kite::x86 {

namespace {

// Access rights, as SegmentRegister::attributes has them.
constexpr uint32_t kRealCode = 0x9b, kRealData = 0x93, kLdt = 0x82, kBusyTss = 0x8b;

FxState power_on_fx() {
  FxState fx;
  store<uint16_t>(fx.bytes.data(), 0x0040);       // FCW
  store<uint8_t>(fx.bytes.data() + 4, 0xff);      // tags 5555H: every register holds +0.0
  store<uint32_t>(fx.bytes.data() + 24, 0x1f80);  // MXCSR
  return fx;
}

}  // namespace

void ArchState::reset(bool power_on, bool bootstrap, uint32_t cpuid_signature) {
  if (power_on) {
    *this = ArchState{};
    fx = power_on_fx();
    cr0 = cr0::kCd | cr0::kNw | cr0::kEt;
  }
  // [SDM 3A table 9-1] What follows holds for INIT too; CR0.CD and CR0.NW survive it.
  gpr = {};
  gpr[kRdx] = cpuid_signature;
  rip = 0xfff0;
  rflags = flag::kFixed1;
  seg.fill(SegmentRegister{.selector = 0, .attributes = kRealData, .limit = 0xffff, .base = 0});
  seg[static_cast<size_t>(Seg::kCs)] = {
      .selector = 0xf000, .attributes = kRealCode, .limit = 0xffff, .base = 0xffff0000};
  ldtr = {.selector = 0, .attributes = kLdt, .limit = 0xffff, .base = 0};
  tr = {.selector = 0, .attributes = kBusyTss, .limit = 0xffff, .base = 0};
  gdtr = idtr = {.base = 0, .limit = 0xffff};
  cr0 = (cr0 & (cr0::kCd | cr0::kNw)) | cr0::kEt;
  cr2 = cr3 = cr4 = cr8 = 0;
  pdpte = {};
  efer = 0;
  dr = {};
  dr6 = dr6::kReset;
  dr7 = dr7::kReset;
  debugctl = 0;
  activity = bootstrap ? Activity::kActive : Activity::kWaitForSipi;
  interrupt_shadow = nmi_blocked = false;
  nmi_pending = 0;
  pkrs = 0;
}

}  // namespace kite::x86
