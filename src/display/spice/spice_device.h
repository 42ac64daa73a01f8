// SpiceDevice: one of the guest's character devices, to libspice-server. What the guest says and hears goes through a
// stream socket, whose two buffers are all that waits here. An agent is known to the library while the guest listens,
// a port always.
#pragma once

#include <spice.h>

#include <functional>
#include <string>

#include "async/executor.h"
#include "support/fd.h"

namespace kite::display {

class SpiceDevice {
 public:
  // All of it on the executor's thread, which is the library's main one. `socket_made` gets the other end of a port's
  // socket when a client has opened it; an agent's is brought along.
  SpiceDevice(Executor& executor, SpiceServer& server, std::string subtype, std::string port_name,
              std::function<void(Fd)> socket_made);
  ~SpiceDevice();
  SpiceDevice(const SpiceDevice&) = delete;
  SpiceDevice& operator=(const SpiceDevice&) = delete;

  void set_open(bool open, Fd socket);

 private:
  // The library hands back pointers to the first.
  struct Instance {
    SpiceCharDeviceInstance instance;
    SpiceDevice* owner;
  };
  static const SpiceBaseInterface* interface();
  [[nodiscard]] bool is_port() const { return subtype_ == "port"; }
  void enter();
  void leave();
  void take(Fd socket);
  void drop();
  void state(bool connected);
  int write(const uint8_t* bytes, int length);
  int read(uint8_t* bytes, int length);
  void wait_for(uint32_t events);
  void ready(uint32_t events);

  Executor& executor_;
  SpiceServer& server_;
  const std::string subtype_, port_name_;
  const std::function<void(Fd)> socket_made_;
  Instance library_{};
  bool known_ = false;  // to the library
  bool open_ = false;
  Fd socket_;
  uint32_t awaited_ = 0;  // what the library waits for: room, or something to read
};

}  // namespace kite::display
