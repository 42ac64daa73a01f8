#include "devices/virtio/virtio_blk.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "devices/section.h"
#include "devices/virtio/virtio_blk_regs.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace virtio_blk;

namespace {

constexpr uint16_t kFieldWriteCache = 1;

VirtioDevice::Shape shape_of(std::string name, const VirtioBlk::Config& config) {
  uint64_t features = kSegMax | kGeometry | kBlockSize | kTopology;
  const block::Drive& drive = *config.disk.drive;
  if (drive.read_only()) features |= kReadOnly;
  if (drive.write_cache() || config.config_wce) features |= kFlush;
  if (config.config_wce) features |= kConfigWce;
  if (config.queues > 1) features |= kMultiQueue;
  if (config.discard && config.disk.discard_granularity != 0) features |= kDiscard;
  if (config.write_zeroes) features |= kWriteZeroes;
  return {.type = kType,
          .name = std::move(name),
          .queues = config.queues,
          .queue_size = config.queue_size,
          .config_bytes = kConfigBytes,
          .features = features};
}

}  // namespace

VirtioBlk::VirtioBlk(std::string name, Config config, GuestMemory& memory, const Options& options)
    : VirtioDevice(config.disk.drive->executor(), memory, shape_of(std::move(name), config), options),
      config_(std::move(config)),
      drive_(*config_.disk.drive),
      write_cache_(drive_.write_cache()) {
  drive_.set_resize_hook([this] { config_changed(); });
}

VirtioBlk::~VirtioBlk() {
  drive_.set_resize_hook({});
  retire();
  drive_.cancel();
  requests_.wait_idle();
}

// --- configuration

void VirtioBlk::read_config(std::span<uint8_t> config) {
  const DiskConfig& disk = config_.disk;
  const uint32_t block = disk.logical_block_bytes;
  const auto put = [&config](unsigned at, auto value) { store(&config[at], value); };
  put(kCapacity, drive_.length() / kSector);
  put(kSegMaxAt, config_.segments != 0 ? config_.segments : std::max<uint32_t>(config_.queue_size, 3) - 2);
  const DiskGeometry geometry = disk.geometry.cylinders != 0 ? disk.geometry : guess_geometry(drive_.length(), {});
  put(kCylinders, static_cast<uint16_t>(std::min<uint32_t>(geometry.cylinders, 0xffff)));
  put(kHeads, static_cast<uint8_t>(geometry.heads));
  put(kSectors, static_cast<uint8_t>(geometry.sectors));
  put(kBlkSize, block);
  put(kPhysicalExponent, static_cast<uint8_t>(std::countr_zero(disk.physical_block_bytes / block)));
  put(kMinIo, static_cast<uint16_t>(std::min<uint32_t>(disk.min_io_bytes / block, 0xffff)));
  put(kOptIo, disk.opt_io_bytes / block);
  put(kWriteback, static_cast<uint8_t>(drive_.write_cache() ? 1 : 0));
  put(kNumQueues, config_.queues);
  if (config_.discard && disk.discard_granularity != 0) {
    const int64_t granularity = disk.discard_granularity > 0 && config_.report_discard_granularity
                                    ? disk.discard_granularity
                                    : static_cast<int64_t>(block);
    put(kMaxDiscardSectors, config_.max_discard_sectors);
    put(kMaxDiscardSegments, kMostSegments);
    put(kDiscardAlignment, static_cast<uint32_t>(granularity / static_cast<int64_t>(kSector)));
  }
  if (config_.write_zeroes) {
    put(kMaxWriteZeroesSectors, config_.max_write_zeroes_sectors);
    put(kMaxWriteZeroesSegments, kMostSegments);
    put(kWriteZeroesMayUnmap, uint8_t{1});
  }
}

void VirtioBlk::config_written(uint32_t offset, std::span<const uint8_t> bytes) {
  // 5.2.5.2: the one field that a driver may write.
  if (offset == kWriteback && bytes.size() == 1 && agreed(kConfigWce)) drive_.set_write_cache(bytes[0] != 0);
}

