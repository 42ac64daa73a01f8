// BT and its kin, BSF, BSR, POPCNT, LZCNT, TZCNT, BSWAP, CRC32, RDRAND, RDSEED.
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

enum class BitAction : uint8_t { kTest, kSet, kReset, kComplement };

template <BitAction kAction, class T>
[[gnu::always_inline]] inline T change_bit(T value, unsigned n) {
  const T mask = static_cast<T>(T{1} << n);
  if constexpr (kAction == BitAction::kSet) return value | mask;
  if constexpr (kAction == BitAction::kReset) return static_cast<T>(value & ~mask);
  if constexpr (kAction == BitAction::kComplement) return value ^ mask;
  return value;
}
// Only CF changes; the other flags are kept, as the host does where they are undefined.
inline void set_carry(Cpu& cpu, bool carry) { cpu.state.cc = (cpu.state.cc & ~kCf) | (carry ? kCf : 0); }

template <class T, bool kImmediate>
[[gnu::always_inline]] inline uint64_t bit_offset(Cpu& cpu, const Op* op) {
  if constexpr (kImmediate)
    return op->imm;
  else
    return static_cast<uint64_t>(static_cast<int64_t>(static_cast<std::make_signed_t<T>>(cpu.reg<T>(op->src))));
}

template <BitAction kAction, class T, bool kImmediate>
void bit_register(Cpu& cpu, const Op* op) {
  const unsigned n = bit_offset<T, kImmediate>(cpu, op) & (8 * sizeof(T) - 1);
  const T value = cpu.reg<T>(op->dst);
  if constexpr (kAction != BitAction::kTest) cpu.set_reg<T>(op->dst, change_bit<kAction>(value, n));
  set_carry(cpu, (value >> n) & 1);
  KITE_NEXT(cpu, op);
}

// The bit string that starts at the operand: a register offset, signed, chooses the T within it (SDM 2A BT).
template <class T, bool kImmediate>
inline bool bit_address(Cpu& cpu, const Op* op, Access access, uint64_t& address, unsigned& n) {
  const uint64_t offset = bit_offset<T, kImmediate>(cpu, op);
  n = offset & (8 * sizeof(T) - 1);
  uint64_t ea = cpu.effective_address(op);
  if constexpr (!kImmediate) {
    ea += static_cast<uint64_t>(static_cast<int64_t>(offset) >> 3) & ~uint64_t{sizeof(T) - 1};
    if (op->address_size != 8) ea = op->address_size == 4 ? static_cast<uint32_t>(ea) : static_cast<uint16_t>(ea);
  }
  return cpu.linear(op, ea, sizeof(T), access, address);
}

template <class T, bool kImmediate>
void bit_test_memory(Cpu& cpu, const Op* op) {
  uint64_t address;
  unsigned n;
  T value;
  if (!bit_address<T, kImmediate>(cpu, op, Access::kRead, address, n) || !cpu.read<T>(address, value, segment_of(op)))
    KITE_FAULT(cpu, op);
  set_carry(cpu, (value >> n) & 1);
  KITE_NEXT(cpu, op);
}

template <BitAction kAction, class T>
[[gnu::always_inline]] inline T change_atomically(T* place, unsigned n) {
  // A lock-prefixed BTx with a register offset inside the operand never leaves it.
  const T mask = static_cast<T>(T{1} << n);
  auto* at = reinterpret_cast<Unaligned<T>*>(place);
  T old = *at;
  T seen;
  do {
    seen = old;
    const T changed = change_bit<kAction>(old, n);
    asm volatile("lock cmpxchg %[changed], %[place]"
                 : "+a"(old), [place] "+m"(*at)
                 : [changed] "r"(changed)
                 : "cc", "memory");
  } while (old != seen);
  return old & mask;
}

