// xHCI host controller: qemu-xhci and nec-usb-xhci. [xHCI] 1.2 as a controller of version 1.0: 64 slots, 16
// interrupters, USB 2 and USB 3 root ports, MSI-X, MSI or INTx. Without isochronous endpoints, streams, hubs and
// virtualization; interrupts are not moderated.
//
// A doorbell is answered on the thread that rings it. A transfer that a device is not ready for stays where it is in
// the guest's ring until the device says that it is; one that an event ring has no room for, until there is.
#pragma once

#include <array>
#include <mutex>
#include <optional>
#include <vector>

#include "async/clock.h"
#include "bus/pci.h"
#include "bus/pci_msi.h"
#include "devices/io_window.h"
#include "devices/usb/usb_bus.h"
#include "devices/xhci/xhci_regs.h"
#include "memory/guest_memory.h"

namespace kite::devices {

class Xhci final : public bus::PciDevice, private UsbController {
 public:
  struct Config {
    std::string bus_name;
    uint16_t vendor = 0x1b36, device = 0x000d;
    uint8_t revision = 1;
    unsigned ports2 = 4, ports3 = 4;  // 0 to 15; connector N has both where both are there
    std::optional<bus::PcieType> express = {};
  };
  Xhci(std::string path, Config config, GuestMemory& memory, Clock& clock);
  ~Xhci() override;

  [[nodiscard]] UsbBus& usb() { return bus_; }

  void reset() override;
  void start() override;
  void stop() override { continue_timer_.disarm(); }
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  static constexpr unsigned kMostTrbs = 4096;  // of one transfer
  static constexpr size_t kMostBytes = size_t{16} << 20;
  static constexpr unsigned kMostLinks = 64;     // in a row
  static constexpr unsigned kMostInTurn = 1024;  // commands, or transfers of an endpoint, before others' turn
  static constexpr unsigned kEventRoom = 4;      // what one of them may take
  static constexpr int64_t kMicroframeNs = 125'000;

  struct Ring {
    uint64_t dequeue = 0;
    bool cycle = false;
  };
  struct Endpoint {
    uint8_t state = 0, type = 0;
    Ring ring;
    bool parked = false;   // the device was not ready for the transfer at the head
    bool put_off = false;  // there is something to do once there is room
  };
  struct Slot {
    bool enabled = false;
    uint8_t state = 0;
    uint8_t port = 0;      // root port, from 1; 0: none yet
    uint64_t context = 0;  // the device context, output
    std::array<Endpoint, xhci::kEndpoints> endpoints{};
  };
  struct Interrupter {
    uint32_t management = 0, moderation = 0, table_size = 0;
    uint64_t table = 0, dequeue = 0;
    // The segment, and where the next event goes.
    uint64_t segment = 0;
    uint32_t size = 0, next = 0;
    bool cycle = true;
  };
  struct RootPort {
    uint32_t status = 0;
    bool event_due = false;
  };
  // A transfer, gathered from its TRBs.
  struct TransferTrb {
    xhci::Trb trb;
    uint64_t address;
  };
  struct Transfer {
    std::vector<TransferTrb> trbs;
    Ring after;
  };
  enum class Fetched : uint8_t { kNone, kReady, kBroken };
  struct Context {
    std::array<uint32_t, 8> words{};
  };

  uint64_t read_register(uint64_t offset, unsigned size);
  void write_register(uint64_t offset, unsigned size, uint64_t value);
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;
  void port_attached(unsigned port) override;
  void port_detached(unsigned port) override;
  void endpoint_ready(unsigned port, uint8_t endpoint) override;
  static std::vector<UsbBus::Port> root_ports(const Config& config);

  // xhci_saved.cc. False: impossible.
  bool restore_slots(std::span<const uint8_t> bytes, std::array<Slot, xhci::kSlots>& slots) const;
  bool restore_ports(std::span<const uint8_t> bytes, std::vector<RootPort>& ports) const;

  // The following hold lock_. xhci.cc: registers and ports.
  void set_reset_values();
  [[nodiscard]] uint32_t read_capability(uint64_t offset) const;
  [[nodiscard]] uint32_t read_protocol(uint64_t offset) const;
  [[nodiscard]] uint32_t read_operational(uint64_t offset) const;
  [[nodiscard]] uint32_t read_runtime(uint64_t offset) const;
  void write_operational(uint64_t offset, uint32_t value);
  void write_command(uint32_t value);
  void write_ring_control(uint32_t value);
  void write_runtime(uint64_t offset, uint32_t value);
  void events_taken(unsigned interrupter);
  void ring_doorbell(unsigned slot, uint32_t value);
  [[nodiscard]] bool running() const { return (state_.command & xhci::kRun) != 0; }
  [[nodiscard]] bool is_super(unsigned port) const { return port >= config_of_.ports2; }
  [[nodiscard]] unsigned port_count() const { return config_of_.ports2 + config_of_.ports3; }
  void connect(unsigned port);
  void write_portsc(unsigned port, uint32_t value);
  void write_link(unsigned port, uint32_t link);
  void reset_port(unsigned port, bool warm);
  void port_changed(unsigned port, uint32_t changes);
  void tell_ports();

