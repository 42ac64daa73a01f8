// MUL, IMUL, DIV, IDIV and the decimal adjustments.
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

constexpr uint8_t kAl = 8 * x86::kRax, kAh = 8 * x86::kRax + 1, kAx = 8 * x86::kRax, kDx = 8 * x86::kRdx;

template <class T, bool kMemory>
[[gnu::always_inline]] inline bool operand(Cpu& cpu, const Op* op, uint8_t at, T& value) {
  if constexpr (kMemory) return load_operand<T, Place::kGeneral>(cpu, op, value);
  value = cpu.reg<T>(at);
  return true;
}

// The one-operand multiplications: rdx:rax = rax * operand, for bytes ax = al * operand.
template <class T, bool kSigned>
[[gnu::always_inline]] inline void multiply(Cpu& cpu, T b) {
  uint64_t rax = cpu.reg<T>(kAx);
  uint64_t rdx = 0;
  uint64_t product;
  if constexpr (kSigned)
    asm("imul %[b]\n\tmovq %%rax, %[product]" KITE_ASM_SAVE_FLAGS
        : [product] "=&r"(product), "+&a"(rax), "+&d"(rdx)
        : [b] "r"(b)
        : "cc");
  else
    asm("mul %[b]\n\tmovq %%rax, %[product]" KITE_ASM_SAVE_FLAGS
        : [product] "=&r"(product), "+&a"(rax), "+&d"(rdx)
        : [b] "r"(b)
        : "cc");
  if constexpr (sizeof(T) == 1) {
    cpu.set_reg<uint16_t>(kAx, static_cast<uint16_t>(product));
  } else {
    cpu.set_reg<T>(kAx, static_cast<T>(product));
    cpu.set_reg<T>(kDx, static_cast<T>(rdx));
  }
  cpu.state.cc = flags_of_ax(static_cast<uint32_t>(rax));
}

template <class T, bool kSigned, bool kMemory>
void multiply_one(Cpu& cpu, const Op* op) {
  T b;
  if (!operand<T, kMemory>(cpu, op, op->dst, b)) KITE_FAULT(cpu, op);
  multiply<T, kSigned>(cpu, b);
  KITE_NEXT(cpu, op);
}

// IMUL with two and three operands.
template <class T, bool kImmediate, bool kMemory>
void multiply_into(Cpu& cpu, const Op* op) {
  T b;
  if (!operand<T, kMemory>(cpu, op, op->src, b)) KITE_FAULT(cpu, op);
  T a = kImmediate ? static_cast<T>(op->imm) : cpu.reg<T>(op->dst);
  uint32_t ax;
  asm("imul %[b], %[a]" KITE_ASM_SAVE_FLAGS : [a] "+&r"(a), "=&a"(ax) : [b] "r"(b) : "cc");
  cpu.state.cc = flags_of_ax(ax);
  cpu.set_reg<T>(op->dst, a);
  KITE_NEXT(cpu, op);
}

// Whether high:low / divisor fits the quotient; checked beforehand so that the host never faults.
template <class T>
inline bool unsigned_quotient_fits(T high, T divisor) {
  return high < divisor;  // false for a divisor of zero as well
}
template <class T>
inline bool signed_quotient_fits(T high, T low, T divisor) {
  using Signed = std::make_signed_t<T>;
  if (divisor == 0) return false;
  constexpr unsigned kBits = 8 * sizeof(T);
  const bool dividend_negative = static_cast<Signed>(high) < 0;
  const bool divisor_negative = static_cast<Signed>(divisor) < 0;
  unsigned __int128 dividend = static_cast<unsigned __int128>(high) << kBits | low;
  if constexpr (kBits < 64) dividend &= (static_cast<unsigned __int128>(1) << (2 * kBits)) - 1;
  if (dividend_negative) {
    dividend = -dividend;
    if constexpr (kBits < 64) dividend &= (static_cast<unsigned __int128>(1) << (2 * kBits)) - 1;
  }
  const unsigned __int128 magnitude = divisor_negative ? static_cast<T>(T{0} - divisor) : divisor;
  // |quotient| may reach 2^(n-1) - 1, or 2^(n-1) when negative.
  const unsigned __int128 limit = (magnitude << (kBits - 1)) + (dividend_negative != divisor_negative ? magnitude : 0);
  return dividend < limit;
}

