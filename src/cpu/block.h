// Blocks: runs of decoded instructions bound to their handlers, and the cache of them.
//
// A block is an array of Ops that ends with a sentinel Op; executing is calling the first handler. It was decoded from
// one page (an instruction that crosses a page is a block of its own) under one mode key, and may be entered while
//   - its epoch is the CPU's translation_epoch: since then this linear address has led to this physical page, and
//   - the page's code generation is the block's: the bytes have not been written since.
// Blocks found otherwise are looked up by physical address and then checked again, so code that several address spaces
// share, or that survives a TLB flush, is decoded once.
//
// A Block is there until all are dropped; the Ops of one that is not executed any more, because it is translated or
// nobody came back to it, are given back, and decoded once more when somebody does (shed() and restore()).
//
// Ops that branch directly carry a link to the block they last led to; block_chain() follows it when it may still be
// entered. Indirect branches look in a small direct-mapped cache by rip. Everything else returns to the run loop.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/op.h"
#include "cpu/op_memory.h"
#include "support/pool.h"
#include "support/slabs.h"

namespace kite::cpu {

// What code is decoded under: Cpu::mode_key.
namespace mode {
inline constexpr uint32_t kWidth16 = 0, kWidth32 = 1, kWidth64 = 2, kWidthMask = 3;
inline constexpr uint32_t kStack16 = 0 << 2, kStack32 = 1 << 2, kStack64 = 2 << 2, kStackMask = 3 << 2;
inline constexpr uint32_t kUser = 1 << 4;
inline constexpr uint32_t kFlatDs = 1 << 5, kFlatEs = 1 << 6, kFlatSs = 1 << 7;  // based at 0, 4 GiB, read-write
inline constexpr uint32_t kFlatCs = 1 << 8;  // no limit to check: 64-bit code, or a 4 GiB code segment
// Set while a single instruction runs: no block has it, so that nothing is chained to that instruction.
inline constexpr uint32_t kStepping = 1 << 9;
inline constexpr uint32_t kZeroCs = 1 << 10;  // the base of CS is 0: rip is the linear address
inline constexpr uint32_t kSse = 1 << 13;     // CR0 and CR4 let SSE instructions through
inline constexpr uint32_t kAvx = 1 << 14;     // and XCR0 the VEX-encoded ones
// The TlbKind of the program's accesses.
inline constexpr unsigned kKindShift = 11;
inline constexpr uint32_t kKindMask = 3 << kKindShift;
// System-management mode: the same physical address may be other memory.
inline constexpr uint32_t kSmm = 1 << 15;
}  // namespace mode

struct Block {
  uint64_t epoch = 0;  // never matches when 0
  uint32_t generation = 0;
  uint32_t mode_key = 0;
  const std::atomic<uint32_t>* generation_at = nullptr;
  uint64_t rip = 0;  // of the first instruction
  Gpa physical = 0;
  // The second page of an instruction that crosses.
  const std::atomic<uint32_t>* generation2_at = nullptr;
  uint32_t generation2 = 0;
  uint16_t bytes = 0;   // of code
  uint16_t memory = 0;  // Ops in the piece of OpMemory that `ops` is; 0: it is none
  Gpa physical2 = 0;
  Block* hash_next = nullptr;
  const uint8_t* code = nullptr;  // the bytes that were decoded
  uint8_t op_count = 0;           // without the sentinel
  uint8_t entries_seen = 1;       // the low bits of `entries` when it was last looked for what nobody comes back to
  bool transient = false;         // run once, found by nobody: nothing is chained from it
  bool removed = true;            // never entered again: not in the cache, or its handlers were replaced
  uint32_t entries = 0;           // counted until it is translated
  Op* ops = nullptr;              // executing it is calling the first handler, whatever it does
  Handler first = nullptr;        // of the first instruction, where ops[0].handler is something that stands before it
  void* translation = nullptr;    // the translator's

  // Whether it may be entered as it stands. The order matters: with the epoch gone, generation_at may dangle.
  [[nodiscard]] bool current(uint64_t now) const {
    return epoch == now && generation_at->load(std::memory_order_relaxed) == generation;
  }
};

// A Block that is never current: what links point to before they lead anywhere.
extern Block no_block;

// Everything that the choice of a handler may depend on.
struct Binding {
  const x86::Insn& insn;
  const Op& op;  // operands bound
  uint32_t mode_key;

  [[nodiscard]] bool code64() const { return (mode_key & mode::kWidthMask) == mode::kWidth64; }
  [[nodiscard]] bool stack64() const { return (mode_key & mode::kStackMask) == mode::kStack64; }
};

// Fills `op` for `insn` at `rip`: operands and handler. op.insn is left to the caller, who keeps `insn` alive.
void bind(const Cpu& cpu, uint64_t rip, x86::Insn& insn, Op& op);
// Whether nothing behind the instruction belongs to its block. Jcc does not end one: not taken, it goes on.
// Handlers of all others never go on to another block.
bool ends_block(x86::Op op);
// Ops that execute from their Insn need it kept; the integer handlers do not look at it.
bool keeps_insn(const x86::Insn& insn);
// Handlers of sentinels: go on at op->rip through op->link; or leave to the run loop with rip = op->rip.
void fall_through(Cpu& cpu, const Op* op);
void leave_block(Cpu& cpu, const Op* op);

// Continue at state.rip, which the handler has set. The last thing a branch handler does, by musttail.
void block_chain_slow(Cpu& cpu, const Op* op);
void block_jump_slow(Cpu& cpu, const Op* op);
// Interprets cpu.block, though it is translated. A handler.
void interpret_block(Cpu& cpu, const Op* op);

class BlockCache {
 public:
  static constexpr unsigned kMaxOps = 100;
  static constexpr size_t kMaxInsnBytes = 15;        // SDM 2A 2.3.11
  static constexpr size_t kMemoryLimit = 192 << 20;  // bytes; then everything is dropped
  static constexpr unsigned kJumpBits = 14;
  // Blocks that are looked at for idle ones when memory is full, and the youngest, which are not.
  static constexpr size_t kLookedAt = 8192, kYoung = 4096;

