// What the tests of USB share: a host that only listens, requests as bytes, and a device that answers as it is told.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

#include "devices/usb/usb_bus.h"

namespace kite::testing {

class FakeUsbHost final : public devices::UsbController {
 public:
  void endpoint_ready(unsigned port, uint8_t endpoint) override { ready.emplace_back(port, endpoint); }
  void port_attached(unsigned port) override { attached.push_back(port); }
  void port_detached(unsigned port) override { detached.push_back(port); }
  std::vector<std::pair<unsigned, uint8_t>> ready;
  std::vector<unsigned> attached, detached;
};

inline std::array<uint8_t, 8> usb_setup(uint8_t type, uint8_t request, uint16_t value, uint16_t index,
                                        uint16_t length) {
  const auto low = [](uint16_t number) { return static_cast<uint8_t>(number); };
  const auto high = [](uint16_t number) { return static_cast<uint8_t>(number >> 8); };
  return {type, request, low(value), high(value), low(index), high(index), low(length), high(length)};
}

// A whole control transfer, as fast as the device lets it. Nothing when it stalls.
inline std::optional<std::vector<uint8_t>> usb_control(devices::UsbDevice& device, std::array<uint8_t, 8> setup,
                                                       std::vector<uint8_t> data = {}) {
  using devices::UsbOutcome;
  device.setup(setup);
  const size_t length = static_cast<size_t>(setup[6] | setup[7] << 8);
  std::vector<uint8_t> answer((setup[0] & 0x80) != 0 ? length : 0);
  if (length != 0) {
    const auto stage = answer.empty() ? device.out(0, data) : device.in(0, answer);
    if (stage.outcome != UsbOutcome::kDone) return {};
    answer.resize(answer.empty() ? 0 : stage.moved);
  }
  const auto status = (setup[0] & 0x80) != 0 && length != 0 ? device.out(0, {}) : device.in(0, {});
  if (status.outcome != UsbOutcome::kDone) return {};
  return answer;
}

inline bool usb_configure(devices::UsbDevice& device) {
  return usb_control(device, usb_setup(0, 9, 1, 0, 0)).has_value();
}

// Two endpoints: 0x81 gives what `to_give` holds and is not ready while it is empty, 0x02 takes.
class FakeUsbDevice final : public devices::UsbDevice {
 public:
  explicit FakeUsbDevice(std::vector<devices::usb::Speed> speeds)
      : UsbDevice("fake", "Fake", make_descriptors(speeds)) {}
  using UsbDevice::endpoint_ready;
  std::vector<uint8_t> to_give, taken;
  devices::UsbOutcome outcome = devices::UsbOutcome::kDone;  // of data_in, unless there is nothing to give
  int resets = 0;

 private:
  static devices::UsbDescriptors make_descriptors(const std::vector<devices::usb::Speed>& speeds) {
    using devices::usb::Speed;
    const auto configuration = devices::usb_configuration(
        {.class_code = 0xff, .subclass = 0, .protocol = 0, .endpoints = 2},
        devices::usb_bytes({devices::usb_endpoint(0x81, 2, 64, 0), devices::usb_endpoint(0x02, 2, 64, 0)}));
    devices::UsbDescriptors all{.device = devices::usb_device_descriptor(0x1234, 0x5678, 2),
                                .full = {},
                                .high = {},
                                .super = {},
                                .strings = {"Maker", "Fake"}};
    for (const Speed speed : speeds)
      (speed == Speed::kSuper ? all.super : speed == Speed::kHigh ? all.high : all.full) = configuration;
    return all;
  }
  devices::UsbAnswer data_in(uint8_t, std::span<uint8_t> to) override {
    if (outcome != devices::UsbOutcome::kDone) return {.outcome = outcome};
    if (to_give.empty()) return {.outcome = devices::UsbOutcome::kNak};
    const size_t count = std::min(to.size(), to_give.size());
    std::copy_n(to_give.begin(), count, to.begin());
    to_give.erase(to_give.begin(), to_give.begin() + static_cast<ptrdiff_t>(count));
    return {.outcome = devices::UsbOutcome::kDone, .moved = count};
  }
  devices::UsbAnswer data_out(uint8_t, std::span<const uint8_t> from) override {
    taken.insert(taken.end(), from.begin(), from.end());
    return {.outcome = devices::UsbOutcome::kDone, .moved = from.size()};
  }
  [[nodiscard]] bool has_endpoint(uint8_t endpoint) const override { return endpoint == 0x81 || endpoint == 0x02; }
  void function_reset() override { ++resets; }
  void save_function(StateWriter&) override {}
  void restore_function(StateReader&) override {}
  void apply_function() override {}
};

}  // namespace kite::testing
