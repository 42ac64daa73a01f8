#include "display/spice/spice_config.h"

#include <spice.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "display/spice/spice_settings.h"
#include "support/suggest.h"

namespace kite::display {

namespace {

using Text = std::string_view;

struct Value {
  Text name;
  int number;
};
constexpr Value kOnOff[] = {{"on", 1}, {"off", 0}, {"yes", 1}, {"no", 0}};
constexpr Value kImages[] = {{"auto_glz", SPICE_IMAGE_COMPRESSION_AUTO_GLZ},
                             {"auto_lz", SPICE_IMAGE_COMPRESSION_AUTO_LZ},
                             {"quic", SPICE_IMAGE_COMPRESSION_QUIC},
                             {"glz", SPICE_IMAGE_COMPRESSION_GLZ},
                             {"lz", SPICE_IMAGE_COMPRESSION_LZ},
                             {"lz4", SPICE_IMAGE_COMPRESSION_LZ4},
                             {"off", SPICE_IMAGE_COMPRESSION_OFF}};
constexpr Value kWan[] = {{"auto", SPICE_WAN_COMPRESSION_AUTO},
                          {"never", SPICE_WAN_COMPRESSION_NEVER},
                          {"always", SPICE_WAN_COMPRESSION_ALWAYS}};
constexpr Value kStreaming[] = {
    {"off", SPICE_STREAM_VIDEO_OFF}, {"all", SPICE_STREAM_VIDEO_ALL}, {"filter", SPICE_STREAM_VIDEO_FILTER}};

int set_seamless_migration(SpiceServer* server, int on) {
  spice_server_set_seamless_migration(server, on);
  return 0;
}

struct Option {
  Text name;
  std::span<const Value> values;
  int (*set)(SpiceServer* server, int value);  // not 0: refused
};
constexpr Option kOptions[] = {
    {"image-compression", kImages,
     [](SpiceServer* server, int value) {
       return spice_server_set_image_compression(server, static_cast<SpiceImageCompression>(value));
     }},
    {"jpeg-wan-compression", kWan,
     [](SpiceServer* server, int value) {
       return spice_server_set_jpeg_compression(server, static_cast<spice_wan_compression_t>(value));
     }},
    {"zlib-glz-wan-compression", kWan,
     [](SpiceServer* server, int value) {
       return spice_server_set_zlib_glz_compression(server, static_cast<spice_wan_compression_t>(value));
     }},
    {"streaming-video", kStreaming, spice_server_set_streaming_video},
    {"agent-mouse", kOnOff, spice_server_set_agent_mouse},
    {"disable-copy-paste", kOnOff,
     [](SpiceServer* server, int value) { return spice_server_set_agent_copypaste(server, value == 0); }},
    {"disable-agent-file-xfer", kOnOff,
     [](SpiceServer* server, int value) { return spice_server_set_agent_file_xfer(server, value == 0); }},
    {"playback-compression", kOnOff, spice_server_set_playback_compression},
    {"seamless-migration", kOnOff, set_seamless_migration},
};

constexpr auto kNames = [] {
  std::array<Text, std::size(kOptions)> names;
  std::ranges::transform(kOptions, names.begin(), &Option::name);
  return names;
}();

}  // namespace

std::span<const Text> spice_options() { return kNames; }

Result<> set_spice_option(SpiceConfig& config, Text name, Text value) {
  const auto* const option = std::ranges::find(kOptions, name, &Option::name);
  const auto found = std::ranges::find(option->values, value, &Value::name);
  if (found == option->values.end()) {
    std::vector<Text> known;
    for (const Value& one : option->values) known.push_back(one.name);
    return fail("{}={}: give one of {}{}", name, value, fmt::join(known, ", "), suggestion(value, known));
  }
  config.settings.push_back({.option = static_cast<size_t>(option - std::begin(kOptions)), .value = found->number});
  return {};
}

Result<> apply_spice_settings(const SpiceConfig& config, SpiceServer* server) {
  for (const auto& [option, value] : config.settings)
    if (kOptions[option].set(server, value) != 0)
      return fail("{}: the SPICE library of this host does not have it", kOptions[option].name);
  for (const auto& [channel, tls] : config.channel_rules)
    if (spice_server_set_channel_security(server, channel == "default" ? nullptr : channel.c_str(),
                                          tls ? SPICE_CHANNEL_SECURITY_SSL : SPICE_CHANNEL_SECURITY_NONE) != 0)
      return fail("{}-channel={}: SPICE has no such channel; main, display, inputs, cursor, default",
                  tls ? "tls" : "plaintext", channel);
  return {};
}

Result<> apply_spice_tls(const SpiceConfig& config, SpiceServer* server, int port) {
  const SpiceTls& tls = *config.tls;
  const auto given = [](const std::string& text) { return text.empty() ? nullptr : text.c_str(); };
  for (const std::string* const file : {&tls.authorities, &tls.certificate, &tls.key, &tls.dh_parameters})
    if (!file->empty() && ::access(file->c_str(), R_OK) != 0) return fail("{}: {}", *file, errno_text(errno));
  if (spice_server_set_tls(server, port, tls.authorities.c_str(), tls.certificate.c_str(), tls.key.c_str(),
                           given(tls.key_password), given(tls.dh_parameters), given(tls.ciphers)) != 0)
    return fail("the SPICE library takes no TLS");
  return {};
}

std::string spice_version() {
  return fmt::format("{}.{}.{}", SPICE_SERVER_VERSION >> 16, SPICE_SERVER_VERSION >> 8 & 0xff,
                     SPICE_SERVER_VERSION & 0xff);
}

}  // namespace kite::display
