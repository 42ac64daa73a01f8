#include "devices/usb/usb_hid.h"

#include <algorithm>

#include "devices/section.h"
#include "devices/usb/hid_keys.h"

namespace kite::devices {

using namespace usb;

namespace {

// [HID] 7.1, 7.2: descriptors and requests of the class.
constexpr uint8_t kHidClass = 3, kHid = 0x21, kReport = 0x22;
constexpr uint8_t kGetReport = 1, kGetIdle = 2, kGetProtocol = 3, kSetReport = 9, kSetIdle = 10, kSetProtocol = 11;
constexpr uint8_t kOutputReport = 2;

constexpr uint16_t kVendor = 0x0627;  // of emulated devices; guests have rules for its products
constexpr uint8_t kPollMs = 8;        // full speed
constexpr uint8_t kPollExponent = 6;  // high speed: 2^(6-1) microframes, 4 ms
constexpr uint16_t kPacket = 8;

std::vector<uint8_t> hid_descriptor(size_t report_bytes) {
  return {
      9, kHid, 0x11, 0x01, 0, 1, kReport, static_cast<uint8_t>(report_bytes), static_cast<uint8_t>(report_bytes >> 8)};
}

}  // namespace

UsbHid::UsbHid(const Shape& shape, Clock& clock)
    : UsbDevice(shape.path, shape.product, descriptors(shape)),
      shape_(shape),
      clock_(clock),
      idle_timer_(clock, [this] {
        told();
        arm_idle();
      }) {}

UsbDescriptors UsbHid::descriptors(const Shape& shape) {
  const auto configuration = [&shape](uint8_t interval) {
    return usb_configuration({.class_code = kHidClass,
                              .subclass = shape.subclass,
                              .protocol = shape.protocol,
                              .endpoints = 1,
                              .attributes = kAttributesOne | kWakesRemotely},
                             usb_bytes({hid_descriptor(shape.report_descriptor.size()),
                                        usb_endpoint(kReportEndpoint, kInterrupt, kPacket, interval)}));
  };
  return {.device = usb_device_descriptor(kVendor, shape.product_id, 2),
          .full = configuration(kPollMs),
          .high = configuration(kPollExponent),
          .super = {},
          .strings = {"Kite", shape.product}};
}

std::optional<std::vector<uint8_t>> UsbHid::interface_descriptor(uint8_t kind, uint8_t index) {
  if (index != 0) return std::nullopt;
  if (kind == kHid) return hid_descriptor(shape_.report_descriptor.size());
  if (kind == kReport) return shape_.report_descriptor;
  return std::nullopt;
}

std::optional<std::vector<uint8_t>> UsbHid::class_in(const usb::Setup& setup) {
  if (setup.recipient() != kToInterface || setup.index != 0) return std::nullopt;
  switch (setup.request) {
    case kGetReport: return report();
    case kGetIdle: return std::vector<uint8_t>{hid_.idle};
    case kGetProtocol:
      if (shape_.subclass == 0) return std::nullopt;
      return std::vector<uint8_t>{static_cast<uint8_t>(hid_.boot_protocol ? 0 : 1)};
    default: return std::nullopt;
  }
}

bool UsbHid::class_out(const usb::Setup& setup, std::span<const uint8_t> data) {
  if (setup.recipient() != kToInterface || setup.index != 0) return false;
  switch (setup.request) {
    case kSetReport: return setup.value >> 8 == kOutputReport && set_report(data);
    case kSetIdle:
      hid_.idle = static_cast<uint8_t>(setup.value >> 8);
      hid_.last_report = clock_.now();
      if (hid_.idle != 0) idle_timer_.arm_at(hid_.last_report + idle_ns());
      return true;
    case kSetProtocol:
      if (shape_.subclass == 0 || setup.value > 1) return false;
      hid_.boot_protocol = setup.value == 0;
      return true;
    default: return false;
  }
}

// [HID] 7.2.4: a report comes when something has happened, or when the idle time is over.
UsbAnswer UsbHid::data_in(uint8_t, std::span<uint8_t> to) {
  if (!has_event() && !idle_over()) return {.outcome = UsbOutcome::kNak};
  take_event();
  hid_.last_report = clock_.now();
  if (hid_.idle != 0) idle_timer_.arm_at(hid_.last_report + idle_ns());
  const std::vector<uint8_t> bytes = report();
  if (bytes.size() > to.size()) return {.outcome = UsbOutcome::kBabble};
  std::ranges::copy(bytes, to.begin());
  return {.outcome = UsbOutcome::kDone, .moved = bytes.size()};
}

void UsbHid::arm_idle() {
  const std::lock_guard lock(lock_);
  if (hid_.idle != 0 && configured())
    idle_timer_.arm_at(std::max(hid_.last_report, clock_.now()) + idle_ns());
  else
    idle_timer_.disarm();
}

void UsbHid::function_reset() {
  hid_ = {};
  in_use_ = configured();
  forget_events();
}

void UsbHid::save_function(StateWriter& writer) {
  const auto& [idle, boot_protocol, last_report] = hid_;
  writer.field(10, idle);
  writer.field(11, boot_protocol);
  writer.field(12, last_report);
  save_events(writer);
}

void UsbHid::restore_function(StateReader& reader) {
  restored_ = {};
  reader.field(10, restored_.idle);
  reader.field(11, restored_.boot_protocol);
  reader.field(12, restored_.last_report);
  if (reader.ok())
    require(reader, restored_.last_report >= 0 && restored_.last_report <= Clock::kNever / 2, "an impossible time");
  restore_events(reader);
}

void UsbHid::apply_function() {
  hid_ = restored_;
  in_use_ = configured();
  apply_events();
}

// --- the keyboard

namespace {

// [HID] appendix B.1, the boot keyboard: eight modifiers, a byte, six keys; five lamps.
const std::vector<uint8_t> kKeyboardReport = {
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01,                                      // usage: desktop, keyboard; collection
    0x75, 0x01, 0x95, 0x08, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7,              // 8 of 1 bit: modifiers
    0x15, 0x00, 0x25, 0x01, 0x81, 0x02,                                      //
    0x95, 0x01, 0x75, 0x08, 0x81, 0x01,                                      // a byte
    0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02,  // lamps
    0x95, 0x01, 0x75, 0x03, 0x91, 0x01,                                      //
    0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x26, 0xff, 0x00, 0x05, 0x07, 0x19, 0x00,  // 6 of 8 bits: keys
    0x2a, 0xff, 0x00, 0x81, 0x00, 0xc0};
constexpr uint8_t kRollOver = 1;  // more keys are down than a report has places for
constexpr size_t kMostDown = 32;

}  // namespace

UsbKeyboard::UsbKeyboard(std::string path, Clock& clock)
    : UsbHid({.path = std::move(path),
              .product = "USB Keyboard",
              .product_id = 1,
              .subclass = 1,
              .protocol = 1,
              .report_bytes = 8,
              .report_descriptor = kKeyboardReport},
             clock) {}

uint8_t UsbKeyboard::leds() {
  // [HID usage tables] 11: the lamps of a report, from bit 0 on.
  constexpr std::array kLamps = {display::kLedNum, display::kLedCaps, display::kLedScroll};
  const std::lock_guard lock(lock_);
  uint8_t lit = 0;
  for (size_t bit = 0; bit < kLamps.size(); ++bit)
    if ((keys_.leds >> bit & 1) != 0) lit |= kLamps[bit];
  return lit;
}

void UsbKeyboard::key(display::KeyNumber key, bool down) {
  const uint8_t usage = hid_usage_of(key);
  {
    const std::lock_guard lock(lock_);
    if (usage == 0 || !configured() || keys_.events.size() >= kMostEvents) return;
    keys_.events.push_back({usage, static_cast<uint8_t>(down ? 0 : kUp)});
  }
  told();
}

void UsbKeyboard::take_event() {
  if (keys_.events.empty()) return;
  const auto [usage, up] = keys_.events.front();
  keys_.events.pop_front();
  if (usage >= kHidFirstModifier && usage <= kHidLastModifier) {
    const auto bit = static_cast<uint8_t>(1u << (usage - kHidFirstModifier));
    keys_.modifiers = static_cast<uint8_t>(up != 0 ? keys_.modifiers & ~bit : keys_.modifiers | bit);
    return;
  }
  std::erase(keys_.down, usage);
  if (up == 0 && keys_.down.size() < kMostDown) keys_.down.push_back(usage);
}

std::vector<uint8_t> UsbKeyboard::report() const {
  std::vector<uint8_t> bytes(8);
  bytes[0] = keys_.modifiers;
  const auto keys = std::span(bytes).subspan(2);
  if (keys_.down.size() > kKeysInReport)
    std::ranges::fill(keys, kRollOver);
  else
    std::ranges::copy(keys_.down, keys.begin());
  return bytes;
}

bool UsbKeyboard::set_report(std::span<const uint8_t> data) {
  if (data.empty()) return false;
  keys_.leds = data[0] & 0x1f;
  return true;
}

void UsbKeyboard::forget_events() { keys_ = {}; }

void UsbKeyboard::save_events(StateWriter& writer) {
  const auto& [modifiers, leds, down, events] = keys_;
  writer.field(20, std::array{modifiers, leds});
  writer.field(21, down);
  std::vector<uint8_t> bytes;
  for (const auto& event : events) bytes.insert(bytes.end(), event.begin(), event.end());
  writer.field(22, bytes);
}

void UsbKeyboard::restore_events(StateReader& reader) {
  restored_keys_ = {};
  std::array<uint8_t, 2> numbers{};
  std::vector<uint8_t> events;
  reader.field(20, numbers);
  reader.field(21, restored_keys_.down);
  reader.field(22, events);
  if (!reader.ok() ||
      !require(reader,
               restored_keys_.down.size() <= kMostDown && events.size() % 2 == 0 && events.size() / 2 <= kMostEvents,
               "the keyboard's queue is impossible"))
    return;
  restored_keys_.modifiers = numbers[0];
  restored_keys_.leds = numbers[1];
  for (size_t at = 0; at < events.size(); at += 2) restored_keys_.events.push_back({events[at], events[at + 1]});
}

void UsbKeyboard::apply_events() { keys_ = std::move(restored_keys_); }

// --- pointers

namespace {

// [HID] appendix B.2 with a wheel: five buttons, then movement in bytes.
const std::vector<uint8_t> kMouseReport = {
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00,              // desktop, mouse; pointer
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01,              // buttons 1 to 5
    0x95, 0x05, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x03, 0x81, 0x01,  // and 3 bits
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x09, 0x38, 0x15, 0x81, 0x25, 0x7f,  // X, Y, wheel
    0x75, 0x08, 0x95, 0x03, 0x81, 0x06, 0xc0, 0xc0};

// The same with a place in 0 to 7fff.
const std::vector<uint8_t> kTabletReport = {
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00,                                      //
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01,                                      //
    0x95, 0x05, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x03, 0x81, 0x01,                          //
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, 0x35, 0x00, 0x46,              // X, Y
    0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02,                                                  //
    0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, 0x75, 0x08, 0x95, 0x01, 0x81, 0x06,  // wheel
    0xc0, 0xc0};

constexpr uint8_t kMostButtons = 0x1f;
constexpr int32_t kMostStep = 127;          // of a byte
constexpr int32_t kMostDistance = 1 << 20;  // that a mouse still has to go

}  // namespace

UsbPointer::UsbPointer(std::string path, bool tablet, Clock& clock)
    : UsbHid({.path = std::move(path),
              .product = tablet ? "USB Tablet" : "USB Mouse",
              .product_id = 1,
              .subclass = static_cast<uint8_t>(tablet ? 0 : 1),
              .protocol = static_cast<uint8_t>(tablet ? 0 : 2),
              .report_bytes = static_cast<uint8_t>(tablet ? 6 : 4),
              .report_descriptor = tablet ? kTabletReport : kMouseReport},
             clock),
      tablet_(tablet) {}

void UsbPointer::move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) {
  if (!tablet_) add({.x = dx, .y = dy, .z = dz, .buttons = buttons});
}

