#include "block/jobs/backup.h"

#include <algorithm>

#include "block/chain.h"
#include "block/image.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::block {
namespace {

constexpr size_t kAlignment = 4096;
// The least that is copied at once, in bytes.
constexpr uint64_t kChunk = 65536;
// How long a job that only waits for guests sleeps.
constexpr int64_t kNapNs = 1'000'000'000;

const FormatNode* format_of(const NodePtr& node) { return dynamic_cast<const FormatNode*>(skip_filters(node.get())); }

// A target's cluster is written whole: it may have no backing file that could fill in the rest.
uint64_t chunk_for(const NodePtr& target) {
  const FormatNode* const format = format_of(target);
  return format == nullptr ? kChunk : std::max(kChunk, format->image_info().cluster_bytes);
}

CopyResult failed(const IoError& error, bool reading) {
  return std::unexpected(CopyFailure{.code = error.code, .reading = reading});
}

}  // namespace

BackupJob::BackupJob(BlockGraph& graph, BackupRequest request, uint64_t chunk)
    : Job(graph, JobType::kBackup, request.job),
      request_(std::move(request)),
      todo_(request_.source->length(), chunk) {}

uint64_t BackupJob::piece_bytes() const { return std::max(kCopyPiece, todo_.chunk()); }

Task<Result<std::shared_ptr<Job>>> BackupJob::create(BlockGraph& graph, const JobTable& table, BackupRequest request) {
  KITE_CO_TRY(table.may_start(request.job.id));
  KITE_CO_TRY(table.may_change(*request.source));
  KITE_CO_TRY(table.may_change(*request.target));
  const uint64_t chunk = chunk_for(request.target);
  if (!DirtyChunks::can_hold(request.source->length(), chunk))
    co_return fail("Node '{}' is too large for a backup", request.source->name());
  std::shared_ptr<BackupJob> job(new BackupJob(graph, std::move(request), chunk));
  Result<> done = co_await job->set_up();
  if (!done) {
    co_await job->clean_up();
    co_return Failure(std::move(done).error());
  }
  co_return std::shared_ptr<Job>(std::move(job));
}

Task<Result<>> BackupJob::set_up() {
  const NodePtr source = request_.source, target = request_.target;
  if (source == target) co_return fail("Source and target cannot be the same");
  if (target->user_count() != 0) co_return fail("Node '{}' is already in use", target->name());
  if (target->read_only()) co_return fail("Block node '{}' is read-only", target->name());
  if (request_.compress) {
    const FormatNode* const format = format_of(target);
    const ImageFormat* const known = format == nullptr ? nullptr : find_image_format(format->driver());
    if (known == nullptr || !known->compresses)
      co_return fail("Compression is not supported for this drive '{}' ({})", target->name(), target->driver());
  }
  if (target->length() != source->length())
    co_return fail("Source and target image have different sizes: {} and {} bytes", source->length(), target->length());
  // A target over the source (for who reads the disk of then through it) lives with that being written.
  const std::vector<BlockNode*> below = images_below(*target);
  const bool over_source = std::ranges::find(below, skip_filters(source.get())) != below.end();
  const uint32_t not_shared = over_source ? 0 : Permissions::kWrite;
  KITE_CO_ASSIGN(target_, NodeUse::claim(target, fmt::format("job '{}'", id()),
                                         {.need = Permissions::kWrite | Permissions::kResize,
                                          .shared = Permissions::kAll & ~not_shared}));
  if (over_source) {
    target_reads_ = std::make_shared<WriteTurns>();
    target->set_read_turns(target_reads_);
  }
  if (request_.sync == BackupRequest::Sync::kTop && backing_of(source.get()) == nullptr)
    request_.sync = BackupRequest::Sync::kFull;
  const BitmapPtr& bitmap = request_.bitmap;
  if (bitmap != nullptr) KITE_CO_TRY(bitmap->may(DirtyBitmap::Need::kRead));
  if (request_.sync == BackupRequest::Sync::kBitmap) {
    bitmap->chunks().for_each([this](DirtyChunks::Run run) { todo_.mark(run.offset, run.bytes); });
  } else {
    todo_.mark(0, source->length());
  }
  block_images_below(*source);
  block_images_below(*target);
  KITE_CO_ASSIGN(filter_, JobFilter::insert(graph(), source, "copy-before-write", request_.filter_name));
  block(filter_);
  filter_->set_watcher(this);
  if (bitmap != nullptr) bitmap->freeze();
  has_bitmap_ = bitmap != nullptr;
  co_return Result<>{};
}

