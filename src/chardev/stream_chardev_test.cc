#include "chardev/stream_chardev.h"

#include <fcntl.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "chardev/file_chardev.h"
#include "chardev/pty_chardev.h"
#include "chardev/stdio_chardev.h"
#include "chardev/terminal.h"
#include "chardev/test_client.h"

namespace kite {
namespace {

using namespace testing_support;
using enum ChardevEvent;

class TempDir {
 public:
  TempDir() {
    std::string name = testing::TempDir() + "kite_chardev_XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

std::string contents(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}
void fill(const std::string& path, std::string_view text) { std::ofstream(path) << text; }

// --- files ---

TEST(FileChardev, WritesFromTheBeginningOfAnEmptyFile) {
  auto executor = make_executor();
  TempDir dir;
  fill(dir / "out", "old contents");
  auto file = *FileChardev::create("f", *executor, Fd(), {.path = dir / "out"});

  EXPECT_EQ(file->write(bytes_of("hello")), 5u);

  EXPECT_EQ(contents(dir / "out"), "hello");
  EXPECT_EQ(file->filename(), "file:" + (dir / "out"));
}

TEST(FileChardev, AppendsWhenAsked) {
  auto executor = make_executor();
  TempDir dir;
  fill(dir / "out", "old ");
  auto file = *FileChardev::create("f", *executor, Fd(), {.path = dir / "out", .append = true});

  file->write(bytes_of("new"));

  EXPECT_EQ(contents(dir / "out"), "old new");
}

TEST(FileChardev, ReadsItsInputAsFastAsTheClientTakesIt) {
  auto executor = make_executor();
  TempDir dir;
  fill(dir / "in", "0123456789");
  auto file = *FileChardev::create("f", *executor, Fd(), {.path = dir / "out", .input_path = dir / "in"});
  RecordingClient client;
  client.room = 4;
  client.bounded = true;
  file->set_client(&client);
  settle(*executor);
  EXPECT_EQ(client.text, "0123");

  client.room = 100;
  file->accept_input();
  run_until(*executor, [&] { return client.text.size() == 10; });

  EXPECT_EQ(client.text, "0123456789");
}

TEST(FileChardev, EndOfInputStopsTheLoopFromSpinning) {
  auto executor = make_executor();
  TempDir dir;
  fill(dir / "in", "x");
  auto file = *FileChardev::create("f", *executor, Fd(), {.path = dir / "out", .input_path = dir / "in"});
  RecordingClient client;
  file->set_client(&client);
  run_until(*executor, [&] { return client.text == "x"; });
  settle(*executor);
  HostClock clock(HostClock::Kind::kMonotonic);
  const int64_t before = clock.now();

  executor->run_once(3'000'000);

  EXPECT_GE(clock.now() - before, 3'000'000);
  EXPECT_TRUE(file->is_open());
}

TEST(FileChardev, RefusesWhatCannotBeOpenedByName) {
  auto executor = make_executor();

  const auto file = FileChardev::create("f", *executor, Fd(), {.path = "/nonexistent/out"});

  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().message, "cannot open '/nonexistent/out' for writing: No such file or directory");
}

TEST(NullChardev, TakesEverythingAndCopiesItToTheLog) {
  auto executor = make_executor();
  TempDir dir;
  NullChardev null("n", *executor, Fd(::open((dir / "log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)));
  RecordingClient client;
  null.set_client(&client);

  EXPECT_EQ(null.write(bytes_of("gone")), 4u);

  EXPECT_EQ(client.events, std::vector{kOpened});
  EXPECT_EQ(contents(dir / "log"), "gone");
}

// --- standard input and output ---

struct Pipes {
  Pipes() {
    std::array<int, 2> fds{};
    EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
    in_read.reset(fds[0]);
    in_write.reset(fds[1]);
    EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
    out_read.reset(fds[0]);
    out_write.reset(fds[1]);
  }
  Fd in_read, in_write, out_read, out_write;
};

std::unique_ptr<StdioChardev> make_stdio(Executor& executor, int input, int output, bool signals = true) {
  return std::move(*StdioChardev::create("s", executor, Fd(), {.input = input, .output = output, .signals = signals}));
}

TEST(StdioChardev, MovesBytesBothWays) {
  auto executor = make_executor();
  Pipes pipes;
  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());
  RecordingClient client;
  stdio->set_client(&client);

  ASSERT_EQ(::write(pipes.in_write.get(), "in", 2), 2);
  run_until(*executor, [&] { return client.text == "in"; });
  stdio->write(bytes_of("out"));

  EXPECT_EQ(read_from(*executor, pipes.out_read.get(), 3), "out");
}

TEST(StdioChardev, LeavesTheFlagsOfSharedDescriptorsAlone) {
  auto executor = make_executor();
  Pipes pipes;

  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());

  EXPECT_EQ(::fcntl(pipes.in_read.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(pipes.out_write.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST(StdioChardev, EndOfInputIsNotTheEndOfOutput) {
  auto executor = make_executor();
  Pipes pipes;
  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());
  RecordingClient client;
  stdio->set_client(&client);

  pipes.in_write.reset();
  settle(*executor);
  stdio->write(bytes_of("still"));

  EXPECT_EQ(read_from(*executor, pipes.out_read.get(), 5), "still");
  EXPECT_EQ(client.events, std::vector{kOpened});
}

TEST(StdioChardev, AReaderThatDoesNotReadNeverBlocksTheWriter) {
  auto executor = make_executor();
  Pipes pipes;
  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());
  RecordingClient client;
  stdio->set_client(&client);
  const std::string much(4 << 20, 'k');

  const size_t taken = stdio->write(bytes_of(much));
  EXPECT_GE(taken, StreamChardev::kOutputBound);
  EXPECT_LT(taken, much.size());
  EXPECT_EQ(stdio->write(bytes_of("x")), 0u);
  EXPECT_EQ(client.writables, 0);

  EXPECT_EQ(read_from(*executor, pipes.out_read.get(), taken), much.substr(0, taken));
  settle(*executor);
  EXPECT_EQ(client.writables, 1);
}

TEST(StdioChardev, OrderIsKeptAcrossTheQueue) {
  auto executor = make_executor();
  Pipes pipes;
  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());
  std::string expected;
  for (int i = 0; i < 40'000; ++i) {
    const std::string line = std::to_string(i) + "\n";
    ASSERT_EQ(stdio->write(bytes_of(line)), line.size());
    expected += line;
  }

  EXPECT_EQ(read_from(*executor, pipes.out_read.get(), expected.size()), expected);
}

TEST(StdioChardev, BytesThatComeOneByOneGoOutTogetherAndSoon) {
  auto executor = make_executor();
  Pipes pipes;
  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());
  ::fcntl(pipes.out_read.get(), F_SETFL, O_NONBLOCK);  // for read_from(): the loop has something to do meanwhile
  const std::string text = "abcdefghij";
  const auto start = std::chrono::steady_clock::now();

  for (const char letter : text) ASSERT_EQ(stdio->write(bytes_of(std::string(1, letter))), 1u);

  int there = 0;
  ASSERT_EQ(::ioctl(pipes.out_read.get(), FIONREAD, &there), 0);
  if (std::chrono::steady_clock::now() - start < std::chrono::nanoseconds(StreamChardev::kCollectNs)) {
    EXPECT_EQ(there, 1);
  }
  EXPECT_EQ(read_from(*executor, pipes.out_read.get(), text.size()), text);
}

TEST(StdioChardev, FlushSendsWhatIsBeingCollected) {
  auto executor = make_executor();
  Pipes pipes;
  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());
  for (int i = 0; i < 5; ++i) stdio->write(bytes_of("x"));

  stdio->flush();

  int there = 0;
  ASSERT_EQ(::ioctl(pipes.out_read.get(), FIONREAD, &there), 0);
  EXPECT_EQ(there, 5);
}

TEST(StdioChardev, WhatIsBeingCollectedGoesOutAtTheEnd) {
  auto executor = make_executor();
  Pipes pipes;
  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());
  for (int i = 0; i < 5; ++i) stdio->write(bytes_of("x"));

  stdio.reset();

  int there = 0;
  ASSERT_EQ(::ioctl(pipes.out_read.get(), FIONREAD, &there), 0);
  EXPECT_EQ(there, 5);
}

TEST(StdioChardev, AReaderThatLeavesMakesOutputVanish) {
  ::signal(SIGPIPE, SIG_IGN);
  auto executor = make_executor();
  Pipes pipes;
  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());
  pipes.out_read.reset();
  testing::internal::CaptureStderr();

