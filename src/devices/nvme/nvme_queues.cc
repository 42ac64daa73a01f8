// The NVMe controller's queues: fetching commands, posting completions, shadow doorbells.
#include <atomic>
#include <bit>
#include <cstddef>

#include "devices/nvme/nvme_controller.h"
#include "support/bits.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace nvme;

namespace {

constexpr unsigned kMostAtOnce = 256;  // commands that a worker starts before others get the thread
// Shadow doorbells lie as the doorbells do. [NVMe 1.4] 7.13.
constexpr uint64_t shadow_tail(unsigned queue) { return uint64_t{queue} * 8; }
constexpr uint64_t shadow_head(unsigned queue) { return uint64_t{queue} * 8 + 4; }

}  // namespace

// --- memory

// [NVMe 1.4] 3.1.14, 3.1.26: what lies in a window that CMBMSC or PMRMSC opens means that memory of the controller's.
Gpa NvmeController::dma_address(Gpa address) const {
  const auto inside = [address](uint64_t window, uint64_t bytes) {
    const uint64_t base = window & kCmbAddress;
    return (window & kCmbMemorySpace) != 0 && address >= base && address - base < bytes;
  };
  const uint64_t cmb = cmbmsc_.load(std::memory_order_acquire), pmr = pmrmsc_.load(std::memory_order_acquire);
  if (cmb_ != nullptr && inside(cmb, options_.cmb_bytes))
    return cmb_address_.load(std::memory_order_acquire) + (address - (cmb & kCmbAddress));
  if (options_.persistent != nullptr && inside(pmr, options_.persistent->size()))
    return persistent_address_.load(std::memory_order_acquire) + (address - (pmr & kCmbAddress));
  return address;
}

bool NvmeController::dma_read(Gpa address, std::span<uint8_t> to) {
  return may_master() && memory_.read(dma_address(address), to).has_value();
}

bool NvmeController::dma_write(Gpa address, std::span<const uint8_t> from) {
  return may_master() && memory_.write(dma_address(address), from).has_value();
}

// --- fetching

void NvmeController::kick() {
  if (working_ || ready_ == 0 || !running()) return;
  working_ = true;
  if (home_ == nullptr) {
    work_here_ = true;
  } else {
    tasks_.spawn(work_on_home());
  }
}

Task<void> NvmeController::work_on_home() {
  co_await home_->schedule();
  work();
}

void NvmeController::work() {
  for (unsigned started = 0; started < kMostAtOnce; ++started) {
    std::optional<RequestRef> request;
    {
      const std::lock_guard lock(lock_);
      request = fetch();
      if (!request) {
        working_ = false;
        return;
      }
    }
    start_request(*request);
  }
  std::unique_lock lock(lock_);
  working_ = false;
  kick();
  if (home_ == nullptr) begin_pending(std::move(lock));
}

// [NVMe 1.4] 4.13.1: round robin.
std::optional<NvmeController::RequestRef> NvmeController::fetch() {
  while (running() && ready_ != 0) {
    const uint64_t later = ready_ & ~low_mask(next_queue_);
    const auto at = static_cast<unsigned>(std::countr_zero(later != 0 ? later : ready_));
    if (auto request = fetch_from(at + 1)) {
      next_queue_ = at + 1;
      return request;
    }
    ready_ &= ~bit(at);
  }
  return std::nullopt;
}

bool NvmeController::may_fetch(const SubmissionQueue& queue) const {
  // What a guest does not fetch completions of, and what it pushes round the ring, stays bounded.
  return queue.in_flight < queue.size && state_.cqs[queue.cq].waiting.empty();
}

std::optional<NvmeController::RequestRef> NvmeController::fetch_from(unsigned queue) {
  SubmissionQueue& sq = state_.sqs[queue];
  if (!sq.exists || sq.deleting || !may_fetch(sq)) return std::nullopt;
  if (sq.head == sq.tail && (queue == 0 || state_.shadow_doorbells == 0 || !arm_shadow_tail(queue)))
    return std::nullopt;
  if (spare_.empty()) spare_.emplace_front();
  const RequestRef request = spare_.begin();
  *request = {.sq = static_cast<uint16_t>(queue), .life = life_, .begun = true};
  const std::span bytes(reinterpret_cast<uint8_t*>(&request->command), sizeof(Command));
  if (!dma_read(sq.base + (uint64_t{sq.head} << kSqEntryShift), bytes)) {
    fatal("a submission queue is not in memory");
    state_.sqs[queue].tail = sq.head;
    return std::nullopt;
  }
  sq.head = sq.head + 1 == sq.size ? 0 : sq.head + 1;
  ++sq.in_flight;
  requests_.splice(requests_.end(), spare_, request);
  return request;
}

void NvmeController::look_at_shadow_tail(unsigned queue) {
  SubmissionQueue& sq = state_.sqs[queue];
  uint32_t tail = 0;
  std::array<uint8_t, sizeof tail> bytes{};
  if (!dma_read(state_.shadow_doorbells + shadow_tail(queue), bytes)) return;
  tail = load<uint32_t>(bytes.data());
  if (tail < sq.size) sq.tail = tail;
}

// The queue looks empty: asks the guest to ring for what comes next, and looks again at what came meanwhile. Answers
// whether there is something.
bool NvmeController::arm_shadow_tail(unsigned queue) {
  SubmissionQueue& sq = state_.sqs[queue];
  look_at_shadow_tail(queue);
  if (sq.head != sq.tail) return true;
  std::array<uint8_t, 4> index{};
  store(index.data(), sq.tail);
  if (!dma_write(state_.event_indexes + shadow_tail(queue), index)) return false;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  look_at_shadow_tail(queue);
  return sq.head != sq.tail;
}

