#include "accel/jit/emitter.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "cpu/handlers.h"
#include "support/log.h"

namespace kite::jit {

using cpu::Block;
using Code = x86::Op;
namespace mode = cpu::mode;

namespace {

// Whether the handler of an instruction that ends its block goes on to the next one, instead of returning.
bool goes_on_itself(Code op) {
  switch (op) {
    case Code::kJmp:
    case Code::kCall:
    case Code::kRet:
    case Code::kLoop:
    case Code::kLoope:
    case Code::kLoopne:
    case Code::kJcxz:
    case Code::kClac:
    case Code::kStac: return true;
    default: return false;
  }
}

}  // namespace

bool can_translate(const Block& block) {
  constexpr uint32_t kFlat32 = mode::kFlatCs | mode::kFlatDs | mode::kFlatEs | mode::kFlatSs | mode::kZeroCs;
  if (block.transient) return false;  // run once
  switch (block.mode_key & (mode::kWidthMask | mode::kStackMask)) {
    case mode::kWidth64 | mode::kStack64: return true;
    case mode::kWidth32 | mode::kStack32: return (block.mode_key & kFlat32) == kFlat32;
    default: return false;
  }
}

BlockEmitter::BlockEmitter(Translator& translator, cpu::Cpu& cpu, Block& block, Translation& translation,
                           Assembler& hot, Assembler& cold, EmitterSpace& space)
    : t_(translator),
      cpu_(cpu),
      block_(block),
      translation_(translation),
      a_(hot),
      cold_(cold),
      layout_(translator.layout()),
      tlb_(layout_.tlb[kind()]),
      wide_((block.mode_key & mode::kWidthMask) == mode::kWidth64),
      pointer_bytes_(wide_ ? 8 : 4),
      insns_(space.insns),
      ops_(space.ops),
      effects_(space.effects),
      written_(space.written),
      starts_(space.starts),
      detours_(space.detours),
      unresumed_(space.unresumed),
      opened_(space.opened),
      kept_(space.kept) {
  detours_.clear();
  kept_.clear();
}

void BlockEmitter::emit() {
  const uint8_t* const hot = a_.here();
  const uint8_t* const cold = cold_.here();
  decode();
  if (!is_plain() && !has_places()) translation_.stage = Translation::Stage::kLast;
  begin();
  if (log::enabled(log::Category::kOp)) log_block();
  Outcome outcome = Outcome::kDone;
  for (index_ = 0; index_ < count_ && outcome != Outcome::kEnd; ++index_) {
    starts_[index_] = a_.here();
    if (is_plain()) translation_.restarts.push_back({a_.here(), static_cast<uint8_t>(flags_)});
    outcome = next();
  }
  if (outcome != Outcome::kEnd) {
    index_ = count_ - 1;
    go_to(end_rip_, count_ == 0 ? end_rip_ - 1 : op().rip);
  }
  detours();
  forget_unread();
  translation_.host_bytes = static_cast<uint32_t>((a_.here() - hot) + (cold_.here() - cold));
  if (log::enabled(log::Category::kOutAsm)) log_code(hot, cold);
}

// One instruction.
BlockEmitter::Outcome BlockEmitter::next() {
  site_ = nullptr;
  ends_ = false;
  unresumed_.clear();
  opened_.clear();
  look_ups_.clear();
  if (!begins_with_scratch()) at_hand_ = {};
  if (is_plain()) copies_.fill(kNone);  // each of its instructions is entered from elsewhere
  is_operand_.fill(false);
  keeps_copies_ = false;
  const Flags flags_before = flags_;
  const size_t first_detour = detours_.size();
  if (looks_at_alarm_early()) {
    check_alarm(new_exit(op().rip));
    alarm_seen_ = index_ + 1;
  }
  Outcome outcome = instruction();
  const bool interpreted = outcome == Outcome::kInterpret;
  if (interpreted && (ends_ || cpu::ends_block(insn().op))) {
    if (ends_ || goes_on_itself(insn().op))
      hand_over();
    else
      execute_and_go_on();
    outcome = Outcome::kEnd;
  } else if (interpreted) {
    interpret();
    outcome = Outcome::kDone;
  }
  for (const size_t detour : unresumed_) {
    detours_[detour].resume = a_.here();
    detours_[detour].units = units_;
    detours_[detour].resume_rip = op().next_rip();
  }
  if (log::enabled(log::Category::kOp) && !is_copy_)
    log_decision(interpreted ? Outcome::kInterpret : outcome, flags_before, first_detour);
  check_recipe();
  if (!keeps_copies_ && (interpreted || !leaves_copies())) copies_.fill(kNone);
  move_windows(interpreted);
  for (const size_t detour : unresumed_) {
    note_windows(detours_[detour]);
    detours_[detour].stack_lag = stack_lag_;
  }
  return outcome;
}

// The block's bytes once more: the interpreter's Ops are fused, and not all have kept their Insn.
void BlockEmitter::decode() {
  const x86::DecodeMode decode_mode{wide_ ? x86::CodeWidth::k64 : x86::CodeWidth::k32};
  const std::span<const uint8_t> code(block_.code, block_.bytes);
  size_t at = 0;
  for (; count_ < block_.op_count; ++count_) {
    x86::Insn& insn = insns_[count_];
    insn = x86::Insn{};
    if (x86::decode(code.subspan(at), decode_mode, insn) != x86::DecodeStatus::kOk) break;
    cpu::bind(cpu_, block_.rip + at, insn, ops_[count_]);
    effects_[count_] = effects_of(insn);
    written_[count_] = written_by(insn, effects_[count_]);
    starts_[count_] = nullptr;
    at += insn.length;
  }
  end_rip_ = block_.rip + at;
  if (!wide_) end_rip_ = static_cast<uint32_t>(end_rip_);
}

// Leaves unless the page leads where it did. EFLAGS are lost.
void BlockEmitter::check_page(uint64_t address, uint32_t exec_id) {
  const size_t id = offsetof(cpu::TlbTable, exec_ids) + cpu::TlbTable::index(address) * sizeof(uint32_t);
  a_.rm(4, 0x81, 7, before(4, in_cpu(tlb_ + static_cast<int32_t>(id))));  // cmp
  a_.dword(exec_id);
  a_.jcc(Condition::kNe, translation_.way_out);
}

void BlockEmitter::begin() {
  Exit& self = translation_.self;
  self = {.target = block_.rip, .page = translation_.page, .mode_key = block_.mode_key, .of_stale = true};
  translation_.way_out = cold_.here();
  cold_.mov_imm(kR10, reinterpret_cast<uintptr_t>(&self));
  cold_.jmp(t_.runtime().leave);

  translation_.entry_checked = a_.here();
  check_page(block_.rip, translation_.exec_id);
  const bool keeps_flags = !flags_are_dead() || translation_.exec_id2 != 0;
  if (keeps_flags && (translation_.entered_with_flags || begins_again())) {
    a_.byte(0xeb);  // jmp over the next three
    a_.byte(0);
    uint8_t* const after = a_.cursor();
    translation_.entry_flags = a_.here();
    t_.save_eflags(a_);
    after[-1] = static_cast<uint8_t>(a_.cursor() - after);
  }
  translation_.entry_saved = a_.here();
  if (!keeps_flags) translation_.entry_flags = translation_.entry_saved;
  translation_.start = a_.cursor();
  flags_ = Flags::kSaved;
  if (translation_.exec_id2 != 0) check_page(cpu::page_of(block_.rip) + kPageSize, translation_.exec_id2);
  if (t_.profiles()) a_.alu_imm(8, 0, in_cpu(layout_.blocks_entered), 1);
  if (is_plain()) {
    static constexpr uint8_t kNop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
    for (const uint8_t byte : kNop5) a_.byte(byte);  // a jump to the version that is in force
  }
  if (translation_.stage == Translation::Stage::kFirst || translation_.stage == Translation::Stage::kTrial)
    count_entries();
}

// Leaves at the last entry of the stage.
void BlockEmitter::count_entries() {
  translation_.entries_left = &t_.new_counter();
  translation_.count = a_.cursor();
  a_.rm(4, 0xff, 1, near_code(translation_.entries_left));  // dec
  a_.jcc(Condition::kE, translation_.way_out);
}

// Whether one of its branches leads to its start.
bool BlockEmitter::begins_again() const {
  for (unsigned i = 0; i < count_; ++i)
    if (insns_[i].op == Code::kJcc && ops_[i].imm == block_.rip) return true;
  return false;
}

// Whether there is a place that a range of its own may be of use to.
bool BlockEmitter::has_places() const {
  if (kind() != static_cast<size_t>(cpu::TlbKind::kUser)) return false;
  for (unsigned i = 0; i < count_; ++i) {
    const x86::Insn& insn = insns_[i];
    const bool has_mem = insn.has_mem && insn.op != Code::kLea && insn.op != Code::kNop;
    const bool at_stack = ops_[i].base == x86::kRsp && ops_[i].index == cpu::kZeroReg;
    const bool is_constant = ops_[i].base == cpu::kZeroReg && ops_[i].index == cpu::kZeroReg;
    if (has_mem && !at_stack && !is_constant) return true;
  }
  return false;
}

BlockEmitter::Outcome BlockEmitter::instruction() {
  if (op().handler == cpu::invalid_opcode) return Outcome::kInterpret;
  for (Outcome (BlockEmitter::*family)() :
       {&BlockEmitter::moves, &BlockEmitter::integer, &BlockEmitter::branches, &BlockEmitter::vectors,
        &BlockEmitter::x87, &BlockEmitter::bit_fields, &BlockEmitter::strings, &BlockEmitter::system})
    if (const Outcome outcome = (this->*family)(); outcome != Outcome::kInterpret) return outcome;
  return Outcome::kInterpret;
}

Site& BlockEmitter::site() {
  if (site_ == nullptr) site_ = &new_site(ends_ || cpu::ends_block(insn().op));
  return *site_;
}

Site& BlockEmitter::new_site(bool leaves) {
  const uint64_t next = op().next_rip();
  Site& site = t_.new_site();
  site = {.block = &block_,
          .leave_rip = wide_ ? next : static_cast<uint32_t>(next),
          .place = place_in_block(),
          .code = insn().op,
          .emitted = true,
          .leaves = leaves,
          .is_last = is_last()};
  return site;
}

void BlockEmitter::interpret() {
  save_flags();
  write_instruction_pointer();
  units_ = 0;
  site().emitted = false;
  a_.mov_imm(kR10, reinterpret_cast<uintptr_t>(&site()));
  a_.call(t_.runtime().interpret);
  flags_ = Flags::kBoth;
}

void BlockEmitter::hand_over() {
  save_flags();
  write_instruction_pointer();
  site().emitted = false;
  a_.mov_imm(kR10, reinterpret_cast<uintptr_t>(&site()));
  a_.jmp(t_.runtime().hand_over);
}

void BlockEmitter::detour_interpret(uint8_t* jump) {
  unresumed_.push_back(detours_.size());
  detours_.push_back(
      {.kind = Detour::Kind::kInterpret, .jump = jump, .site = &site(), .fip = fip_, .recipe = recipe_of_lost()});
}

void BlockEmitter::detour_hand_over(uint8_t* jump) {
  detours_.push_back(
      {.kind = Detour::Kind::kHandOver, .jump = jump, .site = &site(), .fip = fip_, .recipe = recipe_of_lost()});
}

void BlockEmitter::detours() {
  for (const Detour& detour : detours_) {
    a_.bind(detour.jump, cold_.here());
    if (detour.range.range != nullptr) detour_range(detour);
    if (detour.kind == Detour::Kind::kPlainVersion) {
      detour_plain_version(detour);
      continue;
    }
    if (detour.recipe.kind != Recipe::Kind::kNone && detour.kind != Detour::Kind::kNotice) {
      make_anew(cold_, detour.recipe);
      emit_save(cold_);
    }
    if (detour.kind != Detour::Kind::kNotice) write_instruction_pointer(cold_, detour.fip);
    switch (detour.kind) {
      case Detour::Kind::kInterpret:
        cold_.mov_imm(kR10, reinterpret_cast<uintptr_t>(detour.site));
        cold_.call(t_.runtime().interpret);
        go_on(detour);
        break;
      case Detour::Kind::kLoad:
        cold_.call(detour.site != nullptr ? t_.runtime().load_x87 : t_.runtime().load_vectors);
        if (detour.site == nullptr) {
          cold_.jmp(detour.resume);
          break;
        }
        cold_.jcc(Condition::kE, detour.resume);
        [[fallthrough]];
      case Detour::Kind::kHandOver:
        cold_.mov_imm(kR10, reinterpret_cast<uintptr_t>(detour.site));
        cold_.jmp(t_.runtime().hand_over);
        break;
      case Detour::Kind::kNotice: notice(detour); break;
      case Detour::Kind::kForget:
        cold_.load(8, kRsp, in_cpu(layout_.returns));
        cold_.alu_imm(4, 7, in_cpu(layout_.alarm), 0);
        cold_.jcc(Condition::kE, detour.resume);
        if (detour.exit != nullptr) {
          cold_.mov_imm(kR10, reinterpret_cast<uintptr_t>(detour.exit));
          cold_.jmp(t_.runtime().leave);
        } else {
          cold_.load(8, kR10, in_cpu(layout_.spare + 8));
          cold_.jmp(t_.runtime().leave_to);
        }
        break;
      case Detour::Kind::kLeave:
        if (detour.save) emit_save(cold_);
        if (detour.links_behind) {
          detour.exit->jump = cold_.jmp();
          cold_.bind_here(detour.exit->jump);
        }
        cold_.mov_imm(kR10, reinterpret_cast<uintptr_t>(detour.exit));
        cold_.jmp(t_.runtime().leave);
        break;
      case Detour::Kind::kPlainVersion: break;  // above
    }
  }
}

// Goes on behind an instruction that the interpreter has executed, with the windows that it was to open.
void BlockEmitter::go_on(const Detour& detour) {
  std::vector<uint8_t*> unknown;
  for (const Opened& window : detour.opened)
    if (window.number != kNoWindow) look_again(window, unknown);
  if (!unknown.empty() && detour.units == 0) load_eflags(cold_);
  reload(detour);
  if (unknown.empty()) return;
  for (uint8_t* const jump : unknown) cold_.bind_here(jump);
  Exit& exit = t_.new_exit();
  exit = {.target = detour.resume_rip, .page = translation_.page, .mode_key = block_.mode_key, .split = &translation_};
  cold_.mov_imm(kR10, reinterpret_cast<uintptr_t>(&exit));
  cold_.jmp(t_.runtime().leave);
}

// Goes on where a detour came from, with the units as they were.
void BlockEmitter::reload(const Detour& detour) {
  if (detour.units == 0) return go_back(detour);
  if ((detour.units & cpu::TranslationArea::kX87) == 0) {
    cold_.call(t_.runtime().load_vectors);
    load_eflags(cold_);
    return go_back(detour);
  }
  // The instruction may have unmasked an exception.
  Exit& exit = t_.new_exit();
  exit = {.target = detour.resume_rip, .page = translation_.page, .mode_key = block_.mode_key};
  cold_.call(t_.runtime().load_x87);
  uint8_t* const unmasked = cold_.jcc(Condition::kNe);
  load_eflags(cold_);
  go_back(detour);
  cold_.bind_here(unmasked);
  cold_.mov_imm(kR10, reinterpret_cast<uintptr_t>(&exit));
  cold_.jmp(t_.runtime().leave);
}

void BlockEmitter::go_back(const Detour& detour) {
  if (detour.at_hand.place != kNoWindow) cold_.load(8, kR10, window_place(static_cast<size_t>(detour.at_hand.place)));
  if (detour.at_hand.state != kNoWindow) cold_.load(8, kR11, window_state(static_cast<size_t>(detour.at_hand.state)));
  if (detour.stack_lag != 0) cold_.lea(8, kStackPointer, at(kStackPointer, -detour.stack_lag));
  cold_.jmp(detour.resume);
}

// --- registers

Reg BlockEmitter::use(Assembler& a, unsigned guest, Reg scratch) const {
  if (in_host(guest)) return static_cast<Reg>(kHost[guest]);
  a.load(8, scratch, layout_.slot(guest));
  return scratch;
}

void BlockEmitter::put(unsigned guest, Reg value) {
  if (in_host(guest)) return;
  a_.store(8, layout_.slot(guest), value);
  for (size_t i = 0; i < kCopies.size(); ++i) {
    if (kCopies[i] == value)
      copies_[i] = static_cast<uint8_t>(guest);
    else if (copies_[i] == guest)
      copies_[i] = kNone;
  }
}

Reg BlockEmitter::copy_of(unsigned guest) const {
  for (size_t i = 0; i < kCopies.size(); ++i)
    if (copies_[i] == guest) return kCopies[i];
  return kRax;
}

void BlockEmitter::forget_copy(Reg scratch) {
  for (size_t i = 0; i < kCopies.size(); ++i)
    if (kCopies[i] == scratch) copies_[i] = kNone;
}

// Instructions that change neither R10 nor R11.
bool BlockEmitter::leaves_copies() const {
  const Code code = insn().op;
  return keeps_scratch(index_) && (!insn().has_mem || code == Code::kLea || code == Code::kNop) &&
         code != Code::kPush && code != Code::kPop;
}

Reg BlockEmitter::read(unsigned guest) {
  if (in_host(guest)) return static_cast<Reg>(kHost[guest]);
  Reg reg = copy_of(guest);
  if (reg == kRax) {
    reg = fresh(guest);
    a_.load(8, reg, layout_.slot(guest));
  }
  for (size_t i = 0; i < kCopies.size(); ++i) {
    if (kCopies[i] != reg) continue;
    copies_[i] = static_cast<uint8_t>(guest);
    is_operand_[i] = true;
  }
  return reg;
}

// One that is no operand, and no copy if that can be had.
Reg BlockEmitter::fresh(unsigned guest) {
  if (in_host(guest)) return static_cast<Reg>(kHost[guest]);
  size_t best = kCopies.size();
  for (size_t i = 0; i < kCopies.size(); ++i)
    if (!is_operand_[i] && (best == kCopies.size() || copies_[i] == kNone || copies_[i] == guest)) best = i;
  if (best == kCopies.size()) return kRax;
  copies_[best] = kNone;
  is_operand_[best] = true;
  return kCopies[best];
}

Reg BlockEmitter::use(const x86::Operand& operand, Reg scratch) {
  if (!operand.high_byte) return use(operand.reg, scratch);
  const unsigned number = operand.reg + 4u;  // AH is 4, BH is 7
  if (operand.reg == x86::kRax) a_.mov(4, kRax, static_cast<Reg>(kHost[x86::kRax]));
  a_.rr(4, 0x0fb6, kRax, number);  // movzx
  return kRax;
}

void BlockEmitter::byte_to_al(const x86::Operand& operand) {
  if (operand.high_byte)
    use(operand, kRax);
  else
    a_.rr(4, 0x0fb6, kRax, use(operand.reg, kR10), 0, false, true);  // movzx
}

// AH is R8's, which has none: it changes places with RBX.
unsigned BlockEmitter::begin_high_byte(const x86::Operand& operand) {
  static_assert(kHost[x86::kRax] == kR8 && kHost[x86::kRcx] == kRcx && kHost[x86::kRdx] == kRdx &&
                kHost[x86::kRbx] == kRbx);
  constexpr unsigned kBh = 7;
  if (operand.reg != x86::kRax) return operand.reg + 4u;
  a_.rr(8, 0x87, kR8, kRbx);  // xchg
  return kBh;
}

void BlockEmitter::end_high_byte(const x86::Operand& operand) {
  if (operand.reg == x86::kRax) a_.rr(8, 0x87, kR8, kRbx);
}

}  // namespace kite::jit
