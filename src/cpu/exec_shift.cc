// Shifts and rotates. A count of zero leaves the flags, and rotates leave most of them: except for immediate shifts the
// guest's flags are loaded into the host before the host's instruction runs.
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

#define KITE_SHIFT(Name, text)                                                                                       \
  struct Name {                                                                                                      \
    template <class T>                                                                                               \
    [[gnu::always_inline]] static T run(T a, uint8_t count, uint64_t& cc) {                                          \
      uint32_t ax = ax_of_flags(cc);                                                                                 \
      asm(KITE_ASM_LOAD_FLAGS text " %%cl, %[a]" KITE_ASM_SAVE_FLAGS : [a] "+&r"(a), "+&a"(ax) : "c"(count) : "cc"); \
      cc = flags_of_ax(ax);                                                                                          \
      return a;                                                                                                      \
    }                                                                                                                \
    /* For shifts by a count that is known not to be zero. */                                                        \
    template <class T>                                                                                               \
    [[gnu::always_inline]] static T run_nonzero(T a, uint8_t count, uint64_t& cc) {                                  \
      uint32_t ax;                                                                                                   \
      asm(text " %%cl, %[a]" KITE_ASM_SAVE_FLAGS : [a] "+&r"(a), "=&a"(ax) : "c"(count) : "cc");                     \
      cc = flags_of_ax(ax);                                                                                          \
      return a;                                                                                                      \
    }                                                                                                                \
  }

KITE_SHIFT(Rol, "rol");
KITE_SHIFT(Ror, "ror");
KITE_SHIFT(Rcl, "rcl");
KITE_SHIFT(Rcr, "rcr");
KITE_SHIFT(Shl, "shl");
KITE_SHIFT(Shr, "shr");
KITE_SHIFT(Sar, "sar");
#undef KITE_SHIFT

enum class Count : uint8_t { kCl, kImmediate, kNonzero };

template <class S, class T, Count kCount>
[[gnu::always_inline]] inline T shift(Cpu& cpu, const Op* op, T a) {
  if constexpr (kCount == Count::kNonzero)
    return S::run_nonzero(a, static_cast<uint8_t>(op->imm), cpu.state.cc);
  else if constexpr (kCount == Count::kImmediate)
    return S::run(a, static_cast<uint8_t>(op->imm), cpu.state.cc);
  else
    return S::run(a, cpu.reg<uint8_t>(8 * x86::kRcx), cpu.state.cc);
}

template <class S, class T, Count kCount>
void shift_register(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(op->dst, shift<S, T, kCount>(cpu, op, cpu.reg<T>(op->dst)));
  KITE_NEXT(cpu, op);
}

// Read-modify-write without LOCK, which these instructions do not take. `compute` turns the old value into the new one.
template <class T, class Compute>
[[gnu::always_inline]] inline bool modify(Cpu& cpu, const Op* op, Compute compute) {
  uint64_t address;
  if (!cpu.linear(op, cpu.effective_address(op), sizeof(T), Access::kReadWrite, address)) return false;
  if (T* at = cpu.rmw<T>(address, segment_of(op))) [[likely]] {
    auto* place = reinterpret_cast<volatile Unaligned<T>*>(at);
    *place = compute(static_cast<T>(*place));
    cpu.rmw_done(address, sizeof(T));
    return true;
  }
  const uint64_t cc = cpu.state.cc;
  if (modify_slowly<T>(cpu, op, address, false, compute)) return true;
  cpu.state.cc = cc;
  return false;
}

template <class S, class T, Count kCount>
void shift_memory(Cpu& cpu, const Op* op) {
  if (!modify<T>(cpu, op, [&](T a) { return shift<S, T, kCount>(cpu, op, a); })) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

template <class S>
Handler shift_of(const Binding& b, bool is_rotate) {
  const auto& operand = b.insn.operand;
  Count count = Count::kCl;
  if (is_immediate(operand[1])) {
    const uint64_t mask = operand[0].size == 8 ? 63 : 31;
    count = !is_rotate && (b.op.imm & mask) != 0 ? Count::kNonzero : Count::kImmediate;
  }
  return by_width(operand[0].size, [&]<class T>() -> Handler {
    if (is_memory(operand[0])) {
      if (count == Count::kCl) return shift_memory<S, T, Count::kCl>;
      return shift_memory<S, T, Count::kImmediate>;
    }
    if (count == Count::kCl) return shift_register<S, T, Count::kCl>;
    return count == Count::kNonzero ? shift_register<S, T, Count::kNonzero> : shift_register<S, T, Count::kImmediate>;
  });
}

#define KITE_DOUBLE_SHIFT(Name, text)                                      \
  struct Name {                                                            \
    template <class T>                                                     \
    static T run(T a, T b, uint8_t count, uint64_t& cc) {                  \
      uint32_t ax = ax_of_flags(cc);                                       \
      asm(KITE_ASM_LOAD_FLAGS text " %%cl, %[b], %[a]" KITE_ASM_SAVE_FLAGS \
          : [a] "+&r"(a), "+&a"(ax)                                        \
          : [b] "r"(b), "c"(count)                                         \
          : "cc");                                                         \
      cc = flags_of_ax(ax);                                                \
      return a;                                                            \
    }                                                                      \
  }
KITE_DOUBLE_SHIFT(Shld, "shld");
KITE_DOUBLE_SHIFT(Shrd, "shrd");
#undef KITE_DOUBLE_SHIFT

template <class S, class T, bool kMemory, bool kImmediate>
void double_shift(Cpu& cpu, const Op* op) {
  const T b = cpu.reg<T>(op->src);
  const uint8_t count = kImmediate ? static_cast<uint8_t>(op->imm) : cpu.reg<uint8_t>(8 * x86::kRcx);
  if constexpr (kMemory) {
    if (!modify<T>(cpu, op, [&](T a) { return S::run(a, b, count, cpu.state.cc); })) KITE_FAULT(cpu, op);
  } else {
    cpu.set_reg<T>(op->dst, S::run(cpu.reg<T>(op->dst), b, count, cpu.state.cc));
  }
  KITE_NEXT(cpu, op);
}

template <class S>
Handler double_shift_of(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[0]);
  const bool immediate = is_immediate(b.insn.operand[2]);
  return by_wide_width(b.insn.operand[0].size, [&]<class T>() -> Handler {
    if constexpr (sizeof(T) == 1) {
      return nullptr;
    } else {
      if (memory) return immediate ? double_shift<S, T, true, true> : double_shift<S, T, true, false>;
      return immediate ? double_shift<S, T, false, true> : double_shift<S, T, false, false>;
    }
  });
}

}  // namespace

Handler shift_handler(const Binding& b) {
  switch (b.insn.op) {
    case Code::kRol: return shift_of<Rol>(b, true);
    case Code::kRor: return shift_of<Ror>(b, true);
    case Code::kRcl: return shift_of<Rcl>(b, true);
    case Code::kRcr: return shift_of<Rcr>(b, true);
    case Code::kShl: return shift_of<Shl>(b, false);
    case Code::kShr: return shift_of<Shr>(b, false);
    case Code::kSar: return shift_of<Sar>(b, false);
    case Code::kShld: return double_shift_of<Shld>(b);
    case Code::kShrd: return double_shift_of<Shrd>(b);
    default: return nullptr;
  }
}

}  // namespace kite::cpu
