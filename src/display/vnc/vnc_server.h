// VncServer: the console for VNC clients. [RFB] RFC 6143. It accepts them, gives the pictures to VncScreen's thread and
// takes keys and pointer back. While there is no client it does not look. Main executor's thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "async/executor.h"
#include "display/console.h"
#include "display/vnc/vnc_screen.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::display {

class VncServer final : public Sink {
 public:
  // As query-vnc gives them.
  struct Place {
    std::string host, service, family;  // "127.0.0.1", "5900", "ipv4"; "unix" with the path as its service
  };

  // `listener` is a listening socket.
  static Result<std::unique_ptr<VncServer>> create(Console& console, Executor& executor, VncScreen::Config config,
                                                   Fd listener);
  ~VncServer() override;

  void set_password(const std::string& password);  // only where the configuration asks for one
  [[nodiscard]] bool asks_password() const { return password_; }
  [[nodiscard]] Place place() const;
  [[nodiscard]] std::vector<Place> clients() const;

  void resized(const Surface& surface) override;
  void changed(const Surface& surface, std::span<const Rect> rects) override;

 private:
  VncServer(Console& console, Executor& executor, bool password, Fd listener, std::unique_ptr<Executor> loop);
  void run_screen(VncScreen::Config config);
  void accept_client();
  void client_gone(int number);
  void key(uint32_t keysym, bool down);
  void pointer(int x, int y, int buttons);
  void hand_over();
  // Work for the main executor that is forgotten once this server is gone.
  void post_back(std::function<void()> work);

  Console& console_;
  Executor& executor_;
  const bool password_;
  Fd listener_;
  std::map<int, Place> clients_;
  int next_client_ = 1;
  std::set<KeyNumber> keys_down_;
  int wheel_ = 0;

  // Between the threads: what the screen has not taken yet.
  std::mutex frame_mutex_;
  VncScreen::Frame frame_;
  bool frame_waits_ = false;

  HostClock clock_{HostClock::Kind::kMonotonic};  // the screen's
  std::unique_ptr<Executor> loop_;                // runs on thread_
  std::unique_ptr<VncScreen> screen_;             // made and unmade there
  std::thread thread_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  const std::weak_ptr<bool> still_alive_ = alive_;  // what the screen's thread copies
};

}  // namespace kite::display
