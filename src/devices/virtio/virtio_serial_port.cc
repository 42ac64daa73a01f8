#include "devices/virtio/virtio_serial_port.h"

#include <utility>

#include "devices/section.h"

namespace kite::devices {

namespace {

// What there is to say is in the controller's section.
struct VirtioSerialPortV1 {
  static constexpr uint32_t kVersion = 1;
  uint32_t number;
};

template <class Codec, class Wire>
void visit(Codec& codec, Wire& wire) {
  codec.field(1, wire.number);
}

}  // namespace

VirtioSerialPort::VirtioSerialPort(std::string path, Config config)
    : Device(std::move(path)), config_(std::move(config)) {
  if (config_.chardev == nullptr) return;
  if (!config_.console) config_.chardev->set_frontend_open(false);
  config_.chardev->set_client(this);
}

VirtioSerialPort::~VirtioSerialPort() {
  if (controller_ != nullptr) controller_->detach(number_);
  if (config_.chardev == nullptr) return;
  config_.chardev->set_client(nullptr);
  config_.chardev->set_frontend_open(false);
}

void VirtioSerialPort::plug_into(VirtioSerial& controller, uint32_t number) {
  controller_ = &controller;
  number_ = number;
  controller.attach(*this, number);
}

size_t VirtioSerialPort::output(std::span<const uint8_t> bytes) {
  if (config_.chardev == nullptr || !host_open()) return bytes.size();
  return config_.chardev->write(bytes);
}

void VirtioSerialPort::accept_input() {
  if (config_.chardev != nullptr) config_.chardev->accept_input();
}

void VirtioSerialPort::guest_changed(bool open) {
  if (config_.chardev != nullptr && !config_.console) config_.chardev->set_frontend_open(open);
  if (config_.changed) config_.changed(open);
}

size_t VirtioSerialPort::can_receive() { return controller_ == nullptr ? 0 : controller_->room(number_); }

void VirtioSerialPort::received(std::span<const uint8_t> bytes) {
  if (controller_ != nullptr) controller_->input(number_, bytes);
}

void VirtioSerialPort::event(ChardevEvent event) {
  if (event != ChardevEvent::kOpened && event != ChardevEvent::kClosed) return;
  host_open_ = event == ChardevEvent::kOpened;
  if (controller_ != nullptr) controller_->host_changed(number_);
}

void VirtioSerialPort::writable() {
  if (controller_ != nullptr) controller_->writable(number_);
}

void VirtioSerialPort::save(StateWriter& writer) {
  save_section(writer, path(), VirtioSerialPortV1{.number = number_});
}

void VirtioSerialPort::restore(StateReader& reader) {
  VirtioSerialPortV1 wire{};
  restore_section(reader, path(), wire,
                  [&] { require(reader, wire.number == number_, "the port has another number here"); });
}

}  // namespace kite::devices
