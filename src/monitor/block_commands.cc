#include "monitor/block_commands.h"

#include <algorithm>
#include <array>

#include "devices/storage/removable.h"
#include "monitor/block_facts.h"
#include "monitor/words.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Entry = machine::DriveStore::Entry;
using Type = Json::value_t;

std::unexpected<QmpError> from(const Error& error) { return qmp_fail("{}", error.message); }

std::unexpected<QmpError> not_found(std::string_view name) {
  return std::unexpected(QmpError{"DeviceNotFound", fmt::format("Device '{}' not found", name)});
}

machine::DriveStore* store_of(Context& context) { return context.machine.drives(); }

// The drive that "device" (its own name) or "id" (its device's) names.
std::expected<Entry*, QmpError> drive_of(Context& context, const Json& arguments) {
  const bool by_device = arguments.contains("device"), by_id = arguments.contains("id");
  if (by_device == by_id) return qmp_fail("Need exactly one of 'device' and 'id'");
  const std::string name = arguments.at(by_id ? "id" : "device");
  machine::DriveStore* const store = store_of(context);
  Entry* const entry = store == nullptr ? nullptr : by_id ? store->find_owned_by(name) : store->find(name);
  if (entry == nullptr) return not_found(name);
  return entry;
}

QmpReply done(const Result<>& result) {
  if (!result) return from(result.error());
  return Json::object();
}

// --- nodes

QmpReply query_block(Context& context, const Json&) { return blocks_json(context.machine); }

QmpReply query_nodes(Context& context, const Json& arguments) {
  if (store_of(context) == nullptr) return Json::array();
  return named_nodes_json(*store_of(context), arguments.value("flat", false));
}

QmpReply query_stats_of_blocks(Context& context, const Json& arguments) {
  if (store_of(context) == nullptr) return Json::array();
  return block_stats_json(*store_of(context), arguments.value("query-nodes", false));
}

QmpReply blockdev_add(Context& context, const Json& arguments) {
  if (store_of(context) == nullptr) return qmp_fail("this machine has no disks");
  auto options = block::BlockOptions::parse(arguments.dump());
  if (!options) return from(options.error());
  return done(store_of(context)->add_node(std::move(*options)));
}

QmpReply blockdev_del(Context& context, const Json& arguments) {
  if (store_of(context) == nullptr) return qmp_fail("this machine has no disks");
  return done(store_of(context)->remove_node(arguments.at("node-name").get<std::string>()));
}

QmpReply block_resize(Context& context, const Json& arguments) {
  const bool by_node = arguments.contains("node-name");
  if (by_node == arguments.contains("device")) return qmp_fail("Need exactly one of 'device' and 'node-name'");
  const std::string name = arguments.at(by_node ? "node-name" : "device");
  const int64_t bytes = arguments.at("size");
  if (bytes < 0) return qmp_fail("Parameter 'size' expects a >0 size");
  if (store_of(context) == nullptr) return not_found(name);
  return done(store_of(context)->resize(name, static_cast<uint64_t>(bytes)));
}

constexpr ArgumentSpec kThrottle[] = {{"device", Type::string, false},
                                      {"id", Type::string, false},
                                      {"bps", Type::number_integer, true},
                                      {"bps_rd", Type::number_integer, true},
                                      {"bps_wr", Type::number_integer, true},
                                      {"iops", Type::number_integer, true},
                                      {"iops_rd", Type::number_integer, true},
                                      {"iops_wr", Type::number_integer, true},
                                      {"bps_max", Type::number_integer, false},
                                      {"bps_rd_max", Type::number_integer, false},
                                      {"bps_wr_max", Type::number_integer, false},
                                      {"iops_max", Type::number_integer, false},
                                      {"iops_rd_max", Type::number_integer, false},
                                      {"iops_wr_max", Type::number_integer, false},
                                      {"bps_max_length", Type::number_integer, false},
                                      {"bps_rd_max_length", Type::number_integer, false},
                                      {"bps_wr_max_length", Type::number_integer, false},
                                      {"iops_max_length", Type::number_integer, false},
                                      {"iops_rd_max_length", Type::number_integer, false},
                                      {"iops_wr_max_length", Type::number_integer, false},
                                      {"iops_size", Type::number_integer, false},
                                      {"group", Type::string, false}};

