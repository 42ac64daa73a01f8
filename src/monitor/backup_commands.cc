// blockdev-backup and drive-backup, by themselves and in transactions.
#include <algorithm>

#include "block/chain.h"
#include "block/jobs/backup.h"
#include "monitor/block_actions.h"
#include "monitor/job_arguments.h"
#include "monitor/job_commands.h"
#include "monitor/words.h"

namespace kite::monitor {

namespace {

using block::BackupJob;
using block::BackupRequest;
using block::BlockNode;
using block::NodePtr;
using Context = MonitorContext;
using Type = Json::value_t;

// --- on the block thread

class BackupAction final : public machine::BlockAction {
 public:
  // `image` for a target that is to be opened, with its file; else `target` names a node. `bitmap` "" for none.
  BackupAction(NamedImage source, NamedImage target, std::optional<machine::NewImage> image, std::string bitmap,
               BackupRequest request)
      : source_(std::move(source)),
        target_(std::move(target)),
        image_(std::move(image)),
        bitmap_(std::move(bitmap)),
        request_(std::move(request)) {}

  Task<Result<>> prepare(machine::BlockTogether& together) override {
    block::BlockGraph& graph = together.graph;
    KITE_CO_ASSIGN(request_.source, find_image(graph, source_));
    KITE_CO_TRY(together.not_taken(*request_.source));
    KITE_CO_TRY(together.jobs.may_start(request_.job.id));
    KITE_CO_TRY(together.jobs.may_change(*request_.source));
    if (image_) {
      const auto kind = request_.sync == BackupRequest::Sync::kTop    ? TargetKind::kOverBacking
                        : request_.sync == BackupRequest::Sync::kNone ? TargetKind::kAsItIs
                                                                      : TargetKind::kAlone;
      KITE_CO_ASSIGN(request_.target, co_await open_target(graph, std::move(*image_), request_.source, kind));
    } else {
      KITE_CO_ASSIGN(request_.target, find_image(graph, target_));
      KITE_CO_TRY(together.not_taken(*request_.target));
    }
    const NodePtr target = request_.target;
    Result<std::shared_ptr<block::Job>> made = fail("");
    if (const Result<> found = take_bitmap(); found) {
      made = co_await BackupJob::create(graph, together.jobs, std::move(request_));
    } else {
      made = Failure(found.error());
    }
    if (!made) {
      if (image_ && target->user_count() == 0) (void)co_await target->close();
      co_return Failure(std::move(made).error());
    }
    job_ = std::move(*made);
    together.jobs.reserve(job_);
    co_return Result<>{};
  }

  Task<void> finish(machine::BlockTogether& together, bool done) override {
    if (job_ == nullptr) co_return;
    if (done) {
      together.jobs.start(job_);
    } else {
      co_await together.jobs.withdraw(job_);
    }
  }

 private:
  // Of the node itself, or of the image that it shows.
  Result<> take_bitmap() {
    if (bitmap_.empty()) return {};
    for (BlockNode* const node : {request_.source.get(), block::skip_filters(request_.source.get())}) {
      node->bitmaps().resize(node->length());
      request_.bitmap = node->bitmaps().find(bitmap_);
      if (request_.bitmap != nullptr) return {};
    }
    return fail("Bitmap '{}' could not be found", bitmap_);
  }

