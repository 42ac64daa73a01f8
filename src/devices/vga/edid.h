// What a monitor says of itself. [EDID] VESA E-EDID Standard, release A, revision 2: structure 1.4.
#pragma once

#include <array>
#include <cstdint>

namespace kite::devices {

// A monitor that prefers this resolution, in 128 bytes. Sides are cut to what a detailed timing can say.
std::array<uint8_t, 128> make_edid(uint32_t width, uint32_t height);

}  // namespace kite::devices
