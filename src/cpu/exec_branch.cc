// Near branches: Jcc, JMP, CALL, RET, LOOP and its kin, JCXZ. A direct target that was found good when the instruction
// was bound (canonical, and no code segment limit to check) is taken without another look.
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

template <unsigned kCondition>
void jump_if(Cpu& cpu, const Op* op) {
  if (condition<kCondition>(cpu.state.cc)) {
    cpu.state.rip = op->imm;
    KITE_CHAIN(cpu, op);
  }
  KITE_NEXT(cpu, op);
}
template <unsigned kCondition>
void jump_if_checked(Cpu& cpu, const Op* op) {
  if (condition<kCondition>(cpu.state.cc)) {
    if (!cpu.branch_to(op->imm, op->operand_size)) KITE_FAULT(cpu, op);
    KITE_CHAIN(cpu, op);
  }
  KITE_NEXT(cpu, op);
}

void jump_direct(Cpu& cpu, const Op* op) {
  cpu.state.rip = op->imm;
  KITE_CHAIN(cpu, op);
}
void jump_direct_checked(Cpu& cpu, const Op* op) {
  if (!cpu.branch_to(op->imm, op->operand_size)) KITE_FAULT(cpu, op);
  KITE_CHAIN(cpu, op);
}

// The target of an indirect jump or call; T is the operand's type.
template <class T, bool kMemory>
[[gnu::always_inline]] inline bool indirect_target(Cpu& cpu, const Op* op, uint64_t& target) {
  T value;
  if constexpr (kMemory) {
    if (!load_operand<T, Place::kGeneral>(cpu, op, value)) return false;
  } else {
    value = cpu.reg<T>(op->dst);
  }
  target = value;
  return true;
}
template <class T>
[[gnu::always_inline]] inline bool take(Cpu& cpu, uint64_t target) {
  if constexpr (sizeof(T) == 8) {
    if (plainly_canonical(target)) [[likely]] {
      cpu.state.rip = target;
      return true;
    }
  }
  return cpu.branch_to(target, sizeof(T));
}

template <class T, bool kMemory>
void jump_indirect(Cpu& cpu, const Op* op) {
  uint64_t target;
  if (!indirect_target<T, kMemory>(cpu, op, target) || !take<T>(cpu, target)) KITE_FAULT(cpu, op);
  KITE_JUMP(cpu, op);
}

void call_direct_64(Cpu& cpu, const Op* op) {
  const uint64_t address = cpu.state.gpr[x86::kRsp] - 8;
  if (!cpu.write<uint64_t>(address, op->next_rip(), x86::Seg::kSs)) KITE_FAULT(cpu, op);
  cpu.state.gpr[x86::kRsp] = address;
  cpu.state.rip = op->imm;
  KITE_CHAIN(cpu, op);
}
void call_direct(Cpu& cpu, const Op* op) {
  if (!cpu.branch_to(op->imm, op->operand_size) || !cpu.push(op->operand_size, op->next_rip())) KITE_FAULT(cpu, op);
  KITE_CHAIN(cpu, op);
}
// The target is read and checked before the return address is pushed, so that a fault leaves the stack as it was.
template <class T, bool kMemory>
void call_indirect(Cpu& cpu, const Op* op) {
  uint64_t target;
  if (!indirect_target<T, kMemory>(cpu, op, target) || !take<T>(cpu, target) ||
      !cpu.push(sizeof(T), static_cast<T>(op->next_rip())))
    KITE_FAULT(cpu, op);
  KITE_JUMP(cpu, op);
}

void return_64(Cpu& cpu, const Op* op) {
  const uint64_t address = cpu.state.gpr[x86::kRsp];
  uint64_t target;
  if (!cpu.read<uint64_t>(address, target, x86::Seg::kSs) || !take<uint64_t>(cpu, target)) KITE_FAULT(cpu, op);
  cpu.state.gpr[x86::kRsp] = address + 8 + op->imm;
  KITE_JUMP(cpu, op);
}
void return_near(Cpu& cpu, const Op* op) {
  const uint64_t rsp = cpu.state.gpr[x86::kRsp];
  uint64_t target;
  if (!cpu.pop(op->operand_size, target)) KITE_FAULT(cpu, op);
  if (!cpu.branch_to(target, op->operand_size)) {
    cpu.state.gpr[x86::kRsp] = rsp;
    KITE_FAULT(cpu, op);
  }
  constexpr uint8_t kSp = 8 * x86::kRsp;
  switch (cpu.stack_width) {
    case 2: cpu.reg<uint16_t>(kSp) = static_cast<uint16_t>(cpu.reg<uint16_t>(kSp) + op->imm); break;
    case 4: cpu.set_reg<uint32_t>(kSp, static_cast<uint32_t>(cpu.reg<uint32_t>(kSp) + op->imm)); break;
    default: cpu.reg<uint64_t>(kSp) += op->imm; break;
  }
  KITE_JUMP(cpu, op);
}

