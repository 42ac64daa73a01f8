// What the tests of ISA and PCI devices share: an address space to map them in, accessed as a CPU would, and a chardev
// whose host the test plays.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "chardev/chardev.h"
#include "memory/address_space.h"

namespace kite::testing {

// Applies changed maps before each access, as the machine's dispatcher does.
class TestSpace {
 public:
  explicit TestSpace(uint64_t size = 0x10000) : space_("test", size) {}
  [[nodiscard]] Region& root() { return space_.root(); }
  [[nodiscard]] AddressSpace& space() {
    commit();
    return space_;
  }
  void commit() {
    if (space_.stale()) space_.commit();
  }
  void map(uint64_t address, const std::shared_ptr<Region>& region) { root().add(address, region); }
  uint32_t in(uint64_t address, unsigned size = 1) {
    uint64_t value = 0;
    space().read(address, size, value);
    return static_cast<uint32_t>(value);
  }
  void out(uint64_t address, uint64_t value, unsigned size = 1) { space().write(address, size, value); }

 private:
  AddressSpace space_;
};

class FakeChardev final : public Chardev {
 public:
  FakeChardev() : Chardev("fake") {}
  [[nodiscard]] std::string filename() const override { return "fake"; }
  void set_client(ChardevClient* client) override {
    client_ = client;
    if (client_ != nullptr && open_) client_->event(ChardevEvent::kOpened);
  }
  size_t write(std::span<const uint8_t> bytes) override {
    const size_t taken = std::min(bytes.size(), room_);
    room_ -= taken;
    output_.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
    return taken;
  }
  void accept_input() override { feed(); }
  [[nodiscard]] bool is_open() const override { return open_; }

  // The host's side.
  void set_room(size_t room) {
    room_ = room;
    if (room > 0 && client_ != nullptr) client_->writable();
  }
  void type(std::string_view text) {
    input_ += text;
    feed();
  }
  void set_open(bool open) {
    open_ = open;
    if (client_ != nullptr) client_->event(open ? ChardevEvent::kOpened : ChardevEvent::kClosed);
  }
  void send_break() { client_->event(ChardevEvent::kBreak); }
  [[nodiscard]] const std::string& output() const { return output_; }
  [[nodiscard]] const std::string& waiting_input() const { return input_; }
  [[nodiscard]] ChardevClient* client() const { return client_; }

 private:
  void feed() {
    while (client_ != nullptr && !input_.empty()) {
      const size_t count = std::min(client_->can_receive(), input_.size());
      if (count == 0) return;
      const std::string part = input_.substr(0, count);
      input_.erase(0, count);
      client_->received({reinterpret_cast<const uint8_t*>(part.data()), part.size()});
    }
  }

  ChardevClient* client_ = nullptr;
  bool open_ = true;
  size_t room_ = SIZE_MAX;
  std::string output_;
  std::string input_;
};

}  // namespace kite::testing
