// Admin commands of the NVMe controller: queues, abort, events. [NVMe 1.4] 5.
#include <algorithm>
#include <atomic>

#include "devices/nvme/nvme_controller.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::devices {

using namespace nvme;

namespace {

constexpr uint16_t refuse(Status status) { return static_cast<uint16_t>(status | kDoNotRetry); }

}  // namespace

void NvmeController::run_admin() {
  while (running()) {
    const auto fetched = fetch_from(0);
    if (!fetched) return;
    const RequestRef request = *fetched;
    const Command& command = request->command;
    if (command.opcode == kFormatNvm && (command.flags >> kFlagsPsdt) == 0) {
      pending_.push_back(request);
      continue;
    }
    const std::optional<Outcome> outcome = admin(command);
    if (outcome) {
      if (outcome->status != kSuccess) note_error(*request, outcome->status);
      complete(0, command.cid, outcome->status, outcome->result);
      if ((command.opcode == kAbort || command.opcode == kSetFeatures) && outcome->status == kSuccess) deliver_events();
    }
    end_admin(request);
  }
}

// As end_request(), from inside of run_admin().
void NvmeController::end_admin(RequestRef request) {
  spare_.splice(spare_.begin(), requests_, request);
  --state_.sqs[0].in_flight;
}

std::optional<NvmeController::Outcome> NvmeController::admin(const Command& command) {
  // [NVMe 1.4] 4.2: over PCI Express, admin commands use PRPs; nothing is fused.
  if ((command.flags & kFlagsFuse) != 0 || command.flags >> kFlagsPsdt != 0)
    return Outcome{.status = refuse(kInvalidField)};
  switch (command.opcode) {
    case kDeleteSq: return delete_sq(command);
    case kCreateSq: return create_sq(command);
    case kGetLogPage: return get_log_page(command);
    case kDeleteCq: return delete_cq(command);
    case kCreateCq: return create_cq(command);
    case kIdentify: return identify(command);
    case kAbort: return abort(command);
    case kSetFeatures: return set_features(command);
    case kGetFeatures: return get_features(command);
    case kAsyncEventRequest: return event_request(command);
    case kDoorbellBufferConfig: return doorbell_buffers(command);
    default:
      log::guest_error("nvme: {}: admin opcode {:#04x}", path(), command.opcode);
      return Outcome{.status = refuse(kInvalidOpcode)};
  }
}

// 5.4
NvmeController::Outcome NvmeController::create_sq(const Command& command) {
  const unsigned id = command.cdw10 & 0xffff, cq = command.cdw11 >> 16;
  const uint32_t size = (command.cdw10 >> 16) + 1;
  const bool contiguous = (command.cdw11 & 1) != 0;
  if (id == 0 || id > options_.queues || state_.sqs[id].exists) return {.status = refuse(kInvalidQueueId)};
  if (cq == 0 || cq > options_.queues || !state_.cqs[cq].exists) return {.status = refuse(kCqInvalid)};
  if (size < 2 || size > kMostEntries) return {.status = refuse(kInvalidQueueSize)};
  if ((state_.cc >> kCcIosqes & 0xf) != kSqEntryShift) return {.status = refuse(kInvalidQueueSize)};
  if (!contiguous) return {.status = refuse(kInvalidField)};  // CAP.CQR
  if (command.prp1 == 0 || !is_aligned(command.prp1, page_bytes_.load(std::memory_order_relaxed)))
    return {.status = refuse(kPrpOffsetInvalid)};
  state_.sqs[id] = {.exists = true, .cq = static_cast<uint16_t>(cq), .size = size, .base = command.prp1};
  return {};
}

// 5.6. Ends when the commands of the queue have.
std::optional<NvmeController::Outcome> NvmeController::delete_sq(const Command& command) {
  const unsigned id = command.cdw10 & 0xffff;
  if (id == 0 || id > options_.queues || !state_.sqs[id].exists || state_.sqs[id].deleting)
    return Outcome{.status = refuse(kInvalidQueueId)};
  SubmissionQueue& queue = state_.sqs[id];
  ready_ &= ~bit(id - 1);
  if (queue.in_flight == 0) {
    queue = {};
    return Outcome{};
  }
  queue.deleting = true;
  queue.delete_cid = command.cid;
  return std::nullopt;
}

