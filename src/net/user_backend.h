// UserBackend: a network of the guest's own behind NAT, all in this process (libslirp): DHCP, DNS, TFTP, port forwards.
// Needs no rights on the host.
//
// libslirp wants a loop of its own: fill() a list of descriptors, wait, poll(). Here the executor waits, and a pass of
// that loop comes before it does, when a frame, a descriptor or a deadline asks for one. While frames wait for the card
// there are none, so that the host's senders wait, too.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "async/clock.h"
#include "net/net_backend.h"
#include "net/user_options.h"

struct Slirp;

namespace kite::net {

class UserBackend final : public NetBackend {
 public:
  // `clock` counts host time, and fires on the executor.
  static Result<std::unique_ptr<UserBackend>> create(std::string id, Executor& executor, Clock& clock,
                                                     const UserConfig& config);
  ~UserBackend() override;

  [[nodiscard]] std::string info() const override;
  [[nodiscard]] bool verified() const override { return true; }
  Result<> add_forward(const Forward& forward);
  Result<> remove_forward(const Forward& forward);
  // A table of the connections, for people.
  [[nodiscard]] std::string connections() const;

 private:
  struct Callbacks;
  struct Watch {
    uint32_t asked = 0, wanted = 0, ready = 0;  // EPOLL*
  };
  struct Polled {
    int fd;
    int events;  // SLIRP_POLL_*
  };

  UserBackend(std::string id, Executor& executor, Clock& clock, UserConfig config);
  void open();
  Delivery do_send(Frame frame) override;
  void room_again() override { due_ = true; }

  bool before_wait();
  void fill();
  void stand_still();
  void ask(int fd, Watch& watch);
  void forget(int fd);
  [[nodiscard]] int ready_events(int index) const;

  const UserConfig config_;
  Clock& clock_;
  Slirp* slirp_ = nullptr;
  bool due_ = true;  // a pass is to come before the executor waits
  std::unordered_map<int, Watch> watches_;
  std::vector<Polled> polled_;  // in the order of fill()
  Timer deadline_;
};

}  // namespace kite::net