// "bps_rd_max_length" is "bps-read-max-length" among the options.
std::string limit_name(std::string name) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kKinds{
      {{"_rd", "_read"}, {"_wr", "_write"}}};
  bool total = name != "iops_size";
  for (const auto& [from, to] : kKinds) {
    const size_t at = name.find(from);
    if (at == std::string::npos) continue;
    name.replace(at, from.size(), to);
    total = false;
  }
  if (total) name.insert(name.find('s') + 1, "_total");
  std::ranges::replace(name, '_', '-');
  return name;
}

QmpReply set_throttle(Context& context, const Json& arguments) {
  const auto entry = drive_of(context, arguments);
  if (!entry) return std::unexpected(entry.error());
  block::BlockOptions options;
  for (const auto& [name, value] : arguments.items()) {
    if (!value.is_number_integer()) continue;
    if (value.is_number_unsigned() || value.get<int64_t>() >= 0) {
      options.set(limit_name(name), value.dump());
    } else {
      return qmp_fail("bps/iops/max values must be within [0, {}]", uint64_t{1} << 50);
    }
  }
  auto limits = block::take_throttle_limits(options, "");
  if (!limits) return from(limits.error());
  store_of(context)->set_throttle(**entry, *limits, arguments.value("group", std::string()));
  return Json::object();
}

// --- media

struct Medium {
  Entry* entry;
  devices::Removable* device;  // null: the drive is in no device
};

std::expected<Medium, QmpError> medium_of(Context& context, const Json& arguments) {
  const auto entry = drive_of(context, arguments);
  if (!entry) return std::unexpected(entry.error());
  const std::string name = arguments.contains("id") ? arguments.at("id") : arguments.at("device");
  if (!(*entry)->removable) return qmp_fail("Device '{}' is not removable", name);
  return Medium{.entry = *entry, .device = removable_of(context.machine, **entry)};
}

bool has_tray(const Medium& medium) { return medium.device != nullptr && medium.device->has_tray(); }

// Opens the tray, or asks the guest to when it has locked it: then the answer is an error that says so.
QmpReply open_tray(const Medium& medium, bool force, std::string_view name) {
  if (!has_tray(medium) || medium.device->tray_open()) return Json::object();
  if (medium.device->locked() && !force) {
    medium.device->request_eject();
    return qmp_fail("Device '{}' is locked and force was not specified, wait for tray to open and try again", name);
  }
  medium.device->set_tray(true);
  return Json::object();
}

QmpReply need_open_tray(const Medium& medium) {
  if (has_tray(medium) && !medium.device->tray_open())
    return qmp_fail("Tray of device '{}' is not open", medium.entry->drive->id());
  return Json::object();
}

void tell(const Medium& medium) {
  if (medium.device != nullptr) medium.device->medium_changed();
}

std::string name_in(const Json& arguments) {
  return arguments.at(arguments.contains("id") ? "id" : "device").get<std::string>();
}

QmpReply open_tray_command(Context& context, const Json& arguments) {
  const auto medium = medium_of(context, arguments);
  if (!medium) return std::unexpected(medium.error());
  return open_tray(*medium, arguments.value("force", false), name_in(arguments));
}

QmpReply close_tray_command(Context& context, const Json& arguments) {
  const auto medium = medium_of(context, arguments);
  if (!medium) return std::unexpected(medium.error());
  if (has_tray(*medium)) medium->device->set_tray(false);
  return Json::object();
}

QmpReply remove_medium(Context& context, const Json& arguments) {
  const auto medium = medium_of(context, arguments);
  if (!medium) return std::unexpected(medium.error());
  if (auto open = need_open_tray(*medium); !open) return open;
  if (!medium->entry->drive->has_medium()) return Json::object();
  const Result<> removed = store_of(context)->remove_medium(*medium->entry);
  tell(*medium);
  return done(removed);
}

