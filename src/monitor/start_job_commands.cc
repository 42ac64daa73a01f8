// The commands that begin block jobs: what they name is looked up, and the job begins on the block thread.
#include <algorithm>

#include "block/chain.h"
#include "block/jobs/chain_jobs.h"
#include "block/jobs/create_job.h"
#include "block/jobs/mirror.h"
#include "monitor/job_arguments.h"
#include "monitor/job_commands.h"

namespace kite::monitor {

namespace {

using block::BlockGraph;
using block::BlockNode;
using block::BlockOptions;
using block::Job;
using block::JobOptions;
using block::JobTable;
using block::MirrorRequest;
using block::NodePtr;
using Context = MonitorContext;
using Type = Json::value_t;

// --- what is named; on the block thread

// An image of a chain, by the name of its node or of its file.
Result<NodePtr> find_in_chain(BlockNode& top, const std::string& node_name, const std::string& filename) {
  for (BlockNode* image : block::images_below(top)) {
    const bool by_node = !node_name.empty() && image->name() == node_name;
    const bool by_file = !filename.empty() && image->filename() == filename;
    if (by_node || by_file) return image->shared_from_this();
  }
  if (!node_name.empty()) return fail("Node '{}' is not in the backing chain of '{}'", node_name, top.name());
  return fail("Can't find '{}' in the backing chain of '{}'", filename, top.name());
}

QmpReply begin(machine::DriveStore& store, Task<Result<std::shared_ptr<Job>>> making) {
  struct Begin {
    static Task<Result<>> run(JobTable& jobs, Task<Result<std::shared_ptr<Job>>> making) {
      KITE_CO_ASSIGN(std::shared_ptr<Job> job, co_await std::move(making));
      jobs.start(std::move(job));
      co_return Result<>{};
    }
  };
  // Nothing is under way past the job's filter when it comes.
  store.quiesce();
  store.quiesce_exports();
  const auto begun = store.run(Begin::run(store.jobs(), std::move(making)));
  store.release_exports();
  store.release_all();
  if (!begun) return qmp_fail("{}", begun.error().message);
  return Json::object();
}

// --- commit

struct CommitArguments {
  JobOptions job;
  NamedImage device;
  std::string top, top_node, base, base_node, filter_name;
  std::optional<std::string> backing_name;
};

Task<Result<std::shared_ptr<Job>>> make_commit(BlockGraph& graph, const JobTable& jobs, CommitArguments arguments) {
  KITE_CO_ASSIGN(const NodePtr device, find_image(graph, arguments.device));
  KITE_CO_TRY(jobs.may_change(*device));
  NodePtr top = block::skip_filters(device.get())->shared_from_this();
  if (!arguments.top.empty() || !arguments.top_node.empty()) {
    KITE_CO_ASSIGN(top, find_in_chain(*device, arguments.top_node, arguments.top));
  }
  const std::vector<BlockNode*> below = block::images_below(*top);
  NodePtr base = below.back()->shared_from_this();
  if (!arguments.base.empty() || !arguments.base_node.empty()) {
    KITE_CO_ASSIGN(base, find_in_chain(*top, arguments.base_node, arguments.base));
  }
  if (base == top) co_return fail("cannot commit an image into itself: '{}'", top->name());
  const std::vector<BlockNode*> all = block::images_below(*device);
  const auto at = std::ranges::find(all, top.get());
  if (at == all.begin()) {
    if (arguments.backing_name)
      co_return fail("'backing-file' specified, but 'top' is the active layer: no other image names it");
    co_return co_await block::MirrorJob::create(graph, jobs,
                                                {.job = std::move(arguments.job),
                                                 .source = top,
                                                 .target = base,
                                                 .filter_name = std::move(arguments.filter_name),
                                                 .commits = true});
  }
  co_return co_await block::CommitJob::create(graph, jobs,
                                              {.job = std::move(arguments.job),
                                               .overlay = (*std::prev(at))->shared_from_this(),
                                               .top = top,
                                               .base = base,
                                               .backing_name = std::move(arguments.backing_name),
                                               .filter_name = std::move(arguments.filter_name)});
}

std::optional<std::string> optional_text(const Json& arguments, const char* name) {
  return arguments.contains(name) ? std::optional(arguments.at(name).get<std::string>()) : std::nullopt;
}

QmpReply block_commit(Context& context, const Json& arguments) {
  if (auto may = may_begin_job(context); !may) return std::unexpected(may.error());
  if (arguments.contains("top") && arguments.contains("top-node"))
    return qmp_fail("'top-node' and 'top' are mutually exclusive");
  if (arguments.contains("base") && arguments.contains("base-node"))
    return qmp_fail("'base-node' and 'base' are mutually exclusive");
  auto job = job_options(context, arguments);
  if (!job) return std::unexpected(job.error());
  machine::DriveStore& store = *context.machine.drives();
  const auto text = [&](const char* name) { return arguments.value(name, std::string()); };
  return begin(store, make_commit(store.graph(), store.jobs(),
                                  {.job = std::move(*job),
                                   .device = named_image(context, arguments.at("device")),
                                   .top = text("top"),
                                   .top_node = text("top-node"),
                                   .base = text("base"),
                                   .base_node = text("base-node"),
                                   .filter_name = text("filter-node-name"),
                                   .backing_name = optional_text(arguments, "backing-file")}));
}

// --- stream

struct StreamArguments {
  JobOptions job;
  NamedImage device;
  std::string base, base_node, bottom, filter_name;
  std::optional<std::string> backing_name;
};

Task<Result<std::shared_ptr<Job>>> make_stream(BlockGraph& graph, const JobTable& jobs, StreamArguments arguments) {
  KITE_CO_ASSIGN(const NodePtr device, find_image(graph, arguments.device));
  KITE_CO_TRY(jobs.may_change(*device));
  block::StreamRequest request{.job = std::move(arguments.job),
                               .image = block::skip_filters(device.get())->shared_from_this(),
                               .base = nullptr,
                               .backing_name = std::move(arguments.backing_name),
                               .filter_name = std::move(arguments.filter_name)};
  if (!arguments.base.empty() || !arguments.base_node.empty()) {
    KITE_CO_ASSIGN(request.base, find_in_chain(*request.image, arguments.base_node, arguments.base));
  }
  if (!arguments.bottom.empty()) {
    KITE_CO_ASSIGN(const NodePtr bottom, find_in_chain(*request.image, arguments.bottom, ""));
    BlockNode* const below = block::backing_of(bottom.get());
    request.base = below == nullptr ? nullptr : below->shared_from_this();
  }
  if (request.backing_name && request.base == nullptr)
    co_return fail("backing file specified, but streaming the entire chain");
  co_return co_await block::StreamJob::create(graph, jobs, std::move(request));
}

QmpReply block_stream(Context& context, const Json& arguments) {
  if (auto may = may_begin_job(context); !may) return std::unexpected(may.error());
  const int bases = static_cast<int>(arguments.contains("base")) + static_cast<int>(arguments.contains("base-node")) +
                    static_cast<int>(arguments.contains("bottom"));
  if (bases > 1) return qmp_fail("'base', 'base-node' and 'bottom' are mutually exclusive");
  auto job = job_options(context, arguments);
  if (!job) return std::unexpected(job.error());
  machine::DriveStore& store = *context.machine.drives();
  const auto text = [&](const char* name) { return arguments.value(name, std::string()); };
  return begin(store, make_stream(store.graph(), store.jobs(),
                                  {.job = std::move(*job),
                                   .device = named_image(context, arguments.at("device")),
                                   .base = text("base"),
                                   .base_node = text("base-node"),
                                   .bottom = text("bottom"),
                                   .filter_name = text("filter-node-name"),
                                   .backing_name = optional_text(arguments, "backing-file")}));
}

// --- mirror

std::vector<std::string> sync_modes(const Context&) { return {"full", "top", "none"}; }
std::vector<std::string> copy_modes(const Context&) { return {"background", "write-blocking"}; }

std::expected<MirrorRequest, QmpError> mirror_request(Context& context, const Json& arguments) {
  MirrorRequest request;
  auto job = job_options(context, arguments);
  if (!job) return std::unexpected(job.error());
  request.job = std::move(*job);
  const std::string sync = arguments.at("sync");
  const std::vector<std::string> syncs = sync_modes(context);
  const auto at = std::ranges::find(syncs, sync);
  if (at == syncs.end()) return qmp_fail("Parameter 'sync' does not accept value '{}'", sync);
  request.sync = static_cast<MirrorRequest::Sync>(at - syncs.begin());
  const std::string mode = arguments.value("copy-mode", std::string("background"));
  if (mode != "background" && mode != "write-blocking")
    return qmp_fail("Parameter 'copy-mode' does not accept value '{}'", mode);
  request.follow_writes = mode == "write-blocking";
  for (const char* const name : {"granularity", "buf-size"})
    if (arguments.contains(name) && arguments.at(name).get<int64_t>() < 0)
      return qmp_fail("Parameter '{}' expects a non-negative value", name);
  if (const uint64_t bytes = arguments.value("granularity", uint64_t{0}); bytes != 0) request.granularity = bytes;
  if (const uint64_t bytes = arguments.value("buf-size", uint64_t{0}); bytes != 0) request.piece_bytes = bytes;
  request.filter_name = arguments.value("filter-node-name", std::string());
  return request;
}

Task<Result<std::shared_ptr<Job>>> make_mirror(BlockGraph& graph, const JobTable& jobs, NamedImage source,
                                               std::string target, MirrorRequest request) {
  KITE_CO_ASSIGN(request.source, find_image(graph, source));
  request.target = graph.find(target);
  if (request.target == nullptr) co_return fail("Cannot find device='{}' nor node-name='{}'", target, target);
  co_return co_await block::MirrorJob::create(graph, jobs, std::move(request));
}

QmpReply blockdev_mirror(Context& context, const Json& arguments) {
  if (auto may = may_begin_job(context); !may) return std::unexpected(may.error());
  auto request = mirror_request(context, arguments);
  if (!request) return std::unexpected(request.error());
  machine::DriveStore& store = *context.machine.drives();
  return begin(store, make_mirror(store.graph(), store.jobs(), named_image(context, arguments.at("device")),
                                  arguments.at("target").get<std::string>(), std::move(*request)));
}

// --- mirror into a file

struct DriveMirrorArguments {
  NamedImage device;
  machine::NewImage image;
  MirrorRequest request;
};

Task<Result<std::shared_ptr<Job>>> make_drive_mirror(BlockGraph& graph, const JobTable& jobs,
                                                     DriveMirrorArguments arguments) {
  MirrorRequest& request = arguments.request;
  KITE_CO_ASSIGN(request.source, find_image(graph, arguments.device));
  KITE_CO_TRY(jobs.may_start(request.job.id));
  KITE_CO_TRY(jobs.may_change(*request.source));
  const auto kind = request.sync == MirrorRequest::Sync::kFull  ? TargetKind::kAlone
                    : request.sync == MirrorRequest::Sync::kTop ? TargetKind::kOverBacking
                                                                : TargetKind::kAsItIs;
  KITE_CO_ASSIGN(const NodePtr target, co_await open_target(graph, std::move(arguments.image), request.source, kind));
  request.target = target;
  auto made = co_await block::MirrorJob::create(graph, jobs, std::move(request));
  if (!made && target->user_count() == 0) (void)co_await target->close();
  co_return made;
}

QmpReply drive_mirror(Context& context, const Json& arguments) {
  if (auto may = may_begin_job(context); !may) return std::unexpected(may.error());
  auto request = mirror_request(context, arguments);
  if (!request) return std::unexpected(request.error());
  const std::string mode = arguments.value("mode", std::string("absolute-paths"));
  if (mode != "existing" && mode != "absolute-paths")
    return qmp_fail("Parameter 'mode' does not accept value '{}'", mode);
  if (mode != "existing" && request->sync == MirrorRequest::Sync::kNone)
    return qmp_fail("Parameter 'sync': none needs mode=existing, a target whose content fits");
  machine::DriveStore& store = *context.machine.drives();
  return begin(store, make_drive_mirror(store.graph(), store.jobs(),
                                        {.device = named_image(context, arguments.at("device")),
                                         .image = {.filename = arguments.at("target"),
                                                   .format = arguments.value("format", std::string()),
                                                   .node_name = arguments.value("node-name", std::string()),
                                                   .existing = mode == "existing"},
                                         .request = std::move(*request)}));
}

// --- create

Task<Result<std::shared_ptr<Job>>> make_create(BlockGraph& graph, const JobTable& jobs, std::string id,
                                               BlockOptions options) {
  KITE_CO_TRY(jobs.may_start(id));
  co_return std::make_shared<block::CreateJob>(graph, std::move(id), std::move(options));
}

QmpReply blockdev_create(Context& context, const Json& arguments) {
  if (auto may = may_begin_job(context); !may) return std::unexpected(may.error());
  auto options = BlockOptions::parse(arguments.at("options").dump());
  if (!options) return qmp_fail("{}", options.error().message);
  if (!options->has("driver")) return qmp_fail("Parameter 'driver' is missing");
  machine::DriveStore& store = *context.machine.drives();
  return begin(
      store, make_create(store.graph(), store.jobs(), arguments.at("job-id").get<std::string>(), std::move(*options)));
}

constexpr ArgumentSpec kCommit[] = {{"job-id", Type::string, false},
                                    {"device", Type::string, true},
                                    {"base-node", Type::string, false},
                                    {"base", Type::string, false},
                                    {"top-node", Type::string, false},
                                    {"top", Type::string, false},
                                    {"backing-file", Type::string, false},
                                    {"speed", Type::number_integer, false},
                                    {"on-error", Type::string, false, error_actions},
                                    {"filter-node-name", Type::string, false},
                                    {"auto-finalize", Type::boolean, false},
                                    {"auto-dismiss", Type::boolean, false}};
constexpr ArgumentSpec kStream[] = {{"job-id", Type::string, false},
                                    {"device", Type::string, true},
                                    {"base", Type::string, false},
                                    {"base-node", Type::string, false},
                                    {"backing-file", Type::string, false},
                                    {"bottom", Type::string, false},
                                    {"speed", Type::number_integer, false},
                                    {"on-error", Type::string, false, error_actions},
                                    {"filter-node-name", Type::string, false},
                                    {"auto-finalize", Type::boolean, false},
                                    {"auto-dismiss", Type::boolean, false}};
constexpr ArgumentSpec kMirror[] = {{"job-id", Type::string, false},
                                    {"device", Type::string, true},
                                    {"target", Type::string, true},
                                    {"sync", Type::string, true, sync_modes},
                                    {"speed", Type::number_integer, false},
                                    {"granularity", Type::number_integer, false},
                                    {"buf-size", Type::number_integer, false},
                                    {"on-source-error", Type::string, false, error_actions},
                                    {"on-target-error", Type::string, false, error_actions},
                                    {"filter-node-name", Type::string, false},
                                    {"copy-mode", Type::string, false, copy_modes},
                                    {"auto-finalize", Type::boolean, false},
                                    {"auto-dismiss", Type::boolean, false}};
constexpr ArgumentSpec kDriveMirror[] = {{"job-id", Type::string, false},
                                         {"device", Type::string, true},
                                         {"target", Type::string, true},
                                         {"format", Type::string, false},
                                         {"node-name", Type::string, false},
                                         {"sync", Type::string, true, sync_modes},
                                         {"mode", Type::string, false, image_modes},
                                         {"speed", Type::number_integer, false},
                                         {"granularity", Type::number_integer, false},
                                         {"buf-size", Type::number_integer, false},
                                         {"on-source-error", Type::string, false, error_actions},
                                         {"on-target-error", Type::string, false, error_actions},
                                         {"copy-mode", Type::string, false, copy_modes},
                                         {"auto-finalize", Type::boolean, false},
                                         {"auto-dismiss", Type::boolean, false}};
constexpr ArgumentSpec kCreate[] = {{"job-id", Type::string, true}, {"options", Type::object, true}};

constexpr QmpCommand kStartJobCommands[] = {
    {"blockdev-create", kCreate, blockdev_create}, {"block-commit", kCommit, block_commit},
    {"block-stream", kStream, block_stream},       {"blockdev-mirror", kMirror, blockdev_mirror},
    {"drive-mirror", kDriveMirror, drive_mirror},
};

}  // namespace

std::span<const QmpCommand> start_job_commands() { return kStartJobCommands; }

}  // namespace kite::monitor