// Divides rdx:rax (bytes: ax) by a divisor that was checked. The flags are undefined: they become what the host makes
// of them.
template <class T, bool kSigned>
inline void divide_checked(Cpu& cpu, T divisor) {
  uint64_t rax = ax_of_flags(cpu.state.cc);
  uint64_t quotient = cpu.state.gpr[x86::kRax];
  uint64_t rdx = cpu.state.gpr[x86::kRdx];
  if constexpr (kSigned)
    asm(KITE_ASM_LOAD_FLAGS "movq %[q], %%rax\n\tidiv %[d]\n\tmovq %%rax, %[q]" KITE_ASM_SAVE_FLAGS
        : [q] "+&r"(quotient), "+&d"(rdx), "+&a"(rax)
        : [d] "r"(divisor)
        : "cc");
  else
    asm(KITE_ASM_LOAD_FLAGS "movq %[q], %%rax\n\tdiv %[d]\n\tmovq %%rax, %[q]" KITE_ASM_SAVE_FLAGS
        : [q] "+&r"(quotient), "+&d"(rdx), "+&a"(rax)
        : [d] "r"(divisor)
        : "cc");
  if constexpr (sizeof(T) == 1) {
    cpu.set_reg<uint16_t>(kAx, static_cast<uint16_t>(quotient));
  } else {
    cpu.set_reg<T>(kAx, static_cast<T>(quotient));
    cpu.set_reg<T>(kDx, static_cast<T>(rdx));
  }
  cpu.state.cc = flags_of_ax(static_cast<uint32_t>(rax));
}

template <class T, bool kSigned, bool kMemory>
void divide(Cpu& cpu, const Op* op) {
  T divisor;
  if (!operand<T, kMemory>(cpu, op, op->dst, divisor)) KITE_FAULT(cpu, op);
  const T low = cpu.reg<T>(kAx);
  const T high = sizeof(T) == 1 ? cpu.reg<T>(kAh) : cpu.reg<T>(kDx);
  const bool fits = kSigned ? signed_quotient_fits<T>(high, low, divisor) : unsigned_quotient_fits<T>(high, divisor);
  if (!fits) [[unlikely]] {
    cpu.raise(x86::Vector::kDe);
    KITE_FAULT(cpu, op);
  }
  divide_checked<T, kSigned>(cpu, divisor);
  KITE_NEXT(cpu, op);
}

// ZF, SF and PF of a byte result.
inline uint64_t result_flags(uint8_t value) {
  return (value == 0 ? kZf : 0) | (value & 0x80 ? kSf : 0) | (__builtin_parity(value) ? 0 : kPf);
}

// DAA and DAS (SDM 2A). OF is undefined: cleared.
template <bool kSubtract>
void decimal_adjust(Cpu& cpu, const Op* op) {
  const uint64_t cc = cpu.state.cc;
  const uint8_t old_al = cpu.reg<uint8_t>(kAl);
  uint8_t al = old_al;
  uint64_t flags = 0;
  const auto adjust = [&](uint8_t by) { al = static_cast<uint8_t>(kSubtract ? al - by : al + by); };
  if ((old_al & 15) > 9 || (cc & kAf)) {
    const bool wraps = kSubtract ? old_al < 6 : old_al > 0xff - 6;
    adjust(6);
    flags |= kAf | (wraps ? kCf : 0) | (cc & kCf);
  }
  if (old_al > 0x99 || (cc & kCf)) {
    adjust(0x60);
    flags |= kCf;
  } else if constexpr (!kSubtract) {
    flags &= ~kCf;
  }
  cpu.reg<uint8_t>(kAl) = al;
  cpu.state.cc = flags | result_flags(al);
  KITE_NEXT(cpu, op);
}

