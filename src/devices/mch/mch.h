// Q35 memory controller hub (MCH): the host bridge of the Q35 PC, 00:00.0, 8086:29c0. [Q35] Intel 316966-002.
//
//   0xcf8, 0xcfc  configuration mechanism 1
//   PCIEXBAR      memory-mapped configuration space: 4 KiB a function, 256, 128 or 64 buses
//   0xa0000-0xbffff  PCI, or SMRAM while it is open
//   0xc0000-0xfffff  shadow RAM (PAM)
//   SMRAM, TSEG, SMRAM at SMBASE: RAM for system management mode. Outside of that mode TSEG and SMRAM at SMBASE are
//   closed: reads answer ones, writes go nowhere. smram() is what a processor in that mode sees over the rest.
#pragma once

#include <cstdint>
#include <memory>

#include "bus/pci.h"
#include "devices/io_window.h"
#include "devices/pci_host/config_mechanism.h"
#include "devices/pci_host/shadow_ram.h"

namespace kite::devices {

class Mch final : public bus::PciDevice {
 public:
  struct Config {
    uint64_t ram_below_4g = 0;           // bytes; TSEG is at their end
    uint16_t extended_tseg_mbytes = 16;  // 0: not offered; at most 4096
    bool smram_at_smbase = true;
  };
  struct Wiring {
    Region& system_memory;        // where its windows are placed
    std::shared_ptr<Region> ram;  // offset 0 is address 0
    std::shared_ptr<Region> pci;  // PCI memory; offset 0 is address 0
    bus::PciBus& bus;             // what configuration accesses reach
    IoHandler& reset_control;     // port 0xcf9
  };
  Mch(std::string path, Config config, Wiring wiring);
  ~Mch() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // For port 0xcf8, 8 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& config_ports() const { return config_ports_.region(); }
  // To be shown over system memory to a processor in system management mode.
  [[nodiscard]] const std::shared_ptr<Region>& smram() const { return smram_; }
  // Bytes of RAM, at the end of what is below 4 GiB, that TSEG takes now.
  [[nodiscard]] uint64_t tseg_bytes();

 protected:
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;

 private:
  class Closed final : public IoHandler {  // reads answer ones, writes go nowhere
   public:
    uint64_t io_read(uint64_t, unsigned size) override;
    void io_write(uint64_t, unsigned, uint64_t) override {}
  };

  void set_reset_values();
  // The following hold config_lock_.
  void apply();  // every window as the registers say
  void apply_ecam();
  void apply_smram();
  void apply_tseg(uint64_t bytes);
  void lock_smram(bool locked);
  void smbase_written();
  void protect_smbase();
  [[nodiscard]] uint64_t tseg_size() const;

  uint64_t read_ecam(uint64_t offset, unsigned size);
  void write_ecam(uint64_t offset, unsigned size, uint64_t value);

  // Static configuration.
  const Config static_config_;

  // Wiring.
  Wiring wiring_;
  ConfigMechanism config_ports_;
  ShadowRam shadow_ram_;
  IoWindow<Mch> ecam_window_;
  std::shared_ptr<Region> ecam_;        // 256 MiB; shown through ecam_alias_
  std::shared_ptr<Region> ecam_alias_;  // null while it is off
  Closed closed_;
  std::shared_ptr<Region> vga_window_, open_smram_, open_high_smram_;
  std::shared_ptr<Region> tseg_closed_, smbase_closed_;  // over RAM; the first null while there is no TSEG
  std::shared_ptr<Region> smram_, low_smram_, high_smram_, tseg_, smbase_;  // as smram() shows them

  // Derived from the configuration space, under config_lock_.
  uint64_t shown_ecam_ = 0;  // PCIEXBAR's value that ecam_alias_ shows
  uint64_t shown_tseg_ = 0;  // bytes

  // State: config_ports_' address register and the configuration space, under config_lock_.
};

}  // namespace kite::devices
