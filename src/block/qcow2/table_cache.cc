#include "block/qcow2/table_cache.h"

#include <algorithm>

namespace kite::block::qcow2 {

TablePtr TableCache::peek(uint64_t offset) {
  const auto found = tables_.find(offset);
  if (found == tables_.end()) return nullptr;
  found->second->last_use = ++clock_;
  return found->second;
}

Task<IoResult<TablePtr>> TableCache::get(BlockNode& file, uint64_t offset) {
  while (true) {
    if (TablePtr table = peek(offset)) co_return table;
    if (!loading_.contains(offset)) break;
    co_await loaded_.wait();
  }
  loading_.insert(offset);
  auto table = std::make_shared<Table>();
  table->offset = offset;
  table->bytes.resize(table_bytes_);
  const IoResult<> done = co_await file.read(offset, IoSlice(table->bytes.data(), table->bytes.size()));
  loading_.erase(offset);
  // A create() in the meantime is newer than what was read.
  TablePtr known = peek(offset);
  if (done && known == nullptr) {
    table->last_use = ++clock_;
    tables_[offset] = table;
    known = table;
    trim();
  }
  loaded_.wake_all();
  if (known == nullptr) co_return std::unexpected(done.error());
  co_return known;
}

TablePtr TableCache::create(uint64_t offset, const char* first_write) {
  auto table = std::make_shared<Table>();
  table->offset = offset;
  table->bytes.resize(table_bytes_);
  table->last_use = ++clock_;
  table->mark(0, table_bytes_);
  table->first_write = first_write;
  tables_[offset] = table;
  trim();
  return table;
}

void TableCache::drop(uint64_t offset) { tables_.erase(offset); }

void TableCache::clear_clean() {
  std::erase_if(tables_, [](const auto& entry) { return !entry.second->dirty() && !entry.second->writing; });
}

std::vector<TablePtr> TableCache::dirty_tables() const {
  std::vector<TablePtr> dirty;
  for (const auto& [offset, table] : tables_) {
    if (table->dirty()) dirty.push_back(table);
  }
  std::ranges::sort(dirty, {}, &Table::offset);
  return dirty;
}

bool TableCache::crowded() const {
  if (tables_.size() < max_tables_ / 2) return false;
  const auto dirty = std::ranges::count_if(tables_, [](const auto& entry) { return entry.second->dirty(); });
  return static_cast<uint64_t>(dirty) >= max_tables_ / 2;
}

void TableCache::trim() {
  if (tables_.size() <= max_tables_) return;
  std::vector<TablePtr> clean;
  for (const auto& [offset, table] : tables_) {
    if (!table->dirty() && !table->writing) clean.push_back(table);
  }
  // A quarter at once, so that this is not done for every table.
  const size_t drop = std::min<size_t>(clean.size(), tables_.size() - max_tables_ + max_tables_ / 4);
  std::ranges::nth_element(clean, clean.begin() + static_cast<std::ptrdiff_t>(drop), {}, &Table::last_use);
  for (size_t i = 0; i < drop; ++i) tables_.erase(clean[i]->offset);
}

}  // namespace kite::block::qcow2
