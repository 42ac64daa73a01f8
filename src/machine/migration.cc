#include "machine/migration.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "machine/drive_store.h"
#include "machine/guest_ram.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::machine {

using snapshot::Channel;
using snapshot::ChannelAddress;
using snapshot::StreamWriter;

std::string_view migration_status_name(MigrationStatus status) {
  switch (status) {
    case MigrationStatus::kNone: return "none";
    case MigrationStatus::kSetup: return "setup";
    case MigrationStatus::kActive: return "active";
    case MigrationStatus::kPreSwitchover: return "pre-switchover";
    case MigrationStatus::kDevice: return "device";
    case MigrationStatus::kCompleted: return "completed";
    case MigrationStatus::kFailed: return "failed";
    case MigrationStatus::kCancelling: return "cancelling";
    case MigrationStatus::kCancelled: return "cancelled";
  }
  return "none";
}

namespace {

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

int64_t ms_between(int64_t from_ns, int64_t to_ns) { return from_ns == 0 ? 0 : (to_ns - from_ns) / 1'000'000; }

}  // namespace

Migration::Migration(Machine& machine, Listener listener) : machine_(machine), listener_(std::move(listener)) {}

Migration::~Migration() {
  *alive_ = false;
  if (!thread_.joinable()) return;
  cancel();
  thread_.join();
  set_logging(false);
}

void Migration::set_status(MigrationStatus status) {
  if (status_ == status) return;
  status_ = status;
  listener_.status(status);
}

void Migration::set_logging(bool on) {
  for (const auto& block : blocks_) block->set_dirty_logging(on);
}

Result<> Migration::start(ChannelAddress address, Fd fd) {
  if (under_way()) return fail("There's a migration process in progress");
  const RunState state = machine_.state();
  if (machine_.held() || state == RunState::kPostMigrate || state == RunState::kSuspended)
    return fail("a machine in state '{}' cannot be sent", run_state_name(state));
  if (machine_.drives() != nullptr) {
    if (!parameters_.pause_before_switchover) KITE_TRY(machine_.drives()->no_job());
    KITE_TRY(machine_.drives()->no_writable_export());
  }
  std::vector<std::shared_ptr<RamBlock>> blocks = guest_ram(machine_.memory());
  for (const auto& block : blocks)
    if (block->dirty_logging())
      return fail("the dirty log of '{}' is in use (calc-dirty-rate); wait for that to end", block->name());
  blocks_ = std::move(blocks);
  sender_ = std::make_unique<snapshot::RamSender>(blocks_);
  shared_ = std::make_shared<Shared>();
  last_ = {};
  pauses_ = parameters_.pause_before_switchover;
  has_bitmaps_ = parameters_.bitmaps && machine_.drives() != nullptr;
  began_ns_ = now_ns();
  active_ns_ = stopped_ns_ = 0;
  set_parameters(parameters_);
  set_logging(true);
  machine_.set_devices_fixed(true);
  set_status(MigrationStatus::kSetup);
  thread_ = std::thread([this, address = std::move(address), fd = std::move(fd)]() mutable {
    pthread_setname_np(pthread_self(), "migration");
    work(address, std::move(fd));
  });
  return {};
}

void Migration::cancel() {
  if (!thread_.joinable()) return;
  const std::lock_guard lock(shared_->mutex);
  shared_->cancelled = true;
  if (shared_->channel != nullptr) shared_->channel->cancel();
  shared_->changed.notify_all();
  if (*alive_) set_status(MigrationStatus::kCancelling);
}

void Migration::set_parameters(const MigrationParameters& parameters) {
  parameters_ = parameters;
  if (shared_ == nullptr) return;
  shared_->downtime_limit_ms = parameters.downtime_limit_ms;
  shared_->max_bandwidth = parameters.max_bandwidth;
  const std::lock_guard lock(shared_->mutex);
  if (shared_->channel != nullptr) shared_->channel->set_limit(parameters.max_bandwidth);
}

MigrationReport Migration::report() const {
  if (!under_way()) return last_;
  const snapshot::RamCounts& counts = sender_->counts();
  return {.status = status_,
          .total_bytes = sender_->total_bytes(),
          .transferred = shared_->transferred,
          .remaining_pages = counts.remaining,
          .normal_pages = counts.normal,
          .zero_pages = counts.zero,
          .passes = counts.passes,
          .bytes_per_second = shared_->rate,
          .total_ms = ms_between(began_ns_, now_ns()),
          .setup_ms = ms_between(began_ns_, active_ns_),
          .downtime_ms = ms_between(stopped_ns_, now_ns())};
}

// --- the sending thread

void Migration::post(std::function<void()> task) {
  machine_.executor().post([alive = alive_, task = std::move(task)] {
    if (*alive) task();
  });
}

bool Migration::cancelled() {
  const std::lock_guard lock(shared_->mutex);
  return shared_->cancelled;
}

void Migration::work(const ChannelAddress& address, Fd fd) {
  Result<> result = send(address, std::move(fd));
  post([this, result = std::move(result)] { finish(result); });
}

