// SSE instructions, issued on the host's unit. A guest's XMM register is the host's of the same number for as long as a
// block uses it: loaded when first used, stored before anything that may leave the block. MXCSR is the guest's while
// translated code runs, with all exceptions masked; others are the interpreter's.
#include <algorithm>

#include "accel/jit/emitter.h"
#include "cpu/avx.h"
#include "cpu/fpu.h"

namespace kite::jit {

using cpu::RegisterFile;
using x86::Operand;
using x86::OperandKind;

namespace {

constexpr uint32_t kStoreAligned = 0x0f29, kLoadAligned = 0x0f28;                                  // MOVAPS
constexpr Assembler::Vex kVexStore{.map = 1, .opcode = 0x29}, kVexLoad{.map = 1, .opcode = 0x28},  // VMOVAPS
    kExtractHigh{.map = 3, .prefix = 0x66, .opcode = 0x19, .l = true},                             // VEXTRACTF128
    kInsertHigh{.map = 3, .prefix = 0x66, .opcode = 0x18, .l = true},                              // VINSERTF128
    kVexXor{.map = 1, .opcode = 0x57};                                                             // VXORPS

}  // namespace

void BlockEmitter::store_vectors(Assembler& a, uint16_t which) const {
  for (unsigned n = 0; n < 16; ++n) {
    if ((which >> n & 1) == 0) continue;
    if (high_halves_) {
      a.vex_rm(kVexStore, n, 0, layout_.vector(n));
      a.vex_rm(kExtractHigh, n, 0, layout_.high_half(n));
      a.byte(1);
    } else {
      a.rm(4, kStoreAligned, n, layout_.vector(n));
    }
  }
}

void BlockEmitter::load_vectors(Assembler& a, uint16_t which) const {
  for (unsigned n = 0; n < 16; ++n) {
    if ((which >> n & 1) == 0) continue;
    if (high_halves_) {
      a.vex_rm(kVexLoad, n, 0, layout_.vector(n));
      a.vex_rm(kInsertHigh, n, n, layout_.high_half(n));
      a.byte(1);
    } else {
      a.rm(4, kLoadAligned, n, layout_.vector(n));
    }
  }
}

void BlockEmitter::write_back_vectors() {
  store_vectors(a_, vectors_changed_);
  vectors_changed_ = 0;
}

void BlockEmitter::use_vector(unsigned number) {
  const auto bit = static_cast<uint16_t>(1u << number);
  if ((vectors_ & bit) == 0) load_vectors(a_, bit);
  vectors_ |= bit;
}

// One whose old value does not matter.
void BlockEmitter::make_vector(unsigned number) {
  const auto bit = static_cast<uint16_t>(1u << number);
  vectors_ |= bit;
  vectors_changed_ |= bit;
}

// Whether the whole of the destination register is written, whatever was in it.
bool BlockEmitter::only_writes_register() const {
  if (insn().map != 1) return false;
  const bool memory = insn().has_mem;
  switch (insn().opcode) {
    case 0x10:  // MOVUPS, MOVUPD; MOVSS, MOVSD from memory
      return memory || insn().mandatory_prefix == 0 || insn().mandatory_prefix == 0x66;
    case 0x28:
    case 0x6e:
    case 0x6f:
    case 0x70: return true;
    case 0x7e: return insn().mandatory_prefix == 0xf3;
    case 0x5a:
    case 0x5b:
    case 0xe6: return insn().mandatory_prefix == 0 || insn().mandatory_prefix == 0x66;
    default: return false;
  }
}

// VZEROUPPER.
BlockEmitter::Outcome BlockEmitter::clear_high_halves() {
  write_back_vectors();
  vectors_ = 0;
  a_.vex_rr(kVexXor, 0, 0, 0);
  const unsigned count = wide_ ? 16 : 8;
  for (unsigned n = 0; n < count; ++n) a_.vex_rm(kVexStore, 0, 0, layout_.high_half(n));
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::wide_vectors() {
  const x86::Insn& i = insn();
  const cpu::AvxShape shape = cpu::avx_shape(i);
  if (shape.string_compare) return Outcome::kInterpret;
  const Operand *reg = nullptr, *rm = nullptr, *vvvv = nullptr;
  bool immediate = false;
  auto immediate_byte = static_cast<uint8_t>(i.imm);
  for (const Operand& o : i.operand) {
    if (o.kind == OperandKind::kNone) continue;
    if (o.kind != OperandKind::kGpr && o.kind != OperandKind::kXmm && o.kind != OperandKind::kYmm &&
        o.kind != OperandKind::kMem && o.kind != OperandKind::kImm)
      return Outcome::kInterpret;
    immediate |= o.kind == OperandKind::kImm || o.field == x86::Field::kIs4;
    // Outside of 64-bit mode the highest bit of the register's number is ignored (SDM 2A 2.3.6.2); the host's is not.
    if (o.field == x86::Field::kIs4) immediate_byte = static_cast<uint8_t>((i.imm & 15) | unsigned{o.reg} << 4);
    if (o.kind == OperandKind::kMem || o.field == x86::Field::kRm)
      rm = &o;
    else if (o.field == x86::Field::kReg)
      reg = &o;
    else if (o.field == x86::Field::kVvvv)
      vvvv = &o;
    else if (o.field != x86::Field::kIs4 && o.kind != OperandKind::kImm)
      return Outcome::kInterpret;
  }
  if (rm == nullptr || (vvvv != nullptr && vvvv->kind == OperandKind::kGpr)) return Outcome::kInterpret;
  const bool memory = rm->kind == OperandKind::kMem;
  if (memory && (!memory_allowed() || rm->size == 0)) return Outcome::kInterpret;
  const Operand* const written = shape.flags ? nullptr : &i.operand[0];
  const auto is_vector = [](const Operand& o) { return o.kind == OperandKind::kXmm || o.kind == OperandKind::kYmm; };

  Place place;
  if (memory) place = look_up(rm->size, i.mem_write, false, i.mem_align);
  for (const Operand& o : i.operand)
    if (is_vector(o) && (&o != written || shape.reads_first)) use_vector(o.reg);
  const auto number = [&](const Operand& o) -> unsigned {
    if (o.kind != OperandKind::kGpr) return o.reg;
    return &o == written ? target(o.reg, kRax) : use(o.reg, kRax);
  };
  const Assembler::Vex vex{
      .map = i.map, .prefix = i.mandatory_prefix, .opcode = i.opcode, .w = i.rex_w, .l = i.vector_bytes == 32};
  const unsigned reg_number = reg != nullptr ? number(*reg) : (i.modrm >> 3) & 7u;
  const unsigned vvvv_number = vvvv != nullptr ? vvvv->reg : 0;
  if (memory)
    a_.vex_rm(vex, reg_number, vvvv_number, place.mem);
  else
    a_.vex_rr(vex, reg_number, vvvv_number, number(*rm));
  if (immediate) a_.byte(immediate_byte);

  if (shape.flags) {
    flags_made();
  } else if (memory && i.mem_write) {
    stored(place);
  } else if (written != nullptr) {
    if (is_vector(*written))
      make_vector(written->reg);
    else
      put(written->reg, target(written->reg, kRax));
  }
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::vectors() {
  const x86::Insn& i = insn();
  if (high_halves_ && i.op == x86::Op::kAvx) return wide_vectors();
  if (high_halves_ && i.op == x86::Op::kVzeroupper) return clear_high_halves();
  if (i.op != x86::Op::kSse || (block_.mode_key & cpu::mode::kSse) == 0) return Outcome::kInterpret;
  const cpu::UnitShape shape = cpu::unit_shape(i);
  if (shape.string_compare || shape.reg == RegisterFile::kMmx || shape.rm == RegisterFile::kMmx)
    return Outcome::kInterpret;
  const auto of = [&](bool rm) -> const Operand& { return i.operand[rm == shape.rm_is_destination ? 0 : 1]; };
  const Operand &reg = of(false), &rm = of(true);
  const bool is_group = shape.reg == RegisterFile::kNone;  // ModRM.reg is part of the opcode
  const bool memory = shape.rm == RegisterFile::kMemory;
  if (memory && (!memory_allowed() || rm.size == 0)) return Outcome::kInterpret;
  if (!is_group && shape.reg != RegisterFile::kGpr && shape.reg != RegisterFile::kXmm) return Outcome::kInterpret;
  if (shape.rm == RegisterFile::kNone) return Outcome::kInterpret;

  if (shape.implicit_xmm0) use_vector(0);
  Place place;
  if (memory) place = look_up(rm.size, i.mem_write, false, i.mem_align);
  unsigned reg_number = (i.modrm >> 3) & 7, rm_number = 0;
  // Without VEX the high half of a YMM register stays as it is.
  const bool reg_is_read = high_halves_ || is_group || shape.rm_is_destination || !only_writes_register();
  if (!is_group && shape.reg == RegisterFile::kXmm) {
    reg_number = reg.reg;
    if (reg_is_read) use_vector(reg_number);
  } else if (!is_group) {
    // A general register is read by what moves it into a vector, and written by the rest.
    reg_number = shape.rm_is_destination ? use(reg.reg, kRax) : target(reg.reg, kRax);
  }
  if (shape.rm == RegisterFile::kXmm) {
    rm_number = rm.reg;
    use_vector(rm_number);
  } else if (shape.rm == RegisterFile::kGpr) {
    rm_number = shape.rm_is_destination ? target(rm.reg, kRax) : use(rm.reg, kRax);
  }

  const uint32_t opcode = (i.map == 1 ? 0x0f00u : i.map == 2 ? 0x0f3800u : 0x0f3a00u) | i.opcode;
  const unsigned size = i.rex_w ? 8 : 4;
  if (memory)
    a_.rm(size, opcode, reg_number, place.mem, i.mandatory_prefix);
  else
    a_.rr(size, opcode, reg_number, rm_number, i.mandatory_prefix);
  if (std::ranges::any_of(i.operand, [](const Operand& o) { return o.kind == OperandKind::kImm; }))
    a_.byte(static_cast<uint8_t>(i.imm));

  if (shape.flags) {
    flags_made();
  } else if (memory && i.mem_write) {
    stored(place);
  } else {
    const bool to_rm = shape.rm_is_destination || is_group;
    const RegisterFile file = to_rm ? shape.rm : shape.reg;
    if (file == RegisterFile::kXmm)
      make_vector(to_rm ? rm_number : reg_number);
    else if (file == RegisterFile::kGpr)
      put(to_rm ? rm.reg : reg.reg, static_cast<Reg>(to_rm ? rm_number : reg_number));
  }
  return Outcome::kDone;
}

}  // namespace kite::jit