void UsbPointer::place(int32_t x, int32_t y, int32_t dz, uint8_t buttons) {
  if (!tablet_) return;
  add({.x = std::clamp(x, 0, display::kPlaceMost),
       .y = std::clamp(y, 0, display::kPlaceMost),
       .z = dz,
       .buttons = buttons});
}

// Movement joins what waits already while the buttons are the same: a slow guest sees where the pointer is, not each
// place where it has been, and every press.
void UsbPointer::add(const Event& event) {
  {
    const std::lock_guard lock(lock_);
    if (!configured()) return;
    const auto far = [](int32_t a, int32_t b) {
      return static_cast<int32_t>(std::clamp<int64_t>(int64_t{a} + b, -kMostDistance, kMostDistance));
    };
    Event next = event;
    next.buttons &= kMostButtons;
    const bool joins =
        !queue_.events.empty() && (queue_.events.back().buttons == next.buttons || queue_.events.size() >= kMostEvents);
    if (joins) {
      Event& last = queue_.events.back();
      last.x = tablet_ ? next.x : far(last.x, next.x);
      last.y = tablet_ ? next.y : far(last.y, next.y);
      last.z = far(last.z, next.z);
      last.buttons = next.buttons;
    } else {
      next.x = far(next.x, 0);
      next.y = far(next.y, 0);
      next.z = far(next.z, 0);
      queue_.events.push_back(next);
    }
  }
  told();
}

