// What the handlers of the x87, MMX and SSE units share: the fields of the register image, the checks of CR0 and CR4,
// and operand access. Used by fpu*.cc only.
#pragma once

#include <array>
#include <cstdint>

#include "cpu/cpu.h"
#include "cpu/fpu.h"
#include "support/bytes.h"

namespace kite::cpu::fpu {

using x86::Seg;
using x86::Vector;

// Offsets in the FXSAVE64 image (SDM 1, table 10-2). FCS and FDS have no place in the 64-bit format; while the CPU has
// them at all (see has_segment_pointers) they are kept in bytes that the format leaves to software.
inline constexpr unsigned kFcw = 0, kFsw = 2, kFtw = 4, kFop = 6, kFip = 8, kFdp = 16, kMxcsr = 24, kMxcsrMask = 28,
                          kSt0 = 32, kXmm0 = 160, kImageEnd = 416, kFcs = 464, kFds = 466;
inline constexpr uint16_t kFswEs = 0x80;
inline constexpr uint16_t kExceptionBits = 0x3f;

inline uint8_t* image(Cpu& cpu) { return cpu.arch.fx.bytes.data(); }
template <class T>
T get(Cpu& cpu, unsigned offset) {
  return load<T>(image(cpu) + offset);
}
template <class T>
void set(Cpu& cpu, unsigned offset, T value) {
  store(image(cpu) + offset, value);
}
inline unsigned top_of_stack(Cpu& cpu) { return (get<uint16_t>(cpu, kFsw) >> 11) & 7u; }

// CPUID.7.EBX[13] says that FCS and FDS are always zero, EBX[6] that FDP is written only by unmasked exceptions.
inline bool has_segment_pointers(const Cpu& cpu) { return !cpu.has_feature(x86::FeatureWord::k7Ebx, 13); }
inline bool data_pointer_on_exception_only(const Cpu& cpu) { return cpu.has_feature(x86::FeatureWord::k7Ebx, 6); }

// An unmasked x87 exception waits for the next instruction that looks. FSW.ES says the same (the hardware computes it
// so).
inline bool x87_pending(Cpu& cpu) {
  return (get<uint16_t>(cpu, kFsw) & ~get<uint16_t>(cpu, kFcw) & kExceptionBits) != 0;
}
// Reports it: #MF, or FERR# and a wait for the interrupt that the board makes of it (SDM 1, 8.7). The instruction is
// then begun anew. Answers false.
bool report_x87(Cpu& cpu);

// #UD and #NM of SSE instructions; true when the instruction may go on (SDM 3A, table 13-1).
bool sse_blocked(Cpu& cpu);
inline bool sse_allowed(Cpu& cpu) {
  constexpr uint64_t kBad = x86::cr0::kEm | x86::cr0::kTs;
  if ((cpu.arch.cr0 & kBad) == 0 && (cpu.arch.cr4 & x86::cr4::kOsfxsr) != 0) [[likely]]
    return true;
  return sse_blocked(cpu);
}
// #UD and #NM of VEX-encoded vector instructions; CR0.EM and CR4.OSFXSR do not matter (SDM 2A, 2.4).
bool avx_blocked(Cpu& cpu);
inline bool avx_allowed(Cpu& cpu) {
  constexpr uint64_t kState = x86::xcr0::kSse | x86::xcr0::kAvx, kBits = x86::cr0::kPe | x86::cr0::kTs;
  if ((cpu.arch.cr0 & kBits) == x86::cr0::kPe && (cpu.arch.cr4 & x86::cr4::kOsxsave) != 0 &&
      (cpu.arch.xcr0 & kState) == kState && !cpu.v86()) [[likely]]
    return true;
  return avx_blocked(cpu);
}
// #NM of x87 instructions (SDM 3A, table 2-2).
inline bool x87_allowed(Cpu& cpu) {
  if ((cpu.arch.cr0 & (x86::cr0::kEm | x86::cr0::kTs)) == 0) [[likely]]
    return true;
  return cpu.raise(Vector::kNm);
}
// #UD, #NM and #MF of MMX instructions (SDM 3A, 12.1 and 12.5).
bool mmx_allowed(Cpu& cpu);

// The x87 registers as MMX registers: TOP becomes 0, so the image, which starts at ST(0), is turned; all tags valid.
void enter_mmx(Cpu& cpu);
// Turns the image's register slots after TOP went from `from` to `to` with the physical registers left in place.
void turn_registers(Cpu& cpu, unsigned from, unsigned to);

// How an instruction uses its memory operand.
enum class Memory : uint8_t { kNone, kLoad, kStore };

// The linear address of the op's memory operand; false after raising.
inline bool address_of(Cpu& cpu, const Op* op, unsigned bytes, Access access, uint64_t& address) {
  return cpu.linear(op, cpu.effective_address(op), bytes, access, address);
}

// What #AC asks of an operand (found on the host; the SDM's table 6-7 leaves some of it open): 16-byte operands either
// fault otherwise or may lie anywhere, 10-byte ones are aligned as 8-byte ones.
constexpr unsigned alignment_of(unsigned bytes) { return bytes >= 16 ? 1 : bytes == 10 ? 8 : bytes; }

// Alignment, then that all of it is there before any of it is touched.
inline bool probe_operand(Cpu& cpu, const Op* op, uint64_t address, unsigned bytes, Access access, unsigned alignment) {
  const Seg segment = segment_of(op);
  return cpu.check_alignment(address, alignment) && cpu.probe(address, bytes, access, segment);
}

// `address` + `offset`, in the width of linear addresses.
inline uint64_t offset_linear(const Cpu& cpu, uint64_t address, unsigned offset) {
  return cpu.code64 ? address + offset : static_cast<uint32_t>(address + offset);
}
// The same inside of the operand of `op`, which begins at `address`: 16-bit effective addresses wrap.
inline uint64_t offset_linear(const Cpu& cpu, const Op* op, uint64_t address, unsigned offset) {
  if (op->address_size != 2) return offset_linear(cpu, address, offset);
  const uint64_t ea = cpu.effective_address(op);
  return offset_linear(cpu, address - ea, static_cast<uint16_t>(ea + offset));
}

// The linear address of the last of the operand's `bytes`; effective addresses wrap in their own width.
inline bool address_of_last(Cpu& cpu, const Op* op, unsigned bytes, Access access, uint64_t& address) {
  uint64_t ea = cpu.effective_address(op) + bytes - 1;
  if (op->address_size != 8) ea = op->address_size == 4 ? static_cast<uint32_t>(ea) : static_cast<uint16_t>(ea);
  return cpu.linear(op, ea, 1, access, address);
}

// probe_operand() for x87 images. Hosts look at the first field, then at the last byte: CR2 shows it.
inline bool probe_image(Cpu& cpu, const Op* op, uint64_t address, unsigned bytes, Access access, unsigned alignment) {
  const Seg segment = segment_of(op);
  uint64_t last = 0;
  return cpu.check_alignment(address, alignment) && cpu.probe(address, alignment, access, segment) &&
         address_of_last(cpu, op, bytes, access, last) && cpu.probe(last, 1, access, segment) &&
         cpu.probe(address, bytes, access, segment);
}

// A pointer to the operand's bytes: guest memory itself, or `bounce` filled with a copy. Null after raising.
inline const void* load_operand(Cpu& cpu, const Op* op, uint64_t address, unsigned bytes, void* bounce) {
  if (const uint8_t* const hit = cpu.read_hit(address, bytes); hit != nullptr) [[likely]]
    return hit;
  const bool ok =
      cpu.check_alignment(address, alignment_of(bytes)) && cpu.read_bytes(address, bounce, bytes, segment_of(op));
  return ok ? bounce : nullptr;
}
// probe_operand() must have come before.
inline bool store_operand(Cpu& cpu, const Op* op, uint64_t address, const void* from, unsigned bytes) {
  return cpu.write_bytes(address, from, bytes, segment_of(op));
}

// Guest exceptions that are unmasked will really happen in the thunk.
inline void expect_faults(Cpu& cpu) {
  if ((~get<uint32_t>(cpu, kMxcsr) & 0x1f80) != 0) [[unlikely]]
    FpuThunks::accept_faults();
}

// The answer of a vector instruction's thunk: false after raising the exception that it met.
inline bool accept_result(Cpu& cpu, int64_t result) {
  if (result == 0) [[likely]]
    return true;
  if (result == kThunkFault)  // [SDM 1, 11.5.2]
    return cpu.raise(cpu.arch.cr4 & x86::cr4::kOsxmmexcpt ? Vector::kXm : Vector::kUd);
  cpu.state.cc = static_cast<uint64_t>(result) & x86::flag::kArithmetic;
  return true;
}

inline bool aligned(Cpu& cpu, uint64_t address, unsigned alignment) {
  if ((address & (alignment - 1)) == 0) [[likely]]
    return true;
  return cpu.raise(Vector::kGp, 0);
}

// The 64-bit format of FXSAVE and XSAVE images: REX.W in 64-bit mode.
bool wide_pointers(const Cpu& cpu, const Op* op);
// The legacy region of FXSAVE and XSAVE areas as it is stored, MXCSR_MASK and all XMM registers included.
using LegacyImage = std::array<uint8_t, kImageEnd>;
LegacyImage legacy_image(Cpu& cpu, bool wide);
// The x87 part of such a region; neither MXCSR nor XMM registers.
void load_x87(Cpu& cpu, const uint8_t* in, bool wide);

// FNINIT. The host's FXSAVE need not write the pointers.
void reset_x87(Cpu& cpu);

Handler x87_handler(Cpu& cpu, Op& op);  // fpu_x87.cc: binds kX87
Handler state_handler(const Op& op);    // fpu_state.cc: FXSAVE, FXRSTOR, LDMXCSR, STMXCSR
Handler xsave_handler(const Op& op);    // fpu_xsave.cc
// FNSTENV, FNSAVE, FLDENV, FRSTOR (fpu_state.cc).
void fnstenv(Cpu& cpu, const Op* op);
void fnsave(Cpu& cpu, const Op* op);
void fldenv(Cpu& cpu, const Op* op);
void frstor(Cpu& cpu, const Op* op);

inline void run_on_image(Cpu& cpu, Thunk thunk) { thunk(nullptr, nullptr, image(cpu), cpu.state.gpr); }

}  // namespace kite::cpu::fpu
