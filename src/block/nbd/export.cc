#include "block/nbd/export.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "block/bitmap_requests.h"
#include "block/chain.h"

namespace kite::block::nbd {
namespace {

constexpr uint32_t kAllocationContext = 0;
constexpr uint32_t kUsualPreferred = 4096;
constexpr unsigned kMostLooks = 16384;  // at the images, for one answer

Result<BitmapPtr> find_bitmap_below(BlockNode& top, const std::string& name) {
  for (BlockNode* image : images_below(top)) {
    image->bitmaps().resize(image->length());
    if (BitmapPtr bitmap = image->bitmaps().find(name)) return bitmap;
  }
  return fail("Bitmap '{}' is not found", name);
}

void append(std::vector<Extent>& extents, uint64_t bytes, uint32_t flags) {
  if (!extents.empty() && extents.back().flags == flags) {
    extents.back().bytes += bytes;
  } else {
    extents.push_back({.bytes = bytes, .flags = flags});
  }
}

uint32_t allocation_flags(const ChainStatus& chain) {
  const bool hole = !chain.present || !chain.status.data;
  return (hole ? kStateHole : 0u) | (chain.status.zero ? kStateZero : 0u);
}

// "qemu:allocation-depth": 0 where no image has anything, 1 where the exported one does.
uint32_t depth_of(const ChainStatus& chain) { return chain.present ? chain.depth + 1 : 0; }

}  // namespace

// A request that is under way.
class Export::Passage {
 public:
  explicit Passage(Export& disk) : disk_(&disk) { ++disk.under_way_; }
  Passage(Passage&& other) noexcept : disk_(std::exchange(other.disk_, nullptr)) {}
  Passage& operator=(Passage&&) = delete;
  ~Passage() {
    if (disk_ != nullptr && --disk_->under_way_ == 0) disk_->quiet_.wake_all();
  }
  // Whether it may go on: else the export ends.
  [[nodiscard]] bool open() const { return !disk_->ending_; }

 private:
  Export* disk_;
};

Result<std::shared_ptr<Export>> Export::create(BlockGraph& graph, ExportRequest request) {
  if (request.name.size() > kLongestString)
    return fail("export name '{}...' is too long: {} bytes are the most", request.name.substr(0, 32), kLongestString);
  if (request.description.size() > kLongestString)
    return fail("description '{}...' is too long: {} bytes are the most", request.description.substr(0, 32),
                kLongestString);
  const NodePtr node = std::exchange(request.node, nullptr);
  if (request.writable && node->read_only()) return fail("Cannot export read-only node '{}' as writable", node->name());
  std::shared_ptr<Export> made(new Export(std::move(request)));
  made->node_name_ = node->name();
  Permissions permissions;
  if (made->writable()) permissions.need |= Permissions::kWrite;
  KITE_ASSIGN(made->use_, NodeUse::claim(node, fmt::format("export '{}'", made->id()), permissions));
  KITE_TRY(made->take_bitmaps(graph));
  made->describe();
  return made;
}

Export::~Export() {
  for (const BitmapPtr& bitmap : bitmaps_) bitmap->exported = false;
}

Result<> Export::take_bitmaps(BlockGraph& graph) {
  contexts_.emplace_back("base:allocation");
  if (request_.allocation_depth) contexts_.emplace_back("qemu:allocation-depth");
  for (const ExportRequest::Bitmap& wanted : request_.bitmaps) {
    BitmapPtr bitmap;
    if (wanted.node.empty()) {
      KITE_ASSIGN(bitmap, find_bitmap_below(*use_, wanted.name));
    } else {
      const NodePtr node = graph.find(wanted.node);
      if (node == nullptr) return fail("Cannot find device='' nor node-name='{}'", wanted.node);
      KITE_ASSIGN(bitmap, find_bitmap(*node, wanted.name));
    }
    KITE_TRY(bitmap->may(DirtyBitmap::Need::kRead));
    // What clients are told must not change while the disk, to them, does not.
    if (!request_.writable && bitmap->enabled && !use_->read_only())
      return fail("Enabled bitmap '{}' incompatible with readonly export", wanted.name);
    bitmap->exported = true;
    contexts_.push_back("qemu:dirty-bitmap:" + bitmap->name());
    bitmaps_.push_back(std::move(bitmap));
  }
  return {};
}

void Export::describe() {
  facts_.bytes = use_->length();
  // Clients of this server may come by several connections: all are this one node's users, and a flush is for all.
  facts_.flags = kHasFlags | kSendFlush | kSendFua | kSendCache | kCanMultiConn;
  if (writable()) facts_.flags |= kSendTrim | kSendWriteZeroes | kSendFastZero;
  if (!writable()) facts_.flags |= kReadOnly;
  const uint64_t liked = use_->limits().opt_transfer;
  facts_.preferred_block =
      static_cast<uint32_t>(std::bit_floor(std::clamp<uint64_t>(liked, kUsualPreferred, kUsualMaxBlock)));
}

// --- requests

Task<Export::Passage> Export::enter() {
  ++waiting_;
  while (holds_ != 0 && !ending_) co_await released_.wait();
  --waiting_;
  co_return Passage(*this);
}

Task<IoResult<>> Export::read(uint64_t offset, IoSlice to) {
  const Passage passage = co_await enter();
  if (!passage.open()) co_return io_fail(ESHUTDOWN);
  co_return co_await use_->read(offset, to);
}

Task<IoResult<>> Export::write(uint64_t offset, IoSlice from, IoHow how) {
  const Passage passage = co_await enter();
  if (!passage.open()) co_return io_fail(ESHUTDOWN);
  co_return co_await use_->write(offset, from, how_to_write(how));
}

Task<IoResult<>> Export::write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  const Passage passage = co_await enter();
  if (!passage.open()) co_return io_fail(ESHUTDOWN);
  co_return co_await use_->write_zeroes(offset, bytes, how_to_write(how));
}

