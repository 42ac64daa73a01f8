#include "main/option_values.h"

#include <algorithm>
#include <ctime>
#include <initializer_list>

#include "machine/board.h"
#include "support/suggest.h"
#include "x86/cpuid.h"

namespace kite::main {

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

Failure unknown_key(std::string_view option, std::string_view key, std::initializer_list<std::string_view> known) {
  const std::vector<std::string_view> names(known);
  return fail("-{}: no such setting '{}'{}", option, key, suggestion(key, names));
}

// The error of a value, with the option and setting it belongs to.
template <class T>
Result<T> named(std::string_view option, std::string_view key, Result<T> value) {
  if (value) return value;
  return fail("-{} {}: {}", option, key, value.error().message);
}

std::string cpu_help() {
  std::string text = "CPU models:\n";
  for (const auto& model : x86::cpu_models()) text += fmt::format("  {:<26} {}\n", model.name, model.description);
  text += "\nFlags, for +FLAG and -FLAG:\n";
  std::string line = " ";
  for (const auto& feature : x86::feature_names()) {
    if (line.size() + feature.name.size() > 110) {
      text += line + "\n";
      line = " ";
    }
    line += fmt::format(" {}", feature.name);
  }
  return text + line + "\n";
}

std::string machine_help() {
  std::string text = "Boards:\n";
  for (const auto& board : machine::boards())
    text += fmt::format("  {:<16} {}{}{}\n", board.name, board.description,
                        board.alias.empty() ? "" : fmt::format(" (also named {})", board.alias),
                        board.is_default ? " (default)" : "");
  return text;
}

// Parts of QEMU's boards that Kite's do not have, and may be told to be without.
struct AbsentPart {
  std::string_view name;
  std::string_view reason;
};
constexpr AbsentPart kAbsent[] = {
    {"usb", "a USB controller is a -device of its own"},
    {"vmport", "there is no VMware port"},
    {"mem-merge", "RAM is not offered to the host for merging"},
};

}  // namespace

Result<> apply_machine(OptionContext& context, std::string_view text) {
  if (text == "help" || text == "?") {
    context.plan.text = machine_help();
    return {};
  }
  KITE_ASSIGN(const Pairs pairs, parse_options(text, "type"));
  for (const auto& [key, value] : pairs) {
    if (key == "type") {
      const machine::BoardInfo* board = machine::find_board(value);
      if (board == nullptr) {
        std::vector<std::string_view> names;
        for (const auto& info : machine::boards()) {
          if (!info.alias.empty()) names.push_back(info.alias);
          names.push_back(info.name);
        }
        return fail("-machine {}: no such board{}", value, suggestion(value, names));
      }
      context.plan.machine.board = board->name;
    } else if (key == "accel") {
      KITE_TRY(add_accelerators(context, value));
    } else if (key == "kernel-irqchip" || key == "kernel_irqchip") {
      KITE_TRY(set_kernel_irqchip(context, "machine", value));
    } else if (key == "graphics") {
      KITE_ASSIGN(const bool graphics, named("machine", key, parse_bool(value)));
      context.plan.machine.graphic = graphics;
    } else if (key == "smbios-entry-point-type") {
      if (value != "32" && value != "64")
        return fail("-machine {}={}: it is 32 (SMBIOS 2.8) or 64 (SMBIOS 3.0)", key, value);
      context.plan.machine.firmware.smbios.entry_point =
          value == "64" ? boot::SmbiosEntryPoint::k64 : boot::SmbiosEntryPoint::k32;
    } else if (key == "hpet") {
      KITE_ASSIGN(context.plan.machine.hpet, named("machine", key, parse_bool(value)));
    } else if (key == "usb") {
      KITE_ASSIGN(context.plan.machine.usb, named("machine", key, parse_bool(value)));
    } else if (key == "acpi") {
      KITE_ASSIGN(context.plan.machine.acpi, named("machine", key, parse_bool(value)));
    } else if (key == "smm") {
      // "auto" is "on": it is used where the accelerator has it.
      if (value != "auto") {
        KITE_ASSIGN(context.plan.machine.smm, named("machine", key, parse_bool(value)));
      }
    } else if (key == "memory-backend") {
      context.plan.machine.main_memory = value;
    } else if (key == "dump-guest-core") {
      KITE_ASSIGN(context.plan.machine.dump_guest_core, named("machine", key, parse_bool(value)));
    } else if (key == "pflash0" || key == "pflash1") {
      context.plan.flash_nodes[key == "pflash1"] = value;
    } else if (const auto* const absent = std::ranges::find(kAbsent, key, &AbsentPart::name);
               absent != std::end(kAbsent)) {
      KITE_ASSIGN(const bool wanted, value == "auto" ? Result<bool>(false) : named("machine", key, parse_bool(value)));
      if (wanted) return fail("-machine {}={}: {}; say off, or leave it out", key, value, absent->reason);
    } else {
      return unknown_key(
          "machine", key,
          {"type", "accel", "graphics", "smbios-entry-point-type", "hpet", "acpi", "smm", "usb", "kernel-irqchip",
           "memory-backend", "dump-guest-core", "pflash0", "pflash1", "vmport", "mem-merge"});
    }
  }
  return {};
}

