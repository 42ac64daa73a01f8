// The types of what a machine is made of besides devices: boards, accelerators, CPU models. Nobody creates them by
// name; clients of the monitor look whether they are there, and what can be said to them.
#pragma once

#include <string>
#include <string_view>

#include "object/object_type.h"

namespace kite::machine {

inline constexpr std::string_view kMainMemory = "pc.ram";  // the id of a board's RAM

std::string machine_type_name(std::string_view board);  // "pc-q35-7.2-machine"
std::string cpu_type_name(std::string_view model);      // "qemu64-x86_64-cpu"

void register_machine_types(TypeRegistry& registry);

}  // namespace kite::machine
