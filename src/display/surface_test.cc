#include "display/surface.h"

#include <gtest/gtest.h>

#include "display/picture_file.h"

namespace kite::display {
namespace {

class SurfaceTest : public ::testing::Test {
 protected:
  SurfaceTest() {
    surface_.resize(8, 4);
    (void)surface_.take_damage();
  }
  Surface surface_;
};

TEST_F(SurfaceTest, ANewSizeIsBlackAndAllChanged) {
  surface_.put_row(1, std::vector<uint32_t>(8, 7));
  surface_.resize(3, 2);
  EXPECT_EQ(surface_.take_damage(), (std::vector<Rect>{{0, 0, 3, 2}}));
  for (const uint32_t pixel : surface_.pixels()) EXPECT_EQ(pixel, 0U);
}

TEST_F(SurfaceTest, SidesAreBounded) {
  surface_.resize(0, 1u << 20);
  EXPECT_EQ(surface_.width(), 1U);
  EXPECT_EQ(surface_.height(), Surface::kMostSide);
}

TEST_F(SurfaceTest, ARowDamagesWhatDiffers) {
  surface_.put_row(2, std::vector<uint32_t>{0, 0, 5, 0, 6, 0, 0, 0});
  EXPECT_EQ(surface_.take_damage(), (std::vector<Rect>{{2, 2, 3, 1}}));
  EXPECT_EQ(surface_.row(2)[4], 6U);
}

TEST_F(SurfaceTest, APartOfARowIsReplaced) {
  surface_.put_row(2, std::vector<uint32_t>{0, 5, 6, 0}, 3);
  surface_.put_row(3, std::vector<uint32_t>{1, 2, 3}, 6);
  surface_.put_row(3, std::vector<uint32_t>{1, 2, 3}, 8);
  EXPECT_EQ(surface_.take_damage(), (std::vector<Rect>{{4, 2, 4, 2}}));
  EXPECT_EQ(surface_.row(2)[4], 5U);
  EXPECT_EQ(surface_.row(3)[7], 2U);
  EXPECT_EQ(surface_.row(3)[0], 0U);
}

TEST_F(SurfaceTest, TheSameRowDamagesNothing) {
  surface_.put_row(2, std::vector<uint32_t>(8, 0));
  EXPECT_TRUE(surface_.take_damage().empty());
}

TEST_F(SurfaceTest, RowsBelowEachOtherAreOneRectangle) {
  surface_.put_row(1, std::vector<uint32_t>{1});
  surface_.put_row(2, std::vector<uint32_t>{0, 0, 1});
  EXPECT_EQ(surface_.take_damage(), (std::vector<Rect>{{0, 1, 3, 2}}));
}

TEST_F(SurfaceTest, DamageIsCutToTheSurface) {
  surface_.damage({6, 3, ~0u, ~0u});
  surface_.damage({8, 0, 1, 1});
  EXPECT_EQ(surface_.take_damage(), (std::vector<Rect>{{6, 3, 2, 1}}));
}

TEST_F(SurfaceTest, ManyRectanglesBecomeOne) {
  surface_.resize(8, 400);
  (void)surface_.take_damage();
  for (uint32_t y = 0; y < 400; y += 2) surface_.damage({y % 7, y, 1, 1});
  const auto rects = surface_.take_damage();
  EXPECT_LE(rects.size(), Surface::kMostRects);
}

TEST_F(SurfaceTest, LongAndShortRowsAndRowsPastTheEndAreSafe) {
  surface_.put_row(9, std::vector<uint32_t>(8, 1));
  surface_.put_row(0, std::vector<uint32_t>(99, 1));
  surface_.put_row(1, {});
  EXPECT_EQ(surface_.take_damage(), (std::vector<Rect>{{0, 0, 8, 1}}));
}

TEST_F(SurfaceTest, PpmHoldsTheBytesOfThePixels) {
  surface_.resize(2, 1);
  surface_.put_row(0, std::vector<uint32_t>{0x010203, 0xfffefd});
  EXPECT_EQ(encode_picture(surface_, PictureFormat::kPpm), "P6\n2 1\n255\n\x01\x02\x03\xff\xfe\xfd");
}

TEST_F(SurfaceTest, PngHasItsChunks) {
  const std::string file = encode_picture(surface_, PictureFormat::kPng);
  EXPECT_TRUE(file.starts_with("\x89PNG\r\n\x1a\n"));
  EXPECT_NE(file.find("IHDR"), std::string::npos);
  EXPECT_TRUE(file.ends_with(std::string_view("IEND\xae\x42\x60\x82")));
}

TEST_F(SurfaceTest, APlaceThatCannotBeWrittenIsNamed) {
  const auto done = write_picture(surface_, PictureFormat::kPpm, "/nonexistent/picture.ppm");
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("/nonexistent/picture.ppm"), std::string::npos);
}

}  // namespace
}  // namespace kite::display
