#include "machine/drive_images.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "block/image.h"
#include "support/fd.h"

namespace kite::machine {

using block::BlockGraph;
using block::BlockOptions;
using block::NodePtr;

Task<Result<>> open_named_node(BlockGraph& graph, BlockOptions options) {
  if (!options.has("node-name")) co_return fail("'node-name' must be specified for the root node");
  KITE_CO_ASSIGN(NodePtr node, co_await graph.open(std::move(options)));
  const Result<> added = graph.add(node);
  if (!added && node->user_count() == 0 && !node->kept()) (void)co_await node->close();
  co_return added;
}

namespace {

// Closes what a failed step leaves behind.
Task<Result<NodePtr>> close_and_fail(NodePtr node, Failure failure) {
  if (node->user_count() == 0 && !node->kept()) (void)co_await node->close();
  co_return failure;
}

// A file that nobody else sees: its name is gone once it is open.
class TemporaryFile {
 public:
  static Result<TemporaryFile> create() {
    const char* directory = std::getenv("TMPDIR");
    TemporaryFile file;
    file.path_ =
        fmt::format("{}/kite-snapshot.XXXXXX", directory != nullptr && *directory != 0 ? directory : "/var/tmp");
    const Fd made(::mkostemp(file.path_.data(), O_CLOEXEC));
    if (!made.valid()) return fail("cannot make the file {} for -snapshot: {}", file.path_, errno_text(errno));
    file.exists_ = true;
    return file;
  }
  TemporaryFile(TemporaryFile&& other) noexcept
      : path_(std::move(other.path_)), exists_(std::exchange(other.exists_, false)) {}
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  ~TemporaryFile() {
    if (exists_) ::unlink(path_.c_str());
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  TemporaryFile() = default;
  std::string path_;
  bool exists_ = false;
};

// A qcow2 image over `base` that takes the guest's writes and is lost with the machine. It need survive no crash.
Task<Result<NodePtr>> open_overlay(BlockGraph& graph, NodePtr base) {
  KITE_CO_ASSIGN(const TemporaryFile temporary, TemporaryFile::create());
  BlockOptions file_options;
  file_options.set("driver", "file");
  file_options.set("filename", temporary.path());
  file_options.set("cache.no-flush", "on");
  KITE_CO_ASSIGN(const NodePtr file, co_await graph.open(std::move(file_options)));
  const block::ImageFormat* const format = block::find_image_format("qcow2");
  block::CreateRequest request;
  request.filename = temporary.path();
  request.bytes = base->length();
  if (auto made = co_await format->create(graph, file, std::move(request)); !made)
    co_return co_await close_and_fail(file, Failure(std::move(made).error()));
  BlockOptions options;
  options.set("driver", "qcow2");
  options.set("file", file->name());
  options.set("backing", base->name());
  options.set("cache.no-flush", "on");
  options.set("discard", "unmap");
  auto overlay = co_await graph.open(std::move(options));
  if (!overlay) co_return co_await close_and_fail(file, Failure(std::move(overlay).error()));
  co_return overlay;
}

Task<Result<NodePtr>> open_filter(BlockGraph& graph, std::string driver, NodePtr below) {
  BlockOptions options;
  options.set("driver", std::move(driver));
  options.set("file", below->name());
  if (below->read_only()) options.set("read-only", "on");
  options.set("discard", "unmap");
  co_return co_await graph.open(std::move(options));
}

}  // namespace

Task<Result<NodePtr>> open_image(BlockGraph& graph, DriveSpec spec) {
  BlockGraph::FileRequest request = std::move(spec.request);
  const bool read_only = request.read_only;
  if (spec.snapshot) request.read_only = true;
  KITE_CO_ASSIGN(NodePtr node, co_await graph.open_file(std::move(request)));
  if (spec.snapshot && !read_only) {
    auto overlay = co_await open_overlay(graph, node);
    if (!overlay) co_return co_await close_and_fail(node, Failure(std::move(overlay).error()));
    node = std::move(*overlay);
  }
  if (spec.copy_on_read && !node->read_only()) {
    auto filter = co_await open_filter(graph, "copy-on-read", node);
    if (!filter) co_return co_await close_and_fail(node, Failure(std::move(filter).error()));
    node = std::move(*filter);
  }
  co_return node;
}

Task<Result<NodePtr>> open_new_image(BlockGraph& graph, NewImage image, NodePtr like) {
  const block::ImageFormat* const format = block::find_image_format(image.format);
  if (format == nullptr) co_return fail("The format '{}' does not support image creation", image.format);
  if (!image.node_name.empty() && graph.find(image.node_name) != nullptr)
    co_return fail("New node-name already in use: '{}'", image.node_name);
  if (!image.existing) KITE_CO_TRY(block::create_host_file(image.filename, false));
  const block::NodeConfig& config = like->config();
  BlockOptions file_options;
  file_options.set("filename", image.filename);
  file_options.set("cache.direct", config.direct ? "on" : "off");
  file_options.set("cache.no-flush", config.no_flush ? "on" : "off");
  KITE_CO_ASSIGN(const NodePtr file, co_await graph.open(std::move(file_options)));
  if (!image.existing) {
    Result<> made = co_await format->create(graph, file,
                                            {.filename = image.filename,
                                             .bytes = image.bytes,
                                             .options = {},
                                             .backing_filename = image.backing_filename,
                                             .backing_format = image.backing_format});
    file->set_kept(false);
    if (!made) co_return co_await close_and_fail(file, Failure(std::move(made).error()));
  }
  BlockOptions options;
  options.set("driver", image.format);
  options.set("file", file->name());
  options.set("discard", config.discard_unmap ? "unmap" : "ignore");
  if (format->has_backing && image.backing) options.set("backing", *image.backing);
  if (!image.node_name.empty()) options.set("node-name", image.node_name);
  auto node = co_await graph.open(std::move(options));
  if (!node) co_return co_await close_and_fail(file, Failure(std::move(node).error()));
  co_return node;
}

}  // namespace kite::machine
