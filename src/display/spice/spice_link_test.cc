#include "display/spice/spice_link.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "display/spice/shared_picture.h"

namespace kite::display {
namespace {

using Kind = SpicePacketKind;

class SpiceLinkTest : public ::testing::Test {
 protected:
  SpiceLinkTest() {
    auto sockets = SpiceLink::make_sockets();
    EXPECT_TRUE(sockets);
    peer_ = std::move((*sockets)[1]);
    link_ = std::make_unique<SpiceLink>(
        *executor_, std::move((*sockets)[0]), [this](SpicePacket packet) { packets_.push_back(std::move(packet)); },
        [this] { ++closed_; });
  }
  template <class Condition>
  void turn_until(Condition condition) {
    for (int turn = 0; turn < 2000 && !condition(); ++turn) executor_->run_once(5'000'000);
    EXPECT_TRUE(condition());
  }
  std::unique_ptr<Executor> executor_ = std::move(*Executor::create("test"));
  Fd peer_;
  std::vector<SpicePacket> packets_;
  int closed_ = 0;
  std::unique_ptr<SpiceLink> link_;
};

TEST_F(SpiceLinkTest, PacketsCarryValuesTextsAndADescriptor) {
  auto picture = SharedPicture::create(8, 4);
  ASSERT_TRUE(picture);
  SpiceLink other(*executor_, std::move(peer_), [](SpicePacket) {}, [] {});
  other.send(SpicePacket(Kind::kPicture, std::move(*picture->duplicate())).put(uint32_t{8}).put_text("screen"));
  turn_until([&] { return !packets_.empty(); });
  SpicePacket& packet = packets_.front();
  EXPECT_EQ(packet.kind(), Kind::kPicture);
  EXPECT_EQ(packet.get<uint32_t>(), 8U);
  EXPECT_EQ(packet.get_text(), "screen");
  EXPECT_TRUE(packet.fd().valid());
  EXPECT_TRUE(packet.good());
  EXPECT_EQ(packet.get<uint64_t>(), 0U);
  EXPECT_FALSE(packet.good());
}

TEST_F(SpiceLinkTest, ATextThatLiesAboutItsLengthIsEmpty) {
  SpicePacket packet(Kind::kStarted);
  packet.put(uint32_t{0xffffffff}).put(uint8_t{1});
  EXPECT_EQ(packet.get_text(), "");
  EXPECT_FALSE(packet.good());
}

TEST_F(SpiceLinkTest, WhatTheSocketHasNoRoomForIsKeptInItsOrder) {
  constexpr uint32_t kPackets = 20000;
  for (uint32_t number = 0; number < kPackets; ++number) link_->send(SpicePacket(Kind::kExpiry).put(number));
  std::vector<uint32_t> got;
  SpiceLink other(
      *executor_, std::move(peer_), [&](SpicePacket packet) { got.push_back(packet.get<uint32_t>()); }, [] {});
  turn_until([&] { return got.size() == kPackets; });
  EXPECT_TRUE(std::ranges::is_sorted(got));
}

TEST_F(SpiceLinkTest, NonsenseAndTheEndOfTheOtherSideCloseIt) {
  const char nonsense = '\xff';
  ASSERT_EQ(::send(peer_.get(), &nonsense, 1, 0), 1);
  turn_until([&] { return closed_ == 1; });
  EXPECT_TRUE(packets_.empty());
  peer_.reset();
  link_->send(SpicePacket(Kind::kTaken));
  executor_->run_once(0);
  EXPECT_EQ(closed_, 1);
}

TEST(SharedPicture, TheOtherSideSeesWhatIsCopied) {
  auto mine = SharedPicture::create(4, 2);
  ASSERT_TRUE(mine);
  auto theirs = SharedPicture::open(4, 2, *mine->duplicate());
  ASSERT_TRUE(theirs);
  Surface surface;
  surface.resize(4, 2);
  surface.put_row(1, std::vector<uint32_t>{1, 2, 3, 4});
  mine->copy(surface.view(), {1, 1, 2, 1});
  EXPECT_EQ(std::vector<uint32_t>(theirs->view().row(1).begin(), theirs->view().row(1).end()),
            (std::vector<uint32_t>{0, 2, 3, 0}));
}

TEST(SharedPicture, ASizeThatTheMemoryDoesNotHaveIsRefused) {
  auto mine = SharedPicture::create(4, 2);
  ASSERT_TRUE(mine);
  EXPECT_FALSE(SharedPicture::open(4, 3, *mine->duplicate()));
  EXPECT_FALSE(SharedPicture::open(0, 0, *mine->duplicate()));
  EXPECT_FALSE(SharedPicture::open(UINT32_MAX, UINT32_MAX, *mine->duplicate()));
}

}  // namespace
}  // namespace kite::display
