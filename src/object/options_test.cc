#include <gtest/gtest.h>

#include <random>

#include "object/object_type.h"

namespace kite {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

Pairs parsed(std::string_view text, std::string_view implied = "") {
  const auto pairs = parse_options(text, implied);
  EXPECT_TRUE(pairs) << pairs.error().message;
  return pairs.value_or(Pairs{});
}

std::string refusal(std::string_view text, std::string_view key = "driver") {
  const auto options = parse_object_options(text, key);
  EXPECT_FALSE(options);
  return options ? "" : options.error().message;
}

TEST(ParseOptions, SplitsPairsAndBareNames) {
  EXPECT_EQ(parsed("file=x,if=virtio,readonly"), (Pairs{{"file", "x"}, {"if", "virtio"}, {"readonly", "on"}}));
}

TEST(ParseOptions, FirstBareValueIsTheImpliedOne) {
  EXPECT_EQ(parsed("stdio,mux=on", "backend"), (Pairs{{"backend", "stdio"}, {"mux", "on"}}));
  EXPECT_EQ(parsed("mux=on,stdio", "backend"), (Pairs{{"mux", "on"}, {"stdio", "on"}}));
}

TEST(ParseOptions, DoubledCommasStandForOne) {
  EXPECT_EQ(parsed("path=/a,,b,id=c,,,x=1"), (Pairs{{"path", "/a,b"}, {"id", "c,"}, {"x", "1"}}));
  EXPECT_EQ(parsed("a,,b", "file"), (Pairs{{"file", "a,b"}}));
}

TEST(ParseOptions, ValuesMayHoldEqualSignsAndBeEmpty) {
  EXPECT_EQ(parsed("append=root=/dev/sda,x="), (Pairs{{"append", "root=/dev/sda"}, {"x", ""}}));
}

TEST(ParseOptions, TrailingCommaIsHarmless) { EXPECT_EQ(parsed("a=1,"), (Pairs{{"a", "1"}})); }

TEST(ParseOptions, EmptyTextIsNothing) { EXPECT_EQ(parsed("", "file"), Pairs{}); }

TEST(ParseOptions, RefusesAValueWithoutAName) {
  EXPECT_EQ(parse_options("a=1,=2", "").error().message, "'=2' has no name before '='");
}

TEST(ParseObjectOptions, TypeComesBareOrByItsKey) {
  for (const std::string_view text : {"isa-serial,chardev=c0,id=s1", "chardev=c0,driver=isa-serial,id=s1"}) {
    const auto options = parse_object_options(text, "driver");

    ASSERT_TRUE(options) << text;
    EXPECT_EQ(options->type, "isa-serial");
    EXPECT_EQ(options->id, "s1");
    EXPECT_EQ(options->values, (Pairs{{"chardev", "c0"}}));
  }
}

TEST(ParseObjectOptions, RefusesAMissingOrRepeatedType) {
  EXPECT_EQ(refusal("id=s1,chardev=c0"), "'id=s1,chardev=c0' names no driver");
  EXPECT_EQ(refusal("a,driver=b"), "'driver' is given twice in 'a,driver=b'");
}

TEST(ParseObjectOptions, RefusesABadId) {
  EXPECT_EQ(refusal("a,id=7x"), "id '7x': an id is a letter followed by letters, digits, '-', '.' and '_'");
}

TEST(ParseObjectOptions, TakesJson) {
  const auto options = parse_object_options(
      R"({"driver": "isa-serial", "id": "s1", "iobase": 1016, "wakeup": true, "n": -3})", "driver");

  ASSERT_TRUE(options);
  EXPECT_EQ(options->type, "isa-serial");
  EXPECT_EQ(options->id, "s1");
  EXPECT_EQ(options->values, (Pairs{{"iobase", "1016"}, {"wakeup", "on"}, {"n", "-3"}}));
}

TEST(ParseObjectOptions, JsonMembersInDepthGetDottedNames) {
  const auto options = parse_object_options(R"({"qom-type":"x","a":{"b":"c,d","e":[1,{"f":2},3]},"g":4})", "qom-type");

  ASSERT_TRUE(options);
  EXPECT_EQ(options->values, (Pairs{{"a.b", "c,d"}, {"a.e.0", "1"}, {"a.e.1.f", "2"}, {"a.e.2", "3"}, {"g", "4"}}));
}

TEST(ParseObjectOptions, RefusesBadJsonWithTheReason) {
  EXPECT_EQ(refusal(R"({"driver": )"), "the JSON options are not understood: syntax error at byte 12");
  EXPECT_EQ(refusal(R"({"driver": null})"), "the JSON options are not understood: null is not a value");
  EXPECT_EQ(refusal(R"({"driver":"a","x":1,"x":2})"), "the JSON options are not understood: 'x' is given twice");
  EXPECT_EQ(refusal("{}"), "'{}' names no driver");
  EXPECT_NE(refusal(R"({"driver":"a"} trailing)"), "");
  EXPECT_NE(refusal("{\"driver\":\"\xff\"}"), "");
}

TEST(ParseObjectOptions, RefusesDeepJson) {
  std::string text = R"({"driver":)";
  for (int i = 0; i < 100'000; ++i) text += '[';

  EXPECT_EQ(refusal(text), "the JSON options are not understood: it is nested too deeply");
}

TEST(ParseObjectOptions, RefusesEndlessJson) {
  std::string text = R"({"driver":"a")";
  for (int i = 0; i < 100'000; ++i) text += fmt::format(R"(,"k{}":1)", i);

  EXPECT_EQ(refusal(text + '}'), "the JSON options are not understood: it has too many members");
}

TEST(ParseObjectOptions, RandomTextIsParsedOrRefused) {
  std::mt19937 random(3);
  constexpr std::string_view kAlphabet = "{}[]\":,=\\driver id09.-tn\xff\x01";
  size_t names = 0;

  for (int round = 0; round < 100'000; ++round) {
    std::string text = round % 2 == 0 ? "{" : "";
    for (size_t length = random() % 30; length > 0; --length) text += kAlphabet[random() % kAlphabet.size()];
    const auto options = parse_object_options(text, "driver");
    if (!options) continue;
    EXPECT_FALSE(options->type.empty());
    names += options->values.size();
  }

  EXPECT_GT(names, 0u);
}

TEST(ParseOptions, WhatIsWrittenWithDoubledCommasReadsBack) {
  std::mt19937 random(5);
  constexpr std::string_view kAlphabet = "ab,=\n";

  for (int round = 0; round < 20'000; ++round) {
    std::string value, written;
    for (size_t length = random() % 12; length > 0; --length) {
      const char c = kAlphabet[random() % kAlphabet.size()];
      value += c;
      written += c == ',' ? ",," : std::string(1, c);
    }
    EXPECT_EQ(parsed("x=" + written + ",y=1"), (Pairs{{"x", value}, {"y", "1"}}));
  }
}

}  // namespace
}  // namespace kite
