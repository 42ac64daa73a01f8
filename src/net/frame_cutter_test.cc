#include "net/frame_cutter.h"

#include "net/test_guest.h"

namespace kite::net {
namespace {

using namespace testing;  // NOLINT: Bytes

struct FrameCutterTest : ::testing::Test {
  bool cut(std::span<const uint8_t> bytes) {
    return cutter.cut(bytes, [this](Frame frame) { frames.emplace_back(frame.begin(), frame.end()); });
  }
  static Bytes wire(const std::vector<Bytes>& contents) {
    Bytes bytes;
    for (const Bytes& content : contents) {
      put32(bytes, static_cast<uint32_t>(content.size()));
      append(bytes, content);
    }
    return bytes;
  }

  FrameCutter cutter;
  std::vector<Bytes> frames;
};

TEST_F(FrameCutterTest, SeveralFramesInOneRead) {
  const std::vector<Bytes> sent{Bytes(60, 1), Bytes(1514, 2), Bytes(14, 3)};
  EXPECT_TRUE(cut(wire(sent)));
  EXPECT_EQ(frames, sent);
}

// Whatever the pieces are, their bounds mean nothing.
TEST_F(FrameCutterTest, FramesInPiecesOfEverySize) {
  const std::vector<Bytes> sent{Bytes(60, 1), Bytes{}, Bytes(301, 2), Bytes(14, 3)};
  const Bytes bytes = wire(sent);
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    frames.clear();
    for (size_t at = 0; at < bytes.size(); at += piece)
      ASSERT_TRUE(cut(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at))));
    ASSERT_EQ(frames, sent) << piece;
  }
}

TEST_F(FrameCutterTest, TheLongestFrameIsOneAndALongerOneIsNone) {
  EXPECT_TRUE(cut(wire({Bytes(kMostFrameBytes, 1)})));
  EXPECT_EQ(frames.size(), 1U);
  EXPECT_FALSE(cut(wire({Bytes(kMostFrameBytes + 1, 1)})));
  EXPECT_EQ(frames.size(), 1U);
}

// A length is judged as soon as it is there, before anything is kept for it; also one that came in pieces.
TEST_F(FrameCutterTest, ALengthThatIsALieIsRefusedAtOnce) {
  const Bytes lie{0xff, 0xff, 0xff, 0xff};
  EXPECT_FALSE(cut(lie));
  FrameCutter other;
  const auto ignore = [](Frame) {};
  EXPECT_TRUE(other.cut(std::span(lie).first(3), ignore));
  EXPECT_FALSE(other.cut(std::span(lie).first(1), ignore));
}

TEST_F(FrameCutterTest, AnotherStreamBeginsAnew) {
  EXPECT_TRUE(cut(Bytes{0, 0, 0, 60, 1, 2}));
  cutter.clear();
  EXPECT_TRUE(cut(wire({Bytes(20, 7)})));
  EXPECT_EQ(frames, std::vector<Bytes>{Bytes(20, 7)});
}

}  // namespace
}  // namespace kite::net