// 5.3
NvmeController::Outcome NvmeController::create_cq(const Command& command) {
  const unsigned id = command.cdw10 & 0xffff, vector = command.cdw11 >> 16;
  const uint32_t size = (command.cdw10 >> 16) + 1;
  const bool contiguous = (command.cdw11 & 1) != 0, interrupts = (command.cdw11 & 2) != 0;
  if (id == 0 || id > options_.queues || state_.cqs[id].exists) return {.status = refuse(kInvalidQueueId)};
  if (size < 2 || size > kMostEntries) return {.status = refuse(kInvalidQueueSize)};
  if ((state_.cc >> kCcIocqes & 0xf) != kCqEntryShift) return {.status = refuse(kInvalidQueueSize)};
  if (!contiguous) return {.status = refuse(kInvalidField)};  // CAP.CQR
  if (command.prp1 == 0 || !is_aligned(command.prp1, page_bytes_.load(std::memory_order_relaxed)))
    return {.status = refuse(kPrpOffsetInvalid)};
  // With the pin there is one vector.
  if (vector >= options_.vectors || (vector != 0 && !msix_.enabled())) return {.status = refuse(kInvalidVector)};
  state_.cqs[id] = {.exists = true,
                    .interrupts = interrupts,
                    .vector = static_cast<uint16_t>(vector),
                    .size = size,
                    .base = command.prp1,
                    .waiting = {}};
  return {};
}

// 5.5
NvmeController::Outcome NvmeController::delete_cq(const Command& command) {
  const unsigned id = command.cdw10 & 0xffff;
  if (id == 0 || id > options_.queues || !state_.cqs[id].exists) return {.status = refuse(kInvalidQueueId)};
  const bool used =
      std::ranges::any_of(state_.sqs, [id](const SubmissionQueue& queue) { return queue.exists && queue.cq == id; });
  if (used) return {.status = refuse(kInvalidQueueDeletion)};
  state_.cqs[id] = {};
  update_pin();
  return {};
}

// 5.1: best effort. Commands are on their way to the disk as soon as they are fetched; what waits for an event is not.
NvmeController::Outcome NvmeController::abort(const Command& command) {
  const uint16_t queue = command.cdw10 & 0xffff, cid = static_cast<uint16_t>(command.cdw10 >> 16);
  const auto found = std::ranges::find(state_.event_requests, cid);
  if (queue != 0 || found == state_.event_requests.end()) return {.result = 1};  // not aborted
  state_.event_requests.erase(found);
  complete(0, cid, kAbortRequested, 0);
  return {};
}

// --- events: 5.2

std::optional<NvmeController::Outcome> NvmeController::event_request(const Command& command) {
  if (state_.event_requests.size() >= kEventRequests) return Outcome{.status = refuse(kEventLimitExceeded)};
  state_.event_requests.push_back(command.cid);
  deliver_events();
  return std::nullopt;
}

void NvmeController::send_event(EventType type, uint8_t info, uint8_t log) {
  const uint32_t event = static_cast<uint32_t>(type) | uint32_t{info} << 8 | uint32_t{log} << 16;
  // Of one kind, one waits.
  if (state_.events.size() >= kMostEvents || std::ranges::find(state_.events, event) != state_.events.end()) return;
  state_.events.push_back(event);
  deliver_events();
}

void NvmeController::deliver_events() {
  while (!state_.event_requests.empty()) {
    const auto next = std::ranges::find_if(
        state_.events, [this](uint32_t event) { return (state_.masked_events >> (event & 7) & 1) == 0; });
    if (next == state_.events.end()) return;
    const uint32_t event = *next;
    const uint16_t cid = state_.event_requests.front();
    state_.events.erase(next);
    state_.event_requests.erase(state_.event_requests.begin());
    // The type is silent until its log page is read.
    state_.masked_events = static_cast<uint8_t>(state_.masked_events | 1u << (event & 7));
    complete(0, cid, kSuccess, event);
  }
}

// 5.7
NvmeController::Outcome NvmeController::doorbell_buffers(const Command& command) {
  const uint64_t page = page_bytes_.load(std::memory_order_relaxed);
  if (command.prp1 == 0 || command.prp2 == 0 || !is_aligned(command.prp1, page) || !is_aligned(command.prp2, page))
    return {.status = refuse(kInvalidField)};
  state_.shadow_doorbells = command.prp1;
  state_.event_indexes = command.prp2;
  // Commands may have come by shadow doorbell already.
  ready_ = ~uint64_t{0};
  kick();
  return {};
}

// Hands `data` to the buffer at the command's data pointer.
uint16_t NvmeController::give(const Command& command, std::span<const uint8_t> data) {
  const auto pointer =
      read_data_pointer(*this, command, data.size(), page_bytes_.load(std::memory_order_relaxed), false, true);
  if (!pointer) return refuse(pointer.error());
  for (const SgEntry& entry : pointer->entries) {
    if (!dma_write(entry.address, data.first(entry.bytes))) return kDataTransferError;
    data = data.subspan(entry.bytes);
  }
  return kSuccess;
}

}  // namespace kite::devices
