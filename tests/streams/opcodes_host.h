// Which rows of the opcode tables the host can execute.
#pragma once

#include <span>
#include <vector>

#include "streams/opcodes.h"

namespace kite::streams {

bool host_offers(Feature feature);
// The interpreter follows Intel hosts where the architecture leaves something open.
inline bool host_is_intel() { return host_offers(Feature::kIntel); }

template <const auto& kRows>
std::span<const Opcode> executable() {
  static const std::vector<Opcode> kept = [] {
    std::vector<Opcode> out;
    for (const Opcode& opcode : kRows)
      if (host_offers(opcode.feature)) out.push_back(opcode);
    return out;
  }();
  return kept;
}

}  // namespace kite::streams
