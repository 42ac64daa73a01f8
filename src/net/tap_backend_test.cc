#include "net/tap_backend.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "net/net_registry.h"
#include "net/test_guest.h"

namespace kite::net {
namespace {

using namespace testing;  // NOLINT: the card

// The tap's other end is a socket that keeps the bounds of frames.
struct TapBackendTest : ::testing::Test {
  void start(size_t header_bytes) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
    host.reset(ends[1]);
    backend = std::make_unique<TapBackend>("n0", *executor, Fd(ends[0]), "tap0", header_bytes);
    backend->set_client(&card);
  }
  ~TapBackendTest() override {
    if (backend != nullptr) backend->set_client(nullptr);
  }
  void settle() {
    for (int pass = 0; pass < 8; ++pass) executor->run_once(0);
  }
  Bytes read_host() {
    Bytes bytes(4096);
    const ssize_t got = ::recv(host.get(), bytes.data(), bytes.size(), 0);
    bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return bytes;
  }
  void write_host(const Bytes& bytes) const { ASSERT_GT(::send(host.get(), bytes.data(), bytes.size(), 0), 0); }

  std::unique_ptr<Executor> executor = make_executor();
  Fd host;
  TestCard card;
  std::unique_ptr<TapBackend> backend;
};

TEST_F(TapBackendTest, FramesGoBothWays) {
  start(0);
  EXPECT_EQ(backend->send(Bytes(60, 7)), Delivery::kTaken);
  EXPECT_EQ(read_host(), Bytes(60, 7));
  write_host(Bytes(70, 8));
  write_host(Bytes(80, 9));
  settle();
  ASSERT_EQ(card.frames.size(), 2U);
  EXPECT_EQ(card.frames[0], Bytes(70, 8));
  EXPECT_EQ(card.frames[1], Bytes(80, 9));
}

TEST_F(TapBackendTest, HeadersOfTheTapStayOutside) {
  start(10);
  EXPECT_EQ(backend->send(Bytes(60, 7)), Delivery::kTaken);
  Bytes wanted(10, 0);
  append(wanted, Bytes(60, 7));
  EXPECT_EQ(read_host(), wanted);
  write_host(wanted);
  write_host(Bytes(12, 1));  // less than two headers
  settle();
  ASSERT_EQ(card.frames.size(), 1U);
  EXPECT_EQ(card.frames[0], Bytes(60, 7));
}

TEST_F(TapBackendTest, NothingIsReadWhileTheCardHasNoRoom) {
  start(0);
  card.room = 0;
  for (uint8_t i = 0; i < 5; ++i) write_host(Bytes(60, i));
  settle();
  card.room = 10;
  backend->accept_input();
  settle();
  ASSERT_EQ(card.frames.size(), 5U);
  for (uint8_t i = 0; i < 5; ++i) EXPECT_EQ(card.frames[i][0], i);
}

TEST_F(TapBackendTest, AFullTapTellsWhenItHasRoom) {
  start(0);
  struct WaitingCard final : TestCard {
    void writable() override { ++writables; }
    int writables = 0;
  } waiting;
  backend->set_client(&waiting);
  int sent = 0;
  while (backend->send(Bytes(1500, 1)) == Delivery::kTaken) ++sent;
  settle();
  EXPECT_EQ(waiting.writables, 0);
  for (int i = 0; i < sent; ++i) EXPECT_EQ(read_host().size(), 1500U);
  settle();
  EXPECT_EQ(waiting.writables, 1);
  EXPECT_EQ(backend->send(Bytes(1500, 1)), Delivery::kTaken);
  backend->set_client(nullptr);
}

TEST_F(TapBackendTest, AnInterfaceThatGoesIsNotLookedAtAgain) {
  start(0);
  host.reset();
  settle();
  EXPECT_EQ(backend->send(Bytes(60, 7)), Delivery::kDropped);
}

TEST(TapOptionsTest, RefusesByName) {
  const auto refusal = [](const Settings& settings) {
    const auto parsed = parse_tap_options(settings);
    return parsed ? std::string("taken") : parsed.error().message;
  };
  EXPECT_EQ(refusal({{"ifname", "tap0"}, {"script", "no"}, {"downscript", "no"}, {"vhost", "off"}}), "taken");
  EXPECT_NE(refusal({{"script", "/etc/ifup"}}).find("script=no"), std::string::npos);
  EXPECT_EQ(refusal({{"fd", "3"}, {"vhost", "on"}, {"vhostfd", "4"}}), "taken");
  EXPECT_NE(refusal({{"vhost", "maybe"}}).find("maybe"), std::string::npos);
  EXPECT_NE(refusal({{"vhostforce", "on"}}).find("yet"), std::string::npos);
  EXPECT_NE(refusal({{"queues", "2"}}).find("yet"), std::string::npos);
  EXPECT_NE(refusal({{"ifnam", "tap0"}}).find("ifname"), std::string::npos);
  EXPECT_NE(refusal({{"fd", "x"}}).find("descriptor"), std::string::npos);
  EXPECT_NE(refusal({{"fd", "3"}, {"ifname", "tap0"}}).find("one of"), std::string::npos);
  EXPECT_NE(refusal({{"ifname", "a-name-that-is-too-long"}}).find("15"), std::string::npos);
}

TEST(TapOptionsTest, ADescriptorThatIsNoTapIsLeftAlone) {
  const auto executor = make_executor();
  NetRegistry nets(*executor);
  Fd file(::open("/dev/null", O_RDWR));
  const auto added = nets.add({{"type", "tap"}, {"id", "n0"}, {"fd", std::to_string(file.get())}});
  ASSERT_FALSE(added);
  EXPECT_NE(added.error().message.find("no tap"), std::string::npos);
  EXPECT_GE(::fcntl(file.get(), F_GETFD), 0);
}

// The kernel's own, where this process may have one: what is written there is seen by the host.
TEST(TapInterfaceTest, BothFormsAttachToAnInterface) {
  const auto executor = make_executor();
  NetRegistry nets(*executor);
  const auto added = nets.add({{"type", "tap"}, {"id", "n0"}, {"ifname", "kitetest0"}});
  if (!added) GTEST_SKIP() << added.error().message;
  EXPECT_EQ((*added)->info(), "ifname=kitetest0,script=no,downscript=no");
  EXPECT_EQ((*added)->send(Bytes(60, 7)), Delivery::kDropped);  // it is down
  const int fd = ::open("/dev/net/tun", O_RDWR);
  ifreq request{};
  std::strcpy(request.ifr_name, "kitetest1");
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  ASSERT_EQ(::ioctl(fd, TUNSETIFF, &request), 0);
  const auto handed = nets.add({{"type", "tap"}, {"id", "n1"}, {"fd", std::to_string(fd)}});
  ASSERT_TRUE(handed) << handed.error().message;
  EXPECT_EQ((*handed)->info(), "ifname=kitetest1,script=no,downscript=no");
}

}  // namespace
}  // namespace kite::net
