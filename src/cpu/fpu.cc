// Binding of unit instructions to handlers, and the SSE and MMX handlers.
//
// An Op is bound when it is first executed: its thunk is looked up, and Op::imm is replaced by
// the places of its register operands (offsets from the Cpu: low half ModRM.reg or a move's destination, high half
// ModRM.rm or a move's source; the immediate itself is inside the thunk).
#include "cpu/fpu.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "cpu/avx.h"
#include "cpu/block.h"
#include "cpu/fpu_ops.h"
#include "cpu/handlers.h"

namespace kite::cpu {

using x86::Insn;
using x86::OperandKind;

namespace fpu {

bool report_x87(Cpu& cpu) {
  if (cpu.arch.cr0 & x86::cr0::kNe) return cpu.raise(Vector::kMf);
  if (cpu.io != nullptr) cpu.io->fpu_error();
  return false;
}

bool sse_blocked(Cpu& cpu) {
  const bool usable = !(cpu.arch.cr0 & x86::cr0::kEm) && (cpu.arch.cr4 & x86::cr4::kOsfxsr);
  return cpu.raise(usable ? Vector::kNm : Vector::kUd);
}

bool avx_blocked(Cpu& cpu) {
  constexpr uint64_t kState = x86::xcr0::kSse | x86::xcr0::kAvx;
  const bool usable =
      !cpu.real_or_v86() && (cpu.arch.cr4 & x86::cr4::kOsxsave) != 0 && (cpu.arch.xcr0 & kState) == kState;
  return cpu.raise(usable ? Vector::kNm : Vector::kUd);
}

bool mmx_allowed(Cpu& cpu) {
  if (cpu.arch.cr0 & x86::cr0::kEm) return cpu.raise(Vector::kUd);
  if (cpu.arch.cr0 & x86::cr0::kTs) return cpu.raise(Vector::kNm);
  return x87_pending(cpu) ? report_x87(cpu) : true;
}

void turn_registers(Cpu& cpu, unsigned from, unsigned to) {
  if (from == to) return;
  std::array<uint8_t, 128> slots;
  uint8_t* const registers = image(cpu) + kSt0;
  std::memcpy(slots.data(), registers, slots.size());
  for (unsigned i = 0; i < 8; ++i)  // ST(i) was physical register from + i
    std::memcpy(registers + 16 * i, slots.data() + 16 * ((to + i - from) & 7), 16);
}

void enter_mmx(Cpu& cpu) {
  if (const unsigned top = top_of_stack(cpu); top != 0) {
    turn_registers(cpu, top, 0);
    set<uint16_t>(cpu, kFsw, get<uint16_t>(cpu, kFsw) & ~uint16_t{0x3800});
  }
  set<uint8_t>(cpu, kFtw, 0xff);
}

namespace {

// Op::condition of bound vector instructions.
constexpr uint8_t kUsesXmm = 1, kUsesMmxRegister = 2, kWritesMmxReg = 4, kWritesMmxRm = 8, kAligned = 16;

void* reg_place(Cpu& cpu, const Op* op) { return reinterpret_cast<uint8_t*>(&cpu) + static_cast<uint32_t>(op->imm); }
void* rm_place(Cpu& cpu, const Op* op) { return reinterpret_cast<uint8_t*>(&cpu) + (op->imm >> 32); }

// --- plain moves: no thunk

// Copies kBytes and zeroes the rest of kTotal.
template <unsigned kBytes, unsigned kTotal>
void move_bytes(void* to, const void* from) {
  std::array<uint8_t, kTotal> value{};
  std::memcpy(value.data(), from, kBytes);
  std::memcpy(to, value.data(), kTotal);
}

template <unsigned kBytes, unsigned kTotal>
void move_registers(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu)) KITE_FAULT(cpu, op);
  move_bytes<kBytes, kTotal>(reg_place(cpu, op), rm_place(cpu, op));
  KITE_NEXT(cpu, op);
}

template <unsigned kBytes, unsigned kTotal, bool kMustAlign>
void move_load(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  if (!sse_allowed(cpu) || !address_of(cpu, op, kBytes, Access::kRead, address)) KITE_FAULT(cpu, op);
  if (kMustAlign && !aligned(cpu, address, 16)) KITE_FAULT(cpu, op);
  std::array<uint8_t, kBytes> bounce;
  const void* const from = load_operand(cpu, op, address, kBytes, bounce.data());
  if (from == nullptr) KITE_FAULT(cpu, op);
  move_bytes<kBytes, kTotal>(reg_place(cpu, op), from);
  KITE_NEXT(cpu, op);
}

template <unsigned kBytes, bool kMustAlign>
void move_store(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  if (!sse_allowed(cpu) || !address_of(cpu, op, kBytes, Access::kWrite, address)) KITE_FAULT(cpu, op);
  if (kMustAlign && !aligned(cpu, address, 16)) KITE_FAULT(cpu, op);
  const void* const from = rm_place(cpu, op);
  if (uint8_t* const hit = cpu.write_hit(address, kBytes); hit != nullptr) [[likely]] {
    std::memcpy(hit, from, kBytes);
    cpu.rmw_done(address, kBytes);
  } else if (!probe_operand(cpu, op, address, kBytes, Access::kWrite, alignment_of(kBytes)) ||
             !store_operand(cpu, op, address, from, kBytes)) {
    KITE_FAULT(cpu, op);
  }
  KITE_NEXT(cpu, op);
}

void clear_register(Cpu& cpu, const Op* op) {
  if (!sse_allowed(cpu)) KITE_FAULT(cpu, op);
  std::memset(reg_place(cpu, op), 0, 16);
  KITE_NEXT(cpu, op);
}

// --- everything else: through a thunk

bool vector_allowed(Cpu& cpu, const Op* op, bool mmx) {
  if (!mmx) return sse_allowed(cpu);
  if ((op->condition & kUsesXmm) != 0 && !sse_allowed(cpu)) return false;
  return mmx_allowed(cpu);
}

// A register written as an MMX register has ones in its exponent and sign (SDM 1, 9.2.2).
void finish_mmx(Cpu& cpu, const Op* op) {
  constexpr uint16_t kOnes = 0xffff;
  if (op->condition & kWritesMmxReg) store(static_cast<uint8_t*>(reg_place(cpu, op)) + 8, kOnes);
  if (op->condition & kWritesMmxRm) store(static_cast<uint8_t*>(rm_place(cpu, op)) + 8, kOnes);
}

template <Memory kMemory, bool kMmx>
void vector_op(Cpu& cpu, const Op* op) {
  if (!vector_allowed(cpu, op, kMmx)) KITE_FAULT(cpu, op);
  alignas(16) std::array<uint8_t, 16> bounce;
  const unsigned bytes = op->operand_size;
  uint64_t address = 0;
  void* rm = nullptr;
  if constexpr (kMemory == Memory::kNone) {
    rm = rm_place(cpu, op);
  } else {
    constexpr Access kAccess = kMemory == Memory::kLoad ? Access::kRead : Access::kWrite;
    if (!address_of(cpu, op, bytes, kAccess, address)) KITE_FAULT(cpu, op);
    if ((op->condition & kAligned) != 0 && !aligned(cpu, address, 16)) KITE_FAULT(cpu, op);
    rm = bounce.data();
  }
  if constexpr (kMemory == Memory::kLoad) {
    rm = const_cast<void*>(load_operand(cpu, op, address, bytes, bounce.data()));  // the thunk only reads it
    if (rm == nullptr) KITE_FAULT(cpu, op);
  }
  if constexpr (kMemory == Memory::kStore) {
    if (!probe_operand(cpu, op, address, bytes, Access::kWrite, alignment_of(bytes))) KITE_FAULT(cpu, op);
  }
  if constexpr (kMmx) enter_mmx(cpu);
  expect_faults(cpu);
  const auto thunk = reinterpret_cast<Thunk>(op->host_code);
  if (!accept_result(cpu, thunk(reg_place(cpu, op), rm, image(cpu), cpu.state.gpr))) KITE_FAULT(cpu, op);
  if constexpr (kMmx) finish_mmx(cpu, op);
  if constexpr (kMemory == Memory::kStore) {
    if (!store_operand(cpu, op, address, bounce.data(), bytes)) KITE_FAULT(cpu, op);
  }
  KITE_NEXT(cpu, op);
}

// MASKMOVQ, MASKMOVDQU: the bytes of ModRM.reg whose mask bit (sign of the byte of ModRM.rm) is set go to DS:rDI. The
// whole operand must be accessible whatever the mask, as on hosts, which begin with the upper half.
void store_masked(Cpu& cpu, const Op* op) {
  const bool mmx = (op->condition & kUsesMmxRegister) != 0;
  const bool allowed = mmx ? mmx_allowed(cpu) : op->insn->vex ? avx_allowed(cpu) : sse_allowed(cpu);
  if (!allowed) KITE_FAULT(cpu, op);
  const unsigned bytes = mmx ? 8 : 16;
  // Hosts wrap within the operand in the width of the address.
  const auto address_at = [&](unsigned offset, unsigned size, uint64_t& address) {
    uint64_t ea = cpu.effective_address(op) + offset;
    if (op->address_size != 8) ea = op->address_size == 4 ? static_cast<uint32_t>(ea) : static_cast<uint16_t>(ea);
    return cpu.linear(op, ea, size, Access::kWrite, address);
  };
  uint64_t address = 0;
  for (unsigned half = bytes; half != 0; half -= 8)
    if (!address_at(half - 8, 8, address) || !probe_operand(cpu, op, address, 8, Access::kWrite, 8))
      KITE_FAULT(cpu, op);
  if (mmx) enter_mmx(cpu);
  const auto* const data = static_cast<const uint8_t*>(reg_place(cpu, op));
  const auto* const mask = static_cast<const uint8_t*>(rm_place(cpu, op));
  for (unsigned i = 0; i < bytes; ++i) {
    if ((mask[i] & 0x80) == 0) continue;
    if (!address_at(i, 1, address) || !cpu.write<uint8_t>(address, data[i], segment_of(op))) KITE_FAULT(cpu, op);
  }
  KITE_NEXT(cpu, op);
}

void emms(Cpu& cpu, const Op* op) {
  if (!mmx_allowed(cpu)) KITE_FAULT(cpu, op);
  enter_mmx(cpu);
  set<uint8_t>(cpu, kFtw, 0);
  KITE_NEXT(cpu, op);
}

void fwait(Cpu& cpu, const Op* op) {
  constexpr uint64_t kBoth = x86::cr0::kMp | x86::cr0::kTs;
  if ((cpu.arch.cr0 & kBoth) == kBoth) {
    cpu.raise(Vector::kNm);
    KITE_FAULT(cpu, op);
  }
  if (x87_pending(cpu)) {
    report_x87(cpu);
    KITE_FAULT(cpu, op);
  }
  KITE_NEXT(cpu, op);
}

// --- binding

constexpr uint16_t encoding(unsigned map, unsigned prefix, unsigned opcode) {
  const unsigned prefix_code = prefix == 0 ? 0 : prefix == 0x66 ? 1 : prefix == 0xf3 ? 2 : 3;
  return static_cast<uint16_t>(map << 12 | prefix_code << 8 | opcode);
}
uint16_t encoding(const Insn& insn) { return encoding(insn.map, insn.mandatory_prefix, insn.opcode); }

// A move that needs no thunk: its handlers for a register, a memory source and a memory destination (null: the form
// goes through a thunk), and what is special about its operands.
struct Move {
  uint16_t encoding;
  Handler registers;
  Handler load;
  Handler store;
  uint8_t memory_half = 0;  // 8: the memory form works on the upper eight bytes
};
constexpr Handler kCopy = move_registers<16, 16>;
constexpr Handler kLoad16 = move_load<16, 16, false>, kLoad16Aligned = move_load<16, 16, true>;
constexpr Handler kStore16 = move_store<16, false>, kStore16Aligned = move_store<16, true>;

constexpr Move kMoves[] = {
    // MOVUPS, MOVUPD, MOVSS, MOVSD
    {encoding(1, 0, 0x10), kCopy, kLoad16, nullptr},
    {encoding(1, 0x66, 0x10), kCopy, kLoad16, nullptr},
    {encoding(1, 0xf3, 0x10), move_registers<4, 4>, move_load<4, 16, false>, nullptr},
    {encoding(1, 0xf2, 0x10), move_registers<8, 8>, move_load<8, 16, false>, nullptr},
    {encoding(1, 0, 0x11), kCopy, nullptr, kStore16},
    {encoding(1, 0x66, 0x11), kCopy, nullptr, kStore16},
    {encoding(1, 0xf3, 0x11), move_registers<4, 4>, nullptr, move_store<4, false>},
    {encoding(1, 0xf2, 0x11), move_registers<8, 8>, nullptr, move_store<8, false>},
    // MOVLPS, MOVLPD, MOVHPS, MOVHPD
    {encoding(1, 0, 0x12), nullptr, move_load<8, 8, false>, nullptr},
    {encoding(1, 0x66, 0x12), nullptr, move_load<8, 8, false>, nullptr},
    {encoding(1, 0, 0x13), nullptr, nullptr, move_store<8, false>},
    {encoding(1, 0x66, 0x13), nullptr, nullptr, move_store<8, false>},
    {encoding(1, 0, 0x16), nullptr, move_load<8, 8, false>, nullptr, 8},
    {encoding(1, 0x66, 0x16), nullptr, move_load<8, 8, false>, nullptr, 8},
    {encoding(1, 0, 0x17), nullptr, nullptr, move_store<8, false>, 8},
    {encoding(1, 0x66, 0x17), nullptr, nullptr, move_store<8, false>, 8},
    // MOVAPS, MOVAPD, MOVNTPS, MOVNTPD
    {encoding(1, 0, 0x28), kCopy, kLoad16Aligned, nullptr},
    {encoding(1, 0x66, 0x28), kCopy, kLoad16Aligned, nullptr},
    {encoding(1, 0, 0x29), kCopy, nullptr, kStore16Aligned},
    {encoding(1, 0x66, 0x29), kCopy, nullptr, kStore16Aligned},
    {encoding(1, 0, 0x2b), nullptr, nullptr, kStore16Aligned},
    {encoding(1, 0x66, 0x2b), nullptr, nullptr, kStore16Aligned},
    // MOVDQA, MOVDQU, MOVNTDQ, MOVNTDQA, LDDQU
    {encoding(1, 0x66, 0x6f), kCopy, kLoad16Aligned, nullptr},
    {encoding(1, 0xf3, 0x6f), kCopy, kLoad16, nullptr},
    {encoding(1, 0x66, 0x7f), kCopy, nullptr, kStore16Aligned},
    {encoding(1, 0xf3, 0x7f), kCopy, nullptr, kStore16},
    {encoding(1, 0x66, 0xe7), nullptr, nullptr, kStore16Aligned},
    {encoding(2, 0x66, 0x2a), nullptr, kLoad16Aligned, nullptr},
    {encoding(1, 0xf2, 0xf0), nullptr, kLoad16, nullptr},
    // MOVQ
    {encoding(1, 0xf3, 0x7e), move_registers<8, 16>, move_load<8, 16, false>, nullptr},
    {encoding(1, 0x66, 0xd6), move_registers<8, 16>, nullptr, move_store<8, false>},
};
// MOVD and MOVQ between XMM and general registers or memory, by operand size.
constexpr Move kMovdLoad[] = {{encoding(1, 0x66, 0x6e), move_registers<4, 16>, move_load<4, 16, false>, nullptr},
                              {encoding(1, 0x66, 0x6e), move_registers<8, 16>, move_load<8, 16, false>, nullptr}};
constexpr Move kMovdStore[] = {{encoding(1, 0x66, 0x7e), move_registers<4, 8>, nullptr, move_store<4, false>},
                               {encoding(1, 0x66, 0x7e), move_registers<8, 8>, nullptr, move_store<8, false>}};

const Move* find_move(const Insn& insn) {
  const uint16_t key = encoding(insn);
  if (key == kMovdLoad[0].encoding) return &kMovdLoad[insn.rex_w ? 1 : 0];
  if (key == kMovdStore[0].encoding) return &kMovdStore[insn.rex_w ? 1 : 0];
  const Move* const move = std::ranges::find(kMoves, key, &Move::encoding);
  return move == std::end(kMoves) ? nullptr : move;
}

// PXOR, XORPS, XORPD of a register with itself.
bool clears_register(const Insn& insn) {
  const uint16_t key = encoding(insn);
  return !insn.has_mem && insn.operand[0].reg == insn.operand[1].reg &&
         (key == encoding(1, 0x66, 0xef) || key == encoding(1, 0, 0x57) || key == encoding(1, 0x66, 0x57));
}

uint64_t place_of(Cpu& cpu, const x86::Operand& operand) {
  const auto offset = [&cpu](const void* place) {
    return static_cast<uint64_t>(static_cast<const uint8_t*>(place) - reinterpret_cast<const uint8_t*>(&cpu));
  };
  switch (operand.kind) {
    case OperandKind::kXmm: return offset(image(cpu) + kXmm0 + 16u * (operand.reg & 15u));
    case OperandKind::kMmx: return offset(image(cpu) + kSt0 + 16u * (operand.reg & 7u));
    case OperandKind::kGpr: return offset(&cpu.state.gpr[operand.reg & 15u]);
    default: return 0;
  }
}
uint64_t places(uint64_t low, uint64_t high) { return high << 32 | low; }

Handler bind_move(Cpu& cpu, Op& op, const Move& move) {
  const Insn& insn = *op.insn;
  const bool store = insn.operand[0].kind == OperandKind::kMem;
  const uint64_t half = insn.has_mem ? move.memory_half : 0;
  op.imm =
      places(place_of(cpu, insn.operand[0]) + (store ? 0 : half), place_of(cpu, insn.operand[1]) + (store ? half : 0));
  return store ? move.store : insn.has_mem ? move.load : move.registers;
}

RegisterFile file_of(const x86::Operand& operand) {
  switch (operand.kind) {
    case OperandKind::kGpr: return RegisterFile::kGpr;
    case OperandKind::kMmx: return RegisterFile::kMmx;
    case OperandKind::kXmm: return RegisterFile::kXmm;
    case OperandKind::kMem: return RegisterFile::kMemory;
    default: return RegisterFile::kNone;
  }
}

// Whether ModRM.rm is the destination: stores, shift groups, MOVD/MOVQ and PEXTRx to r/m.
bool writes_rm(const Insn& insn) {
  if (insn.map == 3) return insn.opcode >= 0x14 && insn.opcode <= 0x17;
  if (insn.map != 1) return false;
  switch (insn.opcode) {
    case 0x11:
    case 0x13:
    case 0x17:
    case 0x29:
    case 0x2b:
    case 0x71:
    case 0x72:
    case 0x73:
    case 0x7f:
    case 0xe7: return true;
    case 0x7e: return insn.mandatory_prefix != 0xf3;
    case 0xd6: return insn.mandatory_prefix == 0x66;
    default: return false;
  }
}

// Arithmetic, conversion and comparison of floating-point values: MXCSR matters.
bool is_numeric(const Insn& insn) {
  const uint8_t opcode = insn.opcode;
  if (insn.map == 3) return (opcode >= 0x08 && opcode <= 0x0b) || opcode == 0x40 || opcode == 0x41;
  if (insn.map != 1) return false;
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

Handler vector_handler(const UnitShape& shape, bool mmx) {
  static constexpr Handler kHandlers[3][2] = {
      {vector_op<Memory::kNone, false>, vector_op<Memory::kNone, true>},
      {vector_op<Memory::kLoad, false>, vector_op<Memory::kLoad, true>},
      {vector_op<Memory::kStore, false>, vector_op<Memory::kStore, true>},
  };
  const Memory memory = shape.rm != RegisterFile::kMemory ? Memory::kNone
                        : shape.rm_is_destination         ? Memory::kStore
                                                          : Memory::kLoad;
  return kHandlers[static_cast<size_t>(memory)][mmx];
}

uint8_t memory_bytes(const Insn& insn) {
  for (const x86::Operand& operand : insn.operand)
    if (operand.kind == OperandKind::kMem) return std::min<uint8_t>(operand.size, 16);
  return 0;
}

Handler bind_vector(Cpu& cpu, Op& op) {
  const Insn& insn = *op.insn;
  const UnitShape shape = unit_shape(insn);
  const auto& reg = insn.operand[shape.rm_is_destination ? 1 : 0];
  const auto& rm = insn.operand[shape.rm_is_destination ? 0 : 1];
  op.imm = places(shape.reg == RegisterFile::kNone ? 0 : place_of(cpu, reg), place_of(cpu, rm));
  op.host_code = reinterpret_cast<void (*)()>(cpu.fpu().vector(insn));
  op.operand_size = memory_bytes(insn);
  const bool mmx_register = shape.reg == RegisterFile::kMmx || shape.rm == RegisterFile::kMmx;
  uint8_t bits = insn.mem_align == 16 ? kAligned : uint8_t{0};
  if (shape.reg == RegisterFile::kXmm || shape.rm == RegisterFile::kXmm) bits |= kUsesXmm;
  if (shape.reg == RegisterFile::kMmx && !shape.rm_is_destination) bits |= kWritesMmxReg;
  if (shape.rm == RegisterFile::kMmx && shape.rm_is_destination) bits |= kWritesMmxRm;
  op.condition = bits;
  return op.host_code == nullptr ? invalid_opcode : vector_handler(shape, mmx_register);
}

// The decoder may list the implied memory operand before or behind the two registers.
Handler bind_masked(Cpu& cpu, Op& op) {
  std::array<x86::Operand, 2> registers{};
  size_t found = 0;
  for (const x86::Operand& operand : op.insn->operand) {
    const bool vector = operand.kind == OperandKind::kMmx || operand.kind == OperandKind::kXmm;
    if (vector && found < registers.size()) registers[found++] = operand;
  }
  op.imm = places(place_of(cpu, registers[0]), place_of(cpu, registers[1]));
  op.condition = registers[0].kind == OperandKind::kMmx ? kUsesMmxRegister : uint8_t{0};
  return store_masked;
}

Handler bound_handler(Cpu& cpu, Op& op) {
  const Insn& insn = *op.insn;
  switch (insn.op) {
    case x86::Op::kEmms: return emms;
    case x86::Op::kFwait: return fwait;
    case x86::Op::kX87: return x87_handler(cpu, op);
    case x86::Op::kMaskmov: return bind_masked(cpu, op);
    case x86::Op::kAvx:
    case x86::Op::kVmaskmov:
    case x86::Op::kGather:
    case x86::Op::kVzeroupper:
    case x86::Op::kVzeroall: return avx_handler(cpu, op);
    case x86::Op::kMmx:
    case x86::Op::kSse: break;
    case x86::Op::kFxsave:
    case x86::Op::kFxrstor:
    case x86::Op::kLdmxcsr:
    case x86::Op::kStmxcsr: return state_handler(op);
    default: return xsave_handler(op);
  }
  if (clears_register(insn)) {
    op.imm = place_of(cpu, insn.operand[0]);
    return clear_register;
  }
  if (const Move* const move = find_move(insn); move != nullptr)
    if (const Handler handler = bind_move(cpu, op, *move); handler != nullptr) return handler;
  return bind_vector(cpu, op);
}

// The handler of every unit instruction until it is first executed.
void bind(Cpu& cpu, const Op* op) {
  Op& bound = const_cast<Op&>(*op);  // blocks belong to one Cpu, which is running this one
  const Handler handler = bound_handler(cpu, bound);
  if (bound.handler == bind)
    bound.handler = handler;
  else
    cpu.block->first = handler;  // something that counts entries stands before it
  [[clang::musttail]] return handler(cpu, op);
}

}  // namespace
}  // namespace fpu

