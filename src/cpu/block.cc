#include "cpu/block.h"

#include <algorithm>
#include <new>
#include <span>
#include <utility>

#include "cpu/debugger.h"
#include "cpu/handlers.h"
#include "support/huge_pages.h"
#include "support/log.h"

namespace kite::cpu {

using x86::DecodeStatus;
using x86::Insn;

Block no_block{};

namespace {

constexpr size_t kMaxInsnBytes = BlockCache::kMaxInsnBytes;
// How far a block goes on a page that data shares (RamBlock::mark_code); others go to its end.
constexpr uint64_t kSharedPageBytes = 256;

// The instruction is longer than 15 bytes, or reaches beyond the limit of CS (SDM 2A 2.3.11, 3A 5.3).
void bad_fetch(Cpu& cpu, const Op* op) {
  cpu.raise(x86::Vector::kGp, 0);
  KITE_FAULT(cpu, op);
}

x86::DecodeMode decode_mode(uint32_t key) {
  switch (key & mode::kWidthMask) {
    case mode::kWidth16: return {x86::CodeWidth::k16};
    case mode::kWidth32: return {x86::CodeWidth::k32};
    default: return {x86::CodeWidth::k64};
  }
}

// How many bytes from rip on the code segment holds; at least 1 has been checked.
uint64_t segment_bytes(const Cpu& cpu) {
  if ((cpu.mode_key & mode::kFlatCs) != 0) return ~uint64_t{0};
  return uint64_t{cpu.state.seg[static_cast<size_t>(x86::Seg::kCs)].limit} - cpu.state.rip + 1;
}

Op sentinel(uint64_t rip, Handler handler) {
  Op op;
  op.handler = handler;
  op.rip = rip;
  op.link = &no_block;
  return op;
}

}  // namespace

bool keeps_insn(const Insn& insn) {
  using enum x86::Op;
  if (insn.unit != x86::Unit::kInteger) return true;
  return !(insn.op <= kXchg || insn.op == kAdcx || insn.op == kAdox || (insn.op >= kMov && insn.op <= kMovnti) ||
           insn.op == kPush || insn.op == kPop || insn.op == kJcc || insn.op == kJmp || insn.op == kCall ||
           insn.op == kRet || insn.op == kNop);
}

// The last instruction may have changed what code is decoded under.
void fall_through(Cpu& cpu, const Op* op) {
  cpu.state.rip = op->rip;
  if (cpu.mode_key != cpu.block->mode_key) [[unlikely]]
    return;
  KITE_CHAIN(cpu, op);
}

void leave_block(Cpu& cpu, const Op* op) { KITE_FAULT(cpu, op); }

namespace {

// The function sanitizer would look for a signature in front of what is emitted.
__attribute__((no_sanitize("function"))) void run_translated(Cpu& cpu, const Op* op) {
  const BlockTranslator::Entry entry = cpu.translator->enter(cpu, *cpu.block);
  if (entry == nullptr) return;
  [[clang::musttail]] return entry(cpu, op);
}

void count_entry(Cpu& cpu, const Op* op) {
  Block& block = *cpu.block;
  if (++block.entries >= cpu.translator->threshold()) [[unlikely]] {
    if (cpu.translator->translate(cpu, block))
      cpu.blocks().shed(block);
    else
      block.ops[0].handler = block.first;
    [[clang::musttail]] return block.ops[0].handler(cpu, block.ops);
  }
  [[clang::musttail]] return block.first(cpu, op);
}

void decode_again(Cpu& cpu, const Op*) {
  Block& block = *cpu.block;
  cpu.blocks().restore(cpu, block);
  [[clang::musttail]] return block.ops[0].handler(cpu, block.ops);
}

// What blocks have whose Ops were given back.
constexpr Op stand_in(Handler handler) {
  Op op;
  op.handler = handler;
  return op;
}
constinit Op shed_ops = stand_in(decode_again), translated_ops = stand_in(run_translated);

}  // namespace

void interpret_block(Cpu& cpu, const Op*) {
  Block& block = *cpu.block;
  if (block.memory == 0) cpu.blocks().restore(cpu, block);
  [[clang::musttail]] return block.first(cpu, block.ops);
}

void block_chain_slow(Cpu& cpu, const Op* op) {
  if (cpu.attention() || cpu.block->transient) return;
  Block* next = op->link;
  if (!cpu.blocks().renew(cpu, *next)) {
    next = cpu.blocks().find(cpu, false);
    if (next == nullptr) return;
    op->link = next;
  }
  cpu.block = next;
  [[clang::musttail]] return next->ops->handler(cpu, next->ops);
}

void block_jump_slow(Cpu& cpu, const Op*) {
  if (cpu.attention() || cpu.block->transient) return;
  BlockCache& blocks = cpu.blocks();
  Block* next = blocks.jump_entry(cpu.state.rip).block;
  if (!blocks.renew(cpu, *next)) {
    next = blocks.find(cpu, false);
    if (next == nullptr) return;
  }
  cpu.block = next;
  [[clang::musttail]] return next->ops->handler(cpu, next->ops);
}

void Cpu::code_written(Gpa physical, unsigned bytes) {
  const auto overlaps = [&](Gpa start, uint64_t size) { return physical < start + size && start < physical + bytes; };
  if (overlaps(block->physical, block->bytes) ||
      (block->generation2_at != nullptr && overlaps(block->physical2, kMaxInsnBytes)))
    end_block();
  if (translator != nullptr) translator->code_written(*this, physical);
}

void Cpu::end_block() {
  block->removed = true;
  block->epoch = 0;
  if (block->memory == 0 && !block->transient) return;  // it is translated, and leaves behind the store
  for (size_t i = 0; i < block->op_count + size_t{1}; ++i) block->ops[i].handler = leave_block;
}

void Cpu::map_changed(bool drop_code) {
  flush_tlb(false);
  if (!drop_code) return;
  blocks_->flush_later();
  end_block();
}

// Guest code at one linear address, as the MMU shows it.
struct BlockCache::Code {
  const uint8_t* host = nullptr;  // null: no memory there
  Gpa physical = 0;
  std::atomic<uint32_t>* generation_at = nullptr;
  uint32_t generation = 0;
  uint64_t bytes = 0;  // from `host` on that may be looked at

