#include "monitor/input_commands.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "devices/usb/usb_bus.h"
#include "display/console.h"
#include "monitor/display_commands.h"
#include "monitor/words.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;
using display::Console;

struct Button {
  std::string_view name;
  uint8_t bit;
  int8_t wheel;
};
constexpr Button kButtons[] = {{"left", display::kButtonLeft, 0},
                               {"middle", display::kButtonMiddle, 0},
                               {"right", display::kButtonRight, 0},
                               {"side", display::kButtonSide, 0},
                               {"extra", display::kButtonExtra, 0},
                               {"wheel-up", 0, -1},
                               {"wheel-down", 0, 1}};

// What one input-send-event has told so far.
struct Gathered {
  Console::PointerChange change;
  std::vector<std::pair<display::KeyNumber, bool>> keys;
  bool pointer = false;
};
using Added = std::expected<void, QmpError>;

Added no_handler(std::string_view type) { return qmp_fail("Input handler not found for event type {}", type); }

// The axis and the value of "rel" and "abs".
struct Axis {
  bool x;
  int32_t value;
};
std::expected<Axis, QmpError> axis_of(const Json& data) {
  const std::string axis = data.value("axis", "");
  if (axis != "x" && axis != "y") return qmp_fail("Parameter 'axis' does not accept value '{}'", axis);
  if (!data.contains("value") || !data["value"].is_number_integer())
    return qmp_fail("Parameter 'value' is missing or no integer");
  const auto value = data["value"].get<int64_t>();
  return Axis{.x = axis == "x", .value = static_cast<int32_t>(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX))};
}

std::expected<bool, QmpError> down_of(const Json& data) {
  if (!data.contains("down") || !data["down"].is_boolean())
    return qmp_fail("Parameter 'down' is missing or no boolean");
  return data["down"].get<bool>();
}

Added add_movement(const Console& console, const Json& data, Gathered& gathered) {
  if (!console.takes_movement()) return no_handler("rel");
  const auto axis = axis_of(data);
  if (!axis) return std::unexpected(axis.error());
  int32_t& total = axis->x ? gathered.change.dx : gathered.change.dy;
  total = static_cast<int32_t>(std::clamp<int64_t>(int64_t{total} + axis->value, INT32_MIN, INT32_MAX));
  gathered.pointer = true;
  return {};
}

Added add_place(const Console& console, const Json& data, Gathered& gathered) {
  if (!console.takes_places()) return no_handler("abs");
  const auto axis = axis_of(data);
  if (!axis) return std::unexpected(axis.error());
  (axis->x ? gathered.change.x : gathered.change.y) = std::clamp(axis->value, 0, display::kPlaceMost);
  gathered.pointer = true;
  return {};
}

Added add_button(const Console& console, const Json& data, Gathered& gathered) {
  if (!console.takes_clicks()) return no_handler("btn");
  const auto down = down_of(data);
  if (!down) return std::unexpected(down.error());
  const std::string name = data.value("button", "");
  const auto* const button = std::ranges::find(kButtons, name, &Button::name);
  if (button == std::end(kButtons)) return qmp_fail("Parameter 'button' does not accept value '{}'", name);
  uint8_t& buttons = gathered.change.buttons;
  buttons = static_cast<uint8_t>(*down ? buttons | button->bit : buttons & ~button->bit);
  if (*down) gathered.change.dz += button->wheel;
  gathered.pointer = true;
  return {};
}

Added add_key(const Console& console, const Json& data, Gathered& gathered) {
  if (!console.takes_keys()) return no_handler("key");
  const auto down = down_of(data);
  if (!down) return std::unexpected(down.error());
  const auto key = key_of(data.value("key", Json()));
  if (!key) return std::unexpected(key.error());
  gathered.keys.emplace_back(*key, *down);
  return {};
}

Added add_event(const Console& console, const Json& event, Gathered& gathered) {
  constexpr std::pair<std::string_view, Added (*)(const Console&, const Json&, Gathered&)> kKinds[] = {
      {"rel", add_movement}, {"abs", add_place}, {"btn", add_button}, {"key", add_key}};
  if (!event.is_object() || !event.contains("data") || !event["data"].is_object())
    return qmp_fail("an event is {{\"type\": TYPE, \"data\": {{...}}}}");
  const std::string type = event.value("type", "");
  for (const auto& [name, add] : kKinds)
    if (name == type) return add(console, event["data"], gathered);
  return qmp_fail("Parameter 'type' does not accept value '{}'; there are rel, abs, btn and key", type);
}

