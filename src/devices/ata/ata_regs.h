// The registers and commands of ATA and ATAPI devices. [ATA8-ACS] T13/1699-D revision 4a (clauses below), [ATA8-APT]
// for the parallel bus, [ATA-4] T13/1153-D for what has been retired since, [SFF-8020i] for older ATAPI.
#pragma once

#include <array>
#include <cstdint>

namespace kite::devices::ata {

inline constexpr uint32_t kSectorBytes = 512;

// The command block. A register written twice keeps what was in it (`hob`, "high order byte"): how 48-bit commands get
// their parameters. [ATA8-APT] 6.2.
struct Register {
  uint8_t value = 0, hob = 0;
  void write(uint8_t written) {
    hob = value;
    value = written;
  }
};
struct Taskfile {
  Register features, count;
  std::array<Register, 3> lba;  // low, mid, high
  uint8_t device = 0;
};

// Device register.
inline constexpr uint8_t kDev = 0x10;       // which of the two devices; no part of the command
inline constexpr uint8_t kLbaMode = 0x40;   // else cylinder, head, sector
inline constexpr uint8_t kHeadMask = 0x0f;  // head, or LBA 27:24
inline constexpr uint8_t kObsoleteOnes = 0xa0;

// Status register. [ATA8-ACS] 6.2
inline constexpr uint8_t kBsy = 0x80, kDrdy = 0x40, kDf = 0x20, kDsc = 0x10, kDrq = 0x08, kErr = 0x01;
// Error register. [ATA8-ACS] 6.3
inline constexpr uint8_t kIcrc = 0x80, kUnc = 0x40, kIdnf = 0x10, kAbrt = 0x04;
inline constexpr uint8_t kDiagnosticPassed = 0x01;
// Device control register. [ATA8-APT] 6.2.5
inline constexpr uint8_t kHob = 0x80, kSrst = 0x04, kNien = 0x02;
// Interrupt reason: the count register of a packet command. [ATA8-ACS] 7.23
inline constexpr uint8_t kCommandOrData = 0x01, kToHost = 0x02;
// What the LBA mid and high registers hold after a reset. [ATA8-ACS] table 8
inline constexpr uint16_t kDiskSignature = 0x0000, kPacketSignature = 0xeb14;

namespace op {  // clauses of [ATA8-ACS] 7 unless named
inline constexpr uint8_t kNop = 0x00, kDataSetManagement = 0x06, kDeviceReset = 0x08;
inline constexpr uint8_t kRecalibrate = 0x10;  // and up to 0x1f; [ATA-3] 9.11
inline constexpr uint8_t kReadSectors = 0x20, kReadSectorsNoRetry = 0x21, kReadSectorsExt = 0x24, kReadDmaExt = 0x25;
inline constexpr uint8_t kReadNativeMaxExt = 0x27, kReadMultipleExt = 0x29, kReadLogExt = 0x2f;
inline constexpr uint8_t kWriteSectors = 0x30, kWriteSectorsNoRetry = 0x31, kWriteSectorsExt = 0x34,
                         kWriteDmaExt = 0x35, kWriteMultipleExt = 0x39, kWriteVerify = 0x3c, kWriteDmaFuaExt = 0x3d;
inline constexpr uint8_t kVerify = 0x40, kVerifyNoRetry = 0x41, kVerifyExt = 0x42, kReadLogDmaExt = 0x47;
inline constexpr uint8_t kReadFpdmaQueued = 0x60, kWriteFpdmaQueued = 0x61;
inline constexpr uint8_t kSeek = 0x70;  // and up to 0x7f; [ATA-4] 8.35
inline constexpr uint8_t kDiagnostic = 0x90, kInitializeParameters = 0x91;
inline constexpr uint8_t kOldStandbyImmediate = 0x94, kOldIdleImmediate = 0x95, kOldStandby = 0x96, kOldIdle = 0x97,
                         kOldCheckPower = 0x98, kOldSleep = 0x99;
inline constexpr uint8_t kPacket = 0xa0, kIdentifyPacket = 0xa1, kSmart = 0xb0;
inline constexpr uint8_t kReadMultiple = 0xc4, kWriteMultiple = 0xc5, kSetMultiple = 0xc6;
inline constexpr uint8_t kReadDma = 0xc8, kReadDmaNoRetry = 0xc9, kWriteDma = 0xca, kWriteDmaNoRetry = 0xcb,
                         kWriteMultipleFuaExt = 0xce;
inline constexpr uint8_t kStandbyImmediate = 0xe0, kIdleImmediate = 0xe1, kStandby = 0xe2, kIdle = 0xe3,
                         kReadBuffer = 0xe4, kCheckPower = 0xe5, kSleep = 0xe6, kFlushCache = 0xe7, kWriteBuffer = 0xe8,
                         kFlushCacheExt = 0xea, kIdentify = 0xec, kSetFeatures = 0xef;
inline constexpr uint8_t kReadNativeMax = 0xf8;
}  // namespace op

// SET FEATURES subcommands. [ATA8-ACS] table 48
namespace feature {
inline constexpr uint8_t kEnableWriteCache = 0x02, kTransferMode = 0x03, kDisableLookAhead = 0x55,
                         kDisableRevert = 0x66, kDisableWriteCache = 0x82, kEnableLookAhead = 0xaa,
                         kEnableRevert = 0xcc;
}

// SMART: subcommands, and the key in LBA mid and high. [ATA8-ACS] 7.52
namespace smart {
inline constexpr uint8_t kReadData = 0xd0, kReadThresholds = 0xd1, kAutosave = 0xd2, kSaveAttributes = 0xd3,
                         kExecuteOffline = 0xd4, kReadLog = 0xd5, kEnable = 0xd8, kDisable = 0xd9, kReturnStatus = 0xda,
                         kAutoOffline = 0xdb;
inline constexpr uint16_t kKey = 0xc24f, kThresholdExceeded = 0x2cf4;
}  // namespace smart

// Log addresses. [ATA8-ACS] table A.2
namespace log_page {
inline constexpr uint8_t kDirectory = 0x00, kSummaryErrors = 0x01, kSelfTest = 0x06, kQueuedError = 0x10;
}

}  // namespace kite::devices::ata
