// For tests of what crashes and failing requests do to an image: an image in memory, what each of its sectors may hold,
// random work, and the verdict.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "block/filters/filters.h"
#include "block/image.h"
#include "block/plain_nodes.h"

namespace kite::block {

inline constexpr uint64_t kSector = 512;

// An image in memory, to be opened over a node that can lose its power or fail.
class Bench {
 public:
  Bench(std::string format, const std::string& options, uint64_t bytes)
      : format_(std::move(format)),
        executor_(*Executor::create("test")),
        graph_(std::make_unique<BlockGraph>(*executor_)),
        disk_(std::make_shared<MemoryNode>(*executor_, NodeConfig{.name = "disk"}, 0, true)) {
    disk_->set_kept(true);
    CreateRequest request;
    request.bytes = bytes;
    request.options = *BlockOptions::parse(options);
    register_node(disk_);
    const Result<> made = run(find_image_format(format_)->create(*graph_, disk_, std::move(request)));
    EXPECT_TRUE(made) << made.error().message;
  }

  template <class T>
  T run(Task<T> task) {
    return run_until_done(*executor_, std::move(task));
  }
  std::shared_ptr<FormatNode> open(const NodePtr& file) {
    register_node(file);
    BlockOptions options;
    options.set("driver", format_);
    options.set("file", file->name());
    options.set("discard", "unmap");
    if (backing_ != nullptr) options.set("backing", backing_->name());
    auto node = run(graph_->open(std::move(options)));
    EXPECT_TRUE(node) << node.error().message;
    return node ? std::dynamic_pointer_cast<FormatNode>(*node) : nullptr;
  }
  void register_node(const NodePtr& node) {
    if (graph_->find(node->name()) == nullptr) EXPECT_TRUE(graph_->adopt(node));
  }
  // Every image opened from now on shows this disk where it has nothing of its own.
  void set_backing(const NodePtr& node) {
    node->set_kept(true);
    register_node(node);
    backing_ = node;
  }
  [[nodiscard]] const std::string& format() const { return format_; }
  [[nodiscard]] const std::shared_ptr<MemoryNode>& disk() const { return disk_; }
  [[nodiscard]] BlockGraph& graph() { return *graph_; }

 private:
  std::string format_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<BlockGraph> graph_;
  std::shared_ptr<MemoryNode> disk_;
  NodePtr backing_;
};

// For each sector: which values it may have after the power comes back.
class Expectations {
 public:
  explicit Expectations(uint64_t bytes, uint8_t before = 0) : sectors_(bytes / kSector, {before}) {}
  void write(uint64_t offset, uint64_t bytes, uint8_t value) {
    for (uint64_t at = offset / kSector; at < (offset + bytes) / kSector; ++at) sectors_[at].push_back(value);
  }
  // The last write failed: its sectors may keep either content until they are written again.
  void failed(uint64_t offset, uint64_t bytes) {
    for (uint64_t at = offset / kSector; at < (offset + bytes) / kSector; ++at) uncertain_.insert(at);
  }
  void succeeded(uint64_t offset, uint64_t bytes) {
    for (uint64_t at = offset / kSector; at < (offset + bytes) / kSector; ++at) uncertain_.erase(at);
  }
  // Everything that was written is durable: only the last value is left.
  void flushed() {
    for (uint64_t at = 0; at < sectors_.size(); ++at) {
      if (!uncertain_.contains(at)) sectors_[at] = {sectors_[at].back()};
    }
  }
  [[nodiscard]] bool allows(uint64_t sector, uint8_t value) const {
    return std::ranges::find(sectors_[sector], value) != sectors_[sector].end();
  }
  [[nodiscard]] uint64_t count() const { return sectors_.size(); }

 private:
  std::vector<std::vector<uint8_t>> sectors_;
  std::set<uint64_t> uncertain_;
};

// Random work until something fails; what it may have left behind is in `expected`.
inline void work(Bench& bench, BlockNode& node, std::mt19937& random, Expectations& expected, unsigned operations) {
  const uint64_t sectors = node.length() / kSector;
  for (unsigned i = 0; i < operations; ++i) {
    const uint64_t at = random() % sectors * kSector;
    const uint64_t bytes =
        std::min<uint64_t>((1 + random() % (random() % 4 == 0 ? 300 : 24)) * kSector, node.length() - at);
    const auto value = static_cast<uint8_t>(1 + random() % 255);
    const unsigned kind = random() % 10;
    IoResult<> done;
    if (kind < 6) {
      const std::vector<uint8_t> data(bytes, value);
      expected.write(at, bytes, value);
      done = bench.run(node.write(at, IoSlice::of_const(data.data(), data.size())));
    } else if (kind < 8) {
      expected.write(at, bytes, 0);
      done = bench.run(node.write_zeroes(at, bytes, {.flags = random() % 2 == 0 ? IoHow::kMayUnmap : 0u}));
    } else {
      done = bench.run(node.flush());
      if (done) expected.flushed();
    }
    if (kind < 8) done ? expected.succeeded(at, bytes) : expected.failed(at, bytes);
    if (!done) return;
  }
}

// `repairable`: errors are allowed that a repair mends.
inline void verify(Bench& bench, const Expectations& expected, const std::string& what, bool repairable = false) {
  const auto node = bench.open(bench.disk());
  ASSERT_NE(node, nullptr) << what;
  std::string lines;
  const auto note = [&](const std::string& line) { lines += line + "\n"; };
  const auto checked = bench.run(node->check(Repair::kNone, note));
  ASSERT_TRUE(checked) << what;
  if (!repairable) EXPECT_EQ(checked->corruptions, 0u) << what << "\n" << lines;
  const auto repaired = bench.run(node->check(repairable ? Repair::kAll : Repair::kLeaks, note));
  ASSERT_TRUE(repaired) << what;
  EXPECT_EQ(repaired->corruptions, 0u) << what << "\n" << lines;
  // [qed] leaked clusters stay: nothing counts them.
  if (bench.format() == "qcow2") EXPECT_EQ(repaired->leaks, 0u) << what;
  std::vector<uint8_t> content(node->length());
  ASSERT_TRUE(bench.run(node->read(0, IoSlice(content)))) << what;
  for (uint64_t sector = 0; sector < expected.count(); ++sector) {
    const uint8_t value = content[sector * kSector];
    ASSERT_TRUE(expected.allows(sector, value)) << what << ": sector " << sector << " is " << unsigned{value};
  }
  ASSERT_TRUE(bench.run(node->close())) << what;
}

}  // namespace kite::block
