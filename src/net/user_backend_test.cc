#include "net/user_backend.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "net/test_guest.h"
#include "support/fd.h"

namespace kite::net {
namespace {

using namespace testing;  // NOLINT: the card and its guest
using Guest = TestGuest;

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

struct UserBackendTest : ::testing::Test {
  UserBackendTest() { executor->attach(clock); }
  ~UserBackendTest() override {
    guest.reset();
    backend.reset();
    executor->detach(clock);
  }
  void start(const Settings& settings = {}) {
    const auto config = parse_user_options(settings);
    ASSERT_TRUE(config) << config.error().message;
    auto made = UserBackend::create("n0", *executor, clock, *config);
    ASSERT_TRUE(made) << made.error().message;
    backend = std::move(*made);
    guest.emplace(*executor, *backend);
  }
  // A listening socket on a free port of the loopback.
  static std::pair<Fd, uint16_t> listener() {
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    sockaddr_in address = loopback(0);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd.get(), 4), 0);
    socklen_t size = sizeof address;
    EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    return {std::move(fd), ntohs(address.sin_port)};
  }
  std::string read_from(int fd, size_t bytes) {
    std::string text;
    run_until(*executor, [&] {
      char buffer[256];
      const ssize_t got = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) text.append(buffer, static_cast<size_t>(got));
      return text.size() >= bytes;
    });
    return text;
  }

  std::unique_ptr<Executor> executor = make_executor();
  HostClock clock{HostClock::Kind::kMonotonic};
  std::unique_ptr<UserBackend> backend;
  std::optional<Guest> guest;
};

TEST_F(UserBackendTest, TheGatewayAnswersArp) {
  start();
  guest->find_gateway();
  EXPECT_NE(guest->gateway_mac, Guest::kEveryone);
}

TEST_F(UserBackendTest, TheGatewayAnswersPings) {
  start();
  guest->find_gateway();
  Bytes echo{8, 0, 0, 0, 0x12, 0x34, 0, 1, 'k', 'i', 't', 'e'};
  store_be16(&echo[2], internet_sum(echo));
  guest->send_ip(Guest::kIcmp, Guest::kOwn, Guest::kGateway, echo);
  const Bytes answer = guest->take_ip(Guest::kIcmp);
  ASSERT_EQ(answer.size(), 20 + echo.size());
  EXPECT_EQ(answer[20], 0);
  EXPECT_EQ(std::string(answer.end() - 4, answer.end()), "kite");
}

// [RFC 2131] DISCOVER is answered by an OFFER with what the options say.
TEST_F(UserBackendTest, DhcpOffersWhatTheOptionsSay) {
  start({{"net", "192.168.9.0/24"}, {"dhcpstart", "192.168.9.33"}, {"hostname", "guesthost"}});
  Bytes request{1, 1, 6, 0, 0xab, 0xcd, 0xef, 1};
  request.resize(28);
  append(request, TestCard::kMac);
  request.resize(236);
  append(request, Bytes{99, 130, 83, 99, 53, 1, 1, 255});
  Bytes datagram;
  put16(datagram, 68);
  put16(datagram, 67);
  put16(datagram, static_cast<unsigned>(8 + request.size()));
  put16(datagram, 0);
  append(datagram, request);
  guest->send_ip(Guest::kUdp, 0, 0xffffffff, datagram);
  const Bytes answer = guest->take_ip(Guest::kUdp);
  ASSERT_GT(answer.size(), 28U + 240U);
  EXPECT_EQ(load_be32(&answer[28 + 4]), 0xabcdef01U);
  EXPECT_EQ(ipv4_text(load_be32(&answer[28 + 16])), "192.168.9.33");
  const std::string options(answer.begin() + 28 + 240, answer.end());
  EXPECT_TRUE(options.starts_with(std::string("\x35\x01\x02", 3)));
  EXPECT_NE(options.find("guesthost"), std::string::npos);
}

TEST_F(UserBackendTest, TheGuestConnectsToTheHost) {
  start();
  auto [server, port] = listener();
  guest->find_gateway();
  guest->send_tcp(Guest::kGateway, port, 4000, Guest::kSyn);
  auto segment = guest->take_tcp();
  ASSERT_EQ(segment.flags & (Guest::kSyn | Guest::kAck), Guest::kSyn | Guest::kAck);
  guest->acknowledged = segment.sequence + 1;
  guest->send_tcp(Guest::kGateway, port, 4000, Guest::kAck);
  guest->send_tcp(Guest::kGateway, port, 4000, Guest::kAck | Guest::kPush, "hello host");
  Fd peer;
  run_until(*executor, [&] {
    if (!peer.valid()) peer.reset(::accept(server.get(), nullptr, nullptr));
    return peer.valid();
  });
  EXPECT_EQ(read_from(peer.get(), 10), "hello host");
  ASSERT_EQ(::send(peer.get(), "hello guest", 11, 0), 11);
  do segment = guest->take_tcp();
  while (segment.text.empty() && !HasFailure());
  EXPECT_EQ(segment.text, "hello guest");
  EXPECT_NE(backend->connections().find("TCP"), std::string::npos);
}

