#include "memory/flat_view_renderer.h"

#include <algorithm>
#include <utility>

#include "support/log.h"

namespace kite {
namespace {

// Deeper nesting can only be an alias of one of its own containers.
constexpr unsigned kMaxDepth = 64;

bool answers(RegionKind kind) { return kind != RegionKind::kContainer && kind != RegionKind::kAlias; }

bool continues(const FlatRange& left, const FlatRange& right) {
  return left.end == right.start && left.region == right.region && left.kind == right.kind &&
         left.read_only == right.read_only && left.doorbells == right.doorbells &&
         left.region_offset + left.size() == right.region_offset;
}

}  // namespace

std::vector<FlatRange> FlatViewRenderer::render(const Region& root, uint64_t size) {
  const std::lock_guard lock(Region::tree_mutex_);
  FlatViewRenderer renderer;
  renderer.visit(root, 0, {.start = 0, .end = size, .read_only = false}, 0);
  renderer.merge();
  return std::move(renderer.ranges_);
}

// Highest first: what is placed early covers what comes later.
void FlatViewRenderer::visit(const Region& region, Wide base, Window window, unsigned depth) {
  if (!region.enabled_) return;
  if (depth > kMaxDepth) {
    log::error("memory region '{}' shows itself through an alias; it is cut off", region.name_);
    return;
  }
  const Wide start = std::max<Wide>(window.start, base);
  const Wide end = std::min<Wide>(window.end, base + region.size_);
  if (start >= end) return;
  window = {.start = static_cast<uint64_t>(start),
            .end = static_cast<uint64_t>(end),
            .read_only = window.read_only || region.read_only_};

  for (auto child = region.children_.rbegin(); child != region.children_.rend(); ++child)
    visit(**child, base + (*child)->offset_, window, depth + 1);
  if (region.kind_ == RegionKind::kAlias)
    visit(*region.alias_target_, base - Wide{region.alias_offset_}, window, depth + 1);
  else if (answers(region.kind_))
    place(region, base, window);
}

// Fills what is still free of the window with the region.
void FlatViewRenderer::place(const Region& region, Wide base, const Window& window) {
  const bool memory = region.block_ != nullptr;
  auto at = std::ranges::upper_bound(ranges_, window.start, {}, &FlatRange::end);
  for (uint64_t address = window.start; address < window.end;) {
    const uint64_t free_end = at == ranges_.end() ? window.end : std::min(at->start, window.end);
    if (address < free_end) {
      FlatRange range{.start = address,
                      .end = free_end,
                      .region = region.shared_from_this(),
                      .region_offset = static_cast<uint64_t>(address - base),
                      .kind = region.kind_,
                      .read_only = memory && window.read_only,
                      .doorbells = region.doorbells_};
      at = std::next(ranges_.insert(at, std::move(range)));
    }
    if (at == ranges_.end()) return;
    address = at->end;
    ++at;
  }
}

void FlatViewRenderer::merge() {
  std::vector<FlatRange> merged;
  for (FlatRange& range : ranges_) {
    if (!merged.empty() && continues(merged.back(), range))
      merged.back().end = range.end;
    else
      merged.push_back(std::move(range));
  }
  ranges_ = std::move(merged);
}

}  // namespace kite