  // False: an exception was raised. `wanted`: how many bytes are needed, or as many as there are.
  bool fetch(Cpu& cpu, uint64_t linear, uint64_t wanted) {
    bytes = wanted;
    host = cpu.fetch_pointer(linear, physical, &generation_at, &generation, &bytes);
    return !cpu.exception;
  }
};

// Pages are mapped at many addresses: programs and libraries by every process at those of its own.
uint64_t BlockCache::hash(Gpa physical, uint64_t rip, uint32_t mode_key) {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;
  return ((physical ^ uint64_t{mode_key} << 40) * kOdd ^ rip) * kOdd >> (64 - kBucketBits);
}

uint8_t* BlockCache::allocate_code(size_t bytes) {
  if (code_slabs_.empty() || code_used_ + bytes > Slabs::kBytes) {
    code_slabs_.push_back(slabs_.take());
    code_used_ = 0;
  }
  return reinterpret_cast<uint8_t*>(code_slabs_.back()) + std::exchange(code_used_, code_used_ + bytes);
}

// Looking for idle blocks goes on for as long as it is worth it; a new chunk begins it anew.
void* BlockCache::allocate_ops(const Cpu& cpu, size_t count) {
  constexpr size_t kWorthIt = kHugePageSize / sizeof(Op) / 4;
  if (void* const piece = op_memory_.take(count)) return piece;
  if (finds_idle_) {
    finds_idle_ = shed_idle(cpu) >= kWorthIt;
    if (void* const piece = op_memory_.take(count)) return piece;
  }
  if (void* const piece = op_memory_.take_of_larger(count)) return piece;
  finds_idle_ = true;
  return op_memory_.take_of_new_chunk(count);
}

// The hand of a clock goes on: what has not been entered since it was last there is shed. Answers the Ops that were
// given back. Only a translator counts entries.
size_t BlockCache::shed_idle(const Cpu& cpu) {
  if (cpu.translator == nullptr || blocks_.size() <= kYoung) return 0;
  const size_t old = blocks_.size() - kYoung;
  size_t given = 0;
  for (size_t looked_at = 0; looked_at < std::min(kLookedAt, old); ++looked_at) {
    if (next_idle_ >= old) next_idle_ = 0;
    Block& block = blocks_[next_idle_++];
    if (block.memory == 0 || &block == cpu.block) continue;
    const auto entries = static_cast<uint8_t>(block.entries);
    if (!block.removed && block.translation == nullptr && entries != std::exchange(block.entries_seen, entries))
      continue;
    given += block.memory;
    shed(block);
  }
  return given;
}

void BlockCache::shed(Block& block) {
  op_memory_.give_back(block.ops, std::exchange(block.memory, 0));
  block.ops = block.translation != nullptr ? &translated_ops : &shed_ops;
  block.first = nullptr;
}

void BlockCache::flush(Cpu& cpu) {
  flush_pending_ = false;
  if (cpu.translator != nullptr) cpu.translator->flush(cpu);
  std::construct_at(tables_);
  blocks_.clear();
  op_memory_.clear();
  next_idle_ = 0;
  for (std::byte* const slab : code_slabs_) slabs_.give_back(slab);
  code_slabs_.clear();
}

void BlockCache::insert(Block& block) {
  Block*& bucket = tables_->buckets[hash(block.physical, block.rip, block.mode_key)];
  block.hash_next = bucket;
  block.removed = false;
  bucket = &block;
}

void BlockCache::remove(Block& block) {
  Block** at = &tables_->buckets[hash(block.physical, block.rip, block.mode_key)];
  while (*at != nullptr && *at != &block) at = &(*at)->hash_next;
  if (*at != nullptr) *at = block.hash_next;
  block.epoch = 0;
  block.removed = true;
}

bool BlockCache::renew(Cpu& cpu, Block& block) {
  const uint64_t linear = cpu.code_linear();
  const TlbEntry& entry = cpu.tlb().at(linear);
  if (flush_pending_ || block.removed || block.rip != cpu.state.rip || block.mode_key != cpu.mode_key ||
      block.generation2_at != nullptr || entry.exec_tag != page_of(linear) ||
      block.physical != (entry.page | (linear & (kPageSize - 1))) || block.bytes > segment_bytes(cpu) ||
      block.generation_at->load(std::memory_order_relaxed) != block.generation)
    return false;
  block.epoch = cpu.translation_epoch;
  return true;
}

Block* BlockCache::find(Cpu& cpu, bool may_flush) {
  if (flush_pending_ || memory() > kMemoryLimit) [[unlikely]] {
    if (!may_flush) return nullptr;
    flush(cpu);
    cpu.block = &no_block;
  }
  const uint64_t rip = cpu.state.rip;
  if ((cpu.mode_key & mode::kFlatCs) == 0 && rip > cpu.seg(x86::Seg::kCs).limit) {
    cpu.raise(x86::Vector::kGp, 0);
    return nullptr;
  }
  if (const JumpEntry& known = jump_entry(rip); known.rip == rip && renew(cpu, *known.block)) return known.block;
  const uint64_t linear = cpu.code_linear();
  if (is_fenced(cpu, linear)) [[unlikely]]
    return fence(cpu);
  const TlbEntry& entry = cpu.tlb().at(linear);
  Code code;
  if (entry.exec_tag == page_of(linear)) {
    if (Block* block = lookup(cpu, entry.page | (linear & (kPageSize - 1)))) return block;
    if (cpu.exception) return nullptr;
  }
  if (!code.fetch(cpu, linear, kSharedPageBytes)) return nullptr;
  if (code.host == nullptr) return single(cpu);
  if (entry.exec_tag != page_of(linear) || entry.page != page_of(code.physical)) return build(cpu, code);
  if (Block* block = lookup(cpu, code.physical)) return block;
  return cpu.exception ? nullptr : build(cpu, code);
}

Block* BlockCache::lookup(Cpu& cpu, Gpa physical) {
  Block* block = tables_->buckets[hash(physical, cpu.state.rip, cpu.mode_key)];
  while (block != nullptr &&
         (block->physical != physical || block->rip != cpu.state.rip || block->mode_key != cpu.mode_key))
    block = block->hash_next;
  if (block == nullptr) return nullptr;
  if (block->removed || block->bytes > segment_bytes(cpu) || !revalidate(cpu, *block)) {
    if (!cpu.exception) remove(*block);
    return nullptr;
  }
  // A block of two pages is checked each time: it is never current, so nothing reaches it but this.
  if (block->generation2_at == nullptr) {
    block->epoch = cpu.translation_epoch;
    jump_entry(block->rip) = {.rip = block->rip, .block = block};
  }
  return block;
}

// Whether the bytes are still those that were decoded. False with an exception: the second page cannot be fetched.
bool BlockCache::revalidate(Cpu& cpu, Block& block) {
  const uint64_t linear = cpu.code_linear();
  if (block.generation_at->load(std::memory_order_relaxed) != block.generation) {
    // The page was written, but perhaps not here: look at the bytes.
    Code code;
    const size_t here = std::min<size_t>(block.bytes, kPageSize - (linear & (kPageSize - 1)));
    if (!code.fetch(cpu, linear, here) || code.host == nullptr) return false;
    if (std::memcmp(code.host, block.code, here) != 0) return false;
    block.generation = code.generation;
  }
  if (block.generation2_at == nullptr) return true;
  Code second;
  if (!second.fetch(cpu, cpu.code_linear(page_of(linear) + kPageSize - linear), kMaxInsnBytes)) return false;
  return second.host != nullptr && second.physical == block.physical2 && second.generation == block.generation2;
}

// Collects decoded instructions, then lays them out as a block.
class BlockCache::Builder {
 public:
  Builder(BlockCache& cache, Cpu& cpu, uint64_t rip) : cache_(cache), cpu_(cpu), rip_(rip) {}

