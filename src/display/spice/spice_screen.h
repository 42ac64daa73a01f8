// SpiceScreen: libspice-server's side of the SPICE server, on a thread of its own, which the library keeps waiting
// while its own thread waits for a client that reads nothing: for 30 seconds at most, when the screen's size changes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "async/clock.h"
#include "async/executor.h"
#include "display/frame_relay.h"
#include "display/input.h"
#include "display/place.h"
#include "display/spice/spice_channel.h"
#include "display/spice/spice_config.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::display {

class SpiceScreen {
 public:
  static constexpr int64_t kNeverExpires = INT64_MAX;
  // Called on the executor's thread.
  struct Hooks {
    std::function<void(KeyNumber key, bool down)> key;
    std::function<void(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons)> move;
    std::function<void(uint16_t x, uint16_t y, int32_t dz, uint8_t buttons)> place;
    std::function<void(bool tablet)> mouse_mode;
    // `number` stands for the connection from kConnected to kDisconnected.
    std::function<void(ClientEvent event, uintptr_t number, const SpiceChannel& channel)> channel;
    std::function<void()> refused;                                // a socket that became no channel
    std::function<void(size_t number, Fd socket)> device_socket;  // of a port that a client has opened
  };

  // All on the executor's thread, the destructor as well. The three outlive this.
  SpiceScreen(Executor& executor, Clock& clock, FrameRelay& relay, Hooks hooks);
  ~SpiceScreen();
  SpiceScreen(const SpiceScreen&) = delete;
  SpiceScreen& operator=(const SpiceScreen&) = delete;

  Result<> start(const SpiceConfig& config);
  void add_client(Fd socket, bool tls);
  void refresh();  // there is something in the relay
  void set_tablet(bool there);
  void set_leds(uint8_t leds);
  // Character devices of the guest's, numbered from 0: spice_device.h.
  void add_device(std::string subtype, std::string port_name);
  void set_device_open(size_t number, bool open, Fd socket);
  // Nobody gets in before the first; `disconnect`: who is in is thrown out.
  void set_password(std::string password, bool disconnect);
  void set_expiry(int64_t seconds);  // since 1970, when the password ends; kNeverExpires

 private:
  Executor& executor_;
  struct Library;  // keeps the library's names out of this header
  std::unique_ptr<Library> library_;
};

}  // namespace kite::display
