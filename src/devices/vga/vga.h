// VGA: the PCI display adapter 1234:1111 that firmware and drivers know as Bochs' or QEMU's standard VGA. BAR 0 is its
// memory, RAM-like and dirty-logged while somebody looks; BAR 2 holds the monitor's EDID and the registers once more;
// the ports of a VGA, 1CE to 1D1 and the window at A0000 are there whatever the command register says, as on an AT.
// [STDVGA] QEMU's docs/specs/standard-vga.txt.
#pragma once

#include <array>
#include <memory>
#include <mutex>

#include "async/clock.h"
#include "bus/pci.h"
#include "devices/io_window.h"
#include "devices/vga/vga_chip.h"
#include "devices/vga/vga_picture.h"
#include "display/console.h"

namespace kite::devices {

class Vga final : public bus::PciDevice, public display::Source {
 public:
  static constexpr uint64_t kUsualMegs = 16, kMostMegs = 64;
  struct Config {
    uint64_t memory_megs = kUsualMegs;  // 1 to kMostMegs, made a power of two
    bool edid = true;
    uint32_t xres = 1280, yres = 800;
    std::vector<uint8_t> rom;  // the VGA BIOS; empty: none
  };
  struct Wiring {
    Region& memory;  // where the window goes; outlives the device, as what follows
    Region& ports;
    Clock& clock;                         // for what blinks
    display::Console* console = nullptr;  // where it shows; null: nowhere
  };
  static Result<std::unique_ptr<Vga>> create(std::string path, Config config, Wiring wiring);
  ~Vga() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  display::Mode draw(display::Surface& surface, bool all) override;
  void watched(bool on) override;

 private:
  Vga(std::string path, const Config& config, const Wiring& wiring, std::shared_ptr<RamBlock> memory);
  Result<> add_rom(const std::vector<uint8_t>& image);
  uint64_t read_ports(uint64_t offset, unsigned size);
  void write_ports(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_dispi(uint64_t offset, unsigned size);
  void write_dispi(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_window(uint64_t offset, unsigned size);
  void write_window(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_mmio(uint64_t offset, unsigned size);
  void write_mmio(uint64_t offset, unsigned size, uint64_t value);
  [[nodiscard]] uint16_t read_mmio_word(uint64_t offset);  // lock_ held

  // Wiring.
  Wiring wiring_;
  std::array<uint8_t, 128> edid_{};
  IoWindow<Vga> ports_window_, dispi_window_, memory_window_, mmio_window_;
  std::shared_ptr<Region> port_region_, dispi_region_, window_region_;

  // State; the rest is in the configuration space.
  std::mutex lock_;
  VgaChip chip_;

  VgaPicture picture_;  // main executor's thread
};

}  // namespace kite::devices
