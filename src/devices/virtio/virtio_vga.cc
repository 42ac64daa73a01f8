#include "devices/virtio/virtio_vga.h"

#include <utility>

namespace kite::devices {

namespace {

constexpr uint16_t kVgaFields = 0x5000;  // behind those of VirtioPci

}  // namespace

Result<std::unique_ptr<VirtioVga>> VirtioVga::create(const std::string& path, const VirtioPci::Config& transport,
                                                     std::unique_ptr<VirtioGpu> gpu, const std::vector<uint8_t>& rom,
                                                     const Wiring& wiring) {
  // What its monitor says of itself is the virtio device's to tell.
  KITE_ASSIGN(auto vga, VgaCore::create(path, {.memory_megs = kMegs, .edid = {}}, wiring.vga));
  std::shared_ptr<Region> rom_region;
  if (!rom.empty()) {
    KITE_ASSIGN(rom_region, make_vga_rom(path, rom));
  }
  return std::unique_ptr<VirtioVga>(
      new VirtioVga(path, transport, std::move(gpu), std::move(vga), std::move(rom_region), wiring.console));
}

VirtioVga::VirtioVga(const std::string& path, const VirtioPci::Config& transport, std::unique_ptr<VirtioGpu> gpu,
                     std::unique_ptr<VgaCore> vga, std::shared_ptr<Region> rom, display::Console* console)
    : VirtioPci(path, transport, std::move(gpu)),
      gpu_(static_cast<VirtioGpu&>(device())),
      console_(console),
      vga_(std::move(vga)) {
  declare_bar(0, vga_->memory(), {.prefetchable = true});
  modern_bar().add(0, vga_->registers());
  if (rom != nullptr) declare_rom(std::move(rom));
  if (console_ != nullptr) console_->add_source(*this, path);
}

VirtioVga::~VirtioVga() {
  if (console_ != nullptr) console_->remove_source(*this);
}

void VirtioVga::reset() {
  VirtioPci::reset();
  vga_->reset();
}

display::Mode VirtioVga::draw(display::Surface& surface, bool all) {
  const bool gpu = gpu_.in_charge();
  if (std::exchange(gpu_shown_, gpu) != gpu) all = true;
  return gpu ? gpu_.draw(surface, all) : vga_->draw(surface, all);
}

void VirtioVga::watched(bool on) {
  gpu_.watched(on);
  vga_->watched(on);
}

void VirtioVga::save_beside(StateWriter& writer) { vga_->save_fields(writer, kVgaFields); }

void VirtioVga::restore_beside(StateReader& reader) { vga_->restore_fields(reader, kVgaFields); }

}  // namespace kite::devices
