// Unix and TCP sockets. A server takes one peer at a time and waits for the next when it leaves; a client may be told
// to connect again after some seconds. While no peer is there, output is dropped.
#pragma once

#include <vector>

#include "async/clock.h"
#include "chardev/socket_address.h"
#include "chardev/stream_chardev.h"

namespace kite {

class SocketChardev final : public StreamChardev {
 public:
  struct Config {
    SocketAddress address;
    int fd = -1;  // a socket that was handed to us, instead of an address: listening for a server, else connected
    bool server = false;
    bool wait = false;         // of a server: wait_for_peer() is meant
    bool no_delay = true;      // TCP: small writes go out at once
    int64_t reconnect_ns = 0;  // of a client: how long after a failure or a loss it tries again; 0 for never
  };
  // A client without `reconnect_ns` is connected when this returns.
  static Result<std::unique_ptr<SocketChardev>> create(std::string id, Executor& executor, Fd log, Clock& clock,
                                                       Config config);
  ~SocketChardev() override;

  [[nodiscard]] std::string filename() const override;
  std::vector<Fd> take_fds() override { return std::exchange(fds_, {}); }

  [[nodiscard]] bool wants_to_wait() const { return config_.server && config_.wait && !is_open(); }
  // Blocks until a peer is there. Answers early, without one, when a signal that ends the process is pending.
  void wait_for_peer();

 private:
  SocketChardev(std::string id, Executor& executor, Fd log, Clock& clock, Config config);
  Result<> start();
  Result<> adopt_fd();
  void listen_again();
  void accept_peer();
  void start_connecting();
  void try_endpoint();
  void connection_ready();
  void take_peer(Fd peer);
  void lose_peer();
  void try_later(int64_t ns);

  void input_ended(int) override { lose_peer(); }
  void output_failed(int) override { lose_peer(); }
  ssize_t receive(int fd, std::span<uint8_t> buffer) override;
  [[nodiscard]] uint32_t extra_input_events() const override;
  void extra_input_event() override;

  Config config_;
  std::vector<Endpoint> endpoints_;
  size_t endpoint_ = 0;  // the one that is being tried
  Fd listener_;
  Fd connecting_;
  Fd peer_;
  std::string where_;          // what filename() calls the socket
  bool peer_leaving_ = false;  // the peer hung up, and the client has not taken what it sent before
  std::vector<Fd> fds_;
  Timer later_;
};

}  // namespace kite
