// virtio-blk: a disk. [VIRTIO 1.2] 5.2.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/task.h"
#include "devices/storage/disk.h"
#include "devices/virtio/virtio_device.h"

namespace kite::devices {

class VirtioBlk final : public VirtioDevice {
 public:
  struct Config {
    DiskConfig disk;  // with a drive
    uint16_t queues = 1;
    uint16_t queue_size = 256;
    bool config_wce = true;  // the guest may switch the write cache
    bool discard = true, write_zeroes = true;
    bool report_discard_granularity = true;
    uint32_t segments = 0;  // data segments of a request; 0: as many as the queue has room for
    uint32_t max_discard_sectors = kMostSectors, max_write_zeroes_sectors = kMostSectors;
  };
  static constexpr uint32_t kMostSectors = 0x3fffff;

  // Everything happens on the drive's executor.
  VirtioBlk(std::string name, Config config, GuestMemory& memory, const Options& options);
  ~VirtioBlk() override;

 private:
  struct Header {
    uint32_t type;
    uint64_t sector;
  };
  struct Segment {
    uint64_t offset, bytes;  // bytes
    uint32_t flags;
  };
  using Chain = std::unique_ptr<VirtioChain>;

  void serve(uint16_t queue) override;
  void read_config(std::span<uint8_t> config) override;
  void config_written(uint32_t offset, std::span<const uint8_t> bytes) override;
  void driver_ready() override;
  void device_reset() override;
  void cancel_requests() override { drive_.cancel(); }
  void save_type(StateWriter& writer) override;
  void restore_type(StateReader& reader) override;
  void apply_type() override;

  void start_request(Chain chain);
  void read(Chain chain, const Header& header);
  void write(Chain chain, const Header& header);
  void get_id(Chain chain);
  Task<void> do_read(Chain chain, uint64_t offset, SgBuffer buffer);
  Task<void> do_write(Chain chain, uint64_t offset, SgBuffer buffer);
  Task<void> do_flush(Chain chain);
  Task<void> do_segments(Chain chain, bool discard, std::vector<Segment> segments);
  void segments(Chain chain, bool discard);
  // The status that forbids the range; kOk: none.
  [[nodiscard]] uint8_t check_range(uint64_t sector, uint64_t bytes, bool write) const;
  [[nodiscard]] uint8_t check_segment(const Segment& segment, uint64_t sector, bool discard) const;
  void end(Chain chain, uint8_t status);
  void refuse(Chain chain, std::string_view why);

  // Static configuration and wiring.
  const Config config_;
  block::Drive& drive_;
  const bool write_cache_;  // at power-on

  TaskScope requests_;
  bool restored_write_cache_ = false;
};

}  // namespace kite::devices
