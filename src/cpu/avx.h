// VEX-encoded vector instructions: how one is carried out. Internal to avx*.cc and the binding in fpu.cc.
#pragma once

#include "cpu/cpu.h"
#include "cpu/op.h"
#include "x86/insn.h"

namespace kite::cpu {

// What a kAvx instruction needs around it. Which operands there are and where they are encoded, the Insn says.
struct AvxShape {
  bool reads_first = false;     // the first operand is a source; it is the destination otherwise
  bool numeric = false;         // reads MXCSR controls, may raise SIMD floating-point exceptions
  bool flags = false;           // writes EFLAGS and no register
  bool string_compare = false;  // VPCMPxSTRx: reads rAX and rDX, writes rCX or XMM0
};
AvxShape avx_shape(const x86::Insn& insn);

namespace fpu {

// Binds kAvx, kVmaskmov, kGather, kVzeroupper and kVzeroall (avx.cc).
Handler avx_handler(Cpu& cpu, Op& op);
// Masked moves and gathers (avx_elements.cc).
Handler element_handler(Cpu& cpu, Op& op);

}  // namespace fpu
}  // namespace kite::cpu
