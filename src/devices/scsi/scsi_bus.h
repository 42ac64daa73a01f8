// ScsiBus: where logical units are found by channel, target and unit number. A controller owns it and sends its
// commands through it; what a target answers for a unit it does not have is answered here. [SAM-5] 4.7, [SPC-4] 6.33.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "devices/scsi/scsi_device.h"
#include "devices/storage/disk_bus.h"

namespace kite::devices {

class ScsiBus final : public DiskBus {
 public:
  // What the controller can address.
  struct Limits {
    uint32_t channels = 1, targets = 256, luns = 16384;
    uint32_t initiator = UINT32_MAX;  // a target number that is the controller's own
  };
  // What a controller wants to hear. Called on the thread that changes the bus; attach and detach while the machine is
  // built too.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void unit_attached(const ScsiAddress& address) { (void)address; }
    virtual void unit_detached(const ScsiAddress& address) { (void)address; }
    virtual void unit_changed(const ScsiAddress& address, ScsiSense what) { (void)address, (void)what; }
  };

  ScsiBus(std::string name, Limits limits, bool hotplug, Listener* listener);
  ~ScsiBus() override;

  // Any thread. Empty: there is no such unit.
  [[nodiscard]] ScsiUse acquire(const ScsiAddress& address);
  [[nodiscard]] bool has_target(uint32_t channel, uint32_t id) const;
  [[nodiscard]] std::vector<ScsiAddress> units() const;
  [[nodiscard]] const Limits& limits() const { return limits_; }
  // What the target answers for a unit it does not have; it moves data at once. The transfer is INQUIRY's, REQUEST
  // SENSE's or REPORT LUNS's.
  ScsiReply absent_unit(const ScsiAddress& address, const ScsiCommand& command) const;
  [[nodiscard]] static ScsiTransfer absent_transfer(const Cdb& cdb);
  ScsiReply report_luns(const ScsiAddress& target, const ScsiCommand& command) const;
  // A unit that is no -device of its own, at config.address, which is free. It goes as one of attach().
  std::unique_ptr<ScsiDevice> add_unit(std::string path, ScsiUnitConfig config, bool cdrom);
  void unit_changed(const ScsiDevice& unit, ScsiSense what);
  // Every unit is told of a reset of the bus, a target of it.
  void reset_units(ScsiSense attention);

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] std::string_view kind() const override { return "SCSI"; }
  [[nodiscard]] bool has_room() const override;
  [[nodiscard]] bool hotplug() const override { return hotplug_; }
  Result<std::unique_ptr<bus::Device>> attach(const DiskDevice& device) override;
  void detach(bus::Device& device) override;
  [[nodiscard]] std::string boot_path(const bus::Device& device) const override;

 private:
  [[nodiscard]] Result<ScsiAddress> place(const DiskDevice& device) const;
  // With mutex_.
  [[nodiscard]] ScsiDevice* find(const ScsiAddress& address) const;
  std::unique_ptr<ScsiDevice> make_unit(std::string path, ScsiUnitConfig config, bool cdrom);

  // Static configuration.
  const std::string name_;
  const Limits limits_;
  const bool hotplug_;

  // Wiring.
  Listener* listener_;
  mutable std::mutex mutex_;  // before a unit's
  std::vector<ScsiDevice*> units_;
};

// What a unit says of itself unless it is told to say something else.
ScsiUnitConfig usual_scsi_unit(const DiskConfig& disk, bool cdrom);

// scsi-hd, scsi-cd.
void register_scsi_types(TypeRegistry& registry);

}  // namespace kite::devices
