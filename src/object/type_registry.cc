#include <algorithm>

#include "object/object_type.h"
#include "support/log.h"
#include "support/suggest.h"

namespace kite {
namespace {

// "-device: text", or the text alone for the board's own objects.
std::string prefixed(std::string_view what, std::string text) {
  return what.empty() ? text : fmt::format("{}: {}", what, text);
}

}  // namespace

void TypeRegistry::add(ObjectType type) {
  std::string name = type.name;
  const auto [at, fresh] = types_.try_emplace(std::move(name), std::move(type));
  if (!fresh) log::error("the type '{}' is registered twice", at->first);
}

const ObjectType* TypeRegistry::find(std::string_view name) const {
  const auto found = types_.find(name);
  return found == types_.end() ? nullptr : &found->second;
}

std::vector<const ObjectType*> TypeRegistry::lineage(std::string_view type) const {
  std::vector<const ObjectType*> types;
  for (const ObjectType* at = find(type); at != nullptr; at = find(at->parent)) {
    if (std::ranges::find(types, at) != types.end()) break;  // types that name each other as parents
    types.push_back(at);
  }
  return types;
}

bool TypeRegistry::is_a(std::string_view type, std::string_view ancestor) const {
  if (type == ancestor) return true;
  // The last parent may be a name without a type of its own.
  return std::ranges::any_of(lineage(type), [ancestor](const ObjectType* at) {
    return at->name == ancestor || (!ancestor.empty() && at->parent == ancestor);
  });
}

std::vector<const ObjectType*> TypeRegistry::all() const {
  std::vector<const ObjectType*> types;
  for (const auto& [name, type] : types_) types.push_back(&type);
  return types;
}

std::vector<const Property*> TypeRegistry::properties_of(std::string_view type) const {
  std::vector<const Property*> properties;
  for (const ObjectType* at : lineage(type)) {
    for (const Property& property : at->properties) {
      if (std::ranges::find(properties, property.name, &Property::name) == properties.end()) {
        properties.push_back(&property);
      }
    }
  }
  return properties;
}

Failure TypeRegistry::unknown_type(std::string_view what, std::string_view type) const {
  std::vector<std::string_view> names;
  for (const auto& [name, known] : types_) {
    if (what == "-global" ? known.by_type : !known.abstract && known.user_creatable) names.push_back(name);
  }
  return Failure(Error{prefixed(what, fmt::format("there is no type '{}'{}", type, suggestion(type, names)))});
}

Failure TypeRegistry::unknown_property(std::string_view what, std::string_view type, std::string_view name) const {
  std::vector<std::string_view> names;
  for (const Property* property : properties_of(type)) names.push_back(property->name);
  return Failure(Error{prefixed(what, fmt::format("{} has no property '{}'{}", type, name, suggestion(name, names)))});
}

Result<> TypeRegistry::add_global(std::string_view text) {
  constexpr std::string_view kForm = "write it as -global driver.property=value";
  Global global;
  if (text.starts_with("driver=") || text.starts_with('{')) {
    KITE_ASSIGN(const auto pairs, parse_options(text, ""));
    for (const auto& [name, item] : pairs) {
      if (name != "driver" && name != "property" && name != "value") {
        return fail("-global {}: unknown '{}'; {}", text, name, kForm);
      }
      (name == "driver" ? global.type : name == "property" ? global.property : global.text) = item;
    }
  } else {
    const size_t equals = text.find('=');
    const size_t dot = text.substr(0, equals).find('.');
    if (equals == std::string_view::npos || dot == std::string_view::npos) return fail("-global {}: {}", text, kForm);
    global.type = text.substr(0, dot);
    global.property = text.substr(dot + 1, equals - dot - 1);
    global.text = text.substr(equals + 1);
  }
  if (global.type.empty() || global.property.empty()) return fail("-global {}: {}", text, kForm);
  const ObjectType* const type = find(global.type);
  if (type == nullptr) return unknown_type("-global", global.type);
  if (!type->by_type) return fail("-global {}: {} is set with -machine, -accel or -cpu", text, global.type);
  const auto properties = properties_of(global.type);
  const auto found = std::ranges::find(properties, global.property, &Property::name);
  if (found == properties.end()) return unknown_property("-global", global.type, global.property);
  if (const auto parsed = (*found)->parse(global.type, global.text); !parsed) {
    return fail("-global {}", parsed.error().message);
  }
  globals_.push_back(std::move(global));
  return {};
}

Result<PropertyMap> TypeRegistry::resolve(const ObjectOptions& options, std::string_view what) const {
  const ObjectType* type = find(options.type);
  if (type == nullptr) return unknown_type(what, options.type);
  if (type->abstract) return fail("{} {}: it only groups other types; name one of those", what, options.type);
  if (!type->user_creatable && !what.empty()) {
    return fail("{} {}: it is a part of the board and cannot be added", what, options.type);
  }
  const auto properties = properties_of(options.type);
  PropertyMap map;
  const auto set = [&](const std::string& name, std::string_view text, std::string_view who) -> Result<> {
    const auto found = std::ranges::find(properties, name, &Property::name);
    if (found == properties.end()) return unknown_property(who, options.type, name);
    auto value = (*found)->parse(options.type, text);
    if (!value) return Failure(Error{prefixed(who, value.error().message)});
    map.set(name, std::move(*value));
    return {};
  };
  for (const Property* property : properties) {
    if (property->default_value) map.set(property->name, *property->default_value);
  }
  for (const Global& global : globals_) {
    if (is_a(options.type, global.type)) KITE_TRY(set(global.property, global.text, "-global"));
  }
  for (const auto& [name, text] : options.values) KITE_TRY(set(name, text, what));
  for (const Property* property : properties) {
    if (property->required && map.find(property->name) == nullptr) {
      return Failure(Error{prefixed(what, fmt::format("{} wants {}=<{}> ({})", options.type, property->name,
                                                      property->type_text(), property->description))});
    }
  }
  return map;
}

std::string TypeRegistry::list_help(std::string_view ancestor) const {
  std::string text;
  for (const auto& [name, type] : types_) {
    if (type.abstract || !type.user_creatable || !is_a(name, ancestor)) continue;
    text += fmt::format("name \"{}\"", name);
    if (!type.bus.empty()) text += fmt::format(", bus {}", type.bus);
    if (!type.description.empty()) text += fmt::format(", desc \"{}\"", type.description);
    text += '\n';
  }
  return text;
}

Result<std::string> TypeRegistry::type_help(std::string_view type) const {
  if (find(type) == nullptr) return unknown_type("", type);
  std::string text = fmt::format("{} options:\n", type);
  for (const Property* property : properties_of(type)) {
    text += fmt::format("  {:<22}", fmt::format("{}=<{}>", property->name, property->type_text()));
    if (!property->description.empty()) text += fmt::format(" - {}", property->description);
    if (property->required) text += " (required)";
    if (const std::string value = property->default_text(); !value.empty())
      text += fmt::format(" (default: {})", value);
    text += '\n';
  }
  return text;
}

}  // namespace kite