  // xhci_rings.cc: memory, event rings, interrupts.
  [[nodiscard]] bool read_memory(uint64_t address, std::span<uint8_t> to);
  bool write_memory(uint64_t address, std::span<const uint8_t> from);
  template <class T>
  [[nodiscard]] bool load(uint64_t address, T& value) {
    return read_memory(address, {reinterpret_cast<uint8_t*>(&value), sizeof value});
  }
  template <class T>
  bool store(uint64_t address, const T& value) {
    return write_memory(address, {reinterpret_cast<const uint8_t*>(&value), sizeof value});
  }
  void die(std::string_view why, uint32_t status);
  [[nodiscard]] Fetched fetch(Ring& ring, xhci::Trb& trb, uint64_t& address);
  void open_event_ring(Interrupter& interrupter);
  [[nodiscard]] unsigned event_room(unsigned interrupter);
  void post_event(unsigned interrupter, xhci::Trb event, bool interrupts = true);
  void raise(unsigned interrupter);
  void drive_interrupts();

  // xhci_commands.cc.
  void run_commands();
  struct Completion {
    xhci::Code code;
    unsigned slot;
  };
  [[nodiscard]] Completion run_command(const xhci::Trb& trb);
  [[nodiscard]] Completion enable_slot();
  [[nodiscard]] xhci::Code disable_slot(Slot& slot);
  [[nodiscard]] xhci::Code address_device(unsigned number, const xhci::Trb& trb);
  [[nodiscard]] xhci::Code configure_endpoint(unsigned number, const xhci::Trb& trb);
  [[nodiscard]] xhci::Code evaluate_context(unsigned number, const xhci::Trb& trb);
  [[nodiscard]] xhci::Code reset_device(unsigned number);
  [[nodiscard]] xhci::Code endpoint_command(unsigned number, const xhci::Trb& trb);
  [[nodiscard]] xhci::Code stop_endpoint(unsigned number, unsigned index);
  [[nodiscard]] xhci::Code set_dequeue(unsigned number, unsigned index, const xhci::Trb& trb);
  [[nodiscard]] bool set_device_address(UsbDevice& device, unsigned address);
  [[nodiscard]] xhci::Code check_endpoint(unsigned index, const Context& context) const;
  void open_endpoint(Endpoint& endpoint, const Context& context);
  [[nodiscard]] xhci::Code drop_endpoints(unsigned number);
  void tell_endpoint(unsigned number, unsigned index);  // its state, to the output context
  void tell_slot(unsigned number, uint8_t state);

  // xhci_transfers.cc.
  void serve(unsigned number, unsigned index);
  void serve_put_off();
  [[nodiscard]] Fetched fetch_transfer(const Ring& ring, Transfer& transfer);
  [[nodiscard]] bool do_transfer(unsigned number, unsigned index, const Transfer& transfer);
  [[nodiscard]] bool gather(const Transfer& transfer, size_t total);
  [[nodiscard]] bool scatter(const Transfer& transfer, size_t moved);
  [[nodiscard]] UsbAnswer ask_device(unsigned number, unsigned index, const Transfer& transfer, size_t total, bool in);
  void report(unsigned number, unsigned index, const Transfer& transfer, xhci::Code code, size_t moved);
  void halt_endpoint(unsigned number, unsigned index, xhci::EndpointState state);
  [[nodiscard]] UsbDevice* device_of(const Slot& slot) const;
  void put_off(Endpoint& endpoint);

  // Static configuration.
  const Config config_of_;

  // Wiring.
  GuestMemory& memory_;
  Clock& clock_;
  IoWindow<Xhci> window_;
  bus::MsixCapability msix_;
  bus::MsiCapability msi_;
  UsbBus bus_;

  // State; the rest is in the configuration space.
  struct State {
    uint32_t command = 0, status = 0, notifications = 0, config = 0;
    Ring commands;
    bool commands_running = false;
    bool commands_put_off = false;
    uint64_t contexts = 0;  // DCBAAP
    std::array<Interrupter, xhci::kInterrupters> interrupters{};
    std::vector<RootPort> ports;
    std::array<Slot, xhci::kSlots> slots{};  // slot N is at N - 1
  };
  std::mutex lock_;  // before a USB device's
  State state_;
  Timer continue_timer_;
  std::vector<uint8_t> data_;  // of the transfer at hand
};

}  // namespace kite::devices
