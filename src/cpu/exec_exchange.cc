// XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B. Locked forms are the host's locked instruction on guest memory, so they
// are atomic between vCPUs.
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

constexpr uint8_t kAccumulator = 8 * x86::kRax;

template <class T>
[[gnu::always_inline]] inline Unaligned<T>* place_at(T* at) {
  return reinterpret_cast<Unaligned<T>*>(at);
}

template <class T>
[[gnu::always_inline]] inline bool modify_address(Cpu& cpu, const Op* op, uint64_t& address) {
  return cpu.linear(op, cpu.effective_address(op), sizeof(T), Access::kReadWrite, address);
}

template <class T>
void exchange_registers(Cpu& cpu, const Op* op) {
  const T a = cpu.reg<T>(op->dst);
  const T b = cpu.reg<T>(op->src);
  cpu.set_reg<T>(op->dst, b);
  cpu.set_reg<T>(op->src, a);
  KITE_NEXT(cpu, op);
}

// With memory XCHG is locked, prefix or not (SDM 3A 8.1.2.1).
template <class T>
void exchange_memory(Cpu& cpu, const Op* op) {
  uint64_t address;
  if (!modify_address<T>(cpu, op, address)) KITE_FAULT(cpu, op);
  T value = cpu.reg<T>(op->src);
  if (T* at = cpu.rmw<T>(address, segment_of(op))) [[likely]] {
    asm volatile("xchg %[value], %[place]" : [value] "+r"(value), [place] "+m"(*place_at(at)) : : "memory");
    cpu.rmw_done(address, sizeof(T));
  } else {
    T old = 0;
    if (!modify_slowly<T>(cpu, op, address, true, [&](T seen) {
          old = seen;
          return value;
        }))
      KITE_FAULT(cpu, op);
    value = old;
  }
  cpu.set_reg<T>(op->src, value);
  KITE_NEXT(cpu, op);
}

template <class T>
inline T add_with_flags(T a, T b, uint64_t& cc) {
  uint32_t ax;
  asm("add %[b], %[a]" KITE_ASM_SAVE_FLAGS : [a] "+&r"(a), "=&a"(ax) : [b] "r"(b) : "cc");
  cc = flags_of_ax(ax);
  return a;
}
template <class T>
inline void compare_with_flags(T a, T b, uint64_t& cc) {
  uint32_t ax;
  asm("cmp %[b], %[a]" KITE_ASM_SAVE_FLAGS : "=&a"(ax) : [a] "r"(a), [b] "r"(b) : "cc");
  cc = flags_of_ax(ax);
}

template <class T>
void add_exchange_registers(Cpu& cpu, const Op* op) {
  const T a = cpu.reg<T>(op->dst);
  const T sum = add_with_flags<T>(a, cpu.reg<T>(op->src), cpu.state.cc);
  cpu.set_reg<T>(op->src, a);
  cpu.set_reg<T>(op->dst, sum);  // the destination last: xadd of a register with itself leaves the sum
  KITE_NEXT(cpu, op);
}

template <class T, bool kLocked>
void add_exchange_memory(Cpu& cpu, const Op* op) {
  uint64_t address;
  if (!modify_address<T>(cpu, op, address)) KITE_FAULT(cpu, op);
  T value = cpu.reg<T>(op->src);
  uint64_t cc = 0;
  if (T* at = cpu.rmw<T>(address, segment_of(op))) [[likely]] {
    uint32_t ax;
    if constexpr (kLocked)
      asm volatile("lock xadd %[value], %[place]" KITE_ASM_SAVE_FLAGS
                   : [value] "+&r"(value), [place] "+m"(*place_at(at)), "=&a"(ax)
                   :
                   : "cc", "memory");
    else
      asm volatile("xadd %[value], %[place]" KITE_ASM_SAVE_FLAGS
                   : [value] "+&r"(value), [place] "+m"(*place_at(at)), "=&a"(ax)
                   :
                   : "cc", "memory");
    cc = flags_of_ax(ax);
    cpu.rmw_done(address, sizeof(T));
  } else {
    T old = 0;
    if (!modify_slowly<T>(cpu, op, address, kLocked, [&](T seen) {
          old = seen;
          return add_with_flags<T>(seen, value, cc);
        }))
      KITE_FAULT(cpu, op);
    value = old;
  }
  cpu.state.cc = cc;
  cpu.set_reg<T>(op->src, value);
  KITE_NEXT(cpu, op);
}

