#include "display/spice/spice_display.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "support/log.h"

namespace kite::display {

namespace {

using Kind = SpicePacketKind;

constexpr size_t kMostSockets = 64;
constexpr size_t kMostChanges = 256;  // more become one
constexpr int64_t kStartTurnNs = 10'000'000, kLongestStartNs = 20'000'000'000;
constexpr uint8_t kButtons = kButtonLeft | kButtonRight | kButtonMiddle;

}  // namespace

Result<std::unique_ptr<SpiceDisplay>> SpiceDisplay::create(Wiring wiring, SpiceConfig config, Listeners listeners) {
  std::unique_ptr<SpiceDisplay> display(new SpiceDisplay(std::move(wiring), std::move(config), std::move(listeners)));
  KITE_TRY(display->start_process());
  // What is wrong with the options shows here.
  const int64_t end = display->wiring_.clock.now() + kLongestStartNs;
  while (!display->started_ && display->why_not_.empty() && display->link_ != nullptr &&
         display->wiring_.clock.now() < end)
    display->wiring_.executor.run_once(kStartTurnNs);
  if (!display->started_)
    return fail("the SPICE server does not start{}{}", display->why_not_.empty() ? "" : ": ", display->why_not_);
  return display;
}

SpiceDisplay::SpiceDisplay(Wiring wiring, SpiceConfig config, Listeners listeners)
    : wiring_(std::move(wiring)),
      config_(std::move(config)),
      listeners_(std::move(listeners)),
      ended_timer_(wiring_.clock, [this] { process_ended(); }),
      restart_timer_(wiring_.clock, [this] { restart(); }) {
  // While there is no process, clients wait at the door.
  for (const bool tls : {false, true})
    if (const Fd& listener = tls ? listeners_.tls : listeners_.plain; listener.valid())
      wiring_.executor.watch(listener.get(), 0, [this, tls](uint32_t) { accept_client(tls); });
}

SpiceDisplay::~SpiceDisplay() {
  for (const Fd* const listener : {&listeners_.plain, &listeners_.tls})
    if (listener->valid()) wiring_.executor.unwatch(listener->get());
  wiring_.console.remove_sink(*this);
  link_.reset();
}

std::optional<Place> SpiceDisplay::place_of_listener(const Fd& listener) {
  return listener.valid() ? std::optional(local_place(listener.get())) : std::nullopt;
}

void SpiceDisplay::listen(bool on) {
  for (const Fd* const listener : {&listeners_.plain, &listeners_.tls})
    if (listener->valid()) wiring_.executor.modify(listener->get(), on ? EPOLLIN : 0u);
}

// --- the process

Result<> SpiceDisplay::start_process() {
  KITE_ASSIGN(auto sockets, SpiceLink::make_sockets());
  KITE_ASSIGN(const pid_t pid, wiring_.spawn(std::move(sockets[1])));
  process_ = SpiceProcess(pid);
  link_ = std::make_unique<SpiceLink>(
      wiring_.executor, std::move(sockets[0]), [this](SpicePacket packet) { received(std::move(packet)); },
      [this] { ended_timer_.arm_at(wiring_.clock.now()); });
  SpicePacket start(Kind::kStart);
  start.put_text(config_.name).put(uint8_t{config_.ticketing});
  start.put(static_cast<uint32_t>(config_.settings.size()));
  for (const SpiceConfig::Setting& setting : config_.settings) start.put(setting);
  start.put(static_cast<uint32_t>(config_.channel_rules.size()));
  for (const auto& [channel, tls] : config_.channel_rules) start.put_text(channel).put(uint8_t{tls});
  start.put(uint8_t{config_.tls.has_value()});
  if (config_.tls)
    for (const std::string* const text : texts_of(*config_.tls)) start.put_text(*text);
  link_->send(std::move(start));
  link_->send(SpicePacket(Kind::kTablet).put(uint8_t{wiring_.console.takes_places()}));
  if (expiry_ != kNeverExpires) link_->send(SpicePacket(Kind::kExpiry).put(expiry_));
  if (password_) link_->send(SpicePacket(Kind::kPassword).put_text(*password_).put(uint8_t{0}));
  for (size_t number = 0; number < devices_.size(); ++number) send_device(number);
  listen(true);
  return {};
}

void SpiceDisplay::process_ended() {
  listen(false);
  link_.reset();
  const std::string how = process_.end();
  if (!started_) return;
  log::warn("SPICE: the server has ended ({}); its clients are disconnected, and it starts anew", how);
  while (!connections_.empty()) forget_channel(connections_.begin()->first);
  sockets_ = 0;
  uses_tablet_ = false;
  picture_ = {};
  picture_busy_ = false;
  changes_.clear();
  restart_timer_.arm_at(wiring_.clock.now() + kRestartNs);
}

void SpiceDisplay::restart() {
  if (const auto done = start_process(); !done) log::error("SPICE: {}", done.error().message);
}

Result<> SpiceDisplay::set_password(const std::string& password, WhenConnected connected) {
  if (password.size() > SpiceConfig::kLongestPassword)
    return fail("the password has {} letters; SPICE has room for {}", password.size(), SpiceConfig::kLongestPassword);
  if (connected == WhenConnected::kFail && let_in_ > 0) return fail("a client is connected");
  password_ = password;
  if (link_ != nullptr)
    link_->send(SpicePacket(Kind::kPassword).put_text(password).put(uint8_t{connected == WhenConnected::kDisconnect}));
  return {};
}

void SpiceDisplay::set_expiry(int64_t seconds) {
  expiry_ = seconds;
  if (link_ != nullptr) link_->send(SpicePacket(Kind::kExpiry).put(seconds));
}

// --- what comes from it

void SpiceDisplay::received(SpicePacket packet) {
  Console& console = wiring_.console;
  switch (packet.kind()) {
    case Kind::kStarted:
      why_not_ = packet.get_text();
      started_ = why_not_.empty();
      break;
    case Kind::kTaken:
      picture_busy_ = false;
      show();
      break;
    case Kind::kKey: {
      const auto key = packet.get<KeyNumber>();
      keys_.key(key, packet.get_flag());
      break;
    }
    case Kind::kMove: {
      const auto dx = packet.get<int32_t>(), dy = packet.get<int32_t>(), dz = packet.get<int32_t>();
      const uint8_t buttons = packet.get<uint8_t>() & kButtons;
      console.point({.dx = dx, .dy = dy, .dz = dz, .buttons = buttons});
      break;
    }
    case Kind::kPlace: {
      const int32_t x = std::min<int32_t>(packet.get<uint16_t>(), kPlaceMost);
      const int32_t y = std::min<int32_t>(packet.get<uint16_t>(), kPlaceMost);
      const auto dz = packet.get<int32_t>();
      const uint8_t buttons = packet.get<uint8_t>() & kButtons;
      console.point({.dz = dz, .x = x, .y = y, .buttons = buttons});
      break;
    }
    case Kind::kMouseMode: uses_tablet_ = packet.get_flag(); break;
    case Kind::kChannel: read_channel(packet); break;
    case Kind::kDeviceSocket: take_device_socket(packet); break;
    case Kind::kRefused: sockets_ -= sockets_ > 0 ? 1 : 0; break;
    default: break;
  }
}

void SpiceDisplay::read_channel(SpicePacket& packet) {
  const auto event = packet.get<ClientEvent>();
  const auto number = packet.get<uint64_t>();
  SpiceChannel channel;
  for (Place* const place : {&channel.server, &channel.client}) {
    place->host = packet.get_text();
    place->service = packet.get_text();
    place->family = packet.get_text();
  }
  channel.connection = packet.get<uint32_t>();
  channel.tls = packet.get_flag();
  channel.type = packet.get<int32_t>();
  channel.id = packet.get<int32_t>();
  if (packet.good() && event <= ClientEvent::kDisconnected) channel_event(event, number, channel);
}

void SpiceDisplay::channel_event(ClientEvent event, uint64_t number, const SpiceChannel& channel) {
  if (event == ClientEvent::kDisconnected) {
    sockets_ -= sockets_ > 0 ? 1 : 0;
    return forget_channel(number);
  }
  if (connections_.size() >= kMostSockets && !connections_.contains(number)) return;
  Connection& connection = connections_[number];
  const bool comes = event == ClientEvent::kInitialized && !connection.let_in;
  connection = {.channel = channel, .let_in = comes || connection.let_in};
  announce_(event, channel);
  if (comes && ++let_in_ == 1) wiring_.console.add_sink(*this);
}

void SpiceDisplay::forget_channel(uint64_t number) {
  const auto gone = connections_.extract(number);
  if (gone.empty()) return;
  announce_(ClientEvent::kDisconnected, gone.mapped().channel);
  if (!gone.mapped().let_in || --let_in_ > 0) return;
  wiring_.console.remove_sink(*this);
  keys_.release();
}

std::vector<SpiceChannel> SpiceDisplay::channels() const {
  std::vector<SpiceChannel> all;
  for (const auto& [number, connection] : connections_)
    if (connection.let_in) all.push_back(connection.channel);
  return all;
}

// --- what goes to it

void SpiceDisplay::accept_client(bool tls) {
  Fd socket(::accept4((tls ? listeners_.tls : listeners_.plain).get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) return;
  if (sockets_ >= kMostSockets) {
    log::warn("SPICE: {} connections are open; another one is turned away", sockets_);
    return;
  }
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // means nothing to a unix socket
  ++sockets_;
  link_->send(SpicePacket(Kind::kClient, std::move(socket)).put(uint8_t{tls}));
}

// --- the guest's character devices

size_t SpiceDisplay::add_device(const std::string& subtype, const std::string& port_name,
                                std::function<void(Fd)> connected) {
  devices_.push_back({.subtype = subtype, .port_name = port_name, .connected = std::move(connected)});
  send_device(devices_.size() - 1);
  return devices_.size() - 1;
}

void SpiceDisplay::set_device_open(size_t number, bool open, Fd socket) {
  devices_[number].open = open;
  devices_[number].socket = std::move(socket);
  send_device_open(number);
}

void SpiceDisplay::send_device(size_t number) {
  const Device& device = devices_[number];
  if (link_ == nullptr) return;
  link_->send(SpicePacket(Kind::kDevice).put_text(device.subtype).put_text(device.port_name));
  if (device.open) send_device_open(number);
}

void SpiceDisplay::send_device_open(size_t number) {
  Device& device = devices_[number];
  if (link_ == nullptr) return;
  link_->send(SpicePacket(Kind::kDeviceOpen, std::move(device.socket))
                  .put(static_cast<uint32_t>(number))
                  .put(uint8_t{device.open}));
}

void SpiceDisplay::take_device_socket(SpicePacket& packet) {
  const auto number = packet.get<uint32_t>();
  int type = 0;
  socklen_t length = sizeof type;
  if (number >= devices_.size() || ::getsockopt(packet.fd().get(), SOL_SOCKET, SO_TYPE, &type, &length) != 0 ||
      type != SOCK_STREAM)
    return;
  devices_[number].connected(std::move(packet.fd()));
}

void SpiceDisplay::resized(const Surface& surface) {
  changes_.clear();
  if (picture_.view().width != surface.width() || picture_.view().height != surface.height()) {
    auto made = SharedPicture::create(surface.width(), surface.height());
    if (!made) return log::error("SPICE: {}", made.error().message);
    picture_ = std::move(*made);
    picture_new_ = true;
    picture_busy_ = false;  // what it still reads is its own
  }
  changed(surface, std::vector<Rect>{{0, 0, surface.width(), surface.height()}});
}

void SpiceDisplay::changed(const Surface&, std::span<const Rect> rects) {
  changes_.insert(changes_.end(), rects.begin(), rects.end());
  if (changes_.size() > kMostChanges) {
    Rect all;
    for (const Rect& one : changes_) all = join(all, one);
    changes_ = {all};
  }
  show();
}

// One delivery is under way at a time; what comes meanwhile goes with the next.
void SpiceDisplay::show() {
  const PictureView now = wiring_.console.surface().view();
  if (link_ == nullptr || picture_busy_ || changes_.empty() || picture_.view().width != now.width ||
      picture_.view().height != now.height)
    return;
  for (const Rect& rect : changes_) picture_.copy(now, rect);
  if (std::exchange(picture_new_, false)) {
    auto memory = picture_.duplicate();
    if (!memory) return log::error("SPICE: {}", memory.error().message);
    link_->send(SpicePacket(Kind::kPicture, std::move(*memory)).put(now.width).put(now.height));
  } else {
    SpicePacket packet(Kind::kChanged);
    packet.put(static_cast<uint32_t>(changes_.size()));
    for (const Rect& rect : changes_) packet.put(rect);
    link_->send(std::move(packet));
  }
  changes_.clear();
  picture_busy_ = true;
}

void SpiceDisplay::tablet_changed(bool there) {
  if (link_ != nullptr) link_->send(SpicePacket(Kind::kTablet).put(uint8_t{there}));
}

void SpiceDisplay::leds_changed(uint8_t leds) {
  if (link_ != nullptr) link_->send(SpicePacket(Kind::kLeds).put(leds));
}

}  // namespace kite::display
