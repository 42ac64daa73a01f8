// The block device. [VIRTIO 1.2] 5.2.
#pragma once

#include <cstdint>

namespace kite::devices::virtio_blk {

inline constexpr uint16_t kType = 2;
inline constexpr uint16_t kLegacyDeviceId = 0x1001;
inline constexpr uint32_t kClass = 0x010000;  // SCSI storage, as drivers have always seen it
inline constexpr uint64_t kSector = 512;      // 5.2.4: of capacity and requests, whatever the block size

// 5.2.3
inline constexpr uint64_t kSegMax = 1u << 2, kGeometry = 1u << 4, kReadOnly = 1u << 5, kBlockSize = 1u << 6,
                          kFlush = 1u << 9, kTopology = 1u << 10, kConfigWce = 1u << 11, kMultiQueue = 1u << 12,
                          kDiscard = 1u << 13, kWriteZeroes = 1u << 14;

// 5.2.4
enum Config : uint8_t {
  kCapacity = 0,                 // 64  sectors
  kSizeMax = 8,                  // 32
  kSegMaxAt = 12,                // 32
  kCylinders = 16,               // 16
  kHeads = 18,                   // 8
  kSectors = 19,                 // 8
  kBlkSize = 20,                 // 32
  kPhysicalExponent = 24,        // 8   blocks a physical block, as a power of two
  kAlignmentOffset = 25,         // 8
  kMinIo = 26,                   // 16  blocks
  kOptIo = 28,                   // 32  blocks
  kWriteback = 32,               // 8   rw with CONFIG_WCE
  kNumQueues = 34,               // 16
  kMaxDiscardSectors = 36,       // 32
  kMaxDiscardSegments = 40,      // 32
  kDiscardAlignment = 44,        // 32  sectors
  kMaxWriteZeroesSectors = 48,   // 32
  kMaxWriteZeroesSegments = 52,  // 32
  kWriteZeroesMayUnmap = 56,     // 8
  kConfigBytes = 60,
};

// 5.2.6: u32 type, u32 reserved, u64 sector; data; u8 status.
inline constexpr uint64_t kHeaderBytes = 16, kStatusBytes = 1;
enum Request : uint32_t {
  kIn = 0,
  kOut = 1,
  kFlushRequest = 4,
  kGetId = 8,
  kDiscardRequest = 11,
  kWriteZeroesRequest = 13,
};
inline constexpr uint32_t kBarrier = 0x80000000;  // 5.2.6.5, legacy
enum RequestStatus : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };
inline constexpr uint64_t kIdBytes = 20;

// Of DISCARD and WRITE_ZEROES: u64 sector, u32 sectors, u32 flags.
inline constexpr uint64_t kSegmentBytes = 16;
inline constexpr uint32_t kUnmap = 1;
inline constexpr uint32_t kMostSegments = 32;

}  // namespace kite::devices::virtio_blk