TEST_F(UserBackendTest, AForwardBringsTheHostToTheGuest) {
  auto [probe, port] = listener();
  probe.reset();  // the port is free again
  start({{"hostfwd", fmt::format("tcp:127.0.0.1:{}-:22", port)}});
  Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  const sockaddr_in address = loopback(port);
  (void)::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  auto segment = guest->take_tcp();
  ASSERT_EQ(segment.flags & Guest::kSyn, Guest::kSyn);
  EXPECT_EQ(segment.to_port, 22);
  const Ipv4 from = segment.from;
  const uint16_t from_port = segment.from_port;
  guest->acknowledged = segment.sequence + 1;
  guest->send_tcp(from, from_port, 22, Guest::kSyn | Guest::kAck);
  ASSERT_EQ(::send(client.get(), "knock", 5, MSG_NOSIGNAL), 5);
  do segment = guest->take_tcp();
  while (segment.text.empty() && !HasFailure());
  EXPECT_EQ(segment.text, "knock");
  guest->acknowledged += 5;
  guest->send_tcp(from, from_port, 22, Guest::kAck | Guest::kPush, "who is there?");
  EXPECT_EQ(read_from(client.get(), 13), "who is there?");
}

TEST_F(UserBackendTest, DatagramsAreForwardedAndAnswered) {
  auto [probe, port] = listener();
  start({{"hostfwd", fmt::format("udp:127.0.0.1:{}-:7", port)}});
  Fd client(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
  const sockaddr_in address = loopback(port);
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::send(client.get(), "ping", 4, 0), 4);
  const Bytes packet = guest->take_ip(Guest::kUdp);
  ASSERT_EQ(packet.size(), 20U + 8U + 4U);
  EXPECT_EQ(load_be16(&packet[22]), 7);
  EXPECT_EQ(std::string(packet.end() - 4, packet.end()), "ping");
  Bytes answer;
  put16(answer, 7);
  put16(answer, load_be16(&packet[20]));
  put16(answer, 12);
  put16(answer, 0);
  append(answer, std::string_view("pong"));
  guest->send_ip(Guest::kUdp, Guest::kOwn, load_be32(&packet[12]), answer);
  EXPECT_EQ(read_from(client.get(), 4), "pong");
}

TEST_F(UserBackendTest, ForwardsComeAndGo) {
  start();
  auto [server, port] = listener();
  Forward forward{.host = INADDR_LOOPBACK, .host_port = port, .guest_port = 22};
  const auto taken = backend->add_forward(forward);
  ASSERT_FALSE(taken);
  EXPECT_NE(taken.error().message.find(std::to_string(port)), std::string::npos);
  EXPECT_NE(taken.error().message.find("in use"), std::string::npos);
  server.reset();
  ASSERT_TRUE(backend->add_forward(forward));
  executor->run_once(0);
  EXPECT_TRUE(backend->remove_forward(forward));
  EXPECT_FALSE(backend->remove_forward(forward));
}

TEST_F(UserBackendTest, WhileTheCardHasNoRoomTheHostWaits) {
  start();
  auto [server, port] = listener();
  guest->find_gateway();
  guest->send_tcp(Guest::kGateway, port, 4000, Guest::kSyn);
  auto segment = guest->take_tcp();
  guest->acknowledged = segment.sequence + 1;
  guest->send_tcp(Guest::kGateway, port, 4000, Guest::kAck);
  Fd peer;
  run_until(*executor, [&] {
    if (!peer.valid()) peer.reset(::accept(server.get(), nullptr, nullptr));
    return peer.valid();
  });
  guest->card.room = 0;
  const std::string block(64 << 10, 'x');
  ::fcntl(peer.get(), F_SETFL, O_NONBLOCK);
  ASSERT_GT(::send(peer.get(), block.data(), block.size(), MSG_NOSIGNAL), 0);
  for (int pass = 0; pass < 100; ++pass) executor->run_once(1'000'000);
  EXPECT_TRUE(guest->card.frames.empty());
  guest->card.room = SIZE_MAX;
  backend->accept_input();
  do segment = guest->take_tcp();
  while (segment.text.empty() && !HasFailure());
  EXPECT_EQ(segment.text[0], 'x');
}

TEST_F(UserBackendTest, NonsenseFromTheGuestDoesNoHarm) {
  start();
  guest->find_gateway();
  for (size_t bytes = 0; bytes < 300; ++bytes) {
    Bytes frame(bytes, static_cast<uint8_t>(bytes * 37));
    if (bytes > 13)
      frame[12] = bytes % 3 == 0 ? 0x86 : 0x08, frame[13] = bytes % 3 == 0 ? 0xdd : bytes % 3 == 1 ? 0 : 6;
    if (bytes > 14) frame[14] = static_cast<uint8_t>(bytes % 3 == 0 ? 0x60 : 0x45);
    backend->send(frame);
    executor->run_once(0);
  }
  guest->card.frames.clear();
  guest->find_gateway();
}

}  // namespace
}  // namespace kite::net
