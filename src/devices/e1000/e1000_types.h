// What the board calls to know and make an e1000.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "devices/e1000/e1000.h"
#include "object/object_type.h"

namespace kite::devices {

// Firmware of the card's own, as the package ipxe-qemu has it.
inline constexpr std::string_view kE1000Rom = "efi-e1000.rom";

// e1000, and e1000-82540em, which is the same.
void register_e1000_types(TypeRegistry& registry);

// Whether it is one of these.
bool is_e1000(std::string_view type);

}  // namespace kite::devices
