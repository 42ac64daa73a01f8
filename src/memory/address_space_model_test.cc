// The renderer and the dispatch against a model that answers one byte at a time by walking the tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>

#include "memory/address_space.h"
#include "memory/test_io.h"

namespace kite {
namespace {

constexpr uint64_t kSpace = 0x10000;
constexpr int kLowest = -1, kHighest = 1;

// What a byte is answered by.
struct Answer {
  const Region* region;
  uint64_t offset;
  bool read_only;
  bool operator==(const Answer&) const = default;
};

// A mirror of a region, in the plainest form.
struct Node {
  std::shared_ptr<Region> region;
  bool enabled = true;
  bool read_only = false;
  Node* target = nullptr;  // of an alias
  uint64_t target_offset = 0;
  struct Child {
    Node* node;
    uint64_t offset;
    int priority;
  };
  std::vector<Child> children;  // as added
  bool placed = false;

  [[nodiscard]] std::optional<Answer> look(uint64_t offset, bool shown_read_only) const {
    if (!enabled || offset >= region->size()) return std::nullopt;
    shown_read_only |= read_only;
    for (int priority = kHighest; priority >= kLowest; --priority)
      for (auto child = children.rbegin(); child != children.rend(); ++child)  // the later added first
        if (child->priority == priority && offset >= child->offset)
          if (const auto found = child->node->look(offset - child->offset, shown_read_only)) return found;
    if (target != nullptr) {
      const uint64_t at = offset + target_offset;
      return at < offset ? std::nullopt : target->look(at, shown_read_only);
    }
    if (region->kind() == RegionKind::kContainer) return std::nullopt;
    return Answer{region.get(), offset, shown_read_only && region->block() != nullptr};
  }
};

// Keeps the map as an observer hears of it.
class Listener final : public MapObserver {
 public:
  void range_removed(const FlatRange& range) override {
    const auto at = ranges_.find(range.start);
    ASSERT_NE(at, ranges_.end()) << "removal of an unknown range";
    EXPECT_EQ(at->second, range);
    ranges_.erase(at);
  }
  void range_added(const FlatRange& range) override {
    const auto next = ranges_.lower_bound(range.start);
    if (next != ranges_.end()) EXPECT_LE(range.end, next->second.start) << "overlap";
    if (next != ranges_.begin()) EXPECT_LE(std::prev(next)->second.end, range.start) << "overlap";
    ranges_.emplace(range.start, range);
  }
  [[nodiscard]] std::vector<FlatRange> ranges() const {
    std::vector<FlatRange> all;
    for (const auto& [start, range] : ranges_) all.push_back(range);
    return all;
  }

 private:
  std::map<uint64_t, FlatRange> ranges_;
};

class ModelTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  ModelTest() : random(GetParam()) {
    root.region = std::shared_ptr<Region>(&space.root(), [](Region*) {});
    space.add_observer(listener);
  }
  ~ModelTest() override { space.remove_observer(listener); }

  uint64_t below(uint64_t limit) { return random() % limit; }
  // Boundaries near each other and on pages are the interesting ones.
  uint64_t place() { return below(2) == 0 ? below(kSpace) : below(16) * 0x1000; }

  int priority() { return kLowest + static_cast<int>(below(kHighest - kLowest + 1)); }

  // Built from the leaves: a node holds and shows only nodes that are older, so there are no loops.
  void grow(int count) {
    for (int i = 0; i < count; ++i) {
      auto node = std::make_unique<Node>();
      const uint64_t size = below(3) == 0 ? (1 + below(8)) * 0x1000 : 1 + below(kSpace / 2);
      const std::string name = fmt::format("n{}", i);
      switch (below(6)) {
        case 0: node->region = Region::ram(name, testing::make_ram(1 + below(8))); break;
        case 1:
          node->region = Region::rom(name, testing::make_ram(1 + below(4)));
          node->read_only = true;
          break;
        case 2: node->region = Region::io(name, size, io); break;
        case 3:
          if (!nodes.empty()) {
            node->target = nodes[below(nodes.size())].get();
            node->target_offset = below(4) == 0 ? 0 : below(kSpace / 4);
            node->region = Region::alias(name, node->target->region, node->target_offset, size);
            break;
          }
          [[fallthrough]];
        default: node->region = Region::container(name, size);
      }
      for (uint64_t child = below(4); child > 0 && !nodes.empty(); --child) add(*node, *nodes[below(nodes.size())]);
      nodes.push_back(std::move(node));
    }
    for (auto& node : nodes) add(root, *node);
  }
  void add(Node& parent, Node& child) {
    if (child.placed) return;
    child.placed = true;
    const Node::Child entry{.node = &child, .offset = place(), .priority = priority()};
    parent.children.push_back(entry);
    parent.region->add(entry.offset, child.region, entry.priority);
  }
  void mutate() {
    Node& node = *nodes[below(nodes.size())];
    Node* parent = &root;
    for (auto& other : nodes)
      if (std::ranges::find(other->children, &node, &Node::Child::node) != other->children.end()) parent = other.get();
    Node::Child& entry = *std::ranges::find(parent->children, &node, &Node::Child::node);
    switch (below(6)) {
      case 0: node.region->set_offset(entry.offset = place()); break;
      case 1: node.region->set_enabled(node.enabled = !node.enabled); break;
      case 2: node.region->set_priority(entry.priority = priority()); break;
      case 3: node.region->set_read_only(node.read_only = !node.read_only); break;
      case 4:
        if (node.target != nullptr) node.region->set_alias_offset(node.target_offset = below(kSpace / 4));
        break;
      default: {  // to the end of its siblings, as if it were added now
        Node::Child moved = entry;
        std::erase_if(parent->children, [&](const Node::Child& child) { return child.node == &node; });
        parent->region->remove(node.region);
        moved.offset = place();
        parent->children.push_back(moved);
        parent->region->add(moved.offset, node.region, moved.priority);
      }
    }
  }

