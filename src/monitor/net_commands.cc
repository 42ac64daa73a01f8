#include "monitor/net_commands.h"

#include <vector>

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;

QmpReply done(const Result<>& result) {
  if (!result) return qmp_fail("{}", result.error().message);
  return Json::object();
}

QmpReply not_found(std::string_view name) {
  return std::unexpected(QmpError{"DeviceNotFound", fmt::format("Device '{}' not found", name)});
}

QmpReply set_link(Context& context, const Json& arguments) {
  const std::string name = arguments.at("name");
  if (context.machine.nets() == nullptr || !context.machine.nets()->set_link(name, arguments.at("up").get<bool>()))
    return not_found(name);
  return Json::object();
}

bool is_number(std::string_view text) { return !text.empty() && text[0] >= '0' && text[0] <= '9'; }

Result<> add_netdev(Context& context, std::string_view text) {
  if (context.machine.nets() == nullptr) return fail("this machine has no network");
  KITE_ASSIGN(net::Settings settings, parse_options(text, "type"));
  // Names that getfd gave stand for their descriptors, which the back end takes if it comes to be.
  std::vector<Fd> passed;
  for (auto& [name, value] : settings) {
    if (!net::is_netdev_descriptor(name) || is_number(value)) continue;
    Fd fd = context.fds == nullptr ? Fd() : context.fds->take(value);
    if (!fd.valid()) return fail("{}={}: no descriptor of that name was passed with getfd", name, value);
    value = fmt::format("{}", fd.get());
    passed.push_back(std::move(fd));
  }
  KITE_TRY(context.machine.nets()->add(settings));
  for (Fd& fd : passed) (void)fd.release();
  return {};
}

QmpReply netdev_add(Context& context, const Json& arguments) { return done(add_netdev(context, arguments.dump())); }

QmpReply netdev_del(Context& context, const Json& arguments) {
  const std::string id = arguments.at("id");
  if (context.machine.nets() == nullptr || context.machine.nets()->find(id) == nullptr) return not_found(id);
  return done(context.machine.nets()->remove(id));
}

constexpr ArgumentSpec kSetLink[] = {{"name", Type::string, true}, {"up", Type::boolean, true}};
std::vector<std::string> netdev_types(const Context&) { return net::netdev_types(); }
constexpr ArgumentSpec kNetdevAdd[] = {{"type", Type::string, true, netdev_types}, {"id", Type::string, true}};
constexpr ArgumentSpec kNetdevDel[] = {{"id", Type::string, true}};

constexpr QmpCommand kNetCommands[] = {
    {"set_link", kSetLink, set_link},
    {"netdev_add", kNetdevAdd, netdev_add, true},
    {"netdev_del", kNetdevDel, netdev_del},
};

// --- events

constexpr ArgumentSpec kConnected[] = {{"netdev-id", Type::string, true}, {"addr", Type::object, true}};
constexpr ArgumentSpec kDisconnected[] = {{"netdev-id", Type::string, true}};
constexpr PeerEventSpec kStreamEvents[] = {{"NETDEV_STREAM_CONNECTED", kConnected},
                                           {"NETDEV_STREAM_DISCONNECTED", kDisconnected}};

// [QMP] SocketAddress.
Json address_json(const net::StreamBackend& backend) {
  if (backend.given_fd() >= 0) return {{"type", "fd"}, {"str", std::to_string(backend.given_fd())}};
  const SocketAddress address = backend.address();
  if (!address.is_unix()) return {{"type", "inet"}, {"host", address.host}, {"port", address.port}};
  Json json{{"type", "unix"}, {"path", address.path}};
  if (address.abstract) json["abstract"] = true;
  return json;
}

