// The NBD server against raw bytes of clients that keep to the protocol and of those that do not, and against our own
// client.
#include "block/nbd/server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <numeric>

#include "block/bitmap_requests.h"
#include "block/nbd/nbd_node.h"
#include "block/nbd/test_bytes.h"
#include "block/plain_nodes.h"
#include "support/bytes.h"

namespace kite::block::nbd {
namespace {

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint32_t kFixed = kClientFixedNewstyle | kClientNoZeroes;

Bytes option(Option which, const Bytes& data = {}) {
  Bytes out;
  out.be64(kOptionMagic).be32(static_cast<uint32_t>(which));
  return out.be32(static_cast<uint32_t>(data.bytes.size())).add(data);
}
Bytes named(std::string_view name) { return Bytes().be32(static_cast<uint32_t>(name.size())).text(name); }
Bytes go(std::string_view name = "disk") { return option(Option::kGo, named(name).be16(0)); }
Bytes choose(std::string_view context, Option which = Option::kSetMetaContext) {
  return option(which, named("disk").be32(1).add(named(context)));
}
Bytes request(Command command, uint64_t cookie, uint64_t offset, uint32_t bytes, uint16_t flags = 0) {
  Bytes out;
  out.be32(kRequestMagic).be16(flags).be16(static_cast<uint16_t>(command));
  return out.be64(cookie).be64(offset).be32(bytes);
}

struct OptionReply {
  uint32_t type = 0;
  std::vector<uint8_t> data;
  [[nodiscard]] std::string text(size_t from = 0) const {
    return {data.begin() + static_cast<std::ptrdiff_t>(from), data.end()};
  }
};
struct Chunk {
  uint16_t flags = 0, type = 0;
  uint64_t cookie = 0;
  std::vector<uint8_t> data;
};

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    disk_ = std::make_shared<MemoryNode>(*executor_, NodeConfig{.name = "node"}, kDiskBytes, false);
    ASSERT_TRUE(graph_->adopt(disk_));
    ASSERT_TRUE(graph_->add(disk_));
  }
  void TearDown() override {
    EXPECT_TRUE(run(server_->stop()));
    server_.reset();
    EXPECT_TRUE(run(graph_->close_all()));
  }
  template <class T>
  T run(Task<T> task) {
    return run_until_done(*executor_, std::move(task));
  }
  Result<> share(ExportRequest request) {
    if (request.node == nullptr) request.node = disk_;
    return server_->add(std::move(request));
  }
  void share_disk(bool writable = true) {
    ASSERT_TRUE(share({.id = "e0", .node = nullptr, .name = "disk", .description = "the disk", .writable = writable}));
  }
  // A client's end of a new connection.
  Fd connect() {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    const int room = 4 << 20;
    ::setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    server_->serve(Fd(pair[1]));
    return Fd(pair[0]);
  }
  NodePtr client(std::string name = "disk", bool read_only = false) {
    auto node = run(NbdNode::open_over(*executor_, {.name = {}, .read_only = read_only}, connect(), std::move(name)));
    EXPECT_TRUE(node) << node.error().message;
    return node ? *node : nullptr;
  }

