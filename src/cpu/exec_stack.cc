// PUSH, POP, PUSHA, POPA, ENTER, LEAVE, PUSHF, POPF. In 64-bit mode, with 8-byte operands, pushes and pops go straight
// to memory; everything else goes through Cpu::push and Cpu::pop, which know stack widths and SS.
#include "cpu/exec.h"
#include "cpu/virtual_8086.h"

namespace kite::cpu {
namespace {

[[gnu::always_inline]] inline bool push_64(Cpu& cpu, uint64_t value) {
  const uint64_t address = cpu.state.gpr[x86::kRsp] - 8;
  if (!cpu.write<uint64_t>(address, value, x86::Seg::kSs)) return false;
  cpu.state.gpr[x86::kRsp] = address;
  return true;
}

void push_register_64(Cpu& cpu, const Op* op) {
  if (!push_64(cpu, cpu.reg<uint64_t>(op->dst))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}
void push_immediate_64(Cpu& cpu, const Op* op) {
  if (!push_64(cpu, op->imm)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}
void pop_register_64(Cpu& cpu, const Op* op) {
  const uint64_t address = cpu.state.gpr[x86::kRsp];
  uint64_t value;
  if (!cpu.read<uint64_t>(address, value, x86::Seg::kSs)) KITE_FAULT(cpu, op);
  cpu.state.gpr[x86::kRsp] = address + 8;
  cpu.reg<uint64_t>(op->dst) = value;  // POP RSP: what was popped stays
  KITE_NEXT(cpu, op);
}

template <class T>
void push_register(Cpu& cpu, const Op* op) {
  if (!cpu.push(sizeof(T), cpu.reg<T>(op->dst))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}
template <class T>
void push_immediate(Cpu& cpu, const Op* op) {
  if (!cpu.push(sizeof(T), static_cast<T>(op->imm))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}
template <class T>
void push_memory(Cpu& cpu, const Op* op) {
  T value;
  if (!load_operand<T, Place::kGeneral>(cpu, op, value) || !cpu.push(sizeof(T), value)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}
template <class T>
void pop_register(Cpu& cpu, const Op* op) {
  uint64_t value;
  if (!cpu.pop(sizeof(T), value)) KITE_FAULT(cpu, op);
  cpu.set_reg<T>(op->dst, static_cast<T>(value));
  KITE_NEXT(cpu, op);
}
// [SDM 2B POP] an address based on rsp is computed after rsp has moved.
template <class T>
void pop_memory(Cpu& cpu, const Op* op) {
  const uint64_t rsp = cpu.state.gpr[x86::kRsp];
  uint64_t value;
  if (!cpu.pop(sizeof(T), value)) KITE_FAULT(cpu, op);
  if (!store_operand<T, Place::kGeneral>(cpu, op, static_cast<T>(value))) {
    cpu.state.gpr[x86::kRsp] = rsp;
    KITE_FAULT(cpu, op);
  }
  KITE_NEXT(cpu, op);
}

Handler push_of(const Binding& b) {
  const x86::Operand& operand = b.insn.operand[0];
  if (b.op.operand_size == 8 && b.stack64()) {
    if (is_register(operand)) return push_register_64;
    if (is_immediate(operand)) return push_immediate_64;
  }
  return by_wide_width(b.op.operand_size, [&]<class T>() -> Handler {
    if (is_memory(operand)) return push_memory<T>;
    return is_immediate(operand) ? push_immediate<T> : push_register<T>;
  });
}

Handler pop_of(const Binding& b) {
  if (is_memory(b.insn.operand[0]))
    return by_wide_width(b.op.operand_size, []<class T>() -> Handler { return pop_memory<T>; });
  if (b.op.operand_size == 8 && b.stack64()) return pop_register_64;
  return by_wide_width(b.op.operand_size, []<class T>() -> Handler { return pop_register<T>; });
}

// PUSHA and POPA: 16 or 32 bits, in order ax cx dx bx sp bp si di. One that faults leaves the stack pointer as it was;
// what it has pushed below that, or popped into registers, stays, as on Intel's processors: started again it comes to
// the same end.
template <class T>
void push_all(Cpu& cpu, const Op* op) {
  const uint64_t rsp = cpu.state.gpr[x86::kRsp];
  for (unsigned n = 0; n < 8; ++n) {
    const T value = static_cast<T>(n == x86::kRsp ? rsp : cpu.state.gpr[n]);
    if (!cpu.push(sizeof(T), value)) {
      cpu.state.gpr[x86::kRsp] = rsp;
      KITE_FAULT(cpu, op);
    }
  }
  KITE_NEXT(cpu, op);
}
template <class T>
void pop_all(Cpu& cpu, const Op* op) {
  const uint64_t rsp = cpu.state.gpr[x86::kRsp];
  for (uint8_t n = 8; n-- > 0;) {
    uint64_t value;
    if (!cpu.pop(sizeof(T), value)) {
      cpu.state.gpr[x86::kRsp] = rsp;
      KITE_FAULT(cpu, op);
    }
    if (n != x86::kRsp) cpu.set_reg<T>(static_cast<uint8_t>(8 * n), static_cast<T>(value));
  }
  KITE_NEXT(cpu, op);
}

// `value` in the low bytes of rsp or rbp that the stack width covers.
inline void set_by_stack_width(Cpu& cpu, unsigned number, uint64_t value) {
  const auto at = static_cast<uint8_t>(8 * number);
  switch (cpu.stack_width) {
    case 2: cpu.set_reg<uint16_t>(at, static_cast<uint16_t>(value)); break;
    case 4: cpu.set_reg<uint32_t>(at, static_cast<uint32_t>(value)); break;
    default: cpu.set_reg<uint64_t>(at, value); break;
  }
}

// Copies the frame pointers of the enclosing procedures, `level` of them, the new one last.
template <class T>
bool push_display(Cpu& cpu, unsigned level, uint64_t frame) {
  uint64_t from = cpu.state.gpr[x86::kRbp];
  for (unsigned n = 1; n < level; ++n) {
    from -= sizeof(T);
    uint64_t ea = from;
    if (cpu.stack_width != 8) ea = cpu.stack_width == 4 ? static_cast<uint32_t>(ea) : static_cast<uint16_t>(ea);
    uint64_t address = ea;
    T value;
    if (!cpu.code64 && !cpu.segment_linear(x86::Seg::kSs, ea, sizeof(T), Access::kRead, address)) return false;
    if (!cpu.read<T>(address, value, x86::Seg::kSs) || !cpu.push(sizeof(T), value)) return false;
  }
  return cpu.push(sizeof(T), static_cast<T>(frame));
}

// ENTER (SDM 2A): imm is the size of the frame, the nesting level travels in disp.
template <class T>
void enter(Cpu& cpu, const Op* op) {
  const uint64_t rsp = cpu.state.gpr[x86::kRsp];
  const unsigned level = static_cast<unsigned>(op->disp) & 31;
  const auto fail = [&] {
    cpu.state.gpr[x86::kRsp] = rsp;
    cpu.state.rip = op->rip;
  };
  if (!cpu.push(sizeof(T), static_cast<T>(cpu.state.gpr[x86::kRbp]))) return fail();
  const uint64_t frame = cpu.state.gpr[x86::kRsp];
  if (level != 0 && !push_display<T>(cpu, level, frame)) return fail();
  // The new top must be writable: the last thing that can fault.
  const uint64_t top = cpu.state.gpr[x86::kRsp] - (op->imm & 0xffff);
  uint64_t ea = top;
  if (cpu.stack_width != 8) ea = cpu.stack_width == 4 ? static_cast<uint32_t>(ea) : static_cast<uint16_t>(ea);
  uint64_t address = ea;
  if (!cpu.code64 && !cpu.segment_linear(x86::Seg::kSs, ea, sizeof(T), Access::kWrite, address)) return fail();
  if (!cpu.probe(address, sizeof(T), Access::kWrite, x86::Seg::kSs)) return fail();
  set_by_stack_width(cpu, x86::kRsp, top);
  cpu.set_reg<T>(8 * x86::kRbp, static_cast<T>(frame));
  KITE_NEXT(cpu, op);
}

template <class T>
void leave(Cpu& cpu, const Op* op) {
  const uint64_t rsp = cpu.state.gpr[x86::kRsp];
  set_by_stack_width(cpu, x86::kRsp, cpu.state.gpr[x86::kRbp]);
  uint64_t value;
  if (!cpu.pop(sizeof(T), value)) {
    cpu.state.gpr[x86::kRsp] = rsp;
    KITE_FAULT(cpu, op);
  }
  cpu.set_reg<T>(8 * x86::kRbp, static_cast<T>(value));
  KITE_NEXT(cpu, op);
}
void leave_64(Cpu& cpu, const Op* op) {
  const uint64_t frame = cpu.state.gpr[x86::kRbp];
  uint64_t value;
  if (!cpu.read<uint64_t>(frame, value, x86::Seg::kSs)) KITE_FAULT(cpu, op);
  cpu.state.gpr[x86::kRsp] = frame + 8;
  cpu.state.gpr[x86::kRbp] = value;
  KITE_NEXT(cpu, op);
}

// [SDM 2B PUSHF] in virtual-8086 mode IOPL 3 or VME is needed; VM and RF are pushed as zero.
template <class T>
void push_flags(Cpu& cpu, const Op* op) {
  uint64_t value = cpu.flags() & ~(x86::flag::kVm | x86::flag::kRf);
  if (cpu.v86() && cpu.iopl() != 3) {
    if (!has_virtual_flags(cpu, sizeof(T))) {
      cpu.raise(x86::Vector::kGp, 0);
      KITE_FAULT(cpu, op);
    }
    value = virtual_flags(cpu);
  }
  if (!cpu.push(sizeof(T), static_cast<T>(value))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}
void push_flags_64(Cpu& cpu, const Op* op) {
  if (!push_64(cpu, cpu.flags() & ~(x86::flag::kVm | x86::flag::kRf))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// Which flags POPF may change (SDM 2B table 4-18).
inline uint64_t popf_mask(const Cpu& cpu, unsigned bytes) {
  using namespace x86::flag;
  uint64_t mask = kArithmetic | kTf | kDf | kNt | kAc | kId | kRf;
  if (cpu.real_or_v86()) {
    mask |= kIf;
    if (!cpu.v86()) mask |= kIopl;
  } else {
    if (cpu.cpl <= cpu.iopl()) mask |= kIf;
    if (cpu.cpl == 0) mask |= kIopl;
  }
  return bytes == 2 ? mask & 0xffff : mask;
}

// POPF of a virtual-8086 program that does not own IF.
void pop_virtual_flags(Cpu& cpu, const Op* op, unsigned bytes) {
  if (!has_virtual_flags(cpu, bytes)) {
    cpu.raise(x86::Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  const uint64_t stack_pointer = cpu.state.gpr[x86::kRsp];
  uint64_t value = 0;
  if (!cpu.pop(bytes, value)) KITE_FAULT(cpu, op);
  if (!load_virtual_flags(cpu, static_cast<uint16_t>(value))) {
    cpu.state.gpr[x86::kRsp] = stack_pointer;
    KITE_FAULT(cpu, op);
  }
  cpu.state.rip = op->next_rip();
}

template <class T>
void pop_flags(Cpu& cpu, const Op* op) {
  if (cpu.v86() && cpu.iopl() != 3) return pop_virtual_flags(cpu, op, sizeof(T));
  uint64_t value;
  if (!cpu.pop(sizeof(T), value)) KITE_FAULT(cpu, op);
  value &= ~x86::flag::kRf;
  const uint64_t mask = popf_mask(cpu, sizeof(T));
  const uint64_t before = cpu.flags();
  const uint64_t after = (before & ~mask) | (value & mask);
  constexpr uint64_t kQuiet = x86::flag::kArithmetic | x86::flag::kIf | x86::flag::kDf | x86::flag::kId;
  if (((before ^ after) & ~kQuiet) == 0 && (after & x86::flag::kTf) == 0) [[likely]] {
    // Nothing hangs on these but IF, and that is asked for here.
    cpu.state.cc = after & x86::flag::kArithmetic;
    cpu.state.rflags = after & ~x86::flag::kArithmetic;
    if (!cpu.attention()) [[likely]]
      KITE_NEXT(cpu, op);
  } else {
    cpu.set_flags(after);
  }
  cpu.state.rip = op->next_rip();
}

Handler push_flags_of(const Binding& b) {
  if (b.op.operand_size == 8 && b.stack64()) return push_flags_64;
  return by_wide_width(b.op.operand_size, []<class T>() -> Handler { return push_flags<T>; });
}

}  // namespace

Handler stack_handler(const Binding& b) {
  const unsigned size = b.op.operand_size;
  switch (b.insn.op) {
    case Code::kPush: return push_of(b);
    case Code::kPop: return pop_of(b);
    case Code::kPusha: return size == 2 ? push_all<uint16_t> : push_all<uint32_t>;
    case Code::kPopa: return size == 2 ? pop_all<uint16_t> : pop_all<uint32_t>;
    case Code::kEnter: return by_wide_width(size, []<class T>() -> Handler { return enter<T>; });
    case Code::kLeave:
      if (size == 8 && b.stack64()) return leave_64;
      return by_wide_width(size, []<class T>() -> Handler { return leave<T>; });
    case Code::kPushf: return push_flags_of(b);
    case Code::kPopf: return by_wide_width(size, []<class T>() -> Handler { return pop_flags<T>; });
    default: return nullptr;
  }
}

}  // namespace kite::cpu
