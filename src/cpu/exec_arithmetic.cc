// ADD to CMP, TEST, INC, DEC, NEG, NOT, ADCX, ADOX.
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

// Each operation: run() on values, memory() and locked() in place. kWrites: the result goes back to the destination.
#define KITE_BINARY(Name, prepare, text, writes)                                                                       \
  struct Name {                                                                                                        \
    static constexpr bool kWrites = writes;                                                                            \
    template <class T>                                                                                                 \
    [[gnu::always_inline]] static T run(T a, T b, uint64_t& cc) {                                                      \
      uint32_t ax;                                                                                                     \
      asm(prepare text " %[b], %[a]" KITE_ASM_SAVE_FLAGS : [a] "+&r"(a), "=&a"(ax) : [b] "r"(b), [cc] "r"(cc) : "cc"); \
      cc = flags_of_ax(ax);                                                                                            \
      return a;                                                                                                        \
    }                                                                                                                  \
    template <class T, bool kLocked>                                                                                   \
    [[gnu::always_inline]] static void memory(T* at, T b, uint64_t& cc) {                                              \
      auto* place = reinterpret_cast<Unaligned<T>*>(at);                                                               \
      uint32_t ax;                                                                                                     \
      if constexpr (kLocked)                                                                                           \
        asm volatile(prepare "lock " text " %[b], %[a]" KITE_ASM_SAVE_FLAGS                                            \
                     : [a] "+m"(*place), "=&a"(ax)                                                                     \
                     : [b] "r"(b), [cc] "r"(cc)                                                                        \
                     : "cc", "memory");                                                                                \
      else                                                                                                             \
        asm volatile(prepare text " %[b], %[a]" KITE_ASM_SAVE_FLAGS                                                    \
                     : [a] "+m"(*place), "=&a"(ax)                                                                     \
                     : [b] "r"(b), [cc] "r"(cc)                                                                        \
                     : "cc", "memory");                                                                                \
      cc = flags_of_ax(ax);                                                                                            \
    }                                                                                                                  \
  }

KITE_BINARY(Add, "", "add", true);
KITE_BINARY(Or, "", "or", true);
KITE_BINARY(Adc, KITE_ASM_LOAD_CARRY, "adc", true);
KITE_BINARY(Sbb, KITE_ASM_LOAD_CARRY, "sbb", true);
KITE_BINARY(And, "", "and", true);
KITE_BINARY(Sub, "", "sub", true);
KITE_BINARY(Xor, "", "xor", true);
#undef KITE_BINARY

#define KITE_COMPARE(Name, text)                                                               \
  struct Name {                                                                                \
    static constexpr bool kWrites = false;                                                     \
    template <class T>                                                                         \
    [[gnu::always_inline]] static T run(T a, T b, uint64_t& cc) {                              \
      uint32_t ax;                                                                             \
      asm(text " %[b], %[a]" KITE_ASM_SAVE_FLAGS : "=&a"(ax) : [a] "r"(a), [b] "r"(b) : "cc"); \
      cc = flags_of_ax(ax);                                                                    \
      return a;                                                                                \
    }                                                                                          \
  }
KITE_COMPARE(Cmp, "cmp");
KITE_COMPARE(Test, "test");
#undef KITE_COMPARE

#define KITE_UNARY(Name, prepare, text, save)                                                            \
  struct Name {                                                                                          \
    template <class T>                                                                                   \
    [[gnu::always_inline]] static T run(T a, uint64_t& cc) {                                             \
      uint32_t ax = 0;                                                                                   \
      asm(prepare text " %[a]" KITE_ASM_SAVE_FLAGS : [a] "+&r"(a), "=&a"(ax) : [cc] "r"(cc) : "cc");     \
      if constexpr (save) cc = flags_of_ax(ax);                                                          \
      return a;                                                                                          \
    }                                                                                                    \
    template <class T, bool kLocked>                                                                     \
    [[gnu::always_inline]] static void memory(T* at, uint64_t& cc) {                                     \
      auto* place = reinterpret_cast<Unaligned<T>*>(at);                                                 \
      uint32_t ax = 0;                                                                                   \
      constexpr char kSuffix = sizeof(T) == 1 ? 'b' : sizeof(T) == 2 ? 'w' : sizeof(T) == 4 ? 'l' : 'q'; \
      if constexpr (kSuffix == 'b') KITE_UNARY_MEMORY(prepare, text "b");                                \
      if constexpr (kSuffix == 'w') KITE_UNARY_MEMORY(prepare, text "w");                                \
      if constexpr (kSuffix == 'l') KITE_UNARY_MEMORY(prepare, text "l");                                \
      if constexpr (kSuffix == 'q') KITE_UNARY_MEMORY(prepare, text "q");                                \
      if constexpr (save) cc = flags_of_ax(ax);                                                          \
    }                                                                                                    \
  }
