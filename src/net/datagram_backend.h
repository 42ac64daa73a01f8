// DatagramBackend: a cable whose frames are one datagram each: UDP to one other machine, UDP to a multicast group of
// many, a unix datagram socket, or a descriptor. -netdev socket with udp= or mcast=, and -netdev dgram.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/clock.h"
#include "chardev/socket_address.h"
#include "net/net_backend.h"

namespace kite::net {

struct DatagramConfig {
  std::string_view type;  // what the back end calls itself
  int fd = -1;            // a socket that was handed to us, instead of `local`; connected when there is no `remote`
  std::optional<SocketAddress> local{}, remote{};
  // `remote` is a group of IPv4, and `local`, if it is given, the address of the interface to it, without a port.
  bool multicast = false;
};
// Whether the host of this address is a group of IPv4.
bool is_multicast(const SocketAddress& address);

class DatagramBackend final : public NetBackend {
 public:
  // `clock` counts host time, and fires on the executor.
  static Result<std::unique_ptr<DatagramBackend>> create(std::string id, Executor& executor, Clock& clock,
                                                         const DatagramConfig& config);
  ~DatagramBackend() override;

  [[nodiscard]] std::string info() const override;

 private:
  DatagramBackend(std::string id, Executor& executor, Clock& clock, const DatagramConfig& config);
  Result<> open();
  Result<> adopt_fd();
  Result<> join_group();
  Delivery do_send(Frame frame) override;
  void room_again() override { update_interest(); }
  void read_frames();
  void update_interest();
  Delivery wait_for_room();
  void room_to_send();
  [[nodiscard]] int sending_fd() const { return sender_.valid() ? sender_.get() : socket_.get(); }

  const DatagramConfig config_;
  Fd socket_;
  Fd sender_;                      // of a group: what comes from here is our own
  std::optional<Endpoint> to_;     // none: the socket is connected
  std::optional<Endpoint> own_;    // the address of `sender_`
  std::vector<uint8_t> datagram_;  // scratch
  bool full_ = false;              // the card waits for writable()
  int refusals_ = 0;               // how often a peer had no room, without a break
  Timer again_;
};

}  // namespace kite::net