Result<> Migration::send(const ChannelAddress& address, Fd fd) {
  KITE_ASSIGN(auto opened, snapshot::open_outgoing(address, std::move(fd)));
  const std::shared_ptr<Channel> channel = std::move(opened);
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->channel = channel;
    channel->set_limit(shared_->max_bandwidth);
    if (shared_->cancelled) channel->cancel();
  }
  post([this] {
    active_ns_ = now_ns();
    if (status_ == MigrationStatus::kSetup) set_status(MigrationStatus::kActive);
  });
  // A socket of somebody else's may lead anywhere; one of ours leads to a Kite that answers.
  const bool answer = address.kind == ChannelAddress::Kind::kSocket;
  StreamWriter writer(*channel);
  KITE_TRY(writer.begin((answer ? snapshot::kWantsAnswer : 0) | (has_bitmaps_ ? snapshot::kHasBitmaps : 0)));
  KITE_TRY(sender_->send_blocks(writer));
  KITE_TRY(copy_ram(writer));
  KITE_ASSIGN(const std::vector<uint8_t> state, stop_machine());
  channel->set_limit(0);
  sender_->look();
  KITE_TRY(sender_->send_pass(writer));
  KITE_TRY(writer.end(state));
  shared_->transferred = writer.bytes();
  if (answer) KITE_TRY(hear_answer(*channel));
  return channel->finish();
}

// Until so little is left that it goes while the machine stands still.
Result<> Migration::copy_ram(StreamWriter& writer) {
  for (uint64_t pass = 1;; ++pass) {
    post([this, pass] { listener_.pass(pass); });
    const uint64_t before = writer.bytes();
    const int64_t began = now_ns();
    KITE_TRY(sender_->send_pass(writer));
    shared_->transferred = writer.bytes();
    const auto took = static_cast<uint64_t>(std::max<int64_t>(now_ns() - began, 1));
    const auto moved = static_cast<double>(writer.bytes() - before);
    // A short pass tells little about how fast the way is.
    if (constexpr double kTelling = 1 << 20; moved >= kTelling || shared_->rate == 0)
      shared_->rate = static_cast<uint64_t>(moved * 1e9 / static_cast<double>(took));
    if (is_little(sender_->look())) return {};
    if (cancelled()) return fail("it was cancelled");
  }
}

bool Migration::is_little(uint64_t pages) const {
  const uint64_t rate = std::max<uint64_t>(shared_->rate, 1);
  const auto limit_ms = static_cast<uint64_t>(std::max<int64_t>(shared_->downtime_limit_ms, 0));
  return pages == 0 ||
         static_cast<double>(pages << kPageShift) * 1000 / static_cast<double>(rate) <= static_cast<double>(limit_ms);
}

// The main thread stops the machine and saves it, unless it is about to end.
Result<std::vector<uint8_t>> Migration::stop_machine() {
  post([this] { stand_still(); });
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait(lock, [this] { return shared_->cancelled || shared_->state.has_value(); });
  if (shared_->cancelled) return fail("it was cancelled");
  return std::move(*shared_->state);
}

Result<> Migration::hear_answer(Channel& channel) {
  uint8_t answer = 0;
  if (auto read = channel.read({&answer, 1}); !read)
    return fail("the other end has not answered whether it can go on ({})", read.error().message);
  if (answer == snapshot::kAccepted) return {};
  constexpr size_t kMostText = 1000;
  return fail("the other end cannot go on: {}", channel.read_text(kMostText));
}

// --- the main thread

// With the bitmaps ahead of it.
Result<std::vector<uint8_t>> Migration::whole_state() {
  DriveStore* const drives = machine_.drives();
  if (drives != nullptr) {
    KITE_TRY(drives->no_job());
    KITE_TRY(drives->no_writable_export());
  }
  std::vector<uint8_t> state = machine_.save_state();
  if (!has_bitmaps_ || drives == nullptr) return state;
  KITE_ASSIGN(const std::vector<uint8_t> bitmaps,
              drives->run(pack_bitmaps(drives->graph(), parameters_.bitmap_mapping)));
  std::vector<uint8_t> whole(sizeof(uint64_t));
  store(whole.data(), uint64_t{bitmaps.size()});
  whole.insert(whole.end(), bitmaps.begin(), bitmaps.end());
  whole.insert(whole.end(), state.begin(), state.end());
  return whole;
}

void Migration::stand_still() {
  if (cancelled()) return;
  was_running_ = machine_.state() == RunState::kRunning;
  stopped_ns_ = now_ns();
  machine_.pause_as(RunState::kFinishMigrate);
  if (pauses_)
    set_status(MigrationStatus::kPreSwitchover);
  else
    hand_over();
}

Result<> Migration::go_on() {
  if (!under_way() || status_ != MigrationStatus::kPreSwitchover)
    return fail("the migration is '{}', not 'pre-switchover'", migration_status_name(status_));
  hand_over();
  return {};
}

void Migration::hand_over() {
  set_status(MigrationStatus::kDevice);
  Result<std::vector<uint8_t>> state = whole_state();
  // From here on the other end may have the images.
  if (state)
    if (auto done = machine_.release_files(); !done) state = fail("{}", done.error().message);
  const std::lock_guard lock(shared_->mutex);
  shared_->state = std::move(state);
  shared_->changed.notify_all();
}

void Migration::finish(const Result<>& result) {
  last_ = report();
  thread_.join();
  shared_->channel.reset();  // the other end sees that there is no more
  set_logging(false);
  machine_.set_devices_fixed(false);
  const bool cancelled = shared_->cancelled && !result;
  last_.status = result      ? MigrationStatus::kCompleted
                 : cancelled ? MigrationStatus::kCancelled
                             : MigrationStatus::kFailed;
  if (!result && !cancelled) {
    last_.error = result.error().message;
    log::error("migration: {}; the machine stays here", last_.error);
  }
  if (machine_.state() == RunState::kFinishMigrate) {
    const bool goes_on = !result && was_running_;
    if (!result)
      if (auto taken = machine_.claim_files(); !taken) log::error("migration: {}", taken.error().message);
    const auto left = machine_.leave_pause(result ? RunState::kPostMigrate : RunState::kPaused, goes_on);
    if (!left) log::error("migration: {}", left.error().message);
  }
  sender_.reset();
  blocks_.clear();
  set_status(last_.status);
}

}  // namespace kite::machine
