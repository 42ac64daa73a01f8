#include "devices/virtio/virtio_scsi.h"

#include <algorithm>

#include "devices/section.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace virtio_scsi;

namespace {

constexpr size_t kMostEvents = 256;  // that wait; more are "missed"
constexpr uint16_t kFieldSenseSize = 1, kFieldCdbSize = 2, kFieldEvents = 3, kFieldMissed = 4;
constexpr uint32_t kNoLun = UINT32_MAX;  // an address that names nothing

VirtioDevice::Shape shape_of(std::string name, const VirtioScsi::Config& config) {
  uint64_t features = 0;
  if (config.hotplug) features |= kHotplug;
  if (config.parameter_change) features |= kChange;
  return {.type = kType,
          .name = std::move(name),
          .queues = static_cast<uint16_t>(config.queues + kFirstRequestQueue),
          .queue_size = config.queue_size,
          .config_bytes = kConfigBytes,
          .features = features};
}

// 5.6.6.1: 1, target, and a single level LUN structure: peripheral or flat addressing. [SAM-5] 4.7.
ScsiAddress parse_lun(const uint8_t* lun) {
  const uint16_t level = load_be16(lun + 2);
  const bool flat = (level & 0xc000) == 0x4000;
  const bool rest = load_be32(lun + 4) != 0;
  if (lun[0] != 1 || rest || (!flat && level > 0xff)) return {.channel = 0, .id = lun[1], .lun = kNoLun};
  return {.channel = 0, .id = lun[1], .lun = level & 0x3fffu};
}

void put_lun(uint8_t* to, const ScsiAddress& address) {
  constexpr uint32_t kFlat = 0x4000;
  to[0] = 1;
  to[1] = static_cast<uint8_t>(address.id);
  store_be16(to + 2, static_cast<uint16_t>(address.lun < 256 ? address.lun : address.lun | kFlat));
}

}  // namespace

VirtioScsi::VirtioScsi(Executor& home, std::string name, Config config, GuestMemory& memory, const Options& options)
    : VirtioDevice(home, memory, shape_of(std::move(name), config), options),
      config_(std::move(config)),
      bus_(config_.bus_name, {.channels = 1, .targets = kTargets, .luns = kLuns}, config_.hotplug, this) {}

VirtioScsi::~VirtioScsi() {
  retire();
  scope_.wait_idle();
}

// --- configuration

void VirtioScsi::read_config(std::span<uint8_t> config) {
  const auto put = [&config](unsigned at, auto value) { store(&config[at], value); };
  put(kNumQueues, uint32_t{config_.queues});
  put(kSegMax, config_.segments != 0 ? config_.segments : std::max<uint32_t>(config_.queue_size, 3) - 2);
  put(kMaxSectors, config_.max_sectors);
  put(kCmdPerLun, config_.commands_per_unit);
  put(kEventInfoSize, uint32_t{kEventBytes});
  put(kSenseSize, sense_size_.load());
  put(kCdbSize, cdb_size_.load());
  put(kMaxTarget, static_cast<uint16_t>(kTargets - 1));
  put(kMaxLun, kLuns - 1);
}

// 5.6.4: the two fields that a driver may write.
void VirtioScsi::config_written(uint32_t offset, std::span<const uint8_t> bytes) {
  if (bytes.size() != sizeof(uint32_t)) return;
  if (offset == kSenseSize) sense_size_ = load<uint32_t>(bytes.data());
  if (offset == kCdbSize) cdb_size_ = load<uint32_t>(bytes.data());
}

void VirtioScsi::device_reset() {
  sense_size_ = kDefaultSenseSize;
  cdb_size_ = kDefaultCdbSize;
  const std::lock_guard lock(events_mutex_);
  events_.clear();
  events_missed_ = false;
}

void VirtioScsi::cancel_requests() {
  for (const ScsiAddress& address : bus_.units())
    if (const ScsiUse unit = bus_.acquire(address)) unit->abort_all();
}

void VirtioScsi::save_type(StateWriter& writer) {
  const std::lock_guard lock(events_mutex_);
  std::vector<uint8_t> events;
  for (const EventBytes& event : events_) events.insert(events.end(), event.begin(), event.end());
  writer.field(kFieldSenseSize, sense_size_.load());
  writer.field(kFieldCdbSize, cdb_size_.load());
  writer.field(kFieldEvents, events);
  writer.field(kFieldMissed, events_missed_);
}

