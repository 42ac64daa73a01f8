// UsbBus: the ports of a host controller, by the names that -device ...,port= has. The controller owns it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "devices/usb/usb_device.h"
#include "support/result.h"

namespace kite::devices {

// The controller, as its bus sees it. Main thread, every vCPU parked or the machine being built.
class UsbController : public UsbHost {
 public:
  virtual void port_attached(unsigned port) = 0;
  virtual void port_detached(unsigned port) = 0;
};

class UsbBus {
 public:
  // A root port. Those with one name are the two sides of one connector, for USB 2 and USB 3.
  struct Port {
    std::string name;
    std::vector<usb::Speed> speeds;  // the fastest first
    UsbDevice* device = nullptr;
  };
  UsbBus(std::string name, std::vector<Port> ports, UsbController& controller)
      : name_(std::move(name)), ports_(std::move(ports)), controller_(controller) {}

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::vector<Port>& ports() const { return ports_; }
  [[nodiscard]] UsbDevice* device(unsigned port) const { return ports_[port].device; }
  [[nodiscard]] bool has_room(const UsbDevice& device) const { return best_free(device, "") != nullptr; }
  [[nodiscard]] bool has_free_port() const;

  // Into the connector `port`, or the first that is free when it is "". The device belongs to whoever called, and is
  // detached before it or the controller goes. As UsbController's functions.
  Result<> attach(UsbDevice& device, std::string_view port);
  void detach(UsbDevice& device);
  // Where firmware looks for storage in that port, below the controller.
  [[nodiscard]] std::string boot_path(const UsbDevice& device) const;

 private:
  [[nodiscard]] const Port* best_free(const UsbDevice& device, std::string_view name) const;
  [[nodiscard]] bool taken(std::string_view connector) const;

  const std::string name_;
  std::vector<Port> ports_;
  UsbController& controller_;
};

std::string_view usb_speed_name(usb::Speed speed);  // megabits a second, as "480"

}  // namespace kite::devices
