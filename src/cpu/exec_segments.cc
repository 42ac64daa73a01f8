// Segment registers, the descriptor-table registers, and LAR, LSL, VERR, VERW, ARPL.
#include "cpu/exec_system.h"
#include "cpu/handlers.h"
#include "cpu/mmu.h"
#include "cpu/segments.h"

namespace kite::cpu {

namespace {

namespace flag = x86::flag;
using x86::OperandKind;
using x86::Seg;
using x86::Vector;

// --- loads of segment registers

// [SDM 3A 6.8.3] After MOV SS and POP SS, interrupts and debug traps wait for one instruction.
void hold_events(Cpu& cpu) {
  cpu.interrupt_shadow = true;
  cpu.debug.inhibited = true;
}

Seg segment_operand(const x86::Insn& insn) { return static_cast<Seg>(find_operand(insn, OperandKind::kSegReg)->reg); }

void mov_to_segment(Cpu& cpu, const Op* op) {
  const Seg segment = segment_operand(*op->insn);
  if (segment == Seg::kCs) return invalid_opcode(cpu, op);
  uint64_t selector = 0;
  if (!load_selector(cpu, op, 1, selector) || !cpu.load_segment(segment, static_cast<uint16_t>(selector)))
    KITE_FAULT(cpu, op);
  if (segment == Seg::kSs)
    hold_events(cpu);
  else if (cpu.code64)
    KITE_NEXT(cpu, op);
  cpu.state.rip = op->next_rip();
}

void mov_from_segment(Cpu& cpu, const Op* op) {
  if (!store_result(cpu, op, cpu.seg(segment_operand(*op->insn)).selector, 2)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// [SDM 2B PUSH] With a 32-bit operand, CPUs of today store 16 bits and leave the rest of the slot as it was.
void push_segment(Cpu& cpu, const Op* op) {
  const unsigned bytes = op->insn->operand_size;
  if (!cpu.push(bytes, cpu.seg(segment_operand(*op->insn)).selector, bytes == 8 ? 8 : 2)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

void pop_segment(Cpu& cpu, const Op* op) {
  const Seg segment = segment_operand(*op->insn);
  const uint64_t rsp = cpu.state.gpr[x86::kRsp];
  uint64_t selector = 0;
  if (!cpu.pop(op->insn->operand_size, selector)) KITE_FAULT(cpu, op);
  if (!cpu.load_segment(segment, static_cast<uint16_t>(selector))) {
    cpu.state.gpr[x86::kRsp] = rsp;
    KITE_FAULT(cpu, op);
  }
  if (segment == Seg::kSs) hold_events(cpu);
  cpu.state.rip = op->next_rip();
}

template <Seg kSegment>
void load_far(Cpu& cpu, const Op* op) {  // LDS, LES, LFS, LGS, LSS
  uint64_t offset = 0, selector = 0;
  if (!load_far_pointer(cpu, op, offset, selector) || !cpu.load_segment(kSegment, static_cast<uint16_t>(selector)))
    KITE_FAULT(cpu, op);
  set_gpr(cpu, find_operand(*op->insn, OperandKind::kGpr)->reg, op->insn->operand_size, offset);
  cpu.state.rip = op->next_rip();
}

// --- descriptor tables

template <x86::DescriptorTable x86::ArchState::* kTable>
void store_table(Cpu& cpu, const Op* op) {  // SGDT, SIDT
  const x86::DescriptorTable& table = cpu.arch.*kTable;
  if (!allow_user_query(cpu) || !store_at(cpu, op, 0, 2, table.limit) ||
      !store_at(cpu, op, 2, cpu.code64 ? 8 : 4, table.base))
    KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

template <x86::DescriptorTable x86::ArchState::* kTable>
void load_table(Cpu& cpu, const Op* op) {  // LGDT, LIDT
  uint64_t limit = 0, base = 0;
  if (!require_cpl0(cpu) || !load_at(cpu, op, 0, 2, limit) || !load_at(cpu, op, 2, cpu.code64 ? 8 : 4, base))
    KITE_FAULT(cpu, op);
  if (cpu.code64 && !Mmu(cpu).canonical_base(base)) {
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  if (!cpu.code64 && op->insn->operand_size == 2) base &= 0xffffff;
  cpu.arch.*kTable = {.base = base, .limit = static_cast<uint16_t>(limit)};
  KITE_NEXT(cpu, op);
}

template <x86::SegmentRegister x86::ArchState::* kRegister>
void store_system_selector(Cpu& cpu, const Op* op) {  // SLDT, STR
  if (cpu.real_or_v86()) return invalid_opcode(cpu, op);
  if (!allow_user_query(cpu) || !store_result(cpu, op, (cpu.arch.*kRegister).selector, 2)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// Reads an LDT or available-TSS descriptor for LLDT or LTR; in IA-32e mode its upper half holds more of the base.
bool read_system_segment(Cpu& cpu, uint16_t selector, Descriptor& descriptor, uint64_t& base) {
  const uint32_t error = selector_error(selector);
  const unsigned bytes = cpu.long_mode() ? 16 : 8;
  if ((selector & 4) != 0 || !descriptor_address(cpu, selector, bytes, descriptor.address))
    return cpu.raise(Vector::kGp, error);
  if (!read_descriptor(cpu, selector, Vector::kGp, descriptor)) return false;
  base = descriptor.base();
  if (bytes == 8) return true;
  uint64_t high = 0;
  if (!cpu.system_read(descriptor.address + 8, 8, high)) return false;
  base |= high << 32;
  if ((high >> 40 & 31) != 0 || !Mmu(cpu).canonical_base(base)) return cpu.raise(Vector::kGp, error);
  return true;
}

bool load_ldt(Cpu& cpu, uint16_t selector) {
  if (null_selector(selector)) {
    cpu.arch.ldtr = null_segment(selector);
    return true;
  }
  const uint32_t error = selector_error(selector);
  Descriptor descriptor;
  uint64_t base = 0;
  if (!read_system_segment(cpu, selector, descriptor, base)) return false;
  if (!descriptor.system() || descriptor.type() != systype::kLdt) return cpu.raise(Vector::kGp, error);
  if (!descriptor.present()) return cpu.raise(Vector::kNp, error);
  cpu.arch.ldtr = make_segment(selector, descriptor);
  cpu.arch.ldtr.base = base;
  return true;
}

bool load_task(Cpu& cpu, uint16_t selector) {
  const uint32_t error = selector_error(selector);
  if (null_selector(selector)) return cpu.raise(Vector::kGp, 0);
  Descriptor descriptor;
  uint64_t base = 0;
  if (!read_system_segment(cpu, selector, descriptor, base)) return false;
  const bool free_tss = descriptor.system() && (descriptor.type() == systype::kTss32 ||
                                                (descriptor.type() == systype::kTss16 && !cpu.long_mode()));
  if (!free_tss) return cpu.raise(Vector::kGp, error);
  if (!descriptor.present()) return cpu.raise(Vector::kNp, error);
  uint8_t before = 0;
  if (!Mmu(cpu).system_update(descriptor.address + 5, systype::kBusyBit, 0, before)) return false;
  cpu.arch.tr = make_segment(selector, descriptor);
  cpu.arch.tr.attributes |= systype::kBusyBit;
  cpu.arch.tr.base = base;
  return true;
}

template <bool (*kLoad)(Cpu&, uint16_t)>
void load_system_selector(Cpu& cpu, const Op* op) {  // LLDT, LTR
  if (cpu.real_or_v86()) return invalid_opcode(cpu, op);
  uint64_t selector = 0;
  if (!require_cpl0(cpu) || !load_selector(cpu, op, 0, selector) || !kLoad(cpu, static_cast<uint16_t>(selector)))
    KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// --- questions about descriptors

enum class Question : uint8_t { kAccessRights, kLimit, kReadable, kWritable };

bool system_type_answers(const Cpu& cpu, uint8_t type, Question question) {
  using namespace systype;
  switch (type) {
    case kLdt:
    case kTss32:
    case kTss32Busy: return true;
    case kTss16:
    case kTss16Busy: return !cpu.long_mode();
    case kCallGate32: return question == Question::kAccessRights;
    case kCallGate16:
    case kTaskGate: return question == Question::kAccessRights && !cpu.long_mode();
    default: return false;
  }
}

// Whether the program may ask: the descriptor exists, is of a fitting type and within its privilege. Nothing is raised
// but what reading the table raises.
bool answers(Cpu& cpu, uint16_t selector, Question question, Descriptor& descriptor) {
  if (null_selector(selector) || !descriptor_address(cpu, selector, 8, descriptor.address)) return false;
  if (!read_descriptor(cpu, selector, Vector::kGp, descriptor)) return false;
  if (descriptor.system()) {
    const bool asks_system = question == Question::kAccessRights || question == Question::kLimit;
    if (!asks_system || !system_type_answers(cpu, descriptor.type(), question)) return false;
  }
  if (question == Question::kReadable && !descriptor.readable()) return false;
  if (question == Question::kWritable && !descriptor.writable_data()) return false;
  if (descriptor.conforming()) return true;
  return descriptor.dpl() >= cpu.cpl && descriptor.dpl() >= (selector & 3);
}

template <Question kQuestion, unsigned kSelectorOperand>
void ask_descriptor(Cpu& cpu, const Op* op) {  // LAR, LSL, VERR, VERW
  if (cpu.real_or_v86()) return invalid_opcode(cpu, op);
  uint64_t selector = 0;
  if (!load_selector(cpu, op, kSelectorOperand, selector)) KITE_FAULT(cpu, op);
  Descriptor descriptor;
  const bool yes = answers(cpu, static_cast<uint16_t>(selector), kQuestion, descriptor);
  if (cpu.exception.has_value()) KITE_FAULT(cpu, op);
  cpu.state.cc = yes ? cpu.state.cc | flag::kZf : cpu.state.cc & ~flag::kZf;
  if constexpr (kQuestion == Question::kAccessRights || kQuestion == Question::kLimit) {
    const uint32_t value = kQuestion == Question::kLimit ? descriptor.limit() : descriptor.high & 0x00f0ff00;
    if (yes) set_gpr(cpu, op->insn->operand[0].reg, op->insn->operand_size, value);
  }
  KITE_NEXT(cpu, op);
}

// [SDM 2A, ARPL] Raises the RPL of operand 0 to that of operand 1.
void arpl(Cpu& cpu, const Op* op) {
  if (cpu.real_or_v86()) return invalid_opcode(cpu, op);
  const x86::Operand& target = op->insn->operand[0];
  uint64_t selector = 0;
  if (!load_selector(cpu, op, 0, selector)) KITE_FAULT(cpu, op);
  const uint64_t rpl = cpu.state.gpr[op->insn->operand[1].reg] & 3;
  const bool raises = (selector & 3) < rpl;
  if (raises) {
    selector = (selector & ~uint64_t{3}) | rpl;
    if (target.kind == OperandKind::kMem) {
      if (!store_at(cpu, op, 0, 2, selector)) KITE_FAULT(cpu, op);
    } else {
      set_gpr(cpu, target.reg, 2, selector);
    }
  }
  cpu.state.cc = raises ? cpu.state.cc | flag::kZf : cpu.state.cc & ~flag::kZf;
  KITE_NEXT(cpu, op);
}

struct Row {
  x86::Op op;
  Handler handler;
};
constexpr Row kRows[] = {
    {x86::Op::kMovToSeg, mov_to_segment},
    {x86::Op::kMovFromSeg, mov_from_segment},
    {x86::Op::kPushSeg, push_segment},
    {x86::Op::kPopSeg, pop_segment},
    {x86::Op::kLds, load_far<Seg::kDs>},
    {x86::Op::kLes, load_far<Seg::kEs>},
    {x86::Op::kLfs, load_far<Seg::kFs>},
    {x86::Op::kLgs, load_far<Seg::kGs>},
    {x86::Op::kLss, load_far<Seg::kSs>},
    {x86::Op::kSgdt, store_table<&x86::ArchState::gdtr>},
    {x86::Op::kSidt, store_table<&x86::ArchState::idtr>},
    {x86::Op::kLgdt, load_table<&x86::ArchState::gdtr>},
    {x86::Op::kLidt, load_table<&x86::ArchState::idtr>},
    {x86::Op::kSldt, store_system_selector<&x86::ArchState::ldtr>},
    {x86::Op::kStr, store_system_selector<&x86::ArchState::tr>},
    {x86::Op::kLldt, load_system_selector<load_ldt>},
    {x86::Op::kLtr, load_system_selector<load_task>},
    {x86::Op::kLar, ask_descriptor<Question::kAccessRights, 1>},
    {x86::Op::kLsl, ask_descriptor<Question::kLimit, 1>},
    {x86::Op::kVerr, ask_descriptor<Question::kReadable, 0>},
    {x86::Op::kVerw, ask_descriptor<Question::kWritable, 0>},
    {x86::Op::kArpl, arpl},
};

}  // namespace

Handler segment_handler(const x86::Insn& insn) {
  for (const Row& row : kRows)
    if (row.op == insn.op) return row.handler;
  return nullptr;
}

}  // namespace kite::cpu
