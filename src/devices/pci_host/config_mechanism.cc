#include "devices/pci_host/config_mechanism.h"

#include "support/bits.h"

namespace kite::devices {
namespace {

constexpr uint64_t kData = 4;          // offset of port 0xcfc
constexpr uint64_t kResetControl = 1;  // of port 0xcf9

// [PCI 3.0] 3.2.2.3.2 reserves address bits 1:0; software that puts the register's own address there and reads 0xcfc is
// common enough that boards OR them in.
uint8_t config_offset(uint32_t address, uint64_t offset) { return static_cast<uint8_t>(address | (offset & 3)); }

}  // namespace

ConfigMechanism::ConfigMechanism(bus::PciBus& bus, IoHandler& reset_control)
    : bus_(bus),
      reset_control_(reset_control),
      window_(*this, &ConfigMechanism::read, &ConfigMechanism::write),
      region_(Region::io("pci-config", 8, window_, {.min_size = 1, .max_size = 4})) {}

uint64_t ConfigMechanism::read_forwarded(uint64_t offset, unsigned size) {
  if (offset > kResetControl || offset + size <= kResetControl) return low_mask(8 * size);
  const auto shift = static_cast<unsigned>(8 * (kResetControl - offset));
  return (low_mask(8 * size) & ~(uint64_t{0xff} << shift)) | reset_control_.io_read(0, 1) << shift;
}

void ConfigMechanism::write_forwarded(uint64_t offset, unsigned size, uint64_t value) {
  if (offset > kResetControl || offset + size <= kResetControl) return;
  reset_control_.io_write(0, 1, (value >> (8 * (kResetControl - offset))) & 0xff);
}

uint64_t ConfigMechanism::read(uint64_t offset, unsigned size) {
  if (offset < kData && size != 4) return read_forwarded(offset, size);
  const uint32_t selected = address();
  if (offset < kData) return selected;
  if ((selected & kEnable) == 0) return low_mask(8 * size);
  return bus_.config_read(static_cast<uint8_t>(selected >> 16), static_cast<uint8_t>(selected >> 8),
                          config_offset(selected, offset), size);
}

void ConfigMechanism::write(uint64_t offset, unsigned size, uint64_t value) {
  if (offset < kData) {
    if (size != 4) return write_forwarded(offset, size, value);
    return set_address(static_cast<uint32_t>(value));
  }
  const uint32_t selected = address();
  if ((selected & kEnable) == 0) return;
  bus_.config_write(static_cast<uint8_t>(selected >> 16), static_cast<uint8_t>(selected >> 8),
                    config_offset(selected, offset), size, static_cast<uint32_t>(value));
}

}  // namespace kite::devices
