// UsbDevice: a device on a USB port: its descriptors, the control pipe with the standard requests, and the rules that
// all devices obey. A type (a tablet, a disk) derives from it and answers for its own requests and endpoints.
// [USB 2.0] 8.5, 9.
//
// A transfer never waits inside: a device that has nothing to say yet answers kNak, remembers nothing of the question,
// and calls endpoint_ready() once it has. So everything that is on its way is in the guest's own queues.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bus/device.h"
#include "devices/usb/usb_regs.h"

namespace kite::devices {

enum class UsbOutcome : uint8_t {
  kDone,
  kNak,     // not now
  kStall,   // the endpoint is halted, or the request unknown
  kBabble,  // the device had more to send than it was asked for
  kSilent,  // nobody answers
};
struct UsbAnswer {
  UsbOutcome outcome = UsbOutcome::kDone;
  size_t moved = 0;  // bytes
  bool operator==(const UsbAnswer&) const = default;
};

// What a device says of itself; as it is on the wire, little-endian. [USB 2.0] 9.6.
struct UsbDescriptors {
  std::vector<uint8_t> device;             // for full and high speed
  std::vector<uint8_t> full, high, super;  // whole configurations; empty: does not run at this speed
  std::vector<std::string> strings;        // from index 1 on; ASCII
};

// Where a device hangs: the host controller's side. Called on the main thread, with no lock of the device's held.
class UsbHost {
 public:
  virtual ~UsbHost() = default;
  // The endpoint (0x80 set: IN) answered kNak, and may now have more to say.
  virtual void endpoint_ready(unsigned port, uint8_t endpoint) = 0;
};

class UsbDevice : public bus::Device {
 public:
  UsbDevice(std::string path, std::string product, UsbDescriptors descriptors);

  // --- host controllers; any thread. These take the device's lock.
  UsbAnswer setup(std::span<const uint8_t, 8> packet);
  UsbAnswer in(uint8_t endpoint, std::span<uint8_t> to);
  UsbAnswer out(uint8_t endpoint, std::span<const uint8_t> from);
  // Signalled by the port: back to the default state.
  void bus_reset();
  [[nodiscard]] uint8_t address();
  [[nodiscard]] bool wakes_remotely();  // the guest asked for it
  [[nodiscard]] bool runs_at(usb::Speed speed) const;

  // --- the bus. Main thread, the vCPUs parked or the machine being built.
  void plugged(UsbHost* host, unsigned port, usb::Speed speed);
  [[nodiscard]] usb::Speed speed() const { return speed_; }
  [[nodiscard]] unsigned port() const { return port_; }
  [[nodiscard]] const std::string& product() const { return product_; }

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 protected:
  static constexpr size_t kMostControlData = 4096;  // that a host may send with a request

  // The following are called with lock_ held. What is not overridden stalls.
  virtual std::optional<std::vector<uint8_t>> class_in(const usb::Setup& setup) { return (void)setup, std::nullopt; }
  virtual bool class_out(const usb::Setup& setup, std::span<const uint8_t> data) {
    return (void)setup, (void)data, false;
  }
  virtual std::optional<std::vector<uint8_t>> interface_descriptor(uint8_t kind, uint8_t index) {
    return (void)kind, (void)index, std::nullopt;
  }
  virtual UsbAnswer data_in(uint8_t endpoint, std::span<uint8_t> to) = 0;
  virtual UsbAnswer data_out(uint8_t endpoint, std::span<const uint8_t> from) = 0;
  [[nodiscard]] virtual bool has_endpoint(uint8_t endpoint) const = 0;  // besides 0; 0x80 set: IN
  virtual void endpoint_cleared(uint8_t endpoint) { (void)endpoint; }   // CLEAR_FEATURE(ENDPOINT_HALT)
  virtual void function_reset() = 0;                                    // power-on and bus resets, new configurations
  // The type's part of the section: restore_function() reads and judges, apply_function() takes it once all was good.
  virtual void save_function(StateWriter& writer) = 0;
  virtual void restore_function(StateReader& reader) = 0;
  virtual void apply_function() = 0;
  virtual void applied() {}  // after apply_function(), the lock not held

  [[nodiscard]] bool configured() const { return state_.configuration != 0; }
  void halt(uint8_t endpoint) { state_.halted |= halt_bit(endpoint); }
  // Main thread, lock_ not held.
  void endpoint_ready(uint8_t endpoint);

  std::mutex lock_;  // after a host controller's

 private:
  enum class Phase : uint8_t { kIdle, kDataIn, kDataOut, kStatusIn, kStalled };
  struct State {
    uint8_t address = 0, configuration = 0;
    uint8_t new_address = 0;  // from the end of the request on
    bool has_new_address = false;
    bool remote_wakeup = false;
    uint32_t halted = 0;  // a bit for each endpoint, IN ones in the upper half
    // The control pipe.
    Phase phase = Phase::kIdle;
    std::array<uint8_t, 8> request{};
    std::vector<uint8_t> data;  // the device's answer, or what the host has sent so far
    uint32_t sent = 0;          // of `data`
  };

  [[nodiscard]] static uint32_t halt_bit(uint8_t endpoint) {
    return uint32_t{1} << ((endpoint & 0x0fu) + ((endpoint & usb::kDirectionIn) != 0 ? usb::kEndpoints : 0));
  }
  UsbAnswer control_in(std::span<uint8_t> to);
  UsbAnswer control_out(std::span<const uint8_t> from);
  [[nodiscard]] bool finish_request(const usb::Setup& setup);
  [[nodiscard]] std::optional<std::vector<uint8_t>> answer(const usb::Setup& setup);
  [[nodiscard]] bool act(const usb::Setup& setup);
  [[nodiscard]] std::optional<std::vector<uint8_t>> descriptor(const usb::Setup& setup);
  [[nodiscard]] std::optional<std::vector<uint8_t>> status_of(const usb::Setup& setup) const;
  [[nodiscard]] bool set_feature(const usb::Setup& setup, bool on);
  [[nodiscard]] std::vector<uint8_t> device_descriptor() const;
  [[nodiscard]] std::vector<uint8_t> qualifier() const;
  [[nodiscard]] const std::vector<uint8_t>& configuration_at(usb::Speed speed) const;
  [[nodiscard]] bool known_endpoint(uint8_t endpoint) const;
  void set_default_state();

  // Static configuration and wiring.
  const std::string product_;
  const UsbDescriptors descriptors_;
  UsbHost* host_ = nullptr;
  unsigned port_ = 0;
  usb::Speed speed_ = usb::Speed::kFull;

  // State.
  State state_;
};

// Little-endian bytes of descriptors, from numbers and other descriptors one after the other.
std::vector<uint8_t> usb_bytes(std::initializer_list<std::vector<uint8_t>> parts);
std::vector<uint8_t> usb_device_descriptor(uint16_t vendor, uint16_t product, uint8_t strings);
// A configuration with one interface; `rest` is what belongs to the interface.
struct UsbInterfaceShape {
  uint8_t class_code = 0, subclass = 0, protocol = 0;
  uint8_t endpoints = 0;
  uint8_t attributes = usb::kAttributesOne;
};
std::vector<uint8_t> usb_configuration(const UsbInterfaceShape& shape, std::vector<uint8_t> rest);
std::vector<uint8_t> usb_endpoint(uint8_t address, uint8_t attributes, uint16_t most_packet, uint8_t interval);

}  // namespace kite::devices
