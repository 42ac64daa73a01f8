#include "bus/pci_config.h"

#include "support/bits.h"
#include "support/bytes.h"

namespace kite::bus {
namespace {

bool fits(const PciConfigSpace& space, uint16_t offset, unsigned size) {
  return (size == 1 || size == 2 || size == 4) && offset + size <= space.size();
}

}  // namespace

uint32_t PciConfigSpace::read(uint16_t offset, unsigned size) const {
  if (!fits(*this, offset, size)) return static_cast<uint32_t>(low_mask(size * 8));
  return static_cast<uint32_t>(load_le(&bytes[offset], size));
}

void PciConfigSpace::write(uint16_t offset, unsigned size, uint32_t value) {
  if (!fits(*this, offset, size)) return;
  for (unsigned i = 0; i < size; ++i) {
    const auto byte = static_cast<uint8_t>(value >> (i * 8));
    const unsigned at = offset + i;
    const auto kept = static_cast<uint8_t>(bytes[at] & ~writable[at]);
    bytes[at] = static_cast<uint8_t>((kept | (byte & writable[at])) & ~(byte & clear_on_one[at]));
  }
}

void PciConfigSpace::set16(uint16_t offset, uint16_t value) {
  if (fits(*this, offset, sizeof value)) store(&bytes[offset], value);
}
void PciConfigSpace::set32(uint16_t offset, uint32_t value) {
  if (fits(*this, offset, sizeof value)) store(&bytes[offset], value);
}
uint16_t PciConfigSpace::get16(uint16_t offset) const { return static_cast<uint16_t>(read(offset, 2)); }
uint32_t PciConfigSpace::get32(uint16_t offset) const { return read(offset, 4); }

void PciConfigSpace::let_write16(uint16_t offset, uint16_t mask) {
  if (fits(*this, offset, sizeof mask)) store(&writable[offset], mask);
}
void PciConfigSpace::let_write32(uint16_t offset, uint32_t mask) {
  if (fits(*this, offset, sizeof mask)) store(&writable[offset], mask);
}
void PciConfigSpace::let_clear16(uint16_t offset, uint16_t mask) {
  if (fits(*this, offset, sizeof mask)) store(&clear_on_one[offset], mask);
}

}  // namespace kite::bus
