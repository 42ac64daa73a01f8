// x87 instructions, issued on the host's unit on the guest's registers while the guest has all exceptions masked. What
// the host notes about the last instruction is of no use: the guest's own pointers are written to the image, the
// instruction pointer once for a run of instructions.
#include "accel/jit/emitter.h"

namespace kite::jit {

using Code = x86::Op;
using cpu::TranslationArea;

namespace {

constexpr auto kAccumulator = static_cast<Reg>(kHost[x86::kRax]);
// Fields of the FXSAVE image (SDM 1, table 10-2), and where the interpreter keeps the selectors (cpu/fpu_ops.h).
constexpr int32_t kFip = 8, kFdp = 16, kFcs = 464, kFds = 466;
constexpr uint32_t kX87Masks = 0x3f;

// Forms that have to do with whole images, or are as rare: FLDENV, FNSTENV, FRSTOR, FNSAVE; FENI, FDISI, FNINIT,
// FSETPM.
bool is_for_interpreter(const x86::Insn& insn) {
  const unsigned reg = (insn.modrm >> 3) & 7;
  if (insn.has_mem)
    return (insn.opcode == 0xd9 && (reg == 4 || reg == 6)) || (insn.opcode == 0xdd && (reg == 4 || reg == 6));
  return insn.opcode == 0xdb && insn.modrm >= 0xe0 && insn.modrm <= 0xe4 && insn.modrm != 0xe2;
}
// FNSTCW, FNSTSW, FLDCW and FNCLEX leave the pointers alone (SDM 1, 8.1.8).
bool is_control(const x86::Insn& insn) {
  const unsigned reg = (insn.modrm >> 3) & 7;
  if (insn.has_mem) return (insn.opcode == 0xd9 && (reg == 5 || reg == 7)) || (insn.opcode == 0xdd && reg == 7);
  return (insn.opcode == 0xdb && insn.modrm == 0xe2) || (insn.opcode == 0xdf && insn.modrm == 0xe0);
}
// FCMOVcc; FCOMI and FUCOMI and what pops.
bool reads_flags(const x86::Insn& i) { return !i.has_mem && (i.opcode == 0xda || i.opcode == 0xdb) && i.modrm < 0xe0; }
bool writes_flags(const x86::Insn& i) {
  return !i.has_mem && (i.opcode == 0xdb || i.opcode == 0xdf) && i.modrm >= 0xe8 && i.modrm < 0xf8;
}

}  // namespace

// An unmasked exception leaves the instruction, and what follows it, to the interpreter.
void BlockEmitter::need_x87() {
  if ((units_ & TranslationArea::kX87) != 0) return;
  save_flags();
  a_.rm(4, 0xf7, 0, before(4, in_cpu(layout_.units)));  // test
  a_.dword(TranslationArea::kX87);
  uint8_t* const jump = a_.jcc(Condition::kE);
  flags_lost();
  detours_.push_back({.kind = Detour::Kind::kLoad,
                      .jump = jump,
                      .resume = a_.here(),
                      .site = &new_site(true),
                      .units = TranslationArea::kVectors | TranslationArea::kX87,
                      .fip = fip_});
  units_ = TranslationArea::kVectors | TranslationArea::kX87;
}

// FIP, where an instruction has been executed since it was last written. RAX is lost.
void BlockEmitter::write_instruction_pointer(Assembler& a, uint64_t rip) const {
  if (rip == kNoRip) return;
  if (Assembler::fits_signed(rip)) {
    a.store_imm(8, layout_.image(kFip), static_cast<uint32_t>(rip));
  } else {
    a.mov_imm(kRax, rip);
    a.store(8, layout_.image(kFip), kRax);
  }
  if (cpu_.has_feature(x86::FeatureWord::k7Ebx, 13)) return;                            // FCS and FDS are always zero
  a.rm(4, 0x0fb7, kRax, in_cpu(layout_.selector[static_cast<size_t>(x86::Seg::kCs)]));  // movzx
  a.store(2, layout_.image(kFcs), kRax);
}

// FDP, unless only exceptions write it (CPUID.7.EBX[6]).
void BlockEmitter::note_operand() {
  if (cpu_.has_feature(x86::FeatureWord::k7Ebx, 6)) return;
  effective_address(op().address_size, kR10);
  a_.store(8, layout_.image(kFdp), kR10);
  if (cpu_.has_feature(x86::FeatureWord::k7Ebx, 13)) return;
  a_.rm(4, 0x0fb7, kRax, in_cpu(layout_.selector[op().segment]));
  a_.store(2, layout_.image(kFds), kRax);
}

BlockEmitter::Outcome BlockEmitter::x87() {
  const x86::Insn& i = insn();
  const bool is_x87 = i.op == Code::kX87;
  if (!is_x87 && i.op != Code::kFwait && i.op != Code::kEmms) return Outcome::kInterpret;
  // The bit says that neither CR0.EM nor CR0.TS is set.
  if ((block_.mode_key & cpu::mode::kSse) == 0) return Outcome::kInterpret;
  if (is_x87 && (is_for_interpreter(i) || (i.has_mem && !memory_allowed()))) return Outcome::kInterpret;
  need_x87();
  if (i.op == Code::kFwait) return Outcome::kDone;  // nothing can be pending
  if (i.op == Code::kEmms) {
    a_.byte(0x0f);
    a_.byte(0x77);
    return Outcome::kDone;
  }
  if (i.has_mem) return x87_memory();
  if (i.opcode == 0xdf && i.modrm == 0xe0) {  // fnstsw ax
    a_.byte(i.opcode);
    a_.byte(i.modrm);
    a_.mov(2, kAccumulator, kRax);
    return Outcome::kDone;
  }
  if (reads_flags(i)) load_flags();
  a_.byte(i.opcode);
  a_.byte(i.modrm);
  if (writes_flags(i)) flags_made();
  if (!is_control(i)) fip_ = op().rip;
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::x87_memory() {
  const x86::Insn& i = insn();
  const unsigned reg = (i.modrm >> 3) & 7;
  const auto operand = std::ranges::find_if(i.operand, is_memory);
  const bool load_control = i.opcode == 0xd9 && reg == 5;
  const Place place = look_up(operand->size, i.mem_write);
  if (load_control) {                   // one that unmasks an exception may raise it
    a_.rm(4, 0x0fb7, kRax, place.mem);  // movzx
    a_.alu_imm(4, 4, kRax, kX87Masks);
    a_.alu_imm(4, 7, kRax, kX87Masks);
    miss(a_.jcc(Condition::kNe));
  }
  a_.rm(4, i.opcode, reg, place.mem);
  const bool control = is_control(i);
  if (!control) fip_ = op().rip;
  if (i.mem_write) stored(place);
  if (!control) note_operand();
  return Outcome::kDone;
}

}  // namespace kite::jit
