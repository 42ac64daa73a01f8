#include "memory/region.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "memory/address_space.h"

namespace kite {
namespace {

// Deeper nesting can only be an alias of one of its own containers.
constexpr unsigned kMaxDepth = 64;

uint64_t next_addition() {
  static std::atomic<uint64_t> counter{0};
  return ++counter;
}

}  // namespace

std::mutex Region::tree_mutex_;

std::shared_ptr<Region> Region::container(std::string name, uint64_t size) {
  return std::shared_ptr<Region>(new Region(std::move(name), RegionKind::kContainer, size));
}

std::shared_ptr<Region> Region::ram(std::string name, std::shared_ptr<RamBlock> block) {
  std::shared_ptr<Region> region(new Region(std::move(name), RegionKind::kRam, block->size()));
  region->block_ = std::move(block);
  return region;
}

std::shared_ptr<Region> Region::rom(std::string name, std::shared_ptr<RamBlock> block) {
  std::shared_ptr<Region> region(new Region(std::move(name), RegionKind::kRom, block->size()));
  region->block_ = std::move(block);
  region->read_only_ = true;
  return region;
}

std::shared_ptr<Region> Region::rom_device(std::string name, std::shared_ptr<RamBlock> block, IoHandler& handler,
                                           AccessRule rule) {
  std::shared_ptr<Region> region = rom(std::move(name), std::move(block));
  region->handler_ = &handler;
  region->rule_ = rule;
  return region;
}

std::shared_ptr<Region> Region::ram_device(std::string name, std::shared_ptr<RamBlock> block) {
  std::shared_ptr<Region> region(new Region(std::move(name), RegionKind::kRamDevice, block->size()));
  region->block_ = std::move(block);
  return region;
}

std::shared_ptr<Region> Region::io(std::string name, uint64_t size, IoHandler& handler, AccessRule rule) {
  std::shared_ptr<Region> region(new Region(std::move(name), RegionKind::kIo, size));
  region->handler_ = &handler;
  region->rule_ = rule;
  return region;
}

std::shared_ptr<Region> Region::coalesced(std::string name, uint64_t size, IoHandler& handler, AccessRule rule) {
  std::shared_ptr<Region> region(new Region(std::move(name), RegionKind::kCoalesced, size));
  region->handler_ = &handler;
  region->rule_ = rule;
  return region;
}

std::shared_ptr<Region> Region::alias(std::string name, std::shared_ptr<Region> target, uint64_t offset,
                                      uint64_t size) {
  std::shared_ptr<Region> region(new Region(std::move(name), RegionKind::kAlias, size));
  region->alias_offset_ = offset;
  const std::lock_guard lock(tree_mutex_);
  target->aliases_.push_back(region.get());
  region->alias_target_ = std::move(target);
  return region;
}

Region::~Region() {
  const std::lock_guard lock(tree_mutex_);
  for (const auto& child : children_) child->parent_ = nullptr;
  if (alias_target_ != nullptr) std::erase(alias_target_->aliases_, this);
}

void Region::add(uint64_t offset, std::shared_ptr<Region> child, int priority) {
  const std::lock_guard lock(tree_mutex_);
  if (child->parent_ != nullptr || child.get() == this) return;
  child->parent_ = this;
  child->offset_ = offset;
  child->priority_ = priority;
  child->added_ = next_addition();
  children_.push_back(std::move(child));
  sort_children();
  changed();
}

void Region::remove(const std::shared_ptr<Region>& child) {
  std::shared_ptr<Region> removed;  // dies after the lock is dropped
  const std::lock_guard lock(tree_mutex_);
  const auto at = std::ranges::find(children_, child);
  if (at == children_.end()) return;
  removed = std::move(*at);
  children_.erase(at);
  removed->parent_ = nullptr;
  changed();
}

void Region::set_offset(uint64_t offset) {
  const std::lock_guard lock(tree_mutex_);
  if (std::exchange(offset_, offset) != offset) changed();
}

void Region::set_enabled(bool enabled) {
  const std::lock_guard lock(tree_mutex_);
  if (std::exchange(enabled_, enabled) != enabled) changed();
}

void Region::set_priority(int priority) {
  const std::lock_guard lock(tree_mutex_);
  if (std::exchange(priority_, priority) == priority) return;
  if (parent_ != nullptr) parent_->sort_children();
  changed();
}

void Region::set_alias_offset(uint64_t offset) {
  const std::lock_guard lock(tree_mutex_);
  if (std::exchange(alias_offset_, offset) != offset) changed();
}

void Region::set_read_only(bool read_only) {
  const std::lock_guard lock(tree_mutex_);
  if (std::exchange(read_only_, read_only) != read_only) changed();
}

void Region::add_doorbell(const DoorbellSpot& spot) {
  const std::lock_guard lock(tree_mutex_);
  auto spots = doorbells_ == nullptr ? std::make_shared<DoorbellSpots>() : std::make_shared<DoorbellSpots>(*doorbells_);
  spots->push_back(spot);
  doorbells_ = std::move(spots);
  changed();
}

void Region::remove_doorbell(const DoorbellSpot& spot) {
  const std::lock_guard lock(tree_mutex_);
  if (doorbells_ == nullptr) return;
  auto spots = std::make_shared<DoorbellSpots>(*doorbells_);
  const auto at = std::ranges::find(*spots, spot);
  if (at == spots->end()) return;
  spots->erase(at);
  doorbells_ = spots->empty() ? nullptr : std::move(spots);
  changed();
}

uint64_t Region::offset() const {
  const std::lock_guard lock(tree_mutex_);
  return offset_;
}

bool Region::enabled() const {
  const std::lock_guard lock(tree_mutex_);
  return enabled_;
}

void Region::sort_children() {
  std::ranges::sort(children_, {}, [](const auto& child) { return std::tuple(child->priority_, child->added_); });
}

void Region::changed() { mark_spaces_stale(0); }

void Region::mark_spaces_stale(unsigned depth) {
  if (depth > kMaxDepth) return;
  if (space_ != nullptr) space_->mark_stale();
  if (parent_ != nullptr) parent_->mark_spaces_stale(depth + 1);
  for (Region* const alias : aliases_) alias->mark_spaces_stale(depth + 1);
}

}  // namespace kite
