// MuxChardev: several front ends on one back end. Everybody's output goes there; input goes to the port that has the
// focus. Ctrl-A and a letter speak to the mux itself.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/clock.h"
#include "chardev/chardev.h"
#include "chardev/doorbell.h"

namespace kite {

// A port learns kOpened when it has the focus for the first time (again after the back end was closed), later kMuxIn
// and kMuxOut as the focus comes and goes. The first port with a client begins with the focus.
class MuxChardev final : public Chardev, private ChardevClient {
 public:
  static constexpr size_t kInputBound = 4096;  // bytes a port keeps for a client that is not ready

  // `clock` counts for the time stamps.
  MuxChardev(std::unique_ptr<Chardev> backend, Executor& executor, const Clock& clock, MuxHooks hooks);
  ~MuxChardev() override;

  // A new port; the mux owns it. Its id is the mux's.
  Chardev* add_port();

  // The mux itself stands for its first port, which it makes when it is used so.
  void set_client(ChardevClient* client) override;
  size_t write(std::span<const uint8_t> bytes) override;
  void accept_input() override { look_again_.ring(); }
  [[nodiscard]] std::string filename() const override { return backend_->filename(); }
  [[nodiscard]] bool is_open() const override { return backend_->is_open(); }
  std::vector<Fd> take_fds() override { return backend_->take_fds(); }
  void flush() override { backend_->flush(); }

 private:
  class Port;

  // From the back end, on the executor's thread.
  size_t can_receive() override;
  void received(std::span<const uint8_t> bytes) override;
  void event(ChardevEvent event) override;
  void writable() override;

  void command(uint8_t key);
  void toggle_timestamps();
  void focus_next();
  void set_focus(Port* port);
  void deliver(Port& port);
  void look_again();
  void client_changed(Port& port);
  Port& own_port();

  size_t write_from(Port& port, std::span<const uint8_t> bytes);  // any thread
  void say(std::string_view text);
  // These under mutex_.
  bool send_pending();
  size_t write_stamped(std::span<const uint8_t> bytes);

  const Clock& clock_;
  MuxHooks hooks_;

  // The executor's thread only.
  std::vector<std::unique_ptr<Port>> ports_;
  Port* focus_ = nullptr;
  Port* own_ = nullptr;
  bool escaped_ = false;  // Ctrl-A came

  std::mutex mutex_;     // guards the rest; taken after a device's lock and before the back end's
  std::string pending_;  // the mux's own words that the back end has not taken; goes before anything else
  bool stamps_on_ = false;
  int64_t stamps_since_ns_ = 0;
  bool at_line_start_ = true;

  std::unique_ptr<Chardev> backend_;
  Doorbell look_again_;
};

}  // namespace kite
