// Near branches, and the ways from one block to the next.
#include <cstddef>

#include "accel/jit/emitter.h"

namespace kite::jit {

using Code = x86::Op;
using x86::Operand;

namespace {

constexpr auto kCounter = static_cast<Reg>(kHost[x86::kRcx]);

bool plainly_canonical(uint64_t address) {
  return static_cast<uint64_t>(static_cast<int64_t>(address << 16) >> 16) == address;
}

}  // namespace

// Whether a direct branch needs no check of its target; the rest is the interpreter's.
bool BlockEmitter::target_is_safe(uint64_t target) const { return !wide_ || plainly_canonical(target); }

BlockEmitter::Outcome BlockEmitter::branches() {
  switch (insn().op) {
    case Code::kJcc:
    case Code::kJmp:
    case Code::kCall:
    case Code::kRet:
    case Code::kLoop:
    case Code::kJcxz: write_instruction_pointer(); break;
    default: return Outcome::kInterpret;
  }
  switch (insn().op) {
    case Code::kJcc: return jump_if();
    case Code::kJmp: return jump();
    case Code::kCall: return call();
    case Code::kRet: return ret();
    case Code::kLoop:
    case Code::kJcxz: return count_and_jump();
    default: return Outcome::kInterpret;
  }
}

Exit& BlockEmitter::new_exit(uint64_t target) {
  Exit& exit = t_.new_exit();
  exit.target = target;
  exit.page = translation_.page;
  exit.mode_key = block_.mode_key;
  exit.crosses = cpu::page_of(target) != cpu::page_of(block_.rip);
  exit.flags_in_host = flags_in_host() && flags_ != Flags::kBoth;
  return exit;
}

// A jump that leads to `exit` until it is linked. Flags that another page wants saved are, out of line, and what is
// linked is behind that.
void BlockEmitter::leave_by(uint8_t* jump, Exit& exit, bool link) {
  const bool saves = flags_in_host() && flags_ != Flags::kBoth, links_behind = link && saves && exit.crosses;
  if (link) exit.jump = jump;
  if (links_behind) exit.flags_in_host = false;
  detours_.push_back({.kind = Detour::Kind::kLeave,
                      .jump = jump,
                      .exit = &exit,
                      .save = saves,
                      .links_behind = links_behind,
                      .recipe = recipe_of_lost()});
}

// Leaves for `exit` when something waits for the run loop. EFLAGS are lost.
void BlockEmitter::check_alarm(Exit& exit) {
  guard_flags_here();
  a_.alu_imm(4, 7, in_cpu(layout_.alarm), 0);
  flags_lost();
  leave_by(a_.jcc(Condition::kNe), exit, false);
}

void BlockEmitter::go_to(uint64_t target, uint64_t from) {
  write_instruction_pointer();
  const bool backward = target <= from;
  if (cpu::page_of(target) != cpu::page_of(block_.rip)) save_flags();
  if (backward) check_alarm(new_exit(target));
  if (target == block_.rip && backward) {
    if (flags_ == Flags::kAnew && !flags_are_dead()) save_flags();
    return a_.jmp(translation_.entry_saved);
  }
  if (flags_ == Flags::kAnew) load_flags();
  Exit& exit = new_exit(target);
  leave_by(a_.jmp(), exit, true);
}

// Whether the alarm is best looked at before the current instruction, which makes the flags that a branch backward
// behind it asks for: what that loses of EFLAGS need not be made anew.
bool BlockEmitter::looks_at_alarm_early() const {
  if (index_ + 1 >= count_ || insns_[index_ + 1].op != Code::kJcc) return false;
  const cpu::Op& branch = ops_[index_ + 1];
  if (branch.imm > branch.rip || branch.operand_size == 2 || !target_is_safe(branch.imm)) return false;
  const Effects& known = effects_[index_];
  if (known.reads || !(known.makes_carry || known.makes_others)) return false;
  const bool in_host = flags_ == Flags::kHost || flags_ == Flags::kHostOrAnew;
  return in_host ? known.makes_carry && recipe_.kind != Recipe::Kind::kNone : true;
}

// Whether a branch of the current instruction begins the block again, with flags that the entry would want saved.
bool BlockEmitter::can_run_again(uint64_t target) const {
  constexpr unsigned kMostInstructions = 40;
  return target == block_.rip && translation_.stage == Translation::Stage::kLast && !is_copy_ && !has_copy_ &&
         index_ < kMostInstructions && translation_.exec_id2 == 0 && !t_.profiles() && flags_ != Flags::kSaved &&
         flags_ != Flags::kBoth && recipe_.kind != Recipe::Kind::kNone && are_dead_from(0, recipe_);
}

// A loop of one block: its second run and all that follow are code of their own, which knows how to make the flags that
// it begins with, so they need not be saved. It goes on here when the branch is not taken.
void BlockEmitter::run_again(std::optional<Condition> condition) {
  const auto opposite = [&] { return a_.jcc(static_cast<Condition>(static_cast<unsigned>(*condition) ^ 1)); };
  std::vector<uint8_t*> over;
  if (condition) over.push_back(opposite());
  const Flags flags = flags_;
  const Recipe recipe = recipe_;
  const uint32_t units = units_;
  const unsigned branch = index_;
  const uint8_t* const again = a_.here();
  const bool seen_before = alarm_seen_ == index_;
  if (seen_before)
    flags_ = Flags::kHostOrAnew;
  else
    check_alarm(new_exit(block_.rip));
  alarm_seen_ = kNoBranch;
  has_copy_ = is_copy_ = true;
  windows_.fill({});
  at_hand_ = {};
  copies_.fill(kNone);
  for (index_ = 0; index_ < branch; ++index_) next();
  write_instruction_pointer();
  if (condition) load_flags();
  if (recipe_ == recipe && units_ == units && (!seen_before || alarm_seen_ == branch)) {
    if (condition)
      a_.jcc(*condition, again);
    else
      a_.jmp(again);
  } else {
    if (condition) over.push_back(opposite());
    go_to(block_.rip, op().rip);
  }
  for (uint8_t* const jump : over) a_.bind_here(jump);
  is_copy_ = false;
  flags_ = flags;
  recipe_ = recipe;
  units_ = units;
  windows_.fill({});
  at_hand_ = {};
  copies_.fill(kNone);
  site_ = nullptr;
  unresumed_.clear();
}

BlockEmitter::Outcome BlockEmitter::jump_if() {
  const uint64_t target = op().imm;
  if (op().operand_size == 2 || !target_is_safe(target)) {
    ends_ = true;
    return Outcome::kInterpret;
  }
  load_flags();
  if (can_run_again(target)) {
    run_again(static_cast<Condition>(op().condition));
    return Outcome::kDone;
  }
  const auto condition = static_cast<Condition>(op().condition);
  if (target > op().rip || alarm_seen_ == index_) {
    const bool to_itself = target == block_.rip && translation_.entry_flags != nullptr;
    if (to_itself && translation_.exec_id2 == 0)
      a_.jcc(condition, flags_ == Flags::kBoth ? translation_.entry_saved : translation_.entry_flags);
    else
      leave_by(a_.jcc(condition), new_exit(target), true);
    return Outcome::kDone;
  }
  uint8_t* const over = a_.jcc(static_cast<Condition>(op().condition ^ 1));
  const Flags flags = flags_;
  go_to(target, op().rip);
  flags_ = flags;
  a_.bind_here(over);
  return Outcome::kDone;
}

// LOOP and JRCXZ, which keep the flags.
BlockEmitter::Outcome BlockEmitter::count_and_jump() {
  const uint64_t target = op().imm;
  ends_ = true;
  if (op().address_size != pointer_bytes_ || !target_is_safe(target) || op().operand_size == 2)
    return Outcome::kInterpret;
  save_flags();
  if (insn().op == Code::kLoop) a_.lea(pointer_bytes_, kCounter, at(kCounter, -1));
  a_.rr(pointer_bytes_, 0x85, kCounter, kCounter);  // test
  flags_lost();
  uint8_t* const over = a_.jcc(insn().op == Code::kLoop ? Condition::kE : Condition::kNe);
  go_to(target, op().rip);
  flags_lost();
  a_.bind_here(over);
  go_to(op().next_rip(), op().rip);
  return Outcome::kEnd;
}

BlockEmitter::Outcome BlockEmitter::jump() {
  const Operand& to = insn().operand[0];
  ends_ = true;
  if (to.kind == x86::OperandKind::kRel) {
    if (op().operand_size == 2 || !target_is_safe(op().imm)) return Outcome::kInterpret;
    if (can_run_again(op().imm))
      run_again({});
    else
      go_to(op().imm, op().rip);
    return Outcome::kEnd;
  }
  if (!read_target()) return Outcome::kInterpret;
  save_flags();
  a_.jmp(find_code(a_, true));
  return Outcome::kEnd;
}

// The target of an indirect branch to R10.
bool BlockEmitter::read_target() {
  const Operand& to = insn().operand[0];
  if (op().operand_size != pointer_bytes_) return false;
  if (is_memory(to)) {
    if (!memory_allowed()) return false;
    const Place place = look_up(pointer_bytes_, false);
    a_.load(pointer_bytes_, kR10, place.mem);
    return true;
  }
  save_flags();
  a_.mov(pointer_bytes_, kR10, use(to.reg, kR10));
  return true;
}

// Where the address of the code is. Only addresses that code has been entered at are found: no other check is needed.
Mem BlockEmitter::find_code(Assembler& a, bool looks_at_alarm) {
  if (looks_at_alarm) {
    a.alu_imm(4, 7, in_cpu(layout_.alarm), 0);
    miss(a.jcc(Condition::kNe));
  }
  constexpr unsigned kEntryShift = 4;
  static_assert(sizeof(cpu::TranslationArea::Jump) == 1u << kEntryShift);
  static_assert(cpu::TranslationArea::kJumpBits == 16);
  a.rr(4, 0x0fb7, kR11, kR10);  // movzx
  a.shift_imm(4, 4, kR11, kEntryShift);
  const Reg salted = add_salt(a);
  a.rm(8, 0x3b, salted, in_cpu(kR11, layout_.jumps + static_cast<int32_t>(offsetof(cpu::TranslationArea::Jump, tag))));
  miss(a.jcc(Condition::kNe));
  return in_cpu(kR11, layout_.jumps + static_cast<int32_t>(offsetof(cpu::TranslationArea::Jump, code)));
}

// The address in R10 with the salt of the block's mode: in RAX, or R10 if that is 0.
Reg BlockEmitter::add_salt(Assembler& a) {
  const uint64_t salt = t_.jump_salt(block_.mode_key);
  if (salt == 0) return kR10;
  a.mov_imm(kRax, salt);
  a.rr(8, 0x31, kR10, kRax);  // xor
  return kRax;
}

void BlockEmitter::push_return(uint64_t leave_rip) {
  const uint64_t next = wide_ ? op().next_rip() : static_cast<uint32_t>(op().next_rip());
  Place place = look_up_stack(-static_cast<int32_t>(pointer_bytes_), true);
  if (!wide_ || Assembler::fits_signed(next)) {
    a_.store_imm(pointer_bytes_, place.mem, static_cast<uint32_t>(next));
  } else {
    a_.mov_imm(kRax, next);
    a_.store(8, place.mem, kRax);
  }
  pushed(place);
  stored(place, leave_rip);
}

// Calls of the guest are calls of the host, so that the host predicts the returns: the stack gets the guest's return
// address beside the host's. It is forgotten whenever translated code is left, and when it is full: then the alarm is
// looked at, too, which spares calls doing so. `exit` leads to the target; null: that is in spare[1].
void BlockEmitter::predict_return(Exit* exit) {
  a_.rm(8, 0x3b, kRsp, in_cpu(layout_.returns_end));  // cmp
  detours_.push_back(
      {.kind = Detour::Kind::kForget, .jump = a_.jcc(Condition::kBe), .resume = a_.here(), .exit = exit});
  const uint64_t next = wide_ ? op().next_rip() : static_cast<uint32_t>(op().next_rip());
  const uint64_t salted = next ^ t_.jump_salt(block_.mode_key);
  if (Assembler::fits_signed(salted)) {
    a_.byte(0x68);  // push
    a_.dword(static_cast<uint32_t>(salted));
  } else {
    a_.mov_imm(kRax, salted);
    a_.byte(0x50);  // push rax
  }
}

// What was mapped here at the call may have changed: the way on is checked as that to another page. User code cannot
// change it; before it runs on after somebody else did, its returns are forgotten (TranslationArea::returns_lost).
void BlockEmitter::return_here() {
  flags_ = Flags::kSaved;
  Exit& exit = new_exit(wide_ ? op().next_rip() : static_cast<uint32_t>(op().next_rip()));
  if (kind() != static_cast<size_t>(cpu::TlbKind::kUser)) exit.crosses = true;
  leave_by(a_.jmp(), exit, true);
}

// As go_to().
void BlockEmitter::call_to(uint64_t target) {
  write_instruction_pointer();
  save_flags();
  predict_return(&new_exit(target));
  if (target == block_.rip) {
    a_.call(translation_.entry_saved);
  } else {
    Exit& exit = new_exit(target);
    leave_by(a_.call(), exit, true);
  }
  return_here();
}

BlockEmitter::Outcome BlockEmitter::call() {
  const Operand& to = insn().operand[0];
  ends_ = true;
  if (op().operand_size != pointer_bytes_) return Outcome::kInterpret;
  if (to.kind == x86::OperandKind::kRel) {
    if (!target_is_safe(op().imm)) return Outcome::kInterpret;
    push_return(op().imm);
    call_to(op().imm);
    return Outcome::kEnd;
  }
  if (!read_target()) return Outcome::kInterpret;
  save_flags();
  a_.load(8, kRax, find_code(a_, false));
  a_.store(8, in_cpu(layout_.spare), kRax);
  a_.store(8, in_cpu(layout_.spare + 8), kR10);
  push_return(Site::kDynamic);
  predict_return(nullptr);
  a_.call(in_cpu(layout_.spare));
  return_here();
  return Outcome::kEnd;
}

// To where the last call predicted; else that prediction is dropped, by a RET too, since the host counts them.
BlockEmitter::Outcome BlockEmitter::ret() {
  ends_ = true;
  if (op().operand_size != pointer_bytes_) return Outcome::kInterpret;
  const auto release = static_cast<int32_t>(pointer_bytes_ + static_cast<uint32_t>(op().imm));
  const Place place = look_up_stack(0, false);
  a_.load(pointer_bytes_, kR10, place.mem);
  save_flags();
  a_.rm(8, 0x3b, add_salt(a_), at(kRsp, 8));  // cmp
  uint8_t* const other = a_.jcc(Condition::kNe);
  a_.lea(pointer_bytes_, kStackPointer, at(kStackPointer, release));
  a_.ret(sizeof(uint64_t));
  a_.bind(other, cold_.here());
  cold_.rm(8, 0x3b, kRsp, in_cpu(layout_.returns));  // cmp
  uint8_t* const none = cold_.jcc(Condition::kE);
  uint8_t* const dropped = cold_.lea_here(kR11);
  cold_.store(8, at(kRsp), kR11);
  cold_.ret();
  cold_.bind_here(dropped);
  cold_.lea(8, kRsp, at(kRsp, 8));
  cold_.bind_here(none);
  const Mem code = find_code(cold_, true);
  cold_.lea(pointer_bytes_, kStackPointer, at(kStackPointer, release));
  cold_.jmp(code);
  return Outcome::kEnd;
}

}  // namespace kite::jit
