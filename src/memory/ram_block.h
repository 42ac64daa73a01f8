// A RamBlock is host memory behind guest RAM, ROM or RAM-like device memory, with one state byte a page that writers
// consult. It is anonymous memory: the host backs that with huge pages where it does not for memory files.
//
// The state byte is how writers (vCPU stores, DMA) learn that somebody watches a page. 0, the common case, means
// nobody. A writer stores first and looks at the byte afterwards; a watcher sets the bit, issues a process-wide barrier
// (membarrier) and looks at the page afterwards: of two that race, at least one sees the other.
//
// Translated code stores over and over to pages that it has looked at once. It marks a second byte of such a page, and
// then looks at the first. A watcher that finds the mark behind its barrier waits until such code has been left
// (Alarm::runs), which looks again before it goes on.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "memory/guest_types.h"
#include "support/result.h"

namespace kite {

// Told of a store to a page (RamBlock::watch_page), on the storing thread.
class StoreWatch {
 public:
  virtual ~StoreWatch() = default;
  virtual void stored() = 0;  // takes no lock, watches nothing
};

class RamBlock {
 public:
  // Page state bits.
  static constexpr uint8_t kCode = 1;   // instructions of this page are cached: a write bumps code_generation
  static constexpr uint8_t kClean = 2;  // dirty logging is on and the page has not been written since it was collected
  static constexpr uint8_t kCodeReady = 4;    // with kCode: the barrier that follows its setting is over
  static constexpr uint8_t kCodeLeaving = 8;  // a writer has cleared kCode and is about to bump the generation
  static constexpr uint8_t kWatched = 16;     // somebody waits for the next write

  // `bytes` is a multiple of 4096. The memory reads as zero and is committed on first touch.
  static Result<std::shared_ptr<RamBlock>> create(std::string name, uint64_t bytes);
  ~RamBlock();
  RamBlock(const RamBlock&) = delete;
  RamBlock& operator=(const RamBlock&) = delete;

  // Puts a file's bytes, from its beginning, in the place of the memory's own; with `share` what is written reaches the
  // file. Before anybody uses the memory; the descriptor may be closed afterwards.
  Result<> map_file(int fd, bool share);
  void exclude_from_core_dumps();

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] uint8_t* host() const { return host_; }

  // The state byte of the page at `offset` (for a TLB entry) and its code generation.
  [[nodiscard]] std::atomic<uint8_t>* page_state(uint64_t offset) const { return &state(offset >> kPageShift); }
  // From one page's to the next's; and to the byte that is not 0 if there may be stores without a look at the state.
  static constexpr size_t kStateStride = 2, kToUnlooked = 1;
  [[nodiscard]] std::atomic<uint32_t>* code_generation(uint64_t offset) const {
    return &generation_[offset >> kPageShift];
  }

  // After a store of `bytes` at `offset` that found (or may find) a non-zero state byte: marks pages dirty, bumps code
  // generations. Any thread, no lock.
  void note_write(uint64_t offset, uint64_t bytes) {
    if (bytes == 0) return;
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the compiler keeps store and look in order
    for (uint64_t page = offset >> kPageShift; page <= (offset + bytes - 1) >> kPageShift; ++page)
      if (state(page).load(std::memory_order_relaxed) != 0) note_page_written(page, offset, bytes);
  }
  // Gives whole pages back to the host: they read as zero from now on, which for whoever watches them is a store. An
  // error (the memory is locked) leaves them as they are. Any thread, no lock.
  Result<> discard(uint64_t offset, uint64_t bytes);
  // Marks the page as holding cached code and makes every other thread's earlier stores visible. Answers the generation
  // to remember; cached code is valid while the generation stands. Cheap when the page is marked already.
  //
  // At first every write to the page counts. After kWholePages of them code and data seem to share it, and from then on
  // only writes to lines of 64 bytes that were marked do: [offset, offset + bytes), cut at the end of the page.
  uint32_t mark_code(uint64_t offset, uint64_t bytes = kPageSize);
  static constexpr uint32_t kWholePages = 8;
  [[nodiscard]] bool marks_lines(uint64_t offset) const {
    return generation_[offset >> kPageShift].load(std::memory_order_relaxed) >= kWholePages;
  }

