#include "monitor/json_stream.h"

#include <gtest/gtest.h>

#include <vector>

namespace kite::monitor {
namespace {

std::vector<JsonStream::Item> items_of(JsonStream& stream) {
  std::vector<JsonStream::Item> items;
  while (auto item = stream.next()) items.push_back(*item);
  return items;
}

TEST(JsonStreamTest, CutsObjectsWithoutFraming) {
  JsonStream stream;
  stream.feed(R"({"a":1}{"b":{"c":[1,2]}} )");
  const auto items = items_of(stream);
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].text, R"({"a":1})");
  EXPECT_EQ(items[1].text, R"({"b":{"c":[1,2]}})");
}

TEST(JsonStreamTest, WaitsForTheRestOfAnObject) {
  JsonStream stream;
  stream.feed(R"({"execute": "qu)");
  EXPECT_FALSE(stream.next());
  stream.feed(R"(it"})");
  const auto item = stream.next();
  ASSERT_TRUE(item);
  EXPECT_EQ(item->text, R"({"execute": "quit"})");
}

TEST(JsonStreamTest, BracketsInStringsDoNotCount) {
  JsonStream stream;
  stream.feed(R"({"a":"}\"{"})");
  const auto item = stream.next();
  ASSERT_TRUE(item);
  EXPECT_FALSE(item->malformed);
  EXPECT_EQ(item->text, R"({"a":"}\"{"})");
}

TEST(JsonStreamTest, WhatIsNoObjectIsOneErrorALine) {
  JsonStream stream;
  stream.feed("[1, 2]\n{\"a\":1}");
  const auto items = items_of(stream);
  ASSERT_EQ(items.size(), 2u);
  EXPECT_TRUE(items[0].malformed);
  EXPECT_FALSE(items[1].malformed);
}

TEST(JsonStreamTest, DepthIsBounded) {
  JsonStream stream;
  stream.feed("{\"a\":" + std::string(JsonStream::kDeepest, '['));
  const auto item = stream.next();
  ASSERT_TRUE(item);
  EXPECT_TRUE(item->malformed);
}

TEST(JsonStreamTest, LengthIsBounded) {
  JsonStream stream;
  stream.feed("{\"a\":\"" + std::string(JsonStream::kLongest, 'x'));
  const auto item = stream.next();
  ASSERT_TRUE(item);
  EXPECT_TRUE(item->malformed);
  EXPECT_FALSE(stream.next());
}

}  // namespace
}  // namespace kite::monitor
