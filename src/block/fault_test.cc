// A request that fails at every step of a write, one after the other: the writer sees an error, nothing that was
// acknowledged is lost, no metadata is wrong but for leaks, and the work goes on when the disk is well again.
#include <cerrno>
#include <functional>
#include <ostream>

#include "block/crash_bench.h"

namespace kite::block {
namespace {

constexpr uint64_t kDiskBytes = uint64_t{1} << 20;

// The disk below: fails its nth read, write or flush.
class FailingNode final : public FilterNode {
 public:
  enum class How : uint8_t { kOnce, kFromThenOn, kTornWrite };  // kTornWrite: once, after half of the data
  FailingNode(Executor& executor, uint64_t nth, How how, int code)
      : FilterNode(executor, "failing", NodeConfig{.name = "failing"}), nth_(nth), how_(how), code_(code) {}
  [[nodiscard]] bool failed() const { return failed_; }
  void arm() { well_ = false; }  // requests are counted from now on
  void heal() { well_ = true; }

 protected:
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override {
    if (fails()) return ready<IoResult<>>(io_fail(code_ == ENOSPC ? EIO : code_));
    return file_->read(offset, to, how);
  }
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override {
    if (!fails()) return file_->write(offset, from, how);
    return how_ == How::kTornWrite ? torn(offset, from) : ready<IoResult<>>(io_fail(code_));
  }
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override {
    if (fails()) return ready<IoResult<>>(io_fail(code_));
    return file_->write_zeroes(offset, bytes, how);
  }
  Task<IoResult<>> do_flush(IoHow how) override {
    if (fails()) return ready<IoResult<>>(io_fail(code_ == ENOSPC ? EIO : code_));
    return file_->flush(how);
  }

 private:
  bool fails() {
    if (well_) return false;
    const bool now = how_ == How::kFromThenOn ? count_ >= nth_ : count_ == nth_;
    ++count_;
    failed_ |= now;
    return now;
  }
  Task<IoResult<>> torn(uint64_t offset, IoSlice from) {
    KITE_CO_TRY(co_await file_->write(offset, from.slice(0, from.bytes() / 2 / kSector * kSector)));
    co_return io_fail(code_);
  }

  uint64_t nth_;
  How how_;
  int code_;
  uint64_t count_ = 0;
  bool failed_ = false, well_ = true;
};

struct Step {
  enum Kind : uint8_t { kWrite, kZeroes, kDiscard, kFlush, kSnapshot } kind;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint8_t value = 0;
};

// Every way that a write can take: new tables, new clusters, parts of clusters around old data, places that become
// free, clusters that a snapshot shares, what lay in the backing file.
constexpr Step kSteps[] = {
    {Step::kWrite, 1024, 512, 1},
    {Step::kWrite, 300 * 1024, 70 * 1024, 2},
    {Step::kFlush},
    {Step::kWrite, 1536, 3072, 3},
    {Step::kWrite, 310 * 1024, 4096, 4},
    {Step::kZeroes, 320 * 1024, 32 * 1024, 0},
    {Step::kWrite, 700 * 1024, 512, 5},
    {Step::kFlush},
    {Step::kSnapshot},
    {Step::kWrite, 1024, 1024, 6},
    {Step::kWrite, 340 * 1024, 20480, 7},
    {Step::kZeroes, 0, 65536, 0},
    {Step::kWrite, 2048, 8192, 8},
    {Step::kFlush},
    {Step::kWrite, 1000 * 1024, 24 * 1024, 9},
    {Step::kWrite, 500 * 1024, 512, 10},
};

IoResult<> perform(Bench& bench, FormatNode& image, const Step& step) {
  switch (step.kind) {
    case Step::kWrite: {
      const std::vector<uint8_t> data(step.bytes, step.value);
      return bench.run(image.write(step.offset, IoSlice::of_const(data.data(), data.size())));
    }
    case Step::kZeroes: return bench.run(image.write_zeroes(step.offset, step.bytes, {.flags = IoHow::kMayUnmap}));
    case Step::kDiscard: return bench.run(image.discard(step.offset, step.bytes));
    case Step::kFlush: return bench.run(image.flush());
    case Step::kSnapshot: break;
  }
  // Where the format has snapshots; one that could not be made is missing, nothing else.
  if (bench.format() == "qcow2") (void)bench.run(image.snapshot_create({.name = "s"}));
  return {};
}

// All steps; a failed one is tried again once the disk is well, as a guest or werror=stop would.
void run_steps(Bench& bench, FormatNode& image, Expectations& expected, const std::function<void()>& heal,
               const std::string& what) {
  for (const Step& step : kSteps) {
    const bool changes = step.kind == Step::kWrite || step.kind == Step::kZeroes;
    if (changes) expected.write(step.offset, step.bytes, step.value);
    IoResult<> done = perform(bench, image, step);
    if (!done) {
      heal();
      done = perform(bench, image, step);
      ASSERT_TRUE(done) << what << ": the disk is well again: " << errno_text(done.error().code);
    }
    if (changes) expected.succeeded(step.offset, step.bytes);
    if (step.kind == Step::kFlush) expected.flushed();
  }
}

struct Format {
  const char* name;
  const char* options;
  bool with_backing = false;
};
std::ostream& operator<<(std::ostream& out, const Format& format) {
  return out << format.name << " " << format.options << (format.with_backing ? " with a backing file" : "");
}

class Faults : public ::testing::TestWithParam<Format> {
 protected:
  static constexpr uint8_t kBackingValue = 0xbb;

