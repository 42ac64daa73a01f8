#include "monitor/qom_commands.h"

#include <algorithm>

#include "machine/object_types.h"
#include "monitor/stats_commands.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;

// One property as a client sees it: of any object of the tree.
struct Entry {
  std::string name, type;
  Json value;                                                // what qom-get answers
  std::function<Result<>(const nlohmann::json& value)> set;  // empty: it cannot be written
};
using Entries = std::vector<Entry>;
using Found = std::expected<Entries, QmpError>;

constexpr std::string_view kMachine = "/machine", kPeripheral = "/machine/peripheral",
                           kUnattached = "/machine/unattached";

Entry fact(std::string name, std::string type, Json value) {
  return {.name = std::move(name), .type = std::move(type), .value = std::move(value), .set = {}};
}

// The value of a child is its path.
Entry child(std::string name, std::string_view type, std::string path) {
  return fact(std::move(name), fmt::format("child<{}>", type), std::move(path));
}

Entries container() { return {fact("type", "string", "container")}; }

Entries root() {
  Entries entries = container();
  entries.push_back(child("machine", "machine", std::string(kMachine)));
  return entries;
}

Entries machine_object(Context& context) {
  const machine::BoardInfo* const board = machine::find_board(context.machine.config().board);
  Entries entries{
      fact("type", "string", machine::machine_type_name(board == nullptr ? "none" : board->name)),
      fact("accel", "string", context.machine.accelerator().name()),
  };
  entries.push_back(child("peripheral", "container", std::string(kPeripheral)));
  entries.push_back(child("unattached", "container", std::string(kUnattached)));
  return entries;
}

std::string cpu_type(const Context& context) { return machine::cpu_type_name(context.machine.cpu().model_name); }

Entries unattached(Context& context) {
  Entries entries = container();
  for (size_t index = 0; index < context.machine.vcpu_count(); ++index) {
    std::string path = vcpu_path(index);
    entries.push_back(child(path.substr(path.rfind('/') + 1), cpu_type(context), path));
  }
  return entries;
}

Entries peripheral(Context& context) {
  Entries entries = container();
  for (const machine::DeviceConfig& device : context.machine.config().devices)
    if (!device.id.empty())
      entries.push_back(child(device.id, device.type, fmt::format("{}/{}", kPeripheral, device.id)));
  return entries;
}

// What every device has.
Entries lifecycle(std::string type, bool hotplugged, bool hotpluggable) {
  return {fact("type", "string", std::move(type)), fact("realized", "bool", true),
          fact("hotplugged", "bool", hotplugged), fact("hotpluggable", "bool", hotpluggable)};
}

Entries cpu(Context& context) {
  const x86::CpuSpec& spec = context.machine.cpu();
  Entries entries = lifecycle(cpu_type(context), false, false);
  for (const x86::FeatureName& feature : x86::feature_names())
    entries.push_back(fact(std::string(feature.name), "bool", spec.has(feature.word, feature.bit)));
  entries.push_back(fact("vendor", "string", spec.vendor));
  entries.push_back(fact("model-id", "string", spec.model_id));
  const std::pair<const char*, uint32_t> numbers[] = {
      {"family", spec.family}, {"model", spec.model},   {"stepping", spec.stepping},
      {"level", spec.level},   {"xlevel", spec.xlevel},
  };
  for (const auto& [name, value] : numbers) entries.push_back(fact(name, "int", value));
  entries.push_back(fact("unavailable-features", "strList", spec.missing));
  return entries;
}

Entries device(Context& context, const machine::DeviceConfig& config) {
  Entries entries = lifecycle(config.type, config.hotplugged, true);
  for (const Property* property : context.machine.types().properties_of(config.type)) {
    const PropertyValue* const value = config.properties.find(property->name);
    entries.push_back(
        fact(property->name, property->type_text(),
             value == nullptr ? Json("") : std::visit([](const auto& held) { return Json(held); }, *value)));
  }
  bus::Device* const made = context.machine.board().find_device(config.id);
  if (made == nullptr) return entries;
  for (LiveProperty& live : made->live_properties()) {
    std::erase_if(entries, [&](const Entry& entry) { return entry.name == live.name; });
    entries.push_back({.name = live.name, .type = live.type, .value = Json(live.get()), .set = std::move(live.set)});
  }
  return entries;
}

Found no_object(std::string_view path) {
  return std::unexpected(QmpError{"DeviceNotFound", fmt::format("Device '{}' not found", path)});
}

Found find(Context& context, std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  if (path == "/") return root();
  if (path == kMachine) return machine_object(context);
  if (path == kPeripheral) return peripheral(context);
  if (path == kUnattached) return unattached(context);
  for (size_t index = 0; index < context.machine.vcpu_count(); ++index)
    if (path == vcpu_path(index)) return cpu(context);
  // A name alone is a device's id; virtio's back end is inside of the device.
  std::string_view id = path;
  if (id.starts_with(kPeripheral)) id.remove_prefix(kPeripheral.size() + 1);
  if (constexpr std::string_view kInside = "/virtio-backend"; id.ends_with(kInside)) id.remove_suffix(kInside.size());
  const auto& devices = context.machine.config().devices;
  const auto config = std::ranges::find(devices, id, &machine::DeviceConfig::id);
  if (id.empty() || config == devices.end()) return no_object(path);
  return device(context, *config);
}

std::expected<Entry, QmpError> find_property(Context& context, const Json& arguments) {
  const std::string path = arguments.at("path"), name = arguments.at("property");
  Found entries = find(context, path);
  if (!entries) return std::unexpected(std::move(entries).error());
  const auto entry = std::ranges::find(*entries, name, &Entry::name);
  if (entry == entries->end()) return qmp_fail("Property '{}.{}' not found", path, name);
  return std::move(*entry);
}

QmpReply qom_list(Context& context, const Json& arguments) {
  const Found entries = find(context, arguments.at("path"));
  if (!entries) return std::unexpected(entries.error());
  Json list = Json::array();
  for (const Entry& entry : *entries) list.push_back({{"name", entry.name}, {"type", entry.type}});
  return list;
}

QmpReply qom_get(Context& context, const Json& arguments) {
  auto entry = find_property(context, arguments);
  if (!entry) return std::unexpected(std::move(entry).error());
  return std::move(entry->value);
}

QmpReply qom_set(Context& context, const Json& arguments) {
  const auto entry = find_property(context, arguments);
  if (!entry) return std::unexpected(entry.error());
  if (!entry->set)
    return qmp_fail("Property '{}' of '{}' cannot be changed while the machine lives", entry->name,
                    arguments.at("path").get<std::string>());
  if (auto done = entry->set(nlohmann::json(arguments.at("value"))); !done) return qmp_fail("{}", done.error().message);
  return Json::object();
}

constexpr ArgumentSpec kPath[] = {{"path", Type::string, true}};
constexpr ArgumentSpec kGet[] = {{"path", Type::string, true}, {"property", Type::string, true}};
constexpr ArgumentSpec kSet[] = {
    {"path", Type::string, true}, {"property", Type::string, true}, {"value", Type::null, true}};

constexpr QmpCommand kQomCommands[] = {
    {"qom-list", kPath, qom_list},
    {"qom-get", kGet, qom_get},
    {"qom-set", kSet, qom_set},
};

}  // namespace

std::span<const QmpCommand> qom_commands() { return kQomCommands; }

}  // namespace kite::monitor
