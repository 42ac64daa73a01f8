// The VM's memory slots: they follow the flat map of the guest-physical space, one slot for each stretch of memory that
// lies contiguous in the guest and in the host. Memory that does not begin and end at pages, and what KVM has no slot
// for, stays without one: the guest's accesses then exit and are answered by the map itself.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "accel/kvm/kvm_calls.h"
#include "memory/address_space.h"

namespace kite {

class KvmMemorySlots final : public MapObserver, private RamBlock::DirtySource {
 public:
  struct Config {
    uint32_t slots = 32;          // KVM_CAP_NR_MEMSLOTS
    bool clears_by_hand = false;  // KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 is on: a read log is cleared separately
    bool rings = false;           // dirty pages come through rings, not through KVM_GET_DIRTY_LOG
  };
  KvmMemorySlots(const KvmFd& vm, Config config);
  ~KvmMemorySlots() override;

  // MapObserver: vCPUs are parked.
  void range_removed(const FlatRange& range) override;
  void range_added(const FlatRange& range) override;
  void commit_done() override;

  // With `rings`: makes the vCPUs' rings be read, which calls page_written() for every entry.
  void set_ring_reader(std::function<void()> reader) { read_rings_ = std::move(reader); }
  // A ring's entry. Any thread; a slot that is gone or an offset beyond it is ignored.
  void page_written(uint32_t slot, uint64_t page);

  // The first error since the last call; the slot that met it is missing.
  [[nodiscard]] std::optional<Error> take_error();
  [[nodiscard]] size_t count() const;

 private:
  struct Stretch {
    Gpa start = 0;
    uint64_t bytes = 0;
    std::shared_ptr<RamBlock> block;
    uint64_t block_offset = 0;
    bool read_only = false;
    bool operator==(const Stretch&) const = default;
  };
  struct Slot {
    uint32_t id = 0;
    Stretch stretch;
    bool logged = false;
  };

  void dirty_logging_changed(RamBlock& block, bool on) override;
  void report_dirty(RamBlock& block) override;

  [[nodiscard]] std::vector<Stretch> wanted() const;
  // Callers hold mutex_.
  void remove_slot(const Slot& slot);
  void add_slot(const Stretch& stretch);
  int set_region(const Slot& slot, uint64_t bytes);
  void fetch_log(const Slot& slot);
  void update_sources(const std::vector<std::shared_ptr<RamBlock>>& blocks);

  const KvmFd& vm_;
  Config config_;
  std::function<void()> read_rings_;
  // Of the committing thread.
  std::map<Gpa, FlatRange> ranges_;
  bool changed_ = false;
  std::vector<std::shared_ptr<RamBlock>> blocks_;  // those that this is a source for

  // Order: a RamBlock's log, then this.
  mutable std::mutex mutex_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_ids_;
  std::optional<Error> error_;
};

}  // namespace kite