  static std::unique_ptr<Bench> make_bench() {
    const Format& format = GetParam();
    auto bench = std::make_unique<Bench>(format.name, format.options, kDiskBytes);
    if (format.with_backing) {
      const auto backing =
          std::make_shared<MemoryNode>(bench->graph().executor(), NodeConfig{.name = "backing"}, kDiskBytes);
      std::vector<uint8_t> content(kDiskBytes, kBackingValue);
      backing->copy_in(0, IoSlice(content));
      bench->set_backing(backing);
    }
    return bench;
  }
  static Expectations expectations() { return Expectations(kDiskBytes, GetParam().with_backing ? kBackingValue : 0); }

  // The nth request fails for n = 0, 1, ... until the steps need no more of them.
  static void fail_everywhere(FailingNode::How how, int code) {
    constexpr unsigned kMost = 5000;
    for (unsigned n = 0; n < kMost; ++n) {
      const std::string what = fmt::format("request {}", n);
      const auto bench = make_bench();
      Expectations expected = expectations();
      auto disk = std::make_shared<FailingNode>(bench->graph().executor(), n, how, code);
      ASSERT_TRUE(disk->attach(bench->disk()));
      auto image = bench->open(disk);
      ASSERT_NE(image, nullptr);
      disk->arm();
      run_steps(*bench, *image, expected, [&] { disk->heal(); }, what);
      // When the last flush fails, the image is as one whose process was killed.
      const Result<> closed = bench->run(image->close());
      EXPECT_TRUE(closed || disk->failed()) << what;
      const bool failed = disk->failed();
      // A kill amid a snapshot's work may leave flags that are too careful.
      const bool repairable = !closed;
      image.reset();
      ASSERT_TRUE(bench->run(disk->close())) << what;
      disk.reset();
      if (::testing::Test::HasFailure()) return;
      verify(*bench, expected, what, repairable);
      if (::testing::Test::HasFailure()) return;
      if (!failed) {
        EXPECT_GT(n, 20u) << "the steps must have needed requests";
        return;
      }
    }
    ADD_FAILURE() << "there is no end";
  }
};

TEST_P(Faults, OneRequestThatFailsLosesNothing) { fail_everywhere(FailingNode::How::kOnce, EIO); }
TEST_P(Faults, ADiskThatStaysFullLosesNothing) { fail_everywhere(FailingNode::How::kFromThenOn, ENOSPC); }
TEST_P(Faults, AWriteThatEndsInItsMiddleLosesNothing) { fail_everywhere(FailingNode::How::kTornWrite, EIO); }

// Every place that the formats name to blkdebug.
TEST_P(Faults, AnErrorAtEveryNamedStepLosesNothing) {
  for (const char* event :
       {"cluster_alloc", "cow_read", "cow_write", "flush_to_disk", "l1_grow_activate_table", "l1_update",
        "l2_alloc_cow_read", "l2_alloc_write", "l2_load", "l2_update", "refblock_alloc_switch_table",
        "refblock_alloc_write_table", "refblock_load", "refblock_update_part", "write_aio"}) {
    for (const char* code : {"5", "28"}) {
      const std::string what = fmt::format("{} errno {}", event, code);
      const auto bench = make_bench();
      Expectations expected = expectations();
      BlockOptions faults;
      faults.set("driver", "blkdebug");
      faults.set("node-name", "faults");
      faults.set("image", bench->disk()->name());
      faults.set("inject-error.0.event", event);
      faults.set("inject-error.0.errno", code);
      faults.set("inject-error.0.once", "on");
      auto faulty = bench->run(bench->graph().open(std::move(faults)));
      ASSERT_TRUE(faulty) << faulty.error().message;
      auto image = bench->open(*faulty);
      // A table is loaded while the image is opened, too.
      if (image != nullptr) {
        run_steps(*bench, *image, expected, [] {}, what);
        (void)bench->run(image->close());
      }
      image.reset();
      (void)bench->run((*faulty)->close());
      faulty = NodePtr();
      if (::testing::Test::HasFailure()) return;
      verify(*bench, expected, what);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Faults,
                         ::testing::Values(Format{"qcow2", "cluster_size=64k"}, Format{"qcow2", "cluster_size=512"},
                                           Format{"qcow2", "cluster_size=4k", true},
                                           Format{"qcow2", "cluster_size=4k,lazy_refcounts=on"},
                                           Format{"qcow2", "cluster_size=16k,extended_l2=on", true},
                                           Format{"qed", "cluster_size=64k"},
                                           Format{"qed", "cluster_size=4k,table_size=1", true}));

}  // namespace
}  // namespace kite::block
