#include "net/tap_backend.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

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
    backend = std::make_unique<TapBackend>(
        "n0", *executor, TapDevice{.fd = Fd(ends[0]), .interface = "tap0", .header_bytes = header_bytes}, TapConfig{});
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
  const Fd file(::open("/dev/null", O_RDWR));
  const std::string fd = std::to_string(file.get());
  EXPECT_EQ(refusal({{"ifname", "tap0"}, {"script", "no"}, {"downscript", "no"}, {"vhost", "off"}}), "taken");
  EXPECT_EQ(refusal({{"script", "/etc/ifup"}, {"vnet_hdr", "on"}, {"sndbuf", "1M"}, {"queues", "1"}}), "taken");
  EXPECT_EQ(refusal({{"fd", fd}, {"script", "no"}, {"vhost", "on"}, {"vhostfd", fd}, {"vhostforce", "off"}}), "taken");
  EXPECT_EQ(refusal({{"fds", fd}, {"vhostfds", fd}}), "taken");
  EXPECT_EQ(refusal({{"br", "br1"}, {"helper", "/bin/helper"}}), "taken");
  EXPECT_NE(refusal({{"vhost", "maybe"}}).find("maybe"), std::string::npos);
  EXPECT_NE(refusal({{"vhostforce", "on"}}).find("no vhost-net"), std::string::npos);
  EXPECT_NE(refusal({{"poll-us", "5"}}).find("vhost-net"), std::string::npos);
  EXPECT_NE(refusal({{"queues", "2"}}).find("one pair"), std::string::npos);
  EXPECT_NE(refusal({{"fds", fd + ":" + fd}}).find("one pair"), std::string::npos);
  EXPECT_NE(refusal({{"fd", fd}, {"fds", fd}}).find("one of"), std::string::npos);
  EXPECT_NE(refusal({{"ifnam", "tap0"}}).find("ifname"), std::string::npos);
  EXPECT_NE(refusal({{"fd", "x"}}).find("descriptor"), std::string::npos);
  EXPECT_NE(refusal({{"fd", fd}, {"ifname", "tap0"}}).find("exclude"), std::string::npos);
  EXPECT_NE(refusal({{"fd", fd}, {"script", "/etc/ifup"}}).find("script="), std::string::npos);
  EXPECT_NE(refusal({{"helper", "/bin/helper"}, {"ifname", "tap0"}}).find("exclude"), std::string::npos);
  EXPECT_NE(refusal({{"ifname", "a-name-that-is-too-long"}}).find("15"), std::string::npos);
  EXPECT_NE(refusal({{"br", "a/b"}}).find("br=a/b"), std::string::npos);
  EXPECT_NE(refusal({{"sndbuf", "3G"}}).find("sndbuf"), std::string::npos);
}

TEST(TapOptionsTest, ABridgeIsBr0UnlessItIsSaid) {
  EXPECT_EQ(parse_bridge_options({})->bridge, "br0");
  EXPECT_TRUE(parse_bridge_options({{"br", "lan"}})->usual_helper);
  const auto helped = parse_bridge_options({{"br", "lan"}, {"helper", "/bin/helper"}});
  EXPECT_EQ(helped->bridge, "lan");
  EXPECT_EQ(helped->helper, "/bin/helper");
  EXPECT_FALSE(helped->usual_helper);
  EXPECT_NE(parse_bridge_options({{"ifname", "tap0"}}).error().message.find("no setting 'ifname'"), std::string::npos);
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

// The kernel's own, where this process may have one, in a network namespace of the test's own.
class TapInterfaceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    home_.reset(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    if (::unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "no network namespace can be had: " << errno_text(errno);
    away_ = true;
    if (const int fd = ::open("/dev/net/tun", O_RDWR); fd < 0)
      GTEST_SKIP() << "/dev/net/tun: " << errno_text(errno);
    else
      ::close(fd);
  }
  ~TapInterfaceTest() override {
    if (away_) ::setns(home_.get(), CLONE_NEWNET);
  }

  static void change_bridge(unsigned long request, std::string name) {
    const Fd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::ioctl(control.get(), request, name.data()), 0) << errno_text(errno);
  }
  static short flags(const std::string& interface) {
    const Fd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    interface.copy(request.ifr_name, IFNAMSIZ - 1);
    return ::ioctl(control.get(), SIOCGIFFLAGS, &request) == 0 ? request.ifr_flags : short{0};
  }
  std::string refusal(const Settings& settings) {
    const auto added = nets.add(settings);
    return added ? std::string("taken") : added.error().message;
  }

  Fd home_;
  bool away_ = false;
  std::unique_ptr<Executor> executor = make_executor();
  NetRegistry nets{*executor};
};

TEST_F(TapInterfaceTest, BothFormsAttachToAnInterface) {
  const auto added = nets.add({{"type", "tap"}, {"id", "n0"}, {"ifname", "kitetest0"}, {"vnet_hdr", "on"}});
  ASSERT_TRUE(added) << added.error().message;
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

TEST_F(TapInterfaceTest, ScriptsHearOfTheInterface) {
  std::string name = ::testing::TempDir() + "kite_scripts_XXXXXX";
  const std::string folder = ::mkdtemp(name.data()), said = folder + "/said";
  const auto write = [&](const char* word) {
    const std::string path = folder + "/" + word;
    std::ofstream(path) << "#!/bin/sh\necho " << word << " $1 >>" << said << "\n";
    ::chmod(path.c_str(), 0700);
    return path;
  };
  ASSERT_EQ(
      refusal(
          {{"type", "tap"}, {"id", "n0"}, {"ifname", "t0"}, {"script", write("up")}, {"downscript", write("down")}}),
      "taken");
  EXPECT_TRUE(nets.remove("n0"));
  std::stringstream lines;
  lines << std::ifstream(said).rdbuf();
  EXPECT_EQ(lines.str(), "up t0\ndown t0\n");
  EXPECT_NE(refusal({{"type", "tap"}, {"id", "n0"}, {"script", "/bin/false"}}).find("script=/bin/false"),
            std::string::npos);
  std::filesystem::remove_all(folder);
}

TEST_F(TapInterfaceTest, ABridgeGetsAPortThatGoesWithTheBackEnd) {
  change_bridge(SIOCBRADDBR, "lan0");
  const auto added = nets.add({{"type", "bridge"}, {"id", "n0"}, {"br", "lan0"}});
  ASSERT_TRUE(added) << added.error().message;
  const std::string info = (*added)->info();
  ASSERT_TRUE(info.starts_with("ifname=tap") && info.ends_with(",br=lan0")) << info;
  const std::string interface = info.substr(7, info.find(',') - 7);
  EXPECT_NE(flags(interface) & IFF_UP, 0);
  EXPECT_EQ((*added)->send(Bytes(60, 7)), Delivery::kTaken);
  EXPECT_TRUE(nets.remove("n0"));
  EXPECT_EQ(::if_nametoindex(interface.c_str()), 0U);
  EXPECT_EQ(refusal({{"type", "tap"}, {"id", "n1"}, {"ifname", "t1"}, {"br", "lan0"}}), "taken");
  EXPECT_NE(flags("t1") & IFF_UP, 0);
}

TEST_F(TapInterfaceTest, WhatIsNoBridgeIsRefused) {
  EXPECT_NE(refusal({{"type", "bridge"}, {"id", "n0"}}).find("br=br0: there is no such interface"), std::string::npos);
  EXPECT_NE(refusal({{"type", "bridge"}, {"id", "n0"}, {"br", "lo"}}).find("is no bridge"), std::string::npos);
}

}  // namespace
}  // namespace kite::net
