// SSE, AVX and MMX instructions, issued on the host's units on the guest's registers, which are loaded when a block
// first needs them and stay there from block to block. MXCSR is the guest's then, with all exceptions masked; others
// are the interpreter's.
#include <algorithm>

#include "accel/jit/emitter.h"
#include "cpu/avx.h"
#include "cpu/fpu.h"

namespace kite::jit {

using Code = x86::Op;
using cpu::RegisterFile;
using cpu::TranslationArea;
using x86::Operand;
using x86::OperandKind;

namespace {

constexpr auto kAccumulator = static_cast<Reg>(kHost[x86::kRax]);
static_assert(kHost[x86::kRdx] == kRdx && kHost[x86::kRcx] == kRcx);

bool is_vector(const Operand& o) { return o.kind == OperandKind::kXmm || o.kind == OperandKind::kYmm; }

}  // namespace

void BlockEmitter::need_vectors() {
  if ((units_ & TranslationArea::kVectors) != 0) return;
  save_flags();
  a_.alu_imm(4, 7, in_cpu(layout_.units), 0);
  uint8_t* const jump = a_.jcc(Condition::kE);
  flags_lost();
  units_ |= TranslationArea::kVectors;
  detours_.push_back({.kind = Detour::Kind::kLoad, .jump = jump, .resume = a_.here(), .units = units_});
}

// VEX-encoded, as it is with other registers.
BlockEmitter::Outcome BlockEmitter::wide_vectors() {
  const x86::Insn& i = insn();
  const cpu::AvxShape shape = cpu::avx_shape(i);
  const Operand *reg = nullptr, *rm = nullptr, *vvvv = nullptr;
  bool immediate = false;
  auto immediate_byte = static_cast<uint8_t>(i.imm);
  for (const Operand& o : i.operand) {
    if (o.kind == OperandKind::kNone) continue;
    if (o.kind != OperandKind::kGpr && !is_vector(o) && !is_memory(o) && !is_immediate(o)) return Outcome::kInterpret;
    immediate |= is_immediate(o) || o.field == x86::Field::kIs4;
    // Outside of 64-bit mode the highest bit of the register's number is ignored (SDM 2A 2.3.6.2); the host's is not.
    if (o.field == x86::Field::kIs4) immediate_byte = static_cast<uint8_t>((i.imm & 15) | unsigned{o.reg} << 4);
    if (is_memory(o) || o.field == x86::Field::kRm)
      rm = &o;
    else if (o.field == x86::Field::kReg)
      reg = &o;
    else if (o.field == x86::Field::kVvvv)
      vvvv = &o;
    else if (o.field != x86::Field::kIs4 && !is_immediate(o))
      return Outcome::kInterpret;
  }
  if (rm == nullptr || (vvvv != nullptr && is_register(*vvvv))) return Outcome::kInterpret;
  const bool memory = is_memory(*rm);
  if (memory && (!memory_allowed() || rm->size == 0)) return Outcome::kInterpret;
  const Operand* const written = shape.flags || shape.string_compare ? nullptr : &i.operand[0];

  need_vectors();
  Place place;
  if (memory) place = look_up(rm->size, i.mem_write, false, i.mem_align);
  const auto number = [&](const Operand& o) -> unsigned {
    if (!is_register(o)) return o.reg;
    return &o == written ? target(o.reg, kRax) : use(o.reg, kRax);
  };
  const Assembler::Vex vex{
      .map = i.map, .prefix = i.mandatory_prefix, .opcode = i.opcode, .w = i.rex_w, .l = i.vector_bytes == 32};
  const unsigned reg_number = reg != nullptr ? number(*reg) : (i.modrm >> 3) & 7u;
  const unsigned vvvv_number = vvvv != nullptr ? vvvv->reg : 0;
  if (shape.string_compare) a_.mov(8, kRax, kAccumulator);  // the length of an explicit string
  if (memory)
    a_.vex_rm(vex, reg_number, vvvv_number, place.mem);
  else
    a_.vex_rr(vex, reg_number, vvvv_number, number(*rm));
  if (immediate) a_.byte(immediate_byte);

  if (shape.flags || shape.string_compare)
    flags_made();
  else if (memory && i.mem_write)
    stored(place);
  else if (written != nullptr && is_register(*written))
    put(written->reg, target(written->reg, kRax));
  return Outcome::kDone;
}

// VZEROUPPER and VZEROALL. Outside of 64-bit mode they leave YMM8 to YMM15 alone.
BlockEmitter::Outcome BlockEmitter::clear_vectors() {
  if (!wide_) return Outcome::kInterpret;
  need_vectors();
  a_.byte(0xc5);
  a_.byte(insn().op == Code::kVzeroall ? 0xfc : 0xf8);
  a_.byte(0x77);
  return Outcome::kDone;
}

// Values with all exceptions masked and no reserved bit.
BlockEmitter::Outcome BlockEmitter::load_mxcsr() {
  if (insn().vex || !memory_allowed()) return Outcome::kInterpret;
  need_vectors();
  const Place place = look_up(4, false);
  constexpr uint32_t kSettable = 0xe07f, kMasks = 0x1f80;
  a_.load(4, kRax, place.mem);
  a_.alu_imm(4, 4, kRax, ~kSettable);
  a_.alu_imm(4, 7, kRax, kMasks);
  miss(a_.jcc(Condition::kNe));
  a_.rm(4, 0x0fae, 2, place.mem);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::store_mxcsr() {
  if (insn().vex || !memory_allowed()) return Outcome::kInterpret;
  need_vectors();
  const Place place = look_up(4, true);
  a_.rm(4, 0x0fae, 3, place.mem);
  stored(place);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::vectors() {
  const x86::Insn& i = insn();
  const bool sse = (block_.mode_key & cpu::mode::kSse) != 0, avx = (block_.mode_key & cpu::mode::kAvx) != 0;
  switch (i.op) {
    case Code::kAvx:
    case Code::kVmaskmov: return avx ? wide_vectors() : Outcome::kInterpret;
    case Code::kVzeroupper:
    case Code::kVzeroall: return avx ? clear_vectors() : Outcome::kInterpret;
    case Code::kLdmxcsr: return sse ? load_mxcsr() : Outcome::kInterpret;
    case Code::kStmxcsr: return sse ? store_mxcsr() : Outcome::kInterpret;
    case Code::kSse:
    case Code::kMmx: return sse ? narrow_vectors() : Outcome::kInterpret;
    default: return Outcome::kInterpret;
  }
}

// Without VEX.
BlockEmitter::Outcome BlockEmitter::narrow_vectors() {
  const x86::Insn& i = insn();
  const cpu::UnitShape shape = cpu::unit_shape(i);
  const auto of = [&](bool rm) -> const Operand& { return i.operand[rm == shape.rm_is_destination ? 0 : 1]; };
  const Operand &reg = of(false), &rm = of(true);
  const bool is_group = shape.reg == RegisterFile::kNone;  // ModRM.reg is part of the opcode
  const bool memory = shape.rm == RegisterFile::kMemory;
  const bool mmx = i.op == Code::kMmx || shape.reg == RegisterFile::kMmx || shape.rm == RegisterFile::kMmx;
  if (memory && (!memory_allowed() || rm.size == 0)) return Outcome::kInterpret;
  if (shape.rm == RegisterFile::kNone || shape.reg == RegisterFile::kMemory) return Outcome::kInterpret;

  if (mmx)
    need_x87();
  else
    need_vectors();
  Place place;
  if (memory) place = look_up(rm.size, i.mem_write, false, i.mem_align);
  unsigned reg_number = (i.modrm >> 3) & 7, rm_number = 0;
  // A general register is read by what moves it into a vector, and written by the rest.
  if (!is_group)
    reg_number = shape.reg != RegisterFile::kGpr ? reg.reg
                 : shape.rm_is_destination       ? use(reg.reg, kRax)
                                                 : target(reg.reg, kRax);
  if (!memory)
    rm_number = shape.rm != RegisterFile::kGpr ? rm.reg
                : shape.rm_is_destination      ? target(rm.reg, kRax)
                                               : use(rm.reg, kRax);

  if (shape.string_compare) a_.mov(8, kRax, kAccumulator);  // the length of an explicit string
  const uint32_t opcode = (i.map == 1 ? 0x0f00u : i.map == 2 ? 0x0f3800u : 0x0f3a00u) | i.opcode;
  const unsigned size = i.rex_w ? 8 : 4;
  if (memory)
    a_.rm(size, opcode, reg_number, place.mem, i.mandatory_prefix);
  else
    a_.rr(size, opcode, reg_number, rm_number, i.mandatory_prefix);
  if (std::ranges::any_of(i.operand, is_immediate)) a_.byte(static_cast<uint8_t>(i.imm));

  if (shape.flags || shape.string_compare) {
    flags_made();
  } else if (memory && i.mem_write) {
    stored(place);
  } else {
    const bool to_rm = shape.rm_is_destination || is_group;
    if ((to_rm ? shape.rm : shape.reg) == RegisterFile::kGpr)
      put(to_rm ? rm.reg : reg.reg, static_cast<Reg>(to_rm ? rm_number : reg_number));
  }
  return Outcome::kDone;
}

}  // namespace kite::jit