void VirtioScsi::restore_type(StateReader& reader) {
  restored_ = {};
  reader.field(kFieldSenseSize, restored_.sense_size);
  reader.field(kFieldCdbSize, restored_.cdb_size);
  reader.field(kFieldEvents, restored_.events);
  reader.field(kFieldMissed, restored_.missed);
  require(reader, restored_.events.size() % kEventBytes == 0 && restored_.events.size() / kEventBytes <= kMostEvents,
          "the list of SCSI events has an impossible length");
}

void VirtioScsi::apply_type() {
  sense_size_ = restored_.sense_size;
  cdb_size_ = restored_.cdb_size;
  const std::lock_guard lock(events_mutex_);
  events_.clear();
  for (size_t at = 0; at < restored_.events.size(); at += kEventBytes) {
    EventBytes event;
    std::copy_n(restored_.events.begin() + static_cast<ptrdiff_t>(at), kEventBytes, event.begin());
    events_.push_back(event);
  }
  events_missed_ = restored_.missed;
}

void VirtioScsi::serve(uint16_t queue) {
  if (queue == kEventQueue) return deliver_events();
  // Requests may end at once, and a driver add others meanwhile: whoever else shares the thread has his turn.
  for (unsigned count = 0; count < shape().queue_size; ++count) {
    Chain chain = next(queue);
    if (chain == nullptr) return;
    if (queue == kControlQueue)
      start_control(std::move(chain));
    else
      start_request(std::move(chain));
  }
  kick(queue);
}

void VirtioScsi::refuse(Chain chain, std::string_view why) {
  break_device(why);
  finish(std::move(chain), 0);
}

// --- requests

bool VirtioScsi::parse(const VirtioChain& chain, Request& request) {
  const uint32_t sense_size = sense_size_, cdb_size = cdb_size_;
  if (sense_size > kMostSenseBytes || cdb_size > kMostCdbBytes) {
    break_device("the driver wants sense data or commands of a length that there is not");
    return false;
  }
  request.out_header = kCdbAt + cdb_size;
  request.in_header = kSenseAt + sense_size;
  if (chain.out_bytes < request.out_header || chain.in_bytes < request.in_header) {
    break_device("a request has no room for its header or its response");
    return false;
  }
  std::vector<uint8_t> header(request.out_header);
  if (!chain.read(memory(), 0, header)) {
    break_device("a request's header is not in RAM");
    return false;
  }
  request.address = parse_lun(&header[kLunAt]);
  request.command.tag = load<uint64_t>(&header[kIdAt]);
  std::copy_n(header.begin() + kCdbAt, std::min<size_t>(cdb_size, kCdbBytes), request.command.cdb.begin());
  request.out_bytes = chain.out_bytes - request.out_header;
  request.in_bytes = chain.in_bytes - request.in_header;
  return true;
}

void VirtioScsi::start_request(Chain chain) {
  Request request;
  if (!parse(*chain, request)) return finish(std::move(chain), 0);
  // Data both ways needs VIRTIO_SCSI_F_INOUT, which is not offered.
  if (request.in_bytes != 0 && request.out_bytes != 0) return end_early(std::move(chain), request, kFailure);
  ScsiUse unit = bus_.acquire(request.address);
  if (!unit) return absent_unit(std::move(chain), request);
  const ScsiTransfer transfer = unit->transfer_of(request.command.cdb);
  const bool in = transfer.direction == ScsiDirection::kToGuest, out = transfer.direction == ScsiDirection::kFromGuest;
  // 5.6.6.1: the CDB asks for more than the buffers have.
  if (transfer.bytes > (in ? request.in_bytes : out ? request.out_bytes : 0))
    return end_early(std::move(chain), request, kOverrun);
  Result<SgBuffer> to = chain->pin_in(memory(), request.in_header, in ? transfer.bytes : 0);
  Result<SgBuffer> from = chain->pin_out(memory(), request.out_header, out ? transfer.bytes : 0);
  if (!to || !from) return refuse(std::move(chain), (to ? from : to).error().message);
  scope_.spawn(do_request(std::move(chain), request, std::move(unit), std::move(*to), std::move(*from)));
}

void VirtioScsi::absent_unit(Chain chain, const Request& request) {
  if (request.address.lun == kNoLun || !bus_.has_target(request.address.channel, request.address.id))
    return end_early(std::move(chain), request, kBadTarget);
  ScsiCommand command = request.command;
  const uint64_t wanted = ScsiBus::absent_transfer(command.cdb).bytes;
  if (wanted > request.in_bytes) return end_early(std::move(chain), request, kOverrun);
  Result<SgBuffer> to = chain->pin_in(memory(), request.in_header, wanted);
  if (!to) return refuse(std::move(chain), to.error().message);
  command.data_in = to->slice();
  const ScsiReply reply = bus_.absent_unit(request.address, command);
  to->complete(reply.moved);
  end_request(std::move(chain), request, reply);
}

