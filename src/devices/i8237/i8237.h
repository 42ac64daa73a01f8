// The two 8237A DMA controllers of an AT with their page registers: ports 0x00-0x0f (channels 0-3, bytes), 0xc0-0xdf
// (channels 4-7, words; channel 4 carries the first controller), 0x80-0x8f. [Intel 8237A], [AT TRM].
//
// A device owns a channel: it moves its data by to_memory() and from_memory(), which take as much as the channel was
// programmed for, and is told by its DmaClient when software has changed something that lets it go on.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "bus/device.h"
#include "devices/i8237/i8237_regs.h"
#include "devices/io_window.h"
#include "memory/guest_memory.h"

namespace kite::devices {

class DmaClient {
 public:
  virtual ~DmaClient() = default;
  // The channel may take data now. On the thread of a register access, without a lock.
  virtual void dma_ready() = 0;
};

class I8237 final : public bus::Device {
 public:
  static constexpr unsigned kAllChannels = 2 * i8237_regs::kChannels;
  I8237(std::string path, GuestMemory& memory);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // 16 bytes at 0x00, 32 at 0xc0, 16 at 0x80.
  [[nodiscard]] const std::shared_ptr<Region>& byte_ports() const { return regions_[0]; }
  [[nodiscard]] const std::shared_ptr<Region>& word_ports() const { return regions_[1]; }
  [[nodiscard]] const std::shared_ptr<Region>& page_ports() const { return regions_[2]; }

  // --- the devices' side; any thread, with the device's lock held or not

  // Before the machine runs. `client` outlives the machine's run; null: the channel is free again.
  void set_client(unsigned channel, DmaClient* client);
  struct Transfer {
    size_t bytes = 0;             // moved; less than offered when the count ends or the channel is masked
    bool terminal_count = false;  // the count has ended
  };
  // A device has data for memory. On a channel programmed to verify the bytes count and go nowhere.
  Transfer to_memory(unsigned channel, std::span<const uint8_t> data);
  // A device wants data from memory.
  Transfer from_memory(unsigned channel, std::span<uint8_t> data);
  void set_request(unsigned channel, bool level);  // DREQ, as the status register shows it

 private:
  struct Channel {
    uint16_t base_address = 0, base_count = 0, address = 0, count = 0;
    uint8_t mode = 0;
  };
  struct Chip {
    std::array<Channel, i8237_regs::kChannels> channels{};
    uint8_t command = 0, mask = 0xf, terminal_counts = 0, software_requests = 0, requests = 0;
    bool high_byte = false;  // the flip-flop
  };
  struct State {
    std::array<Chip, 2> chips{};
    std::array<uint8_t, i8237_regs::kPages> pages{};
  };

  uint64_t read_bytes(uint64_t offset, unsigned size);
  void write_bytes(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_words(uint64_t offset, unsigned size);
  void write_words(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_page(uint64_t offset, unsigned size);
  void write_page(uint64_t offset, unsigned size, uint64_t value);
  uint8_t read(unsigned chip, unsigned reg);
  void write(unsigned chip, unsigned reg, uint8_t value);
  void wake(unsigned chip);
  // The following hold lock_.
  uint8_t read_register(Chip& chip, unsigned reg);
  void write_register(Chip& chip, unsigned reg, uint8_t value);
  static void put_byte(Chip& chip, uint16_t& base, uint16_t& current, uint8_t value);
  template <class Move>
  Transfer move(unsigned channel, size_t bytes, uint8_t transfer, Move move_piece);
  [[nodiscard]] bool may_run(unsigned channel) const;

  // Wiring.
  GuestMemory& memory_;
  IoWindow<I8237> bytes_window_, words_window_, pages_window_;
  std::array<std::shared_ptr<Region>, 3> regions_;
  std::array<DmaClient*, kAllChannels> clients_{};

  // State.
  std::mutex lock_;
  State state_;
};

}  // namespace kite::devices
