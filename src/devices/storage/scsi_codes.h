// SCSI's numbers: operation codes, statuses, sense keys and additional sense codes, for the SCSI target layer and for
// ATAPI. [SAM-5], [SPC-4], [SBC-3], [MMC-6].
#pragma once

#include <cstdint>

namespace kite::devices {

namespace scsi_op {
inline constexpr uint8_t kTestUnitReady = 0x00;
inline constexpr uint8_t kRequestSense = 0x03;
inline constexpr uint8_t kFormatUnit = 0x04;
inline constexpr uint8_t kRead6 = 0x08;
inline constexpr uint8_t kWrite6 = 0x0a;
inline constexpr uint8_t kSeek6 = 0x0b;
inline constexpr uint8_t kInquiry = 0x12;
inline constexpr uint8_t kModeSelect6 = 0x15;
inline constexpr uint8_t kReserve6 = 0x16;
inline constexpr uint8_t kRelease6 = 0x17;
inline constexpr uint8_t kModeSense6 = 0x1a;
inline constexpr uint8_t kStartStopUnit = 0x1b;
inline constexpr uint8_t kReceiveDiagnostic = 0x1c;
inline constexpr uint8_t kSendDiagnostic = 0x1d;
inline constexpr uint8_t kPreventAllow = 0x1e;
inline constexpr uint8_t kReadFormatCapacities = 0x23;
inline constexpr uint8_t kReadCapacity10 = 0x25;
inline constexpr uint8_t kRead10 = 0x28;
inline constexpr uint8_t kWrite10 = 0x2a;
inline constexpr uint8_t kSeek10 = 0x2b;
inline constexpr uint8_t kWriteVerify10 = 0x2e;
inline constexpr uint8_t kVerify10 = 0x2f;
inline constexpr uint8_t kPrefetch10 = 0x34;
inline constexpr uint8_t kSynchronizeCache10 = 0x35;
inline constexpr uint8_t kReadDefectData10 = 0x37;
inline constexpr uint8_t kWriteSame10 = 0x41;
inline constexpr uint8_t kUnmap = 0x42;  // of a disk
inline constexpr uint8_t kReadSubChannel = 0x42;
inline constexpr uint8_t kReadToc = 0x43;
inline constexpr uint8_t kGetConfiguration = 0x46;
inline constexpr uint8_t kGetEventStatus = 0x4a;
inline constexpr uint8_t kReadDiscInformation = 0x51;
inline constexpr uint8_t kReadTrackInformation = 0x52;
inline constexpr uint8_t kModeSelect10 = 0x55;
inline constexpr uint8_t kReserve10 = 0x56;
inline constexpr uint8_t kRelease10 = 0x57;
inline constexpr uint8_t kModeSense10 = 0x5a;
inline constexpr uint8_t kRead16 = 0x88;
inline constexpr uint8_t kWrite16 = 0x8a;
inline constexpr uint8_t kWriteVerify16 = 0x8e;
inline constexpr uint8_t kVerify16 = 0x8f;
inline constexpr uint8_t kPrefetch16 = 0x90;
inline constexpr uint8_t kSynchronizeCache16 = 0x91;
inline constexpr uint8_t kWriteSame16 = 0x93;
inline constexpr uint8_t kServiceActionIn16 = 0x9e;
inline constexpr uint8_t kReportLuns = 0xa0;
inline constexpr uint8_t kMaintenanceIn = 0xa3;
inline constexpr uint8_t kLoadUnload = 0xa6;
inline constexpr uint8_t kRead12 = 0xa8;
inline constexpr uint8_t kWrite12 = 0xaa;
inline constexpr uint8_t kGetPerformance = 0xac;
inline constexpr uint8_t kReadDiscStructure = 0xad;
inline constexpr uint8_t kWriteVerify12 = 0xae;
inline constexpr uint8_t kVerify12 = 0xaf;
inline constexpr uint8_t kReadDefectData12 = 0xb7;
inline constexpr uint8_t kReadCdMsf = 0xb9;
inline constexpr uint8_t kSetCdSpeed = 0xbb;
inline constexpr uint8_t kMechanismStatus = 0xbd;
inline constexpr uint8_t kReadCd = 0xbe;

// Service actions.
inline constexpr uint8_t kSaiReadCapacity16 = 0x10;
inline constexpr uint8_t kMiReportSupportedOpcodes = 0x0c;
inline constexpr uint8_t kMiReportSupportedTmfs = 0x0d;
}  // namespace scsi_op

// [SAM-5] 5.3.1.
enum class ScsiStatus : uint8_t {
  kGood = 0x00,
  kCheckCondition = 0x02,
  kBusy = 0x08,
  kReservationConflict = 0x18,
  kTaskSetFull = 0x28,
  kTaskAborted = 0x40,
};

// [SPC-4] 4.5.6.
enum class SenseKey : uint8_t {
  kNoSense = 0x0,
  kRecoveredError = 0x1,
  kNotReady = 0x2,
  kMediumError = 0x3,
  kHardwareError = 0x4,
  kIllegalRequest = 0x5,
  kUnitAttention = 0x6,
  kDataProtect = 0x7,
  kAbortedCommand = 0xb,
  kMiscompare = 0xe,
};

// Why a command did not do what it was asked. [SPC-4] 4.5, annex F.
struct ScsiSense {
  SenseKey key = SenseKey::kNoSense;
  uint8_t asc = 0, ascq = 0;
  bool operator==(const ScsiSense&) const = default;
};

namespace sense {
inline constexpr ScsiSense kNone{};
inline constexpr ScsiSense kBecomingReady{SenseKey::kNotReady, 0x04, 0x01};
inline constexpr ScsiSense kNeedsStart{SenseKey::kNotReady, 0x04, 0x02};  // initializing command required
inline constexpr ScsiSense kNoMedium{SenseKey::kNotReady, 0x3a, 0x00};
inline constexpr ScsiSense kNoMediumTrayClosed{SenseKey::kNotReady, 0x3a, 0x01};
inline constexpr ScsiSense kNoMediumTrayOpen{SenseKey::kNotReady, 0x3a, 0x02};
inline constexpr ScsiSense kReadError{SenseKey::kMediumError, 0x11, 0x00};
inline constexpr ScsiSense kWriteError{SenseKey::kMediumError, 0x0c, 0x00};
inline constexpr ScsiSense kTargetFailure{SenseKey::kHardwareError, 0x44, 0x00};
inline constexpr ScsiSense kInvalidOpcode{SenseKey::kIllegalRequest, 0x20, 0x00};
inline constexpr ScsiSense kOutOfRange{SenseKey::kIllegalRequest, 0x21, 0x00};
inline constexpr ScsiSense kInvalidField{SenseKey::kIllegalRequest, 0x24, 0x00};  // in the CDB
inline constexpr ScsiSense kNoSuchLun{SenseKey::kIllegalRequest, 0x25, 0x00};
inline constexpr ScsiSense kInvalidParameter{SenseKey::kIllegalRequest, 0x26, 0x00};
inline constexpr ScsiSense kParameterListLength{SenseKey::kIllegalRequest, 0x1a, 0x00};
inline constexpr ScsiSense kIncompatibleMedium{SenseKey::kIllegalRequest, 0x30, 0x02};  // unknown format
inline constexpr ScsiSense kSavingNotSupported{SenseKey::kIllegalRequest, 0x39, 0x00};
inline constexpr ScsiSense kRemovalPrevented{SenseKey::kIllegalRequest, 0x53, 0x02};
inline constexpr ScsiSense kIllegalTrackMode{SenseKey::kIllegalRequest, 0x64, 0x00};
inline constexpr ScsiSense kMediumChanged{SenseKey::kUnitAttention, 0x28, 0x00};
inline constexpr ScsiSense kPowerOn{SenseKey::kUnitAttention, 0x29, 0x00};
inline constexpr ScsiSense kBusReset{SenseKey::kUnitAttention, 0x29, 0x02};
inline constexpr ScsiSense kDeviceReset{SenseKey::kUnitAttention, 0x29, 0x03};
inline constexpr ScsiSense kCapacityChanged{SenseKey::kUnitAttention, 0x2a, 0x09};
inline constexpr ScsiSense kLunsChanged{SenseKey::kUnitAttention, 0x3f, 0x0e};
inline constexpr ScsiSense kEjectRequested{SenseKey::kUnitAttention, 0x5a, 0x01};
inline constexpr ScsiSense kWriteProtected{SenseKey::kDataProtect, 0x27, 0x00};
inline constexpr ScsiSense kSpaceAllocationFailed{SenseKey::kDataProtect, 0x27, 0x07};
inline constexpr ScsiSense kAborted{SenseKey::kAbortedCommand, 0x00, 0x06};  // I/O process terminated
inline constexpr ScsiSense kMiscompare{SenseKey::kMiscompare, 0x1d, 0x00};
}  // namespace sense

}  // namespace kite::devices
