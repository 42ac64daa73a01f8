// Moves, exchanges and the stack.
#include "accel/jit/emitter.h"

namespace kite::jit {

using Code = x86::Op;
using x86::Operand;

namespace {

constexpr auto kAccumulator = static_cast<Reg>(kHost[x86::kRax]);

bool plain(const Operand& o) { return o.kind == x86::OperandKind::kGpr && !o.high_byte; }

}  // namespace

BlockEmitter::Outcome BlockEmitter::moves() {
  switch (insn().op) {
    case Code::kMov:
    case Code::kMovnti: return move();
    case Code::kMovzx: return extend(false);
    case Code::kMovsx:
    case Code::kMovsxd: return extend(true);
    case Code::kLea: return load_address();
    case Code::kCmov: return conditional_move();
    case Code::kSet: return set_byte();
    case Code::kXchg: return exchange();
    case Code::kXadd: return exchange_add();
    case Code::kCmpxchg: return compare_exchange();
    case Code::kCmpxchg8b: return compare_exchange_pair(8);
    case Code::kCmpxchg16b: return compare_exchange_pair(16);
    case Code::kMovbe: return move_swapped();
    case Code::kBswap: return swap_bytes();
    case Code::kCbw:
    case Code::kCwd: return widen();
    case Code::kPush: return push();
    case Code::kPop: return pop();
    case Code::kLeave: return leave_frame();
    case Code::kNop:
    case Code::kEndbr:
    case Code::kLfence:
    case Code::kSfence:
    case Code::kPrefetch: return Outcome::kDone;
    default: return Outcome::kInterpret;
  }
}

BlockEmitter::Outcome BlockEmitter::move() {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  const unsigned size = to.size;
  if (is_register(to) && is_register(from)) {
    if (to.high_byte) return move_to_high_byte();
    if (!in_host(to.reg) && size < 4) {
      a_.store(size, layout_.slot(to.reg), use(from, kR11));
      return Outcome::kDone;
    }
    keep_copies();
    if (in_host(to.reg) && !in_host(from.reg) && copy_of(from.reg) == kRax) {
      a_.load(size, static_cast<Reg>(kHost[to.reg]), layout_.slot(from.reg));
      return Outcome::kDone;
    }
    const Reg source = read(from);
    const bool as_it_is = !in_host(to.reg) && size == 8;
    const Reg target = as_it_is ? source : fresh(to.reg);
    if (!as_it_is) a_.rr(size, size == 1 ? 0x88 : 0x89, source, target, 0, true, true);
    put(to.reg, target);
    return Outcome::kDone;
  }
  if (is_register(to) && is_immediate(from)) {
    if (to.high_byte) return move_to_high_byte();
    const uint64_t value = size == 8 ? insn().imm : insn().imm & ((uint64_t{1} << size * 8) - 1);
    if (size < 4) {
      if (!in_host(to.reg)) {
        a_.store_imm(size, layout_.slot(to.reg), static_cast<uint32_t>(value));
      } else {
        a_.rr(size, size == 1 ? 0xc6 : 0xc7, 0, kHost[to.reg], 0, false, true);
        a_.immediate(size, static_cast<uint32_t>(value));
      }
      return Outcome::kDone;
    }
    keep_copies();
    const Reg target = fresh(to.reg);
    a_.mov_imm(target, value);
    put(to.reg, target);
    return Outcome::kDone;
  }
  if (is_register(to) && is_memory(from)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    if (to.high_byte) return move_to_high_byte();
    const Place place = look_up_source(size);
    if (in_host(to.reg)) {
      a_.rm(size, size == 1 ? 0x8a : 0x8b, kHost[to.reg], place.mem, 0, size == 1);
    } else {
      a_.rm(size, size == 1 ? 0x8a : 0x8b, kRax, place.mem);
      a_.store(size < 4 ? size : 8, layout_.slot(to.reg), kRax);
    }
    return Outcome::kDone;
  }
  if (!is_memory(to) || !memory_allowed()) return Outcome::kInterpret;
  if (is_immediate(from)) {
    const Place place = look_up(size, true);
    a_.store_imm(size, place.mem, static_cast<uint32_t>(insn().imm));
    stored(place);
    return Outcome::kDone;
  }
  if (!is_register(from)) return Outcome::kInterpret;
  const Place place = look_up(size, true);
  a_.store(size, place.mem, use(from, kRax));
  stored(place);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::move_to_high_byte() {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  if (is_memory(from))
    a_.rm(4, 0x0fb6, kRax, look_up(1, false).mem);  // movzx
  else if (!is_immediate(from))
    byte_to_al(from);
  const unsigned high = begin_high_byte(to);
  if (is_immediate(from)) {
    a_.rr(1, 0xc6, 0, high);
    a_.immediate(1, static_cast<uint32_t>(insn().imm));
  } else {
    a_.rr(1, 0x88, kRax, high);
  }
  end_high_byte(to);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::extend(bool is_signed) {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  if (from.size == to.size) return Outcome::kInterpret;  // MOVSXD without REX.W
  const uint32_t opcode = from.size == 4 ? 0x63 : (is_signed ? 0x0fbe : 0x0fb6) + (from.size == 2 ? 1 : 0);
  const unsigned size = to.size;
  if (is_memory(from)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up_source(from.size);
    const Reg target = size == 2 ? use(to.reg, kRax) : BlockEmitter::target(to.reg, kRax);
    a_.rm(size, opcode, target, place.mem);
    put(to.reg, target);
    return Outcome::kDone;
  }
  const Reg source = read(from);
  const Reg target = size == 2 ? read(to.reg) : fresh(to.reg);
  a_.rr(size, opcode, target, source, 0, false, from.size == 1);
  put(to.reg, target);
  keep_copies();
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::load_address() {
  const Operand& to = insn().operand[0];
  if (op().address_size == 2) return Outcome::kInterpret;
  if (to.size == 2) {
    effective_address(4, kR10);
    const Reg target = use(to.reg, kR11);
    a_.mov(2, target, kR10);
    put(to.reg, target);
    return Outcome::kDone;
  }
  // The narrower of the two sizes cuts the address; both zero-extend.
  const Reg target = BlockEmitter::target(to.reg, kR10);
  effective_address(std::min<unsigned>(to.size, op().address_size), target);
  put(to.reg, target);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::conditional_move() {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  const uint32_t opcode = 0x0f40u | op().condition;
  if (is_memory(from)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(to.size, false);
    load_flags();
    const Reg target = use(to.reg, kRax);
    a_.rm(to.size, opcode, target, place.mem);
    put(to.reg, target);
    return Outcome::kDone;
  }
  load_flags();
  const Reg target = read(to.reg);
  a_.rr(to.size, opcode, target, read(from.reg));
  put(to.reg, target);
  keep_copies();
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::set_byte() {
  const Operand& to = insn().operand[0];
  const uint32_t opcode = 0x0f90u | op().condition;
  if (is_memory(to)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(1, true);
    load_flags();
    a_.rm(1, opcode, 0, place.mem);
    stored(place);
    return Outcome::kDone;
  }
  load_flags();
  if (to.high_byte) {
    a_.rr(1, opcode, 0, begin_high_byte(to));
    end_high_byte(to);
    return Outcome::kDone;
  }
  if (in_host(to.reg))
    a_.rr(1, opcode, 0, kHost[to.reg], 0, false, true);
  else
    a_.rm(1, opcode, 0, layout_.slot(to.reg));
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::exchange() {
  const Operand &a = insn().operand[0], &b = insn().operand[1];
  const uint32_t opcode = a.size == 1 ? 0x86 : 0x87;
  if (is_memory(a) || is_memory(b)) {
    const Operand& other = is_memory(a) ? b : a;
    if (!plain(other) || !memory_allowed()) return Outcome::kInterpret;
    const Place place = look_up(a.size, true, true);
    const Reg value = use(other.reg, kRax);
    a_.rm(a.size, opcode, value, place.mem, 0, a.size == 1);
    put(other.reg, value);
    stored(place);
    return Outcome::kDone;
  }
  if (!plain(a) || !plain(b) || a.reg == b.reg) return Outcome::kInterpret;
  const Reg first = use(a.reg, kR10), second = use(b.reg, kR11);
  a_.rr(a.size, opcode, first, second, 0, a.size == 1, a.size == 1);
  put(a.reg, first);
  put(b.reg, second);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::exchange_add() {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  if (!is_memory(to) || !plain(from) || !memory_allowed()) return Outcome::kInterpret;
  const Place place = look_up(to.size, true, true);
  const Reg value = use(from.reg, kRax);
  a_.rm(to.size, to.size == 1 ? 0x0fc0 : 0x0fc1, value, place.mem, lock_prefix(), to.size == 1);
  put(from.reg, value);
  flags_made();
  stored(place);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::compare_exchange() {
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  if (!is_memory(to) || !plain(from) || !memory_allowed()) return Outcome::kInterpret;
  const Place place = look_up(to.size, true, true);
  const bool waits = !in_host(from.reg);  // the entry's offset, while R11 is the value
  if (waits) a_.store(8, in_cpu(layout_.spare), kR11);
  const Reg value = use(from.reg, kR11);
  a_.mov(8, kRax, kAccumulator);
  a_.rm(to.size, to.size == 1 ? 0x0fb0 : 0x0fb1, value, place.mem, lock_prefix(), to.size == 1);
  a_.mov(8, kAccumulator, kRax);
  if (waits) a_.load(8, kR11, in_cpu(layout_.spare));
  flags_made();
  stored(place);
  return Outcome::kDone;
}

// CMPXCHG8B and CMPXCHG16B, which change ZF alone.
BlockEmitter::Outcome BlockEmitter::compare_exchange_pair(unsigned bytes) {
  static_assert(kHost[x86::kRdx] == kRdx && kHost[x86::kRcx] == kRcx && kHost[x86::kRbx] == kRbx);
  if (!memory_allowed()) return Outcome::kInterpret;
  const Place place = look_up(bytes, true, true, bytes == 16 ? 16 : 0);
  load_flags();
  a_.mov(8, kRax, kAccumulator);
  a_.rm(bytes == 16 ? 8 : 4, 0x0fc7, 1, place.mem, lock_prefix());
  a_.mov(8, kAccumulator, kRax);
  flags_made();
  stored(place);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::move_swapped() {
  static const bool host_has = __builtin_cpu_supports("movbe") != 0;
  const Operand &to = insn().operand[0], &from = insn().operand[1];
  const unsigned size = to.size;
  if (!host_has || !memory_allowed()) return Outcome::kInterpret;
  if (is_memory(from)) {
    const Place place = look_up(size, false);
    const Reg target = size == 2 ? use(to.reg, kRax) : BlockEmitter::target(to.reg, kRax);
    a_.rm(size, 0x0f38f0, target, place.mem);
    put(to.reg, target);
    return Outcome::kDone;
  }
  const Place place = look_up(size, true);
  a_.rm(size, 0x0f38f1, use(from.reg, kRax), place.mem);
  stored(place);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::swap_bytes() {
  const Operand& to = insn().operand[0];
  if (to.size == 2) return Outcome::kInterpret;
  const Reg target = use(to.reg, kR10);
  const uint8_t rex = static_cast<uint8_t>((to.size == 8 ? 8 : 0) | target >> 3);
  if (rex != 0) a_.byte(rex | 0x40);
  a_.byte(0x0f);
  a_.byte(static_cast<uint8_t>(0xc8 | (target & 7)));
  put(to.reg, target);
  return Outcome::kDone;
}

// CBW, CWDE, CDQE; CWD, CDQ, CQO.
BlockEmitter::Outcome BlockEmitter::widen() {
  static_assert(kHost[x86::kRdx] == kRdx);
  const unsigned size = op().operand_size;
  if (insn().op == Code::kCwd) {
    a_.mov(8, kRax, kAccumulator);
    if (size == 2) a_.byte(0x66);
    if (size == 8) a_.byte(0x48);
    a_.byte(0x99);
    return Outcome::kDone;
  }
  switch (size) {
    case 2: a_.rr(2, 0x0fbe, kAccumulator, kAccumulator, 0, false, true); break;
    case 4: a_.rr(4, 0x0fbf, kAccumulator, kAccumulator); break;
    default: a_.rr(8, 0x63, kAccumulator, kAccumulator); break;
  }
  return Outcome::kDone;
}

// --- the stack

namespace {

constexpr auto kFrame = static_cast<Reg>(kHost[x86::kRbp]);

}  // namespace

// The TLB look-up of the place below the top of the stack, or of the top itself.
BlockEmitter::Place BlockEmitter::look_up_stack(int32_t offset, bool write) {
  if (wide_) {
    const GuestAddress place{.base = x86::kRsp, .disp = offset};
    Window window;
    if (!is_plain()) {
      if (const auto known = look_up_window(place, 8, write, 0)) return *known;
      window = plan_window(place, 8, write, 0);
    }
    move_stack(0);
    guard_flags();
    return look_up_at(at(kStackPointer, offset), {.bytes = 8, .write = write}, window);
  }
  save_flags();
  a_.lea(4, kR10, at(kStackPointer, offset));
  return look_up_r10({.bytes = 4, .write = write}, {});
}

// Moves the stack pointer by as much, and as the instructions before have not yet.
void BlockEmitter::move_stack(int32_t by) {
  by += std::exchange(stack_lag_, 0);
  if (by != 0) a_.lea(pointer_bytes_, kStackPointer, at(kStackPointer, by));
}

// Whether the next instruction is a push or pop in the same window as the current one, so that it has no way out of
// line: then the stack pointer may be moved for both at once.
bool BlockEmitter::goes_on_at_stack(const Place& place) const {
  if (place.window == kNoWindow || is_last()) return false;
  const bool pushes = insn().op == Code::kPush;
  if (pushes && !place.by_range && !goes_on_storing(place)) return false;
  const x86::Insn& next = insns_[index_ + 1];
  const Operand& operand = next.operand[0];
  if ((next.op != Code::kPush && next.op != Code::kPop) || next.operand_size != 8) return false;
  if (is_register(operand) ? operand.reg == x86::kRsp : next.op == Code::kPop || !is_immediate(operand)) return false;
  const Window& window = windows_[static_cast<size_t>(place.window)];
  const int64_t first = (pushes ? -8 : 8) + (next.op == Code::kPush ? -8 : 0);
  return window.open && window.at.base == x86::kRsp && window.at.index == cpu::kZeroReg && first >= window.low &&
         first + 8 <= window.high && (next.op == Code::kPop || window.write);
}

// Behind a push to `place`.
void BlockEmitter::pushed(Place& place) {
  const auto bytes = static_cast<int32_t>(pointer_bytes_);
  if (insn().op == Code::kPush && goes_on_at_stack(place))
    stack_lag_ -= bytes;
  else
    move_stack(-bytes);
  if (place.mem.base == kStackPointer) place.mem.disp += bytes;
}

BlockEmitter::Outcome BlockEmitter::push() {
  const Operand& from = insn().operand[0];
  if (op().operand_size != pointer_bytes_) return Outcome::kInterpret;
  const int32_t below = -static_cast<int32_t>(pointer_bytes_);
  if (is_memory(from)) {
    if (!memory_allowed()) return Outcome::kInterpret;
    const Place source = look_up(pointer_bytes_, false);
    a_.load(pointer_bytes_, kRax, source.mem);
    a_.store(8, in_cpu(layout_.spare), kRax);
    Place place = look_up_stack(below, true);
    a_.load(8, kRax, in_cpu(layout_.spare));
    a_.store(pointer_bytes_, place.mem, kRax);
    pushed(place);
    stored(place);
    return Outcome::kDone;
  }
  if (!is_immediate(from) && !is_register(from)) return Outcome::kInterpret;
  Place place = look_up_stack(below, true);
  if (is_immediate(from))
    a_.store_imm(pointer_bytes_, place.mem, static_cast<uint32_t>(insn().imm));
  else
    a_.store(pointer_bytes_, place.mem, use(from.reg, kRax));
  pushed(place);
  stored(place);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::pop() {
  const Operand& to = insn().operand[0];
  if (op().operand_size != pointer_bytes_ || !is_register(to)) return Outcome::kInterpret;
  const Place place = look_up_stack(0, false);
  const Reg target = BlockEmitter::target(to.reg, kRax);
  a_.load(pointer_bytes_, target, place.mem);
  put(to.reg, target);
  const auto bytes = static_cast<int32_t>(pointer_bytes_);
  if (to.reg == x86::kRsp)
    stack_lag_ = 0;
  else if (goes_on_at_stack(place))
    stack_lag_ += bytes;
  else
    move_stack(bytes);
  return Outcome::kDone;
}

BlockEmitter::Outcome BlockEmitter::leave_frame() {
  if (op().operand_size != pointer_bytes_) return Outcome::kInterpret;
  Place place;
  if (wide_) {
    place = look_up_at(at(kFrame), {.bytes = 8}, {});
  } else {
    save_flags();
    a_.mov(4, kR10, kFrame);
    place = look_up_r10({.bytes = 4}, {});
  }
  a_.load(pointer_bytes_, kRax, place.mem);
  a_.lea(pointer_bytes_, kStackPointer, at(kFrame, static_cast<int32_t>(pointer_bytes_)));
  a_.mov(pointer_bytes_, kFrame, kRax);
  return Outcome::kDone;
}

}  // namespace kite::jit
