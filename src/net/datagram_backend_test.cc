#include "net/datagram_backend.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <filesystem>

#include "net/net_registry.h"
#include "net/test_guest.h"

namespace kite::net {
namespace {

using namespace testing;  // NOLINT: the card

class WaitingCard final : public TestCard {
 public:
  void writable() override { ++writables; }
  int writables = 0;
};

struct DatagramBackendTest : ::testing::Test {
  DatagramBackendTest() {
    std::string name = ::testing::TempDir() + "kite_dgram_XXXXXX";
    directory = ::mkdtemp(name.data());
  }
  ~DatagramBackendTest() override {
    for (const auto& backend : nets.all()) backend->set_client(nullptr);
    std::filesystem::remove_all(directory);
  }

  NetBackend* add(std::string_view type, std::string_view id, Settings settings) {
    settings.insert(settings.begin(), {{"type", std::string(type)}, {"id", std::string(id)}});
    const auto added = nets.add(settings);
    EXPECT_TRUE(added) << added.error().message;
    return added ? *added : nullptr;
  }
  // An address of the host's that no other process uses.
  static std::string own_host(unsigned which) {
    const auto number = static_cast<unsigned>(::getpid());
    return fmt::format("127.{}.{}.{}", 86 + which, (number >> 8) & 0xff, number & 0xff);
  }
  // Sends until it arrives: a datagram may be lost.
  void expect_cable(NetBackend& from, NetBackend& to, uint8_t mark) {
    TestCard card;
    to.set_client(&card);
    run_until(*executor, [&] {
      if (card.frames.empty()) from.send(Bytes(60, mark));
      return !card.frames.empty();
    });
    if (!card.frames.empty()) EXPECT_EQ(card.frames[0], Bytes(60, mark));
    to.set_client(nullptr);
  }

  std::string directory;
  std::unique_ptr<Executor> executor = make_executor();
  NetRegistry nets{*executor};
};

TEST_F(DatagramBackendTest, UdpBothWays) {
  const std::string one = own_host(1), two = own_host(2);
  NetBackend* const a = add("socket", "a", {{"udp", two + ":4002"}, {"localaddr", one + ":4001"}});
  NetBackend* const b = add("dgram", "b",
                            {{"local.type", "inet"},
                             {"local.host", two},
                             {"local.port", "4002"},
                             {"remote.type", "inet"},
                             {"remote.host", one},
                             {"remote.port", "4001"}});
  ASSERT_TRUE(a != nullptr && b != nullptr);
  expect_cable(*a, *b, 1);
  expect_cable(*b, *a, 2);
  EXPECT_EQ(a->info(), fmt::format("local=udp:{}:4001,remote=udp:{}:4002", one, two));
}

TEST_F(DatagramBackendTest, UnixSocketsComeAndGo) {
  const std::string one = directory + "/1", two = directory + "/2";
  const auto settings = [](const std::string& local, const std::string& remote) {
    return Settings{{"local.type", "unix"}, {"local.path", local}, {"remote.type", "unix"}, {"remote.path", remote}};
  };
  NetBackend* const a = add("dgram", "a", settings(one, two));
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->send(Bytes(60, 1)), Delivery::kDropped);  // nobody is there yet
  NetBackend* b = add("dgram", "b", settings(two, one));
  ASSERT_NE(b, nullptr);
  expect_cable(*a, *b, 1);
  expect_cable(*b, *a, 2);
  EXPECT_FALSE(nets.add({{"type", "dgram"},
                         {"id", "c"},
                         {"local.type", "unix"},
                         {"local.path", two},
                         {"remote.type", "unix"},
                         {"remote.path", one}}));  // the path is in use
  ASSERT_TRUE(nets.remove("b"));
  EXPECT_FALSE(std::filesystem::exists(two));
  EXPECT_EQ(a->send(Bytes(60, 1)), Delivery::kDropped);
  b = add("dgram", "b", settings(two, one));
  ASSERT_NE(b, nullptr);
  expect_cable(*a, *b, 3);
}

// Others on this host hear the group; who sends does not hear itself.
TEST_F(DatagramBackendTest, AGroupIsAWireOfMany) {
  const std::string group = "239" + own_host(0).substr(3);
  NetBackend* const a = add("socket", "a", {{"mcast", group + ":4000"}, {"localaddr", "127.0.0.1"}});
  NetBackend* const b = add("socket", "b", {{"mcast", group + ":4000"}, {"localaddr", "127.0.0.1"}});
  NetBackend* const c = add("dgram", "c",
                            {{"remote.type", "inet"},
                             {"remote.host", group},
                             {"remote.port", "4000"},
                             {"local.type", "inet"},
                             {"local.host", "127.0.0.1"}});
  ASSERT_TRUE(a != nullptr && b != nullptr && c != nullptr);
  TestCard own;
  a->set_client(&own);
  expect_cable(*a, *b, 1);
  expect_cable(*a, *c, 2);
  EXPECT_TRUE(own.frames.empty());
  a->set_client(nullptr);
  expect_cable(*c, *a, 3);
}

TEST_F(DatagramBackendTest, WhatIsNoFrameIsDropped) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
  const Fd other(ends[1]);
  const int large = 1 << 20;
  ::setsockopt(other.get(), SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
  NetBackend* const a = add("socket", "a", {{"fd", std::to_string(ends[0])}});
  ASSERT_NE(a, nullptr);
  TestCard card;
  a->set_client(&card);
  for (const size_t bytes : {size_t{0}, kHeaderBytes - 1, kMostFrameBytes + 1, kMostFrameBytes, kHeaderBytes})
    ASSERT_EQ(::send(other.get(), Bytes(bytes, 1).data(), bytes, 0), static_cast<ssize_t>(bytes)) << bytes;
  run_until(*executor, [&] { return card.frames.size() == 2; });
  EXPECT_EQ(card.frames[0].size(), kMostFrameBytes);
  EXPECT_EQ(card.frames[1].size(), kHeaderBytes);
}

TEST_F(DatagramBackendTest, AFloodWaitsInTheSocket) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
  const Fd other(ends[1]);
  NetBackend* const a = add("dgram", "a", {{"local.type", "fd"}, {"local.str", std::to_string(ends[0])}});
  ASSERT_NE(a, nullptr);
  TestCard card;
  card.room = 0;
  a->set_client(&card);
  size_t sent = 0;
  for (int full = 0; full < 20;) {
    if (::send(other.get(), Bytes(60, 7).data(), 60, 0) == 60) {
      ++sent;
    } else {
      ++full;
      executor->run_once(0);
    }
  }
  card.room = SIZE_MAX;
  a->accept_input();
  run_until(*executor, [&] { return card.frames.size() == sent; });
}