// --- for people

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (true) {
    const size_t start = line.find_first_not_of(" \t");
    if (start == std::string_view::npos) return words;
    line.remove_prefix(start);
    const size_t end = std::min(line.find_first_of(" \t"), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

std::string told(const Result<>& result) {
  return result ? std::string{} : fmt::format("Error: {}\n", result.error().message);
}
std::string told(const QmpReply& reply) {
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

// "[NETDEV] FORWARD": what is to be done with the forward to the back end.
using Parse = Result<net::Forward> (*)(std::string_view text);
using Change = Result<> (net::UserBackend::*)(const net::Forward& forward);
Result<> change_forward(Context& context, const std::vector<std::string_view>& words, Parse parse, Change change) {
  if (context.machine.nets() == nullptr) return fail("this machine has no network");
  KITE_ASSIGN(net::UserBackend * user,
              context.machine.nets()->find_user(words.size() == 2 ? words[0] : std::string_view{}));
  KITE_ASSIGN(const net::Forward forward, parse(words.back()));
  return (user->*change)(forward);
}

}  // namespace

std::span<const QmpCommand> net_commands() { return kNetCommands; }

std::span<const PeerEventSpec> stream_events() { return kStreamEvents; }

PeerEvent stream_event(const net::StreamBackend& backend) {
  Json data{{"netdev-id", backend.id()}};
  if (backend.connected()) data["addr"] = address_json(backend);
  return {.name = kStreamEvents[backend.connected() ? 0 : 1].name, .data = std::move(data)};
}

std::string info_network(Context& context, std::string_view) {
  std::string text;
  if (context.machine.nets() == nullptr) return text;
  for (const auto& backend : context.machine.nets()->all()) {
    const net::NetClient* const card = backend->client();
    if (card != nullptr) {
      const auto [name, model, mac] = card->describe();
      text += fmt::format("{}: index=0,type=nic,model={},macaddr={}{}\n \\ ", name, model, net::mac_text(mac),
                          backend->link_up() ? "" : ",link=down");
    }
    text += fmt::format("{}: index=0,type={},{}\n", backend->id(), backend->type(), backend->info());
  }
  return text;
}

std::string info_usernet(Context& context, std::string_view) {
  std::string text;
  if (context.machine.nets() == nullptr) return text;
  for (const auto& backend : context.machine.nets()->all())
    if (const auto* const user = dynamic_cast<const net::UserBackend*>(backend.get()); user != nullptr)
      text += fmt::format("{}:\n{}", user->id(), user->connections());
  return text;
}

std::string human_set_link(Context& context, std::string_view rest) {
  const auto words = words_of(rest);
  const auto up = words.size() == 2 ? parse_bool(words[1]) : fail("");
  if (!up) return "usage: set_link NAME on|off\n";
  return told(set_link(context, Json{{"name", words[0]}, {"up", *up}}));
}

std::string human_netdev_add(Context& context, std::string_view rest) {
  const auto words = words_of(rest);
  if (words.size() != 1) return "usage: netdev_add TYPE,id=ID[,OPTION=VALUE]...\n";
  return told(add_netdev(context, words[0]));
}

std::string human_netdev_del(Context& context, std::string_view rest) {
  const auto words = words_of(rest);
  if (words.size() != 1) return "usage: netdev_del ID\n";
  return told(netdev_del(context, Json{{"id", words[0]}}));
}

std::string human_hostfwd_add(Context& context, std::string_view rest) {
  const auto words = words_of(rest);
  if (words.empty() || words.size() > 2)
    return "usage: hostfwd_add [NETDEV] [tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT\n";
  return told(change_forward(context, words, net::parse_forward, &net::UserBackend::add_forward));
}

std::string human_hostfwd_remove(Context& context, std::string_view rest) {
  const auto words = words_of(rest);
  if (words.empty() || words.size() > 2) return "usage: hostfwd_remove [NETDEV] [tcp|udp]:[HOSTADDR]:HOSTPORT\n";
  return told(change_forward(context, words, net::parse_forward_host, &net::UserBackend::remove_forward));
}

}  // namespace kite::monitor
