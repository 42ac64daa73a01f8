// The seam between the interpreter and a translator to host code (accel/jit). A Cpu without a translator interprets.
//
// Entries into a block are counted until it is warm; then the translator may take its first handler's place. What
// translated code touches besides the registers lies in the Cpu itself, at distances that are known when it is made.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <ranges>

#include "memory/guest_types.h"
#include "memory/ram_block.h"
#include "metrics/metrics.h"

namespace kite::cpu {

class Cpu;
struct Block;
struct Op;

// A stretch of linear addresses that the host has in one piece, as a place in translated code last met it: the rights
// were checked, and stand until the TLB is flushed. What translated code looks at each time is apart from the rest.
struct alignas(32) AccessRange {
  uint64_t base = 0;
  uint64_t limit = 0;  // an access of RangeRecord::max_bytes may begin at base .. base + limit - 1; 0: empty
  uint64_t delta = 0;  // from linear to host addresses
  // Address of the first page's state byte (RamBlock::page_state): those of all its pages are 0 if there may be stores.
  uint64_t state = 0;
};
static_assert(sizeof(AccessRange) == 32);

// How the place fares with it.
struct alignas(32) RangeRecord {
  // What a flush has emptied is not worth filling for a few accesses, and less so what is soon of no use again.
  static constexpr uint8_t kPatience = 12, kMostPatience = 192;
  static constexpr uint8_t kStackBytes = 128;  // that those on the stack may access together

  uint16_t last_in_page = 0;  // the largest offset in a page that an access may begin at
  uint8_t max_bytes = 0;
  bool writes = false;            // some of the accesses do
  bool shared = false;            // by many places
  bool moves = false;             // from page to page all the time: it stays empty, and the TLB is asked
  bool doubted = false;           // it missed so seldom that its block is counted again
  uint8_t tolerance = kPatience;  // misses until it is filled (TranslationArea::patience); before, the TLB does
  uint8_t least = kPatience;      // what `tolerance` begins at
  uint16_t place = 0;             // of the instruction, from the start of its block
  uint16_t missed = 0;            // until it was last filled; no more than can be counted
  uint16_t number = 0;            // TranslationArea::filled[number - 1] is this; 0: not listed
  void* owner = nullptr;          // the translation that it is a part of
  uint64_t filled_at = 0;         // time-stamp
};
static_assert(sizeof(RangeRecord) == sizeof(AccessRange));

// The part of a Cpu that only translated code and its runtime use.
struct TranslationArea {
  // The ranges that are filled, each once, by the page or pages that a flush would name.
  struct FilledRange {
    AccessRange* range;
    RangeRecord* record;
    uint64_t first;
    uint64_t bytes;
    bool global;
  };
  static constexpr uint32_t kMostFilled = 2048;
  FilledRange filled[kMostFilled];
  uint32_t filled_count = 0;
  // All ranges, and by the same number their records and how many more misses they bear, which is all of a record that
  // a miss looks at.
  AccessRange* ranges = nullptr;
  RangeRecord* records = nullptr;
  uint8_t* patience = nullptr;
  [[nodiscard]] uint8_t& patience_of(const RangeRecord& record) const { return patience[&record - records]; }
  // Those that were found to move, until their translations are made anew; and those that may not be worth it any more.
  struct MovedRange {
    void* owner;
    uint64_t place;
    bool doubted;
  };
  static constexpr uint32_t kMostMoved = 16;
  MovedRange moved[kMostMoved];
  uint32_t moved_count = 0;
  void empty(const FilledRange& dropped) const {
    dropped.range->limit = 0;
    patience_of(*dropped.record) = dropped.record->tolerance;
    dropped.record->number = 0;
  }
  // Not zero: a page may be watched that a range allows stores to, and has not been looked at since. Any thread sets it
  // (RamBlock::Alarm).
  std::atomic<uint32_t> pages_watched{0};
  // Odd while translated code runs, which has looked at `pages_watched` since.
  std::atomic<uint32_t> runs{0};
  void next_run() { runs.store(runs.load(std::memory_order_relaxed) + 1, std::memory_order_release); }
  // Drops those ranges. Answers them to `stored`, by the host's addresses: there may have been stores that nobody has
  // looked after.
  template <class Stored>
  void drop_watched(Stored stored);
  void drop_range(uint32_t number);
  // What goes with TLB entries.
  void drop_ranges(bool keep_global);
  void drop_ranges_at(uint64_t linear);

