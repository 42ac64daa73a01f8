#include "devices/scsi/scsi_device.h"

#include <algorithm>
#include <cerrno>

#include "devices/scsi/scsi_bus.h"
#include "devices/section.h"
#include "devices/storage/mmc.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

constexpr size_t kMostAttentions = 8;

using block::IoHow;
using block::IoResult;

}  // namespace

std::vector<uint8_t> sense_bytes(ScsiSense sense, bool descriptor) {
  if (descriptor) return {kDescriptorSense, static_cast<uint8_t>(sense.key), sense.asc, sense.ascq, 0, 0, 0, 0};
  std::vector<uint8_t> bytes(18);
  bytes[0] = kFixedSense;
  bytes[2] = static_cast<uint8_t>(sense.key);
  bytes[7] = static_cast<uint8_t>(bytes.size() - 8);
  bytes[12] = sense.asc;
  bytes[13] = sense.ascq;
  return bytes;
}

// Keeps a job in its unit's list while it runs.
class ScsiDevice::Entry {
 public:
  Entry(ScsiDevice& device, ScsiJob& job) : device_(device), job_(job) {
    const std::lock_guard lock(device_.mutex_);
    job_.number = device_.next_number_++;
    device_.jobs_.push_back(&job_);
  }
  ~Entry() {
    const std::lock_guard lock(device_.mutex_);
    device_.jobs_.remove(&job_);
  }
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;

 private:
  ScsiDevice& device_;
  ScsiJob& job_;
};

ScsiDevice::ScsiDevice(std::string path, ScsiUnitConfig config)
    : Device(std::move(path)), config_(std::move(config)), drive_(config_.disk.drive) {
  write_cache_default_ = drive_ == nullptr || drive_->write_cache();
  state_ = power_on_state();
  if (drive_ != nullptr) drive_->set_resize_hook([this] { capacity_changed(); });
}

ScsiDevice::~ScsiDevice() {
  if (drive_ != nullptr) drive_->set_resize_hook({});
  cancelling_.wait_idle();
}

ScsiDevice::State ScsiDevice::power_on_state() const {
  State state;
  state.attentions.push_back(sense::kPowerOn);
  state.write_cache = write_cache_default_;
  return state;
}

void ScsiDevice::reset() {
  abort_all();
  const std::lock_guard lock(mutex_);
  state_ = power_on_state();
  if (drive_ != nullptr) drive_->set_write_cache(state_.write_cache);
}

// Commands.

const ScsiOperation* ScsiDevice::find_operation(const Cdb& cdb) const {
  for (const ScsiOperation& operation : operations()) {
    if (operation.opcode != cdb[0]) continue;
    if (operation.action == ScsiOperation::kNoAction || operation.action == (cdb[1] & 0x1f)) return &operation;
  }
  return nullptr;
}

ScsiTransfer ScsiDevice::transfer_of(const Cdb& cdb) const {
  const ScsiOperation* operation = find_operation(cdb);
  if (operation == nullptr) return {};
  const uint8_t* bytes = cdb.data();
  uint64_t count = 0;
  switch (operation->amount) {
    case ScsiAmount::kNone: return {};
    case ScsiAmount::kByte4: count = bytes[4]; break;
    case ScsiAmount::kHalf3: count = load_be16(bytes + 3); break;
    case ScsiAmount::kHalf7: count = load_be16(bytes + 7); break;
    case ScsiAmount::kHalf8: count = load_be16(bytes + 8); break;
    case ScsiAmount::kWord6: count = load_be32(bytes + 6); break;
    case ScsiAmount::kWord10: count = load_be32(bytes + 10); break;
    case ScsiAmount::kEight: count = 8; break;
    case ScsiAmount::kBlocks: count = range_of(bytes).blocks * block_bytes(); break;
    case ScsiAmount::kSpecial: return special_transfer(cdb);
  }
  return {.direction = count == 0 ? ScsiDirection::kNone : operation->direction, .bytes = count};
}

Task<ScsiReply> ScsiDevice::execute(ScsiCommand command) {
  ScsiJob job;
  job.command = command;
  const Entry entry(*this, job);
  ScsiReply reply = co_await perform(job);
  const std::lock_guard lock(mutex_);
  reply.aborted = job.aborted;
  reply.descriptor = state_.descriptor_sense;
  co_return reply;
}

