#include "net/socket_options.h"

#include <sys/socket.h>

#include "net/test_guest.h"

namespace kite::net {
namespace {

std::string of_socket(const Settings& settings) {
  const auto parsed = parse_socket_options(settings);
  return parsed ? std::string("taken") : parsed.error().message;
}
std::string of_stream(const Settings& settings) {
  const auto parsed = parse_stream_options(settings);
  return parsed ? std::string("taken") : parsed.error().message;
}
std::string of_dgram(const Settings& settings) {
  const auto parsed = parse_dgram_options(settings);
  return parsed ? std::string("taken") : parsed.error().message;
}

const Settings kInet{{"addr.type", "inet"}, {"addr.host", "h"}, {"addr.port", "1"}};
Settings with(Settings settings, const Settings& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

TEST(SocketOptionsTest, TheFormsOfSocket) {
  const auto listen = parse_socket_options({{"listen", ":1234"}});
  ASSERT_TRUE(listen) << listen.error().message;
  const SocketPeers::Config& server = std::get<StreamConfig>(*listen).peers;
  EXPECT_TRUE(server.server);
  EXPECT_EQ(server.address.port, "1234");
  const auto connect = parse_socket_options({{"connect", "[::1]:1234"}});
  ASSERT_TRUE(connect) << connect.error().message;
  EXPECT_EQ(std::get<StreamConfig>(*connect).peers.address.host, "::1");
  EXPECT_FALSE(std::get<StreamConfig>(*connect).peers.server);
  const auto group = parse_socket_options({{"mcast", "230.0.0.1:1234"}, {"localaddr", "10.0.0.1"}});
  ASSERT_TRUE(group) << group.error().message;
  EXPECT_TRUE(std::get<DatagramConfig>(*group).multicast);
  EXPECT_EQ(std::get<DatagramConfig>(*group).local->host, "10.0.0.1");
  const auto udp = parse_socket_options({{"udp", "10.0.0.2:1"}, {"localaddr", ":2"}});
  ASSERT_TRUE(udp) << udp.error().message;
  EXPECT_EQ(std::get<DatagramConfig>(*udp).local->port, "2");
  EXPECT_TRUE(std::get<DatagramConfig>(*udp).remote->datagram);
}

TEST(SocketOptionsTest, ADescriptorIsWhatItIs) {
  int ends[2];
  for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
    ASSERT_EQ(::socketpair(AF_UNIX, type, 0, ends), 0);
    const Fd one(ends[0]), two(ends[1]);
    const auto parsed = parse_socket_options({{"fd", std::to_string(one.get())}});
    EXPECT_EQ(parsed && std::holds_alternative<StreamConfig>(*parsed), type == SOCK_STREAM);
    EXPECT_EQ(parsed && std::holds_alternative<DatagramConfig>(*parsed), type == SOCK_DGRAM);
  }
}

TEST(SocketOptionsTest, SocketRefusesByName) {
  EXPECT_NE(of_socket({}).find("one of fd=, listen="), std::string::npos);
  EXPECT_NE(of_socket({{"listen", ":1"}, {"connect", "h:1"}}).find("listen= and connect="), std::string::npos);
  EXPECT_NE(of_socket({{"connect", ":1"}}).find("no host"), std::string::npos);
  EXPECT_NE(of_socket({{"connect", "host"}}).find("HOST:PORT"), std::string::npos);
  EXPECT_NE(of_socket({{"udp", "h:1"}}).find("localaddr"), std::string::npos);
  EXPECT_NE(of_socket({{"listen", ":1"}, {"localaddr", "h"}}).find("no setting 'localaddr'"), std::string::npos);
  EXPECT_NE(of_socket({{"lissten", ":1"}, {"connect", "h:1"}}).find("listen"), std::string::npos);
  EXPECT_NE(of_socket({{"fd", "9999"}}).find("no such descriptor"), std::string::npos);
  EXPECT_NE(of_socket({{"fd", "x"}}).find("number of a descriptor"), std::string::npos);
}

TEST(SocketOptionsTest, TheFormsOfStream) {
  const auto inet = parse_stream_options(with(kInet, {{"reconnect", "2"}, {"addr.ipv6", "off"}}));
  ASSERT_TRUE(inet) << inet.error().message;
  EXPECT_EQ(inet->peers.reconnect_ns, 2'000'000'000);
  EXPECT_EQ(inet->peers.address.ipv6, false);
  const auto path = parse_stream_options({{"server", "on"}, {"addr.type", "unix"}, {"addr.path", "/x"}});
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_TRUE(path->peers.server);
  EXPECT_EQ(path->peers.address.path, "/x");
  EXPECT_EQ(parse_stream_options(with(kInet, {{"reconnect-ms", "5"}}))->peers.reconnect_ns, 5'000'000);
}

TEST(SocketOptionsTest, StreamRefusesByName) {
  EXPECT_EQ(of_stream(kInet), "taken");
  EXPECT_NE(of_stream({}).find("addr.type"), std::string::npos);
  EXPECT_NE(of_stream({{"addr.type", "vsock"}}).find("vsock"), std::string::npos);
  EXPECT_NE(of_stream({{"addr.type", "inet"}, {"addr.port", "1"}}).find("addr.host"), std::string::npos);
  EXPECT_NE(of_stream({{"addr.type", "inet"}, {"addr.host", "h"}}).find("addr.port"), std::string::npos);
  EXPECT_NE(of_stream({{"addr.type", "unix"}}).find("addr.path"), std::string::npos);
  EXPECT_NE(of_stream(with(kInet, {{"server", "on"}, {"reconnect", "1"}})).find("reconnect"), std::string::npos);
  EXPECT_NE(of_stream(with(kInet, {{"reconnect", "1"}, {"reconnect-ms", "1"}})).find("one of"), std::string::npos);
  EXPECT_NE(of_stream(with(kInet, {{"reconect", "1"}})).find("reconnect"), std::string::npos);
  EXPECT_NE(of_stream(with(kInet, {{"addr.to", "9"}})).find("addr.to"), std::string::npos);
  EXPECT_NE(of_stream(with(kInet, {{"addr.ipv4", "off"}, {"addr.ipv6", "off"}})).find("no kind"), std::string::npos);
  EXPECT_NE(of_stream({{"addr.type", "unix"}, {"addr.path", "/x"}, {"addr.tight", "off"}}).find("tight"),
            std::string::npos);
}

TEST(SocketOptionsTest, DgramRefusesByName) {
  const Settings local{{"local.type", "inet"}, {"local.host", "h"}, {"local.port", "1"}};
  const Settings remote{{"remote.type", "inet"}, {"remote.host", "h"}, {"remote.port", "1"}};
  const Settings group{{"remote.type", "inet"}, {"remote.host", "230.0.0.1"}, {"remote.port", "1"}};
  const Settings path{{"remote.type", "unix"}, {"remote.path", "/x"}};
  EXPECT_EQ(of_dgram(with(local, remote)), "taken");
  EXPECT_EQ(of_dgram(group), "taken");
  EXPECT_NE(of_dgram({}).find("local.type"), std::string::npos);
  EXPECT_NE(of_dgram(remote).find("local.type"), std::string::npos);
  EXPECT_NE(of_dgram(local).find("remote"), std::string::npos);
  EXPECT_NE(of_dgram(with(local, path)).find("different types"), std::string::npos);
  EXPECT_NE(of_dgram(with(local, group)).find("local.port"), std::string::npos);
  EXPECT_NE(of_dgram(with(local, with(remote, {{"remote.prt", "1"}}))).find("remote.port"), std::string::npos);
}

}  // namespace
}  // namespace kite::net
