#include "accel/jit/perf_map.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace kite::jit {
namespace {

class PerfMapTest : public testing::Test {
 protected:
  ~PerfMapTest() override { ::unlink(path_.c_str()); }
  std::string text() const {
    std::stringstream all;
    all << std::ifstream(path_).rdbuf();
    return all.str();
  }

  const std::string path_ = testing::TempDir() + "perf-map-test-" + std::to_string(::getpid());
};

TEST_F(PerfMapTest, EachPlaceIsALineThatPerfReads) {
  auto map = PerfMap::create(path_);
  ASSERT_TRUE(map) << map.error().message;
  (*map)->add(reinterpret_cast<const void*>(uintptr_t{0x7f0012345000}), 0x120, "guest ffffffff81000000");
  (*map)->add(reinterpret_cast<const void*>(uintptr_t{0x1000}), 16, "leave");
  EXPECT_EQ(text(), "7f0012345000 120 guest ffffffff81000000\n1000 10 leave\n");
}

TEST_F(PerfMapTest, WhatWasThereBeforeIsReplaced) {
  std::ofstream(path_) << "of an earlier process\n";
  ASSERT_TRUE(PerfMap::create(path_));
  EXPECT_EQ(text(), "");
}

TEST_F(PerfMapTest, ALinkUnderTheNameIsNotFollowed) {
  const std::string elsewhere = path_ + "-elsewhere";
  std::ofstream(elsewhere) << "precious";
  ASSERT_EQ(::symlink(elsewhere.c_str(), path_.c_str()), 0);
  auto map = PerfMap::create(path_);
  ASSERT_TRUE(map);
  (*map)->add(nullptr, 1, "x");
  std::stringstream kept;
  kept << std::ifstream(elsewhere).rdbuf();
  ::unlink(elsewhere.c_str());
  EXPECT_EQ(kept.str(), "precious");
}

TEST_F(PerfMapTest, AFolderThatIsMissingIsReported) {
  const auto map = PerfMap::create("/nowhere/at/all/perf.map");
  ASSERT_FALSE(map);
  EXPECT_NE(map.error().message.find("/nowhere/at/all/perf.map"), std::string::npos);
}

}  // namespace
}  // namespace kite::jit
