// NetBackend: where a network card's cable ends on the host: NAT in user space (user), a tap interface. Both sides
// speak Ethernet frames without the checksum at their end.
//
// Either side may have no room for a frame: it answers kFull, and tells when there is room again. What the card has no
// room for waits here, up to a bound; the back end takes no more from the host while frames wait.
//
// Threads: everything happens on the back end's Executor (the main loop), or before it runs. A card lives there, too.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/executor.h"
#include "metrics/metrics.h"
#include "support/result.h"

namespace kite::net {

inline constexpr size_t kHeaderBytes = 14;                           // of an Ethernet frame: two addresses, the type
inline constexpr size_t kMostFrameBytes = 65535 + kHeaderBytes + 4;  // the longest IPv4 packet, with a VLAN tag

using MacAddress = std::array<uint8_t, 6>;
// "52:54:00:12:34:56", or with dashes.
Result<MacAddress> parse_mac(std::string_view text);
std::string mac_text(const MacAddress& mac);

using Frame = std::span<const uint8_t>;
// name=value, in the order in which they were given; names may repeat.
using Settings = std::vector<std::pair<std::string, std::string>>;

enum class Delivery : uint8_t {
  kTaken,
  kFull,     // not now: whoever answers this tells when there is room
  kDropped,  // nobody listens, or the frame is not wanted
};

// What is at the guest's end: a network card.
class NetClient {
 public:
  virtual ~NetClient() = default;
  // A frame for the guest. After kFull the card calls NetBackend::accept_input().
  virtual Delivery receive(Frame frame) = 0;
  virtual void writable() {}  // after a send() that was kFull: there is room again
  virtual void link_changed() {}
  virtual void backend_gone() = 0;  // it is being destroyed

  struct Description {
    std::string name, model;
    MacAddress mac;
  };
  [[nodiscard]] virtual Description describe() const = 0;
};

class NetBackend {
 public:
  static constexpr size_t kMostWaiting = 1024;  // frames

  NetBackend(std::string id, std::string_view type, Executor& executor);
  virtual ~NetBackend();
  NetBackend(const NetBackend&) = delete;
  NetBackend& operator=(const NetBackend&) = delete;

  [[nodiscard]] const std::string& id() const { return id_; }
  [[nodiscard]] std::string_view type() const { return type_; }
  // What "info network" shows besides: "net=10.0.2.0,restrict=off".
  [[nodiscard]] virtual std::string info() const = 0;
  [[nodiscard]] Executor& executor() const { return executor_; }

  // The checksums in what it delivers are good: it made them itself.
  [[nodiscard]] virtual bool verified() const { return false; }

  // One card at a time; null unplugs it.
  void set_client(NetClient* client);
  [[nodiscard]] NetClient* client() const { return client_; }
  // A frame of the guest's.
  Delivery send(Frame frame);
  // The card may have room again, or does not want what waits any more.
  void accept_input();

  // A link is up while neither end took it down. Frames of a link that is down are dropped.
  enum class End : uint8_t { kHost, kCard };
  void set_link(End end, bool up);
  [[nodiscard]] bool link_up() const { return host_end_up_ && card_end_up_; }

 protected:
  virtual Delivery do_send(Frame frame) = 0;
  virtual void room_again() {}  // nothing waits for the card any more
  void deliver(Frame frame);
  [[nodiscard]] bool backed_up() const { return !waiting_.empty(); }

 private:
  void count_received(Delivery delivery, size_t bytes);

  const std::string id_;
  const std::string_view type_;
  Executor& executor_;
  NetClient* client_ = nullptr;
  bool host_end_up_ = true, card_end_up_ = true;
  std::deque<std::vector<uint8_t>> waiting_;
  // As the guest sees it: received is what came from the host.
  metrics::Counter rx_packets_, rx_bytes_, rx_dropped_, tx_packets_, tx_bytes_, tx_dropped_;
  metrics::Group metrics_;
};

}  // namespace kite::net
