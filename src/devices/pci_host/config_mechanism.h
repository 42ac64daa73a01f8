// Configuration mechanism 1, a part of every PC host bridge: ports 0xcf8 (address) and 0xcfc (data). [PCI 3.0]
// 3.2.2.3.2. The address register answers dword accesses only; narrower ones pass on to the PCI bus, where the reset
// control register at 0xcf9 is all that listens, on its byte lane.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "bus/pci.h"
#include "devices/io_window.h"

namespace kite::devices {

class ConfigMechanism {
 public:
  static constexpr uint16_t kAddressPort = 0xcf8, kDataPort = 0xcfc;
  static constexpr uint32_t kEnable = 1u << 31;
  static constexpr uint32_t kWritable = 0x80ffffff;

  ConfigMechanism(bus::PciBus& bus, IoHandler& reset_control);
  // For port 0xcf8, 8 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }

  // State of the owner's section: the address register, within kWritable.
  [[nodiscard]] uint32_t address() const { return address_.load(std::memory_order_relaxed); }
  void set_address(uint32_t address) { address_.store(address & kWritable, std::memory_order_relaxed); }

 private:
  uint64_t read(uint64_t offset, unsigned size);
  void write(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_forwarded(uint64_t offset, unsigned size);
  void write_forwarded(uint64_t offset, unsigned size, uint64_t value);

  bus::PciBus& bus_;
  IoHandler& reset_control_;
  IoWindow<ConfigMechanism> window_;
  std::shared_ptr<Region> region_;
  std::atomic<uint32_t> address_{0};
};

}  // namespace kite::devices
