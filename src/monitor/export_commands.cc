#include "monitor/export_commands.h"

#include <sys/socket.h>

#include <algorithm>

#include "block/nbd/server.h"
#include "chardev/socket_address.h"
#include "monitor/job_arguments.h"
#include "monitor/words.h"

namespace kite::monitor {

namespace {

using block::NodePtr;
using block::nbd::ExportRequest;
using block::nbd::Listening;
using block::nbd::Server;
using Context = MonitorContext;
using Type = Json::value_t;

// --- on the block thread

Task<Result<>> start_on(Server& server, Listening listening, size_t max_connections) {
  co_return server.start(std::move(listening), max_connections);
}

Task<Result<>> not_running(const Server& server) {
  co_return server.running() ? Result<>(fail("NBD server already running")) : Result<>{};
}

Task<Result<>> stop_all(Server& server) {
  if (!server.running()) co_return fail("NBD server not running");
  co_return co_await server.stop();
}

// `by_name`: the id is that of the export of this name.
Task<Result<>> remove_one(Server& server, std::string id, bool by_name, bool hard) {
  if (by_name) {
    const auto found = server.find_by_name(id);
    if (found == nullptr) co_return fail("Export '{}' is not found", id);
    id = found->id();
  }
  co_return co_await server.remove(std::move(id), hard);
}

Task<Result<>> add_one(block::BlockGraph& graph, Server& server, NamedImage image, ExportRequest request) {
  if (!server.running()) co_return fail("NBD server not running");
  KITE_CO_ASSIGN(request.node, find_image(graph, image));
  co_return server.add(std::move(request));
}

Task<Result<NodePtr>> image_of(block::BlockGraph& graph, NamedImage image) { co_return find_image(graph, image); }

struct ExportFacts {
  std::string id, node;
  bool ending;
};
Task<std::vector<ExportFacts>> list_all(const Server& server) {
  std::vector<ExportFacts> all;
  for (const auto& disk : server.exports())
    all.push_back({.id = disk->id(), .node = disk->node_name(), .ending = disk->ending()});
  co_return all;
}

// --- arguments

std::expected<void, QmpError> may_export(Context& context) {
  if (context.machine.drives() != nullptr && context.machine.state() == machine::RunState::kInMigrate) return {};
  return may_begin_job(context);
}

QmpReply done(const Result<>& result) {
  if (!result) return qmp_fail("{}", result.error().message);
  return Json::object();
}

constexpr std::string_view kNoDisks = "this machine has no disks";

std::vector<std::string> address_types(const Context&) { return {"inet", "unix", "fd"}; }
std::vector<std::string> export_types(const Context&) { return {"nbd"}; }
std::vector<std::string> removal_modes(const Context&) { return {"safe", "hard"}; }

std::expected<Listening, QmpError> listen_at(const SocketAddress& address) {
  auto sockets = listen_everywhere(address);
  if (!sockets) return qmp_fail("{}", sockets.error().message);
  return Listening{.sockets = std::move(*sockets), .path = address.abstract ? "" : address.path};
}

constexpr ArgumentSpec kInet[] = {{"host", Type::string, true},
                                  {"port", Type::string, true},
                                  {"ipv4", Type::boolean, false},
                                  {"ipv6", Type::boolean, false}};
constexpr ArgumentSpec kUnix[] = {{"path", Type::string, true}, {"abstract", Type::boolean, false}};
constexpr ArgumentSpec kFd[] = {{"str", Type::string, true}};
constexpr ArgumentSpec kAddress[] = {{"type", Type::string, true, address_types}, {"data", Type::object, true}};

// A socket that the client has passed by getfd.
std::expected<Listening, QmpError> passed_listener(Context& context, const std::string& name) {
  Fd socket = context.fds == nullptr ? Fd() : context.fds->take(name);
  if (!socket.valid()) return qmp_fail("File descriptor named '{}' not found", name);
  int listens = 0;
  socklen_t length = sizeof listens;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0 || listens == 0)
    return qmp_fail("the file descriptor '{}' is no socket that listens", name);
  Listening listening;
  listening.sockets.push_back(std::move(socket));
  return listening;
}

// [QAPI] SocketAddressLegacy
std::expected<Listening, QmpError> listen_as_told(Context& context, const Json& address) {
  if (auto checked = check_arguments(kAddress, address, false); !checked) return std::unexpected(checked.error());
  const std::string type = address.at("type");
  const Json& data = address.at("data");
  const auto check = [&data](std::span<const ArgumentSpec> specs) { return check_arguments(specs, data, false); };
  if (type == "inet") {
    if (auto checked = check(kInet); !checked) return std::unexpected(checked.error());
    SocketAddress inet{.host = data.at("host"), .port = data.at("port")};
    if (data.contains("ipv4")) inet.ipv4 = data.at("ipv4").get<bool>();
    if (data.contains("ipv6")) inet.ipv6 = data.at("ipv6").get<bool>();
    return listen_at(inet);
  }
  if (type == "unix") {
    if (auto checked = check(kUnix); !checked) return std::unexpected(checked.error());
    if (data.at("path").get<std::string>().empty()) return qmp_fail("Parameter 'path' is empty");
    return listen_at({.path = data.at("path"), .abstract = data.value("abstract", false)});
  }
  if (type == "fd") {
    if (auto checked = check(kFd); !checked) return std::unexpected(checked.error());
    return passed_listener(context, data.at("str"));
  }
  return qmp_fail("Parameter 'type' does not accept value '{}'", type);
}

QmpReply nbd_server_start(Context& context, const Json& arguments) {
  if (context.machine.drives() == nullptr) return qmp_fail("{}", kNoDisks);
  const int64_t most = arguments.value("max-connections", int64_t{Server::kUsualMaxConnections});
  if (most < 0 || most > UINT32_MAX) return qmp_fail("Parameter 'max-connections' expects 0 (any number) or more");
  machine::DriveStore& store = *context.machine.drives();
  if (auto free = store.run(not_running(store.nbd())); !free) return done(free);
  auto listening = listen_as_told(context, arguments.at("addr"));
  if (!listening) return std::unexpected(listening.error());
  return done(store.run(start_on(store.nbd(), std::move(*listening), static_cast<size_t>(most))));
}

QmpReply nbd_server_stop(Context& context, const Json&) {
  if (context.machine.drives() == nullptr) return qmp_fail("{}", kNoDisks);
  machine::DriveStore& store = *context.machine.drives();
  return done(store.run(stop_all(store.nbd())));
}

QmpReply add_export(Context& context, NamedImage image, ExportRequest request) {
  machine::DriveStore& store = *context.machine.drives();
  if (context.machine.state() == machine::RunState::kInMigrate && request.writable) {
    auto node = store.run(image_of(store.graph(), image));
    if (!node) return qmp_fail("{}", node.error().message);
    if (auto begun = store.begin_filling(std::move(*node)); !begun) return qmp_fail("{}", begun.error().message);
  }
  return done(store.run(add_one(store.graph(), store.nbd(), std::move(image), std::move(request))));
}

QmpReply nbd_server_add(Context& context, const Json& arguments) {
  if (auto may = may_export(context); !may) return std::unexpected(may.error());
  const std::string device = arguments.at("device");
  const std::string name = arguments.value("name", device);
  ExportRequest request{.id = name,
                        .node = nullptr,
                        .name = name,
                        .description = arguments.value("description", std::string()),
                        .writable = arguments.value("writable", false)};
  if (arguments.contains("bitmap")) request.bitmaps.push_back({.node = "", .name = arguments.at("bitmap")});
  return add_export(context, named_image(context, device), std::move(request));
}

// [QAPI] BlockDirtyBitmapOrStr
std::expected<std::vector<ExportRequest::Bitmap>, QmpError> bitmaps_in(const Json& list) {
  constexpr ArgumentSpec kBitmap[] = {{"node", Type::string, true}, {"name", Type::string, true}};
  std::vector<ExportRequest::Bitmap> bitmaps;
  for (const Json& each : list) {
    if (each.is_string()) {
      bitmaps.push_back({.node = "", .name = each});
    } else if (each.is_object()) {
      if (auto checked = check_arguments(kBitmap, each, false); !checked) return std::unexpected(checked.error());
      bitmaps.push_back({.node = each.at("node"), .name = each.at("name")});
    } else {
      return qmp_fail("Parameter 'bitmaps' expects names, and objects with 'node' and 'name'");
    }
  }
  return bitmaps;
}

QmpReply block_export_add(Context& context, const Json& arguments) {
  if (auto may = may_export(context); !may) return std::unexpected(may.error());
  const std::string type = arguments.at("type");
  if (type != "nbd") return qmp_fail("Parameter 'type' does not accept value '{}': nbd is the one that is there", type);
  const std::string node = arguments.at("node-name"), id = arguments.at("id");
  if (!valid_id(id)) return qmp_fail("Invalid block export id");
  ExportRequest request{.id = id,
                        .node = nullptr,
                        .name = arguments.value("name", node),
                        .description = arguments.value("description", std::string()),
                        .writable = arguments.value("writable", false),
                        .writethrough = arguments.value("writethrough", false),
                        .allocation_depth = arguments.value("allocation-depth", false)};
  if (arguments.contains("bitmaps")) {
    auto bitmaps = bitmaps_in(arguments.at("bitmaps"));
    if (!bitmaps) return std::unexpected(bitmaps.error());
    request.bitmaps = std::move(*bitmaps);
  }
  return add_export(context, {.name = node}, std::move(request));
}

// "safe" when nothing is said.
std::expected<bool, QmpError> is_hard(const Json& arguments) {
  const std::string mode = arguments.value("mode", std::string("safe"));
  if (mode != "safe" && mode != "hard") return qmp_fail("Parameter 'mode' does not accept value '{}'", mode);
  return mode == "hard";
}

QmpReply remove_export(Context& context, const Json& arguments, bool by_name) {
  if (context.machine.drives() == nullptr) return qmp_fail("{}", kNoDisks);
  const auto hard = is_hard(arguments);
  if (!hard) return std::unexpected(hard.error());
  machine::DriveStore& store = *context.machine.drives();
  return done(store.run(remove_one(store.nbd(), arguments.at(by_name ? "name" : "id"), by_name, *hard)));
}

QmpReply nbd_server_remove(Context& context, const Json& arguments) { return remove_export(context, arguments, true); }
QmpReply block_export_del(Context& context, const Json& arguments) { return remove_export(context, arguments, false); }

QmpReply query_block_exports(Context& context, const Json&) {
  Json list = Json::array();
  if (context.machine.drives() == nullptr) return list;
  machine::DriveStore& store = *context.machine.drives();
  for (const ExportFacts& facts : store.run(list_all(store.nbd())))
    list.push_back({{"node-name", facts.node}, {"shutting-down", facts.ending}, {"type", "nbd"}, {"id", facts.id}});
  return list;
}

constexpr ArgumentSpec kStart[] = {{"addr", Type::object, true}, {"max-connections", Type::number_integer, false}};
constexpr ArgumentSpec kServerAdd[] = {{"device", Type::string, true},
                                       {"name", Type::string, false},
                                       {"description", Type::string, false},
                                       {"writable", Type::boolean, false},
                                       {"bitmap", Type::string, false}};
constexpr ArgumentSpec kServerRemove[] = {{"name", Type::string, true}, {"mode", Type::string, false, removal_modes}};
constexpr ArgumentSpec kAdd[] = {{"type", Type::string, true, export_types}, {"id", Type::string, true},
                                 {"node-name", Type::string, true},          {"writable", Type::boolean, false},
                                 {"writethrough", Type::boolean, false},     {"name", Type::string, false},
                                 {"description", Type::string, false},       {"bitmaps", Type::array, false},
                                 {"allocation-depth", Type::boolean, false}};
constexpr ArgumentSpec kDel[] = {{"id", Type::string, true}, {"mode", Type::string, false, removal_modes}};

constexpr QmpCommand kExportCommands[] = {
    {"nbd-server-start", kStart, nbd_server_start},
    {"nbd-server-add", kServerAdd, nbd_server_add},
    {"nbd-server-remove", kServerRemove, nbd_server_remove},
    {"nbd-server-stop", {}, nbd_server_stop},
    {"block-export-add", kAdd, block_export_add},
    {"block-export-del", kDel, block_export_del},
    {"query-block-exports", {}, query_block_exports},
};

// --- for people

std::string told(const QmpReply& reply) {
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

// All that have a medium, as "nbd_server_start -a" wants them.
std::string add_all_drives(Context& context, bool writable) {
  for (const auto& entry : context.machine.drives()->entries()) {
    if (!entry->drive->has_medium() || entry->spec.id.empty()) continue;
    const bool can = writable && !entry->drive->read_only();
    const QmpReply added = run_qmp_command(context, "nbd-server-add", {{"device", entry->spec.id}, {"writable", can}});
    if (!added) return told(added);
  }
  return {};
}

}  // namespace

std::span<const QmpCommand> export_commands() { return kExportCommands; }

std::string human_nbd_server_start(Context& context, std::string_view rest) {
  bool all = false, writable = false;
  std::string_view word = next_word(rest);
  for (; word == "-a" || word == "-w"; word = next_word(rest)) (word == "-a" ? all : writable) = true;
  constexpr std::string_view kUnixPrefix = "unix:";
  const bool is_unix = word.starts_with(kUnixPrefix);
  if (word.empty() || word.starts_with('-') || (writable && !all))
    return "usage: nbd_server_start [-a [-w]] HOST:PORT|unix:PATH\n";
  Json address;
  if (is_unix) {
    address = {{"type", "unix"}, {"data", {{"path", std::string(word.substr(kUnixPrefix.size()))}}}};
  } else {
    const auto parsed = parse_host_port(word);
    if (!parsed) return fmt::format("Error: {}\n", parsed.error().message);
    address = {{"type", "inet"}, {"data", {{"host", parsed->host}, {"port", parsed->port}}}};
  }
  const QmpReply started = run_qmp_command(context, "nbd-server-start", {{"addr", address}});
  if (!started || !all) return told(started);
  std::string text = add_all_drives(context, writable);
  if (!text.empty()) (void)run_qmp_command(context, "nbd-server-stop", Json::object());
  return text;
}

std::string human_nbd_server_add(Context& context, std::string_view rest) {
  std::string_view word = next_word(rest);
  const bool writable = word == "-w";
  if (writable) word = next_word(rest);
  const std::string device(word), name(next_word(rest));
  if (device.empty() || device.starts_with('-')) return "usage: nbd_server_add [-w] DEVICE [NAME]\n";
  Json arguments{{"device", device}, {"writable", writable}};
  if (!name.empty()) arguments["name"] = name;
  return told(run_qmp_command(context, "nbd-server-add", arguments));
}

std::string human_nbd_server_remove(Context& context, std::string_view rest) {
  std::string_view word = next_word(rest);
  const bool force = word == "-f";
  if (force) word = next_word(rest);
  if (word.empty() || word.starts_with('-')) return "usage: nbd_server_remove [-f] NAME\n";
  return told(
      run_qmp_command(context, "nbd-server-remove", {{"name", std::string(word)}, {"mode", force ? "hard" : "safe"}}));
}

std::string human_nbd_server_stop(Context& context, std::string_view) {
  return told(run_qmp_command(context, "nbd-server-stop", Json::object()));
}

}  // namespace kite::monitor