  // --- one client byte by byte
  static void say(const Fd& socket, const Bytes& bytes) {
    size_t sent = 0;
    while (sent < bytes.bytes.size()) {
      const ssize_t done =
          ::send(socket.get(), bytes.bytes.data() + sent, bytes.bytes.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (done <= 0) return;
      sent += static_cast<size_t>(done);
    }
  }
  // The next bytes that the server says; fewer when it hangs up.
  std::vector<uint8_t> hear(const Fd& socket, size_t bytes) {
    std::vector<uint8_t> heard;
    constexpr int kPatience = 6000;  // rounds; none is needed but for something to happen
    for (int round = 0; heard.size() < bytes && round < kPatience;) {
      std::vector<uint8_t> more(bytes - heard.size());
      const ssize_t got = ::recv(socket.get(), more.data(), more.size(), MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN)) break;
      if (got > 0) {
        heard.insert(heard.end(), more.begin(), more.begin() + got);
      } else {
        executor_->run_once(10'000'000);
        ++round;
      }
    }
    return heard;
  }
  bool hung_up(const Fd& socket) {
    while (!hear(socket, 1).empty()) {
    }
    uint8_t byte = 0;
    return ::recv(socket.get(), &byte, 1, MSG_DONTWAIT) == 0 || errno != EAGAIN;
  }
  Fd greeted(const Bytes& then = {}) {
    Fd socket = connect();
    say(socket, Bytes().be32(kFixed).add(then));
    const auto greeting = hear(socket, 18);
    EXPECT_EQ(greeting.size(), 18u);
    EXPECT_EQ(load_be64(greeting.data()), kServerMagic);
    EXPECT_EQ(load_be64(greeting.data() + 8), kOptionMagic);
    return socket;
  }
  OptionReply option_reply(const Fd& socket) {
    const auto head = hear(socket, 20);
    if (head.size() < 20) return {};
    EXPECT_EQ(load_be64(head.data()), kOptionReplyMagic);
    return {.type = load_be32(head.data() + 12), .data = hear(socket, load_be32(head.data() + 16))};
  }
  // What one option is answered, until it is answered.
  uint32_t answer_to(const Bytes& option) {
    const Fd socket = greeted(option);
    return option_reply(socket).type;
  }
  // Beyond the handshake; `structured` with base:allocation.
  Fd transmitting(bool structured = false) {
    Bytes options;
    if (structured) options.add(option(Option::kStructuredReply)).add(choose("base:allocation"));
    Fd socket = greeted(options.add(go()));
    const int replies = structured ? 6 : 3;
    for (int i = 0; i < replies; ++i) EXPECT_LT(option_reply(socket).type, kReplyError);
    return socket;
  }
  Chunk chunk(const Fd& socket) {
    const auto head = hear(socket, kStructuredReplyBytes);
    if (head.size() < kStructuredReplyBytes) return {};
    EXPECT_EQ(load_be32(head.data()), kStructuredReplyMagic);
    return {.flags = load_be16(head.data() + 4),
            .type = load_be16(head.data() + 6),
            .cookie = load_be64(head.data() + 8),
            .data = hear(socket, load_be32(head.data() + 16))};
  }
  // The error of a request that is answered simply; -1: the server hung up.
  int64_t error_of(const Fd& socket, const Bytes& request) {
    say(socket, request);
    const auto reply = hear(socket, kSimpleReplyBytes);
    if (reply.size() < kSimpleReplyBytes) return -1;
    EXPECT_EQ(load_be32(reply.data()), kSimpleReplyMagic);
    return load_be32(reply.data() + 4);
  }
  std::vector<uint8_t> content(uint64_t offset, size_t bytes) {
    std::vector<uint8_t> data(bytes);
    EXPECT_TRUE(run(disk_->read(offset, IoSlice(data))));
    return data;
  }
  void fill(uint64_t offset, size_t bytes, uint8_t value) {
    std::vector<uint8_t> data(bytes, value);
    EXPECT_TRUE(run(disk_->write(offset, IoSlice(data))));
  }

  std::unique_ptr<Executor> executor_ = *Executor::create("test");
  std::unique_ptr<BlockGraph> graph_ = std::make_unique<BlockGraph>(*executor_);
  std::vector<std::string> gone_;
  std::unique_ptr<Server> server_ = std::make_unique<Server>(
      *graph_, ServerHooks{.export_gone = [this](const std::string& id) { gone_.push_back(id); }});
  NodePtr disk_;
};

// --- with our own client

