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

VncServer::Tls tls_of(const VncServer::Config& config) {
  if (config.credentials == nullptr) return VncServer::Tls::kNone;
  return config.credentials->proof() == tls::Proof::kCertificate ? VncServer::Tls::kCertificate
                                                                 : VncServer::Tls::kAnonymous;
}

}  // namespace

Result<std::unique_ptr<VncServer>> VncServer::create(Console& console, Executor& executor, Config config, Fd listener) {
  // [VeNCrypt] has no subtype for them.
  if (config.credentials != nullptr && config.credentials->proof() == tls::Proof::kSharedKey)
    return fail("-vnc: tls-creds= names shared keys, which VNC has no way to use; give tls-creds-x509 or -anon");
  KITE_ASSIGN(auto thread, ServerThread::create("vnc", executor));
  std::unique_ptr<VncServer> server(new VncServer(console, executor, config, std::move(listener), std::move(thread)));
  if (config.credentials != nullptr)
    KITE_TRY(server->run_gate({.credentials = std::move(config.credentials), .password = config.screen.password}));
  server->run_screen(std::move(config.screen));
  return server;
}

VncServer::VncServer(Console& console, Executor& executor, const Config& config, Fd listener,
                     std::unique_ptr<ServerThread> thread)
    : console_(console),
      executor_(executor),
      password_(config.screen.password),
      tls_(tls_of(config)),
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

Result<> VncServer::run_gate(VncGate::Config config) {
  KITE_ASSIGN(gate_thread_, ServerThread::create("vnc-tls", executor_));
  VncGate::Hooks hooks{
      .through =
          [this](int number, const std::string& name, Fd plain) {
            gate_thread_->post_back([this, number, name] {
              if (const auto client = clients_.find(number); client != clients_.end()) client->second.x509_name = name;
            });
            let_in(number, std::move(plain));
          },
      .dropped = [this](int number) { gate_thread_->post_back([this, number] { client_gone(number); }); }};
  gate_thread_->start(
      [this, config = std::move(config), hooks = std::move(hooks)] {
        gate_ = std::make_unique<VncGate>(gate_thread_->loop(), gate_thread_->clock(), config, hooks);
      },
      [this] { gate_.reset(); });
  return {};
}

VncServer::~VncServer() {
  executor_.unwatch(listener_.get());
  console_.remove_sink(*this);
  thread_->stop();  // it may wait for what goes through the gate
  if (gate_thread_ != nullptr) gate_thread_->stop();
}

Place VncServer::place() const { return local_place(listener_.get()); }

std::vector<VncServer::Client> VncServer::clients() const {
  std::vector<Client> all;
  for (const auto& [number, client] : clients_) all.push_back(client);
  return all;
}

void VncServer::set_password(const std::string& password) {
  thread_->post([this, password] { screen_->set_password(password); });
}

void VncServer::set_expiry(int64_t seconds) {
  thread_->post([this, seconds] { screen_->set_expiry(seconds); });
}

void VncServer::announce(ClientEvent event, const Client& client) const {
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
  clients_[number] = {.place = peer_place(socket.get()), .x509_name = ""};
  announce(ClientEvent::kConnected, clients_[number]);
  if (first) console_.add_sink(*this);  // the picture is on its way before the client is told of a size
  if (gate_thread_ == nullptr) return let_in(number, std::move(socket));
  gate_thread_->post([this, number, shared = std::make_shared<Fd>(std::move(socket))] {
    gate_->add_client(number, std::move(*shared));
  });
}

// Any thread.
void VncServer::let_in(int number, Fd socket) {
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
