// Files of the host: what O_DIRECT asks for, holes, locks between two who open the same image, engines.
#include "block/file_node.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>

namespace kite::block {
namespace {

class FileNodeTest : public ::testing::Test {
 protected:
  FileNodeTest() {
    std::string name = std::filesystem::temp_directory_path() / "kite-file-XXXXXX";
    directory_ = ::mkdtemp(name.data());
    path_ = directory_ + "/image";
  }
  ~FileNodeTest() override { std::filesystem::remove_all(directory_); }

  void make_file(uint64_t bytes) {
    const Fd fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  }
  Result<NodePtr> open(NodeConfig config, IoEngine::Kind engine = IoEngine::Kind::kInline) {
    FileNode::Settings settings;
    settings.filename = path_;
    settings.engine = engine;
    return FileNode::open(*executor_, std::move(config), std::move(settings));
  }
  template <class T>
  T run(Task<T> task) {
    return run_until_done(*executor_, std::move(task));
  }
  [[nodiscard]] std::vector<uint8_t> content() const {
    const Fd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat facts{};
    ::fstat(fd.get(), &facts);
    std::vector<uint8_t> bytes(static_cast<size_t>(facts.st_size));
    EXPECT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }
  static NodeConfig writable(bool direct = false) {
    NodeConfig config;
    config.direct = direct;
    config.discard_unmap = true;
    return config;
  }

