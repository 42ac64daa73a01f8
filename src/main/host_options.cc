// -overcommit, -msg, -add-fd, -audiodev and -sandbox.
#include <fcntl.h>

#include <algorithm>

#include "main/option_values.h"
#include "support/fd_sets.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

using Text = std::string_view;

template <class T>
Result<T> named(Text option, Text key, Result<T> value) {
  if (value) return value;
  return fail("-{} {}: {}", option, key, value.error().message);
}

Failure unknown_key(Text option, Text key, std::initializer_list<Text> known) {
  const std::vector<Text> names(known);
  return fail("-{}: no such setting '{}'{}", option, key, suggestion(key, names));
}

}  // namespace

Result<> apply_overcommit(OptionContext& context, Text text) {
  KITE_ASSIGN(const auto pairs, parse_options(text, ""));
  for (const auto& [key, value] : pairs) {
    if (key != "mem-lock" && key != "cpu-pm") return unknown_key("overcommit", key, {"mem-lock", "cpu-pm"});
    KITE_ASSIGN(const bool on, named("overcommit", key, parse_bool(value)));
    if (key == "mem-lock")
      context.plan.lock_memory = on;
    else if (on)
      return fail("-overcommit cpu-pm={}: a halted CPU leaves its host's; say off, or leave it out", value);
  }
  return {};
}

Result<> apply_msg(OptionContext& context, Text text) {
  KITE_ASSIGN(const auto pairs, parse_options(text, ""));
  for (const auto& [key, value] : pairs) {
    if (key != "timestamp") return unknown_key("msg", key, {"timestamp"});
    KITE_ASSIGN(context.plan.timestamps, named("msg", key, parse_bool(value)));
  }
  return {};
}

Result<> apply_add_fd(OptionContext&, Text text) {
  KITE_ASSIGN(const auto pairs, parse_options(text, ""));
  std::optional<uint64_t> set, number;
  for (const auto& [key, value] : pairs) {
    if (key == "opaque") continue;  // for people
    if (key != "set" && key != "fd") return unknown_key("add-fd", key, {"set", "fd", "opaque"});
    KITE_ASSIGN((key == "set" ? set : number), named("add-fd", key, parse_unsigned(value)));
  }
  if (!set || !number) return fail("-add-fd {}: give both, as set=1,fd=3", text);
  if (*number <= STDERR_FILENO || *number > INT32_MAX || ::fcntl(static_cast<int>(*number), F_GETFD) < 0)
    return fail("-add-fd fd={}: this process was started with no such descriptor beside its standard ones", *number);
  return add_to_fd_set(*set, Fd(static_cast<int>(*number)));
}

Result<> apply_audiodev(OptionContext& context, Text text) {
  if (text == "help" || text == "?") {
    context.plan.text = "Sound back ends:\n  none   nothing is played; there are no sound cards yet\n";
    return {};
  }
  KITE_ASSIGN(const auto pairs, parse_options(text, "driver"));
  std::string driver, id;
  for (const auto& [key, value] : pairs) {
    if (key != "driver" && key != "id") return unknown_key("audiodev", key, {"driver", "id"});
    (key == "driver" ? driver : id) = value;
  }
  // libvirt gives every machine with SPICE one. There is no sound card that would use either.
  if (driver != "none" && driver != "spice")
    return fail("-audiodev {}: this version of Kite plays no sound; use none", driver);
  if (!valid_id(id)) return fail("-audiodev {}: give it an id, as none,id=audio0", text);
  if (!context.plan.audio_backends.insert(id).second) return fail("-audiodev {}: the id '{}' is taken", text, id);
  return {};
}

Result<> apply_sandbox(OptionContext& context, Text text) {
  KITE_ASSIGN(const auto pairs, parse_options(text, "enable"));
  SandboxPolicy policy;
  bool on = false;
  for (const auto& [key, value] : pairs) {
    if (key == "enable") {
      KITE_ASSIGN(on, named("sandbox", key, parse_bool(value)));
      continue;
    }
    const std::pair<Text, bool*> switches[] = {{"obsolete", &policy.obsolete},
                                               {"elevateprivileges", &policy.elevate_privileges},
                                               {"spawn", &policy.spawn},
                                               {"resourcecontrol", &policy.resource_control}};
    const auto* const known = std::ranges::find(switches, key, &std::pair<Text, bool*>::first);
    if (known == std::end(switches))
      return unknown_key("sandbox", key, {"enable", "obsolete", "elevateprivileges", "spawn", "resourcecontrol"});
    // "children": who is started cannot get more rights, which holds in every sandbox.
    const bool children = key == "elevateprivileges" && value == "children";
    if (value != "allow" && value != "deny" && !children)
      return fail("-sandbox {}={}: it is allow or deny", key, value);
    *known->second = value == "deny";
  }
  context.plan.sandbox = on ? std::optional(policy) : std::nullopt;
  return {};
}

}  // namespace kite::main
