#include "net/net_backend.h"

#include "net/net_registry.h"
#include "net/test_guest.h"

namespace kite::net {
namespace {

using namespace testing;  // NOLINT: the card and its guest

class PlainBackend final : public NetBackend {
 public:
  explicit PlainBackend(Executor& executor) : NetBackend("plain", "test", executor) {}
  [[nodiscard]] std::string info() const override { return ""; }
  Delivery do_send(Frame frame) override {
    if (full) return Delivery::kFull;
    sent.emplace_back(frame.begin(), frame.end());
    return Delivery::kTaken;
  }
  void room_again() override { ++rooms; }
  using NetBackend::backed_up;
  using NetBackend::deliver;

  std::vector<Bytes> sent;
  bool full = false;
  int rooms = 0;
};

struct NetBackendTest : ::testing::Test {
  static uint64_t metric(std::string_view name) {
    uint64_t value = UINT64_MAX;
    metrics::Registry::process().for_each([&](const metrics::Source& source) {
      for (const metrics::Sample& sample : source.read())
        if (sample.description.name == fmt::format("net.plain.{}", name)) value = sample.values[0];
    });
    return value;
  }
  std::unique_ptr<Executor> executor = make_executor();
  TestCard card;
  PlainBackend backend{*executor};
  const Bytes frame = Bytes(60, 1);
};

TEST_F(NetBackendTest, FramesGoBothWaysAndAreCounted) {
  backend.set_client(&card);
  EXPECT_EQ(backend.send(frame), Delivery::kTaken);
  backend.deliver(frame);
  backend.deliver(frame);
  EXPECT_EQ(backend.sent.size(), 1U);
  EXPECT_EQ(card.frames.size(), 2U);
  EXPECT_EQ(metric("tx-packets"), 1U);
  EXPECT_EQ(metric("tx-bytes"), 60U);
  EXPECT_EQ(metric("rx-packets"), 2U);
  EXPECT_EQ(metric("rx-bytes"), 120U);
}

TEST_F(NetBackendTest, FramesOfImpossibleLengthGoNowhere) {
  EXPECT_EQ(backend.send(Bytes(13, 0)), Delivery::kDropped);
  EXPECT_EQ(backend.send(Bytes(kMostFrameBytes + 1, 0)), Delivery::kDropped);
  EXPECT_EQ(metric("tx-dropped"), 2U);
}

TEST_F(NetBackendTest, WhatTheCardHasNoRoomForWaitsInOrder) {
  backend.set_client(&card);
  card.room = 1;
  for (uint8_t i = 0; i < 4; ++i) backend.deliver(Bytes(60, i));
  EXPECT_TRUE(backend.backed_up());
  const int rooms = backend.rooms;
  card.room = 3;
  backend.accept_input();
  EXPECT_EQ(card.frames.size(), 3U);
  EXPECT_EQ(backend.rooms, rooms);
  card.room = 10;
  backend.accept_input();
  EXPECT_EQ(backend.rooms, rooms + 1);
  for (uint8_t i = 0; i < 4; ++i) EXPECT_EQ(card.frames[i][0], i);
}

TEST_F(NetBackendTest, TheNumberThatWaitsHasABound) {
  backend.set_client(&card);
  card.room = 0;
  for (size_t i = 0; i < NetBackend::kMostWaiting + 7; ++i) backend.deliver(frame);
  EXPECT_EQ(metric("rx-dropped"), 7U);
  card.drops = true;
  backend.accept_input();
  EXPECT_FALSE(backend.backed_up());
  EXPECT_EQ(metric("rx-dropped"), NetBackend::kMostWaiting + 7);
}

TEST_F(NetBackendTest, ALinkIsUpWhileBothEndsAre) {
  backend.set_client(&card);
  backend.set_link(NetBackend::End::kCard, false);
  backend.set_link(NetBackend::End::kHost, false);
  EXPECT_EQ(card.link_changes, 1);
  EXPECT_EQ(backend.send(frame), Delivery::kDropped);
  backend.deliver(frame);
  EXPECT_TRUE(card.frames.empty());
  backend.set_link(NetBackend::End::kCard, true);
  EXPECT_FALSE(backend.link_up());
  backend.set_link(NetBackend::End::kHost, true);
  EXPECT_EQ(card.link_changes, 2);
  EXPECT_EQ(backend.send(frame), Delivery::kTaken);
}

TEST(MacAddressTest, TextAndBack) {
  const auto mac = parse_mac("52:54:00:ab:CD:ef");
  ASSERT_TRUE(mac);
  EXPECT_EQ(mac_text(*mac), "52:54:00:ab:cd:ef");
  EXPECT_TRUE(parse_mac("52-54-0-1-2-3"));
  for (const char* text : {"", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:01", "52:54:00:ab:cd:eg", "525:4:0:1:2:3", ":::::"})
    EXPECT_FALSE(parse_mac(text)) << text;
}

TEST(NetRegistryTest, RefusesByName) {
  const auto executor = make_executor();
  NetRegistry nets(*executor);
  const auto refusal = [&](const Settings& settings) {
    const auto added = nets.add(settings);
    return added ? std::string("taken") : added.error().message;
  };
  EXPECT_EQ(refusal({{"type", "user"}, {"id", "n0"}}), "taken");
  EXPECT_NE(refusal({{"type", "user"}, {"id", "n0"}}).find("already"), std::string::npos);
  EXPECT_NE(refusal({{"type", "user"}}).find("id=ID"), std::string::npos);
  EXPECT_NE(refusal({{"type", "user"}, {"id", "0n"}}).find("letter"), std::string::npos);
  EXPECT_NE(refusal({{"type", "usr"}, {"id", "n1"}}).find("did you mean 'user'"), std::string::npos);
  EXPECT_NE(refusal({{"type", "vhost-user"}, {"id", "n1"}}).find("yet"), std::string::npos);
  EXPECT_FALSE(nets.claim("n1"));
}

TEST(NetRegistryTest, CardsGetAddressesThatNoneHas) {
  const auto executor = make_executor();
  NetRegistry nets(*executor);
  EXPECT_EQ(mac_text(*nets.mac_for("52:54:00:12:34:57")), "52:54:00:12:34:57");
  EXPECT_EQ(mac_text(*nets.mac_for("")), "52:54:00:12:34:56");
  EXPECT_EQ(mac_text(*nets.mac_for("")), "52:54:00:12:34:58");
  EXPECT_FALSE(nets.mac_for("01:00:00:00:00:01"));
}

TEST(NetRegistryTest, ACardLearnsThatItsBackendIsGone) {
  const auto executor = make_executor();
  NetRegistry nets(*executor);
  ASSERT_TRUE(nets.add({{"type", "user"}, {"id", "n0"}}));
  TestCard card;
  nets.find("n0")->set_client(&card);
  EXPECT_FALSE(nets.claim("n0"));
  EXPECT_TRUE(nets.set_link("card", false));
  EXPECT_TRUE(nets.set_link("n0", true));
  EXPECT_FALSE(nets.find("n0")->link_up());
  EXPECT_FALSE(nets.set_link("nobody", true));
  EXPECT_TRUE(nets.remove("n0"));
  EXPECT_TRUE(card.gone);
  EXPECT_FALSE(nets.remove("n0"));
}

}  // namespace
}  // namespace kite::net