  std::string directory_, path_;
  std::unique_ptr<Executor> executor_ = *Executor::create("test");
};

// Requests of any shape against a flat model.
void odd_requests(BlockNode& node, Executor& executor, std::vector<uint8_t>& model) {
  std::mt19937 random(7);
  std::vector<uint8_t> memory(200'000);
  for (int i = 0; i < 200; ++i) {
    const size_t offset = random() % model.size();
    const size_t bytes = std::min<size_t>(1 + random() % (i % 5 == 0 ? 150'000 : 3000), model.size() - offset);
    uint8_t* at = memory.data() + random() % 4096;
    if (random() % 3 != 0) {
      std::fill_n(at, bytes, static_cast<uint8_t>(random()));
      std::copy_n(at, bytes, model.begin() + static_cast<std::ptrdiff_t>(offset));
      ASSERT_TRUE(run_until_done(executor, node.write(offset, IoSlice(at, bytes))));
    } else {
      ASSERT_TRUE(run_until_done(executor, node.read(offset, IoSlice(at, bytes))));
      ASSERT_TRUE(std::equal(at, at + bytes, model.begin() + static_cast<std::ptrdiff_t>(offset)));
    }
  }
}

TEST_F(FileNodeTest, DirectRequestsOfAnyShapeAreBounced) {
  make_file(1 << 20);
  auto node = open(writable(true));
  if (!node) GTEST_SKIP() << node.error().message;
  std::vector<uint8_t> model(1 << 20);
  odd_requests(**node, *executor_, model);
  EXPECT_EQ(content(), model);
}

TEST_F(FileNodeTest, ADirectWriteBehindTheEndLeavesTheLengthOfTheData) {
  make_file(0);
  auto node = open(writable(true));
  if (!node) GTEST_SKIP() << node.error().message;
  std::vector<uint8_t> data(700, 5);
  ASSERT_TRUE(run((*node)->write(100, IoSlice(data))));
  const std::vector<uint8_t> file = content();
  ASSERT_EQ(file.size(), 800u);
  EXPECT_EQ(file[99], 0);
  EXPECT_EQ(file[799], 5);
}

Task<void> write_one(BlockNode& node, uint64_t offset, std::vector<uint8_t>& data, unsigned& good) {
  if (co_await node.write(offset, IoSlice(data))) ++good;
}

TEST_F(FileNodeTest, DirectWritesOfNeighboursInOneBlockLoseNothing) {
  make_file(8192);
  auto node = open(writable(true), IoEngine::Kind::kThreads);
  if (!node) GTEST_SKIP() << node.error().message;
  std::vector<std::vector<uint8_t>> data;
  for (uint8_t i = 0; i < 16; ++i) data.emplace_back(100, static_cast<uint8_t>(i + 1));
  unsigned good = 0;
  TaskScope scope;
  for (size_t i = 0; i < data.size(); ++i) scope.spawn(write_one(**node, i * 100, data[i], good));
  while (!scope.idle()) executor_->run_once(Clock::kNever);
  EXPECT_EQ(good, 16u);
  const std::vector<uint8_t> file = content();
  for (size_t i = 0; i < 1600; ++i) ASSERT_EQ(file[i], i / 100 + 1) << i;
}

TEST_F(FileNodeTest, EveryEngineDoesTheSame) {
  for (const auto kind :
       {IoEngine::Kind::kInline, IoEngine::Kind::kThreads, IoEngine::Kind::kUring, IoEngine::Kind::kAuto}) {
    make_file(1 << 20);
    auto node = open(writable(), kind);
    if (!node && kind == IoEngine::Kind::kUring) continue;  // a kernel without it
    ASSERT_TRUE(node) << node.error().message;
    std::vector<uint8_t> model(1 << 20);
    odd_requests(**node, *executor_, model);
    ASSERT_TRUE(run((*node)->flush()));
    EXPECT_EQ(content(), model);
    ASSERT_TRUE(run((*node)->close()));
  }
}

TEST_F(FileNodeTest, DiscardAndZeroesWithUnmapGiveSpaceBack) {
  make_file(0);
  auto node = open(writable());
  ASSERT_TRUE(node) << node.error().message;
  std::vector<uint8_t> data(1 << 20, 1);
  ASSERT_TRUE(run((*node)->write(0, IoSlice(data))));
  ASSERT_TRUE(run((*node)->flush()));
  const uint64_t full = (*node)->allocated_bytes();
  ASSERT_TRUE(run((*node)->discard(0, 1 << 19)));
  ASSERT_TRUE(run((*node)->write_zeroes(1 << 19, 1 << 18, {.flags = IoHow::kMayUnmap})));
  EXPECT_LT((*node)->allocated_bytes(), full);
  const auto status = run((*node)->block_status(0, 1 << 20));
  ASSERT_TRUE(status);
  EXPECT_TRUE(status->zero);
  EXPECT_GE(status->bytes, uint64_t{1} << 19);
  ASSERT_TRUE(run((*node)->read(0, IoSlice(data))));
  EXPECT_TRUE(is_zero(data.data(), 3u << 18));
  EXPECT_EQ(data.back(), 1);
}

TEST_F(FileNodeTest, ZeroesWithoutUnmapKeepTheSpace) {
  make_file(0);
  auto node = open(writable());
  ASSERT_TRUE(node);
  std::vector<uint8_t> data(1 << 20, 1);
  ASSERT_TRUE(run((*node)->write(0, IoSlice(data))));
  const uint64_t full = (*node)->allocated_bytes();
  ASSERT_TRUE(run((*node)->write_zeroes(0, 1 << 20)));
  EXPECT_EQ((*node)->allocated_bytes(), full);
  EXPECT_TRUE(is_zero(content().data(), 1 << 20));
}

// The exit status of a process that opens the image and claims it for writing: 0 when it may.
int other_process(const std::string& path, bool writes) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto executor = *Executor::create("child");
    NodeConfig config;
    config.read_only = !writes;
    FileNode::Settings settings;
    settings.filename = path;
    settings.engine = IoEngine::Kind::kInline;
    const auto node = FileNode::open(*executor, config, settings);
    if (!node) ::_exit(2);
    Permissions permissions{.need = Permissions::kConsistentRead,
                            .shared = Permissions::kConsistentRead | Permissions::kWriteUnchanged};
    if (writes) permissions.need |= Permissions::kWrite;
    ::_exit(NodeUse::claim(*node, "the child", permissions) ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(FileNodeTest, TwoProcessesDoNotWriteOneImage) {
  make_file(65536);
  auto node = open(writable());
  ASSERT_TRUE(node);
  {
    const auto use = NodeUse::claim(*node, "the test",
                                    {.need = Permissions::kConsistentRead | Permissions::kWrite,
                                     .shared = Permissions::kConsistentRead | Permissions::kWriteUnchanged});
    ASSERT_TRUE(use) << use.error().message;
    EXPECT_EQ(other_process(path_, true), 1);
    EXPECT_EQ(other_process(path_, false), 1) << "who bears no writer";
  }
  EXPECT_EQ(other_process(path_, true), 0) << "the lock goes with its user";
}

TEST_F(FileNodeTest, ReadersShareAnImage) {
  make_file(65536);
  NodeConfig config;
  config.read_only = true;
  auto node = open(config);
  ASSERT_TRUE(node);
  const auto use = NodeUse::claim(
      *node, "the test",
      {.need = Permissions::kConsistentRead, .shared = Permissions::kConsistentRead | Permissions::kWriteUnchanged});
  ASSERT_TRUE(use);
  EXPECT_EQ(other_process(path_, false), 0);
  EXPECT_EQ(other_process(path_, true), 1);
}

// A file that not even root may open for writing.
constexpr const char* kReadOnlyFile = "/sys/kernel/uevent_seqnum";

TEST_F(FileNodeTest, WhatCannotBeWrittenIsReadOnlyWhenThatIsAllowed) {
  path_ = kReadOnlyFile;
  if (::access(kReadOnlyFile, R_OK) != 0) GTEST_SKIP() << "there is no " << kReadOnlyFile;
  NodeConfig config = writable();
  config.auto_read_only = true;

  auto node = open(config);

  ASSERT_TRUE(node) << node.error().message;
  EXPECT_TRUE((*node)->read_only());
  uint8_t byte = 0;
  EXPECT_FALSE(run((*node)->write(0, IoSlice(&byte, 1))));
}

TEST_F(FileNodeTest, WhatCannotBeWrittenIsRefusedOtherwise) {
  path_ = kReadOnlyFile;
  if (::access(kReadOnlyFile, R_OK) != 0) GTEST_SKIP() << "there is no " << kReadOnlyFile;

  EXPECT_FALSE(open(writable()));
}

TEST_F(FileNodeTest, ANodeKnowsHowFarItWasWritten) {
  make_file(1 << 20);
  auto node = open(writable());
  ASSERT_TRUE(node);
  uint8_t bytes[100] = {};

  EXPECT_EQ((*node)->highest_written(), 0u);
  ASSERT_TRUE(run((*node)->write(1000, IoSlice(bytes, sizeof bytes))));
  ASSERT_TRUE(run((*node)->write(10, IoSlice(bytes, sizeof bytes))));

  EXPECT_EQ((*node)->highest_written(), 1100u);
}

}  // namespace
}  // namespace kite::block
