#include "monitor/display_commands.h"

#include <array>
#include <charconv>
#include <optional>
#include <vector>

#include "devices/i8042/scancodes.h"
#include "display/picture_file.h"
#include "monitor/words.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;
using display::KeyNumber;

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kLongestHold = 60'000;  // in milliseconds
constexpr size_t kMostKeys = 16;

QmpReply empty() { return Json::object(); }

std::expected<display::Console*, QmpError> screen_of(Context& context) {
  display::Console* const console = context.machine.console();
  if (console == nullptr || !console->has_source())
    return qmp_fail(
        "There is no console to take a screendump from: the machine has no display adapter (-vga std, -vga virtio)");
  return console;
}

QmpReply screendump(Context& context, const Json& arguments) {
  const std::string format = arguments.value("format", "ppm"), device = arguments.value("device", "");
  if (format != "ppm" && format != "png") return qmp_fail("Parameter 'format' does not accept value '{}'", format);
  if (arguments.value("head", 0) != 0) return qmp_fail("There is one head only: leave 'head' out");
  const bus::Device* const named = device.empty() ? nullptr : context.machine.board().find_device(device);
  if (!device.empty() && named == nullptr)
    return std::unexpected(QmpError{"DeviceNotFound", fmt::format("Device '{}' not found", device)});
  const auto console = screen_of(context);
  if (!console) return std::unexpected(console.error());
  const auto kind = format == "png" ? display::PictureFormat::kPng : display::PictureFormat::kPpm;
  const std::string path = arguments.at("filename");
  const display::Surface* const surface = named == nullptr ? &(*console)->look() : (*console)->look_at(named->path());
  if (surface == nullptr) return qmp_fail("Device '{}' has no screen", device);
  if (auto done = display::write_picture(*surface, kind, path); !done) return qmp_fail("{}", done.error().message);
  return empty();
}

}  // namespace

std::expected<KeyNumber, QmpError> key_of(const Json& value) {
  if (value.is_object() && value.value("type", "") == "qcode" && value.contains("data") && value["data"].is_string()) {
    const std::string name = value["data"];
    if (const auto key = devices::key_from_name(name)) return *key;
    return qmp_fail("Parameter 'data' does not accept value '{}'", name);
  }
  // A number has 0x80 for the keys with a prefix.
  if (value.is_object() && value.value("type", "") == "number" && value.contains("data") &&
      value["data"].is_number_integer()) {
    const int64_t number = value["data"];
    if (number > 0 && number < 0x100)
      return static_cast<KeyNumber>((number & 0x80) != 0 ? 0xe000 | (number & 0x7f) : number);
    return qmp_fail("'{}' is no key's number", number);
  }
  return qmp_fail("Parameter 'keys' takes {{\"type\": \"qcode\", \"data\": NAME}} and \"number\"");
}

namespace {

QmpReply press(Context& context, std::vector<KeyNumber> keys, int64_t hold_ms) {
  if (context.machine.console() == nullptr) return qmp_fail("the machine has no keyboard");
  if (keys.empty() || keys.size() > kMostKeys) return qmp_fail("give 1 to {} keys", kMostKeys);
  if (hold_ms < 1 || hold_ms > kLongestHold) return qmp_fail("hold-time is 1 to {} milliseconds", kLongestHold);
  context.machine.console()->press_keys(std::move(keys), hold_ms * kMillisecond);
  return empty();
}

QmpReply send_key(Context& context, const Json& arguments) {
  std::vector<KeyNumber> keys;
  for (const Json& value : arguments.at("keys")) {
    const auto key = key_of(value);
    if (!key) return std::unexpected(key.error());
    keys.push_back(*key);
  }
  return press(context, std::move(keys), arguments.value("hold-time", display::Console::kHoldNs / kMillisecond));
}

std::vector<std::string> picture_formats(const Context&) { return {"ppm", "png"}; }
constexpr ArgumentSpec kScreendump[] = {{"filename", Type::string, true},
                                        {"device", Type::string, false},
                                        {"head", Type::number_integer, false},
                                        {"format", Type::string, false, picture_formats}};
constexpr ArgumentSpec kSendKey[] = {{"keys", Type::array, true}, {"hold-time", Type::number_integer, false}};

constexpr QmpCommand kDisplayCommands[] = {
    {"screendump", kScreendump, screendump},
    {"send-key", kSendKey, send_key},
};

// --- for people

std::string error_text(const QmpReply& reply) {
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

std::optional<int32_t> number(std::string_view word) {
  int32_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc{} || end != word.data() + word.size()) return {};
  return value;
}

// A name, or the number in hexadecimal with 0x in front.
std::expected<KeyNumber, QmpError> key_of_word(std::string_view word) {
  if (!word.starts_with("0x")) return key_of({{"type", "qcode"}, {"data", std::string(word)}});
  int value = 0;
  const auto [end, error] = std::from_chars(word.data() + 2, word.data() + word.size(), value, 16);
  if (error != std::errc{} || end != word.data() + word.size()) return qmp_fail("'{}' is no key's number", word);
  return key_of({{"type", "number"}, {"data", value}});
}

}  // namespace

std::span<const QmpCommand> display_commands() { return kDisplayCommands; }

std::string human_screendump(Context& context, std::string_view rest) {
  Json arguments;
  for (std::string_view word = next_word(rest); !word.empty(); word = next_word(rest)) {
    if (word == "-f")
      arguments["format"] = std::string(next_word(rest));
    else
      arguments["filename"] = std::string(word);
  }
  if (!arguments.contains("filename")) return "usage: screendump FILE [-f ppm|png]\n";
  return error_text(run_qmp_command(context, "screendump", arguments));
}

std::string human_sendkey(Context& context, std::string_view rest) {
  std::string_view names = next_word(rest);
  const std::string_view hold = next_word(rest);
  const auto hold_ms = hold.empty() ? display::Console::kHoldNs / kMillisecond : number(hold).value_or(0);
  std::vector<KeyNumber> keys;
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find('-'));
    names.remove_prefix(std::min(name.size() + 1, names.size()));
    const auto key = key_of_word(name);
    if (!key) return error_text(std::unexpected(key.error()));
    keys.push_back(*key);
  }
  if (keys.empty()) return "usage: sendkey KEY[-KEY]... [MILLISECONDS]\n";
  return error_text(press(context, std::move(keys), hold_ms));
}

}  // namespace kite::monitor
