// Windows: accesses of a block that are near each other, from the same base and index, are checked together before the
// first of them, and the others know where they are in the host's memory.
//
// Where the check fails, the interpreter executes the first of them, and the TLB is asked for all once more; what it
// has not even then (on two pages, say) leaves the block behind that instruction. A busy block has another version of
// itself to go on in, which checks each by itself (Translation::plain).
#include <cstddef>

#include "accel/jit/emitter.h"

namespace kite::jit {
namespace {

using Code = x86::Op;
using x86::Operand;

constexpr uint16_t bit(unsigned guest) { return static_cast<uint16_t>(1u << guest); }
constexpr uint16_t kAny = 0xffff;
// Pages have 4096: a larger one would more often end behind its page.
constexpr int64_t kMostSpan = cpu::RangeRecord::kStackBytes;
constexpr int64_t kLargest = 0x7fff0000;

// PCMPESTRI and its kin have their result in a register that is no operand.
bool is_string_compare(const x86::Insn& insn) { return insn.map == 3 && (insn.opcode & 0xfc) == 0x60; }

}  // namespace

// The guest registers that an instruction writes, as a mask; kAny of what may change anything else, too.
uint16_t BlockEmitter::written_by(const x86::Insn& insn, const Effects& known) {
  if (!known.reads) return known.writes;
  const x86::Operand& to = insn.operand[0];
  const uint16_t first = to.kind == x86::OperandKind::kGpr ? bit(to.reg & 15) : uint16_t{0};
  switch (insn.op) {
    case Code::kAdc:
    case Code::kSbb:
    case Code::kCmov:
    case Code::kSet:
    case Code::kShl:
    case Code::kShr:
    case Code::kSar:
    case Code::kRol:
    case Code::kRor:
    case Code::kInc:
    case Code::kDec:
    case Code::kAndn:
    case Code::kBextr:
    case Code::kBlsi:
    case Code::kBlsmsk:
    case Code::kBlsr:
    case Code::kBzhi:
    case Code::kPdep:
    case Code::kPext:
    case Code::kRorx:
    case Code::kSarx:
    case Code::kShlx:
    case Code::kShrx:
    case Code::kPopcnt:
    case Code::kLzcnt:
    case Code::kTzcnt:
    case Code::kBsf:
    case Code::kBsr:
    case Code::kBswap: return first;
    case Code::kJcc:  // not taken, where there is something behind it
    case Code::kBt:
    case Code::kPrefetch: return 0;
    case Code::kCbw: return bit(x86::kRax);
    case Code::kCwd: return bit(x86::kRdx);
    case Code::kDiv:
    case Code::kIdiv: return bit(x86::kRax) | bit(x86::kRdx);
    case Code::kSse:
    case Code::kAvx: return is_string_compare(insn) ? kAny : first;
    default: return kAny;
  }
}

// Whether nothing but the instruction itself changes EFLAGS once its operand has been found.
bool BlockEmitter::may_be_near_others(const x86::Insn& insn) {
  switch (insn.op) {
    case Code::kMov:
    case Code::kMovzx:
    case Code::kMovsx:
    case Code::kMovsxd:
    case Code::kCmov:
    case Code::kSet:
    case Code::kPush:
    case Code::kPop:
    case Code::kCall:
    case Code::kRet:
    case Code::kJmp:
    case Code::kAdd:
    case Code::kOr:
    case Code::kAdc:
    case Code::kSbb:
    case Code::kAnd:
    case Code::kSub:
    case Code::kXor:
    case Code::kCmp:
    case Code::kTest:
    case Code::kInc:
    case Code::kDec:
    case Code::kNot:
    case Code::kNeg:
    case Code::kShl:
    case Code::kShr:
    case Code::kSar:
    case Code::kImul1:
    case Code::kImul2:
    case Code::kImul3:
    case Code::kMul:
    case Code::kSse:
    case Code::kAvx: return true;
    default: return false;
  }
}

// By how much an instruction moves a register; nullopt if that is not known.
std::optional<int64_t> BlockEmitter::moved(unsigned number, unsigned guest) const {
  const uint16_t writes = written_[number];
  if (writes == kAny) return std::nullopt;
  if ((writes & bit(guest)) == 0) return 0;
  const x86::Insn& insn = insns_[number];
  const x86::Operand& to = insn.operand[0];
  const bool is_target = to.kind == x86::OperandKind::kGpr && to.reg == guest;
  constexpr int64_t kWord = 8;
  switch (insn.op) {
    case Code::kPush: return insn.operand_size == kWord ? std::optional(-kWord) : std::nullopt;
    case Code::kPop: return insn.operand_size == kWord && !is_target ? std::optional(kWord) : std::nullopt;
    case Code::kAdd:
    case Code::kSub: {
      const auto by = static_cast<int64_t>(insn.imm);
      if (to.size != kWord || !is_immediate(insn.operand[1]) || by > kLargest || by < -kLargest) return std::nullopt;
      return insn.op == Code::kAdd ? by : -by;
    }
    case Code::kLea:
      if (to.size != kWord || insn.address_size != kWord || insn.mem.base != guest || insn.mem.index != x86::kNoReg)
        return std::nullopt;
      return insn.mem.disp;
    default: return std::nullopt;
  }
}

// What the instruction accesses at a window's registers, if it does: the operand's, and that on the stack.
bool BlockEmitter::finds(unsigned number, const GuestAddress& at, int64_t& offset, unsigned& bytes) const {
  const x86::Insn& insn = insns_[number];
  const cpu::Op& op = ops_[number];
  if (!may_be_near_others(insn)) return false;
  const bool is_stack = at.base == x86::kRsp && at.index == cpu::kZeroReg;
  if (insn.has_mem && insn.op != Code::kLea && insn.op != Code::kNop && insn.mem.vector_index == 0 && op.flat &&
      op.address_size == 8 && op.base == at.base && op.index == at.index &&
      (op.scale == at.scale || op.index == cpu::kZeroReg)) {
    const auto* const operand = std::ranges::find_if(insn.operand, is_memory);
    offset = op.disp;
    bytes = operand != insn.operand.end() ? operand->size : 0;
    return bytes != 0;
  }
  if (!is_stack || insn.operand_size != 8) return false;
  bytes = 8;
  switch (insn.op) {
    case Code::kPush:
    case Code::kCall: offset = -8; return true;
    case Code::kPop:
    case Code::kRet: offset = 0; return true;
    default: return false;
  }
}

// The window that an access of the current instruction is in. R10 is its place; for stores R11 is the state byte's.
std::optional<BlockEmitter::Place> BlockEmitter::look_up_window(const GuestAddress& at, unsigned bytes, bool write,
                                                                unsigned alignment) {
  if (!may_be_near_others(insn())) return std::nullopt;
  for (size_t i = 0; i < windows_.size(); ++i) {
    const Window& window = windows_[i];
    if (!window.open || !window.has(at) || at.disp < window.low || at.disp + bytes > window.high) continue;
    if (write && !window.write) continue;
    note_look_up(bytes, write, "known ");
    const auto offset = static_cast<int32_t>(at.disp - window.origin);
    const auto number = static_cast<int8_t>(i);
    if (at_hand_.place != number) {
      a_.load(8, kR10, window_place(i));
      kept_[window.kept].reads_place = true;
    }
    at_hand_.place = number;
    if (alignment != 0) {
      at_hand_.state = kNoWindow;
      guard_flags();
      a_.lea(4, kR11, jit::at(kR10, offset));
      a_.rr(4, 0xf7, 0, kR11);  // test
      a_.dword(alignment - 1);
      miss_access(a_.jcc(Condition::kNe));
    }
    if (write && window.has_state()) {
      if (at_hand_.state != number) {
        a_.load(8, kR11, window_state(i));
        kept_[window.kept].reads_state = true;
      }
      at_hand_.state = number;
    }
    return Place{.mem = jit::at(kR10, offset), .bytes = bytes, .by_range = window.by_range, .window = number};
  }
  return std::nullopt;
}

// A window that begins with an access of the current instruction; not open if there is nothing else for it.
BlockEmitter::Window BlockEmitter::plan_window(const GuestAddress& at, unsigned bytes, bool write,
                                               unsigned alignment) const {
  Window window{.at = at, .low = at.disp, .high = at.disp + bytes, .origin = at.disp, .write = write};
  int64_t shift = 0;
  bool is_certain = true;  // that the instruction is executed
  for (unsigned i = index_; i < count_; ++i) {
    int64_t offset = 0;
    unsigned size = 0;
    is_certain &= insns_[i].op != Code::kJcc;
    const bool stores = insns_[i].mem_write || insns_[i].op == Code::kPush || insns_[i].op == Code::kCall;
    // What may not be stored to at all is not looked for as if it were: nobody may ever store there.
    if (i != index_ && finds(i, at, offset, size) && (is_certain || window.write || !stores)) {
      const int64_t low = std::min(window.low, offset + shift), high = std::max(window.high, offset + shift + size);
      if (high - low <= kMostSpan) {
        window.low = low;
        window.high = high;
        window.write |= stores;
        window.open = true;
      }
    }
    if (at.index != cpu::kZeroReg && moved(i, at.index) != 0) break;
    const std::optional<int64_t> by = at.base != cpu::kZeroReg ? moved(i, at.base) : 0;
    if (!by || written_[i] == kAny || std::abs(shift += *by) > kLargest) break;
  }
  // As the first access is aligned, both ends are.
  if (alignment != 0) {
    window.low -= (alignment - (at.disp - window.low) % alignment) % alignment;
    window.high += (alignment - (window.high - window.low) % alignment) % alignment;
  }
  if (window.high - window.low > kMostSpan) window.open = false;
  return window;
}

// The access stands for all of the window.
void BlockEmitter::widen(Access& access, const Window& window) {
  access.lead = static_cast<int32_t>(window.low - window.origin);
  access.bytes = static_cast<unsigned>(window.high - window.low);
  access.write = window.write;
}

// Behind the check of a window's first access, whose host address is R10.
int8_t BlockEmitter::open_window(const Window& window) {
  const auto same = [&](const Window& other) { return other.open && other.has(window.at); };
  auto slot = std::ranges::find_if(windows_, same);
  if (slot == windows_.end()) slot = std::ranges::find(windows_, false, &Window::open);
  if (slot == windows_.end()) slot = windows_.begin();
  const auto number = static_cast<size_t>(slot - windows_.begin());
  *slot = window;
  slot->kept = static_cast<uint32_t>(kept_.size());
  Kept kept{.place = a_.here()};
  a_.store(8, window_place(number), kR10);
  kept.state = a_.here();
  if (window.has_state()) a_.store(8, window_state(number), kR11);
  kept.end = a_.here();
  kept_.push_back(kept);
  at_hand_.place = static_cast<int8_t>(number);
  at_hand_.state = window.has_state() ? at_hand_.place : kNoWindow;
  opened_.push_back(at_hand_.place);
  return at_hand_.place;
}

// Whether what is emitted for an instruction changes R10 and R11 by looking memory up alone.
bool BlockEmitter::keeps_scratch(unsigned number) const {
  const x86::Insn& insn = insns_[number];
  const cpu::Op& op = ops_[number];
  const Operand &to = insn.operand[0], &from = insn.operand[1];
  const auto is_at_hand = [](const Operand& o) {
    return is_immediate(o) || (is_register(o) && !o.high_byte && in_host(o.reg));
  };
  const auto is_known = [](unsigned reg) { return reg == cpu::kZeroReg || in_host(reg); };
  switch (insn.op) {
    case Code::kNop:
    case Code::kEndbr:
    case Code::kJcc: return true;
    case Code::kLea:
      return to.size >= 4 && op.address_size == 8 && in_host(to.reg) && is_known(op.base) && is_known(op.index);
    case Code::kPush: return is_immediate(to) || is_register(to);
    case Code::kPop: return is_register(to);
    case Code::kMov:
    case Code::kMovzx:
    case Code::kMovsx:
    case Code::kMovsxd:
    case Code::kAdd:
    case Code::kOr:
    case Code::kAnd:
    case Code::kSub:
    case Code::kXor:
    case Code::kCmp:
    case Code::kTest:
      if (is_memory(to)) return is_immediate(from) || is_register(from);
      return is_register(to) && !to.high_byte && (is_memory(from) || (is_at_hand(to) && is_at_hand(from)));
    default: return false;
  }
}

// Whether R10 and R11 are as the last instruction left them when the current one looks memory up.
bool BlockEmitter::begins_with_scratch() const {
  return keeps_scratch(index_) || insn().op == Code::kRet ||
         (insn().op == Code::kCall && insn().operand[0].kind == x86::OperandKind::kRel);
}

// Whether the next access to memory but for loads there is a store to the same window of the stack, and nothing before
// it can leave the block.
bool BlockEmitter::goes_on_storing(const Place& place) const {
  constexpr unsigned kMostBetween = 6;
  if (place.window == kNoWindow) return false;
  const Window& window = windows_[static_cast<size_t>(place.window)];
  if (window.at.base != x86::kRsp || window.at.index != cpu::kZeroReg || !keeps_scratch(index_)) return false;
  std::optional<int64_t> by = moved(index_, x86::kRsp);
  int64_t shift = 0;
  for (unsigned i = index_ + 1; i < std::min(count_, index_ + kMostBetween) && by; ++i) {
    const x86::Insn& next = insns_[i];
    shift += *by;
    if (!keeps_scratch(i) || next.op == Code::kJcc || std::abs(shift) > kLargest) return false;
    int64_t offset = 0;
    unsigned bytes = 0;
    if (finds(i, window.at, offset, bytes)) {
      if (offset + shift < window.low || offset + shift + bytes > window.high) return false;
      if (next.op == Code::kPush && !next.has_mem) return true;
      if (next.op == Code::kMov && next.mem_write) return true;
      if (next.mem_write) return false;
    } else if ((next.has_mem && next.op != Code::kLea && next.op != Code::kNop) || next.op == Code::kPush ||
               next.op == Code::kPop) {
      return false;
    }
    by = moved(i, x86::kRsp);
  }
  return false;
}

// What is from the first byte of both to the last one.
BlockEmitter::Place BlockEmitter::join(const Place& one, const Place& other) {
  if (one.bytes == 0) return other;
  Place both = other;
  both.mem.disp = std::min(one.mem.disp, other.mem.disp);
  both.bytes = static_cast<unsigned>(
      std::max(one.mem.disp + static_cast<int32_t>(one.bytes), other.mem.disp + static_cast<int32_t>(other.bytes)) -
      both.mem.disp);
  return both;
}

// Behind an instruction: which windows are still known, and from where.
void BlockEmitter::move_windows(bool interpreted) {
  if (interpreted || !keeps_scratch(index_)) at_hand_ = {};
  for (Window& window : windows_) {
    if (!window.open) continue;
    const GuestAddress& at = window.at;
    const std::optional<int64_t> by = at.base != cpu::kZeroReg ? moved(index_, at.base) : 0;
    const bool lost = interpreted || written_[index_] == kAny || !by ||
                      (at.index != cpu::kZeroReg && moved(index_, at.index) != 0) ||
                      std::abs(window.low - *by) > kLargest || std::abs(window.high - *by) > kLargest;
    if (lost) {
      window.open = false;
      at_hand_ = {};
      continue;
    }
    window.low -= *by;
    window.high -= *by;
    window.origin -= *by;
  }
}

// Before R10 and R11 are lost out of line.
void BlockEmitter::keep_at_hand(Assembler& a, const AtHand& at_hand) const {
  if (at_hand.place != kNoWindow) a.store(8, window_place(static_cast<size_t>(at_hand.place)), kR10);
  if (at_hand.state != kNoWindow) a.store(8, window_state(static_cast<size_t>(at_hand.state)), kR11);
}

// The block is complete.
void BlockEmitter::forget_unread() {
  for (const Kept& kept : kept_) {
    if (!kept.reads_place) a_.erase(kept.place, kept.state);
    if (!kept.reads_state) a_.erase(kept.state, kept.end);
  }
}

// Where the interpreter is to execute the current instruction: what it opens, and what is in R10 and R11 behind it.
void BlockEmitter::note_windows(Detour& detour) {
  detour.at_hand = at_hand_;
  for (size_t i = 0; i < std::min(opened_.size(), detour.opened.size()); ++i) {
    const Window& window = windows_[static_cast<size_t>(opened_[i])];
    if (window.open) detour.opened[i] = {opened_[i], window};
  }
  // What is opened is written there out of line.
  const auto is_opened = [&](int8_t number) {
    return std::ranges::find(detour.opened, number, &Opened::number) != detour.opened.end();
  };
  if (at_hand_.place != kNoWindow && !is_opened(at_hand_.place))
    kept_[windows_[static_cast<size_t>(at_hand_.place)].kept].reads_place = true;
  if (at_hand_.state != kNoWindow && !is_opened(at_hand_.state))
    kept_[windows_[static_cast<size_t>(at_hand_.state)].kept].reads_state = true;
}

// Out of line, where the interpreter has executed the instruction that opens a window. `unknown` gets the jumps that
// are taken when the TLB has not all of it. RAX, R10, R11 and EFLAGS are lost.
void BlockEmitter::look_again(const Opened& opened, std::vector<uint8_t*>& unknown) {
  const Window& window = opened.window;
  Mem origin{.scale = static_cast<uint8_t>(window.at.scale), .disp = static_cast<int32_t>(window.origin)};
  if (window.at.base != cpu::kZeroReg) origin.base = use(cold_, window.at.base, kR10);
  if (window.at.index != cpu::kZeroReg) origin.index = use(cold_, window.at.index, kR11);
  cold_.lea(8, kR10, origin);
  Access access{.address = at(kR10), .in_r10 = true};
  widen(access, window);
  unknown.push_back(look_up_tlb(cold_, access));
  if (window.write && window.by_range) unknown.push_back(look_at_state(cold_));
  const auto number = static_cast<size_t>(opened.number);
  cold_.store(8, window_place(number), kR10);
  if (window.has_state()) cold_.store(8, window_state(number), kR11);
}

// The block's plain version executes the instruction and goes on, with the flags where it has them.
void BlockEmitter::detour_plain_version(const Detour& detour) {
  const Translation::Restart& restart = translation_.plain->restarts[detour.index];
  const auto wanted = static_cast<Flags>(restart.flags);
  const bool saved = detour.recipe.kind == Recipe::Kind::kNone;
  const bool in_host = wanted == Flags::kHost || wanted == Flags::kHostOrAnew || wanted == Flags::kBoth;
  if (!saved && wanted != Flags::kAnew) {
    make_anew(cold_, detour.recipe);
    if (wanted == Flags::kSaved || wanted == Flags::kBoth) emit_save(cold_);
    // LAHF and SETO change no flags.
  } else if (saved && in_host) {
    load_eflags(cold_);
  }
  cold_.jmp(restart.code);
}

}  // namespace kite::jit
