// Addresses, the check of the range that a place in the code last met, and what follows a store.
#include <cstddef>

#include "accel/jit/emitter.h"

namespace kite::jit {
namespace {

constexpr uint32_t kPageMask = ~static_cast<uint32_t>(kPageSize - 1);  // sign-extended
constexpr int32_t kLargestDisplacement = 0x7fff0000;

}  // namespace

bool BlockEmitter::memory_allowed() const {
  if (insn().mem.vector_index != 0) return false;
  if (wide_) return op().address_size != 2;
  return op().address_size == 4 && op().flat;
}

// Where there is one CPU an instruction is atomic without LOCK, as Linux has it when it takes the prefixes out of
// itself. Not so what orders memory for devices, which run beside the CPU: that is written as an operation on the
// stack, or one that changes nothing, and keeps its prefix.
uint8_t BlockEmitter::lock_prefix() const {
  constexpr uint8_t kLock = 0xf0;
  if (!op().lock) return 0;
  const bool is_barrier = op().base == x86::kRsp || (is_immediate(insn().operand[1]) && insn().imm == 0);
  return cpu_.config.cpu_count == 1 && !is_barrier ? 0 : kLock;
}

bool BlockEmitter::address_is_constant() const {
  return op().flat && op().base == cpu::kZeroReg && op().index == cpu::kZeroReg;
}

uint64_t BlockEmitter::constant_address() const {
  const auto address = static_cast<uint64_t>(op().disp);
  return op().address_size == 8 ? address : static_cast<uint32_t>(address);
}

// The effective address, without segment, into `to`. R10 and R11 may be lost.
void BlockEmitter::effective_address(unsigned size, Reg to) {
  const bool has_base = op().base != cpu::kZeroReg, has_index = op().index != cpu::kZeroReg;
  if (!has_base && !has_index) {
    const auto value = static_cast<uint64_t>(op().disp);
    return a_.mov_imm(to, size == 8 ? value : static_cast<uint32_t>(value));
  }
  Mem mem{.scale = op().scale, .disp = static_cast<int32_t>(op().disp)};
  if (has_base) mem.base = use(op().base, kR10);
  if (has_index) mem.index = use(op().index, kR11);
  if (size == 8 && mem.base == to && !has_index && mem.disp == 0) return;
  a_.lea(size, to, mem);
}

void BlockEmitter::linear_to_r10() {
  effective_address(op().address_size, kR10);
  if (!op().flat) a_.rm(8, 0x03, kR10, in_cpu(layout_.segment_base[op().segment]));  // add
}

BlockEmitter::Place BlockEmitter::look_up(const Access& access, bool simple) {
  const unsigned bytes = access.bytes, alignment = access.alignment;
  const bool write = access.write;
  if (address_is_constant()) {
    const uint64_t linear = constant_address();
    const bool aligned = alignment == 0 || (linear & (alignment - 1)) == 0;
    if (aligned && (linear & (kPageSize - 1)) + bytes <= kPageSize) return look_up_constant(linear, bytes, write);
  }
  const bool has_base = op().base != cpu::kZeroReg, has_index = op().index != cpu::kZeroReg;
  const bool plain = op().flat && op().address_size == 8 && (has_base || has_index) && op().disp < kLargestDisplacement;
  Window window;
  if (plain && wide_ && !is_plain()) {
    const GuestAddress at{op().base, op().index, has_index ? op().scale : 0u, op().disp};
    if (const auto place = look_up_window(at, bytes, write, alignment)) return *place;
    window = plan_window(at, bytes, write, alignment);
  }
  guard_flags();
  if (!simple && plain && (!has_index || in_host(op().index))) {
    Mem address{.scale = op().scale, .disp = static_cast<int32_t>(op().disp)};
    if (has_index) address.index = kHost[op().index];
    if (has_base && !in_host(op().base)) return look_up_from_slot(address, access, window);
    if (has_base) address.base = kHost[op().base];
    return look_up_at(address, access, window);
  }
  linear_to_r10();
  return look_up_r10(access, window);
}

void BlockEmitter::miss(uint8_t* jump) {
  flags_lost();
  if (ends_)
    detour_hand_over(jump);
  else
    detour_interpret(jump);
}

void BlockEmitter::miss_access(uint8_t* jump) {
  if (translation_.plain == nullptr) return miss(jump);
  flags_lost();
  detours_.push_back({.kind = Detour::Kind::kPlainVersion, .jump = jump, .recipe = recipe_of_lost(), .index = index_});
}

// R10 becomes the distance to the host's address, or that address if it was the linear one. True: the TLB has been
// asked, and for stores R11 is where the state byte is. The kernel's code goes from page to page and from process to
// process: there the TLB is asked.
bool BlockEmitter::check(const Access& access) {
  at_hand_ = {};
  guard_flags();
  note_look_up(access.bytes, access.write);
  const Mem& address = access.address;
  const bool on_stack = !access.in_r10 && address.base == kStackPointer && address.index == kNone &&
                        access.bytes <= cpu::RangeRecord::kStackBytes;
  const bool is_user = kind() == static_cast<size_t>(cpu::TlbKind::kUser);
  if (is_user && on_stack) {
    check_range(access, t_.stack_range(kind()));
  } else if (is_user && has_ranges() && !t_.moves(block_.physical + place_in_block())) {
    check_range(access, t_.new_range(access.bytes, access.write, translation_, place_in_block()));
  } else {
    miss_access(look_up_tlb(a_, access));
    return true;
  }
  return false;
}

void BlockEmitter::check_range(const Access& access, const RangePlace& place) {
  Mem first = access.address;
  first.disp += access.lead;
  cpu::AccessRange& range = *place.range;
  if (first.index == kNone && first.disp == 0)
    a_.mov(8, kR11, static_cast<Reg>(first.base));
  else
    a_.lea(8, kR11, first);
  a_.rm(8, 0x2b, kR11, near_code(&range.base));   // sub
  a_.rm(8, 0x3b, kR11, near_code(&range.limit));  // cmp
  miss_access(a_.jcc(Condition::kAe));
  const size_t detour = detours_.size() - 1;
  if (access.alignment != 0) {
    a_.rr(4, 0xf7, 0, kR11);  // test
    a_.dword(access.alignment - 1);
    miss_access(a_.jcc(Condition::kNe));
  }
  a_.rm(8, access.in_r10 ? 0x03 : 0x8b, kR10, near_code(&range.delta));  // add, mov
  Detour& slow = detours_[detour];
  slow.range = place;
  slow.resume_access = a_.here();
  slow.access = access;
  slow.access.whole = false;
}

// What is checked is all of the window, when there is one.
BlockEmitter::Place BlockEmitter::look_up_at(const Mem& address, Access access, Window window) {
  Place place{.mem = address, .bytes = access.bytes};
  access.address = address;
  access.whole = address.base != kNone && address.index != kNone;
  access.has_r11 &= !window.open;
  if (window.open) widen(access, window);
  const bool by_tlb = check(access);
  place.by_range = window.by_range = !by_tlb;
  if (by_tlb && access.whole) {
    place.mem = access.has_r11 && !access.write ? at(kR10, kR11) : at(kR10);
    if (window.open) place.window = open_window(window);
    return place;
  }
  if (window.open || (address.base != kNone && address.index != kNone)) {
    Mem host = address;
    if (host.base == kNone) {
      host.base = kR10;
    } else {
      a_.lea(8, kR10, at(static_cast<Reg>(address.base), kR10, 0, address.disp));
      host = {.base = kR10, .index = address.index, .scale = address.scale};
    }
    place.mem = host;
    if (!window.open) return place;
    if (host.index != kNone || host.disp != 0) a_.lea(8, kR10, host);
    place.mem = at(kR10);
    place.window = open_window(window);
  } else if (address.base == kNone) {
    place.mem.base = kR10;
  } else {
    place.mem.index = kR10;
    place.mem.scale = 0;
  }
  return place;
}

// The base is in the Cpu.
BlockEmitter::Place BlockEmitter::look_up_from_slot(Mem address, Access access, Window window) {
  a_.load(8, kR10, layout_.slot(op().base));
  address.base = kR10;
  Place place{.mem = address, .bytes = access.bytes};
  access.address = address;
  access.in_r10 = true;
  access.base = op().base;
  if (window.open) widen(access, window);
  place.by_range = window.by_range = !check(access);
  if (!window.open) return place;
  if (address.index != kNone || address.disp != 0) a_.lea(8, kR10, address);
  place.mem = at(kR10);
  open_window(window);
  return place;
}

BlockEmitter::Place BlockEmitter::look_up_r10(Access access, Window window) {
  const unsigned bytes = access.bytes;
  access.address = at(kR10);
  access.in_r10 = true;
  if (window.open) widen(access, window);
  window.by_range = !check(access);
  if (window.open) open_window(window);
  return {.mem = at(kR10), .bytes = bytes, .by_range = window.by_range};
}

// Out of line: the TLB may know what the range does not. Otherwise it goes on behind this.
void BlockEmitter::detour_range(const Detour& detour) {
  cpu::RangeRecord& record = *detour.range.record;
  const Access& access = detour.access;
  Mem first = access.address;
  first.disp += access.lead;
  std::vector<uint8_t*> unknown;
  cold_.rm(1, 0xfe, 1, near_code(detour.range.patience));  // dec
  uint8_t* const fill = cold_.jcc(Condition::kE);
  unknown.push_back(look_up_tlb(cold_, access));
  if (access.write) unknown.push_back(look_at_state(cold_));
  cold_.jmp(detour.resume_access);
  cold_.bind_here(fill);
  if (!access.in_r10 || first.index != kNone || first.disp != 0) cold_.lea(8, kR10, first);
  if (access.alignment != 0) {
    cold_.rr(4, 0xf7, 0, kR10);  // test
    cold_.dword(access.alignment - 1);
    unknown.push_back(cold_.jcc(Condition::kNe));
  }
  cold_.rm(8, 0x8d, kRax, near_code(&record));  // lea
  cold_.call(t_.runtime().look_up[kind()][access.write ? 1 : 0]);
  unknown.push_back(cold_.jcc(Condition::kNe));
  if (access.write) unknown.push_back(look_at_state(cold_));
  if (access.base != kNone) {
    cold_.rm(8, 0x03, kR10, layout_.slot(access.base));  // add
  } else if (access.in_r10) {
    cold_.rm(8, 0x03, kR10, in_cpu(layout_.spare + kLinearSpare));  // add
    if (access.lead != 0) cold_.lea(8, kR10, at(kR10, -access.lead));
  }
  cold_.jmp(detour.resume_access);
  for (uint8_t* const jump : unknown) cold_.bind_here(jump);
}

// Whether the page is watched whose state byte R11 leads to; answers the jump that is taken then. Who watches it from
// now on waits until this code has been left, unless that is another run of the same CPU.
uint8_t* BlockEmitter::look_at_state(Assembler& a) const {
  if (cpu_.config.cpu_count != 1) a.store_imm(1, at(kR11, RamBlock::kToUnlooked), 1);
  a.alu_imm(1, 7, at(kR11), 0);
  return a.jcc(Condition::kNe);
}

// The index is that of the first byte's page and the tag that of the last byte's: what crosses never hits. What is
// aligned does not cross: the last aligned byte does for the tag, with the low bits left in it.
uint8_t* BlockEmitter::look_up_tlb(Assembler& a, const Access& access) {
  static const bool has_rorx = __builtin_cpu_supports("bmi2") != 0;
  Mem first = access.address;
  if (access.whole) {
    a.lea(8, kR10, first);
    first = at(kR10);
  }
  first.disp += access.lead;
  Mem last = first;
  last.disp += static_cast<int32_t>(access.bytes - std::clamp(access.alignment, 1u, access.bytes));
  const auto entry = [&](int32_t field) { return in_cpu(kR11, tlb_ + field); };
  const auto take = [&a](unsigned size, Reg to, const Mem& from) {
    if (from.index == kNone && from.base != kNone && from.disp == 0)
      a.mov(size, to, static_cast<Reg>(from.base));
    else
      a.lea(size, to, from);
  };
  take(8, kRax, last);
  if (has_rorx && first.index == kNone && first.base != kNone && first.disp == 0) {
    a.vex_rr({.map = 3, .prefix = 0xf2, .opcode = 0xf0}, kR11, 0, first.base);
    a.byte(kTlbShift);
  } else {
    take(4, kR11, first);
    a.shift_imm(4, 5, kR11, kTlbShift);
  }
  a.alu_imm(4, 4, kR11, kTlbMask);
  a.alu_imm(8, 4, kRax, kPageMask | (access.alignment != 0 ? access.alignment - 1 : 0));
  a.rm(8, 0x3b, kRax, entry(access.write ? kTlbWriteTag : kTlbReadTag));  // cmp
  uint8_t* const other = a.jcc(Condition::kNe);
  if (access.whole && access.has_r11 && !access.write)
    a.load(8, kR11, entry(kTlbAddend));
  else
    a.rm(8, access.in_r10 || access.whole ? 0x03 : 0x8b, kR10, entry(kTlbAddend));  // add, mov
  if (access.write) a.load(8, kR11, entry(kTlbPageState));
  return other;
}

// The entry is known, and whether the access crosses.
BlockEmitter::Place BlockEmitter::look_up_constant(uint64_t linear, unsigned bytes, bool write) {
  at_hand_ = {};
  guard_flags();
  note_look_up(bytes, write);
  Place place;
  place.bytes = bytes;
  const int32_t entry = tlb_ + static_cast<int32_t>((linear >> kTlbShift) & kTlbMask);
  if (write) place.page_state = entry + kTlbPageState;
  const uint64_t page = cpu::page_of(linear);
  const Mem tag = in_cpu(entry + (write ? kTlbWriteTag : kTlbReadTag));
  if (Assembler::fits_signed(page)) {
    a_.alu_imm(8, 7, tag, static_cast<uint32_t>(page));
  } else {
    a_.mov_imm(kRax, page);
    a_.rm(8, 0x3b, kRax, tag);
  }
  miss_access(a_.jcc(Condition::kNe));
  a_.load(8, kR10, in_cpu(entry + kTlbAddend));
  if (Assembler::fits_signed(linear)) {
    place.mem = at(kR10, static_cast<int32_t>(linear));
  } else {
    a_.mov_imm(kR11, linear);
    place.mem = at(kR10, kR11);
  }
  return place;
}

// [architecture.md, watched pages] The look comes after the store. Of stores one after the other to the same part of
// the stack, the last one looks. A range has no watched page: whoever marks one waits until code has been left, and it
// is dropped before code runs on (Translator::heed_watched).
void BlockEmitter::stored(const Place& last, uint64_t leave_rip) {
  if (last.by_range) return;
  const Place place = join(std::exchange(unlooked_, {}), last);
  if (goes_on_storing(place)) {
    unlooked_ = place;
    return;
  }
  guard_flags();
  if (place.page_state >= 0) {
    a_.load(8, kRax, in_cpu(place.page_state));
    a_.alu_imm(1, 7, at(kRax), 0);
  } else {
    a_.alu_imm(1, 7, at(kR11), 0);
  }
  Detour detour{.kind = Detour::Kind::kNotice,
                .jump = a_.jcc(Condition::kNe),
                .resume = a_.here(),
                .units = units_,
                .fip = fip_,
                .resume_rip = leave_rip,
                .place = place,
                .at_hand = keeps_scratch(index_) ? at_hand_ : AtHand{}};
  detour.site = &site();
  detour.site->leave_rip = wide_ ? leave_rip : static_cast<uint32_t>(leave_rip);
  if (leave_rip == Site::kDynamic) detour.site->leave_rip = leave_rip;
  flags_lost();
  detour.recipe = recipe_of_lost();
  detours_.push_back(detour);
}

void BlockEmitter::notice(const Detour& detour) {
  const Place& place = detour.place;
  keep_at_hand(cold_, detour.at_hand);
  if (place.elements)
    notice_elements(place.bytes);
  else
    cold_.lea(8, kR10, place.mem);
  if (detour.recipe.kind != Recipe::Kind::kNone) {
    make_anew(cold_, detour.recipe);
    emit_save(cold_);
  }
  write_instruction_pointer(cold_, detour.fip);
  cold_.mov_imm(kR11, reinterpret_cast<uintptr_t>(detour.site));
  if (!place.elements) cold_.mov_imm(kRax, place.bytes);
  cold_.call(t_.runtime().notice);
  reload(detour);
}

}  // namespace kite::jit
