#include "devices/i8042/ps2_mouse.h"

#include <algorithm>
#include <cstdlib>

#include "devices/i8042/i8042_regs.h"

namespace kite::devices {

using i8042_regs::kAck;
using i8042_regs::kBatPassed;
using i8042_regs::kResend;

namespace {

// [PS2MOUSE] "Commands".
enum Command : uint8_t {
  kScaling1To1 = 0xe6,
  kScaling2To1 = 0xe7,
  kSetResolution = 0xe8,  // one data byte
  kStatusRequest = 0xe9,
  kStreamMode = 0xea,
  kReadData = 0xeb,
  kResetWrap = 0xec,
  kSetWrap = 0xee,
  kRemoteMode = 0xf0,
  kReadId = 0xf2,
  kSetSampleRate = 0xf3,  // one data byte
  kEnable = 0xf4,
  kDisable = 0xf5,
  kSetDefault = 0xf6,
  kSendAgain = 0xfe,
  kReset = 0xff,
};
constexpr uint8_t kFirstCommand = kScaling1To1;
constexpr uint8_t kStandardId = 0, kWheelId = 3, kFiveButtonId = 4;
constexpr uint8_t kMaxResolution = 3;
constexpr uint8_t kLeft = 1, kRight = 2, kMiddle = 4, kButtonBits = 0x1f;
constexpr uint8_t kExtraButtonsShift = 3;
constexpr int32_t kPacketReach = 255;  // 9 bits with sign
constexpr int32_t kWheelReach = 7;     // [INTELLIMOUSE] 4 bits with sign

bool takes_argument(uint8_t command) { return command == kSetResolution || command == kSetSampleRate; }

// [PS2MOUSE] "Scaling 2:1".
int32_t scaled(int32_t distance) {
  constexpr int32_t kSmall[] = {0, 1, 1, 3, 6, 9};
  const int32_t size = std::abs(distance);
  const int32_t result = size < 6 ? kSmall[size] : 2 * size;
  return distance < 0 ? -result : result;
}

int32_t add_bounded(int32_t sum, int32_t more) {
  return static_cast<int32_t>(std::clamp<int64_t>(int64_t{sum} + more, -Ps2Mouse::kMaxPending, Ps2Mouse::kMaxPending));
}

// Takes what fits a packet out of `distance`.
int32_t take(int32_t& distance, int32_t reach) {
  const int32_t part = std::clamp(distance, -reach, reach);
  distance -= part;
  return part;
}

}  // namespace

void Ps2Mouse::write(uint8_t value) {
  // [PS2MOUSE] In wrap mode everything but the way out comes back.
  if (state_.wrap && value != kResetWrap && value != kReset) {
    state_.replies.push({value});
    return;
  }
  const uint8_t pending = state_.pending;
  state_.pending = 0;
  if (pending != 0 && value < kFirstCommand) {
    argument(pending, value);
    return;
  }
  // [PS2MOUSE] A command throws away what has not been sent, unless it asks for that.
  if (value != kSendAgain && value != kReadData) {
    state_.packets.clear();
    state_.dx = state_.dy = state_.dz = 0;
  }
  command(value);
  stream();
}

void Ps2Mouse::command(uint8_t value) {
  switch (value) {
    case kScaling1To1: state_.scaling_2_to_1 = false; break;
    case kScaling2To1: state_.scaling_2_to_1 = true; break;
    case kSetResolution:
    case kSetSampleRate: state_.pending = value; break;
    case kStatusRequest: state_.replies.push({kAck, status_byte(), state_.resolution, state_.sample_rate}); return;
    case kStreamMode: state_.remote = false; break;
    case kReadData:
      state_.replies.push({kAck});
      build_packet(state_.replies);
      return;
    case kResetWrap: state_.wrap = false; break;
    case kSetWrap: state_.wrap = true; break;
    case kRemoteMode: state_.remote = true; break;
    case kReadId: state_.replies.push({kAck, state_.id}); return;
    case kEnable: state_.reporting = true; break;
    case kDisable: state_.reporting = false; break;
    case kSetDefault: set_defaults(); break;
    case kSendAgain: state_.replies.push({state_.last_sent}); return;
    case kReset:
      reset();
      state_.replies.push({kAck, kBatPassed, state_.id});
      return;
    default: state_.replies.push({kResend}); return;
  }
  state_.replies.push({kAck});
}

void Ps2Mouse::argument(uint8_t command, uint8_t value) {
  if (command == kSetResolution && value > kMaxResolution) {
    state_.replies.push({kResend});
    return;
  }
  if (command == kSetResolution) {
    state_.resolution = value;
  } else {
    set_rate(value);
  }
  state_.replies.push({kAck});
}

// [INTELLIMOUSE] The rates 200, 100, 80 in a row turn the wheel on; then 200, 200, 80 the two more buttons.
void Ps2Mouse::set_rate(uint8_t rate) {
  state_.sample_rate = rate;
  const auto& last = state_.last_rates;
  if (last[0] == 200 && last[1] == 100 && rate == 80 && state_.id == kStandardId) state_.id = kWheelId;
  if (last[0] == 200 && last[1] == 200 && rate == 80 && state_.id == kWheelId) state_.id = kFiveButtonId;
  state_.last_rates = {last[1], rate};
}

void Ps2Mouse::set_defaults() {
  const State defaults;
  state_.sample_rate = defaults.sample_rate;
  state_.resolution = defaults.resolution;
  state_.scaling_2_to_1 = state_.reporting = state_.remote = false;
}

// [PS2MOUSE] "Status request", first byte.
uint8_t Ps2Mouse::status_byte() const {
  unsigned status = 0;
  if ((state_.buttons & kRight) != 0) status |= 1u << 0;
  if ((state_.buttons & kMiddle) != 0) status |= 1u << 1;
  if ((state_.buttons & kLeft) != 0) status |= 1u << 2;
  if (state_.scaling_2_to_1) status |= 1u << 4;
  if (state_.reporting) status |= 1u << 5;
  if (state_.remote) status |= 1u << 6;
  return static_cast<uint8_t>(status);
}

uint8_t Ps2Mouse::read() {
  const uint8_t value = state_.replies.empty() ? state_.packets.pop() : state_.replies.pop();
  state_.last_sent = value;
  stream();
  return value;
}

void Ps2Mouse::move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) {
  const bool clicked = (buttons & kButtonBits) != state_.buttons;
  state_.buttons = buttons & kButtonBits;
  if (!state_.reporting && !state_.remote) return;
  state_.dx = add_bounded(state_.dx, dx);
  state_.dy = add_bounded(state_.dy, dy);
  state_.dz = add_bounded(state_.dz, dz);
  // A click is a packet of its own, so that a quick release cannot hide it; movement adds up while one is under way.
  if (clicked && streaming()) build_packet(state_.packets);
  stream();
}

