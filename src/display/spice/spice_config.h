// What -spice says of the server itself; where it listens is main's business.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/result.h"

namespace kite::display {

struct SpiceConfig {
  static constexpr size_t kLongestPassword = 60;  // letters

  std::string name;       // as clients show it
  bool ticketing = true;  // clients need the password
  // Those that were given, as the library's numbers.
  struct Setting {
    size_t option;  // an index to the table of spice_config.cc
    int value;
  };
  std::vector<Setting> settings;
};

// Options that the library carries out: image-compression, streaming-video, ...
std::span<const std::string_view> spice_options();
// `name` is one of these.
Result<> set_spice_option(SpiceConfig& config, std::string_view name, std::string_view value);

// Of the library that this is built with, as "0.15.1".
std::string spice_version();

}  // namespace kite::display
