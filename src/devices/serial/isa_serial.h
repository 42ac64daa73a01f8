// A 16550A on the ISA bus with a chardev for a cable: eight ports, an interrupt gated by OUT2.
//
// Transmission is as fast as the host takes it; what it does not take stays in the transmitter, so that the guest sees
// a busy THR until there is room. Reception waits for room in the receiver FIFO.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "async/clock.h"
#include "bus/device.h"
#include "bus/irq_line.h"
#include "chardev/chardev.h"
#include "devices/serial/uart16550.h"

namespace kite::devices {

// COM1..COM4.
struct IsaSerialResource {
  uint16_t port;
  uint8_t irq;
};
inline constexpr std::array<IsaSerialResource, 4> kIsaSerialResources{{{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}}};

class IsaSerial final : public bus::Device, private IoHandler, private ChardevClient {
 public:
  // `chardev` may be null: bytes go nowhere. It outlives the device.
  IsaSerial(std::string path, bus::IrqLine irq, Clock& clock, Chardev* chardev);
  ~IsaSerial() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;
  void start() override;  // goes on receiving and transmitting
  void stop() override;   // takes no more input from the host

  // 8 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

 private:
  uint64_t io_read(uint64_t offset, unsigned size) override;
  void io_write(uint64_t offset, unsigned size, uint64_t value) override;

  // The chardev's side, on its executor.
  size_t can_receive() override;
  void received(std::span<const uint8_t> bytes) override;
  void event(ChardevEvent event) override;
  void writable() override;

  void update();           // lock_ held: the interrupt line
  void restart_timeout();  // lock_ held: the receiver FIFO was touched
  void timeout_fired();
  void transmit();     // no lock held
  void offer_input();  // no lock held

  // Wiring.
  bus::IrqLine irq_;
  Chardev* const chardev_;
  std::shared_ptr<Region> region_;
  bool transmitting_ = false;    // one thread at a time hands bytes over, without the lock
  bool transmit_again_ = false;  // somebody found it transmitting
  bool input_refused_ = false;   // can_receive() answered 0: tell the chardev when there is room
  bool stopped_ = false;

  // State.
  std::mutex lock_;
  Uart16550 uart_;
  int64_t timeout_at_ = Clock::kNever;  // ns; when the character timeout is due

  Timer timer_;  // armed for timeout_at_; derived. Last: its destructor waits for timeout_fired()
};

}  // namespace kite::devices
