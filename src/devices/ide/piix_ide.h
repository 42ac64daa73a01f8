// The IDE function of 82371SB PIIX3 (8086:7010) and 82371AB PIIX4 (8086:7111): two channels at the ports and interrupts
// of the first PCs, with bus masters at BAR 4. [PIIX3] 290550-002, 2.4, 2.7.
//
// The channels decode their ports from power-on: firmware that would switch them on does not run before every guest.
// The timing registers keep what is written and time nothing.
#pragma once

#include <array>
#include <memory>

#include "bus/pci.h"
#include "devices/ide/ide_channel.h"

namespace kite::devices {

class PiixIde final : public bus::PciDevice {
 public:
  enum class Model : uint8_t { kPiix3, kPiix4 };
  struct Wiring {
    GuestMemory& memory;
    std::array<bus::IrqLine, 2> irqs;  // ISA 14 and 15
    std::array<std::string, 2> bus_names = {"ide.0", "ide.1"};
  };
  PiixIde(std::string path, Model model, Wiring wiring);

  [[nodiscard]] AtaBus& bus(unsigned channel) { return channels_[channel].bus(); }
  // For ports 0x1f0 (8 ports) and 0x3f6 (1) of channel 0, 0x170 and 0x376 of channel 1.
  [[nodiscard]] const std::shared_ptr<Region>& command_ports(unsigned channel) const {
    return channels_[channel].command_region();
  }
  [[nodiscard]] const std::shared_ptr<Region>& control_port(unsigned channel) const {
    return channels_[channel].control_region();
  }

  void reset() override;
  void start() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 protected:
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;

 private:
  [[nodiscard]] IdeChannel::Wiring channel_wiring(const Wiring& wiring, unsigned channel);
  void set_reset_values();
  void map_ports();  // config_lock_ held
  uint64_t read_bus_master(uint64_t offset, unsigned size);
  void write_bus_master(uint64_t offset, unsigned size, uint64_t value);

  // Static configuration and wiring.
  const Model model_;
  IoWindow<PiixIde> bus_master_window_;

  // State; the rest is in the configuration space.
  std::array<IdeChannel, 2> channels_;
};

}  // namespace kite::devices