  NamedImage source_, target_;
  std::optional<machine::NewImage> image_;
  std::string bitmap_;
  BackupRequest request_;
  std::shared_ptr<block::Job> job_;
};

// --- arguments

std::vector<std::string> sync_modes(const Context&) { return {"full", "top", "none", "bitmap", "incremental"}; }
std::vector<std::string> bitmap_modes(const Context&) { return {"on-success", "never", "always"}; }

// What `names` has at this place is the enumeration's value of it.
std::optional<size_t> choice(const std::vector<std::string>& names, const std::string& name) {
  const auto at = std::ranges::find(names, name);
  return at == names.end() ? std::nullopt : std::optional(static_cast<size_t>(at - names.begin()));
}

// [QAPI] BackupCommon: sync, bitmap, bitmap-mode.
std::expected<void, QmpError> take_sync(Context& context, const Json& arguments, BackupRequest& request) {
  using Sync = BackupRequest::Sync;
  using Mode = BackupRequest::BitmapMode;
  const std::string sync = arguments.at("sync");
  const auto chosen = choice(sync_modes(context), sync);
  if (!chosen) return qmp_fail("Parameter 'sync' does not accept value '{}'", sync);
  const bool incremental = sync == "incremental";
  request.sync = incremental ? Sync::kBitmap : static_cast<Sync>(*chosen);
  const bool has_mode = arguments.contains("bitmap-mode");
  if (has_mode) {
    const std::string mode = arguments.at("bitmap-mode");
    const auto value = choice(bitmap_modes(context), mode);
    if (!value) return qmp_fail("Parameter 'bitmap-mode' does not accept value '{}'", mode);
    request.bitmap_mode = static_cast<Mode>(*value);
  }
  if (!arguments.contains("bitmap")) {
    if (request.sync == Sync::kBitmap) return qmp_fail("must provide a valid bitmap name for '{}' sync mode", sync);
    if (has_mode) return qmp_fail("Cannot specify bitmap sync mode without a bitmap");
    return {};
  }
  if (incremental && request.bitmap_mode != Mode::kOnSuccess)
    return qmp_fail("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'");
  if (!incremental && !has_mode) return qmp_fail("Bitmap sync mode must be given when providing a bitmap");
  if (request.sync == Sync::kNone) return qmp_fail("sync mode 'none' does not produce meaningful bitmap outputs");
  if (request.sync != Sync::kBitmap && request.bitmap_mode == Mode::kNever)
    return qmp_fail("Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '{}'", sync);
  return {};
}

std::expected<BackupRequest, QmpError> backup_request(Context& context, const Json& arguments) {
  if (auto may = may_begin_job(context); !may) return std::unexpected(may.error());
  BackupRequest request;
  auto job = job_options(context, arguments);
  if (!job) return std::unexpected(job.error());
  request.job = std::move(*job);
  if (auto taken = take_sync(context, arguments, request); !taken) return std::unexpected(taken.error());
  request.compress = arguments.value("compress", false);
  request.filter_name = arguments.value("filter-node-name", std::string());
  return request;
}

ActionReply blockdev_backup(Context& context, const Json& arguments) {
  auto request = backup_request(context, arguments);
  if (!request) return std::unexpected(request.error());
  return std::make_unique<BackupAction>(named_image(context, arguments.at("device")),
                                        named_image(context, arguments.at("target")), std::nullopt,
                                        arguments.value("bitmap", std::string()), std::move(*request));
}

ActionReply drive_backup(Context& context, const Json& arguments) {
  auto request = backup_request(context, arguments);
  if (!request) return std::unexpected(request.error());
  const std::string mode = arguments.value("mode", std::string("absolute-paths"));
  if (mode != "existing" && mode != "absolute-paths")
    return qmp_fail("Parameter 'mode' does not accept value '{}'", mode);
  if (mode != "existing" && request->sync == BackupRequest::Sync::kNone)
    return qmp_fail("Parameter 'sync': none needs mode=existing, a target that says what the rest is");
  machine::NewImage image{.filename = arguments.at("target"),
                          .format = arguments.value("format", std::string()),
                          .existing = mode == "existing"};
  return std::make_unique<BackupAction>(named_image(context, arguments.at("device")), NamedImage{}, std::move(image),
                                        arguments.value("bitmap", std::string()), std::move(*request));
}

constexpr ArgumentSpec kBlockdevBackup[] = {{"job-id", Type::string, false},
                                            {"device", Type::string, true},
                                            {"target", Type::string, true},
                                            {"sync", Type::string, true, sync_modes},
                                            {"bitmap", Type::string, false},
                                            {"bitmap-mode", Type::string, false, bitmap_modes},
                                            {"speed", Type::number_integer, false},
                                            {"compress", Type::boolean, false},
                                            {"on-source-error", Type::string, false, error_actions},
                                            {"on-target-error", Type::string, false, error_actions},
                                            {"auto-finalize", Type::boolean, false},
                                            {"auto-dismiss", Type::boolean, false},
                                            {"filter-node-name", Type::string, false}};
constexpr ArgumentSpec kDriveBackup[] = {{"job-id", Type::string, false},
                                         {"device", Type::string, true},
                                         {"target", Type::string, true},
                                         {"format", Type::string, false},
                                         {"sync", Type::string, true, sync_modes},
                                         {"bitmap", Type::string, false},
                                         {"bitmap-mode", Type::string, false, bitmap_modes},
                                         {"mode", Type::string, false, image_modes},
                                         {"speed", Type::number_integer, false},
                                         {"compress", Type::boolean, false},
                                         {"on-source-error", Type::string, false, error_actions},
                                         {"on-target-error", Type::string, false, error_actions},
                                         {"auto-finalize", Type::boolean, false},
                                         {"auto-dismiss", Type::boolean, false},
                                         {"filter-node-name", Type::string, false}};

constexpr ActionSpec kActions[] = {{"blockdev-backup", kBlockdevBackup, blockdev_backup},
                                   {"drive-backup", kDriveBackup, drive_backup}};

constexpr QmpCommand kBackupCommands[] = {
    {"blockdev-backup", kBlockdevBackup, single_action<blockdev_backup>},
    {"drive-backup", kDriveBackup, single_action<drive_backup>},
};

}  // namespace

std::span<const ActionSpec> backup_actions() { return kActions; }
std::span<const QmpCommand> backup_commands() { return kBackupCommands; }

std::string human_drive_backup(Context& context, std::string_view rest) {
  Json arguments{{"sync", "top"}, {"mode", "absolute-paths"}};
  std::string_view word = next_word(rest);
  for (; word.starts_with('-'); word = next_word(rest)) {
    if (word == "-n") {
      arguments["mode"] = "existing";
    } else if (word == "-f") {
      arguments["sync"] = "full";
    } else if (word == "-c") {
      arguments["compress"] = true;
    } else {
      break;
    }
  }
  const std::string device(word), target(next_word(rest)), format(next_word(rest));
  if (target.empty() || device.starts_with('-')) return "usage: drive_backup [-n] [-f] [-c] DEVICE TARGET [FORMAT]\n";
  arguments["device"] = device;
  arguments["target"] = target;
  if (!format.empty()) arguments["format"] = format;
  const QmpReply reply = run_qmp_command(context, "drive-backup", arguments);
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

}  // namespace kite::monitor
