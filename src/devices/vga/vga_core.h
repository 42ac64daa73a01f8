// VgaCore: what makes a card a VGA, whatever else it is: the memory, the ports of a VGA and those at 1CE, the window at
// A0000, a page with the registers once more, and the picture. The ports and the window are there whatever the card's
// command register says, as on an AT; memory and page are for the BARs of who has it.
// [STDVGA] QEMU's docs/specs/standard-vga.txt.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/clock.h"
#include "devices/io_window.h"
#include "devices/vga/vga_chip.h"
#include "devices/vga/vga_picture.h"
#include "display/console.h"
#include "state/codec.h"
#include "support/result.h"

namespace kite::devices {

class VgaCore {
 public:
  using Edid = std::array<uint8_t, 128>;
  static constexpr uint64_t kMostMegs = 64;
  struct Config {
    uint64_t memory_megs;  // 1 to kMostMegs, made a power of two
    Edid edid;             // what the page begins with
  };
  struct Wiring {
    Region& memory;  // where the window goes; outlives the card, as what follows
    Region& ports;
    Clock& clock;  // for what blinks
  };
  static Result<std::unique_ptr<VgaCore>> create(const std::string& path, const Config& config, const Wiring& wiring);
  ~VgaCore();
  VgaCore(const VgaCore&) = delete;
  VgaCore& operator=(const VgaCore&) = delete;

  [[nodiscard]] const std::shared_ptr<Region>& memory() const { return memory_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& registers() const { return mmio_region_; }  // kMmioBytes

  void reset();
  // Fields from `first` on, twelve of them. restore_fields() judges and keeps; nothing changes before apply_restored().
  void save_fields(StateWriter& writer, uint16_t first);
  void restore_fields(StateReader& reader, uint16_t first);
  void apply_restored();

  // As display::Source has them.
  display::Mode draw(display::Surface& surface, bool all);
  void watched(bool on);

 private:
  VgaCore(const Config& config, const Wiring& wiring, const std::shared_ptr<RamBlock>& memory);
  uint64_t read_ports(uint64_t offset, unsigned size);
  void write_ports(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_dispi(uint64_t offset, unsigned size);
  void write_dispi(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_window(uint64_t offset, unsigned size);
  void write_window(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_mmio(uint64_t offset, unsigned size);
  void write_mmio(uint64_t offset, unsigned size, uint64_t value);
  [[nodiscard]] uint16_t read_mmio_word(uint64_t offset);  // lock_ held

  // Static configuration and wiring.
  const Edid edid_;
  Wiring wiring_;
  IoWindow<VgaCore> ports_window_, dispi_window_, memory_window_, mmio_window_;
  std::shared_ptr<Region> port_region_, dispi_region_, window_region_, memory_region_, mmio_region_;

  // State.
  std::mutex lock_;
  VgaChip chip_;

  struct Restored {
    VgaState state;
    std::vector<uint8_t> memory;
  };
  Restored restored_;
  VgaPicture picture_;  // main executor's thread
};

// The region of a VGA BIOS.
Result<std::shared_ptr<Region>> make_vga_rom(const std::string& path, const std::vector<uint8_t>& image);

}  // namespace kite::devices