TEST_F(ServerTest, ADiskIsReadAndWrittenThroughIt) {
  share_disk();
  const NodePtr node = client();
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(node->length(), kDiskBytes);
  std::vector<uint8_t> data(70000);
  std::iota(data.begin(), data.end(), uint8_t{3});
  ASSERT_TRUE(run(node->write(1001, IoSlice(data), {.flags = IoHow::kFua})));
  EXPECT_EQ(content(1001, data.size()), data);
  std::vector<uint8_t> back(data.size());
  ASSERT_TRUE(run(node->read(1001, IoSlice(back))));
  EXPECT_EQ(back, data);
  ASSERT_TRUE(run(node->write_zeroes(2000, 5000)));
  EXPECT_EQ(content(2000, 5000), std::vector<uint8_t>(5000));
  EXPECT_TRUE(run(node->discard(8192, 4096)));
  EXPECT_TRUE(run(node->flush()));
  EXPECT_TRUE(run(node->close()));
}

TEST_F(ServerTest, AReadOnlyExportTakesNoWrites) {
  share_disk(false);
  const auto refused = run(NbdNode::open_over(*executor_, {.name = {}}, connect(), "disk"));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("read-only"), std::string::npos);
  const Fd socket = transmitting();
  EXPECT_EQ(error_of(socket, request(Command::kWrite, 1, 0, 512).add(Bytes().fill(512, 1))), EPERM);
  EXPECT_EQ(error_of(socket, request(Command::kTrim, 2, 0, 512)), EPERM);
  EXPECT_EQ(error_of(socket, request(Command::kWriteZeroes, 3, 0, 512)), EPERM);
  EXPECT_EQ(error_of(socket, request(Command::kFlush, 4, 0, 0)), 0) << "and is none the worse for it";
}

TEST_F(ServerTest, SeveralClientsSeeOneDisk) {
  share_disk();
  const NodePtr one = client(), other = client();
  std::vector<uint8_t> data(4096, 7), back(4096);
  ASSERT_TRUE(run(one->write(0, IoSlice(data))));
  ASSERT_TRUE(run(other->read(0, IoSlice(back))));
  EXPECT_EQ(back, data);
  EXPECT_TRUE(run(one->close()));
  EXPECT_TRUE(run(other->close()));
}

// --- the handshake

TEST_F(ServerTest, ExportsAreListedAndDescribed) {
  share_disk();
  ASSERT_TRUE(share({.id = "e1", .node = nullptr, .name = "other"}));
  const Fd socket = greeted(option(Option::kList));
  const OptionReply first = option_reply(socket), second = option_reply(socket);
  EXPECT_EQ(first.type, kReplyServer);
  EXPECT_EQ(first.text(4), "diskthe disk");
  EXPECT_EQ(second.text(4), "other");
  EXPECT_EQ(option_reply(socket).type, kReplyAck);
  say(socket, option(Option::kInfo, named("disk").be16(2).be16(kInfoName).be16(kInfoDescription)));
  EXPECT_EQ(option_reply(socket).text(2), "disk");
  EXPECT_EQ(option_reply(socket).text(2), "the disk");
  const OptionReply sizes = option_reply(socket), whole = option_reply(socket);
  EXPECT_EQ(load_be16(sizes.data.data()), kInfoBlockSize);
  EXPECT_EQ(load_be32(sizes.data.data() + 10), kUsualMaxBlock);
  EXPECT_EQ(load_be64(whole.data.data() + 2), kDiskBytes);
  const uint16_t flags = load_be16(whole.data.data() + 10);
  EXPECT_EQ(flags & (kReadOnly | kCanMultiConn | kSendTrim | kSendDf), kCanMultiConn | kSendTrim);
  EXPECT_EQ(option_reply(socket).type, kReplyAck);
}

