#include "gdb/points.h"

#include <algorithm>
#include <bit>

namespace kite::gdb {

namespace {

using Watch = GuestDebug::Watch;

constexpr uint8_t kInt3 = 0xcc;

Watch::Kind watch_kind(PointKind kind) {
  switch (kind) {
    case PointKind::kWrite: return Watch::Kind::kWrite;
    case PointKind::kRead: return Watch::Kind::kRead;
    case PointKind::kAccess: return Watch::Kind::kAccess;
    default: return Watch::Kind::kExecute;
  }
}

bool is_watch(PointKind kind) { return kind > PointKind::kHardware; }

}  // namespace

std::vector<Points::Point>::iterator Points::find(PointKind kind, uint64_t address, uint64_t bytes) {
  return std::ranges::find_if(points_, [&](const Point& point) {
    return point.kind == kind && point.address == address && (!is_watch(kind) || point.bytes == bytes);
  });
}

// Breakpoints come with a length too, which says how wide the instruction of other architectures is.
Points::Outcome Points::judge(PointKind kind, uint64_t address, uint64_t bytes) const {
  const DebugLimits limits = machine_.accelerator().debug_limits();
  if (points_.size() >= kMost) return Outcome::kFailed;
  if (is_watch(kind) && (bytes == 0 || bytes > kMostWatched)) return Outcome::kFailed;
  if (kind == PointKind::kRead && !limits.any_watch) return Outcome::kUnsupported;
  if (kind == PointKind::kSoftware) return Outcome::kDone;
  const auto used =
      std::ranges::count_if(points_, [](const Point& point) { return point.kind != PointKind::kSoftware; });
  if (static_cast<size_t>(used) >= limits.watches) return Outcome::kFailed;
  const bool fits = bytes <= 8 && std::has_single_bit(bytes) && (address & (bytes - 1)) == 0;
  return !is_watch(kind) || limits.any_watch || fits ? Outcome::kDone : Outcome::kFailed;
}

// The page is the one that is mapped there now, wherever it is mapped later on.
bool Points::cover(size_t vcpu, Point& point) {
  const std::optional<Gpa> physical = view_.translate(vcpu, point.address);
  if (!physical || !view_.read_physical(vcpu, *physical, point.covered)) return false;
  if (!view_.write_physical(vcpu, *physical, kInt3)) return false;
  point.physical = physical;
  return true;
}

// What the guest has written there since stays.
void Points::uncover(size_t vcpu, const Point& point) {
  uint8_t now = 0;
  if (point.physical && view_.read_physical(vcpu, *point.physical, now) && now == kInt3)
    view_.write_physical(vcpu, *point.physical, point.covered);
}

Points::Outcome Points::insert(size_t vcpu, PointKind kind, uint64_t address, uint64_t bytes) {
  if (find(kind, address, bytes) != points_.end()) return Outcome::kDone;
  if (const Outcome outcome = judge(kind, address, bytes); outcome != Outcome::kDone) return outcome;
  Point point{.kind = kind, .address = address, .bytes = bytes};
  const bool int3 = kind == PointKind::kSoftware && machine_.accelerator().debug_limits().int3;
  if (int3 && !cover(vcpu, point)) return Outcome::kFailed;
  points_.push_back(point);
  return Outcome::kDone;
}

Points::Outcome Points::remove(size_t vcpu, PointKind kind, uint64_t address, uint64_t bytes) {
  const auto found = find(kind, address, bytes);
  if (found == points_.end()) return Outcome::kFailed;
  uncover(vcpu, *found);
  points_.erase(found);
  return Outcome::kDone;
}

// The last comes off first, as they may lie over each other.
void Points::remove_all(size_t vcpu) {
  for (; !points_.empty(); points_.pop_back()) uncover(vcpu, points_.back());
}

GuestDebug Points::wishes() const {
  GuestDebug wishes;
  for (const Point& point : points_) {
    if (point.kind == PointKind::kSoftware)
      wishes.breakpoints.push_back(point.address);
    else
      wishes.watches.push_back(
          {.kind = watch_kind(point.kind), .address = point.address, .bytes = is_watch(point.kind) ? point.bytes : 1});
  }
  return wishes;
}

Points::Watched Points::watched(size_t number) const {
  for (const Point& point : points_)
    if (point.kind != PointKind::kSoftware && number-- == 0) return {.kind = point.kind, .address = point.address};
  return {.kind = PointKind::kHardware, .address = 0};
}

bool Points::has_hardware(uint64_t address) const {
  return std::ranges::any_of(points_, [address](const Point& point) {
    return point.kind == PointKind::kHardware && point.address == address;
  });
}

}  // namespace kite::gdb
