#include "gdb/packet.h"

#include <gtest/gtest.h>

namespace kite::gdb {
namespace {

using Kind = PacketReader::Kind;

std::vector<PacketReader::Item> read(PacketReader& reader, std::string_view bytes) {
  std::vector<PacketReader::Item> items;
  for (const char c : bytes)
    if (auto item = reader.next(static_cast<uint8_t>(c))) items.push_back(*std::move(item));
  return items;
}
std::vector<PacketReader::Item> read(std::string_view bytes) {
  PacketReader reader;
  return read(reader, bytes);
}

TEST(GdbPacketReader, TakesPacketsAndSignsApart) {
  const auto items = read("+$m0,4#fd-\x03");
  ASSERT_EQ(items.size(), 4u);
  EXPECT_EQ(items[0].kind, Kind::kAck);
  EXPECT_EQ(items[1].kind, Kind::kPacket);
  EXPECT_EQ(items[1].text, "m0,4");
  EXPECT_EQ(items[2].kind, Kind::kNack);
  EXPECT_EQ(items[3].kind, Kind::kInterrupt);
}

TEST(GdbPacketReader, AWrongChecksumIsDamage) {
  for (const char* const packet : {"$m0,4#fe", "$m0,4#zz", "$m0,4#f$"}) {
    const auto items = read(packet);
    ASSERT_EQ(items.size(), 1u) << packet;
    EXPECT_EQ(items[0].kind, Kind::kDamaged) << packet;
  }
}

TEST(GdbPacketReader, EscapesAndRunsAreUndone) {
  EXPECT_EQ(read(frame("X$#}*\x03")).at(0).text, "X$#}*\x03");
  EXPECT_EQ(read("$0* #7a").at(0).text, "0000");  // the example of the manual
}

TEST(GdbPacketReader, ARunOfNothingIsDamage) {
  EXPECT_EQ(read("$* #4a").at(0).kind, Kind::kDamaged);
  EXPECT_EQ(read("$0*\x01#5b").at(0).kind, Kind::kDamaged);
}

TEST(GdbPacketReader, APacketThatBeginsAgainCounts) {
  const auto items = read("$g12" + frame("c"));
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].text, "c");
}

TEST(GdbPacketReader, WhatIsTooLongIsRefusedAndTheNextIsRead) {
  PacketReader reader;
  const std::string most(PacketReader::kMostBytes, 'a');
  EXPECT_EQ(read(reader, frame(most)).at(0).text.size(), most.size());
  EXPECT_EQ(read(reader, frame(most + "a")).at(0).kind, Kind::kDamaged);
  EXPECT_EQ(read(reader, frame("?")).at(0).text, "?");
  // Runs make long packets out of short ones.
  std::string runs = "0";
  for (int i = 0; i < 300; ++i) runs += "*~";
  uint8_t sum = 0;
  for (const char c : runs) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(c));
  EXPECT_EQ(read(reader, "$" + runs + fmt::format("#{:02x}", sum)).at(0).kind, Kind::kDamaged);
}

TEST(GdbPacketReader, AnyBytesAreHarmless) {
  PacketReader reader;
  uint32_t random = 1;
  for (int i = 0; i < 1'000'000; ++i) {
    random = random * 1664525 + 1013904223;
    static constexpr std::string_view kLikely = "$#}*+-03af";
    const auto byte = static_cast<uint8_t>(random >> 24);
    (void)reader.next((random & 0x800000) != 0 ? byte : static_cast<uint8_t>(kLikely[byte % kLikely.size()]));
  }
}

TEST(GdbHex, GoesBothWays) {
  const std::vector<uint8_t> bytes{0, 0x1f, 0xa0, 0xff};
  EXPECT_EQ(to_hex(bytes), "001fa0ff");
  EXPECT_EQ(from_hex("001fA0ff"), bytes);
  EXPECT_EQ(from_hex("001"), std::nullopt);
  EXPECT_EQ(from_hex("0x"), std::nullopt);
}

TEST(GdbHex, NumbersEndWhereTheirDigitsDo) {
  std::string_view text = "1f,8";
  EXPECT_EQ(take_number(text), 0x1fu);
  EXPECT_EQ(text, ",8");
  EXPECT_EQ(take_number(text), std::nullopt);
  text = "10000000000000000";  // of 65 bits
  EXPECT_EQ(take_number(text), std::nullopt);
  text = "-1";
  EXPECT_EQ(take_number(text), std::nullopt);
}

}  // namespace
}  // namespace kite::gdb