TEST_F(ServerTest, TheOldOptionOpensAnExportOrHangsUp) {
  share_disk();
  Fd socket = connect();
  say(socket, Bytes().be32(kClientFixedNewstyle).add(option(Option::kExportName, Bytes().text("disk"))));
  EXPECT_EQ(hear(socket, 18).size(), 18u);
  const auto answer = hear(socket, 10 + kExportPadding);
  ASSERT_EQ(answer.size(), 10 + kExportPadding);
  EXPECT_EQ(load_be64(answer.data()), kDiskBytes);
  EXPECT_EQ(error_of(socket, request(Command::kFlush, 1, 0, 0)), 0);
  EXPECT_TRUE(hung_up(greeted(option(Option::kExportName, Bytes().text("nothing")))));
}

TEST_F(ServerTest, OptionsThatMakeNoSenseAreRefusedAndTheNextIsHeard) {
  share_disk();
  const Fd socket = greeted();
  const auto answer = [&](const Bytes& bytes) {
    say(socket, bytes);
    return option_reply(socket).type;
  };
  EXPECT_EQ(answer(option(static_cast<Option>(77))), kErrorUnsupported);
  EXPECT_EQ(answer(option(Option::kList, Bytes().be16(1))), kErrorInvalid);
  EXPECT_EQ(answer(go("nothing")), kErrorUnknown);
  EXPECT_EQ(answer(option(Option::kGo, Bytes().be32(1000).text("disk"))), kErrorInvalid) << "a name beyond the end";
  EXPECT_EQ(answer(option(Option::kGo, named("disk").be16(9).be16(3))), kErrorInvalid) << "fewer requests than said";
  EXPECT_EQ(answer(option(Option::kGo, named("disk").be16(0).be16(3))), kErrorInvalid) << "more";
  EXPECT_EQ(answer(option(Option::kGo)), kErrorInvalid) << "nothing";
  EXPECT_EQ(answer(choose("base:allocation")), kErrorInvalid) << "structured replies come first";
  EXPECT_EQ(answer(option(Option::kStructuredReply, Bytes().be16(0))), kErrorInvalid);
  EXPECT_EQ(answer(option(Option::kStructuredReply)), kReplyAck);
  EXPECT_EQ(answer(option(Option::kSetMetaContext, named("disk").be32(0xffffffff))), kErrorInvalid);
  EXPECT_EQ(answer(option(Option::kInfo, Bytes().fill(100000, 'x'))), kErrorTooBig);
  EXPECT_EQ(answer(option(Option::kAbort)), kReplyAck);
  EXPECT_TRUE(hung_up(socket));
}

TEST_F(ServerTest, WhatIsNoHandshakeIsHungUpOn) {
  share_disk();
  EXPECT_TRUE(hung_up(greeted(Bytes().fill(16, 'x')))) << "no option's magic";
  EXPECT_TRUE(hung_up(greeted(Bytes().be64(kOptionMagic).be32(3).be32(0x7fffffff)))) << "an option of 2 GiB";
  EXPECT_TRUE(hung_up(greeted(Bytes().be64(kOptionMagic).be32(1).be32(5000)))) << "a name of 5000 bytes";
  for (const uint32_t flags : {0xffu, 0u}) {
    const Fd socket = connect();
    say(socket, Bytes().be32(flags).add(option(Option::kList)));
    EXPECT_TRUE(hung_up(socket)) << flags;
  }
  const Fd half = greeted(Bytes().be64(kOptionMagic).be32(3));
  ::shutdown(half.get(), SHUT_WR);
  EXPECT_TRUE(hung_up(half)) << "half an option";
  const NodePtr node = client();
  EXPECT_TRUE(run(node->flush())) << "others do not notice";
  EXPECT_TRUE(run(node->close()));
}

TEST_F(ServerTest, AClientThatDoesNotStopHagglingIsHungUpOn) {
  share_disk();
  Bytes options;
  for (int i = 0; i < 5000; ++i) options.add(option(static_cast<Option>(77)));
  EXPECT_TRUE(hung_up(greeted(options)));
}

