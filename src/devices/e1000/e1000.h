// e1000: Intel's 82540EM gigabit network card. [8254x] PCI/PCI-X Family of Gigabit Ethernet Controllers Software
// Developer's Manual, revision 4.0.
//
// Registers answer on any thread. Frames move on the back end's executor: a write of a ring's tail only asks for that.
// What the ring has no room for waits in the back end; what the back end has no room for waits in the packet at hand.
// Delays of interrupts (RDTR, RADV, TIDV, TADV, ITR) and negotiation of the link take guest time; all deadlines share
// one timer. Descriptors are written back at once, as [8254x] 3.2.5 and 3.4.2 allow whatever the thresholds say.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/clock.h"
#include "async/executor.h"
#include "bus/pci.h"
#include "devices/e1000/e1000_eeprom.h"
#include "devices/e1000/e1000_phy.h"
#include "devices/e1000/e1000_registers.h"
#include "devices/io_window.h"
#include "memory/guest_memory.h"
#include "net/net_backend.h"

namespace kite::devices {

class E1000 final : public bus::PciDevice, private net::NetClient {
 public:
  static constexpr size_t kMostRom = 1 << 20;
  struct Config {
    net::MacAddress mac{};
    net::NetBackend* backend = nullptr;  // null: there is no cable
    std::vector<uint8_t> rom;            // firmware of the card's own; empty: none
  };
  struct Wiring {
    GuestMemory& memory;
    Clock& clock;    // guest time
    Executor& home;  // the back end's
  };
  static Result<std::unique_ptr<E1000>> create(std::string path, Config config, const Wiring& wiring);
  ~E1000() override;

  void reset() override;
  void start() override;
  void stop() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  static constexpr int64_t kNegotiationNs = 100'000'000;
  static constexpr size_t kMostPacket = (256 << 10) + 255;  // 3.5.1: payload of a segmented packet, and its header
  static constexpr unsigned kStepsATurn = 256;              // descriptors and frames, then others have theirs
  static constexpr size_t kMostBuffers = 4096;              // descriptors that are looked at for one frame

  // 3.3.6: what a context descriptor says.
  struct Context {
    uint8_t ip_start = 0, ip_place = 0, l4_start = 0, l4_place = 0, command = 0, header = 0;
    uint16_t ip_end = 0, l4_end = 0, mss = 0;
    bool operator==(const Context&) const = default;
  };
  // The packet that is being put together or sent.
  struct Packet {
    std::vector<uint8_t> bytes;
    bool started = false, whole = false;  // its first, its last descriptor was read
    bool bad = false;                     // it is too long, or not in RAM
    uint64_t first = 0, last = 0;         // second halves of these descriptors
    uint32_t sent = 0, frames = 0;        // payload bytes and frames that are out
    bool operator==(const Packet&) const = default;
  };
  enum Deadline : uint8_t { kRxPacket, kRxAbsolute, kTxPacket, kTxAbsolute, kNegotiation, kThrottle, kDeadlines };
  struct State {
    E1000Registers registers;
    uint32_t port_address = 0;  // IOADDR
    Context plain, segmented;   // 3.3.5: of two contexts TSE chooses
    Packet packet;
    std::array<int64_t, kDeadlines> deadlines{};  // 0: none
    bool line = false;                            // INTA
  };
  struct Buffer {
    uint32_t index;
    e1000::Descriptor descriptor;
  };
  struct Ring {
    uint32_t head, tail, count;
  };