std::optional<ScsiReply> ScsiDevice::obstacle(const ScsiJob& job, const ScsiOperation* operation) {
  if (!state_.attentions.empty() && (operation == nullptr || !operation->has(ScsiOperation::kThroughAttention))) {
    const ScsiSense attention = state_.attentions.front();
    state_.attentions.pop_front();
    return refuse(attention);
  }
  // Sense data is for the next command only. [SAM-5] 5.13.
  if (job.cdb()[0] != scsi_op::kRequestSense) state_.held = sense::kNone;
  if (operation == nullptr) return refuse(sense::kInvalidOpcode);
  // No autocontingent allegiance and no linked commands. [SAM-5] 5.2.
  if ((job.cdb()[operation->cdb_bytes - 1] & 0x05) != 0) return refuse(sense::kInvalidField);
  if (operation->has(ScsiOperation::kNeedsMedium)) {
    if (const ScsiSense why = not_ready(); why != sense::kNone) return refuse(why);
  }
  if (operation->has(ScsiOperation::kWrites) && read_only()) return refuse(sense::kWriteProtected);
  return {};
}

Task<ScsiReply> ScsiDevice::perform(const ScsiJob& job) {
  const ScsiOperation* operation = find_operation(job.command.cdb);
  {
    const std::lock_guard lock(mutex_);
    if (const auto why = obstacle(job, operation)) co_return *why;
    if (operation->quick != nullptr) co_return (this->*operation->quick)(job);
  }
  co_return co_await (this->*operation->slow)(job);
}

ScsiReply ScsiDevice::answer(const ScsiJob& job, std::span<const uint8_t> bytes) const {
  const uint64_t count =
      std::min<uint64_t>({bytes.size(), transfer_of(job.command.cdb).bytes, job.command.data_in.bytes()});
  if (count != 0) job.command.data_in.slice(0, count).copy_from(bytes.data());
  return {.moved = count};
}

std::optional<std::vector<uint8_t>> ScsiDevice::parameters(const ScsiJob& job) const {
  const uint64_t count = transfer_of(job.command.cdb).bytes;
  if (job.command.data_out.bytes() < count) return {};
  std::vector<uint8_t> list(count);
  job.command.data_out.slice(0, count).copy_to(list.data());
  return list;
}

// Task management.

bool ScsiDevice::abort(uint64_t tag) {
  bool found = false;
  {
    const std::lock_guard lock(mutex_);
    for (ScsiJob* job : jobs_) {
      if (job->command.tag != tag) continue;
      job->aborted = true;
      found = true;
    }
  }
  if (found && drive_ != nullptr) cancelling_.spawn(cancel_waiting());
  return found;
}

void ScsiDevice::abort_all() {
  bool found = false;
  {
    const std::lock_guard lock(mutex_);
    for (ScsiJob* job : jobs_) {
      job->aborted = true;
      found = true;
    }
  }
  if (found && drive_ != nullptr) cancelling_.spawn(cancel_waiting());
}

bool ScsiDevice::has_task(uint64_t tag) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(jobs_, [&](const ScsiJob* job) { return job->command.tag == tag; });
}

bool ScsiDevice::has_tasks() const {
  const std::lock_guard lock(mutex_);
  return !jobs_.empty();
}

void ScsiDevice::logical_reset(ScsiSense attention) {
  abort_all();
  const std::lock_guard lock(mutex_);
  const State power_on = power_on_state();
  state_.descriptor_sense = power_on.descriptor_sense;
  state_.write_cache = power_on.write_cache;
  state_.locked = false;
  state_.stopped = false;
  state_.held = sense::kNone;
  if (drive_ != nullptr) drive_->set_write_cache(state_.write_cache);
  attention_locked(attention);
}

void ScsiDevice::attention_locked(ScsiSense attention) {
  if (std::ranges::find(state_.attentions, attention) != state_.attentions.end()) return;
  if (state_.attentions.size() < kMostAttentions) state_.attentions.push_back(attention);
}

void ScsiDevice::post_attention(ScsiSense attention) {
  const std::lock_guard lock(mutex_);
  attention_locked(attention);
}

void ScsiDevice::capacity_changed() {
  post_attention(sense::kCapacityChanged);
  if (bus_ != nullptr) bus_->unit_changed(*this, sense::kCapacityChanged);
}