TEST_F(ServerTest, ContextsAreListedByTheirBeginningAndChosenByName) {
  ASSERT_TRUE(add_bitmap(*disk_, {.name = "changes", .enabled = true}));
  ASSERT_TRUE(share({.id = "e0",
                     .node = nullptr,
                     .name = "disk",
                     .writable = true,
                     .allocation_depth = true,
                     .bitmaps = {{.node = "", .name = "changes"}}}));
  const Fd socket = greeted(option(Option::kStructuredReply));
  EXPECT_EQ(option_reply(socket).type, kReplyAck);
  const auto contexts = [&](const Bytes& bytes) {
    say(socket, bytes);
    std::string text;
    for (OptionReply reply = option_reply(socket); reply.type == kReplyMetaContext; reply = option_reply(socket))
      text += reply.text(4) + ";";
    return text;
  };
  constexpr auto kList = Option::kListMetaContext;
  EXPECT_EQ(contexts(option(kList, named("disk").be32(0))),
            "base:allocation;qemu:allocation-depth;qemu:dirty-bitmap:changes;");
  EXPECT_EQ(contexts(choose("qemu:dirty-bitmap:", kList)), "qemu:dirty-bitmap:changes;");
  EXPECT_EQ(contexts(choose("base:", kList)), "base:allocation;");
  EXPECT_EQ(contexts(choose("base:")), "") << "no wildcards when one is chosen";
  EXPECT_EQ(contexts(choose("else:where")), "");
  EXPECT_EQ(contexts(choose("qemu:dirty-bitmap:changes")), "qemu:dirty-bitmap:changes;");
}

// --- requests

TEST_F(ServerTest, RequestsThatBreakTheRulesAreAnsweredWithTheirErrors) {
  share_disk();
  const Fd socket = transmitting();
  const Bytes payload = Bytes().fill(512, 9);
  EXPECT_EQ(error_of(socket, request(Command::kRead, 1, kDiskBytes, 512)), EINVAL) << "past the end";
  EXPECT_EQ(error_of(socket, request(Command::kRead, 1, UINT64_MAX - 100, 512)), EINVAL) << "wraps around";
  EXPECT_EQ(error_of(socket, request(Command::kRead, 1, 0, 0xffffffff)), EINVAL) << "too much";
  EXPECT_EQ(error_of(socket, request(Command::kWrite, 1, kDiskBytes - 100, 512).add(payload)), ENOSPC);
  EXPECT_EQ(error_of(socket, request(Command::kWriteZeroes, 1, 100, kDiskBytes)), ENOSPC);
  EXPECT_EQ(error_of(socket, request(Command::kTrim, 1, 100, kDiskBytes)), EINVAL);
  EXPECT_EQ(error_of(socket, request(static_cast<Command>(99), 1, 0, 0)), EINVAL) << "no command";
  EXPECT_EQ(error_of(socket, request(Command::kFlush, 1, 0, 0, 0x8000)), EINVAL) << "no flag";
  EXPECT_EQ(error_of(socket, request(Command::kFlush, 1, 512, 0)), EINVAL) << "a flush of something";
  EXPECT_EQ(error_of(socket, request(Command::kRead, 1, 0, 512, kFlagNoHole)), EINVAL) << "another command's flag";
  EXPECT_EQ(error_of(socket, request(Command::kRead, 1, 0, 512, kFlagDf)), EINVAL) << "not agreed on";
  EXPECT_EQ(error_of(socket, request(Command::kBlockStatus, 1, 0, 512)), EINVAL) << "not agreed on";
  EXPECT_EQ(error_of(socket, request(Command::kFlush, 1, 0, 0, kFlagFua)), 0) << "FUA goes with all";
  EXPECT_EQ(error_of(socket, request(Command::kWrite, 1, 0, 512).add(payload)), 0);
  EXPECT_EQ(error_of(socket, request(Command::kCache, 1, 0, kDiskBytes)), 0);
  EXPECT_EQ(content(0, 512), payload.bytes);
}

