#include "chardev/socket_chardev.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "chardev/test_client.h"

namespace kite {
namespace {

using namespace testing_support;
using enum ChardevEvent;

class SocketChardevTest : public testing::Test {
 protected:
  SocketChardevTest() {
    std::string name = testing::TempDir() + "kite_socket_XXXXXX";
    directory = ::mkdtemp(name.data());
    path = directory + "/s";
  }
  ~SocketChardevTest() override {
    if (chardev != nullptr) chardev->set_client(nullptr);
    chardev.reset();
    std::filesystem::remove_all(directory);
  }

  Result<> create(SocketChardev::Config config) {
    KITE_ASSIGN(chardev, SocketChardev::create("c", *executor, Fd(), clock, std::move(config)));
    chardev->set_client(&client);
    return {};
  }
  void serve() { ASSERT_TRUE(create({.peers = {.address = {.path = path}, .server = true}})); }

  // A peer of ours, whose reads wait at most for the loop.
  Fd connect_peer() {
    const SocketAddress address{.path = path};
    auto peer = connect_to(address, *resolve(address, false));
    EXPECT_TRUE(peer) << peer.error().message;
    return peer ? std::move(*peer) : Fd();
  }
  Fd connect_and_accept() {
    Fd peer = connect_peer();
    run_until(*executor, [this] { return chardev->is_open(); });
    return peer;
  }
  Fd listen_at_path() {
    const SocketAddress address{.path = path};
    return std::move(*listen_on(address, *resolve(address, true)));
  }
  void put(const Fd& fd, std::string_view text) {
    ASSERT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }

