#include "memory/ram_block.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <thread>
#include <utility>

#include "memory/epoch.h"
#include "support/bits.h"

namespace kite {
namespace {

// The guest's memory starts at a multiple of this in the host, so that the host can back it with huge pages; what the
// reservation leaves on both sides are guard zones.
constexpr uint64_t kHostAlignment = uint64_t{2} << 20;
constexpr uint64_t kLargestBlock = uint64_t{1} << 46;

constexpr uint64_t kEveryLine = ~uint64_t{0};
constexpr unsigned kLineShift = 6;
static_assert(kPageSize >> kLineShift == 64);

// The lines of the page that [offset, offset + bytes) touches, a bit each.
uint64_t lines_of(uint64_t page, uint64_t offset, uint64_t bytes) {
  const uint64_t start = page << kPageShift, end = std::min(start + kPageSize, offset + bytes);
  const uint64_t first = (std::max(start, offset) - start) >> kLineShift, last = (end - 1 - start) >> kLineShift;
  return (kEveryLine >> (63 - last)) & (kEveryLine << first);
}

}  // namespace

RamBlock::Mapping::Mapping(Mapping&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

RamBlock::Mapping::~Mapping() {
  if (address_ != nullptr) ::munmap(address_, bytes_);
}

Result<RamBlock::Mapping> RamBlock::reserve(const std::string& name, uint64_t bytes, int protection) {
  void* const address = ::mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED)
    return fail("cannot reserve {} MiB of address space for '{}': {}", bytes >> 20, name, errno_text(errno));
  return Mapping(address, bytes);
}

Result<std::shared_ptr<RamBlock>> RamBlock::create(std::string name, uint64_t bytes) {
  if (bytes == 0 || !is_aligned(bytes, kPageSize) || bytes > kLargestBlock)
    return fail("memory '{}' of {} bytes: the size must be a multiple of {} up to {} TiB", name, bytes, kPageSize,
                kLargestBlock >> 40);
  KITE_ASSIGN(Mapping reservation, reserve(name, bytes + 2 * kHostAlignment, PROT_NONE));
  const auto base = reinterpret_cast<uintptr_t>(reservation.address());
  uint8_t* const host = reservation.address() + (align_up(base + kPageSize, kHostAlignment) - base);
  if (::mprotect(host, bytes, PROT_READ | PROT_WRITE) != 0)
    return fail("cannot map {} MiB for memory '{}': {}", bytes >> 20, name, errno_text(errno));
  if (bytes >= kHostAlignment) ::madvise(host, bytes, MADV_HUGEPAGE);  // a wish: hosts without huge pages refuse it

  const uint64_t page_count = bytes >> kPageShift;
  const uint64_t metadata_bytes =
      (page_count + 63) / 64 * sizeof(uint64_t) + page_count * (sizeof(uint64_t) + sizeof(uint32_t) + kStateStride);
  KITE_ASSIGN(Mapping metadata, reserve(name, align_up(metadata_bytes, kPageSize), PROT_READ | PROT_WRITE));
  return std::shared_ptr<RamBlock>(
      new RamBlock(std::move(name), bytes, std::move(reservation), host, std::move(metadata)));
}

RamBlock::RamBlock(std::string name, uint64_t size, Mapping reservation, uint8_t* host, Mapping metadata)
    : name_(std::move(name)),
      size_(size),
      reservation_(std::move(reservation)),
      host_(host),
      metadata_(std::move(metadata)),
      dirty_(reinterpret_cast<std::atomic<uint64_t>*>(metadata_.address())),
      code_lines_(dirty_ + dirty_words()),
      generation_(reinterpret_cast<std::atomic<uint32_t>*>(code_lines_ + pages())),
      states_(reinterpret_cast<std::atomic<uint8_t>*>(generation_ + pages())) {}

RamBlock::~RamBlock() = default;

Result<> RamBlock::map_file(int fd, bool share) {
  const int flags = MAP_FIXED | MAP_NORESERVE | (share ? MAP_SHARED : MAP_PRIVATE);
  if (::mmap(host_, size_, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED)
    return fail("cannot map {} MiB of a file for memory '{}': {}", size_ >> 20, name_, errno_text(errno));
  return {};
}

void RamBlock::exclude_from_core_dumps() { (void)::madvise(host_, size_, MADV_DONTDUMP); }

namespace {

struct Alarms {
  std::mutex mutex;
  std::vector<RamBlock::Alarm> all;

  void raise() {
    const std::lock_guard lock(mutex);
    for (const RamBlock::Alarm& alarm : all) alarm.raised->fetch_or(alarm.written);
  }
  void note_watched() {
    const std::lock_guard lock(mutex);
    for (const RamBlock::Alarm& alarm : all) alarm.pages_watched->store(1);
  }
  // Returns when nobody is any more where he was. The lock is not held meanwhile.
  void await_leaving() {
    struct Running {
      const std::atomic<uint32_t>* runs;
      uint32_t number;
    };
    std::vector<Running> running;
    {
      const std::lock_guard lock(mutex);
      for (const RamBlock::Alarm& alarm : all) {
        const uint32_t number = alarm.runs->load(std::memory_order_acquire);
        if (number % 2 == 0) continue;
        alarm.raised->fetch_or(alarm.leave);
        running.push_back({alarm.runs, number});
      }
    }
    constexpr unsigned kSpins = 1000;
    for (unsigned spins = 0; !running.empty(); ++spins) {
      if (spins < kSpins)
        __builtin_ia32_pause();
      else
        std::this_thread::yield();
      const std::lock_guard lock(mutex);
      std::erase_if(running, [this](const Running& entry) {
        return std::ranges::find(all, entry.runs, &RamBlock::Alarm::runs) == all.end() ||
               entry.runs->load(std::memory_order_acquire) != entry.number;
      });
    }
  }
};
Alarms& alarms() {
  static Alarms registered;
  return registered;
}

}  // namespace

void RamBlock::add_alarm(const Alarm& alarm) {
  Alarms& registered = alarms();
  const std::lock_guard lock(registered.mutex);
  registered.all.push_back(alarm);
}

void RamBlock::remove_alarm(const Alarm& alarm) {
  Alarms& registered = alarms();
  const std::lock_guard lock(registered.mutex);
  std::erase_if(registered.all, [&](const Alarm& entry) { return entry.raised == alarm.raised; });
}

Result<> RamBlock::discard(uint64_t offset, uint64_t bytes) {
  // The first is for memory that is a file shared with others, and refused elsewhere.
  uint8_t* const at = host_ + offset;
  if (::madvise(at, bytes, MADV_REMOVE) != 0 && ::madvise(at, bytes, MADV_DONTNEED) != 0)
    return fail("cannot give {} KiB of memory '{}' back: {}", bytes >> 10, name_, errno_text(errno));
  note_write(offset, bytes);
  return {};
}

void RamBlock::note_page_written(uint64_t page, uint64_t offset, uint64_t bytes) {
  const uint8_t seen = state(page).load(std::memory_order_relaxed);
  if ((seen & (kCode | kCodeLeaving)) != 0 && is_code_written(page, offset, bytes)) note_code_written(page);
  if ((seen & kWatched) != 0) tell_watches(page);
  if ((seen & kClean) != 0) note_page_dirty(page);
}

// The bit is cleared before the page is logged: a collector in between finds nothing and leaves the page unclean, so
// the bit set here shows in its next interval. The other order could lose every later write.
void RamBlock::note_page_dirty(uint64_t page) {
  if ((state(page).fetch_and(static_cast<uint8_t>(~kClean)) & kClean) != 0)
    dirty_[page / 64].fetch_or(uint64_t{1} << (page % 64));
}

void RamBlock::note_dirty(uint64_t offset, uint64_t bytes) {
  if (bytes == 0 || !dirty_logging()) return;
  for (uint64_t page = offset >> kPageShift; page <= (offset + bytes - 1) >> kPageShift; ++page) note_page_dirty(page);
}

// While a writer is on its way to the bump, the lines may be those of a new mark already: then every write counts. The
// look at the state comes after that at the lines.
bool RamBlock::is_code_written(uint64_t page, uint64_t offset, uint64_t bytes) const {
  return (code_lines_[page].load() & lines_of(page, offset, bytes)) != 0 || (state(page).load() & kCodeLeaving) != 0;
}

// Unmarks the page, so that a code page that became a data page is fast again, and bumps its generation. Until the
// bump is done kCodeLeaving stays, and other writers bump for themselves: a thread that modifies code and jumps to it
// must not depend on another's progress.
void RamBlock::note_code_written(uint64_t page) {
  uint8_t seen = state(page).load(std::memory_order_relaxed);
  while ((seen & kCode) != 0 && (seen & kCodeLeaving) == 0) {
    const auto leaving = static_cast<uint8_t>((seen & ~(kCode | kCodeReady)) | kCodeLeaving);
    if (!state(page).compare_exchange_weak(seen, leaving)) continue;
    generation_[page].fetch_add(1);
    state(page).fetch_and(static_cast<uint8_t>(~kCodeLeaving));
    alarms().raise();
    return;
  }
  generation_[page].fetch_add(1);
  alarms().raise();
}

void RamBlock::tell_watches(uint64_t page) {
  const std::lock_guard lock(watch_mutex_);
  state(page).fetch_and(static_cast<uint8_t>(~kWatched));
  std::erase_if(watches_, [page](const PageWatch& entry) {
    if (entry.page != page) return false;
    entry.watch->stored();
    return true;
  });
}

// The end of what a watcher does after it has set a bit of the page's state.
void RamBlock::await_lookers(uint64_t page) const {
  process_wide_barrier();
  if ((&state(page))[kToUnlooked].load(std::memory_order_relaxed) == 0) return;
  alarms().note_watched();
  process_wide_barrier();
  alarms().await_leaving();
}

void RamBlock::watch_page(uint64_t offset, StoreWatch& watch) {
  const uint64_t page = offset >> kPageShift;
  {
    const std::lock_guard lock(watch_mutex_);
    watches_.push_back({page, &watch});
    state(page).fetch_or(kWatched);
  }
  await_lookers(page);
}

void RamBlock::unwatch_page(StoreWatch& watch) {
  const std::lock_guard lock(watch_mutex_);
  std::erase_if(watches_, [&watch](const PageWatch& entry) { return entry.watch == &watch; });
}

uint32_t RamBlock::mark_code(uint64_t offset, uint64_t bytes) {
  static std::mutex mutex;
  constexpr uint8_t kMarked = kCode | kCodeReady;
  const uint64_t page = offset >> kPageShift;
  std::atomic<uint8_t>& state = this->state(page);
  std::atomic<uint64_t>& lines = code_lines_[page];
  // Read before the mark is seen or set: whoever clears the mark later bumps later.
  const uint32_t generation = generation_[page].load();
  const uint64_t wanted = generation < kWholePages ? kEveryLine : lines_of(page, offset, bytes);
  const auto marked = [&] { return (state.load() & kMarked) == kMarked && (lines.load() & wanted) == wanted; };
  if (marked()) return generation;

  // Lines are only forgotten here, with the mark gone: a generation that was read before stands for nothing then.
  const std::lock_guard lock(mutex);
  if (marked()) return generation;
  if ((state.load() & kCode) == 0)
    lines.store(wanted);
  else
    lines.fetch_or(wanted);
  state.fetch_or(kCode);
  await_lookers(page);
  // A mark that a writer took away meanwhile stays away; nobody but the holder of the mutex sets it again.
  for (uint8_t seen = state.load(); (seen & kCode) != 0;)
    if (state.compare_exchange_weak(seen, seen | kCodeReady)) break;
  return generation;
}

void RamBlock::set_dirty_logging(bool on) {
  const std::lock_guard lock(log_mutex_);
  if (logging_.exchange(on) == on) return;
  for (uint64_t word = 0; word < dirty_words(); ++word) dirty_[word].store(0);
  for (uint64_t page = 0; page < pages(); ++page) {
    if (on)
      state(page).fetch_or(kClean);
    else
      state(page).fetch_and(static_cast<uint8_t>(~kClean));
  }
  if (on) {
    alarms().note_watched();
    alarms().raise();
    process_wide_barrier();
  }
  for (DirtySource* const source : dirty_sources_) source->dirty_logging_changed(*this, on);
}

void RamBlock::add_dirty_source(DirtySource& source) {
  const std::lock_guard lock(log_mutex_);
  dirty_sources_.push_back(&source);
  if (logging_.load()) source.dirty_logging_changed(*this, true);
}

void RamBlock::remove_dirty_source(DirtySource& source) {
  const std::lock_guard lock(log_mutex_);
  std::erase(dirty_sources_, &source);
}

std::vector<uint64_t> RamBlock::collect_dirty() {
  const std::lock_guard lock(log_mutex_);
  std::vector<uint64_t> collected(dirty_words(), 0);
  if (!logging_.load()) return collected;
  for (DirtySource* const source : dirty_sources_) source->report_dirty(*this);
  for (uint64_t word = 0; word < collected.size(); ++word) {
    if (dirty_[word].load(std::memory_order_relaxed) == 0) continue;
    collected[word] = dirty_[word].exchange(0);
    for (uint64_t bits = collected[word]; bits != 0; bits &= bits - 1)
      state(word * 64 + static_cast<unsigned>(std::countr_zero(bits))).fetch_or(kClean);
  }
  alarms().note_watched();
  alarms().raise();
  // A writer that found the page unclean has stored before this barrier: who copies the page now sees the store.
  process_wide_barrier();
  return collected;
}

}  // namespace kite
