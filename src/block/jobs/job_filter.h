// JobFilter: the node that a job puts above an image in use. Requests of guests go through it, so that the job hears of
// every change, can keep changes away from what it is just copying, and can hold all requests while the graph below
// becomes another one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/co_sync.h"
#include "block/filter_node.h"
#include "block/graph.h"
#include "block/write_turns.h"

namespace kite::block {

// Hears of what guests change.
class WriteWatcher {
 public:
  virtual ~WriteWatcher() = default;
  // [offset, offset + bytes) is about to change. An error ends the request.
  virtual Task<IoResult<>> before(uint64_t, uint64_t) { return ready(IoResult<>{}); }
  // It has changed, or may have. `data` is what was written when `follows()` asks for it; empty: zeroes, a discard, a
  // failure.
  virtual Task<void> after(uint64_t offset, uint64_t bytes, IoSlice data) = 0;
  // Of changes that overlap one begins when the other is done, and what they write stays as it is meanwhile.
  [[nodiscard]] virtual bool follows() const { return false; }
};

class JobFilter final : public FilterNode {
 public:
  // Above `below`, with its users; `stays` of them stays. `name` "": one is made up, and the filter is not shown as the
  // drive's node.
  static Result<std::shared_ptr<JobFilter>> insert(BlockGraph& graph, const NodePtr& below, std::string driver,
                                                   std::string name);
  [[nodiscard]] bool implicit() const { return implicit_; }
  void set_watcher(WriteWatcher* watcher) { watcher_ = watcher; }

  // Requests wait from now on; returns when none is under way.
  Task<void> hold();
  void release();
  // Its users go on with the node below, or with `other`, which `passing` uses; held, so that nothing is under way.
  Result<> step_aside() { return move_out(file_.node(), &file_, {}); }
  Result<> give_way(const NodePtr& other, NodeUse* passing, const std::function<Result<>()>& between) {
    return move_out(other, passing, between);
  }
  // Nobody uses it any more: what was held has passed, and the node below is closed when this was its last use.
  Task<void> retire();

  // Keeps guests' changes off a range.
  WriteTurns& turns() { return turns_; }
  [[nodiscard]] BlockNode& below() { return *file_; }
  [[nodiscard]] const NodePtr& below_ptr() const { return file_.node(); }

 protected:
  Result<> set_permissions(uint32_t need, uint32_t shared) override {
    return FilterNode::set_permissions(need, guards_ ? shared & ~uint32_t{Permissions::kWrite} : shared);
  }
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_flush(IoHow how) override;

 private:
  using FilterNode::FilterNode;
  class Passage;
  struct Change;
  Result<> move_out(const NodePtr& to, NodeUse* passing, const std::function<Result<>()>& between);
  Task<Passage> enter();
  Task<IoResult<>> change(Change change);
  // Where requests go.
  [[nodiscard]] BlockNode& next() { return successor_ != nullptr ? *successor_ : *file_; }

  NodeUse own_;  // the job's hold
  bool implicit_ = false;
  bool guards_ = false;  // nobody changes anything past it
  WriteWatcher* watcher_ = nullptr;
  WriteTurns turns_;
  unsigned holds_ = 0;
  size_t under_way_ = 0;
  size_t waiting_ = 0;
  CoQueue released_, quiet_;
  NodePtr successor_;
};

}  // namespace kite::block