// Between registers the host's instruction runs on the whole registers: what happens to upper halves is its business.
template <class T>
inline void compare_exchange_values(uint64_t& destination, T desired, uint64_t& accumulator, uint64_t& cc) {
  uint64_t rax = accumulator;
  uint64_t result;
  if constexpr (sizeof(T) == 1)
    asm("cmpxchg %[desired], %b[destination]\n\tmovq %%rax, %[result]" KITE_ASM_SAVE_FLAGS
        : [destination] "+&r"(destination), [result] "=&r"(result), "+&a"(rax)
        : [desired] "r"(desired)
        : "cc");
  else if constexpr (sizeof(T) == 2)
    asm("cmpxchg %[desired], %w[destination]\n\tmovq %%rax, %[result]" KITE_ASM_SAVE_FLAGS
        : [destination] "+&r"(destination), [result] "=&r"(result), "+&a"(rax)
        : [desired] "r"(desired)
        : "cc");
  else if constexpr (sizeof(T) == 4)
    asm("cmpxchg %[desired], %k[destination]\n\tmovq %%rax, %[result]" KITE_ASM_SAVE_FLAGS
        : [destination] "+&r"(destination), [result] "=&r"(result), "+&a"(rax)
        : [desired] "r"(desired)
        : "cc");
  else
    asm("cmpxchg %[desired], %q[destination]\n\tmovq %%rax, %[result]" KITE_ASM_SAVE_FLAGS
        : [destination] "+&r"(destination), [result] "=&r"(result), "+&a"(rax)
        : [desired] "r"(desired)
        : "cc");
  accumulator = result;
  cc = flags_of_ax(static_cast<uint32_t>(rax));
}

// The destination is the accumulator itself.
template <class T>
void compare_exchange_accumulator(Cpu& cpu, const Op* op) {
  const T value = cpu.reg<T>(kAccumulator);
  compare_with_flags<T>(value, value, cpu.state.cc);
  cpu.set_reg<T>(kAccumulator, cpu.reg<T>(op->src));
  KITE_NEXT(cpu, op);
}

template <class T>
void compare_exchange_registers(Cpu& cpu, const Op* op) {
  if constexpr (sizeof(T) == 1) {
    // Byte registers: AH to BH are the second byte of theirs.
    uint64_t destination = cpu.reg<uint8_t>(op->dst);
    uint64_t accumulator = cpu.reg<uint8_t>(kAccumulator);
    const uint8_t before = static_cast<uint8_t>(accumulator);
    compare_exchange_values<uint8_t>(destination, cpu.reg<uint8_t>(op->src), accumulator, cpu.state.cc);
    if (static_cast<uint8_t>(accumulator) != before) cpu.reg<uint8_t>(kAccumulator) = static_cast<uint8_t>(accumulator);
    cpu.reg<uint8_t>(op->dst) = static_cast<uint8_t>(destination);
  } else {
    compare_exchange_values<T>(cpu.reg<uint64_t>(op->dst), cpu.reg<T>(op->src), cpu.state.gpr[x86::kRax], cpu.state.cc);
  }
  KITE_NEXT(cpu, op);
}

template <class T, bool kLocked>
void compare_exchange_memory(Cpu& cpu, const Op* op) {
  uint64_t address;
  if (!modify_address<T>(cpu, op, address)) KITE_FAULT(cpu, op);
  // The flags are those of comparing the accumulator with the destination.
  const T expected = cpu.reg<T>(kAccumulator);
  const T desired = cpu.reg<T>(op->src);
  T seen = expected;
  if (T* at = cpu.rmw<T>(address, segment_of(op))) [[likely]] {
    if constexpr (kLocked)
      asm volatile("lock cmpxchg %[desired], %[place]"
                   : "+a"(seen), [place] "+m"(*place_at(at))
                   : [desired] "r"(desired)
                   : "cc", "memory");
    else
      asm volatile("cmpxchg %[desired], %[place]"
                   : "+a"(seen), [place] "+m"(*place_at(at))
                   : [desired] "r"(desired)
                   : "cc", "memory");
    cpu.rmw_done(address, sizeof(T));
  } else if (!modify_slowly<T>(cpu, op, address, kLocked, [&](T old) {
               seen = old;
               return old == expected ? desired : old;
             })) {
    KITE_FAULT(cpu, op);
  }
  compare_with_flags<T>(expected, seen, cpu.state.cc);
  if (seen != expected) cpu.set_reg<T>(kAccumulator, seen);
  KITE_NEXT(cpu, op);
}

// CMPXCHG8B and CMPXCHG16B: T is a half.
template <class T>
struct Pair {
  T low;
  T high;
};

