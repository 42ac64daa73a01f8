#include "monitor/block_facts.h"

#include "block/chain.h"
#include "block/image.h"
#include "block/jobs/job_filter.h"
#include "devices/storage/removable.h"

namespace kite::monitor {

namespace {

using block::BlockNode;
using machine::DriveStore;

// --- on the block thread

Json image_json(const BlockNode& node) {
  Json image{{"virtual-size", node.length()}, {"filename", node.filename()}, {"format", node.driver()}};
  image["actual-size"] = node.allocated_bytes();
  const auto* const format = dynamic_cast<const block::FormatNode*>(&node);
  block::ImageInfo info;
  if (format != nullptr) info = format->image_info();
  image["dirty-flag"] = info.dirty;
  if (info.cluster_bytes != 0) image["cluster-size"] = info.cluster_bytes;
  if (!info.backing_filename.empty()) {
    image["backing-filename"] = info.backing_filename;
    image["full-backing-filename"] = info.backing_filename.starts_with("json:")
                                         ? info.backing_filename
                                         : block::resolve_relative(node.filename(), info.backing_filename);
    if (!info.backing_format.empty()) image["backing-filename-format"] = info.backing_format;
  }
  if (info.has_format_specific) {
    Json data = Json::object();
    for (const auto& [key, value] : info.format_specific)
      data[key] = std::visit([](const auto& held) { return Json(held); }, value);
    for (const block::BitmapInfo& bitmap : info.bitmaps) {
      Json flags = Json::array();
      if (bitmap.in_use) flags.push_back("in-use");
      if (bitmap.enabled) flags.push_back("auto");
      data["bitmaps"].push_back({{"name", bitmap.name}, {"granularity", bitmap.granularity}, {"flags", flags}});
    }
    image["format-specific"] = {{"type", node.driver()}, {"data", std::move(data)}};
  }
  return image;
}

unsigned backing_depth(const BlockNode& node) {
  constexpr unsigned kDeepest = 256;
  unsigned depth = 0;
  for (const BlockNode* at = &node; at != nullptr && depth < kDeepest;) {
    if (at->backing() != nullptr) ++depth;
    at = at->backing() != nullptr ? at->backing() : at->is_filter() ? at->file() : nullptr;
  }
  return depth;
}

// What a client knows by name: the filters of jobs stand above it unseen, unless they were given a name.
const BlockNode* shown(const BlockNode* node) {
  while (const auto* const filter = dynamic_cast<const block::JobFilter*>(node)) {
    if (!filter->implicit()) break;
    node = filter->file();
  }
  return node;
}

// The image files from the node downwards, as nested backing-image members.
Json image_chain_json(const BlockNode& node, bool flat) {
  Json image = image_json(node);
  if (!flat && node.backing() != nullptr) image["backing-image"] = image_chain_json(*shown(node.backing()), flat);
  return image;
}

Json bitmaps_json(const BlockNode& node) {
  Json list = Json::array();
  for (const block::BitmapPtr& bitmap : node.bitmaps().all()) {
    Json json{{"name", bitmap->name()},
              {"count", bitmap->chunks().bytes()},
              {"granularity", bitmap->granularity()},
              {"recording", bitmap->enabled},
              {"busy", bitmap->busy()},
              {"persistent", bitmap->persistent}};
    if (bitmap->inconsistent) json["inconsistent"] = true;
    list.push_back(std::move(json));
  }
  return list;
}

Json node_json(const BlockNode& node, bool flat, bool writeback) {
  const block::NodeConfig& config = node.config();
  using Detect = block::NodeConfig::DetectZeroes;
  const char* const detect = config.detect_zeroes == Detect::kOff  ? "off"
                             : config.detect_zeroes == Detect::kOn ? "on"
                                                                   : "unmap";
  Json json{{"node-name", node.name()},
            {"drv", node.driver()},
            {"ro", node.read_only()},
            {"file", node.filename()},
            {"encrypted", false},
            {"detect_zeroes", detect},
            {"write_threshold", 0},
            {"backing_file_depth", backing_depth(node)},
            {"cache", {{"writeback", writeback}, {"direct", config.direct}, {"no-flush", config.no_flush}}}};
  for (const char* const limit : {"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"}) json[limit] = 0;
  if (node.backing() != nullptr) json["backing_file"] = node.backing()->filename();
  if (!node.bitmaps().empty()) json["dirty-bitmaps"] = bitmaps_json(node);
  json["image"] = image_chain_json(node, flat);
  return json;
}

Task<Json> drive_json(block::Drive& drive) {
  if (drive.node() == nullptr) co_return Json();
  Json json = node_json(*shown(drive.node().get()), false, drive.write_cache());
  json["ro"] = drive.read_only();
  co_return json;
}

Task<Json> all_nodes_json(block::BlockGraph& graph, bool flat) {
  Json list = Json::array();
  for (const block::NodePtr& node : graph.nodes())
    if (!node->closed()) list.push_back(node_json(*node, flat, true));
  co_return list;
}

// Requests are counted where devices make them: a node alone (no drive) knows only how far it was written.
Json stats_json(const block::Drive* drive, uint64_t highest_written) {
  using Operation = block::DriveOperation;
  Json json = Json::object();
  struct Kind {
    const char* name;
    std::initializer_list<Operation> operations;
  };
  const Kind kinds[] = {{"rd", {Operation::kRead}},
                        {"wr", {Operation::kWrite, Operation::kWriteZeroes}},
                        {"flush", {Operation::kFlush}},
                        {"unmap", {Operation::kDiscard}}};
  for (const Kind& kind : kinds) {
    uint64_t operations = 0, bytes = 0, errors = 0, ns = 0;
    for (const Operation operation : kind.operations) {
      if (drive == nullptr) continue;
      const block::DriveStats& stats = drive->stats(operation);
      operations += stats.operations.value();
      bytes += stats.bytes.value();
      errors += stats.errors.value();
      ns += stats.total_ns.value();
    }
    const std::string name = kind.name;
    if (name != "flush") {
      json[name + "_bytes"] = bytes;
      json[name + "_merged"] = 0;
    }
    json[name + "_operations"] = operations;
    json[name + "_total_time_ns"] = ns;
    json["failed_" + name + "_operations"] = errors;
    json["invalid_" + name + "_operations"] = 0;
  }
  json["wr_highest_offset"] = highest_written;
  json["account_invalid"] = true;
  json["account_failed"] = true;
  json["timed_stats"] = Json::array();
  return json;
}

Task<Json> all_stats(block::BlockGraph& graph) {
  Json list = Json::array();
  for (const block::NodePtr& node : graph.nodes())
    if (!node->closed())
      list.push_back({{"node-name", node->name()}, {"stats", stats_json(nullptr, node->highest_written())}});
  co_return list;
}

Task<std::string> node_name(block::Drive& drive) {
  co_return drive.node() == nullptr ? std::string() : shown(drive.node().get())->name();
}

// The limits in the words of block_set_io_throttle, over the zeroes that node_json() put there.
void describe_limits(const DriveStore::Entry& entry, Json& json) {
  static constexpr const char* kEnds[] = {"", "_rd", "_wr"};
  const block::ThrottleLimits& limits = entry.spec.throttle;
  for (size_t kind = 0; kind < block::ThrottleLimits::kKinds; ++kind) {
    for (const bool bytes : {true, false}) {
      const std::string name = fmt::format("{}{}", bytes ? "bps" : "iops", kEnds[kind]);
      const block::RateLimit& limit = (bytes ? limits.bytes : limits.operations)[kind];
      json[name] = limit.rate;
      if (limit.burst == 0) continue;
      json[name + "_max"] = limit.burst;
      json[name + "_max_length"] = limit.burst_seconds;
    }
  }
  if (limits.operation_bytes != 0) json["iops_size"] = limits.operation_bytes;
  json["group"] = entry.spec.throttle_group.empty() ? entry.drive->id() : entry.spec.throttle_group;
}

}  // namespace

devices::Removable* removable_of(machine::Machine& machine, const DriveStore::Entry& entry) {
  if (!entry.removable || entry.owner_path.empty()) return nullptr;
  return dynamic_cast<devices::Removable*>(machine.board().find_device(entry.owner_path));
}

Json blocks_json(machine::Machine& machine) {
  Json list = Json::array();
  DriveStore* const store = machine.drives();
  if (store == nullptr) return list;
  for (const auto& entry : store->entries()) {
    if (entry->doomed) continue;
    devices::Removable* const removable = removable_of(machine, *entry);
    Json json{{"device", entry->spec.id},
              {"type", "unknown"},
              {"locked", removable != nullptr && removable->locked()},
              {"removable", entry->removable}};
    if (!entry->qdev.empty()) {
      json["qdev"] = entry->qdev;
      const bool stopped = entry->drive->stopped_requests() != 0;
      if (!entry->removable) json["io-status"] = stopped ? "failed" : "ok";
    }
    if (removable != nullptr && removable->has_tray()) json["tray_open"] = removable->tray_open();
    if (Json inserted = store->run(drive_json(*entry->drive)); !inserted.is_null()) {
      if (entry->throttle != nullptr) describe_limits(*entry, inserted);
      json["inserted"] = std::move(inserted);
    }
    list.push_back(std::move(json));
  }
  return list;
}

Json named_nodes_json(DriveStore& store, bool flat) { return store.run(all_nodes_json(store.graph(), flat)); }

Json block_stats_json(DriveStore& store, bool nodes) {
  if (nodes) return store.run(all_stats(store.graph()));
  Json list = Json::array();
  for (const auto& entry : store.entries()) {
    if (entry->doomed) continue;
    Json json{{"device", entry->spec.id}, {"stats", stats_json(entry->drive.get(), entry->drive->highest_written())}};
    if (!entry->qdev.empty()) json["qdev"] = entry->qdev;
    if (std::string name = store.run(node_name(*entry->drive)); !name.empty()) json["node-name"] = std::move(name);
    list.push_back(std::move(json));
  }
  return list;
}

}  // namespace kite::monitor
