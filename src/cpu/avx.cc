// Binding and handlers of VEX-encoded vector instructions. Moves are done here; everything else goes through a thunk.
//
// As in fpu.cc an Op is bound when it is first executed. Op::imm then has the places of its registers as offsets from
// the Cpu in units of 8 bytes, 16 bits each: ModRM.reg, VEX.vvvv, ModRM.rm, imm8[7:4].
#include "cpu/avx.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "cpu/fpu_ops.h"
#include "cpu/handlers.h"

namespace kite::cpu {

using x86::Field;
using x86::Insn;
using x86::Operand;
using x86::OperandKind;

namespace {

// A VEX encoding in one number: map, prefix, opcode.
constexpr uint16_t encoding(unsigned map, unsigned prefix, unsigned opcode) {
  const unsigned prefix_code = prefix == 0 ? 0 : prefix == 0x66 ? 1 : prefix == 0xf3 ? 2 : 3;
  return static_cast<uint16_t>(map << 12 | prefix_code << 8 | opcode);
}
uint16_t encoding(const Insn& insn) { return encoding(insn.map, insn.mandatory_prefix, insn.opcode); }

bool is_fused(const Insn& insn) { return insn.map == 2 && insn.opcode >= 0x96 && insn.opcode <= 0xbf; }

// Arithmetic, conversion and comparison of floating-point values: MXCSR matters.
bool is_numeric(const Insn& insn) {
  const uint8_t opcode = insn.opcode;
  if (insn.map == 3) return (opcode >= 0x08 && opcode <= 0x0b) || opcode == 0x1d || opcode == 0x40 || opcode == 0x41;
  if (insn.map == 2) return opcode == 0x13 || is_fused(insn);
  switch (opcode) {
    case 0x2a:
    case 0x2c:
    case 0x2d:
    case 0x2e:
    case 0x2f:
    case 0x51:
    case 0x7c:
    case 0x7d:
    case 0xc2:
    case 0xd0:
    case 0xe6: return true;
    default: return opcode >= 0x58 && opcode <= 0x5f;
  }
}

}  // namespace

AvxShape avx_shape(const Insn& insn) {
  AvxShape shape;
  const uint8_t opcode = insn.opcode;
  const bool compares = insn.map == 1 && (opcode == 0x2e || opcode == 0x2f);
  const bool tests = insn.map == 2 && (opcode == 0x0e || opcode == 0x0f || opcode == 0x17);
  const bool accumulates = insn.map == 2 && opcode >= 0x50 && opcode <= 0x53;  // VPDPxxxD
  shape.string_compare = insn.map == 3 && opcode >= 0x60 && opcode <= 0x63;
  shape.flags = compares || tests || shape.string_compare;
  shape.reads_first = shape.flags || accumulates || is_fused(insn);
  shape.numeric = is_numeric(insn);
  return shape;
}

namespace fpu {
namespace {

// Op::condition of bound instructions.
constexpr uint8_t kNumeric = 1, kAnyAlignment = 2 /* no #AC */;

void* place(Cpu& cpu, uint64_t offset) { return reinterpret_cast<uint64_t*>(&cpu) + (offset & 0xffff); }
void* reg_place(Cpu& cpu, const Op* op) { return place(cpu, op->imm); }
void* vvvv_place(Cpu& cpu, const Op* op) { return place(cpu, op->imm >> 16); }
void* rm_place(Cpu& cpu, const Op* op) { return place(cpu, op->imm >> 32); }
void* is4_place(Cpu& cpu, const Op* op) { return place(cpu, op->imm >> 48); }

uint8_t* high_half(void* low) { return static_cast<uint8_t*>(low) + x86::kYmmHighDistance; }
const uint8_t* high_half(const void* low) { return static_cast<const uint8_t*>(low) + x86::kYmmHighDistance; }

// --- moves

// The first kBytes of `from` into a register whose low half is at `to`; the rest of it becomes zero.
template <unsigned kBytes>
void set_register(void* to, const void* from) {
  std::array<uint8_t, 32> value{};
  std::memcpy(value.data(), from, kBytes);
  std::memcpy(to, value.data(), 16);
  std::memcpy(high_half(to), value.data() + 16, 16);
}

// Between registers. kGpr: the destination is a general register.
template <unsigned kBytes>
void copy_register(Cpu& cpu, void* to, const void* from) {
  (void)cpu;
  std::array<uint8_t, 32> value{};
  std::memcpy(value.data(), from, std::min(kBytes, 16u));
  if constexpr (kBytes == 32) std::memcpy(value.data() + 16, high_half(from), 16);
  std::memcpy(to, value.data(), 16);
  std::memcpy(high_half(to), value.data() + 16, 16);
}

template <unsigned kBytes, bool kToRm>
void move_registers(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  void* const to = kToRm ? rm_place(cpu, op) : reg_place(cpu, op);
  copy_register<kBytes>(cpu, to, kToRm ? reg_place(cpu, op) : rm_place(cpu, op));
  KITE_NEXT(cpu, op);
}

// VMOVD and VMOVQ to a general register.
template <unsigned kBytes>
void move_to_general(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  uint64_t value = 0;
  std::memcpy(&value, reg_place(cpu, op), kBytes);
  std::memcpy(rm_place(cpu, op), &value, 8);
  KITE_NEXT(cpu, op);
}

template <unsigned kBytes, bool kMustAlign>
void move_load(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  if (!avx_allowed(cpu) || !address_of(cpu, op, kBytes, Access::kRead, address)) KITE_FAULT(cpu, op);
  if (kMustAlign && !aligned(cpu, address, kBytes)) KITE_FAULT(cpu, op);
  std::array<uint8_t, kBytes> bounce;
  const void* const from = load_operand(cpu, op, address, kBytes, bounce.data());
  if (from == nullptr) KITE_FAULT(cpu, op);
  set_register<kBytes>(reg_place(cpu, op), from);
  KITE_NEXT(cpu, op);
}

// kFrom: where in the low half of the register the bytes begin.
template <unsigned kBytes, bool kMustAlign, unsigned kFrom = 0>
void move_store(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  if (!avx_allowed(cpu) || !address_of(cpu, op, kBytes, Access::kWrite, address)) KITE_FAULT(cpu, op);
  if (kMustAlign && !aligned(cpu, address, kBytes)) KITE_FAULT(cpu, op);
  const auto* const from = static_cast<const uint8_t*>(reg_place(cpu, op)) + kFrom;
  std::array<uint8_t, kBytes> value;
  std::memcpy(value.data(), from, std::min(kBytes, 16u));
  if constexpr (kBytes == 32) std::memcpy(value.data() + 16, high_half(from), 16);
  if (uint8_t* const hit = cpu.write_hit(address, kBytes); hit != nullptr) [[likely]] {
    std::memcpy(hit, value.data(), kBytes);
    cpu.rmw_done(address, kBytes);
  } else if (!probe_operand(cpu, op, address, kBytes, Access::kWrite, alignment_of(kBytes)) ||
             !store_operand(cpu, op, address, value.data(), kBytes)) {
    KITE_FAULT(cpu, op);
  }
  KITE_NEXT(cpu, op);
}

void clear_register(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  std::memset(reg_place(cpu, op), 0, 16);
  std::memset(high_half(reg_place(cpu, op)), 0, 16);
  KITE_NEXT(cpu, op);
}

// [SDM 2C VZEROUPPER, VZEROALL] Outside 64-bit mode the upper eight registers are left alone.
template <bool kAll>
void zero_registers(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  const size_t count = cpu.code64 ? 16 : 8;
  std::memset(cpu.arch.ymm_high.reg.data(), 0, count * 16);
  if (kAll) std::memset(image(cpu) + kXmm0, 0, count * 16);
  KITE_NEXT(cpu, op);
}

// --- everything else: through a thunk

int64_t call_thunk(Cpu& cpu, const Op* op, void* rm) {
  const auto thunk = reinterpret_cast<AvxThunk>(op->host_code);
  return thunk(reg_place(cpu, op), rm, image(cpu), cpu.state.gpr, vvvv_place(cpu, op), is4_place(cpu, op));
}

template <bool kLoads>
void vector_op(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  alignas(32) std::array<uint8_t, 32> bounce;
  void* rm = nullptr;
  if constexpr (kLoads) {
    const unsigned bytes = op->operand_size;
    uint64_t address = 0;
    if (!address_of(cpu, op, bytes, Access::kRead, address)) KITE_FAULT(cpu, op);
    rm = const_cast<uint8_t*>(cpu.read_hit(address, bytes));  // the thunk only reads it
    if (rm == nullptr) [[unlikely]] {
      rm = bounce.data();
      const bool checked = (op->condition & kAnyAlignment) != 0 || cpu.check_alignment(address, alignment_of(bytes));
      if (!checked || !cpu.read_bytes(address, rm, bytes, segment_of(op))) KITE_FAULT(cpu, op);
    }
  } else {
    rm = rm_place(cpu, op);
  }
  if ((op->condition & kNumeric) != 0) expect_faults(cpu);
  if (!accept_result(cpu, call_thunk(cpu, op, rm))) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

void vector_store(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  const unsigned bytes = op->operand_size;
  uint64_t address = 0;
  if (!address_of(cpu, op, bytes, Access::kWrite, address) ||
      !probe_operand(cpu, op, address, bytes, Access::kWrite, alignment_of(bytes)))
    KITE_FAULT(cpu, op);
  std::array<uint8_t, 32> value;
  call_thunk(cpu, op, value.data());
  if (!store_operand(cpu, op, address, value.data(), bytes)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// VCVTPS2PH computes and sets flags before hosts look at the memory, and does not check its alignment (SDM 2A, 2.4.11).
void convert_and_store(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  const unsigned bytes = op->operand_size;
  uint64_t address = 0;
  std::array<uint8_t, 32> value;
  expect_faults(cpu);
  if (!accept_result(cpu, call_thunk(cpu, op, value.data())) || !address_of(cpu, op, bytes, Access::kWrite, address) ||
      !cpu.probe(address, bytes, Access::kWrite, segment_of(op)) ||
      !store_operand(cpu, op, address, value.data(), bytes))
    KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// --- binding

uint64_t place_of(Cpu& cpu, const Operand& operand) {
  const void* place = &cpu;
  switch (operand.kind) {
    case OperandKind::kXmm:
    case OperandKind::kYmm: place = image(cpu) + kXmm0 + 16u * (operand.reg & 15u); break;
    case OperandKind::kGpr: place = &cpu.state.gpr[operand.reg & 15u]; break;
    default: break;
  }
  const auto offset = static_cast<const uint8_t*>(place) - reinterpret_cast<const uint8_t*>(&cpu);
  // Both registers' homes are at the start of the Cpu.
  static_assert((sizeof(CpuState) + sizeof(x86::ArchState)) / 8 < 0x8000);
  return static_cast<uint64_t>(offset) / 8;
}

uint64_t places(Cpu& cpu, const Insn& insn) {
  uint64_t all = 0;
  for (const Operand& operand : insn.operand) {
    switch (operand.field) {
      case Field::kReg: all |= place_of(cpu, operand); break;
      case Field::kVvvv: all |= place_of(cpu, operand) << 16; break;
      case Field::kRm: all |= place_of(cpu, operand) << 32; break;
      case Field::kIs4: all |= place_of(cpu, operand) << 48; break;
      case Field::kOther: break;
    }
  }
  return all;
}

// Moves that need no thunk, for XMM and YMM registers: between registers, load, store. Null: the form has a thunk.
struct Move {
  uint16_t encoding;
  std::array<Handler, 2> registers, load, store;
};
constexpr std::array<Handler, 2> kNone{}, kCopy{move_registers<16, false>, move_registers<32, false>},
    kCopyToRm{move_registers<16, true>, move_registers<32, true>}, kLoad{move_load<16, false>, move_load<32, false>},
    kLoadAligned{move_load<16, true>, move_load<32, true>}, kStore{move_store<16, false>, move_store<32, false>},
    kStoreAligned{move_store<16, true>, move_store<32, true>};

constexpr Move kMoves[] = {
    // VMOVUPS, VMOVUPD, VMOVSS, VMOVSD
    {encoding(1, 0, 0x10), kCopy, kLoad, kNone},
    {encoding(1, 0x66, 0x10), kCopy, kLoad, kNone},
    {encoding(1, 0xf3, 0x10), kNone, {move_load<4, false>}, kNone},
    {encoding(1, 0xf2, 0x10), kNone, {move_load<8, false>}, kNone},
    {encoding(1, 0, 0x11), kCopyToRm, kNone, kStore},
    {encoding(1, 0x66, 0x11), kCopyToRm, kNone, kStore},
    {encoding(1, 0xf3, 0x11), kNone, kNone, {move_store<4, false>}},
    {encoding(1, 0xf2, 0x11), kNone, kNone, {move_store<8, false>}},
    // VMOVLPS, VMOVLPD, VMOVHPS, VMOVHPD to memory
    {encoding(1, 0, 0x13), kNone, kNone, {move_store<8, false>}},
    {encoding(1, 0x66, 0x13), kNone, kNone, {move_store<8, false>}},
    {encoding(1, 0, 0x17), kNone, kNone, {move_store<8, false, 8>}},
    {encoding(1, 0x66, 0x17), kNone, kNone, {move_store<8, false, 8>}},
    // VMOVAPS, VMOVAPD, VMOVNTPS, VMOVNTPD
    {encoding(1, 0, 0x28), kCopy, kLoadAligned, kNone},
    {encoding(1, 0x66, 0x28), kCopy, kLoadAligned, kNone},
    {encoding(1, 0, 0x29), kCopyToRm, kNone, kStoreAligned},
    {encoding(1, 0x66, 0x29), kCopyToRm, kNone, kStoreAligned},
    {encoding(1, 0, 0x2b), kNone, kNone, kStoreAligned},
    {encoding(1, 0x66, 0x2b), kNone, kNone, kStoreAligned},
    // VMOVDQA, VMOVDQU, VMOVNTDQ, VMOVNTDQA, VLDDQU
    {encoding(1, 0x66, 0x6f), kCopy, kLoadAligned, kNone},
    {encoding(1, 0xf3, 0x6f), kCopy, kLoad, kNone},
    {encoding(1, 0x66, 0x7f), kCopyToRm, kNone, kStoreAligned},
    {encoding(1, 0xf3, 0x7f), kCopyToRm, kNone, kStore},
    {encoding(1, 0x66, 0xe7), kNone, kNone, kStoreAligned},
    {encoding(2, 0x66, 0x2a), kNone, kLoadAligned, kNone},
    {encoding(1, 0xf2, 0xf0), kNone, kLoad, kNone},
    // VMOVQ
    {encoding(1, 0xf3, 0x7e), {move_registers<8, false>}, {move_load<8, false>}, kNone},
    {encoding(1, 0x66, 0xd6), {move_registers<8, true>}, kNone, {move_store<8, false>}},
};
// VMOVD and VMOVQ between XMM and general registers or memory: by VEX.W.
constexpr Move kFromGeneral = {encoding(1, 0x66, 0x6e),
                               {move_registers<4, false>, move_registers<8, false>},
                               {move_load<4, false>, move_load<8, false>},
                               kNone};
constexpr Move kToGeneral = {encoding(1, 0x66, 0x7e),
                             {move_to_general<4>, move_to_general<8>},
                             kNone,
                             {move_store<4, false>, move_store<8, false>}};

Handler move_handler(const Insn& insn) {
  const uint16_t key = encoding(insn);
  const Move* move = std::ranges::find(kMoves, key, &Move::encoding);
  size_t form = insn.vector_bytes == 32 ? 1 : 0;
  if (move == std::end(kMoves)) {
    form = insn.rex_w ? 1 : 0;
    move = key == kFromGeneral.encoding ? &kFromGeneral : key == kToGeneral.encoding ? &kToGeneral : nullptr;
  }
  if (move == nullptr) return nullptr;
  return (insn.mem_write ? move->store : insn.has_mem ? move->load : move->registers)[form];
}

// VPXOR, VXORPS, VXORPD of a register with itself.
bool clears_register(const Insn& insn) {
  const uint16_t key = encoding(insn);
  return !insn.has_mem && insn.operand[1].reg == insn.operand[2].reg &&
         (key == encoding(1, 0x66, 0xef) || key == encoding(1, 0, 0x57) || key == encoding(1, 0x66, 0x57));
}

uint8_t memory_bytes(const Insn& insn) {
  for (const Operand& operand : insn.operand)
    if (operand.kind == OperandKind::kMem) return std::min<uint8_t>(operand.size, 32);
  return 0;
}

Handler bind_thunk(Cpu& cpu, Op& op) {
  const Insn& insn = *op.insn;
  op.host_code = reinterpret_cast<void (*)()>(cpu.fpu().avx(insn));
  op.operand_size = memory_bytes(insn);
  op.condition = avx_shape(insn).numeric ? kNumeric : uint8_t{0};
  if (op.host_code == nullptr) return invalid_opcode;
  if (insn.need == x86::Need::kF16c) op.condition |= kAnyAlignment;
  if (insn.mem_write) return op.condition != 0 ? convert_and_store : vector_store;
  return insn.has_mem ? vector_op<true> : vector_op<false>;
}

}  // namespace

Handler avx_handler(Cpu& cpu, Op& op) {
  const Insn& insn = *op.insn;
  switch (insn.op) {
    case x86::Op::kVzeroupper: return zero_registers<false>;
    case x86::Op::kVzeroall: return zero_registers<true>;
    default: break;
  }
  op.imm = places(cpu, insn);
  if (insn.op != x86::Op::kAvx) return element_handler(cpu, op);
  if (clears_register(insn)) return clear_register;
  if (const Handler handler = move_handler(insn); handler != nullptr) return handler;
  return bind_thunk(cpu, op);
}

}  // namespace fpu
}  // namespace kite::cpu
