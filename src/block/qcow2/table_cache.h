// A write-back cache of the metadata tables of an image (L2 tables or refcount blocks), one cluster each, kept as they
// lie in the file. Which dirty tables are written when is write_back.cc's business; here nothing dirty is ever dropped.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "block/co_sync.h"
#include "block/node.h"
#include "support/bytes.h"

namespace kite::block::qcow2 {

struct Table {
  uint64_t offset = 0;  // in the file
  std::vector<uint8_t> bytes;
  size_t dirty_from = 0, dirty_to = 0;  // bytes that differ from the file's; none when equal
  bool writing = false;                 // a copy is on its way to the file
  const char* first_write = nullptr;    // the debug event of its first writing; null once the file has it
  uint64_t last_use = 0;

  [[nodiscard]] bool dirty() const { return dirty_from != dirty_to; }
  [[nodiscard]] uint64_t be64(uint64_t index) const { return load_be64(bytes.data() + index * 8); }
  void set_be64(uint64_t index, uint64_t value) {
    store_be64(bytes.data() + index * 8, value);
    mark(index * 8, index * 8 + 8);
  }
  void mark(size_t from, size_t to) {
    dirty_from = dirty() ? std::min(dirty_from, from) : from;
    dirty_to = std::max(dirty_to, to);
  }
};
// Hold a TablePtr only between two suspension points: afterwards another table may stand for the same offset.
using TablePtr = std::shared_ptr<Table>;

class TableCache {
 public:
  TableCache(uint64_t table_bytes, uint64_t max_bytes)
      : table_bytes_(table_bytes), max_tables_(std::max<uint64_t>(max_bytes / table_bytes, kLeastTables)) {}

  [[nodiscard]] TablePtr peek(uint64_t offset);
  // From the cache, or read from the file.
  Task<IoResult<TablePtr>> get(BlockNode& file, uint64_t offset);
  // A new table of zeroes, all of it to be written.
  TablePtr create(uint64_t offset, const char* first_write);
  // The table is no longer one: what is unwritten is void.
  void drop(uint64_t offset);
  void clear_clean();
  [[nodiscard]] std::vector<TablePtr> dirty_tables() const;
  // Half of the room is taken by tables that wait to be written: time to write back.
  [[nodiscard]] bool crowded() const;
  // Drops the least recently used clean tables beyond the limit.
  void trim();

 private:
  static constexpr uint64_t kLeastTables = 8;

  uint64_t table_bytes_;
  uint64_t max_tables_;
  uint64_t clock_ = 0;
  std::unordered_map<uint64_t, TablePtr> tables_;
  std::set<uint64_t> loading_;
  CoQueue loaded_;
};

}  // namespace kite::block::qcow2