Result<> apply_cpu(OptionContext& context, std::string_view text) {
  if (text == "help" || text == "?")
    context.plan.text = cpu_help();
  else
    context.plan.machine.cpu_model = std::string(text);
  return {};
}

namespace {

struct SmpCounts {
  uint64_t sockets, dies, cores, threads;
};

// What is not given (0) follows from the rest: first cores as many as it takes, then sockets, then threads.
Result<x86::CpuTopology> group_cpus(uint64_t cpus, uint64_t maximum, SmpCounts counts) {
  constexpr uint64_t kMost = 255;
  uint64_t all = maximum != 0 ? maximum : cpus;
  auto& [sockets, dies, cores, threads] = counts;
  const auto complete = [&all](uint64_t& missing, uint64_t others) {
    if (missing == 0) missing = std::max<uint64_t>(1, all / others);
  };
  dies = std::max<uint64_t>(1, dies);
  if (cores == 0) {
    sockets = std::max<uint64_t>(1, sockets);
    threads = std::max<uint64_t>(1, threads);
  } else if (sockets == 0) {
    threads = std::max<uint64_t>(1, threads);
  }
  complete(cores, sockets * dies * threads);
  complete(sockets, dies * cores * threads);
  complete(threads, sockets * dies * cores);
  const uint64_t product = sockets * dies * cores * threads;
  if (all == 0) all = product;
  if (all > kMost) return fail("-smp: {} CPUs in all; this board takes {} at most", all, kMost);
  if (product != all)
    return fail("-smp: sockets x dies x cores x threads is {} x {} x {} x {} = {}, but there are {} CPUs (maxcpus)",
                sockets, dies, cores, threads, product, all);
  return x86::CpuTopology{.sockets = static_cast<uint32_t>(sockets),
                          .dies = static_cast<uint32_t>(dies),
                          .cores = static_cast<uint32_t>(cores),
                          .threads = static_cast<uint32_t>(threads)};
}

}  // namespace

Result<> apply_smp(OptionContext& context, std::string_view text) {
  KITE_ASSIGN(const Pairs pairs, parse_options(text, "cpus"));
  uint64_t cpus = 0, maximum = 0, sockets = 0, cores = 0, threads = 0, dies = 0;
  const std::pair<std::string_view, uint64_t*> known[] = {{"cpus", &cpus},       {"maxcpus", &maximum},
                                                          {"sockets", &sockets}, {"cores", &cores},
                                                          {"threads", &threads}, {"dies", &dies}};
  for (const auto& [key, value] : pairs) {
    const auto entry =
        std::find_if(std::begin(known), std::end(known), [&](const auto& item) { return item.first == key; });
    if (entry == std::end(known))
      return unknown_key("smp", key, {"cpus", "maxcpus", "sockets", "cores", "threads", "dies"});
    KITE_ASSIGN(*entry->second, named("smp", key, parse_unsigned(value)));
    if (*entry->second == 0 || *entry->second > 255) return fail("-smp {}={}: give a number from 1 to 255", key, value);
  }
  KITE_ASSIGN(context.plan.machine.topology, group_cpus(cpus, maximum, {sockets, dies, cores, threads}));
  maximum = context.plan.machine.topology.in_machine();
  if (cpus == 0) cpus = maximum;
  if (maximum < cpus) return fail("-smp: maxcpus={} is below cpus={}", maximum, cpus);
  context.plan.machine.cpu_count = static_cast<uint32_t>(cpus);
  context.plan.machine.max_cpus = static_cast<uint32_t>(maximum);
  return {};
}

