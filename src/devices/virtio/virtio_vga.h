// virtio-vga: virtio-gpu in one function with a VGA, for firmware and for systems before they have a driver. BAR 0 is
// the VGA's memory; BAR 2 has its registers and, behind them, the virtio interface. The screen is the VGA's until a
// driver sets a scanout, and again after a reset of the device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "devices/vga/vga_core.h"
#include "devices/virtio/virtio_gpu.h"
#include "devices/virtio/virtio_pci.h"
#include "display/console.h"

namespace kite::devices {

class VirtioVga final : public VirtioPci, public display::Source {
 public:
  static constexpr uint64_t kMegs = 8;  // of the VGA's memory
  struct Wiring {
    VgaCore::Wiring vga;
    display::Console* console = nullptr;  // where it shows; null: nowhere
  };
  // `gpu` shows nowhere by itself; `rom` is the VGA BIOS, empty: none.
  static Result<std::unique_ptr<VirtioVga>> create(const std::string& path, const VirtioPci::Config& transport,
                                                   std::unique_ptr<VirtioGpu> gpu, const std::vector<uint8_t>& rom,
                                                   const Wiring& wiring);
  ~VirtioVga() override;

  void reset() override;
  display::Mode draw(display::Surface& surface, bool all) override;
  void watched(bool on) override;

 private:
  VirtioVga(const std::string& path, const VirtioPci::Config& transport, std::unique_ptr<VirtioGpu> gpu,
            std::unique_ptr<VgaCore> vga, std::shared_ptr<Region> rom, display::Console* console);
  void save_beside(StateWriter& writer) override;
  void restore_beside(StateReader& reader) override;
  void apply_beside() override { vga_->apply_restored(); }

  // Wiring.
  VirtioGpu& gpu_;
  display::Console* const console_;

  // State.
  std::unique_ptr<VgaCore> vga_;

  bool gpu_shown_ = false;  // was drawn last; main executor's thread
};

}  // namespace kite::devices
