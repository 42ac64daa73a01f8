#include "streams/tolerance.h"

#include <algorithm>
#include <cstring>
#include <span>

namespace kite::streams {
namespace {

using Code = x86::Op;

constexpr uint64_t kDebug = 1, kStackFault = 12, kGeneralProtection = 13, kPageFault = 14, kAlignmentCheck = 17;
constexpr size_t kMxcsr = 24, kXmm0 = 160;

bool is_one_of(Code code, std::initializer_list<Code> codes) { return std::ranges::find(codes, code) != codes.end(); }
bool loads_state(const x86::Insn& insn) { return is_one_of(insn.op, {Code::kXrstor, Code::kFxrstor}); }
bool stores_state(const x86::Insn& insn) {
  return is_one_of(insn.op, {Code::kXsave, Code::kXsaveopt, Code::kXsavec, Code::kFxsave});
}
// FLDENV, FRSTOR, FNSTENV, FNSAVE
bool is_x87_image(const x86::Insn& insn) {
  const unsigned reg = (insn.modrm >> 3) & 7;
  return insn.op == Code::kX87 && insn.has_mem && (insn.opcode == 0xd9 || insn.opcode == 0xdd) &&
         (reg == 4 || reg == 6);
}

bool has_two_operands_in_memory(const x86::Insn& insn) { return is_one_of(insn.op, {Code::kCmps, Code::kMovs}); }

bool is_vcvtps2ph(const x86::Insn& insn) { return insn.vex && insn.map == 3 && insn.opcode == 0x1d; }

// An operand that runs over the end of 32-bit addresses and, where that is no violation of the segment's limit, begins
// at zero again.
bool wraps(const Outcome& outcome) {
  constexpr uint64_t kLastPage = 0xfffff000;
  const uint64_t page = outcome.fault_address & ~uint64_t{0xfff};
  return outcome.vector == kPageFault && (page == 0 || page == kLastPage);
}

// [SDM 3A, table 6-7] leaves the alignment that #AC asks of them to the processor.
bool alignment_is_open(const x86::Insn& insn) {
  return insn.unit != x86::Unit::kInteger || insn.op == Code::kMovdir64b || loads_state(insn) || stores_state(insn);
}

// Two outcomes of one instruction.
bool fault_is_open(const x86::Insn& insn, const Outcome& host, const Outcome& guest, bool wide) {
  if (host.vector == guest.vector) return false;
  const auto raised = [&](uint64_t vector) { return host.vector == vector || guest.vector == vector; };
  if (raised(kAlignmentCheck) && alignment_is_open(insn)) return true;
  if (!is_memory_fault(host.vector) || !is_memory_fault(guest.vector)) {
    // Whether an operand is looked for that may not be needed: BOUND's upper limit, the place for a result that is
    // found to raise an exception.
    return insn.op == Code::kBound || is_vcvtps2ph(insn);
  }
  const bool state = loads_state(insn) || stores_state(insn);
  if (raised(kAlignmentCheck) || state || has_two_operands_in_memory(insn)) return true;
  // [APM 4] says otherwise, but AMD's processors take unaligned operands of the SHA instructions.
  if (raised(kGeneralProtection) && insn.need == x86::Need::kSha) return true;
  return !wide && (wraps(host) || wraps(guest));
}

// An instruction faults in one outcome, `faulting`, and not in the other.
bool fault_is_optional(const x86::Insn& insn, const Outcome& faulting, bool in_host) {
  if (faulting.vector == kAlignmentCheck) return alignment_is_open(insn);
  if (in_host) {
    // [APM 3, MOVSXD] AMD's processors read 32 bits for a 16-bit destination too.
    if (insn.op == Code::kMovsxd) return faulting.vector == kPageFault && insn.operand_size == 2;
    // They look for the operand of a store that an unmasked exception then suppresses.
    return insn.op == Code::kX87 && insn.mem_write && is_memory_fault(faulting.vector);
  }
  if (faulting.vector != kGeneralProtection) return false;
  return insn.need == x86::Need::kSha || loads_state(insn) || insn.op == Code::kLdmxcsr;  // MXCSR.MM
}

// How much of it has been done when the fault is raised.
void forget_progress(const x86::Insn& insn, Registers& registers) {
  const auto forget_vector = [&](unsigned number) {
    std::memset(&registers.fx[kXmm0 + 16 * number], 0, 16);
    std::memset(&registers.ymm_high[16 * number], 0, 16);
  };
  if (loads_state(insn)) {
    registers.fx = {};
    registers.ymm_high = {};
  }
  if (insn.op == Code::kGather)  // the destination, and the mask of the elements to come
    for (const x86::Operand& operand : insn.operand)
      if (operand.kind == x86::OperandKind::kXmm || operand.kind == x86::OperandKind::kYmm) forget_vector(operand.reg);
  // What a repeated instruction with 32-bit addresses makes of the upper halves when it has not begun.
  const bool repeats = insn.rep || insn.repne;
  if (repeats && insn.address_size == 4)
    for (const unsigned number : {x86::kRcx, x86::kRsi, x86::kRdi}) registers.gpr[number] &= 0xffffffff;
  if (is_one_of(insn.op, {Code::kCmps, Code::kScas}) && repeats) registers.rflags &= ~x86::flag::kArithmetic;
  // VCVTPS2PH has found what is inexact before, or after, its operand is looked for.
  if (is_vcvtps2ph(insn)) std::memset(&registers.fx[kMxcsr], 0, 1);
}

// Which operand a page fault is about, and which byte of it.
void forget_place(const x86::Insn& insn, Outcome& outcome) {
  if (has_two_operands_in_memory(insn)) outcome.error_code = outcome.fault_address = 0;
  const bool masked = is_one_of(insn.op, {Code::kVmaskmov, Code::kMaskmov});
  if (masked || loads_state(insn) || stores_state(insn) || is_x87_image(insn)) outcome.fault_address = 0;
}

}  // namespace

x86::Insn instruction_at(const World& world, uint64_t rip) {
  x86::Insn insn;
  const uint64_t offset = rip - kCodeAddress;
  if (offset >= kCodeBytes - 15) return insn;
  const std::span<const uint8_t> code(&world.code[offset], 15);
  x86::decode(code, {.width = world.wide ? x86::CodeWidth::k64 : x86::CodeWidth::k32}, insn);
  return insn;
}

bool is_memory_fault(uint64_t vector) {
  return vector == kPageFault || vector == kAlignmentCheck || vector == kGeneralProtection || vector == kStackFault;
}

bool tolerate(Outcome& host, Outcome& guest, const World& world) {
  const uint64_t host_rip = host.registers.rip, guest_rip = guest.registers.rip;
  const x86::Insn insn = instruction_at(world, std::min(host_rip, guest_rip));
  if (host_rip < guest_rip && fault_is_optional(insn, host, true)) return false;
  if (host_rip > guest_rip && fault_is_optional(insn, guest, false)) return false;
  if (host_rip == guest_rip && fault_is_open(insn, host, guest, world.wide)) return false;
  for (Outcome* const outcome : {&host, &guest}) {
    // A single step may end between an instruction and what overwrites its image.
    if (outcome->vector == kDebug) outcome->memory = {};
    if (!is_memory_fault(outcome->vector)) continue;
    forget_progress(insn, outcome->registers);
    forget_place(insn, *outcome);
  }
  return true;
}

}  // namespace kite::streams
