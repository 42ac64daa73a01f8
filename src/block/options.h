// The options of a node: -blockdev and -drive as users and libvirt write them. "driver=qcow2,file.driver=file,
// file.filename=a.img" and {"driver":"qcow2","file":{...}} are the same tree, kept flat under dotted names. Whoever
// understands an option takes it; what is left at the end is an error that names it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/node.h"
#include "object/object_type.h"
#include "support/result.h"

namespace kite::block {

class BlockOptions {
 public:
  BlockOptions() = default;
  // "a=b,c.d=e" or JSON. `implied` as parse_options().
  static Result<BlockOptions> parse(std::string_view text, std::string_view implied = "");
  // The same from a PropertyMap (already dotted).
  static BlockOptions from(const PropertyMap& map);

  void set(std::string name, std::string value) { values_[std::move(name)] = std::move(value); }
  void set_default(std::string name, std::string value) { values_.try_emplace(std::move(name), std::move(value)); }
  void erase(std::string_view name);
  [[nodiscard]] bool has(std::string_view name) const { return values_.find(name) != values_.end(); }
  [[nodiscard]] const std::string* find(std::string_view name) const;
  [[nodiscard]] bool empty() const { return values_.empty(); }
  // Takes an option out; each remembers the name as one that this node knows.
  std::optional<std::string> take(std::string_view name);
  std::string take_string(std::string_view name, std::string otherwise = "");
  Result<bool> take_bool(std::string_view name, bool otherwise);
  Result<uint64_t> take_size(std::string_view name, uint64_t otherwise);
  Result<uint64_t> take_unsigned(std::string_view name, uint64_t otherwise, uint64_t minimum, uint64_t maximum);
  // One of `choices`; answers its index.
  Result<size_t> take_choice(std::string_view name, std::span<const std::string_view> choices, size_t otherwise);
  // All options under "name." without that prefix; or, when "name" itself is there, {node reference}.
  BlockOptions take_child(std::string_view name);
  [[nodiscard]] bool has_child(std::string_view name) const;
  // An error that names every option left over, with the nearest known one.
  [[nodiscard]] Result<> all_taken(std::string_view owner) const;
  [[nodiscard]] const std::map<std::string, std::string, std::less<>>& all() const { return values_; }

 private:
  std::map<std::string, std::string, std::less<>> values_;
  std::vector<std::string> known_;
};

// cache=writeback and friends, as -drive and the tools write them.
struct CacheMode {
  bool writeback = true;  // of the drive: false makes every write durable
  bool direct = false;
  bool no_flush = false;
};
Result<CacheMode> parse_cache_mode(std::string_view text);

}  // namespace kite::block
