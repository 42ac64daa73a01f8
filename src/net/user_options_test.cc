#include "net/user_options.h"

#include <gtest/gtest.h>

namespace kite::net {
namespace {

std::string refusal(const Settings& settings) {
  const auto parsed = parse_user_options(settings);
  EXPECT_FALSE(parsed);
  return parsed ? std::string{} : parsed.error().message;
}

TEST(UserOptionsTest, DefaultsAreTheUsualNetwork) {
  const auto config = parse_user_options({});
  ASSERT_TRUE(config);
  EXPECT_EQ(ipv4_text(config->net), "10.0.2.0");
  EXPECT_EQ(ipv4_text(config->mask), "255.255.255.0");
  EXPECT_EQ(ipv4_text(config->host), "10.0.2.2");
  EXPECT_EQ(ipv4_text(config->dns), "10.0.2.3");
  EXPECT_EQ(ipv4_text(config->dhcp_start), "10.0.2.15");
}

TEST(UserOptionsTest, AddressesFollowTheNetwork) {
  const auto config = parse_user_options({{"net", "192.168.5.77/255.255.255.0"}, {"dns", "192.168.5.9"}});
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(ipv4_text(config->net), "192.168.5.0");
  EXPECT_EQ(ipv4_text(config->host), "192.168.5.2");
  EXPECT_EQ(ipv4_text(config->dns), "192.168.5.9");
  const auto by_class = parse_user_options({{"net", "172.20.0.0"}});
  ASSERT_TRUE(by_class);
  EXPECT_EQ(ipv4_text(by_class->mask), "255.255.0.0");
  EXPECT_EQ(ipv4_text(by_class->host), "172.20.2.2");
}

TEST(UserOptionsTest, AddressesOutsideAreRefused) {
  EXPECT_NE(refusal({{"host", "10.0.3.2"}}).find("host=10.0.3.2"), std::string::npos);
  EXPECT_NE(refusal({{"dhcpstart", "10.0.2.255"}}).find("dhcpstart"), std::string::npos);
  EXPECT_NE(refusal({{"dns", "10.0.2.2"}}).find("the host's address"), std::string::npos);
  EXPECT_NE(refusal({{"dhcpstart", "10.0.2.3"}}).find("name server"), std::string::npos);
  EXPECT_NE(refusal({{"net", "10.0.2.0/30"}}).find("/30"), std::string::npos);
  EXPECT_NE(refusal({{"net", "10.0.2.0/255.0.255.0"}}).find("mask"), std::string::npos);
  EXPECT_NE(refusal({{"net", "10.0.2"}}).find("no IPv4 address"), std::string::npos);
}

TEST(UserOptionsTest, UnknownSettingsNameTheNearest) {
  EXPECT_NE(refusal({{"hostfd", "tcp::1-:2"}}).find("hostfwd"), std::string::npos);
  EXPECT_NE(refusal({{"guestfwd", "tcp:10.0.2.4:80-chardev:c"}}).find("yet"), std::string::npos);
  EXPECT_NE(refusal({{"restrict", "maybe"}}).find("neither on nor off"), std::string::npos);
  EXPECT_NE(refusal({{"ipv4", "off"}, {"ipv6", "off"}}).find("no kind"), std::string::npos);
  EXPECT_NE(refusal({{"hostname", std::string(33, 'a')}}).find("33"), std::string::npos);
}

TEST(UserOptionsTest, ListsComeRepeatedOrFromJson) {
  const auto config = parse_user_options({{"hostfwd", "tcp::8022-:22"},
                                          {"hostfwd.0.str", "udp:127.0.0.1:53-10.0.2.20:5353"},
                                          {"dnssearch.0.str", "one.example"},
                                          {"dnssearch.1.str", "two.example"}});
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->forwards.size(), 2U);
  EXPECT_EQ(forward_text(config->forwards[0]), "tcp::8022-:22");
  EXPECT_EQ(forward_text(config->forwards[1]), "udp:127.0.0.1:53-10.0.2.20:5353");
  EXPECT_EQ(config->dns_search, (std::vector<std::string>{"one.example", "two.example"}));
}

TEST(UserOptionsTest, ForwardsThatAreNoneSayWhatIsWrong) {
  for (const auto& [text, wanted] :
       {std::pair("8022-:22", "a part is missing"), std::pair("tcp::8022:22", "a part is missing"),
        std::pair("sctp::8022-:22", "no protocol"), std::pair("tcp::80220-:22", "the host's port '80220'"),
        std::pair("tcp::8022-:0", "the guest's port '0'"), std::pair("tcp:localhost:8022-:22", "'localhost'"),
        std::pair("tcp::8022-:ssh", "'ssh'"), std::pair("", "a part is missing")}) {
    const auto parsed = parse_forward(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().message.find(wanted), std::string::npos) << parsed.error().message;
  }
}

TEST(UserOptionsTest, RedirectionsAreForwards) {
  for (const auto& [text, wanted] : {std::pair("tcp:8022::22", "tcp::8022-:22"), std::pair(":8022::22", "::8022-:22"),
                                     std::pair("udp:53:10.0.2.20:5353", "udp::53-10.0.2.20:5353")}) {
    const auto forward = forward_of_redirection(text);
    ASSERT_TRUE(forward) << forward.error().message;
    EXPECT_EQ(*forward, wanted);
    EXPECT_TRUE(parse_forward(*forward));
  }
  const auto bad = forward_of_redirection("tcp:8022:22");
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("HOSTPORT:[GUESTADDR]:GUESTPORT"), std::string::npos);
}

}  // namespace
}  // namespace kite::net
