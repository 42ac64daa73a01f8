// Dirty bitmaps that the image keeps: loaded when it is opened, marked as in use while it is open for writing, stored
// when it is closed. What a crash leaves is marked, so that nobody takes it for what has changed.
#include <algorithm>
#include <bit>
#include <cerrno>

#include "block/qcow2/qcow2_node.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::block::qcow2 {
namespace {

constexpr uint32_t kBitmapsType = static_cast<uint32_t>(Extension::kBitmaps);
// Takes the place of the extension in an image that keeps no bitmap any more: nothing behind it has to move.
constexpr uint32_t kUnusedType = 0x4b697465;
constexpr size_t kExtensionHead = 8;
constexpr size_t kExtensionData = 24;

bool is_ours(const UnknownExtension& extension) {
  return extension.data.size() == kExtensionData && (extension.type == kBitmapsType || extension.type == kUnusedType);
}

uint64_t clusters_for(uint64_t disk_bytes, uint64_t granularity, uint64_t cluster_bytes) {
  constexpr uint64_t kBits = 8;
  const uint64_t bits = (disk_bytes + granularity - 1) / granularity;
  return ((bits + kBits - 1) / kBits + cluster_bytes - 1) / cluster_bytes;
}

// Where the header in `raw` has an extension of ours (0: nowhere), and where its extensions end.
struct ExtensionPlaces {
  size_t ours = 0, end = 0;
};
ExtensionPlaces find_extensions(std::span<const uint8_t> raw, uint64_t limit) {
  ExtensionPlaces places{.end = load_be32(raw.data() + 100)};
  while (places.end + kExtensionHead <= limit && places.end + kExtensionHead <= raw.size()) {
    const uint32_t type = load_be32(raw.data() + places.end);
    const uint32_t length = load_be32(raw.data() + places.end + 4);
    if (type == static_cast<uint32_t>(Extension::kEnd)) break;
    if ((type == kBitmapsType || type == kUnusedType) && length == kExtensionData) places.ours = places.end;
    places.end += kExtensionHead + align_up(length, 8);
  }
  return places;
}

}  // namespace

// --- loading

const UnknownExtension* Qcow2Node::bitmap_extension() const {
  const auto at = std::ranges::find(header_.unknown, kBitmapsType, &UnknownExtension::type);
  return at == header_.unknown.end() ? nullptr : &*at;
}

Task<Result<>> Qcow2Node::read_bitmap_directory() {
  stored_bitmaps_.clear();
  bitmap_directory_ = {};
  const UnknownExtension* const extension = bitmap_extension();
  if (extension == nullptr) co_return fail("there is no header extension for them");
  KITE_CO_ASSIGN(const BitmapDirectory directory, parse_bitmap_extension(extension->data, header_.cluster_bytes()));
  if (directory.offset + directory.bytes > file_->length()) co_return fail("the directory lies outside of the file");
  std::vector<uint8_t> raw(directory.bytes);
  if (const auto done = co_await file_->read(directory.offset, IoSlice(raw.data(), raw.size())); !done)
    co_return fail("{}", errno_text(done.error().code));
  KITE_CO_ASSIGN(stored_bitmaps_, parse_bitmaps(raw, directory.count, header_.cluster_bytes()));
  bitmap_directory_ = directory;
  co_return Result<>{};
}

Task<Result<DirtyChunks>> Qcow2Node::load_bits(StoredBitmap stored) {
  const uint64_t granularity = uint64_t{1} << stored.granularity_bits;
  const uint64_t cluster = header_.cluster_bytes();
  if (stored.table_entries != clusters_for(header_.size, granularity, cluster))
    co_return fail("its table has {} entries, too few or too many for the disk", stored.table_entries);
  DirtyChunks chunks(header_.size, granularity);
  const auto table = co_await read_l1(stored.table_offset, stored.table_entries);
  if (!table) co_return fail("{}", errno_text(table.error().code));
  std::vector<uint8_t> bits(cluster);
  const uint64_t span = cluster * 8 * granularity;  // what a cluster of bits is about
  for (size_t i = 0; i < table->size(); ++i) {
    const uint64_t entry = (*table)[i];
    const uint64_t host = entry & kOffsetMask;
    const bool ones = (entry & kBitmapAllOnes) != 0;
    if ((entry & kBitmapTableReserved) != 0 || !is_aligned(host, cluster) || (host != 0 && ones) ||
        host >= file_->length())
      co_return fail("its table has the entry {:#x}", entry);
    if (host == 0) {
      if (ones) chunks.mark(i * span, std::min(span, header_.size - i * span));
      continue;
    }
    if (const auto done = co_await file_->read(host, IoSlice(bits.data(), bits.size())); !done)
      co_return fail("{}", errno_text(done.error().code));
    for (size_t bit = 0; bit < cluster * 8; ++bit) {
      if (bits[bit / 8] == 0) {
        bit |= 7;
      } else if ((bits[bit / 8] >> bit % 8 & 1) != 0) {
        chunks.mark(i * span + bit * granularity, granularity);
      }
    }
  }
  co_return chunks;
}

