// -numa: its three forms, taken apart. machine/numa.h says what they come to.
#include <algorithm>
#include <limits>

#include "main/option_values.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;
using machine::NumaConfig;

constexpr uint32_t kMostNodes = 128;

Failure unknown_key(std::string_view form, std::string_view key, std::span<const std::string_view> known) {
  return fail("-numa {}: no such setting '{}'{}", form, key, suggestion(key, known));
}

Result<uint32_t> number(std::string_view form, std::string_view key, std::string_view text, uint32_t most) {
  const auto value = parse_unsigned(text);
  if (!value || *value > most) return fail("-numa {},{}={}: it is a number from 0 to {}", form, key, text, most);
  return static_cast<uint32_t>(*value);
}

// "2" or "2-3".
Result<std::pair<uint32_t, uint32_t>> parse_cpus(std::string_view text) {
  constexpr uint32_t kMost = 254;
  const size_t dash = text.find('-');
  KITE_ASSIGN(const uint32_t first, number("node", "cpus", text.substr(0, dash), kMost));
  if (dash == std::string_view::npos) return std::pair{first, first};
  KITE_ASSIGN(const uint32_t last, number("node", "cpus", text.substr(dash + 1), kMost));
  if (last < first) return fail("-numa node,cpus={}: the first is behind the last", text);
  return std::pair{first, last};
}

Result<> add_node(NumaConfig& numa, const Pairs& pairs) {
  constexpr std::string_view kKnown[] = {"nodeid", "cpus", "mem", "memdev"};
  NumaConfig::Node node;
  auto id = static_cast<uint32_t>(numa.nodes.empty() ? 0 : numa.nodes.rbegin()->first + 1);
  for (const auto& [key, value] : pairs) {
    if (key == "nodeid") {
      KITE_ASSIGN(id, number("node", key, value, kMostNodes - 1));
    } else if (key == "cpus") {
      KITE_ASSIGN(const auto range, parse_cpus(value));
      node.cpus.push_back(range);
    } else if (key == "mem") {
      auto bytes = parse_size(value, 1 << 20);
      if (!bytes) return fail("-numa node,mem={}: {}", value, bytes.error().message);
      node.bytes = *bytes;
    } else if (key == "memdev") {
      node.memory = value;
    } else if (key == "initiator") {
      return fail("-numa node,initiator={}: this version of Kite has no HMAT; leave it out", value);
    } else {
      return unknown_key("node", key, kKnown);
    }
  }
  if (id >= kMostNodes) return fail("-numa node: there are {} nodes at most", kMostNodes);
  if (!numa.nodes.emplace(id, std::move(node)).second) return fail("-numa node,nodeid={}: there is one already", id);
  return {};
}

Result<> add_distance(NumaConfig& numa, const Pairs& pairs) {
  constexpr std::string_view kKnown[] = {"src", "dst", "val"};
  std::optional<uint32_t> values[3];
  for (const auto& [key, value] : pairs) {
    const auto at = std::ranges::find(kKnown, key);
    if (at == std::end(kKnown)) return unknown_key("dist", key, kKnown);
    const uint32_t most = key == "val" ? std::numeric_limits<uint8_t>::max() : kMostNodes - 1;
    KITE_ASSIGN(values[at - std::begin(kKnown)], number("dist", key, value, most));
  }
  if (!values[0] || !values[1] || !values[2]) return fail("-numa dist: it takes src=NODE, dst=NODE and val=DISTANCE");
  numa.distances.push_back({.from = *values[0], .to = *values[1], .value = static_cast<uint8_t>(*values[2])});
  return {};
}

Result<> add_cpus(NumaConfig& numa, const Pairs& pairs) {
  constexpr std::string_view kKnown[] = {"node-id", "socket-id", "die-id", "core-id", "thread-id"};
  NumaConfig::Cpus cpus;
  std::optional<uint32_t> node;
  std::optional<uint32_t>* const fields[] = {&node, &cpus.socket, &cpus.die, &cpus.core, &cpus.thread};
  for (const auto& [key, value] : pairs) {
    const auto at = std::ranges::find(kKnown, key);
    if (at == std::end(kKnown)) return unknown_key("cpu", key, kKnown);
    KITE_ASSIGN(*fields[at - std::begin(kKnown)], number("cpu", key, value, kMostNodes * 2 - 1));
  }
  if (!node) return fail("-numa cpu: say which node, as node-id=0,socket-id=0");
  cpus.node = *node;
  numa.cpus.push_back(cpus);
  return {};
}

}  // namespace

Result<> apply_numa(OptionContext& context, std::string_view text) {
  KITE_ASSIGN(Pairs pairs, parse_options(text, "type"));
  constexpr std::string_view kForms[] = {"node", "dist", "cpu"};
  const auto type = std::ranges::find(pairs, "type", &Pairs::value_type::first);
  const std::string form = type == pairs.end() ? "" : type->second;
  if (type != pairs.end()) pairs.erase(type);
  NumaConfig& numa = context.plan.machine.numa;
  if (form == "node") return add_node(numa, pairs);
  if (form == "dist") return add_distance(numa, pairs);
  if (form == "cpu") return add_cpus(numa, pairs);
  if (form == "hmat-lb" || form == "hmat-cache")
    return fail("-numa {}: this version of Kite has no HMAT; give distances by -numa dist", form);
  return fail("-numa {}: it begins with node, dist or cpu{}", text, suggestion(form, kForms));
}

}  // namespace kite::main
