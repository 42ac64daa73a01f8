// Flags that are not arithmetic, fences, segment registers; and how code goes on behind instructions of the system.
#include "accel/jit/emitter.h"

namespace kite::jit {

using Code = x86::Op;
using x86::Operand;

BlockEmitter::Outcome BlockEmitter::system() {
  switch (insn().op) {
    case Code::kCld: return change_flag(x86::flag::kDf, false);
    case Code::kStd: return change_flag(x86::flag::kDf, true);
    case Code::kCli: return clear_interrupt_flag();
    case Code::kSti: return set_interrupt_flag();
    case Code::kPushf: return push_flags();
    case Code::kSwapgs: return swap_gs();
    case Code::kMovFromSeg: return move_from_segment();
    case Code::kPause: return pause();
    case Code::kClac: return change_access(false);
    case Code::kStac: return change_access(true);
    case Code::kRdfsbase: return read_base(x86::Seg::kFs);
    case Code::kRdgsbase: return read_base(x86::Seg::kGs);
    case Code::kWrfsbase: return write_base(x86::Seg::kFs);
    case Code::kWrgsbase: return write_base(x86::Seg::kGs);
    case Code::kMfence:
    case Code::kSerialize:  // MFENCE
      a_.byte(0x0f);
      a_.byte(0xae);
      a_.byte(0xf0);
      return Outcome::kDone;
    default: return Outcome::kInterpret;
  }
}

// The interpreter executes the instruction, which ends the block; code is entered again where that leads to.
void BlockEmitter::execute_and_go_on() {
  save_flags();
  write_instruction_pointer();
  site_ = &new_site(false);
  site_->emitted = false;
  a_.mov_imm(kR10, reinterpret_cast<uintptr_t>(site_));
  a_.jmp(t_.runtime().execute);
}

BlockEmitter::Outcome BlockEmitter::change_flag(uint64_t flag, bool set) {
  save_flags();
  if (set)
    a_.alu_imm(4, 1, in_cpu(layout_.rflags), static_cast<uint32_t>(flag));
  else
    a_.alu_imm(4, 4, in_cpu(layout_.rflags), ~static_cast<uint32_t>(flag));
  flags_lost();
  return Outcome::kDone;
}

// Leaves the instruction to the interpreter above privilege 0. False: it always is.
bool BlockEmitter::require_privilege() {
  if ((block_.mode_key & cpu::mode::kUser) != 0) return false;
  save_flags();
  a_.alu_imm(1, 7, in_cpu(layout_.cpl), 0);
  miss(a_.jcc(Condition::kNe));
  return true;
}

// Leaves the instruction to the interpreter while a bit of CR4 is clear.
void BlockEmitter::require_control(uint64_t bit) {
  save_flags();
  a_.rm(4, 0xf7, 0, before(4, in_cpu(layout_.cr4)));  // test
  a_.dword(static_cast<uint32_t>(bit));
  miss(a_.jcc(Condition::kE));
}

// CLAC and STAC change the TLB table that serves the kernel's accesses, and with it the mode of what follows, as
// Cpu::update_rights() does; while CR4 has no use for the flag, nothing.
BlockEmitter::Outcome BlockEmitter::change_access(bool set) {
  ends_ = true;
  if (!wide_ || !require_privilege()) return Outcome::kInterpret;
  require_control(x86::cr4::kSmap);
  change_flag(x86::flag::kAc, set);
  const auto kind = static_cast<uint32_t>(set ? cpu::TlbKind::kSupervisorUserOk : cpu::TlbKind::kSupervisor);
  const uint32_t key = (block_.mode_key & ~cpu::mode::kKindMask) | kind << cpu::mode::kKindShift;
  if (key != block_.mode_key) {
    a_.store_imm(4, in_cpu(layout_.mode_key), key);
    a_.mov_imm(kRax, reinterpret_cast<uintptr_t>(&cpu_.tlb(static_cast<cpu::TlbKind>(kind))));
    a_.store(8, in_cpu(layout_.tlb_place), kRax);
  }
  write_instruction_pointer();
  Exit& exit = new_exit(op().next_rip());
  exit.mode_key = key;
  leave_by(a_.jmp(), exit, true);
  return Outcome::kEnd;
}

BlockEmitter::Outcome BlockEmitter::read_base(x86::Seg segment) {
  if (!wide_) return Outcome::kInterpret;
  require_control(x86::cr4::kFsgsbase);
  const unsigned to = insn().operand[0].reg;
  const Reg target = BlockEmitter::target(to, kRax);
  a_.load(op().operand_size, target, in_cpu(layout_.segment_base[static_cast<size_t>(segment)]));
  put(to, target);
  return Outcome::kDone;
}

// What is canonical with five levels alone is the interpreter's to judge.
BlockEmitter::Outcome BlockEmitter::write_base(x86::Seg segment) {
  constexpr uint8_t kAboveCanonical = 16;
  if (!wide_) return Outcome::kInterpret;
  require_control(x86::cr4::kFsgsbase);
  const Reg from = use(insn().operand[0].reg, kR10);
  a_.mov(op().operand_size, kRax, from);
  if (op().operand_size == 8) {
    a_.shift_imm(8, 4, kRax, kAboveCanonical);
    a_.shift_imm(8, 7, kRax, kAboveCanonical);
    a_.rr(8, 0x39, from, kRax);  // cmp
    miss(a_.jcc(Condition::kNe));
  }
  a_.store(8, in_cpu(layout_.segment_base[static_cast<size_t>(segment)]), kRax);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::clear_interrupt_flag() {
  return require_privilege() ? change_flag(x86::flag::kIf, false) : Outcome::kInterpret;
}

// Interrupts stay out until the end of the next instruction: while nothing waits and that one is of this block, there
// is nothing to hold back.
BlockEmitter::Outcome BlockEmitter::set_interrupt_flag() {
  if (is_last() || !require_privilege()) return Outcome::kInterpret;
  a_.load(8, kRax, in_cpu(layout_.requests));
  a_.alu_imm(4, 7, at(kRax), 0);
  miss(a_.jcc(Condition::kNe));
  return change_flag(x86::flag::kIf, true);
}

BlockEmitter::Outcome BlockEmitter::push_flags() {
  if (op().operand_size != pointer_bytes_) return Outcome::kInterpret;
  constexpr auto kHidden = static_cast<uint32_t>(x86::flag::kRf | x86::flag::kVm);  // [SDM 2B, PUSHF] read as 0
  save_flags();
  load_flags();
  a_.byte(0x9c);  // pushfq
  a_.byte(0x58);  // pop rax
  a_.alu_imm(4, 4, kRax, static_cast<uint32_t>(x86::flag::kArithmetic));
  a_.rm(4, 0x0b, kRax, in_cpu(layout_.rflags));  // or
  a_.alu_imm(4, 4, kRax, ~kHidden);
  a_.store(8, in_cpu(layout_.spare), kRax);
  flags_lost();
  Place place = look_up_stack(-static_cast<int32_t>(pointer_bytes_), true);
  a_.load(8, kRax, in_cpu(layout_.spare));
  a_.store(pointer_bytes_, place.mem, kRax);
  pushed(place);
  stored(place);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::swap_gs() {
  if (!wide_ || !require_privilege()) return Outcome::kInterpret;
  const Mem base = in_cpu(layout_.segment_base[static_cast<size_t>(x86::Seg::kGs)]);
  const Mem kernel_base = in_cpu(layout_.kernel_gs_base);
  a_.load(8, kRax, base);
  a_.load(8, kR10, kernel_base);
  a_.store(8, base, kR10);
  a_.store(8, kernel_base, kRax);
  flags_lost();
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::move_from_segment() {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  if (from.kind != x86::OperandKind::kSegReg) return Outcome::kInterpret;
  const Mem selector = in_cpu(layout_.selector[from.reg]);
  if (is_memory(to)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(2, true);
    a_.rm(4, 0x0fb7, kRax, selector);  // movzx
    a_.store(2, place.mem, kRax);
    stored(place);
    return Outcome::kDone;
  }
  if (op().operand_size == 2) {
    a_.rm(4, 0x0fb7, kRax, selector);
    const Reg target = use(to.reg, kR10);
    a_.mov(2, target, kRax);
    put(to.reg, target);
    return Outcome::kDone;
  }
  const Reg target = BlockEmitter::target(to.reg, kRax);
  a_.rm(4, 0x0fb7, target, selector);
  put(to.reg, target);
  return Outcome::kDone;
}

// Now and then the interpreter yields the host's CPU.
BlockEmitter::Outcome BlockEmitter::pause() {
  constexpr uint32_t kBetweenYields = 63;
  save_flags();
  a_.load(4, kR10, in_cpu(layout_.pauses));
  a_.alu_imm(4, 0, kR10, 1);
  a_.rr(4, 0xf7, 0, kR10);  // test
  a_.dword(kBetweenYields);
  miss(a_.jcc(Condition::kE));
  a_.store(4, in_cpu(layout_.pauses), kR10);
  a_.byte(0xf3);
  a_.byte(0x90);
  flags_lost();
  return Outcome::kDone;
}

}  // namespace kite::jit
