// scsi-hd: a disk. [SBC-3] with the thin provisioning commands; blocks of any size that DiskConfig allows.
#pragma once

#include "devices/scsi/scsi_device.h"
#include "devices/storage/disk_bus.h"

namespace kite::devices {

// Reads the type's own properties; the address is the bus's to choose.
Result<ScsiUnitConfig> scsi_hd_config(const DiskDevice& device);

class ScsiHd : public ScsiDevice {
 public:
  ScsiHd(std::string path, ScsiUnitConfig config);

 protected:
  [[nodiscard]] std::span<const ScsiOperation> operations() const override;
  [[nodiscard]] uint8_t peripheral_type() const override { return 0x00; }
  [[nodiscard]] ScsiTransfer special_transfer(const Cdb& cdb) const override;
  [[nodiscard]] std::vector<uint8_t> mode_pages(uint8_t page, uint8_t control) const override;
  [[nodiscard]] std::vector<uint8_t> block_descriptor(bool long_lba) const override;
  [[nodiscard]] uint8_t device_parameter() const override;
  [[nodiscard]] std::optional<std::vector<uint8_t>> vital_page(uint8_t page) const override;
  [[nodiscard]] std::span<const uint8_t> vital_pages() const override;

 private:
  struct Table;
  void take_mode_page(std::span<const uint8_t> page, State& next) const override;
  [[nodiscard]] std::vector<uint8_t> mode_page(uint8_t code, uint8_t control) const;
  [[nodiscard]] bool thin() const { return discard_bytes_ != 0; }
  [[nodiscard]] std::vector<uint8_t> block_limits() const;

  ScsiReply read_capacity_10(const ScsiJob& job);
  ScsiReply read_capacity_16(const ScsiJob& job);
  ScsiReply read_format_capacities(const ScsiJob& job);
  ScsiReply read_defects(const ScsiJob& job);
  ScsiReply prefetch(const ScsiJob& job);
  Task<ScsiReply> write(const ScsiJob& job);
  Task<ScsiReply> write_verify(const ScsiJob& job);
  Task<ScsiReply> verify(const ScsiJob& job);
  Task<ScsiReply> write_same(const ScsiJob& job);
  Task<ScsiReply> unmap(const ScsiJob& job);
  // Whether the CDB's protection field, range and length may be written.
  [[nodiscard]] ScsiSense judge_write(const ScsiJob& job, const Range& range, uint64_t data_bytes) const;
  // Reads the blocks and compares them: with data-out (`repeat`: its first block, again and again), or not at all.
  enum class Compare : uint8_t { kNothing, kAll, kRepeat };
  Task<ScsiReply> check_medium(const ScsiJob& job, Range range, Compare compare);
  Task<block::IoResult<>> fill(const ScsiJob& job, Range range, std::span<const uint8_t> block);

  // Static configuration.
  uint32_t discard_bytes_;  // the granularity; 0: thin provisioning is not offered
  DiskGeometry geometry_;   // given, or made for the length at the time
  [[nodiscard]] DiskGeometry geometry() const;
};

}  // namespace kite::devices
