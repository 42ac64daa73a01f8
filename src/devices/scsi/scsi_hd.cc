#include "devices/scsi/scsi_hd.h"

#include <algorithm>
#include <bit>

#include "support/bytes.h"

namespace kite::devices {
namespace {

using block::IoHow;
using block::IoResult;

constexpr uint8_t kProtect = 0xe0, kFua = 0x08;  // of byte 1 of CDBs that read or write
constexpr uint64_t kChunkBytes = 256 << 10;      // of work that needs a buffer of our own
constexpr uint16_t kMostUnmapDescriptors = 255;

}  // namespace

ScsiHd::ScsiHd(std::string path, ScsiUnitConfig config) : ScsiDevice(std::move(path), std::move(config)) {
  const DiskConfig& disk = config_.disk;
  constexpr uint32_t kUsualGranularity = 4096;
  discard_bytes_ = disk.discard_granularity < 0 ? std::max(disk.logical_block_bytes, kUsualGranularity)
                                                : static_cast<uint32_t>(disk.discard_granularity);
  geometry_ = disk.geometry;
}

DiskGeometry ScsiHd::geometry() const {
  if (geometry_.cylinders != 0) return geometry_;
  return guess_geometry(blocks() * block_bytes(), {});
}

ScsiTransfer ScsiHd::special_transfer(const Cdb& cdb) const {
  constexpr uint8_t kNoData = 0x01;
  uint64_t count = 0;
  switch (cdb[0]) {
    case scsi_op::kWriteSame10:
    case scsi_op::kWriteSame16: count = (cdb[1] & kNoData) != 0 ? 0 : 1; break;
    case scsi_op::kVerify10:
    case scsi_op::kVerify12:
    case scsi_op::kVerify16: {
      // [SBC-3] 5.31: BYTCHK 01b: data for every block, 11b: for one.
      const uint64_t blocks = range_of(cdb.data()).blocks;
      const unsigned byte_check = cdb[1] >> 1 & 3;
      count = byte_check == 1 ? blocks : byte_check == 3 ? std::min<uint64_t>(blocks, 1) : 0;
      break;
    }
    default: break;
  }
  return {.direction = count == 0 ? ScsiDirection::kNone : ScsiDirection::kFromGuest, .bytes = count * block_bytes()};
}

// Capacity.

ScsiReply ScsiHd::read_capacity_10(const ScsiJob& job) {
  std::array<uint8_t, 8> data;
  const uint64_t count = blocks();
  if (count == 0) return refuse(sense::kOutOfRange);
  store_be32(&data[0], static_cast<uint32_t>(std::min<uint64_t>(count - 1, UINT32_MAX)));
  store_be32(&data[4], block_bytes());
  return answer(job, data);
}

// [SBC-3] 5.16.
ScsiReply ScsiHd::read_capacity_16(const ScsiJob& job) {
  constexpr uint8_t kThin = 0x80;  // LBPME; unmapped blocks read as anything
  std::array<uint8_t, 32> data{};
  const uint64_t count = blocks();
  if (count == 0) return refuse(sense::kOutOfRange);
  store_be64(&data[0], count - 1);
  store_be32(&data[8], block_bytes());
  data[13] = static_cast<uint8_t>(std::countr_zero(config_.disk.physical_block_bytes / block_bytes()) & 0xf);
  data[14] = thin() ? kThin : 0;
  return answer(job, data);
}

// [MMC-6] 6.23, for removable disks.
ScsiReply ScsiHd::read_format_capacities(const ScsiJob& job) {
  constexpr uint32_t kFormatted = 0x02000000;
  std::array<uint8_t, 12> data{0, 0, 0, 8};
  store_be32(&data[4], static_cast<uint32_t>(std::min<uint64_t>(blocks(), UINT32_MAX)));
  store_be32(&data[8], kFormatted | block_bytes());
  return answer(job, data);
}

// [SBC-3] 5.17, 5.18: both lists are empty.
ScsiReply ScsiHd::read_defects(const ScsiJob& job) {
  const bool ten = job.cdb()[0] == scsi_op::kReadDefectData10;
  std::array<uint8_t, 8> data{};
  data[1] = job.cdb()[ten ? 2 : 1] & 0x1f;
  return answer(job, std::span(data).first(ten ? 4 : 8));
}

// [SBC-3] 5.7: a success that says that it was not all done.
ScsiReply ScsiHd::prefetch(const ScsiJob& job) {
  return inside(range_of(job.cdb())) ? ScsiReply{} : refuse(sense::kOutOfRange);
}

// Writing.

ScsiSense ScsiHd::judge_write(const ScsiJob& job, const Range& range, uint64_t data_bytes) const {
  const bool six = job.cdb()[0] == scsi_op::kWrite6;
  if (!six && (job.cdb()[1] & kProtect) != 0) return sense::kInvalidField;
  if (!inside(range)) return sense::kOutOfRange;
  if (data_bytes > config_.max_io_bytes) return sense::kInvalidField;
  if (data_bytes > job.command.data_out.bytes()) return sense::kTargetFailure;
  return sense::kNone;
}

Task<ScsiReply> ScsiHd::write(const ScsiJob& job) {
  const Range range = range_of(job.cdb());
  const uint64_t bytes = range.blocks * block_bytes();
  if (const ScsiSense why = judge_write(job, range, bytes); why != sense::kNone) co_return refuse(why);
  if (bytes == 0) co_return ScsiReply{};
  const bool fua = job.cdb()[0] != scsi_op::kWrite6 && (job.cdb()[1] & kFua) != 0;
  const IoHow how{.flags = fua ? IoHow::kFua : 0u};
  const auto done = co_await drive_write(job, range.first * block_bytes(), job.command.data_out.slice(0, bytes), how);
  if (!done) co_return failed(done.error(), true);
  co_return ScsiReply{.moved = bytes};
}

// [SBC-3] 5.44: what is verified is what the medium holds, not the cache.
Task<ScsiReply> ScsiHd::write_verify(const ScsiJob& job) {
  const Range range = range_of(job.cdb());
  const uint64_t bytes = range.blocks * block_bytes();
  const unsigned byte_check = job.cdb()[1] >> 1 & 3;
  if (byte_check > 1) co_return refuse(sense::kInvalidField);
  if (const ScsiSense why = judge_write(job, range, bytes); why != sense::kNone) co_return refuse(why);
  if (bytes == 0) co_return ScsiReply{};
  const IoHow how{.flags = IoHow::kFua};
  const auto done = co_await drive_write(job, range.first * block_bytes(), job.command.data_out.slice(0, bytes), how);
  if (!done) co_return failed(done.error(), true);
  ScsiReply reply = co_await check_medium(job, range, byte_check == 1 ? Compare::kAll : Compare::kNothing);
  if (reply.status == ScsiStatus::kGood) reply.moved = bytes;
  co_return reply;
}

// [SBC-3] 5.31.
Task<ScsiReply> ScsiHd::verify(const ScsiJob& job) {
  const Range range = range_of(job.cdb());
  const unsigned byte_check = job.cdb()[1] >> 1 & 3;
  if ((job.cdb()[1] & kProtect) != 0 || byte_check == 2) co_return refuse(sense::kInvalidField);
  if (!inside(range)) co_return refuse(sense::kOutOfRange);
  const uint64_t bytes = transfer_of(job.command.cdb).bytes;
  if (bytes > job.command.data_out.bytes()) co_return refuse(sense::kTargetFailure);
  constexpr Compare kCompare[] = {Compare::kNothing, Compare::kAll, Compare::kNothing, Compare::kRepeat};
  ScsiReply reply = co_await check_medium(job, range, kCompare[byte_check]);
  if (reply.status == ScsiStatus::kGood) reply.moved = bytes;
  co_return reply;
}

Task<ScsiReply> ScsiHd::check_medium(const ScsiJob& job, Range range, Compare compare) {
  const uint64_t block = block_bytes();
  const uint64_t most = std::max<uint64_t>(kChunkBytes / block, 1);
  std::vector<uint8_t> medium(std::min(range.blocks, most) * block), data(compare == Compare::kNothing ? 0 : block);
  for (uint64_t done = 0; done < range.blocks;) {
    const uint64_t count = std::min(range.blocks - done, most);
    const auto read = co_await drive_read(job, (range.first + done) * block, {medium.data(), count * block});
    if (!read) co_return failed(read.error(), false);
    if (job.aborted) co_return refuse(sense::kAborted);
    for (uint64_t i = 0; i < count && compare != Compare::kNothing; ++i) {
      job.command.data_out.slice(compare == Compare::kAll ? (done + i) * block : 0, block).copy_to(data.data());
      if (!std::equal(data.begin(), data.end(), medium.begin() + static_cast<ptrdiff_t>(i * block)))
        co_return refuse(sense::kMiscompare);
    }
    done += count;
  }
  co_return ScsiReply{};
}

Task<IoResult<>> ScsiHd::fill(const ScsiJob& job, Range range, std::span<const uint8_t> block) {
  const uint64_t most = std::max<uint64_t>(kChunkBytes / block.size(), 1);
  std::vector<uint8_t> pattern;
  for (uint64_t i = 0; i < std::min(range.blocks, most); ++i) pattern.insert(pattern.end(), block.begin(), block.end());
  for (uint64_t done = 0; done < range.blocks;) {
    const uint64_t count = std::min(range.blocks - done, most);
    const uint64_t offset = (range.first + done) * block.size();
    if (job.aborted) co_return block::io_fail(ECANCELED);
    KITE_CO_TRY(co_await drive_write(job, offset, block::IoSlice::of_const(pattern.data(), count * block.size()), {}));
    done += count;
  }
  co_return IoResult<>{};
}

// [SBC-3] 5.46, 5.48; [SBC-4] 5.49: NDOB, zeroes without data. UNMAP may free what reads as zeroes anyway.
Task<ScsiReply> ScsiHd::write_same(const ScsiJob& job) {
  constexpr uint8_t kAnchor = 0x10, kUnmap = 0x08;
  Range range = range_of(job.cdb());
  const uint64_t bytes = transfer_of(job.command.cdb).bytes;
  if (const ScsiSense why = judge_write(job, range, bytes); why != sense::kNone) co_return refuse(why);
  if ((job.cdb()[1] & kAnchor) != 0) co_return refuse(sense::kInvalidField);
  if (range.blocks == 0) range.blocks = blocks() - range.first;  // [SBC-3] 6.6.4: WSNZ is 0
  std::vector<uint8_t> block(bytes);
  if (bytes != 0) job.command.data_out.slice(0, bytes).copy_to(block.data());
  if (range.blocks == 0) co_return ScsiReply{.moved = bytes};
  IoResult<> done;
  if (block::is_zero(block.data(), block.size())) {
    const IoHow how{.flags = (job.cdb()[1] & kUnmap) != 0 ? IoHow::kMayUnmap : 0u};
    done = co_await drive_zero(job, range.first * block_bytes(), range.blocks * block_bytes(), how);
  } else {
    done = co_await fill(job, range, block);
  }
  if (!done) co_return failed(done.error(), true);
  co_return ScsiReply{.moved = bytes};
}

// [SBC-3] 5.28: all descriptors are judged before the first block goes.
Task<ScsiReply> ScsiHd::unmap(const ScsiJob& job) {
  constexpr uint8_t kAnchor = 0x01;
  constexpr size_t kHeader = 8, kDescriptor = 16;
  if (!thin()) co_return refuse(sense::kInvalidOpcode);
  if ((job.cdb()[1] & kAnchor) != 0) co_return refuse(sense::kInvalidField);
  const std::optional<std::vector<uint8_t>> list = parameters(job);
  if (!list) co_return refuse(sense::kTargetFailure);
  if (list->empty()) co_return ScsiReply{};
  if (list->size() < kHeader) co_return refuse(sense::kParameterListLength);
  const size_t all = size_t{load_be16(list->data())} + 2, descriptors = load_be16(&(*list)[2]);
  if (all > list->size() || descriptors + kHeader > list->size() || descriptors % kDescriptor != 0)
    co_return refuse(sense::kParameterListLength);
  if (descriptors / kDescriptor > kMostUnmapDescriptors) co_return refuse(sense::kInvalidParameter);
  std::vector<Range> ranges;
  uint64_t sum = 0;
  for (size_t at = kHeader; at < kHeader + descriptors; at += kDescriptor) {
    const Range range{.first = load_be64(&(*list)[at]), .blocks = load_be32(&(*list)[at + 8])};
    if (!inside(range)) co_return refuse(sense::kOutOfRange);
    sum += range.blocks;
    if (range.blocks != 0) ranges.push_back(range);
  }
  if (sum > config_.max_unmap_bytes / block_bytes()) co_return refuse(sense::kInvalidParameter);
  for (const Range& range : ranges) {
    const auto done = co_await drive_discard(job, range.first * block_bytes(), range.blocks * block_bytes());
    if (!done) co_return failed(done.error(), true);
    if (job.aborted) co_return refuse(sense::kAborted);
  }
  co_return ScsiReply{.moved = list->size()};
}

}  // namespace kite::devices
