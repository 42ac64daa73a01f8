#include "machine/drive_store.h"

#include <algorithm>
#include <unordered_map>

#include "machine/drive_images.h"
#include "support/log.h"

namespace kite::machine {

using block::Drive;
using block::NodePtr;

Result<std::unique_ptr<DriveStore>> DriveStore::create() {
  // A guest that waits for its disk asks again sooner than a thread wakes up; as long as a halted vCPU looks for work.
  constexpr int64_t kMostPollNs = 200'000;
  KITE_ASSIGN(auto executor, Executor::create("block"));
  executor->poll_before_sleep(kMostPollNs);
  std::unique_ptr<DriveStore> store(new DriveStore(std::move(executor)));
  store->thread_ = std::thread([&loop = *store->executor_] { loop.run(); });
  return store;
}

DriveStore::DriveStore(std::unique_ptr<Executor> executor)
    : executor_(std::move(executor)), graph_(std::make_unique<block::BlockGraph>(*executor_)) {
  jobs_ = std::make_unique<block::JobTable>([this](const block::JobEvent& event) {
    if (job_hook_) job_hook_(event);
  });
  nbd_ = std::make_unique<block::nbd::Server>(*graph_,
                                              block::nbd::ServerHooks{.export_gone = [this](const std::string& id) {
                                                if (export_hook_) export_hook_(id);
                                              }});
}

DriveStore::~DriveStore() {
  run(close_everything());
  executor_->stop();
  thread_.join();
}

void DriveStore::run_void(Task<void> task) {
  TaskScope scope;
  std::mutex mutex;
  std::condition_variable changed;
  bool started = false;
  executor_->post([&] {
    scope.spawn(std::move(task));
    // The scope is idle before it is spawned into: only now does its being idle mean something.
    const std::lock_guard lock(mutex);
    started = true;
    changed.notify_one();
  });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return started; });
  }
  scope.wait_idle();
}

// --- nodes and drives

Result<> DriveStore::add_node(block::BlockOptions options) { return run(open_named_node(*graph_, std::move(options))); }

namespace {
Task<Result<>> remove_from(block::BlockGraph& graph, std::string name) { co_return co_await graph.remove(name); }

Task<Result<std::unique_ptr<Drive>>> make_drive(Executor& executor, block::DriveConfig config, NodePtr node) {
  auto made = Drive::create(executor, std::move(config), node);
  // A node that only the drive would have had is closed now, not by its destructor.
  if (!made && node != nullptr && node->user_count() == 0 && !node->kept()) (void)co_await node->close();
  co_return made;
}
}  // namespace

Result<> DriveStore::remove_node(std::string_view name) { return run(remove_from(*graph_, std::string(name))); }

Result<> DriveStore::add_drive(DriveSpec spec) {
  if (find(spec.id) != nullptr && !spec.id.empty())
    return fail("Duplicate ID '{}' for drive: another -drive or device has it", spec.id);
  NodePtr node;
  if (spec.has_image) {
    KITE_ASSIGN(node, run(open_image(*graph_, spec)));
  }
  block::DriveConfig config{.id = spec.id, .read_only = spec.request.read_only, .write_cache = spec.write_cache};
  config.read_error = spec.read_error.value_or(block::OnError::kReport);
  config.write_error = spec.write_error.value_or(block::OnError::kEnospc);
  KITE_ASSIGN(Entry * entry, add_entry(std::move(spec), std::move(config), std::move(node)));
  entry->removable = entry->spec.cdrom || entry->spec.interface == DriveInterface::kFloppy;
  if (entry->spec.throttle.any()) set_throttle(*entry, entry->spec.throttle, entry->spec.throttle_group);
  return {};
}

Result<DriveStore::Entry*> DriveStore::add_entry(DriveSpec spec, block::DriveConfig config, NodePtr node) {
  auto entry = std::make_unique<Entry>();
  entry->spec = std::move(spec);
  KITE_ASSIGN(entry->drive, run(make_drive(*executor_, std::move(config), std::move(node))));
  Entry* const made = entry.get();
  const Drive* const drive = made->drive.get();
  made->drive->set_error_hook([this, drive](const block::DriveErrorEvent& event) {
    if (error_hook_) error_hook_(drive, event);
  });
  for (int hold = 0; hold < quiet_; ++hold) made->drive->hold();
  entries_.push_back(std::move(entry));
  return made;
}

namespace {
Task<Result<>> close_drive(Drive& drive) { co_return co_await drive.close(); }
}  // namespace

