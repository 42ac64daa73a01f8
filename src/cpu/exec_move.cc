// Moves between registers and memory, extensions, LEA, CMOV, SETcc, XLAT, CBW and CWD, MOVBE.
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

template <class T>
void move_registers(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(op->dst, cpu.reg<T>(op->src));
  KITE_NEXT(cpu, op);
}
template <class T>
void move_immediate(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(op->dst, static_cast<T>(op->imm));
  KITE_NEXT(cpu, op);
}
template <class T, Place kPlace>
void load_register(Cpu& cpu, const Op* op) {
  T value;
  if (!load_operand<T, kPlace>(cpu, op, value)) KITE_FAULT(cpu, op);
  cpu.set_reg<T>(op->dst, value);
  KITE_NEXT(cpu, op);
}
template <class T, Place kPlace>
void store_register(Cpu& cpu, const Op* op) {
  if (!store_operand<T, kPlace>(cpu, op, cpu.reg<T>(op->src))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}
template <class T, Place kPlace>
void store_immediate(Cpu& cpu, const Op* op) {
  if (!store_operand<T, kPlace>(cpu, op, static_cast<T>(op->imm))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

Handler move(const Binding& b) {
  const auto& operand = b.insn.operand;
  return by_width(operand[0].size, [&]<class T>() -> Handler {
    if (is_memory(operand[0])) {
      if (is_immediate(operand[1]))
        return by_every_place(b, []<Place kPlace>() -> Handler { return store_immediate<T, kPlace>; });
      return by_every_place(b, []<Place kPlace>() -> Handler { return store_register<T, kPlace>; });
    }
    if (is_memory(operand[1]))
      return by_every_place(b, []<Place kPlace>() -> Handler { return load_register<T, kPlace>; });
    return is_immediate(operand[1]) ? move_immediate<T> : move_registers<T>;
  });
}

// MOVZX, MOVSX, MOVSXD: From is the source, signed or not; To the destination.
template <class To, class From>
[[gnu::always_inline]] inline To extend(std::make_unsigned_t<From> value) {
  return static_cast<To>(static_cast<std::make_signed_t<To>>(static_cast<From>(value)));
}
template <class To, class From>
void extend_register(Cpu& cpu, const Op* op) {
  cpu.set_reg<To>(op->dst, extend<To, From>(cpu.reg<std::make_unsigned_t<From>>(op->src)));
  KITE_NEXT(cpu, op);
}
template <class To, class From, Place kPlace>
void extend_memory(Cpu& cpu, const Op* op) {
  std::make_unsigned_t<From> value;
  if (!load_operand<std::make_unsigned_t<From>, kPlace>(cpu, op, value)) KITE_FAULT(cpu, op);
  cpu.set_reg<To>(op->dst, extend<To, From>(value));
  KITE_NEXT(cpu, op);
}

template <bool kSigned>
Handler extension(const Binding& b) {
  const auto& operand = b.insn.operand;
  return by_width(operand[0].size, [&]<class To>() -> Handler {
    return by_width(operand[1].size, [&]<class Unsigned>() -> Handler {
      using From = std::conditional_t<kSigned, std::make_signed_t<Unsigned>, Unsigned>;
      constexpr bool kCuts = kSigned && sizeof(From) == 4 && sizeof(To) == 2;  // AMD's MOVSXD r16
      if constexpr ((sizeof(From) > sizeof(To) && !kCuts) || sizeof(From) == 8 || sizeof(To) == 1) {
        return nullptr;
      } else {
        if (is_memory(operand[1]))
          return by_place(b, []<Place kPlace>() -> Handler { return extend_memory<To, From, kPlace>; });
        return extend_register<To, From>;
      }
    });
  });
}

template <class T>
void load_address(Cpu& cpu, const Op* op) {
  cpu.set_reg<T>(op->dst, static_cast<T>(cpu.effective_address(op)));
  KITE_NEXT(cpu, op);
}
template <bool kIndexed>
void load_address_64(Cpu& cpu, const Op* op) {
  uint64_t value = cpu.state.gpr[op->base] + static_cast<uint64_t>(op->disp);
  if constexpr (kIndexed) value += cpu.state.gpr[op->index] << op->scale;
  cpu.reg<uint64_t>(op->dst) = value;
  KITE_NEXT(cpu, op);
}

Handler load_address_of(const Binding& b) {
  if (b.insn.operand[0].size == 8 && b.op.address_size == 8)
    return b.op.index == kZeroReg ? load_address_64<false> : load_address_64<true>;
  return by_wide_width(b.insn.operand[0].size, []<class T>() -> Handler { return load_address<T>; });
}

// CMOV: the source is read, and a 32-bit destination cleared above, whatever the condition says.
template <unsigned kCondition, class T>
void conditional_register(Cpu& cpu, const Op* op) {
  const T value = condition<kCondition>(cpu.state.cc) ? cpu.reg<T>(op->src) : cpu.reg<T>(op->dst);
  cpu.set_reg<T>(op->dst, value);
  KITE_NEXT(cpu, op);
}
template <unsigned kCondition, class T>
void conditional_memory(Cpu& cpu, const Op* op) {
  T value;
  if (!load_operand<T, Place::kGeneral>(cpu, op, value)) KITE_FAULT(cpu, op);
  if (!condition<kCondition>(cpu.state.cc)) value = cpu.reg<T>(op->dst);
  cpu.set_reg<T>(op->dst, value);
  KITE_NEXT(cpu, op);
}

Handler conditional_move(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[1]);
  const auto pick = [&]<class T>() -> Handler {
    if constexpr (sizeof(T) == 1) {
      return nullptr;
    } else {
      const auto by = [memory]<unsigned kCondition>() -> Handler {
        return memory ? conditional_memory<kCondition, T> : conditional_register<kCondition, T>;
      };
      return by_condition(b.op.condition, by);
    }
  };
  return by_wide_width(b.insn.operand[0].size, pick);
}

template <unsigned kCondition>
void set_register(Cpu& cpu, const Op* op) {
  cpu.reg<uint8_t>(op->dst) = condition<kCondition>(cpu.state.cc);
  KITE_NEXT(cpu, op);
}
template <unsigned kCondition>
void set_memory(Cpu& cpu, const Op* op) {
  if (!store_operand<uint8_t, Place::kGeneral>(cpu, op, condition<kCondition>(cpu.state.cc))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

Handler set_on_condition(const Binding& b) {
  const bool memory = is_memory(b.insn.operand[0]);
  const auto by = [memory]<unsigned kCondition>() -> Handler {
    return memory ? set_memory<kCondition> : set_register<kCondition>;
  };
  return by_condition(b.op.condition, by);
}

// XLAT: al = [rbx + al], in whatever width addresses have.
void translate(Cpu& cpu, const Op* op) {
  uint64_t ea = cpu.state.gpr[x86::kRbx] + cpu.reg<uint8_t>(8 * x86::kRax);
  if (op->address_size != 8) ea = op->address_size == 4 ? static_cast<uint32_t>(ea) : static_cast<uint16_t>(ea);
  uint64_t address;
  uint8_t value;
  if (!cpu.linear(op, ea, 1, Access::kRead, address) || !cpu.read<uint8_t>(address, value, segment_of(op)))
    KITE_FAULT(cpu, op);
  cpu.reg<uint8_t>(8 * x86::kRax) = value;
  KITE_NEXT(cpu, op);
}

// CBW, CWDE, CDQE: To is the result.
template <class To, class From>
void widen_accumulator(Cpu& cpu, const Op* op) {
  cpu.set_reg<To>(8 * x86::kRax, extend<To, From>(cpu.reg<std::make_unsigned_t<From>>(8 * x86::kRax)));
  KITE_NEXT(cpu, op);
}
// CWD, CDQ, CQO.
template <class T>
void sign_into_data(Cpu& cpu, const Op* op) {
  constexpr unsigned kShift = 8 * sizeof(T) - 1;
  const auto sign = static_cast<std::make_signed_t<T>>(cpu.reg<T>(8 * x86::kRax)) >> kShift;
  cpu.set_reg<T>(8 * x86::kRdx, static_cast<T>(sign));
  KITE_NEXT(cpu, op);
}

template <class T>
inline T swap_bytes(T value) {
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
  return value;
}
template <class T>
void load_swapped(Cpu& cpu, const Op* op) {
  T value;
  if (!load_operand<T, Place::kGeneral>(cpu, op, value)) KITE_FAULT(cpu, op);
  cpu.set_reg<T>(op->dst, swap_bytes(value));
  KITE_NEXT(cpu, op);
}
template <class T>
void store_swapped(Cpu& cpu, const Op* op) {
  if (!store_operand<T, Place::kGeneral>(cpu, op, swap_bytes(cpu.reg<T>(op->src)))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

Handler move_swapped(const Binding& b) {
  const bool store = is_memory(b.insn.operand[0]);
  return by_wide_width(b.insn.operand[0].size,
                       [&]<class T>() -> Handler { return store ? store_swapped<T> : load_swapped<T>; });
}

Handler widening(unsigned operand_size) {
  if (operand_size == 2) return widen_accumulator<uint16_t, int8_t>;
  return operand_size == 4 ? widen_accumulator<uint32_t, int16_t> : widen_accumulator<uint64_t, int32_t>;
}
Handler sign_spreading(unsigned operand_size) {
  if (operand_size == 2) return sign_into_data<uint16_t>;
  return operand_size == 4 ? sign_into_data<uint32_t> : sign_into_data<uint64_t>;
}

}  // namespace

Handler move_handler(const Binding& b) {
  switch (b.insn.op) {
    case Code::kMov:
    case Code::kMovnti:
    case Code::kMovdiri: return move(b);
    case Code::kMovzx: return extension<false>(b);
    case Code::kMovsx:
    case Code::kMovsxd: return extension<true>(b);
    case Code::kLea: return load_address_of(b);
    case Code::kCmov: return conditional_move(b);
    case Code::kSet: return set_on_condition(b);
    case Code::kXlat: return translate;
    case Code::kCbw: return widening(b.op.operand_size);
    case Code::kCwd: return sign_spreading(b.op.operand_size);
    case Code::kMovbe: return move_swapped(b);
    default: return nullptr;
  }
}

}  // namespace kite::cpu