#define KITE_UNARY_MEMORY(prepare, text)                            \
  do {                                                              \
    if constexpr (kLocked)                                          \
      asm volatile(prepare "lock " text " %[a]" KITE_ASM_SAVE_FLAGS \
                   : [a] "+m"(*place), "=&a"(ax)                    \
                   : [cc] "r"(cc)                                   \
                   : "cc", "memory");                               \
    else                                                            \
      asm volatile(prepare text " %[a]" KITE_ASM_SAVE_FLAGS         \
                   : [a] "+m"(*place), "=&a"(ax)                    \
                   : [cc] "r"(cc)                                   \
                   : "cc", "memory");                               \
  } while (false)

KITE_UNARY(Inc, KITE_ASM_LOAD_CARRY, "inc", true);
KITE_UNARY(Dec, KITE_ASM_LOAD_CARRY, "dec", true);
KITE_UNARY(Neg, "", "neg", true);
KITE_UNARY(Not, "", "not", false);
#undef KITE_UNARY
#undef KITE_UNARY_MEMORY

enum class Source : uint8_t { kRegister, kImmediate };

template <class T, Source kSource>
[[gnu::always_inline]] inline T source(Cpu& cpu, const Op* op) {
  if constexpr (kSource == Source::kRegister)
    return cpu.reg<T>(op->src);
  else
    return static_cast<T>(op->imm);
}

template <class A, class T, Source kSource>
void binary_register(Cpu& cpu, const Op* op) {
  const T result = A::run(cpu.reg<T>(op->dst), source<T, kSource>(cpu, op), cpu.state.cc);
  if constexpr (A::kWrites) cpu.set_reg<T>(op->dst, result);
  KITE_NEXT(cpu, op);
}

template <class A, class T, Place kPlace>
void binary_load(Cpu& cpu, const Op* op) {
  T b;
  if (!load_operand<T, kPlace>(cpu, op, b)) KITE_FAULT(cpu, op);
  const T result = A::run(cpu.reg<T>(op->dst), b, cpu.state.cc);
  if constexpr (A::kWrites) cpu.set_reg<T>(op->dst, result);
  KITE_NEXT(cpu, op);
}

// CMP and TEST with memory first: only read.
template <class A, class T, Source kSource, Place kPlace>
void compare_memory(Cpu& cpu, const Op* op) {
  T a;
  if (!load_operand<T, kPlace>(cpu, op, a)) KITE_FAULT(cpu, op);
  A::run(a, source<T, kSource>(cpu, op), cpu.state.cc);
  KITE_NEXT(cpu, op);
}

template <class A, class T, Source kSource, bool kLocked>
void binary_memory_slow(Cpu& cpu, const Op* op) {
  uint64_t address;
  if (cpu.exception || !cpu.linear(op, cpu.effective_address(op), sizeof(T), Access::kReadWrite, address))
    KITE_FAULT(cpu, op);
  uint64_t cc = cpu.state.cc;
  const T b = source<T, kSource>(cpu, op);
  const uint64_t cc_before = cc;
  if (!modify_slowly<T>(cpu, op, address, kLocked, [&](T a) {
        cc = cc_before;
        return A::run(a, b, cc);
      }))
    KITE_FAULT(cpu, op);
  cpu.state.cc = cc;
  KITE_NEXT(cpu, op);
}

template <class A, class T, Source kSource, bool kLocked, Place kPlace>
void binary_memory(Cpu& cpu, const Op* op) {
  uint64_t address;
  if (!operand_address<kPlace>(cpu, op, sizeof(T), Access::kReadWrite, address)) KITE_FAULT(cpu, op);
  T* at = cpu.rmw<T>(address, segment_of(op));
  if (at == nullptr) [[unlikely]] {
    [[clang::musttail]] return binary_memory_slow<A, T, kSource, kLocked>(cpu, op);
  }
  A::template memory<T, kLocked>(at, source<T, kSource>(cpu, op), cpu.state.cc);
  cpu.rmw_done(address, sizeof(T));
  KITE_NEXT(cpu, op);
}

template <class A, class T, Source kSource>
Handler binary_to_memory(const Binding& b) {
  if constexpr (!A::kWrites) {
    return by_every_place(b, []<Place kPlace>() -> Handler { return compare_memory<A, T, kSource, kPlace>; });
  } else {
    if (b.op.lock) return binary_memory<A, T, kSource, true, Place::kGeneral>;
    return by_place(b, []<Place kPlace>() -> Handler { return binary_memory<A, T, kSource, false, kPlace>; });
  }
}

