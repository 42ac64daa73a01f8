// What virtio-gpu's commands work on: resources, the scanout, the cursor, and the picture that these make. No queue, no
// lock: one thread. [VIRTIO 1.2] 5.7.6.
//
// Numbers are a guest's. What its resources take of the host is counted, their lists of memory and what keeping them
// costs included, and stays below a limit. A resource's memory is reached for only while it is transferred from.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/storage/sg_buffer.h"
#include "devices/virtio/virtio_gpu_regs.h"
#include "display/console.h"
#include "memory/guest_memory.h"

namespace kite::devices {

class Gpu2d {
 public:
  using Response = virtio_gpu::Response;
  static constexpr uint32_t kMostSide = display::Surface::kMostSide;
  static constexpr uint32_t kMostEntries = 16384;  // of a resource's memory
  static constexpr uint64_t kResourceBytes = 512;  // that a resource counts besides its pixels
  static constexpr size_t kMostRects = display::Surface::kMostRects;

  Gpu2d(GuestMemory& memory, uint64_t limit) : memory_(&memory), limit_(limit) {}

  // The commands. What is refused changes nothing.
  Response create(const virtio_gpu::Create2d& command);
  Response unref(uint32_t id);
  Response attach(uint32_t id, std::vector<SgEntry> entries);
  Response detach(uint32_t id);
  Response transfer(const virtio_gpu::TransferToHost2d& command);
  Response set_scanout(const virtio_gpu::SetScanout& command);
  Response flush(const virtio_gpu::Flush& command);
  // These have no answer.
  void update_cursor(const virtio_gpu::Cursor& command);
  void move_cursor(const virtio_gpu::Cursor& command);

  [[nodiscard]] uint64_t used() const { return used_; }    // bytes of the host
  [[nodiscard]] uint64_t moved() const { return moved_; }  // bytes, so far
  // A scanout was set once: the driver is in charge of the screen.
  [[nodiscard]] bool in_charge() const { return screen_.in_charge; }

  // As display::Source has them.
  display::Mode draw(display::Surface& surface, bool all);
  void watched(bool on);

  // All of it as bytes. restore() wants an object that is new; false: what they say is impossible, and the object is of
  // no use.
  [[nodiscard]] std::vector<uint8_t> save() const;
  [[nodiscard]] bool restore(std::span<const uint8_t> bytes);

 private:
  // Memory of the guest's that a resource is filled from.
  class Backing {
   public:
    Backing() = default;
    explicit Backing(std::vector<SgEntry> entries);
    [[nodiscard]] bool attached() const { return attached_; }
    [[nodiscard]] uint64_t bytes() const { return ends_.empty() ? 0 : ends_.back(); }
    [[nodiscard]] uint64_t cost() const { return entries_.size() * (sizeof(SgEntry) + sizeof(uint64_t)); }
    [[nodiscard]] std::span<const SgEntry> entries() const { return entries_; }
    // Bytes [offset, offset+size), which lie within.
    Result<> read(const GuestMemory& memory, uint64_t offset, std::span<uint8_t> to) const;

   private:
    bool attached_ = false;
    std::vector<SgEntry> entries_;
    std::vector<uint64_t> ends_;  // how many bytes each ends at
  };
  struct Free {
    void operator()(uint8_t* pixels) const { std::free(pixels); }
  };
  struct Resource {
    uint32_t format = 0, width = 0, height = 0;
    std::unique_ptr<uint8_t[], Free> pixels;  // those that nobody has written cost no memory
    Backing backing;
    [[nodiscard]] uint64_t pitch() const { return uint64_t{width} * virtio_gpu::kPixelBytes; }
    [[nodiscard]] uint64_t bytes() const { return pitch() * height; }
  };
  struct Screen {
    bool in_charge = false;
    uint32_t resource = 0;  // 0: the screen is off
    virtio_gpu::Rect rect{};
    int32_t cursor_x = 0, cursor_y = 0;
    std::vector<uint32_t> cursor;  // kCursorSide by kCursorSide, ARGB, premultiplied; empty: none is shown
  };

  static std::optional<Resource> make_resource(const virtio_gpu::Create2d& command);
  // Pixels of a row from (x, y) on, as ARGB; formats without an alpha are opaque.
  static void pixels_of(const Resource& resource, uint32_t x, uint32_t y, std::span<uint32_t> to);
  [[nodiscard]] Resource* find(uint32_t id);
  [[nodiscard]] bool scanout_fits(uint32_t id, const virtio_gpu::Rect& rect);
  void place_cursor(const virtio_gpu::Cursor& command);
  [[nodiscard]] display::Rect cursor_rect() const;  // what of the screen it covers
  void damage(const display::Rect& rect);
  void draw_rect(const Resource& resource, const display::Rect& rect, display::Surface& surface);
  void blend_cursor(const display::Rect& cursor, uint32_t x, uint32_t y);

  GuestMemory* memory_;
  uint64_t limit_;

  // State.
  std::map<uint32_t, Resource> resources_;
  Screen screen_;

  // Follows from it, or from who looks.
  uint64_t used_ = 0;
  uint64_t moved_ = 0;
  bool watched_ = false;
  bool stale_ = true;  // what was drawn last is no longer what there is
  std::vector<display::Rect> damage_;
  std::vector<uint32_t> line_;  // scratch
};

}  // namespace kite::devices
