// The types of IDE: the controllers piix3-ide and piix4-ide, the disks ide-hd and ide-cd.
#pragma once

#include "devices/ide/piix_ide.h"
#include "object/object_type.h"

namespace kite::devices {

// Besides these, the disk types, which AHCI ports take as well.
void register_ide_types(TypeRegistry& registry);

// `type` is one of the controllers. The caller maps the legacy ports.
std::unique_ptr<PiixIde> make_piix_ide(std::string_view type, std::string path, PiixIde::Wiring wiring);

}  // namespace kite::devices