// --- completing

void NvmeController::start_request(RequestRef request) { tasks_.spawn(run_request(request)); }

Task<void> NvmeController::run_request(RequestRef request) {
  const uint16_t status = request->sq == 0 ? co_await format(request->command) : co_await perform(request->command);
  finish(request, status, 0);
}

void NvmeController::finish(RequestRef request, uint16_t status, uint32_t result) {
  std::unique_lock lock(lock_);
  if (request->life == life_) {
    if (status != kSuccess) note_error(*request, status);
    if (!state_.resetting) complete(request->sq, request->command.cid, status, result);
  }
  end_request(request);
  begin_pending(std::move(lock));
}

void NvmeController::end_request(RequestRef request) {
  const bool present = request->life == life_;
  const uint16_t queue = request->sq;
  spare_.splice(spare_.begin(), requests_, request);
  if (present) {
    SubmissionQueue& sq = state_.sqs[queue];
    const bool was_full = sq.in_flight-- == sq.size;
    if (sq.deleting && sq.in_flight == 0) {
      const uint16_t cid = sq.delete_cid;
      sq = {};
      complete(0, cid, kSuccess, 0);
    } else if (was_full && queue != 0) {
      ready_ |= bit(queue - 1u);
      kick();
    } else if (was_full) {
      run_admin();
    }
  }
  if (state_.resetting && quiet() && !stopped_) finish_reset();
}

void NvmeController::complete(uint16_t sq, uint16_t cid, uint16_t status, uint32_t result) {
  const SubmissionQueue& from = state_.sqs[sq];
  CompletionQueue& cq = state_.cqs[from.cq];
  const Completion entry{.result = result,
                         .reserved = 0,
                         .sq_head = static_cast<uint16_t>(from.head),
                         .sq = sq,
                         .cid = cid,
                         .status = static_cast<uint16_t>(status << 1)};
  const bool full = (cq.tail + 1 == cq.size ? 0 : cq.tail + 1) == cq.head;
  if (stopped_ || !cq.waiting.empty() || (full && !refresh_head(from.cq))) {
    cq.waiting.push_back(entry);
    return;
  }
  post(cq, entry);
}

void NvmeController::post(CompletionQueue& queue, Completion entry) {
  entry.status = static_cast<uint16_t>(entry.status | (queue.phase ? 1 : 0));
  const std::span bytes(reinterpret_cast<const uint8_t*>(&entry), sizeof entry);
  const Gpa at = queue.base + (uint64_t{queue.tail} << kCqEntryShift);
  constexpr size_t kBeforePhase = offsetof(Completion, cid);
  // The phase bit tells the guest that the rest is there: it goes last.
  const bool written = dma_write(at, bytes.first(kBeforePhase));
  std::atomic_thread_fence(std::memory_order_release);
  if (!written || !dma_write(at + kBeforePhase, bytes.subspan(kBeforePhase)))
    return fatal("a completion queue is not in memory");
  if (++queue.tail == queue.size) {
    queue.tail = 0;
    queue.phase = !queue.phase;
  }
  if (!queue.interrupts) return;
  if (msix_.enabled()) {
    msix_.notify(queue.vector);
  } else {
    update_pin();
  }
}

// With shadow doorbells the guest tells what it has consumed in memory, and rings only when asked to. Answers whether
// there is room now.
bool NvmeController::refresh_head(unsigned queue) {
  if (queue == 0 || state_.shadow_doorbells == 0) return false;
  CompletionQueue& cq = state_.cqs[queue];
  const auto look = [&] {
    std::array<uint8_t, 4> bytes{};
    if (!dma_read(state_.shadow_doorbells + shadow_head(queue), bytes)) return;
    const auto head = load<uint32_t>(bytes.data());
    const uint32_t used = (cq.tail + cq.size - cq.head) % cq.size;
    if (head < cq.size && (head + cq.size - cq.head) % cq.size <= used) cq.head = head;
  };
  const auto full = [&] { return (cq.tail + 1) % cq.size == cq.head; };
  look();
  if (!full()) return true;
  std::array<uint8_t, 4> index{};
  store(index.data(), cq.head);
  if (!dma_write(state_.event_indexes + shadow_head(queue), index)) return false;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  look();
  return !full();
}

void NvmeController::drain_waiting(unsigned queue) {
  CompletionQueue& cq = state_.cqs[queue];
  if (cq.waiting.empty() || stopped_) return;
  while (!cq.waiting.empty()) {
    const bool full = (cq.tail + 1) % cq.size == cq.head;
    if (full && !refresh_head(queue)) return;
    const Completion entry = cq.waiting.front();
    cq.waiting.pop_front();
    post(cq, entry);
  }
  for (unsigned sq = 1; sq < state_.sqs.size(); ++sq)
    if (state_.sqs[sq].exists && state_.sqs[sq].cq == queue) ready_ |= bit(sq - 1);
  if (queue == 0) run_admin();
  kick();
}

// [NVMe 1.4] 5.14.1.1
void NvmeController::note_error(const Request& request, uint16_t status) {
  ErrorEntry& entry = state_.errors[state_.error_count++ % kErrorEntries];
  entry = {.count = state_.error_count,
           .sq = request.sq,
           .cid = request.command.cid,
           .status = static_cast<uint16_t>(status << 1),
           .lba = request.sq == 0 ? 0 : uint64_t{request.command.cdw11} << 32 | request.command.cdw10,
           .nsid = request.command.nsid};
}

}  // namespace kite::devices
