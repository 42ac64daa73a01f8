#include "monitor/balloon_commands.h"

#include "monitor/words.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;

constexpr uint64_t kMib = 1 << 20;

std::expected<devices::VirtioBalloon*, QmpError> find_balloon(Context& context) {
  if (devices::VirtioBalloon* const balloon = context.machine.board().balloon(); balloon != nullptr) return balloon;
  return std::unexpected(QmpError{"DeviceNotActive", "No balloon device has been activated"});
}

QmpReply set_balloon(Context& context, const Json& arguments) {
  const auto balloon = find_balloon(context);
  if (!balloon) return std::unexpected(balloon.error());
  const Json& value = arguments.at("value");
  const uint64_t bytes = value.is_number_unsigned() ? value.get<uint64_t>() : 0;
  if (bytes == 0) return qmp_fail("Parameter 'target' expects a size");
  (*balloon)->set_target(bytes);
  return Json::object();
}

QmpReply query_balloon(Context& context, const Json&) {
  const auto balloon = find_balloon(context);
  if (!balloon) return std::unexpected(balloon.error());
  return Json{{"actual", (*balloon)->actual()}};
}

constexpr ArgumentSpec kBalloon[] = {{"value", Type::number_integer, true}};

constexpr QmpCommand kBalloonCommands[] = {
    {"balloon", kBalloon, set_balloon},
    {"query-balloon", {}, query_balloon},
};

}  // namespace

std::span<const QmpCommand> balloon_commands() { return kBalloonCommands; }

std::string info_balloon(Context& context, std::string_view) {
  const auto balloon = find_balloon(context);
  if (!balloon) return fmt::format("Error: {}\n", balloon.error().description);
  return fmt::format("balloon: actual={}\n", (*balloon)->actual() / kMib);
}

std::string human_balloon(Context& context, std::string_view rest) {
  const auto bytes = parse_size(next_word(rest), kMib);
  if (!bytes || !next_word(rest).empty()) return "usage: balloon MEBIBYTES\n";
  const QmpReply reply = set_balloon(context, Json{{"value", *bytes}});
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

}  // namespace kite::monitor
