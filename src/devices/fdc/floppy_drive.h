// A floppy disk drive on the controller's cable, and the cable. Parts of Fdc.
#pragma once

#include "devices/fdc/fdc.h"

namespace kite::devices {

// Everything but construction and what Removable and Device say holds the controller's lock.
class Fdc::FloppyDrive final : public bus::Device, public Removable {
 public:
  FloppyDrive(Fdc& owner, std::string path, unsigned unit, FloppyType type, block::Drive& drive);

  [[nodiscard]] unsigned unit() const { return unit_; }
  [[nodiscard]] FloppyType type() const { return type_; }
  [[nodiscard]] block::Drive& disk() const { return drive_; }
  [[nodiscard]] bool has_disk() const { return drive_.has_medium(); }
  [[nodiscard]] const FloppyFormat& format() const { return format_; }
  [[nodiscard]] uint8_t track() const { return track_; }
  [[nodiscard]] bool changed() const { return changed_ || !has_disk(); }
  // A step clears the change line when there is a disk. [82077AA] 2.1.8 and the drives' own.
  void move_to(uint8_t track);
  // The block number of a sector of the present format.
  [[nodiscard]] uint64_t block_of(const Place& place) const {
    return (uint64_t{place.track} * format_.heads + place.head) * format_.sectors + place.sector - 1;
  }

  // bus::Device. The heads stay where they are.
  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // Removable.
  [[nodiscard]] bool has_tray() const override { return false; }
  [[nodiscard]] bool tray_open() override { return false; }
  [[nodiscard]] bool locked() override { return false; }
  void request_eject() override {}
  void set_tray(bool) override {}
  void medium_changed() override;

 private:
  void look_at_disk();

  // Static configuration and wiring.
  Fdc& owner_;
  const unsigned unit_;
  const FloppyType type_;
  block::Drive& drive_;

  // State.
  uint8_t track_ = 0;
  bool changed_ = true;
  FloppyFormat format_;  // of the disk; derived
};

class Fdc::DriveBus final : public DiskBus {
 public:
  explicit DriveBus(Fdc& owner) : owner_(owner) {}

  [[nodiscard]] std::string name() const override { return owner_.config_.bus_name; }
  [[nodiscard]] std::string_view kind() const override { return "floppy-bus"; }
  [[nodiscard]] bool has_room() const override;
  Result<std::unique_ptr<bus::Device>> attach(const DiskDevice& device) override;
  void detach(bus::Device& device) override;
  [[nodiscard]] std::string boot_path(const bus::Device& device) const override;
  // Requests are cancelled and waited for.
  void quiesce();

 private:
  Fdc& owner_;
};

}  // namespace kite::devices
