// ICH9 SMBus controller: 00:1f.3, 8086:2930. [ICH9] 316972-004, chapter 20; [SMBus 2.0] 5.5.
//
// Carries out quick, byte, byte data, word data and block commands at once. On the bus are 256-byte EEPROMs, as memory
// modules have them, at 0x50 and up.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "bus/pci.h"
#include "devices/io_window.h"

namespace kite::devices {

class Ich9Smbus final : public bus::PciDevice {
 public:
  using Eeprom = std::array<uint8_t, 256>;
  static constexpr uint8_t kFirstEeprom = 0x50;
  static constexpr size_t kMostEeproms = 8;
  // `eeproms`: their contents as delivered; guests may write them.
  Ich9Smbus(std::string path, std::vector<Eeprom> eeproms);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  struct State {
    uint8_t status = 0, control = 0, command = 0, address = 0, data0 = 0, data1 = 0, aux_control = 0;
    uint8_t block_at = 0;  // below 32
    std::array<uint8_t, 32> block{};
  };
  // The following hold lock_.
  [[nodiscard]] Eeprom* target();
  void run_command();
  void block_command(Eeprom& eeprom, bool reads);
  uint64_t read(uint64_t offset, unsigned size);
  void write(uint64_t offset, unsigned size, uint64_t value);

  // Wiring.
  IoWindow<Ich9Smbus> window_;

  // State; the rest is in the configuration space, under config_lock_.
  std::mutex lock_;
  State state_;
  std::vector<Eeprom> eeproms_;           // survive a reset
  std::vector<uint8_t> eeprom_pointers_;  // where each goes on reading
};

}  // namespace kite::devices
