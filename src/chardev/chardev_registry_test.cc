#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "chardev/backend_options.h"
#include "chardev/socket_address.h"
#include "chardev/test_client.h"
#include "object/object_type.h"

namespace kite {
namespace {

using namespace testing_support;

class ChardevRegistryTest : public testing::Test {
 protected:
  ChardevRegistryTest() {
    std::string name = testing::TempDir() + "kite_registry_XXXXXX";
    directory = ::mkdtemp(name.data());
  }
  ~ChardevRegistryTest() override { std::filesystem::remove_all(directory); }

  std::string refusal(std::string_view text) {
    const auto chardev = registry.add(text);
    EXPECT_FALSE(chardev) << text;
    return chardev ? "" : chardev.error().message;
  }
  std::string legacy_refusal(std::string_view text) {
    const auto chardev = registry.add_legacy("serial0", text);
    EXPECT_FALSE(chardev) << text;
    return chardev ? "" : chardev.error().message;
  }

  std::string directory;
  std::unique_ptr<Executor> executor = make_executor();
  int quits = 0;
  ChardevRegistry registry{*executor, MuxHooks{.quit = [this] { ++quits; }, .save_disks = {}}};
};

TEST_F(ChardevRegistryTest, FindsWhatWasAdded) {
  ASSERT_TRUE(registry.add("null,id=n0"));
  ASSERT_TRUE(registry.add("file,id=f0,path=" + directory + "/out"));

  EXPECT_EQ(registry.find("n0")->filename(), "null");
  EXPECT_EQ(registry.find("x"), nullptr);
  ASSERT_EQ(registry.all().size(), 2u);
  EXPECT_EQ(registry.all()[1]->id(), "f0");
}

TEST_F(ChardevRegistryTest, RefusesUnknownBackEndsByName) {
  EXPECT_EQ(refusal("soket,id=c"), "-chardev soket,id=c: there is no chardev back end 'soket'; did you mean 'socket'?");
  EXPECT_EQ(refusal("ringbuf,id=c"),
            "-chardev ringbuf,id=c: there is no chardev back end 'ringbuf'; known: file, null, pty, socket, spiceport, "
            "spicevmc, stdio");
}

TEST_F(ChardevRegistryTest, RefusesUnknownOptionsByName) {
  EXPECT_EQ(refusal("socket,id=c,pth=/x"),
            "-chardev socket,id=c,pth=/x: the chardev back end 'socket' has no option 'pth'; did you mean 'path'?");
  EXPECT_EQ(refusal("null,id=c,path=/x"),
            "-chardev null,id=c,path=/x: the chardev back end 'null' has no option 'path'; known: id, mux, logfile, "
            "logappend");
}

TEST_F(ChardevRegistryTest, RefusesTelnetWithTheReason) {
  EXPECT_EQ(refusal("socket,id=c,host=h,port=1,telnet=on"),
            "-chardev socket,id=c,host=h,port=1,telnet=on: chardev option telnet=on: Kite does not speak telnet; "
            "connect with a program for plain TCP, as nc or socat");
}

TEST_F(ChardevRegistryTest, AcceptsMissingThingsThatAreSwitchedOff) {
  EXPECT_TRUE(registry.add("socket,id=c,telnet=off,server=on,wait=off,path=" + directory + "/s"));
}

TEST_F(ChardevRegistryTest, RefusesBadIdsAndRepeatedOnes) {
  ASSERT_TRUE(registry.add("null,id=c"));

  EXPECT_EQ(refusal("null,id=c"), "-chardev null,id=c: there is a chardev 'c' already");
  EXPECT_EQ(refusal("null"), "-chardev null: it wants id=ID, by which others name it");
  EXPECT_NE(refusal("null,id=0c"), "");
}

TEST_F(ChardevRegistryTest, RefusesSocketsThatContradictThemselves) {
  for (const std::string_view text :
       {"socket,id=c", "socket,id=c,path=/x,port=1", "socket,id=c,host=h", "socket,id=c,path=/x,wait=on",
        "socket,id=c,path=/x,server=on,reconnect=1", "socket,id=c,path=/x,reconnect=99999999",
        "socket,id=c,path=/x,server=maybe", "socket,id=c,port=1,ipv4=off,ipv6=off", "socket,id=c,fd=-1",
        "socket,id=c,path=/x,server=on,tight=off", "null,id=c,logappend=on"}) {
    EXPECT_NE(refusal(text), "") << text;
  }
}

TEST_F(ChardevRegistryTest, OldWordsForServersAreUnderstood) {
  const std::string path = directory + "/s";
  for (const std::string_view words : {"server,nowait", "server=on,wait=off", "server,wait=off", "server=on,nowait"}) {
    auto chardev = registry.add_legacy(fmt::format("c{}", registry.all().size()),
                                       fmt::format("unix:{}{},{}", path, registry.all().size(), words));

    ASSERT_TRUE(chardev) << chardev.error().message;
    EXPECT_TRUE((*chardev)->filename().ends_with(",server=on"));
  }
  EXPECT_TRUE(registry.wait_for_peers());  // nothing to wait for
}

TEST_F(ChardevRegistryTest, LegacyUnixClientConnectsAtOnce) {
  const std::string path = directory + "/s,=x";
  const SocketAddress address{.path = path};
  const Fd listener = std::move(*listen_on(address, *resolve(address, true)));

  auto chardev = registry.add_legacy("qtest", "unix:" + directory + "/s,,=x");

  ASSERT_TRUE(chardev) << chardev.error().message;
  EXPECT_TRUE((*chardev)->is_open());
  EXPECT_EQ((*chardev)->filename(), "unix:" + path);
}

TEST_F(ChardevRegistryTest, LegacyFormsOfEveryKind) {
  EXPECT_EQ(*registry.add_legacy("s0", "none"), nullptr);
  EXPECT_EQ((*registry.add_legacy("s1", "null"))->filename(), "null");
  EXPECT_EQ((*registry.add_legacy("s2", "file:" + directory + "/a,b=c"))->filename(), "file:" + directory + "/a,b=c");
  EXPECT_TRUE((*registry.add_legacy("s3", "pty"))->filename().starts_with("pty:/dev/pts/"));
  EXPECT_TRUE((*registry.add_legacy("s4", "tcp:127.0.0.1:0,server,nowait"))
                  ->filename()
                  .starts_with("disconnected:tcp:127.0.0.1:"));
}

TEST_F(ChardevRegistryTest, LegacyReferenceClaims) {
  Chardev* null = *registry.add("null,id=n");

  EXPECT_EQ(*registry.add_legacy("serial0", "chardev:n"), null);
  EXPECT_EQ(legacy_refusal("chardev:n"), "the chardev 'n' is in use already; add mux=on to share it");
  EXPECT_EQ(legacy_refusal("chardev:m"), "there is no chardev 'm'; known: n");
}

TEST_F(ChardevRegistryTest, LegacyRefusalsNameTheReason) {
  EXPECT_EQ(legacy_refusal("stdoi"), "'stdoi' is no character device; did you mean 'stdio'?");
  EXPECT_EQ(legacy_refusal("telnet:h:1"),
            "'telnet:h:1': Kite does not speak telnet; use tcp:HOST:PORT and connect with nc or socat");
  EXPECT_EQ(legacy_refusal("tcp:4444"), "tcp: '4444': HOST:PORT is wanted, as in 127.0.0.1:4444");
  for (const std::string_view text : {"", "unix:", "file:", "tcp:", "tcp:[::1", "tcp:h:", "mon:none", "mon:mon:stdio",
                                      "vc", "/dev/ttyS0", "udp:1", "pipe:x", "null,id=c", "null,x=1"}) {
    EXPECT_NE(legacy_refusal(text), "") << text;
  }
}

TEST_F(ChardevRegistryTest, MuxGivesEveryClaimAPort) {
  ASSERT_TRUE(registry.add("null,id=m,mux=on"));

  const auto first = registry.claim("m");
  const auto second = registry.claim("m");

  ASSERT_TRUE(first && second);
  EXPECT_NE(*first, *second);
  EXPECT_EQ((*first)->id(), "m");
}

TEST_F(ChardevRegistryTest, WithoutAMuxOnlyOneMayClaim) {
  ASSERT_TRUE(registry.add("null,id=n"));
  ASSERT_TRUE(registry.add_legacy("serial0", "null"));

  EXPECT_TRUE(registry.claim("n"));
  EXPECT_FALSE(registry.claim("n"));
  EXPECT_FALSE(registry.claim("serial0"));
}

TEST_F(ChardevRegistryTest, MuxOnASocketEndsTheMachineByItsKeys) {
  const std::string path = directory + "/s";
  ASSERT_TRUE(registry.add_legacy("serial0", "mon:unix:" + path + ",server,nowait"));
  Chardev* serial_port = *registry.claim("serial0");
  RecordingClient serial;
  serial_port->set_client(&serial);
  const SocketAddress address{.path = path};
  const Fd peer = std::move(*connect_to(address, *resolve(address, false)));

  ASSERT_EQ(::send(peer.get(), "ls\x01x", 4, 0), 4);
  run_until(*executor, [&] { return quits == 1; });

  EXPECT_EQ(serial.text, "ls");
  serial_port->set_client(nullptr);
}

TEST_F(ChardevRegistryTest, LogFileGetsACopy) {
  const std::string log = directory + "/log";
  std::ofstream(log) << "before ";
  Chardev* chardev = *registry.add("null,id=n,logappend=on,logfile=" + log);

  chardev->write(bytes_of("after"));

  std::ifstream file(log);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "before after");
}

TEST(LegacyChardev, MonitorOnTheTerminalGivesCtrlCToTheGuest) {
  const auto plain = parse_legacy_chardev("mon:stdio");
  const auto asked = parse_legacy_chardev("mon:stdio,signal=on");

  EXPECT_EQ(BackendOptions::parse(plain->pairs)->boolean("signal", true), false);
  EXPECT_EQ(BackendOptions::parse(asked->pairs)->boolean("signal", false), true);
  EXPECT_EQ(BackendOptions::parse(plain->pairs)->boolean("mux", false), true);
}

TEST(LegacyChardev, TcpTakesIpv6AndEmptyHosts) {
  const auto six = BackendOptions::parse(parse_legacy_chardev("tcp:[::1]:80,server=on")->pairs);
  const auto empty = BackendOptions::parse(parse_legacy_chardev("tcp::4444,server,nowait")->pairs);

  EXPECT_EQ(six->text("host"), "::1");
  EXPECT_EQ(six->text("port"), "80");
  EXPECT_EQ(empty->text("host"), "");
  EXPECT_EQ(empty->text("port"), "4444");
  EXPECT_EQ(empty->boolean("wait", true), false);
}

TEST(ChardevHelp, NamesEveryBackEnd) {
  const std::string help = chardev_help();

  for (const std::string_view name : {"file", "null", "pty", "socket", "stdio"}) {
    EXPECT_NE(help.find(fmt::format("\n  {} ", name)), std::string::npos) << name;
  }
}

TEST(LegacyChardev, RandomTextIsParsedOrRefused) {
  std::mt19937 random(11);
  constexpr std::string_view kAlphabet = "ab,:=[]1 /";
  const std::array<std::string_view, 7> starts{"", "unix:", "tcp:", "file:", "mon:", "stdio,", "chardev:"};
  int parsed = 0;

  for (int round = 0; round < 100'000; ++round) {
    std::string text(starts[random() % starts.size()]);
    for (size_t length = random() % 16; length > 0; --length) text += kAlphabet[random() % kAlphabet.size()];
    const auto legacy = parse_legacy_chardev(text);
    if (!legacy) {
      EXPECT_FALSE(legacy.error().message.empty());
      continue;
    }
    parsed += BackendOptions::parse(legacy->pairs).has_value();
  }

  EXPECT_GT(parsed, 100);
}

}  // namespace
}  // namespace kite
