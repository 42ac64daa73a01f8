#include "devices/ide/ide_types.h"

namespace kite::devices {

namespace {
constexpr std::string_view kPiix4 = "piix4-ide";
}

void register_ide_types(TypeRegistry& registry) {
  register_ata_types(registry);
  const auto controller = [&registry](std::string name, std::string description) {
    registry.add({.name = std::move(name),
                  .parent = "pci-device",
                  .description = std::move(description),
                  .bus = "PCI",
                  .properties = {}});
  };
  controller("piix3-ide", "IDE function of the 82371SB PIIX3");
  controller(std::string(kPiix4), "IDE function of the 82371AB PIIX4");
}

std::unique_ptr<PiixIde> make_piix_ide(std::string_view type, std::string path, PiixIde::Wiring wiring) {
  const PiixIde::Model model = type == kPiix4 ? PiixIde::Model::kPiix4 : PiixIde::Model::kPiix3;
  return std::make_unique<PiixIde>(std::move(path), model, std::move(wiring));
}

}  // namespace kite::devices
