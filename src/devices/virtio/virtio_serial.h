// virtio-serial: a console device with ports. [VIRTIO 1.2] 5.3. Ports are devices of their own on its bus
// (VirtioSerialPort), each a byte stream between guest and a chardev; they come and go. What neither side can take
// waits at the other: a chain of the guest's that the chardev has no room for is held, and a chardev is read no faster
// than the guest offers buffers.
//
// Threads: all of it is for the home executor, which is the chardevs'; what vCPUs reach is under the device's lock.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/virtio/virtio_device.h"
#include "devices/virtio/virtio_serial_regs.h"

namespace kite::devices {

class VirtioSerialPort;

class VirtioSerial final : public VirtioDevice {
 public:
  struct Config {
    std::string name, bus_name = {};
    uint32_t ports = 31;  // numbers, 1 to kMostPorts; one is a device without MULTIPORT
    bool emergency_write = true;
  };
  VirtioSerial(Config config, GuestMemory& memory, Executor& home, const Options& options);
  ~VirtioSerial() override;

  [[nodiscard]] const std::string& bus_name() const { return config_.bus_name; }
  // The number of a port that comes: what its user says or the first free one. Number 0 is for consoles, for the sake
  // of drivers that know one port only.
  [[nodiscard]] Result<uint32_t> number_for(std::optional<uint64_t> wanted, bool console) const;
  [[nodiscard]] bool has_room(bool console) const { return number_for({}, console).has_value(); }
  [[nodiscard]] std::vector<VirtioSerialPort*> ports() const;
  void attach(VirtioSerialPort& port, uint32_t number);
  void detach(uint32_t number);

  // --- what a port asks ---
  // Bytes that the guest can take now; when that is none and becomes some, the port's accept_input() is called.
  [[nodiscard]] size_t room(uint32_t number);
  void input(uint32_t number, std::span<const uint8_t> bytes);
  void host_changed(uint32_t number);  // somebody is at the other end, or nobody any more
  void writable(uint32_t number) { kick(virtio_serial::transmit_queue(number)); }

 private:
  using Chain = std::unique_ptr<VirtioChain>;
  // Control messages that wait for a buffer, in the order in which they are sent.
  enum Pending : uint8_t { kRemove = 1, kAdd = 2, kConsole = 4, kName = 8, kOpen = 16, kAllPending = 31 };
  struct PortState {
    bool told = false;  // the driver knows the port
    bool ready = false;
    bool guest_open = false;
    bool shown_open = false;  // the driver thinks that somebody is at the other end
    uint8_t pending = 0;
    uint64_t sent = 0;  // bytes of the first chain of its transmit queue, until that is taken
    bool operator==(const PortState&) const = default;
  };
  struct Held {
    Chain receiving, sending;
    uint64_t sent = 0;  // bytes of the latter
  };

  void serve(uint16_t queue) override;
  void read_config(std::span<uint8_t> config) override;
  void config_written(uint32_t offset, std::span<const uint8_t> bytes) override;
  void driver_ready() override;
  void device_reset() override;
  void cancel_requests() override;
  void queue_reset(uint16_t queue) override { (void)queue, cancel_requests(); }
  void save_type(StateWriter& writer) override;
  void restore_type(StateReader& reader) override;
  void apply_type() override;

  void refuse(Chain chain, std::string_view why);
  void drop_old(Chain& chain);
  // Data.
  void serve_receive(uint32_t number);
  bool take_receive_chain(uint32_t number);
  void serve_transmit(uint32_t number);
  bool transmit(uint32_t number);  // false: the port has no room
  // Control.
  void kick_control();
  void send_control();
  void serve_control();
  void control(uint32_t number, uint16_t event, uint16_t value);
  void port_ready(uint32_t number, bool good);
  // Locked.
  [[nodiscard]] bool listens(uint32_t number) const;
  [[nodiscard]] std::optional<uint32_t> first_pending() const;
  [[nodiscard]] std::vector<uint8_t> pop_message(uint32_t number);
  void set_guest_open(uint32_t number, bool open);
  void reconcile(uint32_t number);

  // Static configuration.
  const Config config_;

  // Wiring: by number, null where there is none; changed on the home executor, under the lock.
  std::vector<VirtioSerialPort*> ports_;

  // State, under the lock.
  bool driver_knows_ports_ = false;  // DEVICE_READY
  std::vector<PortState> states_;    // by number

  // Bookkeeping; home executor.
  std::vector<Held> held_;      // by number
  std::vector<uint8_t> bytes_;  // scratch
  bool serving_ = false;
  struct Restored {
    bool driver_knows_ports = false;
    std::vector<PortState> states;
  };
  Restored restored_;
};

}  // namespace kite::devices
