// The graphics card's two-dimensional half. [VIRTIO 1.2] 5.7. Three-dimensional commands, blobs and contexts belong to
// features that are not offered.
#pragma once

#include <cstdint>

namespace kite::devices::virtio_gpu {

inline constexpr uint16_t kType = 16;
inline constexpr uint32_t kClass = 0x038000;     // a display controller of no kind that PCI knows
inline constexpr uint32_t kVgaClass = 0x030000;  // one that is a VGA, too

enum Queue : uint16_t { kControlQueue = 0, kCursorQueue = 1, kQueues = 2 };  // 5.7.2

inline constexpr uint64_t kEdid = 1u << 1;  // 5.7.3

// 5.7.4
enum Config : uint8_t {
  kEventsRead = 0,   // r-  32  the screen's size never changes: no event
  kEventsClear = 4,  // -w  32
  kNumScanouts = 8,  // r-  32
  kNumCapsets = 12,  // r-  32
  kConfigBytes = 16,
};
inline constexpr uint32_t kScanouts = 1;

// 5.7.6.7
enum Command : uint32_t {
  kGetDisplayInfo = 0x0100,
  kCreate2d = 0x0101,
  kUnref = 0x0102,
  kSetScanout = 0x0103,
  kFlush = 0x0104,
  kTransferToHost2d = 0x0105,
  kAttachBacking = 0x0106,
  kDetachBacking = 0x0107,
  kGetEdid = 0x010a,
  kUpdateCursor = 0x0300,
  kMoveCursor = 0x0301,
};
enum class Response : uint32_t {
  kOk = 0x1100,
  kDisplayInfo = 0x1101,
  kEdid = 0x1104,
  kUnspecified = 0x1200,
  kOutOfMemory = 0x1201,
  kInvalidScanout = 0x1202,
  kInvalidResource = 0x1203,
  kInvalidParameter = 0x1205,
};

struct Header {
  uint32_t type, flags;
  uint64_t fence;
  uint32_t context;
  uint8_t ring;
  uint8_t padding[3];
};
inline constexpr uint32_t kFence = 1u << 0;  // flags

struct Rect {
  uint32_t x, y, width, height;
};

// What follows the header.
struct Create2d {
  uint32_t resource, format, width, height;
};
struct Unref {  // of kDetachBacking, too
  uint32_t resource, padding;
};
struct SetScanout {
  Rect rect;
  uint32_t scanout, resource;
};
struct Flush {
  Rect rect;
  uint32_t resource, padding;
};
struct TransferToHost2d {
  Rect rect;
  uint64_t offset;
  uint32_t resource, padding;
};
struct AttachBacking {  // entries follow: u64 address, u32 bytes, u32 padding
  uint32_t resource, entries;
};
inline constexpr uint64_t kEntryBytes = 16;
struct GetEdid {
  uint32_t scanout, padding;
};
struct Cursor {
  uint32_t scanout = 0, x = 0, y = 0, padding = 0;
  uint32_t resource = 0, hot_x = 0, hot_y = 0, padding2 = 0;  // kUpdateCursor
};

// What follows the header of an answer.
struct DisplayInfo {
  struct Mode {
    Rect rect;
    uint32_t enabled, flags;
  } modes[16];
};
struct Edid {
  uint32_t size, padding;
  uint8_t bytes[1024];
};

static_assert(sizeof(Header) == 24 && sizeof(TransferToHost2d) == 32 && sizeof(Cursor) == 32);
static_assert(sizeof(DisplayInfo) == 384 && sizeof(Edid) == 1032);

// Names of bytes as they follow each other in memory.
enum Format : uint32_t {
  kB8G8R8A8 = 1,
  kB8G8R8X8 = 2,
  kA8R8G8B8 = 3,
  kX8R8G8B8 = 4,
  kR8G8B8A8 = 67,
  kX8B8G8R8 = 68,
  kA8B8G8R8 = 121,
  kR8G8B8X8 = 134,
};
inline constexpr unsigned kPixelBytes = 4;   // of any
inline constexpr uint32_t kCursorSide = 64;  // 5.7.6.10

}  // namespace kite::devices::virtio_gpu
