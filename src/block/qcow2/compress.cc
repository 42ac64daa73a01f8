// Compressed clusters: raw deflate with a window of 4 KiB, or zstd ([qcow2] "compression_type").
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "block/qcow2/access.h"
#include "block/worker_pool.h"
#include "support/bits.h"

namespace kite::block::qcow2 {
namespace {

constexpr int kWindowBits = -12;
constexpr int kMemoryLevel = 9;

std::vector<uint8_t> deflate_cluster(const uint8_t* from, size_t bytes) {
  std::vector<uint8_t> out(bytes - 1);
  z_stream stream{};
  if (::deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kWindowBits, kMemoryLevel, Z_DEFAULT_STRATEGY) != Z_OK)
    return {};
  std::memcpy(&stream.next_in, &from, sizeof from);  // zlib's interface is not const
  stream.avail_in = static_cast<uInt>(bytes);
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  const bool ended = ::deflate(&stream, Z_FINISH) == Z_STREAM_END;
  out.resize(ended ? stream.total_out : 0);
  ::deflateEnd(&stream);
  return out;
}

std::vector<uint8_t> zstd_cluster(const uint8_t* from, size_t bytes) {
  std::vector<uint8_t> out(bytes - 1);
  const size_t done = ::ZSTD_compress(out.data(), out.size(), from, bytes, ZSTD_CLEVEL_DEFAULT);
  out.resize(ZSTD_isError(done) != 0 ? 0 : done);
  return out;
}

// Fills all of `to`; the input may go on behind the data's end (it is counted in sectors).
bool inflate_cluster(std::span<const uint8_t> from, std::span<uint8_t> to) {
  z_stream stream{};
  if (::inflateInit2(&stream, kWindowBits) != Z_OK) return false;
  const uint8_t* data = from.data();
  std::memcpy(&stream.next_in, &data, sizeof data);
  stream.avail_in = static_cast<uInt>(from.size());
  stream.next_out = to.data();
  stream.avail_out = static_cast<uInt>(to.size());
  const int result = ::inflate(&stream, Z_FINISH);
  const bool whole = (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0;
  ::inflateEnd(&stream);
  return whole;
}

bool unzstd_cluster(std::span<const uint8_t> from, std::span<uint8_t> to) {
  ZSTD_DStream* stream = ::ZSTD_createDStream();
  if (stream == nullptr) return false;
  ZSTD_inBuffer in{from.data(), from.size(), 0};
  ZSTD_outBuffer out{to.data(), to.size(), 0};
  bool good = true;
  while (good && out.pos < out.size) {
    const size_t before_in = in.pos;
    const size_t before_out = out.pos;
    good =
        ZSTD_isError(::ZSTD_decompressStream(stream, &out, &in)) == 0 && (in.pos != before_in || out.pos != before_out);
  }
  ::ZSTD_freeDStream(stream);
  return good;
}

}  // namespace

Task<IoResult<>> Qcow2Node::read_compressed(uint64_t entry, uint64_t within, IoSlice to) {
  uint64_t host = 0;
  uint64_t bytes = 0;
  parse_compressed(entry, host, bytes);
  // A compressed cluster never is larger than a cluster; the descriptor could say up to 2^9 times as much.
  if (bytes > header_.cluster_bytes() + 512) {
    mark_corrupt(fmt::format("a compressed cluster of {} bytes at {:#x}", bytes, host));
    co_return io_fail(EIO);
  }
  if (!debug_event("read_compressed")) co_return io_fail(EIO);
  std::vector<uint8_t> packed(bytes);
  std::vector<uint8_t> cluster(header_.cluster_bytes());
  KITE_CO_TRY(co_await file_->read(host, IoSlice(packed.data(), packed.size())));
  bool good = false;
  const Compression type = header_.compression;
  co_await run_in_worker(executor(), [&packed, &cluster, &good, type] {
    good = type == Compression::kZlib ? inflate_cluster(packed, cluster) : unzstd_cluster(packed, cluster);
  });
  if (!good) co_return io_fail(EIO);
  to.copy_from(cluster.data() + within);
  co_return IoResult<>{};
}

Task<std::vector<uint8_t>> Qcow2Node::compress(const uint8_t* cluster) {
  std::vector<uint8_t> packed;
  const Compression type = header_.compression;
  const size_t bytes = header_.cluster_bytes();
  co_await run_in_worker(executor(), [&packed, cluster, bytes, type] {
    packed = type == Compression::kZlib ? deflate_cluster(cluster, bytes) : zstd_cluster(cluster, bytes);
  });
  co_return packed;
}

// Whole clusters, each on its own; what does not get smaller is stored as it is.
Task<IoResult<>> Qcow2Node::write_compressed(uint64_t offset, IoSlice from, IoHow how) {
  const uint64_t cluster = header_.cluster_bytes();
  if (!is_aligned(offset, cluster)) co_return io_fail(EINVAL);
  const bool to_end = offset + from.bytes() == header_.size;
  if (!is_aligned(from.bytes(), cluster) && !to_end) co_return io_fail(EINVAL);
  const IoHow plain = how.without(IoHow::kCompressed | IoHow::kFua);
  while (!from.empty()) {
    const uint64_t here = std::min(from.bytes(), cluster);
    std::vector<uint8_t> content(cluster);
    from.slice(0, here).copy_to(content.data());
    const std::vector<uint8_t> packed = co_await compress(content.data());
    if (packed.empty()) {
      KITE_CO_TRY(co_await write_extents(offset, from.slice(0, here), plain));
    } else {
      KITE_CO_TRY(co_await store_compressed(offset, packed));
    }
    offset += here;
    from = from.from(here);
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Qcow2Node::store_compressed(uint64_t offset, const std::vector<uint8_t>& packed) {
  const ChangeGuard change = co_await ChangeGuard::enter(*this, offset, offset + header_.cluster_bytes());
  KITE_CO_TRY(co_await prepare_change());
  uint64_t host = 0;
  {
    const CoMutex::Lock lock = co_await meta_.lock();
    KITE_CO_TRY(co_await apply_freed());
    KITE_CO_ASSIGN(host, co_await allocate_bytes(packed.size()));
  }
  const unsigned x = 62 - (header_.cluster_bits - 8);
  const uint64_t sectors = ((host + packed.size() - 1) >> 9) - (host >> 9);
  const uint64_t entry = kCompressed | sectors << x | host;
  IoResult<> done = io_fail(EIO);
  if (debug_event("write_compressed")) {
    done = co_await file_->write(host, IoSlice::of_const(packed.data(), packed.size()));
  }
  const CoMutex::Lock lock = co_await meta_.lock();
  if (done) {
    const auto table = co_await l2_for_write(offset);
    if (table) {
      const uint64_t index = l2_index(offset);
      if (const uint64_t old = l2_entry(**table, index); old != 0) free_entry(old);
      set_l2_entry(**table, index, entry, 0);
      co_return IoResult<>{};
    }
    done = std::unexpected(table.error());
  }
  free_entry(entry);
  co_return done;
}

}  // namespace kite::block::qcow2
