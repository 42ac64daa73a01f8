#include "block/raw_node.h"

#include <algorithm>

#include "support/bits.h"

namespace kite::block {
namespace {

constexpr uint64_t kSector = 512;

}  // namespace

Task<Result<NodePtr>> RawNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  KITE_CO_ASSIGN(const uint64_t offset, options.take_size("offset", 0));
  const bool has_size = options.has("size");
  KITE_CO_ASSIGN(const uint64_t size, options.take_size("size", 0));
  KITE_CO_ASSIGN(NodePtr below, co_await graph.open_child(options.take_child("file"), config, "file"));
  KITE_CO_TRY(options.all_taken("raw"));
  const uint64_t length = below->length();
  if (offset > length)
    co_return fail("Offset (0x{:x}) cannot be greater than size of the containing file ({})", offset, length);
  if (has_size && size > length - offset) {
    co_return fail(
        "The sum of offset ({}) and size ({}) has to be smaller or equal to the actual size of the "
        "containing file ({})",
        offset, size, length);
  }
  if (has_size && !is_aligned(size, kSector)) co_return fail("Specified size is not multiple of {}", kSector);
  std::shared_ptr<RawNode> node(new RawNode(graph.executor(), "raw", std::move(config)));
  node->follow_rights(*below);
  node->offset_ = offset;
  if (has_size) node->size_ = size;
  KITE_CO_TRY(node->attach(std::move(below)));
  co_return NodePtr(std::move(node));
}

// Disks have whole sectors: what a file lacks of its last one reads as zeroes, and is there once it is written.
uint64_t RawNode::length() const {
  const uint64_t below = file_->length();
  const uint64_t bytes = below - std::min(below, offset_);
  return size_.value_or(file_->growable() ? align_up(bytes, kSector) : bytes);
}

Task<IoResult<>> RawNode::do_discard(uint64_t offset, uint64_t bytes, IoHow how) {
  const uint64_t below = file_->length();
  const uint64_t from = offset + offset_;
  return from >= below ? ready(IoResult<>{}) : file_->discard(from, std::min(bytes, below - from), how);
}

Task<IoResult<BlockStatus>> RawNode::do_block_status(uint64_t offset, uint64_t bytes, bool precise) {
  if (offset + offset_ < file_->length()) return file_->block_status(offset + offset_, bytes, precise);
  return ready<IoResult<BlockStatus>>(BlockStatus{
      .bytes = bytes, .data = false, .zero = true, .has_offset = true, .offset = offset + offset_, .file = file()});
}

Task<IoResult<>> RawNode::do_read(uint64_t offset, IoSlice to, IoHow how) {
  if (const IoResult<> failed = file_->debug_event("read_aio"); !failed) return ready<IoResult<>>(failed);
  if (size_ && offset + to.bytes() > *size_) return read_window(offset, to, how);
  return file_->read(offset + offset_, to, how);
}

// Behind a window's end are zeroes, whatever the file has there.
Task<IoResult<>> RawNode::read_window(uint64_t offset, IoSlice to, IoHow how) {
  const uint64_t inside = offset < *size_ ? *size_ - offset : 0;
  to.from(inside).fill(0);
  if (inside != 0) co_return co_await file_->read(offset + offset_, to.slice(0, inside), how);
  co_return IoResult<>{};
}

Task<Result<>> RawNode::truncate(uint64_t bytes, Preallocation preallocation) {
  if (size_) return ready<Result<>>(fail("Cannot resize fixed-size raw disks"));
  return file_->truncate(bytes + offset_, preallocation);
}

Task<IoResult<>> RawNode::do_flush(IoHow how) {
  for (const char* const event : {"flush_to_os", "flush_to_disk"}) KITE_CO_TRY(file_->debug_event(event));
  co_return co_await file_->flush(how);
}

}  // namespace kite::block