template <class T, bool kLocked>
[[gnu::always_inline]] inline bool compare_exchange_pair(Pair<T>* at, Pair<T>& expected, const Pair<T>& desired) {
  bool equal;
  if constexpr (sizeof(T) == 4) {
    if constexpr (kLocked)
      asm volatile("lock cmpxchg8b %[place]"
                   : "+a"(expected.low), "+d"(expected.high), [place] "+m"(*at), "=@ccz"(equal)
                   : "b"(desired.low), "c"(desired.high)
                   : "memory");
    else
      asm volatile("cmpxchg8b %[place]"
                   : "+a"(expected.low), "+d"(expected.high), [place] "+m"(*at), "=@ccz"(equal)
                   : "b"(desired.low), "c"(desired.high)
                   : "memory");
  } else {
    if constexpr (kLocked)
      asm volatile("lock cmpxchg16b %[place]"
                   : "+a"(expected.low), "+d"(expected.high), [place] "+m"(*at), "=@ccz"(equal)
                   : "b"(desired.low), "c"(desired.high)
                   : "memory");
    else
      asm volatile("cmpxchg16b %[place]"
                   : "+a"(expected.low), "+d"(expected.high), [place] "+m"(*at), "=@ccz"(equal)
                   : "b"(desired.low), "c"(desired.high)
                   : "memory");
  }
  return equal;
}

// Device memory, or across a page: always written, as hardware does.
template <class T>
bool compare_exchange_pair_slowly(Cpu& cpu, const Op* op, uint64_t address, Pair<T>& expected, const Pair<T>& desired,
                                  bool& equal) {
  if (cpu.exception) return false;
  bool done = false;
  const auto work = [&] {
    uint64_t low = 0;
    uint64_t high = 0;
    if (!cpu.read_for_write(address, sizeof(T), low, segment_of(op)) ||
        !cpu.read_for_write(address + sizeof(T), sizeof(T), high, segment_of(op)))
      return;
    const Pair<T> seen{static_cast<T>(low), static_cast<T>(high)};
    equal = seen.low == expected.low && seen.high == expected.high;
    const Pair<T>& put = equal ? desired : seen;
    done =
        cpu.write<T>(address, put.low, segment_of(op)) && cpu.write<T>(address + sizeof(T), put.high, segment_of(op));
    expected = seen;
  };
  if (op->lock)
    cpu.io->exclusive(work);
  else
    work();
  return done;
}

template <class T, bool kLocked>
void compare_exchange_double(Cpu& cpu, const Op* op) {
  uint64_t address;
  if (!modify_address<Pair<T>>(cpu, op, address)) KITE_FAULT(cpu, op);
  // [SDM 2A CMPXCHG16B] the operand is 16-byte aligned, or #GP(0).
  if (sizeof(T) == 8 && (address & 15) != 0) {
    cpu.raise(x86::Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  Pair<T> seen{cpu.reg<T>(8 * x86::kRax), cpu.reg<T>(8 * x86::kRdx)};
  const Pair<T> desired{cpu.reg<T>(8 * x86::kRbx), cpu.reg<T>(8 * x86::kRcx)};
  bool equal = false;
  if (Pair<T>* at = cpu.rmw<Pair<T>>(address, segment_of(op))) [[likely]] {
    equal = compare_exchange_pair<T, kLocked>(at, seen, desired);
    cpu.rmw_done(address, sizeof(Pair<T>));
  } else if (!compare_exchange_pair_slowly<T>(cpu, op, address, seen, desired, equal)) {
    KITE_FAULT(cpu, op);
  }
  if (!equal) {
    cpu.set_reg<T>(8 * x86::kRax, seen.low);
    cpu.set_reg<T>(8 * x86::kRdx, seen.high);
  }
  cpu.state.cc = (cpu.state.cc & ~kZf) | (equal ? kZf : 0);
  KITE_NEXT(cpu, op);
}

Handler exchange(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[0]) || is_memory(b.insn.operand[1]);
  return by_width(b.insn.operand[0].size,
                  [&]<class T>() -> Handler { return memory ? exchange_memory<T> : exchange_registers<T>; });
}

Handler add_exchange(const Binding& b) {
  return by_width(b.insn.operand[0].size, [&]<class T>() -> Handler {
    if (!is_memory(b.insn.operand[0])) return add_exchange_registers<T>;
    return b.op.lock ? add_exchange_memory<T, true> : add_exchange_memory<T, false>;
  });
}

Handler compare_exchange(const Binding& b) {
  return by_width(b.insn.operand[0].size, [&]<class T>() -> Handler {
    if (!is_memory(b.insn.operand[0]))
      return b.op.dst == kAccumulator ? compare_exchange_accumulator<T> : compare_exchange_registers<T>;
    return b.op.lock ? compare_exchange_memory<T, true> : compare_exchange_memory<T, false>;
  });
}

}  // namespace

Handler exchange_handler(const Binding& b) {
  switch (b.insn.op) {
    case Code::kXchg: return exchange(b);
    case Code::kXadd: return add_exchange(b);
    case Code::kCmpxchg: return compare_exchange(b);
    case Code::kCmpxchg8b:
      return b.op.lock ? compare_exchange_double<uint32_t, true> : compare_exchange_double<uint32_t, false>;
    case Code::kCmpxchg16b:
      return b.op.lock ? compare_exchange_double<uint64_t, true> : compare_exchange_double<uint64_t, false>;
    default: return nullptr;
  }
}

}  // namespace kite::cpu
