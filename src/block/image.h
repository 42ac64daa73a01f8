// What the image tools ask of a format beyond reading and writing: facts, consistency, snapshots, backing files.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "block/graph.h"
#include "block/node.h"

namespace kite::block {

// Values under the names that `info` shows; JSON keeps the types.
using InfoValue = std::variant<bool, uint64_t, std::string>;
using InfoItems = std::vector<std::pair<std::string, InfoValue>>;

struct SnapshotInfo {
  std::string id{};
  std::string name{};
  uint64_t vm_state_bytes = 0;
  uint32_t date_seconds = 0;
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock_ns = 0;
  std::optional<uint64_t> icount{};
  uint64_t disk_bytes = 0;
};

// A dirty bitmap that the image keeps.
struct BitmapInfo {
  std::string name{};
  uint64_t granularity = 0;
  bool in_use = false;
  bool enabled = false;
};

struct ImageInfo {
  uint64_t cluster_bytes = 0;  // 0: the format has none
  uint64_t vm_state_offset = 0;
  bool encrypted = false;
  bool dirty = false;
  std::string backing_filename;  // as the image names it; "" for none
  std::string backing_format;
  bool has_format_specific = false;
  InfoItems format_specific;
  std::vector<SnapshotInfo> snapshots;
  std::vector<BitmapInfo> bitmaps;
};

struct CheckResult {
  uint64_t corruptions = 0;
  uint64_t leaks = 0;
  uint64_t corruptions_fixed = 0;
  uint64_t leaks_fixed = 0;
  uint64_t check_errors = 0;
  uint64_t image_end_offset = 0;
  uint64_t total_clusters = 0;  // 0: no cluster statistics
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;
};

enum class Repair : uint8_t { kNone, kLeaks, kAll };

// A line of a check's findings, as people read them.
using CheckMessage = std::function<void(const std::string& line)>;

class FormatNode : public BlockNode {
 public:
  using BlockNode::BlockNode;

  [[nodiscard]] virtual ImageInfo image_info() const = 0;
  // ENOTSUP-like error when the format has no checks.
  virtual Task<Result<CheckResult>> check(Repair repair, CheckMessage message);
  // New backing file and format in the header; "" takes it out. The nodes stay as they are.
  virtual Task<Result<>> change_backing_name(std::string filename, std::string format);
  // Everything in this image's own layer goes: the backing file shows through everywhere (commit).
  [[nodiscard]] virtual bool can_be_emptied() const { return false; }
  virtual Task<Result<>> make_empty();
  // Another node for unallocated ranges (rebase); null: zeroes.
  virtual Result<> set_backing(NodePtr backing);
  [[nodiscard]] virtual bool holds_snapshots() const { return false; }
  virtual Task<Result<>> snapshot_create(SnapshotInfo snapshot);
  virtual Task<Result<>> snapshot_apply(std::string id_or_name);
  virtual Task<Result<>> snapshot_delete(std::string id_or_name);
  // From now on the node shows that snapshot; read-only nodes only.
  virtual Task<Result<>> snapshot_load(std::string id_or_name);
  virtual Task<Result<>> amend(BlockOptions options);
  // A machine's state, kept in the image beside the disk; a snapshot takes it along. ENOTSUP where there is none.
  virtual Task<IoResult<>> read_vm_state(uint64_t offset, IoSlice to);
  virtual Task<IoResult<>> write_vm_state(uint64_t offset, IoSlice from, IoHow how);
};

// How new images are made: the option names of `create -o`.
struct CreateRequest {
  std::string filename;
  uint64_t bytes = 0;
  BlockOptions options;  // those of the format; the size apart
  std::string backing_filename, backing_format;
};

struct CreateOption {
  std::string_view name;
  std::string_view type;  // "size", "str", "bool (on/off)", "num"
  std::string_view help;
};

// Space that an image of a format needs.
struct Measure {
  uint64_t required = 0;
  uint64_t fully_allocated = 0;
};

// What a format can do as a target of the tools.
struct ImageFormat {
  std::string_view name;
  std::span<const CreateOption> create_options;
  // Creates the image in an existing, empty protocol node of the graph.
  Task<Result<>> (*create)(BlockGraph& graph, NodePtr file, CreateRequest request);
  // `data_bytes(cluster)`: how much of an image is data at that cluster size.
  Result<Measure> (*measure)(uint64_t bytes, uint64_t data_bytes, BlockOptions options);
  // The cluster size that create() would choose.
  Result<uint64_t> (*cluster_bytes)(BlockOptions options);
  bool has_backing;
  bool compresses;
};
std::span<const ImageFormat> image_formats();
const ImageFormat* find_image_format(std::string_view name);

// Creates the host's file, or empties one that exists and that nobody uses. With `overwrite` an old file may keep its
// content for the caller to write over: space that is in use need not be given back and asked for again. Answers
// whether there is old content (also that of a device).
Result<bool> create_host_file(const std::string& filename, bool overwrite);
Result<Preallocation> parse_preallocation(std::string_view text);

}  // namespace kite::block
