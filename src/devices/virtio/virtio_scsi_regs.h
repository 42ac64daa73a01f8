// What [VIRTIO 1.2] 5.6 numbers: the SCSI host.
#pragma once

#include <cstdint>

namespace kite::devices::virtio_scsi {

inline constexpr uint16_t kType = 8;
inline constexpr uint16_t kLegacyDeviceId = 0x1004;
inline constexpr uint32_t kClass = 0x010000;  // SCSI

// 5.6.2 Virtqueues; request queues follow.
inline constexpr uint16_t kControlQueue = 0, kEventQueue = 1, kFirstRequestQueue = 2;

// 5.6.3 Feature bits. INOUT (0) and T10_PI (3) are not offered.
inline constexpr uint64_t kHotplug = 1 << 1;
inline constexpr uint64_t kChange = 1 << 2;

// 5.6.4 Configuration; all 32 bits but the two with 16.
inline constexpr unsigned kNumQueues = 0;
inline constexpr unsigned kSegMax = 4;
inline constexpr unsigned kMaxSectors = 8;
inline constexpr unsigned kCmdPerLun = 12;
inline constexpr unsigned kEventInfoSize = 16;
inline constexpr unsigned kSenseSize = 20;   // rw
inline constexpr unsigned kCdbSize = 24;     // rw
inline constexpr unsigned kMaxChannel = 28;  // 16
inline constexpr unsigned kMaxTarget = 30;   // 16
inline constexpr unsigned kMaxLun = 32;
inline constexpr unsigned kConfigBytes = 36;
inline constexpr uint32_t kDefaultSenseSize = 96, kDefaultCdbSize = 32;
// More than any driver has use for.
inline constexpr uint32_t kMostSenseBytes = 65535, kMostCdbBytes = 255;
inline constexpr uint32_t kTargets = 256, kLuns = 16384;

// 5.6.6.1 Requests: u8 lun[8], u64 id, u8 task attribute, u8 priority, u8 crn, u8 cdb[], data.
inline constexpr unsigned kLunAt = 0, kIdAt = 8, kCdbAt = 19;
// Responses: u32 sense length, u32 residual, u16 status qualifier, u8 status, u8 response, u8 sense[], data.
inline constexpr unsigned kSenseLengthAt = 0, kResidualAt = 4, kStatusAt = 10, kResponseAt = 11, kSenseAt = 12;

enum Response : uint8_t {
  kOk = 0,
  kOverrun = 1,
  kAborted = 2,
  kBadTarget = 3,
  kReset = 4,
  kFailure = 9,
  kFunctionSucceeded = 10,
  kFunctionRejected = 11,
  kIncorrectLun = 12,
};

// 5.6.6.2 The control queue: u32 type; a task management function: u32 subtype, u8 lun[8], u64 id; asynchronous
// notification: u8 lun[8], u32 events. Answers: u8 response; u32 events, u8 response.
enum ControlType : uint32_t { kTaskManagement = 0, kNotificationQuery = 1, kNotificationSubscribe = 2 };
inline constexpr unsigned kTmfBytes = 24, kTmfSubtypeAt = 4, kTmfLunAt = 8, kTmfIdAt = 16;
inline constexpr unsigned kNotificationBytes = 16, kNotificationAnswerBytes = 5;
enum TaskFunction : uint32_t {
  kAbortTask = 0,
  kAbortTaskSet = 1,
  kClearAca = 2,
  kClearTaskSet = 3,
  kNexusReset = 4,
  kLogicalUnitReset = 5,
  kQueryTask = 6,
  kQueryTaskSet = 7,
};

// 5.6.6.3 Events: u32 event, u8 lun[8], u32 reason.
inline constexpr unsigned kEventBytes = 16, kEventLunAt = 4, kEventReasonAt = 12;
enum Event : uint32_t { kNoEvent = 0, kTransportReset = 1, kParameterChange = 3, kEventsMissed = 0x80000000 };
enum ResetReason : uint32_t { kRescan = 1, kRemoved = 2 };

}  // namespace kite::devices::virtio_scsi
