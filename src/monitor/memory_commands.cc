#include "monitor/memory_commands.h"

#include "machine/memory_backends.h"
#include "machine/object_types.h"
#include "monitor/stats_commands.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;

// Where a CPU is: in which socket, die, core, and node.
Json place_of(const machine::Machine& machine, size_t index) {
  const x86::CpuTopology& topology = machine.config().topology;
  const auto place = topology.place(static_cast<uint32_t>(index));
  Json props{{"socket-id", place.socket}, {"core-id", place.core}, {"thread-id", place.thread}};
  if (topology.dies > 1) props["die-id"] = place.die;
  if (!machine.numa().empty()) props["node-id"] = machine.numa().node_of_cpu[index];
  return props;
}

QmpReply query_cpus_fast(Context& context, const Json&) {
  Json list = Json::array();
  for (size_t index = 0; index < context.machine.vcpu_count(); ++index)
    list.push_back({{"thread-id", context.machine.vcpu_thread_id(index)},
                    {"props", place_of(context.machine, index)},
                    {"qom-path", vcpu_path(index)},
                    {"cpu-index", index},
                    {"target", "x86_64"}});
  return list;
}

// Places as they are, the last CPU's first; those that are empty stay so.
QmpReply query_hotpluggable_cpus(Context& context, const Json&) {
  Json list = Json::array();
  if (context.machine.vcpu_count() == 0) return qmp_fail("this board has no CPUs");
  const std::string type = machine::cpu_type_name(context.machine.cpu().model_name);
  for (size_t index = context.machine.config().max_cpus; index-- > 0;) {
    Json entry{{"type", type}, {"vcpus-count", 1}, {"props", place_of(context.machine, index)}};
    if (index < context.machine.vcpu_count()) entry["qom-path"] = vcpu_path(index);
    list.push_back(std::move(entry));
  }
  return list;
}

QmpReply query_memdev(Context& context, const Json&) {
  Json list = Json::array();
  for (const machine::MemoryBackend& backend : context.machine.config().memory_backends)
    list.push_back({{"id", backend.id},
                    {"size", backend.bytes},
                    {"merge", false},
                    {"dump", context.machine.config().dump_guest_core},
                    {"prealloc", backend.preallocate},
                    {"share", backend.share},
                    {"host-nodes", Json::array()},
                    {"policy", "default"}});
  return list;
}

QmpReply query_memory_size_summary(Context& context, const Json&) {
  return Json{{"base-memory", context.machine.config().ram_bytes}, {"plugged-memory", 0}};
}

constexpr QmpCommand kCommands[] = {
    {"query-cpus-fast", {}, query_cpus_fast},
    {"query-hotpluggable-cpus", {}, query_hotpluggable_cpus},
    {"query-memdev", {}, query_memdev},
    {"query-memory-size-summary", {}, query_memory_size_summary},
};

}  // namespace

std::span<const QmpCommand> memory_commands() { return kCommands; }

std::string info_numa(Context& context, std::string_view) {
  const machine::NumaLayout& numa = context.machine.numa();
  std::string text = fmt::format("{} nodes\n", numa.nodes.size());
  for (size_t node = 0; node < numa.nodes.size(); ++node) {
    text += fmt::format("node {} cpus:", node);
    for (size_t cpu = 0; cpu < context.machine.vcpu_count(); ++cpu)
      if (numa.node_of_cpu[cpu] == node) text += fmt::format(" {}", cpu);
    text += fmt::format("\nnode {} size: {} MB\nnode {} plugged: 0 MB\n", node, numa.nodes[node].bytes >> 20, node);
  }
  return text;
}

std::string info_memdev(Context& context, std::string_view) {
  const auto yes = [](bool is) { return is ? "true" : "false"; };
  std::string text;
  for (const machine::MemoryBackend& backend : context.machine.config().memory_backends)
    text += fmt::format("memory backend: {}\n  size:  {}\n  prealloc: {}\n  share: {}\n", backend.id, backend.bytes,
                        yes(backend.preallocate), yes(backend.share));
  return text;
}

}  // namespace kite::monitor
