// Operands of the system instructions. They are rare, so they work from the decoded Insn. Internal to cpu/.
#pragma once

#include <cstdint>

#include "cpu/cpu.h"
#include "cpu/op.h"

namespace kite::cpu {

// exec_segments.cc: segment registers, descriptor tables, and the questions about descriptors.
Handler segment_handler(const x86::Insn& insn);

// The first operand of that kind, or null.
const x86::Operand* find_operand(const x86::Insn& insn, x86::OperandKind kind);

// #GP(0) above privilege 0; for SGDT and its kin, only when CR4.UMIP says so.
bool require_cpl0(Cpu& cpu);
bool allow_user_query(Cpu& cpu);

// The linear address of the memory operand, without any check.
uint64_t unchecked_linear(const Cpu& cpu, const Op* op);
// 2, 4 or 8 bytes, `offset` bytes into the memory operand.
bool load_at(Cpu& cpu, const Op* op, unsigned offset, unsigned bytes, uint64_t& value);
bool store_at(Cpu& cpu, const Op* op, unsigned offset, unsigned bytes, uint64_t value);
// m16:16, m16:32, m16:64.
bool load_far_pointer(Cpu& cpu, const Op* op, uint64_t& offset, uint64_t& selector);
// The r/m16 operand of that number.
bool load_selector(Cpu& cpu, const Op* op, unsigned operand, uint64_t& value);
// Operand 0: `memory_bytes` of memory, or a register of the operand size.
bool store_result(Cpu& cpu, const Op* op, uint64_t value, unsigned memory_bytes);
void set_gpr(Cpu& cpu, uint8_t number, unsigned bytes, uint64_t value);

}  // namespace kite::cpu
