// Dirty bitmaps on their way from one graph to another.
#include "machine/moved_bitmaps.h"

#include <gtest/gtest.h>

#include "block/bitmap_requests.h"
#include "block/plain_nodes.h"

namespace kite::machine {
namespace {

using block::BitmapPtr;
using block::BlockGraph;
using block::DirtyBitmap;
using block::MemoryNode;
using block::NodeConfig;
using block::NodePtr;

constexpr uint64_t kBytes = 1 << 20;

class MovedBitmapsTest : public ::testing::Test {
 protected:
  NodePtr node(BlockGraph& graph, const std::string& name, uint64_t bytes = kBytes) {
    auto made = std::make_shared<MemoryNode>(*executor_, NodeConfig{.name = name}, bytes, false);
    EXPECT_TRUE(graph.adopt(made));
    kept_.push_back(made);
    return made;
  }
  // One with a few bits.
  static BitmapPtr bitmap(block::BlockNode& node, const std::string& name, bool enabled = true) {
    auto made = block::add_bitmap(node, {.name = name, .granularity = 4096, .enabled = enabled});
    EXPECT_TRUE(made);
    (*made)->mark(0, 1);
    DirtyBitmap& bits = **made;
    auto chunks = bits.chunks();
    chunks.mark(40960, 8192);
    bits.set_chunks(chunks);
    return *made;
  }
  template <class T>
  T run(Task<T> task) {
    return block::run_until_done(*executor_, std::move(task));
  }
  std::vector<uint8_t> packed(std::optional<BitmapMapping> mapping = {}) {
    auto bytes = run(pack_bitmaps(from_, std::move(mapping)));
    EXPECT_TRUE(bytes) << bytes.error().message;
    return bytes ? *bytes : std::vector<uint8_t>();
  }

  std::unique_ptr<Executor> executor_ = *Executor::create("test");
  BlockGraph from_{*executor_}, to_{*executor_};
  std::vector<NodePtr> kept_;
};

TEST_F(MovedBitmapsTest, TheyArriveAsTheyWere) {
  const NodePtr there = node(from_, "disk"), here = node(to_, "disk");
  const BitmapPtr before = bitmap(*there, "changes");
  bitmap(*there, "off", false);
  ASSERT_TRUE(run(unpack_bitmaps(to_, {}, packed())));
  const BitmapPtr after = here->bitmaps().find("changes");
  ASSERT_NE(after, nullptr);
  EXPECT_EQ(after->granularity(), 4096u);
  EXPECT_TRUE(after->enabled);
  EXPECT_EQ(after->chunks().bytes(), before->chunks().bytes());
  for (size_t i = 0; i < after->chunks().chunks(); ++i) EXPECT_EQ(after->chunks().test(i), before->chunks().test(i));
  ASSERT_NE(here->bitmaps().find("off"), nullptr);
  EXPECT_FALSE(here->bitmaps().find("off")->enabled);
}

TEST_F(MovedBitmapsTest, OneThatIsThereAlreadyGetsWhatHasCome) {
  bitmap(*node(from_, "disk"), "changes");
  const NodePtr here = node(to_, "disk");
  ASSERT_TRUE(block::add_bitmap(*here, {.name = "changes", .granularity = 65536}));
  ASSERT_TRUE(run(unpack_bitmaps(to_, {}, packed())));
  EXPECT_EQ(here->bitmaps().all().size(), 1u);
  EXPECT_EQ(here->bitmaps().find("changes")->granularity(), 4096u);
}

TEST_F(MovedBitmapsTest, NamesAreMappedAtBothEnds) {
  bitmap(*node(from_, "source-node"), "b0");
  const NodePtr here = node(to_, "target-node");
  const BitmapMapping there{{{.name = "source-node", .alias = "vda", .bitmaps = {{.name = "b0", .alias = "x"}}}}};
  const BitmapMapping map{{{.name = "target-node", .alias = "vda", .bitmaps = {{.name = "b1", .alias = "x"}}}}};
  ASSERT_TRUE(run(unpack_bitmaps(to_, map, packed(there))));
  EXPECT_NE(here->bitmaps().find("b1"), nullptr);
  const BitmapMapping other{{{.name = "target-node", .alias = "vdb", .bitmaps = {}}}};
  EXPECT_TRUE(run(unpack_bitmaps(to_, other, packed(there)))) << "what has no name here is dropped";
  EXPECT_EQ(here->bitmaps().all().size(), 1u);
}

TEST_F(MovedBitmapsTest, WhereTheyDoNotFitTheyAreDropped) {
  bitmap(*node(from_, "disk"), "changes");
  const NodePtr here = node(to_, "disk", kBytes / 2);
  EXPECT_TRUE(run(unpack_bitmaps(to_, {}, packed())));
  EXPECT_TRUE(here->bitmaps().empty());
}

TEST_F(MovedBitmapsTest, DamagedBytesAreRefused) {
  bitmap(*node(from_, "disk"), "changes");
  node(to_, "disk");
  const std::vector<uint8_t> whole = packed();
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_FALSE(run(unpack_bitmaps(to_, {}, {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes)})))
        << bytes;
  }
  // Whatever single bytes become, nothing worse happens than that.
  for (size_t at = 0; at < whole.size(); ++at) {
    std::vector<uint8_t> bad = whole;
    bad[at] ^= 0xff;
    (void)run(unpack_bitmaps(to_, {}, std::move(bad)));
  }
}

}  // namespace
}  // namespace kite::machine
