// A machine's RAM in a stream: RamSender sends pages, again when they were written, RamReceiver puts them where they
// belong.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "memory/ram_block.h"
#include "snapshot/stream.h"

namespace kite::snapshot {

// Read by any thread while pages are sent.
struct RamCounts {
  std::atomic<uint64_t> normal{0}, zero{0};  // pages sent, with contents and without
  std::atomic<uint64_t> remaining{0};        // pages that still have to be sent, as far as is known
  std::atomic<uint64_t> passes{0};           // looks at the dirty log
};

class RamSender {
 public:
  // All pages are to be sent. Whoever runs the guest meanwhile has turned the dirty log on before.
  explicit RamSender(std::vector<std::shared_ptr<RamBlock>> blocks);

  Result<> send_blocks(StreamWriter& writer);
  Result<> send_pass(StreamWriter& writer);
  // Takes in what was written since the last look. Answers how many pages are to be sent now.
  uint64_t look();
  [[nodiscard]] uint64_t total_bytes() const;
  [[nodiscard]] const RamCounts& counts() const { return counts_; }

 private:
  struct Block {
    std::shared_ptr<RamBlock> ram;
    std::vector<uint64_t> dirty;  // a bit a page
  };
  Result<> send_block(StreamWriter& writer, uint32_t number);
  Result<> send_word(StreamWriter& writer, uint32_t number, uint64_t first, uint64_t bits);
  Result<> flush_zeros(StreamWriter& writer);

  std::vector<Block> blocks_;
  RamCounts counts_;
  struct Zeros {
    uint32_t number = 0, count = 0;
    uint64_t first = 0;
  } zeros_;  // found and not sent yet
};

class RamReceiver {
 public:
  // Writes to the memory of a machine that stands still.
  explicit RamReceiver(std::vector<std::shared_ptr<RamBlock>> blocks) : blocks_(std::move(blocks)) {}

  Result<> take(const BlockRecord& record);
  Result<> take(const PagesRecord& record);
  // After the last record: whether the stream had all blocks; tells who watches the memory that it was written.
  Result<> finish();

 private:
  std::vector<std::shared_ptr<RamBlock>> blocks_;
  size_t known_ = 0;  // blocks announced
};

// All of a stream behind its header: RAM into `blocks`, the rest into reader.state().
Result<> receive_ram(StreamReader& reader, std::vector<std::shared_ptr<RamBlock>> blocks);

}  // namespace kite::snapshot
