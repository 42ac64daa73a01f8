// 82441FX PMC: the host bridge of the i440FX PC, 00:00.0, 8086:1237. [440FX] Intel 290549-001.
//
//   0xcf8  configuration address (dword accesses only; narrower ones pass on to the PCI bus, where 0xcf9 is the PIIX3's
//          reset control register)
//   0xcfc  configuration data
//   0xa0000-0xbffff  PCI, or RAM while SMRAM is open. smram() is what a processor in system management mode sees there;
//          without processors that have the mode the register keeps its bits and its lock but opens nothing
//   0xc0000-0xfffff  thirteen segments of shadow RAM, each RAM, ROM, PCI or "read PCI, write RAM" (PAM)
#pragma once

#include <cstdint>
#include <memory>

#include "bus/pci.h"
#include "devices/pci_host/config_mechanism.h"
#include "devices/pci_host/shadow_ram.h"

namespace kite::devices {

class I440fx final : public bus::PciDevice {
 public:
  struct Config {
    uint32_t cpu_count = 1;  // more than one straps PMCCFG.WPE
    bool smm = false;        // processors have system management mode
  };
  struct Wiring {
    Region& system_memory;        // where the windows at 0xa0000-0xfffff are placed, priority 1
    std::shared_ptr<Region> ram;  // offset 0 is address 0; at least 1 MiB
    std::shared_ptr<Region> pci;  // PCI memory; offset 0 is address 0
    bus::PciBus& bus;             // what configuration accesses reach
    IoHandler& reset_control;     // port 0xcf9 (Piix3::reset_control())
  };
  I440fx(std::string path, Config config, Wiring wiring);
  ~I440fx() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // For port 0xcf8, 8 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& config_ports() const { return config_ports_.region(); }
  // Offset 0 is address 0.
  [[nodiscard]] const std::shared_ptr<Region>& smram() const { return smram_; }

 protected:
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;

 private:
  void set_reset_values();
  // The following hold config_lock_.
  void apply_pam();
  void apply_smram();
  void lock_smram(bool locked);

  // Static configuration.
  const Config static_config_;

  // Wiring.
  Wiring wiring_;
  ConfigMechanism config_ports_;
  ShadowRam shadow_ram_;
  std::shared_ptr<Region> vga_window_, open_smram_;
  std::shared_ptr<Region> smram_, closed_smram_;

  // State: config_ports_' address register and the configuration space, under config_lock_.
};

}  // namespace kite::devices
