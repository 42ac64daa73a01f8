// Model-specific registers (SDM volume 4; APM volume 2, appendix A), the time-stamp counter and CPUID.
#include <algorithm>

#include "async/clock.h"
#include "cpu/control.h"
#include "cpu/mmu.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::cpu {

namespace {

namespace msr = x86::msr;
using x86::ArchState;
using x86::FeatureWord;
using x86::Seg;
using x86::Vector;

// Reads and writes answer false to refuse the access: the caller raises #GP(0), unless something was raised already.
struct Row {
  uint32_t first;
  uint32_t last;
  bool (*read)(Cpu& cpu, uint32_t index, uint64_t& value);
  bool (*write)(Cpu& cpu, uint32_t index, uint64_t value);
};

bool is_amd(const Cpu& cpu) { return cpu.config.cpu->vendor == "AuthenticAMD"; }
constexpr uint64_t kAboveMaxPhys = ~low_mask(kPhysicalBits);

// --- shapes that many share

template <uint64_t ArchState::* kField>
bool read_field(Cpu& cpu, uint32_t, uint64_t& value) {
  value = cpu.arch.*kField;
  return true;
}
// Any value whose bits outside of kAllowed are clear.
template <uint64_t ArchState::* kField, uint64_t kAllowed = ~uint64_t{0}>
bool write_field(Cpu& cpu, uint32_t, uint64_t value) {
  if ((value & ~kAllowed) != 0) return false;
  cpu.arch.*kField = value;
  return true;
}
template <uint64_t ArchState::* kField>
bool write_address(Cpu& cpu, uint32_t, uint64_t value) {
  if (!Mmu(cpu).canonical_base(value)) return false;
  cpu.arch.*kField = value;
  return true;
}
template <uint64_t kValue>
bool read_constant(Cpu&, uint32_t, uint64_t& value) {
  value = kValue;
  return true;
}
template <uint64_t kAllowed>
bool write_ignored(Cpu&, uint32_t, uint64_t value) {
  return (value & ~kAllowed) == 0;
}
bool refuse_read(Cpu&, uint32_t, uint64_t&) { return false; }
bool refuse_write(Cpu&, uint32_t, uint64_t) { return false; }

// --- time

bool read_tsc(Cpu& cpu, uint32_t, uint64_t& value) {
  value = cpu.tsc();
  return true;
}
// [SDM 3B 18.17.3] A write of the TSC moves IA32_TSC_ADJUST by the same amount, and the reverse.
bool write_tsc(Cpu& cpu, uint32_t, uint64_t value) {
  const uint64_t delta = value - cpu.tsc();
  cpu.arch.tsc_offset += delta;
  cpu.arch.tsc_adjust += delta;
  return true;
}
bool has_tsc_adjust(const Cpu& cpu) { return cpu.has_feature(FeatureWord::k7Ebx, 1); }
bool read_tsc_adjust(Cpu& cpu, uint32_t, uint64_t& value) {
  value = cpu.arch.tsc_adjust;
  return has_tsc_adjust(cpu);
}
bool write_tsc_adjust(Cpu& cpu, uint32_t, uint64_t value) {
  if (!has_tsc_adjust(cpu)) return false;
  cpu.arch.tsc_offset += value - cpu.arch.tsc_adjust;
  cpu.arch.tsc_adjust = value;
  return true;
}
bool has_tsc_deadline(const Cpu& cpu) { return cpu.has_feature(FeatureWord::k1Ecx, 24) && cpu.config.apic != nullptr; }
bool read_tsc_deadline(Cpu& cpu, uint32_t, uint64_t& value) {
  if (!has_tsc_deadline(cpu)) return false;
  value = cpu.config.apic->tsc_deadline();
  return true;
}
bool write_tsc_deadline(Cpu& cpu, uint32_t, uint64_t value) {
  if (!has_tsc_deadline(cpu)) return false;
  cpu.config.apic->set_tsc_deadline(value);
  return true;
}
bool has_tsc_aux(const Cpu& cpu) {
  return cpu.has_feature(FeatureWord::k80000001Edx, 27) || cpu.has_feature(FeatureWord::k7Ecx, 22);
}
bool read_tsc_aux(Cpu& cpu, uint32_t, uint64_t& value) {
  value = cpu.arch.tsc_aux;
  return has_tsc_aux(cpu);
}
bool write_tsc_aux(Cpu& cpu, uint32_t, uint64_t value) {
  if (!has_tsc_aux(cpu) || value >> 32 != 0) return false;
  cpu.arch.tsc_aux = value;
  return true;
}

// [SDM 3A 4.6.2.2] 32 bits: two for each key.
bool read_pkrs(Cpu& cpu, uint32_t, uint64_t& value) {
  value = cpu.arch.pkrs;
  return cpu.has_feature(FeatureWord::k7Ecx, 31);
}
bool write_pkrs(Cpu& cpu, uint32_t, uint64_t value) {
  if (!cpu.has_feature(FeatureWord::k7Ecx, 31) || value >> 32 != 0) return false;
  cpu.set_pkrs(static_cast<uint32_t>(value));
  return true;
}

// --- interrupts

bool read_apic_base(Cpu& cpu, uint32_t, uint64_t& value) {
  constexpr uint64_t kDefault = 0xfee00000, kEnabled = 1u << 11, kBootstrap = 1u << 8;
  if (cpu.config.apic == nullptr)
    value = kDefault | kEnabled | (cpu.config.index == 0 ? kBootstrap : 0);
  else
    value = cpu.config.apic->base();
  return true;
}
bool write_apic_base(Cpu& cpu, uint32_t, uint64_t value) {
  if (cpu.config.apic == nullptr || (value & kAboveMaxPhys) != 0 || !cpu.config.apic->set_base(value)) return false;
  cpu.flush_tlb(false);  // the register page may have moved
  return true;
}
bool read_x2apic(Cpu& cpu, uint32_t index, uint64_t& value) {
  return cpu.config.apic != nullptr && cpu.config.apic->msr_read(index, value);
}
bool write_x2apic(Cpu& cpu, uint32_t index, uint64_t value) {
  return cpu.config.apic != nullptr && cpu.config.apic->msr_write(index, value);
}

// --- speculation control

constexpr unsigned kIbrsIntel = 26, kStibpIntel = 27, kSsbdIntel = 31, kArchCapabilitiesBit = 29;  // leaf 7, EDX
constexpr unsigned kIbpbAmd = 12, kIbrsAmd = 14, kStibpAmd = 15, kSsbdAmd = 24;                    // 80000008H, EBX

bool offers(const Cpu& cpu, unsigned intel_bit, unsigned amd_bit) {
  return cpu.has_feature(FeatureWord::k7Edx, intel_bit) || cpu.has_feature(FeatureWord::k80000008Ebx, amd_bit);
}
uint64_t speculation_bits(const Cpu& cpu) {
  return (offers(cpu, kIbrsIntel, kIbrsAmd) ? 1u : 0u) | (offers(cpu, kStibpIntel, kStibpAmd) ? 2u : 0u) |
         (offers(cpu, kSsbdIntel, kSsbdAmd) ? 4u : 0u);
}
bool read_spec_ctrl(Cpu& cpu, uint32_t, uint64_t& value) {
  value = cpu.arch.spec_ctrl;
  return speculation_bits(cpu) != 0;
}
bool write_spec_ctrl(Cpu& cpu, uint32_t, uint64_t value) {
  const uint64_t allowed = speculation_bits(cpu);
  if (allowed == 0 || (value & ~allowed) != 0) return false;
  cpu.arch.spec_ctrl = value;
  return true;
}
// A barrier for predictors that an interpreter does not have.
bool write_pred_cmd(Cpu& cpu, uint32_t, uint64_t value) {
  return offers(cpu, kIbrsIntel, kIbpbAmd) && (value & ~uint64_t{1}) == 0;
}
bool read_arch_capabilities(Cpu& cpu, uint32_t, uint64_t& value) {
  value = 0;
  return cpu.has_feature(FeatureWord::k7Edx, kArchCapabilitiesBit);
}

// --- memory types

bool valid_mtrr_type(uint64_t type) { return type <= 1 || (type >= 4 && type <= 6); }
bool valid_pat_type(uint64_t type) { return type <= 1 || (type >= 4 && type <= 7); }
template <class Valid>
bool all_bytes(uint64_t value, Valid valid) {
  for (unsigned i = 0; i < 64; i += 8)
    if (!valid((value >> i) & 0xff)) return false;
  return true;
}

bool has_mtrr(const Cpu& cpu) { return cpu.has_feature(FeatureWord::k1Edx, 12); }
bool read_mtrr_cap(Cpu& cpu, uint32_t, uint64_t& value) {
  constexpr uint64_t kVariable = 8, kFixed = 1u << 8, kWriteCombining = 1u << 10;
  value = kVariable | kFixed | kWriteCombining;
  return has_mtrr(cpu);
}
uint64_t& variable_mtrr(Cpu& cpu, uint32_t index) {
  const uint32_t n = (index - msr::kMtrrPhysBase0) / 2;
  return (index & 1) != 0 ? cpu.arch.mtrr.mask[n] : cpu.arch.mtrr.base[n];
}
bool read_variable_mtrr(Cpu& cpu, uint32_t index, uint64_t& value) {
  value = variable_mtrr(cpu, index);
  return has_mtrr(cpu);
}
bool write_variable_mtrr(Cpu& cpu, uint32_t index, uint64_t value) {
  const bool mask = (index & 1) != 0;
  const uint64_t reserved = kAboveMaxPhys | (mask ? low_mask(11) : low_mask(12) & ~low_mask(8));
  if (!has_mtrr(cpu) || (value & reserved) != 0 || (!mask && !valid_mtrr_type(value & 0xff))) return false;
  variable_mtrr(cpu, index) = value;
  return true;
}
uint64_t& fixed_mtrr(Cpu& cpu, uint32_t index) {
  size_t slot = 0;
  if (index == msr::kMtrrFix16k80000) slot = 1;
  if (index == msr::kMtrrFix16kA0000) slot = 2;
  if (index >= msr::kMtrrFix4kC0000) slot = 3 + (index - msr::kMtrrFix4kC0000);
  return cpu.arch.mtrr.fixed[slot];
}
bool read_fixed_mtrr(Cpu& cpu, uint32_t index, uint64_t& value) {
  value = fixed_mtrr(cpu, index);
  return has_mtrr(cpu);
}
bool write_fixed_mtrr(Cpu& cpu, uint32_t index, uint64_t value) {
  if (!has_mtrr(cpu) || !all_bytes(value, valid_mtrr_type)) return false;
  fixed_mtrr(cpu, index) = value;
  return true;
}
bool read_mtrr_default(Cpu& cpu, uint32_t, uint64_t& value) {
  value = cpu.arch.mtrr.def_type;
  return has_mtrr(cpu);
}
bool write_mtrr_default(Cpu& cpu, uint32_t, uint64_t value) {
  constexpr uint64_t kAllowed = 0xcff;  // type, fixed-range enable, enable
  if (!has_mtrr(cpu) || (value & ~kAllowed) != 0 || !valid_mtrr_type(value & 0xff)) return false;
  cpu.arch.mtrr.def_type = value;
  return true;
}
bool write_pat(Cpu& cpu, uint32_t, uint64_t value) {
  if (!all_bytes(value, valid_pat_type)) return false;
  cpu.arch.pat = value;
  return true;
}

// --- machine check

constexpr uint32_t kBanks = x86::kMcBanks;

bool read_mcg_cap(Cpu&, uint32_t, uint64_t& value) {
  constexpr uint64_t kControlPresent = 1u << 8;
  value = kBanks | kControlPresent;
  return true;
}
// [SDM 3B 16.3.1.3, 16.3.2.1] Control registers take all zeroes or all ones.
bool write_mcg_ctl(Cpu& cpu, uint32_t, uint64_t value) {
  if (value != 0 && value != ~uint64_t{0}) return false;
  cpu.arch.mcg_ctl = value;
  return true;
}
bool read_mc_bank(Cpu& cpu, uint32_t index, uint64_t& value) {
  const uint32_t offset = index - msr::kMc0Ctl;
  value = cpu.arch.mc_bank[offset / 4][offset % 4];
  return true;
}
bool write_mc_bank(Cpu& cpu, uint32_t index, uint64_t value) {
  constexpr uint32_t kStatus = 1;
  const uint32_t offset = index - msr::kMc0Ctl;
  if (offset % 4 == kStatus && value != 0) return false;  // [SDM 3B 16.3.2.2] only clearing is allowed
  // Bits 0 and 10 are left out by guests that know of errata of AMD's bank 4 and of Intel's bank 0.
  if (offset % 4 == 0 && value != 0 && (value | bit(10) | bit(0)) != ~uint64_t{0}) return false;
  cpu.arch.mc_bank[offset / 4][offset % 4] = value;
  return true;
}

// --- segments and system calls

template <Seg kSegment>
bool read_segment_base(Cpu& cpu, uint32_t, uint64_t& value) {
  value = cpu.seg(kSegment).base;
  return true;
}
template <Seg kSegment>
bool write_segment_base(Cpu& cpu, uint32_t, uint64_t value) {
  if (!Mmu(cpu).canonical_base(value)) return false;
  cpu.seg(kSegment).base = value;
  return true;
}
bool write_efer_row(Cpu& cpu, uint32_t, uint64_t value) { return write_efer(cpu, value); }

// --- what Linux probes

// The microcode revision: in the upper half on Intel (SDM 3A 10.11.7.1), the patch level on AMD.
bool read_bios_sign(Cpu& cpu, uint32_t, uint64_t& value) {
  value = is_amd(cpu) ? 0x01000065 : uint64_t{1} << 32;
  return true;
}
bool write_misc_enable(Cpu& cpu, uint32_t, uint64_t value) {
  // Fast strings 0, TCC 3, PerfMon 7, no BTS 11, no PEBS 12, SpeedStep 16, MONITOR 18, CPUID limit 22, xTPR 23, XD 34.
  constexpr uint64_t kAllowed = 0x400c51889;
  if ((value & ~kAllowed) != 0) return false;
  cpu.arch.misc_enable = value;
  return true;
}
bool write_debugctl(Cpu& cpu, uint32_t, uint64_t value) {
  constexpr uint64_t kLastBranch = 1;
  if ((value & ~(kLastBranch | x86::debugctl::kBtf)) != 0) return false;
  if ((value & kLastBranch) != 0)
    log::print(log::Category::kUnimplemented, "IA32_DEBUGCTL = {:#x}: branch records are not kept", value);
  cpu.arch.debugctl = value;
  return true;
}
template <uint64_t kValue>
bool read_amd(Cpu& cpu, uint32_t, uint64_t& value) {
  value = kValue;
  return is_amd(cpu);
}
template <uint64_t kAllowed>
bool write_amd(Cpu& cpu, uint32_t, uint64_t value) {
  return is_amd(cpu) && (value & ~kAllowed) == 0;
}

// [SDM 1 13.3] There with XSAVES; no supervisor state component is offered.
bool has_xsaves(const Cpu& cpu) { return cpu.has_feature(FeatureWord::kD1Eax, 3); }
bool read_xss(Cpu& cpu, uint32_t, uint64_t& value) {
  value = cpu.arch.xss;
  return has_xsaves(cpu);
}
bool write_xss(Cpu& cpu, uint32_t, uint64_t value) { return has_xsaves(cpu) && value == 0; }

// Family 0Fh's northbridge and C1E registers [BKDG 32559]: Linux reads them unasked; nothing is enabled in them.
constexpr uint32_t kNorthbridgeConfig = 0xc001001f, kInterruptPending = 0xc0010055;
constexpr uint64_t kHwcrAccepted = 1u << 3 | 1u << 6 | 1u << 8 | 1u << 18;  // TLB cache, FFDIS, monitor, MC status
constexpr uint64_t kSvmDisabled = 1u << 4;

// Sorted by index.
constexpr Row kRows[] = {
    {msr::kTsc, msr::kTsc, read_tsc, write_tsc},
    {msr::kPlatformId, msr::kPlatformId, read_constant<0>, refuse_write},
    {msr::kApicBase, msr::kApicBase, read_apic_base, write_apic_base},
    {msr::kFeatureControl, msr::kFeatureControl, read_constant<1>, refuse_write},  // locked: no VMX
    {msr::kTscAdjust, msr::kTscAdjust, read_tsc_adjust, write_tsc_adjust},
    {msr::kSpecCtrl, msr::kSpecCtrl, read_spec_ctrl, write_spec_ctrl},
    {msr::kPredCmd, msr::kPredCmd, refuse_read, write_pred_cmd},
    {msr::kBiosSignId, msr::kBiosSignId, read_bios_sign, write_ignored<~uint64_t{0}>},
    {msr::kMtrrCap, msr::kMtrrCap, read_mtrr_cap, refuse_write},
    {msr::kArchCapabilities, msr::kArchCapabilities, read_arch_capabilities, refuse_write},
    {msr::kSysenterCs, msr::kSysenterCs, read_field<&ArchState::sysenter_cs>,
     write_field<&ArchState::sysenter_cs, 0xffffffff>},
    {msr::kSysenterEsp, msr::kSysenterEsp, read_field<&ArchState::sysenter_esp>,
     write_address<&ArchState::sysenter_esp>},
    {msr::kSysenterEip, msr::kSysenterEip, read_field<&ArchState::sysenter_eip>,
     write_address<&ArchState::sysenter_eip>},
    {msr::kMcgCap, msr::kMcgCap, read_mcg_cap, refuse_write},
    {msr::kMcgStatus, msr::kMcgStatus, read_field<&ArchState::mcg_status>, write_field<&ArchState::mcg_status, 7>},
    {msr::kMcgCtl, msr::kMcgCtl, read_field<&ArchState::mcg_ctl>, write_mcg_ctl},
    {msr::kMiscEnable, msr::kMiscEnable, read_field<&ArchState::misc_enable>, write_misc_enable},
    {msr::kDebugCtl, msr::kDebugCtl, read_field<&ArchState::debugctl>, write_debugctl},
    {msr::kMtrrPhysBase0, msr::kMtrrPhysMask7, read_variable_mtrr, write_variable_mtrr},
    {msr::kMtrrFix64k, msr::kMtrrFix64k, read_fixed_mtrr, write_fixed_mtrr},
    {msr::kMtrrFix16k80000, msr::kMtrrFix16kA0000, read_fixed_mtrr, write_fixed_mtrr},
    {msr::kMtrrFix4kC0000, msr::kMtrrFix4kF8000, read_fixed_mtrr, write_fixed_mtrr},
    {msr::kPat, msr::kPat, read_field<&ArchState::pat>, write_pat},
    {msr::kMtrrDefType, msr::kMtrrDefType, read_mtrr_default, write_mtrr_default},
    {msr::kMc0Ctl, msr::kMc0Ctl + kBanks * 4 - 1, read_mc_bank, write_mc_bank},
    {msr::kTscDeadline, msr::kTscDeadline, read_tsc_deadline, write_tsc_deadline},
    {msr::kPkrs, msr::kPkrs, read_pkrs, write_pkrs},
    {msr::kX2ApicBase, msr::kX2ApicEnd, read_x2apic, write_x2apic},
    {msr::kXss, msr::kXss, read_xss, write_xss},
    {msr::kEfer, msr::kEfer, read_field<&ArchState::efer>, write_efer_row},
    {msr::kStar, msr::kStar, read_field<&ArchState::star>, write_field<&ArchState::star>},
    {msr::kLstar, msr::kLstar, read_field<&ArchState::lstar>, write_address<&ArchState::lstar>},
    {msr::kCstar, msr::kCstar, read_field<&ArchState::cstar>, write_address<&ArchState::cstar>},
    {msr::kSfMask, msr::kSfMask, read_field<&ArchState::sfmask>, write_field<&ArchState::sfmask, 0xffffffff>},
    {msr::kFsBase, msr::kFsBase, read_segment_base<Seg::kFs>, write_segment_base<Seg::kFs>},
    {msr::kGsBase, msr::kGsBase, read_segment_base<Seg::kGs>, write_segment_base<Seg::kGs>},
    {msr::kKernelGsBase, msr::kKernelGsBase, read_field<&ArchState::kernel_gs_base>,
     write_address<&ArchState::kernel_gs_base>},
    {msr::kTscAux, msr::kTscAux, read_tsc_aux, write_tsc_aux},
    // [APM 2 13.2.1] Every family has the four legacy event counters, with no CPUID bit to say otherwise. Without a
    // performance monitor behind them they take no event and stay at zero.
    {msr::kPerfEventSelect0, msr::kPerfCounter3, read_amd<0>, write_amd<~uint64_t{0}>},
    {msr::kSyscfg, msr::kSyscfg, read_amd<0>, write_amd<~uint64_t{0}>},
    {msr::kHwcr, msr::kHwcr, read_amd<0>, write_amd<kHwcrAccepted>},
    {kNorthbridgeConfig, kNorthbridgeConfig, read_amd<0>, write_amd<0>},
    {kInterruptPending, kInterruptPending, read_amd<0>, write_amd<0>},
    {msr::kVmCr, msr::kVmCr, read_amd<kSvmDisabled>, write_amd<kSvmDisabled>},
};
static_assert(std::is_sorted(std::begin(kRows), std::end(kRows),
                             [](const Row& a, const Row& b) { return a.last < b.first; }));

const Row* find_row(uint32_t index) {
  const Row* row = std::lower_bound(std::begin(kRows), std::end(kRows), index,
                                    [](const Row& r, uint32_t wanted) { return r.last < wanted; });
  return row != std::end(kRows) && index >= row->first ? row : nullptr;
}

bool refuse(Cpu& cpu) { return cpu.exception.has_value() ? false : cpu.raise(Vector::kGp, 0); }

}  // namespace