Task<void> VirtioScsi::do_request(Chain chain, Request request, ScsiUse unit, SgBuffer in, SgBuffer out) {
  request.sequence = next_sequence_++;
  request.command.data_in = in.slice();
  request.command.data_out = out.slice();
  const auto place = requests_.insert(requests_.end(), &request);
  const ScsiReply reply = co_await unit->execute(request.command);
  if (!home().on_this_thread()) co_await home().schedule();
  unit.reset();
  out = SgBuffer();
  // A read that failed may have written anywhere: dropping the buffer says so.
  if (reply.status == ScsiStatus::kGood)
    in.complete(reply.moved);
  else
    in = SgBuffer();
  end_request(std::move(chain), request, reply);
  requests_.erase(place);
  ended_.wake_all();
}

void VirtioScsi::end_request(Chain chain, const Request& request, const ScsiReply& reply) {
  std::vector<uint8_t> response(request.in_header);
  if (reply.aborted) {
    response[kResponseAt] = request.reset ? kReset : Response::kAborted;
    return respond(std::move(chain), request, response, 0);
  }
  response[kStatusAt] = static_cast<uint8_t>(reply.status);
  response[kResponseAt] = kOk;
  store(&response[kResidualAt], static_cast<uint32_t>(std::max(request.in_bytes, request.out_bytes) - reply.moved));
  if (reply.status == ScsiStatus::kCheckCondition) {
    const std::vector<uint8_t> sense = sense_bytes(reply.sense, reply.descriptor);
    const size_t room = std::min(sense.size(), response.size() - kSenseAt);
    store(&response[kSenseLengthAt], static_cast<uint32_t>(room));
    std::copy_n(sense.begin(), room, response.begin() + kSenseAt);
  }
  respond(std::move(chain), request, response, request.in_bytes != 0 ? reply.moved : 0);
}

void VirtioScsi::end_early(Chain chain, const Request& request, uint8_t why) {
  std::vector<uint8_t> response(request.in_header);
  response[kResponseAt] = why;
  store(&response[kResidualAt], static_cast<uint32_t>(std::max(request.in_bytes, request.out_bytes)));
  respond(std::move(chain), request, response, 0);
}

void VirtioScsi::respond(Chain chain, const Request& request, std::span<const uint8_t> response, uint64_t moved) {
  if (current(*chain) && !chain->write(memory(), 0, response))
    return refuse(std::move(chain), "the place for a request's response is not in RAM");
  finish(std::move(chain), request.in_header + moved);
}

// --- the control queue

void VirtioScsi::start_control(Chain chain) {
  std::array<uint8_t, kTmfBytes> bytes{};
  const uint64_t have = std::min<uint64_t>(chain->out_bytes, bytes.size());
  if (have < sizeof(uint32_t)) return refuse(std::move(chain), "a control request has no type");
  if (!chain->read(memory(), 0, std::span(bytes).first(have)))
    return refuse(std::move(chain), "a control request is not in RAM");
  switch (load<uint32_t>(bytes.data())) {
    case kTaskManagement: {
      if (have < kTmfBytes || chain->in_bytes < 1)
        return refuse(std::move(chain), "a task management function is too short");
      const auto function = load<uint32_t>(&bytes[kTmfSubtypeAt]);
      const auto tag = load<uint64_t>(&bytes[kTmfIdAt]);
      return scope_.spawn(do_task_management(std::move(chain), function, parse_lun(&bytes[kTmfLunAt]), tag));
    }
    case kNotificationQuery:
    case kNotificationSubscribe: {
      if (have < kNotificationBytes || chain->in_bytes < kNotificationAnswerBytes)
        return refuse(std::move(chain), "a control request for notifications is too short");
      // Units tell of nothing by themselves but through the event queue.
      return end_control(std::move(chain), std::array<uint8_t, kNotificationAnswerBytes>{0, 0, 0, 0, kOk});
    }
    default: return refuse(std::move(chain), "a control request has an unknown type");
  }
}

void VirtioScsi::end_control(Chain chain, std::span<const uint8_t> answer) {
  if (current(*chain) && !chain->write(memory(), 0, answer))
    return refuse(std::move(chain), "the place for a control request's answer is not in RAM");
  finish(std::move(chain), answer.size());
}