Task<IoResult<>> Export::discard(uint64_t offset, uint64_t bytes, IoHow how) {
  const Passage passage = co_await enter();
  if (!passage.open()) co_return io_fail(ESHUTDOWN);
  KITE_CO_TRY(co_await use_->discard(offset, bytes));
  co_return how_to_write(how).has(IoHow::kFua) ? co_await use_->flush() : IoResult<>{};
}

Task<IoResult<>> Export::flush() {
  const Passage passage = co_await enter();
  if (!passage.open()) co_return io_fail(ESHUTDOWN);
  co_return writable() ? co_await use_->flush() : IoResult<>{};
}

Task<IoResult<std::vector<Extent>>> Export::extents(uint32_t context, uint64_t offset, uint64_t bytes, size_t most) {
  const Passage passage = co_await enter();
  if (!passage.open()) co_return io_fail(ESHUTDOWN);
  const size_t before_bitmaps = contexts_.size() - bitmaps_.size();
  if (context >= before_bitmaps) co_return dirty(*bitmaps_[context - before_bitmaps], offset, bytes, most);
  const uint64_t end = offset + bytes;
  std::vector<Extent> found;
  for (unsigned looks = 0; offset < end && looks < kMostLooks; ++looks) {
    // The node may have become shorter; what is behind its end reads as zeroes.
    ChainStatus chain{.bytes = end - offset, .status = {.data = false, .zero = true}};
    if (offset < use_->length()) {
      KITE_CO_ASSIGN(chain, co_await chain_status(*use_, offset, end - offset));
    }
    append(found, chain.bytes, context == kAllocationContext ? allocation_flags(chain) : depth_of(chain));
    if (found.size() > most) {
      found.pop_back();
      break;
    }
    offset += chain.bytes;
  }
  co_return found;
}

std::vector<Extent> Export::dirty(const DirtyBitmap& bitmap, uint64_t offset, uint64_t bytes, size_t most) const {
  const uint64_t end = offset + bytes;
  std::vector<Extent> found;
  while (offset < end && found.size() < most) {
    const auto run = bitmap.chunks().first_within(offset, end, end - offset + 2 * bitmap.granularity());
    const uint64_t from = run ? std::max(run->offset, offset) : end;
    if (from > offset) append(found, from - offset, 0);
    const uint64_t to = run ? std::min(run->offset + run->bytes, end) : end;
    if (to > from && found.size() < most) append(found, to - from, kStateDirty);
    offset = to;
  }
  return found;
}

// --- its life

void Export::release() {
  if (--holds_ == 0) released_.wake_all();
}

Task<void> Export::drain() {
  while (under_way_ != 0) co_await quiet_.wait();
}

void Export::begin_end() {
  ending_ = true;
  released_.wake_all();
}

Task<Result<>> Export::end() {
  begin_end();
  while (under_way_ != 0 || waiting_ != 0) co_await quiet_.wait();
  for (const BitmapPtr& bitmap : bitmaps_) bitmap->exported = false;
  bitmaps_.clear();
  contexts_.clear();
  Result<> flushed;
  if (use_ && writable()) {
    if (const auto done = co_await use_->flush(); !done)
      flushed = fail("export '{}' could not be flushed: {}", id(), errno_text(done.error().code));
  }
  const Result<> closed = co_await close_use(use_);
  co_return flushed ? closed : flushed;
}

}  // namespace kite::block::nbd
