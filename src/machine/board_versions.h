// Versioned names of boards ("pc-q35-7.2"): users and libvirt name a version so that what the guest sees stays the
// same.
#pragma once

#include <cstdint>
#include <string_view>

namespace kite::machine {

enum class BoardFeature : uint8_t {
  kSmramAtSmbase,  // RAM for system management mode at 0x30000: from version 4.2 on
};

// Whether the board of this name has the feature; one without a version has every feature.
bool version_has(std::string_view board, BoardFeature feature);

}  // namespace kite::machine
