// Where the peers at the other end of a stream socket come from, one after the other. A server takes one and lets the
// next wait until it leaves; a client connects, and may be told to connect again after some seconds.
//
// Threads: the executor's, or before it runs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "async/clock.h"
#include "async/executor.h"
#include "chardev/socket_address.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite {

class SocketPeers {
 public:
  struct Config {
    SocketAddress address;
    int fd = -1;  // a socket that was handed to us, instead of an address: listening for a server, else connected
    bool server = false;
    int64_t reconnect_ns = 0;  // of a client: how long after a failure or a loss it tries again; 0 for never
  };
  struct Wiring {
    Executor& executor;
    Clock& clock;
    std::string who;                           // for messages: "chardev 'c0'"
    std::function<void(Fd)> arrived;           // a peer, whose socket does not block
    std::function<void(int error)> gave_up{};  // after start(): nobody answered and it is not tried again; errno
  };
  // What start() does where a client has no `reconnect_ns`: it comes back connected, or while that goes on.
  enum class Connect : uint8_t { kWait, kGoOn };

  SocketPeers(Config config, Wiring wiring);
  ~SocketPeers();
  SocketPeers(const SocketPeers&) = delete;
  SocketPeers& operator=(const SocketPeers&) = delete;

  // Takes `fd` when all is well. A peer may arrive before it returns.
  Result<> start(Connect connect);
  // The peer that arrived last has left: the next one may come.
  void left();

  [[nodiscard]] const Config& config() const { return config_; }
  // "tcp:127.0.0.1:4444" with the port that a server really has, "unix:PATH", "fd:3".
  [[nodiscard]] const std::string& where() const { return where_; }
  [[nodiscard]] int listener() const { return listener_.get(); }
  void accept();  // takes the peer that waits at the listener, if one does

 private:
  Result<> adopt_fd();
  void listen_again();
  void start_connecting();
  void try_endpoint();
  void connection_ready();
  void try_later(int64_t ns);

  const Config config_;
  const Wiring wiring_;
  std::vector<Endpoint> endpoints_;
  size_t endpoint_ = 0;  // the one that is being tried
  int error_ = 0;        // why the one before it was none
  bool over_ = false;    // none was, and it is not tried again
  Fd listener_;
  Fd connecting_;
  std::string where_;
  Timer later_;
};

}  // namespace kite
