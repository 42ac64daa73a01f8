// What -netdev user takes, and port forwards.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "net/net_backend.h"

namespace kite::net {

using Ipv4 = uint32_t;  // as a number: 10.0.2.15 is 0x0a00020f
Result<Ipv4> parse_ipv4(std::string_view text);
std::string ipv4_text(Ipv4 address);

// Connections to a port of the host's go to one of the guest's.
struct Forward {
  bool udp = false;
  Ipv4 host = 0;  // 0: every address of the host's
  uint16_t host_port = 0;
  Ipv4 guest = 0;  // 0: the first address that DHCP gives
  uint16_t guest_port = 0;
};
// "[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT".
Result<Forward> parse_forward(std::string_view text);
// The older form of -redir, "[tcp|udp]:HOSTPORT:[GUESTADDR]:GUESTPORT", in the form above.
Result<std::string> forward_of_redirection(std::string_view text);
// "[tcp|udp]:[HOSTADDR]:HOSTPORT": the host's end alone.
Result<Forward> parse_forward_host(std::string_view text);
std::string forward_text(const Forward& forward);

struct UserConfig {
  bool ipv4 = true, ipv6 = true;
  bool restricted = false;  // the guest reaches the forwards and nothing else
  Ipv4 net = 0x0a000200, mask = 0xffffff00;
  Ipv4 host = 0, dhcp_start = 0, dns = 0;
  std::string hostname, domain;  // what DHCP says
  std::string tftp, bootfile, tftp_server;
  std::vector<std::string> dns_search;
  std::vector<Forward> forwards;
};
// `settings` without type and id.
Result<UserConfig> parse_user_options(const Settings& settings);

}  // namespace kite::net