// What one report can tell of an event: the rest stays in the queue.
UsbPointer::Event UsbPointer::step_of(const Event& event) {
  const auto step = [](int32_t distance) { return std::clamp(distance, -kMostStep, kMostStep); };
  return {.x = step(event.x), .y = step(event.y), .z = step(event.z), .buttons = event.buttons};
}

void UsbPointer::take_event() {
  if (queue_.events.empty()) {
    if (!tablet_) queue_.shown.x = queue_.shown.y = 0;
    queue_.shown.z = 0;
    return;
  }
  Event& first = queue_.events.front();
  queue_.shown = step_of(first);
  if (tablet_) {
    queue_.shown.x = first.x;
    queue_.shown.y = first.y;
  } else {
    first.x -= queue_.shown.x;
    first.y -= queue_.shown.y;
  }
  first.z -= queue_.shown.z;
  if (first.z == 0 && (tablet_ || (first.x == 0 && first.y == 0))) queue_.events.pop_front();
}

std::vector<uint8_t> UsbPointer::report() const {
  const auto& [x, y, z, buttons] = queue_.shown;
  const auto low = [](int32_t value) { return static_cast<uint8_t>(value); };
  const auto high = [](int32_t value) { return static_cast<uint8_t>(value >> 8); };
  if (tablet_) return {buttons, low(x), high(x), low(y), high(y), low(z)};
  if (boot_protocol()) return {buttons, low(x), low(y)};
  return {buttons, low(x), low(y), low(z)};
}

