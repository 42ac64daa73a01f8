// Op: one instruction bound to the function that executes it. Blocks are arrays of Ops; a handler ends by tail-calling
// the handler of the next one (KITE_NEXT), so there is no dispatch loop inside a block.
//
//   void add_r32_r32(Cpu& cpu, const Op* op) { ...; KITE_NEXT(cpu, op); }
//
// A handler that faults calls cpu.raise(...) (which records the exception) and leaves the block by KITE_FAULT(cpu, op):
// cpu.rip then is op->rip and nothing of the instruction is visible. A handler that changes the flow of control, the
// mode, or anything that a block was decoded under, sets cpu.state.rip and returns: the block ends there.
#pragma once

#include <cstdint>

#include "x86/insn.h"

namespace kite::cpu {

class Cpu;
struct Block;
struct Op;
using Handler = void (*)(Cpu& cpu, const Op* op);

struct Op {
  Handler handler = nullptr;
  uint64_t rip = 0;  // of this instruction (the offset within CS)
  uint64_t imm = 0;
  union {
    int64_t disp = 0;     // RIP-relative operands have the target folded in, with base and index absent
    mutable Block* link;  // direct branches and the end of a block: where the last way from here led; never null
  };
  uint8_t length = 0;
  // Byte offsets into CpuState::gpr of register operands (AH..BH are odd), or plain numbers for other register files.
  uint8_t dst = 0;
  uint8_t src = 0;
  // Index into gpr of base and index; kZeroReg reads as zero.
  uint8_t base = 0;
  uint8_t index = 0;
  uint8_t scale = 0;
  uint8_t segment = 0;       // x86::Seg
  uint8_t address_size = 8;  // 2, 4, 8
  uint8_t operand_size = 4;
  uint8_t condition = 0;
  bool lock = false;
  // The segment adds nothing and checks nothing (64-bit mode, not FS or GS): linear = effective address.
  bool flat = true;
  const x86::Insn* insn = nullptr;  // full decode, for the rare handlers that need it; lives as long as the block
  void (*host_code)() = nullptr;    // of x87, MMX and SSE instructions: the Thunk, bound when first executed

  [[nodiscard]] uint64_t next_rip() const { return rip + length; }
};

inline x86::Seg segment_of(const Op* op) { return static_cast<x86::Seg>(op->segment); }

inline constexpr uint8_t kZeroReg = 16;

// Guest memory as T, at any alignment.
template <class T>
struct UnalignedType {
  typedef T type __attribute__((aligned(1), may_alias));
};
template <class T>
using Unaligned = typename UnalignedType<T>::type;

}  // namespace kite::cpu

#define KITE_NEXT(cpu, op) [[clang::musttail]] return (op)[1].handler((cpu), (op) + 1)
#define KITE_FAULT(cpu, op)      \
  do {                           \
    (cpu).state.rip = (op)->rip; \
    return;                      \
  } while (false)
