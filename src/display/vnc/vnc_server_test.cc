#include "display/vnc/vnc_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "display/vnc/keysyms.h"
#include "tls/test_certificates.h"
#include "tls/tunnel.h"

namespace kite::display {
namespace {

class Hands final : public Keyboard, public Pointer {
 public:
  void key(KeyNumber number, bool down) override { keys.push_back(down ? number : -int{number}); }
  void move(int32_t dx, int32_t dy, int32_t dz, uint8_t buttons) override { moves.push_back({dx, dy, dz, buttons}); }
  [[nodiscard]] std::string_view pointer_name() const override { return "hand"; }
  std::vector<int> keys;
  std::vector<std::array<int, 4>> moves;
};

// A server on a name in the abstract namespace and one client that speaks the protocol by hand.
class VncServerTest : public ::testing::Test {
 protected:
  VncServerTest() {
    executor_->attach(clock_);
    console_.add_keyboard(hands_);
    console_.add_pointer(hands_);
  }
  ~VncServerTest() override {
    server_.reset();
    executor_->detach(clock_);
  }
  static Fd make_socket() { return Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }
  void serve(VncScreen::Config screen, std::shared_ptr<const tls::Credentials> credentials = nullptr) {
    Fd listener = make_socket();
    ASSERT_EQ(::bind(listener.get(), address(), kLength), 0);
    ASSERT_EQ(::listen(listener.get(), 8), 0);
    // Autobind has chosen the name.
    length_ = sizeof name_;
    ASSERT_EQ(::getsockname(listener.get(), address(), &length_), 0);
    auto made =
        VncServer::create(console_, *executor_, {.screen = std::move(screen), .credentials = std::move(credentials)},
                          std::move(listener));
    ASSERT_TRUE(made);
    server_ = std::move(*made);
  }
  sockaddr* address() { return reinterpret_cast<sockaddr*>(&name_); }
  void send(std::string_view bytes) {
    ASSERT_EQ(::send(client_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // Turns the main loop until `count` bytes are there; fewer when the server closes.
  std::string take(size_t count) {
    std::string got;
    for (int turn = 0; turn < 2000 && got.size() < count; ++turn) {
      executor_->run_once(5'000'000);
      char bytes[512];
      const ssize_t part = ::recv(client_.get(), bytes, std::min(sizeof bytes, count - got.size()), MSG_DONTWAIT);
      if (part == 0) break;
      if (part > 0) got.append(bytes, static_cast<size_t>(part));
    }
    return got;
  }
  template <class Condition>
  void turn_until(Condition condition) {
    for (int turn = 0; turn < 2000 && !condition(); ++turn) executor_->run_once(5'000'000);
    EXPECT_TRUE(condition());
  }
  void connect() {
    client_ = make_socket();
    ASSERT_EQ(::connect(client_.get(), address(), length_), 0);
    EXPECT_EQ(take(12), "RFB 003.008\n");
    send("RFB 003.008\n");
  }
  void log_in() {
    connect();
    EXPECT_EQ(take(2), std::string_view("\x01\x01", 2));
    send("\x01");
    EXPECT_EQ(take(4), std::string(4, '\0'));
    send("\x01");
    EXPECT_EQ(take(24).size(), 24U);
    EXPECT_EQ(take(4), "Kite");
  }

  static constexpr socklen_t kLength = sizeof(sa_family_t);  // what asks for autobind
  sockaddr_un name_{.sun_family = AF_UNIX, .sun_path = {}};
  socklen_t length_ = 0;
  HostClock clock_{HostClock::Kind::kMonotonic};
  std::unique_ptr<Executor> executor_ = std::move(*Executor::create("test"));
  Console console_{clock_};
  Hands hands_;
  std::unique_ptr<VncServer> server_;
  Fd client_;
};

TEST_F(VncServerTest, KeysReachTheKeyboardAndAreLetGoOf) {
  serve({.name = "Kite", .password = false});
  log_in();
  send(std::string_view("\x04\x01\0\0\0\0\0a", 8));
  send(std::string_view("\x04\0\0\0\0\0\0a", 8));
  send(std::string_view("\x04\x01\0\0\0\0\0?", 8));  // without a Shift of its own
  turn_until([&] { return hands_.keys.size() == 5; });
  EXPECT_EQ(hands_.keys, (std::vector<int>{0x1e, -0x1e, kLeftShift, 0x35, -int{kLeftShift}}));
  client_.reset();
  turn_until([&] { return server_->clients().empty(); });
  EXPECT_EQ(hands_.keys.back(), -0x35);
}

TEST_F(VncServerTest, ThePointerBecomesMovement) {
  serve({.name = "Kite", .password = false});
  log_in();
  send(std::string_view("\x05\0\0\x64\0\x64", 6));
  send(std::string_view("\x05\x01\0\x6e\0\x5f", 6));
  send(std::string_view("\x05\x10\0\x6e\0\x5f", 6));
  turn_until([&] { return hands_.moves.size() == 2; });
  EXPECT_EQ(hands_.moves[0], (std::array<int, 4>{10, -5, 0, kButtonLeft}));
  EXPECT_EQ(hands_.moves[1], (std::array<int, 4>{0, 0, 1, 0}));
}

TEST_F(VncServerTest, NobodyGetsInWithoutAPassword) {
  serve({.name = "Kite", .password = true});
  connect();
  EXPECT_EQ(take(2), std::string_view("\x01\x02", 2));
  send("\x02");
  EXPECT_EQ(take(16).size(), 16U);
  send(std::string(16, 'x'));
  EXPECT_EQ(take(4), std::string_view("\0\0\0\x01", 4));
}

TEST_F(VncServerTest, AServerEndsWithItsClientsConnected) {
  serve({.name = "Kite", .password = false});
  log_in();
  EXPECT_EQ(server_->clients().size(), 1U);
  EXPECT_EQ(server_->place().family, "unix");
  server_.reset();
  EXPECT_EQ(take(1), "");
}

// The whole way: the gate's thread, the screen's, and the main one.
TEST_F(VncServerTest, AClientWithTlsIsAClientLikeOthers) {
  using namespace std::string_literals;
  const tls::testing_support::Certificates files;
  serve({.name = "Kite", .password = false}, *files.load({.endpoint = tls::Endpoint::kServer}));
  EXPECT_EQ(server_->tls(), VncServer::Tls::kCertificate);
  std::string name;
  server_->on_event([&name](ClientEvent event, const VncServer::Client& client) {
    if (event == ClientEvent::kInitialized) name = client.x509_name;
  });
  client_ = make_socket();
  ASSERT_EQ(::connect(client_.get(), address(), length_), 0);
  send("RFB 003.008\n\x13\0\x02\0\0\1\4"s);
  EXPECT_EQ(take(23), "RFB 003.008\n\x01\x13\0\x02\0\x01\0\0\1\4\1"s);
  std::unique_ptr<tls::Tunnel> tunnel;
  auto made = tls::Tunnel::create({.executor = *executor_,
                                   .clock = clock_,
                                   .ready =
                                       [this, &tunnel](const std::string&) {
                                         auto ends = std::move(*tls::Tunnel::make_ends());
                                         client_ = std::move(ends[0]);
                                         tunnel->carry(std::move(ends[1]));
                                       },
                                   .ended = [&tunnel](const tls::Tunnel&, const std::string&) { tunnel.reset(); }},
                                  std::move(client_), *files.load({}), "");
  ASSERT_TRUE(made) << made.error().message;
  tunnel = std::move(*made);
  turn_until([this] { return client_.valid(); });
  EXPECT_EQ(take(4), std::string(4, '\0'));
  send("\x01");
  EXPECT_EQ(take(28).substr(24), "Kite");
  send("\x04\x01\0\0\0\0\0a"s);
  turn_until([&] { return !hands_.keys.empty() && !name.empty(); });
  EXPECT_EQ(name, "CN=client");
  client_.reset();
  turn_until([&] { return server_->clients().empty() && tunnel == nullptr; });
}

TEST(Keysyms, LettersDigitsAndNamedKeys) {
  EXPECT_EQ(key_of_keysym('q')->key, 0x10);
  EXPECT_TRUE(key_of_keysym('Q')->shift);
  EXPECT_EQ(key_of_keysym('0')->key, 0x0b);
  EXPECT_EQ(key_of_keysym('/')->key, 0x35);
  EXPECT_EQ(key_of_keysym('~')->key, 0x29);
  EXPECT_EQ(key_of_keysym(0xff0d)->key, 0x1c);
  EXPECT_EQ(key_of_keysym(0xffc7)->key, 0x44);
  EXPECT_EQ(key_of_keysym(0xffff)->key, 0xe053);
  EXPECT_FALSE(key_of_keysym(0x12345678));
  EXPECT_FALSE(key_of_keysym(0));
}

}  // namespace
}  // namespace kite::display
