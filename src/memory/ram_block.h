// A RamBlock is host memory behind guest RAM, ROM or RAM-like device memory: a shared mapping of a memfd, with one state
// byte a page that writers consult.
//
// The state byte is how writers (vCPU stores, DMA) learn that somebody watches a page. 0, the common case, means nobody.
// A writer stores first and looks at the byte afterwards; a watcher sets the bit, issues a process-wide barrier
// (membarrier) and looks at the page afterwards: of two that race, at least one sees the other.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "memory/guest_types.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite {

class RamBlock {
 public:
  // Page state bits.
  static constexpr uint8_t kCode = 1;   // instructions of this page are cached: a write bumps code_generation
  static constexpr uint8_t kClean = 2;  // dirty logging is on and the page has not been written since it was collected

  // `bytes` is a multiple of 4096. The memory reads as zero and is committed on first touch.
  static Result<std::shared_ptr<RamBlock>> create(std::string name, uint64_t bytes);
  ~RamBlock();
  RamBlock(const RamBlock&) = delete;
  RamBlock& operator=(const RamBlock&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] uint8_t* host() const { return host_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

  // The state byte of the page at `offset` (for a TLB entry) and its code generation.
  [[nodiscard]] std::atomic<uint8_t>* page_state(uint64_t offset) const { return &state_[offset >> kPageShift]; }
  [[nodiscard]] std::atomic<uint32_t>* code_generation(uint64_t offset) const {
    return &generation_[offset >> kPageShift];
  }

  // After a store of `bytes` at `offset` that found (or may find) a non-zero state byte: marks pages dirty, bumps code
  // generations. Any thread, no lock.
  void note_write(uint64_t offset, uint64_t bytes) {
    for (uint64_t page = offset >> kPageShift; page <= (offset + bytes - 1) >> kPageShift; ++page)
      if (state_[page].load(std::memory_order_relaxed) != 0) note_page_written(page);
  }
  // Marks the page as holding cached code and makes every other thread's earlier stores visible. Answers the generation
  // to remember; cached code is valid while the generation stands. Cheap when the page is marked already.
  uint32_t mark_code(uint64_t offset);

  // Dirty log. Collecting answers one bit a page written since the last collection and starts the next interval.
  void set_dirty_logging(bool on);
  [[nodiscard]] bool dirty_logging() const { return logging_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::vector<uint64_t> collect_dirty();

 private:
  RamBlock(std::string name, uint64_t size, Fd fd, uint8_t* host);
  void note_page_written(uint64_t page);

  std::string name_;
  uint64_t size_;
  Fd fd_;
  uint8_t* host_;
  std::unique_ptr<std::atomic<uint8_t>[]> state_;
  std::unique_ptr<std::atomic<uint32_t>[]> generation_;
  std::unique_ptr<std::atomic<uint64_t>[]> dirty_;
  std::atomic<bool> logging_{false};
};

}  // namespace kite