  EXPECT_EQ(stdio->write(bytes_of("abc")), 3u);
  EXPECT_EQ(stdio->write(bytes_of("abc")), 3u);
  settle(*executor);

  EXPECT_EQ(testing::internal::GetCapturedStderr(), "kite: warning: chardev 's': cannot write to stdio: Broken pipe\n");
}

TEST(StdioChardev, FlushSendsWhatIsQueued) {
  auto executor = make_executor();
  Pipes pipes;
  auto stdio = make_stdio(*executor, pipes.in_read.get(), pipes.out_write.get());
  const size_t taken = stdio->write(bytes_of(std::string(70'000, 'q')));
  ASSERT_EQ(taken, 70'000u);  // more than a pipe holds
  std::array<char, 8192> part;
  ASSERT_GT(::read(pipes.out_read.get(), part.data(), part.size()), 0);

  stdio->flush();

  int left = 0;
  ASSERT_EQ(::ioctl(pipes.out_read.get(), FIONREAD, &left), 0);
  EXPECT_EQ(left, 70'000 - 8192);
}

TEST(StdioChardev, TerminalIsRawWhileItLives) {
  auto executor = make_executor();
  int master = -1, slave = -1;
  ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  const Fd own_master(master), own_slave(slave);
  termios modes{};

  auto stdio = make_stdio(*executor, slave, slave, false);
  ::tcgetattr(slave, &modes);
  EXPECT_EQ(modes.c_lflag & (ICANON | ECHO | ISIG), 0u);
  stdio.reset();

  ::tcgetattr(slave, &modes);
  EXPECT_EQ(modes.c_lflag & (ICANON | ECHO | ISIG), static_cast<tcflag_t>(ICANON | ECHO | ISIG));
}

// --- pseudo-terminals ---

class PtyChardevTest : public testing::Test {
 protected:
  void SetUp() override { pty->set_client(&client); }
  void TearDown() override { pty->set_client(nullptr); }

  Fd open_other_side() { return Fd(::open(pty->path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)); }
  void look() { clock.advance(PtyChardev::kLookAgainNs); }

  std::unique_ptr<Executor> executor = make_executor();
  ManualClock clock;
  std::unique_ptr<PtyChardev> pty = std::move(*PtyChardev::create("p", *executor, Fd(), clock));
  RecordingClient client;
};

TEST_F(PtyChardevTest, IsClosedAndDropsOutputUntilSomebodyComes) {
  EXPECT_FALSE(pty->is_open());
  EXPECT_EQ(pty->write(bytes_of("lost")), 4u);
  const Fd user = open_other_side();
  look();
  EXPECT_TRUE(pty->is_open());

  pty->write(bytes_of("seen\n"));

  EXPECT_EQ(read_from(*executor, user.get(), 5), "seen\n");
}

TEST_F(PtyChardevTest, HandsOverKeysUntouched) {
  const Fd user = open_other_side();
  look();

  ASSERT_EQ(::write(user.get(), "a\r\x03", 3), 3);
  run_until(*executor, [&] { return client.text.size() == 3; });

  EXPECT_EQ(client.text, "a\r\x03");
}

TEST_F(PtyChardevTest, TellsWhenUsersComeAndGo) {
  Fd user = open_other_side();
  look();
  EXPECT_EQ(client.events, std::vector{kOpened});

  user.reset();
  run_until(*executor, [&] { return client.count(kClosed) == 1; });
  EXPECT_FALSE(pty->is_open());
  user = open_other_side();
  look();

  EXPECT_EQ(client.events, (std::vector{kOpened, kClosed, kOpened}));
}

TEST_F(PtyChardevTest, NoticesALeavingUserWhileTheClientTakesNothing) {
  client.room = 0;
  Fd user = open_other_side();
  look();
  ASSERT_EQ(::write(user.get(), "unread", 6), 6);
  settle(*executor);

  user.reset();
  run_until(*executor, [&] { return client.count(kClosed) == 1; });

  EXPECT_EQ(client.text, "");
}

}  // namespace
}  // namespace kite
