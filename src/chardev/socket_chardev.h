// Unix and TCP sockets, with one peer at a time. While none is there, output is dropped. With TLS, a peer is there once
// hands are shaken.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/clock.h"
#include "chardev/socket_peers.h"
#include "chardev/stream_chardev.h"
#include "support/log.h"
#include "tls/tunnel.h"

namespace kite {

class SocketChardev final : public StreamChardev {
 public:
  struct Config {
    SocketPeers::Config peers;
    bool wait = false;                                      // of a server: wait_for_peer() is meant
    bool no_delay = true;                                   // TCP: small writes go out at once
    std::shared_ptr<const tls::Credentials> credentials{};  // TLS with these
  };
  // A client without `reconnect_ns` is connected when this returns; with TLS hands are shaken afterwards.
  static Result<std::unique_ptr<SocketChardev>> create(std::string id, Executor& executor, Fd log, Clock& clock,
                                                       Config config);
  ~SocketChardev() override;

  [[nodiscard]] std::string filename() const override;
  std::vector<Fd> take_fds() override { return std::exchange(fds_, {}); }

  [[nodiscard]] bool wants_to_wait() const { return peers_.config().server && wait_ && !is_open(); }
  // Blocks until a peer is there. Answers early, without one, when a signal that ends the process is pending.
  void wait_for_peer();

 private:
  SocketChardev(std::string id, Executor& executor, Fd log, Clock& clock, Config config);
  void take_peer(Fd peer);
  void begin(Fd peer);
  void begin_tunnel(Fd peer);
  void tunnel_ready();
  void tunnel_ended(const tls::Tunnel& tunnel, const std::string& why);
  void tunnel_failed(const std::string& why);
  void lose_peer();

  void input_ended(int) override { lose_peer(); }
  void output_failed(int) override { lose_peer(); }
  ssize_t receive(int fd, std::span<uint8_t> buffer) override;
  [[nodiscard]] uint32_t extra_input_events() const override;
  void extra_input_event() override;
  int send_waiting() override;

  Clock& clock_;
  const bool wait_, no_delay_;
  const std::shared_ptr<const tls::Credentials> credentials_;
  Fd peer_;  // with TLS, the plain end of tunnel_
  std::string peer_text_;
  std::unique_ptr<tls::Tunnel> tunnel_;   // null without TLS, and without a peer
  std::unique_ptr<tls::Tunnel> leaving_;  // of the peer before, while it takes the rest
  log::RateLimit failures_;
  bool peer_leaving_ = false;  // the peer hung up, and the client has not taken what it sent before
  std::vector<Fd> fds_;
  SocketPeers peers_;
};

}  // namespace kite