// All events are looked at before the first of them is passed on.
QmpReply input_send_event(Context& context, const Json& arguments) {
  Console* const console = context.machine.console();
  const std::string device = arguments.value("device", "");
  if (!device.empty() && context.machine.board().find_device(device) == nullptr)
    return std::unexpected(QmpError{"DeviceNotFound", fmt::format("Device '{}' not found", device)});
  if (arguments.value("head", 0) != 0) return qmp_fail("There is one head only: leave 'head' out");
  if (console == nullptr) return qmp_fail("the machine has no keyboard and no mouse");
  if (!console->running()) return qmp_fail("VM not running");
  Gathered gathered{.change = {.buttons = console->buttons()}, .keys = {}};
  for (const Json& event : arguments.at("events"))
    if (const auto added = add_event(*console, event, gathered); !added) return std::unexpected(added.error());
  for (const auto& [key, down] : gathered.keys) console->key(key, down);
  if (gathered.pointer) console->point(gathered.change);
  return Json::object();
}

QmpReply query_mice(Context& context, const Json&) {
  Json answer = Json::array();
  if (context.machine.console() == nullptr) return answer;
  for (const auto& [number, name, absolute, current] : context.machine.console()->pointers())
    answer.push_back({{"name", std::string(name)}, {"index", number}, {"current", current}, {"absolute", absolute}});
  return answer;
}

constexpr ArgumentSpec kSendEvent[] = {
    {"events", Type::array, true}, {"device", Type::string, false}, {"head", Type::number_integer, false}};
constexpr QmpCommand kInputCommands[] = {
    {"input-send-event", kSendEvent, input_send_event},
    {"query-mice", {}, query_mice},
};

std::optional<int32_t> number(std::string_view word) {
  int32_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc{} || end != word.data() + word.size()) return {};
  return value;
}

}  // namespace

std::span<const QmpCommand> input_commands() { return kInputCommands; }

std::string info_mice(Context& context, std::string_view) {
  std::string lines;
  if (context.machine.console() != nullptr)
    for (const auto& [index, name, absolute, current] : context.machine.console()->pointers())
      lines += fmt::format("{} Mouse #{}: {}{}\n", current ? '*' : ' ', index, name, absolute ? " (absolute)" : "");
  return lines.empty() ? "No mouse devices connected\n" : lines;
}

std::string info_usb(Context& context, std::string_view) {
  const auto buses = context.machine.board().usb_buses();
  if (buses.empty()) return "USB support not enabled\n";
  std::string lines;
  for (size_t number = 0; number < buses.size(); ++number)
    for (const devices::UsbBus::Port& port : buses[number]->ports()) {
      if (port.device == nullptr) continue;
      lines += fmt::format("  Device {}.{}, Port {}, Speed {} Mb/s, Product {}, ID: {}\n", number,
                           port.device->address(), port.name, devices::usb_speed_name(port.device->speed()),
                           port.device->product(), port.device->path());
    }
  return lines;
}

std::string human_mouse_move(Context& context, std::string_view rest) {
  const auto dx = number(next_word(rest)), dy = number(next_word(rest));
  const std::string_view word = next_word(rest);
  const auto dz = word.empty() ? 0 : number(word);
  if (!dx || !dy || !dz) return "usage: mouse_move DX DY [DZ]\n";
  Console* const console = context.machine.console();
  if (console == nullptr) return "the machine has no mouse\n";
  console->point({.dx = *dx, .dy = *dy, .dz = *dz, .buttons = console->buttons()});
  return {};
}

std::string human_mouse_button(Context& context, std::string_view rest) {
  const auto state = number(next_word(rest));
  if (!state || *state < 0 || *state > 7) return "usage: mouse_button STATE (1 left, 2 right, 4 middle, added up)\n";
  Console* const console = context.machine.console();
  if (console == nullptr) return "the machine has no mouse\n";
  console->point({.buttons = static_cast<uint8_t>(*state)});
  return {};
}

std::string human_mouse_set(Context& context, std::string_view rest) {
  const std::string_view word = next_word(rest);
  const auto index = number(word);
  if (!index) return "usage: mouse_set NUMBER, as info mice shows it\n";
  Console* const console = context.machine.console();
  if (console == nullptr || *index < 0 || !console->choose_pointer(static_cast<unsigned>(*index)))
    return fmt::format("Error: there is no mouse {}\n", word);
  return {};
}

}  // namespace kite::monitor