// LOOP, LOOPE, LOOPNE, JCXZ: T is the counter, by the address size.
template <class T, Code kCode>
[[gnu::always_inline]] inline bool loop_taken(Cpu& cpu, T counter) {
  if constexpr (kCode == Code::kJcxz) return counter == 0;
  const bool zero = cpu.state.cc & kZf;
  if constexpr (kCode == Code::kLoope) return counter != 0 && zero;
  if constexpr (kCode == Code::kLoopne) return counter != 0 && !zero;
  return counter != 0;
}
template <class T, Code kCode>
void loop(Cpu& cpu, const Op* op) {
  constexpr uint8_t kCx = 8 * x86::kRcx;
  const T counter = static_cast<T>(cpu.reg<T>(kCx) - (kCode == Code::kJcxz ? 0 : 1));
  const bool taken = loop_taken<T, kCode>(cpu, counter);
  if (taken && !take<uint64_t>(cpu, op->imm)) KITE_FAULT(cpu, op);
  if constexpr (kCode != Code::kJcxz) cpu.set_reg<T>(kCx, counter);
  if (taken) KITE_CHAIN(cpu, op);
  KITE_NEXT(cpu, op);
}
template <class T, Code kCode>
void loop_checked(Cpu& cpu, const Op* op) {
  constexpr uint8_t kCx = 8 * x86::kRcx;
  const T counter = static_cast<T>(cpu.reg<T>(kCx) - (kCode == Code::kJcxz ? 0 : 1));
  const bool taken = loop_taken<T, kCode>(cpu, counter);
  if (taken && !cpu.branch_to(op->imm, op->operand_size)) KITE_FAULT(cpu, op);
  if constexpr (kCode != Code::kJcxz) cpu.set_reg<T>(kCx, counter);
  if (taken) KITE_CHAIN(cpu, op);
  KITE_NEXT(cpu, op);
}

Handler jump_if_of(const Binding& b) {
  const bool safe = target_is_safe(b);
  const auto by = [safe]<unsigned kCondition>() -> Handler {
    return safe ? jump_if<kCondition> : jump_if_checked<kCondition>;
  };
  return by_condition(b.op.condition, by);
}

bool is_direct(const Binding& b) { return b.insn.operand[0].kind == x86::OperandKind::kRel; }

Handler jump_of(const Binding& b) {
  if (is_direct(b)) return target_is_safe(b) ? jump_direct : jump_direct_checked;
  const bool memory = is_memory(b.insn.operand[0]);
  return by_wide_width(b.op.operand_size,
                       [&]<class T>() -> Handler { return memory ? jump_indirect<T, true> : jump_indirect<T, false>; });
}

Handler call_of(const Binding& b) {
  if (is_direct(b)) return b.code64() && b.op.operand_size == 8 && target_is_safe(b) ? call_direct_64 : call_direct;
  const bool memory = is_memory(b.insn.operand[0]);
  return by_wide_width(b.op.operand_size,
                       [&]<class T>() -> Handler { return memory ? call_indirect<T, true> : call_indirect<T, false>; });
}

template <Code kCode>
Handler loop_of(const Binding& b) {
  const bool safe = b.code64() && target_is_safe(b);
  return by_wide_width(b.op.address_size, [&]<class T>() -> Handler {
    if constexpr (sizeof(T) == 1)
      return nullptr;
    else
      return safe ? loop<T, kCode> : loop_checked<T, kCode>;
  });
}

}  // namespace

Handler branch_handler(const Binding& b) {
  switch (b.insn.op) {
    case Code::kJcc: return jump_if_of(b);
    case Code::kJmp: return jump_of(b);
    case Code::kCall: return call_of(b);
    case Code::kRet: return b.code64() && b.op.operand_size == 8 ? return_64 : return_near;
    case Code::kLoop: return loop_of<Code::kLoop>(b);
    case Code::kLoope: return loop_of<Code::kLoope>(b);
    case Code::kLoopne: return loop_of<Code::kLoopne>(b);
    case Code::kJcxz: return loop_of<Code::kJcxz>(b);
    default: return nullptr;
  }
}

}  // namespace kite::cpu