void DriveStore::drop(Entry& entry) {
  if (const auto closed = run(close_drive(*entry.drive)); !closed)
    log::error("drive '{}': {}", entry.drive->id(), closed.error().message);
  std::erase_if(entries_, [&entry](const auto& other) { return other.get() == &entry; });
}

Result<> DriveStore::remove_drive(std::string_view id) {
  Entry* const entry = find(id);
  if (entry == nullptr || entry->made_for_device) return fail("Device '{}' not found", id);
  if (!entry->claimed) {
    drop(*entry);
    return {};
  }
  // The device stays and finds no medium from now on.
  entry->doomed = true;
  return run(close_drive(*entry->drive));
}

DriveStore::Entry* DriveStore::find(std::string_view name) {
  if (name.empty()) return nullptr;
  for (const auto& entry : entries_)
    if (!entry->doomed && entry->spec.id == name) return entry.get();
  return find_owned_by(name);
}

DriveStore::Entry* DriveStore::find_owned_by(std::string_view device) {
  if (device.empty()) return nullptr;
  constexpr std::string_view kObjects = "/machine/peripheral/";
  const std::string_view path = device.starts_with(kObjects) ? device.substr(kObjects.size()) : device;
  const auto owned = [&](const auto& entry) { return entry->owner_path == path || entry->qdev == device; };
  const auto found = std::ranges::find_if(entries_, owned);
  return found == entries_.end() ? nullptr : found->get();
}

DriveStore::Entry* DriveStore::find(const Drive* drive) {
  const auto found = std::ranges::find_if(entries_, [drive](const auto& entry) { return entry->drive.get() == drive; });
  return found == entries_.end() ? nullptr : found->get();
}

// --- media

namespace {

// Media stay where they are while a job is at work on them.
Task<Result<>> medium_is_free(const block::JobTable& jobs, const Drive& drive) {
  co_return drive.node() == nullptr ? Result<>{} : jobs.may_change(*drive.node());
}

Task<Result<>> put_in(Drive& drive, NodePtr node, bool read_only) {
  const NodePtr keep = node;
  Result<> done = co_await drive.change_medium(std::move(node), read_only);
  // A node that only the drive would have had.
  if (!done && keep != nullptr && keep->user_count() == 0 && !keep->kept()) (void)co_await keep->close();
  co_return done;
}

Task<Result<>> open_and_put_in(block::BlockGraph& graph, Drive& drive, block::BlockGraph::FileRequest request) {
  const bool read_only = request.read_only;
  KITE_CO_ASSIGN(NodePtr node, co_await graph.open_file(std::move(request)));
  co_return co_await put_in(drive, std::move(node), read_only);
}

Task<Result<>> find_and_put_in(block::BlockGraph& graph, Drive& drive, std::string name, bool read_only) {
  NodePtr node = graph.find(name);
  if (node == nullptr) co_return fail("Cannot find device='' nor node-name='{}'", name);
  if (node->user_count() != 0) co_return fail("Node '{}' is already in use", name);
  co_return co_await put_in(drive, std::move(node), read_only);
}

// The node itself, or what a drive has in it.
Task<Result<>> resize_node(block::BlockGraph& graph, const block::JobTable& jobs, Drive* drive, std::string name,
                           uint64_t bytes) {
  const NodePtr node = drive != nullptr ? drive->node() : graph.find(name);
  if (node == nullptr) co_return fail("Cannot find device='{}' nor node-name='{}'", name, name);
  KITE_CO_TRY(jobs.may_change(*node));
  if (node->read_only()) co_return fail("Block node '{}' is read-only", node->name());
  co_return co_await node->truncate(bytes);
}

Task<std::vector<Drive*>> refresh_all(std::vector<Drive*> drives) {
  std::vector<Drive*> changed;
  for (Drive* drive : drives) {
    const uint64_t before = drive->length();
    drive->refresh();
    if (drive->length() != before) changed.push_back(drive);
  }
  co_return changed;
}

}  // namespace

Result<> DriveStore::insert_file(Entry& entry, block::BlockGraph::FileRequest request) {
  return run(open_and_put_in(*graph_, *entry.drive, std::move(request)));
}

Result<> DriveStore::insert_node(Entry& entry, std::string_view name) {
  const bool read_only = entry.spec.cdrom || entry.always_read_only;
  return run(find_and_put_in(*graph_, *entry.drive, std::string(name), read_only));
}

