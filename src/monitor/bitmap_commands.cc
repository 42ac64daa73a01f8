// Dirty bitmaps: commands of their own, and parts of transactions.
#include "block/bitmap_requests.h"
#include "block/chain.h"
#include "monitor/block_actions.h"
#include "monitor/job_arguments.h"
#include "monitor/job_commands.h"

namespace kite::monitor {

using block::BitmapPtr;
using block::DirtyBitmap;
using block::DirtyChunks;
using block::NodePtr;
using Context = MonitorContext;
using Type = Json::value_t;
using machine::BlockTogether;

namespace {

using Need = DirtyBitmap::Need;

// --- on the block thread

struct NamedBitmap {
  NamedImage image;
  std::string name;
};

// Of a drive, its image: filters of jobs come and go.
Result<NodePtr> find_node(block::BlockGraph& graph, const NamedImage& named) {
  KITE_ASSIGN(NodePtr node, find_image(graph, named));
  if (named.drive != nullptr) node = block::skip_filters(node.get())->shared_from_this();
  return node;
}

Result<BitmapPtr> find_bitmap(block::BlockGraph& graph, const NamedBitmap& named) {
  KITE_ASSIGN(const NodePtr node, find_node(graph, named.image));
  return block::find_bitmap(*node, named.name);
}

class AddBitmap final : public machine::BlockAction {
 public:
  AddBitmap(NamedImage image, block::NewBitmap request) : image_(std::move(image)), request_(std::move(request)) {}

  Task<Result<>> prepare(BlockTogether& together) override {
    KITE_CO_ASSIGN(node_, find_node(together.graph, image_));
    KITE_CO_ASSIGN(bitmap_, block::add_bitmap(*node_, request_));
    co_return Result<>{};
  }
  Task<void> finish(BlockTogether&, bool done) override {
    if (!done && bitmap_ != nullptr) node_->bitmaps().remove(bitmap_);
    co_return;
  }

 private:
  NamedImage image_;
  block::NewBitmap request_;
  NodePtr node_;
  BitmapPtr bitmap_;
};

class RemoveBitmap final : public machine::BlockAction {
 public:
  explicit RemoveBitmap(NamedBitmap named) : named_(std::move(named)) {}

  Task<Result<>> prepare(BlockTogether& together) override {
    KITE_CO_ASSIGN(node_, find_node(together.graph, named_.image));
    KITE_CO_ASSIGN(const BitmapPtr found, block::find_bitmap(*node_, named_.name));
    KITE_CO_TRY(found->may(Need::kRemove));
    node_->bitmaps().remove(found);
    bitmap_ = found;
    co_return Result<>{};
  }
  Task<void> finish(BlockTogether&, bool done) override {
    if (!done && bitmap_ != nullptr) node_->bitmaps().add(bitmap_);
    co_return;
  }

 private:
  NamedBitmap named_;
  NodePtr node_;
  BitmapPtr bitmap_;
};

class EnableBitmap final : public machine::BlockAction {
 public:
  EnableBitmap(NamedBitmap named, bool enabled) : named_(std::move(named)), enabled_(enabled) {}

  Task<Result<>> prepare(BlockTogether& together) override {
    KITE_CO_ASSIGN(const BitmapPtr found, find_bitmap(together.graph, named_));
    KITE_CO_TRY(found->may(Need::kRead));
    bitmap_ = found;
    was_ = std::exchange(bitmap_->enabled, enabled_);
    co_return Result<>{};
  }
  Task<void> finish(BlockTogether&, bool done) override {
    if (!done && bitmap_ != nullptr) bitmap_->enabled = was_;
    co_return;
  }

 private:
  NamedBitmap named_;
  bool enabled_, was_ = false;
  BitmapPtr bitmap_;
};

// Clears it, or adds what others have.
class ChangeBitmap final : public machine::BlockAction {
 public:
  explicit ChangeBitmap(NamedBitmap named) : named_(std::move(named)) {}
  ChangeBitmap(NamedBitmap named, std::vector<NamedBitmap> sources)
      : named_(std::move(named)), merges_(true), sources_(std::move(sources)) {}

  Task<Result<>> prepare(BlockTogether& together) override {
    KITE_CO_ASSIGN(const BitmapPtr target, find_bitmap(together.graph, named_));
    KITE_CO_TRY(target->may(Need::kChange));
    std::vector<BitmapPtr> sources;
    for (const NamedBitmap& named : sources_) {
      KITE_CO_ASSIGN(BitmapPtr source, find_bitmap(together.graph, named));
      KITE_CO_TRY(block::may_merge(*target, *source));
      sources.push_back(std::move(source));
    }
    bitmap_ = target;
    before_ = target->chunks();
    if (!merges_) target->set_chunks(DirtyChunks(before_->length(), before_->chunk()));
    for (const BitmapPtr& source : sources)
      if (source != target) target->merge(source->chunks());
    co_return Result<>{};
  }
  Task<void> finish(BlockTogether&, bool done) override {
    if (!done && bitmap_ != nullptr) bitmap_->set_chunks(std::move(*before_));
    co_return;
  }

