// Where the executor finds the function for a decoded instruction. Each family answers null for instructions that are
// not its own; block.cc asks them in order. Handlers follow the rules of op.h.
#pragma once

#include "cpu/op.h"

namespace kite::cpu {

Handler integer_handler(const x86::Insn& insn);  // exec_*.cc: arithmetic, moves, stack, near branches, flags
Handler string_handler(const x86::Insn& insn);   // exec_string.cc: MOVS..OUTS, IN, OUT
Handler system_handler(const x86::Insn& insn);   // exec_system.cc: far transfers, tables, CRs, MSRs, CPUID, HLT, ...
Handler fpu_handler(const x86::Insn& insn);      // fpu.cc: x87, MMX, SSE, FXSAVE family
void invalid_opcode(Cpu& cpu, const Op* op);     // #UD

}  // namespace kite::cpu
