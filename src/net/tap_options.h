// What -netdev tap and bridge take.
#pragma once

#include <optional>
#include <string>

#include "net/net_backend.h"

namespace kite::net {

struct TapConfig {
  std::string_view type = "tap";       // what the back end calls itself
  std::string interface{};             // "" for a name that the kernel chooses
  int fd = -1;                         // instead; taken when all is well
  std::string bridge{};                // the interface becomes a port of it; "" for none
  std::string helper{};                // a program that makes the interface there; "" for this process
  bool usual_helper = false;           // where this process may not make it, a helper at one of the usual places does
  std::string script{}, downscript{};  // run with the interface's name when it is there and when it goes; "" for none
  bool virtio_header = false;          // IFF_VNET_HDR is wished for
  std::optional<int> send_buffer{};    // bytes
  bool vhost = false;                  // the kernel's vhost-net is wished for, which is not used
  int vhost_fd = -1;                   // closed when all is well
};
// `settings` without type and id.
Result<TapConfig> parse_tap_options(const Settings& settings);
Result<TapConfig> parse_bridge_options(const Settings& settings);

}  // namespace kite::net
