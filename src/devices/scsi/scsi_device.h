// ScsiDevice: a logical unit, whatever its type: the task router's end of a SCSI bus. It decodes a command by a table,
// answers what all units answer (INQUIRY, REQUEST SENSE, MODE SENSE, ...), reads blocks, keeps unit attentions, and
// ends tasks when task management asks. Disks and CD drives derive from it. [SAM-5], [SPC-4], [SBC-3].
//
// Thread-safe. execute() runs on the caller's thread until it meets the drive, then on the drive's executor.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "async/task.h"
#include "bus/device.h"
#include "devices/scsi/scsi_command.h"
#include "devices/scsi/scsi_operation.h"
#include "devices/storage/disk.h"

namespace kite::devices {

class ScsiBus;

struct ScsiUnitConfig {
  DiskConfig disk;
  ScsiAddress address;
  std::string vendor, product, version;  // 8, 16 and 4 characters of INQUIRY
  std::string device_id;                 // designator of VPD page 83h; "": none
  uint64_t port_wwn = 0;                 // 0: none
  uint16_t port_index = 0;               // 0: none
  uint16_t rotation_rate = 0;            // [SBC-3] 6.6.2: 0: not told, 1: no rotation, else turns a minute
  bool dpofua = false;                   // MODE SENSE says that FUA and DPO are honoured (they always are)
  bool removable = false;
  uint8_t version_code = 5;  // INQUIRY's: 5 is SPC-3
  uint64_t max_unmap_bytes = 1 << 30;
  uint64_t max_io_bytes = INT32_MAX;
};

class ScsiDevice : public bus::Device {
 public:
  ScsiDevice(std::string path, ScsiUnitConfig config);
  ~ScsiDevice() override;

  [[nodiscard]] const ScsiUnitConfig& config() const { return config_; }
  [[nodiscard]] const ScsiAddress& address() const { return config_.address; }

  // Runs one command. The unit must be held (ScsiUse) until the task has ended.
  Task<ScsiReply> execute(ScsiCommand command);
  [[nodiscard]] ScsiTransfer transfer_of(const Cdb& cdb) const;

  // Task management. [SAM-5] 7. These mark tasks: the marked ones end soon, with ScsiReply::aborted, and are the
  // caller's to wait for.
  bool abort(uint64_t tag);  // false: no such task
  void abort_all();
  [[nodiscard]] bool has_task(uint64_t tag) const;
  [[nodiscard]] bool has_tasks() const;
  // abort_all(), power-on mode parameters, and this unit attention.
  void logical_reset(ScsiSense attention);

  // Told with the next command, after those that wait already; one that waits is not repeated.
  void post_attention(ScsiSense attention);
  // The drive's length has changed.
  void capacity_changed();
  // For transports that do not carry sense data with the status: REQUEST SENSE tells this next.
  void hold_sense(ScsiSense sense);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 protected:
  // Every guest-visible bit that all units have.
  struct State {
    std::deque<ScsiSense> attentions;
    ScsiSense held{};
    bool descriptor_sense = false;  // control page: D_SENSE
    bool write_cache = true;        // caching page: WCE
    bool locked = false;            // PREVENT ALLOW MEDIUM REMOVAL
    bool tray_open = false;         // or the medium is unloaded
    bool stopped = false;           // START STOP UNIT: the medium is not spinning
    uint8_t media_event = 0;        // mmc::MediaEvent
  };
  static constexpr uint8_t kCurrent = 0, kChangeable = 1, kDefault = 2, kSaved = 3;  // page controls of MODE SENSE
  static constexpr uint8_t kAllPages = 0x3f;

  [[nodiscard]] virtual std::span<const ScsiOperation> operations() const = 0;
  [[nodiscard]] virtual uint8_t peripheral_type() const = 0;
  [[nodiscard]] virtual uint32_t block_bytes() const { return config_.disk.logical_block_bytes; }
  [[nodiscard]] virtual ScsiTransfer special_transfer(const Cdb& cdb) const = 0;
  // With the lock held: the pages of MODE SENSE, in order; empty: there is no such page.
  [[nodiscard]] virtual std::vector<uint8_t> mode_pages(uint8_t page, uint8_t control) const = 0;
  [[nodiscard]] virtual std::vector<uint8_t> block_descriptor(bool long_lba) const = 0;
  [[nodiscard]] virtual uint8_t medium_type() const { return 0; }
  [[nodiscard]] virtual uint8_t device_parameter() const { return 0; }
  // A VPD page from its fifth byte on; nothing: there is no such page.
  [[nodiscard]] virtual std::optional<std::vector<uint8_t>> vital_page(uint8_t page) const;
  [[nodiscard]] virtual std::span<const uint8_t> vital_pages() const = 0;  // those besides 00h, 80h and 83h, in order

  // Why the medium cannot be used now; kNone when it can. With the lock held.
  [[nodiscard]] virtual ScsiSense not_ready() const;
  [[nodiscard]] bool medium_present() const;  // there is one and the tray is closed
  [[nodiscard]] uint64_t blocks() const;
  [[nodiscard]] bool read_only() const { return drive_ == nullptr || drive_->read_only(); }
  void attention_locked(ScsiSense attention);
  // Moves the tray; with the lock held. Nothing when it is there already.
  void move_tray(bool open);
  virtual void told_tray(bool open) { (void)open; }  // it has moved; with the lock held

