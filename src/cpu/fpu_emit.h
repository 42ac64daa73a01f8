// Host machine code of thunks in the making: what fpu_thunks.cc (x87, MMX, SSE) and avx_thunks.cc share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "cpu/cpu.h"
#include "cpu/fpu.h"
#include "x86/insn.h"

namespace kite::cpu {

inline constexpr uint32_t kHostMxcsr = 0x1f80;  // what the ABI gives a thread: all masked, round to nearest
inline constexpr uint8_t kMxcsrOffset = 24;     // in the FXSAVE image
inline constexpr uint32_t kXmm0Offset = 160;
inline constexpr size_t kCcOffset = offsetof(CpuState, cc) - offsetof(CpuState, gpr);
static_assert(kCcOffset < 0x7fffffff);

// Host machine code in the making. Conventions of every thunk: rdi = reg, rsi = rm, rdx = fx, rcx = gpr, with VEX r8 =
// vvvv and r9 = is4; rsp is the caller's wherever the issued instruction can fault.
class Emitter {
 public:
  template <class... Bytes>
  void code(Bytes... bytes) {
    (put(static_cast<uint8_t>(bytes)), ...);
  }
  void code32(uint32_t value) { code(value, value >> 8, value >> 16, value >> 24); }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return {buffer_.data(), size_}; }
  [[nodiscard]] size_t size() const { return size_; }
  // Displacement of the LDMXCSR that restores the host's; patched when the thunk has its place.
  std::array<size_t, 2> host_mxcsr_fixups{};
  size_t fixups = 0;

 private:
  void put(uint8_t byte) {
    if (size_ < buffer_.size()) buffer_[size_++] = byte;
  }
  std::array<uint8_t, 256> buffer_{};
  size_t size_ = 0;
};

inline void emit_load_host_mxcsr(Emitter& out) {
  out.code(0x0f, 0xae, 0x15);  // ldmxcsr [rip+disp32]
  out.host_mxcsr_fixups[out.fixups++] = out.size();
  out.code32(0);
}

// The host's own code does not read the sticky flags, so its MXCSR is restored only when the guest's controls differ.
inline void emit_restore_mxcsr(Emitter& out) {
  out.code(0x44, 0x8b, 0x42, kMxcsrOffset);  // mov r8d, [rdx+24]
  out.code(0x41, 0x83, 0xe0, 0xc0);          // and r8d, ~0x3f
  out.code(0x41, 0x81, 0xf8);                // cmp r8d, kHostMxcsr
  out.code32(kHostMxcsr);
  out.code(0x74, 0x07);  // je over
  emit_load_host_mxcsr(out);
}

// LDMXCSR is slow and in the steady state the host's register holds the guest's value already.
inline void emit_enter_mxcsr(Emitter& out) {
  out.code(0x44, 0x8b, 0x42, kMxcsrOffset);  // mov r8d, [rdx+24]
  out.code(0x0f, 0xae, 0x5c, 0x24, 0xfc);    // stmxcsr [rsp-4]
  out.code(0x44, 0x3b, 0x44, 0x24, 0xfc);    // cmp r8d, [rsp-4]
  out.code(0x74, 0x04);                      // je over
  out.code(0x0f, 0xae, 0x52, kMxcsrOffset);  // ldmxcsr [rdx+24]
}

inline bool has_imm8(const x86::Insn& insn) {
  for (const x86::Operand& operand : insn.operand)
    if (operand.kind == x86::OperandKind::kImm) return true;
  return false;
}

// The thunk of a kAvx instruction (avx_thunks.cc).
void emit_avx(Emitter& out, const x86::Insn& insn);
// Everything of it that emission looks at.
uint64_t avx_key(const x86::Insn& insn);

}  // namespace kite::cpu
