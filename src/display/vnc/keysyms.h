// X11 keysyms, as VNC clients send them, to keys of a US keyboard. [X11] X Window System Protocol, appendix A;
// [RFB] RFC 6143, 7.5.4.
#pragma once

#include <cstdint>
#include <optional>

#include "display/input.h"

namespace kite::display {

struct KeyOfSym {
  KeyNumber key;
  bool shift;  // the symbol is the key's upper one
};
std::optional<KeyOfSym> key_of_keysym(uint32_t keysym);

}  // namespace kite::display
