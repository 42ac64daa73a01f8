// scsi-cd: a CD/DVD-ROM drive with a tray. [MMC-6]; the answers are those of storage/mmc.h.
#pragma once

#include "devices/scsi/scsi_device.h"
#include "devices/storage/disk_bus.h"
#include "devices/storage/mmc.h"

namespace kite::devices {

Result<ScsiUnitConfig> scsi_cd_config(const DiskDevice& device);

class ScsiCd : public ScsiDevice {
 public:
  using ScsiDevice::ScsiDevice;

 protected:
  [[nodiscard]] std::span<const ScsiOperation> operations() const override;
  [[nodiscard]] uint8_t peripheral_type() const override { return 0x05; }
  [[nodiscard]] uint32_t block_bytes() const override { return mmc::kSectorBytes; }
  [[nodiscard]] ScsiTransfer special_transfer(const Cdb& cdb) const override;
  [[nodiscard]] std::vector<uint8_t> mode_pages(uint8_t page, uint8_t control) const override;
  [[nodiscard]] std::vector<uint8_t> block_descriptor(bool long_lba) const override;
  [[nodiscard]] uint8_t medium_type() const override;
  [[nodiscard]] std::span<const uint8_t> vital_pages() const override { return {}; }
  [[nodiscard]] ScsiSense not_ready() const override;

 private:
  struct Table;
  void take_mode_page(std::span<const uint8_t> page, State& next) const override;
  [[nodiscard]] mmc::Drive drive_state() const;  // with the lock held
  ScsiReply tell(const ScsiJob& job, const mmc::Answer& answer_bytes) const;

  ScsiReply read_capacity(const ScsiJob& job);
  ScsiReply read_sub_channel(const ScsiJob& job);
  ScsiReply read_toc(const ScsiJob& job);
  ScsiReply get_configuration(const ScsiJob& job);
  ScsiReply event_status(const ScsiJob& job);
  ScsiReply disc_information(const ScsiJob& job);
  ScsiReply track_information(const ScsiJob& job);
  ScsiReply get_performance(const ScsiJob& job);
  ScsiReply disc_structure(const ScsiJob& job);
  ScsiReply mechanism_status(const ScsiJob& job);
  Task<ScsiReply> read_cd(const ScsiJob& job);
};

}  // namespace kite::devices