// --- copying

Task<CopyResult> BackupJob::save(uint64_t from, uint64_t to, const AlignedBuffer& memory) {
  const WriteTurns::Turn turn(copies_, from, to, true);
  while (turn.blocked()) co_await copies_.changed();
  // Who reads through the target and has found nothing in it reads the source: that is to be over. (But a job that ends
  // holds requests up, those reads too, and shows nobody the disk of then any more.)
  std::optional<WriteTurns::Turn> reads;
  if (target_reads_ != nullptr) reads.emplace(*target_reads_, from, to, true);
  while (reads && reads->blocked() && !leaves_) co_await target_reads_->changed();
  while (const auto run = todo_.first_within(from, to, piece_bytes())) {
    if (lost_ || cancelled()) break;
    if (const CopyResult saved = co_await save_run(*run, memory); !saved) co_return saved;
    todo_.clear(run->offset, run->bytes);
    advance(run->bytes);
    show_progress();
  }
  co_return CopyResult{};
}

// Guests change nothing in it meanwhile: their writes wait in before().
Task<CopyResult> BackupJob::save_run(DirtyChunks::Run run, const AlignedBuffer& memory) {
  BlockNode& source = filter_->below();
  const uint64_t end = run.offset + run.bytes;
  if (request_.sync != BackupRequest::Sync::kTop && !request_.compress)
    co_return co_await copy_range(source, *target_, run.offset, run.bytes, memory);
  for (uint64_t at = run.offset; at < end;) {
    DirtyChunks::Run piece{.offset = at, .bytes = std::min(end - at, todo_.chunk())};
    if (request_.sync == BackupRequest::Sync::kTop) {
      const auto chain = co_await chain_status(source, at, end - at, backing_of(&source));
      if (!chain) co_return failed(chain.error(), true);
      // The rest of a chunk of which a part is there is copied, too.
      if (!chain->present && chain->bytes >= piece.bytes) {
        at += chain->bytes == end - at ? chain->bytes : align_down(chain->bytes, todo_.chunk());
        continue;
      }
    }
    const CopyResult saved = request_.compress
                                 ? co_await save_compressed(piece, memory)
                                 : co_await copy_range(source, *target_, piece.offset, piece.bytes, memory);
    if (!saved) co_return saved;
    at += piece.bytes;
  }
  co_return CopyResult{};
}

Task<CopyResult> BackupJob::save_compressed(DirtyChunks::Run run, const AlignedBuffer& memory) {
  BlockNode& source = filter_->below();
  const auto chain = co_await chain_status(source, run.offset, run.bytes);
  if (!chain) co_return failed(chain.error(), true);
  if (chain->status.zero && !chain->status.data && chain->bytes >= run.bytes)
    co_return co_await copy_range(source, *target_, run.offset, run.bytes, memory);
  const IoSlice data(memory.data(), static_cast<size_t>(run.bytes));
  if (const auto got = co_await source.read(run.offset, data, {.flags = IoHow::kSilent}); !got)
    co_return failed(got.error(), true);
  const uint32_t flags = IoHow::kSilent | IoHow::kCompressed;
  if (const auto put = co_await target_->write(run.offset, data, {.flags = flags}); !put)
    co_return failed(put.error(), false);
  co_return CopyResult{};
}

// A guest is about to change something. Nobody waits here for a person: a disk with a request that does not end could
// not be drained. What could not be copied ends the job, or, where that is to go on (on-target-error and
// on-source-error other than report), the write; its device has a policy of its own.
Task<IoResult<>> BackupJob::before(uint64_t offset, uint64_t bytes) {
  const uint64_t from = align_down(offset, todo_.chunk());
  const uint64_t to = std::min(align_up(offset + bytes, todo_.chunk()), filter_->length());
  if (lost_ || cancelled() || !todo_.first_within(from, to, piece_bytes())) co_return IoResult<>{};
  const AlignedBuffer memory(std::max(std::min(to - from, piece_bytes()), todo_.chunk()), kAlignment);
  const CopyResult saved = co_await save(from, to, memory);
  if (saved || lost_ || cancelled()) co_return IoResult<>{};
  lost_ = action_on(saved.error().code, saved.error().reading) == OnError::kReport;
  // A job that stands still knows that something is wrong.
  if (lost_ || status() != JobStatus::kPaused) failure_ = saved.error();
  poke();
  if (lost_) co_return IoResult<>{};
  co_return io_fail(saved.error().code);
}

