// 82371AB PIIX4 function 3: power management, 00:01.3, 8086:7113. [PIIX4] Intel 290562-001; [ACPI 6.4] 4.8.
//
// PM1 event and control registers, the 3.579545 MHz timer (24 bits), a general purpose event block and the APM ports.
// Not offered: the SMBus host controller (configuration 0x90-0xd6 reads as absent), SMM, device monitors, throttling.
// What the sleep types mean is the board's affair.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "bus/irq_line.h"
#include "bus/pci.h"
#include "devices/acpi_pm/acpi_pm.h"
#include "devices/io_window.h"

namespace kite::devices {

class Piix4Pm final : public bus::PciDevice {
 public:
  struct Wiring {
    Clock& clock;      // guest time; the timer counts from its 0
    bus::IrqLine sci;  // active while an enabled event is pending and SCI_EN is set
    Region& ports;     // where the I/O space appears at PMBA
    // SLP_EN with this SLP_TYP; called with no lock held, on the writing vCPU's thread.
    std::function<void(uint8_t type)> sleep;
    std::function<void()> smi = {};  // SMI#, likewise; none where processors have no system management mode
  };
  Piix4Pm(std::string path, Wiring wiring);
  ~Piix4Pm() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // For port 0xafe0, 4 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& gpe_region() const { return gpe_region_; }
  // For port 0xb2, 2 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& apm_region() const { return apm_region_; }

  // The host's side, any thread.
  void press_power_button();
  [[nodiscard]] AcpiPm& pm() { return pm_; }
  void raise_gpe(unsigned event) { pm_.raise_gpe(event); }  // 0..15

 protected:
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;

 private:
  struct State {  // besides that of pm_
    uint8_t apm_command = 0;
    uint8_t apm_status = 0;
  };

  void set_reset_values();
  void map_io_space();  // config_lock_ held
  uint64_t read_pm(uint64_t offset, unsigned size);
  void write_pm(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_gpe(uint64_t offset, unsigned size);
  void write_gpe(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_apm(uint64_t offset, unsigned size);
  void write_apm(uint64_t offset, unsigned size, uint64_t value);

  // Wiring.
  Wiring wiring_;
  IoWindow<Piix4Pm> pm_block_, gpe_block_, apm_block_;
  std::shared_ptr<Region> pm_region_, gpe_region_, apm_region_;

  // State; the rest is in the configuration space, under config_lock_.
  std::mutex lock_;  // taken after config_lock_
  State state_;
  AcpiPm pm_;
};

}  // namespace kite::devices