  // Where indirect branches find code: by the address, with the number of the mode in the high bits.
  struct Jump {
    uint64_t tag = 0;
    const void* code = nullptr;
  };
  static constexpr unsigned kJumpBits = 16;
  [[nodiscard]] static size_t jump_number(uint64_t rip) { return rip & ((size_t{1} << kJumpBits) - 1); }
  void forget_jumps();

  // Not zero: translated code returns to the run loop at its next backward or indirect branch. The run loop clears it
  // before it looks at what may have raised it. Any thread sets it.
  std::atomic<uint32_t> alarm{0};
  static constexpr uint32_t kRequest = 1, kCodeWritten = 2;  // a request was posted; another wrote to a page of code
  uint32_t completed = 0;                                    // an instruction that was called for has run to its end
  uint32_t host_mxcsr = 0x1f80;                              // the host's own, while the guest's is in force
  // The guest's registers that are in the host's units now, not in Cpu::arch. Translated code loads them when it first
  // needs them; the way to anything else stores them.
  uint32_t units = 0;
  static constexpr uint32_t kVectors = 1, kX87 = 2;  // the second never without the first
  uint64_t saved_flags = 0;                          // AX after LAHF; SETO AL
  uint64_t spare[4] = {};                            // registers that wait while a sequence uses their place
  // Of the windows that the running block has open: host addresses of where accesses are, and of the state byte.
  static constexpr size_t kWindows = 6;
  uint64_t window_places[kWindows] = {}, window_states[kWindows] = {};
  const void* exit = nullptr;  // what translated code returned through
  // Counted by code that was emitted to: blocks entered, cycles from entering code to leaving it.
  metrics::Counter blocks_entered, cycles;
  uint64_t cycles_at = 0;  // the time-stamp when code was last entered
  // Predicted returns are on the host's stack: where they begin, and where there are too many. While code runs.
  uint64_t returns = 0, returns_end = 0;
  // The MMU may lead elsewhere than it did when returns of user code were predicted: they are forgotten before it runs
  // on.
  uint32_t returns_lost = 0;
  const void* code = nullptr;  // what `enter` leads to
  std::array<Jump, size_t{1} << kJumpBits> jumps;

  TranslationArea() { forget_jumps(); }
};

template <class Stored>
void TranslationArea::drop_watched(Stored stored) {
  pages_watched.exchange(0);  // before the look at the states
  for (uint32_t i = 0; i < filled_count;) {
    const AccessRange& range = *filled[i].range;
    const RangeRecord& record = *filled[i].record;
    const uint64_t bytes = range.limit + record.max_bytes - 1;
    const auto* const states = reinterpret_cast<const std::atomic<uint8_t>*>(range.state);
    const auto is_watched = [states](uint64_t page) {
      return states[page * RamBlock::kStateStride].load(std::memory_order_relaxed) != 0;
    };
    if (!record.writes || range.limit == 0 ||
        std::ranges::none_of(std::views::iota(uint64_t{0}, bytes >> kPageShift), is_watched)) {
      ++i;
      continue;
    }
    stored(reinterpret_cast<const uint8_t*>(range.base + range.delta), bytes);
    drop_range(i);
  }
}

class BlockTranslator {
 public:
  virtual ~BlockTranslator() = default;
  // Entries after which a block is warm; at least 1.
  [[nodiscard]] virtual uint32_t threshold() const = 0;
  // `block` is warm and about to be entered. True: run() executes it from now on.
  virtual bool translate(Cpu& cpu, Block& block) = 0;
  // How to execute from the start of `block`, which may be entered as it stands, until something needs the run loop;
  // the state is whole again afterwards. Called as a handler is, at the end of one: what translated code hands over to
  // may go on to another block in turn. Null: back to the run loop, with rip at the block.
  using Entry = void (*)(Cpu& cpu, const Op* op);
  virtual Entry enter(Cpu& cpu, Block& block) = 0;
  // This CPU has written to a page of code; another thread has written to some.
  virtual void code_written(Cpu& cpu, Gpa physical) = 0;
  virtual void code_written_elsewhere(Cpu& cpu) = 0;
  // No Block lives on. Translated code is not running.
  virtual void flush(Cpu& cpu) = 0;
};

}  // namespace kite::cpu
