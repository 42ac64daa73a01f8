#include "state/codec.h"

#include <gtest/gtest.h>

#include <random>

namespace kite {
namespace {

enum class Mode : uint8_t { kIdle, kBusy };

struct Sample {
  uint32_t counter = 0;
  bool enabled = false;
  Mode mode = Mode::kIdle;
  std::array<uint16_t, 3> latches{};
  std::array<bool, 2> flags{};
  std::vector<uint8_t> fifo;

  bool operator==(const Sample&) const = default;
};

template <class Codec>
void visit(Codec& codec, Sample& sample) {
  codec.field(1, sample.counter);
  codec.field(2, sample.enabled);
  codec.field(3, sample.mode);
  codec.field(4, sample.latches);
  codec.field(5, sample.flags);
  codec.field(6, sample.fifo);
}

Sample sample() {
  return {.counter = 0x01020304,
          .enabled = true,
          .mode = Mode::kBusy,
          .latches = {1, 2, 0xffff},
          .flags = {false, true},
          .fifo = {9, 8, 7}};
}

std::vector<uint8_t> saved() {
  Sample value = sample();
  StateWriter writer;
  writer.begin("uart", 3);
  visit(writer, value);
  writer.end();
  return writer.take();
}

Result<Sample> restore(std::span<const uint8_t> bytes) {
  StateReader reader(bytes);
  Sample value;
  if (reader.begin("uart") != 3) reader.reject("unknown version");
  visit(reader, value);
  reader.end();
  KITE_TRY(reader.finish());
  return value;
}

template <class Fields>
std::vector<uint8_t> section(Fields fields) {
  StateWriter writer;
  writer.begin("uart", 3);
  fields(writer);
  writer.end();
  return writer.take();
}

TEST(StateCodec, RoundTripsEveryKindOfField) {
  const auto restored = restore(saved());

  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(*restored, sample());
}

TEST(StateCodec, WireFormIsLittleEndianAndNumbered) {
  const auto bytes = section([](StateWriter& writer) { writer.field(0x102, uint16_t{0xa0b0}); });

  const std::vector<uint8_t> expected{4, 0, 'u', 'a', 'r', 't', 3, 0, 0, 0, 8, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0xb0, 0xa0};
  EXPECT_EQ(bytes, expected);
}

TEST(StateCodec, ReadsSectionsInOrder) {
  StateWriter writer;
  for (const uint32_t version : {1u, 2u}) {
    writer.begin("d" + std::to_string(version), version);
    writer.field(1, version);
    writer.end();
  }

  StateReader reader(writer.bytes());
  uint32_t value = 0;
  EXPECT_EQ(reader.begin("d1"), 1u);
  reader.field(1, value);
  reader.end();
  EXPECT_EQ(reader.begin("d2"), 2u);
  reader.field(1, value);
  reader.end();

  EXPECT_EQ(value, 2u);
  EXPECT_TRUE(reader.finish());
}

TEST(StateCodec, RefusesAnotherSectionByName) {
  const auto bytes = saved();
  StateReader reader(bytes);

  EXPECT_EQ(reader.begin("pit"), 0u);

  EXPECT_EQ(reader.finish().error().message, "pit: the saved state has the section 'uart' in this place");
}

TEST(StateCodec, RefusesMissingSection) {
  StateReader reader({});

  reader.begin("pit");

  EXPECT_EQ(reader.finish().error().message, "pit: the saved state has no such section");
}

TEST(StateCodec, RefusesUnknownField) {
  const auto bytes = section([](StateWriter& writer) { writer.field(7, uint8_t{0}); });
  StateReader reader(bytes);

  reader.begin("uart");
  reader.end();

  EXPECT_EQ(reader.finish().error().message, "uart: unknown field 7");
}

TEST(StateCodec, RefusesMissingField) {
  const auto result = restore(section([](StateWriter& writer) { writer.field(1, uint32_t{0}); }));

  EXPECT_EQ(result.error().message, "uart: field 2 is missing");
}

TEST(StateCodec, RefusesFieldOutOfOrder) {
  const auto result = restore(section([](StateWriter& writer) { writer.field(2, true); }));

  EXPECT_EQ(result.error().message, "uart: field 2 stands where field 1 is expected");
}

TEST(StateCodec, RefusesFieldOfAnotherSize) {
  const auto result = restore(section([](StateWriter& writer) { writer.field(1, uint16_t{0}); }));

  EXPECT_EQ(result.error().message, "uart: field 1 has 2 bytes; 4 are expected");
}

TEST(StateCodec, RefusesBoolThatIsNeitherZeroNorOne) {
  const auto result = restore(section([](StateWriter& writer) {
    writer.field(1, uint32_t{0});
    writer.field(2, uint8_t{2});
  }));

  EXPECT_EQ(result.error().message, "uart: field 2 is 2; 0 or 1 is expected");
}

TEST(StateCodec, RefusesTrailingBytes) {
  auto bytes = saved();
  bytes.push_back(0);

  EXPECT_EQ(restore(bytes).error().message, "1 bytes follow the last section of the saved state");
}

TEST(StateCodec, RefusesSectionThatWasNotEnded) {
  const auto bytes = section([](StateWriter&) {});
  StateReader reader(bytes);

  reader.begin("uart");

  EXPECT_FALSE(reader.finish());
}

TEST(StateCodec, FirstErrorSticks) {
  const auto bytes = saved();
  StateReader reader(bytes);
  reader.begin("uart");

  reader.reject("first");
  reader.reject("second");
  uint32_t untouched = 77;
  reader.field(1, untouched);

  EXPECT_EQ(untouched, 77u);
  EXPECT_EQ(reader.finish().error().message, "uart: first");
}

TEST(StateCodec, EveryTruncationIsAnError) {
  const auto bytes = saved();

  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(restore(std::span(bytes).first(size))) << size;
  }
}

TEST(StateCodec, DamagedBytesNeverEscapeTheBuffer) {
  std::mt19937 random(1);
  const auto good = saved();

  for (int round = 0; round < 20'000; ++round) {
    auto bytes = good;
    for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
    bytes.resize(random() % (bytes.size() + 1));
    const auto result = restore(bytes);
    if (result) EXPECT_LE(result->fifo.size(), bytes.size());
  }
}

TEST(StateCodec, NamesOfDamagedSectionsArePrintable) {
  StateWriter writer;
  writer.begin("\x1b[2J", 1);
  writer.end();
  StateReader reader(writer.bytes());

  reader.begin("pit");

  EXPECT_EQ(reader.finish().error().message, "pit: the saved state has the section '?[2J' in this place");
}

}  // namespace
}  // namespace kite
