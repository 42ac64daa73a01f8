#include "chardev/spice_chardev.h"

#include <sys/socket.h>
#include <unistd.h>

#include "chardev/test_client.h"

namespace kite {
namespace {

using namespace testing_support;  // NOLINT

// A registry, and what the SPICE server has been told.
class SpiceChardevTest : public ::testing::Test {
 protected:
  struct Device {
    std::string subtype, port_name;
    std::function<void(Fd)> connected;
    std::vector<bool> told;
    Fd socket{};
  };
  Chardev& make(std::string_view text) {
    auto made = registry_.add(text);
    EXPECT_TRUE(made) << made.error().message;
    return **made;
  }
  void serve() {
    const SpiceCarrier carrier{
        .add =
            [this](const std::string& subtype, const std::string& name, std::function<void(Fd)> connected) {
              devices_.push_back(
                  {.subtype = subtype, .port_name = name, .connected = std::move(connected), .told = {}});
              return devices_.size() - 1;
            },
        .set_open =
            [this](size_t number, bool open, Fd socket) {
              devices_[number].told.push_back(open);
              devices_[number].socket = std::move(socket);
            }};
    ASSERT_TRUE(registry_.set_spice(&carrier));
  }
  // A client opens the port; answers its end.
  Fd open_port(size_t number) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    devices_[number].connected(Fd(ends[0]));
    return Fd(ends[1]);
  }
  std::string refusal(std::string_view text) {
    const auto made = registry_.add(text);
    return made ? "" : made.error().message;
  }

  std::unique_ptr<Executor> executor_ = make_executor();
  std::vector<Device> devices_;
  RecordingClient client_;
  ChardevRegistry registry_{*executor_, {}};
};

TEST_F(SpiceChardevTest, NamesThatNobodyServesAreRefused) {
  EXPECT_NE(refusal("spicevmc,id=a").find("name="), std::string::npos);
  EXPECT_NE(refusal("spiceport,id=a").find("name="), std::string::npos);
  EXPECT_NE(refusal("spicevmc,id=a,name=vdagnt").find("did you mean 'vdagent'"), std::string::npos);
  EXPECT_NE(refusal("spicevmc,id=a,name=usbredir").find("usb-redir"), std::string::npos);
  EXPECT_NE(refusal("spicevmc,id=a,name=smartcard").find("card reader"), std::string::npos);
  EXPECT_TRUE(registry_.all().empty());
}

TEST_F(SpiceChardevTest, WithoutAServerItIsAnError) {
  EXPECT_TRUE(registry_.set_spice(nullptr));
  make("spicevmc,id=agent,name=vdagent");
  const auto refused = registry_.set_spice(nullptr);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("id=agent"), std::string::npos) << refused.error().message;
  EXPECT_NE(refused.error().message.find("-spice"), std::string::npos) << refused.error().message;
}

TEST_F(SpiceChardevTest, AnAgentsPortIsThereBeforeTheGuestOpensIt) {
  Chardev& agent = make("spicevmc,id=agent,name=vdagent");
  agent.set_frontend_open(false);
  agent.set_client(&client_);
  serve();
  settle(*executor_);
  EXPECT_EQ(devices_[0].subtype, "vdagent");
  EXPECT_EQ(client_.count(ChardevEvent::kOpened), 1);
  EXPECT_TRUE(devices_[0].told.empty());
  EXPECT_EQ(agent.write(bytes_of("hello")), 5U);
  agent.set_frontend_open(true);
  settle(*executor_);
  EXPECT_EQ(devices_[0].told, std::vector<bool>{true});
  EXPECT_EQ(read_from(*executor_, devices_[0].socket.get(), 5), "hello");
  ASSERT_EQ(::write(devices_[0].socket.get(), "there", 5), 5);
  run_until(*executor_, [&] { return client_.text == "there"; });
  agent.set_client(nullptr);
}