bool Cpu::read_msr(uint32_t index, uint64_t& value) {
  if (const Row* row = find_row(index)) return row->read(*this, index, value) || refuse(*this);
  log::print(log::Category::kUnimplemented, "read of unknown MSR {:#x}", index);
  return refuse(*this);
}

bool Cpu::write_msr(uint32_t index, uint64_t value) {
  if (const Row* row = find_row(index)) return row->write(*this, index, value) || refuse(*this);
  log::print(log::Category::kUnimplemented, "write of {:#x} to unknown MSR {:#x}", value, index);
  return refuse(*this);
}

uint64_t Cpu::tsc() const {
  constexpr uint64_t kNsPerSecond = 1'000'000'000;
  if (config.clock == nullptr) return arch.tsc_offset;
  const auto ns = static_cast<uint64_t>(config.clock->now());
  if (config.tsc_hz == kNsPerSecond) return ns + arch.tsc_offset;
  const uint64_t seconds = ns / kNsPerSecond, rest = ns % kNsPerSecond;
  return seconds * config.tsc_hz +
         static_cast<uint64_t>(static_cast<unsigned __int128>(rest) * config.tsc_hz / kNsPerSecond) + arch.tsc_offset;
}

void Cpu::cpuid() {
  constexpr uint64_t kApicEnabled = 1u << 11;
  x86::CpuidDynamic dynamic;
  dynamic.apic_id = config.apic_id;
  dynamic.topology = config.topology;
  dynamic.apic_enabled = config.apic == nullptr || (config.apic->base() & kApicEnabled) != 0;
  dynamic.ospke = (arch.cr4 & x86::cr4::kPke) != 0;
  dynamic.osxsave = (arch.cr4 & x86::cr4::kOsxsave) != 0;
  dynamic.physical_bits = kPhysicalBits;
  dynamic.linear_bits = has_feature(FeatureWord::k7Ecx, 16) ? 57 : 48;
  dynamic.tsc_hz = config.tsc_hz;
  dynamic.xcr0 = arch.xcr0;
  dynamic.xss = arch.xss;
  x86::CpuidRegs regs = x86::cpuid(*config.cpu, dynamic, static_cast<uint32_t>(state.gpr[x86::kRax]),
                                   static_cast<uint32_t>(state.gpr[x86::kRcx]));
  // [SDM 4, IA32_MISC_ENABLE bit 18] switched off, MONITOR is not there.
  constexpr uint64_t kMonitorEnabled = 1u << 18;
  constexpr uint32_t kMonitor = 1u << 3;
  if (static_cast<uint32_t>(state.gpr[x86::kRax]) == 1 && (arch.misc_enable & kMonitorEnabled) == 0)
    regs.ecx &= ~kMonitor;
  state.gpr[x86::kRax] = regs.eax;
  state.gpr[x86::kRbx] = regs.ebx;
  state.gpr[x86::kRcx] = regs.ecx;
  state.gpr[x86::kRdx] = regs.edx;
}

}  // namespace kite::cpu