template <BitAction kAction, class T, bool kImmediate>
void bit_change_memory(Cpu& cpu, const Op* op) {
  uint64_t address;
  unsigned n;
  if (!bit_address<T, kImmediate>(cpu, op, Access::kReadWrite, address, n)) KITE_FAULT(cpu, op);
  bool carry = false;
  if (T* at = cpu.rmw<T>(address, segment_of(op))) [[likely]] {
    if (op->lock) {
      carry = change_atomically<kAction>(at, n) != 0;
    } else {
      auto* place = reinterpret_cast<volatile Unaligned<T>*>(at);
      const T value = *place;
      *place = change_bit<kAction>(value, n);
      carry = (value >> n) & 1;
    }
    cpu.rmw_done(address, sizeof(T));
  } else if (!modify_slowly<T>(cpu, op, address, op->lock, [&](T value) {
               carry = (value >> n) & 1;
               return change_bit<kAction>(value, n);
             })) {
    KITE_FAULT(cpu, op);
  }
  set_carry(cpu, carry);
  KITE_NEXT(cpu, op);
}

template <BitAction kAction>
Handler bit_operation(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[0]);
  const bool immediate = is_immediate(b.insn.operand[1]);
  return by_wide_width(b.insn.operand[0].size, [&]<class T>() -> Handler {
    if constexpr (sizeof(T) == 1) {
      return nullptr;
    } else {
      if (!memory) return immediate ? bit_register<kAction, T, true> : bit_register<kAction, T, false>;
      if constexpr (kAction == BitAction::kTest)
        return immediate ? bit_test_memory<T, true> : bit_test_memory<T, false>;
      else
        return immediate ? bit_change_memory<kAction, T, true> : bit_change_memory<kAction, T, false>;
    }
  });
}

// Scans and counts: the host's instruction on the whole 64-bit destination, which keeps what a zero source leaves
// alone.
#define KITE_SCAN(Name, text)                                                \
  struct Name {                                                              \
    template <class T>                                                       \
    [[gnu::always_inline]] static void run(uint64_t& a, T b, uint64_t& cc) { \
      uint32_t ax = ax_of_flags(cc);                                         \
      if constexpr (sizeof(T) == 2)                                          \
        asm(KITE_ASM_LOAD_FLAGS text " %[b], %w[a]" KITE_ASM_SAVE_FLAGS      \
            : [a] "+&r"(a), "+&a"(ax)                                        \
            : [b] "r"(b)                                                     \
            : "cc");                                                         \
      else if constexpr (sizeof(T) == 4)                                     \
        asm(KITE_ASM_LOAD_FLAGS text " %[b], %k[a]" KITE_ASM_SAVE_FLAGS      \
            : [a] "+&r"(a), "+&a"(ax)                                        \
            : [b] "r"(b)                                                     \
            : "cc");                                                         \
      else                                                                   \
        asm(KITE_ASM_LOAD_FLAGS text " %[b], %q[a]" KITE_ASM_SAVE_FLAGS      \
            : [a] "+&r"(a), "+&a"(ax)                                        \
            : [b] "r"(b)                                                     \
            : "cc");                                                         \
      cc = flags_of_ax(ax);                                                  \
    }                                                                        \
  }
KITE_SCAN(Bsf, "bsf");
KITE_SCAN(Bsr, "bsr");
KITE_SCAN(Popcnt, "popcnt");
KITE_SCAN(Lzcnt, "lzcnt");
KITE_SCAN(Tzcnt, "tzcnt");
#undef KITE_SCAN

template <class S, class T, bool kMemory>
void scan(Cpu& cpu, const Op* op) {
  T b;
  if constexpr (kMemory) {
    if (!load_operand<T, Place::kGeneral>(cpu, op, b)) KITE_FAULT(cpu, op);
  } else {
    b = cpu.reg<T>(op->src);
  }
  S::run(cpu.reg<uint64_t>(op->dst), b, cpu.state.cc);
  KITE_NEXT(cpu, op);
}

template <class S>
Handler scan_of(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[1]);
  return by_wide_width(b.insn.operand[0].size, [&]<class T>() -> Handler {
    if constexpr (sizeof(T) == 1)
      return nullptr;
    else
      return memory ? scan<S, T, true> : scan<S, T, false>;
  });
}

