#include "net/tap_options.h"

#include <net/if.h>

#include <algorithm>
#include <array>

#include "net/settings_reader.h"
#include "object/object_type.h"

namespace kite::net {

namespace {

constexpr std::string_view kUsualBridge = "br0";

Result<std::string> interface_name(SettingsReader& settings, std::string_view name, std::string_view otherwise) {
  if (!settings.has(name)) return std::string(otherwise);
  const std::string value = settings.text(name);
  if (value.empty() || value.size() >= IFNAMSIZ)
    return fail("{}={}: an interface's name has 1 to {} characters", name, value, IFNAMSIZ - 1);
  if (value.find_first_of("/: \t\n") != std::string::npos)
    return fail("{}={}: an interface's name has no blanks, '/' and ':'", name, value);
  return value;
}

// "no" and "" stand for none.
std::string script(SettingsReader& settings, std::string_view name) {
  std::string path = settings.text(name);
  return path == "no" ? "" : path;
}

// Of several queues Kite could use one: its cards have one pair.
Result<> take_queues(SettingsReader& settings, TapConfig& config) {
  constexpr std::string_view kOne = "the cards of this version of Kite have one pair of queues";
  KITE_ASSIGN(const uint64_t queues, settings.number("queues", 1, UINT32_MAX));
  if (queues != 1) return fail("queues={}: {}", queues, kOne);
  for (const std::string_view name : {"fds", "vhostfds"}) {
    if (!settings.has(name)) continue;
    const std::string_view single = name.substr(0, name.size() - 1);
    if (settings.has(single)) return fail("it takes one of {}= and {}=", single, name);
    const std::string list = settings.text(name);
    if (list.find(':') != std::string::npos) return fail("{}={}: {}; give one descriptor", name, list, kOne);
    KITE_ASSIGN((single == "fd" ? config.fd : config.vhost_fd), settings.descriptor(name));
  }
  return {};
}

// vhost= is a wish, as in QEMU: what insists on it is vhostforce=.
Result<> take_vhost(SettingsReader& settings, TapConfig& config) {
  KITE_ASSIGN(config.vhost, settings.boolean("vhost", false));
  if (settings.has("vhostfd")) {
    KITE_ASSIGN(config.vhost_fd, settings.descriptor("vhostfd"));
  }
  KITE_TRY(settings.missing("vhostforce", "this version of Kite has no vhost-net; frames go through this process"));
  KITE_ASSIGN(const uint64_t poll, settings.number("poll-us", 0, UINT32_MAX));
  if (poll != 0) return fail("poll-us={}: it is for vhost-net, which this version of Kite has not", poll);
  return {};
}

Result<> take_send_buffer(SettingsReader& settings, TapConfig& config) {
  if (!settings.has("sndbuf")) return {};
  const std::string value = settings.text("sndbuf");
  const auto bytes = parse_size(value);
  if (!bytes || *bytes > INT32_MAX) return fail("sndbuf={}: a size up to 2G is expected, 0 for no bound", value);
  config.send_buffer = *bytes == 0 ? INT32_MAX : static_cast<int>(*bytes);
  return {};
}

// A descriptor is an interface that is all made, and a helper makes it all.
Result<> stands_alone(SettingsReader& settings, std::string_view what) {
  constexpr std::array<std::string_view, 7> kMaking{"ifname",     "br",       "helper", "script",
                                                    "downscript", "vnet_hdr", "queues"};
  for (const std::string_view name : kMaking) {
    const std::string value = settings.text(name);
    const bool off = value.empty() || value == "no";  // said often, and nothing is asked with it
    if (name == what || off || (what == "helper" && name == "br")) continue;
    return fail("{}= and {}= exclude each other: the interface is made already", what, name);
  }
  return {};
}

}  // namespace

Result<TapConfig> parse_tap_options(const Settings& settings) {
  SettingsReader reader("tap", settings);
  TapConfig config;
  KITE_ASSIGN(config.interface, interface_name(reader, "ifname", ""));
  if (reader.has("fd")) {
    KITE_ASSIGN(config.fd, reader.descriptor("fd"));
  }
  config.helper = reader.text("helper");
  KITE_ASSIGN(config.bridge, interface_name(reader, "br", config.helper.empty() ? "" : kUsualBridge));
  config.script = script(reader, "script");
  config.downscript = script(reader, "downscript");
  KITE_ASSIGN(config.virtio_header, reader.boolean("vnet_hdr", false));
  KITE_TRY(take_send_buffer(reader, config));
  KITE_TRY(take_vhost(reader, config));
  KITE_TRY(take_queues(reader, config));
  if (config.fd >= 0) KITE_TRY(stands_alone(reader, reader.has("fds") ? "fds" : "fd"));
  if (!config.helper.empty()) KITE_TRY(stands_alone(reader, "helper"));
  KITE_TRY(reader.finish());
  return config;
}

Result<TapConfig> parse_bridge_options(const Settings& settings) {
  SettingsReader reader("bridge", settings);
  TapConfig config{.type = "bridge"};
  KITE_ASSIGN(config.bridge, interface_name(reader, "br", kUsualBridge));
  config.helper = reader.text("helper");
  config.usual_helper = config.helper.empty();
  KITE_TRY(reader.finish());
  return config;
}

}  // namespace kite::net
