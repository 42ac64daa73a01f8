// Options taken apart: "name=value,..." with doubled commas, and the JSON form.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "object/object_type.h"

namespace kite {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

// Cuts the text up to the next single comma off `rest`, with doubled commas made single.
std::string take_item(std::string_view& rest) {
  std::string item;
  size_t at = 0;
  for (; at < rest.size(); ++at) {
    if (rest[at] == ',') {
      if (rest.substr(at, 2) != ",,") break;
      ++at;
    }
    item += rest[at];
  }
  rest.remove_prefix(std::min(at + 1, rest.size()));
  return item;
}

// Builds pairs from the events of the JSON parser, which keeps no tree and does not recurse.
class PairsFromJson final : public nlohmann::json_sax<nlohmann::json> {
 public:
  [[nodiscard]] Pairs take() { return std::move(pairs_); }
  [[nodiscard]] std::string error() const { return error_; }

  bool null() override { return refuse("null is not a value"); }
  bool boolean(bool value) override { return scalar(value ? "on" : "off"); }
  bool number_integer(number_integer_t value) override { return scalar(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return scalar(text); }
  bool string(string_t& value) override { return scalar(value); }
  bool binary(binary_t&) override { return refuse("binary data is not a value"); }
  bool start_object(size_t) override { return open(false); }
  bool key(string_t& name) override {
    levels_.back().name = name;
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(size_t) override {
    if (levels_.empty()) return refuse("an object is expected");
    return open(true);
  }
  bool end_array() override { return close(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return refuse(fmt::format("syntax error at byte {}", position));
  }

 private:
  struct Level {
    bool array;
    size_t index = 0;
    std::string name;
  };

  bool refuse(std::string why) {
    if (error_.empty()) error_ = std::move(why);
    return false;
  }
  bool open(bool array) {
    constexpr size_t kDeepest = 16;
    if (levels_.size() == kDeepest) return refuse("it is nested too deeply");
    levels_.push_back(Level{.array = array, .name = array ? "0" : ""});
    return true;
  }
  bool close() {
    levels_.pop_back();
    advance();
    return true;
  }
  void advance() {
    if (levels_.empty() || !levels_.back().array) return;
    levels_.back().name = std::to_string(++levels_.back().index);
  }
  bool scalar(std::string value) {
    if (levels_.empty()) return refuse("an object is expected");
    constexpr size_t kMostMembers = 1024;
    if (pairs_.size() == kMostMembers) return refuse("it has too many members");
    std::string path;
    for (const Level& level : levels_) path += (path.empty() ? "" : ".") + level.name;
    if (std::ranges::find(pairs_, path, &Pairs::value_type::first) != pairs_.end()) {
      return refuse(fmt::format("'{}' is given twice", path));
    }
    pairs_.emplace_back(std::move(path), std::move(value));
    advance();
    return true;
  }

  std::vector<Level> levels_;
  Pairs pairs_;
  std::string error_;
};

Result<Pairs> parse_json(std::string_view text) {
  PairsFromJson pairs;
  if (!nlohmann::json::sax_parse(text, &pairs)) return fail("the JSON options are not understood: {}", pairs.error());
  return pairs.take();
}

}  // namespace

Result<Pairs> parse_options(std::string_view text, std::string_view implied) {
  if (text.starts_with('{')) return parse_json(text);
  Pairs pairs;
  for (bool first = true; !text.empty(); first = false) {
    const std::string item = take_item(text);
    const size_t equals = item.find('=');
    if (equals == 0) return fail("'{}' has no name before '='", item);
    if (equals != std::string::npos) {
      pairs.emplace_back(item.substr(0, equals), item.substr(equals + 1));
    } else if (first && !implied.empty()) {
      pairs.emplace_back(implied, item);
    } else if (!item.empty()) {
      pairs.emplace_back(item, "on");
    }
  }
  return pairs;
}

Result<ObjectOptions> parse_object_options(std::string_view text, std::string_view type_key) {
  KITE_ASSIGN(Pairs pairs, parse_options(text, type_key));
  ObjectOptions options;
  for (auto& [name, value] : pairs) {
    if (name == type_key) {
      if (!options.type.empty()) return fail("'{}' is given twice in '{}'", type_key, text);
      options.type = std::move(value);
    } else if (name == "id") {
      if (!valid_id(value)) {
        return fail("id '{}': an id is a letter followed by letters, digits, '-', '.' and '_'", value);
      }
      options.id = std::move(value);
    } else {
      options.values.emplace_back(std::move(name), std::move(value));
    }
  }
  if (options.type.empty()) return fail("'{}' names no {}", text, type_key);
  return options;
}

}  // namespace kite
