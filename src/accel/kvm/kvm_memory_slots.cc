#include "accel/kvm/kvm_memory_slots.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "accel/kvm/kvm_abi.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite {

namespace {

// Slots end here: below it chip sets switch RAM and ROM in small pieces, and a slot that reached into the RAM above
// would throw all of the guest's mappings away each time.
constexpr Gpa kShadowEnd = 0x100000;

}  // namespace

KvmMemorySlots::KvmMemorySlots(const KvmFd& vm, Config config) : vm_(vm), config_(config) {
  for (uint32_t id = config_.slots; id-- > 0;) free_ids_.push_back(id);
}

KvmMemorySlots::~KvmMemorySlots() {
  for (const auto& block : blocks_) block->remove_dirty_source(*this);
}

void KvmMemorySlots::range_removed(const FlatRange& range) {
  if (range.is_memory()) changed_ |= ranges_.erase(range.start) != 0;
}

void KvmMemorySlots::range_added(const FlatRange& range) {
  if (!range.is_memory()) return;
  ranges_.insert_or_assign(range.start, range);
  changed_ = true;
}

std::vector<KvmMemorySlots::Stretch> KvmMemorySlots::wanted() const {
  std::vector<Stretch> list;
  const auto add = [&list](const FlatRange& range, Gpa start, Gpa end) {
    if (start >= end) return;
    const uint64_t offset = range.block_offset(start);
    if (!is_aligned(offset, kPageSize)) return;
    if (!list.empty()) {
      Stretch& last = list.back();
      if (start != kShadowEnd && last.start + last.bytes == start && last.block == range.region->block() &&
          last.block_offset + last.bytes == offset && last.read_only == range.read_only) {
        last.bytes += end - start;
        return;
      }
    }
    list.push_back({.start = start,
                    .bytes = end - start,
                    .block = range.region->block(),
                    .block_offset = offset,
                    .read_only = range.read_only});
  };
  for (const auto& [at, range] : ranges_) {
    const Gpa start = align_up(range.start, kPageSize), end = align_down(range.end, kPageSize);
    add(range, start, std::min(end, std::max(start, kShadowEnd)));
    add(range, std::max(start, kShadowEnd), end);
  }
  return list;
}

void KvmMemorySlots::commit_done() {
  if (!std::exchange(changed_, false)) return;
  const std::vector<Stretch> next = wanted();
  std::vector<std::shared_ptr<RamBlock>> blocks;
  for (const Stretch& stretch : next)
    if (std::ranges::find(blocks, stretch.block) == blocks.end()) blocks.push_back(stretch.block);
  if (config_.rings && read_rings_) read_rings_();  // while the slots' numbers still mean what the entries say
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(slots_, [&](const Slot& slot) {
      if (std::ranges::find(next, slot.stretch) != next.end()) return false;
      remove_slot(slot);
      return true;
    });
    for (const Stretch& stretch : next)
      if (std::ranges::find(slots_, stretch, &Slot::stretch) == slots_.end()) add_slot(stretch);
  }
  update_sources(blocks);
}

// Outside of mutex_: a block calls back with its log's lock held.
void KvmMemorySlots::update_sources(const std::vector<std::shared_ptr<RamBlock>>& blocks) {
  std::erase_if(blocks_, [&](const auto& block) {
    if (std::ranges::find(blocks, block) != blocks.end()) return false;
    block->remove_dirty_source(*this);
    return true;
  });
  for (const auto& block : blocks) {
    if (std::ranges::find(blocks_, block) != blocks_.end()) continue;
    blocks_.push_back(block);
    block->add_dirty_source(*this);
  }
}

int KvmMemorySlots::set_region(const Slot& slot, uint64_t bytes) {
  const Stretch& stretch = slot.stretch;
  kvm_userspace_memory_region region{};
  region.slot = slot.id;
  region.flags = (stretch.read_only ? KVM_MEM_READONLY : 0u) | (slot.logged ? KVM_MEM_LOG_DIRTY_PAGES : 0u);
  region.guest_phys_addr = stretch.start;
  region.memory_size = bytes;
  region.userspace_addr = reinterpret_cast<uintptr_t>(stretch.block->host() + stretch.block_offset);
  return vm_.ioctl(KVM_SET_USER_MEMORY_REGION, &region);
}

void KvmMemorySlots::remove_slot(const Slot& slot) {
  if (slot.logged) fetch_log(slot);
  if (const int answer = set_region(slot, 0); answer < 0)
    log::error("KVM does not give the memory at {:#x} back: {}", slot.stretch.start, errno_text(-answer));
  else
    free_ids_.push_back(slot.id);
}

