#include "main/launch_plan.h"

#include <algorithm>

#include "main/config_file.h"
#include "main/options.h"
#include "support/suggest.h"

#ifndef KITE_VERSION
#error "the build defines KITE_VERSION"
#endif

namespace kite::main {

std::string version_text() { return "Kite " KITE_VERSION "\nLicense GPL-2.0-or-later. There is no warranty.\n"; }

std::string help_text() {
  std::string text =
      "usage: kite [OPTION]...\n"
      "       kite run MACHINE.toml [OPTION]...\n"
      "Runs a PC in a process. Options are those of QEMU where Kite has the same thing.\n"
      "example: kite -m 512 -nographic -kernel vmlinuz -initrd initrd.gz -append console=ttyS0\n";
  std::string_view group;
  for (const OptionSpec& option : options()) {
    if (option.group.empty()) continue;
    if (option.group != group) text += fmt::format("\n{}:\n", option.group);
    group = option.group;
    const std::string left = fmt::format("-{} {}", option.name, option.argument);
    if (left.size() < 28)
      text += fmt::format("  {:<28} {}\n", left, option.help);
    else
      text += fmt::format("  {}\n  {:<28} {}\n", left, "", option.help);
  }
  return text;
}

namespace {

// "[type=]NAME[,accel=A]": "type", "accel".
std::vector<std::string> parameters_of(std::string_view argument) {
  const auto in_name = [](char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= '0' && letter <= '9') || letter == '-' || letter == '_';
  };
  std::vector<std::string> names;
  for (size_t at = argument.find('='); at != std::string_view::npos; at = argument.find('=', at + 1)) {
    size_t start = at;
    while (start > 0 && in_name(argument[start - 1])) --start;
    std::string name(argument.substr(start, at - start));
    if (!name.empty() && std::ranges::find(names, name) == names.end()) names.push_back(std::move(name));
  }
  return names;
}

}  // namespace

std::vector<monitor::CommandLineOption> command_line_options() {
  // Where the protocol has another word for an option.
  static constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"smp", "smp-opts"}, {"m", "memory"}, {"boot", "boot-opts"}};
  std::vector<monitor::CommandLineOption> list;
  for (const OptionSpec& option : options()) {
    if (option.argument.empty()) continue;
    const auto* const renamed =
        std::ranges::find(kNames, option.name, &std::pair<std::string_view, std::string_view>::first);
    list.push_back({.name = std::string(renamed == std::end(kNames) ? option.name : renamed->second),
                    .parameters = parameters_of(option.argument)});
  }
  return list;
}

namespace {

Failure unknown_option(std::string_view name) {
  for (const MissingOption& missing : missing_options())
    if (missing.name == name) return fail("-{}: {}", name, missing.reason);
  std::vector<std::string_view> names;
  for (const OptionSpec& option : options()) names.push_back(option.name);
  const std::string_view near = nearest(name, names);
  return near.empty() ? fail("-{}: no such option; 'kite -help' lists them", name)
                      : fail("-{}: no such option; did you mean -{}?", name, near);
}

using Given = std::vector<GivenOption>;

Result<> add_config_file(Given& given, const std::string& path, bool toml) {
  const std::string_view option = toml ? "run" : "-readconfig";
  KITE_ASSIGN(const std::string text, read_config_file(path, option));
  KITE_ASSIGN(Given read, toml ? options_of_toml(text, path) : options_of_ini(text, path));
  std::move(read.begin(), read.end(), std::back_inserter(given));
  return {};
}

// The command line as options, with those of configuration files in their place.
Result<Given> collect(const std::vector<std::string>& arguments) {
  Given given;
  size_t at = 0;
  if (!arguments.empty() && arguments[0] == "run") {
    if (arguments.size() < 2 || arguments[1].starts_with('-'))
      return fail("run: name the machine's file: kite run machine.toml [OPTION]...");
    KITE_TRY(add_config_file(given, arguments[1], true));
    at = 2;
  }
  for (; at < arguments.size(); ++at) {
    std::string_view word = arguments[at];
    if (word.size() < 2 || word[0] != '-') {
      given.push_back(
          {.name = "hda", .argument = std::string(word), .origin = {}});  // an image alone is the first disk
      continue;
    }
    word.remove_prefix(word.starts_with("--") ? 2 : 1);
    const auto known = options();
    const auto option = std::find_if(known.begin(), known.end(), [&](const auto& item) { return item.name == word; });
    if (option == known.end()) return unknown_option(word);
    GivenOption one{.name = std::string(word), .argument = {}, .origin = {}};
    if (!option->argument.empty()) {
      if (at + 1 == arguments.size()) return fail("-{}: it wants a value: -{} {}", word, word, option->argument);
      one.argument = arguments[++at];
    }
    if (word == "readconfig")
      KITE_TRY(add_config_file(given, one.argument, false));
    else
      given.push_back(std::move(one));
  }
  return given;
}

Result<> apply(OptionContext& context, const GivenOption& given) {
  const auto known = options();
  const auto option =
      std::find_if(known.begin(), known.end(), [&](const auto& item) { return item.name == given.name; });
  auto done = option->apply(context, given.argument);
  if (done || given.origin.empty()) return done;
  return fail("{}: {}", given.origin, done.error().message);
}

}  // namespace