  // Decodes and binds the next instruction out of `bytes`. False: the block ends before it (kTruncated, with nothing
  // bound) or with it.
  bool add(std::span<const uint8_t> bytes) {
    Insn& insn = cache_.insns_[count_];
    insn = Insn{};
    status_ = x86::decode(bytes.first(std::min(bytes.size(), kMaxInsnBytes)), decode_mode(cpu_.mode_key), insn);
    if (status_ == DecodeStatus::kTruncated) return false;
    Op& op = cache_.ops_[count_++];
    if (status_ == DecodeStatus::kTooLong) {
      op = sentinel(rip_ + size_, bad_fetch);
      op.length = static_cast<uint8_t>(kMaxInsnBytes);
      size_ += static_cast<uint32_t>(bytes.size());
      return false;
    }
    bind(cpu_, next_rip(), insn, op);
    size_ += insn.length;
    return count_ < kMaxOps && !ends_block(insn.op);
  }
  [[nodiscard]] size_t count() const { return count_; }
  [[nodiscard]] uint32_t size() const { return size_; }
  [[nodiscard]] bool truncated() const { return status_ == DecodeStatus::kTruncated; }
  // Instruction pointers wrap as the code is wide.
  [[nodiscard]] uint64_t next_rip() const {
    const uint64_t rip = rip_ + size_;
    return (cpu_.mode_key & mode::kWidthMask) == mode::kWidth64 ? rip : static_cast<uint32_t>(rip);
  }

