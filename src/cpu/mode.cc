// What hangs on the mode: widths, the TLB table of the current rights, the key that blocks are decoded under.
#include "cpu/block.h"
#include "cpu/cpu.h"

namespace kite::cpu {
namespace {

using x86::Seg;
using x86::SegmentRegister;

// Reads and writes pass at any offset, and the base adds nothing.
bool is_flat_data(const SegmentRegister& segment) {
  const bool writable_data = (segment.attributes & 0x1e) == 0x12;  // S, data, expand-up, writable (SDM 3A 3.4.5.1)
  return segment.base == 0 && segment.limit == 0xffffffff && writable_data && segment.present() && !segment.unusable();
}

uint32_t width_code(uint8_t bytes) { return bytes == 8 ? 2 : bytes == 4 ? 1 : 0; }

}  // namespace

void Cpu::update_mode() {
  const SegmentRegister& cs = seg(Seg::kCs);
  code64 = long_mode() && cs.long_mode();
  code_width = code64 ? 8 : cs.big() ? 4 : 2;
  stack_width = code64 ? 8 : seg(Seg::kSs).big() ? 4 : 2;

  uint32_t key = width_code(code_width) | width_code(stack_width) << 2;
  if (cpl == 3) key |= mode::kUser;
  if (arch.smm) key |= mode::kSmm;
  if (code64) {
    key |= mode::kFlatCs;
  } else {
    // Blocks are entered by rip: they stand for one base and one limit.
    if (cs.base != code_base_ || cs.limit != code_limit_) ++translation_epoch;
    code_base_ = cs.base;
    code_limit_ = cs.limit;
    if (cs.limit == 0xffffffff) key |= mode::kFlatCs;
    if (protected_mode() && !v86()) {
      if (is_flat_data(seg(Seg::kDs))) key |= mode::kFlatDs;
      if (is_flat_data(seg(Seg::kEs))) key |= mode::kFlatEs;
      if (is_flat_data(seg(Seg::kSs))) key |= mode::kFlatSs;
    }
  }
  if (code64 || cs.base == 0) key |= mode::kZeroCs;
  if ((arch.cr0 & (x86::cr0::kEm | x86::cr0::kTs)) == 0 && (arch.cr4 & x86::cr4::kOsfxsr) != 0) key |= mode::kSse;
  constexpr uint64_t kYmmState = x86::xcr0::kSse | x86::xcr0::kAvx;
  if ((arch.cr0 & (x86::cr0::kPe | x86::cr0::kTs)) == x86::cr0::kPe && (arch.cr4 & x86::cr4::kOsxsave) != 0 &&
      (arch.xcr0 & kYmmState) == kYmmState)
    key |= mode::kAvx;
  mode_key = key;
  update_rights();
}

void Cpu::update_rights() {
  const bool ac = (state.rflags & x86::flag::kAc) != 0;
  TlbKind kind = TlbKind::kSupervisorUserOk;
  if (cpl == 3)
    kind = ac && (arch.cr0 & x86::cr0::kAm) != 0 ? TlbKind::kUserAligned : TlbKind::kUser;
  else if ((arch.cr4 & x86::cr4::kSmap) != 0 && !ac)
    kind = TlbKind::kSupervisor;
  mode_key = (mode_key & ~mode::kKindMask) | static_cast<uint32_t>(kind) << mode::kKindShift;
  tlb_ = &tlbs_[static_cast<size_t>(kind)];
}

void Cpu::set_flags(uint64_t value) {
  const uint64_t changed = flags() ^ value;
  state.cc = value & x86::flag::kArithmetic;
  state.rflags = (value & ~x86::flag::kArithmetic) | x86::flag::kFixed1;
  if ((changed & x86::flag::kVm) != 0)
    update_mode();
  else if ((changed & x86::flag::kAc) != 0)
    update_rights();
}

}  // namespace kite::cpu
