// 82441FX PMC: the host bridge of the i440FX PC, 00:00.0, 8086:1237. [440FX] Intel 290549-001.
//
//   0xcf8  configuration address (dword accesses only; narrower ones pass on to the PCI bus, where 0xcf9 is the PIIX3's
//          reset control register)
//   0xcfc  configuration data
//   0xa0000-0xbffff  always shows PCI: this machine offers no system management mode, so the SMRAM register keeps its
//          bits and its lock but opens nothing
//   0xc0000-0xfffff  thirteen segments of shadow RAM, each RAM, ROM, PCI or "read PCI, write RAM" (PAM)
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include "bus/pci.h"
#include "devices/io_window.h"
#include "memory/address_space.h"

namespace kite::devices {

class I440fx final : public bus::PciDevice {
 public:
  struct Config {
    uint32_t cpu_count = 1;  // more than one straps PMCCFG.WPE
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
  [[nodiscard]] const std::shared_ptr<Region>& config_ports() const { return config_ports_region_; }

 protected:
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;

 private:
  // A segment of 0xc0000-0xfffff: what it can show, one of them enabled.
  struct Shadow {
    std::shared_ptr<Region> pci;
    std::shared_ptr<Region> ram;    // read-only while only reads go to DRAM
    std::shared_ptr<Region> split;  // reads go to PCI, writes to DRAM: trapped
  };
  static constexpr unsigned kSegments = 13;

  void set_reset_values();
  void build_windows();
  // The following hold config_lock_.
  void apply_pam();
  void lock_smram(bool locked);

  uint64_t read_config_port(uint64_t offset, unsigned size);
  void write_config_port(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_forwarded(uint64_t offset, unsigned size);
  void write_forwarded(uint64_t offset, unsigned size, uint64_t value);
  [[nodiscard]] uint32_t confadd();
  // `offset` from 0xc0000.
  uint64_t read_split(uint64_t offset, unsigned size);
  void write_split(uint64_t offset, unsigned size, uint64_t value);
  void refresh_split_view();

  // Static configuration.
  const Config static_config_;

  // Wiring.
  Wiring wiring_;
  IoWindow<I440fx> config_ports_;
  std::shared_ptr<Region> config_ports_region_;
  std::shared_ptr<Region> vga_window_;
  std::array<Shadow, kSegments> shadows_;
  IoWindow<I440fx> split_;
  std::shared_ptr<Region> split_region_;
  // What a split segment reaches: DRAM at its own addresses, PCI memory 1 MiB higher. Committed on demand.
  AddressSpace split_view_;
  std::mutex split_view_lock_;

  // State; the rest is in the configuration space, under config_lock_.
  struct State {
    uint32_t confadd = 0;
  };
  std::mutex lock_;
  State state_;
};

}  // namespace kite::devices
