#include "monitor/type_commands.h"

#include <algorithm>

#include "machine/object_types.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;

std::unexpected<QmpError> no_type(std::string_view name) {
  return std::unexpected(QmpError{"DeviceNotFound", fmt::format("Device '{}' not found", name)});
}

// --- types

QmpReply qom_list_types(Context& context, const Json& arguments) {
  const std::string ancestor = arguments.value("implements", "");
  const bool with_abstract = arguments.value("abstract", false);
  Json list = Json::array();
  for (const ObjectType* type : context.machine.types().all()) {
    if (type->abstract && !with_abstract) continue;
    if (!ancestor.empty() && !context.machine.types().is_a(type->name, ancestor)) continue;
    Json entry{{"name", type->name}};
    if (type->abstract) entry["abstract"] = true;
    if (!type->parent.empty()) entry["parent"] = type->parent;
    list.push_back(std::move(entry));
  }
  return list;
}

Json property_json(const Property& property) {
  Json json{{"name", property.name}, {"type", property.type_text()}, {"description", property.description}};
  if (property.default_value)
    json["default-value"] = std::visit([](const auto& value) { return Json(value); }, *property.default_value);
  return json;
}

QmpReply device_list_properties(Context& context, const Json& arguments) {
  const std::string name = arguments.at("typename");
  const TypeRegistry& types = context.machine.types();
  if (types.find(name) == nullptr) return no_type(name);
  Json list = Json::array();
  for (const Property* property : types.properties_of(name)) list.push_back(property_json(*property));
  return list;
}

// As device-list-properties, of any type; every object tells its type.
QmpReply qom_list_properties(Context& context, const Json& arguments) {
  QmpReply list = device_list_properties(context, arguments);
  if (list) list->insert(list->begin(), Json{{"name", "type"}, {"type", "string"}});
  return list;
}

// --- boards

QmpReply query_machines(Context&, const Json&) {
  Json list = Json::array();
  for (const auto& board : machine::boards()) {
    Json entry{{"hotpluggable-cpus", false},
               {"name", board.name},
               {"numa-mem-supported", board.max_cpus != 0},
               {"cpu-max", std::max(board.max_cpus, 1u)},
               {"deprecated", false}};
    if (!board.default_cpu.empty()) {
      entry["default-cpu-type"] = machine::cpu_type_name(board.default_cpu);
      entry["default-ram-id"] = machine::kMainMemory;
    }
    if (!board.alias.empty()) entry["alias"] = board.alias;
    if (board.is_default) entry["is-default"] = true;
    list.push_back(std::move(entry));
  }
  return list;
}

// --- CPU models

QmpReply query_cpu_definitions(Context& context, const Json&) {
  Json list = Json::array();
  for (const x86::CpuModel& model : x86::cpu_models()) {
    const auto spec = x86::parse_cpu(model.name, context.machine.accelerator().offered_features());
    if (!spec) continue;
    list.push_back({{"name", model.name},
                    {"typename", machine::cpu_type_name(model.name)},
                    {"unavailable-features", spec->missing},
                    {"static", model.name == "base"},
                    {"migration-safe", !model.takes_all_offered},
                    {"deprecated", false}});
  }
  return list;
}

// "host" and {"sse4.1": false} as -cpu has them.
std::expected<std::string, QmpError> cpu_text(const Json& model) {
  const auto name = model.find("name");
  if (name == model.end() || !name->is_string()) return qmp_fail("Parameter 'model.name' is missing");
  std::string text = *name;
  const auto props = model.find("props");
  if (props == model.end()) return text;
  if (!props->is_object()) return qmp_fail("Invalid parameter type for 'model.props', expected: object");
  for (const auto& [key, value] : props->items()) {
    if (value.is_boolean())
      text += fmt::format(",{}={}", key, value.get<bool>() ? "on" : "off");
    else if (value.is_string())
      text += fmt::format(",{}={}", key, value.get<std::string>());
    else if (value.is_number_integer())
      text += fmt::format(",{}={}", key, value.dump());
    else
      return qmp_fail("Invalid parameter type for 'model.props.{}', expected: boolean, string or integer", key);
  }
  return text;
}

Json features_json(const x86::CpuSpec& spec) {
  Json props = Json::object();
  for (const x86::FeatureName& feature : x86::feature_names())
    props[std::string(feature.name)] = spec.has(feature.word, feature.bit);
  return props;
}

// A model written as another with every property said: "static" by the model that has nothing, "full" by itself.
QmpReply query_cpu_model_expansion(Context& context, const Json& arguments) {
  const std::string type = arguments.at("type");
  if (type != "static" && type != "full") return qmp_fail("Parameter 'type' does not accept value '{}'", type);
  const auto text = cpu_text(arguments.at("model"));
  if (!text) return std::unexpected(text.error());
  const auto spec = x86::parse_cpu(*text, context.machine.accelerator().offered_features());
  if (!spec) return qmp_fail("{}", spec.error().message);
  Json props = features_json(*spec);
  props["vendor"] = spec->vendor;
  props["family"] = spec->family;
  props["model"] = spec->model;
  props["stepping"] = spec->stepping;
  props["model-id"] = spec->model_id;
  props["min-level"] = spec->level;
  props["min-xlevel"] = spec->xlevel;
  return Json{{"model", {{"name", type == "static" ? "base" : spec->model_name}, {"props", std::move(props)}}}};
}

// --- the command line

QmpReply query_command_line_options(Context& context, const Json& arguments) {
  const std::string wanted = arguments.value("option", "");
  Json list = Json::array();
  if (context.command_line != nullptr) {
    for (const CommandLineOption& option : context.command_line()) {
      if (!wanted.empty() && option.name != wanted) continue;
      Json parameters = Json::array();
      for (const std::string& name : option.parameters) parameters.push_back({{"name", name}, {"type", "string"}});
      list.push_back({{"option", option.name}, {"parameters", std::move(parameters)}});
    }
  }
  if (!wanted.empty() && list.empty()) return qmp_fail("There is no command-line option '{}'", wanted);
  return list;
}

std::vector<std::string> expansions(const Context&) { return {"static", "full"}; }

constexpr ArgumentSpec kTypes[] = {{"implements", Type::string, false}, {"abstract", Type::boolean, false}};
constexpr ArgumentSpec kTypeName[] = {{"typename", Type::string, true}};
constexpr ArgumentSpec kExpansion[] = {{"type", Type::string, true, expansions}, {"model", Type::object, true}};
constexpr ArgumentSpec kOption[] = {{"option", Type::string, false}};

constexpr QmpCommand kTypeCommands[] = {
    {"qom-list-types", kTypes, qom_list_types},
    {"device-list-properties", kTypeName, device_list_properties},
    {"qom-list-properties", kTypeName, qom_list_properties},
    {"query-machines", {}, query_machines},
    {"query-cpu-definitions", {}, query_cpu_definitions},
    {"query-cpu-model-expansion", kExpansion, query_cpu_model_expansion},
    {"query-command-line-options", kOption, query_command_line_options},
};

}  // namespace

std::span<const QmpCommand> type_commands() { return kTypeCommands; }

}  // namespace kite::monitor
