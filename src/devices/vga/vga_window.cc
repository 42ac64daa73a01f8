// The window at A0000: the graphics controller between the CPU and the four planes. [VGA] 2-80, [FreeVGA] "Accessing
// the VGA Display Memory".
#include "devices/vga/vga_chip.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace vga_regs;

namespace {

struct Map {
  uint64_t start, bytes;
};
// By the memory map field of the miscellaneous register.
constexpr Map kMaps[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};

// Each of the low four bits as a byte of ones.
constexpr uint32_t spread(unsigned bits) {
  uint32_t bytes = 0;
  for (unsigned plane = 0; plane < 4; ++plane)
    if ((bits >> plane & 1u) != 0) bytes |= 0xffu << (8 * plane);
  return bytes;
}
constexpr uint32_t in_all(uint8_t value) { return value * 0x01010101u; }

}  // namespace

std::optional<uint64_t> VgaChip::in_window(uint64_t offset) const {
  const Map& map = kMaps[state_.graphics[kMisc] >> 2 & 3u];
  if (offset < map.start || offset - map.start >= map.bytes) return {};
  return offset - map.start;
}

std::optional<VgaChip::Place> VgaChip::place(uint64_t offset, bool write) const {
  if ((state_.misc & kMiscRam) == 0 && !state_.dispi_on()) return {};
  const auto at = in_window(offset);
  if (!at) return {};
  const auto low = static_cast<uint8_t>(*at & 3);
  const uint8_t mode = state_.sequencer[kMemoryMode];
  Place place{};
  if ((mode & kChain4) != 0) {
    place = {*at >> 2, static_cast<uint8_t>(1u << low), low};
  } else if (write ? (mode & kSequential) == 0 : (state_.graphics[kMode] & kOddEvenRead) != 0) {
    place = {*at >> 1, static_cast<uint8_t>((low & 1) != 0 ? 0b1010 : 0b0101),
             static_cast<uint8_t>((state_.graphics[kReadMap] & 2u) | (low & 1u))};
  } else {
    place = {*at, 0b1111, static_cast<uint8_t>(state_.graphics[kReadMap] & 3u)};
  }
  if (state_.dispi_on()) place.group += state_.dispi[kBank] * kBankBytes;
  if (place.group >= memory_->size() / 4) return {};
  return place;
}

// What the CPU's byte becomes for the four planes: rotated, set or reset, combined with the latch, masked.
uint32_t VgaChip::data_for(uint8_t value, uint32_t latch) const {
  const auto& graphics = state_.graphics;
  const unsigned turn = graphics[kRotate] & 7u;
  const auto rotated = static_cast<uint8_t>(value >> turn | value << (8 - turn));
  const uint32_t set_reset = spread(graphics[kSetReset]);
  uint32_t data = 0, mask = in_all(graphics[kBitMask]);
  switch (graphics[kMode] & 3u) {
    case 0: {
      const uint32_t enabled = spread(graphics[kEnableSetReset]);
      data = (in_all(rotated) & ~enabled) | (set_reset & enabled);
      break;
    }
    case 1: return latch;
    case 2: data = spread(value & 0x0fu); break;
    default:
      data = set_reset;
      mask &= in_all(rotated);
      break;
  }
  switch (graphics[kRotate] >> 3 & 3u) {
    case 1: data &= latch; break;
    case 2: data |= latch; break;
    case 3: data ^= latch; break;
    default: break;
  }
  return (data & mask) | (latch & ~mask);
}

void VgaChip::put_linear(uint64_t at, uint8_t value) {
  if (at >= memory_->size()) return;
  memory_->host()[at] = value;
  memory_->note_write(at, 1);
}

uint8_t VgaChip::read_window(uint64_t offset) {
  if (state_.dispi_linear()) {
    const auto at = in_window(offset);
    const uint64_t linear = at.value_or(0) + state_.dispi[kBank] * kBankBytes;
    return at && linear < memory_->size() ? memory_->host()[linear] : uint8_t{0xff};
  }
  const auto from = place(offset, false);
  if (!from) return 0xff;
  state_.latch = load<uint32_t>(memory_->host() + from->group * 4);
  const auto& graphics = state_.graphics;
  if ((graphics[kMode] & kReadCompare) == 0 || (state_.sequencer[kMemoryMode] & kChain4) != 0)
    return static_cast<uint8_t>(state_.latch >> (8 * from->plane));
  // Read mode 1: ones where all planes that are cared for have the color to compare with.
  const uint32_t differs = (state_.latch ^ spread(graphics[kColorCompare])) & spread(graphics[kColorDontCare]);
  return static_cast<uint8_t>(~(differs | differs >> 8 | differs >> 16 | differs >> 24));
}

void VgaChip::write_window(uint64_t offset, uint8_t value) {
  if (state_.dispi_linear()) {
    if (const auto at = in_window(offset)) put_linear(*at + state_.dispi[kBank] * kBankBytes, value);
    return;
  }
  const auto to = place(offset, true);
  if (!to) return;
  const uint32_t planes = spread(to->planes & state_.sequencer[kMapMask]);
  uint8_t* const at = memory_->host() + to->group * 4;
  store(at, (load<uint32_t>(at) & ~planes) | (data_for(value, state_.latch) & planes));
  memory_->note_write(to->group * 4, 4);
}

}  // namespace kite::devices
