#include "block/options.h"

#include <gtest/gtest.h>

namespace kite::block {
namespace {

TEST(BlockOptions, DottedNamesAndJsonAreTheSame) {
  const auto dotted = BlockOptions::parse("driver=qcow2,file.driver=file,file.filename=a,,b.img");
  const auto json = BlockOptions::parse(R"({"driver":"qcow2","file":{"driver":"file","filename":"a,b.img"}})");
  ASSERT_TRUE(dotted && json);
  EXPECT_EQ(dotted->all(), json->all());
}

TEST(BlockOptions, ANullChildIsAnEmptyReference) {
  auto options = BlockOptions::parse(R"({"driver":"qcow2","backing":null})");
  ASSERT_TRUE(options);
  const BlockOptions child = options->take_child("backing");
  ASSERT_NE(child.find(""), nullptr);
  EXPECT_EQ(*child.find(""), "");
}

TEST(BlockOptions, WhatIsLeftIsNamedWithTheNearestKnownOne) {
  auto options = BlockOptions::parse("lazy-refcount=on");
  ASSERT_TRUE(options);
  options->take("lazy-refcounts");
  const auto result = options->all_taken("qcow2");
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("'lazy-refcount'; did you mean 'lazy-refcounts'?"), std::string::npos)
      << result.error().message;
}

TEST(BlockOptions, DeepJsonIsRefused) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "{\"a\":";
  EXPECT_FALSE(BlockOptions::parse(text + "1" + std::string(1000, '}')));
}

TEST(CacheMode, KnowsWhatQemuKnows) {
  EXPECT_TRUE(parse_cache_mode("none")->direct);
  EXPECT_FALSE(parse_cache_mode("writethrough")->writeback);
  EXPECT_TRUE(parse_cache_mode("unsafe")->no_flush);
  EXPECT_FALSE(parse_cache_mode("writeback")->direct);
  EXPECT_FALSE(parse_cache_mode("write-back"));
}

}  // namespace
}  // namespace kite::block
