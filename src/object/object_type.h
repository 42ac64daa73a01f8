// ObjectType: what -device, -object, -global, the monitor and the help text know of a creatable type. A type names its
// parent, its typed properties with defaults and ranges, and its description once.
//
//   const ObjectType kSerialType{
//       .name = "isa-serial", .parent = "isa-device", .description = "16550A UART",
//       .properties = {property::unsigned_integer("iobase", "first port", 0x3f8, 0, 0xfff8), ...}};
//
// Values arrive as text ("0x3f8", "on", "64k") or as JSON scalars rendered to text; the property parses and checks
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "support/result.h"

namespace kite {

enum class PropertyKind : uint8_t { kBool, kUnsigned, kSigned, kSize, kString, kEnum, kLink };

using PropertyValue = std::variant<bool, uint64_t, int64_t, std::string>;  // kEnum, kString, kLink: string

struct Property {
  std::string name;
  PropertyKind kind = PropertyKind::kString;
  std::string description;
  std::optional<PropertyValue> default_value;  // none: required when `required`, else unset
  bool required = false;
  uint64_t minimum = 0;  // kUnsigned, kSize
  uint64_t maximum = ~uint64_t{0};
  std::vector<std::string> choices;  // kEnum
  std::string link_type;             // kLink: "chardev", "netdev", "drive", ...

  // Parses and range-checks; the error names the owner, the property, the value and what would be right.
  [[nodiscard]] Result<PropertyValue> parse(std::string_view owner, std::string_view text) const;
  [[nodiscard]] std::string type_text() const;     // "uint16", "bool", "str", as in `-device X,help`
  [[nodiscard]] std::string default_text() const;  // "" for none
};

namespace property {
Property boolean(std::string name, std::string description, bool default_value);
Property unsigned_integer(std::string name, std::string description, uint64_t default_value, uint64_t minimum,
                          uint64_t maximum);
Property size(std::string name, std::string description, uint64_t default_value);
Property signed_integer(std::string name, std::string description, int64_t default_value);
Property string(std::string name, std::string description, std::string default_value = "");
Property choice(std::string name, std::string description, std::string default_value, std::vector<std::string> choices);
Property link(std::string name, std::string description, std::string link_type);
}  // namespace property

// The values of one object's properties: every property of the type and its parents that has a default is present once
// defaults are in. The typed reads answer false, 0 and "" for what is unset or of another kind.
class PropertyMap {
 public:
  void set(std::string name, PropertyValue value) { values_[std::move(name)] = std::move(value); }
  [[nodiscard]] const PropertyValue* find(std::string_view name) const;
  [[nodiscard]] bool boolean(std::string_view name) const;
  [[nodiscard]] uint64_t integer(std::string_view name) const;
  [[nodiscard]] std::string string(std::string_view name) const;  // "" when unset
  [[nodiscard]] const std::map<std::string, PropertyValue, std::less<>>& all() const { return values_; }

 private:
  std::map<std::string, PropertyValue, std::less<>> values_;
};

struct ObjectType {
  std::string name;
  std::string parent;  // "" for a root type
  std::string description;
  std::string bus;             // "PCI", "ISA", "System", "": where -device puts it
  bool abstract = false;       // cannot be created
  bool user_creatable = true;  // false: part of a board
  bool by_type = true;         // false: made by options of its own (-cpu, -machine), which -global does not reach
  std::vector<Property> properties;
};

// "driver=isa-serial,chardev=c0" or "isa-serial,chardev=c0,id=s1" or a JSON object, taken apart.
struct ObjectOptions {
  std::string type;
  std::string id;
  std::vector<std::pair<std::string, std::string>> values;  // in order, without type and id
};
// `type_key` is "driver" for -device and "qom-type" for -object. Commas in values are doubled. A text that starts with
// '{' is JSON: scalars become text (true is "on"), members of objects and arrays get dotted names ("a.b", "a.0").
Result<ObjectOptions> parse_object_options(std::string_view text, std::string_view type_key);
// As above for options without a type ("file=x,if=virtio"): name=value pairs; a bare name is name=on (so the old
// "noname" for name=off is an unknown name to whoever checks them); the first bare value takes the name `implied` when
// that is not empty.
Result<std::vector<std::pair<std::string, std::string>>> parse_options(std::string_view text, std::string_view implied);

class TypeRegistry {
 public:
  void add(ObjectType type);  // a name twice is a programming error; the first stays
  [[nodiscard]] const ObjectType* find(std::string_view name) const;
  [[nodiscard]] bool is_a(std::string_view type, std::string_view ancestor) const;
  [[nodiscard]] std::vector<const ObjectType*> all() const;  // by name
  // The type's own and inherited properties, own first; one that a type declares again hides the inherited one.
  [[nodiscard]] std::vector<const Property*> properties_of(std::string_view type) const;

  // -global driver.property=value, or driver=D,property=P,value=V; checked when it is given, applied by resolve() to
  // the type and all that descend from it, later ones over earlier ones.
  Result<> add_global(std::string_view text);
  // Checks type, names and values; fills in globals and defaults. `what` is "-device" or "-object" for messages. With
  // an empty `what` it is the board that asks: it may create what a user may not.
  Result<PropertyMap> resolve(const ObjectOptions& options, std::string_view what) const;

  [[nodiscard]] std::string list_help(std::string_view ancestor) const;      // -device help
  [[nodiscard]] Result<std::string> type_help(std::string_view type) const;  // -device X,help

 private:
  // The type and its ancestors, nearest first.
  [[nodiscard]] std::vector<const ObjectType*> lineage(std::string_view type) const;
  [[nodiscard]] Failure unknown_type(std::string_view what, std::string_view type) const;
  [[nodiscard]] Failure unknown_property(std::string_view what, std::string_view type, std::string_view name) const;

  std::map<std::string, ObjectType, std::less<>> types_;
  struct Global {
    std::string type, property, text;
  };
  std::vector<Global> globals_;
};

// An id as every option takes it: a letter, then letters, digits, '-', '.', '_'.
bool valid_id(std::string_view id);

// "64k", "2G", "0x1000", "1.5M", "512B"; plain numbers are multiplied by `default_unit`.
Result<uint64_t> parse_size(std::string_view text, uint64_t default_unit = 1);
Result<uint64_t> parse_unsigned(std::string_view text);  // decimal, 0x, 0 octal
Result<int64_t> parse_signed(std::string_view text);     // the same after an optional '-'
Result<bool> parse_bool(std::string_view text);          // on/off, yes/no, true/false, y/n

}  // namespace kite
