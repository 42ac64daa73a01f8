#include "devices/storage/mmc.h"

#include <gtest/gtest.h>

#include <numeric>

#include "support/bytes.h"

namespace kite::devices::mmc {
namespace {

constexpr Drive kCd{.medium = true, .tray_open = false, .locked = false, .sectors = 1000};
constexpr Drive kDvd{.medium = true, .tray_open = false, .locked = false, .sectors = 2'000'000};
constexpr Drive kEmpty{};
constexpr Drive kOpen{.medium = false, .tray_open = true};

using Packet = std::array<uint8_t, 12>;

TEST(Mmc, TheTableOfContentsHasATrackAndALeadOut) {
  auto toc = read_toc(Packet{scsi_op::kReadToc}, kCd);

  ASSERT_TRUE(toc);
  ASSERT_EQ(toc->size(), 20u);
  EXPECT_EQ(load_be16(toc->data()), 18);
  EXPECT_EQ((*toc)[6], 1);
  EXPECT_EQ((*toc)[14], 0xaa);
  EXPECT_EQ(load_be32(&(*toc)[16]), 1000u);
}

TEST(Mmc, TheTableOfContentsCountsMinutesWhenAsked) {
  auto toc = read_toc(Packet{scsi_op::kReadToc, 2}, kCd);

  ASSERT_TRUE(toc);
  EXPECT_EQ(load_be32(&(*toc)[8]), 0x00000200u);   // 00:02:00
  EXPECT_EQ(load_be32(&(*toc)[16]), 0x00000f19u);  // 1150 frames are 00:15:25
}

TEST(Mmc, ATrackThatDoesNotExistIsRefused) {
  auto toc = read_toc(Packet{scsi_op::kReadToc, 0, 0, 0, 0, 0, 2}, kCd);

  ASSERT_FALSE(toc);
  EXPECT_EQ(toc.error(), sense::kInvalidField);
}

TEST(Mmc, WithoutADiscTheTrayTellsWhy) {
  EXPECT_EQ(read_toc(Packet{}, kEmpty).error(), sense::kNoMediumTrayClosed);
  EXPECT_EQ(read_toc(Packet{}, kOpen).error(), sense::kNoMediumTrayOpen);
}

TEST(Mmc, TheProfileFollowsTheDisc) {
  EXPECT_EQ(load_be16(&(*get_configuration(Packet{}, kCd))[6]), 0x08);
  EXPECT_EQ(load_be16(&(*get_configuration(Packet{}, kDvd))[6]), 0x10);
  EXPECT_EQ(load_be16(&(*get_configuration(Packet{}, kEmpty))[6]), 0);
}

TEST(Mmc, FeaturesEndWhereTheLengthSays) {
  auto all = get_configuration(Packet{}, kCd);

  ASSERT_TRUE(all);
  ASSERT_EQ(load_be32(all->data()) + 4, all->size());
  size_t at = 8;
  while (at < all->size()) at += 4u + (*all)[at + 3];
  EXPECT_EQ(at, all->size());
}

TEST(Mmc, OneFeatureIsToldAlone) {
  auto one = get_configuration(Packet{scsi_op::kGetConfiguration, 2, 0, 0x1f}, kDvd);

  ASSERT_TRUE(one);
  EXPECT_EQ(one->size(), 16u);
  EXPECT_EQ(load_be16(&(*one)[8]), 0x1f);
}

TEST(Mmc, EventsArePolled) {
  auto event = event_status(Packet{scsi_op::kGetEventStatus, 1, 0, 0, 0x10}, kCd, MediaEvent::kNewMedia);

  ASSERT_TRUE(event);
  EXPECT_EQ(*event, (std::vector<uint8_t>{0, 6, 4, 0x10, 2, 2, 0, 0}));
}

TEST(Mmc, AClassWithoutEventsSaysSo) {
  auto event = event_status(Packet{scsi_op::kGetEventStatus, 1, 0, 0, 0x02}, kCd, MediaEvent::kNewMedia);

  ASSERT_TRUE(event);
  EXPECT_EQ(*event, (std::vector<uint8_t>{0, 2, 0x80, 0x10}));
}

TEST(Mmc, ADvdStructureIsNoneOfACd) {
  EXPECT_EQ(disc_structure(Packet{}, kCd).error(), sense::kIncompatibleMedium);
  auto physical = disc_structure(Packet{}, kDvd);
  ASSERT_TRUE(physical);
  EXPECT_EQ(physical->size(), 2052u);
}

TEST(Mmc, TheCapabilitiesShowTheLock) {
  auto page = mode_pages(0x2a, 0, {.medium = true, .tray_open = false, .locked = true, .sectors = 1});

  ASSERT_TRUE(page);
  ASSERT_EQ(page->size(), 22u);
  EXPECT_EQ((*page)[6] & 2, 2);
}

TEST(Mmc, NoModePageCanBeSaved) { EXPECT_EQ(mode_pages(0x2a, 3, kCd).error(), sense::kSavingNotSupported); }

TEST(Mmc, ReadCdOfUserDataIsTheSector) {
  auto what = parse_read_cd(Packet{scsi_op::kReadCd, 0, 0, 0, 0, 5, 0, 0, 2, 0x10}, kCd);

  ASSERT_TRUE(what);
  EXPECT_EQ(what->first, 5u);
  EXPECT_EQ(what->sectors, 2u);
  EXPECT_EQ(what->sector_bytes(), kSectorBytes);
}

TEST(Mmc, ReadCdMsfCountsFromThePregap) {
  auto what = parse_read_cd(Packet{scsi_op::kReadCdMsf, 0, 0, 0, 2, 10, 0, 2, 15, 0xf8}, kCd);

  ASSERT_TRUE(what);
  EXPECT_EQ(what->first, 10u);
  EXPECT_EQ(what->sectors, 5u);
  EXPECT_EQ(what->sector_bytes(), kRawSectorBytes);
}

TEST(Mmc, ReadCdPastTheEndIsRefused) {
  EXPECT_EQ(parse_read_cd(Packet{scsi_op::kReadCd, 0, 0, 0, 3, 0xe8, 0, 0, 1, 0x10}, kCd).error(), sense::kOutOfRange);
}

TEST(Mmc, AudioIsNotOnThisDisc) {
  EXPECT_EQ(parse_read_cd(Packet{scsi_op::kReadCd, 1 << 2, 0, 0, 0, 0, 0, 0, 1, 0x10}, kCd).error(),
            sense::kIllegalTrackMode);
}

uint8_t times(uint8_t value, unsigned power) {
  while (power-- != 0) value = static_cast<uint8_t>(value << 1 ^ (value & 0x80 ? 0x1d : 0));
  return value;
}

// Every code word of the error correction must have the two syndromes 0. [ECMA-130] annex A.
void expect_code_words(const std::array<uint8_t, kRawSectorBytes>& raw, unsigned vectors, unsigned symbols,
                       unsigned step, bool diagonal, size_t parity) {
  for (unsigned v = 0; v < vectors; ++v) {
    uint8_t sum = 0, weighted = 0;
    const unsigned area = vectors * symbols;
    for (unsigned i = 0; i < symbols + 2; ++i) {
      const unsigned start = v / 2 * (diagonal ? 86 : 2) + v % 2;
      const size_t at = i < symbols ? 12 + (start + i * step) % area : parity + v + (i - symbols) * vectors;
      sum ^= raw[at];
      weighted ^= times(raw[at], symbols + 1 - i);
    }
    ASSERT_EQ(sum, 0) << v;
    ASSERT_EQ(weighted, 0) << v;
  }
}

TEST(Mmc, ARawSectorIsACodeWord) {
  std::array<uint8_t, kSectorBytes> data;
  std::iota(data.begin(), data.end(), uint8_t{7});

  const auto raw = raw_sector(75, data);

  EXPECT_EQ(load_be32(&raw[12]), 0x00030001u);  // 00:03:00, mode 1
  EXPECT_TRUE(std::equal(data.begin(), data.end(), raw.begin() + 16));
  expect_code_words(raw, 86, 24, 86, false, 2076);
  expect_code_words(raw, 52, 43, 88, true, 2248);
}

TEST(Mmc, FramingCutsTheRawSector) {
  std::array<uint8_t, kSectorBytes> data{};
  std::array<uint8_t, 4> header;

  frame({.first = 0, .sectors = 1, .header = true}, 0, data, header);

  EXPECT_EQ(header, (std::array<uint8_t, 4>{0, 2, 0, 1}));
}

}  // namespace
}  // namespace kite::devices::mmc
