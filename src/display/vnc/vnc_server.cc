#include "display/vnc/vnc_server.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>

#include "display/vnc/keysyms.h"
#include "support/log.h"

namespace kite::display {

namespace {

constexpr size_t kMostClients = 64;
constexpr size_t kMostRects = 256;  // that wait for the screen's thread; more become one

// [RFB] 7.5.5: buttons 4 and 5 are the wheel, away from the user and towards.
constexpr int kLeft = 1, kMiddle = 2, kRight = 4, kWheelUp = 8, kWheelDown = 16;

using AddressOf = int (*)(int, sockaddr*, socklen_t*);

VncServer::Place place_of(int fd, AddressOf address_of) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  auto* const address = reinterpret_cast<sockaddr*>(&storage);
  if (address_of(fd, address, &length) != 0) return {.host = "", .service = "", .family = "unknown"};
  if (storage.ss_family == AF_UNIX) {
    const auto* const unix = reinterpret_cast<const sockaddr_un*>(&storage);
    const size_t most = length > offsetof(sockaddr_un, sun_path) ? length - offsetof(sockaddr_un, sun_path) : 0;
    return {.host = "", .service = std::string(unix->sun_path, ::strnlen(unix->sun_path, most)), .family = "unix"};
  }
  char host[NI_MAXHOST] = {}, service[NI_MAXSERV] = {};
  ::getnameinfo(address, length, host, sizeof host, service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV);
  return {.host = host, .service = service, .family = storage.ss_family == AF_INET6 ? "ipv6" : "ipv4"};
}

}  // namespace

Result<std::unique_ptr<VncServer>> VncServer::create(Console& console, Executor& executor, VncScreen::Config config,
                                                     Fd listener) {
  KITE_ASSIGN(auto loop, Executor::create("vnc"));
  std::unique_ptr<VncServer> server(
      new VncServer(console, executor, config.password, std::move(listener), std::move(loop)));
  server->run_screen(std::move(config));
  return server;
}

VncServer::VncServer(Console& console, Executor& executor, bool password, Fd listener, std::unique_ptr<Executor> loop)
    : console_(console),
      executor_(executor),
      password_(password),
      listener_(std::move(listener)),
      loop_(std::move(loop)) {}

void VncServer::run_screen(VncScreen::Config config) {
  loop_->attach(clock_);
  VncScreen::Hooks hooks{
      .key = [this](uint32_t keysym, bool down) { post_back([this, keysym, down] { key(keysym, down); }); },
      .pointer = [this](int x, int y, int buttons) { post_back([this, x, y, buttons] { pointer(x, y, buttons); }); },
      .gone = [this](int number) { post_back([this, number] { client_gone(number); }); }};
  thread_ = std::thread([this, config = std::move(config), hooks = std::move(hooks)] {
    screen_ = std::make_unique<VncScreen>(*loop_, clock_, config, hooks);
    loop_->run();
    screen_.reset();
  });
  executor_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept_client(); });
}

VncServer::~VncServer() {
  executor_.unwatch(listener_.get());
  console_.remove_sink(*this);
  alive_.reset();
  loop_->stop();
  thread_.join();
  loop_->detach(clock_);
}

void VncServer::post_back(std::function<void()> work) {
  executor_.post([still = still_alive_, work = std::move(work)] {
    if (still.lock() != nullptr) work();
  });
}

VncServer::Place VncServer::place() const { return place_of(listener_.get(), ::getsockname); }

std::vector<VncServer::Place> VncServer::clients() const {
  std::vector<Place> places;
  for (const auto& [number, client] : clients_) places.push_back(client);
  return places;
}

void VncServer::set_password(const std::string& password) {
  loop_->post([this, password] { screen_->set_password(password); });
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
  clients_[number] = place_of(socket.get(), ::getpeername);
  if (first) console_.add_sink(*this);  // the picture is on its way before the client is told of a size
  loop_->post([this, number, shared = std::make_shared<Fd>(std::move(socket))] {
    screen_->add_client(number, std::move(*shared));
  });
}

void VncServer::client_gone(int number) {
  clients_.erase(number);
  if (!clients_.empty()) return;
  console_.remove_sink(*this);
  for (const KeyNumber down : keys_down_) console_.key(down, false);
  keys_down_.clear();
  console_.forget_place();
  if (console_.buttons() != 0) console_.point({.buttons = 0});
}

// --- pictures

void VncServer::resized(const Surface& surface) {
  {
    const std::lock_guard lock(frame_mutex_);
    frame_.width = surface.width();
    frame_.height = surface.height();
    frame_.pixels.assign(surface.pixels().begin(), surface.pixels().end());
    frame_.rects.clear();
    frame_.resized = true;
  }
  console_.forget_place();
  hand_over();
}

void VncServer::changed(const Surface& surface, std::span<const Rect> rects) {
  {
    const std::lock_guard lock(frame_mutex_);
    for (const Rect& rect : rects) {
      for (uint32_t y = rect.y; y < rect.y + rect.height; ++y)
        std::ranges::copy(surface.row(y).subspan(rect.x, rect.width),
                          frame_.pixels.begin() + static_cast<ptrdiff_t>(size_t{y} * frame_.width + rect.x));
      frame_.rects.push_back(rect);
    }
    if (frame_.rects.size() > kMostRects) {
      Rect all;
      for (const Rect& one : frame_.rects) all = join(all, one);
      frame_.rects = {all};
    }
  }
  hand_over();
}

// One delivery is under way at a time; what comes meanwhile goes with the next.
void VncServer::hand_over() {
  {
    const std::lock_guard lock(frame_mutex_);
    if (frame_waits_) return;
    frame_waits_ = true;
  }
  loop_->post([this] {
    {
      const std::lock_guard lock(frame_mutex_);
      screen_->take(frame_);
      frame_.rects.clear();
      frame_.resized = frame_waits_ = false;
    }
    screen_->update_clients();
  });
}

// --- input

void VncServer::key(uint32_t keysym, bool down) {
  const auto found = key_of_keysym(keysym);
  if (!found) return;
  // A client may send the symbol alone, having no keyboard: Shift goes with it then.
  const bool shifted = keys_down_.contains(kLeftShift) || keys_down_.contains(kRightShift);
  const bool with_shift = down && found->shift && !shifted;
  if (with_shift) console_.key(kLeftShift, true);
  console_.key(found->key, down);
  if (with_shift) console_.key(kLeftShift, false);
  if (down)
    keys_down_.insert(found->key);
  else
    keys_down_.erase(found->key);
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