  std::string directory, path;
  std::unique_ptr<Executor> executor = make_executor();
  ManualClock clock;
  RecordingClient client;
  std::unique_ptr<SocketChardev> chardev;
};

// --- servers ---

TEST_F(SocketChardevTest, ServerMovesBytesBothWays) {
  serve();
  const Fd peer = connect_and_accept();

  put(peer, "ping");
  run_until(*executor, [&] { return client.text == "ping"; });
  chardev->write(bytes_of("pong"));

  EXPECT_EQ(read_from(*executor, peer.get(), 4), "pong");
  EXPECT_EQ(client.events, std::vector{kOpened});
}

TEST_F(SocketChardevTest, ServerTakesTheNextPeerWhenOneLeaves) {
  serve();
  Fd first = connect_and_accept();
  first.reset();
  run_until(*executor, [&] { return client.count(kClosed) == 1; });

  const Fd second = connect_and_accept();
  put(second, "again");
  run_until(*executor, [&] { return client.text == "again"; });

  EXPECT_EQ(client.events, (std::vector{kOpened, kClosed, kOpened}));
}

TEST_F(SocketChardevTest, SecondPeerWaitsUntilTheFirstLeaves) {
  serve();
  Fd first = connect_and_accept();
  const Fd second = connect_peer();
  put(second, "2");
  settle(*executor);
  EXPECT_EQ(client.text, "");

  first.reset();
  run_until(*executor, [&] { return client.text == "2"; });

  EXPECT_EQ(client.count(kOpened), 2);
}

TEST_F(SocketChardevTest, OutputWithoutAPeerIsDropped) {
  serve();
  EXPECT_EQ(chardev->write(bytes_of("lost")), 4u);
  const Fd peer = connect_and_accept();

  chardev->write(bytes_of("seen"));

  EXPECT_EQ(read_from(*executor, peer.get(), 4), "seen");
}

TEST_F(SocketChardevTest, PeerThatDoesNotReadNeverBlocksTheWriter) {
  serve();
  const Fd peer = connect_and_accept();
  const std::string much(8 << 20, 'm');

  const size_t taken = chardev->write(bytes_of(much));
  EXPECT_GE(taken, StreamChardev::kOutputBound);
  EXPECT_LT(taken, much.size());

  EXPECT_EQ(read_from(*executor, peer.get(), taken).size(), taken);
  settle(*executor);
  EXPECT_EQ(client.writables, 1);
}

TEST_F(SocketChardevTest, WriterThatWaitsIsToldWhenThePeerLeaves) {
  serve();
  Fd peer = connect_and_accept();
  chardev->write(bytes_of(std::string(8 << 20, 'm')));

  peer.reset();
  run_until(*executor, [&] { return client.writables == 1; });

  EXPECT_EQ(chardev->write(bytes_of("dropped")), 7u);
}

TEST_F(SocketChardevTest, InputWaitsForTheClient) {
  serve();
  client.room = 3;
  client.bounded = true;
  const Fd peer = connect_and_accept();
  put(peer, "abcdef");
  settle(*executor);
  EXPECT_EQ(client.text, "abc");

  client.room = 10;
  chardev->accept_input();
  run_until(*executor, [&] { return client.text == "abcdef"; });
}

TEST_F(SocketChardevTest, WhatAPeerSentBeforeItLeftIsNotLost) {
  serve();
  client.room = 0;
  Fd peer = connect_and_accept();
  put(peer, "last words");
  peer.reset();
  settle(*executor);
  EXPECT_TRUE(chardev->is_open());

  client.room = 100;
  chardev->accept_input();
  run_until(*executor, [&] { return client.count(kClosed) == 1; });

  EXPECT_EQ(client.text, "last words");
}

TEST_F(SocketChardevTest, LeavingPeerDoesNotSpinTheLoopWhileTheClientTakesNothing) {
  serve();
  client.room = 0;
  Fd peer = connect_and_accept();
  put(peer, "x");
  peer.reset();
  settle(*executor);
  const HostClock host(HostClock::Kind::kMonotonic);
  const int64_t before = host.now();

  executor->run_once(3'000'000);

  EXPECT_GE(host.now() - before, 3'000'000);
}

TEST_F(SocketChardevTest, LeavingPeerIsNoticedWithoutAClient) {
  serve();
  chardev->set_client(nullptr);
  Fd peer = connect_and_accept();

  peer.reset();
  run_until(*executor, [&] { return !chardev->is_open(); });
}

TEST_F(SocketChardevTest, HalfClosedPeerStillGetsTheAnswer) {
  serve();
  client.on_received = [this] { chardev->write(bytes_of("answer")); };
  const Fd peer = connect_and_accept();
  put(peer, "question");

  ::shutdown(peer.get(), SHUT_WR);

  EXPECT_EQ(read_from(*executor, peer.get(), 6), "answer");
  EXPECT_EQ(client.count(kClosed), 1);
}

TEST_F(SocketChardevTest, ClientMayUnplugItselfWhileItReceives) {
  serve();
  client.on_received = [this] { chardev->set_client(nullptr); };
  const Fd peer = connect_and_accept();

  put(peer, "x");
  run_until(*executor, [&] { return client.text == "x"; });
}

TEST_F(SocketChardevTest, ServerRemovesItsSocketAtTheEnd) {
  serve();
  ASSERT_TRUE(std::filesystem::exists(path));

  chardev.reset();

  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(SocketChardevTest, DeadSocketOfThePathIsReplaced) {
  listen_at_path().reset();
  ASSERT_TRUE(std::filesystem::exists(path));

  EXPECT_TRUE(create({.peers = {.address = {.path = path}, .server = true}}));
}

TEST_F(SocketChardevTest, LiveSocketOfThePathIsLeftAlone) {
  const Fd other = listen_at_path();

  const auto result = create({.peers = {.address = {.path = path}, .server = true}});

  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "another process listens on the unix socket '" + path + "'");
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(SocketChardevTest, FileOfThePathIsLeftAlone) {
  const Fd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));

  const auto result = create({.peers = {.address = {.path = path}, .server = true}});

  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "'" + path + "' exists and is no socket");
}

TEST_F(SocketChardevTest, LongPathIsRefused) {
  EXPECT_FALSE(create({.peers = {.address = {.path = std::string(108, 'p')}, .server = true}}));
}

