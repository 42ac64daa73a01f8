// Registers, contexts and rings of the eXtensible Host Controller Interface. [xHCI] 1.2, chapters 5 and 6.
#pragma once

#include <cstdint>

namespace kite::devices::xhci {

inline constexpr unsigned kSlots = 64, kInterrupters = 16, kMostPortsOfKind = 15;
inline constexpr unsigned kEndpoints = 31;  // by device context index, from 1

// The memory BAR.
inline constexpr uint64_t kBarSize = 0x4000, kOperational = 0x40, kRuntime = 0x1000, kDoorbells = 0x2000,
                          kRegistersSize = 0x3000, kMsixTable = 0x3000, kMsixPending = 0x3800;

// Capability registers. 5.3.
inline constexpr uint64_t CAPLENGTH = 0x00, HCSPARAMS1 = 0x04, HCSPARAMS2 = 0x08, HCSPARAMS3 = 0x0c, HCCPARAMS1 = 0x10,
                          DBOFF = 0x14, RTSOFF = 0x18, HCCPARAMS2 = 0x1c, kExtended = 0x20;
inline constexpr uint32_t kVersion = 0x0100;
inline constexpr uint32_t kHcsParams2 = 0x0000000f;                         // IST 15; one event ring segment
inline constexpr uint32_t kHccParams1 = uint32_t{kExtended / 4} << 16 | 1;  // where more is told; 64-bit addresses
inline constexpr uint32_t kProtocolCapability = 2, kUsbName = 0x20425355;   // 7.2: "USB "

// Operational registers, offsets from kOperational. 5.4.
inline constexpr uint64_t USBCMD = 0x00, USBSTS = 0x04, PAGESIZE = 0x08, DNCTRL = 0x14, CRCR = 0x18, DCBAAP = 0x30,
                          CONFIG = 0x38, kPortRegisters = 0x400, kPortStride = 0x10;
// USBCMD.
inline constexpr uint32_t kRun = 1u << 0, kHcReset = 1u << 1, kInterruptsOn = 1u << 2, kSaveState = 1u << 8,
                          kRestoreState = 1u << 9, kCommandBits = 0x0000000d | 1u << 10;
// USBSTS.
inline constexpr uint32_t kHalted = 1u << 0, kSystemError = 1u << 2, kEventInterrupt = 1u << 3, kPortChange = 1u << 4,
                          kRestoreError = 1u << 10, kControllerError = 1u << 12;
inline constexpr uint32_t kStatusClears = kSystemError | kEventInterrupt | kPortChange | kRestoreError;
// CRCR.
inline constexpr uint32_t kRingCycle = 1u << 0, kCommandStop = 1u << 1, kCommandAbort = 1u << 2, kRingRunning = 1u << 3;
inline constexpr uint32_t kConfigBits = 0x3ff;

// PORTSC. 5.4.8.
inline constexpr uint32_t kConnected = 1u << 0, kEnabled = 1u << 1, kPortReset = 1u << 4, kPower = 1u << 9,
                          kLinkWrite = 1u << 16, kConnectChange = 1u << 17, kResetChange = 1u << 21,
                          kWarmResetChange = 1u << 19, kLinkChange = 1u << 22, kWarmReset = 1u << 31;
inline constexpr uint32_t kPortChanges = 0x00fe0000, kPortWritable = 0x0e00c000;
inline constexpr unsigned kLinkShift = 5, kSpeedShift = 10;
inline constexpr uint32_t kLinkMask = 0xfu << kLinkShift, kSpeedMask = 0xfu << kSpeedShift;
inline constexpr uint32_t kU0 = 0, kU3 = 3, kRxDetect = 5, kPolling = 7, kResume = 15;

// Runtime registers, offsets from kRuntime. 5.5.
inline constexpr uint64_t MFINDEX = 0x00, kInterrupterSets = 0x20, kInterrupterStride = 0x20;
inline constexpr uint64_t IMAN = 0x00, IMOD = 0x04, ERSTSZ = 0x08, ERSTBA = 0x10, ERDP = 0x18;
inline constexpr uint32_t kPending = 1u << 0, kEnable = 1u << 1;  // IMAN
inline constexpr uint32_t kHandlerBusy = 1u << 3;                 // ERDP
inline constexpr uint32_t kLeastRing = 16, kMostRing = 4096;      // TRBs in an event ring's segment

// TRBs. 6.4.
inline constexpr unsigned kTrbBytes = 16;
struct Trb {
  uint64_t parameter = 0;
  uint32_t status = 0, control = 0;
  [[nodiscard]] uint32_t type() const { return control >> 10 & 0x3f; }
};
inline constexpr uint32_t kCycle = 1u << 0, kToggle = 1u << 1, kShortInterrupts = 1u << 2, kChain = 1u << 4,
                          kOnCompletion = 1u << 5, kImmediate = 1u << 6, kBlockInterrupt = 1u << 9,
                          kDirectionIn = 1u << 16, kBlockAddress = 1u << 9, kDeconfigure = 1u << 9,
                          kEventData = 1u << 2;
inline constexpr uint32_t kTransferLength = 0x1ffff;
enum TrbType : uint32_t {
  kNormal = 1,
  kSetupStage = 2,
  kDataStage = 3,
  kStatusStage = 4,
  kLink = 6,
  kEventDataTrb = 7,
  kNoOp = 8,
  kEnableSlot = 9,
  kDisableSlot = 10,
  kAddressDevice = 11,
  kConfigureEndpoint = 12,
  kEvaluateContext = 13,
  kResetEndpoint = 14,
  kStopEndpoint = 15,
  kSetDequeue = 16,
  kResetDevice = 17,
  kNoOpCommand = 23,
  kTransferEvent = 32,
  kCommandEvent = 33,
  kPortEvent = 34,
};
// Completion codes, table 6-90.
enum Code : uint8_t {
  kSuccess = 1,
  kDataBufferError = 2,
  kBabbleDetected = 3,
  kTransactionError = 4,
  kTrbError = 5,
  kStallError = 6,
  kResourceError = 7,
  kNoSlots = 9,
  kSlotNotEnabled = 11,
  kEndpointNotEnabled = 12,
  kShortPacket = 13,
  kParameterError = 17,
  kContextStateError = 19,
  kCommandRingStopped = 24,
  kStopped = 26,
  kStoppedLengthInvalid = 27,
};

// Contexts of 32 bytes. 6.2.
inline constexpr unsigned kContextBytes = 32;
enum SlotState : uint8_t { kSlotEnabled = 0, kSlotDefault = 1, kSlotAddressed = 2, kSlotConfigured = 3 };
enum EndpointState : uint8_t {
  kDisabled = 0,
  kRunning = 1,
  kEndpointHalted = 2,
  kEndpointStopped = 3,
  kEndpointError = 4
};
enum EndpointType : uint8_t {
  kIsochOut = 1,
  kBulkOut = 2,
  kInterruptOut = 3,
  kControl = 4,
  kIsochIn = 5,
  kBulkIn = 6,
  kInterruptIn = 7
};
inline constexpr uint32_t kRouteMask = 0xfffff;
inline constexpr unsigned kEntriesShift = 27, kSlotStateShift = 27, kRootPortShift = 16, kTargetShift = 22;

}  // namespace kite::devices::xhci
