// Other sizes of an image, and preallocation.
#include <algorithm>
#include <cerrno>

#include "block/qcow2/access.h"
#include "block/qcow2/qcow2_node.h"
#include "support/bits.h"

namespace kite::block::qcow2 {

Task<Result<>> Qcow2Node::truncate(uint64_t bytes, Preallocation preallocation) {
  constexpr uint64_t kSector = 512;
  if (read_only()) co_return fail("the image is open for reading only");
  if (!is_aligned(bytes, kSector)) co_return fail("The new size must be a multiple of {}", kSector);
  if (!snapshots_.empty() && header_.version < 3) co_return fail("Can't resize a v2 image which has snapshots");
  if (header_.l1_entries_for(bytes) > kMaxL1Bytes / 8)
    co_return fail("The new size is too large for this image's cluster size");
  const ExclusiveAccess access = co_await ExclusiveAccess::enter(*this);
  const uint64_t old = header_.size;
  if (bytes < old) {
    if (preallocation != Preallocation::kOff) co_return fail("Preallocation can't be used for shrinking an image");
    if (const auto done = co_await shrink(bytes); !done) {
      co_return fail("Failed to shrink the image: {}", errno_text(done.error().code));
    }
    co_return Result<>{};
  }
  if (const auto done = co_await grow(bytes); !done) {
    co_return fail("Failed to grow the image: {}", errno_text(done.error().code));
  }
  if (preallocation == Preallocation::kOff || bytes == old) co_return Result<>{};
  co_return co_await preallocate(align_up(old, header_.cluster_bytes()), bytes, preallocation);
}

Task<IoResult<>> Qcow2Node::grow(uint64_t bytes) {
  const uint64_t old = header_.size;
  // What an earlier, larger disk or the backing file has behind the old end must not come back.
  const uint64_t cluster_end = std::min(align_up(old, header_.cluster_bytes()), bytes);
  const uint64_t backing_end = backing_ ? std::min(backing_->length(), bytes) : 0;
  const uint64_t entries = header_.l1_entries_for(bytes);
  // A machine's state that no snapshot took would become the new disk's content.
  if (entries > header_.l1_entries_for(old)) KITE_CO_TRY(co_await discard_clusters(vm_state_offset(), l1_end(), true));
  if (entries > l1_.size()) {
    KITE_CO_TRY(co_await write_back(true));
    std::vector<uint64_t> l1 = l1_;
    l1.resize(entries);
    KITE_CO_TRY(co_await switch_l1(std::move(l1), old));
  }
  header_.size = bytes;
  IoResult<> done;
  if (old < cluster_end) done = co_await zero_part(old, cluster_end - old, {});
  if (done && cluster_end < backing_end && header_.version >= 3) {
    done = co_await zero_clusters(cluster_end, align_up(backing_end, header_.cluster_bytes()), true);
  } else {
    const uint64_t cluster = header_.cluster_bytes();
    for (uint64_t at = cluster_end; done && at < backing_end; at += cluster)
      done = co_await zero_part(at, std::min(cluster, backing_end - at), {});
  }
  if (done) done = co_await write_back(true);
  if (done) done = co_await write_size(bytes);
  if (!done) header_.size = old;
  co_return done;
}

Task<IoResult<>> Qcow2Node::write_size(uint64_t bytes) {
  uint8_t field[8];
  store_be64(field, bytes);
  KITE_CO_TRY(co_await write_pointers(24, field, sizeof field));
  header_.size = bytes;
  co_return IoResult<>{};
}

Task<IoResult<>> Qcow2Node::shrink(uint64_t bytes) {
  const uint64_t cluster = header_.cluster_bytes();
  KITE_CO_TRY(co_await discard_clusters(align_up(bytes, cluster), l1_end(), true));
  {
    const CoMutex::Lock lock = co_await meta_.lock();
    for (size_t slot = header_.l1_entries_for(bytes); slot < l1_.size(); ++slot) {
      const uint64_t table_at = l1_[slot] & kOffsetMask;
      if (table_at == 0) continue;
      l1_[slot] = 0;
      mark_l1(slot);
      free_cluster(table_at >> header_.cluster_bits, pass_discard_other_);
    }
  }
  KITE_CO_TRY(co_await write_back(true));
  KITE_CO_TRY(co_await write_size(bytes));
  KITE_CO_TRY(co_await write_back(true));
  co_return co_await trim_file();
}

// Gives back the end of the file that no cluster uses any more.
Task<IoResult<>> Qcow2Node::trim_file() {
  const CoMutex::Lock lock = co_await meta_.lock();
  uint64_t clusters = (file_->length() + header_.cluster_bytes() - 1) >> header_.cluster_bits;
  for (; clusters != 0; --clusters) {
    KITE_CO_ASSIGN(const uint64_t users, co_await refcount(clusters - 1));
    if (users != 0) break;
  }
  const uint64_t wanted = clusters << header_.cluster_bits;
  if (!file_->growable() || wanted >= file_->length()) co_return IoResult<>{};
  free_from_ = std::min(free_from_, clusters);
  const Result<> cut = co_await file_->truncate(wanted);
  co_return cut ? IoResult<>{} : io_fail(EIO);
}

// Clusters for all of [from, to), which has none; what they hold reads as zeroes.
Task<Result<>> Qcow2Node::preallocate(uint64_t from, uint64_t to, Preallocation mode) {
  constexpr uint64_t kPiece = uint64_t{1} << 30;
  const uint64_t cluster = header_.cluster_bytes();
  uint64_t host_end = 0;
  IoResult<> done;
  for (uint64_t at = from; at < to && done;) {
    const uint64_t end = std::min(at + std::max(kPiece, cluster), align_up(to, cluster));
    done = co_await prepare_change();
    const CoMutex::Lock lock = co_await meta_.lock();
    if (done) {
      const auto place = co_await allocate((end - at) / cluster);
      if (!place) {
        done = std::unexpected(place.error());
        break;
      }
      if (!place->fresh) done = co_await file_->write_zeroes(place->host, end - at);
      if (done) done = co_await link(at, end, *place);
      host_end = std::max(host_end, place->host + (end - at));
    }
    at = end;
  }
  if (!done) co_return fail("Could not preallocate metadata: {}", errno_text(done.error().code));
  if (file_->growable() && host_end > file_->length()) {
    const Preallocation below = mode == Preallocation::kMetadata ? Preallocation::kOff : mode;
    KITE_CO_TRY(co_await file_->truncate(host_end, below));
  }
  if (done = co_await write_back(true); !done)
    co_return fail("Could not preallocate metadata: {}", errno_text(done.error().code));
  co_return Result<>{};
}

Task<Result<>> Qcow2Node::make_empty() {
  const ExclusiveAccess access = co_await ExclusiveAccess::enter(*this);
  IoResult<> done = co_await discard_clusters(0, align_up(header_.size, header_.cluster_bytes()), true);
  if (done) done = co_await write_back(true);
  if (!done) co_return fail("Could not empty '{}': {}", filename(), errno_text(done.error().code));
  co_return Result<>{};
}

}  // namespace kite::block::qcow2
