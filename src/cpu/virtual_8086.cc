#include "cpu/virtual_8086.h"

#include "cpu/segments.h"

namespace kite::cpu {

namespace {

namespace cr4 = x86::cr4;
namespace flag = x86::flag;
using x86::Seg;
using x86::Vector;

constexpr uint64_t kFlagsImage = 0xffff;

bool extended_v86(const Cpu& cpu) { return (cpu.arch.cr4 & cr4::kVme) != 0 && cpu.v86(); }

// Whether CLI and STI work on VIF. The caller has found that IF is not the program's to change.
bool has_virtual_interrupt(const Cpu& cpu) {
  if (cpu.v86()) return (cpu.arch.cr4 & cr4::kVme) != 0;
  return (cpu.arch.cr4 & cr4::kPvi) != 0 && cpu.cpl == 3;
}

}  // namespace

bool clear_virtual_interrupt(Cpu& cpu) {
  if (!has_virtual_interrupt(cpu)) return cpu.raise(Vector::kGp, 0);
  cpu.state.rflags &= ~flag::kVif;
  return true;
}

bool set_virtual_interrupt(Cpu& cpu) {
  if (!has_virtual_interrupt(cpu) || (cpu.state.rflags & flag::kVip) != 0) return cpu.raise(Vector::kGp, 0);
  cpu.state.rflags |= flag::kVif;
  return true;
}

bool has_virtual_flags(const Cpu& cpu, unsigned bytes) { return bytes == 2 && cpu.iopl() < 3 && extended_v86(cpu); }

uint16_t virtual_flags(const Cpu& cpu) {
  const uint64_t interrupts = (cpu.state.rflags & flag::kVif) != 0 ? flag::kIf : 0;
  return static_cast<uint16_t>((cpu.flags() & kFlagsImage & ~flag::kIf) | interrupts | flag::kIopl);
}

// [SDM 2B POPF, 2A IRET] IF and IOPL stay.
bool load_virtual_flags(Cpu& cpu, uint16_t value) {
  const bool enables = (value & flag::kIf) != 0;
  if ((value & flag::kTf) != 0 || (enables && (cpu.state.rflags & flag::kVip) != 0)) return cpu.raise(Vector::kGp, 0);
  constexpr uint64_t kLoaded = flag::kArithmetic | flag::kTf | flag::kDf | flag::kNt;
  const uint64_t kept = cpu.flags() & ~(kLoaded | flag::kVif);
  cpu.set_flags(kept | (value & kLoaded) | (enables ? flag::kVif : 0));
  return true;
}

// [SDM 3B 21.3.4] The redirection bitmap is the 32 bytes in front of the I/O permission bitmap; a clear bit leaves the
// interrupt to the program. A set bit, or no VME, asks for IOPL 3.
IntRoute route_software_interrupt(Cpu& cpu, uint8_t vector) {
  if (extended_v86(cpu)) {
    constexpr uint32_t kMapBase = 0x66, kRedirectionBytes = 32;
    const x86::SegmentRegister& tr = cpu.arch.tr;
    uint64_t map = 0, bits = 0;
    if (tr.unusable() || tr.limit < kMapBase + 1) {
      cpu.raise(Vector::kGp, 0);
      return IntRoute::kRaised;
    }
    if (!cpu.system_read(tr.base + kMapBase, 2, map)) return IntRoute::kRaised;
    if (map < kRedirectionBytes || map - 1 > tr.limit) {
      cpu.raise(Vector::kGp, 0);
      return IntRoute::kRaised;
    }
    if (!cpu.system_read(tr.base + map - kRedirectionBytes + vector / 8, 1, bits)) return IntRoute::kRaised;
    if (((bits >> vector % 8) & 1) == 0) return IntRoute::kRealMode;
  }
  if (cpu.iopl() == 3) return IntRoute::kIdt;
  cpu.raise(Vector::kGp, 0);
  return IntRoute::kRaised;
}

bool enter_real_mode_handler(Cpu& cpu, uint8_t vector, uint64_t next_rip) {
  const bool virtual_interrupts = cpu.iopl() < 3;
  const uint64_t pushed = virtual_interrupts ? virtual_flags(cpu) : cpu.flags() & kFlagsImage;
  // The vector table is the program's memory, and is read with its rights.
  uint32_t target = 0;
  if (!cpu.read(vector * 4u, target)) return false;
  StackCursor stack(cpu);
  if (!stack.push(2, pushed) || !stack.push(2, cpu.seg(Seg::kCs).selector) || !stack.push(2, next_rip & 0xffff))
    return false;
  set_stack_pointer(cpu, stack.width(), stack.pointer());
  cpu.set_segment_real(Seg::kCs, static_cast<uint16_t>(target >> 16));
  cpu.state.rip = target & 0xffff;
  cpu.set_flags(cpu.flags() & ~(flag::kTf | flag::kRf | (virtual_interrupts ? flag::kVif : flag::kIf)));
  cpu.update_mode();
  return true;
}

}  // namespace kite::cpu