TEST_F(ServerTest, WhatIsNoRequestIsHungUpOn) {
  share_disk();
  EXPECT_EQ(error_of(transmitting(), Bytes().fill(kRequestBytes, 0)), -1) << "no magic";
  EXPECT_EQ(error_of(transmitting(), request(Command::kWrite, 1, 0, kUsualMaxBlock + 1)), -1) << "too much to read";
  const Fd half = transmitting();
  say(half, request(Command::kWrite, 1, 0, 4096).fill(100, 1));
  ::shutdown(half.get(), SHUT_WR);
  EXPECT_TRUE(hung_up(half)) << "half a payload";
  EXPECT_EQ(content(0, 4096), std::vector<uint8_t>(4096)) << "which is not written";
  const NodePtr node = client();
  EXPECT_TRUE(run(node->flush())) << "others do not notice";
  EXPECT_TRUE(run(node->close()));
}

TEST_F(ServerTest, AGoodbyeComesBehindTheAnswers) {
  share_disk();
  const Fd socket = transmitting();
  say(socket, request(Command::kRead, 1, 0, 512).add(request(Command::kDisconnect, 2, 0, 0)));
  EXPECT_EQ(hear(socket, kSimpleReplyBytes + 512).size(), kSimpleReplyBytes + 512);
  EXPECT_TRUE(hung_up(socket));
}

TEST_F(ServerTest, ErrorsOfStructuredReadsAreChunks) {
  share_disk();
  const Fd socket = transmitting(true);
  say(socket, request(Command::kRead, 5, kDiskBytes, 512));
  const Chunk answer = chunk(socket);
  EXPECT_EQ(answer.type, kChunkError);
  EXPECT_EQ(answer.flags, kChunkDone);
  EXPECT_EQ(answer.cookie, 5u);
  ASSERT_GE(answer.data.size(), 6u);
  EXPECT_EQ(load_be32(answer.data.data()), static_cast<uint32_t>(EINVAL));
  EXPECT_EQ(load_be16(answer.data.data() + 4), answer.data.size() - 6);
}

TEST_F(ServerTest, HolesAreSentAsSuchUnlessOnePieceIsAskedFor) {
  auto zeroes = run(graph_->open(*BlockOptions::parse("driver=null-co,size=65536,read-zeroes=on,node-name=zeroes")));
  ASSERT_TRUE(zeroes) << zeroes.error().message;
  ASSERT_TRUE(share({.id = "e0", .node = *zeroes, .name = "disk"}));
  const Fd socket = transmitting(true);
  say(socket, request(Command::kRead, 5, 512, 1024).add(request(Command::kRead, 6, 512, 1024, kFlagDf)));
  const Chunk hole = chunk(socket);
  EXPECT_EQ(hole.type, kChunkHole);
  EXPECT_EQ(hole.flags, kChunkDone);
  ASSERT_EQ(hole.data.size(), 12u);
  EXPECT_EQ(load_be64(hole.data.data()), 512u);
  EXPECT_EQ(load_be32(hole.data.data() + 8), 1024u);
  const Chunk whole = chunk(socket);
  EXPECT_EQ(whole.type, kChunkData);
  EXPECT_EQ(whole.data.size(), 8u + 1024);
}

