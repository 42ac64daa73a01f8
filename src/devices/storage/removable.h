// Removable: a drive whose medium a person can take out, as the monitor sees it. CD-ROM drives have a tray, which the
// guest can lock; floppy drives have none. The medium itself is the block::Drive's: the monitor opens the tray, calls
// Drive::change_medium(), tells the device, and closes the tray.
#pragma once

#include <functional>
#include <utility>

namespace kite::devices {

class Removable {
 public:
  virtual ~Removable() = default;

  // Any thread, no lock held; they take the device's.
  [[nodiscard]] virtual bool has_tray() const = 0;
  [[nodiscard]] virtual bool tray_open() = 0;  // false without a tray
  [[nodiscard]] virtual bool locked() = 0;     // the guest prevents removal
  // The eject button of a locked drive: the guest is told and may open the tray itself.
  virtual void request_eject() = 0;
  // Moves the tray, locked or not. Opening unlocks. Nothing without a tray, or when it is there already.
  virtual void set_tray(bool open) = 0;
  // After Drive::change_medium(): another medium, or none, is in.
  virtual void medium_changed() = 0;

  // Called whenever the tray has moved, by the guest or by set_tray(), on whatever thread moved it and with the
  // device's lock held: it posts, and calls nothing of the device. Set before the machine runs.
  virtual void set_tray_hook(std::function<void(bool open)> hook) { tray_hook_ = std::move(hook); }

 protected:
  void tray_moved(bool open) const {
    if (tray_hook_) tray_hook_(open);
  }

 private:
  std::function<void(bool open)> tray_hook_;
};

}  // namespace kite::devices