TEST_F(SocketChardevTest, AbstractNamesNeedNoFile) {
  const SocketAddress address{.path = "kite-test-" + std::to_string(::getpid()), .abstract = true};
  ASSERT_TRUE(create({.peers = {.address = address, .server = true}}));

  auto peer = connect_to(address, *resolve(address, false));
  ASSERT_TRUE(peer) << peer.error().message;
  run_until(*executor, [&] { return chardev->is_open(); });

  EXPECT_EQ(chardev->filename(), "unix:@" + address.path + ",server=on");
}

TEST_F(SocketChardevTest, FilenameTellsWhetherItIsConnected) {
  serve();
  EXPECT_EQ(chardev->filename(), "disconnected:unix:" + path + ",server=on");

  const Fd peer = connect_and_accept();

  EXPECT_EQ(chardev->filename(), "unix:" + path + ",server=on");
}

TEST_F(SocketChardevTest, TcpServerOnAnyPort) {
  ASSERT_TRUE(create({.peers = {.address = {.host = "127.0.0.1", .port = "0"}, .server = true}}));
  const std::string name = chardev->filename();
  ASSERT_TRUE(name.starts_with("disconnected:tcp:127.0.0.1:")) << name;
  const std::string port = name.substr(27, name.find(',') - 27);
  const SocketAddress address{.host = "127.0.0.1", .port = port};

  auto peer = connect_to(address, *resolve(address, false));
  ASSERT_TRUE(peer) << peer.error().message;
  run_until(*executor, [&] { return chardev->is_open(); });
  put(*peer, "tcp");
  run_until(*executor, [&] { return client.text == "tcp"; });

  EXPECT_TRUE(chardev->filename().starts_with("tcp:127.0.0.1:" + port + ",server=on <-> 127.0.0.1:"));
}

TEST_F(SocketChardevTest, WaitingEndsWhenAPeerComes) {
  ASSERT_TRUE(create({.peers = {.address = {.path = path}, .server = true}, .wait = true}));
  ASSERT_TRUE(chardev->wants_to_wait());
  Fd peer;
  std::thread connector([&] { peer = connect_peer(); });

  chardev->wait_for_peer();
  connector.join();

  EXPECT_TRUE(chardev->is_open());
  EXPECT_EQ(client.events, std::vector{kOpened});
}

TEST_F(SocketChardevTest, WaitingEndsWhenTheProcessIsToEnd) {
  ASSERT_TRUE(create({.peers = {.address = {.path = path}, .server = true}, .wait = true}));
  sigset_t set, before;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &set, &before);
  ::raise(SIGTERM);

  chardev->wait_for_peer();

  EXPECT_FALSE(chardev->is_open());
  int taken = 0;
  ::sigwait(&set, &taken);  // still pending for whoever handles it
  EXPECT_EQ(taken, SIGTERM);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// --- clients ---

TEST_F(SocketChardevTest, ClientIsConnectedAtOnce) {
  const Fd listener = listen_at_path();

  ASSERT_TRUE(create({.peers = {.address = {.path = path}}}));

  EXPECT_TRUE(chardev->is_open());
  EXPECT_EQ(client.events, std::vector{kOpened});
  const Fd peer(::accept(listener.get(), nullptr, nullptr));
  chardev->write(bytes_of("hello"));
  EXPECT_EQ(read_from(*executor, peer.get(), 5), "hello");
}

TEST_F(SocketChardevTest, ClientWithoutAServerIsRefusedByName) {
  const auto result = create({.peers = {.address = {.path = path}}});

  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "cannot connect to 'unix:" + path + "': No such file or directory");
}

TEST_F(SocketChardevTest, ClientStaysClosedWhenTheServerLeaves) {
  Fd listener = listen_at_path();
  ASSERT_TRUE(create({.peers = {.address = {.path = path}}}));
  Fd peer(::accept(listener.get(), nullptr, nullptr));

  peer.reset();
  run_until(*executor, [&] { return client.count(kClosed) == 1; });
  clock.advance(3'600'000'000'000);
  settle(*executor);

  EXPECT_FALSE(chardev->is_open());
}

