// PageSample: pages of guest memory picked at random, and how many of them have other contents later. What the guest
// has not touched yet is not touched for it. Main executor's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "memory/ram_block.h"
#include "support/fd.h"

namespace kite::machine {

class PageSample {
 public:
  // Picks `pages_per_gib` pages for each GiB that the blocks have together, one at least. A page may come twice.
  PageSample(std::vector<std::shared_ptr<RamBlock>> blocks, uint64_t pages_per_gib, uint64_t seed);

  // First what the pages hold is remembered, then compared with what they hold by then. Each call does `most` pages at
  // most and answers whether there are more; none begins again.
  bool remember(size_t most);
  bool compare(size_t most);

  [[nodiscard]] size_t size() const { return pages_.size(); }
  [[nodiscard]] size_t changed() const { return changed_; }  // of those that were compared

 private:
  struct Page {
    const uint8_t* host;
    uint32_t checksum;
  };
  [[nodiscard]] bool is_untouched(const uint8_t* page) const;
  [[nodiscard]] uint32_t checksum_of(const uint8_t* page) const;

  std::vector<std::shared_ptr<RamBlock>> blocks_;
  Fd page_map_;              // /proc/self/pagemap; without it every page is looked at
  std::vector<Page> pages_;  // by address
  size_t remembered_ = 0, compared_ = 0, changed_ = 0;
};

}  // namespace kite::machine
