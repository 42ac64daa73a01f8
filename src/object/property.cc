// One property: its value from text, its range, its place in the help.
#include <algorithm>

#include "object/object_type.h"
#include "support/suggest.h"

namespace kite {
namespace {

// Large limits are easier to read in both notations.
std::string limit_text(uint64_t value) {
  return value < 4096 ? std::to_string(value) : fmt::format("{} ({:#x})", value, value);
}

Result<PropertyValue> in_range(const Property& property, std::string_view text, uint64_t value) {
  if (value >= property.minimum && value <= property.maximum) return PropertyValue(value);
  return fail("'{}' is out of range; {} to {} is allowed", text, limit_text(property.minimum),
              limit_text(property.maximum));
}

Result<PropertyValue> parse_choice(const Property& property, std::string_view text) {
  if (std::ranges::find(property.choices, text) != property.choices.end()) return PropertyValue(std::string(text));
  const std::vector<std::string_view> choices(property.choices.begin(), property.choices.end());
  return fail("'{}' is not a choice{}", text, suggestion(text, choices));
}

Result<PropertyValue> parse_value(const Property& property, std::string_view text) {
  switch (property.kind) {
    case PropertyKind::kBool: {
      KITE_ASSIGN(const bool value, parse_bool(text));
      return PropertyValue(value);
    }
    case PropertyKind::kUnsigned: {
      KITE_ASSIGN(const uint64_t value, parse_unsigned(text));
      return in_range(property, text, value);
    }
    case PropertyKind::kSize: {
      KITE_ASSIGN(const uint64_t value, parse_size(text));
      return in_range(property, text, value);
    }
    case PropertyKind::kSigned: {
      KITE_ASSIGN(const int64_t value, parse_signed(text));
      return PropertyValue(value);
    }
    case PropertyKind::kEnum: return parse_choice(property, text);
    case PropertyKind::kLink:
      if (text.empty()) return fail("the id of a {} is expected", property.link_type);
      return PropertyValue(std::string(text));
    case PropertyKind::kString: break;
  }
  return PropertyValue(std::string(text));
}

}  // namespace

Result<PropertyValue> Property::parse(std::string_view owner, std::string_view text) const {
  auto value = parse_value(*this, text);
  if (!value) return fail("{}.{}: {}", owner, name, value.error().message);
  return value;
}

std::string Property::type_text() const {
  switch (kind) {
    case PropertyKind::kBool: return "bool";
    case PropertyKind::kUnsigned:
      return maximum <= 0xff ? "uint8" : maximum <= 0xffff ? "uint16" : maximum <= 0xffff'ffff ? "uint32" : "uint64";
    case PropertyKind::kSigned: return "int64";
    case PropertyKind::kSize: return "size";
    case PropertyKind::kEnum: return fmt::format("{}", fmt::join(choices, "|"));
    case PropertyKind::kString:
    case PropertyKind::kLink: break;
  }
  return "str";
}

std::string Property::default_text() const {
  struct Render {
    std::string operator()(bool value) const { return value ? "on" : "off"; }
    std::string operator()(uint64_t value) const { return std::to_string(value); }
    std::string operator()(int64_t value) const { return std::to_string(value); }
    std::string operator()(const std::string& value) const { return value; }
  };
  return default_value ? std::visit(Render{}, *default_value) : "";
}

namespace property {
namespace {

Property make(PropertyKind kind, std::string name, std::string description,
              std::optional<PropertyValue> default_value) {
  Property property;
  property.kind = kind;
  property.name = std::move(name);
  property.description = std::move(description);
  property.default_value = std::move(default_value);
  return property;
}

}  // namespace

Property boolean(std::string name, std::string description, bool default_value) {
  return make(PropertyKind::kBool, std::move(name), std::move(description), PropertyValue(default_value));
}

Property unsigned_integer(std::string name, std::string description, uint64_t default_value, uint64_t minimum,
                          uint64_t maximum) {
  Property property =
      make(PropertyKind::kUnsigned, std::move(name), std::move(description), PropertyValue(default_value));
  property.minimum = minimum;
  property.maximum = maximum;
  return property;
}

Property signed_integer(std::string name, std::string description, int64_t default_value) {
  return make(PropertyKind::kSigned, std::move(name), std::move(description), PropertyValue(default_value));
}

Property size(std::string name, std::string description, uint64_t default_value) {
  return make(PropertyKind::kSize, std::move(name), std::move(description), PropertyValue(default_value));
}

Property string(std::string name, std::string description, std::string default_value) {
  return make(PropertyKind::kString, std::move(name), std::move(description), PropertyValue(std::move(default_value)));
}

Property choice(std::string name, std::string description, std::string default_value,
                std::vector<std::string> choices) {
  Property property =
      make(PropertyKind::kEnum, std::move(name), std::move(description), PropertyValue(std::move(default_value)));
  property.choices = std::move(choices);
  return property;
}

Property link(std::string name, std::string description, std::string link_type) {
  Property property = make(PropertyKind::kLink, std::move(name), std::move(description), std::nullopt);
  property.link_type = std::move(link_type);
  return property;
}

}  // namespace property

const PropertyValue* PropertyMap::find(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : &found->second;
}

bool PropertyMap::boolean(std::string_view name) const {
  const PropertyValue* value = find(name);
  const bool* held = value == nullptr ? nullptr : std::get_if<bool>(value);
  return held != nullptr && *held;
}

uint64_t PropertyMap::integer(std::string_view name) const {
  const PropertyValue* value = find(name);
  const uint64_t* held = value == nullptr ? nullptr : std::get_if<uint64_t>(value);
  return held == nullptr ? 0 : *held;
}

std::string PropertyMap::string(std::string_view name) const {
  const PropertyValue* value = find(name);
  const std::string* held = value == nullptr ? nullptr : std::get_if<std::string>(value);
  return held == nullptr ? std::string() : *held;
}

}  // namespace kite