TEST_F(SocketChardevTest, ClientConnectsAgainAfterTheGivenTime) {
  constexpr int64_t kSecond = 1'000'000'000;
  ASSERT_TRUE(create({.peers = {.address = {.path = path}, .reconnect_ns = 2 * kSecond}}));
  EXPECT_FALSE(chardev->is_open());
  const Fd listener = listen_at_path();
  clock.advance(2 * kSecond - 1);
  EXPECT_FALSE(chardev->is_open());
  clock.advance(1);
  EXPECT_TRUE(chardev->is_open());

  Fd peer(::accept(listener.get(), nullptr, nullptr));
  peer.reset();
  run_until(*executor, [&] { return client.count(kClosed) == 1; });
  clock.advance(2 * kSecond);

  EXPECT_TRUE(chardev->is_open());
  EXPECT_EQ(client.events, (std::vector{kOpened, kClosed, kOpened}));
}

TEST_F(SocketChardevTest, TcpClientConnectsAgainWithoutBlocking) {
  constexpr int64_t kSecond = 1'000'000'000;
  const SocketAddress any{.host = "127.0.0.1", .port = "0"};
  Fd listener = std::move(*listen_on(any, *resolve(any, true)));
  const std::string where = local_text(listener.get());
  const std::string port = where.substr(where.find(':') + 1);
  listener.reset();
  ASSERT_TRUE(create({.peers = {.address = {.host = "127.0.0.1", .port = port}, .reconnect_ns = kSecond}}));
  settle(*executor);
  EXPECT_FALSE(chardev->is_open());

  const SocketAddress same{.host = "127.0.0.1", .port = port};
  listener = std::move(*listen_on(same, *resolve(same, true)));
  clock.advance(kSecond);
  run_until(*executor, [&] { return chardev->is_open(); });

  EXPECT_EQ(client.events, std::vector{kOpened});
}

TEST_F(SocketChardevTest, DescriptorsArriveWithTheirBytes) {
  serve();
  std::vector<Fd> got;
  client.on_received = [&] { got = chardev->take_fds(); };
  const Fd peer = connect_and_accept();
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  iovec data{.iov_base = const_cast<char*>("f"), .iov_len = 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int));
  const int sent = null.get();
  std::memcpy(CMSG_DATA(part), &sent, sizeof sent);

  ASSERT_EQ(::sendmsg(peer.get(), &message, 0), 1);
  run_until(*executor, [&] { return client.text == "f"; });

  ASSERT_EQ(got.size(), 1u);
  EXPECT_NE(::fcntl(got[0].get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_TRUE(chardev->take_fds().empty());
}

TEST_F(SocketChardevTest, TakesAConnectedDescriptor) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const Fd peer(ends[1]);

  ASSERT_TRUE(create({.peers = {.address = {}, .fd = ends[0]}}));
  chardev->write(bytes_of("fd"));

  EXPECT_EQ(read_from(*executor, peer.get(), 2), "fd");
}

TEST_F(SocketChardevTest, TakesAListeningDescriptorForAServer) {
  Fd listener = listen_at_path();
  ASSERT_TRUE(create({.peers = {.address = {}, .fd = listener.release(), .server = true}}));

  const Fd peer = connect_and_accept();
  put(peer, "x");
  run_until(*executor, [&] { return client.text == "x"; });
}

TEST_F(SocketChardevTest, RefusesDescriptorsOfAnotherKind) {
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));

  EXPECT_FALSE(create({.peers = {.address = {}, .fd = null.get()}}));
  EXPECT_FALSE(create({.peers = {.address = {}, .fd = 9999}}));

  EXPECT_GE(::fcntl(null.get(), F_GETFD), 0);  // not closed by the refusal
}

// --- TLS ---

