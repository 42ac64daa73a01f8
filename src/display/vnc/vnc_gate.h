// VncGate: the way in for VNC clients with TLS: VeNCrypt, security type 19 of the protocol's community specification.
// It speaks with a client up to the end of the TLS handshake, and then gives VncScreen a plain socket on which the
// library finds a client that has just begun. A client that does not come so far in time is dropped.
//
// All on the executor's thread, which is not the library's: that waits for what this carries.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "async/clock.h"
#include "async/executor.h"
#include "support/fd.h"
#include "tls/credentials.h"

namespace kite::display {

class VncGate {
 public:
  static constexpr int64_t kGreetingNs = 30'000'000'000;  // until the TLS handshake begins, which has as much again
  static constexpr size_t kMostClients = 128;             // those included whose last bytes are on their way
  struct Config {
    std::shared_ptr<const tls::Credentials> credentials;
    bool password = false;  // the library asks for one afterwards
  };
  struct Hooks {
    // Let through: what it has proved to be, "" for nothing, and the library's end.
    std::function<void(int number, const std::string& name, Fd plain)> through;
    std::function<void(int number)> dropped;  // before that
  };

  // The clock is the host's.
  VncGate(Executor& executor, Clock& clock, Config config, Hooks hooks);
  ~VncGate();
  VncGate(const VncGate&) = delete;
  VncGate& operator=(const VncGate&) = delete;

  void add_client(int number, Fd socket);

 private:
  class Client;
  void remove(int number);

  Executor& executor_;
  Clock& clock_;
  const Config config_;
  const Hooks hooks_;
  std::map<int, std::unique_ptr<Client>> clients_;
};

}  // namespace kite::display
