// SSE instructions, issued on the host's unit. A guest's XMM register is the host's of the same number for as long as a
// block uses it: loaded when first used, stored before anything that may leave the block. MXCSR is the guest's while
// translated code runs, with all exceptions masked; others are the interpreter's.
#include <algorithm>

#include "accel/jit/emitter.h"
#include "cpu/fpu.h"

namespace kite::jit {

using cpu::RegisterFile;
using x86::Operand;
using x86::OperandKind;

namespace {

constexpr uint32_t kStoreAligned = 0x0f29, kLoadAligned = 0x0f28;  // MOVAPS

}  // namespace

void BlockEmitter::store_vectors(Assembler& a, uint16_t which) const {
  for (unsigned n = 0; n < 16; ++n)
    if ((which >> n & 1) != 0) a.rm(4, kStoreAligned, n, layout_.vector(n));
}

void BlockEmitter::load_vectors(Assembler& a, uint16_t which) const {
  for (unsigned n = 0; n < 16; ++n)
    if ((which >> n & 1) != 0) a.rm(4, kLoadAligned, n, layout_.vector(n));
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

BlockEmitter::Outcome BlockEmitter::vectors() {
  const x86::Insn& i = insn();
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
  const bool reg_is_read = is_group || shape.rm_is_destination || !only_writes_register();
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
