// The words of USB that host controllers and devices share. [USB 2.0] 8.3, 9.3, 9.4, 9.6; [USB 3.1] 9.6.
#pragma once

#include <cstdint>

namespace kite::devices::usb {

enum class Speed : uint8_t { kLow, kFull, kHigh, kSuper };

// bmRequestType.
inline constexpr uint8_t kDirectionIn = 0x80;
inline constexpr uint8_t kTypeMask = 0x60, kTypeStandard = 0x00, kTypeClass = 0x20;
inline constexpr uint8_t kRecipientMask = 0x1f, kToDevice = 0, kToInterface = 1, kToEndpoint = 2;

// Standard requests, table 9-4.
enum class Request : uint8_t {
  kGetStatus = 0,
  kClearFeature = 1,
  kSetFeature = 3,
  kSetAddress = 5,
  kGetDescriptor = 6,
  kGetConfiguration = 8,
  kSetConfiguration = 9,
  kGetInterface = 10,
  kSetInterface = 11,
  kSetSel = 48,  // [USB 3.1] 9.4.12
  kSetIsochDelay = 49,
};

// Features, table 9-6; [USB 3.1] table 9-7.
inline constexpr uint16_t kEndpointHalt = 0, kRemoteWakeup = 1, kFunctionSuspend = 0, kU1Enable = 48, kU2Enable = 49;

// Descriptor types, table 9-5.
inline constexpr uint8_t kDevice = 1, kConfiguration = 2, kString = 3, kInterface = 4, kEndpoint = 5,
                         kDeviceQualifier = 6, kOtherSpeed = 7, kBos = 15, kDeviceCapability = 16,
                         kEndpointCompanion = 48;

// A configuration's bmAttributes and an endpoint's.
inline constexpr uint8_t kAttributesOne = 0x80, kSelfPowered = 0x40, kWakesRemotely = 0x20;
inline constexpr uint8_t kBulk = 2, kInterrupt = 3;

// Of GET_STATUS.
inline constexpr uint16_t kStatusSelfPowered = 1u << 0, kStatusRemoteWakeup = 1u << 1, kStatusHalted = 1u << 0;

inline constexpr unsigned kEndpoints = 16;  // numbers of endpoints, of either direction
inline constexpr uint8_t kMostAddress = 127;

// What a SETUP packet says.
struct Setup {
  uint8_t type = 0, request = 0;
  uint16_t value = 0, index = 0, length = 0;
  [[nodiscard]] bool in() const { return (type & kDirectionIn) != 0; }
  [[nodiscard]] uint8_t kind() const { return type & kTypeMask; }
  [[nodiscard]] uint8_t recipient() const { return type & kRecipientMask; }
};

}  // namespace kite::devices::usb