UnitShape unit_shape(const Insn& insn) {
  UnitShape shape;
  shape.rm_is_destination = fpu::writes_rm(insn);
  const auto& first = insn.operand[0];
  const auto& second = insn.operand[1];
  shape.reg = fpu::file_of(shape.rm_is_destination ? second : first);
  shape.rm = fpu::file_of(shape.rm_is_destination ? first : second);
  shape.numeric = fpu::is_numeric(insn);
  const bool compares = insn.map == 1 && (insn.opcode == 0x2e || insn.opcode == 0x2f);
  const bool tests = insn.map == 2 && insn.opcode == 0x17;
  shape.string_compare = insn.map == 3 && insn.opcode >= 0x60 && insn.opcode <= 0x63;
  shape.flags = compares || tests || shape.string_compare;
  const bool blends = insn.opcode == 0x10 || insn.opcode == 0x14 || insn.opcode == 0x15;
  const bool hashes = insn.opcode == 0xcb;  // SHA256RNDS2
  shape.implicit_xmm0 = insn.map == 2 && (blends || hashes);
  return shape;
}

Handler fpu_handler(const Insn& insn) {
  switch (insn.op) {
    case x86::Op::kX87:
    case x86::Op::kMmx:
    case x86::Op::kSse:
    case x86::Op::kFxsave:
    case x86::Op::kFxrstor:
    case x86::Op::kLdmxcsr:
    case x86::Op::kStmxcsr:
    case x86::Op::kEmms:
    case x86::Op::kFwait:
    case x86::Op::kMaskmov:
    case x86::Op::kAvx:
    case x86::Op::kVmaskmov:
    case x86::Op::kGather:
    case x86::Op::kVzeroupper:
    case x86::Op::kVzeroall:
    case x86::Op::kXgetbv:
    case x86::Op::kXsetbv:
    case x86::Op::kXsave:
    case x86::Op::kXsaveopt:
    case x86::Op::kXsavec:
    case x86::Op::kXsaves:
    case x86::Op::kXrstor:
    case x86::Op::kXrstors: return fpu::bind;
    default: return nullptr;
  }
}

}  // namespace kite::cpu
