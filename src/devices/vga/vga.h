// VGA: the PCI display adapter 1234:1111 that firmware and drivers know as Bochs' or QEMU's standard VGA. BAR 0 is its
// memory, RAM-like and dirty-logged while somebody looks; BAR 2 holds the monitor's EDID and the registers once more.
// [STDVGA] QEMU's docs/specs/standard-vga.txt.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bus/pci.h"
#include "devices/vga/vga_core.h"
#include "display/console.h"

namespace kite::devices {

class Vga final : public bus::PciDevice, public display::Source {
 public:
  static constexpr uint64_t kUsualMegs = 16;
  struct Config {
    uint64_t memory_megs = kUsualMegs;  // 1 to VgaCore::kMostMegs, made a power of two
    bool edid = true;
    uint32_t xres = 1280, yres = 800;
    std::vector<uint8_t> rom;  // the VGA BIOS; empty: none
  };
  struct Wiring {
    VgaCore::Wiring vga;
    display::Console* console = nullptr;  // where it shows; null: nowhere
  };
  static Result<std::unique_ptr<Vga>> create(std::string path, const Config& config, const Wiring& wiring);
  ~Vga() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  display::Mode draw(display::Surface& surface, bool all) override { return core_->draw(surface, all); }
  void watched(bool on) override { core_->watched(on); }

 private:
  Vga(std::string path, std::unique_ptr<VgaCore> core, std::shared_ptr<Region> rom, display::Console* console);

  // Wiring.
  display::Console* const console_;

  // State; the rest is in the configuration space.
  std::unique_ptr<VgaCore> core_;
};

}  // namespace kite::devices
