#include "block/jobs/chain_jobs.h"

#include <algorithm>

#include "block/chain.h"
#include "support/log.h"

namespace kite::block {
namespace {

constexpr size_t kAlignment = 4096;

// The name under which an image's header names a node.
std::string name_of(const BlockNode& node) { return node.filename(); }

bool stands_on(BlockNode& node, const BlockNode& below) {
  const auto images = images_below(node);
  return std::ranges::find(images, &below) != images.end();
}

}  // namespace

ChainJob::ChainJob(BlockGraph& graph, JobType type, JobOptions options, NodePtr overlay, std::string filter_name)
    : Job(graph, type, std::move(options)),
      overlay_(std::move(overlay)),
      filter_name_(std::move(filter_name)),
      memory_(kCopyPiece, kAlignment) {}

Task<Result<>> ChainJob::take_overlay(const char* driver) {
  format_ = dynamic_cast<FormatNode*>(overlay_.get());
  if (format_ == nullptr)
    co_return fail("the node '{}' ({}) has no backing file that could change", overlay_->name(), overlay_->driver());
  block_images_below(*overlay_);
  was_read_only_ = overlay_->read_only();
  KITE_CO_TRY(co_await overlay_->set_read_only(false));
  KITE_CO_ASSIGN(filter_, JobFilter::insert(graph(), overlay_, driver, filter_name_));
  block(filter_);
  co_return Result<>{};
}

// The new name is durable before the nodes follow it: what the image shows is the same through either.
Task<Result<>> ChainJob::change_backing(NodePtr base, std::string name) {
  BlockNode* const old = format_->backing();
  if (const auto flushed = co_await overlay_->flush(); !flushed)
    co_return fail("flushing '{}': {}", overlay_->filename(), errno_text(flushed.error().code));
  const BlockNode* const image = skip_filters(base.get());
  KITE_CO_TRY(co_await format_->change_backing_name(std::move(name), image == nullptr ? "" : image->driver()));
  if (old != nullptr) dropped_ = old->shared_from_this();
  co_return format_->set_backing(std::move(base));
}

Task<Result<>> ChainJob::finish() {
  co_await filter_->hold();
  Result<> done = co_await join();
  if (const Result<> aside = filter_->step_aside(); !aside && done) done = aside;
  aside_ = true;
  filter_->release();
  co_return done;
}

Task<void> ChainJob::abandon() {
  if (filter_ == nullptr || aside_) co_return;
  co_await filter_->hold();
  if (const Result<> aside = filter_->step_aside(); !aside) log::error("{}", aside.error().message);
  aside_ = true;
  filter_->release();
}

Task<void> ChainJob::clean_up() {
  if (filter_ != nullptr) co_await filter_->retire();
  filter_.reset();
  if (was_read_only_ && !overlay_->closed()) {
    if (const Result<> back = co_await overlay_->set_read_only(true); !back) log::warn("{}", back.error().message);
  }
  if (const NodePtr dropped = std::exchange(dropped_, nullptr);
      dropped != nullptr && dropped->user_count() == 0 && !dropped->kept()) {
    if (const Result<> closed = co_await dropped->close(); !closed) log::error("{}", closed.error().message);
  }
  overlay_.reset();
}

// --- stream

StreamJob::StreamJob(BlockGraph& graph, StreamRequest request)
    : ChainJob(graph, JobType::kStream, request.job, request.image, request.filter_name),
      request_(std::move(request)) {}

Task<Result<std::shared_ptr<Job>>> StreamJob::create(BlockGraph& graph, const JobTable& table, StreamRequest request) {
  KITE_CO_TRY(table.may_start(request.job.id));
  for (BlockNode* image : images_below(*request.image)) KITE_CO_TRY(table.may_change(*image));
  if (request.base != nullptr &&
      (request.base == request.image || !stands_on(*request.image, *skip_filters(request.base.get()))))
    co_return fail("Node '{}' is not a backing image of '{}'", request.base->name(), request.image->name());
  std::shared_ptr<StreamJob> job(new StreamJob(graph, std::move(request)));
  Result<> done = co_await job->take_overlay("copy-on-read");
  if (!done) {
    co_await job->clean_up();
    co_return Failure(std::move(done).error());
  }
  job->filter_->set_watcher(job.get());
  co_return std::shared_ptr<Job>(std::move(job));
}

// Guests' writes keep off the range: what they write is newer than what this copies.
Task<CopyResult> StreamJob::copy_next(uint64_t offset, uint64_t& bytes) {
  const WriteTurns::Turn turn(filter_->turns(), offset, offset + bytes, true);
  while (turn.blocked()) co_await filter_->turns().changed();
  const BlockNode* const base = skip_filters(request_.base.get());
  const auto chain = co_await chain_status(*overlay_, offset, bytes, base);
  if (!chain) co_return std::unexpected(CopyFailure{.code = chain.error().code, .reading = true});
  bytes = std::min(bytes, chain->bytes);
  // What no backing file has reads as zeroes afterwards by itself.
  if (!chain->present || chain->depth == 0) co_return CopyResult{};
  co_return co_await copy_range(*overlay_, *overlay_, offset, bytes, memory_);
}

Task<Result<>> StreamJob::work() {
  const uint64_t length = overlay_->length();
  progress(0, length);
  for (uint64_t at = 0; at < length;) {
    uint64_t bytes = std::min(kCopyPiece, length - at);
    const CopyResult copied = co_await copy_next(at, bytes);
    if (!copied) {
      if (!co_await after_error(copied.error().code, copied.error().reading))
        co_return fail("{}", errno_text(copied.error().code));
      continue;
    }
    at += bytes;
    progress(at, length);
    if (!co_await pace(bytes)) co_return fail("cancelled");
  }
  co_return Result<>{};
}

Task<Result<>> StreamJob::join() {
  const std::string name = request_.base == nullptr ? "" : request_.backing_name.value_or(name_of(*request_.base));
  return change_backing(std::move(request_.base), name);
}

// --- commit

CommitJob::CommitJob(BlockGraph& graph, CommitRequest request)
    : ChainJob(graph, JobType::kCommit, request.job, request.overlay, request.filter_name),
      request_(std::move(request)) {}

Task<Result<std::shared_ptr<Job>>> CommitJob::create(BlockGraph& graph, const JobTable& table, CommitRequest request) {
  KITE_CO_TRY(table.may_start(request.job.id));
  for (BlockNode* image : images_below(*request.overlay)) KITE_CO_TRY(table.may_change(*image));
  std::shared_ptr<CommitJob> job(new CommitJob(graph, std::move(request)));
  Result<> done = co_await job->set_up();
  if (!done) {
    co_await job->clean_up();
    co_return Failure(std::move(done).error());
  }
  co_return std::shared_ptr<Job>(std::move(job));
}

Task<Result<>> CommitJob::set_up() {
  const NodePtr base = request_.base;
  KITE_CO_TRY(nothing_else_on(*request_.overlay, *skip_filters(base.get())));
  base_was_read_only_ = base->read_only();
  KITE_CO_TRY(co_await base->set_read_only(false));
  KITE_CO_ASSIGN(base_, NodeUse::claim(base, fmt::format("job '{}'", id()),
                                       {.need = Permissions::kWriteUnchanged | Permissions::kResize,
                                        .shared = Permissions::kAll}));
  if (base->length() < request_.top->length()) KITE_CO_TRY(co_await base->truncate(request_.top->length()));
  co_return co_await take_overlay("commit_top");
}

// What an image between has is hidden by it from whoever reads the base through the chain, before and after it is
// copied.
Task<Result<>> CommitJob::work() {
  BlockNode& top = *request_.top;
  const uint64_t length = top.length();
  const BlockNode* const base = skip_filters(request_.base.get());
  progress(0, length);
  for (uint64_t at = 0; at < length;) {
    CopyResult copied;
    const auto chain = co_await chain_status(top, at, std::min(kCopyPiece, length - at), base);
    if (!chain) {
      copied = std::unexpected(CopyFailure{.code = chain.error().code, .reading = true});
    } else if (chain->present) {
      copied = co_await copy_range(top, *base_, at, chain->bytes, memory_);
    }
    if (!copied) {
      if (!co_await after_error(copied.error().code, copied.error().reading))
        co_return fail("{}", errno_text(copied.error().code));
      continue;
    }
    at += chain->bytes;
    progress(at, length);
    if (!co_await pace(chain->present ? chain->bytes : 0)) co_return fail("cancelled");
  }
  co_return Result<>{};
}

Task<Result<>> CommitJob::join() {
  if (const auto flushed = co_await base_->flush(); !flushed)
    co_return fail("flushing the base: {}", errno_text(flushed.error().code));
  const std::string name = request_.backing_name.value_or(name_of(*request_.base));
  co_return co_await change_backing(request_.base, name);
}

Task<void> CommitJob::clean_up() {
  base_.reset();
  request_.top.reset();
  co_await ChainJob::clean_up();
  const NodePtr base = std::exchange(request_.base, nullptr);
  if (base_was_read_only_ && !base->closed()) {
    if (const Result<> back = co_await base->set_read_only(true); !back) log::warn("{}", back.error().message);
  }
}

}  // namespace kite::block
