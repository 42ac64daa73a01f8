// Addresses, the inline TLB look-up, and what follows a store.
#include <cstddef>

#include "accel/jit/emitter.h"

namespace kite::jit {
namespace {

using cpu::TlbEntry;

constexpr int32_t field(size_t offset) { return static_cast<int32_t>(offset); }
constexpr int32_t kAddend = field(offsetof(TlbEntry, addend)), kPageState = field(offsetof(TlbEntry, page_state)),
                  kReadTag = field(offsetof(TlbEntry, read_tag)), kWriteTag = field(offsetof(TlbEntry, write_tag));
// From an address to the offset of its entry: what the shift leaves to mask.
constexpr unsigned kEntryShift = 6;
static_assert(sizeof(TlbEntry) == 1u << kEntryShift);
constexpr uint32_t kEntryMask = (cpu::kTlbSize - 1) << kEntryShift;
constexpr uint32_t kPageMask = ~static_cast<uint32_t>(kPageSize - 1);  // sign-extended
constexpr uint32_t tag_mask(unsigned alignment) { return kPageMask | (alignment != 0 ? alignment - 1 : 0); }
constexpr int32_t kLargestDisplacement = 0x7fff0000;

}  // namespace

bool BlockEmitter::memory_allowed() const {
  if (insn().mem.vector_index != 0) return false;
  if (wide_) return op().address_size != 2;
  return op().address_size == 4 && op().flat;
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
  a_.lea(size, to, mem);
}

void BlockEmitter::linear_to_r10() {
  effective_address(op().address_size, kR10);
  if (!op().flat) a_.rm(8, 0x03, kR10, in_cpu(layout_.segment_base[op().segment]));  // add
}

BlockEmitter::Place BlockEmitter::look_up(unsigned bytes, bool write, bool simple, unsigned alignment) {
  guard_flags();
  if (address_is_constant()) {
    const uint64_t linear = constant_address();
    const bool aligned = alignment == 0 || (linear & (alignment - 1)) == 0;
    if (aligned && (linear & (kPageSize - 1)) + bytes <= kPageSize) return look_up_constant(linear, bytes, write);
  }
  const bool base_only = op().flat && op().address_size == 8 && op().index == cpu::kZeroReg &&
                         op().base != cpu::kZeroReg && in_host(op().base) && op().disp < kLargestDisplacement;
  if (base_only && !simple)
    return look_up_at(at(static_cast<Reg>(kHost[op().base]), static_cast<int32_t>(op().disp)), bytes, write, alignment);
  linear_to_r10();
  return look_up_r10(bytes, write, alignment);
}

// Compares `tag` with the TLB entry that R11 leads to, and leaves the fast path when they differ.
void BlockEmitter::check_tag(Reg tag, bool write) {
  a_.rm(8, 0x3b, tag, in_cpu(kR11, tlb_ + (write ? kWriteTag : kReadTag)));
  miss(a_.jcc(Condition::kNe));
}

void BlockEmitter::miss(uint8_t* jump) {
  flags_lost();
  if (ends_)
    detour_hand_over(jump);
  else
    detour_interpret(jump);
}

// The index is that of the first byte's page and the tag that of the last byte's: what crosses never hits.
BlockEmitter::Place BlockEmitter::look_up_at(const Mem& address, unsigned bytes, bool write, unsigned alignment) {
  guard_flags();
  const auto base = static_cast<Reg>(address.base);
  // What is aligned does not cross: its first byte does for the tag, with the low bits left in it.
  const int32_t last = address.disp + (alignment != 0 ? 0 : static_cast<int32_t>(bytes) - 1);
  if (last == 0)
    a_.mov(8, kRax, base);
  else
    a_.lea(8, kRax, at(base, last));
  if (address.disp == 0)
    a_.mov(4, kR11, base);
  else
    a_.lea(4, kR11, address);
  a_.shift_imm(4, 5, kR11, kPageShift - kEntryShift);
  a_.alu_imm(4, 4, kR11, kEntryMask);
  a_.alu_imm(8, 4, kRax, tag_mask(alignment));
  check_tag(kRax, write);
  a_.load(8, kR10, in_cpu(kR11, tlb_ + kAddend));
  Place place;
  place.mem = at(base, kR10, 0, address.disp);
  place.bytes = bytes;
  place.address = address;
  return place;
}

BlockEmitter::Place BlockEmitter::look_up_r10(unsigned bytes, bool write, unsigned alignment) {
  guard_flags();
  if (bytes == 1 || alignment != 0)
    a_.mov(8, kRax, kR10);
  else
    a_.lea(8, kRax, at(kR10, static_cast<int32_t>(bytes) - 1));
  a_.mov(4, kR11, kR10);
  a_.shift_imm(4, 5, kR11, kPageShift - kEntryShift);
  a_.alu_imm(4, 4, kR11, kEntryMask);
  a_.alu_imm(8, 4, kRax, tag_mask(alignment));
  check_tag(kRax, write);
  a_.rm(8, 0x03, kR10, in_cpu(kR11, tlb_ + kAddend));
  Place place;
  place.mem = at(kR10);
  place.bytes = bytes;
  place.linear = Place::Linear::kHostAddress;
  return place;
}

// The entry is known, and whether the access crosses.
BlockEmitter::Place BlockEmitter::look_up_constant(uint64_t linear, unsigned bytes, bool write) {
  Place place;
  place.linear = Place::Linear::kConstant;
  place.value = linear;
  place.bytes = bytes;
  place.entry = tlb_ + static_cast<int32_t>((linear >> (kPageShift - kEntryShift)) & kEntryMask);
  const uint64_t page = cpu::page_of(linear);
  const Mem tag = in_cpu(place.entry + (write ? kWriteTag : kReadTag));
  if (Assembler::fits_signed(page)) {
    a_.alu_imm(8, 7, tag, static_cast<uint32_t>(page));
  } else {
    a_.mov_imm(kRax, page);
    a_.rm(8, 0x3b, kRax, tag);
  }
  miss(a_.jcc(Condition::kNe));
  a_.load(8, kR10, in_cpu(place.entry + kAddend));
  if (Assembler::fits_signed(linear)) {
    place.mem = at(kR10, static_cast<int32_t>(linear));
  } else {
    a_.mov_imm(kR11, linear);
    place.mem = at(kR10, kR11);
  }
  return place;
}

// [architecture.md, watched pages] The look comes after the store.
void BlockEmitter::stored(const Place& place, uint64_t leave_rip) {
  guard_flags();
  a_.load(
      8, kRax,
      place.linear == Place::Linear::kConstant ? in_cpu(place.entry + kPageState) : in_cpu(kR11, tlb_ + kPageState));
  a_.alu_imm(1, 7, at(kRax), 0);
  Detour detour{.kind = Detour::Kind::kNotice,
                .jump = a_.jcc(Condition::kNe),
                .resume = a_.here(),
                .units = units_,
                .fip = fip_,
                .resume_rip = leave_rip,
                .place = place,
                .recipe = {}};
  detour.site = &site();
  detour.site->leave_rip = wide_ ? leave_rip : static_cast<uint32_t>(leave_rip);
  if (leave_rip == Site::kDynamic) detour.site->leave_rip = leave_rip;
  flags_lost();
  detour.recipe = recipe_of_lost();
  detours_.push_back(detour);
}

void BlockEmitter::notice(const Detour& detour) {
  const Place& place = detour.place;
  switch (place.linear) {
    case Place::Linear::kAddress: cold_.lea(8, kR10, place.address); break;
    case Place::Linear::kHostAddress: cold_.rm(8, 0x2b, kR10, in_cpu(kR11, tlb_ + kAddend)); break;  // sub
    case Place::Linear::kConstant: cold_.mov_imm(kR10, place.value); break;
  }
  if (detour.recipe.kind != Recipe::Kind::kNone) {
    make_anew(cold_, detour.recipe);
    emit_save(cold_);
  }
  write_instruction_pointer(cold_, detour.fip);
  cold_.mov_imm(kR11, reinterpret_cast<uintptr_t>(detour.site));
  cold_.mov_imm(kRax, place.bytes);
  cold_.call(t_.runtime().notice);
  reload(detour);
}

}  // namespace kite::jit