void ScsiDevice::hold_sense(ScsiSense sense) {
  const std::lock_guard lock(mutex_);
  state_.held = sense;
}

void ScsiDevice::release() {
  const std::lock_guard lock(mutex_);
  if (--uses_ == 0) unused_.notify_all();
}

// The medium.

bool ScsiDevice::medium_present() const { return drive_ != nullptr && drive_->has_medium() && !state_.tray_open; }

uint64_t ScsiDevice::blocks() const { return drive_ == nullptr ? 0 : drive_->length() / block_bytes(); }

ScsiSense ScsiDevice::not_ready() const {
  if (!medium_present()) return state_.tray_open ? sense::kNoMediumTrayOpen : sense::kNoMedium;
  return state_.stopped ? sense::kNeedsStart : sense::kNone;
}

void ScsiDevice::move_tray(bool open) {
  if (state_.tray_open == open) return;
  state_.tray_open = open;
  const bool medium = drive_ != nullptr && drive_->has_medium();
  if (open) {
    state_.locked = false;
    state_.media_event = static_cast<uint8_t>(mmc::MediaEvent::kMediaRemoval);
  } else if (medium) {
    state_.media_event = static_cast<uint8_t>(mmc::MediaEvent::kNewMedia);
    attention_locked(sense::kMediumChanged);
  }
  told_tray(open);
}

ScsiDevice::Range ScsiDevice::range_of(const uint8_t* cdb) {
  switch (cdb[0] >> 5) {
    case 0: return {.first = load_be32(cdb) & 0x1fffff, .blocks = cdb[4] == 0 ? 256u : cdb[4]};  // [SBC-3] 5.8
    case 1:
    case 2: return {.first = load_be32(cdb + 2), .blocks = load_be16(cdb + 7)};
    case 4: return {.first = load_be64(cdb + 2), .blocks = load_be32(cdb + 10)};
    case 5: return {.first = load_be32(cdb + 2), .blocks = load_be32(cdb + 6)};
    default: return {};
  }
}

bool ScsiDevice::inside(const Range& range) const {
  const uint64_t all = blocks();
  return range.first <= all && range.blocks <= all - range.first;
}

// A drive's cancel() ends all that waits there. What was not meant to end is issued again.
template <class Start>
Task<IoResult<>> ScsiDevice::retry(const ScsiJob& job, Start start) {
  Executor& executor = drive_->executor();
  while (true) {
    if (!executor.on_this_thread()) co_await executor.schedule();
    const uint64_t cancels = cancels_;
    if (job.aborted) co_return block::io_fail(ECANCELED);
    const IoResult<> result = co_await start(*drive_);
    if (result || result.error().code != ECANCELED || job.aborted || cancels == cancels_) co_return result;
  }
}

Task<void> ScsiDevice::cancel_waiting() {
  Executor& executor = drive_->executor();
  if (!executor.on_this_thread()) co_await executor.schedule();
  ++cancels_;
  drive_->cancel();
}

namespace {

struct Read {
  uint64_t offset;
  block::IoSlice to;
  Task<IoResult<>> operator()(block::Drive& drive) const { return drive.read(offset, to); }
};
struct Write {
  uint64_t offset;
  block::IoSlice from;
  IoHow how;
  Task<IoResult<>> operator()(block::Drive& drive) const { return drive.write(offset, from, how); }
};
struct Zero {
  uint64_t offset, bytes;
  IoHow how;
  Task<IoResult<>> operator()(block::Drive& drive) const { return drive.write_zeroes(offset, bytes, how); }
};
struct Discard {
  uint64_t offset, bytes;
  Task<IoResult<>> operator()(block::Drive& drive) const { return drive.discard(offset, bytes); }
};
struct Flush {
  Task<IoResult<>> operator()(block::Drive& drive) const { return drive.flush(); }
};

}  // namespace

