#include "display/vnc/vnc_gate.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "support/log.h"
#include "tls/tunnel.h"

namespace kite::display {

namespace {

using namespace std::string_literals;
using namespace std::string_view_literals;

// [RFB] 7.1.1; 3.3 has no choice of security types.
constexpr std::string_view kVersion = "RFB 003.008\n", kOlderVersion = "RFB 003.007\n";
// [VeNCrypt]: the type's number, and its version 0.2.
constexpr char kVencrypt = 19;
constexpr std::string_view kVencryptVersion = "\0\x02"sv;
constexpr uint8_t kTlsNone = 1, kTlsVnc = 2, kX509None = 4, kX509Vnc = 5;  // the low byte; the next one is 1
// [RFB] 7.1.2, of the library.
constexpr char kNoAuthentication = 1, kVncAuthentication = 2;

// A number of four bytes, and a text behind its length.
std::string with_reason(char number, std::string_view reason) {
  return "\0\0\0"s + number + "\0\0\0"s + static_cast<char>(reason.size()) + std::string(reason);
}

}  // namespace

class VncGate::Client {
 public:
  Client(VncGate& gate, int number, Fd socket)
      : gate_(gate), number_(number), socket_(std::move(socket)), late_(gate.clock_, [this] { drop(); }) {
    late_.arm_at(gate_.clock_.now() + kGreetingNs);
    gate_.executor_.watch(socket_.get(), EPOLLIN, [this](uint32_t) { readable(); });
    wants(&Client::take_version, kVersion.size());
  }
  ~Client() {
    for (const Fd* const fd : {&socket_, &plain_})
      if (fd->valid()) gate_.executor_.unwatch(fd->get());
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // The server speaks first. What it says fits into any socket.
  void begin() { say(kVersion); }

 private:
  using Step = void (Client::*)(std::string_view bytes);

  void readable();
  void wants(Step step, size_t count) {
    step_ = step;
    wanted_ = count;
  }
  void say(std::string_view bytes) {
    if (::send(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) !=
        static_cast<ssize_t>(bytes.size()))
      failed_ = true;
  }
  // The last words to a client that is not let in.
  void refuse(std::string_view bytes) {
    say(bytes);
    failed_ = true;
  }
  void take_version(std::string_view bytes);
  void take_type(std::string_view bytes);
  void take_vencrypt_version(std::string_view bytes);
  void take_subtype(std::string_view bytes);
  void shake_hands();
  void let_through(const std::string& name);
  void swallow_greeting();
  void drop();
  [[nodiscard]] std::string subtype() const;

  VncGate& gate_;
  const int number_;
  Fd socket_;
  std::string taken_;  // of what the next step wants
  Step step_ = nullptr;
  size_t wanted_ = 0;
  bool failed_ = false;
  std::string version_;
  Timer late_;
  std::unique_ptr<tls::Tunnel> tunnel_;
  Fd plain_;             // the gate's end, until the library has said what the client knows already
  size_t greeting_ = 0;  // how much of that is still to come
  bool through_ = false;
};

// Reads no more than what the step wants: what follows the last one is TLS's.
void VncGate::Client::readable() {
  while (!failed_ && step_ != nullptr) {
    char bytes[kVersion.size()];
    const ssize_t got = ::recv(socket_.get(), bytes, wanted_ - taken_.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return drop();
    taken_.append(bytes, static_cast<size_t>(got));
    if (taken_.size() < wanted_) continue;
    const Step step = std::exchange(step_, nullptr);
    (this->*step)(std::exchange(taken_, {}));
  }
  if (failed_) return drop();
  shake_hands();
}

void VncGate::Client::take_version(std::string_view bytes) {
  if (bytes != kVersion && bytes != kOlderVersion) return refuse(with_reason('\0', "RFB 3.7 or 3.8 is wanted"));
  version_ = bytes;
  const char types[] = {1, kVencrypt};
  say({types, sizeof types});
  wants(&Client::take_type, 1);
}

void VncGate::Client::take_type(std::string_view bytes) {
  // [RFB] 7.1.3: only 3.8 has a reason behind the result.
  if (bytes[0] != kVencrypt)
    return refuse(version_ == kVersion ? with_reason('\1', "VeNCrypt (19) is wanted") : "\0\0\0\1"s);
  say(kVencryptVersion);
  wants(&Client::take_vencrypt_version, kVencryptVersion.size());
}

void VncGate::Client::take_vencrypt_version(std::string_view bytes) {
  if (bytes != kVencryptVersion) return refuse("\x01"sv);
  say("\0\x01"sv);  // it will do; one subtype
  say(subtype());
  wants(&Client::take_subtype, subtype().size());
}

std::string VncGate::Client::subtype() const {
  const bool certificates = gate_.config_.credentials->proof() == tls::Proof::kCertificate;
  const uint8_t low =
      certificates ? (gate_.config_.password ? kX509Vnc : kX509None) : (gate_.config_.password ? kTlsVnc : kTlsNone);
  return {'\0', '\0', '\x01', static_cast<char>(low)};
}

void VncGate::Client::take_subtype(std::string_view bytes) {
  if (bytes != subtype()) return refuse("\0"sv);
  say("\x01"sv);
}

// --- TLS

void VncGate::Client::shake_hands() {
  late_.disarm();
  gate_.executor_.unwatch(socket_.get());
  auto made = tls::Tunnel::create({.executor = gate_.executor_,
                                   .clock = gate_.clock_,
                                   .ready = [this](const std::string& name) { let_through(name); },
                                   .ended = [this](const tls::Tunnel&, const std::string&) { drop(); }},
                                  std::move(socket_), gate_.config_.credentials, "");
  if (!made) return drop();
  tunnel_ = std::move(*made);
}

// For the library a client begins now, and says at once what the real one has agreed to: its version, and the type that
// is left inside of TLS. The library's own words up to there, as many bytes, are not for the client.
void VncGate::Client::let_through(const std::string& name) {
  auto ends = tls::Tunnel::make_ends();
  if (!ends) return drop();
  plain_ = std::move((*ends)[0]);
  const std::string said = version_ + (gate_.config_.password ? kVncAuthentication : kNoAuthentication);
  if (::send(plain_.get(), said.data(), said.size(), MSG_DONTWAIT | MSG_NOSIGNAL) != static_cast<ssize_t>(said.size()))
    return drop();
  greeting_ = kVersion.size() + 2;  // its version, and a list of one type
  gate_.executor_.watch(plain_.get(), EPOLLIN, [this](uint32_t) { swallow_greeting(); });
  through_ = true;
  gate_.hooks_.through(number_, name, std::move((*ends)[1]));
}

void VncGate::Client::swallow_greeting() {
  while (greeting_ > 0) {
    char bytes[kVersion.size() + 2];
    const ssize_t got = ::recv(plain_.get(), bytes, greeting_, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return drop();  // the library has no room for another client
    greeting_ -= static_cast<size_t>(got);
  }
  gate_.executor_.unwatch(plain_.get());
  tunnel_->carry(std::move(plain_));
}

void VncGate::Client::drop() {
  VncGate& gate = gate_;
  const int number = number_;
  const bool through = through_;
  gate.remove(number);  // ends this
  if (!through) gate.hooks_.dropped(number);
}

// --- the gate

VncGate::VncGate(Executor& executor, Clock& clock, Config config, Hooks hooks)
    : executor_(executor), clock_(clock), config_(std::move(config)), hooks_(std::move(hooks)) {}

VncGate::~VncGate() = default;

void VncGate::add_client(int number, Fd socket) {
  if (clients_.size() >= kMostClients) return hooks_.dropped(number);
  Client& client = *(clients_[number] = std::make_unique<Client>(*this, number, std::move(socket)));
  client.begin();
}

void VncGate::remove(int number) { clients_.erase(number); }

}  // namespace kite::display