Task<Result<>> Qcow2Node::load_bitmaps() {
  // Of an image that another process had, those of clients of ours stay.
  const std::vector<BitmapPtr> before = bitmaps().all();
  for (const BitmapPtr& bitmap : before)
    if (bitmap->persistent) bitmaps().remove(bitmap);
  stored_bitmaps_.clear();
  bitmap_directory_ = {};
  if ((header_.autoclear & kBitmaps) == 0) co_return Result<>{};
  KITE_CO_TRY(co_await read_bitmap_directory());
  for (const StoredBitmap& stored : stored_bitmaps_) {
    const uint64_t granularity = uint64_t{1} << stored.granularity_bits;
    auto bitmap = std::make_shared<DirtyBitmap>(stored.name, 0, granularity);
    bitmap->persistent = true;
    bitmap->read_only = read_only();
    bitmap->enabled = (stored.flags & kBitmapAuto) != 0;
    bitmap->inconsistent = stored.in_use() || !stored.understood();
    if (!bitmap->inconsistent) {
      Result<> done = bitmaps().may_add(stored.name, header_.size, granularity);
      if (done) {
        auto chunks = co_await load_bits(stored);
        if (chunks) {
          bitmap->set_chunks(std::move(*chunks));
        } else {
          done = Failure(std::move(chunks).error());
        }
      }
      bitmap->inconsistent = !done;
      if (!done) log::warn("'{}': bitmap '{}' cannot be used: {}", filename(), stored.name, done.error().message);
    }
    bitmaps().add(std::move(bitmap));
  }
  co_return Result<>{};
}

// From now on what the file has of them is not to be trusted.
Task<Result<>> Qcow2Node::claim_bitmaps() {
  for (const BitmapPtr& bitmap : bitmaps().all()) bitmap->read_only = false;
  bool any = false;
  for (StoredBitmap& stored : stored_bitmaps_) {
    if (stored.in_use() || !stored.understood()) continue;
    stored.flags |= kBitmapInUse;
    any = true;
  }
  if (!any) co_return Result<>{};
  const std::vector<uint8_t> raw = render_bitmaps(stored_bitmaps_);
  IoResult<> done = co_await file_->write(bitmap_directory_.offset, IoSlice::of_const(raw.data(), raw.size()));
  if (done) done = co_await file_->flush();
  if (!done) co_return fail("Could not mark the bitmaps as in use: {}", errno_text(done.error().code));
  co_return Result<>{};
}

// --- storing

Result<> Qcow2Node::may_keep_bitmap(std::string_view bitmap, uint64_t granularity) const {
  const auto refuse = [bitmap](std::string_view why) {
    return fail("Cannot store dirty bitmap '{}': {}", bitmap, why);
  };
  if (read_only()) return refuse("the image is open for reading only");
  if (header_.version < 3) return refuse("Cannot store dirty bitmaps in qcow2 v2 files");
  constexpr uint64_t kBits = 8;
  if (header_.size / granularity / kBits > kMaxBitmapBytes)
    return refuse("it would be too large; a coarser granularity makes it smaller");
  if (bitmap_extension() != nullptr && !is_ours(*bitmap_extension()))
    return refuse("the image's header has an extension for bitmaps that makes no sense");
  if (std::ranges::any_of(header_.unknown, is_ours)) return {};
  // The backing file's name moves to make room, and is there twice meanwhile.
  Header longer = header_;
  longer.unknown.push_back({kBitmapsType, std::vector<uint8_t>(kExtensionData)});
  const auto raw = render_header(longer);
  if (!raw || raw->size() + header_.backing_name.size() > header_.cluster_bytes())
    return refuse("the image's header has no room for it");
  return {};
}

