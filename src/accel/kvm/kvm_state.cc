#include "accel/kvm/kvm_state.h"

#include <algorithm>
#include <cstring>

#include "x86/host_features.h"

namespace kite {

namespace {

using x86::Activity;
using x86::ArchState;
namespace msr = x86::msr;

// kvm_regs in the order of the registers' numbers.
constexpr __u64 kvm_regs::* kGprs[] = {&kvm_regs::rax, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rbx,
                                       &kvm_regs::rsp, &kvm_regs::rbp, &kvm_regs::rsi, &kvm_regs::rdi,
                                       &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
                                       &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};
// kvm_sregs2 in the order of x86::Seg.
constexpr kvm_segment kvm_sregs2::* kSegments[] = {&kvm_sregs2::es, &kvm_sregs2::cs, &kvm_sregs2::ss,
                                                   &kvm_sregs2::ds, &kvm_sregs2::fs, &kvm_sregs2::gs};

// The MSRs that ArchState has members for. A visitor is called with (index, member).
template <class State, class Visit>
void visit_msrs(State& state, Visit visit) {
  visit(msr::kStar, state.star);
  visit(msr::kLstar, state.lstar);
  visit(msr::kCstar, state.cstar);
  visit(msr::kSfMask, state.sfmask);
  visit(msr::kKernelGsBase, state.kernel_gs_base);
  visit(msr::kSysenterCs, state.sysenter_cs);
  visit(msr::kSysenterEsp, state.sysenter_esp);
  visit(msr::kSysenterEip, state.sysenter_eip);
  visit(msr::kPat, state.pat);
  visit(msr::kTscAux, state.tsc_aux);
  visit(msr::kMiscEnable, state.misc_enable);
  visit(msr::kDebugCtl, state.debugctl);
  visit(msr::kTscAdjust, state.tsc_adjust);
  visit(msr::kSpecCtrl, state.spec_ctrl);
  visit(msr::kXss, state.xss);
  visit(msr::kMcgStatus, state.mcg_status);
  visit(msr::kMcgCtl, state.mcg_ctl);
  for (uint32_t bank = 0; bank < state.mc_bank.size(); ++bank)
    for (uint32_t reg = 0; reg < 4; ++reg) visit(msr::kMc0Ctl + 4 * bank + reg, state.mc_bank[bank][reg]);
  visit(msr::kMtrrDefType, state.mtrr.def_type);
  static constexpr uint32_t kFixed[] = {msr::kMtrrFix64k,         msr::kMtrrFix16k80000,    msr::kMtrrFix16kA0000,
                                        msr::kMtrrFix4kC0000,     msr::kMtrrFix4kC0000 + 1, msr::kMtrrFix4kC0000 + 2,
                                        msr::kMtrrFix4kC0000 + 3, msr::kMtrrFix4kC0000 + 4, msr::kMtrrFix4kC0000 + 5,
                                        msr::kMtrrFix4kC0000 + 6, msr::kMtrrFix4kC0000 + 7};
  for (size_t i = 0; i < std::size(kFixed); ++i) visit(kFixed[i], state.mtrr.fixed[i]);
  for (uint32_t i = 0; i < state.mtrr.base.size(); ++i) {
    visit(msr::kMtrrPhysBase0 + 2 * i, state.mtrr.base[i]);
    visit(msr::kMtrrPhysBase0 + 2 * i + 1, state.mtrr.mask[i]);
  }
}

// --- the FXSAVE image [SDM 1 table 10-2]

constexpr size_t kFxRegisters = 32, kFxXmm = 160, kFxMxcsr = 24;

// --- the XSAVE area, standard format [SDM 1 13.4]

constexpr size_t kXstateBv = 512, kYmmHigh = 576;
constexpr unsigned kAvxComponent = 2, kPkruComponent = 9;

// Where PKRU lies depends on the processor [SDM 1 13.4.3]; 0 where it has none.
size_t pkru_offset() {
  static const size_t offset = x86::host_cpuid(0xd, kPkruComponent).ebx;
  return offset;
}

void xsave_to_arch(std::span<const uint8_t> area, ArchState& to) {
  std::memcpy(to.fx.bytes.data(), area.data(), to.fx.bytes.size());
  uint64_t present;
  std::memcpy(&present, area.data() + kXstateBv, sizeof present);
  to.ymm_high = {};
  if ((present >> kAvxComponent & 1) != 0 && area.size() >= kYmmHigh + sizeof to.ymm_high.reg)
    std::memcpy(to.ymm_high.reg.data(), area.data() + kYmmHigh, sizeof to.ymm_high.reg);
  to.pkru = 0;
  const size_t pkru = pkru_offset();
  if ((present >> kPkruComponent & 1) != 0 && pkru >= kYmmHigh && area.size() >= pkru + sizeof to.pkru)
    std::memcpy(&to.pkru, area.data() + pkru, sizeof to.pkru);
}

void arch_to_xsave(const ArchState& from, std::span<uint8_t> area) {
  std::memcpy(area.data(), from.fx.bytes.data(), from.fx.bytes.size());
  uint64_t present;
  std::memcpy(&present, area.data() + kXstateBv, sizeof present);
  present |= 3;  // x87 and SSE
  // The other components are marked only when they hold something: a KVM that lacks one refuses its bit.
  static constexpr x86::YmmHigh kInitial{};
  if (area.size() >= kYmmHigh + sizeof from.ymm_high.reg) {
    const bool used = from.ymm_high.reg != kInitial.reg;
    std::memcpy(area.data() + kYmmHigh, from.ymm_high.reg.data(), sizeof from.ymm_high.reg);
    if (used) present |= 1u << kAvxComponent;
  }
  if (const size_t pkru = pkru_offset(); pkru >= kYmmHigh && area.size() >= pkru + sizeof from.pkru) {
    std::memcpy(area.data() + pkru, &from.pkru, sizeof from.pkru);
    if (from.pkru != 0) present |= 1u << kPkruComponent;
  }
  std::memcpy(area.data() + kXstateBv, &present, sizeof present);
}

void fpu_to_fx(const kvm_fpu& fpu, uint8_t* fx) {
  std::memcpy(fx, &fpu.fcw, 2);
  std::memcpy(fx + 2, &fpu.fsw, 2);
  fx[4] = fpu.ftwx;
  std::memcpy(fx + 6, &fpu.last_opcode, 2);
  std::memcpy(fx + 8, &fpu.last_ip, 8);
  std::memcpy(fx + 16, &fpu.last_dp, 8);
  std::memcpy(fx + kFxMxcsr, &fpu.mxcsr, 4);
  std::memcpy(fx + kFxRegisters, fpu.fpr, sizeof fpu.fpr);
  std::memcpy(fx + kFxXmm, fpu.xmm, sizeof fpu.xmm);
}

void fx_to_fpu(const uint8_t* fx, kvm_fpu& fpu) {
  std::memcpy(&fpu.fcw, fx, 2);
  std::memcpy(&fpu.fsw, fx + 2, 2);
  fpu.ftwx = fx[4];
  std::memcpy(&fpu.last_opcode, fx + 6, 2);
  std::memcpy(&fpu.last_ip, fx + 8, 8);
  std::memcpy(&fpu.last_dp, fx + 16, 8);
  std::memcpy(&fpu.mxcsr, fx + kFxMxcsr, 4);
  std::memcpy(fpu.fpr, fx + kFxRegisters, sizeof fpu.fpr);
  std::memcpy(fpu.xmm, fx + kFxXmm, sizeof fpu.xmm);
}

// --- activity

Activity activity_of(const KvmCpuState& state) {
  switch (state.mp_state.mp_state) {
    case KVM_MP_STATE_HALTED:
    case KVM_MP_STATE_AP_RESET_HOLD: return Activity::kHalted;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED: return Activity::kWaitForSipi;
    default: return state.events.triple_fault.pending != 0 ? Activity::kShutdown : Activity::kActive;
  }
}

uint32_t mp_state_of(Activity activity) {
  switch (activity) {
    case Activity::kHalted: return KVM_MP_STATE_HALTED;
    case Activity::kWaitForSipi: return KVM_MP_STATE_INIT_RECEIVED;
    default: return KVM_MP_STATE_RUNNABLE;
  }
}

void events_from_arch(const ArchState& from, KvmCpuState& to) {
  kvm_vcpu_events& events = to.events;
  events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  if (!from.interrupt_shadow)
    events.interrupt.shadow = 0;
  else if (events.interrupt.shadow == 0)
    events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;  // which of the two it was, ArchState does not say
  events.nmi.masked = from.nmi_blocked;
  events.nmi.pending = from.nmi_pending;
}

}  // namespace

std::optional<uint64_t> KvmCpuState::msr(uint32_t index) const {
  const auto found = std::ranges::find(msrs, index, &kvm_msr_entry::index);
  if (found == msrs.end()) return std::nullopt;
  return found->data;
}

void KvmCpuState::set_msr(uint32_t index, uint64_t value) {
  const auto found = std::ranges::find(msrs, index, &kvm_msr_entry::index);
  if (found != msrs.end()) found->data = value;
}

kvm_segment to_kvm_segment(const x86::SegmentRegister& from) {
  kvm_segment to{};
  to.base = from.base;
  to.limit = from.limit;
  to.selector = from.selector;
  to.type = from.type();
  to.s = from.system() ? 0 : 1;
  to.dpl = from.dpl();
  to.present = from.present();
  to.avl = from.attributes >> 12 & 1;
  to.l = from.long_mode();
  to.db = from.big();
  to.g = from.attributes >> 15 & 1;
  to.unusable = from.unusable();
  return to;
}

x86::SegmentRegister from_kvm_segment(const kvm_segment& from) {
  const auto bit = [](uint8_t value, unsigned place) { return static_cast<uint32_t>(value & 1) << place; };
  return {.selector = from.selector,
          .attributes = (from.type & 15u) | bit(from.s, 4) | (from.dpl & 3u) << 5 | bit(from.present, 7) |
                        bit(from.avl, 12) | bit(from.l, 13) | bit(from.db, 14) | bit(from.g, 15) |
                        bit(from.unusable, 16),
          .limit = from.limit,
          .base = from.base};
}

void to_arch(KvmCpuState& from, const KvmTimeBase& time, ArchState& to) {
  for (size_t i = 0; i < std::size(kGprs); ++i) to.gpr[i] = from.regs.*kGprs[i];
  to.rip = from.regs.rip;
  to.rflags = from.regs.rflags;
  const kvm_sregs2& sregs = from.sregs;
  for (size_t i = 0; i < std::size(kSegments); ++i) to.seg[i] = from_kvm_segment(sregs.*kSegments[i]);
  to.ldtr = from_kvm_segment(sregs.ldt);
  to.tr = from_kvm_segment(sregs.tr);
  to.gdtr = {.base = sregs.gdt.base, .limit = sregs.gdt.limit};
  to.idtr = {.base = sregs.idt.base, .limit = sregs.idt.limit};
  to.cr0 = sregs.cr0;
  to.cr2 = sregs.cr2;
  to.cr3 = sregs.cr3;
  to.cr4 = sregs.cr4;
  to.cr8 = sregs.cr8;
  to.efer = sregs.efer;
  if ((sregs.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0)
    for (size_t i = 0; i < to.pdpte.size(); ++i) to.pdpte[i] = sregs.pdptrs[i];
  to.xcr0 = 1;
  for (uint32_t i = 0; i < std::min<uint32_t>(from.xcrs.nr_xcrs, KVM_MAX_XCRS); ++i)
    if (from.xcrs.xcrs[i].xcr == 0) to.xcr0 = from.xcrs.xcrs[i].value;
  for (size_t i = 0; i < to.dr.size(); ++i) to.dr[i] = from.debugregs.db[i];
  to.dr6 = from.debugregs.dr6;
  to.dr7 = from.debugregs.dr7;
  if (from.xsave.size() >= kYmmHigh)
    xsave_to_arch(from.xsave, to);
  else
    fpu_to_fx(from.fpu, to.fx.bytes.data());
  visit_msrs(to, [&](uint32_t index, uint64_t& member) { member = from.msr(index).value_or(member); });
  to.pkrs = static_cast<uint32_t>(from.msr(msr::kPkrs).value_or(0));
  to.tsc_offset = from.msr(msr::kTsc).value_or(0) - time.clock_tsc;
  from.tsc_offset_seen = to.tsc_offset;
  to.activity = activity_of(from);
  to.interrupt_shadow = from.events.interrupt.shadow != 0;
  to.nmi_blocked = from.events.nmi.masked != 0;
  to.nmi_pending = from.events.nmi.pending;
}

void from_arch(const ArchState& from, const KvmTimeBase& time, KvmCpuState& to) {
  for (size_t i = 0; i < std::size(kGprs); ++i) to.regs.*kGprs[i] = from.gpr[i];
  to.regs.rip = from.rip;
  to.regs.rflags = from.rflags;
  kvm_sregs2& sregs = to.sregs;
  for (size_t i = 0; i < std::size(kSegments); ++i) sregs.*kSegments[i] = to_kvm_segment(from.seg[i]);
  sregs.ldt = to_kvm_segment(from.ldtr);
  sregs.tr = to_kvm_segment(from.tr);
  sregs.gdt = {.base = from.gdtr.base, .limit = from.gdtr.limit, .padding = {}};
  sregs.idt = {.base = from.idtr.base, .limit = from.idtr.limit, .padding = {}};
  sregs.cr0 = from.cr0;
  sregs.cr2 = from.cr2;
  sregs.cr3 = from.cr3;
  sregs.cr4 = from.cr4;
  sregs.cr8 = from.cr8;
  sregs.efer = from.efer;
  // [SDM 3A 4.4.1] The PDPTEs count with PAE paging outside of IA-32e mode only.
  const bool pae =
      (from.cr0 & x86::cr0::kPg) != 0 && (from.cr4 & x86::cr4::kPae) != 0 && (from.efer & x86::efer::kLma) == 0;
  sregs.flags = pae ? KVM_SREGS2_FLAGS_PDPTRS_VALID : 0;
  for (size_t i = 0; i < from.pdpte.size(); ++i) sregs.pdptrs[i] = pae ? from.pdpte[i] : 0;
  for (uint32_t i = 0; i < std::min<uint32_t>(to.xcrs.nr_xcrs, KVM_MAX_XCRS); ++i)
    if (to.xcrs.xcrs[i].xcr == 0) to.xcrs.xcrs[i].value = from.xcr0;
  for (size_t i = 0; i < from.dr.size(); ++i) to.debugregs.db[i] = from.dr[i];
  to.debugregs.dr6 = from.dr6;
  to.debugregs.dr7 = from.dr7;
  if (to.xsave.size() >= kYmmHigh)
    arch_to_xsave(from, to.xsave);
  else
    fx_to_fpu(from.fx.bytes.data(), to.fpu);
  visit_msrs(from, [&](uint32_t index, uint64_t member) { to.set_msr(index, member); });
  to.set_msr(msr::kPkrs, from.pkrs);
  if (from.tsc_offset != to.tsc_offset_seen) {
    to.set_msr(msr::kTsc, time.clock_tsc + from.tsc_offset);
    to.writes_tsc = true;
  }
  to.mp_state.mp_state = mp_state_of(from.activity);
  events_from_arch(from, to);
}

void reset_kvm_state(KvmCpuState& state) {
  state.events = {};
  state.events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  std::ranges::fill(state.xsave, uint8_t{0});
  state.fpu = {};
  state.debugregs.flags = 0;
  for (kvm_msr_entry& entry : state.msrs)
    if (entry.index != msr::kArchCapabilities) entry.data = 0;
  state.tsc_offset_seen = ~uint64_t{0};
  state.writes_tsc = true;
}

// --- the local APIC's page [SDM 3A table 11-1]

namespace {

enum LapicReg : size_t {
  kLapicId = 0x20,
  kSvr = 0xf0,
  kDfr = 0xe0,
  kFirstAfterVersion = 0x40,
  kLvtTimer = 0x320,
  kLvtLint0 = 0x350,
  kLvtLint1 = 0x360,
  kLvtError = 0x370,
  kLvtCmci = 0x2f0,
};

void set_lapic_reg(kvm_lapic_state& lapic, size_t reg, uint32_t value) {
  std::memcpy(lapic.regs + reg, &value, sizeof value);
}

}  // namespace

void reset_kvm_lapic(kvm_lapic_state& lapic, uint32_t id, bool power_on) {
  constexpr uint32_t kMasked = 1u << 16;
  std::memset(lapic.regs + kFirstAfterVersion, 0, sizeof lapic.regs - kFirstAfterVersion);
  if (power_on) set_lapic_reg(lapic, kLapicId, id << 24);
  set_lapic_reg(lapic, kDfr, 0xffffffff);
  set_lapic_reg(lapic, kSvr, 0xff);
  set_lapic_reg(lapic, kLvtCmci, kMasked);
  for (size_t reg = kLvtTimer; reg <= kLvtError; reg += 0x10) set_lapic_reg(lapic, reg, kMasked);
}

void set_virtual_wire_mode(kvm_lapic_state& lapic, bool bootstrap) {
  constexpr uint32_t kEnabled = 1u << 8, kNmi = 4u << 8, kExtInt = 7u << 8, kMasked = 1u << 16;
  set_lapic_reg(lapic, kSvr, kEnabled | 0xff);
  set_lapic_reg(lapic, kLvtLint0, bootstrap ? kExtInt : kMasked | kExtInt);
  set_lapic_reg(lapic, kLvtLint1, kNmi);
}

}  // namespace kite
