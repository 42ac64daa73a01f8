#include "snapshot/ram_copy.h"

#include <gtest/gtest.h>

#include <cstring>

#include "snapshot/test_pipe.h"

namespace kite::snapshot {
namespace {

std::shared_ptr<RamBlock> ram(std::string name, uint64_t pages) {
  return std::move(*RamBlock::create(std::move(name), pages << kPageShift));
}
void fill(RamBlock& block, uint64_t page, uint8_t value) {
  std::memset(block.host() + (page << kPageShift), value, kPageSize);
  block.note_write(page << kPageShift, kPageSize);
}
bool same(const RamBlock& one, const RamBlock& other) {
  return one.size() == other.size() && std::memcmp(one.host(), other.host(), one.size()) == 0;
}

TEST(RamCopy, ReceivesWhatWasSentOverWhatWasThere) {
  const auto low = ram("low", 200), high = ram("high", 70), low_there = ram("low", 200), high_there = ram("high", 70);
  for (const uint64_t page : {0u, 1u, 2u, 63u, 64u, 130u, 199u}) fill(*low, page, static_cast<uint8_t>(page + 1));
  fill(*high, 69, 9);
  fill(*low_there, 5, 0xee);  // is zero in what comes
  Pipe pipe;
  StreamWriter writer(pipe);
  RamSender sender({low, high});
  EXPECT_EQ(sender.total_bytes(), 270u << kPageShift);
  EXPECT_EQ(sender.counts().remaining, 270u);
  ASSERT_TRUE(writer.begin(0));
  ASSERT_TRUE(sender.send_blocks(writer));
  ASSERT_TRUE(sender.send_pass(writer));
  ASSERT_TRUE(writer.end({}));
  EXPECT_EQ(sender.counts().normal, 8u);
  EXPECT_EQ(sender.counts().zero, 262u);
  EXPECT_EQ(sender.counts().remaining, 0u);
  StreamReader reader(pipe);
  ASSERT_TRUE(reader.begin());
  const auto received = receive_ram(reader, {low_there, high_there});
  ASSERT_TRUE(received) << received.error().message;
  EXPECT_TRUE(same(*low, *low_there) && same(*high, *high_there));
}

TEST(RamCopy, LaterPassesSendWhatWasWrittenMeanwhileOnly) {
  const auto block = ram("ram", 100), there = ram("ram", 100);
  fill(*block, 10, 1);
  block->set_dirty_logging(true);
  Pipe pipe;
  StreamWriter writer(pipe);
  RamSender sender({block});
  ASSERT_TRUE(writer.begin(0));
  ASSERT_TRUE(sender.send_blocks(writer));
  ASSERT_TRUE(sender.send_pass(writer));
  EXPECT_EQ(sender.look(), 0u);
  fill(*block, 10, 0);
  fill(*block, 77, 3);
  EXPECT_EQ(sender.look(), 2u);
  EXPECT_EQ(sender.counts().remaining, 2u);
  const uint64_t before = writer.bytes();
  ASSERT_TRUE(sender.send_pass(writer));
  EXPECT_LT(writer.bytes() - before, 2 * kPageSize);  // one page of contents, one of zeros
  EXPECT_EQ(sender.look(), 0u);
  ASSERT_TRUE(writer.end({}));
  StreamReader reader(pipe);
  ASSERT_TRUE(reader.begin());
  ASSERT_TRUE(receive_ram(reader, {there}));
  EXPECT_TRUE(same(*block, *there));
}

TEST(RamCopy, TellsWhoWatchesTheMemory) {
  const auto block = ram("ram", 4), there = ram("ram", 4);
  fill(*block, 1, 1);
  const uint32_t generation = there->mark_code(kPageSize);
  Pipe pipe;
  StreamWriter writer(pipe);
  RamSender sender({block});
  ASSERT_TRUE(writer.begin(0) && sender.send_blocks(writer) && sender.send_pass(writer) && writer.end({}));
  StreamReader reader(pipe);
  ASSERT_TRUE(reader.begin());
  ASSERT_TRUE(receive_ram(reader, {there}));
  EXPECT_NE(there->code_generation(kPageSize)->load(), generation);
}

class HostileRam : public ::testing::Test {
 protected:
  // What receiving answers after `records`.
  template <class Records>
  std::string receive(Records records) {
    Pipe pipe;
    StreamWriter writer(pipe);
    EXPECT_TRUE(writer.begin(0));
    records(writer);
    EXPECT_TRUE(writer.end({}));
    StreamReader reader(pipe);
    EXPECT_TRUE(reader.begin());
    const auto done = receive_ram(reader, {block_});
    return done ? "" : done.error().message;
  }
  std::shared_ptr<RamBlock> block_ = ram("ram", 16);
  std::vector<uint8_t> page_ = std::vector<uint8_t>(kPageSize, 1);
};

TEST_F(HostileRam, OtherBlocksAreRefused) {
  EXPECT_NE(receive([](StreamWriter&) {}), "");
  EXPECT_NE(receive([](StreamWriter& w) { (void)w.block(1, "ram", 65536); }), "");
  EXPECT_NE(receive([](StreamWriter& w) { (void)w.block(0, "rom", 65536); }), "");
  EXPECT_NE(receive([](StreamWriter& w) { (void)w.block(0, "ram", 131072); }), "");
  EXPECT_NE(receive([](StreamWriter& w) { (void)w.block(0, "ram", 65536), (void)w.block(1, "ram", 65536); }), "");
}

TEST_F(HostileRam, PagesOutsideAreRefused) {
  const auto pages = [this](uint32_t number, uint64_t first) {
    return receive([&](StreamWriter& w) { (void)w.block(0, "ram", 65536), (void)w.pages(number, first, page_); });
  };
  const auto zeros = [this](uint64_t first, uint32_t count) {
    return receive([&](StreamWriter& w) { (void)w.block(0, "ram", 65536), (void)w.zeros(0, first, count); });
  };
  EXPECT_EQ(pages(0, 15), "");
  EXPECT_NE(pages(0, 16), "");
  EXPECT_NE(pages(1, 0), "");
  EXPECT_NE(pages(0, ~uint64_t{0}), "");
  EXPECT_EQ(zeros(0, 16), "");
  EXPECT_NE(zeros(1, 16), "");
  EXPECT_NE(zeros(~uint64_t{0}, 2), "");
  EXPECT_NE(zeros(0, ~uint32_t{0}), "");
  EXPECT_NE(receive([this](StreamWriter& w) { (void)w.pages(0, 0, page_), (void)w.block(0, "ram", 65536); }), "");
}

}  // namespace
}  // namespace kite::snapshot
