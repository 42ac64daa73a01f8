// SpiceChardev: spicevmc and spiceport, whose other end is with the SPICE server: the agent's side of the server
// itself, or a port that a client opens by name. Its bytes go through a pair of sockets of its own for every
// connection, so that what one has not taken never reaches the next, and either side holds up the other.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "chardev/stream_chardev.h"

namespace kite {

// The SPICE server, as chardevs see it. Executor's thread.
struct SpiceCarrier {
  // Numbers a device of the library's kind `subtype` ("vdagent", "port"; `port_name` for ports). `connected` is called
  // with a stream socket when a client has opened the port.
  std::function<size_t(const std::string& subtype, const std::string& port_name, std::function<void(Fd)> connected)>
      add;
  // The guest listens, or does not any more; an agent's stream socket comes with the former.
  std::function<void(size_t number, bool open, Fd socket)> set_open;
};

// An agent's is open as soon as there is a server, and closed when the server wants no more of this agent, until the
// guest opens it again. A port's is open while a client has it open.
class SpiceChardev final : public StreamChardev {
 public:
  struct Config {
    std::string subtype, port_name;
  };
  SpiceChardev(std::string id, Executor& executor, Fd log, Config config);
  ~SpiceChardev() override { shut_down(); }

  [[nodiscard]] std::string filename() const override { return is_port() ? "spiceport" : "spicevmc"; }
  void set_client(ChardevClient* client) override;
  void set_frontend_open(bool open) override;  // any thread; the caller may hold its own lock
  // Before the executor runs. The carrier is used only on the executor's thread, and only while that runs.
  Result<> plug_into(const SpiceCarrier& carrier);

 private:
  [[nodiscard]] bool is_port() const { return config_.subtype == "port"; }
  Result<> offer();
  void begin(Fd socket);
  void lose();
  void tell();
  void input_ended(int) override { lose(); }
  void output_failed(int) override {}  // the end of the input follows
  // Without a client nobody reads, and the end is noticed all the same.
  [[nodiscard]] uint32_t extra_input_events() const override;
  void extra_input_event() override { lose(); }

  const Config config_;
  std::atomic<unsigned> closed_count_{0};  // how often the front end has ceased to listen

  // The executor's thread only.
  SpiceCarrier carrier_{};
  size_t number_ = 0;
  Fd socket_, far_end_;  // the other end of it, which an agent's server has not got yet
  bool told_open_ = false;
  unsigned told_closed_count_ = 0;
  Doorbell frontend_changed_;
};

}  // namespace kite
