// CMP or TEST with the Jcc behind it as one handler: the commonest pair of instructions there is. The first Op's
// handler does both; the second Op stays in its place and lends its target and its link.
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

enum class Compare : uint8_t { kCmp, kTest };
// Where the two operands come from.
enum class Form : uint8_t { kRegReg, kRegImm, kRegMem, kMemReg, kMemImm };

template <Compare kCompare, class T>
[[gnu::always_inline]] inline uint64_t compare(T a, T b) {
  uint32_t ax;
  if constexpr (kCompare == Compare::kCmp)
    asm("cmp %[b], %[a]" KITE_ASM_SAVE_FLAGS : "=&a"(ax) : [a] "r"(a), [b] "r"(b) : "cc");
  else
    asm("test %[b], %[a]" KITE_ASM_SAVE_FLAGS : "=&a"(ax) : [a] "r"(a), [b] "r"(b) : "cc");
  return flags_of_ax(ax);
}

template <Compare kCompare, class T, Form kForm, Place kPlace, unsigned kCondition>
void compare_and_jump(Cpu& cpu, const Op* op) {
  T a;
  T b;
  if constexpr (kForm == Form::kRegReg || kForm == Form::kRegImm || kForm == Form::kRegMem)
    a = cpu.reg<T>(op->dst);
  else if (!load_operand<T, kPlace>(cpu, op, a))
    KITE_FAULT(cpu, op);
  if constexpr (kForm == Form::kRegReg || kForm == Form::kMemReg)
    b = cpu.reg<T>(op->src);
  else if constexpr (kForm == Form::kRegImm || kForm == Form::kMemImm)
    b = static_cast<T>(op->imm);
  else if (!load_operand<T, kPlace>(cpu, op, b))
    KITE_FAULT(cpu, op);
  const uint64_t cc = compare<kCompare, T>(a, b);
  cpu.state.cc = cc;
  if (condition<kCondition>(cc)) {
    cpu.state.rip = op[1].imm;
    KITE_CHAIN(cpu, op + 1);
  }
  KITE_NEXT(cpu, op + 1);
}

template <Compare kCompare, class T, Form kForm>
Handler by_form(const Binding& b, unsigned condition) {
  const auto pick = [&]<Place kPlace>() -> Handler {
    return by_condition(condition, []<unsigned kCondition>() -> Handler {
      return compare_and_jump<kCompare, T, kForm, kPlace, kCondition>;
    });
  };
  if constexpr (kForm == Form::kRegReg || kForm == Form::kRegImm)
    return pick.template operator()<Place::kFlat>();
  else
    return by_place(b, pick);
}

template <Compare kCompare>
Handler by_operands(const Binding& b, unsigned condition) {
  const auto& operand = b.insn.operand;
  return by_width(operand[0].size, [&]<class T>() -> Handler {
    if constexpr (sizeof(T) == 2) {
      return nullptr;  // too rare
    } else if (is_memory(operand[0])) {
      if (is_immediate(operand[1])) return by_form<kCompare, T, Form::kMemImm>(b, condition);
      return by_form<kCompare, T, Form::kMemReg>(b, condition);
    } else if (is_memory(operand[1])) {
      return by_form<kCompare, T, Form::kRegMem>(b, condition);
    } else {
      if (is_immediate(operand[1])) return by_form<kCompare, T, Form::kRegImm>(b, condition);
      return by_form<kCompare, T, Form::kRegReg>(b, condition);
    }
  });
}

}  // namespace

Handler fused_handler(const Binding& first, const Binding& second) {
  if (second.insn.op != Code::kJcc || !target_is_safe(second)) return nullptr;
  if (first.insn.op == Code::kCmp) return by_operands<Compare::kCmp>(first, second.op.condition);
  if (first.insn.op == Code::kTest) return by_operands<Compare::kTest>(first, second.op.condition);
  return nullptr;
}

}  // namespace kite::cpu