TEST_F(ServerTest, AStatusTellsOfEveryContextThatWasChosen) {
  ASSERT_TRUE(add_bitmap(*disk_, {.name = "changes", .granularity = 4096}));
  ASSERT_TRUE(share({.id = "e0",
                     .node = nullptr,
                     .name = "disk",
                     .writable = true,
                     .bitmaps = {{.node = "node", .name = "changes"}}}));
  fill(8192, 100, 1);
  const Fd socket = greeted(option(Option::kStructuredReply).add(choose("qemu:dirty-bitmap:changes")).add(go()));
  for (int i = 0; i < 6; ++i) EXPECT_LT(option_reply(socket).type, kReplyError);
  say(socket, request(Command::kBlockStatus, 1, 4096, 16384));
  const Chunk all = chunk(socket);
  EXPECT_EQ(all.type, kChunkBlockStatus);
  ASSERT_EQ(all.data.size(), 4u + 3 * 8);
  const uint32_t expected[] = {4096, 0, 4096, kStateDirty, 8192, 0};
  for (size_t i = 0; i < std::size(expected); ++i) EXPECT_EQ(load_be32(all.data.data() + 4 + i * 4), expected[i]) << i;
  say(socket, request(Command::kBlockStatus, 2, 9000, 16384, kFlagRequestOne));
  const Chunk one = chunk(socket);
  ASSERT_EQ(one.data.size(), 4u + 8);
  EXPECT_EQ(load_be32(one.data.data() + 4), 12288u - 9000);
  EXPECT_EQ(load_be32(one.data.data() + 8), kStateDirty);
}

TEST_F(ServerTest, ContextsOfAnotherExportDoNotCount) {
  share_disk();
  ASSERT_TRUE(share({.id = "e1", .node = nullptr, .name = "other"}));
  const Fd socket = greeted(option(Option::kStructuredReply).add(choose("base:allocation")).add(go("other")));
  for (int i = 0; i < 6; ++i) EXPECT_LT(option_reply(socket).type, kReplyError);
  say(socket, request(Command::kBlockStatus, 1, 0, 4096));
  EXPECT_EQ(chunk(socket).type, kChunkError);
}

TEST_F(ServerTest, AClientThatTakesNoAnswersHoldsNobodyUp) {
  share_disk();
  const Fd lazy = transmitting();
  for (uint64_t i = 0; i < 200; ++i) say(lazy, request(Command::kRead, i, 0, kDiskBytes));
  const NodePtr node = client();
  std::vector<uint8_t> data(65536);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(run(node->read(0, IoSlice(data))));
  EXPECT_TRUE(run(node->close()));
  ASSERT_TRUE(run(server_->remove("e0", true))) << "and is hung up like others";
}

// --- exports come and go

TEST_F(ServerTest, IdsAndNamesAreTakenOnce) {
  share_disk();
  EXPECT_FALSE(share({.id = "e0", .node = nullptr, .name = "other"}));
  EXPECT_FALSE(share({.id = "e1", .node = nullptr, .name = "disk"}));
  const auto named = share({.id = "e1", .node = nullptr, .name = std::string(5000, 'x')});
  ASSERT_FALSE(named);
  EXPECT_NE(named.error().message.find("too long"), std::string::npos);
}

TEST_F(ServerTest, ANodeIsNotRemovedUnderAnExport) {
  share_disk();
  const auto removed = run(graph_->remove("node"));
  ASSERT_FALSE(removed);
  EXPECT_NE(removed.error().message.find("export 'e0'"), std::string::npos) << removed.error().message;
  ASSERT_TRUE(run(server_->remove("e0", false)));
  EXPECT_EQ(gone_, std::vector<std::string>{"e0"});
  EXPECT_TRUE(run(graph_->remove("node")));
}

TEST_F(ServerTest, AnExportWithClientsGoesOnlyByForce) {
  share_disk();
  const NodePtr node = client();
  const auto refused = run(server_->remove("e0", false));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("in use"), std::string::npos);
  ASSERT_TRUE(run(server_->remove("e0", true)));
  std::vector<uint8_t> data(512);
  EXPECT_FALSE(run(node->read(0, IoSlice(data))));
  EXPECT_TRUE(run(node->close()));
  EXPECT_EQ(run(graph_->remove("node")).has_value(), true);
}

