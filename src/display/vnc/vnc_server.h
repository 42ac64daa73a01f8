// VncServer: the console for VNC clients. [RFB] RFC 6143. It accepts them, gives the pictures to VncScreen's thread and
// takes keys and pointer back. With TLS they come through a VncGate, on a thread of its own. While there is no client
// it does not look. Main executor's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "async/executor.h"
#include "display/console.h"
#include "display/frame_relay.h"
#include "display/held_keys.h"
#include "display/place.h"
#include "display/server_thread.h"
#include "display/vnc/vnc_gate.h"
#include "display/vnc/vnc_screen.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::display {

class VncServer final : public Sink {
 public:
  struct Config {
    VncScreen::Config screen;
    std::shared_ptr<const tls::Credentials> credentials{};  // TLS with these
  };
  struct Client {
    Place place;
    std::string x509_name;  // its certificate's subject, where it had to show one
  };
  // What TLS is there; by what a server proves itself.
  enum class Tls : uint8_t { kNone, kAnonymous, kCertificate };

  // `listener` is a listening socket.
  static Result<std::unique_ptr<VncServer>> create(Console& console, Executor& executor, Config config, Fd listener);
  ~VncServer() override;

  // Called on the main executor's thread.
  void on_event(std::function<void(ClientEvent, const Client& client)> listener) {
    listener_of_events_ = std::move(listener);
  }

  void set_password(const std::string& password);  // only where the configuration asks for one
  void set_expiry(int64_t seconds);                // as VncScreen's
  [[nodiscard]] bool asks_password() const { return password_; }
  [[nodiscard]] Tls tls() const { return tls_; }
  [[nodiscard]] Place place() const;
  [[nodiscard]] std::vector<Client> clients() const;

  void resized(const Surface& surface) override;
  void changed(const Surface& surface, std::span<const Rect> rects) override;

 private:
  VncServer(Console& console, Executor& executor, const Config& config, Fd listener,
            std::unique_ptr<ServerThread> thread);
  void run_screen(VncScreen::Config config);
  Result<> run_gate(VncGate::Config config);
  void accept_client();
  void let_in(int number, Fd socket);
  void client_ready(int number);
  void client_gone(int number);
  void announce(ClientEvent event, const Client& client) const;
  void key(uint32_t keysym, bool down);
  void pointer(int x, int y, int buttons);
  void hand_over();

  Console& console_;
  Executor& executor_;
  const bool password_;
  const Tls tls_;
  Fd listener_;
  std::function<void(ClientEvent, const Client&)> listener_of_events_;
  std::map<int, Client> clients_;
  int next_client_ = 1;
  HeldKeys keys_{console_};
  int wheel_ = 0;

  FrameRelay relay_;
  std::unique_ptr<VncScreen> screen_;  // made and unmade on thread_
  std::unique_ptr<ServerThread> thread_;
  std::unique_ptr<VncGate> gate_;  // made and unmade on gate_thread_; null without TLS
  std::unique_ptr<ServerThread> gate_thread_;
};

}  // namespace kite::display