Task<IoResult<>> ScsiDevice::drive_read(const ScsiJob& job, uint64_t offset, block::IoSlice to) {
  return retry(job, Read{offset, to});
}
Task<IoResult<>> ScsiDevice::drive_write(const ScsiJob& job, uint64_t offset, block::IoSlice from, IoHow how) {
  return retry(job, Write{offset, from, how});
}
Task<IoResult<>> ScsiDevice::drive_zero(const ScsiJob& job, uint64_t offset, uint64_t bytes, IoHow how) {
  return retry(job, Zero{offset, bytes, how});
}
Task<IoResult<>> ScsiDevice::drive_discard(const ScsiJob& job, uint64_t offset, uint64_t bytes) {
  return retry(job, Discard{offset, bytes});
}
Task<IoResult<>> ScsiDevice::drive_flush(const ScsiJob& job) { return retry(job, Flush{}); }

ScsiReply ScsiDevice::failed(block::IoError error, bool write) const {
  switch (error.code) {
    case ENOMEDIUM: return refuse(sense::kNoMedium);
    case EACCES:
    case EPERM:
    case EROFS: return refuse(sense::kWriteProtected);
    case ENOSPC: return refuse(sense::kSpaceAllocationFailed);
    case ECANCELED: return refuse(sense::kAborted);
    case ENOMEM: return refuse(sense::kTargetFailure);
    default: return refuse(write ? sense::kWriteError : sense::kReadError);
  }
}

// State.

namespace {

struct Wire {
  static constexpr uint32_t kVersion = 1;
  std::vector<uint8_t> attentions;  // key, code, qualifier of each
  std::array<uint8_t, 3> held;
  bool descriptor_sense, write_cache, locked, tray_open, stopped;
  uint8_t media_event;
};

template <class Codec>
void visit(Codec& codec, Wire& wire) {
  codec.field(1, wire.attentions);
  codec.field(2, wire.held);
  codec.field(3, wire.descriptor_sense);
  codec.field(4, wire.write_cache);
  codec.field(5, wire.locked);
  codec.field(6, wire.tray_open);
  codec.field(7, wire.stopped);
  codec.field(8, wire.media_event);
}

constexpr uint8_t kLastSenseKey = 0xf, kLastMediaEvent = 3;

}  // namespace

void ScsiDevice::save(StateWriter& writer) {
  const std::lock_guard lock(mutex_);
  const auto& [attentions, held, descriptor_sense, write_cache, locked, tray_open, stopped, media_event] = state_;
  Wire wire{.attentions = {},
            .held = {static_cast<uint8_t>(held.key), held.asc, held.ascq},
            .descriptor_sense = descriptor_sense,
            .write_cache = write_cache,
            .locked = locked,
            .tray_open = tray_open,
            .stopped = stopped,
            .media_event = media_event};
  for (const ScsiSense& attention : attentions)
    wire.attentions.insert(wire.attentions.end(), {static_cast<uint8_t>(attention.key), attention.asc, attention.ascq});
  save_section(writer, path(), std::move(wire));
}

void ScsiDevice::restore(StateReader& reader) {
  Wire wire{};
  const bool good = restore_section(reader, path(), wire, [&] {
    require(reader, wire.attentions.size() % 3 == 0 && wire.attentions.size() <= 3 * kMostAttentions,
            "the list of unit attentions has an impossible length");
    require(reader, config_.removable || !wire.tray_open, "the medium of a disk that is not removable is out");
    require(reader, wire.media_event <= kLastMediaEvent, "there is no such media event");
    require(reader, wire.held[0] <= kLastSenseKey, "there is no such sense key");
    for (size_t i = 0; i < wire.attentions.size(); i += 3)
      require(reader, wire.attentions[i] == static_cast<uint8_t>(SenseKey::kUnitAttention),
              "what waits to be told is no unit attention");
  });
  if (!good) return;
  const std::lock_guard lock(mutex_);
  state_.attentions.clear();
  for (size_t i = 0; i < wire.attentions.size(); i += 3)
    state_.attentions.push_back({SenseKey::kUnitAttention, wire.attentions[i + 1], wire.attentions[i + 2]});
  state_.held = {static_cast<SenseKey>(wire.held[0]), wire.held[1], wire.held[2]};
  state_.descriptor_sense = wire.descriptor_sense;
  state_.write_cache = wire.write_cache;
  state_.locked = wire.locked;
  state_.tray_open = wire.tray_open;
  state_.stopped = wire.stopped;
  state_.media_event = wire.media_event;
  if (drive_ != nullptr) drive_->set_write_cache(state_.write_cache);
}

}  // namespace kite::devices