  // data-in of at most `bytes`' and the CDB's length.
  [[nodiscard]] ScsiReply answer(const ScsiJob& job, std::span<const uint8_t> bytes) const;
  // A copy of data-out, as long as the CDB says; nothing when the transport brought less.
  [[nodiscard]] std::optional<std::vector<uint8_t>> parameters(const ScsiJob& job) const;

  // Blocks that a CDB of 6, 10, 12 or 16 bytes names. [SBC-3] 4.2: their common layouts.
  struct Range {
    uint64_t first = 0, blocks = 0;
  };
  [[nodiscard]] static Range range_of(const uint8_t* cdb);
  [[nodiscard]] bool inside(const Range& range) const;

  // Drive requests. They end with ECANCELED only when the job was aborted or the machine cancelled them.
  Task<block::IoResult<>> drive_read(const ScsiJob& job, uint64_t offset, block::IoSlice to);
  Task<block::IoResult<>> drive_write(const ScsiJob& job, uint64_t offset, block::IoSlice from, block::IoHow how);
  Task<block::IoResult<>> drive_zero(const ScsiJob& job, uint64_t offset, uint64_t bytes, block::IoHow how);
  Task<block::IoResult<>> drive_discard(const ScsiJob& job, uint64_t offset, uint64_t bytes);
  Task<block::IoResult<>> drive_flush(const ScsiJob& job);
  [[nodiscard]] ScsiReply failed(block::IoError error, bool write) const;

  // Commands that table rows name.
  ScsiReply test_unit_ready(const ScsiJob& job);
  ScsiReply request_sense(const ScsiJob& job);
  ScsiReply inquiry(const ScsiJob& job);
  ScsiReply mode_sense(const ScsiJob& job);
  Task<ScsiReply> mode_select(const ScsiJob& job);
  Task<ScsiReply> start_stop(const ScsiJob& job);
  ScsiReply prevent_allow(const ScsiJob& job);
  Task<ScsiReply> report_luns(const ScsiJob& job);  // slow: the bus's lock comes before the unit's
  ScsiReply report_opcodes(const ScsiJob& job);
  ScsiReply report_tmfs(const ScsiJob& job);
  ScsiReply send_diagnostic(const ScsiJob& job);
  ScsiReply do_nothing(const ScsiJob& job);  // RESERVE and RELEASE of the only initiator
  ScsiReply seek(const ScsiJob& job);
  ScsiReply refuse_write(const ScsiJob& job);
  Task<ScsiReply> read(const ScsiJob& job);
  Task<ScsiReply> synchronize_cache(const ScsiJob& job);

  // Static configuration.
  ScsiUnitConfig config_;
  bool write_cache_default_ = true;

  // Wiring.
  block::Drive* drive_;
  ScsiBus* bus_ = nullptr;

  // State, guarded by mutex_.
  mutable std::mutex mutex_;
  State state_;

 private:
  friend class ScsiBus;
  friend class ScsiUse;
  class Entry;
  template <class Start>
  Task<block::IoResult<>> retry(const ScsiJob& job, Start start);
  Task<void> cancel_waiting();
  [[nodiscard]] const ScsiOperation* find_operation(const Cdb& cdb) const;
  // What keeps the command from running; nothing: it may. Takes a unit attention out.
  std::optional<ScsiReply> obstacle(const ScsiJob& job, const ScsiOperation* operation);
  Task<ScsiReply> perform(const ScsiJob& job);
  ScsiReply standard_inquiry(const ScsiJob& job);
  ScsiReply vital_inquiry(const ScsiJob& job);
  [[nodiscard]] std::vector<uint8_t> identification() const;
  ScsiSense judge_mode_list(const ScsiJob& job, std::span<const uint8_t> list, State& next) const;
  // Applies a page of MODE SELECT that differs from the current one in changeable bits only.
  virtual void take_mode_page(std::span<const uint8_t> page, State& next) const = 0;
  State power_on_state() const;
  void release();

  // Tasks under way; no state, for none is under way in saved state but those that the transport issues again.
  std::list<ScsiJob*> jobs_;  // under mutex_
  uint64_t next_number_ = 0;  // under mutex_
  uint64_t cancels_ = 0;      // calls of drive_->cancel() by this unit; on the drive's executor
  TaskScope cancelling_;
  size_t uses_ = 0;  // under mutex_
  std::condition_variable unused_;
};

// A hold on a unit: it is not destroyed before all are gone. Move-only.
class ScsiUse {
 public:
  ScsiUse() = default;
  ScsiUse(ScsiUse&& other) noexcept : unit_(std::exchange(other.unit_, nullptr)) {}
  ScsiUse& operator=(ScsiUse&& other) noexcept {
    if (this != &other) {
      reset();
      unit_ = std::exchange(other.unit_, nullptr);
    }
    return *this;
  }
  ~ScsiUse() { reset(); }
  void reset() {
    if (unit_ != nullptr) std::exchange(unit_, nullptr)->release();
  }
  [[nodiscard]] explicit operator bool() const { return unit_ != nullptr; }
  ScsiDevice* operator->() const { return unit_; }
  ScsiDevice& operator*() const { return *unit_; }

 private:
  friend class ScsiBus;
  explicit ScsiUse(ScsiDevice& unit) : unit_(&unit) {}
  ScsiDevice* unit_ = nullptr;
};

}  // namespace kite::devices
