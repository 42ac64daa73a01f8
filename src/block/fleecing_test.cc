// A disk in use, read by others as it was when a job began: a scratch image over it gets what guests overwrite, and
// clients read through that, by NBD as libvirt's backups in pull mode do.
#include <sys/socket.h>

#include "block/bitmap_requests.h"
#include "block/jobs/backup.h"
#include "block/jobs/job_bench.h"
#include "block/nbd/nbd_node.h"
#include "block/nbd/server.h"

namespace kite::block {
namespace {

class FleecingTest : public JobBench {
 protected:
  // A disk with something on it, its scratch image, and the job between them.
  void begin_fleecing() {
    attach(image("source"));
    for (uint8_t value = 1; value < 32; ++value) write(value * uint64_t{100'000} / kSector * kSector, 65536, value);
    then_ = content();
    scratch_ = image("scratch", "source");
    ASSERT_NE(scratch_, nullptr);
    job_ = begin(BackupJob::create(
        *graph_, jobs_,
        {.job = {.id = "j"}, .source = drive_->node(), .target = scratch_, .sync = BackupRequest::Sync::kNone}));
    ASSERT_NE(job_, nullptr) << error_;
  }
  Task<void> read_all(BlockNode& node, unsigned rounds, unsigned seed, bool* done) {
    std::mt19937 random(seed);
    std::vector<uint8_t> data;
    for (unsigned i = 0; i < rounds; ++i) {
      const uint64_t at = random() % (kBytes / kSector) * kSector;
      data.resize(std::min<uint64_t>((1 + random() % 400) * kSector, kBytes - at));
      EXPECT_TRUE(co_await node.read(at, IoSlice(data)));
      EXPECT_TRUE(std::equal(data.begin(), data.end(), then_.begin() + static_cast<std::ptrdiff_t>(at))) << at;
    }
    *done = true;
  }
  // Whatever it is.
  Task<void> read_on(BlockNode& node, const bool* stop) {
    std::vector<uint8_t> data(1 << 20);
    for (uint64_t at = 0; !*stop; at = (at + data.size()) % kBytes) {
      EXPECT_TRUE(co_await node.read(at, IoSlice(data)));
      co_await executor_->schedule();
    }
  }
  Task<void> cancel() {
    EXPECT_TRUE(job_->cancel(true));
    co_return;
  }
  void end_fleecing() {
    run(cancel());
    spin([&] { return job_->status() == JobStatus::kNull; });
    EXPECT_EQ(content(), model_) << "and the guest's disk is the guest's";
  }

  NodePtr scratch_;
  std::shared_ptr<Job> job_;
  std::vector<uint8_t> then_;
};

TEST_F(FleecingTest, ReadersSeeTheDiskOfThenWhileAGuestWrites) {
  begin_fleecing();
  bool done[3] = {};
  TaskScope scope;
  scope.spawn(guest(5, 100'000));
  for (unsigned reader = 0; reader < 3; ++reader) scope.spawn(read_all(*scratch_, 300, reader, &done[reader]));
  spin([&] { return done[0] && done[1] && done[2]; });
  guest_stops_ = true;
  spin([&] { return scope.idle(); });
  EXPECT_EQ(content(*scratch_), then_);
  EXPECT_NE(content(), then_) << "the guest has written";
  end_fleecing();
}

TEST_F(FleecingTest, ClientsOfAnExportDoSo) {
  begin_fleecing();
  const auto changes = add_bitmap(*scratch_, {.name = "changes", .enabled = false});
  ASSERT_TRUE(changes);
  nbd::Server server(*graph_, {});
  ASSERT_TRUE(server.add({.id = "e0", .node = scratch_, .name = "disk", .bitmaps = {{.node = "", .name = "changes"}}}));
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  server.serve(Fd(pair[1]));
  const auto client = run(nbd::NbdNode::open_over(*executor_, {.name = {}, .read_only = true}, Fd(pair[0]), "disk"));
  ASSERT_TRUE(client) << client.error().message;
  bool done = false;
  TaskScope scope;
  scope.spawn(guest(6, 100'000));
  scope.spawn(read_all(**client, 200, 9, &done));
  spin([&] { return done; });
  guest_stops_ = true;
  spin([&] { return scope.idle(); });
  EXPECT_TRUE(run((*client)->close()));
  EXPECT_TRUE(run(server.stop()));
  end_fleecing();
}

TEST_F(FleecingTest, TheJobMayEndWhileReadersAreThere) {
  begin_fleecing();
  bool stop = false;
  TaskScope scope;
  scope.spawn(guest(7, 100'000));
  scope.spawn(read_on(*scratch_, &stop));
  for (int i = 0; i < 50; ++i) executor_->run_once(0);
  run(cancel());
  spin([&] { return job_->status() == JobStatus::kNull; });
  guest_stops_ = stop = true;
  spin([&] { return scope.idle(); });
  EXPECT_EQ(content(), model_);
}

TEST_F(FleecingTest, AnImageWithUsersBearsNoChangeBelowIt) {
  const NodePtr base = image("base");
  const NodePtr overlay = image("overlay", "base");
  attach(overlay);
  const auto writer = NodeUse::claim(base, "a writer", {.need = Permissions::kWrite, .shared = Permissions::kAll});
  ASSERT_FALSE(writer);
  EXPECT_NE(writer.error().message.find("node 'overlay'"), std::string::npos) << writer.error().message;
}

}  // namespace
}  // namespace kite::block
