// SpiceLink: packets between this process and the one that runs libspice-server, over a socket that keeps their bounds.
// Neither end waits for the other; what the socket has no room for is kept. What comes is checked here for its form,
// and by whoever uses it for what it says.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "async/executor.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::display {

enum class SpicePacketKind : uint8_t {
  // To the server. It begins with kStart.
  kStart,       // name, ticketing, count, settings, count, channel rules, whether there is TLS, its six texts
  kClient,      // whether with TLS, and its socket
  kPicture,     // width, height, and the memory that its pixels are in: a new size, and all has changed
  kChanged,     // count, rectangles
  kTablet,      // there or not
  kLeds,        // bits
  kPassword,    // text, whether to disconnect
  kExpiry,      // seconds
  kDevice,      // the next number: subtype, name of a port
  kDeviceOpen,  // number, whether the guest listens; with it the socket of an agent
  // From the server.
  kStarted,       // "" or why not
  kTaken,         // the picture or the changes: the memory may be written again
  kKey,           // number, down
  kMove,          // dx, dy, dz, buttons
  kPlace,         // x, y, dz, buttons
  kMouseMode,     // whether the tablet is used
  kChannel,       // event, number, the two places, connection, whether with TLS, type, id
  kRefused,       // a socket that became no channel
  kDeviceSocket,  // number, and the socket of a port that a client has opened
  kLast = kDeviceSocket,
};

class SpicePacket {
 public:
  static constexpr size_t kMostBytes = 64u << 10;

  explicit SpicePacket(SpicePacketKind kind, Fd fd = {}) : kind_(kind), fd_(std::move(fd)) {}
  SpicePacket(SpicePacketKind kind, std::vector<uint8_t> bytes, Fd fd)
      : kind_(kind), bytes_(std::move(bytes)), fd_(std::move(fd)) {}

  // These answer the packet itself.
  template <class Self, class Value>
    requires std::is_trivially_copyable_v<Value>
  Self&& put(this Self&& self, const Value& value) {
    const auto* const from = reinterpret_cast<const uint8_t*>(&value);
    self.bytes_.insert(self.bytes_.end(), from, from + sizeof value);
    return std::forward<Self>(self);
  }
  template <class Self>
  Self&& put_text(this Self&& self, std::string_view text) {
    self.put(static_cast<uint32_t>(text.size()));
    self.bytes_.insert(self.bytes_.end(), text.begin(), text.end());
    return std::forward<Self>(self);
  }

  // In the order in which they were put; a zero or an empty text where the packet has ended, and then not good().
  template <class Value>
    requires std::is_trivially_copyable_v<Value>
  Value get() {
    Value value{};
    good_ = good_ && bytes_.size() - at_ >= sizeof value;
    if (!good_) return value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  bool get_flag() { return get<uint8_t>() != 0; }
  std::string get_text();

  [[nodiscard]] SpicePacketKind kind() const { return kind_; }
  [[nodiscard]] const std::vector<uint8_t>& bytes() const { return bytes_; }
  [[nodiscard]] Fd& fd() { return fd_; }
  [[nodiscard]] bool good() const { return good_; }

 private:
  SpicePacketKind kind_;
  std::vector<uint8_t> bytes_;
  size_t at_ = 0;
  bool good_ = true;
  Fd fd_;
};

// The executor's thread.
class SpiceLink {
 public:
  // `closed`: the other end is gone, or speaks nonsense; no packet comes afterwards. The callbacks may not destroy
  // this.
  SpiceLink(Executor& executor, Fd socket, std::function<void(SpicePacket)> received, std::function<void()> closed);
  ~SpiceLink();
  SpiceLink(const SpiceLink&) = delete;
  SpiceLink& operator=(const SpiceLink&) = delete;

  // Two ends, for SpiceLinks.
  static Result<std::array<Fd, 2>> make_sockets();

  void send(SpicePacket packet);

 private:
  void ready(uint32_t events);
  bool receive();  // false when there is nothing more
  [[nodiscard]] bool send_now(SpicePacket& packet);
  void end();

  Executor& executor_;
  Fd socket_;
  const std::function<void(SpicePacket)> received_;
  const std::function<void()> closed_;
  std::deque<SpicePacket> waiting_;
  std::vector<uint8_t> received_bytes_ = std::vector<uint8_t>(SpicePacket::kMostBytes);  // of the message at hand
  bool ended_ = false;
};

}  // namespace kite::display
