// Debug registers, breakpoints and single step (SDM 3B chapter 18).
#include "cpu/debugger.h"
#include "cpu/events.h"
#include "cpu/mmu.h"
#include "support/bits.h"

namespace kite::cpu {

namespace {

namespace dr6 = x86::dr6;
namespace dr7 = x86::dr7;
namespace flag = x86::flag;
using x86::Vector;

enum Condition : unsigned { kExecute = 0, kWrite = 1, kIo = 2, kReadWrite = 3 };

unsigned condition(uint64_t control, unsigned n) { return (control >> (16 + n * 4)) & 3; }
// [SDM 3B 18.2.4] Length field: 1, 2, 8, 4 bytes.
unsigned length(uint64_t control, unsigned n) {
  constexpr unsigned kLengths[] = {1, 2, 8, 4};
  return kLengths[(control >> (18 + n * 4)) & 3];
}

// Start of what breakpoint n watches: its address is taken as aligned to its length (SDM 3B 18.2.5).
uint64_t watched_start(const Cpu& cpu, unsigned n) { return cpu.arch.dr[n] & ~uint64_t{length(cpu.arch.dr7, n) - 1}; }

bool overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) {
  return a <= b + (b_bytes - 1) && b <= a + (a_bytes - 1);
}

}  // namespace

bool raise_debug(Cpu& cpu, uint64_t bits) {
  cpu.arch.dr6 = (cpu.arch.dr6 & ~uint64_t{15}) | bits;
  return cpu.raise(Vector::kDb);
}

void Cpu::update_debug() {
  const uint8_t data_before = debug.data_armed;
  debug.code_armed = debug.data_armed = debug.io_armed = 0;
  for (unsigned n = 0; n < 4; ++n) {
    if (((arch.dr7 >> n * 2) & 3) == 0) continue;  // L and G alike: hardware tasks are the only difference
    const auto mask = static_cast<uint8_t>(1u << n);
    switch (condition(arch.dr7, n)) {
      case kExecute: debug.code_armed |= mask; break;
      case kIo:
        if ((arch.cr4 & x86::cr4::kDe) != 0) debug.io_armed |= mask;
        break;
      default: debug.data_armed |= mask;
    }
  }
  if (debugger_watches_data(*this)) debug.data_armed |= 1u << kDebuggersBit;
  if ((data_before | debug.data_armed) != 0) flush_tlb(false);
}

bool code_breakpoint_hit(Cpu& cpu, uint64_t linear) {
  if (cpu.debug.code_armed == 0 || (cpu.state.rflags & flag::kRf) != 0) return false;
  uint64_t hits = 0;
  for (unsigned n = 0; n < 4; ++n)
    if (((cpu.debug.code_armed >> n) & 1) != 0 && cpu.arch.dr[n] == linear) hits |= bit(n);
  if (hits == 0) return false;
  raise_debug(cpu, hits);
  return true;
}

bool data_breakpoint_in_page(const Cpu& cpu, uint64_t page) {
  for (unsigned n = 0; n < 4; ++n)
    if (((cpu.debug.data_armed >> n) & 1) != 0 &&
        overlaps(watched_start(cpu, n), length(cpu.arch.dr7, n), page, kPageSize))
      return true;
  return (cpu.debug.data_armed >> kDebuggersBit) != 0 && debugger_watches_page(cpu, page);
}

void note_data_access(Cpu& cpu, uint64_t linear, unsigned bytes, bool write) {
  linear = Mmu(cpu).untagged(linear);
  for (unsigned n = 0; n < 4; ++n) {
    if (((cpu.debug.data_armed >> n) & 1) == 0) continue;
    if (!write && condition(cpu.arch.dr7, n) != kReadWrite) continue;
    if (overlaps(watched_start(cpu, n), length(cpu.arch.dr7, n), linear, bytes)) cpu.debug_hits |= 1u << n;
  }
  if ((cpu.debug.data_armed >> kDebuggersBit) != 0) note_debuggers_access(cpu, linear, bytes, write);
}

void note_io_access(Cpu& cpu, uint16_t port, unsigned bytes) {
  for (unsigned n = 0; n < 4; ++n)
    if (((cpu.debug.io_armed >> n) & 1) != 0 && overlaps(watched_start(cpu, n), length(cpu.arch.dr7, n), port, bytes))
      cpu.debug_hits |= 1u << n;
}

bool begin_step(Cpu& cpu) {
  const bool inhibited = cpu.debug.inhibited;
  cpu.debug.inhibited = false;
  cpu.debug.keep_rf = false;
  cpu.debug.single_step = (cpu.state.rflags & flag::kTf) != 0;
  cpu.debug.one_element = cpu.debug.single_step || (cpu.debugger != nullptr && cpu.debugger->asked.single_step);
  // Intel's inhibit instruction breakpoints behind MOV SS, too (SDM 3A 6.8.3); AMD's do not.
  if (cpu.debug.code_armed == 0 || (inhibited && cpu.config.cpu->vendor == "GenuineIntel")) return true;
  const uint64_t linear =
      cpu.code64 ? cpu.state.rip : static_cast<uint32_t>(cpu.seg(x86::Seg::kCs).base + cpu.state.rip);
  return !code_breakpoint_hit(cpu, linear);
}

bool end_step(Cpu& cpu) {
  if (!cpu.debug.keep_rf) cpu.state.rflags &= ~flag::kRf;
  // [SDM 3A 6.8.3] After MOV SS and POP SS, traps wait for the next instruction.
  if (cpu.debug.inhibited) return true;
  uint64_t bits = cpu.debug_hits & 15;
  const bool branches_only = (cpu.arch.debugctl & x86::debugctl::kBtf) != 0;
  if (cpu.debug.single_step && (cpu.debug.branched || !branches_only)) bits |= dr6::kBs;
  if (bits == 0) return true;
  cpu.debug_hits &= ~15u;
  return raise_debug(cpu, bits);
}

// [SDM 3B 18.2.4] With DR7.GD, any access to a debug register is a fault before it happens.
static bool debug_register_access(Cpu& cpu, unsigned& number) {
  if (number >= 8) return cpu.raise(Vector::kUd);
  if (number == 4 || number == 5) {
    if ((cpu.arch.cr4 & x86::cr4::kDe) != 0) return cpu.raise(Vector::kUd);
    number += 2;
  }
  if (cpu.cpl != 0) return cpu.raise(Vector::kGp, 0);
  if ((cpu.arch.dr7 & dr7::kGd) != 0) {
    cpu.arch.dr6 |= dr6::kBd;
    return cpu.raise(Vector::kDb);
  }
  return true;
}

bool Cpu::read_debug(unsigned number, uint64_t& value) {
  if (!debug_register_access(*this, number)) return false;
  value = number < 4 ? arch.dr[number] : number == 6 ? arch.dr6 : arch.dr7;
  return true;
}

bool Cpu::write_debug(unsigned number, uint64_t value) {
  if (!debug_register_access(*this, number)) return false;
  if (number < 4) {
    arch.dr[number] = value;
  } else {
    if (value >> 32 != 0) return raise(Vector::kGp, 0);
    constexpr uint64_t kStatusBits = 15 | dr6::kBd | dr6::kBs | dr6::kBt;
    constexpr uint64_t kControlBits = 0xffff03ff | dr7::kGd;
    if (number == 6) {
      arch.dr6 = (value & kStatusBits) | dr6::kReset;
      return true;
    }
    arch.dr7 = (value & kControlBits) | dr7::kReset;
  }
  update_debug();
  return true;
}

}  // namespace kite::cpu
