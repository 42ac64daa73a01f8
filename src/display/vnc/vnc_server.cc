#include "display/vnc/vnc_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "display/vnc/keysyms.h"
#include "support/log.h"

namespace kite::display {

namespace {

constexpr size_t kMostClients = 64;

// [RFB] 7.5.5: buttons 4 and 5 are the wheel, away from the user and towards.
constexpr int kLeft = 1, kMiddle = 2, kRight = 4, kWheelUp = 8, kWheelDown = 16;

}  // namespace

Result<std::unique_ptr<VncServer>> VncServer::create(Console& console, Executor& executor, VncScreen::Config config,
                                                     Fd listener) {
  KITE_ASSIGN(auto thread, ServerThread::create("vnc", executor));
  std::unique_ptr<VncServer> server(
      new VncServer(console, executor, config.password, std::move(listener), std::move(thread)));
  server->run_screen(std::move(config));
  return server;
}

VncServer::VncServer(Console& console, Executor& executor, bool password, Fd listener,
                     std::unique_ptr<ServerThread> thread)
    : console_(console),
      executor_(executor),
      password_(password),
      listener_(std::move(listener)),
      thread_(std::move(thread)) {}

void VncServer::run_screen(VncScreen::Config config) {
  VncScreen::Hooks hooks{
      .key = [this](uint32_t keysym, bool down) { thread_->post_back([this, keysym, down] { key(keysym, down); }); },
      .pointer = [this](int x, int y,
                        int buttons) { thread_->post_back([this, x, y, buttons] { pointer(x, y, buttons); }); },
      .ready = [this](int number) { thread_->post_back([this, number] { client_ready(number); }); },
      .gone = [this](int number) { thread_->post_back([this, number] { client_gone(number); }); }};
  thread_->start(
      [this, config = std::move(config), hooks = std::move(hooks)] {
        screen_ = std::make_unique<VncScreen>(thread_->loop(), thread_->clock(), config, hooks);
      },
      [this] { screen_.reset(); });
  executor_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept_client(); });
}

VncServer::~VncServer() {
  executor_.unwatch(listener_.get());
  console_.remove_sink(*this);
  thread_->stop();
}

Place VncServer::place() const { return local_place(listener_.get()); }

std::vector<Place> VncServer::clients() const {
  std::vector<Place> places;
  for (const auto& [number, client] : clients_) places.push_back(client);
  return places;
}

void VncServer::set_password(const std::string& password) {
  thread_->post([this, password] { screen_->set_password(password); });
}

void VncServer::set_expiry(int64_t seconds) {
  thread_->post([this, seconds] { screen_->set_expiry(seconds); });
}

void VncServer::announce(ClientEvent event, const Place& client) const {
  if (listener_of_events_) listener_of_events_(event, client);
}

// --- clients come and go

void VncServer::accept_client() {
  Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) return;
  if (clients_.size() >= kMostClients) {
    log::warn("VNC: {} clients are connected; another one is turned away", clients_.size());
    return;
  }
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // means nothing to a unix socket
  const int number = next_client_++;
  const bool first = clients_.empty();
  clients_[number] = peer_place(socket.get());
  announce(ClientEvent::kConnected, clients_[number]);
  if (first) console_.add_sink(*this);  // the picture is on its way before the client is told of a size
  thread_->post([this, number, shared = std::make_shared<Fd>(std::move(socket))] {
    screen_->add_client(number, std::move(*shared));
  });
}

void VncServer::client_ready(int number) {
  const auto client = clients_.find(number);
  if (client != clients_.end()) announce(ClientEvent::kInitialized, client->second);
}

void VncServer::client_gone(int number) {
  const auto client = clients_.extract(number);
  if (!client.empty()) announce(ClientEvent::kDisconnected, client.mapped());
  if (!clients_.empty()) return;
  console_.remove_sink(*this);
  keys_.release();
  console_.forget_place();
}

// --- pictures

void VncServer::resized(const Surface& surface) {
  console_.forget_place();
  if (relay_.put_all(surface.view())) hand_over();
}

void VncServer::changed(const Surface& surface, std::span<const Rect> rects) {
  if (relay_.put(surface.view(), rects)) hand_over();
}

// One delivery is under way at a time; what comes meanwhile goes with the next.
void VncServer::hand_over() {
  thread_->post([this] {
    relay_.take([this](FrameRelay::Frame& frame) {
      screen_->take(frame);
      frame.rects.clear();
      frame.resized = false;
    });
    screen_->update_clients();
  });
}

// --- input

void VncServer::key(uint32_t keysym, bool down) {
  const auto found = key_of_keysym(keysym);
  if (!found) return;
  // A client may send the symbol alone, having no keyboard: Shift goes with it then.
  const bool shifted = keys_.holds(kLeftShift) || keys_.holds(kRightShift);
  const bool with_shift = down && found->shift && !shifted;
  if (with_shift) console_.key(kLeftShift, true);
  keys_.key(found->key, down);
  if (with_shift) console_.key(kLeftShift, false);
}

void VncServer::pointer(int x, int y, int buttons) {
  const int turned = buttons & ~wheel_;
  wheel_ = buttons & (kWheelUp | kWheelDown);
  const int dz = ((turned & kWheelDown) != 0 ? 1 : 0) - ((turned & kWheelUp) != 0 ? 1 : 0);
  uint8_t pressed = 0;
  if ((buttons & kLeft) != 0) pressed |= kButtonLeft;
  if ((buttons & kMiddle) != 0) pressed |= kButtonMiddle;
  if ((buttons & kRight) != 0) pressed |= kButtonRight;
  console_.point_at(static_cast<uint32_t>(std::max(x, 0)), static_cast<uint32_t>(std::max(y, 0)), dz, pressed);
}

}  // namespace kite::display
