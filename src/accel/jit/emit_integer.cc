// Arithmetic, logic, shifts, multiplication and division, bits.
#include "accel/jit/emitter.h"

namespace kite::jit {

using Code = x86::Op;
using x86::Operand;

namespace {

constexpr uint8_t kRep = 0xf3;
constexpr unsigned kAdc = 2, kSbb = 3, kSub = 5, kXor = 6, kCmp = 7;  // operations as the opcodes number them
constexpr auto kAccumulator = static_cast<Reg>(kHost[x86::kRax]);
static_assert(kHost[x86::kRdx] == kRdx && kHost[x86::kRcx] == kRcx);

}  // namespace

BlockEmitter::Recipe::Kind BlockEmitter::recipe_kind(unsigned operation) {
  using Kind = Recipe::Kind;
  static constexpr Kind kKinds[] = {Kind::kAdd,   Kind::kLogic, Kind::kNone,  Kind::kNone,
                                    Kind::kLogic, Kind::kSub,   Kind::kLogic, Kind::kCompare};
  return kKinds[operation];
}

BlockEmitter::Outcome BlockEmitter::integer() {
  switch (insn().op) {
    case Code::kAdd: return binary(0);
    case Code::kOr: return binary(1);
    case Code::kAdc: return binary(kAdc);
    case Code::kSbb: return binary(kSbb);
    case Code::kAnd: return binary(4);
    case Code::kSub: return binary(5);
    case Code::kXor: return binary(6);
    case Code::kCmp: return binary(kCmp);
    case Code::kTest: return test();
    case Code::kInc: return count(true);
    case Code::kDec: return count(false);
    case Code::kNot: return unary(0xf7, 2, false);
    case Code::kNeg: return unary(0xf7, 3, true);
    case Code::kRol: return shift(0);
    case Code::kRor: return shift(1);
    case Code::kRcl: return shift(2);
    case Code::kRcr: return shift(3);
    case Code::kShl: return shift(4);
    case Code::kShr: return shift(5);
    case Code::kSar: return shift(7);
    case Code::kShld: return shift_double(0x0fa4);
    case Code::kShrd: return shift_double(0x0fac);
    case Code::kImul2:
    case Code::kImul3: return multiply_two();
    case Code::kMul: return multiply_wide(4);
    case Code::kImul1: return multiply_wide(5);
    case Code::kDiv: return divide(false);
    case Code::kIdiv: return divide(true);
    case Code::kBt: return bit_test(4);
    case Code::kBts: return bit_test(5);
    case Code::kBtr: return bit_test(6);
    case Code::kBtc: return bit_test(7);
    case Code::kBsf: return scan(0x0fbc, 0);
    case Code::kBsr: return scan(0x0fbd, 0);
    case Code::kTzcnt: return scan(0x0fbc, kRep);
    case Code::kLzcnt: return scan(0x0fbd, kRep);
    case Code::kPopcnt: return scan(0x0fb8, kRep);
    case Code::kClc: return set_carry(0xf8);
    case Code::kStc: return set_carry(0xf9);
    case Code::kCmc: return set_carry(0xf5);
    default: return Outcome::kInterpret;
  }
}

BlockEmitter::Outcome BlockEmitter::binary(unsigned operation) {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  const unsigned size = to.size;
  const bool needs_flags = operation == kAdc || operation == kSbb;
  const uint32_t byte = size == 1 ? 0 : 1;
  if (is_memory(to)) return binary_to_memory(operation);
  if (to.high_byte) return binary_to_high_byte(operation);
  Reg target;
  if (is_memory(from)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = needs_flags ? look_up(size, false) : look_up_source(size);
    if (needs_flags) load_flags();
    target = use(to.reg, kRax);
    a_.rm(size, operation << 3 | 2 | byte, target, place.mem, 0, size == 1);
  } else if (is_immediate(from)) {
    if (needs_flags) load_flags();
    target = read(to.reg);
    a_.alu_imm(size, operation, target, static_cast<uint32_t>(insn().imm));
    keep_copies();
  } else {
    if (needs_flags) load_flags();
    const bool clears = (operation == kXor || operation == kSub) && from.reg == to.reg && !from.high_byte && size >= 4;
    target = clears ? fresh(to.reg) : read(to.reg);
    a_.rr(size, operation << 3 | byte, clears ? target : read(from), target, 0, size == 1, size == 1);
    keep_copies();
  }
  if (operation != kCmp) put(to.reg, target);
  flags_made_by(recipe_kind(operation));
  return Outcome::kDone;
}

// To AH, CH, DH or BH: with an immediate, or from AL.
BlockEmitter::Outcome BlockEmitter::binary_to_high_byte(unsigned operation) {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  const bool needs_flags = operation == kAdc || operation == kSbb;
  if (is_memory(from)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(1, false);
    if (needs_flags) load_flags();
    a_.rm(4, 0x0fb6, kRax, place.mem);  // movzx
  } else {
    if (needs_flags) load_flags();
    if (!is_immediate(from)) byte_to_al(from);
  }
  const unsigned high = begin_high_byte(to);
  if (is_immediate(from)) {
    a_.rr(1, 0x80, operation, high);
    a_.immediate(1, static_cast<uint32_t>(insn().imm));
  } else {
    a_.rr(1, operation << 3, kRax, high);
  }
  end_high_byte(to);
  flags_made();
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::binary_to_memory(unsigned operation) {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  const unsigned size = to.size;
  const uint8_t lock = lock_prefix();
  if (!memory_allowed()) return Outcome::kInterpret;
  const Place place = look_up(size, operation != kCmp);
  if (operation == kAdc || operation == kSbb) load_flags();
  if (is_immediate(from))
    a_.alu_imm(size, operation, place.mem, static_cast<uint32_t>(insn().imm), lock);
  else
    a_.rm(size, operation << 3 | (size == 1 ? 0u : 1u), use(from, kRax), place.mem, lock, size == 1);
  flags_made();
  if (operation != kCmp) stored(place);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::test() {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  const unsigned size = to.size;
  const uint32_t immediate_opcode = size == 1 ? 0xf6 : 0xf7, opcode = size == 1 ? 0x84 : 0x85;
  if (is_memory(to)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(size, false);
    if (is_immediate(from)) {
      a_.rm(size, immediate_opcode, 0, place.mem);
      a_.immediate(size, static_cast<uint32_t>(insn().imm));
    } else {
      a_.rm(size, opcode, use(from, kRax), place.mem, 0, size == 1);
    }
  } else if (to.high_byte) {
    if (!is_immediate(from)) byte_to_al(from);
    const unsigned high = begin_high_byte(to);
    if (is_immediate(from)) {
      a_.rr(1, immediate_opcode, 0, high);
      a_.immediate(1, static_cast<uint32_t>(insn().imm));
    } else {
      a_.rr(1, opcode, kRax, high);
    }
    end_high_byte(to);
  } else {
    const Reg target = read(to.reg);
    if (is_immediate(from)) {
      a_.rr(size, immediate_opcode, 0, target, 0, false, size == 1);
      a_.immediate(size, static_cast<uint32_t>(insn().imm));
    } else {
      a_.rr(size, opcode, read(from), target, 0, size == 1, size == 1);
    }
    keep_copies();
  }
  flags_made_by(Recipe::Kind::kTest);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::unary(uint32_t opcode, unsigned extension, bool makes_flags) {
  const Operand& to = insn().operand[0];
  const unsigned size = to.size;
  if (size == 1) --opcode;
  if (is_memory(to)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(size, true);
    a_.rm(size, opcode, extension, place.mem, lock_prefix());
    if (makes_flags) flags_made();
    stored(place);
    return Outcome::kDone;
  }
  if (to.high_byte) {
    a_.rr(1, opcode, extension, begin_high_byte(to));
    end_high_byte(to);
    if (makes_flags) flags_made();
    return Outcome::kDone;
  }
  const Reg target = read(to.reg);
  a_.rr(size, opcode, extension, target, 0, false, size == 1);
  put(to.reg, target);
  keep_copies();
  if (makes_flags) flags_made_by(Recipe::Kind::kNegate);
  return Outcome::kDone;
}

// INC and DEC, which keep the carry flag.
BlockEmitter::Outcome BlockEmitter::count(bool adds) {
  const Operand& to = insn().operand[0];
  const unsigned size = to.size, extension = adds ? 0 : 1;
  const uint32_t opcode = size == 1 ? 0xfe : 0xff;
  if (is_memory(to)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(size, true);
    load_flags();
    a_.rm(size, opcode, extension, place.mem, lock_prefix());
    flags_made();
    stored(place);
    return Outcome::kDone;
  }
  if (to.high_byte) {
    if (!carry_is_dead()) load_flags();
    a_.rr(1, opcode, extension, begin_high_byte(to));
    end_high_byte(to);
    flags_made();
    return Outcome::kDone;
  }
  begin_count();
  const Reg target = read(to.reg);
  a_.rr(size, opcode, extension, target, 0, false, size == 1);
  put(to.reg, target);
  keep_copies();
  end_count();
  return Outcome::kDone;
}

// A count of 0 leaves the flags, and rotates leave most of them.
BlockEmitter::Outcome BlockEmitter::shift(unsigned extension) {
  const Operand &to = insn().operand[0], &count = insn().operand[1];
  const unsigned size = to.size;
  const bool by_immediate = is_immediate(count);
  const auto by = static_cast<uint8_t>(insn().imm);
  const bool needs_flags = extension < 4 || !by_immediate || (by & (size == 8 ? 63 : 31)) == 0;
  const uint32_t opcode = (by_immediate ? 0xc0u : 0xd2u) | (size == 1 ? 0u : 1u);
  if (is_memory(to)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(size, true);
    if (needs_flags) load_flags();
    a_.rm(size, opcode, extension, place.mem);
    if (by_immediate) a_.byte(by);
    flags_made();
    stored(place);
    return Outcome::kDone;
  }
  if (needs_flags) load_flags();
  if (to.high_byte) {
    a_.rr(1, opcode, extension, begin_high_byte(to));
    if (by_immediate) a_.byte(by);
    end_high_byte(to);
    flags_made();
    return Outcome::kDone;
  }
  const Reg target = read(to.reg);
  a_.rr(size, opcode, extension, target, 0, false, size == 1);
  if (by_immediate) a_.byte(by);
  put(to.reg, target);
  keep_copies();
  flags_made();
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::shift_double(uint32_t opcode) {
  const Operand &to = insn().operand[0], &from = insn().operand[1], &count = insn().operand[2];
  if (!is_register(to)) return Outcome::kInterpret;
  const bool by_immediate = is_immediate(count);
  load_flags();
  const Reg target = use(to.reg, kR10);
  a_.rr(to.size, opcode | (by_immediate ? 0u : 1u), use(from.reg, kR11), target);
  if (by_immediate) a_.byte(static_cast<uint8_t>(insn().imm));
  put(to.reg, target);
  flags_made();
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::multiply_two() {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  const unsigned size = to.size;
  const bool by_immediate = insn().op == Code::kImul3;
  const uint32_t opcode = by_immediate ? 0x69 : 0x0faf;
  const bool overwrites = by_immediate && size != 2;
  Reg target;
  if (is_memory(from)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(size, false);
    target = overwrites ? BlockEmitter::target(to.reg, kRax) : use(to.reg, kRax);
    a_.rm(size, opcode, target, place.mem);
  } else {
    const Reg source = read(from.reg);
    target = overwrites ? fresh(to.reg) : read(to.reg);
    a_.rr(size, opcode, target, source);
    keep_copies();
  }
  if (by_immediate) a_.immediate(size, static_cast<uint32_t>(insn().imm));
  put(to.reg, target);
  flags_made();
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::multiply_wide(unsigned extension) {
  const Operand& from = insn().operand[0];
  const unsigned size = from.size;
  const uint32_t opcode = size == 1 ? 0xf6 : 0xf7;
  if (is_memory(from)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(size, false);
    a_.mov(8, kRax, kAccumulator);
    a_.rm(size, opcode, extension, place.mem);
  } else {
    if (from.high_byte) return Outcome::kInterpret;
    const Reg source = use(from.reg, kR10);
    a_.mov(8, kRax, kAccumulator);
    a_.rr(size, opcode, extension, source, 0, false, size == 1);
  }
  a_.mov(8, kAccumulator, kRax);
  flags_made();
  return Outcome::kDone;
}

// What the host's instruction would not fault on; the rest is the interpreter's.
BlockEmitter::Outcome BlockEmitter::divide(bool is_signed) {
  const Operand& by = insn().operand[0];
  const unsigned size = by.size;
  if (size == 1) return is_signed ? Outcome::kInterpret : divide_byte();
  Reg divisor;
  if (is_memory(by)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(size, false);
    a_.load(size, kR10, place.mem);
    divisor = kR10;
  } else {
    save_flags();
    divisor = use(by.reg, kR10);
  }
  if (is_signed) {
    // The dividend is as narrow as the divisor, which is neither 0 nor -1.
    a_.mov(size, kRax, kAccumulator);
    a_.shift_imm(size, 7, kRax, static_cast<uint8_t>(size * 8 - 1));
    a_.rr(size, 0x39, kRax, kRdx);  // cmp
    miss(a_.jcc(Condition::kNe));
    a_.lea(size, kRax, at(divisor, 1));
    a_.alu_imm(size, 7, kRax, 1);
    miss(a_.jcc(Condition::kBe));
  } else {
    a_.rr(size, 0x39, divisor, kRdx);  // cmp
    miss(a_.jcc(Condition::kAe));
  }
  load_flags();
  a_.mov(8, kRax, kAccumulator);
  a_.rr(size, 0xf7, is_signed ? 7 : 6, divisor);
  a_.mov(8, kAccumulator, kRax);
  flags_made();
  return Outcome::kDone;
}

// AX by a byte, whose quotient must fit.
BlockEmitter::Outcome BlockEmitter::divide_byte() {
  const Operand& by = insn().operand[0];
  if (is_memory(by)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(1, false);
    a_.rm(4, 0x0fb6, kR10, place.mem);  // movzx
  } else {
    save_flags();
    a_.rr(4, 0x0fb6, kR10, use(by, kR10), 0, false, true);
  }
  a_.rr(4, 0x0fb7, kRax, kAccumulator);  // movzx
  a_.shift_imm(4, 5, kRax, 8);
  a_.rr(4, 0x39, kR10, kRax);  // cmp
  miss(a_.jcc(Condition::kAe));
  load_flags();
  a_.mov(8, kRax, kAccumulator);
  a_.rr(1, 0xf6, 6, kR10);
  a_.mov(8, kAccumulator, kRax);
  flags_made();
  return Outcome::kDone;
}

// Where the bit is, a register says: anywhere in memory.
BlockEmitter::Outcome BlockEmitter::bit_string(unsigned extension) {
  const Operand &to = insn().operand[0], &bit = insn().operand[1];
  const unsigned size = to.size;
  if (!memory_allowed() || op().address_size != pointer_bytes_) return Outcome::kInterpret;
  const uint8_t log = size == 8 ? 3 : size == 4 ? 2 : 1;
  save_flags();
  linear_to_r10();
  const Reg number = use(bit.reg, kR11);
  if (size == 8)
    a_.mov(8, kRax, number);
  else
    a_.rr(8, size == 4 ? 0x63 : 0x0fbf, kRax, number);  // movsx
  a_.shift_imm(8, 7, kRax, static_cast<uint8_t>(log + 3));
  a_.lea(op().address_size, kR10, at(kR10, kRax, log));
  const Place place = look_up_r10({.bytes = size, .write = extension != 4}, {});
  if (in_host(bit.reg))
    a_.mov(4, kRax, static_cast<Reg>(kHost[bit.reg]));
  else
    a_.load(4, kRax, layout_.slot(bit.reg));
  a_.alu_imm(4, 4, kRax, size * 8 - 1);
  a_.store(4, in_cpu(layout_.spare), kRax);
  load_flags();
  a_.load(4, kRax, in_cpu(layout_.spare));
  a_.rm(size, 0x0f83 | extension << 3, kRax, place.mem, lock_prefix());
  flags_made();
  if (extension != 4) stored(place);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::bit_test(unsigned extension) {
  const Operand &to = insn().operand[0], &bit = insn().operand[1];
  const bool by_immediate = is_immediate(bit);
  const uint32_t opcode = by_immediate ? 0x0fba : 0x0f83 | extension << 3;
  if (is_memory(to)) {
    if (!by_immediate) return bit_string(extension);
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(to.size, extension != 4);
    load_flags();
    a_.rm(to.size, opcode, extension, place.mem, lock_prefix());
    a_.byte(static_cast<uint8_t>(insn().imm));
    flags_made();
    if (extension != 4) stored(place);
    return Outcome::kDone;
  }
  load_flags();
  const Reg target = use(to.reg, kR10);
  if (by_immediate) {
    a_.rr(to.size, opcode, extension, target);
    a_.byte(static_cast<uint8_t>(insn().imm));
  } else {
    a_.rr(to.size, opcode, use(bit.reg, kR11), target);
  }
  if (extension != 4) put(to.reg, target);
  flags_made();
  return Outcome::kDone;
}

// The destination of BSF and BSR is kept when there is nothing to find, and with it its upper half.
BlockEmitter::Outcome BlockEmitter::scan(uint32_t opcode, uint8_t prefix) {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  Reg target;
  if (is_memory(from)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(to.size, false);
    load_flags();
    target = use(to.reg, kRax);
    a_.rm(to.size, opcode, target, place.mem, prefix);
  } else {
    load_flags();
    target = use(to.reg, kR10);
    a_.rr(to.size, opcode, target, use(from.reg, kR11), prefix);
  }
  put(to.reg, target);
  flags_made();
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::set_carry(uint8_t opcode) {
  load_flags();
  a_.byte(opcode);
  flags_made();
  return Outcome::kDone;
}

}  // namespace kite::jit
