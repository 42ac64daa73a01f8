// Tunnel: a TLS connection for those who know nothing of TLS. It shakes hands over a socket, and then carries bytes
// between that and the plain end of a socket pair, whose other end may be read and written by any thread. What one side
// does not take waits in a buffer and in the sockets behind it; nothing here blocks.
//
// Threads: the executor's, or before it runs.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/clock.h"
#include "async/executor.h"
#include "support/fd.h"
#include "support/result.h"
#include "tls/session.h"

namespace kite::tls {

class Tunnel {
 public:
  static constexpr int64_t kHandshakeNs = 30'000'000'000;  // a peer that is slower is dropped
  static constexpr int64_t kLeaveNs = 5'000'000'000;       // for the rest, once the plain end is closed
  static constexpr size_t kBufferBytes = 16384;            // each way: [RFC 8446] 5.1, the most a record carries

  struct Wiring {
    Executor& executor;
    Clock& clock;  // the host's
    // Hands are shaken; carry() is wanted. `peer_name` as Session's. It may destroy the tunnel.
    std::function<void(const std::string& peer_name)> ready;
    // The connection is over, and closed: `why` it failed, "" when one end closed it. Called once, last; it may
    // destroy the tunnel.
    std::function<void(Tunnel& tunnel, const std::string& why)> ended;
  };

  // `socket` is connected; it does not block from now on. `host` as Session's.
  static Result<std::unique_ptr<Tunnel>> create(Wiring wiring, Fd socket,
                                                std::shared_ptr<const Credentials> credentials,
                                                const std::string& host);
  // Says goodbye where that takes no wait.
  ~Tunnel();
  Tunnel(const Tunnel&) = delete;
  Tunnel& operator=(const Tunnel&) = delete;

  // Two plain ends that do not block, one for carry().
  static Result<std::array<Fd, 2>> make_ends();
  // After `ready`; the end that is given to others is closed when the connection is to end.
  void carry(Fd plain);

  // For who waits while the executor does not run: what the socket is to be ready for (POLL* bits), what to call then,
  // and when it gives up.
  [[nodiscard]] int socket() const { return socket_.get(); }
  [[nodiscard]] short awaited() const;
  void go_on();
  [[nodiscard]] std::optional<int64_t> deadline() const { return deadline_.deadline(); }
  [[nodiscard]] bool has_unsent() const;  // what was written to the plain end is not all on its way

 private:
  enum class Phase : uint8_t { kShaking, kShaken, kCarrying, kOver };
  // Bytes on their way to one side.
  struct Buffer {
    std::vector<uint8_t> bytes = std::vector<uint8_t>(kBufferBytes);
    size_t begin = 0, end = 0;
    [[nodiscard]] bool empty() const { return begin == end; }
    [[nodiscard]] std::span<uint8_t> waiting() { return std::span(bytes).subspan(begin, end - begin); }
  };

  Tunnel(Wiring wiring, Fd socket, Session session);
  void shake_hands();
  void pump();
  Result<bool> read_peer();
  Result<bool> write_peer();
  bool read_plain();
  bool write_plain();
  bool finish();
  void plain_ready(uint32_t events);
  void update_interest();
  [[nodiscard]] uint32_t socket_events() const;
  void end(const std::string& why);
  void close();

  Wiring wiring_;
  Fd socket_, plain_;
  Session session_;
  Phase phase_ = Phase::kShaking;
  Buffer incoming_, outgoing_;
  bool peer_done_ = false;     // it has said its last
  bool plain_told_ = false;    // of that
  bool plain_done_ = false;    // closed, and read to its end
  bool plain_closes_ = false;  // its other end is closed, or half
  bool reading_wants_write_ = false;
  Timer deadline_;
};

}  // namespace kite::tls
