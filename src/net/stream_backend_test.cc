#include "net/stream_backend.h"

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

struct StreamBackendTest : ::testing::Test {
  StreamBackendTest() {
    std::string name = ::testing::TempDir() + "kite_stream_XXXXXX";
    directory = ::mkdtemp(name.data());
    path = directory + "/s";
  }
  ~StreamBackendTest() override {
    if (backend != nullptr) backend->set_client(nullptr);
    backend.reset();
    std::filesystem::remove_all(directory);
  }

  Result<> create(SocketPeers::Config peers) {
    KITE_ASSIGN(backend, StreamBackend::create(
                             "n0", *executor, clock, {.type = "stream", .peers = std::move(peers)},
                             [this](const StreamBackend& changed) { changes.push_back(changed.connected()); }));
    backend->set_client(&card);
    return {};
  }
  // The other end is ours; neither blocks.
  void create_pair() {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    other.reset(ends[1]);
    ASSERT_TRUE(create({.address = {}, .fd = ends[0]}));
  }
  [[nodiscard]] Fd connect_other() const {
    const SocketAddress address{.path = path};
    auto made = connect_to(address, *resolve(address, false));
    EXPECT_TRUE(made) << made.error().message;
    return made ? std::move(*made) : Fd();
  }
  void settle() {
    for (int pass = 0; pass < 8; ++pass) executor->run_once(0);
  }
  static Bytes wire(const Bytes& content) {
    Bytes bytes;
    put32(bytes, static_cast<uint32_t>(content.size()));
    append(bytes, content);
    return bytes;
  }
  void put(const Bytes& bytes) const {
    ASSERT_EQ(::send(other.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // All that has come to the other end, while the loop runs, up to `most` bytes.
  Bytes get(size_t most) {
    Bytes bytes(most);
    size_t have = 0;
    run_until(*executor, [&] {
      const ssize_t got = ::recv(other.get(), bytes.data() + have, most - have, MSG_DONTWAIT);
      if (got > 0) have += static_cast<size_t>(got);
      return have == most;
    });
    return bytes;
  }

  std::string directory, path;
  std::unique_ptr<Executor> executor = make_executor();
  ManualClock clock;
  WaitingCard card;
  Fd other;
  std::vector<bool> changes;  // connected or not
  std::unique_ptr<StreamBackend> backend;
};

TEST_F(StreamBackendTest, FramesGoBothWaysBehindTheirLengths) {
  create_pair();
  EXPECT_EQ(backend->send(Bytes(60, 7)), Delivery::kTaken);
  EXPECT_EQ(get(64), wire(Bytes(60, 7)));
  put(wire(Bytes(70, 8)));
  put(wire(Bytes(80, 9)));
  run_until(*executor, [&] { return card.frames.size() == 2; });
  EXPECT_EQ(card.frames[0], Bytes(70, 8));
  EXPECT_EQ(card.frames[1], Bytes(80, 9));
}

TEST_F(StreamBackendTest, AFrameInPiecesIsOneAndWhatIsTooShortIsNone) {
  create_pair();
  const Bytes bytes = wire(Bytes(60, 7));
  put(wire(Bytes(13, 1)));
  for (const uint8_t byte : bytes) {
    put({byte});
    settle();
  }
  put(wire({}));
  settle();
  ASSERT_EQ(card.frames.size(), 1U);
  EXPECT_EQ(card.frames[0], Bytes(60, 7));
}

TEST_F(StreamBackendTest, ALengthThatIsALieEndsTheConnection) {
  create_pair();
  put(wire(Bytes(60, 7)));
  put({0x80, 0, 0, 0});
  run_until(*executor, [&] { return !backend->connected(); });
  EXPECT_EQ(card.frames.size(), 1U);
  uint8_t byte = 0;
  EXPECT_EQ(::recv(other.get(), &byte, 1, MSG_DONTWAIT), 0);
  EXPECT_EQ(backend->send(Bytes(60, 7)), Delivery::kDropped);
}

// What a flood leaves here has a bound: nothing is read while the card has no room.
TEST_F(StreamBackendTest, AFloodWaitsInTheSocket) {
  create_pair();
  card.room = 0;
  const Bytes frame = wire(Bytes(kHeaderBytes, 7));
  size_t sent = 0, pass = 0;
  while (pass < 50) {
    const ssize_t wrote = ::send(other.get(), frame.data(), frame.size(), MSG_NOSIGNAL);
    if (wrote > 0) {
      ++sent;
    } else {
      ++pass;
      executor->run_once(0);
    }
  }
  card.room = SIZE_MAX;
  backend->accept_input();
  run_until(*executor, [&] { return card.frames.size() == sent; });
  EXPECT_GT(sent, 100U);
}

TEST_F(StreamBackendTest, AFullSocketTellsWhenItHasRoomAndLosesNothing) {
  create_pair();
  size_t sent = 0;
  while (backend->send(Bytes(1500, static_cast<uint8_t>(sent))) == Delivery::kTaken) ++sent;
  settle();
  EXPECT_EQ(card.writables, 0);
  Bytes all = get(sent * 1504);
  run_until(*executor, [&] { return card.writables == 1; });
  for (size_t i = 0; i < sent; ++i) ASSERT_EQ(all[i * 1504 + 4], static_cast<uint8_t>(i));
  EXPECT_EQ(backend->send(Bytes(1500, 1)), Delivery::kTaken);
}

// The socket has room for a part of the longest frame only; the rest follows.
TEST_F(StreamBackendTest, AFrameThatGoesInPiecesArrivesWhole) {
  create_pair();
  const Bytes frame(kMostFrameBytes, 5);
  size_t sent = 0;
  while (backend->send(frame) == Delivery::kTaken) ++sent;
  ASSERT_GT(sent, 0U);
  Bytes wanted;
  for (size_t i = 0; i < sent; ++i) append(wanted, wire(frame));
  EXPECT_EQ(get(wanted.size()), wanted);
}

TEST_F(StreamBackendTest, ACardThatWaitsHearsThatThePeerIsGone) {
  create_pair();
  while (backend->send(Bytes(1500, 1)) == Delivery::kTaken) {
  }
  other.reset();
  run_until(*executor, [&] { return !backend->connected(); });
  EXPECT_GE(card.writables, 1);
  EXPECT_EQ(backend->send(Bytes(1500, 1)), Delivery::kDropped);
}

TEST_F(StreamBackendTest, AServerTakesTheNextPeerWhenOneLeaves) {
  ASSERT_TRUE(create({.address = {.path = path}, .server = true}));
  EXPECT_NE(backend->info().find("disconnected"), std::string::npos);
  EXPECT_EQ(backend->send(Bytes(60, 7)), Delivery::kDropped);
  other = connect_other();
  run_until(*executor, [&] { return backend->connected(); });
  put({0, 0, 0, 60, 1, 2, 3});  // the beginning of a frame, which does not count for the next peer
  settle();
  other.reset();
  run_until(*executor, [&] { return !backend->connected(); });
  other = connect_other();
  put(wire(Bytes(60, 9)));
  run_until(*executor, [&] { return card.frames.size() == 1; });
  EXPECT_EQ(card.frames[0], Bytes(60, 9));
  EXPECT_EQ(changes, (std::vector{true, false, true}));
}

TEST_F(StreamBackendTest, AClientConnectsAgainOnlyWhenToldTo) {
  ASSERT_TRUE(create({.address = {.path = path}, .reconnect_ns = 1000}));  // nobody listens yet
  EXPECT_FALSE(backend->connected());
  const SocketAddress address{.path = path};
  Fd listener = std::move(*listen_on(address, *resolve(address, true)));
  clock.advance(1000);
  run_until(*executor, [&] { return backend->connected(); });
  Fd peer(::accept(listener.get(), nullptr, nullptr));
  peer.reset();
  run_until(*executor, [&] { return !backend->connected(); });
  clock.advance(999);
  EXPECT_FALSE(backend->connected());
  clock.advance(1);
  run_until(*executor, [&] { return backend->connected(); });

  backend->set_client(nullptr);
  ASSERT_TRUE(create({.address = {.path = path}}));
  listener.reset();
  run_until(*executor, [&] { return !backend->connected(); });
  clock.advance(int64_t{1} << 40);
  settle();
  EXPECT_FALSE(backend->connected());
}

TEST_F(StreamBackendTest, AnAddressThatNobodyListensAtIsAnError) {
  const auto made = create({.address = {.path = path}});
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find(path), std::string::npos);
}

TEST_F(StreamBackendTest, TwoBackEndsOfOneRegistryAreACableOverTcp) {
  NetRegistry nets(*executor);
  std::vector<std::pair<std::string, bool>> told;
  nets.on_stream_change([&](const StreamBackend& changed) { told.emplace_back(changed.id(), changed.connected()); });
  const auto server = nets.add({{"type", "stream"},
                                {"id", "s"},
                                {"server", "on"},
                                {"addr.type", "inet"},
                                {"addr.host", "127.0.0.1"},
                                {"addr.port", "0"}});
  ASSERT_TRUE(server) << server.error().message;
  const std::string info = (*server)->info();
  const size_t at = info.find("tcp:127.0.0.1:") + 14;
  const std::string port = info.substr(at, info.find(',', at) - at);
  const auto peer = nets.add({{"type", "socket"}, {"id", "c"}, {"connect", "127.0.0.1:" + port}});
  ASSERT_TRUE(peer) << peer.error().message;
  TestCard one, two;
  (*server)->set_client(&one);
  (*peer)->set_client(&two);
  run_until(*executor, [&] { return !told.empty(); });
  EXPECT_EQ(told, (std::vector{std::pair(std::string("s"), true)}));  // of a socket there are no events
  run_until(*executor, [&] {
    if (one.frames.empty()) (*peer)->send(Bytes(60, 1));
    return !one.frames.empty();
  });
  (*server)->send(Bytes(61, 2));
  run_until(*executor, [&] { return !two.frames.empty(); });
  EXPECT_EQ(one.frames[0], Bytes(60, 1));
  EXPECT_EQ(two.frames[0], Bytes(61, 2));
  EXPECT_NE((*server)->info().find("peer=127.0.0.1:"), std::string::npos);
  (*peer)->set_client(nullptr);
  EXPECT_TRUE(nets.remove("c"));
  run_until(*executor, [&] { return told.size() == 2; });
  EXPECT_EQ(told.back(), std::pair(std::string("s"), false));
  (*server)->set_client(nullptr);
}

}  // namespace
}  // namespace kite::net
