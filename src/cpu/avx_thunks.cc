// Emission of thunks for VEX-encoded vector instructions. Operands are moved to fixed host registers: XMM1 and YMM1 for
// ModRM.reg, 2 for VEX.vvvv, 3 for ModRM.rm, 4 for imm8[7:4], RAX for a general register.
#include "cpu/avx.h"
#include "cpu/fpu_emit.h"

namespace kite::cpu {
namespace {

using x86::Field;
using x86::Insn;
using x86::Operand;
using x86::OperandKind;

constexpr auto kHighDistance = static_cast<uint32_t>(x86::kYmmHighDistance);

struct HostPlace {
  unsigned vector;   // host register number
  unsigned pointer;  // host register that holds the address of the guest's
};
HostPlace place_of(Field field) {
  constexpr unsigned kRdi = 7, kRsi = 6, kR8 = 8, kR9 = 9;
  switch (field) {
    case Field::kReg: return {1, kRdi};
    case Field::kVvvv: return {2, kR8};
    case Field::kIs4: return {4, kR9};
    default: return {3, kRsi};
  }
}

// VEX.128.0F.WIG: vmovups between a vector register and [pointer + displacement].
void emit_move(Emitter& out, bool store, unsigned vector, unsigned pointer, uint32_t displacement) {
  const unsigned opcode = store ? 0x11 : 0x10;
  const unsigned mod = displacement == 0 ? 0x00 : 0x80;
  const unsigned modrm = mod | vector << 3 | (pointer & 7);
  if (pointer >= 8)
    out.code(0xc4, 0xc1, 0x78, opcode, modrm);
  else
    out.code(0xc5, 0xf8, opcode, modrm);
  if (displacement != 0) out.code32(displacement);
}

void emit_load(Emitter& out, const Operand& operand) {
  const HostPlace place = place_of(operand.field);
  if (operand.kind == OperandKind::kGpr) return out.code(0x48, 0x8b, place.pointer);  // mov rax, [pointer]
  emit_move(out, false, place.vector, place.pointer, 0);
  if (operand.kind != OperandKind::kYmm) return;
  // vinsertf128 ymm, ymm, [pointer + distance], 1
  const unsigned vvvv = (~place.vector & 15u) << 3;
  out.code(0xc4, place.pointer >= 8 ? 0xc3 : 0xe3, 0x05 | vvvv, 0x18, 0x80 | place.vector << 3 | (place.pointer & 7));
  out.code32(kHighDistance);
  out.code(1);
}

void emit_zero_high(Emitter& out, unsigned pointer, uint32_t displacement) {
  out.code(0xc5, 0xf9, 0xef, 0xc0);  // vpxor xmm0, xmm0, xmm0
  emit_move(out, true, 0, pointer, displacement);
}

void emit_store(Emitter& out, const Operand& operand) {
  const HostPlace place = place_of(operand.field);
  if (operand.kind == OperandKind::kGpr) return out.code(0x48, 0x89, place.pointer);  // mov [pointer], rax
  emit_move(out, true, place.vector, place.pointer, 0);
  if (operand.kind == OperandKind::kYmm) {
    // vextractf128 [pointer + distance], ymm, 1
    out.code(0xc4, place.pointer >= 8 ? 0xc3 : 0xe3, 0x7d, 0x19, 0x80 | place.vector << 3 | (place.pointer & 7));
    out.code32(kHighDistance);
    out.code(1);
  } else {
    emit_zero_high(out, place.pointer, kHighDistance);
  }
}

const Operand* find(const Insn& insn, Field field) {
  for (const Operand& operand : insn.operand)
    if (operand.kind != OperandKind::kNone && operand.kind != OperandKind::kImm && operand.field == field)
      return &operand;
  return nullptr;
}

unsigned prefix_code(const Insn& insn) {
  return insn.mandatory_prefix == 0 ? 0 : insn.mandatory_prefix == 0x66 ? 1 : insn.mandatory_prefix == 0xf3 ? 2 : 3;
}

unsigned register_number(const Operand& operand) {
  return operand.kind == OperandKind::kGpr ? 0 : place_of(operand.field).vector;
}

void emit_issue(Emitter& out, const Insn& insn) {
  const Operand *reg = find(insn, Field::kReg), *rm = find(insn, Field::kRm), *vvvv = find(insn, Field::kVvvv);
  const unsigned inverted = vvvv == nullptr ? 15 : ~register_number(*vvvv) & 15u;
  out.code(0xc4, 0xe0u | insn.map,
           (insn.rex_w ? 0x80u : 0u) | inverted << 3 | (insn.vector_bytes == 32 ? 4u : 0u) | prefix_code(insn));
  const unsigned reg_bits = reg == nullptr ? (insn.modrm >> 3) & 7u : register_number(*reg);
  const bool memory = rm->kind == OperandKind::kMem;
  constexpr unsigned kAtRsi = 6;
  out.code(insn.opcode, memory ? reg_bits << 3 | kAtRsi : 0xc0 | reg_bits << 3 | register_number(*rm));
  if (const Operand* const is4 = find(insn, Field::kIs4); is4 != nullptr)
    out.code(register_number(*is4) << 4);
  else if (has_imm8(insn))
    out.code(insn.imm);
}

// As emit_string_compare() of fpu_thunks.cc; XMM0 as the result has its high half zeroed.
void emit_string_compare(Emitter& out, const Insn& insn) {
  for (const Operand& operand : insn.operand)
    if (operand.kind == OperandKind::kXmm) emit_load(out, operand);
  out.code(0x49, 0x89, 0xd0, 0x49, 0x89, 0xc9);        // mov r8, rdx; mov r9, rcx
  out.code(0x49, 0x8b, 0x01, 0x49, 0x8b, 0x51, 0x10);  // mov rax, [r9]; mov rdx, [r9+16]
  emit_issue(out, insn);
  out.code(0x9c, 0x58);  // pushfq; pop rax
  const bool answers_index = insn.opcode & 1;
  if (answers_index) {
    out.code(0x49, 0x89, 0x49, 0x08);  // mov [r9+8], rcx
  } else {
    constexpr unsigned kR8 = 8;
    emit_move(out, true, 0, kR8, kXmm0Offset);
    emit_zero_high(out, kR8, kXmm0Offset + kHighDistance);
  }
  out.code(0xc3);
}

}  // namespace

void emit_avx(Emitter& out, const Insn& insn) {
  const AvxShape shape = avx_shape(insn);
  if (shape.string_compare) return emit_string_compare(out, insn);
  for (size_t i = 0; i < insn.operand.size(); ++i) {
    const Operand& operand = insn.operand[i];
    const bool in_register =
        operand.kind == OperandKind::kXmm || operand.kind == OperandKind::kYmm || operand.kind == OperandKind::kGpr;
    if (in_register && (i != 0 || shape.reads_first)) emit_load(out, operand);
  }
  if (shape.numeric) emit_enter_mxcsr(out);
  emit_issue(out, insn);
  if (shape.flags)
    out.code(0x9c, 0x41, 0x59);  // pushfq; pop r9
  else if (insn.operand[0].kind != OperandKind::kMem)
    emit_store(out, insn.operand[0]);
  if (insn.vector_bytes == 32) out.code(0xc5, 0xf8, 0x77);  // vzeroupper
  if (shape.numeric) {
    out.code(0x0f, 0xae, 0x5a, kMxcsrOffset);  // stmxcsr [rdx+24]
    emit_restore_mxcsr(out);
  }
  if (shape.flags)
    out.code(0x4c, 0x89, 0xc8);  // mov rax, r9
  else
    out.code(0x31, 0xc0);  // xor eax, eax
  out.code(0xc3);
}

// Bit 62 tells it from the keys of thunks without VEX.
uint64_t avx_key(const Insn& insn) {
  const Operand *reg = find(insn, Field::kReg), *rm = find(insn, Field::kRm);
  const bool is4 = find(insn, Field::kIs4) != nullptr;
  const uint64_t imm = has_imm8(insn) && !is4 ? insn.imm & 0xff : 0;
  const uint64_t group = reg == nullptr ? (insn.modrm >> 3) & 7u : 0u;
  const auto kind = [](const Operand* operand) {
    return operand == nullptr ? uint64_t{0} : static_cast<uint64_t>(operand->kind);
  };
  return uint64_t{3} << 62 | uint64_t{insn.map} << 56 | uint64_t{insn.opcode} << 48 |
         uint64_t{insn.mandatory_prefix} << 40 | imm << 32 | group << 24 | uint64_t{insn.rex_w} << 16 |
         uint64_t{insn.vector_bytes} << 17 | kind(reg) << 8 | kind(rm);
}

}  // namespace kite::cpu
