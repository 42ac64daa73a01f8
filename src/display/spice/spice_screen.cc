#include "display/spice/spice_screen.h"

#include <netinet/in.h>
#include <spice.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "display/spice/scan_codes.h"
#include "display/spice/spice_core.h"
#include "display/spice/spice_device.h"
#include "display/spice/spice_picture.h"
#include "display/spice/spice_settings.h"

namespace kite::display {

namespace {

SpiceChannel channel_of(const SpiceChannelEventInfo& info) {
  return {.server = place_of(info.laddr_ext, info.llen_ext),
          .client = place_of(info.paddr_ext, info.plen_ext),
          .connection = static_cast<uint32_t>(info.connection_id),
          .tls = (info.flags & SPICE_CHANNEL_EVENT_FLAG_TLS) != 0,
          .type = info.type,
          .id = info.id};
}

std::optional<ClientEvent> event_of(int event) {
  switch (event) {
    case SPICE_CHANNEL_EVENT_CONNECTED: return ClientEvent::kConnected;
    case SPICE_CHANNEL_EVENT_INITIALIZED: return ClientEvent::kInitialized;
    case SPICE_CHANNEL_EVENT_DISCONNECTED: return ClientEvent::kDisconnected;
    default: return {};
  }
}

// The library's own: left, right, middle.
uint8_t buttons_of(uint32_t state) {
  return static_cast<uint8_t>(state & (kButtonLeft | kButtonRight | kButtonMiddle));
}

}  // namespace

struct SpiceScreen::Library {
  // The library hands back pointers to the first.
  struct Keys {
    SpiceKbdInstance instance;
    Library* owner;
  };
  struct Mouse {
    SpiceMouseInstance instance;
    Library* owner;
  };
  struct Tablet {
    SpiceTabletInstance instance;
    Library* owner;
  };

