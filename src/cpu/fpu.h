// The host's x87, MMX and SSE units as the guest's. No arithmetic is done in software: a guest instruction is issued on
// the host, on the guest's register image (Cpu::arch.fx, FXSAVE64 layout), once its memory operand has come through the
// soft MMU.
//
// A thunk is a few host instructions around one issued instruction: load the registers that take part from the image,
// issue, store back. Register numbers are normalised away (pointers are passed instead), so the number of different
// thunks is bounded by opcodes and immediates, whatever a guest executes.
//
// Files: fpu_thunks.cc (emission, code memory, SIGFPE), avx_thunks.cc (emission with VEX), fpu.cc (binding, the SSE and
// MMX handlers), fpu_x87.cc (x87), avx.cc (VEX), avx_elements.cc (masked moves and gathers), fpu_state.cc (FXSAVE,
// FNSAVE and environment images, MXCSR), fpu_xsave.cc (the XSAVE family).
#pragma once

#include <cstdint>
#include <unordered_map>

#include "x86/arch_state.h"
#include "x86/insn.h"

namespace kite::cpu {

// Which registers an operand of a vector instruction without VEX is in.
enum class RegisterFile : uint8_t { kNone, kGpr, kMmx, kXmm, kMemory };

// What a vector instruction needs around it.
struct UnitShape {
  RegisterFile reg = RegisterFile::kNone;  // the operand that ModRM.reg names
  RegisterFile rm = RegisterFile::kNone;   // the operand that ModRM.rm names
  bool rm_is_destination = false;
  bool numeric = false;         // reads MXCSR controls, may raise SIMD floating-point exceptions
  bool flags = false;           // writes EFLAGS
  bool implicit_xmm0 = false;   // reads XMM0
  bool string_compare = false;  // PCMPxSTRx: reads rAX and rDX, writes rCX or XMM0
};
UnitShape unit_shape(const x86::Insn& insn);

// Answers kThunkFault when the issued instruction raised an unmasked exception (its destination is unchanged, MXCSR
// flags in the image are set as the hardware set them), EFLAGS when it writes them (never 0), else 0.
//   reg, rm: the operands' places (16 bytes for XMM, 8 for the others, the access size for memory)
//   fx:      the FXSAVE64 image          gpr: CpuState::gpr, for implicit operands and CpuState::cc behind it
using Thunk = int64_t (*)(void* reg, void* rm, uint8_t* fx, uint64_t* gpr);
inline constexpr int64_t kThunkFault = -1;
// With VEX; vvvv and is4 are the places of the registers that VEX.vvvv and imm8[7:4] name. The high halves of YMM
// registers are x86::kYmmHighDistance behind the low ones; the destination's is zeroed by 128-bit operations.
using AvxThunk = int64_t (*)(void* reg, void* rm, uint8_t* fx, uint64_t* gpr, void* vvvv, void* is4);

// One Cpu's view of the process-wide thunk memory. Used by the thread that runs the Cpu.
class FpuThunks {
 public:
  // Maps the thunk memory and installs the SIGFPE handler once per process; the handler claims only faults inside
  // thunks and passes all others to what was installed before.
  FpuThunks();
  FpuThunks(const FpuThunks&) = delete;
  FpuThunks& operator=(const FpuThunks&) = delete;

  // The thunk of a vector (kMmx, kSse) or x87 instruction. Null when no executable memory can be had (logged once).
  Thunk vector(const x86::Insn& insn);
  AvxThunk avx(const x86::Insn& insn);
  Thunk x87(const x86::Insn& insn);
  // Loads the image and stores it again: the hardware drops reserved bits and recomputes FSW.ES and B.
  Thunk normalise();
  // FNINIT on the image.
  Thunk fninit();

  // Unblocks SIGFPE in the calling thread (once a thread): must precede thunks that may fault.
  static void accept_faults();
  // The MXCSR bits that guests have.
  static uint32_t mxcsr_mask();
  // Makes an image from outside (a loader, a saved state) safe to load: reserved MXCSR bits are cleared.
  static void sanitize(x86::FxState& fx);

 private:
  std::unordered_map<uint64_t, Thunk> known_;
};

}  // namespace kite::cpu
