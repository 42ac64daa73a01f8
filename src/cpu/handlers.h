// Where the executor finds the function for a decoded instruction. Each family answers null for instructions that are
// not its own; bind.cc asks them in order. Handlers follow the rules of op.h.
#pragma once

#include "cpu/op.h"

namespace kite::cpu {

struct Binding;

// exec_*.cc. These are asked with the Op, operands bound, so that they can choose by the kind of address.
Handler arithmetic_handler(const Binding& binding);  // add .. cmp, test, inc, dec, neg, not, adcx, adox
Handler shift_handler(const Binding& binding);       // shifts and rotates, shld, shrd
Handler multiply_handler(const Binding& binding);    // mul, imul, div, idiv, BCD
Handler bit_handler(const Binding& binding);         // bt.., bsf.., popcnt.., bswap, crc32
Handler exchange_handler(const Binding& binding);    // xchg, xadd, cmpxchg, cmpxchg8b, cmpxchg16b
Handler move_handler(const Binding& binding);        // mov.., lea, cmov, set, xlat, cbw, cwd, movbe
Handler stack_handler(const Binding& binding);       // push, pop, pusha, popa, enter, leave, pushf, popf
Handler branch_handler(const Binding& binding);      // jcc, jmp, call, ret, loop, jcxz (near)
Handler bmi_handler(const Binding& binding);         // BMI1 and BMI2 but for tzcnt
Handler direct_handler(const Binding& binding);      // movdiri, movdir64b, serialize
Handler flag_handler(const Binding& binding);        // clc .. std, cli, sti, lahf, sahf, salc; nop and its kin
// One handler for two instructions in a row, or null; it belongs in the first one's Op.
Handler fused_handler(const Binding& first, const Binding& second);
Handler string_handler(const x86::Insn& insn);  // exec_string.cc: MOVS..OUTS, IN, OUT
Handler system_handler(const x86::Insn& insn);  // exec_system.cc: far transfers, tables, CRs, MSRs, CPUID, HLT, ...
Handler fpu_handler(const x86::Insn& insn);     // fpu.cc: x87, MMX, SSE, AVX, FXSAVE and XSAVE families
void invalid_opcode(Cpu& cpu, const Op* op);    // #UD

}  // namespace kite::cpu