bool Ps2Mouse::something_to_report() const {
  const bool wheel = state_.id != kStandardId && state_.dz != 0;
  return state_.dx != 0 || state_.dy != 0 || wheel || state_.buttons != state_.reported_buttons;
}

void Ps2Mouse::stream() {
  if (streaming() && state_.packets.empty() && something_to_report()) build_packet(state_.packets);
}

// [PS2MOUSE] "Data report"; [INTELLIMOUSE] for the fourth byte. When the queue is full the report stays for later.
template <size_t N>
void Ps2Mouse::build_packet(ByteQueue<N>& queue) {
  const size_t size = state_.id == kStandardId ? 3 : 4;
  if (queue.space() < size) return;
  const bool scale = state_.scaling_2_to_1 && !state_.remote;
  const int32_t reach = scale ? kPacketReach / 2 : kPacketReach;
  int32_t dx = take(state_.dx, reach), dy = take(state_.dy, reach);
  if (scale) {
    dx = scaled(dx);
    dy = scaled(dy);
  }
  unsigned first = (state_.buttons & (kLeft | kRight | kMiddle)) | 1u << 3;
  if (dx < 0) first |= 1u << 4;
  if (dy < 0) first |= 1u << 5;
  queue.push({static_cast<uint8_t>(first), static_cast<uint8_t>(dx), static_cast<uint8_t>(dy)});
  state_.reported_buttons = state_.buttons;
  if (state_.id == kStandardId) {
    state_.dz = 0;
    return;
  }
  unsigned wheel = static_cast<unsigned>(take(state_.dz, kWheelReach)) & 0xff;
  if (state_.id == kFiveButtonId) wheel = (wheel & 0x0f) | (state_.buttons >> kExtraButtonsShift & 3u) << 4;
  queue.push({static_cast<uint8_t>(wheel)});
}

bool Ps2Mouse::possible(const State& state) {
  const auto near = [](int32_t distance) { return distance >= -kMaxPending && distance <= kMaxPending; };
  return state.replies.possible() && state.packets.possible() && near(state.dx) && near(state.dy) && near(state.dz) &&
         (state.buttons & ~kButtonBits) == 0 && (state.reported_buttons & ~kButtonBits) == 0 &&
         (state.pending == 0 || takes_argument(state.pending)) &&
         (state.id == kStandardId || state.id == kWheelId || state.id == kFiveButtonId) &&
         state.resolution <= kMaxResolution;
}

}  // namespace kite::devices
