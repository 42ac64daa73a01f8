// Binding: from a decoded instruction to the Op that executes it.
#include "cpu/block.h"
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

using x86::FeatureWord;
using x86::Insn;
using x86::Need;
using x86::Operand;
using x86::OperandKind;

struct NeedBit {
  Need need;
  FeatureWord word;
  uint8_t bit;
};
// Where CPUID shows what an instruction needs (SDM 2A CPUID, APM 3 appendix E).
constexpr NeedBit kNeeds[] = {
    {Need::kX87, FeatureWord::k1Edx, 0},
    {Need::kCx8, FeatureWord::k1Edx, 8},
    {Need::kSep, FeatureWord::k1Edx, 11},
    {Need::kCmov, FeatureWord::k1Edx, 15},
    {Need::kClflush, FeatureWord::k1Edx, 19},
    {Need::kMmx, FeatureWord::k1Edx, 23},
    {Need::kFxsr, FeatureWord::k1Edx, 24},
    {Need::kSse, FeatureWord::k1Edx, 25},
    {Need::kSse2, FeatureWord::k1Edx, 26},
    {Need::kSse3, FeatureWord::k1Ecx, 0},
    {Need::kPclmul, FeatureWord::k1Ecx, 1},
    {Need::kMonitor, FeatureWord::k1Ecx, 3},
    {Need::kSsse3, FeatureWord::k1Ecx, 9},
    {Need::kCx16, FeatureWord::k1Ecx, 13},
    {Need::kSse41, FeatureWord::k1Ecx, 19},
    {Need::kSse42, FeatureWord::k1Ecx, 20},
    {Need::kMovbe, FeatureWord::k1Ecx, 22},
    {Need::kPopcnt, FeatureWord::k1Ecx, 23},
    {Need::kAes, FeatureWord::k1Ecx, 25},
    {Need::kXsave, FeatureWord::k1Ecx, 26},
    {Need::kRdrand, FeatureWord::k1Ecx, 30},
    {Need::kFsgsbase, FeatureWord::k7Ebx, 0},
    {Need::kBmi1, FeatureWord::k7Ebx, 3},
    {Need::kInvpcid, FeatureWord::k7Ebx, 10},
    {Need::kRdseed, FeatureWord::k7Ebx, 18},
    {Need::kAdx, FeatureWord::k7Ebx, 19},
    {Need::kSmap, FeatureWord::k7Ebx, 20},
    {Need::kClflushopt, FeatureWord::k7Ebx, 23},
    {Need::kSha, FeatureWord::k7Ebx, 29},
    {Need::kRdpid, FeatureWord::k7Ecx, 22},
    {Need::kSyscall, FeatureWord::k80000001Edx, 11},
    {Need::kRdtscp, FeatureWord::k80000001Edx, 27},
    {Need::kPku, FeatureWord::k7Ecx, 3},
    {Need::kRdpru, FeatureWord::k80000008Ebx, 4},
    {Need::kWbnoinvd, FeatureWord::k80000008Ebx, 9},
    {Need::kLongMode, FeatureWord::k80000001Edx, 29},
    {Need::kLzcnt, FeatureWord::k80000001Ecx, 5},
    {Need::kPrefetchw, FeatureWord::k80000001Ecx, 8},
    {Need::kClwb, FeatureWord::k7Ebx, 24},
    {Need::kXsaveopt, FeatureWord::kD1Eax, 0},
    {Need::kXsavec, FeatureWord::kD1Eax, 1},
    {Need::kXsaves, FeatureWord::kD1Eax, 3},
    {Need::kFma, FeatureWord::k1Ecx, 12},
    {Need::kAvx, FeatureWord::k1Ecx, 28},
    {Need::kF16c, FeatureWord::k1Ecx, 29},
    {Need::kAvx2, FeatureWord::k7Ebx, 5},
    {Need::kBmi2, FeatureWord::k7Ebx, 8},
    {Need::kGfni, FeatureWord::k7Ecx, 8},
    {Need::kVaes, FeatureWord::k7Ecx, 9},
    {Need::kVpclmul, FeatureWord::k7Ecx, 10},
    {Need::kMovdiri, FeatureWord::k7Ecx, 27},
    {Need::kMovdir64b, FeatureWord::k7Ecx, 28},
    {Need::kSerialize, FeatureWord::k7Edx, 14},
    {Need::kAvxVnni, FeatureWord::k71Eax, 4},
};

