#include "block/graph.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "support/suggest.h"

namespace kite::block {
namespace {

constexpr size_t kProbeBytes = 2048;

// The drivers whose requests become system calls on a file of the host.
bool is_host_file(std::string_view driver) { return driver == "file" || driver == "host_device"; }

// "proto:rest" when the name starts with a protocol's name; a '/' before the colon makes it a path.
std::string_view protocol_of(std::string_view name) {
  const size_t colon = name.find(':');
  if (colon == std::string_view::npos || colon == 0 || name.substr(0, colon).find('/') != std::string_view::npos)
    return {};
  return name.substr(0, colon);
}

Result<NodeConfig> take_config(BlockOptions& options, NodeConfig config, bool is_protocol) {
  config.name = options.take_string("node-name");
  constexpr size_t kLongestName = 31;
  if (!config.name.empty() && (!valid_id(config.name) || config.name.size() > kLongestName)) {
    return fail("Invalid node-name: '{}'", config.name);
  }
  KITE_ASSIGN(config.read_only, options.take_bool("read-only", config.read_only));
  KITE_ASSIGN(config.auto_read_only, options.take_bool("auto-read-only", config.auto_read_only));
  KITE_ASSIGN(config.direct, options.take_bool("cache.direct", config.direct));
  KITE_ASSIGN(config.no_flush, options.take_bool("cache.no-flush", config.no_flush));
  KITE_ASSIGN(config.force_share, options.take_bool("force-share", config.force_share));
  if (config.force_share && !config.read_only) {
    return fail("force-share=on can only be used with read-only images");
  }
  const bool unmap = config.inherit_discard || is_protocol || config.discard_unmap;
  static constexpr std::array<std::string_view, 4> kDiscard{"ignore", "off", "unmap", "on"};
  KITE_ASSIGN(const size_t discard, options.take_choice("discard", kDiscard, unmap ? 2 : 0));
  config.discard_unmap = discard >= 2;
  static constexpr std::array<std::string_view, 3> kDetect{"off", "on", "unmap"};
  KITE_ASSIGN(const size_t detect, options.take_choice("detect-zeroes", kDetect, 0));
  config.detect_zeroes = static_cast<NodeConfig::DetectZeroes>(detect);
  if (config.detect_zeroes == NodeConfig::DetectZeroes::kUnmap && !config.discard_unmap) {
    return fail("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
  }
  return config;
}

// What a child takes over from its parent.
NodeConfig child_config(const NodeConfig& parent) {
  NodeConfig config;
  config.read_only = parent.read_only;
  config.auto_read_only = parent.auto_read_only;
  config.direct = parent.direct;
  config.no_flush = parent.no_flush;
  config.force_share = parent.force_share;
  config.inherit_discard = true;
  return config;
}

// Options that name only a file get the driver its name calls for.
Result<> complete_filename(BlockOptions& options) {
  const std::string* filename = options.find("filename");
  if (options.has("driver") || filename == nullptr) return {};
  const std::string_view protocol = protocol_of(*filename);
  if (protocol == "blkdebug" || protocol == "blkverify") {
    const std::string text = *filename;
    const size_t colon = text.find(':', protocol.size() + 1);
    if (colon == std::string::npos) return fail("invalid filename '{}': {}:FILE:IMAGE is expected", text, protocol);
    const std::string first = text.substr(protocol.size() + 1, colon - protocol.size() - 1);
    options.set("driver", std::string(protocol));
    if (protocol == "blkdebug") {
      if (!first.empty()) options.set("config", first);
      options.set("image.filename", text.substr(colon + 1));
    } else {
      options.set("raw.filename", first);
      options.set("test.filename", text.substr(colon + 1));
    }
    options.erase("filename");
    return {};
  }
  if (protocol.empty()) {
    options.set("driver", filename->starts_with("/dev/") && !filename->starts_with("/dev/shm/") &&
                                  !filename->starts_with("/dev/fd/")
                              ? "host_device"
                              : "file");
    return {};
  }
  if (protocol == "nbd" || protocol.starts_with("nbd+") || protocol.starts_with("nbds")) {
    options.set("driver", "nbd");
    return {};
  }
  const Driver* driver = find_driver(protocol);
  if (driver == nullptr || !driver->is_protocol) return fail("Unknown protocol '{}'", protocol);
  if (driver->name != "file" && driver->name != "host_device") options.erase("filename");
  options.set("driver", std::string(protocol));
  return {};
}

}  // namespace

std::string resolve_relative(std::string_view base, std::string_view name) {
  if (name.starts_with('/') || !protocol_of(name).empty()) return std::string(name);
  const size_t slash = base.rfind('/');
  if (slash == std::string_view::npos) return std::string(name);
  return std::string(base.substr(0, slash + 1)) + std::string(name);
}

const Driver* find_driver(std::string_view name) {
  const auto all = drivers();
  const auto found = std::ranges::find(all, name, &Driver::name);
  return found == all.end() ? nullptr : &*found;
}

std::string_view probe_format(std::span<const uint8_t> head) {
  std::string_view best = "raw";
  int score = 0;
  for (const Driver& driver : drivers()) {
    if (driver.probe == nullptr) continue;
    if (const int its = driver.probe(head); its > score) {
      score = its;
      best = driver.name;
    }
  }
  return best;
}

Task<Result<NodePtr>> BlockGraph::open(BlockOptions options) { return open_node(std::move(options), {}); }

Task<Result<NodePtr>> BlockGraph::open_node(BlockOptions options, NodeConfig inherited) {
  if (const std::string* reference = options.find("")) {
    NodePtr node = find(*reference);
    if (node == nullptr) co_return fail("Cannot find device='' nor node-name='{}'", *reference);
    co_return node;
  }
  KITE_CO_TRY(complete_filename(options));
  const std::string name = options.take_string("driver");
  if (name.empty()) co_return fail("Parameter 'driver' is missing");
  const Driver* driver = find_driver(name);
  if (driver == nullptr) {
    std::vector<std::string_view> known;
    for (const Driver& each : drivers()) known.push_back(each.name);
    co_return fail("Unknown driver '{}'{}", name, suggestion(name, known));
  }
  // A format's file name is that of its file.
  if (!driver->is_protocol && options.has("filename") && !options.has_child("file")) {
    options.set("file.filename", *options.find("filename"));
    options.erase("filename");
  }
  KITE_CO_ASSIGN(NodeConfig config, take_config(options, std::move(inherited), driver->is_protocol));
  config.inactive = opens_inactive_;
  if (!config.name.empty() && find(config.name) != nullptr) {
    co_return fail("Duplicate nodes with node-name='{}'", config.name);
  }
  KITE_CO_ASSIGN(NodePtr node, co_await driver->open(*this, std::move(config), std::move(options)));
  KITE_CO_TRY(register_name(node));
  co_return node;
}

Task<Result<NodePtr>> BlockGraph::open_child(BlockOptions options, const NodeConfig& parent, std::string_view role) {
  if (options.empty()) co_return fail("A block device must be specified for \"{}\"", role);
  co_return co_await open_node(std::move(options), child_config(parent));
}

Task<Result<NodePtr>> BlockGraph::open_file(FileRequest request) {
  BlockOptions options = std::move(request.options);
  if (request.filename.starts_with("json:")) {
    KITE_CO_ASSIGN(const BlockOptions named, BlockOptions::parse(std::string_view(request.filename).substr(5)));
    for (const auto& [key, value] : named.all()) options.set_default(key, value);
    request.filename.clear();
  }
  NodeConfig config;
  config.read_only = request.read_only;
  config.direct = request.cache.direct;
  config.no_flush = request.cache.no_flush;
  config.force_share = request.force_share;
  config.discard_unmap = request.discard_unmap;
  config.backing_depth = request.depth;
  config.for_check = request.for_check;
  if (!request.filename.empty()) options.set("file.filename", request.filename);
  if (!request.format.empty() && !options.has("driver")) options.set("driver", request.format);
  // "driver" may already be that of a protocol: then its tree is the file's, and the format is asked for below.
  const std::string* named = options.find("driver");
  const Driver* driver = named == nullptr ? nullptr : find_driver(*named);
  if (named != nullptr && driver == nullptr) co_return fail("Unknown driver '{}'", *named);
  if (driver != nullptr && !options.has_child("file")) {
    if (!driver->is_protocol || request.format.empty() || request.format == driver->name) {
      if (is_host_file(driver->name) && !request.aio.empty()) options.set_default("aio", request.aio);
      const bool is_format = !driver->is_protocol;
      if (is_format || request.format == driver->name) co_return co_await open_node(std::move(options), config);
    }
    BlockOptions below;
    for (const auto& [key, value] : options.all()) below.set("file." + key, value);
    options = std::move(below);
    driver = nullptr;
  } else if (driver != nullptr && driver->is_protocol) {
    const BlockOptions below = options.take_child("file");
    options = {};
    for (const auto& [key, value] : below.all()) options.set(key, value);
    options.set("driver", std::string(driver->name));
    if (is_host_file(driver->name) && !request.aio.empty()) options.set_default("aio", request.aio);
    co_return co_await open_node(std::move(options), config);
  }
  if (!request.format.empty()) options.set("driver", request.format);
  BlockOptions file_options = options.take_child("file");
  KITE_CO_TRY(complete_filename(file_options));
  const std::string* protocol = file_options.find("driver");
  if (!request.aio.empty() && protocol != nullptr && is_host_file(*protocol)) {
    file_options.set_default("aio", request.aio);
  }
  KITE_CO_ASSIGN(const NodePtr file, co_await open_child(std::move(file_options), config, "file"));
  if (!options.has("driver")) {
    std::vector<uint8_t> head(kProbeBytes);
    if (const auto done = co_await file->read(0, IoSlice(head)); !done) {
      co_return fail("Could not read image for determining its format: {}", errno_text(done.error().code));
    }
    const std::string_view format =
        probe_format(std::span(head).first(static_cast<size_t>(std::min<uint64_t>(kProbeBytes, file->length()))));
    if (format == "raw" && !request.read_only && !request.allow_raw_probe) {
      co_return fail(
          "the format of '{}' is not given, and it looks raw: a guest that writes to a raw disk of guessed "
          "format could make it look like another one. Say format=raw (or the right format), or "
          "read-only=on",
          file->filename());
    }
    options.set("driver", std::string(format));
  }
  options.set("file", file->name());
  if (request.no_backing && !options.has_child("backing")) {
    const std::string& format = *options.find("driver");
    if (format == "qcow2" || format == "qed") options.set("backing", "");
  }
  co_return co_await open_node(std::move(options), config);
}

Task<Result<NodePtr>> BlockGraph::open_backing(std::string filename, std::string format, std::string relative_to,
                                               const NodeConfig& parent, unsigned depth, BlockOptions options) {
  constexpr unsigned kDeepest = 200;
  if (depth > kDeepest)
    co_return fail("the chain of backing files is longer than {} images, or goes in a circle", kDeepest);
  FileRequest request;
  request.filename = filename.starts_with("json:") ? filename : resolve_relative(relative_to, filename);
  request.format = std::move(format);
  request.options = std::move(options);
  request.read_only = true;
  request.force_share = parent.force_share;
  request.cache.direct = parent.direct;
  request.cache.no_flush = parent.no_flush;
  request.depth = depth;
  co_return co_await open_file(std::move(request));
}

NodePtr BlockGraph::find(std::string_view name) const {
  const auto found = names_.find(name);
  NodePtr node = found == names_.end() ? nullptr : found->second.lock();
  return node != nullptr && node->closed() ? nullptr : node;
}

std::vector<NodePtr> BlockGraph::nodes() const {
  std::vector<NodePtr> all;
  for (const auto& [name, weak] : names_) {
    if (NodePtr node = weak.lock()) all.push_back(std::move(node));
  }
  return all;
}

Result<> BlockGraph::register_name(const NodePtr& node) {
  std::erase_if(names_, [](const auto& entry) { return entry.second.expired(); });
  if (find(node->name()) != nullptr) return fail("Duplicate nodes with node-name='{}'", node->name());
  names_[node->name()] = node;
  return {};
}

Result<> BlockGraph::add(NodePtr node) {
  const std::string name = node->name();
  node->set_kept(true);
  if (!owned_.emplace(name, std::move(node)).second) return fail("Duplicate nodes with node-name='{}'", name);
  return {};
}

Task<Result<>> BlockGraph::remove(std::string_view name) {
  const auto found = owned_.find(name);
  if (found == owned_.end()) co_return fail("Failed to find node with node-name='{}'", name);
  if (found->second->user_count() != 0) co_return fail("Node {} is in use by {}", name, found->second->user_names());
  const NodePtr node = std::move(found->second);
  owned_.erase(found);
  node->set_kept(false);
  co_return co_await node->close();
}

// Those that no other node is over.
std::vector<NodePtr> BlockGraph::roots() const {
  std::vector<NodePtr> roots = nodes();
  for (const NodePtr& node : nodes())
    for (const NodeEdge& edge : node->children())
      std::erase_if(roots, [&edge](const NodePtr& root) { return root.get() == edge.node; });
  return roots;
}

Task<Result<>> BlockGraph::deactivate_all() {
  for (const NodePtr& root : roots()) KITE_CO_TRY(co_await root->deactivate());
  co_return Result<>{};
}

Task<Result<>> BlockGraph::activate_all() {
  for (const NodePtr& root : roots()) KITE_CO_TRY(co_await root->activate());
  co_return Result<>{};
}

Task<Result<>> BlockGraph::close_all() {
  Result<> result;
  // A node is free once its parents are closed; each pass closes the free ones.
  for (bool progress = true; progress;) {
    progress = false;
    for (const NodePtr& node : nodes()) {
      if (node->user_count() != 0 || node->closed()) continue;
      owned_.erase(node->name());
      const std::string filename = node->filename();  // a closed node has none
      if (const Result<> done = co_await node->close(); !done && result) {
        std::string why = done.error().message;
        std::ranges::replace(why, '\n', ' ');
        result = fail("'{}' could not be closed cleanly: {}", filename, why);
      }
      progress = true;
    }
  }
  co_return result;
}

}  // namespace kite::block