// Its bits and their table, in new clusters, which `made` gets to know.
Task<IoResult<StoredBitmap>> Qcow2Node::store_bits(const DirtyBitmap& bitmap, std::vector<HostRange>& made) {
  constexpr uint64_t kPiece = uint64_t{4} << 20;
  const uint64_t cluster = header_.cluster_bytes();
  const DirtyChunks& chunks = bitmap.chunks();
  StoredBitmap stored{.name = bitmap.name(),
                      .flags = bitmap.enabled ? kBitmapAuto : 0,
                      .granularity_bits = static_cast<uint8_t>(std::countr_zero(bitmap.granularity()))};
  std::vector<uint64_t> table(clusters_for(header_.size, bitmap.granularity(), cluster));
  std::vector<uint8_t> data;
  std::vector<size_t> filled;  // entries of the table whose bits are in `data`
  for (size_t i = 0; i < table.size(); ++i) {
    std::vector<uint8_t> bits(cluster);
    const size_t first = i * cluster * 8;
    for (size_t at = first; at < std::min<size_t>(first + cluster * 8, chunks.chunks()); ++at)
      if (chunks.test(at)) bits[(at - first) / 8] |= static_cast<uint8_t>(1u << at % 8);
    if (!is_zero(bits.data(), bits.size())) {
      filled.push_back(i);
      data.insert(data.end(), bits.begin(), bits.end());
    }
    if (data.empty() || (data.size() < kPiece && i + 1 != table.size())) continue;
    const uint64_t bytes = data.size();
    KITE_CO_ASSIGN(uint64_t host, co_await write_new_table(std::exchange(data, {})));
    made.push_back({.offset = host, .bytes = bytes});
    for (const size_t entry : std::exchange(filled, {})) {
      table[entry] = host;
      host += cluster;
    }
  }
  if (table.empty()) co_return stored;
  std::vector<uint8_t> raw(table.size() * 8);
  for (size_t i = 0; i < table.size(); ++i) store_be64(raw.data() + i * 8, table[i]);
  const uint64_t bytes = raw.size();
  KITE_CO_ASSIGN(stored.table_offset, co_await write_new_table(std::move(raw)));
  made.push_back({.offset = stored.table_offset, .bytes = bytes});
  stored.table_entries = static_cast<uint32_t>(table.size());
  co_return stored;
}

Task<IoResult<>> Qcow2Node::store_all_bitmaps(std::vector<StoredBitmap>& fresh, std::vector<HostRange>& made) {
  KITE_CO_TRY(co_await prepare_change());
  for (const BitmapPtr& bitmap : bitmaps().all()) {
    if (!bitmap->persistent) continue;
    const auto old = std::ranges::find(stored_bitmaps_, bitmap->name(), &StoredBitmap::name);
    if (bitmap->inconsistent) {
      if (old != stored_bitmaps_.end()) fresh.push_back(*old);
      continue;
    }
    KITE_CO_ASSIGN(StoredBitmap stored, co_await store_bits(*bitmap, made));
    if (old != stored_bitmaps_.end() && !old->extra.empty()) {
      stored.extra = old->extra;
      stored.flags |= kBitmapExtraCompatible;
    }
    fresh.push_back(std::move(stored));
  }
  BitmapDirectory directory{.count = static_cast<uint32_t>(fresh.size())};
  if (!fresh.empty()) {
    std::vector<uint8_t> raw = render_bitmaps(fresh);
    directory.bytes = raw.size();
    KITE_CO_ASSIGN(directory.offset, co_await write_new_table(std::move(raw)));
    made.push_back({.offset = directory.offset, .bytes = directory.bytes});
  }
  KITE_CO_TRY(co_await switch_bitmaps(directory));
  free_range(bitmap_directory_.offset, bitmap_directory_.bytes);
  bitmap_directory_ = directory;
  co_return IoResult<>{};
}

Task<Result<>> Qcow2Node::store_bitmaps() {
  bitmaps().resize(length());
  const auto keeps = [](const BitmapPtr& bitmap) { return bitmap->persistent; };
  if (stored_bitmaps_.empty() && std::ranges::none_of(bitmaps().all(), keeps)) co_return Result<>{};
  std::vector<StoredBitmap> fresh;
  std::vector<HostRange> made;
  if (const auto done = co_await store_all_bitmaps(fresh, made); !done) {
    // The header may name them, whatever its writing answered: they are not given back.
    if (!bitmap_switch_unknown_)
      for (const HostRange& range : made) free_range(range.offset, range.bytes);
    co_return fail("Lost persistent bitmaps of '{}', which could not be stored: {}", filename(),
                   errno_text(done.error().code));
  }
  const std::vector<StoredBitmap> old = std::exchange(stored_bitmaps_, fresh);
  for (const StoredBitmap& stored : old) {
    const auto same = [&stored](const StoredBitmap& other) { return other.table_offset == stored.table_offset; };
    if (std::ranges::none_of(fresh, same)) co_await free_bitmap(stored);
  }
  co_return Result<>{};
}