QmpReply insert_medium(Context& context, const Json& arguments) {
  const auto medium = medium_of(context, arguments);
  if (!medium) return std::unexpected(medium.error());
  if (auto open = need_open_tray(*medium); !open) return open;
  if (medium->entry->drive->has_medium())
    return qmp_fail("There already is a medium in device '{}'", name_in(arguments));
  const Result<> inserted =
      store_of(context)->insert_node(*medium->entry, arguments.at("node-name").get<std::string>());
  tell(*medium);
  return done(inserted);
}

QmpReply eject(Context& context, const Json& arguments) {
  const auto medium = medium_of(context, arguments);
  if (!medium) return std::unexpected(medium.error());
  if (auto opened = open_tray(*medium, arguments.value("force", false), name_in(arguments)); !opened) return opened;
  return remove_medium(
      context, arguments.contains("id") ? Json{{"id", arguments.at("id")}} : Json{{"device", arguments.at("device")}});
}

QmpReply change_medium(Context& context, const Json& arguments) {
  const auto medium = medium_of(context, arguments);
  if (!medium) return std::unexpected(medium.error());
  Entry& entry = *medium->entry;
  block::BlockGraph::FileRequest request{.filename = arguments.at("filename"),
                                         .format = arguments.value("format", std::string())};
  const std::string mode = arguments.value("read-only-mode", std::string("retain"));
  if (mode == "retain") {
    request.read_only = entry.always_read_only || entry.drive->read_only();
  } else if (mode == "read-only" || mode == "read-write") {
    request.read_only = mode == "read-only" || entry.always_read_only;
  } else {
    return qmp_fail("Parameter 'read-only-mode' does not accept value '{}'", mode);
  }
  if (auto opened = open_tray(*medium, arguments.value("force", false), name_in(arguments)); !opened) return opened;
  if (entry.drive->has_medium()) {
    // The guest sees the drive empty before it sees the other medium.
    const Result<> removed = store_of(context)->remove_medium(entry);
    tell(*medium);
    if (!removed) return from(removed.error());
  }
  const Result<> inserted = store_of(context)->insert_file(entry, std::move(request));
  tell(*medium);
  if (!inserted) return from(inserted.error());
  if (has_tray(*medium)) medium->device->set_tray(false);
  return Json::object();
}

constexpr ArgumentSpec kFlat[] = {{"flat", Type::boolean, false}};
constexpr ArgumentSpec kQueryNodes[] = {{"query-nodes", Type::boolean, false}};
std::vector<std::string> driver_names(const Context&) {
  std::vector<std::string> names;
  for (const block::Driver& driver : block::drivers()) names.emplace_back(driver.name);
  return names;
}
std::vector<std::string> discard_modes(const Context&) { return {"ignore", "unmap"}; }
std::vector<std::string> zero_modes(const Context&) { return {"off", "on", "unmap"}; }
// What every driver takes; its own options it judges itself.
constexpr ArgumentSpec kBlockdevAdd[] = {{"driver", Type::string, true, driver_names},
                                         {"node-name", Type::string, false},
                                         {"read-only", Type::boolean, false},
                                         {"auto-read-only", Type::boolean, false},
                                         {"discard", Type::string, false, discard_modes},
                                         {"detect-zeroes", Type::string, false, zero_modes},
                                         {"cache", Type::object, false}};
constexpr ArgumentSpec kNodeName[] = {{"node-name", Type::string, true}};
constexpr ArgumentSpec kResize[] = {
    {"device", Type::string, false}, {"node-name", Type::string, false}, {"size", Type::number_integer, true}};
constexpr ArgumentSpec kTray[] = {
    {"device", Type::string, false}, {"id", Type::string, false}, {"force", Type::boolean, false}};
constexpr ArgumentSpec kDrive[] = {{"device", Type::string, false}, {"id", Type::string, false}};
constexpr ArgumentSpec kInsert[] = {{"id", Type::string, true}, {"node-name", Type::string, true}};
constexpr ArgumentSpec kRemove[] = {{"id", Type::string, true}};
std::vector<std::string> read_only_modes(const Context&) { return {"retain", "read-only", "read-write"}; }
constexpr ArgumentSpec kChange[] = {{"device", Type::string, false},
                                    {"id", Type::string, false},
                                    {"filename", Type::string, true},
                                    {"format", Type::string, false},
                                    {"read-only-mode", Type::string, false, read_only_modes},
                                    {"force", Type::boolean, false}};

