// Single flags, LAHF and SAHF, SALC, CLI and STI; NOP and what amounts to one; CLFLUSH and the fences.
#include <thread>

#include "cpu/exec.h"
#include "cpu/virtual_8086.h"

namespace kite::cpu {
namespace {

template <uint64_t kClear, uint64_t kSet, uint64_t kToggle>
void change_cc(Cpu& cpu, const Op* op) {
  cpu.state.cc = ((cpu.state.cc & ~kClear) | kSet) ^ kToggle;
  KITE_NEXT(cpu, op);
}
template <uint64_t kClear, uint64_t kSet>
void change_rflags(Cpu& cpu, const Op* op) {
  cpu.state.rflags = (cpu.state.rflags & ~kClear) | kSet;
  KITE_NEXT(cpu, op);
}

constexpr uint64_t kLow = kCf | kPf | kAf | kZf | kSf;
constexpr uint8_t kAh = 8 * x86::kRax + 1, kAl = 8 * x86::kRax;

void load_ah(Cpu& cpu, const Op* op) {
  cpu.reg<uint8_t>(kAh) = static_cast<uint8_t>((cpu.state.cc & kLow) | x86::flag::kFixed1);
  KITE_NEXT(cpu, op);
}
void store_ah(Cpu& cpu, const Op* op) {
  cpu.state.cc = (cpu.state.cc & kOf) | (cpu.reg<uint8_t>(kAh) & kLow);
  KITE_NEXT(cpu, op);
}
void set_al_from_carry(Cpu& cpu, const Op* op) {
  cpu.reg<uint8_t>(kAl) = cpu.state.cc & kCf ? 0xff : 0;
  KITE_NEXT(cpu, op);
}

// [SDM 2A CLI] IOPL governs outside of real mode.
inline bool may_change_if(const Cpu& cpu) {
  if (!cpu.protected_mode()) return true;
  return cpu.v86() ? cpu.iopl() == 3 : cpu.cpl <= cpu.iopl();
}

void clear_interrupt_flag(Cpu& cpu, const Op* op) {
  if (!may_change_if(cpu)) [[unlikely]] {
    if (!clear_virtual_interrupt(cpu)) KITE_FAULT(cpu, op);
    KITE_NEXT(cpu, op);
  }
  cpu.state.rflags &= ~x86::flag::kIf;
  KITE_NEXT(cpu, op);
}
// Interrupts stay out until the end of the next instruction, if they were out before. When none waits and the next
// instruction is of this block, there is nothing to hold back: nobody looks before the end of the block.
void set_interrupt_flag(Cpu& cpu, const Op* op) {
  if (!may_change_if(cpu)) [[unlikely]] {
    if (!set_virtual_interrupt(cpu)) KITE_FAULT(cpu, op);
    KITE_NEXT(cpu, op);
  }
  if (cpu.state.rflags & x86::flag::kIf) KITE_NEXT(cpu, op);
  cpu.state.rflags |= x86::flag::kIf;
  const bool last = op[1].length == 0;  // a sentinel
  if (!last && !cpu.attention()) KITE_NEXT(cpu, op);
  cpu.interrupt_shadow = true;
  cpu.state.rip = op->next_rip();
}

void no_operation(Cpu& cpu, const Op* op) { KITE_NEXT(cpu, op); }
// A guest that spins waits for another vCPU, which may be waiting for this one's host CPU.
void pause(Cpu& cpu, const Op* op) {
  constexpr uint32_t kPausesBeforeYield = 64;
  if (++cpu.pauses % kPausesBeforeYield == 0) std::this_thread::yield();
  KITE_NEXT(cpu, op);
}
void full_fence(Cpu& cpu, const Op* op) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  KITE_NEXT(cpu, op);
}
// CLFLUSH and its kin fault as a load of one byte does (SDM 2A), and do nothing else here.
void flush_line(Cpu& cpu, const Op* op) {
  uint64_t address;
  if (!cpu.linear(op, cpu.effective_address(op), 1, Access::kRead, address) ||
      !cpu.probe(address, 1, Access::kRead, segment_of(op)))
    KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

}  // namespace

Handler flag_handler(const Binding& b) {
  switch (b.insn.op) {
    case Code::kClc: return change_cc<kCf, 0, 0>;
    case Code::kStc: return change_cc<0, kCf, 0>;
    case Code::kCmc: return change_cc<0, 0, kCf>;
    case Code::kCld: return change_rflags<x86::flag::kDf, 0>;
    case Code::kStd: return change_rflags<0, x86::flag::kDf>;
    case Code::kCli: return clear_interrupt_flag;
    case Code::kSti: return set_interrupt_flag;
    case Code::kLahf: return load_ah;
    case Code::kSahf: return store_ah;
    case Code::kSalc: return set_al_from_carry;
    case Code::kNop:
    case Code::kEndbr:
    case Code::kPrefetch:
    case Code::kLfence:
    case Code::kSfence: return no_operation;
    case Code::kMfence: return full_fence;
    case Code::kPause: return pause;
    case Code::kClflush:
    case Code::kClflushopt:
    case Code::kClwb: return flush_line;
    default: return nullptr;
  }
}

}  // namespace kite::cpu
