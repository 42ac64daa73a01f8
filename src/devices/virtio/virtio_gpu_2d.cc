#include "devices/virtio/virtio_gpu_2d.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/virtio/state_bytes.h"

namespace kite::devices {

using namespace virtio_gpu;  // NOLINT: the protocol

namespace {

bool is_format(uint32_t format) {
  switch (format) {
    case kB8G8R8A8:
    case kB8G8R8X8:
    case kA8R8G8B8:
    case kX8R8G8B8:
    case kR8G8B8A8:
    case kX8B8G8R8:
    case kA8B8G8R8:
    case kR8G8B8X8: return true;
    default: return false;
  }
}

// Some of a picture of this size.
bool lies_in(const virtio_gpu::Rect& rect, uint32_t width, uint32_t height) {
  return rect.width <= width && rect.x <= width - rect.width && rect.height <= height && rect.y <= height - rect.height;
}

}  // namespace

// --- memory behind a resource

Gpu2d::Backing::Backing(std::vector<SgEntry> entries) : attached_(true), entries_(std::move(entries)) {
  uint64_t end = 0;
  ends_.reserve(entries_.size());
  for (const SgEntry& entry : entries_) ends_.push_back(end += entry.bytes);
}

Result<> Gpu2d::Backing::read(const GuestMemory& memory, uint64_t offset, std::span<uint8_t> to) const {
  auto index = static_cast<size_t>(std::ranges::upper_bound(ends_, offset) - ends_.begin());
  for (; !to.empty(); ++index) {
    const SgEntry& entry = entries_[index];
    const uint64_t skipped = offset - (ends_[index] - entry.bytes);
    const auto here = static_cast<size_t>(std::min<uint64_t>(entry.bytes - skipped, to.size()));
    KITE_TRY(memory.read(entry.address + skipped, to.first(here)));
    to = to.subspan(here);
    offset += here;
  }
  return {};
}

// --- resources

Gpu2d::Resource* Gpu2d::find(uint32_t id) {
  const auto at = resources_.find(id);
  return at == resources_.end() ? nullptr : &at->second;
}

// Without pixels.
std::optional<Gpu2d::Resource> Gpu2d::make_resource(const Create2d& command) {
  const auto& [id, format, width, height] = command;
  if (id == 0 || !is_format(format) || width - 1 >= kMostSide || height - 1 >= kMostSide) return {};
  return Resource{.format = format, .width = width, .height = height, .pixels = nullptr, .backing = {}};
}

Response Gpu2d::create(const Create2d& command) {
  if (command.resource == 0 || find(command.resource) != nullptr) return Response::kInvalidResource;
  auto made = make_resource(command);
  if (!made) return Response::kInvalidParameter;
  const uint64_t cost = made->bytes() + kResourceBytes;
  if (cost > limit_ - used_) return Response::kOutOfMemory;
  made->pixels.reset(static_cast<uint8_t*>(std::calloc(made->bytes(), 1)));
  if (made->pixels == nullptr) return Response::kOutOfMemory;
  used_ += cost;
  resources_.emplace(command.resource, std::move(*made));
  return Response::kOk;
}

Response Gpu2d::unref(uint32_t id) {
  const auto at = resources_.find(id);
  if (at == resources_.end()) return Response::kInvalidResource;
  used_ -= at->second.bytes() + kResourceBytes + at->second.backing.cost();
  resources_.erase(at);
  if (screen_.resource == id) {
    screen_.resource = 0;
    screen_.rect = {};
    stale_ = true;
  }
  return Response::kOk;
}

Response Gpu2d::attach(uint32_t id, std::vector<SgEntry> entries) {
  Resource* const resource = find(id);
  if (resource == nullptr) return Response::kInvalidResource;
  if (resource->backing.attached() || entries.size() > kMostEntries) return Response::kUnspecified;
  std::erase_if(entries, [](const SgEntry& entry) { return entry.bytes == 0; });
  Backing backing(std::move(entries));
  if (backing.cost() > limit_ - used_) return Response::kOutOfMemory;
  // The driver hears at once that something is no memory.
  if (!SgBuffer::pin(*memory_, backing.entries(), DmaDirection::kFromGuest)) return Response::kUnspecified;
  used_ += backing.cost();
  resource->backing = std::move(backing);
  return Response::kOk;
}

Response Gpu2d::detach(uint32_t id) {
  Resource* const resource = find(id);
  if (resource == nullptr) return Response::kInvalidResource;
  if (!resource->backing.attached()) return Response::kUnspecified;
  used_ -= resource->backing.cost();
  resource->backing = {};
  return Response::kOk;
}

// 5.7.6.7: `offset` is where the rectangle's first pixel lies; rows are as far apart as the resource's are.
Response Gpu2d::transfer(const TransferToHost2d& command) {
  Resource* const resource = find(command.resource);
  if (resource == nullptr) return Response::kInvalidResource;
  const Backing& backing = resource->backing;
  if (!backing.attached()) return Response::kUnspecified;
  const virtio_gpu::Rect& rect = command.rect;
  if (!lies_in(rect, resource->width, resource->height)) return Response::kInvalidParameter;
  if (rect.width == 0 || rect.height == 0) return Response::kOk;
  const uint64_t pitch = resource->pitch(), row = uint64_t{rect.width} * kPixelBytes;
  const uint64_t bytes = (rect.height - 1) * pitch + row;
  if (bytes > backing.bytes() || command.offset > backing.bytes() - bytes) return Response::kInvalidParameter;
  moved_ += bytes;
  uint8_t* const to = resource->pixels.get() + rect.y * pitch + uint64_t{rect.x} * kPixelBytes;
  if (row == pitch) return backing.read(*memory_, command.offset, {to, bytes}) ? Response::kOk : Response::kUnspecified;
  for (uint64_t y = 0; y < rect.height; ++y)
    if (!backing.read(*memory_, command.offset + y * pitch, {to + y * pitch, row})) return Response::kUnspecified;
  return Response::kOk;
}

// --- the screen

bool Gpu2d::scanout_fits(uint32_t id, const virtio_gpu::Rect& rect) {
  const Resource* const resource = find(id);
  return resource != nullptr && rect.width != 0 && rect.height != 0 && lies_in(rect, resource->width, resource->height);
}

Response Gpu2d::set_scanout(const SetScanout& command) {
  if (command.scanout >= kScanouts) return Response::kInvalidScanout;
  if (command.resource != 0) {
    if (find(command.resource) == nullptr) return Response::kInvalidResource;
    if (!scanout_fits(command.resource, command.rect)) return Response::kInvalidParameter;
  }
  screen_.in_charge = true;
  screen_.resource = command.resource;
  screen_.rect = command.resource != 0 ? command.rect : virtio_gpu::Rect{};
  stale_ = true;
  return Response::kOk;
}

Response Gpu2d::flush(const Flush& command) {
  const Resource* const resource = find(command.resource);
  if (resource == nullptr) return Response::kInvalidResource;
  const virtio_gpu::Rect& rect = command.rect;
  if (!lies_in(rect, resource->width, resource->height)) return Response::kInvalidParameter;
  if (screen_.resource != command.resource) return Response::kOk;
  const virtio_gpu::Rect& shown = screen_.rect;
  const uint32_t x = std::max(rect.x, shown.x), y = std::max(rect.y, shown.y);
  const uint32_t right = std::min(rect.x + rect.width, shown.x + shown.width);
  const uint32_t bottom = std::min(rect.y + rect.height, shown.y + shown.height);
  if (x < right && y < bottom) damage({x - shown.x, y - shown.y, right - x, bottom - y});
  return Response::kOk;
}

// --- the cursor

void Gpu2d::place_cursor(const Cursor& command) {
  damage(cursor_rect());
  screen_.cursor_x = static_cast<int32_t>(command.x);
  screen_.cursor_y = static_cast<int32_t>(command.y);
}

void Gpu2d::move_cursor(const Cursor& command) {
  if (command.scanout >= kScanouts) return;
  place_cursor(command);
  damage(cursor_rect());
}

// What is drawn is what the resource holds now.
void Gpu2d::update_cursor(const Cursor& command) {
  if (command.scanout >= kScanouts) return;
  place_cursor(command);
  if (command.resource == 0) {
    screen_.cursor.clear();
    return;
  }
  const Resource* const resource = find(command.resource);
  if (resource != nullptr && resource->width == kCursorSide && resource->height == kCursorSide) {
    screen_.cursor.resize(size_t{kCursorSide} * kCursorSide);
    pixels_of(*resource, 0, 0, screen_.cursor);
  }
  damage(cursor_rect());
}

// --- saved state

std::vector<uint8_t> Gpu2d::save() const {
  StateBytes to;
  const auto& [in_charge, resource, rect, cursor_x, cursor_y, cursor] = screen_;
  to.put(in_charge, resource, rect, cursor_x, cursor_y, static_cast<uint32_t>(cursor.size()));
  to.append(cursor.data(), cursor.size() * sizeof cursor[0]);
  to.put(static_cast<uint32_t>(resources_.size()));
  for (const auto& [id, kept] : resources_) {
    const std::span<const SgEntry> entries = kept.backing.entries();
    to.put(id, kept.format, kept.width, kept.height, kept.backing.attached(), static_cast<uint32_t>(entries.size()));
    to.put_list(entries);
    to.append(kept.pixels.get(), kept.bytes());
  }
  return std::move(to.bytes);
}

bool Gpu2d::restore(std::span<const uint8_t> bytes) {
  StateCut from(bytes);
  auto& [in_charge, shown, rect, cursor_x, cursor_y, cursor] = screen_;
  uint8_t charge = 0, attached = 0;
  uint32_t cursor_pixels = 0, count = 0, entries = 0;
  from.get(charge, shown, rect, cursor_x, cursor_y, cursor_pixels);
  if (charge > 1 || (cursor_pixels != 0 && cursor_pixels != kCursorSide * kCursorSide)) return false;
  in_charge = charge != 0;
  cursor.resize(cursor_pixels);
  const auto image = from.take_bytes(cursor_pixels * sizeof cursor[0]);
  if (!image.empty()) std::memcpy(cursor.data(), image.data(), image.size());
  from.get(count);
  for (; count != 0 && from.good(); --count) {
    Create2d made{};
    from.get(made.resource, made.format, made.width, made.height, attached, entries);
    if (!from.good() || create(made) != Response::kOk) return false;
    if (attached > 1 || entries > (attached != 0 ? kMostEntries : 0)) return false;
    Resource& resource = resources_[made.resource];
    std::vector<SgEntry> list;
    uint64_t total = 0;
    if (!from.get_list(entries, list, total)) return false;
    if (attached != 0) resource.backing = Backing(std::move(list));
    if (resource.backing.cost() > limit_ - used_) return false;
    used_ += resource.backing.cost();
    const auto pixels = from.take_bytes(resource.bytes());
    if (!pixels.empty()) std::memcpy(resource.pixels.get(), pixels.data(), pixels.size());
  }
  if (!from.good() || !from.empty()) return false;
  const bool off = shown == 0 && rect.width == 0 && rect.height == 0 && rect.x == 0 && rect.y == 0;
  return off || (in_charge && scanout_fits(shown, rect));
}

}  // namespace kite::devices
