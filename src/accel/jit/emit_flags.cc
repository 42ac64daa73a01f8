// Where the guest's arithmetic flags are, and what becomes of those that nobody will ask for.
//
// Flags that the next instructions make anew before any of them reads them are dead; only an exception would show them.
// They need not be saved when EFLAGS are lost: as long as the operands of the instruction that made them are there, the
// way out of line that leads to the exception makes them once more (Recipe).
#include "accel/jit/emitter.h"

namespace kite::jit {

using Code = x86::Op;
using x86::Operand;

namespace {

constexpr uint16_t bit(unsigned guest) { return static_cast<uint16_t>(1u << guest); }

bool plain_register(const Operand& o) { return o.kind == x86::OperandKind::kGpr && !o.high_byte; }

// Operand and immediate, or two registers: nothing that can leave the fast path.
bool is_pure(const x86::Insn& insn) {
  if (insn.has_mem && insn.op != Code::kLea && insn.op != Code::kNop) return false;
  for (const Operand& operand : insn.operand)
    if (operand.kind != x86::OperandKind::kNone && operand.kind != x86::OperandKind::kImm &&
        operand.kind != x86::OperandKind::kMem && operand.kind != x86::OperandKind::kGpr)
      return false;
  return !insn.lock;
}

}  // namespace

// What an instruction means for the flags and for the operands that they were made from. Everything that is not listed
// may read all.
BlockEmitter::Effects BlockEmitter::effects_of(const x86::Insn& insn) {
  Effects known{.consumes = !is_pure(insn), .writes = 0};
  const Operand& to = insn.operand[0];
  if (to.kind == x86::OperandKind::kGpr) known.writes = bit(to.reg);
  switch (insn.op) {
    case Code::kMov:
    case Code::kMovzx:
    case Code::kMovsx:
    case Code::kNot: break;
    case Code::kMovsxd:
      if (insn.operand[1].size == to.size) return {};
      break;
    case Code::kLea:
      if (insn.address_size == 2) return {};
      break;
    case Code::kNop:
    case Code::kEndbr: known.writes = 0; break;
    case Code::kShl:
    case Code::kShr:
    case Code::kSar:
      if (!is_immediate(insn.operand[1]) || (insn.imm & (to.size == 8 ? 63 : 31)) == 0) return {};
      known.makes_carry = known.makes_others = true;
      break;
    case Code::kCmp:
    case Code::kTest: known.writes = 0; [[fallthrough]];
    case Code::kAdd:
    case Code::kOr:
    case Code::kAnd:
    case Code::kSub:
    case Code::kXor:
    case Code::kNeg:
    case Code::kImul2:
    case Code::kImul3: known.makes_carry = known.makes_others = true; break;
    case Code::kMul:
    case Code::kImul1:
      if (to.high_byte) return {};
      known.writes = bit(x86::kRax) | bit(x86::kRdx);
      known.makes_carry = known.makes_others = true;
      break;
    case Code::kInc:
    case Code::kDec:
      if (insn.has_mem) return {};
      known.makes_others = true;
      break;
    case Code::kJcc: known.writes = 0; return known;  // not taken, where there is something behind it
    case Code::kPush:
      known.writes = bit(x86::kRsp);
      known.consumes = true;
      break;
    case Code::kPop:
      known.writes |= bit(x86::kRsp);
      known.consumes = true;
      break;
    default: return {};
  }
  known.reads = false;
  return known;
}

// Whether flags that would be lost at the current instruction are dead, and can be made anew wherever it matters.
bool BlockEmitter::can_do_without_flags() const {
  return recipe_.kind != Recipe::Kind::kNone && are_dead_from(index_, recipe_);
}

// The same of the instruction of that number, and of flags that are made so.
bool BlockEmitter::are_dead_from(unsigned number, const Recipe& recipe) const {
  bool operands_lost = false, only_carry = false;
  uint16_t operands = recipe.operands;
  for (unsigned i = number; i < count_; ++i) {
    const Effects next = effects_[i];
    if (next.reads || (next.consumes && (operands_lost || only_carry))) return false;
    if (next.makes_carry) return true;
    if (next.makes_others && keeps_carry(recipe)) {  // has a recipe of the same kind
      operands = next.writes;
      operands_lost = false;
      continue;
    }
    only_carry |= next.makes_others;
    if ((next.writes & operands) == 0) continue;
    operands_lost = true;
    if (insns_[i].mem_write || insns_[i].op == Code::kPush) return false;  // what it writes to is looked at afterwards
  }
  return false;
}

// Whether nothing behind the current instruction reads the carry flag, nor can an exception show it.
bool BlockEmitter::carry_is_dead() const {
  for (unsigned i = index_ + 1; i < count_; ++i) {
    const Effects next = effects_[i];
    if (next.reads || next.consumes) return false;
    if (next.makes_carry) return true;
  }
  return false;
}

// What the first instructions do with the flags that the block is entered with: whether they are made anew before
// anything can ask for them.
bool BlockEmitter::flags_are_dead() const {
  for (unsigned i = 0; i < count_; ++i) {
    const Effects next = effects_[i];
    if (next.reads || next.consumes) return false;
    if (next.makes_carry) return true;
  }
  return false;
}

void BlockEmitter::emit_save(Assembler& a) { t_.save_eflags(a); }

void BlockEmitter::load_eflags(Assembler& a) const {
  a.load(4, kRax, in_cpu(layout_.saved_flags));
  a.byte(0x04);  // add al, 0x7f: OF from bit 0
  a.byte(0x7f);
  a.byte(0x9e);  // sahf
}

void BlockEmitter::save_flags() {
  if (flags_ == Flags::kAnew) load_flags();
  if (!flags_in_host() || flags_ == Flags::kBoth) return;
  emit_save(a_);
  flags_ = Flags::kBoth;
}

void BlockEmitter::guard_flags() {
  if (flags_ != Flags::kHost) return;
  if (can_do_without_flags())
    flags_ = Flags::kHostOrAnew;
  else
    save_flags();
}

void BlockEmitter::guard_flags_here() {
  if (flags_ != Flags::kHost) return;
  if (recipe_.kind != Recipe::Kind::kNone)
    flags_ = Flags::kHostOrAnew;
  else
    save_flags();
}

void BlockEmitter::load_flags() {
  if (flags_ == Flags::kAnew) {
    make_anew(a_, recipe_);
    at_hand_.state = kNoWindow;
    forget_copy(kR11);
    flags_ = Flags::kHostOrAnew;
  } else if (flags_ == Flags::kSaved) {
    load_eflags(a_);
    flags_ = Flags::kBoth;
  }
}

void BlockEmitter::flags_made() {
  flags_ = Flags::kHost;
  recipe_ = {};
}

void BlockEmitter::flags_lost() {
  if (flags_ == Flags::kBoth || flags_ == Flags::kHost) flags_ = Flags::kSaved;
  if (flags_ == Flags::kHostOrAnew) flags_ = Flags::kAnew;
}

// The current instruction has made the flags from what it leaves behind.
void BlockEmitter::flags_made_by(Recipe::Kind kind) {
  flags_made();
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  if (!plain_register(to)) return;
  const bool result_alone = kind == Recipe::Kind::kLogic || kind == Recipe::Kind::kNegate;
  if (!result_alone && !is_immediate(from) && !plain_register(from)) return;
  const bool same = is_register(from) && from.reg == to.reg;
  if (same && kind == Recipe::Kind::kAdd) return;
  if (same && kind == Recipe::Kind::kSub) kind = Recipe::Kind::kCompare;
  recipe_ = {
      .kind = kind, .size = to.size, .to = to.reg, .made_at = static_cast<uint8_t>(index_), .operands = bit(to.reg)};
  if (result_alone) return;
  if (is_register(from)) {
    recipe_.from = from.reg;
    recipe_.operands |= bit(from.reg);
  } else {
    recipe_.immediate = static_cast<uint32_t>(insn().imm);
  }
}

// Whether the carry flag that INC and DEC keep is saved, and can wait there.
bool BlockEmitter::carry_is_saved() const {
  return flags_ == Flags::kSaved || flags_ == Flags::kBoth || keeps_carry(recipe_);
}

BlockEmitter::Recipe BlockEmitter::recipe_of_count() const {
  const Operand& to = insn().operand[0];
  return {.kind = insn().op == Code::kInc ? Recipe::Kind::kIncrement : Recipe::Kind::kDecrement,
          .size = to.size,
          .to = to.reg,
          .made_at = static_cast<uint8_t>(index_),
          .operands = bit(to.reg)};
}

// Before INC or DEC of a register: EFLAGS are the guest's, if that matters.
void BlockEmitter::begin_count() {
  const bool may_wait = carry_is_saved() && are_dead_from(index_ + 1, recipe_of_count());
  if (!may_wait && !carry_is_dead()) load_flags();
}

// Behind it. Where EFLAGS had been lost, they lack the carry flag.
void BlockEmitter::end_count() {
  const bool saved = carry_is_saved(), lost = !flags_in_host();
  flags_made();
  if (!saved) return;
  recipe_ = recipe_of_count();
  if (lost && !carry_is_dead()) flags_ = Flags::kAnew;
}

// Behind each instruction: are the operands that the flags were made from still there?
void BlockEmitter::check_recipe() {
  if (recipe_.kind == Recipe::Kind::kNone || recipe_.made_at == index_) return;
  if ((effects_[index_].writes & recipe_.operands) == 0) return;
  recipe_ = {};
  if (flags_ == Flags::kHostOrAnew) flags_ = Flags::kHost;
}

// The instruction that made the flags once more, on a copy. RAX and R11 are lost.
void BlockEmitter::make_anew(Assembler& a, const Recipe& recipe) const {
  using Kind = Recipe::Kind;
  constexpr unsigned kAdd = 0, kSub = 5, kCmp = 7;
  const unsigned size = recipe.size;
  const uint32_t width = size == 1 ? 0 : 1;
  const auto operate = [&](unsigned operation, Reg to) {
    if (recipe.from == kNone) return a.alu_imm(size, operation, to, recipe.immediate);
    a.rr(size, operation << 3 | width, use(a, recipe.from, kRax), to, 0, size == 1, size == 1);
  };
  const Reg to = use(a, recipe.to, kR11);
  switch (recipe.kind) {
    case Kind::kNone: return;
    case Kind::kCompare: return operate(kCmp, to);
    case Kind::kTest:
      if (recipe.from == kNone) {
        a.rr(size, size == 1 ? 0xf6 : 0xf7, 0, to, 0, false, size == 1);
        return a.immediate(size, recipe.immediate);
      }
      return a.rr(size, 0x84 | width, use(a, recipe.from, kRax), to, 0, size == 1, size == 1);
    case Kind::kLogic: return a.rr(size, 0x84 | width, to, to, 0, size == 1, size == 1);  // test
    case Kind::kAdd:
    case Kind::kSub:
      if (to != kR11) a.mov(8, kR11, to);
      operate(recipe.kind == Kind::kAdd ? kSub : kAdd, kR11);
      return operate(recipe.kind == Kind::kAdd ? kAdd : kSub, kR11);
    case Kind::kIncrement:
    case Kind::kDecrement: {
      const bool adds = recipe.kind == Kind::kIncrement;
      load_eflags(a);
      a.lea(8, kR11, at(to, adds ? -1 : 1));
      return a.rr(size, 0xfe | width, adds ? 0 : 1, kR11, 0, false, size == 1);
    }
    case Kind::kNegate:
      if (to != kR11) a.mov(8, kR11, to);
      for (int twice = 0; twice < 2; ++twice) a.rr(size, 0xf6 | width, 3, kR11, 0, false, size == 1);
      return;
  }
}

}  // namespace kite::jit