template <class T>
void byte_swap(Cpu& cpu, const Op* op) {
  if constexpr (sizeof(T) == 2)
    cpu.reg<T>(op->dst) = 0;  // undefined; hardware clears it
  else if constexpr (sizeof(T) == 4)
    cpu.set_reg<T>(op->dst, __builtin_bswap32(cpu.reg<T>(op->dst)));
  else
    cpu.set_reg<T>(op->dst, __builtin_bswap64(cpu.reg<T>(op->dst)));
  KITE_NEXT(cpu, op);
}

// CRC32: bits reflected, polynomial 0x1edc6f41 (SDM 2A).
template <class T>
inline uint32_t crc32c(uint32_t crc, T value) {
  asm("crc32 %[value], %[crc]" : [crc] "+r"(crc) : [value] "r"(value));
  return crc;
}
template <>
inline uint32_t crc32c<uint64_t>(uint32_t crc, uint64_t value) {
  uint64_t wide = crc;
  asm("crc32q %[value], %[crc]" : [crc] "+r"(wide) : [value] "r"(value));
  return static_cast<uint32_t>(wide);
}

template <class T, bool kMemory>
void crc32(Cpu& cpu, const Op* op) {
  T value;
  if constexpr (kMemory) {
    if (!load_operand<T, Place::kGeneral>(cpu, op, value)) KITE_FAULT(cpu, op);
  } else {
    value = cpu.reg<T>(op->src);
  }
  cpu.set_reg<uint32_t>(op->dst, crc32c(cpu.reg<uint32_t>(op->dst), value));
  KITE_NEXT(cpu, op);
}

Handler crc_of(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[1]);
  return by_width(b.insn.operand[1].size,
                  [&]<class T>() -> Handler { return memory ? crc32<T, true> : crc32<T, false>; });
}

// RDRAND and RDSEED: the host's own numbers. CF says that there was one, the other flags are cleared; without one the
// destination is zero (SDM 2B).
template <class T, bool kSeed>
void random_number(Cpu& cpu, const Op* op) {
  uint64_t value = 0;
  bool got = false;
  if constexpr (kSeed)
    asm volatile("rdseed %[value]" : [value] "=r"(value), "=@ccc"(got));
  else
    asm volatile("rdrand %[value]" : [value] "=r"(value), "=@ccc"(got));
  cpu.set_reg<T>(op->dst, static_cast<T>(value));
  cpu.state.cc = got ? kCf : 0;
  KITE_NEXT(cpu, op);
}

template <bool kSeed>
Handler random_of(const Binding& b) {
  return by_wide_width(b.insn.operand[0].size, []<class T>() -> Handler { return random_number<T, kSeed>; });
}

Handler byte_swap_of(const Binding& b) {
  switch (b.insn.operand[0].size) {
    case 2: return byte_swap<uint16_t>;
    case 4: return byte_swap<uint32_t>;
    default: return byte_swap<uint64_t>;
  }
}

}  // namespace

Handler bit_handler(const Binding& b) {
  switch (b.insn.op) {
    case Code::kBt: return bit_operation<BitAction::kTest>(b);
    case Code::kBts: return bit_operation<BitAction::kSet>(b);
    case Code::kBtr: return bit_operation<BitAction::kReset>(b);
    case Code::kBtc: return bit_operation<BitAction::kComplement>(b);
    case Code::kBsf: return scan_of<Bsf>(b);
    case Code::kBsr: return scan_of<Bsr>(b);
    case Code::kPopcnt: return scan_of<Popcnt>(b);
    case Code::kLzcnt: return scan_of<Lzcnt>(b);
    case Code::kTzcnt: return scan_of<Tzcnt>(b);
    case Code::kBswap: return byte_swap_of(b);
    case Code::kCrc32: return crc_of(b);
    case Code::kRdrand: return random_of<false>(b);
    case Code::kRdseed: return random_of<true>(b);
    default: return nullptr;
  }
}

}  // namespace kite::cpu