 private:
  NamedBitmap named_;
  bool merges_ = false;
  std::vector<NamedBitmap> sources_;
  BitmapPtr bitmap_;
  std::optional<DirtyChunks> before_;
};

// --- arguments

NamedBitmap named_bitmap(Context& context, const Json& arguments, const char* name = "name") {
  return {.image = named_image(context, arguments.at("node")), .name = arguments.at(name)};
}

ActionReply add_bitmap(Context& context, const Json& arguments) {
  block::NewBitmap request{.name = arguments.at("name"),
                           .persistent = arguments.value("persistent", false),
                           .enabled = !arguments.value("disabled", false)};
  if (arguments.contains("granularity")) {
    const Json& granularity = arguments.at("granularity");
    const bool negative = !granularity.is_number_unsigned() && granularity.get<int64_t>() < 0;
    request.granularity = negative ? 0 : granularity.get<uint64_t>();
    if (request.granularity < DirtyBitmap::kMinGranularity)
      return qmp_fail("Granularity must be power of 2, and at least {}", DirtyBitmap::kMinGranularity);
  }
  return std::make_unique<AddBitmap>(named_image(context, arguments.at("node")), std::move(request));
}

ActionReply remove_bitmap(Context& context, const Json& arguments) {
  return std::make_unique<RemoveBitmap>(named_bitmap(context, arguments));
}
ActionReply clear_bitmap(Context& context, const Json& arguments) {
  return std::make_unique<ChangeBitmap>(named_bitmap(context, arguments));
}
ActionReply enable_bitmap(Context& context, const Json& arguments) {
  return std::make_unique<EnableBitmap>(named_bitmap(context, arguments), true);
}
ActionReply disable_bitmap(Context& context, const Json& arguments) {
  return std::make_unique<EnableBitmap>(named_bitmap(context, arguments), false);
}

// [QAPI] BlockDirtyBitmapOrStr: of the same node, or with its own.
ActionReply merge_bitmaps(Context& context, const Json& arguments) {
  NamedBitmap target = named_bitmap(context, arguments, "target");
  std::vector<NamedBitmap> sources;
  constexpr ArgumentSpec kSource[] = {{"node", Type::string, true}, {"name", Type::string, true}};
  for (const Json& each : arguments.at("bitmaps")) {
    if (each.is_string()) {
      sources.push_back({.image = target.image, .name = each});
    } else if (each.is_object()) {
      if (auto checked = check_arguments(kSource, each, false); !checked) return std::unexpected(checked.error());
      sources.push_back(named_bitmap(context, each));
    } else {
      return qmp_fail("Parameter 'bitmaps' expects names, and objects with 'node' and 'name'");
    }
  }
  return std::make_unique<ChangeBitmap>(std::move(target), std::move(sources));
}

constexpr ArgumentSpec kAdd[] = {{"node", Type::string, true},
                                 {"name", Type::string, true},
                                 {"granularity", Type::number_integer, false},
                                 {"persistent", Type::boolean, false},
                                 {"disabled", Type::boolean, false}};
constexpr ArgumentSpec kBitmap[] = {{"node", Type::string, true}, {"name", Type::string, true}};
constexpr ArgumentSpec kMerge[] = {
    {"node", Type::string, true}, {"target", Type::string, true}, {"bitmaps", Type::array, true}};

constexpr ActionSpec kActions[] = {
    {"block-dirty-bitmap-add", kAdd, add_bitmap},        {"block-dirty-bitmap-remove", kBitmap, remove_bitmap},
    {"block-dirty-bitmap-clear", kBitmap, clear_bitmap}, {"block-dirty-bitmap-enable", kBitmap, enable_bitmap},
    {"block-dirty-bitmap-merge", kMerge, merge_bitmaps}, {"block-dirty-bitmap-disable", kBitmap, disable_bitmap},
};

constexpr QmpCommand kBitmapCommands[] = {
    {"block-dirty-bitmap-add", kAdd, single_action<add_bitmap>},
    {"block-dirty-bitmap-remove", kBitmap, single_action<remove_bitmap>},
    {"block-dirty-bitmap-clear", kBitmap, single_action<clear_bitmap>},
    {"block-dirty-bitmap-enable", kBitmap, single_action<enable_bitmap>},
    {"block-dirty-bitmap-disable", kBitmap, single_action<disable_bitmap>},
    {"block-dirty-bitmap-merge", kMerge, single_action<merge_bitmaps>},
};

}  // namespace

std::span<const ActionSpec> bitmap_actions() { return kActions; }
std::span<const QmpCommand> bitmap_commands() { return kBitmapCommands; }

}  // namespace kite::monitor
