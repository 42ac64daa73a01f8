// For the tests of this folder: a client that remembers what happened to it, and waiting for the event loop.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "chardev/chardev.h"

namespace kite::testing_support {

class RecordingClient final : public ChardevClient {
 public:
  size_t can_receive() override { return room; }
  void received(std::span<const uint8_t> bytes) override {
    ASSERT_LE(bytes.size(), room);
    text.append(bytes.begin(), bytes.end());
    if (bounded) room -= bytes.size();
    if (on_received) on_received();
  }
  void event(ChardevEvent event) override { events.push_back(event); }
  void writable() override { ++writables; }

  [[nodiscard]] int count(ChardevEvent event) const {
    int total = 0;
    for (const ChardevEvent seen : events) total += seen == event;
    return total;
  }

  size_t room = 1 << 20;
  bool bounded = false;  // received bytes use the room up
  std::function<void()> on_received;
  std::string text;
  std::vector<ChardevEvent> events;
  int writables = 0;
};

inline std::unique_ptr<Executor> make_executor() { return std::move(*Executor::create("chardev-test")); }

inline std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Runs the loop until `done`; gives up, and fails the test, when nothing leads there.
inline void run_until(Executor& executor, const std::function<bool()>& done) {
  for (int pass = 0; pass < 2000 && !done(); ++pass) executor.run_once(5'000'000);
  ASSERT_TRUE(done());
}
// Lets everything happen that is ready.
inline void settle(Executor& executor) {
  for (int pass = 0; pass < 8; ++pass) executor.run_once(0);
}

// Reads exactly this many bytes from a blocking or non-blocking descriptor while the loop runs.
inline std::string read_from(Executor& executor, int fd, size_t size) {
  std::string text;
  for (int pass = 0; pass < 20'000 && text.size() < size; ++pass) {
    executor.run_once(0);
    pollfd readable{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&readable, 1, 0) <= 0) {
      executor.run_once(1'000'000);
      continue;
    }
    std::string part(size - text.size(), '\0');
    const ssize_t count = ::read(fd, part.data(), part.size());
    if (count > 0) text.append(part, 0, static_cast<size_t>(count));
    if (count <= 0) executor.run_once(1'000'000);
  }
  return text;
}

}  // namespace kite::testing_support