Result<> DriveStore::remove_medium(Entry& entry) {
  KITE_TRY(run(medium_is_free(*jobs_, *entry.drive)));
  return run(close_drive(*entry.drive));
}

Result<> DriveStore::resize(std::string_view name, uint64_t bytes) {
  Entry* const entry = find(name);
  KITE_TRY(
      run(resize_node(*graph_, *jobs_, entry == nullptr ? nullptr : entry->drive.get(), std::string(name), bytes)));
  take_new_lengths();
  return {};
}

void DriveStore::take_new_lengths() {
  std::vector<Drive*> all;
  for (const auto& each : entries_) all.push_back(each->drive.get());
  for (const Drive* drive : run(refresh_all(std::move(all)))) drive->resized();
}

// --- jobs

namespace {

Task<Result<>> look_for_job(const block::JobTable& jobs) {
  const block::Job* const job = jobs.running();
  if (job == nullptr) co_return Result<>{};
  co_return fail("block job '{}' ({}) is under way; wait for its end or cancel it (block-job-cancel)", job->id(),
                 block::job_type_name(job->type()));
}
Task<void> end_all(block::JobTable& jobs) { co_await jobs.cancel_all(); }

Task<Result<>> look_for_writers(const block::nbd::Server& server) {
  for (const auto& disk : server.exports())
    if (disk->writable()) co_return fail("export '{}' is writable; remove it first (block-export-del)", disk->id());
  co_return Result<>{};
}
Task<void> end_server(block::nbd::Server& server) {
  if (const Result<> done = co_await server.stop(); !done) log::error("{}", done.error().message);
}
Task<void> hold_server(block::nbd::Server& server) { co_await server.hold(); }
Task<void> release_server(block::nbd::Server& server) {
  server.release();
  co_return;
}

}  // namespace

Result<> DriveStore::no_job() { return run(look_for_job(*jobs_)); }
void DriveStore::cancel_jobs() { run(end_all(*jobs_)); }
Result<> DriveStore::no_writable_export() { return run(look_for_writers(*nbd_)); }
void DriveStore::end_exports() { run(end_server(*nbd_)); }

namespace {
Task<void> apply_throttle(Drive& drive, std::shared_ptr<block::ThrottleGroup> group, block::ThrottleLimits limits) {
  if (group != nullptr) group->configure(limits);
  drive.set_throttle(std::move(group));
  co_return;
}
}  // namespace

void DriveStore::set_throttle(Entry& entry, const block::ThrottleLimits& limits, const std::string& group) {
  std::shared_ptr<block::ThrottleGroup> shared;
  if (limits.any()) {
    shared = group.empty() ? nullptr : throttle_groups_[group].lock();
    if (shared == nullptr) shared = std::make_shared<block::ThrottleGroup>();
    if (!group.empty()) throttle_groups_[group] = shared;
  }
  run(apply_throttle(*entry.drive, shared, limits));
  entry.throttle = std::move(shared);
  entry.spec.throttle = limits;
  entry.spec.throttle_group = group;
}

// --- devices

namespace {

Task<NodePtr> find_node(block::BlockGraph& graph, std::string name) { co_return graph.find(name); }
Task<Result<>> share_write(Drive& drive, bool share) { co_return drive.set_share_write(share); }

std::string shown_name(const DeviceConfig& device) {
  return device.id.empty() ? fmt::format("-device {}", device.type)
                           : fmt::format("-device {},id={}", device.type, device.id);
}

}  // namespace

Result<DriveStore::Entry*> DriveStore::entry_for(const DeviceConfig& device, DriveNeed need) {
  const std::string name = device.properties.string("drive");
  const bool read_only = need == DriveNeed::kCdrom;
  if (name.empty()) {
    if (need == DriveNeed::kOptional) return nullptr;
    if (need == DriveNeed::kDisk)
      return fail(
          "{}: no drive specified; give it one with drive=ID, the id of a -drive or the node-name of a -blockdev",
          shown_name(device));
    KITE_ASSIGN(Entry * entry, add_entry({}, {.id = device.id, .read_only = read_only}, nullptr));
    entry->made_for_device = true;
    return entry;
  }
  for (const auto& entry : entries_) {
    if (entry->made_for_device || entry->doomed || entry->spec.id != name) continue;
    if (entry->claimed) return fail("{}: drive '{}' is already in use by another device", shown_name(device), name);
    return entry.get();
  }
  NodePtr node = run(find_node(*graph_, name));
  if (node == nullptr)
    return fail("Property '{}.drive' can't find value '{}': there is no -drive with that id and no node of that name",
                device.type, name);
  const bool share = device.properties.boolean("share-rw");
  KITE_ASSIGN(
      Entry * entry,
      add_entry({}, {.id = device.id, .read_only = read_only || node->read_only(), .share_write = share}, node));
  entry->made_for_device = true;
  return entry;
}