  struct JumpEntry {
    uint64_t rip = ~uint64_t{0};
    Block* block = &no_block;
  };

  // The block at state.rip, decoded if need be. Null: an exception was raised (or the cache must be flushed first, when
  // `may_flush` is false, as it must be while Ops are still looked at).
  Block* find(Cpu& cpu, bool may_flush);
  // Decodes the one instruction at state.rip into a block that is not cached. Null: an exception was raised.
  Block* single(Cpu& cpu);
  // A block without an instruction, in front of one that the debugger wants to know of (debugger.h).
  Block* fence(Cpu& cpu);
  [[nodiscard]] JumpEntry& jump_entry(uint64_t rip) {
    return tables_->jumps[(rip ^ (rip >> kJumpBits)) & ((1u << kJumpBits) - 1)];
  }
  // Whether `block`, which led from here before, still stands for state.rip: then it is current again. Spares the
  // search after a TLB flush.
  bool renew(Cpu& cpu, Block& block);
  // Drops every block before the next is found. The running block stays readable until then.
  void flush_later() { flush_pending_ = true; }
  // Bytes that blocks occupy.
  [[nodiscard]] size_t memory() const {
    return blocks_.size() * sizeof(Block) + op_memory_.bytes() + code_slabs_.size() * Slabs::kBytes;
  }
  // Of a block that is not running: gives the Ops back, and decodes them once more.
  void shed(Block& block);
  void restore(Cpu& cpu, Block& block);
  // For the pools of who works with blocks.
  [[nodiscard]] Slabs& slabs() { return slabs_; }

 private:
  struct Code;
  class Builder;

  [[nodiscard]] static uint64_t hash(Gpa physical, uint64_t rip, uint32_t mode_key);
  Block* lookup(Cpu& cpu, Gpa physical);
  Block* build(Cpu& cpu, Code& code);
  Block* build_crossing(Cpu& cpu, const Code& code);
  size_t fetch_some(Cpu& cpu, size_t offset, std::span<uint8_t> to);
  bool revalidate(Cpu& cpu, Block& block);
  void remove(Block& block);
  void insert(Block& block);
  void flush(Cpu& cpu);
  void* allocate_ops(const Cpu& cpu, size_t count);
  size_t shed_idle(const Cpu& cpu);
  uint8_t* allocate_code(size_t bytes);

  static constexpr unsigned kBucketBits = 17;  // a boot decodes some 50,000 blocks
  struct Tables {
    std::array<Block*, size_t{1} << kBucketBits> buckets{};
    std::array<JumpEntry, 1u << kJumpBits> jumps;
  };
  Slabs slabs_;
  Tables* tables_ = slabs_.add<Tables>();
  Pool<Block> blocks_{slabs_};
  OpMemory op_memory_;
  size_t next_idle_ = 0;    // of blocks_, to be looked at
  bool finds_idle_ = true;  // it was worth it the last time, or there is a new chunk
  std::vector<std::byte*> code_slabs_;
  size_t code_used_ = 0;  // of the last of them
  bool flush_pending_ = false;
  // Where a block is put together. The bytes are copied before they are looked at: what is decoded is what is kept,
  // whatever another CPU writes meanwhile.
  std::array<uint8_t, kMaxOps * kMaxInsnBytes> code_;
  std::array<Op, kMaxOps> ops_;
  std::array<x86::Insn, kMaxOps> insns_;
  // The transient block.
  Block single_;
  std::array<Op, 2> single_ops_;
  x86::Insn single_insn_;
  std::array<uint8_t, 16> single_code_{};
};

// --- the hot paths between blocks ---

inline void enter_block(Cpu& cpu, Block* block) {
  cpu.block = block;
  block->ops->handler(cpu, block->ops);
}

// Goes on at state.rip, to which op->link has led before.
[[gnu::always_inline]] inline void block_chain(Cpu& cpu, const Op* op) {
  Block* next = op->link;
  if (cpu.attention() || !next->current(cpu.translation_epoch)) [[unlikely]] {
    [[clang::musttail]] return block_chain_slow(cpu, op);
  }
  cpu.block = next;
  const Op* first = next->ops;
  [[clang::musttail]] return first->handler(cpu, first);
}

// Goes on at state.rip, wherever that is.
[[gnu::always_inline]] inline void block_jump(Cpu& cpu, const Op* op) {
  const BlockCache::JumpEntry& entry = cpu.blocks().jump_entry(cpu.state.rip);
  Block* next = entry.block;
  if (cpu.attention() || entry.rip != cpu.state.rip || next->mode_key != cpu.mode_key ||
      !next->current(cpu.translation_epoch)) [[unlikely]] {
    [[clang::musttail]] return block_jump_slow(cpu, op);
  }
  cpu.block = next;
  const Op* first = next->ops;
  [[clang::musttail]] return first->handler(cpu, first);
}

}  // namespace kite::cpu

#define KITE_CHAIN(cpu, op) [[clang::musttail]] return ::kite::cpu::block_chain((cpu), (op))
#define KITE_JUMP(cpu, op) [[clang::musttail]] return ::kite::cpu::block_jump((cpu), (op))