TEST_F(ServerTest, AnExportBehindAWriterIsRefused) {
  const auto writer =
      NodeUse::claim(disk_, "the only writer", {.need = Permissions::kWrite, .shared = Permissions::kConsistentRead});
  ASSERT_TRUE(writer);
  const auto refused = share({.id = "e0", .node = nullptr, .name = "disk", .writable = true});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("the only writer"), std::string::npos);
  EXPECT_TRUE(share({.id = "e0", .node = nullptr, .name = "disk"})) << "for reading it can be had";
}

TEST_F(ServerTest, ABitmapIsBusyWhileItIsExported) {
  const auto bitmap = add_bitmap(*disk_, {.name = "changes", .enabled = false});
  ASSERT_TRUE(bitmap);
  ExportRequest request{.id = "e0", .node = nullptr, .name = "disk", .bitmaps = {{.node = "", .name = "changes"}}};
  ASSERT_TRUE(share(request));
  EXPECT_FALSE((*bitmap)->may(DirtyBitmap::Need::kRemove));
  ASSERT_TRUE(run(server_->remove("e0", false)));
  EXPECT_TRUE((*bitmap)->may(DirtyBitmap::Need::kRemove));
  (*bitmap)->enabled = true;
  const auto refused = share(request);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("readonly export"), std::string::npos);
  EXPECT_FALSE((*bitmap)->busy());
}

TEST_F(ServerTest, RequestsWaitWhileTheServerIsHeld) {
  share_disk();
  const Fd socket = transmitting();
  struct Hold {
    static Task<bool> run(Server& server) {
      co_await server.hold();
      co_return true;
    }
  };
  ASSERT_TRUE(run(Hold::run(*server_)));
  say(socket, request(Command::kWrite, 1, 0, 512).fill(512, 5));
  for (int i = 0; i < 20; ++i) executor_->run_once(0);
  EXPECT_EQ(content(0, 512), std::vector<uint8_t>(512)) << "not yet";
  server_->release();
  EXPECT_EQ(hear(socket, kSimpleReplyBytes).size(), kSimpleReplyBytes);
  EXPECT_EQ(content(0, 512), std::vector<uint8_t>(512, 5));
}

TEST_F(ServerTest, AHeldExportCanStillEnd) {
  share_disk();
  const Fd socket = transmitting();
  struct Hold {
    static Task<bool> run(Server& server) {
      co_await server.hold();
      co_return true;
    }
  };
  ASSERT_TRUE(run(Hold::run(*server_)));
  say(socket, request(Command::kRead, 1, 0, 512));
  for (int i = 0; i < 20; ++i) executor_->run_once(0);
  EXPECT_TRUE(run(server_->remove("e0", true)));
  EXPECT_TRUE(hung_up(socket));
}

TEST_F(ServerTest, MoreClientsThanAllowedWaitForTheirTurn) {
  share_disk();
  Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr any{.sa_family = AF_UNIX, .sa_data = {}};
  // [unix(7)] autobind: a name in the abstract namespace that nobody has.
  ASSERT_EQ(::bind(listener.get(), &any, sizeof(sa_family_t)), 0);
  sockaddr_storage where{};
  socklen_t length = sizeof where;
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&where), &length);
  Listening listening;
  listening.sockets.push_back(std::move(listener));
  ASSERT_TRUE(server_->start(std::move(listening), 1));
  EXPECT_FALSE(server_->start({}, 1)) << "it runs already";
  const auto call = [&] {
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&where), length), 0);
    return socket;
  };
  Fd first = call();
  const Fd second = call();
  EXPECT_EQ(hear(first, 18).size(), 18u);
  for (int i = 0; i < 20; ++i) executor_->run_once(0);
  uint8_t byte = 0;
  EXPECT_EQ(::recv(second.get(), &byte, 1, MSG_DONTWAIT), -1);
  first.reset();
  EXPECT_EQ(hear(second, 18).size(), 18u);
}

}  // namespace
}  // namespace kite::block::nbd
