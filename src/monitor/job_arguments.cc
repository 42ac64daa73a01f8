#include "monitor/job_arguments.h"

#include "block/chain.h"

namespace kite::monitor {

using block::JobOptions;
using block::NodePtr;
using Context = MonitorContext;

NamedImage named_image(Context& context, std::string name) {
  NamedImage named{.name = std::move(name)};
  if (const auto* const entry = context.machine.drives()->find(named.name); entry != nullptr)
    named.drive = entry->drive.get();
  return named;
}

Result<NodePtr> find_image(block::BlockGraph& graph, const NamedImage& named) {
  NodePtr node = named.drive != nullptr ? named.drive->node() : graph.find(named.name);
  if (node == nullptr && named.drive != nullptr) return fail("Device '{}' has no medium", named.name);
  if (node == nullptr) return fail("Cannot find device='{}' nor node-name='{}'", named.name, named.name);
  return node;
}

std::expected<void, QmpError> may_begin_job(Context& context) {
  if (context.machine.drives() == nullptr) return qmp_fail("this machine has no disks");
  if (!context.machine.drives()->active() || context.machine.held() || context.machine.devices_fixed())
    return qmp_fail("no job and no export can begin while the machine migrates or is being saved");
  return {};
}

Task<Result<NodePtr>> open_target(block::BlockGraph& graph, machine::NewImage image, NodePtr source, TargetKind kind) {
  block::BlockNode* const backing = block::backing_of(source.get());
  if (kind == TargetKind::kOverBacking && backing == nullptr) kind = TargetKind::kAlone;
  if (image.format.empty()) image.format = block::skip_filters(source.get())->driver();
  image.bytes = source->length();
  if (kind == TargetKind::kAlone) image.backing = "";
  if (kind == TargetKind::kOverBacking && !image.existing) {
    image.backing = backing->name();
    image.backing_filename = backing->filename();
    image.backing_format = backing->driver();
  }
  return machine::open_new_image(graph, std::move(image), std::move(source));
}

std::vector<std::string> error_actions(const Context&) { return {"report", "ignore", "enospc", "stop"}; }
std::vector<std::string> image_modes(const Context&) { return {"existing", "absolute-paths"}; }

std::expected<JobOptions, QmpError> job_options(Context& context, const Json& arguments) {
  JobOptions options;
  options.auto_finalize = arguments.value("auto-finalize", true);
  options.auto_dismiss = arguments.value("auto-dismiss", true);
  if (arguments.contains("speed")) {
    const Json& speed = arguments.at("speed");
    if (!speed.is_number_unsigned() && speed.get<int64_t>() < 0)
      return qmp_fail("Parameter 'speed' expects a non-negative value");
    options.speed = speed.get<uint64_t>();
  }
  for (const char* const name : {"on-error", "on-source-error", "on-target-error"}) {
    if (!arguments.contains(name)) continue;
    const auto action = block::parse_on_error(name, arguments.at(name).get<std::string>(), block::OnError::kReport);
    if (!action) return qmp_fail("{}", action.error().message);
    if (std::string_view(name) != "on-target-error") options.on_source_error = *action;
    if (std::string_view(name) != "on-source-error") options.on_target_error = *action;
  }
  options.id = arguments.value("job-id", std::string());
  if (options.id.empty()) {
    const machine::DriveStore::Entry* const entry =
        context.machine.drives()->find(arguments.at("device").get<std::string>());
    if (entry == nullptr || entry->spec.id.empty()) return qmp_fail("An explicit job ID is required for this node");
    options.id = entry->spec.id;
  }
  return options;
}

}  // namespace kite::monitor