Result<LaunchPlan> plan_launch(const std::vector<std::string>& arguments, TypeRegistry& types) {
  LaunchPlan plan;
  plan.machine.accelerators.clear();
  OptionContext context{.plan = plan, .types = types};
  KITE_ASSIGN(const Given given, collect(arguments));
  for (const GivenOption& option : given) {
    KITE_TRY(apply(context, option));
    if (!plan.text.empty()) return plan;
  }
  if (plan.machine.accelerators.empty()) plan.machine.accelerators = {"auto"};
  plan.machine.graphic = plan.machine.graphic && !plan.nographic;
  if (plan.machine.usb && plan.machine.board == "none") return fail("-usb: the board none has no place for it");
  if (plan.daemonize && plan.nographic && plan.defaults && !(plan.serial_given && plan.monitor_given))
    return fail("-daemonize and -nographic: a daemon has no terminal; use -display none and -serial file:PATH or pty");
  return plan;
}

namespace {

bool is_card(std::string_view device) {
  if (device.starts_with("driver=")) device.remove_prefix(7);
  constexpr std::string_view kCards[] = {"VGA", "virtio-vga", "virtio-gpu-pci", "virtio-gpu"};
  return std::ranges::find(kCards, device.substr(0, device.find(','))) != std::end(kCards);
}

// The card that -device does not name: that of -vga, or a display's that has none; empty: there is none.
std::string_view unnamed_card(const LaunchPlan& plan) {
  if (plan.vga == "virtio") return "virtio-vga";
  if (!plan.vga.empty()) return plan.vga == "std" ? "VGA" : "";
  if ((!plan.vnc && !plan.spice) || !plan.defaults || plan.machine.board == "none") return "";
  return std::ranges::any_of(plan.devices, is_card) ? "" : "VGA";
}

}  // namespace

Result<> resolve_devices(LaunchPlan& plan, TypeRegistry& types) {
  if (const std::string_view card = unnamed_card(plan); !card.empty())
    plan.devices.insert(plan.devices.begin(), std::string(card));
  for (const std::string& text : plan.globals) KITE_TRY(types.add_global(text));
  const auto add = [&](const ObjectOptions& options) -> Result<> {
    KITE_ASSIGN(PropertyMap properties, types.resolve(options, "-device"));
    plan.machine.devices.push_back({.type = options.type, .id = options.id, .properties = std::move(properties)});
    return {};
  };
  for (const ObjectOptions& card : plan.cards) KITE_TRY(add(card));
  for (const std::string& text : plan.devices) {
    KITE_ASSIGN(const ObjectOptions options, parse_object_options(text, "driver"));
    if (options.type == "usb-redir")
      return fail(
          "-device usb-redir: Kite has no USB devices of SPICE clients; leave it and its -chardev out, and give "
          "the machine disks as usb-storage");
    KITE_TRY(add(options));
  }
  return {};
}

}  // namespace kite::main
