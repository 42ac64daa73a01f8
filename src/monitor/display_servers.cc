#include "monitor/display_servers.h"

#include <charconv>
#include <ctime>
#include <optional>

#include "monitor/words.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;
using display::ClientEvent;
using display::Place;
using display::SpiceChannel;
using display::SpiceDisplay;
using display::VncServer;
using display::WhenConnected;

static_assert(display::VncScreen::kNeverExpires == display::SpiceDisplay::kNeverExpires);
constexpr int64_t kNever = display::VncScreen::kNeverExpires;

QmpReply empty() { return Json::object(); }

// --- VNC

// How clients are let in, in the protocol's three ways to say so.
struct VncAuth {
  std::string_view whole;    // query-vnc, events
  std::string_view primary;  // query-vnc-servers: this,
  std::string_view subtype;  // and this with VeNCrypt
};
constexpr VncAuth kVncAuth[][2] = {
    {{"none", "none", ""}, {"vnc", "vnc", ""}},
    {{"vencrypt+tls+none", "vencrypt", "tls-none"}, {"vencrypt+tls+vnc", "vencrypt", "tls-vnc"}},
    {{"vencrypt+x509+none", "vencrypt", "x509-none"}, {"vencrypt+x509+vnc", "vencrypt", "x509-vnc"}}};
static_assert(static_cast<size_t>(VncServer::Tls::kCertificate) == std::size(kVncAuth) - 1);

const VncAuth& vnc_auth(const VncServer& server) {
  return kVncAuth[static_cast<size_t>(server.tls())][server.asks_password() ? 1 : 0];
}

Json vnc_place(const Place& place) {
  return {{"host", place.host}, {"service", place.service}, {"family", place.family}, {"websocket", false}};
}

Json vnc_client(const VncServer::Client& client) {
  Json answer = vnc_place(client.place);
  if (!client.x509_name.empty()) answer["x509_dname"] = client.x509_name;
  return answer;
}

Json vnc_clients(const VncServer& server) {
  Json all = Json::array();
  for (const VncServer::Client& client : server.clients()) all.push_back(vnc_client(client));
  return all;
}

QmpReply query_vnc(Context& context, const Json&) {
  if (context.vnc == nullptr) return Json{{"enabled", false}, {"clients", Json::array()}};
  Json answer = vnc_place(context.vnc->place());
  answer.erase("websocket");
  answer["enabled"] = true;
  answer["auth"] = vnc_auth(*context.vnc).whole;
  answer["clients"] = vnc_clients(*context.vnc);
  return answer;
}

QmpReply query_vnc_servers(Context& context, const Json&) {
  if (context.vnc == nullptr) return Json::array();
  const VncAuth& auth = vnc_auth(*context.vnc);
  Json place = vnc_place(context.vnc->place());
  Json server{{"id", "default"}, {"clients", vnc_clients(*context.vnc)}};
  for (Json* const part : {&place, &server}) {
    (*part)["auth"] = auth.primary;
    if (!auth.subtype.empty()) (*part)["vencrypt"] = auth.subtype;
  }
  server["server"] = Json::array({place});
  return Json::array({server});
}

QmpReply set_vnc_password(Context& context, const std::string& password) {
  if (context.vnc == nullptr) return std::unexpected(QmpError{"DeviceNotActive", "No VNC display is active"});
  if (!context.vnc->asks_password()) return qmp_fail("Could not set password: -vnc was not given password=on");
  context.vnc->set_password(password);
  return empty();
}

QmpReply change_vnc_password(Context& context, const Json& arguments) {
  return set_vnc_password(context, arguments.at("password"));
}

// --- SPICE

std::string_view spice_auth(const SpiceDisplay& server) { return server.asks_password() ? "spice" : "none"; }

Json spice_place(const Place& place) {
  return {{"host", place.host}, {"port", place.service}, {"family", place.family}};
}

Json spice_channel(const SpiceChannel& channel) {
  Json answer = spice_place(channel.client);
  answer["connection-id"] = channel.connection;
  answer["channel-type"] = channel.type;
  answer["channel-id"] = channel.id;
  answer["tls"] = channel.tls;
  return answer;
}

