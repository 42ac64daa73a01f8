#include "snapshot/stream.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "snapshot/test_pipe.h"

namespace kite::snapshot {
namespace {

// One block of eight pages, two with contents, two of zeros, and some state.
Pipe small_machine() {
  Pipe memory;
  StreamWriter writer(memory);
  const std::vector<uint8_t> pages(8192, 0x5a), state = {1, 2, 3};
  EXPECT_TRUE(writer.begin(kWantsAnswer));
  EXPECT_TRUE(writer.block(0, "ram", 32768));
  EXPECT_TRUE(writer.pages(0, 3, pages));
  EXPECT_TRUE(writer.zeros(0, 5, 2));
  EXPECT_TRUE(writer.end(state));
  EXPECT_EQ(writer.bytes(), memory.bytes.size());
  return memory;
}

// Reads to the end; the first error, or "".
std::string read_all(Pipe memory) {
  StreamReader reader(memory);
  if (auto begun = reader.begin(); !begun) return begun.error().message;
  while (true) {
    const auto record = reader.next();
    if (!record) return record.error().message;
    if (std::holds_alternative<EndRecord>(*record)) return "";
  }
}

TEST(Stream, RecordsComeBackAsTheyWereWritten) {
  Pipe memory = small_machine();
  StreamReader reader(memory);
  EXPECT_EQ(reader.begin(), kWantsAnswer);
  const auto block = std::get<BlockRecord>(*reader.next());
  EXPECT_EQ(block.number, 0u);
  EXPECT_EQ(block.name, "ram");
  EXPECT_EQ(block.bytes, 32768u);
  const auto pages = std::get<PagesRecord>(*reader.next());
  EXPECT_EQ(pages.first, 3u);
  EXPECT_EQ(pages.count, 2u);
  EXPECT_TRUE(pages.contents.size() == 8192 && std::ranges::count(pages.contents, 0x5a) == 8192);
  const auto zeros = std::get<PagesRecord>(*reader.next());
  EXPECT_EQ(zeros.first, 5u);
  EXPECT_EQ(zeros.count, 2u);
  EXPECT_TRUE(zeros.contents.empty());
  EXPECT_TRUE(std::holds_alternative<EndRecord>(*reader.next()));
  EXPECT_EQ(reader.state(), (std::vector<uint8_t>{1, 2, 3}));
  EXPECT_EQ(reader.bytes(), memory.bytes.size());
}

TEST(Stream, StateLongerThanARecordIsPutTogether) {
  Pipe memory;
  StreamWriter writer(memory);
  std::vector<uint8_t> state(3u << 20, 7);
  state.back() = 9;
  ASSERT_TRUE(writer.begin(0));
  ASSERT_TRUE(writer.end(state));
  StreamReader reader(memory);
  ASSERT_TRUE(reader.begin());
  ASSERT_TRUE(std::holds_alternative<EndRecord>(*reader.next()));
  EXPECT_EQ(reader.state(), state);
}

TEST(Stream, EveryTruncationIsAnError) {
  const Pipe whole = small_machine();
  for (size_t length = 0; length < whole.bytes.size(); ++length) {
    Pipe cut = whole;
    cut.bytes.resize(length);
    EXPECT_NE(read_all(std::move(cut)), "") << length;
  }
  EXPECT_EQ(read_all(whole), "");
}

// Whatever a byte of the framing becomes, reading ends; most of it is an error that says so.
TEST(Stream, DamageIsNamed) {
  const Pipe whole = small_machine();
  const auto with = [&whole](size_t at, uint8_t value) {
    Pipe damaged = whole;
    damaged.bytes[at] = value;
    return read_all(std::move(damaged));
  };
  EXPECT_NE(with(0, 'X').find("no saved machine"), std::string::npos);
  EXPECT_NE(with(7, 2).find("format 2"), std::string::npos);
  EXPECT_NE(with(8, 4).find("later version"), std::string::npos);
  constexpr size_t kFirstRecord = 16;
  EXPECT_NE(with(kFirstRecord, 99).find("record 99"), std::string::npos);
  EXPECT_NE(with(kFirstRecord + 7, 1).find("record of"), std::string::npos);
  EXPECT_NE(with(whole.bytes.size() - 8, 4).find("parts of its state"), std::string::npos);
  constexpr size_t kPagesCount = kFirstRecord + 8 + 16 + 3 + 8 + 4;
  EXPECT_NE(with(kPagesCount, 3).find("bytes for 3 pages"), std::string::npos);
  EXPECT_NE(with(kPagesCount, 0).find("bytes for 0 pages"), std::string::npos);
}

}  // namespace
}  // namespace kite::snapshot
