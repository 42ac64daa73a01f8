// UHCI host controller with two ports for full-speed devices: function 2 of the PIIX3, and those of the ICH9. [UHCI]
// Design Guide 1.1.
//
// Frames begin each millisecond of guest time. While nothing but "not now" is answered the controller looks only every
// kQuietFrames, at all frames that have passed; a register access, or a device that has something to say, makes it look
// at once. So the guest sees every frame done in time that it can ask for, and an idle tablet costs the host little.
//
// Data toggles are not compared: no packet is ever lost, so the two ends cannot come apart.
#pragma once

#include <array>
#include <mutex>

#include "async/clock.h"
#include "bus/pci.h"
#include "devices/io_window.h"
#include "devices/uhci/uhci_regs.h"
#include "devices/usb/usb_bus.h"
#include "memory/guest_memory.h"

namespace kite::devices {

class Uhci final : public bus::PciDevice, private UsbController {
 public:
  struct Model {
    std::string_view type;
    uint16_t vendor, device;
    uint8_t revision, pin;
  };
  // Null: there is none of this name.
  static const Model* find_model(std::string_view type);
  static std::span<const Model> models();

  struct Wiring {
    GuestMemory& memory;
    Clock& clock;
    std::string bus_name;
  };
  Uhci(std::string path, const Model& model, Wiring wiring);
  ~Uhci() override;

  [[nodiscard]] UsbBus& usb() { return bus_; }

  void reset() override;
  void start() override;
  void stop() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  static constexpr int64_t kFrameNs = 1'000'000;
  static constexpr unsigned kQuietAfter = 32;    // frames in which nothing was transferred
  static constexpr unsigned kQuietFrames = 10;   // looked at together then
  static constexpr unsigned kMostLate = 64;      // frames that are made up for
  static constexpr unsigned kFrameBytes = 1500;  // 12 Mbit/s
  static constexpr unsigned kPacketOverhead = 13;
  static constexpr unsigned kMostLinks = 512;  // followed in a frame

  struct Td {
    uint32_t link, status, token, buffer;
  };
  enum class Outcome : uint8_t { kAdvance, kStay, kFatal };
  struct Frame {
    unsigned bytes = 0, links = 0;
    bool progress = false;
  };

  uint64_t read_port(uint64_t offset, unsigned size);
  void write_port(uint64_t offset, unsigned size, uint64_t value);
  void port_attached(unsigned port) override;
  void port_detached(unsigned port) override;
  void endpoint_ready(unsigned port, uint8_t endpoint) override;

  // The following hold lock_.
  void set_reset_values();
  void write_command(uint16_t value);
  void write_portsc(unsigned port, uint16_t value);
  void connect(unsigned port);
  void wake_bus();
  void reset_bus_device(unsigned port);
  void catch_up();
  void arm();
  void run_frame();
  void walk(uint32_t link, Frame& frame);
  [[nodiscard]] bool walk_queue(uint32_t& link, Frame& frame, bool& moved);
  [[nodiscard]] Outcome execute(uint32_t address, Td& td, Frame& frame);
  [[nodiscard]] UsbAnswer transact(const Td& td, std::span<uint8_t> data, Frame& frame);
  [[nodiscard]] Outcome complete(Td& td, const UsbAnswer& answer, uint32_t length);
  [[nodiscard]] Outcome failed(Td& td, uint32_t why, bool at_once);
  [[nodiscard]] UsbDevice* device_at(uint8_t address);
  template <class T>
  bool load(uint32_t address, T& value);
  bool store(uint32_t address, uint32_t value);
  bool fatal(uint16_t status);
  void drive_interrupt();

  // Wiring.
  GuestMemory& memory_;
  Clock& clock_;
  IoWindow<Uhci> window_;
  UsbBus bus_;

  // State; the rest is in the configuration space.
  struct State {
    uint16_t command = 0, status = 0, enables = 0, frame = 0;
    uint32_t list = 0;
    uint8_t sof = 0;
    std::array<uint16_t, uhci::kPorts> ports{};
    bool completed = false, was_short = false;     // what set kInterrupt
    bool complete_due = false, short_due = false;  // at the end of this frame
    int64_t next_frame = 0;                        // while it runs
    uint16_t quiet = 0;                            // frames without a transfer, up to kQuietAfter
  };
  std::mutex lock_;  // before a USB device's
  State state_;
  Timer frame_timer_;
};

}  // namespace kite::devices
