// BMI1, BMI2 and ADX, CRC32, LAHF and SAHF.
#include "accel/jit/emitter.h"

namespace kite::jit {

using Code = x86::Op;
using x86::Operand;

namespace {

constexpr auto kAccumulator = static_cast<Reg>(kHost[x86::kRax]);

}  // namespace

BlockEmitter::Outcome BlockEmitter::bit_fields() {
  switch (insn().op) {
    case Code::kAndn:
    case Code::kBextr:
    case Code::kBlsi:
    case Code::kBlsmsk:
    case Code::kBlsr:
    case Code::kBzhi: return bmi(true);
    case Code::kPdep:
    case Code::kPext:
    case Code::kRorx:
    case Code::kSarx:
    case Code::kShlx:
    case Code::kShrx: return bmi(false);
    case Code::kMulx: return multiply_without_flags();
    case Code::kAdcx: return add_with_one_flag(0x66);
    case Code::kAdox: return add_with_one_flag(0xf3);
    case Code::kCrc32: return checksum();
    case Code::kLahf: return load_ah();
    case Code::kSahf: return store_ah();
    default: return Outcome::kInterpret;
  }
}

// The first operand is written, in ModRM.reg or VEX.vvvv; the others are read.
BlockEmitter::Outcome BlockEmitter::bmi(bool makes_flags) {
  const x86::Insn& i = insn();
  const Operand *reg = nullptr, *rm = nullptr, *vvvv = nullptr;
  for (const Operand& o : i.operand) {
    if (is_memory(o) || o.field == x86::Field::kRm)
      rm = &o;
    else if (o.field == x86::Field::kReg)
      reg = &o;
    else if (o.field == x86::Field::kVvvv)
      vvvv = &o;
  }
  if (!i.vex || rm == nullptr || (is_memory(*rm) && !memory_allowed())) return Outcome::kInterpret;
  Place place;
  if (is_memory(*rm)) place = look_up(rm->size, false);
  const Operand& written = i.operand[0];
  const auto number = [&](const Operand& o, Reg scratch) {
    return &o == &written ? target(o.reg, scratch) : use(o.reg, scratch);
  };
  const Assembler::Vex vex{.map = i.map, .prefix = i.mandatory_prefix, .opcode = i.opcode, .w = i.rex_w};
  const unsigned reg_number = reg != nullptr ? number(*reg, kRax) : (i.modrm >> 3) & 7u;
  const unsigned vvvv_number = vvvv != nullptr ? number(*vvvv, reg != nullptr ? kR11 : kRax) : 0;
  if (is_memory(*rm))
    a_.vex_rm(vex, reg_number, vvvv_number, place.mem);
  else
    a_.vex_rr(vex, reg_number, vvvv_number, use(rm->reg, kR10));
  if (i.op == Code::kRorx) a_.byte(static_cast<uint8_t>(i.imm));
  put(written.reg, target(written.reg, kRax));
  if (makes_flags) flags_made();
  return Outcome::kDone;
}

// MULX: the high half to ModRM.reg, the low one to VEX.vvvv; where both are one register, it has the high half.
BlockEmitter::Outcome BlockEmitter::multiply_without_flags() {
  const x86::Insn& i = insn();
  const Operand &high = i.operand[0], &low = i.operand[1], &from = i.operand[2];
  if (is_memory(from) && !memory_allowed()) return Outcome::kInterpret;
  const Assembler::Vex vex{.map = i.map, .prefix = i.mandatory_prefix, .opcode = i.opcode, .w = i.rex_w};
  const Reg high_target = target(high.reg, kRax), low_target = target(low.reg, kR11);
  if (is_memory(from)) {
    const Place place = look_up(from.size, false);
    a_.vex_rm(vex, high_target, low_target, place.mem);
  } else {
    a_.vex_rr(vex, high_target, low_target, use(from.reg, kR10));
  }
  put(low.reg, low_target);
  put(high.reg, high_target);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::add_with_one_flag(uint8_t prefix) {
  static const bool host_has = __builtin_cpu_supports("adx") != 0;
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  if (!host_has || (is_memory(from) && !memory_allowed())) return Outcome::kInterpret;
  constexpr uint32_t kOpcode = 0x0f38f6;
  Reg target;
  if (is_memory(from)) {
    const Place place = look_up(to.size, false);
    load_flags();
    target = use(to.reg, kRax);
    a_.rm(to.size, kOpcode, target, place.mem, prefix);
  } else {
    load_flags();
    target = use(to.reg, kR10);
    a_.rr(to.size, kOpcode, target, use(from.reg, kR11), prefix);
  }
  put(to.reg, target);
  flags_made();
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::checksum() {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  if (is_memory(from) && !memory_allowed()) return Outcome::kInterpret;
  constexpr uint8_t kPrefix = 0xf2;
  const uint32_t opcode = from.size == 1 ? 0x0f38f0 : 0x0f38f1;
  const unsigned size = from.size == 1 ? 4 : from.size;
  Reg target;
  if (is_memory(from)) {
    const Place place = look_up(from.size, false);
    target = use(to.reg, kRax);
    a_.rm(size, opcode, target, place.mem, kPrefix);
  } else {
    const Reg source = use(from, kR11);
    target = use(to.reg, kR10);
    a_.rr(size, opcode, target, source, kPrefix, false, from.size == 1);
  }
  put(to.reg, target);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::load_ah() {
  constexpr Operand kAh{.kind = x86::OperandKind::kGpr, .size = 1, .reg = x86::kRax, .high_byte = true};
  constexpr unsigned kHostAh = 4;
  load_flags();
  a_.byte(0x9f);
  a_.rr(1, 0x88, kHostAh, begin_high_byte(kAh));  // mov
  end_high_byte(kAh);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::store_ah() {
  load_flags();
  a_.mov(8, kRax, kAccumulator);
  a_.byte(0x9e);
  flags_made();
  return Outcome::kDone;
}

}  // namespace kite::jit
