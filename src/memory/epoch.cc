#include "memory/epoch.h"

#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <mutex>
#include <vector>

#include "memory/guest_types.h"

namespace kite {
namespace {

constexpr uint64_t kIdle = 0;

// One reader thread. Slots outlive their threads and are used again, so the writer walks the list without a lock.
struct alignas(64) Slot {
  std::atomic<uint64_t> entered{kIdle};  // the epoch the outermost guard was entered in
  std::atomic<bool> taken{true};
  Slot* next = nullptr;
};

struct Retired {
  uint64_t epoch;
  std::function<void()> free;
};

struct Registry {
  std::atomic<uint64_t> epoch{1};
  std::atomic<Slot*> slots{nullptr};
  std::mutex mutex;  // guards `retired`
  std::vector<Retired> retired;
};

Registry& registry() {
  static Registry* const instance = new Registry;  // reachable for ever: threads may outlive static destruction
  return *instance;
}

Slot& claim_slot() {
  Registry& r = registry();
  for (Slot* slot = r.slots.load(std::memory_order_acquire); slot != nullptr; slot = slot->next)
    if (!slot->taken.exchange(true, std::memory_order_acq_rel)) return *slot;
  auto* const slot = new Slot;
  slot->next = r.slots.load(std::memory_order_relaxed);
  while (!r.slots.compare_exchange_weak(slot->next, slot, std::memory_order_release, std::memory_order_relaxed)) {
  }
  return *slot;
}

constinit thread_local Slot* t_slot = nullptr;
constinit thread_local unsigned t_depth = 0;

struct SlotOwner {
  ~SlotOwner() {
    if (t_slot != nullptr) t_slot->taken.store(false, std::memory_order_release);
    t_slot = nullptr;
  }
};

[[gnu::noinline]] void attach_thread() {
  static thread_local SlotOwner owner;
  (void)owner;
  t_slot = &claim_slot();
}

uint64_t oldest_reader() {
  uint64_t oldest = std::numeric_limits<uint64_t>::max();
  for (const Slot* slot = registry().slots.load(std::memory_order_acquire); slot != nullptr; slot = slot->next)
    if (const uint64_t entered = slot->entered.load(std::memory_order_acquire); entered != kIdle)
      oldest = std::min(oldest, entered);
  return oldest;
}

bool register_membarrier() { return ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0; }

}  // namespace

EpochGuard::EpochGuard() {
  if (t_depth++ != 0) return;
  if (t_slot == nullptr) [[unlikely]]
    attach_thread();
  t_slot->entered.store(registry().epoch.load(std::memory_order_acquire), std::memory_order_relaxed);
  // The CPU may still delay this store behind later loads; epoch_collect()'s process-wide barrier makes up for it.
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

EpochGuard::~EpochGuard() {
  if (--t_depth == 0) t_slot->entered.store(kIdle, std::memory_order_release);
}

void epoch_retire(std::function<void()> free) {
  Registry& r = registry();
  {
    const std::lock_guard lock(r.mutex);
    // A reader that enters from now on reads a later epoch, and with it the pointer that replaced the retired one.
    const uint64_t epoch = r.epoch.fetch_add(1, std::memory_order_acq_rel);
    r.retired.push_back({epoch, std::move(free)});
  }
  epoch_collect();
}

void epoch_collect() {
  Registry& r = registry();
  std::vector<Retired> ready;
  {
    const std::lock_guard lock(r.mutex);
    if (r.retired.empty()) return;
    process_wide_barrier();
    const uint64_t oldest = oldest_reader();
    const auto first_held = std::ranges::lower_bound(r.retired, oldest, {}, &Retired::epoch);  // sorted by epoch
    ready.assign(std::make_move_iterator(r.retired.begin()), std::make_move_iterator(first_held));
    r.retired.erase(r.retired.begin(), first_held);
  }
  for (Retired& retired : ready) retired.free();
}

void process_wide_barrier() {
  static const bool has_membarrier = register_membarrier();
  if (has_membarrier && ::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) [[likely]]
    return;
  process_wide_barrier_by_protection();
}

// Taking rights away from a resident page makes the kernel interrupt every CPU that runs this process, and an interrupt
// serializes.
void process_wide_barrier_by_protection() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  static void* const page =
      ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (page == MAP_FAILED) return;
  ::mprotect(page, kPageSize, PROT_READ | PROT_WRITE);
  *static_cast<volatile char*>(page) = 1;  // resident and dirty, so that the next step cannot be put off
  ::mprotect(page, kPageSize, PROT_READ);
}

}  // namespace kite
