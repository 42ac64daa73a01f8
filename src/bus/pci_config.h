// The configuration space of one PCI function with its masks: 256 bytes, or 4096 for PCI Express. A pure chip: knows no
// bus and has no lock. [PCI 3.0] 6.1, [PCIe 3.0] 7.2.
#pragma once

#include <cstdint>
#include <vector>

namespace kite::bus {

struct PciConfigSpace {
  static constexpr uint16_t kConventional = 256, kExpress = 4096;

  explicit PciConfigSpace(uint16_t size = kConventional) : bytes(size), writable(size), clear_on_one(size), own(size) {}
  std::vector<uint8_t> bytes;
  std::vector<uint8_t> writable;
  std::vector<uint8_t> clear_on_one;
  std::vector<uint8_t> own;  // bits that the device changes by itself: a restored state may hold any value

  [[nodiscard]] uint16_t size() const { return static_cast<uint16_t>(bytes.size()); }
  // `size` is 1, 2 or 4 at any offset; what would reach beyond the last byte reads all ones and is not written.
  [[nodiscard]] uint32_t read(uint16_t offset, unsigned size) const;
  void write(uint16_t offset, unsigned size, uint32_t value);
  void set16(uint16_t offset, uint16_t value);
  void set32(uint16_t offset, uint32_t value);
  [[nodiscard]] uint16_t get16(uint16_t offset) const;
  [[nodiscard]] uint32_t get32(uint16_t offset) const;
  // Bits a guest may write, and bits it clears by writing ones, of a whole register.
  void let_write16(uint16_t offset, uint16_t mask);
  void let_write32(uint16_t offset, uint32_t mask);
  void let_clear16(uint16_t offset, uint16_t mask);
};

}  // namespace kite::bus
