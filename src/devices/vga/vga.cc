#include "devices/vga/vga.h"

#include <utility>

#include "devices/section.h"
#include "devices/vga/edid.h"

namespace kite::devices {

namespace {

// The core's fields, with the configuration space behind them.
struct VgaV1 {
  static constexpr uint32_t kVersion = 1;
  VgaCore& core;
};
constexpr uint16_t kFirstField = 1;
void visit(StateWriter& writer, VgaV1& wire) { wire.core.save_fields(writer, kFirstField); }
void visit(StateReader& reader, VgaV1& wire) { wire.core.restore_fields(reader, kFirstField); }

}  // namespace

Result<std::unique_ptr<Vga>> Vga::create(std::string path, const Config& config, const Wiring& wiring) {
  KITE_ASSIGN(auto core, VgaCore::create(path,
                                         {.memory_megs = config.memory_megs,
                                          .edid = config.edid ? make_edid(config.xres, config.yres) : VgaCore::Edid{}},
                                         wiring.vga));
  std::shared_ptr<Region> rom;
  if (!config.rom.empty()) {
    KITE_ASSIGN(rom, make_vga_rom(path, config.rom));
  }
  return std::unique_ptr<Vga>(new Vga(std::move(path), std::move(core), std::move(rom), wiring.console));
}

Vga::Vga(std::string path, std::unique_ptr<VgaCore> core, std::shared_ptr<Region> rom, display::Console* console)
    : PciDevice(std::move(path), {.vendor = 0x1234, .device = 0x1111, .revision = 0x02, .class_code = 0x030000}),
      console_(console),
      core_(std::move(core)) {
  declare_bar(0, core_->memory(), {.prefetchable = true});
  declare_bar(2, core_->registers(), {});
  if (rom != nullptr) declare_rom(std::move(rom));
  if (console_ != nullptr) console_->add_source(*this, this->path());
}

Vga::~Vga() {
  if (console_ != nullptr) console_->remove_source(*this);
}

void Vga::reset() {
  reset_config();
  core_->reset();
}

void Vga::save(StateWriter& writer) {
  save_section(writer, path(), VgaV1{*core_}, [&] { save_config(writer); });
}

void Vga::restore(StateReader& reader) {
  VgaV1 wire{*core_};
  if (restore_section(reader, path(), wire, [&] { restore_config(reader); })) core_->apply_restored();
}

}  // namespace kite::devices
