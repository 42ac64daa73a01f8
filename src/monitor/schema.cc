#include "monitor/schema.h"

#include <map>
#include <set>

#include "monitor/display_servers.h"
#include "monitor/net_commands.h"
#include "monitor/qmp_events.h"

namespace kite::monitor {

namespace {

using Type = Json::value_t;

// The entries of the schema. Types of the protocol's own have names, ours have numbers, which are for this schema only.
class Schema {
 public:
  explicit Schema(const MonitorContext& context) : context_(context) {}

  void add(const QmpCommand& command) {
    Json entry{{"name", command.name},
               {"ret-type", builtin("any")},
               {"meta-type", "command"},
               {"arg-type", arguments_type(command.arguments)}};
    if (!command.features.empty()) entry["features"] = command.features;
    entries_.push_back(std::move(entry));
  }
  void add_event(std::string_view name, std::span<const ArgumentSpec> members) {
    entries_.push_back({{"name", name}, {"meta-type", "event"}, {"arg-type", arguments_type(members)}});
  }
  [[nodiscard]] Json take() { return std::move(entries_); }

 private:
  std::string builtin(std::string name) {
    static const std::map<std::string, std::string, std::less<>> kJsonTypes{
        {"str", "string"}, {"int", "int"}, {"bool", "boolean"}, {"any", "value"}};
    if (seen_.insert(name).second)
      entries_.push_back({{"name", name}, {"json-type", kJsonTypes.at(name)}, {"meta-type", "builtin"}});
    return name;
  }

  std::string array_of(const std::string& element) {
    std::string name = fmt::format("[{}]", element);
    if (seen_.insert(name).second)
      entries_.push_back({{"name", name}, {"element-type", element}, {"meta-type", "array"}});
    return name;
  }

  std::string choice_of(const std::vector<std::string>& values) {
    Json members = Json::array();
    for (const std::string& value : values) members.push_back({{"name", value}});
    return numbered({{"meta-type", "enum"}, {"members", std::move(members)}, {"values", values}});
  }

  std::string object_of(Json members) { return numbered({{"members", std::move(members)}, {"meta-type", "object"}}); }

  // Two that are the same are one.
  std::string numbered(Json entry) {
    const auto [at, fresh] = numbers_.try_emplace(entry.dump(), fmt::format("{}", numbers_.size()));
    if (fresh) {
      entry["name"] = at->second;
      entries_.push_back(std::move(entry));
    }
    return at->second;
  }

  std::string type_of(const ArgumentSpec& argument) {
    if (argument.choices != nullptr) {
      const std::string values = choice_of(argument.choices(context_));
      return argument.type == Type::array ? array_of(values) : values;
    }
    if (argument.members != nullptr) {
      const std::string object = arguments_type(argument.members());
      return argument.type == Type::array ? array_of(object) : object;
    }
    switch (argument.type) {
      case Type::string: return builtin("str");
      case Type::boolean: return builtin("bool");
      case Type::number_integer: return builtin("int");
      case Type::array: return array_of(builtin("any"));
      case Type::object: return object_of(Json::array());
      default: return builtin("any");
    }
  }

  std::string arguments_type(std::span<const ArgumentSpec> arguments) {
    Json members = Json::array();
    for (const ArgumentSpec& argument : arguments) {
      Json member{{"name", argument.name}, {"type", type_of(argument)}};
      if (!argument.required) member["default"] = nullptr;
      members.push_back(std::move(member));
    }
    return object_of(std::move(members));
  }

  const MonitorContext& context_;
  Json entries_ = Json::array();
  std::set<std::string, std::less<>> seen_;
  std::map<std::string, std::string> numbers_;  // by what the entry says
};

}  // namespace

QmpReply query_qmp_schema(MonitorContext& context, const Json&) {
  Schema schema(context);
  for (const QmpCommand& command : qmp_commands()) schema.add(command);
  for (const EventSpec& event : qmp_events()) schema.add_event(event.name, event.members);
  for (const auto& events : {stream_events(), display_events()})
    for (const PeerEventSpec& event : events) schema.add_event(event.name, event.members);
  return schema.take();
}

}  // namespace kite::monitor