Result<> DriveStore::apply_policies(Entry& entry, const DeviceConfig& device) {
  const DriveSpec& spec = entry.spec;
  using block::OnError;
  const auto policy = [&](const char* name, std::optional<OnError> given, OnError usual) {
    const std::string text = device.properties.string(name);
    return block::parse_on_error(name, text.empty() ? "auto" : text, given.value_or(usual));
  };
  KITE_ASSIGN(const OnError on_read, policy("rerror", spec.read_error, OnError::kReport));
  KITE_ASSIGN(const OnError on_write, policy("werror", spec.write_error, OnError::kEnospc));
  entry.drive->set_error_policy(on_read, on_write);
  const std::string cache = device.properties.string("write-cache");
  if (cache == "on" || cache == "off") entry.drive->set_write_cache(cache == "on");
  if (!entry.made_for_device && device.properties.boolean("share-rw")) KITE_TRY(run(share_write(*entry.drive, true)));
  return {};
}

Result<> DriveStore::claim_for(DeviceConfig& device, DriveNeed need) {
  device.drive = nullptr;
  if (need == DriveNeed::kNone) return {};
  KITE_ASSIGN(Entry * entry, entry_for(device, need));
  if (entry == nullptr) return {};
  entry->claimed = true;
  entry->removable = need == DriveNeed::kCdrom || need == DriveNeed::kFloppy;
  entry->always_read_only = need == DriveNeed::kCdrom;
  device.drive = entry->drive.get();
  const bool read_only = entry->drive->has_medium() && entry->drive->read_only();
  Result<> done = apply_policies(*entry, device);
  if (done && need == DriveNeed::kDisk && !entry->drive->has_medium())
    done = fail("{}: the drive '{}' has no medium, and the device is no removable one", shown_name(device),
                device.properties.string("drive"));
  if (done && read_only && (device.type == "ide-hd" || device.type == "ide-cf"))
    done = fail("{}: the drive is read-only, which an IDE disk cannot be; leave readonly=on out or add snapshot=on",
                shown_name(device));
  if (!done) give_back(std::exchange(device.drive, nullptr));
  return done;
}

void DriveStore::set_owner(Drive& drive, std::string path, std::string qdev) {
  if (Entry* const entry = find(&drive); entry != nullptr) {
    entry->owner_path = std::move(path);
    entry->qdev = std::move(qdev);
  }
}

void DriveStore::unclaim(Entry& entry) {
  entry.drive->set_resize_hook(nullptr);
  entry.claimed = false;
  entry.owner_path.clear();
  entry.qdev.clear();
}

void DriveStore::give_back(Drive* drive) {
  Entry* const entry = drive == nullptr ? nullptr : find(drive);
  if (entry == nullptr) return;
  unclaim(*entry);
  if (entry->made_for_device) drop(*entry);
}

void DriveStore::release(Drive* drive) {
  Entry* const entry = drive == nullptr ? nullptr : find(drive);
  if (entry == nullptr) return;
  unclaim(*entry);
  drop(*entry);  // a -drive, too, was there for its device
}

void DriveStore::release_owned_by(std::string_view path) {
  for (const auto& entry : entries_)
    if (!path.empty() && entry->owner_path == path) return release(entry->drive.get());
}

// --- quiet

namespace {

// What was resumed before this has run until it waits.
Task<void> settle(Executor& executor) {
  constexpr int kHops = 4;  // a completion may itself be posted, and what it starts
  for (int hop = 0; hop < kHops; ++hop) co_await executor.schedule();
}

}  // namespace

Task<void> DriveStore::drain_all() {
  for (bool again = true; again;) {
    for (const auto& entry : entries_) co_await entry->drive->drain();
    co_await settle(*executor_);
    again = false;
    for (const auto& entry : entries_) again = again || !entry->drive->idle();
  }
}

void DriveStore::quiesce() {
  ++quiet_;
  for (const auto& entry : entries_) entry->drive->hold();
  run(drain_all());
}

void DriveStore::release_all() {
  --quiet_;
  for (const auto& entry : entries_) entry->drive->release();
}

void DriveStore::quiesce_exports() { run(hold_server(*nbd_)); }
void DriveStore::release_exports() { run(release_server(*nbd_)); }

