// An address space as the CPU sees it: guest-physical memory, or the 64 KiB of I/O ports.
//
// Readers take no lock and touch no shared count: view() is an atomic pointer load inside a ReadGuard (epoch), and a
// replaced FlatView is freed once no reader can hold it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "memory/epoch.h"
#include "memory/guest_types.h"
#include "memory/region.h"

namespace kite {

// One piece of the flat map: [start, end) answered in one way.
struct FlatRange {
  uint64_t start = 0;
  uint64_t end = 0;  // exclusive; an address space ends below 2^64
  std::shared_ptr<const Region> region;
  uint64_t region_offset = 0;  // of `start` within the region (or RAM block)
  RegionKind kind = RegionKind::kIo;
  bool read_only = false;                               // kRom, or RAM shown read-only
  std::shared_ptr<const DoorbellSpots> doorbells = {};  // the region's, as of the commit; null when it has none

  [[nodiscard]] bool is_memory() const {
    return kind == RegionKind::kRam || kind == RegionKind::kRom || kind == RegionKind::kRamDevice;
  }
  [[nodiscard]] uint64_t size() const { return end - start; }
  // Offset of `address` within the region; for memory ranges, within its RAM block.
  [[nodiscard]] uint64_t block_offset(uint64_t address) const { return region_offset + (address - start); }
  // Memory ranges only: host pointer of `address`.
  [[nodiscard]] uint8_t* host(uint64_t address) const { return region->block()->host() + block_offset(address); }
  bool operator==(const FlatRange& other) const = default;
};

// Immutable. Sorted, disjoint, merged.
class FlatView {
 public:
  explicit FlatView(std::vector<FlatRange> ranges);
  // The range that holds `address`, or null: nothing is there.
  [[nodiscard]] const FlatRange* find(uint64_t address) const {
    if (address < dense_.size()) {
      const uint16_t index = dense_[address];
      return index == 0 ? nullptr : &ranges_[index - 1];
    }
    return dense_.empty() ? search(address) : nullptr;
  }
  // How many bytes from `address` on are answered by what answers it; 2^64-1 for the hole behind the last range.
  [[nodiscard]] uint64_t run_length(uint64_t address) const;
  [[nodiscard]] std::span<const FlatRange> ranges() const { return ranges_; }

 private:
  [[nodiscard]] const FlatRange* search(uint64_t address) const;

  std::vector<FlatRange> ranges_;
  std::vector<uint16_t> dense_;  // for small spaces (ports): index+1 into ranges_ by address
};

// Told of each committed change, range by range, on the committing thread with the vCPUs parked. Removals come first.
class MapObserver {
 public:
  virtual ~MapObserver() = default;
  virtual void range_removed(const FlatRange& range) = 0;
  virtual void range_added(const FlatRange& range) = 0;
  virtual void commit_done() {}  // after the last of one commit: flush TLBs
};

// How an access ended.
enum class AccessResult : uint8_t {
  kOk,
  kUnassigned,  // nothing there for any of its bytes: reads answer all ones, writes go nowhere
};

class AddressSpace {
 public:
  // `size` is 65536 for ports, 2^52 for memory.
  AddressSpace(std::string name, uint64_t size);
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  [[nodiscard]] Region& root() { return *root_; }
  [[nodiscard]] const std::string& name() const { return name_; }

  // True when the tree has changed since the last commit. One atomic load.
  [[nodiscard]] bool stale() const { return stale_.load(std::memory_order_acquire); }
  // Renders and swaps the flat view, tells the observers. The caller has parked whoever must not see a half-changed
  // world (the vCPUs); readers in other threads keep the view they hold.
  void commit();
  // The current view; valid while the guard lives.
  [[nodiscard]] const FlatView& view(const EpochGuard&) const { return *view_.load(std::memory_order_acquire); }

  // A new observer is told of every range that is there already. Observers are not called after remove_observer().
  // They are called with the commit lock held: they must not commit or add and remove observers.
  void add_observer(MapObserver& observer);
  void remove_observer(MapObserver& observer);

  // A CPU's access of 1, 2, 4 or 8 bytes: memory is read or written, trapped regions dispatched, with AccessRule
  // applied, and an access that straddles ranges is split at the border, each part answered by its own range.
  // Unassigned bytes read as 0xff. Writes to ROM are dropped. Takes and drops its own guard.
  AccessResult read(uint64_t address, unsigned size, uint64_t& value);
  AccessResult write(uint64_t address, unsigned size, uint64_t value);
  // The same at one trapped address again and again, for what lies in the span, if the handler there does several at
  // once: the bytes that were moved. With 0 the caller does them one by one.
  size_t read_many(uint64_t address, unsigned size, std::span<uint8_t> to);
  size_t write_many(uint64_t address, unsigned size, std::span<const uint8_t> from);

  [[nodiscard]] std::string dump() const;  // as `info mtree -f` shows it

 private:
  friend class Region;
  friend class FlatViewRenderer;
  AccessResult read_split(const FlatView& view, uint64_t address, unsigned size, uint64_t& value);
  AccessResult write_split(const FlatView& view, uint64_t address, unsigned size, uint64_t value);
  void announce(const FlatView& before, const FlatView& after);
  void mark_stale() { stale_.store(true, std::memory_order_release); }

  std::string name_;
  uint64_t size_;
  std::shared_ptr<Region> root_;
  std::atomic<const FlatView*> view_;
  std::atomic<bool> stale_{true};
  mutable std::mutex commit_mutex_;
  std::vector<MapObserver*> observers_;
};

}  // namespace kite
