#include "block/options.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "support/suggest.h"

namespace kite::block {
namespace {

constexpr size_t kMostOptions = 1024;

Result<> flatten(const nlohmann::json& value, const std::string& path, BlockOptions& out) {
  constexpr size_t kLongestPath = 512;
  if (path.size() > kLongestPath || out.all().size() > kMostOptions) return fail("the options are nested too deeply");
  const auto below = [&](const std::string& name) { return path.empty() ? name : path + "." + name; };
  if (value.is_object()) {
    for (const auto& [name, member] : value.items()) KITE_TRY(flatten(member, below(name), out));
    return {};
  }
  if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) KITE_TRY(flatten(value[i], below(std::to_string(i)), out));
    return {};
  }
  if (path.empty()) return fail("the JSON options are not an object");
  std::string text;
  if (value.is_boolean()) {
    text = value.get<bool>() ? "on" : "off";
  } else if (value.is_string()) {
    text = value.get<std::string>();
  } else if (!value.is_null()) {
    text = value.dump();
  }
  out.set(path, std::move(text));
  return {};
}

// Scripts write names in the shell with 'single quotes': the same text as JSON has it.
std::string double_quoted(std::string_view text) {
  std::string out;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && quote != 0 && i + 1 < text.size()) {
      // \' is no escape in JSON.
      if (text[i + 1] != '\'') out += c;
      out += text[++i];
    } else if (quote == 0 && (c == '"' || c == '\'')) {
      quote = c;
      out += '"';
    } else if (c == quote && quote != 0) {
      quote = 0;
      out += '"';
    } else if (c == '"') {
      out += "\\\"";
    } else {
      out += c;
    }
  }
  return out;
}

Result<BlockOptions> parse_json(std::string_view text) {
  constexpr int kDeepest = 16;
  bool too_deep = false;
  const auto watch = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep |= depth > kDeepest;
    return depth <= kDeepest;
  };
  const nlohmann::json value = nlohmann::json::parse(double_quoted(text), watch, false);
  if (value.is_discarded() || too_deep) return fail("Could not parse the JSON options");
  BlockOptions options;
  KITE_TRY(flatten(value, "", options));
  return options;
}

}  // namespace

Result<BlockOptions> BlockOptions::parse(std::string_view text, std::string_view implied) {
  if (text.starts_with('{')) return parse_json(text);
  KITE_ASSIGN(auto pairs, parse_options(text, implied));
  BlockOptions options;
  for (auto& [name, value] : pairs) options.set(std::move(name), std::move(value));
  return options;
}

BlockOptions BlockOptions::from(const PropertyMap& map) {
  BlockOptions options;
  for (const auto& [name, value] : map.all()) {
    std::string text;
    if (const auto* flag = std::get_if<bool>(&value)) text = *flag ? "on" : "off";
    if (const auto* number = std::get_if<uint64_t>(&value)) text = std::to_string(*number);
    if (const auto* number = std::get_if<int64_t>(&value)) text = std::to_string(*number);
    if (const auto* string = std::get_if<std::string>(&value)) text = *string;
    options.set(name, std::move(text));
  }
  return options;
}

void BlockOptions::erase(std::string_view name) {
  if (const auto found = values_.find(name); found != values_.end()) values_.erase(found);
}

const std::string* BlockOptions::find(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : &found->second;
}

std::optional<std::string> BlockOptions::take(std::string_view name) {
  known_.emplace_back(name);
  const auto found = values_.find(name);
  if (found == values_.end()) return std::nullopt;
  std::string value = std::move(found->second);
  values_.erase(found);
  return value;
}

std::string BlockOptions::take_string(std::string_view name, std::string otherwise) {
  return take(name).value_or(std::move(otherwise));
}

Result<bool> BlockOptions::take_bool(std::string_view name, bool otherwise) {
  const auto text = take(name);
  if (!text) return otherwise;
  const Result<bool> value = parse_bool(*text);
  if (!value) return fail("Parameter '{}' expects 'on' or 'off'", name);
  return *value;
}

Result<uint64_t> BlockOptions::take_size(std::string_view name, uint64_t otherwise) {
  const auto text = take(name);
  if (!text) return otherwise;
  const Result<uint64_t> value = parse_size(*text);
  if (!value) return fail("Parameter '{}' expects a size: {}", name, value.error().message);
  return *value;
}

Result<uint64_t> BlockOptions::take_unsigned(std::string_view name, uint64_t otherwise, uint64_t minimum,
                                             uint64_t maximum) {
  const auto text = take(name);
  if (!text) return otherwise;
  const Result<uint64_t> value = parse_unsigned(*text);
  if (!value || *value < minimum || *value > maximum) {
    return fail("Parameter '{}' expects a number from {} to {}, not '{}'", name, minimum, maximum, *text);
  }
  return *value;
}

Result<size_t> BlockOptions::take_choice(std::string_view name, std::span<const std::string_view> choices,
                                         size_t otherwise) {
  const auto text = take(name);
  if (!text) return otherwise;
  const auto found = std::ranges::find(choices, std::string_view(*text));
  if (found != choices.end()) return static_cast<size_t>(found - choices.begin());
  return fail("Parameter '{}' does not accept value '{}'{}", name, *text, suggestion(*text, choices));
}

BlockOptions BlockOptions::take_child(std::string_view name) {
  known_.emplace_back(name);
  BlockOptions child;
  const std::string prefix = std::string(name) + ".";
  if (const auto found = values_.find(name); found != values_.end()) {
    child.set("", std::move(found->second));
    values_.erase(found);
  }
  for (auto at = values_.lower_bound(prefix); at != values_.end() && at->first.starts_with(prefix);) {
    child.set(at->first.substr(prefix.size()), std::move(at->second));
    at = values_.erase(at);
  }
  return child;
}

bool BlockOptions::has_child(std::string_view name) const {
  const std::string prefix = std::string(name) + ".";
  const auto at = values_.lower_bound(prefix);
  return has(name) || (at != values_.end() && at->first.starts_with(prefix));
}

Result<> BlockOptions::all_taken(std::string_view owner) const {
  if (values_.empty()) return {};
  std::vector<std::string_view> known(known_.begin(), known_.end());
  std::ranges::sort(known);
  known.erase(std::ranges::unique(known).begin(), known.end());
  const std::string& name = values_.begin()->first;
  return fail("Block driver '{}' does not support the option '{}'{}", owner, name, suggestion(name, known));
}

Result<CacheMode> parse_cache_mode(std::string_view text) {
  struct Named {
    std::string_view name;
    CacheMode mode;
  };
  static constexpr std::array<Named, 6> kModes{{{"writeback", {true, false, false}},
                                                {"none", {true, true, false}},
                                                {"off", {true, true, false}},
                                                {"writethrough", {false, false, false}},
                                                {"directsync", {false, true, false}},
                                                {"unsafe", {true, false, true}}}};
  for (const Named& entry : kModes) {
    if (entry.name == text) return entry.mode;
  }
  static constexpr std::string_view kNames[] = {"writeback", "none", "writethrough", "directsync", "unsafe"};
  return fail("invalid cache mode '{}'{}", text, suggestion(text, kNames));
}

}  // namespace kite::block
