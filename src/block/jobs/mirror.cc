#include "block/jobs/mirror.h"

#include <algorithm>
#include <bit>

#include "block/chain.h"
#include "block/image.h"
#include "support/log.h"

namespace kite::block {
namespace {

constexpr size_t kAlignment = 4096;
// How long a copy that is ready lets what guests write gather.
constexpr int64_t kReadyNapNs = 20'000'000;
// What is copied while guests wait, in bytes.
constexpr uint64_t kLittle = uint64_t{4} << 20;

}  // namespace

MirrorJob::MirrorJob(BlockGraph& graph, MirrorRequest request)
    : Job(graph, request.commits ? JobType::kCommit : JobType::kMirror, request.job),
      request_(std::move(request)),
      dirty_(request_.source->length(), request_.granularity),
      memory_(piece_bytes(), kAlignment) {}

uint64_t MirrorJob::piece_bytes() const {
  return std::max(std::min(kCopyPiece, request_.piece_bytes), request_.granularity);
}

Task<Result<std::shared_ptr<Job>>> MirrorJob::create(BlockGraph& graph, const JobTable& table, MirrorRequest request) {
  KITE_CO_TRY(table.may_start(request.job.id));
  KITE_CO_TRY(table.may_change(*request.source));
  KITE_CO_TRY(table.may_change(*request.target));
  if (!std::has_single_bit(request.granularity) || request.granularity < 512 || request.granularity > 64u << 20)
    co_return fail("Parameter 'granularity' expects a power of 2 between 512 and 64M");
  if (!DirtyChunks::can_hold(request.source->length(), request.granularity))
    co_return fail("Node '{}' is too large for a granularity of {} bytes", request.source->name(), request.granularity);
  std::shared_ptr<MirrorJob> job(new MirrorJob(graph, std::move(request)));
  Result<> done = co_await job->set_up();
  if (!done) {
    co_await job->clean_up();
    co_return Failure(std::move(done).error());
  }
  co_return std::shared_ptr<Job>(std::move(job));
}

Task<Result<>> MirrorJob::set_up() {
  const NodePtr source = request_.source, target = request_.target;
  if (source == target) co_return fail("Can't mirror node into itself");
  Permissions permissions{.need = Permissions::kWriteUnchanged | Permissions::kResize, .shared = Permissions::kAll};
  if (request_.commits) {
    KITE_CO_TRY(nothing_else_on(*source, *skip_filters(target.get())));
    target_was_read_only_ = target->read_only();
    KITE_CO_TRY(co_await target->set_read_only(false));
  } else {
    if (target->user_count() != 0) co_return fail("Node '{}' is already in use", target->name());
    if (target->read_only()) co_return fail("Block node '{}' is read-only", target->name());
    permissions.need |= Permissions::kWrite;
    permissions.shared &= ~uint32_t{Permissions::kWrite};
  }
  KITE_CO_ASSIGN(target_, NodeUse::claim(target, fmt::format("job '{}'", id()), permissions));
  if (target->length() < source->length() && request_.commits) KITE_CO_TRY(co_await target->truncate(source->length()));
  if (target->length() != source->length() && !request_.commits)
    co_return fail("Source and target image have different sizes: {} and {} bytes", source->length(), target->length());
  block_images_below(*source);
  block_images_below(*target);
  KITE_CO_ASSIGN(filter_, JobFilter::insert(graph(), source, request_.commits ? "commit_top" : "mirror_top",
                                            request_.filter_name));
  block(filter_);
  filter_->set_watcher(this);
  co_return Result<>{};
}

// What the target lacks, before guests write anything.
Task<IoResult<>> MirrorJob::find_what_differs() {
  using Sync = MirrorRequest::Sync;
  BlockNode& source = filter_->below();
  if (request_.sync == Sync::kNone) co_return IoResult<>{};
  if (request_.sync == Sync::kFull && !request_.commits) {
    dirty_.mark(0, source.length());
    co_return IoResult<>{};
  }
  const BlockNode* const until = request_.commits ? skip_filters(target_.node().get()) : backing_of(&source);
  for (uint64_t at = 0; at < source.length();) {
    KITE_CO_ASSIGN(const ChainStatus chain, co_await chain_status(source, at, source.length() - at, until));
    if (chain.present || (until == nullptr)) dirty_.mark(at, chain.bytes);
    at += chain.bytes;
    if (!co_await checkpoint()) break;
  }
  co_return IoResult<>{};
}

Task<void> MirrorJob::after(uint64_t offset, uint64_t bytes, IoSlice data) {
  if (data.empty()) {
    dirty_.mark(offset, bytes);
  } else if (const auto put = co_await target_->write(offset, data, {.flags = IoHow::kSilent}); put) {
    dirty_.clear_whole(offset, bytes);
  } else {
    follow_error_ = put.error();
    dirty_.mark(offset, bytes);
  }
  if (!dirty_.empty()) poke();
}

// A guest that writes while this reads marks the chunk again, behind clear().
Task<CopyResult> MirrorJob::copy_next() {
  if (const auto error = std::exchange(follow_error_, std::nullopt))
    co_return std::unexpected(CopyFailure{.code = error->code, .reading = false});
  const auto run = dirty_.next(next_, piece_bytes());
  if (!run) co_return CopyResult{};
  std::optional<WriteTurns::Turn> turn;
  if (request_.follow_writes) {
    turn.emplace(filter_->turns(), run->offset, run->offset + run->bytes, true);
    while (turn->blocked()) co_await filter_->turns().changed();
  }
  dirty_.clear(run->offset, run->bytes);
  CopyResult done = co_await copy_range(filter_->below(), *target_, run->offset, run->bytes, memory_);
  if (!done) {
    dirty_.mark(run->offset, run->bytes);
    co_return done;
  }
  next_ = run->offset + run->bytes;
  advance(run->bytes);
  show_progress();
  co_return done;
}

// Until nothing is dirty.
Task<Result<>> MirrorJob::copy_all() {
  while (!dirty_.empty()) {
    const uint64_t before = done();
    if (const CopyResult copied = co_await copy_next(); !copied) {
      if (!co_await after_error(copied.error().code, copied.error().reading))
        co_return fail("{}", errno_text(copied.error().code));
    }
    if (!co_await pace(done() - before)) co_return fail("cancelled");
    // Guests may write faster than this copies: the rest is done while they wait.
    if (ready() && shall_end() && dirty_.bytes() <= kLittle) break;
  }
  co_return Result<>{};
}

Task<Result<>> MirrorJob::work() {
  while (true) {
    const auto found = co_await find_what_differs();
    if (found) break;
    if (!co_await after_error(found.error().code, true)) co_return fail("{}", errno_text(found.error().code));
  }
  show_progress();
  while (!cancelled()) {
    KITE_CO_TRY(co_await copy_all());
    if (!ready()) {
      if (const auto flushed = co_await target_->flush(); !flushed) {
        if (!co_await after_error(flushed.error().code, false)) co_return fail("{}", errno_text(flushed.error().code));
        continue;
      }
      if (!dirty_.empty()) continue;
      set_ready();
    }
    if (shall_end()) co_return Result<>{};
    co_await nap(kReadyNapNs);
    if (!co_await checkpoint()) break;
  }
  co_return fail("cancelled");
}

// Guests wait: what is left becomes less.
Task<Result<>> MirrorJob::copy_rest() {
  while (!dirty_.empty()) {
    if (const CopyResult copied = co_await copy_next(); !copied) co_return fail("{}", errno_text(copied.error().code));
  }
  if (const auto flushed = co_await target_->flush(); !flushed)
    co_return fail("flushing the target: {}", errno_text(flushed.error().code));
  co_return Result<>{};
}

// Users of the source go on with the target.
Task<Result<>> MirrorJob::pivot() {
  // Below a target that guests write to nothing may show it as its backing file.
  FormatNode* above = nullptr;
  if (request_.commits) {
    for (BlockNode* image : images_below(filter_->below()))
      if (backing_of(image) == skip_filters(target_.node().get())) above = dynamic_cast<FormatNode*>(image);
  }
  const NodePtr backing = above == nullptr ? nullptr : above->backing()->shared_from_this();
  const auto detach = [above] { return above == nullptr ? Result<>{} : above->set_backing(nullptr); };
  Result<> moved = filter_->give_way(target_.node(), &target_, detach);
  if (!moved && above != nullptr && above->backing() == nullptr) {
    if (const Result<> again = above->set_backing(backing); !again) log::error("{}", again.error().message);
  }
  pivoted_ = aside_ = moved.has_value();
  co_return moved;
}

Task<Result<>> MirrorJob::finish() {
  co_await filter_->hold();
  Result<> done = co_await copy_rest();
  if (done && complete_asked()) done = co_await pivot();
  if (!aside_) {
    if (const Result<> aside = filter_->step_aside(); !aside && done) done = aside;
    aside_ = true;
  }
  filter_->release();
  co_return done;
}

Task<void> MirrorJob::abandon() {
  if (filter_ == nullptr || aside_) co_return;
  co_await filter_->hold();
  if (const Result<> aside = filter_->step_aside(); !aside) log::error("{}", aside.error().message);
  aside_ = true;
  filter_->release();
}

Task<void> MirrorJob::clean_up() {
  if (filter_ != nullptr) co_await filter_->retire();
  filter_.reset();
  request_.source.reset();
  const NodePtr target = std::exchange(request_.target, nullptr);
  if (request_.commits) {
    target_.reset();
    if (target_was_read_only_ && !pivoted_) {
      if (const Result<> back = co_await target->set_read_only(true); !back) log::warn("{}", back.error().message);
    }
  } else if (target_) {
    if (const Result<> closed = co_await close_use(target_); !closed) log::error("{}", closed.error().message);
  } else if (target != nullptr && target->user_count() == 0 && !target->kept()) {
    (void)co_await target->close();
  }
}

}  // namespace kite::block