template <class A>
Handler binary(const Binding& b) {
  const auto& operand = b.insn.operand;
  const bool immediate = is_immediate(operand[1]);
  return by_width(operand[0].size, [&]<class T>() -> Handler {
    if (is_memory(operand[0]))
      return immediate ? binary_to_memory<A, T, Source::kImmediate>(b) : binary_to_memory<A, T, Source::kRegister>(b);
    if (is_memory(operand[1]))
      return by_every_place(b, []<Place kPlace>() -> Handler { return binary_load<A, T, kPlace>; });
    return immediate ? binary_register<A, T, Source::kImmediate> : binary_register<A, T, Source::kRegister>;
  });
}

template <class A, class T>
void unary_register(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(op->dst, A::run(cpu.reg<T>(op->dst), cpu.state.cc));
  KITE_NEXT(cpu, op);
}

template <class A, class T, bool kLocked>
void unary_memory_slow(Cpu& cpu, const Op* op) {
  uint64_t address;
  if (cpu.exception || !cpu.linear(op, cpu.effective_address(op), sizeof(T), Access::kReadWrite, address))
    KITE_FAULT(cpu, op);
  uint64_t cc = cpu.state.cc;
  const uint64_t cc_before = cc;
  if (!modify_slowly<T>(cpu, op, address, kLocked, [&](T a) {
        cc = cc_before;
        return A::run(a, cc);
      }))
    KITE_FAULT(cpu, op);
  cpu.state.cc = cc;
  KITE_NEXT(cpu, op);
}

template <class A, class T, bool kLocked, Place kPlace>
void unary_memory(Cpu& cpu, const Op* op) {
  uint64_t address;
  if (!operand_address<kPlace>(cpu, op, sizeof(T), Access::kReadWrite, address)) KITE_FAULT(cpu, op);
  T* at = cpu.rmw<T>(address, segment_of(op));
  if (at == nullptr) [[unlikely]] {
    [[clang::musttail]] return unary_memory_slow<A, T, kLocked>(cpu, op);
  }
  A::template memory<T, kLocked>(at, cpu.state.cc);
  cpu.rmw_done(address, sizeof(T));
  KITE_NEXT(cpu, op);
}

template <class A>
Handler unary(const Binding& b) {
  return by_width(b.insn.operand[0].size, [&]<class T>() -> Handler {
    if (!is_memory(b.insn.operand[0])) return unary_register<A, T>;
    if (b.op.lock) return unary_memory<A, T, true, Place::kGeneral>;
    return by_place(b, []<Place kPlace>() -> Handler { return unary_memory<A, T, false, kPlace>; });
  });
}

// ADCX and ADOX: an addition that reads and writes one flag only.
template <class T, uint64_t kFlag, bool kMemory>
void add_one_flag(Cpu& cpu, const Op* op) {
  T b;
  if constexpr (kMemory) {
    if (!load_operand<T, Place::kGeneral>(cpu, op, b)) KITE_FAULT(cpu, op);
  } else {
    b = cpu.reg<T>(op->src);
  }
  const T a = cpu.reg<T>(op->dst);
  T sum = 0;
  bool carry = __builtin_add_overflow(a, b, &sum);
  carry |= __builtin_add_overflow(sum, static_cast<T>((cpu.state.cc & kFlag) != 0), &sum);
  cpu.set_reg<T>(op->dst, sum);
  cpu.state.cc = (cpu.state.cc & ~kFlag) | (carry ? kFlag : 0);
  KITE_NEXT(cpu, op);
}

template <uint64_t kFlag>
Handler one_flag(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[1]);
  if (b.insn.operand[0].size == 8)
    return memory ? add_one_flag<uint64_t, kFlag, true> : add_one_flag<uint64_t, kFlag, false>;
  return memory ? add_one_flag<uint32_t, kFlag, true> : add_one_flag<uint32_t, kFlag, false>;
}

}  // namespace

Handler arithmetic_handler(const Binding& b) {
  switch (b.insn.op) {
    case Code::kAdd: return binary<Add>(b);
    case Code::kOr: return binary<Or>(b);
    case Code::kAdc: return binary<Adc>(b);
    case Code::kSbb: return binary<Sbb>(b);
    case Code::kAnd: return binary<And>(b);
    case Code::kSub: return binary<Sub>(b);
    case Code::kXor: return binary<Xor>(b);
    case Code::kCmp: return binary<Cmp>(b);
    case Code::kTest: return binary<Test>(b);
    case Code::kInc: return unary<Inc>(b);
    case Code::kDec: return unary<Dec>(b);
    case Code::kNeg: return unary<Neg>(b);
    case Code::kNot: return unary<Not>(b);
    case Code::kAdcx: return one_flag<kCf>(b);
    case Code::kAdox: return one_flag<kOf>(b);
    default: return nullptr;
  }
}

}  // namespace kite::cpu
