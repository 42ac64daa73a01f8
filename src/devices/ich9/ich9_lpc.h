// ICH9 LPC bridge: 00:1f.0, 8086:2918. [ICH9] Intel 316972-004, chapter 13.
//
// Steers interrupts: pins of root bus functions to PIRQA..H (those of devices 25 to 31 as the root complex registers
// say, those of others in turn to PIRQE..H), each PIRQ to global interrupts 16..23 and, where its route register is
// open, to an ISA interrupt. Owns ACPI power management at PMBASE with SMI_EN and SMI_STS, the TCO timer, the APM ports
// 0xb2-0xb3, the reset control register at 0xcf9 and the root complex registers at RCBA.
// Without system management mode (Config::smm) SMI_EN.APMC_EN is stuck at 1, which firmware takes for "set up already",
// and the two APM commands that switch ACPI act at once.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "bus/irq_line.h"
#include "bus/pci.h"
#include "devices/acpi_pm/acpi_pm.h"
#include "devices/ich9/tco.h"
#include "devices/io_window.h"
#include "devices/pci_host/reset_control.h"

namespace kite::devices {

class Ich9Lpc final : public bus::PciDevice, public bus::IrqSink {
 public:
  static constexpr unsigned kGsis = 24;
  struct Config {
    bool no_reboot = true;  // the strap that keeps the TCO timer from resetting the machine
    bool smm = false;       // processors take SMIs
  };
  struct Wiring {
    Clock& clock;                          // guest time
    Region& ports;                         // where the I/O space appears at PMBASE
    Region& memory;                        // where the root complex registers appear at RCBA
    std::array<bus::IrqLine, kGsis> gsis;  // 0..15 ISA interrupts, 16..23 the IOAPIC alone
    // Called with no lock held, on the writing vCPU's thread (the last, on any).
    std::function<void(ResetKind)> reset;
    std::function<void(uint8_t type)> sleep;  // SLP_EN with this SLP_TYP
    std::function<void(bool all)> smi;        // only with Config::smm: all processors', or the first's
    std::function<void()> watchdog;           // the TCO timer has expired twice
  };
  Ich9Lpc(std::string path, Config config, Wiring wiring);
  ~Ich9Lpc() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // The sink for the root bus: lines of PciBus::line_of_slot(), then the ISA sources and the SCI. Others are ignored.
  void set_irq(uint32_t line, bool level) override;
  // For an ISA device that may share `irq` (0..15) with PCI.
  [[nodiscard]] bus::IrqLine isa_source(uint32_t irq) { return {*this, kIsaSource + irq}; }
  // One byte: port 0xcf9.
  [[nodiscard]] IoHandler& reset_control() { return reset_control_; }
  // For port 0xb2, 2 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& apm_region() const { return apm_region_; }
  // The PIRQ, 0 (A) to 7 (H), that pin 1..4 of a slot of the root bus drives now.
  [[nodiscard]] unsigned pirq_of(uint8_t slot, uint8_t pin);
  // What firmware may ask for about SMIs, and once until the next reset: false, and nothing is taken, when it asks for
  // anything else. kSmiBroadcast: a write to APM_CNT is every processor's. [EDK2 OvmfPkg Q35MchIch9.h]
  static constexpr uint64_t kSmiBroadcast = 1u << 0;
  static constexpr uint64_t kSmiFeatures = kSmiBroadcast;
  bool take_smi_features(uint64_t asked);
  // PM1 events, GPEs, waking.
  [[nodiscard]] AcpiPm& pm() { return pm_; }

 protected:
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;

 private:
  static constexpr uint32_t kPinLines = bus::PciBus::kMostLines;
  static constexpr uint32_t kIsaSource = kPinLines, kSciSource = kPinLines + 16, kSources = kSciSource + 1;
  static constexpr unsigned kPirqs = 8, kRoutedDevices = 7;  // devices 25..31
  struct State {                                             // besides those of its parts
    std::bitset<kSources> levels;                            // as driven
    std::array<uint16_t, kRoutedDevices> routes{};           // D31IR .. D25IR
    uint16_t oic = 0;
    uint32_t hptc = 0, gcs = 0;
    uint32_t smi_enable = 0, smi_status = 0;
    uint8_t apm_command = 0, apm_status = 0;
    bool smi_features_taken = false;
    uint64_t smi_features = 0;
  };

  void set_reset_values();
  void map_spaces();   // config_lock_ held
  void load_routes();  // config_lock_ held
  // lock_ held.
  [[nodiscard]] unsigned pirq_of_line(uint32_t line) const;
  [[nodiscard]] uint32_t levels() const;
  void drive_changed();
  [[nodiscard]] uint16_t* route_register(uint64_t offset);
  [[nodiscard]] uint8_t root_byte(uint64_t offset);
  void write_root_byte(uint64_t offset, uint8_t value);
  void write_smi_enable(uint32_t value, uint32_t lanes);

  void tco_smi();
  void tco_bark();
  bool request_smi(uint32_t status, uint32_t enable);  // true: there is one to send

  uint64_t read_pm(uint64_t offset, unsigned size);
  void write_pm(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_smi(uint64_t offset, unsigned size);
  void write_smi(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_apm(uint64_t offset, unsigned size);
  void write_apm(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_root(uint64_t offset, unsigned size);
  void write_root(uint64_t offset, unsigned size, uint64_t value);

  // Static configuration.
  const Config static_config_;

  // Wiring.
  Wiring wiring_;
  ResetControl reset_control_;
  IoWindow<Ich9Lpc> pm_block_, apm_block_, root_block_;
  std::shared_ptr<Region> pm_region_, apm_region_, root_region_;

  // State; the rest is in the configuration space, under config_lock_, and in the parts.
  std::mutex lock_;  // taken after config_lock_ and the parts' locks, before the interrupt controllers'
  State state_;
  std::array<uint8_t, kPirqs> pirq_routes_{};  // PIRQ[n]_ROUT as last written. Derived from the configuration space
  uint8_t sci_gsi_ = 9;                        // derived
  uint16_t gen_pmcon1_ = 0;                    // derived
  uint32_t driven_ = 0;                        // levels last given to gsis. Derived

  AcpiPm pm_;
  Tco tco_;
};

}  // namespace kite::devices
