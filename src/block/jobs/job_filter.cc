#include "block/jobs/job_filter.h"

#include <algorithm>

#include "block/file_node.h"

namespace kite::block {

// A request that is under way.
class JobFilter::Passage {
 public:
  explicit Passage(JobFilter& filter) : filter_(&filter) { ++filter.under_way_; }
  Passage(Passage&& other) noexcept : filter_(std::exchange(other.filter_, nullptr)) {}
  Passage& operator=(Passage&&) = delete;
  ~Passage() {
    if (filter_ != nullptr && --filter_->under_way_ == 0) filter_->quiet_.wake_all();
  }

 private:
  JobFilter* filter_;
};

struct JobFilter::Change {
  enum Kind : uint8_t { kWrite, kZeroes, kDiscard } kind;
  uint64_t offset, bytes;
  IoSlice data;
  IoHow how;
};

Result<std::shared_ptr<JobFilter>> JobFilter::insert(BlockGraph& graph, const NodePtr& below, std::string driver,
                                                     std::string name) {
  NodeConfig config;
  config.name = std::move(name);
  config.read_only = below->read_only();
  config.discard_unmap = true;  // what is ignored is ignored below
  const bool implicit = config.name.empty();
  std::shared_ptr<JobFilter> filter(new JobFilter(graph.executor(), std::move(driver), std::move(config)));
  filter->implicit_ = implicit;
  KITE_TRY(graph.adopt(filter));
  KITE_TRY(filter->attach(below));
  KITE_ASSIGN(filter->own_, NodeUse::claim(filter, fmt::format("the job of node '{}'", filter->name()),
                                           {.need = 0, .shared = Permissions::kAll}));
  filter->guards_ = true;
  if (Result<> moved = below->move_users(filter, &filter->file_); !moved) {
    filter->guards_ = false;
    filter->own_.reset();
    filter->file_.reset();
    return Failure(std::move(moved).error());
  }
  return filter;
}

Task<void> JobFilter::hold() {
  ++holds_;
  while (under_way_ != 0) co_await quiet_.wait();
}

void JobFilter::release() {
  if (--holds_ == 0) released_.wake_all();
}

Result<> JobFilter::move_out(const NodePtr& to, NodeUse* passing, const std::function<Result<>()>& between) {
  guards_ = false;
  if (Result<> moved = move_users(to, &own_, passing, between); !moved) {
    guards_ = true;
    return moved;
  }
  successor_ = to;
  watcher_ = nullptr;
  return {};
}

Task<void> JobFilter::retire() {
  const NodePtr keep = shared_from_this();
  watcher_ = nullptr;
  while (under_way_ != 0 || waiting_ != 0) co_await quiet_.wait();
  co_await close_use(own_);
}

Task<JobFilter::Passage> JobFilter::enter() {
  if (holds_ != 0) {
    ++waiting_;
    while (holds_ != 0) co_await released_.wait();
    --waiting_;
  }
  co_return Passage(*this);
}

Task<IoResult<>> JobFilter::do_read(uint64_t offset, IoSlice to, IoHow how) {
  const Passage passage = co_await enter();
  co_return co_await next().read(offset, to, how);
}

Task<IoResult<>> JobFilter::do_flush(IoHow how) {
  const Passage passage = co_await enter();
  co_return co_await next().flush(how);
}

Task<IoResult<>> JobFilter::do_write(uint64_t offset, IoSlice from, IoHow how) {
  return change({.kind = Change::kWrite, .offset = offset, .bytes = from.bytes(), .data = from, .how = how});
}
Task<IoResult<>> JobFilter::do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  return change({.kind = Change::kZeroes, .offset = offset, .bytes = bytes, .data = {}, .how = how});
}
Task<IoResult<>> JobFilter::do_discard(uint64_t offset, uint64_t bytes, IoHow how) {
  return change({.kind = Change::kDiscard, .offset = offset, .bytes = bytes, .data = {}, .how = how});
}

Task<IoResult<>> JobFilter::change(Change change) {
  const Passage passage = co_await enter();
  const auto pass = [&change](BlockNode& node, IoSlice data) {
    switch (change.kind) {
      case Change::kWrite: return node.write(change.offset, data, change.how);
      case Change::kZeroes: return node.write_zeroes(change.offset, change.bytes, change.how);
      case Change::kDiscard: break;
    }
    return node.discard(change.offset, change.bytes, change.how);
  };
  if (successor_ != nullptr || watcher_ == nullptr) co_return co_await pass(next(), change.data);
  const bool follows = watcher_->follows();
  const WriteTurns::Turn turn(turns_, change.offset, change.offset + change.bytes, follows);
  while (turn.blocked()) co_await turns_.changed();
  KITE_CO_TRY(co_await watcher_->before(change.offset, change.bytes));
  // Memory of a guest may change at any time, and both copies are to have the same.
  std::optional<AlignedBuffer> stable;
  IoSlice data = change.data;
  if (follows && change.kind == Change::kWrite) {
    constexpr size_t kAlignment = 4096;
    stable.emplace(change.bytes, kAlignment);
    change.data.copy_to(stable->data());
    data = IoSlice(stable->data(), change.bytes);
  }
  const IoResult<> done = co_await pass(*file_, data);
  co_await watcher_->after(change.offset, change.bytes, done && stable ? data : IoSlice());
  co_return done;
}

}  // namespace kite::block
