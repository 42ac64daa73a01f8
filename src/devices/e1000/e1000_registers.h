// The 82540EM's registers as memory: what each holds after a reset, and which of its bits software may write. A pure
// chip: what writing and reading does besides is E1000's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/e1000/e1000_regs.h"
#include "net/net_backend.h"

namespace kite::devices {

class E1000Registers {
 public:
  using Words = std::array<uint32_t, e1000::kRegisterEnd / sizeof(uint32_t)>;

  void reset();
  // Offsets are those of registers, within kRegisterEnd.
  [[nodiscard]] uint32_t& operator[](uint32_t offset) { return words_[offset / sizeof(uint32_t)]; }
  [[nodiscard]] uint32_t operator[](uint32_t offset) const { return words_[offset / sizeof(uint32_t)]; }
  // The bits that software writes; the others stay.
  void write(uint32_t offset, uint32_t value);
  [[nodiscard]] uint64_t pair(uint32_t low) const { return (*this)[low] | uint64_t{(*this)[low + 4]} << 32; }

  // The card's own address, entry 0 of the receive addresses. 13.5.2, 13.5.3.
  void set_mac(const net::MacAddress& mac);
  [[nodiscard]] net::MacAddress mac(uint32_t entry = 0) const;

  // Statistics stop at the highest value and go back to 0 when they are read. 13.7.
  void count(uint32_t offset, uint32_t more = 1);
  void count_bytes(uint32_t low, uint64_t more);
  void count_length(uint32_t first, size_t bytes);  // PRC64 and PTC64, the first of their classes
  [[nodiscard]] uint32_t take_statistic(uint32_t offset);

  [[nodiscard]] const Words& words() const { return words_; }
  void set_words(const Words& words) { words_ = words; }
  // No register has a bit that it cannot have.
  [[nodiscard]] static bool possible(const Words& words);

 private:
  Words words_{};
};

}  // namespace kite::devices
