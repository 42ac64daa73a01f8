// The guest's RAM: what is copied when a machine moves, and what the dirty rate is measured of.
#pragma once

#include <memory>
#include <vector>

#include "memory/address_space.h"
#include "memory/ram_block.h"

namespace kite::machine {

// All of it, in the order of its addresses; not what devices have for memory, nor ROM. Any thread.
std::vector<std::shared_ptr<RamBlock>> guest_ram(AddressSpace& memory);

}  // namespace kite::machine
