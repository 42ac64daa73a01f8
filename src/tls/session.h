// Session: TLS over one connected socket that does not block. [RFC 8446], [RFC 5246]. Nothing here waits: what cannot
// go on says so, and is asked again when the socket is ready for what wants_write() says.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "support/result.h"
#include "tls/credentials.h"

namespace kite::tls {

class Session {
 public:
  // A client with a `host` believes only a certificate for this name or address. The socket is the caller's, and
  // outlives this.
  static Result<Session> start(std::shared_ptr<const Credentials> credentials, int socket, const std::string& host);
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  // True once both have proved what they have to; false: it waits. The peer is told of a failure.
  Result<bool> shake_hands();
  // Who the other end has proved to be: its certificate's subject; "" where it has to prove nothing.
  [[nodiscard]] std::string peer_name() const;

  // How many bytes, 0 when the peer has said its last; nothing: it waits.
  Result<std::optional<size_t>> read(std::span<uint8_t> buffer);
  // How many were taken; nothing: it waits, and wants the same bytes again.
  Result<std::optional<size_t>> write(std::span<const uint8_t> bytes);
  // Tells the peer that nothing more comes; false: it waits.
  Result<bool> say_goodbye();

  [[nodiscard]] bool has_unread() const;   // read() has something, whatever the socket has
  [[nodiscard]] bool wants_write() const;  // what waits, waits for room in the socket, not for bytes

 private:
  struct Library;
  explicit Session(std::unique_ptr<Library> library);

  std::unique_ptr<Library> library_;
};

}  // namespace kite::tls