Task<void> Qcow2Node::free_bitmap(StoredBitmap stored) {
  const auto table = co_await read_l1(stored.table_offset, stored.table_entries);
  if (!table) co_return;  // leaks
  for (const uint64_t entry : *table) {
    const uint64_t host = entry & kOffsetMask;
    if (host != 0 && is_aligned(host, header_.cluster_bytes()) && host < file_->length())
      free_cluster(host >> header_.cluster_bits, pass_discard_other_);
  }
  free_range(stored.table_offset, uint64_t{stored.table_entries} * 8);
}

// --- the header

// [qcow2] bytes 88..95
Task<IoResult<>> Qcow2Node::write_autoclear(uint64_t bits) {
  KITE_CO_TRY(co_await write_header_field(88, bits));
  header_.autoclear = bits;
  co_return IoResult<>{};
}

// The header names another directory, or none. While its parts change, the image says that it keeps no bitmaps; what a
// crash then leaves are leaks.
Task<IoResult<>> Qcow2Node::switch_bitmaps(BitmapDirectory directory) {
  KITE_CO_TRY(co_await write_autoclear(header_.autoclear & ~kBitmaps));
  bitmap_switch_unknown_ = true;
  std::vector<uint8_t> raw(std::min(header_.cluster_bytes(), file_->length()));
  KITE_CO_TRY(co_await file_->read(0, IoSlice(raw.data(), raw.size())));
  const uint64_t limit = header_.backing_offset != 0 ? header_.backing_offset : header_.cluster_bytes();
  const ExtensionPlaces places = find_extensions(raw, limit);
  const bool none = directory.count == 0;
  size_t at = places.ours;
  if (at == 0 && !none) {
    KITE_CO_TRY(co_await make_room(places.end));
    at = places.end;
  }
  std::vector<uint8_t> data = render_bitmap_extension(directory);
  if (at != 0) {
    // What says that it is there comes last, in one sector.
    KITE_CO_TRY(co_await file_->write(at + kExtensionHead, IoSlice::of_const(data.data(), data.size())));
    KITE_CO_TRY(co_await file_->flush());
    uint8_t head[kExtensionHead];
    store_be32(head, none ? kUnusedType : kBitmapsType);
    store_be32(head + 4, kExtensionData);
    KITE_CO_TRY(co_await file_->write(at, IoSlice(head, sizeof head)));
    KITE_CO_TRY(co_await file_->flush());
    std::erase_if(header_.unknown, is_ours);
    header_.unknown.push_back({none ? kUnusedType : kBitmapsType, std::move(data)});
  }
  if (!none) KITE_CO_TRY(co_await write_autoclear(header_.autoclear | kBitmaps));
  bitmap_switch_unknown_ = false;
  co_return IoResult<>{};
}

// Room for one more extension, and the end of all behind it, where they end now. A backing file's name that lies there
// moves first: it is written once more, and then the header's first sector names its new place.
Task<IoResult<>> Qcow2Node::make_room(size_t end) {
  const uint64_t needed = end + kExtensionHead + kExtensionData + kExtensionHead;
  const std::string& name = header_.backing_name;
  if (header_.backing_offset != 0 && header_.backing_offset < needed) {
    const uint64_t place = std::max(needed, header_.backing_offset + name.size());
    if (place + name.size() > header_.cluster_bytes()) co_return io_fail(EFBIG);
    KITE_CO_TRY(co_await file_->write(place, IoSlice::of_const(name.data(), name.size())));
    KITE_CO_TRY(co_await file_->flush());
    KITE_CO_TRY(co_await write_header_field(8, place));
    header_.backing_offset = place;
  }
  if (needed > header_.cluster_bytes()) co_return io_fail(EFBIG);
  const uint8_t none[kExtensionHead] = {};
  co_return co_await file_->write(needed - kExtensionHead, IoSlice::of_const(none, sizeof none));
}

}  // namespace kite::block::qcow2
