// BlockGraph: the named nodes of a machine or a tool, and how they come to be from options.
//
//   auto graph = BlockGraph(executor);
//   auto node = co_await graph.open(BlockOptions::parse("driver=qcow2,file.driver=file,file.filename=a.qcow2"));
//   auto drive = Drive::create(executor, {.id = "hd0"}, *node);
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "block/drive.h"
#include "block/node.h"
#include "block/options.h"

namespace kite::block {

class BlockGraph;

// One driver: how a node of it is opened.
struct Driver {
  std::string_view name;
  bool is_protocol;
  Task<Result<NodePtr>> (*open)(BlockGraph& graph, NodeConfig config, BlockOptions options);
  // How likely the head of a file (up to 2 KiB) is this format's: 0 (not) .. 100. Null: never guessed.
  int (*probe)(std::span<const uint8_t> head);
};
std::span<const Driver> drivers();
const Driver* find_driver(std::string_view name);
// The most likely format of a head; "raw" when no other claims it.
std::string_view probe_format(std::span<const uint8_t> head);

class BlockGraph {
 public:
  explicit BlockGraph(Executor& executor) : executor_(executor) {}
  BlockGraph(const BlockGraph&) = delete;
  BlockGraph& operator=(const BlockGraph&) = delete;

  [[nodiscard]] Executor& executor() const { return executor_; }
  // Nodes that are opened from now on are inactive: their images are another process's.
  void set_opens_inactive(bool inactive) { opens_inactive_ = inactive; }
  // All nodes, those that others read through first; the first error, and then some are and some are not.
  Task<Result<>> deactivate_all();
  Task<Result<>> activate_all();

  // Opens the tree that the options describe. `driver` is required here and in every child, but for a child with
  // "filename" alone, which is a file (or the protocol its prefix names). Everything unknown is an error.
  Task<Result<NodePtr>> open(BlockOptions options);
  // -drive file=X,format=F,...: a file name where the format may be missing. It is then probed; what looks raw may
  // only be opened for reading unless `allow_raw_probe`: a guest that writes a header of its choosing into a raw disk
  // could otherwise name files of the host. `options` may hold further options of the format and of "file.".
  struct FileRequest {
    std::string filename{};  // a path, "json:{...}", "nbd:...", "null-co://", "blkdebug:config:image"
    std::string format{};    // "" to probe
    BlockOptions options{};
    bool read_only = false;
    bool allow_raw_probe = false;  // tools that say what they guessed
    bool no_backing = false;       // do not open backing files
    bool no_io = false;            // only the header is wanted
    bool force_share = false;
    bool for_check = false;  // a damaged image may be opened
    CacheMode cache{};
    bool discard_unmap = true;
    unsigned depth = 0;  // in a chain of backing files
    std::string aio{};   // "", "threads", "native", "io_uring"
  };
  Task<Result<NodePtr>> open_file(FileRequest request);
  // A child: by reference ("file": "node0"), or opened from its options.
  Task<Result<NodePtr>> open_child(BlockOptions options, const NodeConfig& parent, std::string_view role);
  // Opens a backing file, named relative to the image that names it; `format` "" is probed (a backing file is only
  // read).
  Task<Result<NodePtr>> open_backing(std::string filename, std::string format, std::string relative_to,
                                     const NodeConfig& parent, unsigned depth, BlockOptions options = {});

  [[nodiscard]] NodePtr find(std::string_view name) const;
  [[nodiscard]] std::vector<NodePtr> nodes() const;
  // Keeps a node by its name until remove() (blockdev-add, -blockdev); others live as long as their users.
  Result<> add(NodePtr node);
  // Gives a node that was made elsewhere its place among the names, without keeping it.
  Result<> adopt(const NodePtr& node) { return register_name(node); }
  // Fails while something uses it.
  Task<Result<>> remove(std::string_view name);
  // Closes all that is still open, parents first.
  Task<Result<>> close_all();

 private:
  friend class BlockNode;
  Task<Result<NodePtr>> open_node(BlockOptions options, NodeConfig inherited);
  Result<> register_name(const NodePtr& node);

  [[nodiscard]] std::vector<NodePtr> roots() const;

  Executor& executor_;
  bool opens_inactive_ = false;
  std::map<std::string, NodePtr, std::less<>> owned_;
  std::map<std::string, std::weak_ptr<BlockNode>, std::less<>> names_;
};

// "a/b.img" named in the header of "/x/c.qcow2" is "/x/a/b.img"; absolute names and those with a protocol stay.
std::string resolve_relative(std::string_view base, std::string_view name);

}  // namespace kite::block