void VirtioBlk::driver_ready() {
  // 5.2.5.2, 5.2.6.2: a driver that knows neither the cache nor how to flush it has none.
  if (!agreed(kConfigWce)) drive_.set_write_cache(agreed(kFlush));
}

void VirtioBlk::device_reset() { drive_.set_write_cache(write_cache_); }

void VirtioBlk::save_type(StateWriter& writer) { writer.field(kFieldWriteCache, drive_.write_cache()); }
void VirtioBlk::restore_type(StateReader& reader) { reader.field(kFieldWriteCache, restored_write_cache_); }
void VirtioBlk::apply_type() { drive_.set_write_cache(restored_write_cache_); }

// --- requests

void VirtioBlk::serve(uint16_t queue) {
  // Requests may end at once, and a driver add others meanwhile: whoever else shares the thread has his turn.
  for (unsigned count = 0; count < shape().queue_size; ++count) {
    Chain chain = next(queue);
    if (chain == nullptr) return;
    start_request(std::move(chain));
  }
  kick(queue);
}

void VirtioBlk::refuse(Chain chain, std::string_view why) {
  break_device(why);
  finish(std::move(chain), 0);
}

void VirtioBlk::end(Chain chain, uint8_t status) {
  const uint64_t bytes = chain->in_bytes;
  // 5.2.6: the last byte of what the device writes.
  if (current(*chain) && !chain->write(memory(), bytes - kStatusBytes, std::span(&status, 1)))
    return refuse(std::move(chain), "a request's status byte is not in RAM");
  finish(std::move(chain), bytes);
}

void VirtioBlk::start_request(Chain chain) {
  std::array<uint8_t, kHeaderBytes> bytes{};
  if (chain->out_bytes < kHeaderBytes || chain->in_bytes < kStatusBytes)
    return refuse(std::move(chain), "a request has no room for its header or its status");
  if (!chain->read(memory(), 0, bytes)) return refuse(std::move(chain), "a request's header is not in RAM");
  const Header header{.type = load<uint32_t>(bytes.data()) & ~kBarrier, .sector = load<uint64_t>(&bytes[8])};
  switch (header.type) {
    case kIn: return read(std::move(chain), header);
    case kOut: return write(std::move(chain), header);
    case kFlushRequest: return requests_.spawn(do_flush(std::move(chain)));
    case kGetId: return get_id(std::move(chain));
    case kDiscardRequest: return segments(std::move(chain), true);
    case kWriteZeroesRequest: return segments(std::move(chain), false);
    default: return end(std::move(chain), kUnsupported);  // 5.2.6.2
  }
}

uint8_t VirtioBlk::check_range(uint64_t sector, uint64_t bytes, bool write) const {
  const uint64_t length = drive_.length();
  if (write && drive_.read_only()) return kIoError;  // 5.2.6.2
  if (sector > length / kSector || bytes > length - sector * kSector) return kIoError;
  const uint64_t block = config_.disk.logical_block_bytes;
  return (sector * kSector) % block == 0 && bytes % block == 0 ? kOk : kIoError;
}

void VirtioBlk::read(Chain chain, const Header& header) {
  const uint64_t bytes = chain->in_bytes - kStatusBytes;
  if (const uint8_t status = check_range(header.sector, bytes, false); status != kOk)
    return end(std::move(chain), status);
  Result<SgBuffer> buffer = chain->pin_in(memory(), 0, bytes);
  if (!buffer) return refuse(std::move(chain), buffer.error().message);
  requests_.spawn(do_read(std::move(chain), header.sector * kSector, std::move(*buffer)));
}

Task<void> VirtioBlk::do_read(Chain chain, uint64_t offset, SgBuffer buffer) {
  const uint64_t bytes = buffer.bytes();
  const block::IoResult<> result = co_await drive_.read(offset, buffer.slice());
  // A read that failed may have written anywhere: dropping the buffer says so.
  if (result)
    buffer.complete(bytes);
  else
    buffer = SgBuffer();
  end(std::move(chain), result ? kOk : kIoError);
}

