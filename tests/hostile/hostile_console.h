// A serial line whose far end means harm: it sends what the test says, takes as much as the test says, and goes away at
// will.
#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "chardev/chardev.h"

namespace kite::hostile {

class HostileConsole final : public Chardev {
 public:
  using Chardev::Chardev;

  [[nodiscard]] std::string filename() const override { return "hostile"; }
  void set_client(ChardevClient* client) override {
    client_ = client;
    if (client_ != nullptr && open_) client_->event(ChardevEvent::kOpened);
  }
  size_t write(std::span<const uint8_t> bytes) override {
    if (!open_) return bytes.size();
    const size_t taken = std::min(room_, bytes.size());
    room_ -= taken;
    starved_ = starved_ || taken < bytes.size();
    return taken;
  }
  void accept_input() override { wanted_ = true; }
  [[nodiscard]] bool is_open() const override { return open_; }

  // The far end's side. Nothing of the client runs inside write(), so these are called between the guest's accesses.
  void type(std::span<const uint8_t> bytes) {
    waiting_.append(bytes.begin(), bytes.end());
    if (waiting_.size() > kMostWaiting) waiting_.erase(0, waiting_.size() - kMostWaiting);
    deliver();
  }
  void send_break() { tell(ChardevEvent::kBreak); }
  void set_open(bool open) {
    if (std::exchange(open_, open) != open) tell(open ? ChardevEvent::kOpened : ChardevEvent::kClosed);
  }
  void set_room(size_t room) { room_ = room; }
  // What a main loop would do next: more input, room for output.
  void turn() {
    if (std::exchange(wanted_, false)) deliver();
    if (client_ != nullptr && starved_ && room_ > 0) {
      starved_ = false;
      client_->writable();
    }
  }

 private:
  static constexpr size_t kMostWaiting = 65'536;

  void tell(ChardevEvent event) {
    if (client_ != nullptr) client_->event(event);
  }
  void deliver() {
    while (client_ != nullptr && open_ && !waiting_.empty()) {
      const size_t count = std::min(client_->can_receive(), waiting_.size());
      if (count == 0) return;
      client_->received({reinterpret_cast<const uint8_t*>(waiting_.data()), count});
      waiting_.erase(0, count);
    }
  }

  ChardevClient* client_ = nullptr;
  bool open_ = true, starved_ = false, wanted_ = false;
  size_t room_ = SIZE_MAX;
  std::string waiting_;
};

}  // namespace kite::hostile