  // Calls `watch` once, after the next store to the page at `offset`; a store that comes before this returns may or may
  // not call. Unwatching is allowed at any time, and afterwards no call is under way.
  void watch_page(uint64_t offset, StoreWatch& watch);
  void unwatch_page(StoreWatch& watch);

  // Somebody who writes this memory and cannot call note_write() for it: a hypervisor's guest, seen by its own log.
  class DirtySource {
   public:
    virtual ~DirtySource() = default;
    virtual void dirty_logging_changed(RamBlock& block, bool on) = 0;
    // Calls note_write() for what was written since it last did.
    virtual void report_dirty(RamBlock& block) = 0;
  };
  // A source is asked before every collection; it hears at once if logging is on already.
  void add_dirty_source(DirtySource& source);
  void remove_dirty_source(DirtySource& source);

  // Somebody who keeps code of guests' memory, or stores to it without a look at each page's state.
  struct Alarm {
    // Gets `written` ORed in after every write to a page that was marked as code, and when the dirty log begins an
    // interval; `leave` when somebody waits for `runs`.
    std::atomic<uint32_t>* raised;
    uint32_t written, leave;
    // Gets 1 when the state of a page has become other than 0 that has the mark, and when the dirty log begins an
    // interval; before the barrier that follows.
    std::atomic<uint32_t>* pages_watched;
    // Odd while there may be stores without a look, and never the same again: even before `pages_watched` is looked at.
    // It takes no lock meanwhile that a watcher holds.
    const std::atomic<uint32_t>* runs;
  };
  // By whatever thread, until removed.
  static void add_alarm(const Alarm& alarm);
  static void remove_alarm(const Alarm& alarm);
  // As note_write() for the dirty log alone: of stores that may have been.
  void note_dirty(uint64_t offset, uint64_t bytes);

  // Dirty log, for one user at a time: off at first; turning it on starts an interval with every page clean. Collecting
  // answers one bit a page written since the last collection and starts the next interval. vCPUs run meanwhile.
  void set_dirty_logging(bool on);  // some 0.6 ms for each GiB, under a lock that changes of the map take
  [[nodiscard]] bool dirty_logging() const { return logging_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::vector<uint64_t> collect_dirty();

 private:
  // An anonymous or reserved stretch of the host's address space.
  class Mapping {
   public:
    Mapping() = default;
    Mapping(void* address, size_t bytes) : address_(static_cast<uint8_t*>(address)), bytes_(bytes) {}
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&&) = delete;
    ~Mapping();
    [[nodiscard]] uint8_t* address() const { return address_; }

   private:
    uint8_t* address_ = nullptr;
    size_t bytes_ = 0;
  };

  RamBlock(std::string name, uint64_t size, Mapping reservation, uint8_t* host, Mapping metadata);
  static Result<Mapping> reserve(const std::string& name, uint64_t bytes, int protection);
  void note_page_written(uint64_t page, uint64_t offset, uint64_t bytes);
  [[nodiscard]] bool is_code_written(uint64_t page, uint64_t offset, uint64_t bytes) const;
  void note_code_written(uint64_t page);
  void note_page_dirty(uint64_t page);
  void tell_watches(uint64_t page);
  void await_lookers(uint64_t page) const;
  [[nodiscard]] std::atomic<uint8_t>& state(uint64_t page) const { return states_[page * kStateStride]; }
  [[nodiscard]] uint64_t pages() const { return size_ >> kPageShift; }
  [[nodiscard]] uint64_t dirty_words() const { return (pages() + 63) / 64; }

  std::string name_;
  uint64_t size_;
  Mapping reservation_;  // the memory between two guard zones
  uint8_t* host_;
  Mapping metadata_;  // the four arrays; zero pages until they are touched
  std::atomic<uint64_t>* dirty_;
  std::atomic<uint64_t>* code_lines_;  // a word a page; meaningful while it is marked as code
  std::atomic<uint32_t>* generation_;
  std::atomic<uint8_t>* states_;  // kStateStride bytes a page
  std::atomic<bool> logging_{false};
  std::mutex log_mutex_;
  std::vector<DirtySource*> dirty_sources_;  // under log_mutex_
  struct PageWatch {
    uint64_t page;
    StoreWatch* watch;
  };
  std::mutex watch_mutex_;  // innermost
  std::vector<PageWatch> watches_;
};

}  // namespace kite
