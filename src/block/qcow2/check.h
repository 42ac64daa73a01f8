// Checker: counts every use of every cluster of an image and compares with its refcounts; repairs.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "block/qcow2/qcow2_node.h"

namespace kite::block::qcow2 {

// How often each cluster is used. Memory goes with the clusters that are, not with the file's size.
class UseCounts {
 public:
  static constexpr uint64_t kChunk = 4096;
  using Chunk = std::array<uint32_t, kChunk>;

  [[nodiscard]] uint64_t get(uint64_t index) const;
  void add(uint64_t index, int delta = 1);
  [[nodiscard]] std::vector<uint64_t> chunks() const;  // their numbers, ascending
  [[nodiscard]] uint64_t end() const { return end_; }  // behind the last used cluster

 private:
  std::unordered_map<uint64_t, std::unique_ptr<Chunk>> chunks_;
  uint64_t end_ = 0;
};

class Checker {
 public:
  Checker(Qcow2Node& node, Repair repair, CheckMessage message)
      : node_(node), repair_(repair), message_(std::move(message)) {}
  Task<Result<CheckResult>> run();

 private:
  // Counts what is used; with repairs, also drops what cannot be.
  Task<IoResult<>> count_all();
  void use(uint64_t offset, uint64_t bytes);
  Task<IoResult<>> count_l1(uint64_t offset, uint64_t entries, bool active);
  Task<IoResult<>> count_l2(uint64_t table_at, bool active);
  void count_entry(uint64_t entry, uint64_t bitmap, bool active, bool& drop);
  Task<IoResult<>> count_refcount_structures();
  Task<IoResult<>> count_bitmaps();
  // Compares and repairs the refcounts.
  Task<IoResult<>> compare();
  Task<IoResult<>> compare_cluster(uint64_t index, uint64_t stored);
  Task<IoResult<>> rebuild();
  // The flag "copied" where it is wrong.
  Task<IoResult<>> check_copied();
  Task<IoResult<>> check_copied_l2(uint64_t table_at);
  void corruption(std::string line, bool fixed);

  Qcow2Node& node_;
  Repair repair_;
  CheckMessage message_;
  CheckResult result_;
  UseCounts uses_;
  bool needs_rebuild_ = false;
  uint64_t next_contiguous_ = 0;  // for the count of fragments
};

}  // namespace kite::block::qcow2