  uint64_t any_address() { return below(8) == 0 ? kSpace - below(8) : below(kSpace); }
  [[nodiscard]] std::optional<Answer> look(uint64_t address) const {
    return address < kSpace ? root.look(address, false) : std::nullopt;
  }
  void fill_memory() {
    for (const auto& node : nodes)
      if (const auto& block = node->region->block())
        for (uint64_t i = 0; i < block->size(); ++i) block->host()[i] = static_cast<uint8_t>(random());
  }

  void check_view() {
    const EpochGuard guard;
    const FlatView& view = space.view(guard);
    const auto ranges = view.ranges();
    for (size_t i = 0; i < ranges.size(); ++i) {
      ASSERT_LT(ranges[i].start, ranges[i].end);
      if (i > 0) ASSERT_LE(ranges[i - 1].end, ranges[i].start);
    }
    for (uint64_t address = 0; address < kSpace; ++address) {
      const FlatRange* const range = view.find(address);
      std::optional<Answer> seen;
      if (range != nullptr) seen = Answer{range->region.get(), range->block_offset(address), range->read_only};
      ASSERT_EQ(seen, root.look(address, false)) << fmt::format("at {:#x}\n{}", address, space.dump());
    }
    EXPECT_TRUE(std::ranges::equal(listener.ranges(), ranges)) << "what observers heard is not the map";
  }

  std::mt19937 random;
  testing::RecordingIo io;
  AddressSpace space{"model", kSpace};
  Node root;
  std::vector<std::unique_ptr<Node>> nodes;
  Listener listener;
};

TEST_P(ModelTest, TheViewAnswersEachByteAsTheTreeDoes) {
  grow(24);
  space.commit();
  check_view();
  for (int round = 0; round < 12 && !HasFatalFailure(); ++round) {
    for (uint64_t changes = 1 + below(3); changes > 0; --changes) mutate();
    space.commit();
    check_view();
  }
}

TEST_P(ModelTest, ReadsAgreeWithBytes) {
  grow(24);
  space.commit();
  fill_memory();
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t address = any_address();
    const unsigned size = 1u << below(4);
    bool answered = false;
    uint64_t expected = 0;
    for (unsigned byte = 0; byte < size; ++byte) {
      const auto answer = look(address + byte);
      answered |= answer.has_value();
      const uint8_t value = !answer                              ? 0xff
                            : answer->region->block() == nullptr ? static_cast<uint8_t>(answer->offset)  // RecordingIo
                                                                 : answer->region->block()->host()[answer->offset];
      expected |= uint64_t{value} << (8 * byte);
    }
    uint64_t seen = 0;
    ASSERT_EQ(space.read(address, size, seen) == AccessResult::kOk, answered);
    ASSERT_EQ(seen, expected) << fmt::format("{:#x}+{}\n{}", address, size, space.dump());
  }
}

TEST_P(ModelTest, WritesAgreeWithBytes) {
  grow(24);
  space.commit();
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t address = any_address();
    const unsigned size = 1u << below(4);
    const uint64_t value = uint64_t{random()} << 32 | random();
    bool answered = false;
    std::map<const uint8_t*, uint8_t> expected;  // two views of one block may lie side by side: the last byte stays
    for (unsigned byte = 0; byte < size; ++byte) {
      const auto answer = look(address + byte);
      answered |= answer.has_value();
      if (!answer || answer->region->block() == nullptr) continue;
      const uint8_t* const host = answer->region->block()->host() + answer->offset;
      if (!answer->read_only)
        expected[host] = static_cast<uint8_t>(value >> (8 * byte));
      else
        expected.try_emplace(host, *host);
    }
    ASSERT_EQ(space.write(address, size, value) == AccessResult::kOk, answered);
    for (const auto& [host, byte] : expected)
      ASSERT_EQ(*host, byte) << fmt::format("{:#x}+{}\n{}", address, size, space.dump());
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ModelTest, ::testing::Range(0U, 16U));

}  // namespace
}  // namespace kite
