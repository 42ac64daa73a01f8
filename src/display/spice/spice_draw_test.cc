#include "display/spice/spice_draw.h"

#include <gtest/gtest.h>

#include <numeric>

#include "display/spice/scan_codes.h"

namespace kite::display {
namespace {

// Pixels that tell where they are.
FrameRelay::Frame make_frame(uint32_t width, uint32_t height, std::vector<Rect> rects) {
  FrameRelay::Frame frame{.width = width,
                          .height = height,
                          .pixels = std::vector<uint32_t>(size_t{width} * height),
                          .rects = std::move(rects),
                          .resized = false};
  std::iota(frame.pixels.begin(), frame.pixels.end(), 0u);
  return frame;
}

TEST(SpiceDraw, ARectangleIsOnePieceWithItsPixels) {
  FrameRelay::Frame frame = make_frame(10, 4, {{2, 1, 3, 2}});
  const auto piece = take_piece(frame);
  ASSERT_TRUE(piece);
  EXPECT_EQ(piece->rect, (Rect{2, 1, 3, 2}));
  EXPECT_EQ(piece->pixels, (std::vector<uint32_t>{12, 13, 14, 22, 23, 24}));
  EXPECT_FALSE(take_piece(frame));
}

TEST(SpiceDraw, ALargeRectangleComesInBands) {
  FrameRelay::Frame frame = make_frame(1024, 600, {{0, 0, 1024, 600}, {1, 1, 1, 1}});
  std::vector<Rect> rects;
  while (const auto piece = take_piece(frame)) {
    rects.push_back(piece->rect);
    EXPECT_EQ(piece->pixels.front(), piece->rect.y * 1024 + piece->rect.x);
    EXPECT_EQ(piece->pixels.size(), size_t{piece->rect.width} * piece->rect.height);
  }
  EXPECT_EQ(rects, (std::vector<Rect>{{1, 1, 1, 1}, {0, 0, 1024, 256}, {0, 256, 1024, 256}, {0, 512, 1024, 88}}));
}

TEST(SpiceDraw, ThePieceBecomesACopyOfABitmap) {
  FrameRelay::Frame frame = make_frame(10, 4, {{2, 1, 3, 2}});
  SpiceDraw draw(7, *take_piece(frame), 1234);
  const QXLCommandExt command = draw.command();
  const uint64_t data = command.cmd.data;
  EXPECT_EQ(data, reinterpret_cast<uintptr_t>(&draw.drawable()));
  EXPECT_EQ(command.cmd.type, uint32_t{QXL_CMD_DRAW});
  const QXLDrawable& drawable = draw.drawable();
  EXPECT_EQ(uint64_t{drawable.release_info.id}, 7U);
  EXPECT_EQ(int32_t{drawable.bbox.left}, 2);
  EXPECT_EQ(int32_t{drawable.bbox.top}, 1);
  EXPECT_EQ(int32_t{drawable.bbox.right}, 5);
  EXPECT_EQ(int32_t{drawable.bbox.bottom}, 3);
  EXPECT_EQ(int32_t{drawable.u.copy.src_area.right}, 3);
  EXPECT_EQ(int32_t{drawable.u.copy.src_area.bottom}, 2);
  EXPECT_EQ(uint32_t{draw.image().bitmap.stride}, 12U);
  const auto* const pixels = reinterpret_cast<const uint32_t*>(uint64_t{draw.image().bitmap.data});
  EXPECT_EQ(pixels[5], 24U);
  EXPECT_EQ(draw.bytes(), 24U);
}

TEST(FrameRelay, TellsOnceUntilItIsTaken) {
  FrameRelay relay;
  Surface surface;
  surface.resize(8, 2);
  EXPECT_TRUE(relay.put_all(surface.view()));
  EXPECT_FALSE(relay.put_all(surface.view()));
  relay.take([](FrameRelay::Frame& frame) {
    EXPECT_TRUE(frame.resized);
    EXPECT_EQ(frame.rects, (std::vector<Rect>{{0, 0, 8, 2}}));
    frame.rects.clear();
    frame.resized = false;
  });
  surface.put_row(1, std::vector<uint32_t>{1, 2});
  EXPECT_TRUE(relay.put(surface.view(), std::vector<Rect>{{0, 1, 2, 1}}));
  relay.use([](const FrameRelay::Frame& frame) {
    EXPECT_EQ(frame.rects, (std::vector<Rect>{{0, 1, 2, 1}}));
    EXPECT_EQ(frame.pixels[9], 2U);
  });
}

TEST(FrameRelay, ManyRectanglesBecomeOne) {
  FrameRelay relay;
  Surface surface;
  surface.resize(1000, 2);
  (void)relay.put_all(surface.view());
  relay.take([](FrameRelay::Frame& frame) { frame.rects.clear(); });
  for (uint32_t x = 1; x <= FrameRelay::kMostRects + 1; ++x)
    (void)relay.put(surface.view(), std::vector<Rect>{{x, 1, 1, 1}});
  relay.use([](const FrameRelay::Frame& frame) {
    EXPECT_EQ(frame.rects, (std::vector<Rect>{{1, 1, FrameRelay::kMostRects + 1, 1}}));
  });
}

std::vector<ScanCodes::Event> events(std::initializer_list<uint8_t> bytes) {
  ScanCodes codes;
  std::vector<ScanCodes::Event> found;
  for (const uint8_t byte : bytes)
    if (const auto event = codes.put(byte)) found.push_back(*event);
  return found;
}

TEST(ScanCodes, PlainExtendedAndPause) {
  using Events = std::vector<ScanCodes::Event>;
  EXPECT_EQ(events({0x1e, 0x9e}), (Events{{0x1e, true}, {0x1e, false}}));
  EXPECT_EQ(events({0xe0, 0x48, 0xe0, 0xc8, 0x48}), (Events{{0xe048, true}, {0xe048, false}, {0x48, true}}));
  EXPECT_EQ(events({0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5}), (Events{{0xe046, true}, {0xe046, false}}));
}

TEST(ScanCodes, APrefixThatIsNotFinishedGivesWay) {
  EXPECT_EQ(events({0xe1, 0x1d, 0xe0, 0xe0, 0x1c}), (std::vector<ScanCodes::Event>{{0xe01c, true}}));
}

}  // namespace
}  // namespace kite::display