// --- the job's life

// What went wrong before a guest's write is judged like a copy of the job's own.
Task<Result<>> BackupJob::settle_failure() {
  const auto failure = std::exchange(failure_, std::nullopt);
  if (!failure && !lost_) co_return Result<>{};
  const int code = failure ? failure->code : EIO;
  if (!co_await after_error(code, failure && failure->reading)) co_return fail("{}", errno_text(code));
  if (lost_) co_return fail("{}", errno_text(code));
  co_return Result<>{};
}

Task<Result<>> BackupJob::copy_all() {
  const AlignedBuffer memory(piece_bytes(), kAlignment);
  while (true) {
    KITE_CO_TRY(co_await settle_failure());
    const auto run = todo_.next(next_, piece_bytes());
    if (!run) co_return Result<>{};
    const uint64_t before = done();
    const CopyResult saved = co_await save(run->offset, run->offset + run->bytes, memory);
    if (!saved && !lost_ && !co_await after_error(saved.error().code, saved.error().reading))
      co_return fail("{}", errno_text(saved.error().code));
    if (saved) next_ = run->offset + run->bytes;
    if (!co_await pace(done() - before)) co_return fail("cancelled");
  }
}

Task<Result<>> BackupJob::flush_target() {
  while (true) {
    const auto flushed = co_await target_->flush();
    if (flushed) co_return Result<>{};
    if (!co_await after_error(flushed.error().code, false)) co_return fail("{}", errno_text(flushed.error().code));
  }
}

Task<Result<>> BackupJob::work() {
  show_progress();
  if (request_.sync != BackupRequest::Sync::kNone) {
    KITE_CO_TRY(co_await copy_all());
    co_return co_await flush_target();
  }
  // [QAPI] MirrorSyncMode, none: until it is cancelled.
  while (co_await checkpoint()) {
    KITE_CO_TRY(co_await settle_failure());
    if (!failure_ && !cancelled()) co_await nap(kNapNs);
  }
  co_return fail("cancelled");
}

Task<void> BackupJob::step_aside(Result<>& done) {
  if (filter_ == nullptr || aside_) co_return;
  leaves_ = true;
  if (target_reads_ != nullptr) target_reads_->wake();
  co_await filter_->hold();
  if (Result<> aside = filter_->step_aside(); !aside && done) done = std::move(aside);
  aside_ = true;
  filter_->release();
}

// [QAPI] BitmapSyncMode
void BackupJob::settle_bitmap(bool good) {
  using Mode = BackupRequest::BitmapMode;
  if (!std::exchange(has_bitmap_, false)) return;
  DirtyBitmap& bitmap = *request_.bitmap;
  const bool never_began = status() == JobStatus::kCreated;
  if (never_began || request_.bitmap_mode == Mode::kNever || (!good && request_.bitmap_mode == Mode::kOnSuccess)) {
    bitmap.take_back();
    return;
  }
  bitmap.let_go();
  if (!good) bitmap.merge(todo_);
}

Task<Result<>> BackupJob::finish() {
  Result<> done;
  co_await step_aside(done);
  if (done) settle_bitmap(true);
  co_return done;
}

Task<void> BackupJob::abandon() {
  Result<> done;
  co_await step_aside(done);
  if (!done) log::error("{}", done.error().message);
  settle_bitmap(false);
}

Task<void> BackupJob::clean_up() {
  if (filter_ != nullptr) co_await filter_->retire();
  filter_.reset();
  request_.source.reset();
  request_.bitmap.reset();
  const NodePtr target = std::exchange(request_.target, nullptr);
  if (target_ && target_reads_ != nullptr) target_->set_read_turns(nullptr);
  if (target_) {
    if (const Result<> closed = co_await close_use(target_); !closed) log::error("{}", closed.error().message);
  } else if (target != nullptr && target->user_count() == 0 && !target->kept()) {
    (void)co_await target->close();
  }
}

}  // namespace kite::block