constexpr QmpCommand kBlockCommands[] = {
    {"query-block", {}, query_block},
    {"query-named-block-nodes", kFlat, query_nodes},
    {"query-blockstats", kQueryNodes, query_stats_of_blocks},
    {"blockdev-add", kBlockdevAdd, blockdev_add, true},
    {"blockdev-del", kNodeName, blockdev_del},
    {"blockdev-open-tray", kTray, open_tray_command},
    {"blockdev-close-tray", kDrive, close_tray_command},
    {"blockdev-insert-medium", kInsert, insert_medium},
    {"blockdev-remove-medium", kRemove, remove_medium},
    {"blockdev-change-medium", kChange, change_medium},
    {"eject", kTray, eject},
    {"block_resize", kResize, block_resize},
    {"block_set_io_throttle", kThrottle, set_throttle},
};

// --- for people

std::string error_text(const QmpReply& reply) {
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

std::string block_text(const Json& block, bool verbose) {
  const bool has = block.contains("inserted");
  const std::string device = block.at("device");
  std::string text = !device.empty() ? device : block.value("qdev", std::string());
  if (!has) return text + ": [not inserted]\n";
  const Json& inserted = block.at("inserted");
  text += fmt::format(" ({}): {} ({}{})\n", inserted.at("node-name").get<std::string>(),
                      inserted.at("file").get<std::string>(), inserted.at("drv").get<std::string>(),
                      inserted.at("ro").get<bool>() ? ", read-only" : "");
  const Json& cache = inserted.at("cache");
  text += fmt::format(
      "    Cache mode:       {}{}{}\n", cache.at("writeback").get<bool>() ? "writeback" : "writethrough",
      cache.at("direct").get<bool>() ? ", direct" : "", cache.at("no-flush").get<bool>() ? ", ignore flushes" : "");
  if (inserted.contains("backing_file"))
    text += fmt::format("    Backing file:     {} (chain depth: {})\n", inserted.at("backing_file").get<std::string>(),
                        inserted.at("backing_file_depth").get<uint64_t>());
  if (inserted.at("detect_zeroes") != "off")
    text += fmt::format("    Detect zeroes:    {}\n", inserted.at("detect_zeroes").get<std::string>());
  if (inserted.contains("group")) {
    text += "    I/O throttling:  ";
    for (const char* const name : {"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"})
      text += fmt::format(" {}={}", name, inserted.at(name).get<uint64_t>());
    text += "\n";
  }
  if (!verbose) return text;
  const Json& image = inserted.at("image");
  return text + fmt::format("    Virtual size:     {} bytes\n    On the host:      {} bytes\n",
                            image.at("virtual-size").get<uint64_t>(), image.at("actual-size").get<uint64_t>());
}

}  // namespace

std::span<const QmpCommand> block_commands() { return kBlockCommands; }

std::string info_block(Context& context, std::string_view rest) {
  bool nodes = false, verbose = false;
  std::string wanted;
  for (std::string_view word = next_word(rest); !word.empty(); word = next_word(rest)) {
    if (word == "-n") {
      nodes = true;
    } else if (word == "-v") {
      verbose = true;
    } else {
      wanted = word;
    }
  }
  std::string text;
  if (nodes) {
    if (store_of(context) == nullptr) return text;
    for (const Json& node : named_nodes_json(*store_of(context), false)) {
      const std::string name = node.at("node-name");
      if (wanted.empty() || name == wanted)
        text += fmt::format("{}: {} ({}{})\n", name, node.at("file").get<std::string>(),
                            node.at("drv").get<std::string>(), node.at("ro").get<bool>() ? ", read-only" : "");
    }
    return text;
  }
  for (const Json& block : blocks_json(context.machine)) {
    const std::string device = block.at("device"), qdev = block.value("qdev", std::string());
    if (!wanted.empty() && wanted != device && wanted != qdev) continue;
    if (!text.empty()) text += "\n";
    text += block_text(block, verbose);
    if (block.contains("qdev")) text += fmt::format("    Attached to:      {}\n", block.at("qdev").get<std::string>());
    if (block.at("removable").get<bool>())
      text += fmt::format("    Removable device: {}locked, tray {}\n", block.at("locked").get<bool>() ? "" : "not ",
                          block.value("tray_open", false) ? "open" : "closed");
  }
  return text;
}