// AAA and AAS. OF, SF, ZF and PF are undefined: those of AL.
template <bool kSubtract>
void ascii_adjust(Cpu& cpu, const Op* op) {
  uint64_t flags = 0;
  uint16_t ax = cpu.reg<uint16_t>(kAx);
  if ((ax & 15) > 9 || (cpu.state.cc & kAf)) {
    ax = static_cast<uint16_t>(kSubtract ? ax - 0x106 : ax + 0x106);
    flags = kAf | kCf;
  }
  ax &= 0xff0f;
  cpu.reg<uint16_t>(kAx) = ax;
  cpu.state.cc = flags | result_flags(static_cast<uint8_t>(ax));
  KITE_NEXT(cpu, op);
}

void ascii_adjust_multiply(Cpu& cpu, const Op* op) {
  const uint8_t base = static_cast<uint8_t>(op->imm);
  if (base == 0) {
    cpu.raise(x86::Vector::kDe);
    KITE_FAULT(cpu, op);
  }
  const uint8_t al = cpu.reg<uint8_t>(kAl);
  cpu.reg<uint8_t>(kAh) = al / base;
  cpu.reg<uint8_t>(kAl) = al % base;
  cpu.state.cc = result_flags(al % base);
  KITE_NEXT(cpu, op);
}

// OF, AF and CF are undefined: those of the addition that it is.
void ascii_adjust_divide(Cpu& cpu, const Op* op) {
  uint8_t al = cpu.reg<uint8_t>(kAl);
  const auto tens = static_cast<uint8_t>(cpu.reg<uint8_t>(kAh) * static_cast<unsigned>(op->imm & 0xff));
  uint32_t ax;
  asm("addb %[tens], %[al]" KITE_ASM_SAVE_FLAGS : [al] "+&r"(al), "=&a"(ax) : [tens] "r"(tens) : "cc");
  cpu.reg<uint16_t>(kAx) = al;
  cpu.state.cc = flags_of_ax(ax);
  KITE_NEXT(cpu, op);
}

template <bool kSigned>
Handler one_operand(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[0]);
  return by_width(b.insn.operand[0].size, [&]<class T>() -> Handler {
    return memory ? multiply_one<T, kSigned, true> : multiply_one<T, kSigned, false>;
  });
}

template <bool kSigned>
Handler division(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[0]);
  return by_width(b.insn.operand[0].size,
                  [&]<class T>() -> Handler { return memory ? divide<T, kSigned, true> : divide<T, kSigned, false>; });
}

template <bool kImmediate>
Handler multiplication_into(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[1]);
  return by_wide_width(b.insn.operand[0].size, [&]<class T>() -> Handler {
    if constexpr (sizeof(T) == 1)
      return nullptr;
    else
      return memory ? multiply_into<T, kImmediate, true> : multiply_into<T, kImmediate, false>;
  });
}

}  // namespace

Handler multiply_handler(const Binding& b) {
  switch (b.insn.op) {
    case Code::kMul: return one_operand<false>(b);
    case Code::kImul1: return one_operand<true>(b);
    case Code::kImul2: return multiplication_into<false>(b);
    case Code::kImul3: return multiplication_into<true>(b);
    case Code::kDiv: return division<false>(b);
    case Code::kIdiv: return division<true>(b);
    case Code::kDaa: return decimal_adjust<false>;
    case Code::kDas: return decimal_adjust<true>;
    case Code::kAaa: return ascii_adjust<false>;
    case Code::kAas: return ascii_adjust<true>;
    case Code::kAam: return ascii_adjust_multiply;
    case Code::kAad: return ascii_adjust_divide;
    default: return nullptr;
  }
}

}  // namespace kite::cpu