Result<> apply_memory(OptionContext& context, std::string_view text) {
  KITE_ASSIGN(const Pairs pairs, parse_options(text, "size"));
  for (const auto& [key, value] : pairs) {
    if (key != "size")
      return fail("-m {}: this version of Kite has no memory hot-plug; give the size alone, as -m 512 or -m 2G", key);
    KITE_ASSIGN(const uint64_t bytes, named("m", key, parse_size(value, 1ull << 20)));
    constexpr uint64_t kLeast = 1ull << 20, kMost = 1ull << 39;
    if (bytes < kLeast || bytes > kMost)
      return fail("-m {}: give between 1M and 512G (a number without a suffix is MiB)", value);
    context.plan.machine.ram_bytes = (bytes + (1ull << 20) - 1) & ~((1ull << 20) - 1);
  }
  return {};
}

Result<> apply_rtc(OptionContext& context, std::string_view text) {
  auto& rtc = context.plan.machine.rtc;
  KITE_ASSIGN(const Pairs pairs, parse_options(text, ""));
  for (const auto& [key, value] : pairs) {
    if (key == "clock") {
      if (value == "vm")
        rtc.clock = machine::RtcConfig::ClockSource::kVirtual;
      else if (value == "host" || value == "rt")
        rtc.clock = machine::RtcConfig::ClockSource::kHost;
      else
        return fail("-rtc clock={}: it is host (the host's time) or vm (stands still while the machine does)", value);
    } else if (key == "driftfix") {
      if (value != "none" && value != "slew")
        return fail("-rtc driftfix={}: it is none, or slew (periodic interrupts that the guest missed come later)",
                    value);
      rtc.replay_missed = value == "slew";
    } else if (key != "base") {
      return unknown_key("rtc", key, {"base", "clock", "driftfix"});
    } else if (value == "utc") {
      rtc.base = machine::RtcConfig::Base::kUtc;
    } else if (value == "localtime") {
      rtc.base = machine::RtcConfig::Base::kLocaltime;
    } else {
      tm date{};
      const char* end = strptime(value.c_str(), "%Y-%m-%dT%H:%M:%S", &date);
      if (end == nullptr) {
        date = {};
        end = strptime(value.c_str(), "%Y-%m-%d", &date);
      }
      if (end == nullptr || *end != '\0')
        return fail("-rtc base={}: it is utc, localtime, or a date as 2006-06-17T16:01:21 or 2006-06-17", value);
      rtc.base = machine::RtcConfig::Base::kDate;
      rtc.date_seconds = timegm(&date);
    }
  }
  return {};
}