bool offered(const Cpu& cpu, Need need) {
  if (need == Need::kNone) return true;
  for (const NeedBit& entry : kNeeds)
    if (entry.need == need) return cpu.has_feature(entry.word, entry.bit);
  return true;
}

// False: #UD. Where the encoding means an older instruction without the feature, it becomes that.
bool settle_feature(const Cpu& cpu, Insn& insn) {
  if (insn.op == Code::kInvalid) return false;
  // VEX forms of what there was before AVX need both.
  const bool general = insn.need == Need::kBmi1 || insn.need == Need::kBmi2;
  if (insn.vex && !general && !offered(cpu, Need::kAvx)) return false;
  if (offered(cpu, insn.need)) return true;
  switch (insn.op) {
    case Code::kLzcnt: insn.op = Code::kBsr; return true;        // F3 0F BD: the prefix is ignored
    case Code::kTzcnt: insn.op = Code::kBsf; return true;        // F3 0F BC
    case Code::kWbnoinvd: insn.op = Code::kWbinvd; return true;  // F3 0F 09
    case Code::kPrefetch: return true;                           // 0F 0D: NOP on CPUs with long mode
    default: return false;
  }
}

uint8_t register_place(const Operand& operand) {
  if (operand.kind != OperandKind::kGpr) return operand.reg;
  if (operand.high_byte) return static_cast<uint8_t>(8 * (operand.reg & 3) + 1);
  return static_cast<uint8_t>(8 * operand.reg);
}

bool is_flat(x86::Seg segment, uint32_t key) {
  if ((key & mode::kWidthMask) == mode::kWidth64) return segment != x86::Seg::kFs && segment != x86::Seg::kGs;
  switch (segment) {
    case x86::Seg::kDs: return (key & mode::kFlatDs) != 0;
    case x86::Seg::kEs: return (key & mode::kFlatEs) != 0;
    case x86::Seg::kSs: return (key & mode::kFlatSs) != 0;
    default: return false;
  }
}

void bind_memory(const Insn& insn, uint32_t key, Op& op) {
  op.segment = static_cast<uint8_t>(insn.mem.segment);
  op.flat = is_flat(insn.mem.segment, key);
  op.base = op.index = kZeroReg;
  op.disp = insn.mem.disp;
  if (insn.mem.base == x86::kRipReg)
    op.disp = static_cast<int64_t>(static_cast<uint64_t>(op.disp) + op.next_rip());
  else if (insn.mem.base != x86::kNoReg)
    op.base = insn.mem.base;
  if (insn.mem.index != x86::kNoReg && insn.mem.vector_index == 0) {
    op.index = insn.mem.index;
    op.scale = insn.mem.scale;
  }
}

uint64_t branch_target(const Insn& insn, uint64_t next_rip) {
  const uint64_t target = next_rip + insn.imm;
  if (insn.operand_size == 8) return target;
  return insn.operand_size == 4 ? static_cast<uint32_t>(target) : static_cast<uint16_t>(target);
}

// The general registers of BMI: Op::condition is where the one that VEX.vvvv names is.
void bind_vex(const Insn& insn, Op& op) {
  for (const Operand& operand : insn.operand) {
    if (operand.kind != OperandKind::kGpr) continue;
    if (operand.field == x86::Field::kRm) op.src = register_place(operand);
    if (operand.field == x86::Field::kVvvv) op.condition = register_place(operand);
  }
}