void VirtioBlk::write(Chain chain, const Header& header) {
  const uint64_t bytes = chain->out_bytes - kHeaderBytes;
  if (const uint8_t status = check_range(header.sector, bytes, true); status != kOk)
    return end(std::move(chain), status);
  Result<SgBuffer> buffer = chain->pin_out(memory(), kHeaderBytes, bytes);
  if (!buffer) return refuse(std::move(chain), buffer.error().message);
  requests_.spawn(do_write(std::move(chain), header.sector * kSector, std::move(*buffer)));
}

Task<void> VirtioBlk::do_write(Chain chain, uint64_t offset, SgBuffer buffer) {
  const block::IoResult<> result = co_await drive_.write(offset, buffer.slice());
  end(std::move(chain), result ? kOk : kIoError);
}

Task<void> VirtioBlk::do_flush(Chain chain) {
  const block::IoResult<> result = co_await drive_.flush();
  end(std::move(chain), result ? kOk : kIoError);
}

void VirtioBlk::get_id(Chain chain) {
  // 5.2.6: padded with zeroes, which may be missing.
  std::array<uint8_t, kIdBytes> id{};
  std::memcpy(id.data(), config_.disk.serial.data(), std::min<size_t>(config_.disk.serial.size(), id.size()));
  const uint64_t room = std::min<uint64_t>(chain->in_bytes - kStatusBytes, kIdBytes);
  if (!chain->write(memory(), 0, std::span(id).first(room)))
    return refuse(std::move(chain), "the place for a disk's serial number is not in RAM");
  end(std::move(chain), kOk);
}

// --- DISCARD and WRITE_ZEROES

uint8_t VirtioBlk::check_segment(const Segment& segment, uint64_t sector, bool discard) const {
  // 5.2.6.2: reserved flags, and unmap in a discard, are not supported.
  if ((segment.flags & ~(discard ? 0U : kUnmap)) != 0) return kUnsupported;
  const uint64_t most = discard ? config_.max_discard_sectors : config_.max_write_zeroes_sectors;
  return segment.bytes / kSector > most ? uint8_t{kIoError} : check_range(sector, segment.bytes, true);
}

void VirtioBlk::segments(Chain chain, bool discard) {
  if (!agreed(discard ? kDiscard : kWriteZeroes)) return end(std::move(chain), kUnsupported);
  const uint64_t bytes = chain->out_bytes - kHeaderBytes;
  if (bytes == 0 || bytes % kSegmentBytes != 0 || bytes / kSegmentBytes > kMostSegments)
    return end(std::move(chain), kIoError);
  std::array<uint8_t, kMostSegments * kSegmentBytes> copy{};
  if (!chain->read(memory(), kHeaderBytes, std::span(copy).first(bytes)))
    return refuse(std::move(chain), "a request's segments are not in RAM");
  std::vector<Segment> list;
  for (uint64_t at = 0; at < bytes; at += kSegmentBytes) {
    const auto sector = load<uint64_t>(&copy[at]);
    const Segment segment{.offset = sector * kSector,
                          .bytes = load<uint32_t>(&copy[at + 8]) * kSector,
                          .flags = load<uint32_t>(&copy[at + 12])};
    if (const uint8_t status = check_segment(segment, sector, discard); status != kOk)
      return end(std::move(chain), status);
    list.push_back(segment);
  }
  requests_.spawn(do_segments(std::move(chain), discard, std::move(list)));
}

Task<void> VirtioBlk::do_segments(Chain chain, bool discard, std::vector<Segment> segments) {
  for (const Segment& segment : segments) {
    if (segment.bytes == 0) continue;
    block::IoHow how;
    if ((segment.flags & kUnmap) != 0) how = how.with(block::IoHow::kMayUnmap);
    block::IoResult<> result;
    if (discard)
      result = co_await drive_.discard(segment.offset, segment.bytes, how);
    else
      result = co_await drive_.write_zeroes(segment.offset, segment.bytes, how);
    if (!result) co_return end(std::move(chain), kIoError);
  }
  end(std::move(chain), kOk);
}

}  // namespace kite::devices
