#include "devices/vga/vga_chip.h"

#include <algorithm>
#include <utility>

namespace kite::devices {

using namespace vga_regs;

namespace {

// Bits that exist. [VGA] 2.
constexpr std::array<uint8_t, 8> kSequencerBits = {0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0x00, 0x00, 0xff};
constexpr std::array<uint8_t, kGraphicsRegisters> kGraphicsBits = {0x0f, 0x0f, 0x0f, 0x1f, 0x03,
                                                                   0x7b, 0x0f, 0x0f, 0xff};
constexpr std::array<uint8_t, 5> kAttributeBits = {0xef, 0xff, 0x3f, 0x0f, 0x0f};  // from kAttributeMode on

constexpr uint16_t kMonoFirst = 0x3b0, kMonoEnd = 0x3bc, kColorFirst = 0x3d0, kToColor = 0x20;
constexpr uint8_t kDacReading = 3;

using DispiRegisters = decltype(VgaState::dispi);

// What the guest asks for, brought into the bounds of the memory: a picture of kXres by kYres then lies within.
DispiRegisters fitted(DispiRegisters dispi, uint64_t memory_bytes) {
  constexpr uint16_t kDepths[] = {4, 8, 15, 16, 24, 32};
  if (std::ranges::find(kDepths, dispi[kBpp]) == std::end(kDepths)) dispi[kBpp] = 8;
  const uint64_t bits = dispi[kBpp] == 15 ? 16 : dispi[kBpp];
  const auto eights = [](uint16_t value) { return static_cast<uint16_t>(value & ~7u); };
  dispi[kXres] = eights(std::clamp<uint16_t>(dispi[kXres], 8, kMostXres));
  dispi[kVirtualWidth] = eights(std::clamp(dispi[kVirtualWidth], dispi[kXres], kMostXres));
  const uint64_t rows = std::min<uint64_t>(memory_bytes / (dispi[kVirtualWidth] * bits / 8), 0xffff);
  dispi[kVirtualHeight] = static_cast<uint16_t>(rows);
  dispi[kYres] = std::clamp<uint16_t>(dispi[kYres], 1, std::min(dispi[kVirtualHeight], kMostYres));
  dispi[kXOffset] = std::min(dispi[kXOffset], static_cast<uint16_t>(dispi[kVirtualWidth] - dispi[kXres]));
  dispi[kYOffset] = std::min(dispi[kYOffset], static_cast<uint16_t>(rows - dispi[kYres]));
  return dispi;
}

}  // namespace

VgaChip::VgaChip(std::shared_ptr<RamBlock> memory) : memory_(std::move(memory)) { reset(); }

void VgaChip::reset() {
  state_ = VgaState{};
  state_.dispi[kVideoMemory] = static_cast<uint16_t>(memory_->size() / kBankBytes);
}

// [VGA] 2-40: I/O address select moves the CRTC and input status 1 between 3Bx and 3Dx.
bool VgaChip::answers(uint16_t port) const {
  const bool color = (state_.misc & kMiscColor) != 0;
  if (port >= kMonoFirst && port < kMonoEnd) return !color;
  if (port >= kColorFirst) return color;
  return true;
}

uint8_t VgaChip::read_port(uint16_t port) {
  if (!answers(port)) return 0xff;
  if (port < kMonoEnd) port = static_cast<uint16_t>(port + kToColor);
  switch (port) {
    case kAttribute: return state_.attribute_data ? 0 : state_.attribute_index;
    case kAttributeRead: {
      const uint8_t index = state_.attribute_index & 0x1f;
      return index < kAttributeRegisters ? state_.attribute[index] : 0;
    }
    case kMiscWrite: return kStatus0Sense;
    case kEnable: return state_.enable;
    case kSequencerIndex: return state_.sequencer_index;
    case kSequencerData: return state_.sequencer[state_.sequencer_index];
    case kDacMask: return state_.dac_mask;
    case kDacRead: return state_.dac_state;
    case kDacWrite: return state_.dac_write;
    case kDacData: return read_dac();
    case kFeatureRead: return state_.feature;
    case kMiscRead: return state_.misc;
    case kGraphicsIndex: return state_.graphics_index;
    case kGraphicsData: return state_.graphics_index < kGraphicsRegisters ? state_.graphics[state_.graphics_index] : 0;
    case kCrtcIndex: return state_.crtc_index;
    case kCrtcData:
      if (state_.crtc_index < kCrtcRegisters) return state_.crtc[state_.crtc_index];
      if (state_.crtc_index == kLatch)
        return static_cast<uint8_t>(state_.latch >> (8 * (state_.graphics[kReadMap] & 3u)));
      return 0;
    case kStatus1:
      // Every read finds the beam on the other side: whoever waits for retrace to begin or to end goes on at once.
      state_.attribute_data = false;
      state_.status1 ^= kStatus1Retrace | kStatus1Disabled;
      return state_.status1;
    default: return 0xff;
  }
}

void VgaChip::write_port(uint16_t port, uint8_t value) {
  if (!answers(port)) return;
  if (port < kMonoEnd) port = static_cast<uint16_t>(port + kToColor);
  switch (port) {
    case kAttribute: return write_attribute(value);
    case kMiscWrite: state_.misc = value & 0xef; return;
    case kEnable: state_.enable = value & 1; return;
    case kSequencerIndex: state_.sequencer_index = value & 7; return;
    case kSequencerData: return write_sequencer(value);
    case kDacMask: state_.dac_mask = value; return;
    case kDacRead:
      state_.dac_read = value;
      state_.dac_component = 0;
      state_.dac_state = kDacReading;
      return;
    case kDacWrite:
      state_.dac_write = value;
      state_.dac_component = 0;
      state_.dac_state = 0;
      return;
    case kDacData: return write_dac(value);
    case kGraphicsIndex: state_.graphics_index = value & 0x0f; return;
    case kGraphicsData: return write_graphics(value);
    case kCrtcIndex: state_.crtc_index = value & 0x3f; return;
    case kCrtcData: return write_crtc(value);
    case kStatus1: state_.feature = value & 0x10; return;
    default: return;
  }
}

// [VGA] 2-96: index and data share a port; reading input status 1 makes the next write an index.
void VgaChip::write_attribute(uint8_t value) {
  if (!std::exchange(state_.attribute_data, !state_.attribute_data)) {
    state_.attribute_index = value & 0x3f;
    return;
  }
  const uint8_t index = state_.attribute_index & 0x1f;
  if (index < kAttributeMode) {
    if ((state_.attribute_index & kPaletteSource) == 0) state_.attribute[index] = value & 0x3f;
  } else if (index < kAttributeRegisters) {
    state_.attribute[index] = value & kAttributeBits[index - kAttributeMode];
  }
}

void VgaChip::write_sequencer(uint8_t value) {
  state_.sequencer[state_.sequencer_index] = value & kSequencerBits[state_.sequencer_index];
}

void VgaChip::write_graphics(uint8_t value) {
  if (state_.graphics_index < kGraphicsRegisters)
    state_.graphics[state_.graphics_index] = value & kGraphicsBits[state_.graphics_index];
}

// [VGA] 2-67: protection leaves the line compare bit of the overflow register writable.
void VgaChip::write_crtc(uint8_t value) {
  const uint8_t index = state_.crtc_index;
  if (index >= kCrtcRegisters) return;
  if (index <= kOverflow && (state_.crtc[kRetraceEnd] & kProtect) != 0) {
    if (index != kOverflow) return;
    value = static_cast<uint8_t>((state_.crtc[kOverflow] & ~kLineCompare8) | (value & kLineCompare8));
  }
  state_.crtc[index] = value;
}

uint8_t VgaChip::read_dac() {
  const uint8_t value = state_.dac[state_.dac_read * 3u + state_.dac_component];
  if (++state_.dac_component == 3) {
    state_.dac_component = 0;
    ++state_.dac_read;
  }
  return value;
}

// A color counts once its three parts are there.
void VgaChip::write_dac(uint8_t value) {
  const bool eight = (state_.dispi[kDispiEnable] & k8BitDac) != 0;
  state_.dac_latch[state_.dac_component] = eight ? value : value & 0x3f;
  if (++state_.dac_component < 3) return;
  state_.dac_component = 0;
  std::ranges::copy(state_.dac_latch, state_.dac.begin() + state_.dac_write * 3);
  ++state_.dac_write;
}

// --- [DISPI]

uint16_t VgaChip::read_dispi_port(unsigned port) const {
  return port == 0 ? state_.dispi_index : read_dispi(state_.dispi_index);
}

void VgaChip::write_dispi_port(unsigned port, uint16_t value) {
  if (port == 0)
    state_.dispi_index = value;
  else
    write_dispi(state_.dispi_index, value);
}

uint16_t VgaChip::read_dispi(uint16_t index) const {
  if (index >= kDispiRegisters) return 0;
  if ((state_.dispi[kDispiEnable] & kGetCapabilities) == 0) return state_.dispi[index];
  switch (index) {
    case kXres: return kMostXres;
    case kYres: return kMostYres;
    case kBpp: return kMostBpp;
    default: return state_.dispi[index];
  }
}

void VgaChip::write_dispi(uint16_t index, uint16_t value) {
  switch (index) {
    case kId:
      if (value >= kOldestId && value <= kNewestId) state_.dispi[kId] = value;
      return;
    // The mode stands still while it is shown.
    case kXres:
    case kYres:
    case kBpp:
      if (!state_.dispi_on()) state_.dispi[index] = value;
      return;
    case kBank:
      if (value < state_.dispi[kVideoMemory]) state_.dispi[kBank] = value;
      return;
    case kDispiEnable: return enable_dispi(value);
    case kVirtualWidth:
    case kXOffset:
    case kYOffset:
      state_.dispi[index] = value;
      if (state_.dispi_on()) state_.dispi = fitted(state_.dispi, memory_->size());
      return;
    default: return;
  }
}

void VgaChip::enable_dispi(uint16_t value) {
  auto& dispi = state_.dispi;
  const bool was_on = state_.dispi_on();
  dispi[kDispiEnable] = value & (kEnabled | kGetCapabilities | k8BitDac | kLinear | kNoClear);
  if (!state_.dispi_on()) {
    dispi[kBank] = 0;
    return;
  }
  if (was_on) return;
  dispi[kVirtualWidth] = dispi[kXOffset] = dispi[kYOffset] = dispi[kBank] = 0;
  dispi = fitted(dispi, memory_->size());
  if ((value & kNoClear) != 0) return;
  const uint64_t bits = uint64_t{dispi[kVirtualWidth]} * dispi[kYres] * (dispi[kBpp] == 15 ? 16u : dispi[kBpp]);
  const uint64_t bytes = std::min(bits / 8, memory_->size());
  std::fill_n(memory_->host(), bytes, uint8_t{0});
  memory_->note_write(0, bytes);
}

// --- saved state

bool VgaChip::possible(const VgaState& state, uint64_t memory_bytes) {
  if (state.sequencer_index > 7 || state.crtc_index > 0x3f || state.graphics_index > 0x0f ||
      state.attribute_index > 0x3f || state.dac_component > 2)
    return false;
  if (state.dispi[kVideoMemory] != memory_bytes / kBankBytes || state.dispi[kBank] >= state.dispi[kVideoMemory])
    return false;
  if (state.dispi[kId] < kOldestId || state.dispi[kId] > kNewestId) return false;
  return !state.dispi_on() || fitted(state.dispi, memory_bytes) == state.dispi;
}

}  // namespace kite::devices