class TlsChardevTest : public SocketChardevTest {
 protected:
  static std::shared_ptr<const tls::Credentials> credentials(tls::Endpoint endpoint) {
    return std::move(*tls::Credentials::load({.proof = tls::Proof::kAnonymous, .endpoint = endpoint}));
  }
  void serve_with_tls() {
    ASSERT_TRUE(create(
        {.peers = {.address = {.path = path}, .server = true}, .credentials = credentials(tls::Endpoint::kServer)}));
  }
  // The plain end of a tunnel to the chardev.
  Fd shake_hands(Fd socket, tls::Endpoint endpoint) {
    Fd plain;
    auto made = tls::Tunnel::create({.executor = *executor,
                                     .clock = clock,
                                     .ready =
                                         [&](const std::string&) {
                                           auto ends = std::move(*tls::Tunnel::make_ends());
                                           plain = std::move(ends[0]);
                                           tunnel->carry(std::move(ends[1]));
                                         },
                                     .ended = [this](const tls::Tunnel&, const std::string&) { tunnel.reset(); }},
                                    std::move(socket), credentials(endpoint), "");
    EXPECT_TRUE(made);
    tunnel = std::move(*made);
    run_until(*executor, [&] { return plain.valid() && chardev->is_open(); });
    return plain;
  }
  std::unique_ptr<tls::Tunnel> tunnel;
};

TEST_F(TlsChardevTest, MovesBytesBothWays) {
  serve_with_tls();
  const Fd peer = shake_hands(connect_peer(), tls::Endpoint::kClient);
  const std::string much(3 << 20, 'm');

  put(peer, "ping");
  run_until(*executor, [&] { return client.text == "ping"; });
  const size_t taken = chardev->write(bytes_of(much));

  EXPECT_EQ(read_from(*executor, peer.get(), taken).size(), taken);
  EXPECT_EQ(client.events, std::vector{kOpened});
}

TEST_F(TlsChardevTest, AClientShakesHandsAfterItHasConnected) {
  const Fd listener = listen_at_path();
  ASSERT_TRUE(create({.peers = {.address = {.path = path}}, .credentials = credentials(tls::Endpoint::kClient)}));
  EXPECT_FALSE(chardev->is_open());
  const Fd peer = shake_hands(Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)),
                              tls::Endpoint::kServer);
  chardev->write(bytes_of("hello"));
  EXPECT_EQ(read_from(*executor, peer.get(), 5), "hello");
}

TEST_F(TlsChardevTest, WhoSpeaksPlainlyIsNoPeerAndTheNextOneIs) {
  serve_with_tls();
  const Fd plain = connect_peer();
  put(plain, "plain text instead of a handshake");
  const Fd next = shake_hands(connect_peer(), tls::Endpoint::kClient);
  put(next, "next");
  run_until(*executor, [&] { return client.text == "next"; });
  EXPECT_EQ(client.events, std::vector{kOpened});
}

TEST_F(TlsChardevTest, WhoSaysNothingMakesRoomInTime) {
  serve_with_tls();
  const Fd silent = connect_peer();
  settle(*executor);
  clock.advance(tls::Tunnel::kHandshakeNs);
  shake_hands(connect_peer(), tls::Endpoint::kClient);
  EXPECT_TRUE(chardev->is_open());
}

TEST_F(TlsChardevTest, WhatWasWrittenArrivesThoughTheLoopHasEnded) {
  serve_with_tls();
  const Fd peer = shake_hands(connect_peer(), tls::Endpoint::kClient);
  const std::string last(100'000, 'l');
  EXPECT_EQ(chardev->write(bytes_of(last)), last.size());

  chardev->flush();
  chardev->set_client(nullptr);
  chardev.reset();

  EXPECT_EQ(read_from(*executor, peer.get(), last.size()), last);
}

TEST_F(TlsChardevTest, AServerIsLeftAndTakesTheNext) {
  serve_with_tls();
  Fd peer = shake_hands(connect_peer(), tls::Endpoint::kClient);
  peer.reset();
  run_until(*executor, [&] { return client.count(kClosed) == 1 && tunnel == nullptr; });
  shake_hands(connect_peer(), tls::Endpoint::kClient);
  EXPECT_EQ(client.events, (std::vector{kOpened, kClosed, kOpened}));
}

}  // namespace
}  // namespace kite
