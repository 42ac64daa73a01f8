// A logical unit whose medium a person can take out: what the monitor does to it.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "devices/scsi/scsi_device.h"
#include "devices/storage/mmc.h"
#include "devices/storage/removable.h"

namespace kite::devices {

template <class Unit>
class WithTray final : public Unit, public Removable {
 public:
  using Unit::Unit;

  [[nodiscard]] bool has_tray() const override { return true; }
  [[nodiscard]] bool tray_open() override {
    const std::lock_guard lock(this->mutex_);
    return this->state_.tray_open;
  }
  [[nodiscard]] bool locked() override {
    const std::lock_guard lock(this->mutex_);
    return this->state_.locked;
  }
  void request_eject() override {
    const std::lock_guard lock(this->mutex_);
    this->state_.media_event = static_cast<uint8_t>(mmc::MediaEvent::kEjectRequest);
    this->attention_locked(sense::kEjectRequested);
  }
  void set_tray(bool open) override {
    const std::lock_guard lock(this->mutex_);
    this->move_tray(open);
  }
  // Behind an open tray nobody sees it.
  void medium_changed() override {
    const std::lock_guard lock(this->mutex_);
    if (this->state_.tray_open) return;
    const bool medium = this->drive_ != nullptr && this->drive_->has_medium();
    this->state_.media_event =
        static_cast<uint8_t>(medium ? mmc::MediaEvent::kNewMedia : mmc::MediaEvent::kMediaRemoval);
    if (medium) this->attention_locked(sense::kMediumChanged);
  }

 private:
  void told_tray(bool open) override { tray_moved(open); }
};

}  // namespace kite::devices
