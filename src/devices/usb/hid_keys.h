// Keys as USB keyboards name them. [HUT] 1.12, chapter 10, keyboard page.
#pragma once

#include <cstdint>

#include "display/input.h"

namespace kite::devices {

inline constexpr uint8_t kHidFirstModifier = 0xe0, kHidLastModifier = 0xe7;

// 0: keyboards of this kind have no such key.
uint8_t hid_usage_of(display::KeyNumber key);

}  // namespace kite::devices
