// What -spice says of the server itself; where it listens is main's business.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/result.h"

namespace kite::display {

// Of a server with TLS: files in PEM's form; ciphers as OpenSSL names them.
struct SpiceTls {
  std::string authorities, certificate, key;
  std::string key_password{};              // "" when it is not encrypted
  std::string dh_parameters{}, ciphers{};  // "" for the library's own
};

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
  std::optional<SpiceTls> tls{};
  // Channels that are for clients with TLS, or for those without; by name, or "default" for those that have no rule.
  struct ChannelRule {
    std::string channel;
    bool tls;
  };
  std::vector<ChannelRule> channel_rules{};
};

// In the order in which they are sent to the library's process.
template <class Tls>
auto texts_of(Tls& tls) {
  return std::array{&tls.authorities, &tls.certificate, &tls.key, &tls.key_password, &tls.dh_parameters, &tls.ciphers};
}

// Options that the library carries out: image-compression, streaming-video, ...
std::span<const std::string_view> spice_options();
// `name` is one of these.
Result<> set_spice_option(SpiceConfig& config, std::string_view name, std::string_view value);

// Of the library that this is built with, as "0.15.1".
std::string spice_version();

}  // namespace kite::display
