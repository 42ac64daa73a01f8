#include "memory/address_space.h"

#include <algorithm>
#include <utility>

#include "memory/flat_view_renderer.h"
#include "memory/io_dispatch.h"
#include "support/bits.h"

namespace kite {
namespace {

constexpr uint64_t kDenseLimit = 0x10000;

std::string_view kind_name(const FlatRange& range) {
  switch (range.kind) {
    case RegionKind::kRam: return range.read_only ? "ram, read-only" : "ram";
    case RegionKind::kRom: return range.read_only ? "rom" : "rom, writable";
    case RegionKind::kRamDevice: return range.read_only ? "ramd, read-only" : "ramd";
    case RegionKind::kIo: return "i/o";
    case RegionKind::kCoalesced: return "coalesced i/o";
    case RegionKind::kContainer: return "container";
    case RegionKind::kAlias: return "alias";
  }
  return "?";
}

void announce_missing(std::span<const FlatRange> from, const FlatView& in, auto&& tell) {
  for (const FlatRange& range : from) {
    const FlatRange* const same = in.find(range.start);
    if (same == nullptr || *same != range) tell(range);
  }
}

}  // namespace

FlatView::FlatView(std::vector<FlatRange> ranges) : ranges_(std::move(ranges)) {
  if (ranges_.empty() || ranges_.back().end > kDenseLimit || ranges_.size() > UINT16_MAX) return;
  dense_.resize(ranges_.back().end);
  for (size_t i = 0; i < ranges_.size(); ++i)
    std::fill(dense_.begin() + static_cast<ptrdiff_t>(ranges_[i].start),
              dense_.begin() + static_cast<ptrdiff_t>(ranges_[i].end), static_cast<uint16_t>(i + 1));
}

const FlatRange* FlatView::search(uint64_t address) const {
  const auto at = std::ranges::upper_bound(ranges_, address, {}, &FlatRange::end);
  return at != ranges_.end() && at->start <= address ? &*at : nullptr;
}

uint64_t FlatView::run_length(uint64_t address) const {
  const auto at = std::ranges::upper_bound(ranges_, address, {}, &FlatRange::end);
  if (at == ranges_.end()) return UINT64_MAX;
  return (at->start <= address ? at->end : at->start) - address;
}

AddressSpace::AddressSpace(std::string name, uint64_t size)
    : name_(std::move(name)), size_(size), root_(Region::container(name_, size)), view_(new FlatView({})) {
  const std::lock_guard lock(Region::tree_mutex_);
  root_->space_ = this;
}

AddressSpace::~AddressSpace() {
  {
    const std::lock_guard lock(Region::tree_mutex_);
    root_->space_ = nullptr;
  }
  epoch_retire([view = view_.load()] { delete view; });
}

void AddressSpace::commit() {
  const std::lock_guard lock(commit_mutex_);
  stale_.store(false, std::memory_order_seq_cst);  // before rendering: a change from now on is another commit's
  const auto* const next = new FlatView(FlatViewRenderer::render(*root_, size_));
  const FlatView* const previous = view_.exchange(next, std::memory_order_acq_rel);
  announce(*previous, *next);
  epoch_retire([previous] { delete previous; });
}

void AddressSpace::announce(const FlatView& before, const FlatView& after) {
  if (observers_.empty()) return;
  announce_missing(before.ranges(), after, [this](const FlatRange& range) {
    for (MapObserver* const observer : observers_) observer->range_removed(range);
  });
  announce_missing(after.ranges(), before, [this](const FlatRange& range) {
    for (MapObserver* const observer : observers_) observer->range_added(range);
  });
  for (MapObserver* const observer : observers_) observer->commit_done();
}

void AddressSpace::add_observer(MapObserver& observer) {
  const std::lock_guard lock(commit_mutex_);
  observers_.push_back(&observer);
  for (const FlatRange& range : view_.load()->ranges()) observer.range_added(range);
  observer.commit_done();
}

void AddressSpace::remove_observer(MapObserver& observer) {
  const std::lock_guard lock(commit_mutex_);
  std::erase(observers_, &observer);
}

AccessResult AddressSpace::read(uint64_t address, unsigned size, uint64_t& value) {
  const EpochGuard guard;
  const FlatView& current = view(guard);
  const FlatRange* const range = current.find(address);
  if (range == nullptr || size > range->end - address) [[unlikely]]
    return read_split(current, address, size, value);
  value = read_range(*range, address, size);
  return AccessResult::kOk;
}

AccessResult AddressSpace::write(uint64_t address, unsigned size, uint64_t value) {
  const EpochGuard guard;
  const FlatView& current = view(guard);
  const FlatRange* const range = current.find(address);
  if (range == nullptr || size > range->end - address) [[unlikely]]
    return write_split(current, address, size, value);
  write_range(*range, address, size, value);
  return AccessResult::kOk;
}

size_t AddressSpace::read_many(uint64_t address, unsigned size, std::span<uint8_t> to) {
  const EpochGuard guard;
  const FlatRange* const range = view(guard).find(address);
  return range == nullptr || size > range->end - address ? 0 : read_range_many(*range, address, size, to);
}

size_t AddressSpace::write_many(uint64_t address, unsigned size, std::span<const uint8_t> from) {
  const EpochGuard guard;
  const FlatRange* const range = view(guard).find(address);
  return range == nullptr || size > range->end - address ? 0 : write_range_many(*range, address, size, from);
}

AccessResult AddressSpace::read_split(const FlatView& view, uint64_t address, unsigned size, uint64_t& value) {
  AccessResult result = AccessResult::kUnassigned;
  value = 0;
  for (unsigned done = 0; done < size;) {
    const uint64_t here = address + done;
    const auto bytes = static_cast<unsigned>(std::min<uint64_t>(size - done, view.run_length(here)));
    const FlatRange* const range = view.find(here);
    const uint64_t part = range == nullptr ? low_mask(bytes * 8) : read_range(*range, here, bytes);
    if (range != nullptr) result = AccessResult::kOk;
    value |= part << (done * 8);
    done += bytes;
  }
  return result;
}

AccessResult AddressSpace::write_split(const FlatView& view, uint64_t address, unsigned size, uint64_t value) {
  AccessResult result = AccessResult::kUnassigned;
  for (unsigned done = 0; done < size;) {
    const uint64_t here = address + done;
    const auto bytes = static_cast<unsigned>(std::min<uint64_t>(size - done, view.run_length(here)));
    if (const FlatRange* const range = view.find(here); range != nullptr) {
      write_range(*range, here, bytes, (value >> (done * 8)) & low_mask(bytes * 8));
      result = AccessResult::kOk;
    }
    done += bytes;
  }
  return result;
}

std::string AddressSpace::dump() const {
  const EpochGuard guard;
  std::string text = fmt::format("address space: {}\n", name_);
  for (const FlatRange& range : view(guard).ranges()) {
    text +=
        fmt::format("  {:016x}-{:016x} ({}): {}", range.start, range.end - 1, kind_name(range), range.region->name());
    if (range.region_offset != 0) text += fmt::format(" @{:016x}", range.region_offset);
    text += '\n';
  }
  return text;
}

}  // namespace kite
