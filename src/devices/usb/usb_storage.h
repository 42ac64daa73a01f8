// usb-storage: a mass storage device of one SCSI unit, by the Bulk-Only Transport. [BOT] 1.0.
//
// A command's data waits in the device: what the host sends is gathered before the unit is given the command, and what
// the unit answers is sent once it is all there. Meanwhile the endpoints answer kNak, and so no transfer is ever held.
// The data stage has always as many bytes as the wrapper said: what the command has no use for is dropped, what it does
// not have is sent as zeroes ([BOT] 6.7 lets a device do so), so that no host needs to clear a halt. Only a wrapper
// that makes no sense halts the endpoints.
//
// The unit's commands run on the executor of its drive; the controller hears of their ends by a timer of guest time,
// which stands still while the machine does.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/clock.h"
#include "async/task.h"
#include "devices/scsi/scsi_bus.h"
#include "devices/storage/removable.h"
#include "devices/usb/usb_device.h"

namespace kite::devices {

class UsbStorage : public UsbDevice {
 public:
  struct Config {
    DiskConfig disk;  // with a drive
    bool cdrom = false;
    bool removable = false;  // the medium, of a disk
  };
  UsbStorage(const std::string& path, const Config& config, Clock& clock);
  ~UsbStorage() override;

  [[nodiscard]] ScsiDevice& unit() { return *unit_; }
  // Where firmware finds the unit, below the device.
  [[nodiscard]] std::string boot_path() const { return scsi_.boot_path(*unit_); }

  void reset() override;
  void start() override;
  void stop() override { tell_timer_.disarm(); }
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  static constexpr uint64_t kMostData = 32 << 20;  // of a command; more the unit refuses
  using Data = std::shared_ptr<std::vector<uint8_t>>;

  // kCommand: for a wrapper. kRunning: for the unit. kBroken: for a reset, after a wrapper that was none.
  enum class Phase : uint8_t { kCommand, kDataOut, kRunning, kDataIn, kStatus, kBroken };
  struct State {
    Phase phase = Phase::kCommand;
    // Of the wrapper.
    uint32_t tag = 0, length = 0;
    bool to_host = false;
    Cdb cdb{};
    // Of the data stage: bytes that have passed, and what is the command's. One that writes reads it while it runs.
    uint32_t moved = 0;
    Data data = std::make_shared<std::vector<uint8_t>>();
    // For the status wrapper.
    uint32_t residue = 0;
    uint8_t status = 0;
  };

  static UsbDescriptors descriptors(std::string serial);
  static bool possible(const State& state);

  // UsbDevice. With lock_ held.
  std::optional<std::vector<uint8_t>> class_in(const usb::Setup& setup) override;
  bool class_out(const usb::Setup& setup, std::span<const uint8_t> data) override;
  UsbAnswer data_in(uint8_t endpoint, std::span<uint8_t> to) override;
  UsbAnswer data_out(uint8_t endpoint, std::span<const uint8_t> from) override;
  [[nodiscard]] bool has_endpoint(uint8_t endpoint) const override;
  void function_reset() override { forget_command(); }
  void save_function(StateWriter& writer) override;
  void restore_function(StateReader& reader) override;
  void apply_function() override;

  // The following hold lock_, too.
  void forget_command();
  UsbAnswer break_down(uint8_t endpoint);
  UsbAnswer take_wrapper(std::span<const uint8_t> from);
  UsbAnswer take_data(std::span<const uint8_t> from);
  UsbAnswer give_data(std::span<uint8_t> to);
  UsbAnswer give_status(std::span<uint8_t> to);
  [[nodiscard]] bool disagrees() const;
  void begin_data_stage();
  void run_command();
  void launch();
  void end_command(const ScsiReply& reply);
  void tell();
  [[nodiscard]] bool takes_out() const;
  [[nodiscard]] bool gives_in() const { return state_.phase == Phase::kDataIn || state_.phase == Phase::kStatus; }

  // These do not.
  Task<void> execute(ScsiUse unit, uint64_t life, Cdb cdb, Data data);
  [[nodiscard]] bool meant(uint64_t life);  // its host has not given it up
  void landed(uint64_t life, const ScsiReply& reply, Data data);

  // Wiring.
  Clock& clock_;
  ScsiBus scsi_;
  std::unique_ptr<ScsiDevice> unit_;

  // State. The unit has a section of its own.
  State state_, restored_;
  // Not saved: a command of a life that is over is dropped, and one that is saved while it runs is begun anew.
  uint64_t life_ = 0;
  bool busy_ = false;                          // the unit is at work, perhaps for an earlier life
  bool waits_in_ = false, waits_out_ = false;  // the host was told kNak
  bool tell_in_ = false, tell_out_ = false;    // and is to hear of more
  TaskScope scope_;
  Timer tell_timer_;
};

// One whose medium a person can take out.
class UsbStorageWithTray final : public UsbStorage, public Removable {
 public:
  UsbStorageWithTray(const std::string& path, const Config& config, Clock& clock);

  [[nodiscard]] bool has_tray() const override { return tray_.has_tray(); }
  [[nodiscard]] bool tray_open() override { return tray_.tray_open(); }
  [[nodiscard]] bool locked() override { return tray_.locked(); }
  void request_eject() override { tray_.request_eject(); }
  void set_tray(bool open) override { tray_.set_tray(open); }
  void medium_changed() override { tray_.medium_changed(); }
  void set_tray_hook(std::function<void(bool open)> hook) override { tray_.set_tray_hook(std::move(hook)); }

 private:
  Removable& tray_;
};

}  // namespace kite::devices
