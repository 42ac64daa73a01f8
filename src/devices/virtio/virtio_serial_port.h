// VirtioSerialPort: virtserialport and virtconsole, a port of virtio-serial and the chardev behind it. Its state is the
// controller's.
#pragma once

#include <functional>
#include <string>

#include "bus/device.h"
#include "chardev/chardev.h"
#include "devices/virtio/virtio_serial.h"

namespace kite::devices {

class VirtioSerialPort final : public bus::Device, private ChardevClient {
 public:
  struct Config {
    std::string name = {};  // for the guest; "" for none
    bool console = false;
    Chardev* chardev = nullptr;  // null: output goes nowhere
    // The guest has opened or closed it. Any thread, with the controller's lock held.
    std::function<void(bool open)> changed = {};
  };
  VirtioSerialPort(std::string path, Config config);
  ~VirtioSerialPort() override;

  void plug_into(VirtioSerial& controller, uint32_t number);
  void controller_gone() { controller_ = nullptr; }

  [[nodiscard]] const std::string& name() const { return config_.name; }
  [[nodiscard]] bool console() const { return config_.console; }
  [[nodiscard]] Chardev* chardev() const { return config_.chardev; }
  [[nodiscard]] VirtioSerial* controller() const { return controller_; }
  [[nodiscard]] uint32_t number() const { return number_; }
  // Somebody is at the other end; of a console, always.
  [[nodiscard]] bool host_open() const { return config_.console || host_open_; }

  // --- what the controller asks ---
  // How many bytes were taken; writable() follows when that is not all.
  size_t output(std::span<const uint8_t> bytes);
  void accept_input();            // any thread
  void guest_changed(bool open);  // any thread

  void reset() override {}
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  size_t can_receive() override;
  void received(std::span<const uint8_t> bytes) override;
  void event(ChardevEvent event) override;
  void writable() override;

  // Static configuration and wiring.
  const Config config_;
  VirtioSerial* controller_ = nullptr;
  uint32_t number_ = 0;
  bool host_open_ = false;  // the chardev's
};

}  // namespace kite::devices
