// Checker: counts every use of every cluster of an image and compares with its refcounts; repairs.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "block/qcow2/qcow2_node.h"

namespace kite::block::qcow2 {

// How often each cluster is used. Memory goes with the clusters that are, not with the file's size, and has an end: an
// image whose references are scattered over more than kMostChunks is not taken in.
class UseCounts {
 public:
  static constexpr uint64_t kChunk = 64;
  static constexpr size_t kMostChunks = size_t{1} << 22;  // 256 million clusters when they lie together
  using Chunk = std::array<uint32_t, kChunk>;

  [[nodiscard]] uint64_t get(uint64_t index) const;
  void add(uint64_t index, uint32_t times = 1);        // saturates
  [[nodiscard]] bool full() const { return full_; }    // something was left out
  [[nodiscard]] std::vector<uint64_t> chunks() const;  // their numbers, ascending
  [[nodiscard]] uint64_t end() const { return end_; }  // behind the last used cluster

 private:
  std::unordered_map<uint64_t, std::unique_ptr<Chunk>> chunks_;
  Chunk* last_ = nullptr;  // neighbours come one after the other
  uint64_t last_number_ = 0;
  uint64_t end_ = 0;
  bool full_ = false;
};

class Checker {
 public:
  Checker(Qcow2Node& node, Repair repair, CheckMessage message)
      : node_(node), repair_(repair), message_(std::move(message)) {}
  Task<Result<CheckResult>> run();

 private:
  // Counts what is used; with repairs, also drops what cannot be.
  Task<IoResult<>> count_all();
  void use(uint64_t offset, uint64_t bytes, uint32_t times = 1);
  Task<IoResult<>> count_l1(uint64_t offset, uint64_t entries, bool active);
  // Every L2 table is looked at once, however many L1 entries name it: time is bounded by the file.
  Task<IoResult<>> count_l2_tables();
  Task<IoResult<>> count_l2(uint64_t table_at);
  // A table that the file does not store: huge claims in a sparse file cost nothing.
  Task<IoResult<bool>> is_hole(uint64_t table_at);
  void count_entry(uint64_t entry, uint64_t bitmap, bool& drop);
  Task<IoResult<>> count_refcount_structures();
  Task<IoResult<>> count_bitmaps();
  // Compares and repairs the refcounts.
  Task<IoResult<>> compare(Repair repair);
  Task<IoResult<>> compare_cluster(uint64_t index, uint64_t stored, Repair repair);
  Task<IoResult<>> repair_refcounts(const CheckResult& before);
  Task<IoResult<>> rebuild();
  Task<IoResult<>> count_without(std::vector<uint64_t>& structures);
  // The flag "copied" where it is wrong.
  Task<IoResult<>> check_copied();
  Task<IoResult<>> check_copied_l2(uint64_t table_at);
  [[nodiscard]] bool mends_copied() const;
  void corruption(std::string line, bool fixed);

  struct L2Uses {
    uint64_t table_at;
    uint32_t times = 0;
    bool active = false;
    bool hole = false;  // nothing is stored there: it is all zeroes
  };
  Qcow2Node& node_;
  Repair repair_;
  CheckMessage message_;
  CheckResult result_;
  UseCounts uses_;
  std::vector<L2Uses> l2_tables_;  // in the order of the L1 tables
  std::unordered_map<uint64_t, size_t> l2_places_;
  L2Uses l2_{};  // the one that is being counted
  bool needs_rebuild_ = false;
  uint64_t beyond_repair_ = 0;    // of the corruptions: those that new refcounts do not mend
  uint64_t next_contiguous_ = 0;  // for the count of fragments
};

}  // namespace kite::block::qcow2
