// The architectural state of one x86-64 CPU as a plain struct: what a loader sets, what the monitor shows, what is
// saved. Accelerators convert it to and from their own form; cpu/ works on it directly.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "x86/registers.h"

namespace kite::x86 {

enum class Activity : uint8_t { kActive, kHalted, kWaitForSipi, kShutdown };

struct alignas(64) FxState {  // the FXSAVE64 image (SDM table 10-2)
  std::array<uint8_t, 512> bytes{};
};

// Bits 255:128 of YMM0 to YMM15, as the XSAVE area has them at offset 576 (SDM 1, 13.4.3).
struct alignas(64) YmmHigh {
  std::array<std::array<uint8_t, 16>, 16> reg{};
};

struct Mtrrs {
  uint64_t def_type = 0;
  std::array<uint64_t, 11> fixed{};  // 64K, 16K 80000, 16K A0000, 4K C0000..F8000
  std::array<uint64_t, 8> base{};
  std::array<uint64_t, 8> mask{};
  bool operator==(const Mtrrs&) const = default;
};

inline constexpr size_t kMcBanks = 10;

struct ArchState {
  std::array<uint64_t, 16> gpr{};
  uint64_t rip = 0xfff0;
  uint64_t rflags = flag::kFixed1;
  std::array<SegmentRegister, kSegCount> seg{};
  SegmentRegister ldtr{};
  SegmentRegister tr{};
  DescriptorTable gdtr{};
  DescriptorTable idtr{};
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0, xcr0 = 1;
  std::array<uint64_t, 4> pdpte{};  // PAE paging: the entries loaded with CR3 (SDM 4.4.1)
  uint64_t efer = 0;
  std::array<uint64_t, 4> dr{};
  uint64_t dr6 = dr6::kReset;
  uint64_t dr7 = dr7::kReset;
  // Vector state. `ymm_high` lies directly behind `fx`, so that the two halves of any YMM register are the same
  // distance apart (kYmmHighDistance). What of it XCR0 enables, and what is in its initial state, is computed when
  // asked.
  FxState fx{};  // x87, MMX, XMM, MXCSR
  YmmHigh ymm_high{};
  uint32_t pkru = 0;
  uint32_t pkrs = 0;                                                        // IA32_PKRS
  uint64_t xss = 0;                                                         // IA32_XSS
  uint64_t star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0;  // FS and GS base live in seg[]
  uint64_t sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  uint64_t pat = 0x0007040600070406, tsc_aux = 0, misc_enable = 1, debugctl = 0;
  uint64_t tsc_offset = 0;  // guest TSC = clock TSC + offset
  uint64_t tsc_adjust = 0, spec_ctrl = 0;
  uint64_t mcg_status = 0, mcg_ctl = 0;
  std::array<std::array<uint64_t, 4>, kMcBanks> mc_bank{};  // CTL, STATUS, ADDR, MISC
  Mtrrs mtrr{};
  Activity activity = Activity::kActive;
  // Between instructions:
  bool interrupt_shadow = false;  // after STI or a load of SS
  bool nmi_blocked = false;
  // System-management mode (SDM 3C 32): SMBASE, and whether NMIs were blocked before the SMI.
  bool smm = false;
  bool smm_inside_nmi = false;
  bool smi_pending = false;
  uint32_t smbase = 0x30000;
  uint8_t nmi_pending = 0;  // 0 to 2: one may wait behind another that has not begun yet

  // Power-on or INIT state (SDM table 9-1); INIT keeps the x87/SSE state, the TSC and the MTRRs.
  void reset(bool power_on, bool bootstrap, uint32_t cpuid_signature);
};
inline constexpr size_t kFxXmm0 = 160;  // of XMM0 in the FXSAVE image
// From the low half of a YMM register (in `fx`) to its high half.
inline constexpr size_t kYmmHighDistance = sizeof(FxState) - kFxXmm0;
static_assert(offsetof(ArchState, ymm_high) == offsetof(ArchState, fx) + sizeof(FxState));

}  // namespace kite::x86