  Library(Executor& executor, Clock& clock, FrameRelay& frames, Hooks called)
      : hooks(std::move(called)),
        core(executor, clock,
             {.channel = [this](int event, const SpiceChannelEventInfo& info) { channel(event, info); },
              .after = [this] { look_at_mouse_mode(); }}),
        server(spice_server_new()),
        picture(frames, clock, [&executor](std::function<void()> work) { executor.post(std::move(work)); }) {
    keys.instance.base.sif = keyboard_interface();
    mouse.instance.base.sif = mouse_interface();
    tablet.instance.base.sif = tablet_interface();
    keys.owner = mouse.owner = tablet.owner = this;
  }
  ~Library() {
    if (started) {
      throw_out();
      devices.clear();
      set_tablet(false);
      picture.detach();
    }
    spice_server_destroy(server);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  Result<> start(const SpiceConfig& config) {
    spice_server_set_name(server, config.name.c_str());
    if (!config.ticketing) spice_server_set_noauth(server);
    KITE_TRY(apply_spice_settings(config, server));
    KITE_TRY(initialise(config));
    if (spice_server_add_interface(server, &keys.instance.base) != 0 ||
        spice_server_add_interface(server, &mouse.instance.base) != 0 || !picture.attach(server))
      return fail("the SPICE library takes no keyboard, mouse or screen");
    spice_server_vm_start(server);
    started = true;
    return {};
  }

  // For TLS the library wants a port to listen on. It gets one that only this host can reach, held by a socket that
  // does not listen, and SpiceCore does not let it listen there either: who connects is handed to it.
  Result<> initialise(const SpiceConfig& config) {
    Fd holder;
    if (config.tls) {
      holder.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const int on = 1;
      sockaddr_in place{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
      socklen_t length = sizeof place;
      ::setsockopt(holder.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // the library sets it, too
      if (::bind(holder.get(), reinterpret_cast<sockaddr*>(&place), length) != 0 ||
          ::getsockname(holder.get(), reinterpret_cast<sockaddr*>(&place), &length) != 0)
        return fail("the SPICE library needs a port of 127.0.0.1 for a moment: {}", errno_text(errno));
      spice_server_set_addr(server, "127.0.0.1", SPICE_ADDR_FLAG_IPV4_ONLY);
      KITE_TRY(apply_spice_tls(config, server, ntohs(place.sin_port)));
    }
    if (spice_server_init(server, core.interface()) == 0) return {};
    if (!config.tls) return fail("the SPICE library does not start");
    return fail(
        "{}, {} and {} do not go together, or the password, the parameters or "
        "the ciphers are wrong",
        config.tls->authorities, config.tls->certificate, config.tls->key);
  }

  void add_client(Fd socket, bool tls) {
    const auto add = tls ? spice_server_add_ssl_client : spice_server_add_client;
    if (add(server, socket.get(), 0) != 0) return hooks.refused();
    (void)socket.release();  // it is the library's now
  }

  // --- who gets in

  void set_ticket(bool disconnect) {
    const int64_t now = ::time(nullptr);
    if (!password || now >= expiry) {
      spice_server_set_ticket(server, nullptr, 0, 0, disconnect ? 1 : 0);
      return;
    }
    constexpr int64_t kLongest = std::numeric_limits<int>::max();
    const int seconds = expiry == kNeverExpires ? 0 : static_cast<int>(std::min(expiry - now, kLongest));
    spice_server_set_ticket(server, password->c_str(), seconds, 0, disconnect ? 1 : 0);
  }
  void throw_out() { spice_server_set_ticket(server, nullptr, 0, 0, 1); }

  void channel(int event, const SpiceChannelEventInfo& info) const {
    if (const auto kind = event_of(event)) hooks.channel(*kind, reinterpret_cast<uintptr_t>(&info), channel_of(info));
  }

  // --- input

  void scan_code(uint8_t byte) {
    if (const auto event = codes.put(byte)) hooks.key(event->key, event->down);
  }
  void set_tablet(bool there) {
    if (there == tablet_there) return;
    tablet_there = there;
    if (there)
      spice_server_add_interface(server, &tablet.instance.base);
    else
      spice_server_remove_interface(&tablet.instance.base);
    look_at_mouse_mode();
  }
  void place(int32_t dz, uint32_t state) const { hooks.place(x, y, dz, buttons_of(state)); }
  void look_at_mouse_mode() {
    const bool now = spice_server_is_server_mouse(server) == 0;
    if (std::exchange(tablet_used, now) != now) hooks.mouse_mode(now);
  }

  static const SpiceBaseInterface* keyboard_interface();
  static const SpiceBaseInterface* mouse_interface();
  static const SpiceBaseInterface* tablet_interface();

  void add_device(Executor& executor, std::string subtype, std::string port_name) {
    devices.push_back(std::make_unique<SpiceDevice>(
        executor, *server, std::move(subtype), std::move(port_name),
        [this, number = devices.size()](Fd socket) { hooks.device_socket(number, std::move(socket)); }));
  }

  const Hooks hooks;
  SpiceCore core;
  SpiceServer* const server;
  std::vector<std::unique_ptr<SpiceDevice>> devices;
  SpicePicture picture;
  Keys keys{};
  Mouse mouse{};
  Tablet tablet{};
  bool started = false;
  std::optional<std::string> password;
  int64_t expiry = kNeverExpires;
  ScanCodes codes;
  uint8_t leds = 0;
  bool tablet_there = false, tablet_used = false;
  uint32_t width = 1, height = 1;  // of what the tablet's places are on
  uint16_t x = 0, y = 0;
};

const SpiceBaseInterface* SpiceScreen::Library::keyboard_interface() {
  static const SpiceKbdInterface table = {
      .base = {.type = SPICE_INTERFACE_KEYBOARD,
               .description = "Kite's keyboard",
               .major_version = SPICE_INTERFACE_KEYBOARD_MAJOR,
               .minor_version = SPICE_INTERFACE_KEYBOARD_MINOR},
      .push_scan_freg = [](SpiceKbdInstance* keyboard,
                           uint8_t byte) { reinterpret_cast<Keys*>(keyboard)->owner->scan_code(byte); },
      .get_leds = [](SpiceKbdInstance* keyboard) { return reinterpret_cast<Keys*>(keyboard)->owner->leds; }};
  return &table.base;
}

const SpiceBaseInterface* SpiceScreen::Library::mouse_interface() {
  static const SpiceMouseInterface table = {
      .base = {.type = SPICE_INTERFACE_MOUSE,
               .description = "Kite's mouse",
               .major_version = SPICE_INTERFACE_MOUSE_MAJOR,
               .minor_version = SPICE_INTERFACE_MOUSE_MINOR},
      .motion =
          [](SpiceMouseInstance* mouse, int dx, int dy, int dz, uint32_t state) {
            reinterpret_cast<Mouse*>(mouse)->owner->hooks.move(dx, dy, dz, buttons_of(state));
          },
      .buttons =
          [](SpiceMouseInstance* mouse, uint32_t state) {
            reinterpret_cast<Mouse*>(mouse)->owner->hooks.move(0, 0, 0, buttons_of(state));
          }};
  return &table.base;
}

const SpiceBaseInterface* SpiceScreen::Library::tablet_interface() {
  static const SpiceTabletInterface table = {
      .base = {.type = SPICE_INTERFACE_TABLET,
               .description = "Kite's tablet",
               .major_version = SPICE_INTERFACE_TABLET_MAJOR,
               .minor_version = SPICE_INTERFACE_TABLET_MINOR},
      .set_logical_size =
          [](SpiceTabletInstance* tablet, int width, int height) {
            Library& library = *reinterpret_cast<Tablet*>(tablet)->owner;
            library.width = static_cast<uint32_t>(std::max(width, 1));
            library.height = static_cast<uint32_t>(std::max(height, 1));
          },
      .position =
          [](SpiceTabletInstance* tablet, int x, int y, uint32_t state) {
            Library& library = *reinterpret_cast<Tablet*>(tablet)->owner;
            library.x = static_cast<uint16_t>(place_on(x, library.width));
            library.y = static_cast<uint16_t>(place_on(y, library.height));
            library.place(0, state);
          },
      .wheel = [](SpiceTabletInstance* tablet, int dz,
                  uint32_t state) { reinterpret_cast<Tablet*>(tablet)->owner->place(dz, state); },
      .buttons = [](SpiceTabletInstance* tablet,
                    uint32_t state) { reinterpret_cast<Tablet*>(tablet)->owner->place(0, state); }};
  return &table.base;
}

SpiceScreen::SpiceScreen(Executor& executor, Clock& clock, FrameRelay& relay, Hooks hooks)
    : executor_(executor), library_(std::make_unique<Library>(executor, clock, relay, std::move(hooks))) {}

SpiceScreen::~SpiceScreen() = default;

Result<> SpiceScreen::start(const SpiceConfig& config) { return library_->start(config); }
void SpiceScreen::add_client(Fd socket, bool tls) { library_->add_client(std::move(socket), tls); }
void SpiceScreen::refresh() { library_->picture.refresh(); }
void SpiceScreen::set_tablet(bool there) { library_->set_tablet(there); }

void SpiceScreen::set_leds(uint8_t leds) {
  library_->leds = leds;
  spice_server_kbd_leds(&library_->keys.instance, leds);
}

void SpiceScreen::add_device(std::string subtype, std::string port_name) {
  library_->add_device(executor_, std::move(subtype), std::move(port_name));
}

void SpiceScreen::set_device_open(size_t number, bool open, Fd socket) {
  if (number >= library_->devices.size()) return;
  library_->devices[number]->set_open(open, std::move(socket));
  library_->look_at_mouse_mode();  // an agent's coming and going can change it
}

void SpiceScreen::set_password(std::string password, bool disconnect) {
  library_->password = std::move(password);
  library_->set_ticket(disconnect);
}

void SpiceScreen::set_expiry(int64_t seconds) {
  library_->expiry = seconds;
  library_->set_ticket(false);
}

}  // namespace kite::display