QmpReply query_spice(Context& context, const Json&) {
  if (context.spice == nullptr) return Json{{"enabled", false}, {"migrated", false}, {"mouse-mode", "unknown"}};
  const SpiceDisplay& server = *context.spice;
  const std::optional<Place> place = server.place(), tls_place = server.tls_place();
  Json answer{{"enabled", true},
              {"migrated", false},
              {"auth", spice_auth(server)},
              {"compiled-version", display::spice_version()},
              {"mouse-mode", server.uses_tablet() ? "client" : "server"},
              {"channels", Json::array()}};
  const Place& any = place ? *place : *tls_place;
  answer["host"] = any.family == "unix" ? any.service : any.host;
  if (place && place->family != "unix") answer["port"] = std::atoi(place->service.c_str());
  if (tls_place) answer["tls-port"] = std::atoi(tls_place->service.c_str());
  for (const SpiceChannel& channel : server.channels()) answer["channels"].push_back(spice_channel(channel));
  return answer;
}

QmpReply set_spice_password(Context& context, const std::string& password, WhenConnected connected) {
  if (context.spice == nullptr) return std::unexpected(QmpError{"DeviceNotActive", "SPICE is not in use"});
  if (!context.spice->asks_password()) return qmp_fail("Could not set password: -spice was given disable-ticketing=on");
  if (auto done = context.spice->set_password(password, connected); !done)
    return qmp_fail("Could not set password: {}", done.error().message);
  return empty();
}

// --- passwords of either

std::unexpected<QmpError> no_server(std::string_view protocol) {
  return qmp_fail("Parameter 'protocol' does not accept value '{}'; vnc and spice are there", protocol);
}

QmpReply set_password(Context& context, const Json& arguments) {
  const std::string protocol = arguments.at("protocol"), connected = arguments.value("connected", "keep"),
                    password = arguments.at("password");
  if (connected != "keep" && connected != "fail" && connected != "disconnect")
    return qmp_fail("Parameter 'connected' does not accept value '{}'; keep, fail, disconnect", connected);
  if (protocol == "spice")
    return set_spice_password(context, password,
                              connected == "keep"   ? WhenConnected::kKeep
                              : connected == "fail" ? WhenConnected::kFail
                                                    : WhenConnected::kDisconnect);
  if (protocol != "vnc") return no_server(protocol);
  if (connected != "keep") return qmp_fail("connected={}: VNC clients that are connected stay; use keep", connected);
  return set_vnc_password(context, password);
}

// "now", "never", "+SECONDS" from now, or seconds since 1970.
std::optional<int64_t> expiry_of(std::string_view text) {
  if (text == "never") return kNever;
  const int64_t now = std::time(nullptr);
  if (text == "now") return now;
  const bool from_now = text.starts_with('+');
  if (from_now) text.remove_prefix(1);
  uint32_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc{} || end != text.data() + text.size()) return {};
  return from_now ? now + seconds : int64_t{seconds};
}

QmpReply expire_password(Context& context, const Json& arguments) {
  const std::string protocol = arguments.at("protocol"), time = arguments.at("time");
  const auto expiry = expiry_of(time);
  if (!expiry) return qmp_fail("Parameter 'time' does not accept value '{}'; now, never, +SECONDS, SECONDS", time);
  if (protocol == "vnc") {
    if (context.vnc == nullptr) return std::unexpected(QmpError{"DeviceNotActive", "No VNC display is active"});
    context.vnc->set_expiry(*expiry);
    return empty();
  }
  if (protocol != "spice") return no_server(protocol);
  if (context.spice == nullptr) return std::unexpected(QmpError{"DeviceNotActive", "SPICE is not in use"});
  if (!context.spice->asks_password())
    return qmp_fail("Could not set password expire time: -spice was given disable-ticketing=on");
  context.spice->set_expiry(*expiry);
  return empty();
}

constexpr ArgumentSpec kSetPassword[] = {
    {"protocol", Type::string, true}, {"password", Type::string, true}, {"connected", Type::string, false}};
constexpr ArgumentSpec kExpirePassword[] = {{"protocol", Type::string, true}, {"time", Type::string, true}};
constexpr ArgumentSpec kPassword[] = {{"password", Type::string, true}};

constexpr QmpCommand kDisplayServerCommands[] = {
    {"query-vnc", {}, query_vnc},
    {"query-vnc-servers", {}, query_vnc_servers},
    {"query-spice", {}, query_spice},
    {"set_password", kSetPassword, set_password},
    {"expire_password", kExpirePassword, expire_password},
    {"change-vnc-password", kPassword, change_vnc_password},
};

// By ClientEvent, those of VNC before those of SPICE.
constexpr ArgumentSpec kClient[] = {{"server", Type::object, true}, {"client", Type::object, true}};
constexpr PeerEventSpec kEvents[] = {{"VNC_CONNECTED", kClient},     {"VNC_INITIALIZED", kClient},
                                     {"VNC_DISCONNECTED", kClient},  {"SPICE_CONNECTED", kClient},
                                     {"SPICE_INITIALIZED", kClient}, {"SPICE_DISCONNECTED", kClient}};