TEST_F(SpiceChardevTest, AnAgentThatClosesAndOpensAtOnceIsANewOne) {
  Chardev& agent = make("spicevmc,id=agent,name=vdagent");
  agent.set_client(&client_);
  serve();
  settle(*executor_);
  const Fd old = std::move(devices_[0].socket);
  EXPECT_EQ(agent.write(bytes_of("half of a mess")), 14U);
  agent.set_frontend_open(false);
  agent.set_frontend_open(true);
  settle(*executor_);
  EXPECT_EQ(devices_[0].told, (std::vector<bool>{true, false, true}));
  // The old one gets all that was said, and then the end; the new one begins empty.
  EXPECT_EQ(read_from(*executor_, old.get(), 14), "half of a mess");
  char byte = 0;
  EXPECT_EQ(::read(old.get(), &byte, 1), 0);
  EXPECT_EQ(::read(devices_[0].socket.get(), &byte, 1), -1);
  EXPECT_EQ(client_.events, (std::vector{ChardevEvent::kOpened, ChardevEvent::kClosed, ChardevEvent::kOpened}));
  agent.set_client(nullptr);
}

TEST_F(SpiceChardevTest, AnAgentThatTheServerHasEnoughOfIsClosedUntilTheGuestOpensItAgain) {
  Chardev& agent = make("spicevmc,id=agent,name=vdagent");
  agent.set_client(&client_);
  serve();
  settle(*executor_);
  devices_[0].socket.reset();
  run_until(*executor_, [&] { return !agent.is_open(); });
  EXPECT_EQ(agent.write(bytes_of("lost")), 4U);
  agent.set_frontend_open(false);
  settle(*executor_);
  EXPECT_TRUE(agent.is_open());
  agent.set_client(nullptr);
}

TEST_F(SpiceChardevTest, APortOpensAndClosesWithItsClients) {
  Chardev& port = make("spiceport,id=port,name=org.kite.test");
  EXPECT_EQ(port.filename(), "spiceport");
  port.set_client(&client_);
  serve();
  settle(*executor_);
  EXPECT_EQ(devices_[0].port_name, "org.kite.test");
  EXPECT_EQ(devices_[0].told, std::vector<bool>{true});
  EXPECT_FALSE(port.is_open());
  for (const int turn : {1, 2}) {
    const Fd end = open_port(0);
    EXPECT_EQ(client_.count(ChardevEvent::kOpened), turn);
    EXPECT_EQ(port.write(bytes_of("guest")), 5U);
    EXPECT_EQ(read_from(*executor_, end.get(), 5), "guest");
    ASSERT_EQ(::write(end.get(), "last", 4), 4);
  }
  run_until(*executor_, [&] { return client_.count(ChardevEvent::kClosed) == 2; });
  EXPECT_EQ(client_.text, "last");  // what the first had said when the second came was not read yet
  port.set_client(nullptr);
}

TEST_F(SpiceChardevTest, WhatIsNotReadHoldsTheWriterUpAndNothingIsLost) {
  Chardev& port = make("spiceport,id=port,name=org.kite.test");
  port.set_client(&client_);
  serve();
  const Fd end = open_port(0);
  std::string all(4 << 20, '\0');
  for (size_t at = 0; at < all.size(); ++at) all[at] = static_cast<char>(at * 2654435761U >> 13);
  size_t written = port.write(bytes_of(all));
  EXPECT_LT(written, all.size());
  std::string got;
  while (got.size() < all.size()) {
    got += read_from(*executor_, end.get(), std::min<size_t>(written - got.size(), 1 << 16));
    settle(*executor_);
    if (client_.writables > 0) {
      client_.writables = 0;
      written += port.write(bytes_of(std::string_view(all).substr(written)));
    }
  }
  EXPECT_EQ(got, all);
  port.set_client(nullptr);
}

TEST_F(SpiceChardevTest, AClientThatGoesWhileNobodyListensIsNoticed) {
  Chardev& port = make("spiceport,id=port,name=org.kite.test");
  serve();
  {
    const Fd end = open_port(0);
  }
  run_until(*executor_, [&] { return !port.is_open(); });
  settle(*executor_);
  EXPECT_TRUE(devices_[0].told.empty());
}

}  // namespace
}  // namespace kite
