// x87 instructions. The host executes them on the whole FXSAVE image; what the host notes about the instruction itself
// (FIP, FDP, FOP) is ours and is replaced by the guest's.
#include <array>
#include <cstring>

#include "cpu/fpu_ops.h"
#include "cpu/handlers.h"

namespace kite::cpu::fpu {
namespace {

using x86::Insn;

// Op::condition of bound x87 instructions.
constexpr uint8_t kControl = 1;  // leaves FIP, FDP and FOP alone (SDM 1, 8.1.8)
constexpr uint8_t kNoWait = 2;   // does not look for pending exceptions (SDM 1, 8.3.12)

// The pointers before an instruction, to be kept unless it changes them.
struct Pointers {
  uint64_t instruction;
  uint64_t data;
  uint16_t opcode;
};
Pointers pointers(Cpu& cpu) { return {get<uint64_t>(cpu, kFip), get<uint64_t>(cpu, kFdp), get<uint16_t>(cpu, kFop)}; }

// FIP is written by every non-control instruction. FOP is written when the instruction leaves an unmasked exception (no
// opcode compatibility mode), FDP likewise or by every memory operand, as CPUID says (SDM 1, 8.1.8 and 8.1.9).
void note_instruction(Cpu& cpu, const Op* op, const Pointers& before) {
  set<uint64_t>(cpu, kFip, before.instruction);
  set<uint64_t>(cpu, kFdp, before.data);
  set<uint16_t>(cpu, kFop, before.opcode);
  if (op->condition & kControl) return;
  const bool raised = x87_pending(cpu);
  const bool segments = has_segment_pointers(cpu);
  const Insn& insn = *op->insn;
  set<uint64_t>(cpu, kFip, op->rip);
  if (segments) set<uint16_t>(cpu, kFcs, cpu.seg(Seg::kCs).selector);
  if (raised) set<uint16_t>(cpu, kFop, static_cast<uint16_t>((insn.opcode & 7u) << 8 | insn.modrm));
  if (!insn.has_mem || (!raised && data_pointer_on_exception_only(cpu))) return;
  set<uint64_t>(cpu, kFdp, cpu.effective_address(op));
  if (segments) set<uint16_t>(cpu, kFds, cpu.seg(segment_of(op)).selector);
}

bool may_run(Cpu& cpu, const Op* op) {
  if (!x87_allowed(cpu)) return false;
  if ((op->condition & kNoWait) == 0 && x87_pending(cpu)) [[unlikely]]
    return report_x87(cpu);
  return true;
}

// Runs the thunk without noting the instruction. FCOMI and FUCOMI answer flags.
void execute(Cpu& cpu, const Op* op, void* memory) {
  const auto thunk = reinterpret_cast<Thunk>(op->host_code);
  const int64_t flags = thunk(nullptr, memory, image(cpu), cpu.state.gpr);
  if (flags > 0) cpu.state.cc = static_cast<uint64_t>(flags) & x86::flag::kArithmetic;
}

void run(Cpu& cpu, const Op* op, void* memory) {
  const Pointers before = pointers(cpu);
  execute(cpu, op, memory);
  note_instruction(cpu, op, before);
}

void x87_registers(Cpu& cpu, const Op* op) {
  if (!may_run(cpu, op)) KITE_FAULT(cpu, op);
  run(cpu, op, nullptr);
  KITE_NEXT(cpu, op);
}

void x87_load(Cpu& cpu, const Op* op) {
  if (!may_run(cpu, op)) KITE_FAULT(cpu, op);
  uint64_t address = 0;
  const unsigned bytes = op->operand_size;
  if (!address_of(cpu, op, bytes, Access::kRead, address)) KITE_FAULT(cpu, op);
  std::array<uint8_t, 16> bounce;
  const void* const from = load_operand(cpu, op, address, bytes, bounce.data());
  if (from == nullptr) KITE_FAULT(cpu, op);
  run(cpu, op, const_cast<void*>(from));  // the thunk only reads it
  KITE_NEXT(cpu, op);
}

// An unmasked exception other than precision keeps the operand from being stored, and its place from being looked at:
// the bounce buffer shows whether it was.
void x87_store(Cpu& cpu, const Op* op) {
  if (!may_run(cpu, op)) KITE_FAULT(cpu, op);
  uint64_t address = 0;
  const unsigned bytes = op->operand_size;
  std::array<uint8_t, 16> bounce;
  bounce.fill(0xa5);
  const std::array<uint8_t, 16> untouched = bounce;
  const Pointers pointers_before = pointers(cpu);
  std::array<uint8_t, kXmm0> x87_before;
  std::memcpy(x87_before.data(), image(cpu), x87_before.size());
  execute(cpu, op, bounce.data());
  const bool stored = !x87_pending(cpu) || bounce != untouched;
  if (stored && (!address_of(cpu, op, bytes, Access::kWrite, address) ||
                 !probe_operand(cpu, op, address, bytes, Access::kWrite, alignment_of(bytes)) ||
                 !store_operand(cpu, op, address, bounce.data(), bytes))) {
    std::memcpy(image(cpu), x87_before.data(), x87_before.size());
    KITE_FAULT(cpu, op);
  }
  note_instruction(cpu, op, pointers_before);
  KITE_NEXT(cpu, op);
}

void fninit(Cpu& cpu, const Op* op) {
  if (!x87_allowed(cpu)) KITE_FAULT(cpu, op);
  reset_x87(cpu);
  KITE_NEXT(cpu, op);
}

template <unsigned kField>
void store_word(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  if (!x87_allowed(cpu) || !address_of(cpu, op, 2, Access::kWrite, address) ||
      !cpu.write<uint16_t>(address, get<uint16_t>(cpu, kField), segment_of(op)))
    KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

void fnstsw_ax(Cpu& cpu, const Op* op) {
  if (!x87_allowed(cpu)) KITE_FAULT(cpu, op);
  store(&cpu.state.gpr[x86::kRax], get<uint16_t>(cpu, kFsw));
  KITE_NEXT(cpu, op);
}

// --- binding

struct Special {
  uint8_t opcode;
  uint8_t modrm;  // the register form, or ModRM.reg << 3 of a memory form
  Handler handler;
};
constexpr Special kMemorySpecials[] = {
    {0xd9, 4 << 3, fldenv}, {0xd9, 6 << 3, fnstenv}, {0xd9, 7 << 3, store_word<kFcw>},
    {0xdd, 4 << 3, frstor}, {0xdd, 6 << 3, fnsave},  {0xdd, 7 << 3, store_word<kFsw>},
};
constexpr Special kRegisterSpecials[] = {{0xdb, 0xe3, fninit}, {0xdf, 0xe0, fnstsw_ax}};

Handler special(const Insn& insn) {
  const uint8_t key = insn.has_mem ? insn.modrm & 0x38 : insn.modrm;
  const std::span<const Special> table = insn.has_mem ? std::span<const Special>(kMemorySpecials) : kRegisterSpecials;
  for (const Special& row : table)
    if (row.opcode == insn.opcode && row.modrm == key) return row.handler;
  return nullptr;
}

// FNCLEX, and FENI, FDISI, FSETPM of older coprocessors, which do nothing; FLDCW waits but notes no pointers.
uint8_t control_bits(const Insn& insn) {
  if (!insn.has_mem) return insn.opcode == 0xdb && insn.modrm >= 0xe0 && insn.modrm <= 0xe4 ? kControl | kNoWait : 0;
  return insn.opcode == 0xd9 && (insn.modrm & 0x38) == 5 << 3 ? kControl : 0;
}

uint8_t memory_bytes(const Insn& insn) {
  for (const x86::Operand& operand : insn.operand)
    if (operand.kind == x86::OperandKind::kMem) return operand.size < 10 ? operand.size : uint8_t{10};
  return 0;
}

}  // namespace

Handler x87_handler(Cpu& cpu, Op& op) {
  const Insn& insn = *op.insn;
  if (const Handler handler = special(insn); handler != nullptr) return handler;
  op.host_code = reinterpret_cast<void (*)()>(cpu.fpu().x87(insn));
  if (op.host_code == nullptr) return invalid_opcode;
  op.condition = control_bits(insn);
  if (!insn.has_mem) return x87_registers;
  op.operand_size = memory_bytes(insn);
  return insn.mem_write ? x87_store : x87_load;
}

}  // namespace kite::cpu::fpu