  Block* finish(const Code& code, std::span<const uint8_t> bytes) {
    if (log::enabled(log::Category::kInAsm)) log_code();
    cpu_.counters.blocks.add();
    Block& block = cache_.blocks_.add();
    auto* const copy = cache_.allocate_code(size_);
    std::memcpy(copy, bytes.data(), size_);
    block.code = copy;
    block.op_count = static_cast<uint8_t>(count_);
    block.bytes = static_cast<uint16_t>(size_);
    block.rip = rip_;
    block.mode_key = cpu_.mode_key;
    block.physical = code.physical;
    block.generation_at = code.generation_at;
    block.generation = code.generation;
    lay_out(block);
    cache_.insert(block);
    return &block;
  }
  void lay_out(Block& block) {
    fuse();
    const size_t kept = static_cast<size_t>(std::ranges::count_if(std::span(cache_.insns_).first(count_),
                                                                  [](const Insn& insn) { return keeps_insn(insn); }));
    const auto memory_for = [](size_t ops, size_t insns) {
      return ops + 1 + (insns * sizeof(Insn) + sizeof(Op) - 1) / sizeof(Op);
    };
    static_assert(memory_for(kMaxOps, kMaxOps) <= OpMemory::kMostOps);
    const size_t memory = memory_for(count_, kept);
    void* const piece = cache_.allocate_ops(cpu_, memory);
    block.memory = static_cast<uint16_t>(memory);
    block.ops = static_cast<Op*>(piece);
    std::uninitialized_copy_n(cache_.ops_.data(), count_, block.ops);
    void* place = block.ops + count_ + 1;
    for (size_t i = 0; i < count_; ++i) {
      const Insn& insn = cache_.insns_[i];
      if (!keeps_insn(insn)) continue;
      block.ops[i].insn = new (place) Insn(insn);
      place = static_cast<std::byte*>(place) + sizeof(Insn);
    }
    std::construct_at(block.ops + count_, sentinel(next_rip(), fall_through));
    if (cpu_.translator == nullptr) return;
    block.first = block.ops[0].handler;
    block.ops[0].handler = block.translation != nullptr ? run_translated : count_entry;
  }

