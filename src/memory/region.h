// The tree that describes an address space: regions with an offset in their container, a priority and an enable. It is
// only a description; AddressSpace renders it to an immutable FlatView, and only that is looked up.
//
// Changing the tree (add, remove, set_offset, set_enabled, set_priority, set_alias_offset, set_read_only) marks every
// AddressSpace above it as stale. The change shows when the space is committed: at once while the machine is built, and
// through the dispatcher (Machine::apply_map_changes) while it runs. Tree changes are serialized by one process-wide
// lock inside; they may be made with a device's lock held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "memory/doorbell.h"
#include "memory/guest_types.h"
#include "memory/ram_block.h"

namespace kite {

class AddressSpace;

// What answers accesses to trapped memory and ports. Called without any lock of the memory system; the device takes its
// own. `offset` is within the region, `size` 1, 2, 4 or 8 and inside AccessRule's bounds; reads answer zero-extended.
class IoHandler {
 public:
  virtual ~IoHandler() = default;
  virtual uint64_t io_read(uint64_t offset, unsigned size) = 0;
  virtual void io_write(uint64_t offset, unsigned size, uint64_t value) = 0;
  // As io_read() and io_write() of `size` bytes at this one place, again and again until the span is used up, for
  // handlers that move several at once: answers the bytes that were moved, perhaps none.
  virtual size_t io_read_many(uint64_t offset, unsigned size, std::span<uint8_t> to) {
    return (void)offset, (void)size, (void)to, 0;
  }
  virtual size_t io_write_many(uint64_t offset, unsigned size, std::span<const uint8_t> from) {
    return (void)offset, (void)size, (void)from, 0;
  }
};

// Which access sizes the handler implements. Wider accesses are split into `max_size` pieces, low address first, as a
// bus bridge does. Narrower ones become one aligned access of `min_size`: a read is shifted into place, a write carries
// its bytes in their lanes and zeros in the others. `unaligned` says the handler takes accesses that are not aligned to
// their size; otherwise they are split into aligned ones. All three are powers of two, min_size <= max_size <= 8, and
// the region's size is a multiple of min_size.
struct AccessRule {
  uint8_t min_size = 1;
  uint8_t max_size = 4;
  bool unaligned = false;
};

enum class RegionKind : uint8_t {
  kContainer,  // only holds others
  kRam,        // guest RAM
  kRom,        // reads hit memory; writes are dropped, or call the handler when there is one (flash)
  kRamDevice,  // RAM-like device memory (a frame buffer): mapped, never trapped, usually dirty-logged
  kIo,         // every access calls the handler
  kCoalesced,  // as kIo, but writes may queue in a ring that is drained before the next trapped access and on a timer
  kAlias,      // a window into another region
};

class Region : public std::enable_shared_from_this<Region> {
 public:
  static std::shared_ptr<Region> container(std::string name, uint64_t size);
  static std::shared_ptr<Region> ram(std::string name, std::shared_ptr<RamBlock> block);
  static std::shared_ptr<Region> rom(std::string name, std::shared_ptr<RamBlock> block);
  // ROM whose writes reach the handler (the command writes of a flash chip).
  static std::shared_ptr<Region> rom_device(std::string name, std::shared_ptr<RamBlock> block, IoHandler& handler,
                                            AccessRule rule = {});
  static std::shared_ptr<Region> ram_device(std::string name, std::shared_ptr<RamBlock> block);
  // The handler outlives the region's presence in any committed map.
  static std::shared_ptr<Region> io(std::string name, uint64_t size, IoHandler& handler, AccessRule rule = {});
  static std::shared_ptr<Region> coalesced(std::string name, uint64_t size, IoHandler& handler, AccessRule rule = {});
  // [offset, offset+size) of `target` shown at this region's place.
  static std::shared_ptr<Region> alias(std::string name, std::shared_ptr<Region> target, uint64_t offset,
                                       uint64_t size);
  ~Region();

  // Places `child`, which is in no container, at `offset`; what reaches over the end of this region is not shown. A
  // region with children and an answer of its own (RAM, I/O) shows through where they leave gaps. Where children
  // overlap the higher priority wins; among equals the later added.
  void add(uint64_t offset, std::shared_ptr<Region> child, int priority = 0);
  void remove(const std::shared_ptr<Region>& child);
  void set_offset(uint64_t offset);  // within the container it is in
  void set_enabled(bool enabled);
  void set_priority(int priority);
  void set_alias_offset(uint64_t offset);  // kAlias only
  // Shows RAM as ROM or the reverse (PAM); on an alias it applies to what is seen through the alias.
  void set_read_only(bool read_only);
  // Regions with a handler. A doorbell takes the writes that ring it away from the handler from the next commit on.
  void add_doorbell(const DoorbellSpot& spot);
  void remove_doorbell(const DoorbellSpot& spot);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] RegionKind kind() const { return kind_; }
  [[nodiscard]] uint64_t offset() const;
  [[nodiscard]] bool enabled() const;
  [[nodiscard]] const std::shared_ptr<RamBlock>& block() const { return block_; }
  [[nodiscard]] IoHandler* handler() const { return handler_; }
  [[nodiscard]] AccessRule rule() const { return rule_; }

 private:
  friend class AddressSpace;
  friend class FlatViewRenderer;
  Region(std::string name, RegionKind kind, uint64_t size) : name_(std::move(name)), kind_(kind), size_(size) {}
  // The functions below need tree_mutex_.
  void changed();
  void mark_spaces_stale(unsigned depth);
  void sort_children();

  static std::mutex tree_mutex_;  // guards the tree links and every member below that is not constant

  std::string name_;
  RegionKind kind_;
  uint64_t size_;
  uint64_t offset_ = 0;
  int priority_ = 0;
  bool enabled_ = true;
  bool read_only_ = false;
  IoHandler* handler_ = nullptr;
  AccessRule rule_{};
  std::shared_ptr<const DoorbellSpots> doorbells_;  // null when there are none; replaced, never changed
  std::shared_ptr<RamBlock> block_;
  std::shared_ptr<Region> alias_target_;
  uint64_t alias_offset_ = 0;
  Region* parent_ = nullptr;
  uint64_t added_ = 0;                             // order among siblings of one priority
  AddressSpace* space_ = nullptr;                  // of a root
  std::vector<Region*> aliases_;                   // the aliases that show this region
  std::vector<std::shared_ptr<Region>> children_;  // sorted: later added and higher priority last
};

}  // namespace kite