Result<std::array<uint8_t, 16>> parse_uuid(std::string_view option, std::string_view text) {
  std::string digits;
  for (size_t at = 0; at < text.size(); ++at) {
    const bool dash_place = at == 8 || at == 13 || at == 18 || at == 23;
    if (dash_place != (text[at] == '-')) break;
    if (!dash_place) digits += text[at];
  }
  if (text.size() != 36 || digits.size() != 32 ||
      digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
    return fail("-{} {}: a UUID looks like 550e8400-e29b-41d4-a716-446655440000", option, text);
  std::array<uint8_t, 16> uuid{};
  for (size_t at = 0; at < 16; ++at) uuid[at] = static_cast<uint8_t>(std::stoul(digits.substr(at * 2, 2), nullptr, 16));
  return uuid;
}

Result<> apply_watchdog_action(OptionContext& context, std::string_view text) {
  using Action = machine::WatchdogAction;
  static constexpr std::pair<std::string_view, Action> kActions[] = {
      {"reset", Action::kReset}, {"shutdown", Action::kShutdown},    {"poweroff", Action::kPoweroff},
      {"pause", Action::kPause}, {"inject-nmi", Action::kInjectNmi}, {"none", Action::kNone}};
  for (const auto& [name, action] : kActions) {
    if (name != text) continue;
    context.plan.machine.watchdog_action = action;
    return {};
  }
  std::vector<std::string_view> names;
  for (const auto& [name, action] : kActions) names.push_back(name);
  return fail("-watchdog-action {}: it is reset, shutdown, poweroff, pause, inject-nmi or none{}", text,
              suggestion(text, names));
}

Result<> apply_uuid(OptionContext& context, std::string_view text) {
  KITE_ASSIGN(context.plan.machine.uuid, parse_uuid("uuid", text));
  return {};
}

Result<> apply_name(OptionContext& context, std::string_view text) {
  KITE_ASSIGN(const Pairs pairs, parse_options(text, "guest"));
  for (const auto& [key, value] : pairs) {
    if (key == "guest") {
      context.plan.machine.name = value;
    } else if (key == "debug-threads") {
      KITE_TRY(named("name", key, parse_bool(value)));  // vCPU threads always have names
    } else {
      return unknown_key("name", key, {"guest", "debug-threads"});
    }
  }
  return {};
}

namespace {

Result<int64_t> milliseconds(std::string_view key, std::string_view value, uint64_t most) {
  KITE_ASSIGN(const uint64_t number, named("boot", key, parse_unsigned(value)));
  if (number > most) return fail("-boot {}={}: give 0 to {} milliseconds", key, value, most);
  return static_cast<int64_t>(number);
}

Result<> check_boot_order(std::string_view key, std::string_view value) {
  for (size_t at = 0; at < value.size(); ++at) {
    if (value[at] < 'a' || value[at] > 'p' || value.find(value[at], at + 1) != std::string_view::npos)
      return fail("-boot {}={}: each letter once: a floppy, c hard disk, d CD-ROM, n network", key, value);
  }
  return {};
}

}  // namespace

Result<> apply_boot(OptionContext& context, std::string_view text) {
  auto& boot = context.plan.machine.boot;
  KITE_ASSIGN(const Pairs pairs, parse_options(text, "order"));
  for (const auto& [key, value] : pairs) {
    if (key == "order") {
      KITE_TRY(check_boot_order(key, value));
      boot.order = value;
    } else if (key == "once") {
      KITE_TRY(check_boot_order(key, value));
      boot.once = value;
    } else if (key == "strict") {
      KITE_ASSIGN(boot.strict, named("boot", key, parse_bool(value)));
    } else if (key == "menu") {
      KITE_ASSIGN(boot.menu, named("boot", key, parse_bool(value)));
    } else if (key == "splash-time") {
      KITE_ASSIGN(boot.splash_time_ms, milliseconds(key, value, 0xffff));
    } else if (key == "reboot-timeout") {
      if (value == "-1") continue;
      KITE_ASSIGN(boot.reboot_timeout_ms, milliseconds(key, value, 0xffff));
    } else {
      return unknown_key("boot", key, {"order", "once", "menu", "splash-time", "reboot-timeout", "strict"});
    }
  }
  return {};
}

Result<> apply_mon(OptionContext& context, std::string_view text) {
  MonitorPlan monitor;
  KITE_ASSIGN(const Pairs pairs, parse_options(text, "chardev"));
  for (const auto& [key, value] : pairs) {
    if (key == "chardev") {
      monitor.chardev = value;
    } else if (key == "mode") {
      if (value != "control" && value != "readline")
        return fail("-mon mode={}: it is control (QMP) or readline (for people)", value);
      monitor.control = value == "control";
    } else if (key == "pretty") {
      KITE_ASSIGN(monitor.pretty, named("mon", key, parse_bool(value)));
    } else if (key != "id") {  // nobody asks for a monitor by name
      return unknown_key("mon", key, {"chardev", "mode", "pretty", "id"});
    }
  }
  if (monitor.chardev.empty()) return fail("-mon {}: name the chardev: -mon chardev=ID,mode=control", text);
  context.plan.monitor_given = context.plan.monitor_given || !monitor.control;
  context.plan.monitors.push_back(std::move(monitor));
  return {};
}

}  // namespace kite::main