void bind_operands(const Insn& insn, uint32_t key, Op& op) {
  op.imm = insn.imm;
  op.dst = register_place(insn.operand[0]);
  op.src = register_place(insn.operand[1]);
  bind_memory(insn, key, op);
  if (insn.vex) bind_vex(insn, op);
  if (insn.op == Code::kXchg && is_memory(insn.operand[1])) op.src = op.dst;
  if (insn.op == Code::kEnter) op.disp = static_cast<int64_t>(insn.imm2);
  for (const Operand& operand : insn.operand) {
    if (operand.kind != OperandKind::kRel) continue;
    op.imm = branch_target(insn, op.next_rip());
    op.link = &no_block;
  }
}

Handler integer_handler(const Binding& binding) {
  static constexpr Handler (*kFamilies[])(const Binding&) = {
      move_handler, arithmetic_handler, branch_handler,   stack_handler, shift_handler, multiply_handler,
      bit_handler,  flag_handler,       exchange_handler, bmi_handler,   direct_handler};
  for (auto* family : kFamilies)
    if (const Handler handler = family(binding)) return handler;
  return nullptr;
}

Handler choose_handler(const Binding& binding) {
  const Insn& insn = binding.insn;
  if (insn.unit != x86::Unit::kInteger) {
    if (const Handler handler = fpu_handler(insn)) return handler;
  }
  if (const Handler handler = integer_handler(binding)) return handler;
  if (const Handler handler = string_handler(insn)) return handler;
  if (const Handler handler = system_handler(insn)) return handler;
  if (const Handler handler = fpu_handler(insn)) return handler;
  return invalid_opcode;
}

}  // namespace

void bind(const Cpu& cpu, uint64_t rip, Insn& insn, Op& op) {
  op = Op{};
  op.rip = rip;
  op.length = insn.length;
  op.operand_size = insn.operand_size;
  op.address_size = insn.address_size;
  op.condition = insn.condition;
  op.lock = insn.lock;
  if (!settle_feature(cpu, insn)) {
    op.handler = invalid_opcode;
    return;
  }
  // [APM 3, MOVSXD; SDM 2B, MOVSXD] For 16 bits AMD's processors read 32 bits of memory, Intel's 16.
  if (insn.op == Code::kMovsxd && insn.operand[0].size == 2 && is_memory(insn.operand[1]) &&
      cpu.config.cpu->vendor != "GenuineIntel")
    insn.operand[1].size = 4;
  bind_operands(insn, cpu.mode_key, op);
  op.handler = choose_handler(Binding{.insn = insn, .op = op, .mode_key = cpu.mode_key});
}

bool ends_block(Code op) {
  switch (op) {
    case Code::kInvalid:
    case Code::kJmp:
    case Code::kJmpFar:
    case Code::kCall:
    case Code::kCallFar:
    case Code::kRet:
    case Code::kRetFar:
    case Code::kIret:
    case Code::kInt:
    case Code::kInt1:
    case Code::kInt3:
    case Code::kLoop:
    case Code::kLoope:
    case Code::kLoopne:
    case Code::kJcxz:
    case Code::kSyscall:
    case Code::kSysret:
    case Code::kSysenter:
    case Code::kSysexit:
    case Code::kUd0:
    case Code::kUd1:
    case Code::kUd2:
    case Code::kHlt:
    case Code::kMwait:
    case Code::kMovToCr:
    case Code::kMovToDr:
    case Code::kLmsw:
    case Code::kClac:
    case Code::kStac:
    case Code::kInvlpg:
    case Code::kWrmsr:
    case Code::kRsm: return true;
    default: return false;
  }
}

void invalid_opcode(Cpu& cpu, const Op* op) {
  cpu.raise(x86::Vector::kUd);
  KITE_FAULT(cpu, op);
}

}  // namespace kite::cpu
