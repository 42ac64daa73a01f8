#include "display/spice/spice_display.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/bytes.h"

namespace kite::display {
namespace {

// A source whose size changes.
class Screen final : public Source {
 public:
  Mode draw(Surface& surface, bool) override {
    if (surface.width() != width) surface.resize(width, 100);
    return Mode::kGraphics;
  }
  void watched(bool on) override { looked_at = on; }
  uint32_t width = 100;
  bool looked_at = false;
};

// A server on a name in the abstract namespace; the protocol itself has a client in tests/display.
class SpiceDisplayTest : public ::testing::Test {
 protected:
  SpiceDisplayTest() {
    executor_->attach(clock_);
    console_.add_source(screen_);
  }
  ~SpiceDisplayTest() override {
    server_.reset();
    console_.remove_source(screen_);
    executor_->detach(clock_);
  }
  static Fd make_socket() { return Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }
  sockaddr* address() { return reinterpret_cast<sockaddr*>(&name_); }
  void serve(SpiceConfig config) {
    Fd listener = make_socket();
    ASSERT_EQ(::bind(listener.get(), address(), sizeof(sa_family_t)), 0);
    ASSERT_EQ(::listen(listener.get(), 8), 0);
    length_ = sizeof name_;
    ASSERT_EQ(::getsockname(listener.get(), address(), &length_), 0);
    // The process is this program as it is now.
    const auto spawn = [this](Fd link) -> Result<pid_t> {
      pid_ = ::fork();
      if (pid_ == 0) ::_exit(run_spice_process(std::move(link)));
      ++processes_;
      return pid_;
    };
    auto made = SpiceDisplay::create({.console = console_, .executor = *executor_, .clock = clock_, .spawn = spawn},
                                     std::move(config), {.plain = std::move(listener)});
    ASSERT_TRUE(made) << made.error().message;
    server_ = std::move(*made);
    server_->on_event([this](ClientEvent event, const SpiceChannel&) { events_.push_back(event); });
  }
  template <class Condition>
  void turn_until(Condition condition) {
    for (int turn = 0; turn < 2000 && !condition(); ++turn) executor_->run_once(5'000'000);
    EXPECT_TRUE(condition());
  }
  // [SPICE] "Link": what a client says first, for the main channel.
  Fd link() {
    Fd client = make_socket();
    EXPECT_EQ(::connect(client.get(), address(), length_), 0);
    std::array<uint32_t, 10> words = {0x51444552, 2, 2, 22};
    std::vector<uint8_t> bytes(reinterpret_cast<uint8_t*>(words.data()), reinterpret_cast<uint8_t*>(&words[4]));
    bytes.insert(bytes.end(), {0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 18, 0, 0, 0, 11, 0, 0, 0});
    EXPECT_EQ(::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
    return client;
  }

  sockaddr_un name_{.sun_family = AF_UNIX, .sun_path = {}};
  socklen_t length_ = 0;
  HostClock clock_{HostClock::Kind::kMonotonic};
  std::unique_ptr<Executor> executor_ = std::move(*Executor::create("test"));
  Console console_{clock_};
  Screen screen_;
  std::vector<ClientEvent> events_;
  pid_t pid_ = -1;
  int processes_ = 0;
  std::unique_ptr<SpiceDisplay> server_;
};

TEST_F(SpiceDisplayTest, AServerThatNobodyUsedEnds) {
  serve({.name = "Kite", .ticketing = true, .settings = {}});
  EXPECT_EQ(server_->place()->family, "unix");
  EXPECT_TRUE(server_->asks_password());
  EXPECT_FALSE(screen_.looked_at);
}

TEST_F(SpiceDisplayTest, AServerFollowsTheSizeOfTheScreen) {
  serve({.name = "Kite", .ticketing = false, .settings = {}});
  console_.add_sink(*server_);
  for (const uint32_t width : {200u, 64u, 2048u, 2048u, 1u}) {
    screen_.width = width;
    console_.look();
    for (int turn = 0; turn < 5; ++turn) executor_->run_once(1'000'000);
  }
  // A client that is served after all this finds the process as it was.
  const Fd client = link();
  turn_until([&] { return !events_.empty(); });
  EXPECT_EQ(processes_, 1);
  EXPECT_EQ(events_, (std::vector<ClientEvent>{ClientEvent::kConnected}));
}

TEST_F(SpiceDisplayTest, ALinkThatStopsHalfWayIsNoClient) {
  serve({.name = "Kite", .ticketing = true, .settings = {}});
  {
    const Fd client = link();
    turn_until([&] { return !events_.empty(); });
    EXPECT_TRUE(server_->channels().empty());
  }
  turn_until([&] { return events_.size() == 2; });
  EXPECT_EQ(events_, (std::vector<ClientEvent>{ClientEvent::kConnected, ClientEvent::kDisconnected}));
  EXPECT_FALSE(screen_.looked_at);
}

TEST_F(SpiceDisplayTest, AServerEndsWithALinkHalfWay) {
  serve({.name = "Kite", .ticketing = true, .settings = {}});
  const Fd client = link();
  turn_until([&] { return !events_.empty(); });
  server_.reset();
}

TEST_F(SpiceDisplayTest, WhenTheProcessEndsAnotherOneTakesItsPlace) {
  serve({.name = "Kite", .ticketing = true, .settings = {}});
  EXPECT_TRUE(server_->set_password("sesame", WhenConnected::kKeep));
  const Fd client = link();
  turn_until([&] { return !events_.empty(); });
  ::kill(pid_, SIGABRT);
  turn_until([&] { return processes_ == 2; });
  EXPECT_EQ(events_.back(), ClientEvent::kDisconnected);
  const Fd other = link();
  turn_until([&] { return events_.size() == 3; });
  EXPECT_EQ(events_.back(), ClientEvent::kConnected);
}

TEST_F(SpiceDisplayTest, APasswordThatIsTooLongIsRefused) {
  serve({.name = "Kite", .ticketing = true, .settings = {}});
  EXPECT_TRUE(server_->set_password(std::string(60, 'x'), WhenConnected::kKeep));
  EXPECT_FALSE(server_->set_password(std::string(61, 'x'), WhenConnected::kKeep));
}

TEST(SpiceConfigTest, OptionsHaveTheValuesThatTheLibraryKnows) {
  SpiceConfig config;
  EXPECT_TRUE(set_spice_option(config, "image-compression", "auto_glz"));
  EXPECT_TRUE(set_spice_option(config, "streaming-video", "off"));
  EXPECT_EQ(config.settings.size(), 2U);
  const auto refused = set_spice_option(config, "image-compression", "quick");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("did you mean 'quic'"), std::string::npos) << refused.error().message;
}

}  // namespace
}  // namespace kite::display