std::string info_blockstats(Context& context, std::string_view) {
  std::string text;
  if (store_of(context) == nullptr) return text;
  for (const Json& block : block_stats_json(*store_of(context), false)) {
    const std::string device = block.at("device");
    text += fmt::format("{}:", !device.empty() ? device : block.value("qdev", std::string()));
    for (const auto& [name, value] : block.at("stats").items())
      if (value.is_number()) text += fmt::format(" {}={}", name, value.get<uint64_t>());
    text += "\n";
  }
  return text;
}

std::string human_drive_add(Context& context, std::string_view rest) {
  std::string_view word = next_word(rest);
  bool node = false;
  if (word == "-n") {
    node = true;
    word = next_word(rest);
  }
  const std::string_view options = next_word(rest);  // after the address, which has had no meaning for long
  if (word.empty() || options.empty()) return "usage: drive_add [-n] 0 if=none,id=ID[,file=FILE][,OPTION=VALUE]...\n";
  if (store_of(context) == nullptr) return "Error: this machine has no disks\n";
  if (node) {
    auto parsed = block::BlockOptions::parse(options);
    if (!parsed) return fmt::format("Error: {}\n", parsed.error().message);
    return error_text(done(store_of(context)->add_node(std::move(*parsed))));
  }
  const auto pairs = parse_options(options, "");
  if (!pairs) return fmt::format("Error: {}\n", pairs.error().message);
  const auto is_none = [](const auto& pair) { return pair.first == "if" && pair.second == "none"; };
  if (!std::ranges::any_of(*pairs, is_none)) return "Error: a drive that is added while the machine runs has if=none\n";
  std::vector<machine::DriveSpec> known;
  for (const auto& entry : store_of(context)->entries()) known.push_back(entry->spec);
  auto spec = machine::parse_drive(*pairs, {.drives = known});
  if (!spec) return fmt::format("Error: {}\n", spec.error().message);
  if (const auto added = store_of(context)->add_drive(std::move(*spec)); !added)
    return fmt::format("Error: {}\n", added.error().message);
  return "OK\n";
}

std::string human_drive_del(Context& context, std::string_view rest) {
  const std::string_view id = next_word(rest);
  if (id.empty()) return "usage: drive_del ID\n";
  if (store_of(context) == nullptr) return fmt::format("Error: Device '{}' not found\n", id);
  return error_text(done(store_of(context)->remove_drive(id)));
}

std::string human_eject(Context& context, std::string_view rest) {
  std::string_view word = next_word(rest);
  const bool force = word == "-f";
  if (force) word = next_word(rest);
  if (word.empty()) return "usage: eject [-f] DEVICE\n";
  return error_text(run_qmp_command(context, "eject", {{"device", std::string(word)}, {"force", force}}));
}

std::string human_change(Context& context, std::string_view rest) {
  Json arguments = Json::object();
  static constexpr const char* kNames[] = {"device", "filename", "format", "read-only-mode"};
  for (const char* const name : kNames)
    if (const std::string_view word = next_word(rest); !word.empty()) arguments[name] = std::string(word);
  if (!arguments.contains("filename")) return "usage: change DEVICE FILE [FORMAT [retain|read-only|read-write]]\n";
  return error_text(run_qmp_command(context, "blockdev-change-medium", arguments));
}

std::string human_block_resize(Context& context, std::string_view rest) {
  const std::string device(next_word(rest)), size(next_word(rest));
  constexpr uint64_t kMebi = 1 << 20;
  const auto bytes = parse_size(size, kMebi);
  if (device.empty() || !bytes) return "usage: block_resize DEVICE SIZE (in MiB, or with a suffix)\n";
  return error_text(run_qmp_command(context, "block_resize", {{"device", device}, {"size", *bytes}}));
}

}  // namespace kite::monitor
