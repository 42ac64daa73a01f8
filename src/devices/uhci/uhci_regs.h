// Registers and data structures of the Universal Host Controller Interface. [UHCI] Design Guide 1.1, chapters 2 and 3.
#pragma once

#include <cstdint>

namespace kite::devices::uhci {

inline constexpr uint64_t kPortsSize = 32;
inline constexpr unsigned kPorts = 2;

// I/O ports, words. 2.1.
inline constexpr uint64_t USBCMD = 0x00, USBSTS = 0x02, USBINTR = 0x04, FRNUM = 0x06, FLBASEADD = 0x08, SOFMOD = 0x0c,
                          PORTSC1 = 0x10;

// USBCMD. 2.1.1. Software debug is not there.
inline constexpr uint16_t kRun = 1u << 0, kHcReset = 1u << 1, kGlobalReset = 1u << 2, kGlobalSuspend = 1u << 3,
                          kGlobalResume = 1u << 4;
inline constexpr uint16_t kCommandBits = 0x00dd;  // what keeps its value: RS, GRESET, EGSM, FGR, CF, MAXP

// USBSTS. 2.1.2; write 1 to clear but for the last.
inline constexpr uint16_t kInterrupt = 1u << 0, kError = 1u << 1, kResumeDetect = 1u << 2, kSystemError = 1u << 3,
                          kProcessError = 1u << 4, kHalted = 1u << 5;
inline constexpr uint16_t kStatusClears = 0x001f;

// USBINTR. 2.1.3.
inline constexpr uint16_t kOnError = 1u << 0, kOnResume = 1u << 1, kOnComplete = 1u << 2, kOnShort = 1u << 3;

inline constexpr uint16_t kFrameBits = 0x07ff;
inline constexpr uint32_t kFrameListEntries = 1024;
inline constexpr uint8_t kSofReset = 0x40;

// PORTSC. 2.1.7.
inline constexpr uint16_t kConnected = 1u << 0, kConnectChange = 1u << 1, kEnabled = 1u << 2, kEnableChange = 1u << 3,
                          kLinePlus = 1u << 4, kResume = 1u << 6, kAlwaysOne = 1u << 7, kLowSpeed = 1u << 8,
                          kPortReset = 1u << 9, kSuspend = 1u << 12;
inline constexpr uint16_t kPortWritable = kEnabled | kResume | kPortReset | kSuspend;
inline constexpr uint16_t kPortClears = kConnectChange | kEnableChange;
inline constexpr uint16_t kPortBits = kPortWritable | kPortClears | kConnected | kLinePlus | kAlwaysOne | kLowSpeed;

// Link pointers. 3.1, 3.2.1.
inline constexpr uint32_t kTerminate = 1u << 0, kQueue = 1u << 1, kDepthFirst = 1u << 2, kPointer = ~uint32_t{0xf};

// Transfer descriptors. 3.2.2, 3.2.3.
inline constexpr uint32_t kActualLength = 0x7ff, kTimeout = 1u << 18, kNak = 1u << 19, kBabble = 1u << 20,
                          kStalled = 1u << 22, kActive = 1u << 23, kOnCompletion = 1u << 24, kIsochronous = 1u << 25,
                          kShortDetect = 1u << 29;
inline constexpr unsigned kErrorShift = 27;
inline constexpr uint32_t kErrorCount = 3u << kErrorShift;
inline constexpr uint32_t kStatusResults = kTimeout | kNak | kBabble | kStalled | 1u << 17 | 1u << 21;
inline constexpr uint32_t kMostPacket = 1280;
inline constexpr uint8_t kPidIn = 0x69, kPidOut = 0xe1, kPidSetup = 0x2d;

// Configuration space. 5.2: serial bus release number 1.0, legacy support with PIRQ enabled.
inline constexpr uint16_t kSbrn = 0x60, kLegacySupport = 0xc0;

}  // namespace kite::devices::uhci