void KvmMemorySlots::add_slot(const Stretch& stretch) {
  int answer = -ENOSPC;
  if (!free_ids_.empty()) {
    const Slot slot{.id = free_ids_.back(), .stretch = stretch, .logged = stretch.block->dirty_logging()};
    answer = set_region(slot, stretch.bytes);
    if (answer >= 0) {
      free_ids_.pop_back();
      slots_.push_back(slot);
      return;
    }
  }
  Error error{fmt::format("KVM does not take {} bytes of '{}' at {:#x}: {}", stretch.bytes, stretch.block->name(),
                          stretch.start, answer == -ENOSPC ? "all memory slots are in use" : errno_text(-answer))};
  log::warn("{}; the guest reaches this memory slowly", error.message);
  if (!error_) error_ = std::move(error);
}

std::optional<Error> KvmMemorySlots::take_error() {
  const std::lock_guard lock(mutex_);
  return std::exchange(error_, std::nullopt);
}

size_t KvmMemorySlots::count() const {
  const std::lock_guard lock(mutex_);
  return slots_.size();
}

// --- the dirty log

void KvmMemorySlots::dirty_logging_changed(RamBlock& block, bool on) {
  {
    const std::lock_guard lock(mutex_);
    for (Slot& slot : slots_) {
      if (slot.stretch.block.get() != &block || std::exchange(slot.logged, on) == on) continue;
      if (const int answer = set_region(slot, slot.stretch.bytes); answer < 0)
        log::error("KVM does not switch the dirty log of '{}' {}: {}", block.name(), on ? "on" : "off",
                   errno_text(-answer));
    }
  }
  // What is left in the rings would count as written when the log is on again.
  if (!on && config_.rings && read_rings_) read_rings_();
}

void KvmMemorySlots::report_dirty(RamBlock& block) {
  if (config_.rings) {
    if (read_rings_) read_rings_();
    return;
  }
  const std::lock_guard lock(mutex_);
  for (const Slot& slot : slots_)
    if (slot.logged && slot.stretch.block.get() == &block) fetch_log(slot);
}

void KvmMemorySlots::fetch_log(const Slot& slot) {
  if (config_.rings) return;
  const uint64_t pages = slot.stretch.bytes >> kPageShift;
  std::vector<uint64_t> bitmap((pages + 63) / 64);
  kvm_dirty_log request{};
  request.slot = slot.id;
  request.dirty_bitmap = bitmap.data();
  if (const int answer = vm_.ioctl(KVM_GET_DIRTY_LOG, &request); answer < 0) {
    log::error("KVM gives no dirty log of '{}': {}", slot.stretch.block->name(), errno_text(-answer));
    return;
  }
  const auto clear = [&](uint64_t first_word, uint64_t words) {
    kvm_clear_dirty_log cleared{};
    cleared.slot = slot.id;
    cleared.first_page = first_word * 64;
    cleared.num_pages = static_cast<uint32_t>(std::min<uint64_t>(words * 64, pages - first_word * 64));
    cleared.dirty_bitmap = bitmap.data() + first_word;
    vm_.ioctl(KVM_CLEAR_DIRTY_LOG, &cleared);
  };
  // Logged before the page is protected again: a write in between is part of what the collector's copy will hold.
  for (uint64_t word = 0; word < bitmap.size(); ++word) {
    for (uint64_t bits = bitmap[word]; bits != 0; bits &= bits - 1) {
      const uint64_t page = word * 64 + static_cast<unsigned>(std::countr_zero(bits));
      slot.stretch.block->note_write(slot.stretch.block_offset + (page << kPageShift), 1);
    }
  }
  if (!config_.clears_by_hand) return;
  constexpr uint64_t kPiece = 4096;  // words: 1 GiB of memory; the kernel holds its lock for one piece at a time
  for (uint64_t word = 0; word < bitmap.size(); word += kPiece)
    if (const uint64_t words = std::min<uint64_t>(kPiece, bitmap.size() - word);
        std::any_of(&bitmap[word], &bitmap[word] + words, [](uint64_t bits) { return bits != 0; }))
      clear(word, words);
}

void KvmMemorySlots::page_written(uint32_t id, uint64_t page) {
  const std::lock_guard lock(mutex_);
  for (const Slot& slot : slots_) {
    if (slot.id != id || page >= slot.stretch.bytes >> kPageShift) continue;
    slot.stretch.block->note_write(slot.stretch.block_offset + (page << kPageShift), 1);
  }
}

}  // namespace kite