namespace {

bool concerns(uint32_t function, const ScsiAddress& address, uint64_t tag, const ScsiAddress& task, uint64_t task_tag) {
  switch (function) {
    case kAbortTask: return task == address && task_tag == tag;
    case kNexusReset: return task.channel == address.channel && task.id == address.id;
    default: return task == address;
  }
}

bool ends_tasks(uint32_t function) {
  return function == kAbortTask || function == kAbortTaskSet || function == kClearTaskSet || function == kNexusReset ||
         function == kLogicalUnitReset;
}

}  // namespace

bool VirtioScsi::any_before(uint64_t sequence, uint32_t function, const ScsiAddress& address, uint64_t tag) const {
  return std::ranges::any_of(requests_, [&](const Request* task) {
    return task->sequence < sequence && concerns(function, address, tag, task->address, task->command.tag);
  });
}

// [SAM-5] 7. The only nexus is the driver's, so that the task set is its own.
uint8_t VirtioScsi::manage(uint32_t function, const ScsiAddress& address, uint64_t tag) {
  if (!bus_.has_target(address.channel, address.id)) return kBadTarget;
  if (function == kNexusReset) {
    for (const ScsiAddress& place : bus_.units()) {
      if (place.channel != address.channel || place.id != address.id) continue;
      if (const ScsiUse unit = bus_.acquire(place)) unit->logical_reset(sense::kDeviceReset);
    }
    return kOk;
  }
  const ScsiUse unit = bus_.acquire(address);
  if (!unit) return kIncorrectLun;
  switch (function) {
    case kAbortTask: return unit->abort(tag), kOk;
    case kAbortTaskSet:
    case kClearTaskSet: return unit->abort_all(), kOk;
    case kLogicalUnitReset: return unit->logical_reset(sense::kDeviceReset), kOk;
    case kQueryTask: return unit->has_task(tag) ? kFunctionSucceeded : kOk;
    case kQueryTaskSet: return unit->has_tasks() ? kFunctionSucceeded : kOk;
    default: return kFunctionRejected;  // CLEAR ACA: there is none
  }
}

Task<void> VirtioScsi::do_task_management(Chain chain, uint32_t function, ScsiAddress address, uint64_t tag) {
  const uint64_t sequence = next_sequence_++;
  if (function == kNexusReset || function == kLogicalUnitReset) {
    for (Request* task : requests_)
      if (concerns(function, address, tag, task->address, task->command.tag)) task->reset = true;
  }
  const uint8_t answer = manage(function, address, tag);
  // The driver hears of the tasks' ends before it hears of this.
  if (answer == kOk && ends_tasks(function))
    while (any_before(sequence, function, address, tag)) co_await ended_.wait();
  end_control(std::move(chain), std::span(&answer, 1));
}

// --- events

void VirtioScsi::unit_attached(const ScsiAddress& address) {
  if (agreed(kHotplug)) post_event(kTransportReset, address, kRescan);
}

void VirtioScsi::unit_detached(const ScsiAddress& address) {
  if (agreed(kHotplug)) post_event(kTransportReset, address, kRemoved);
}

void VirtioScsi::unit_changed(const ScsiAddress& address, ScsiSense what) {
  if (agreed(kChange)) post_event(kParameterChange, address, what.asc | uint32_t{what.ascq} << 8);
}

void VirtioScsi::post_event(uint32_t event, const ScsiAddress& address, uint32_t reason) {
  EventBytes bytes{};
  store(bytes.data(), event);
  put_lun(&bytes[kEventLunAt], address);
  store(&bytes[kEventReasonAt], reason);
  {
    const std::lock_guard lock(events_mutex_);
    if (events_.size() < kMostEvents)
      events_.push_back(bytes);
    else
      events_missed_ = true;
  }
  kick(kEventQueue);
}

void VirtioScsi::deliver_events() {
  while (true) {
    {
      const std::lock_guard lock(events_mutex_);
      if (events_.empty() && !events_missed_) return;
    }
    Chain chain = next(kEventQueue);
    if (chain == nullptr) return;
    if (chain->in_bytes < kEventBytes) return refuse(std::move(chain), "a buffer for events is too short");
    EventBytes event{};
    {
      const std::lock_guard lock(events_mutex_);
      if (!events_.empty()) {
        event = events_.front();
        events_.pop_front();
      }
      // 5.6.6.3.1: told with the next event, or alone.
      if (std::exchange(events_missed_, false)) store(event.data(), load<uint32_t>(event.data()) | kEventsMissed);
    }
    if (!chain->write(memory(), 0, event)) return refuse(std::move(chain), "a buffer for events is not in RAM");
    finish(std::move(chain), kEventBytes);
  }
}

}  // namespace kite::devices