constexpr size_t kClientEvents = std::size(kEvents) / 2;
static_assert(ClientEvent{} == ClientEvent::kConnected && static_cast<size_t>(ClientEvent::kInitialized) == 1 &&
              static_cast<size_t>(ClientEvent::kDisconnected) == 2);

std::string error_text(const QmpReply& reply) {
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

std::string text_of(const Place& place) {
  return place.family == "unix" ? fmt::format("unix:{}", place.service)
                                : fmt::format("{}:{} ({})", place.host, place.service, place.family);
}

}  // namespace

std::span<const QmpCommand> display_server_commands() { return kDisplayServerCommands; }

std::span<const PeerEventSpec> display_events() { return kEvents; }

PeerEvent vnc_event(const VncServer& server, ClientEvent event, const VncServer::Client& client) {
  Json place = vnc_place(server.place());
  place["auth"] = vnc_auth(server).whole;
  return {kEvents[static_cast<size_t>(event)].name, {{"server", place}, {"client", vnc_client(client)}}};
}

PeerEvent spice_event(const SpiceDisplay& server, ClientEvent event, const SpiceChannel& channel) {
  const std::string_view name = kEvents[kClientEvents + static_cast<size_t>(event)].name;
  Json place = spice_place(channel.server);
  if (event != ClientEvent::kInitialized) return {name, {{"server", place}, {"client", spice_place(channel.client)}}};
  place["auth"] = spice_auth(server);
  return {name, {{"server", place}, {"client", spice_channel(channel)}}};
}

// --- for people

std::string info_vnc(Context& context, std::string_view) {
  if (context.vnc == nullptr) return "Server: disabled\n";
  std::string lines =
      fmt::format("Server: {}\n  Auth: {}\n", text_of(context.vnc->place()), vnc_auth(*context.vnc).whole);
  for (const VncServer::Client& client : context.vnc->clients()) {
    lines += fmt::format("Client: {}\n", text_of(client.place));
    if (!client.x509_name.empty()) lines += fmt::format("  x509_dname: {}\n", client.x509_name);
  }
  if (context.vnc->clients().empty()) lines += "Client: none\n";
  return lines;
}

std::string info_spice(Context& context, std::string_view) {
  if (context.spice == nullptr) return "Server: disabled\n";
  const SpiceDisplay& server = *context.spice;
  std::string lines = "Server:\n";
  for (const auto& [place, tls] : {std::pair(server.place(), ""), std::pair(server.tls_place(), " [tls]")})
    if (place) lines += fmt::format("     address: {}{}\n", text_of(*place), tls);
  lines += fmt::format("        auth: {}\n    compiled: {}\n  mouse-mode: {}\n", spice_auth(server),
                       display::spice_version(), server.uses_tablet() ? "client" : "server");
  for (const SpiceChannel& channel : server.channels())
    lines +=
        fmt::format("Channel:\n     address: {}{}\n     session: {}\n     channel: {}:{}\n", text_of(channel.client),
                    channel.tls ? " [tls]" : "", channel.connection, channel.type, channel.id);
  if (server.channels().empty()) lines += "Channels: none\n";
  return lines;
}

std::string human_set_password(Context& context, std::string_view rest) {
  const std::string protocol(next_word(rest)), password(next_word(rest)), connected(next_word(rest));
  if (password.empty()) return "usage: set_password vnc|spice PASSWORD [keep|fail|disconnect]\n";
  Json arguments{{"protocol", protocol}, {"password", password}};
  if (!connected.empty()) arguments["connected"] = connected;
  return error_text(run_qmp_command(context, "set_password", arguments));
}

std::string human_expire_password(Context& context, std::string_view rest) {
  const std::string protocol(next_word(rest)), time(next_word(rest));
  if (time.empty()) return "usage: expire_password vnc|spice now|never|+SECONDS|SECONDS\n";
  return error_text(run_qmp_command(context, "expire_password", Json{{"protocol", protocol}, {"time", time}}));
}

std::string human_change_vnc(Context& context, std::string_view rest) {
  const std::string what(next_word(rest)), password(next_word(rest));
  if (what != "password" || password.empty()) return "usage: change vnc password PASSWORD\n";
  return error_text(run_qmp_command(context, "change-vnc-password", Json{{"password", password}}));
}

}  // namespace kite::monitor
