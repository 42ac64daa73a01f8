#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <algorithm>
#include <sstream>

#include "main/config_file.h"
#include "main/options.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

struct FriendlyName {
  std::string_view key, option;
};
constexpr FriendlyName kFriendly[] = {
    {"memory", "m"}, {"cpus", "smp"}, {"board", "machine"}, {"paused", "S"}, {"command-line", "append"},
};

std::string doubled_commas(std::string_view text) {
  std::string out;
  for (const char letter : text) out.append(letter == ',' ? 2 : 1, letter);
  return out;
}

class TomlReader {
 public:
  explicit TomlReader(const std::string& file) : file_(file) {}
  Result<std::vector<GivenOption>> read(const toml::table& root);

 private:
  [[nodiscard]] std::string place(const toml::node& node) const {
    return fmt::format("{}:{}", file_, node.source().begin.line);
  }
  Result<const OptionSpec*> find_option(std::string_view key, const toml::node& node) const;
  Result<> add(const OptionSpec& option, std::string_view key, const toml::node& node);
  Result<std::string> scalar(std::string_view key, const toml::node& node) const;
  Result<> settings(std::string_view prefix, const toml::node& node, std::string& text) const;
  Result<std::string> cpu_text(const toml::table& table) const;

  const std::string& file_;
  std::vector<GivenOption> given_;
};

Result<const OptionSpec*> TomlReader::find_option(std::string_view key, const toml::node& node) const {
  std::string_view wanted = key;
  for (const FriendlyName& friendly : kFriendly)
    if (friendly.key == key) wanted = friendly.option;
  if (wanted != "readconfig" && wanted != "help" && wanted != "version")
    for (const OptionSpec& option : options())
      if (option.name == wanted) return &option;
  for (const MissingOption& missing : missing_options())
    if (missing.name == wanted) return fail("{}: {}: {}", place(node), key, missing.reason);
  std::vector<std::string_view> names;
  for (const FriendlyName& friendly : kFriendly) names.push_back(friendly.key);
  for (const OptionSpec& option : options())
    if (!option.group.empty()) names.push_back(option.name);
  const std::string_view near = nearest(key, names);
  if (near.empty()) return fail("{}: {}: no such key; keys are the options that 'kite -help' lists", place(node), key);
  return fail("{}: {}: no such key; did you mean '{}'?", place(node), key, near);
}

// What stands for one value on a command line.
Result<std::string> TomlReader::scalar(std::string_view key, const toml::node& node) const {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* flag = node.as_boolean()) return std::string(flag->get() ? "on" : "off");
  if (node.is_date() || node.is_date_time()) {
    std::ostringstream text;  // ISO 8601, as -rtc base= takes it
    if (const auto* date = node.as_date()) text << date->get();
    if (const auto* time = node.as_date_time()) text << time->get();
    return text.str();
  }
  return fail("{}: {}: give a string, an integer, or true or false", place(node), key);
}

// Appends ",name=value" for everything below `node`.
Result<> TomlReader::settings(std::string_view prefix, const toml::node& node, std::string& text) const {
  if (const auto* table = node.as_table()) {
    for (const auto& [key, value] : *table)
      KITE_TRY(
          settings(prefix.empty() ? std::string(key.str()) : fmt::format("{}.{}", prefix, key.str()), value, text));
    return {};
  }
  if (const auto* array = node.as_array()) {
    for (size_t at = 0; at < array->size(); ++at)
      KITE_TRY(settings(fmt::format("{}.{}", prefix, at), (*array)[at], text));
    return {};
  }
  KITE_ASSIGN(const std::string value, scalar(prefix, node));
  if (!text.empty()) text += ',';
  text += fmt::format("{}={}", prefix, doubled_commas(value));
  return {};
}

// -cpu has a form of its own: the model, then +FLAG and -FLAG.
Result<std::string> TomlReader::cpu_text(const toml::table& table) const {
  const auto* model = table.get_as<std::string>("model");
  if (model == nullptr) return fail("{}: cpu: name the model, as model = \"qemu64\"", place(table));
  std::string text = model->get(), rest;
  for (const auto& [key, value] : table) {
    if (key.str() == "model") continue;
    if (key.str() != "flags") {
      KITE_TRY(settings(key.str(), value, rest));
      continue;
    }
    const auto* flags = value.as_array();
    if (flags == nullptr) return fail("{}: cpu.flags: give a list, as [\"+ssse3\", \"-pcid\"]", place(value));
    for (const auto& flag : *flags) {
      KITE_ASSIGN(const std::string name, scalar("cpu.flags", flag));
      const bool has_sign = name.starts_with('+') || name.starts_with('-');
      text += fmt::format(",{}{}", has_sign ? "" : "+", name);
    }
  }
  if (!rest.empty()) text += "," + rest;
  return text;
}

Result<> TomlReader::add(const OptionSpec& option, std::string_view key, const toml::node& node) {
  if (const auto* array = node.as_array()) {
    for (const auto& element : *array) {
      if (element.is_array()) return fail("{}: {}: a list within a list", place(element), key);
      KITE_TRY(add(option, key, element));
    }
    return {};
  }
  GivenOption given{.name = std::string(option.name), .argument = {}, .origin = place(node)};
  if (option.argument.empty()) {
    const auto* flag = node.as_boolean();
    if (flag == nullptr) return fail("{}: {}: it takes no value; give true or false", place(node), key);
    if (flag->get()) given_.push_back(std::move(given));
    return {};
  }
  if (const auto* table = node.as_table()) {
    if (option.name == "cpu") {
      KITE_ASSIGN(given.argument, cpu_text(*table));
    } else {
      KITE_TRY(settings({}, *table, given.argument));
    }
  } else {
    KITE_ASSIGN(given.argument, scalar(key, node));
  }
  given_.push_back(std::move(given));
  return {};
}

Result<std::vector<GivenOption>> TomlReader::read(const toml::table& root) {
  // In the order of the file: serial ports, devices and drives count.
  std::vector<std::pair<std::string_view, const toml::node*>> keys;
  for (const auto& [key, value] : root) keys.emplace_back(key.str(), &value);
  std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) {
    return a.second->source().begin.line < b.second->source().begin.line;
  });
  for (const auto& [key, value] : keys) {
    KITE_ASSIGN(const OptionSpec* option, find_option(key, *value));
    KITE_TRY(add(*option, key, *value));
  }
  return std::move(given_);
}

}  // namespace

Result<std::vector<GivenOption>> options_of_toml(std::string_view text, const std::string& file) {
  const toml::parse_result parsed = toml::parse(text, file);
  if (!parsed) return fail("{}:{}: {}", file, parsed.error().source().begin.line, parsed.error().description());
  return TomlReader(file).read(parsed.table());
}

}  // namespace kite::main
