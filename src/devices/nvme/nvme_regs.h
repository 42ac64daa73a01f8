// NVM Express registers, commands and status codes. [NVMe 1.4] NVM Express base specification, revision 1.4.
#pragma once

#include <cstdint>

namespace kite::devices::nvme {

// --- BAR 0: 3.1
enum Reg : uint16_t {
  CAP = 0x00,       // r-  8 bytes: capabilities
  VS = 0x08,        // r-  version
  INTMS = 0x0c,     // rs  interrupt mask set
  INTMC = 0x10,     // rc  interrupt mask clear
  CC = 0x14,        // rw  controller configuration
  CSTS = 0x1c,      // r-  controller status
  AQA = 0x24,       // rw  sizes of the admin queues
  ASQ = 0x28,       // rw  8 bytes: base of the admin submission queue
  ACQ = 0x30,       // rw  8 bytes: base of the admin completion queue
  CMBLOC = 0x38,    // r-  controller memory buffer: which BAR, where
  CMBSZ = 0x3c,     // r-  its size and what it may hold
  CMBMSC = 0x50,    // rw  8 bytes: its place as commands name it
  CMBSTS = 0x58,    // r-  its status
  PMRCAP = 0xe00,   // r-  persistent memory region: what it can do
  PMRCTL = 0xe04,   // rw  [0] enable
  PMRSTS = 0xe08,   // r-  [8] not ready
  PMRMSCL = 0xe14,  // rw  its place as commands name it, as CMBMSC
  PMRMSCU = 0xe18,  // rw
};
inline constexpr uint64_t kDoorbells = 0x1000;  // SQ y tail at + 8y, CQ y head at + 8y + 4 (CAP.DSTRD is 0)
inline constexpr uint32_t kVersion14 = 0x00010400;

// CAP.
inline constexpr unsigned kCapCqr = 16, kCapTo = 24, kCapCss = 37, kCapMpsMax = 52, kCapPmrs = 56, kCapCmbs = 57;
// CC.
inline constexpr uint32_t kCcEnable = 1;
inline constexpr uint32_t kCcBits = 0x00fffff1;
inline constexpr unsigned kCcCss = 4, kCcMps = 7, kCcAms = 11, kCcShn = 14, kCcIosqes = 16, kCcIocqes = 20;
// CSTS.
inline constexpr uint32_t kCstsReady = 1u << 0, kCstsFatal = 1u << 1;
inline constexpr unsigned kCstsShst = 2;
enum ShutdownStatus : uint32_t { kShutdownNone = 0, kShutdownOccurring = 1, kShutdownComplete = 2 };
// CMBMSC.
inline constexpr uint64_t kCmbCapabilities = 1u << 0, kCmbMemorySpace = 1u << 1;
inline constexpr uint64_t kCmbAddress = ~uint64_t{0xfff};
// PMRCAP: commands may read and write it; reading PMRSTS makes writes durable; it has a place in controller memory
// space.
inline constexpr uint32_t kPmrRead = 1u << 3, kPmrWrite = 1u << 4, kPmrBarShift = 5, kPmrReadStatusFlushes = 2u << 10,
                          kPmrMemorySpace = 1u << 24;
inline constexpr uint32_t kPmrEnable = 1u << 0, kPmrNotReady = 1u << 8;

inline constexpr unsigned kLargestPageShift = 4;  // CAP.MPSMAX: 64 KiB; the smallest is 4 KiB
inline constexpr uint32_t kMostEntries = 2048;    // of a queue: CAP.MQES + 1
inline constexpr unsigned kSqEntryShift = 6, kCqEntryShift = 4;

// --- commands: 4.2, figure 105
struct Command {
  uint8_t opcode = 0;
  uint8_t flags = 0;  // [1:0] fused operation, [7:6] PRP or SGL
  uint16_t cid = 0;
  uint32_t nsid = 0;
  uint32_t cdw2 = 0, cdw3 = 0;
  uint64_t mptr = 0;
  uint64_t prp1 = 0, prp2 = 0;
  uint32_t cdw10 = 0, cdw11 = 0, cdw12 = 0, cdw13 = 0, cdw14 = 0, cdw15 = 0;
};
static_assert(sizeof(Command) == 64);
inline constexpr uint8_t kFlagsFuse = 0x03, kFlagsReserved = 0x3c;
inline constexpr unsigned kFlagsPsdt = 6;
inline constexpr uint32_t kAllNamespaces = 0xffffffff;

// 4.6, figure 121
struct Completion {
  uint32_t result;
  uint32_t reserved;
  uint16_t sq_head;
  uint16_t sq;
  uint16_t cid;
  uint16_t status;  // [0] phase, [15:1] status field
};
static_assert(sizeof(Completion) == 16);

enum AdminOpcode : uint8_t {
  kDeleteSq = 0x00,
  kCreateSq = 0x01,
  kGetLogPage = 0x02,
  kDeleteCq = 0x04,
  kCreateCq = 0x05,
  kIdentify = 0x06,
  kAbort = 0x08,
  kSetFeatures = 0x09,
  kGetFeatures = 0x0a,
  kAsyncEventRequest = 0x0c,
  kDoorbellBufferConfig = 0x7c,
  kFormatNvm = 0x80,
};
enum IoOpcode : uint8_t {
  kFlush = 0x00,
  kWrite = 0x01,
  kRead = 0x02,
  kCompare = 0x05,
  kWriteZeroes = 0x08,
  kDatasetManagement = 0x09,
  kVerify = 0x0c,
};
// Command dword 12 of reads and writes.
inline constexpr uint32_t kForceUnitAccess = 1u << 30, kDeallocate = 1u << 25, kProtection = 0x3c000000;
inline constexpr uint32_t kDsmDeallocate = 1u << 2;

// --- status field: figure 124 and on. Type in [10:8], code in [7:0].
enum Status : uint16_t {
  kSuccess = 0x000,
  kInvalidOpcode = 0x001,
  kInvalidField = 0x002,
  kDataTransferError = 0x004,
  kInternalError = 0x006,
  kAbortRequested = 0x007,
  kInvalidNamespace = 0x00b,
  kSglInvalidSegment = 0x00d,
  kSglInvalidCount = 0x00e,
  kSglLengthInvalid = 0x00f,
  kSglTypeInvalid = 0x011,
  kPrpOffsetInvalid = 0x013,
  kWriteProtected = 0x020,
  kLbaOutOfRange = 0x080,
  kCapacityExceeded = 0x081,
  kCqInvalid = 0x100,
  kInvalidQueueId = 0x101,
  kInvalidQueueSize = 0x102,
  kEventLimitExceeded = 0x105,
  kInvalidVector = 0x108,
  kInvalidLogPage = 0x109,
  kInvalidFormat = 0x10a,
  kInvalidQueueDeletion = 0x10c,
  kFeatureNotSaveable = 0x10d,
  kFeatureNotChangeable = 0x10e,
  kFeatureNotPerNamespace = 0x10f,
  kWriteFault = 0x280,
  kUnrecoveredRead = 0x281,
  kCompareFailure = 0x285,
};
inline constexpr uint16_t kMore = 1u << 13, kDoNotRetry = 1u << 14;
inline constexpr uint16_t kStatusCode = 0x7ff;

// --- IDENTIFY: 5.15, CNS
enum Cns : uint8_t {
  kCnsNamespace = 0x00,
  kCnsController = 0x01,
  kCnsActiveNamespaces = 0x02,
  kCnsDescriptors = 0x03,
  kCnsAllocatedNamespaces = 0x10,
  kCnsAllocatedNamespace = 0x11,
  kCnsAttachedControllers = 0x12,
  kCnsControllers = 0x13,
};
inline constexpr uint32_t kIdentifyBytes = 4096;

// --- GET LOG PAGE: 5.14
enum LogPage : uint8_t {
  kLogError = 0x01,
  kLogSmart = 0x02,
  kLogFirmware = 0x03,
  kLogChangedNamespaces = 0x04,
  kLogEffects = 0x05,
};

// --- features: 5.21.1
enum Feature : uint8_t {
  kArbitration = 0x01,
  kPowerManagement = 0x02,
  kTemperatureThreshold = 0x04,
  kErrorRecovery = 0x05,
  kVolatileWriteCache = 0x06,
  kNumberOfQueues = 0x07,
  kInterruptCoalescing = 0x08,
  kInterruptVector = 0x09,
  kWriteAtomicity = 0x0a,
  kAsyncEvents = 0x0b,
};
enum FeatureSelect : uint8_t { kSelectCurrent = 0, kSelectDefault = 1, kSelectSaved = 2, kSelectCapabilities = 3 };

// --- asynchronous events: 5.2, figures 146-149
enum EventType : uint8_t { kEventError = 0, kEventHealth = 1 };
enum EventInfo : uint8_t { kInvalidDoorbell = 0x00, kInvalidDoorbellValue = 0x01, kTemperatureEvent = 0x01 };

// --- SGL: 4.4. Type in [7:4] of the last byte.
enum SglType : uint8_t { kSglData = 0, kSglBitBucket = 1, kSglSegment = 2, kSglLastSegment = 3 };
struct SglDescriptor {
  uint64_t address;
  uint32_t bytes;
  uint8_t reserved[3];
  uint8_t type;
};
static_assert(sizeof(SglDescriptor) == 16);

// A range of DATASET MANAGEMENT: 6.7
struct DsmRange {
  uint32_t attributes;
  uint32_t blocks;
  uint64_t first;
};
static_assert(sizeof(DsmRange) == 16);

}  // namespace kite::devices::nvme