void UsbPointer::forget_events() { queue_ = {}; }

void UsbPointer::save_events(StateWriter& writer) {
  const auto& [shown, events] = queue_;
  std::vector<uint8_t> bytes;
  const auto put = [&bytes](const Event& event) {
    const auto& [x, y, z, buttons] = event;
    for (const int32_t value : {x, y, z, int32_t{buttons}})
      for (unsigned shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<uint8_t>(value >> shift));
  };
  put(shown);
  for (const Event& event : events) put(event);
  writer.field(20, bytes);
}

void UsbPointer::restore_events(StateReader& reader) {
  constexpr size_t kEventBytes = 16;
  restored_queue_ = {};
  std::vector<uint8_t> bytes;
  reader.field(20, bytes);
  if (!reader.ok() ||
      !require(reader,
               bytes.size() % kEventBytes == 0 && !bytes.empty() && bytes.size() / kEventBytes <= kMostEvents + 1,
               "the pointer's queue is impossible"))
    return;
  for (size_t at = 0; at < bytes.size(); at += kEventBytes) {
    const auto number = [&](size_t index) { return load<int32_t>(&bytes[at + 4 * index]); };
    const Event event{.x = number(0), .y = number(1), .z = number(2), .buttons = static_cast<uint8_t>(number(3))};
    const auto near = [](int32_t value) { return value >= -kMostDistance && value <= kMostDistance; };
    if (!require(reader, near(event.x) && near(event.y) && near(event.z) && number(3) >= 0 && number(3) <= kMostButtons,
                 "an event of the pointer is impossible"))
      return;
    if (at == 0)
      restored_queue_.shown = event;
    else
      restored_queue_.events.push_back(event);
  }
}

void UsbPointer::apply_events() { queue_ = std::move(restored_queue_); }

}  // namespace kite::devices
