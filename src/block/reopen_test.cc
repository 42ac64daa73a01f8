#include "block/reopen.h"

#include "block/bitmap_requests.h"
#include "block/jobs/job_bench.h"

namespace kite::block {
namespace {

class ReopenTest : public JobBench {
 protected:
  Result<> again(const std::vector<std::string>& nodes) {
    std::vector<BlockOptions> options;
    for (const std::string& text : nodes) options.push_back(*BlockOptions::parse(text));
    return run(reopen(*graph_, jobs_, std::move(options)));
  }
  std::string refusal(const std::string& options) {
    const auto done = again({options});
    EXPECT_FALSE(done) << options;
    return done ? "" : done.error().message;
  }
  // All that the options of a node of image() are, and more.
  static std::string options(const std::string& name, const std::string& more) {
    return "driver=qcow2,node-name=" + name + ",file=" + name + "-disk,discard=unmap," + more;
  }
};

TEST_F(ReopenTest, AnImageBecomesWritableAndReadOnlyAgain) {
  image("base");
  const NodePtr node = graph_->find("base");
  ASSERT_TRUE(add_bitmap(*node, {.name = "kept", .persistent = true}));
  ASSERT_TRUE(again({options("base", "read-only=on")})) << "it can be read-only";
  EXPECT_TRUE(node->read_only());
  EXPECT_FALSE(node->bitmaps().find("kept")->may(DirtyBitmap::Need::kRemove));
  ASSERT_TRUE(again({options("base", "read-only=off")}));
  EXPECT_FALSE(node->read_only());
  EXPECT_TRUE(node->bitmaps().find("kept")->may(DirtyBitmap::Need::kRemove)) << "bitmaps follow";
}

TEST_F(ReopenTest, ANodeThatIsWrittenStaysWritable) {
  attach(image("disk"));
  const std::string why = refusal(options("disk", "read-only=on"));
  EXPECT_NE(why.find("device 'd' writes"), std::string::npos) << why;
}

TEST_F(ReopenTest, ABackingFileIsExchanged) {
  attach(image("one"));
  write(0, 4096, 1);
  EXPECT_TRUE(run(drive_->close()));
  std::ranges::fill(model_, 0);
  attach(image("two"));
  write(0, 4096, 2);
  EXPECT_TRUE(run(drive_->close()));
  const NodePtr top = image("top", "one");
  EXPECT_EQ(content(*top)[0], 1);
  ASSERT_TRUE(again({options("top", "backing=two")}));
  EXPECT_EQ(content(*top)[0], 2);
  ASSERT_TRUE(again({options("top", "backing=")}));
  EXPECT_EQ(content(*top)[0], 0);
}

TEST_F(ReopenTest, CirclesAreRefused) {
  image("base");
  image("top", "base");
  const std::string why = refusal(options("base", "backing=top"));
  EXPECT_NE(why.find("cycle"), std::string::npos) << why;
}

TEST_F(ReopenTest, AllOfThemOrNone) {
  image("one");
  attach(image("two"));
  EXPECT_FALSE(again({options("one", "read-only=on"), options("two", "read-only=on")}));
  EXPECT_FALSE(graph_->find("one")->read_only());
  EXPECT_FALSE(again({options("one", "read-only=on"), options("one", "read-only=on")})) << "named twice";
}

TEST_F(ReopenTest, WhatCannotChangeIsRefusedByName) {
  image("base");
  image("top", "base");
  const auto names = [&](const std::string& text, const std::string& word) {
    const std::string why = refusal(text);
    EXPECT_NE(why.find(word), std::string::npos) << text << ": " << why;
  };
  names("driver=qcow2,node-name=none", "'none'");
  names("driver=raw,node-name=base,file=base-disk,discard=unmap", "'driver'");
  names("driver=qcow2,node-name=base,file=top-disk,discard=unmap", "'file'");
  names("driver=qcow2,node-name=base,file=base-disk", "'discard'");
  names(options("base", "cache.direct=on"), "'cache.direct'");
  names(options("base", "detect-zeroes=on"), "'detect-zeroes'");
  names(options("base", "lazy-refcounts=on"), "'lazy-refcounts'");
  names(options("top", "read-only=on"), "backing is missing");
  names(options("top", "backing=none"), "'none'");
}

}  // namespace
}  // namespace kite::block
