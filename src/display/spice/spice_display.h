// SpiceDisplay: the console for SPICE clients. It accepts them and gives their sockets, and pictures, to a process that
// runs libspice-server (spice_process.h), and takes keys and pointer back. When that process ends, which a client can
// bring about, another one takes its place. While no client is let in it does not look. A client that comes takes the
// place of the one that is there. Main executor's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/clock.h"
#include "async/executor.h"
#include "display/console.h"
#include "display/held_keys.h"
#include "display/place.h"
#include "display/spice/shared_picture.h"
#include "display/spice/spice_channel.h"
#include "display/spice/spice_config.h"
#include "display/spice/spice_link.h"
#include "display/spice/spice_process.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::display {

// Of set_password: what becomes of who is connected.
enum class WhenConnected : uint8_t { kKeep, kFail, kDisconnect };

class SpiceDisplay final : public Sink {
 public:
  static constexpr int64_t kNeverExpires = INT64_MAX;
  static constexpr int64_t kRestartNs = 200'000'000;  // after the process has ended
  struct Wiring {
    Console& console;
    Executor& executor;
    Clock& clock;  // the host's
    SpiceProcess::Spawn spawn = spawn_spice_process;
  };

  // Listening sockets; one of them may be none. That for TLS goes with the configuration of it.
  struct Listeners {
    Fd plain, tls{};
  };

  // Returns when the library has started.
  static Result<std::unique_ptr<SpiceDisplay>> create(Wiring wiring, SpiceConfig config, Listeners listeners);
  ~SpiceDisplay() override;

  void on_event(std::function<void(ClientEvent, const SpiceChannel&)> listener) { announce_ = std::move(listener); }

  [[nodiscard]] bool asks_password() const { return config_.ticketing; }
  // Nobody gets in before the first.
  Result<> set_password(const std::string& password, WhenConnected connected);
  void set_expiry(int64_t seconds);  // since 1970, when the password ends; kNeverExpires
  // Where it listens; nothing where it does not.
  [[nodiscard]] std::optional<Place> place() const { return place_of_listener(listeners_.plain); }
  [[nodiscard]] std::optional<Place> tls_place() const { return place_of_listener(listeners_.tls); }
  [[nodiscard]] std::vector<SpiceChannel> channels() const;  // that are let in
  [[nodiscard]] bool uses_tablet() const { return uses_tablet_; }

  // A character device of the guest's for the library, of its kind `subtype` ("vdagent", "port" with a name); answers
  // its number. `connected` gets a stream socket whenever a client has opened the port.
  size_t add_device(const std::string& subtype, const std::string& port_name, std::function<void(Fd)> connected);
  // The guest listens, or does not any more; an agent's stream socket comes with the former.
  void set_device_open(size_t number, bool open, Fd socket);

  void resized(const Surface& surface) override;
  void changed(const Surface& surface, std::span<const Rect> rects) override;
  void tablet_changed(bool there) override;
  void leds_changed(uint8_t leds) override;

 private:
  SpiceDisplay(Wiring wiring, SpiceConfig config, Listeners listeners);
  static std::optional<Place> place_of_listener(const Fd& listener);
  void listen(bool on);
  Result<> start_process();
  void process_ended();
  void restart();
  void accept_client(bool tls);
  void received(SpicePacket packet);
  void read_channel(SpicePacket& packet);
  void take_device_socket(SpicePacket& packet);
  void channel_event(ClientEvent event, uint64_t number, const SpiceChannel& channel);
  void forget_channel(uint64_t number);
  void show();

  const Wiring wiring_;
  const SpiceConfig config_;
  const Listeners listeners_;
  std::function<void(ClientEvent, const SpiceChannel&)> announce_ = [](ClientEvent, const SpiceChannel&) {};
  std::optional<std::string> password_;
  int64_t expiry_ = kNeverExpires;
  struct Device {
    std::string subtype, port_name;
    std::function<void(Fd)> connected;
    bool open = false;
    Fd socket{};  // for the next process
  };
  void send_device(size_t number);
  void send_device_open(size_t number);
  std::vector<Device> devices_;
  HeldKeys keys_{wiring_.console};

  // The process.
  SpiceProcess process_;
  std::unique_ptr<SpiceLink> link_;  // null while there is none
  bool started_ = false;
  std::string why_not_;  // it has not started
  Timer ended_timer_, restart_timer_;

  // What it has.
  size_t sockets_ = 0;
  struct Connection {
    SpiceChannel channel;
    bool let_in;
  };
  std::map<uint64_t, Connection> connections_;
  size_t let_in_ = 0;  // of these
  bool uses_tablet_ = false;
  SharedPicture picture_;
  bool picture_new_ = false;   // it has not been told of it
  bool picture_busy_ = false;  // it reads it
  std::vector<Rect> changes_;  // that are not in it yet
};

}  // namespace kite::display
