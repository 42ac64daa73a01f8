#include "boot/image_bytes.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

namespace kite::boot {
namespace {

// A file that goes with the test.
class ImageFile : public testing::Test {
 protected:
  ImageFile() {
    const int fd = ::mkstemp(path.data());
    if (fd >= 0) ::close(fd);
  }
  ~ImageFile() override { std::filesystem::remove(path); }
  std::vector<uint8_t> fill(size_t bytes) {
    std::vector<uint8_t> data(bytes);
    std::iota(data.begin(), data.end(), uint8_t{1});
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
    return data;
  }

  std::string path = (std::filesystem::temp_directory_path() / "kite-image-XXXXXX").string();
};

TEST_F(ImageFile, IsReadWhole) {
  const std::vector<uint8_t> written = fill(100'001);
  const auto read = read_image(path, "kernel", 1 << 20);
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(std::ranges::equal(*read, written));
}

TEST_F(ImageFile, MayBeEmpty) {
  fill(0);
  const auto read = read_file(path, "kernel", 1 << 20);
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(read->empty());
}

TEST_F(ImageFile, MayBeAsLargeAsTheLimitAndNoLarger) {
  fill(4097);
  EXPECT_TRUE(read_image(path, "kernel", 4097).has_value());
  const auto read = read_image(path, "kernel", 4096);
  ASSERT_FALSE(read.has_value());
  EXPECT_NE(read.error().message.find("larger"), std::string::npos);
}

TEST(ImageBytes, APipeIsReadToItsEnd) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const std::vector<uint8_t> written(60'000, 0x5a);  // less than a pipe holds
  ASSERT_EQ(::write(ends[1], written.data(), written.size()), static_cast<ssize_t>(written.size()));
  ::close(ends[1]);
  const auto read = read_file("/proc/self/fd/" + std::to_string(ends[0]), "module", 1 << 20);
  ::close(ends[0]);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(*read, written);
}

TEST(ImageBytes, WhatGrowsIsReadToItsEnd) {
  const auto read = read_file("/dev/zero", "module", 1 << 20);
  ASSERT_FALSE(read.has_value());  // behind the limit, not at the first buffer's end
  EXPECT_NE(read.error().message.find("1 MiB"), std::string::npos);
}

}  // namespace
}  // namespace kite::boot
