// The NBD client against a server that is a list of bytes: all it will ever say is in its socket before the client
// asks. The cookies of requests count from 1, so answers can be written ahead.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <numeric>

#include "block/nbd/nbd_node.h"
#include "block/nbd/test_bytes.h"
#include "support/bytes.h"

namespace kite::block::nbd {
namespace {

Bytes option_reply(Option option, uint32_t type, const Bytes& data = {}) {
  Bytes out;
  out.be64(kOptionReplyMagic).be32(static_cast<uint32_t>(option)).be32(type);
  return out.be32(static_cast<uint32_t>(data.bytes.size())).add(data);
}

struct Shape {
  uint64_t bytes = 65536;
  uint16_t flags = kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes;
  uint32_t min_block = 1, preferred_block = 4096, max_block = 1 << 25;
  bool structured = true;
};
constexpr uint32_t kContext = 7;

// What a well-behaved server says until transmission begins.
Bytes greeting(const Shape& shape = {}) {
  Bytes out;
  out.be64(kServerMagic).be64(kOptionMagic).be16(kServerFixedNewstyle | kServerNoZeroes);
  out.add(option_reply(Option::kStructuredReply, shape.structured ? kReplyAck : kErrorUnsupported));
  if (shape.structured) {
    out.add(option_reply(Option::kSetMetaContext, kReplyMetaContext, Bytes().be32(kContext).text("base:allocation")));
    out.add(option_reply(Option::kSetMetaContext, kReplyAck));
  }
  out.add(option_reply(Option::kGo, kReplyInfo, Bytes().be16(kInfoExport).be64(shape.bytes).be16(shape.flags)));
  out.add(option_reply(
      Option::kGo, kReplyInfo,
      Bytes().be16(kInfoBlockSize).be32(shape.min_block).be32(shape.preferred_block).be32(shape.max_block)));
  return out.add(option_reply(Option::kGo, kReplyAck));
}

Bytes simple(uint64_t cookie, uint32_t error = 0) { return Bytes().be32(kSimpleReplyMagic).be32(error).be64(cookie); }
Bytes chunk(uint64_t cookie, uint16_t flags, uint16_t type, const Bytes& data = {}) {
  Bytes out;
  out.be32(kStructuredReplyMagic).be16(flags).be16(type).be64(cookie);
  return out.be32(static_cast<uint32_t>(data.bytes.size())).add(data);
}
Bytes data_at(uint64_t offset, size_t bytes, uint8_t value) { return Bytes().be64(offset).fill(bytes, value); }

class NbdTest : public ::testing::Test {
 protected:
  // A client of a server that says `script`, and then nothing; or ends the connection.
  Result<NodePtr> connect(const Bytes& script, bool read_only = false) {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    Fd client(pair[0]);
    server_.reset(pair[1]);
    const int room = 1 << 20;
    ::setsockopt(server_.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    say(script);
    if (ends_) ::shutdown(server_.get(), SHUT_WR);
    return run(NbdNode::open_over(*executor_, {.name = {}, .read_only = read_only}, std::move(client), "disk"));
  }
  void say(const Bytes& script) {
    EXPECT_EQ(::send(server_.get(), script.bytes.data(), script.bytes.size(), MSG_DONTWAIT),
              static_cast<ssize_t>(script.bytes.size()));
  }
  NodePtr connected(const Bytes& script) {
    auto node = connect(script);
    EXPECT_TRUE(node) << node.error().message;
    (void)sent();
    return node ? *node : nullptr;
  }
  template <class T>
  T run(Task<T> task) {
    return run_until_done(*executor_, std::move(task));
  }
  // What the client has sent since the last look.
  std::vector<uint8_t> sent() {
    std::vector<uint8_t> all(1 << 20);
    const ssize_t count = ::recv(server_.get(), all.data(), all.size(), MSG_DONTWAIT);
    all.resize(count > 0 ? static_cast<size_t>(count) : 0);
    return all;
  }
  std::string refusal(const Bytes& script) {
    const auto node = connect(script);
    EXPECT_FALSE(node);
    return node ? "" : node.error().message;
  }
  // The error of a read of [0, bytes) that is answered so; 0 when it works.
  int read_error(const Bytes& answer, size_t bytes = 4096) {
    const NodePtr node = connected(greeting().add(answer));
    buffer_.assign(bytes, 0xee);
    const auto done = run(node->read(0, IoSlice(buffer_)));
    return done ? 0 : done.error().code;
  }

  std::unique_ptr<Executor> executor_ = *Executor::create("test");
  Fd server_;
  bool ends_ = true;  // the server says no more than its script
  std::vector<uint8_t> buffer_;
};

TEST_F(NbdTest, TellsTheExportsSizeAndBlocks) {
  const auto node = connect(greeting({.bytes = 1 << 20, .min_block = 512, .preferred_block = 65536}));
  ASSERT_TRUE(node) << node.error().message;
  EXPECT_EQ((*node)->length(), 1u << 20);
  EXPECT_EQ((*node)->limits().request_alignment, 512u);
  EXPECT_EQ((*node)->limits().opt_transfer, 65536u);
}

TEST_F(NbdTest, FallsBackToTheExportNameOption) {
  Bytes script;
  script.be64(kServerMagic).be64(kOptionMagic).be16(kServerFixedNewstyle);
  script.add(option_reply(Option::kStructuredReply, kErrorUnsupported));
  script.add(option_reply(Option::kGo, kErrorUnsupported));
  script.be64(8192).be16(kHasFlags).fill(kExportPadding, 0);
  script.add(simple(1)).fill(512, 0x5a);
  const NodePtr node = connected(script);
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(node->length(), 8192u);
  std::vector<uint8_t> data(512);
  ASSERT_TRUE(run(node->read(0, IoSlice(data))));
  EXPECT_EQ(data[511], 0x5a);
}

TEST_F(NbdTest, RefusesWhatIsNoServer) {
  EXPECT_NE(refusal(Bytes().fill(64, 'x')).find("Bad initial magic"), std::string::npos);
  EXPECT_NE(refusal(Bytes().be64(kServerMagic).be64(1)).find("Bad server magic"), std::string::npos);
  EXPECT_NE(refusal(Bytes().be64(kServerMagic)).find("Failed to read"), std::string::npos);
}

TEST_F(NbdTest, NamesTheReasonOfARefusal) {
  Bytes hello;
  hello.be64(kServerMagic).be64(kOptionMagic).be16(kServerFixedNewstyle | kServerNoZeroes);
  Bytes tls = hello;
  EXPECT_NE(refusal(tls.add(option_reply(Option::kStructuredReply, kErrorTlsRequired))).find("TLS"), std::string::npos);
  Bytes missing = hello;
  missing.add(option_reply(Option::kStructuredReply, kErrorUnsupported));
  missing.add(option_reply(Option::kGo, kErrorUnknown, Bytes().text("no\x1b[2Jsuch")));
  const std::string message = refusal(missing);
  EXPECT_NE(message.find("no export 'disk'"), std::string::npos);
  EXPECT_NE(message.find("no?[2Jsuch"), std::string::npos);
}

TEST_F(NbdTest, RefusesImpossibleExports) {
  EXPECT_NE(refusal(greeting({.bytes = UINT64_MAX})).find("too large"), std::string::npos);
  EXPECT_NE(refusal(greeting({.min_block = 3})).find("minimum block size"), std::string::npos);
  EXPECT_NE(refusal(greeting({.min_block = 1u << 20})).find("minimum block size"), std::string::npos);
  EXPECT_NE(refusal(greeting({.min_block = 512, .max_block = 256})).find("maximum block size"), std::string::npos);
  EXPECT_NE(refusal(greeting({.bytes = 1000, .min_block = 512})).find("multiple"), std::string::npos);
}

TEST_F(NbdTest, AReadOnlyExportIsNotOpenedForWriting) {
  EXPECT_NE(refusal(greeting({.flags = kHasFlags | kReadOnly})).find("read-only"), std::string::npos);
  EXPECT_TRUE(connect(greeting({.flags = kHasFlags | kReadOnly}), true));
}

TEST_F(NbdTest, AServerThatNeverEndsAnOptionIsGivenUp) {
  Bytes script;
  script.be64(kServerMagic).be64(kOptionMagic).be16(kServerFixedNewstyle);
  script.add(option_reply(Option::kStructuredReply, kErrorUnsupported));
  for (int i = 0; i < 100; ++i) script.add(option_reply(Option::kGo, kReplyInfo, Bytes().be16(99)));
  EXPECT_NE(refusal(script).find("does not stop"), std::string::npos);
}

TEST_F(NbdTest, PutsTheChunksOfAReadTogether) {
  Bytes answer = chunk(1, 0, kChunkData, data_at(2048, 2048, 3));
  answer.add(chunk(1, 0, kChunkHole, Bytes().be64(1024).be32(1024)));
  answer.add(chunk(1, kChunkDone, kChunkData, data_at(0, 1024, 1)));
  ASSERT_EQ(read_error(answer), 0);
  EXPECT_EQ(buffer_[0], 1);
  EXPECT_EQ(buffer_[1023], 1);
  EXPECT_EQ(buffer_[1024], 0);
  EXPECT_EQ(buffer_[2048], 3);
}

TEST_F(NbdTest, AnErrorChunkIsTheErrorOfTheRequest) {
  Bytes answer = chunk(1, 0, kChunkData, data_at(0, 1024, 1));
  answer.add(chunk(1, kChunkDone, kChunkErrorOffset, Bytes().be32(28).be16(2).text("no").be64(1024)));
  EXPECT_EQ(read_error(answer), ENOSPC);
}

TEST_F(NbdTest, AnswersThatBreakTheProtocolEndTheConnection) {
  EXPECT_EQ(read_error(Bytes().fill(64, 0)), EIO) << "no magic";
  EXPECT_EQ(read_error(chunk(9, kChunkDone, kChunkNone)), EIO) << "a cookie that is not ours";
  EXPECT_EQ(read_error(simple(1)), EIO) << "simple";
  EXPECT_EQ(read_error(chunk(1, kChunkDone, kChunkData, data_at(0, 1024, 1))), EIO) << "too little";
  EXPECT_EQ(read_error(chunk(1, kChunkDone, kChunkData, data_at(0, 8192, 1))), EIO) << "too much";
  EXPECT_EQ(read_error(chunk(1, kChunkDone, kChunkData, data_at(UINT64_MAX - 8, 4096, 1))), EIO) << "wraps around";
  EXPECT_EQ(read_error(chunk(1, kChunkDone, kChunkHole, Bytes().be64(0).be32(0))), EIO) << "an empty hole";
  EXPECT_EQ(read_error(chunk(1, 0, kChunkNone)), EIO) << "nothing, and more to come";
  EXPECT_EQ(read_error(chunk(1, kChunkDone, 77, Bytes().fill(20, 0))), EIO) << "an unknown chunk";
  EXPECT_EQ(read_error(chunk(1, kChunkDone, kChunkError, Bytes().be32(0).be16(0))), EIO) << "no error in an error";
  EXPECT_EQ(read_error(chunk(1, kChunkDone, kChunkError, Bytes().be32(5).be16(9).text("short"))), EIO) << "text";
  Bytes twice = chunk(1, 0, kChunkData, data_at(0, 4096, 1));
  EXPECT_EQ(read_error(twice.add(chunk(1, kChunkDone, kChunkData, data_at(100, 8, 1)))), EIO) << "twice";
  EXPECT_EQ(read_error({}), EIO) << "the end";
}

TEST_F(NbdTest, NothingWorksAfterTheConnectionBroke) {
  const NodePtr node = connected(greeting().add(Bytes().fill(64, 0)));
  std::vector<uint8_t> data(512);
  EXPECT_FALSE(run(node->read(0, IoSlice(data))));
  EXPECT_FALSE(run(node->write(0, IoSlice(data))));
  EXPECT_FALSE(run(node->flush()));
  EXPECT_TRUE(run(node->close()));
}

TEST_F(NbdTest, AWriteCarriesItsDataAndFlags) {
  const NodePtr node = connected(greeting().add(simple(1)));
  std::vector<uint8_t> data(512, 0x42);
  ASSERT_TRUE(run(node->write(1024, IoSlice(data), {.flags = IoHow::kFua})));
  const std::vector<uint8_t> wire = sent();
  ASSERT_EQ(wire.size(), kRequestBytes + 512);
  EXPECT_EQ(load_be32(wire.data()), kRequestMagic);
  EXPECT_EQ(load_be16(wire.data() + 4), kFlagFua);
  EXPECT_EQ(load_be16(wire.data() + 6), static_cast<uint16_t>(Command::kWrite));
  EXPECT_EQ(load_be64(wire.data() + 16), 1024u);
  EXPECT_EQ(load_be32(wire.data() + 24), 512u);
  EXPECT_EQ(wire.back(), 0x42);
}

TEST_F(NbdTest, WithoutFuaADurableWriteIsFollowedByAFlush) {
  const NodePtr node = connected(greeting({.flags = kHasFlags | kSendFlush}).add(simple(1)).add(simple(2)));
  std::vector<uint8_t> data(512);
  ASSERT_TRUE(run(node->write(0, IoSlice(data), {.flags = IoHow::kFua})));
  const std::vector<uint8_t> wire = sent();
  ASSERT_EQ(wire.size(), 2 * kRequestBytes + 512);
  EXPECT_EQ(load_be16(wire.data() + 4), 0);
  EXPECT_EQ(load_be16(wire.data() + kRequestBytes + 512 + 6), static_cast<uint16_t>(Command::kFlush));
}

TEST_F(NbdTest, LessThanABlockIsReadChangedAndWrittenBack) {
  Bytes script = greeting({.min_block = 512});
  script.add(chunk(1, kChunkDone, kChunkData, data_at(512, 1024, 1))).add(simple(2));
  const NodePtr node = connected(script);
  std::vector<uint8_t> data(600, 2);
  ASSERT_TRUE(run(node->write(700, IoSlice(data))));
  const std::vector<uint8_t> wire = sent();
  ASSERT_EQ(wire.size(), 2 * kRequestBytes + 1024);
  EXPECT_EQ(load_be64(wire.data() + kRequestBytes + 16), 512u);
  const uint8_t* written = wire.data() + 2 * kRequestBytes;
  EXPECT_EQ(written[187], 1);
  EXPECT_EQ(written[188], 2);
  EXPECT_EQ(written[787], 2);
  EXPECT_EQ(written[788], 1);
}

TEST_F(NbdTest, ATransferIsCutToTheServersLargestBlock) {
  Bytes script = greeting({.max_block = 4096});
  for (uint64_t i = 0; i < 3; ++i)
    script.add(chunk(i + 1, kChunkDone, kChunkData, data_at(i * 4096, i < 2 ? 4096 : 100, 9)));
  const NodePtr node = connected(script);
  std::vector<uint8_t> data(8292);
  ASSERT_TRUE(run(node->read(0, IoSlice(data))));
  EXPECT_EQ(std::accumulate(data.begin(), data.end(), 0u), 8292u * 9);
}

TEST_F(NbdTest, ZeroesGoAsACommandOrNotAtAll) {
  const NodePtr node = connected(greeting().add(simple(1)));
  ASSERT_TRUE(run(node->write_zeroes(0, 65536)));
  EXPECT_EQ(load_be16(sent().data() + 4), kFlagNoHole);
  const auto fast = run(node->write_zeroes(0, 65536, {.flags = IoHow::kNoFallback}));
  ASSERT_FALSE(fast);
  EXPECT_EQ(fast.error().code, ENOTSUP);
}

TEST_F(NbdTest, BlockStatusTellsHolesAndZeroes) {
  const Bytes first = Bytes().be32(kContext).be32(4096).be32(kStateHole | kStateZero);
  const Bytes second = Bytes().be32(kContext).be32(1u << 20).be32(0);
  Bytes script = greeting().add(chunk(1, kChunkDone, kChunkBlockStatus, first));
  const NodePtr node = connected(script.add(chunk(2, kChunkDone, kChunkBlockStatus, second)));
  const auto hole = run(node->block_status(0, 65536));
  ASSERT_TRUE(hole);
  EXPECT_EQ(hole->bytes, 4096u);
  EXPECT_TRUE(hole->zero);
  EXPECT_FALSE(hole->data);
  const auto data = run(node->block_status(4096, 65536));
  ASSERT_TRUE(data);
  EXPECT_EQ(data->bytes, 61440u) << "never beyond the disk";
  EXPECT_TRUE(data->data);
}

TEST_F(NbdTest, AMalformedBlockStatusEndsTheConnection) {
  for (const Bytes& data : {Bytes().be32(kContext), Bytes().be32(kContext + 1).be32(512).be32(0),
                            Bytes().be32(kContext).be32(0).be32(0), Bytes().be32(kContext).be32(512)}) {
    const NodePtr node = connected(greeting().add(chunk(1, kChunkDone, kChunkBlockStatus, data)));
    const auto status = run(node->block_status(0, 4096));
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, EIO);
  }
}

Task<void> count_read(BlockNode& node, uint64_t offset, std::vector<uint8_t>& to, unsigned& good) {
  if (co_await node.read(offset, IoSlice(to))) ++good;
}

TEST_F(NbdTest, AnswersMayComeInAnyOrder) {
  ends_ = false;
  const NodePtr node = connected(greeting());
  Bytes answers;
  for (const uint64_t cookie : {uint64_t{3}, uint64_t{1}, uint64_t{2}}) {
    answers.add(chunk(cookie, kChunkDone, kChunkData, data_at((cookie - 1) * 512, 512, static_cast<uint8_t>(cookie))));
  }
  std::vector<std::vector<uint8_t>> data(3, std::vector<uint8_t>(512));
  unsigned good = 0;
  TaskScope scope;
  for (size_t i = 0; i < 3; ++i) scope.spawn(count_read(*node, i * 512, data[i], good));
  say(answers);
  while (!scope.idle()) executor_->run_once(Clock::kNever);
  EXPECT_EQ(good, 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(data[i][0], i + 1);
}

TEST_F(NbdTest, AllRequestsUnderWayEndWithTheConnection) {
  ends_ = false;
  const NodePtr node = connected(greeting());
  std::vector<std::vector<uint8_t>> data(3, std::vector<uint8_t>(512));
  unsigned good = 0;
  TaskScope scope;
  for (size_t i = 0; i < 3; ++i) scope.spawn(count_read(*node, i * 512, data[i], good));
  say(chunk(2, kChunkDone, kChunkData, data_at(512, 512, 1)));
  ::shutdown(server_.get(), SHUT_WR);
  while (!scope.idle()) executor_->run_once(Clock::kNever);
  EXPECT_EQ(good, 1u);
}

TEST(NbdNames, AreParsedInAllForms) {
  const auto old = parse_target("nbd:localhost:10809:exportname=a/b");
  ASSERT_TRUE(old) << old.error().message;
  EXPECT_EQ(old->address.host, "localhost");
  EXPECT_EQ(old->address.port, "10809");
  EXPECT_EQ(old->export_name, "a/b");
  const auto path = parse_target("nbd:unix:/run/nbd.sock");
  ASSERT_TRUE(path);
  EXPECT_EQ(path->address.path, "/run/nbd.sock");
  EXPECT_EQ(path->export_name, "");
  const auto uri = parse_target("nbd://[::1]:7/with%20space");
  ASSERT_TRUE(uri) << uri.error().message;
  EXPECT_EQ(uri->address.host, "::1");
  EXPECT_EQ(uri->address.port, "7");
  EXPECT_EQ(uri->export_name, "with space");
  const auto plain = parse_target("nbd://example.org");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->address.port, "10809");
  const auto unix_uri = parse_target("nbd+unix:///disk?socket=/tmp/s%3f");
  ASSERT_TRUE(unix_uri) << unix_uri.error().message;
  EXPECT_EQ(unix_uri->address.path, "/tmp/s?");
  EXPECT_EQ(unix_uri->export_name, "disk");
  EXPECT_EQ(target_uri(*unix_uri), "nbd+unix:///disk?socket=/tmp/s%3F");
}

TEST(NbdNames, WhatIsNoneIsRefused) {
  for (const char* name :
       {"", "x", "disk.img", "nbd:", "nbd:localhost", "nbd:localhost:0", "nbd:localhost:99999",
        "nbd:unix:", "nbds://host", "nbd+unix:///x", "nbd+unix://host/x?socket=/a", "nbd://host:port/",
        "nbd://host/?socket=/a", "nbd:[::1", "nbd://host/%zz", "nbd+udp://host"}) {
    EXPECT_FALSE(parse_target(name)) << name;
  }
}

}  // namespace
}  // namespace kite::block::nbd
