#include "devices/fdc/floppy_format.h"

#include <algorithm>
#include <array>

namespace kite::devices {
namespace {

using enum FloppyType;

// The usual format of each drive comes first among its own; where a size occurs in several drives, the first counts.
constexpr std::array kFormats{
    FloppyFormat{k144, 18, 80, 2, 0}, FloppyFormat{k144, 20, 80, 2, 0}, FloppyFormat{k144, 21, 80, 2, 0},
    FloppyFormat{k144, 21, 82, 2, 0}, FloppyFormat{k144, 21, 83, 2, 0}, FloppyFormat{k144, 22, 80, 2, 0},
    FloppyFormat{k144, 23, 80, 2, 0}, FloppyFormat{k144, 24, 80, 2, 0}, FloppyFormat{k288, 36, 80, 2, 3},
    FloppyFormat{k288, 39, 80, 2, 3}, FloppyFormat{k288, 40, 80, 2, 3}, FloppyFormat{k288, 44, 80, 2, 3},
    FloppyFormat{k288, 48, 80, 2, 3}, FloppyFormat{k144, 9, 80, 2, 2},  FloppyFormat{k144, 10, 80, 2, 2},
    FloppyFormat{k144, 10, 82, 2, 2}, FloppyFormat{k144, 10, 83, 2, 2}, FloppyFormat{k144, 13, 80, 2, 2},
    FloppyFormat{k144, 14, 80, 2, 2}, FloppyFormat{k120, 15, 80, 2, 0}, FloppyFormat{k120, 18, 80, 2, 0},
    FloppyFormat{k120, 18, 82, 2, 0}, FloppyFormat{k120, 18, 83, 2, 0}, FloppyFormat{k120, 20, 80, 2, 0},
    FloppyFormat{k120, 9, 80, 2, 1},  FloppyFormat{k120, 11, 80, 2, 1}, FloppyFormat{k120, 9, 40, 2, 1},
    FloppyFormat{k120, 9, 40, 1, 1},  FloppyFormat{k120, 10, 41, 2, 1}, FloppyFormat{k120, 10, 42, 2, 1},
    FloppyFormat{k120, 8, 40, 2, 1},  FloppyFormat{k120, 8, 40, 1, 1},  FloppyFormat{k144, 9, 80, 1, 2},
};

// A drive for 2.88M takes every 3.5" disk.
bool fits(const FloppyFormat& format, FloppyType type) {
  return type == kNone || format.drive == type || (type == k288 && format.drive == k144);
}

}  // namespace

std::optional<FloppyFormat> find_floppy_format(uint64_t bytes, FloppyType type) {
  const auto* const found = std::ranges::find_if(kFormats, [&](const FloppyFormat& format) {
    return uint64_t{format.blocks()} * 512 == bytes && fits(format, type);
  });
  return found == kFormats.end() ? std::nullopt : std::optional(*found);
}

FloppyFormat usual_floppy_format(FloppyType type) {
  const auto* const found = std::ranges::find(kFormats, type, &FloppyFormat::drive);
  return found == kFormats.end() ? kFormats.front() : *found;
}

FloppyType parse_floppy_type(std::string_view text) {
  if (text == "120") return k120;
  if (text == "144") return k144;
  if (text == "288") return k288;
  return kNone;
}

uint8_t cmos_floppy_type(FloppyType type) {
  constexpr std::array<uint8_t, 4> kCodes{0, 2, 4, 5};
  return kCodes[static_cast<size_t>(type)];
}

}  // namespace kite::devices