Task<void> DriveStore::cancel_requests(std::vector<Drive*> drives) {
  // What a device starts because a request was cancelled waits again, and is cancelled, too.
  for (bool again = true; again;) {
    for (Drive* drive : drives) drive->cancel();
    co_await settle(*executor_);
    again = std::ranges::any_of(drives, [](const Drive* drive) { return drive->has_waiting(); });
  }
}

void DriveStore::cancel_waiting() {
  std::vector<Drive*> all;
  for (const auto& entry : entries_) all.push_back(entry->drive.get());
  run(cancel_requests(std::move(all)));
}

void DriveStore::cancel_owned_by(std::string_view path) {
  for (const auto& entry : entries_)
    if (!path.empty() && entry->owner_path == path) return run(cancel_requests({entry->drive.get()}));
}

void DriveStore::retry_stopped() {
  for (const auto& entry : entries_) entry->drive->resume();
}

Task<Result<>> DriveStore::flush_drives() {
  Result<> result;
  for (const auto& entry : entries_) {
    const NodePtr node = entry->drive->node();
    if (node == nullptr || node->read_only()) continue;
    if (const auto done = co_await node->flush(); !done && result)
      result = fail("drive '{}' could not be flushed: {}", entry->drive->id(), errno_text(done.error().code));
  }
  co_return result;
}

namespace {
Task<Result<>> let_go(block::BlockGraph& graph) { co_return co_await graph.deactivate_all(); }
Task<Result<>> take_over(block::BlockGraph& graph, std::vector<Drive*> drives) {
  const Result<> done = co_await graph.activate_all();
  if (!done) (void)co_await graph.deactivate_all();
  for (Drive* const drive : drives) drive->refresh();
  co_return done;
}
Task<void> open_as(block::BlockGraph& graph, bool inactive) {
  graph.set_opens_inactive(inactive);
  co_return;
}
}  // namespace

void DriveStore::starts_inactive() {
  active_ = false;
  run(open_as(*graph_, true));
}

Result<> DriveStore::deactivate() {
  if (!active_) return {};
  active_ = false;
  exports_wait_ = true;
  quiesce_exports();  // what they would read is another process's
  return run(let_go(*graph_));
}

Result<> DriveStore::activate() {
  if (active_) return {};
  std::vector<Drive*> drives;
  for (const auto& entry : entries_) drives.push_back(entry->drive.get());
  KITE_TRY(run(take_over(*graph_, std::move(drives))));
  run(open_as(*graph_, false));
  active_ = true;
  if (std::exchange(exports_wait_, false)) release_exports();
  return {};
}

namespace {
// Answers which of `drives` shares its node from now on, and has not before.
Task<Result<std::vector<Drive*>>> open_for_filling(NodePtr node, std::vector<Drive*> drives) {
  std::erase_if(drives, [&](const Drive* drive) { return drive->node() != node || drive->shares_write(); });
  for (Drive* const drive : drives) KITE_CO_TRY(drive->set_share_write(true));
  KITE_CO_TRY(co_await node->activate());
  co_return drives;
}
Task<Result<>> close_to_others(std::vector<Drive*>& drives) {
  while (!drives.empty()) {
    KITE_CO_TRY(drives.back()->set_share_write(false));
    drives.pop_back();
  }
  co_return Result<>{};
}
}  // namespace

Result<> DriveStore::begin_filling(NodePtr node) {
  std::vector<Drive*> drives;
  for (const auto& entry : entries_) drives.push_back(entry->drive.get());
  KITE_ASSIGN(const std::vector<Drive*> shared, run(open_for_filling(std::move(node), std::move(drives))));
  filled_.insert(filled_.end(), shared.begin(), shared.end());
  return {};
}

Result<> DriveStore::end_filling() { return filled_.empty() ? Result<>{} : run(close_to_others(filled_)); }

Result<> DriveStore::flush_all() { return run(flush_drives()); }

Task<void> DriveStore::close_everything() {
  co_await end_server(*nbd_);
  co_await jobs_->cancel_all();
  for (const auto& entry : entries_) {
    if (const auto closed = co_await entry->drive->close(); !closed)
      log::error("drive '{}': {}", entry->drive->id(), closed.error().message);
  }
  entries_.clear();
  if (const auto closed = co_await graph_->close_all(); !closed) log::error("{}", closed.error().message);
  nbd_.reset();
  graph_.reset();
}

}  // namespace kite::machine
