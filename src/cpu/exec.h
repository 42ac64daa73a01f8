// What the integer handlers (exec_*.cc) share: where operands are, how a handler is chosen, memory operands, flags.
//
// Handlers are templates over the operation, the operand type and the kind of place, so that the hot ones are a few
// host instructions. Arithmetic runs the host's own instruction: LAHF and SETO pick up the flags, undefined ones
// included.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/block.h"
#include "cpu/cpu.h"
#include "cpu/handlers.h"

namespace kite::cpu {

using Code = x86::Op;  // the operation; cpu::Op is the bound instruction

// --- flags ---

inline constexpr uint64_t kCf = x86::flag::kCf, kPf = x86::flag::kPf, kAf = x86::flag::kAf, kZf = x86::flag::kZf,
                          kSf = x86::flag::kSf, kOf = x86::flag::kOf;

// AX after `lahf; seto %al`, as CpuState::cc.
inline uint64_t flags_of_ax(uint32_t ax) { return ((ax >> 8) & 0xd5) | (ax & 1) << 11; }
// The reverse: what `add $0x7f, %al; sahf` turns into the host's flags.
inline uint32_t ax_of_flags(uint64_t cc) { return static_cast<uint32_t>((cc & 0xff) << 8 | ((cc >> 11) & 1)); }

#define KITE_ASM_SAVE_FLAGS "\n\tlahf\n\tseto %%al"
#define KITE_ASM_LOAD_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"
#define KITE_ASM_LOAD_CARRY "btl $0, %k[cc]\n\t"

// Conditions by the low four bits of Jcc's opcode (SDM 1 appendix B).
template <unsigned kCondition>
inline bool condition(uint64_t cc) {
  constexpr unsigned kind = kCondition >> 1;
  bool value = false;
  if constexpr (kind == 0) value = (cc & kOf) != 0;
  if constexpr (kind == 1) value = (cc & kCf) != 0;
  if constexpr (kind == 2) value = (cc & kZf) != 0;
  if constexpr (kind == 3) value = (cc & (kCf | kZf)) != 0;
  if constexpr (kind == 4) value = (cc & kSf) != 0;
  if constexpr (kind == 5) value = (cc & kPf) != 0;
  if constexpr (kind == 6) value = ((cc ^ (cc >> 4)) & kSf) != 0;
  if constexpr (kind == 7) value = (((cc ^ (cc >> 4)) & kSf) | (cc & kZf)) != 0;
  return value != ((kCondition & 1) != 0);
}

// --- choosing a handler ---

// Where a memory operand is.
enum class Place : uint8_t {
  kBase,     // flat, 64-bit address: base + displacement
  kFlat,     // flat, 64-bit address
  kBased,    // 64-bit code and address, FS or GS
  kGeneral,  // anything
};

// Calls pick.template operator()<T>() for the unsigned type of `bytes`.
template <class Pick>
Handler by_width(unsigned bytes, Pick pick) {
  switch (bytes) {
    case 1: return pick.template operator()<uint8_t>();
    case 2: return pick.template operator()<uint16_t>();
    case 4: return pick.template operator()<uint32_t>();
    case 8: return pick.template operator()<uint64_t>();
    default: return nullptr;
  }
}
// The same without bytes.
template <class Pick>
Handler by_wide_width(unsigned bytes, Pick pick) {
  return bytes == 1 ? nullptr : by_width(bytes, pick);
}

inline Place place_of(const Binding& b) {
  if (b.op.address_size != 8) return Place::kGeneral;
  if (b.op.flat) return b.op.index == kZeroReg ? Place::kBase : Place::kFlat;
  return b.code64() ? Place::kBased : Place::kGeneral;
}
// For the commonest instructions.
template <class Pick>
Handler by_every_place(const Binding& b, Pick pick) {
  switch (place_of(b)) {
    case Place::kBase: return pick.template operator()<Place::kBase>();
    case Place::kFlat: return pick.template operator()<Place::kFlat>();
    case Place::kBased: return pick.template operator()<Place::kBased>();
    default: return pick.template operator()<Place::kGeneral>();
  }
}
template <class Pick>
Handler by_place(const Binding& b, Pick pick) {
  const Place place = place_of(b);
  if (place == Place::kBase || place == Place::kFlat) return pick.template operator()<Place::kFlat>();
  return pick.template operator()<Place::kGeneral>();
}
template <class Pick>
Handler by_condition(unsigned condition, Pick pick) {
  static constexpr auto kTable = []<unsigned... kConditions>(std::integer_sequence<unsigned, kConditions...>) {
    return std::array<Handler (*)(Pick), 16>{[](Pick p) -> Handler { return p.template operator()<kConditions>(); }...};
  }(std::make_integer_sequence<unsigned, 16>());
  return kTable[condition & 15](pick);
}

inline bool is_memory(const x86::Operand& operand) { return operand.kind == x86::OperandKind::kMem; }
inline bool is_register(const x86::Operand& operand) { return operand.kind == x86::OperandKind::kGpr; }
inline bool is_immediate(const x86::Operand& operand) { return operand.kind == x86::OperandKind::kImm; }
inline bool is_absent(const x86::Operand& operand) { return operand.kind == x86::OperandKind::kNone; }

// --- branches ---

// 48-bit canonical addresses pass at once; the rest, 57-bit ones included, is branch_to()'s to judge.
inline bool plainly_canonical(uint64_t address) {
  return static_cast<uint64_t>(static_cast<int64_t>(address << 16) >> 16) == address;
}
// Whether the target of a direct branch needs no check when the branch is taken.
inline bool target_is_safe(const Binding& b) {
  return b.code64() ? plainly_canonical(b.op.imm) : (b.mode_key & mode::kFlatCs) != 0;
}

// --- memory operands ---

// The linear address of the memory operand. False: an exception was raised.
template <Place kPlace>
[[gnu::always_inline]] inline bool operand_address(Cpu& cpu, const Op* op, unsigned bytes, Access access,
                                                   uint64_t& address) {
  if constexpr (kPlace == Place::kBase) {
    address = cpu.state.gpr[op->base] + static_cast<uint64_t>(op->disp);
    return true;
  } else if constexpr (kPlace == Place::kFlat || kPlace == Place::kBased) {
    address = cpu.state.gpr[op->base] + (cpu.state.gpr[op->index] << op->scale) + static_cast<uint64_t>(op->disp);
    if constexpr (kPlace == Place::kBased) address += cpu.state.seg[op->segment].base;
    return true;
  } else {
    return cpu.linear(op, cpu.effective_address(op), bytes, access, address);
  }
}

template <class T, Place kPlace>
[[gnu::always_inline]] inline bool load_operand(Cpu& cpu, const Op* op, T& value) {
  uint64_t address;
  if (!operand_address<kPlace>(cpu, op, sizeof(T), Access::kRead, address)) return false;
  return cpu.read<T>(address, value, segment_of(op));
}
template <class T, Place kPlace>
[[gnu::always_inline]] inline bool store_operand(Cpu& cpu, const Op* op, T value) {
  uint64_t address;
  if (!operand_address<kPlace>(cpu, op, sizeof(T), Access::kWrite, address)) return false;
  return cpu.write<T>(address, value, segment_of(op));
}

// Read-modify-write where there is no host pointer to work on: device memory, or an access that crosses a page. A
// locked one is done while no other vCPU runs.
template <class T, class Compute>
[[gnu::noinline]] bool modify_slowly(Cpu& cpu, const Op* op, uint64_t address, bool locked, Compute compute) {
  if (cpu.exception) return false;
  bool done = false;
  auto work = [&] {
    uint64_t value = 0;
    if (!cpu.read_for_write(address, sizeof(T), value, segment_of(op))) return;
    done = cpu.write<T>(address, compute(static_cast<T>(value)), segment_of(op));
  };
  if (locked)
    cpu.io->exclusive(work);
  else
    work();
  return done;
}

}  // namespace kite::cpu
