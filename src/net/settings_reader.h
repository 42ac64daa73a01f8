// SettingsReader: the settings of a back end, read by name. What nobody has read is refused by name at the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "net/net_backend.h"

namespace kite::net {

class SettingsReader {
 public:
  // `type` is the back end's, for messages. Of a name that is given twice the later value counts.
  SettingsReader(std::string_view type, const Settings& settings) : type_(type), settings_(settings) {}

  bool has(std::string_view name);
  std::string text(std::string_view name);  // "" when it was not given
  Result<bool> boolean(std::string_view name, bool otherwise);
  Result<uint64_t> number(std::string_view name, uint64_t otherwise, uint64_t most);
  // A descriptor that this process was started with, or that a monitor's client has passed; it has to be given.
  Result<int> descriptor(std::string_view name);
  // Something that QEMU has and Kite has not: may be off.
  Result<> missing(std::string_view name, std::string_view reason);
  // The first that was not read.
  [[nodiscard]] Result<> finish() const;

 private:
  const std::string* find(std::string_view name);

  const std::string_view type_;
  const Settings& settings_;
  std::vector<std::string> read_;
};

}  // namespace kite::net
