#include "entropy/entropy_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>

#include "entropy/entropy_registry.h"

namespace kite::entropy {
namespace {

class EntropyTest : public ::testing::Test {
 protected:
  EntropyTest() : executor(std::move(*Executor::create("test"))) {
    std::string name = "/tmp/kite-entropy-XXXXXX";
    folder = ::mkdtemp(name.data());
  }
  ~EntropyTest() override { std::filesystem::remove_all(folder); }
  [[nodiscard]] std::string path(std::string_view name) const { return folder + "/" + std::string(name); }

  std::unique_ptr<Executor> executor;
  std::string folder;
};

TEST_F(EntropyTest, TheKernelsGeneratorFillsWhatIsAskedFor) {
  KernelSource source;
  std::array<uint8_t, 64> first{}, second{};
  EXPECT_EQ(source.take(first), first.size());
  EXPECT_EQ(source.take(second), second.size());
  EXPECT_NE(first, second);
}

TEST_F(EntropyTest, AFileThatEndsHasNoMore) {
  const Fd file(::open(path("numbers").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  ASSERT_EQ(::write(file.get(), "abcdef", 6), 6);
  const auto source = FileSource::open(path("numbers"), *executor);
  ASSERT_TRUE(source);
  std::array<uint8_t, 4> bytes{};
  EXPECT_EQ((*source)->take(bytes), 4U);
  EXPECT_EQ(bytes[3], 'd');
  EXPECT_EQ((*source)->take(bytes), 2U);
  EXPECT_EQ((*source)->take(bytes), 0U);
  EXPECT_EQ((*source)->take(bytes), 0U);
}

TEST_F(EntropyTest, WhoWaitsForAFileIsTold) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  const Fd writer(::open(path("fifo").c_str(), O_RDWR | O_CLOEXEC));
  const auto source = FileSource::open(path("fifo"), *executor);
  ASSERT_TRUE(source);
  int ready = 0;
  (*source)->set_ready([&] { ++ready; });
  std::array<uint8_t, 4> bytes{};
  EXPECT_EQ((*source)->take(bytes), 0U);
  executor->run_once(0);
  EXPECT_EQ(ready, 0);
  ASSERT_EQ(::write(writer.get(), "xyz", 3), 3);
  for (int i = 0; i < 3; ++i) executor->run_once(0);
  EXPECT_EQ(ready, 1);
  EXPECT_EQ((*source)->take(bytes), 3U);
}

TEST_F(EntropyTest, SourcesAreKnownByTheirIds) {
  EntropyRegistry registry(*executor);
  PropertyMap missing;
  missing.set("filename", path("none"));
  EXPECT_FALSE(registry.add("rng-random", "rng0", missing));
  PropertyMap urandom;
  urandom.set("filename", std::string("/dev/urandom"));
  EXPECT_TRUE(registry.add("rng-random", "rng0", urandom));
  EXPECT_FALSE(registry.add("rng-builtin", "rng0", {}));
  EXPECT_FALSE(registry.add("rng-builtin", "", {}));
  EXPECT_TRUE(registry.add("rng-builtin", "rng1", {}));
  for (const char* id : {"", "rng0", "rng1"}) EXPECT_TRUE(registry.open(id)) << id;
  const auto unknown = registry.open("rng");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("rng0"), std::string::npos);
}

}  // namespace
}  // namespace kite::entropy