 private:
  void log_code() const {
    log::print(log::Category::kInAsm, "cpu {}: block at {:x}", cpu_.config.index, rip_);
    for (size_t i = 0; i < count_; ++i)
      log::print(log::Category::kInAsm, "  {:x}: {}", cache_.ops_[i].rip,
                 x86::to_text(cache_.insns_[i], cache_.ops_[i].rip));
  }
  void fuse() {
    for (size_t i = 0; i + 1 < count_; ++i) {
      if (cache_.insns_[i + 1].op != x86::Op::kJcc) continue;
      const Binding first{.insn = cache_.insns_[i], .op = cache_.ops_[i], .mode_key = cpu_.mode_key};
      const Binding second{.insn = cache_.insns_[i + 1], .op = cache_.ops_[i + 1], .mode_key = cpu_.mode_key};
      if (const Handler both = fused_handler(first, second)) cache_.ops_[i].handler = both;
    }
  }

  BlockCache& cache_;
  Cpu& cpu_;
  uint64_t rip_;
  size_t count_ = 0;
  uint32_t size_ = 0;
  DecodeStatus status_ = DecodeStatus::kOk;
};

Block* BlockCache::build(Cpu& cpu, Code& code) {
  const uint64_t linear = cpu.code_linear();
  const uint64_t on_page = kPageSize - (linear & (kPageSize - 1));
  const size_t there = std::min({size_t{code.bytes}, size_t{segment_bytes(cpu)}, code_.size()});
  size_t copied = 0;
  const auto copy_to = [&](size_t wanted) {
    constexpr size_t kStep = 64;
    if (wanted <= copied || copied == there) return;
    const size_t end = std::min(wanted + kStep, there);
    std::memcpy(code_.data() + copied, code.host + copied, end - copied);
    copied = end;
  };
  Builder builder(*this, cpu, cpu.state.rip);
  do {
    copy_to(builder.size() + kMaxInsnBytes);
  } while (builder.add(std::span(code_).first(copied).subspan(builder.size())) &&
           !is_fenced(cpu, cpu.code_linear(builder.size())));
  if (builder.count() == 0) {
    if (there < on_page) return single(cpu);  // runs into the limit of CS
    return build_crossing(cpu, code);
  }
  Block* block = builder.finish(code, code_);
  block->epoch = cpu.translation_epoch;
  jump_entry(block->rip) = {.rip = block->rip, .block = block};
  return block;
}

void BlockCache::restore(Cpu& cpu, Block& block) {
  const std::span<const uint8_t> bytes(block.code, block.bytes);
  Builder builder(*this, cpu, block.rip);
  while (builder.count() < block.op_count) builder.add(bytes.subspan(builder.size()));
  builder.lay_out(block);
}

// One instruction that begins on the page of `code` and ends on the next.
Block* BlockCache::build_crossing(Cpu& cpu, const Code& code) {
  const uint64_t linear = cpu.code_linear();
  const size_t here = kPageSize - (linear & (kPageSize - 1));
  Code second;
  if (!second.fetch(cpu, cpu.code_linear(here), kMaxInsnBytes)) return nullptr;
  if (second.host == nullptr) return single(cpu);
  std::array<uint8_t, kMaxInsnBytes> bytes{};
  std::memcpy(bytes.data(), code.host, here);
  std::memcpy(bytes.data() + here, second.host, bytes.size() - here);
  Builder builder(*this, cpu, cpu.state.rip);
  builder.add(std::span(bytes).first(std::min<uint64_t>(bytes.size(), segment_bytes(cpu))));
  if (builder.count() == 0) return single(cpu);
  Block* block = builder.finish(code, bytes);
  block->physical2 = second.physical;
  block->generation2_at = second.generation_at;
  block->generation2 = second.generation;
  return block;
}

Block* BlockCache::single(Cpu& cpu) {
  std::span<uint8_t> bytes(single_code_.data(), kMaxInsnBytes);
  const uint64_t limit = segment_bytes(cpu);
  size_t got = 0;
  DecodeStatus status = DecodeStatus::kTruncated;
  while (status == DecodeStatus::kTruncated && got < std::min<uint64_t>(kMaxInsnBytes, limit)) {
    const size_t more = fetch_some(cpu, got, bytes.subspan(got));
    if (more == 0) return nullptr;
    got += more;
    single_insn_ = Insn{};
    status = x86::decode(bytes.first(std::min<uint64_t>(got, limit)), decode_mode(cpu.mode_key), single_insn_);
  }
  single_ops_[0] = sentinel(cpu.state.rip, bad_fetch);
  single_ops_[1] = sentinel(cpu.state.rip, leave_block);
  if (status == DecodeStatus::kOk) {
    bind(cpu, cpu.state.rip, single_insn_, single_ops_[0]);
    single_ops_[0].insn = &single_insn_;
    const uint64_t next = single_ops_[0].next_rip();
    single_ops_[1].rip = cpu.code64 ? next : static_cast<uint32_t>(next);
  }
  single_ = Block{};
  single_.generation_at = nullptr;
  single_.rip = cpu.state.rip;
  single_.code = single_code_.data();
  single_.ops = single_ops_.data();
  single_.op_count = 1;
  single_.transient = true;
  return &single_;
}

// Goes to the run loop, which knows what the debugger wants there.
Block* BlockCache::fence(Cpu& cpu) {
  single_ops_[0] = sentinel(cpu.state.rip, leave_block);
  single_ = Block{};
  single_.rip = cpu.state.rip;
  single_.ops = single_ops_.data();
  single_.transient = true;
  return &single_;
}

// Copies code from `offset` bytes behind rip on: to the end of the page or of `to`, or one byte of device memory. 0: an
// exception was raised.
size_t BlockCache::fetch_some(Cpu& cpu, size_t offset, std::span<uint8_t> to) {
  const uint64_t linear = cpu.code_linear(offset);
  Code code;
  if (!code.fetch(cpu, linear, to.size())) return 0;
  if (code.host == nullptr) {
    to[0] = static_cast<uint8_t>(cpu.read_device(code.physical, 1));
    return 1;
  }
  const size_t bytes = std::min<size_t>(to.size(), kPageSize - (linear & (kPageSize - 1)));
  std::memcpy(to.data(), code.host, bytes);
  return bytes;
}

}  // namespace kite::cpu
