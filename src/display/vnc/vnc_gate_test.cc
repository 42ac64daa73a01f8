#include "display/vnc/vnc_gate.h"

#include <sys/socket.h>

#include "tls/test_certificates.h"
#include "tls/tunnel.h"

namespace kite::display {
namespace {

using namespace std::string_literals;

constexpr char kVncVersion[] = "RFB 003.008\n";

// A gate between a client and a library that are both played by hand.
class VncGateTest : public ::testing::Test {
 protected:
  VncGateTest() { serve(tls::Proof::kAnonymous, true); }
  void serve(tls::Proof proof, bool password) {
    auto credentials = certificates_.load({.proof = proof, .endpoint = tls::Endpoint::kServer});
    ASSERT_TRUE(credentials) << credentials.error().message;
    gate_ = std::make_unique<VncGate>(*executor_, clock_,
                                      VncGate::Config{.credentials = std::move(*credentials), .password = password},
                                      VncGate::Hooks{.through =
                                                         [this](int number, const std::string& name, Fd plain) {
                                                           through_ = number;
                                                           name_ = name;
                                                           library_ = std::move(plain);
                                                         },
                                                     .dropped = [this](int number) { dropped_ = number; }});
  }
  void come(int number = 1) {
    auto ends = std::move(*tls::Tunnel::make_ends());
    client_ = std::move(ends[0]);
    dropped_ = 0;
    gate_->add_client(number, std::move(ends[1]));
    EXPECT_EQ(take(client_, 12), kVncVersion);
  }
  static void send(const Fd& fd, std::string_view bytes) {
    ASSERT_EQ(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // Fewer than `count` bytes when the other side closes.
  std::string take(const Fd& fd, size_t count) {
    std::string got;
    for (int turn = 0; turn < 2000 && got.size() < count; ++turn) {
      executor_->run_once(1'000'000);
      std::string bytes(count - got.size(), '\0');
      const ssize_t part = ::recv(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
      if (part == 0) break;
      if (part > 0) got.append(bytes, 0, static_cast<size_t>(part));
    }
    return got;
  }
  template <class Condition>
  void turn_until(Condition condition) {
    for (int turn = 0; turn < 2000 && !condition(); ++turn) executor_->run_once(1'000'000);
    EXPECT_TRUE(condition());
  }
  // Up to where TLS begins, with this subtype.
  void agree(const std::string& subtype) {
    send(client_, kVncVersion);
    EXPECT_EQ(take(client_, 2), "\x01\x13");
    send(client_, "\x13");
    EXPECT_EQ(take(client_, 2), "\0\x02"s);
    send(client_, "\0\x02"s);
    EXPECT_EQ(take(client_, 6), "\0\x01"s + subtype);
    send(client_, subtype);
    EXPECT_EQ(take(client_, 1), "\x01");
  }
  // After this, the client speaks through TLS.
  void shake_hands(tls::Proof proof) {
    auto credentials = certificates_.load({.proof = proof});
    ASSERT_TRUE(credentials) << credentials.error().message;
    auto made = tls::Tunnel::create({.executor = *executor_,
                                     .clock = clock_,
                                     .ready =
                                         [this](const std::string&) {
                                           auto ends = std::move(*tls::Tunnel::make_ends());
                                           client_ = std::move(ends[0]);
                                           tunnel_->carry(std::move(ends[1]));
                                         },
                                     .ended = [this](const tls::Tunnel&, const std::string&) { tunnel_.reset(); }},
                                    std::move(client_), *credentials, "");
    ASSERT_TRUE(made) << made.error().message;
    tunnel_ = std::move(*made);
    turn_until([this] { return through_ != 0 || dropped_ != 0; });
  }

  const tls::testing_support::Certificates certificates_;
  ManualClock clock_;
  std::unique_ptr<Executor> executor_ = std::move(*Executor::create("test"));
  int through_ = 0, dropped_ = 0;
  std::string name_;
  Fd client_, library_;
  std::unique_ptr<tls::Tunnel> tunnel_;
  std::unique_ptr<VncGate> gate_;
};

TEST_F(VncGateTest, TheLibraryFindsAClientThatHasJustBegun) {
  come();
  agree("\0\0\1\2"s);
  shake_hands(tls::Proof::kAnonymous);
  EXPECT_EQ(through_, 1);
  EXPECT_EQ(take(library_, 13), kVncVersion + "\x02"s);
  send(library_, kVncVersion + "\x01\x02"s);  // which the client does not see
  send(library_, "challenge");
  EXPECT_EQ(take(client_, 9), "challenge");
  send(client_, "answer");
  EXPECT_EQ(take(library_, 6), "answer");
  library_.reset();
  EXPECT_EQ(take(client_, 1), "");
  EXPECT_EQ(dropped_, 0);
}

TEST_F(VncGateTest, ACertificateHasAName) {
  serve(tls::Proof::kCertificate, false);
  come();
  agree("\0\0\1\4"s);
  shake_hands(tls::Proof::kCertificate);
  EXPECT_EQ(name_, "CN=client");
  EXPECT_EQ(take(library_, 13), kVncVersion + "\x01"s);
}

TEST_F(VncGateTest, NobodyGetsPastWithoutTls) {
  come();
  send(client_, "RFB 003.003\n");
  EXPECT_EQ(take(client_, 100), "\0\0\0\0\0\0\0\x18"s + "RFB 3.7 or 3.8 is wanted");
  EXPECT_EQ(dropped_, 1);

  come(2);
  send(client_, kVncVersion + "\x01"s);  // without authentication
  EXPECT_EQ(take(client_, 100), "\x01\x13\0\0\0\1\0\0\0\x17"s + "VeNCrypt (19) is wanted");
  EXPECT_EQ(dropped_, 2);

  come(3);
  send(client_, kVncVersion + "\x13\0\x01"s);  // another VeNCrypt
  EXPECT_EQ(take(client_, 100), "\x01\x13\0\x02\x01"s);
  EXPECT_EQ(dropped_, 3);

  come(4);
  send(client_, kVncVersion + "\x13\0\x02\0\0\1\0"s);  // plain
  EXPECT_EQ(take(client_, 100), "\x01\x13\0\x02\0\x01\0\0\1\2\0"s);
  EXPECT_EQ(dropped_, 4);
  EXPECT_EQ(through_, 0);
}

TEST_F(VncGateTest, GarbageWhereTlsBeginsIsRefused) {
  come();
  agree("\0\0\1\2"s);
  send(client_, std::string(600, '\xff'));
  turn_until([this] { return dropped_ == 1; });
}

TEST_F(VncGateTest, SilenceEnds) {
  come();
  send(client_, "RFB 0");
  executor_->run_once(0);
  clock_.advance(VncGate::kGreetingNs);
  EXPECT_EQ(dropped_, 1);

  come(2);
  agree("\0\0\1\2"s);
  executor_->run_once(0);
  clock_.advance(tls::Tunnel::kHandshakeNs);
  EXPECT_EQ(dropped_, 2);
}

TEST_F(VncGateTest, WhoLeavesInTheMiddleIsDropped) {
  come();
  send(client_, kVncVersion);
  client_.reset();
  turn_until([this] { return dropped_ == 1; });
  come(2);
  agree("\0\0\1\2"s);
  client_.reset();
  turn_until([this] { return dropped_ == 2; });
}

TEST_F(VncGateTest, ItHasRoomForSoManyOnly) {
  std::vector<Fd> held;
  for (int number = 1; number <= static_cast<int>(VncGate::kMostClients); ++number) {
    come(number);
    held.push_back(std::move(client_));
  }
  auto ends = std::move(*tls::Tunnel::make_ends());
  gate_->add_client(1000, std::move(ends[1]));
  EXPECT_EQ(dropped_, 1000);
}

}  // namespace
}  // namespace kite::display
