// VncScreen: libvncserver's side of the VNC server, on a thread of its own. The library reads and writes its clients'
// sockets with waits in between, so a client that stalls holds up this thread: for kStallMs at most, then it is
// dropped. Nobody else waits for this thread: pictures come to it and input leaves it as posted work.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "async/clock.h"
#include "async/executor.h"
#include "display/frame_relay.h"
#include "support/fd.h"

namespace kite::display {

class VncScreen {
 public:
  static constexpr int kStallMs = 5000;
  static constexpr int64_t kNeverExpires = INT64_MAX;
  enum class Share : uint8_t { kAllowExclusive, kForceShared, kIgnore };
  struct Config {
    std::string name;       // as clients show it
    bool password = false;  // clients authenticate
    Share share = Share::kAllowExclusive;
  };
  // Called on the screen's thread.
  struct Hooks {
    std::function<void(uint32_t keysym, bool down)> key;
    std::function<void(int x, int y, int buttons)> pointer;  // the protocol's buttons, a bit each
    std::function<void(int client)> ready;                   // it is let in
    std::function<void(int client)> gone;
  };

  // All on the thread that runs `executor`, the destructor as well.
  VncScreen(Executor& executor, Clock& clock, Config config, Hooks hooks);
  ~VncScreen();
  VncScreen(const VncScreen&) = delete;
  VncScreen& operator=(const VncScreen&) = delete;

  void take(const FrameRelay::Frame& frame);  // copies; waits for nobody
  void update_clients();
  void add_client(int number, Fd socket);
  void drop_clients();
  void set_password(std::string password);  // "": nobody gets in
  void set_expiry(int64_t seconds);         // since 1970, when the password ends; kNeverExpires

 private:
  struct Library;  // keeps the library's names out of this header
  std::unique_ptr<Library> library_;
};

}  // namespace kite::display