// A unix socket's peer that does not read: the card waits, is told, and in the end its frames are dropped.
TEST_F(DatagramBackendTest, APeerThatDoesNotReadHoldsUpTheCardForAMomentOnly) {
  const std::string one = directory + "/1", two = directory + "/2";
  const SocketAddress address{.path = two, .datagram = true};
  const Fd other = std::move(*listen_on(address, *resolve(address, true)));
  ManualClock clock;
  const auto made = DatagramBackend::create(
      "n0", *executor, clock,
      {.type = "dgram", .local = SocketAddress{.path = one, .datagram = true}, .remote = address});
  ASSERT_TRUE(made) << made.error().message;
  WaitingCard card;
  (*made)->set_client(&card);
  Delivery last = Delivery::kTaken;
  for (int tries = 0; tries < 100'000 && last == Delivery::kTaken; ++tries) last = (*made)->send(Bytes(1500, 1));
  EXPECT_EQ(last, Delivery::kFull);
  EXPECT_EQ((*made)->send(Bytes(1500, 1)), Delivery::kFull);
  int waits = 0;
  while (last == Delivery::kFull && waits < 1000) {
    clock.step();
    EXPECT_EQ(card.writables, ++waits);
    last = (*made)->send(Bytes(1500, 1));
  }
  EXPECT_EQ(last, Delivery::kDropped);
  uint8_t byte = 0;
  ASSERT_EQ(::recv(other.get(), &byte, 1, 0), 1);
  EXPECT_EQ((*made)->send(Bytes(1500, 1)), Delivery::kTaken);
  (*made)->set_client(nullptr);
}

TEST_F(DatagramBackendTest, ADescriptorThatIsNoneOfItsKindIsLeftAlone) {
  const Fd loose(::socket(AF_INET, SOCK_DGRAM, 0)), file(::open("/dev/null", O_RDWR));
  const auto refusal = [&](std::string_view type, const Fd& fd) {
    const bool socket = type == "socket";
    Settings settings{{"type", std::string(type)}, {"id", "n0"}};
    settings.emplace_back(socket ? "fd" : "local.str", std::to_string(fd.get()));
    if (!socket) settings.emplace_back("local.type", "fd");
    const auto added = nets.add(settings);
    EXPECT_GE(::fcntl(fd.get(), F_GETFD), 0);
    return added ? std::string("taken") : added.error().message;
  };
  EXPECT_NE(refusal("socket", loose).find("not connected"), std::string::npos);
  EXPECT_NE(refusal("socket", file).find("no socket"), std::string::npos);
  EXPECT_NE(refusal("dgram", file).find("no datagram socket"), std::string::npos);
}

}  // namespace
}  // namespace kite::net
