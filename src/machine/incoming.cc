#include "machine/incoming.h"

#include <pthread.h>

#include <algorithm>

#include "machine/drive_store.h"
#include "machine/guest_ram.h"
#include "snapshot/ram_copy.h"
#include "snapshot/stream.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::machine {

Incoming::~Incoming() {
  *alive_ = false;
  if (!thread_.joinable()) return;
  door_->cancel();
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    if (channel_ != nullptr) channel_->cancel();
  }
  thread_.join();
}

void Incoming::set_status(MigrationStatus status) {
  status_ = status;
  listener_.status(status);
}

Result<> Incoming::start(snapshot::ChannelAddress address, Fd fd) {
  if (started()) return fail("a machine comes in already");
  if (machine_.state() != RunState::kInMigrate)
    return fail("this machine waits for none; start it with -incoming defer");
  KITE_ASSIGN(door_, snapshot::Listener::create(std::move(address), std::move(fd)));
  set_status(MigrationStatus::kSetup);
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "incoming");
    work();
  });
  return {};
}

// --- the receiving thread

void Incoming::work() {
  machine_.executor().post([this, alive = alive_, state = receive()] {
    if (*alive) finish(state);
  });
}

Result<std::vector<uint8_t>> Incoming::receive() {
  KITE_ASSIGN(auto channel, door_->accept());
  snapshot::Channel& from = *channel;
  {
    const std::lock_guard lock(mutex_);
    channel_ = std::move(channel);
    if (ending_) from.cancel();
  }
  machine_.executor().post([this, alive = alive_] {
    if (*alive && status_ == MigrationStatus::kSetup) set_status(MigrationStatus::kActive);
  });
  snapshot::StreamReader reader(from);
  KITE_ASSIGN(const uint32_t flags, reader.begin());
  wants_answer_ = (flags & snapshot::kWantsAnswer) != 0 && from.is_socket();
  has_bitmaps_ = (flags & snapshot::kHasBitmaps) != 0;
  KITE_TRY(snapshot::receive_ram(reader, guest_ram(machine_.memory())));
  return reader.state();
}

// --- the main thread

void Incoming::answer(const Result<>& result) {
  if (!wants_answer_ || channel_ == nullptr) return;
  std::vector<uint8_t> bytes = {result ? snapshot::kAccepted : snapshot::kRefused};
  if (!result) bytes.insert(bytes.end(), result.error().message.begin(), result.error().message.end());
  if (const auto done = channel_->write(bytes); !done) log::warn("incoming: {}", done.error().message);
}

Result<> Incoming::take_bitmaps(std::vector<uint8_t> bitmaps) {
  DriveStore* const drives = machine_.drives();
  if (drives == nullptr) return {};
  return drives->run(unpack_bitmaps(drives->graph(), bitmap_mapping_, std::move(bitmaps)));
}

// The sender has let the images go.
Result<> Incoming::take_over(std::span<const uint8_t> state) {
  std::span<const uint8_t> bitmaps;
  if (has_bitmaps_) {
    const uint64_t bytes = state.size() < sizeof(uint64_t) ? UINT64_MAX : load<uint64_t>(state.data());
    if (bytes > state.size() - std::min(state.size(), sizeof(uint64_t)))
      return fail("the saved machine's bitmaps are longer than itself");
    bitmaps = state.subspan(sizeof(uint64_t), bytes);
    state = state.subspan(sizeof(uint64_t) + bytes);
  }
  KITE_TRY(machine_.claim_files());
  Result<> restored = machine_.restore_state(state);
  if (restored && has_bitmaps_) restored = take_bitmaps({bitmaps.begin(), bitmaps.end()});
  // The sender goes on with them, then.
  if (!restored)
    if (auto done = machine_.release_files(); !done) log::error("incoming: {}", done.error().message);
  return restored;
}

void Incoming::finish(const Result<std::vector<uint8_t>>& state) {
  thread_.join();
  Result<> result;
  if (!state)
    result = fail("{}", state.error().message);
  else
    result = take_over(*state);
  if (result && channel_ != nullptr) result = channel_->finish();
  answer(result);
  channel_.reset();
  if (result) {
    const bool run = !machine_.config().start_paused;
    set_status(MigrationStatus::kCompleted);
    result = machine_.leave_pause(RunState::kPaused, run);
  } else {
    set_status(MigrationStatus::kFailed);
  }
  listener_.ended(result);
}

}  // namespace kite::machine
