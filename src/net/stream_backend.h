// StreamBackend: a cable to another machine over a TCP or unix stream socket, frame by frame as QEMU writes them
// (FrameCutter): -netdev socket with listen=, connect= or fd=, and -netdev stream.
//
// The other end comes and goes. While none is there, frames go nowhere. One that sends what cannot be a frame's length
// is hung up on.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chardev/socket_peers.h"
#include "net/frame_cutter.h"
#include "net/net_backend.h"
#include "support/log.h"

namespace kite::net {

struct StreamConfig {
  std::string_view type;  // what the back end calls itself
  SocketPeers::Config peers;
};

class StreamBackend final : public NetBackend {
 public:
  // `clock` counts host time, and fires on the executor. `changed` hears of every peer that comes or goes.
  using Changed = std::function<void(const StreamBackend& backend)>;
  static Result<std::unique_ptr<StreamBackend>> create(std::string id, Executor& executor, Clock& clock,
                                                       const StreamConfig& config, Changed changed);
  ~StreamBackend() override;

  [[nodiscard]] std::string info() const override;
  [[nodiscard]] bool connected() const { return peer_.valid(); }
  // Where the cable goes: the address that was given, for a server over TCP the peer's.
  [[nodiscard]] SocketAddress address() const;
  [[nodiscard]] int given_fd() const { return peers_.config().fd; }  // -1: there was none

 private:
  StreamBackend(std::string id, Executor& executor, Clock& clock, const StreamConfig& config, Changed changed);
  Delivery do_send(Frame frame) override;
  void room_again() override { update_interest(); }
  void take_peer(Fd peer);
  void lose_peer(std::string_view why);
  void ready(uint32_t events);
  void read_frames();
  void send_rest();
  void update_interest();

  const Changed changed_;
  Fd peer_;
  FrameCutter cutter_;
  std::vector<uint8_t> chunk_;   // scratch: what was read
  std::vector<uint8_t> unsent_;  // the rest of a frame that the socket had no room for
  bool full_ = false;            // the card waits for writable()
  log::RateLimit told_;          // a peer can come and go at will
  SocketPeers peers_;
};

}  // namespace kite::net