  E1000(std::string path, Config config, const Wiring& wiring);
  Result<> add_rom(const std::vector<uint8_t>& image);
  uint64_t read_memory(uint64_t offset, unsigned size);
  void write_memory(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_ports(uint64_t offset, unsigned size);
  void write_ports(uint64_t offset, unsigned size, uint64_t value);
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;

  // NetClient.
  net::Delivery receive(net::Frame frame) override;
  void writable() override { ask_to_transmit(); }
  void link_changed() override;
  void backend_gone() override;
  [[nodiscard]] Description describe() const override;

  // Any thread; the work is done at home.
  void ask_to_transmit();
  void ask_to_receive();
  void ask_for_both() { ask_to_transmit(), ask_to_receive(); }
  void fire();  // the timer

  // The following hold lock_.
  [[nodiscard]] uint32_t read_register(uint32_t offset);
  void write_register(uint32_t offset, uint32_t value);
  void write_control(uint32_t value);
  void write_eecd(uint32_t value);
  void write_mdic(uint32_t value);
  void reset_mac();
  void update_link();
  void raise(uint32_t causes);
  void drive_interrupt();
  void arm();
  void set_deadline(Deadline deadline, int64_t delay) { state_.deadlines[deadline] = clock_.now() + delay; }
  void delay_interrupt(Deadline packet, uint32_t delay, Deadline absolute, uint32_t most, uint32_t cause);
  void end_delay(Deadline packet, Deadline absolute, uint32_t cause);
  [[nodiscard]] bool loops() const;
  [[nodiscard]] bool carries() const;  // frames go somewhere
  [[nodiscard]] Ring ring(uint32_t base) const;
  void move_head(uint32_t base, uint32_t head) { state_.registers[base + (e1000::RDH - e1000::RDBAL)] = head; }

  // e1000_receive.cc.
  [[nodiscard]] bool wanted(net::Frame frame, bool& exact) const;
  [[nodiscard]] bool passes_vlan_filter(net::Frame frame) const;
  [[nodiscard]] bool in_hash_table(const net::MacAddress& to) const;
  [[nodiscard]] bool is_tagged(net::Frame frame) const;
  [[nodiscard]] net::Delivery take(net::Frame frame);
  [[nodiscard]] net::Delivery find_buffers(size_t bytes, std::vector<Buffer>& buffers);
  void fill(net::Frame frame, const std::vector<Buffer>& buffers, uint64_t last);
  [[nodiscard]] uint64_t result_of(net::Frame frame, bool exact, uint16_t tag, bool tagged) const;
  [[nodiscard]] uint32_t buffer_bytes() const;
  void received(net::Frame frame, uint32_t free_before, uint32_t free_after, uint32_t count);
  void overrun();

  // e1000_transmit.cc.
  void transmit();                        // takes the lock
  [[nodiscard]] net::Delivery put_out();  // without the lock
  [[nodiscard]] bool may_transmit() const;
  [[nodiscard]] bool fetch();  // false: there is no descriptor
  void take_context(const e1000::Descriptor& descriptor);
  void take_data(const e1000::Descriptor& descriptor);
  void retire(uint64_t rest);       // writes a descriptor back and goes on to the next
  [[nodiscard]] bool next_frame();  // to frame_; false: all of the packet is out
  [[nodiscard]] bool next_segment();
  void finish_headers(const Context& context, size_t payload, bool last);
  void put_checksums(const Context& context);
  void sent(size_t payload);
  [[nodiscard]] bool segments() const;
  [[nodiscard]] const Context& context() const { return segments() ? state_.segmented : state_.plain; }

  // Wiring.
  GuestMemory& memory_;
  Clock& clock_;
  Executor& home_;
  net::NetBackend* backend_;
  IoWindow<E1000> memory_window_, port_window_;
  std::shared_ptr<E1000*> self_;  // what is posted holds it: null once the card is gone

  // State; the rest is in the configuration space.
  mutable std::mutex lock_;
  State state_;
  E1000Phy phy_;
  E1000Eeprom eeprom_;

  // Derived, or bookkeeping.
  bool running_ = false;
  uint32_t life_ = 0;  // resets so far
  std::atomic<bool> transmit_asked_{false}, receive_asked_{false};
  std::vector<uint8_t> frame_;    // what goes out next; home
  size_t payload_ = 0;            // of it, with segments; home
  std::vector<uint8_t> arrived_;  // scratch: a frame as it is stored
  std::vector<Buffer> buffers_;   // scratch
  Timer timer_;
};

}  // namespace kite::devices
