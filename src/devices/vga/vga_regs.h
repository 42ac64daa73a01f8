// Registers of a VGA and of Bochs' display interface. [VGA] IBM PS/2 Hardware Interface Technical Reference, Video
// Subsystems, 1992; [FreeVGA] the FreeVGA project's pages; [DISPI] Bochs, docs/VBE_DISPI and QEMU's
// docs/specs/standard-vga.txt.
#pragma once

#include <cstdint>

namespace kite::devices::vga_regs {

// Ports; those of 3Bx and 3Dx that follow the I/O address select bit are given as 3Dx.
inline constexpr uint16_t kFirstPort = 0x3b0, kPortBytes = 0x30;
enum Port : uint16_t {
  kAttribute = 0x3c0,       // rw  index, then data
  kAttributeRead = 0x3c1,   // r-
  kMiscWrite = 0x3c2,       // -w  reads as input status 0
  kEnable = 0x3c3,          // rw  video subsystem enable
  kSequencerIndex = 0x3c4,  // rw
  kSequencerData = 0x3c5,   // rw
  kDacMask = 0x3c6,         // rw
  kDacRead = 0x3c7,         // -w index for reads; r- state
  kDacWrite = 0x3c8,        // rw  index for writes
  kDacData = 0x3c9,         // rw
  kFeatureRead = 0x3ca,     // r-
  kMiscRead = 0x3cc,        // r-
  kGraphicsIndex = 0x3ce,   // rw
  kGraphicsData = 0x3cf,    // rw
  kCrtcIndex = 0x3d4,       // rw
  kCrtcData = 0x3d5,        // rw
  kStatus1 = 0x3da,         // r-  input status 1; -w feature control
};

// kMiscWrite
inline constexpr uint8_t kMiscColor = 1u << 0, kMiscRam = 1u << 1;
// Input status
inline constexpr uint8_t kStatus0Sense = 1u << 4, kStatus1Disabled = 1u << 0, kStatus1Retrace = 1u << 3;

enum Sequencer : uint8_t { kReset = 0, kClocking = 1, kMapMask = 2, kCharacterMap = 3, kMemoryMode = 4 };
inline constexpr uint8_t kEightDots = 1u << 0, kHalfClock = 1u << 3, kScreenOff = 1u << 5;  // kClocking
inline constexpr uint8_t kSequential = 1u << 2, kChain4 = 1u << 3;                          // kMemoryMode

enum Crtc : uint8_t {
  kDisplayEnd = 0x01,
  kOverflow = 0x07,
  kPresetRow = 0x08,
  kMaxScan = 0x09,
  kCursorStart = 0x0a,
  kCursorEnd = 0x0b,
  kStartHigh = 0x0c,
  kStartLow = 0x0d,
  kCursorHigh = 0x0e,
  kCursorLow = 0x0f,
  kRetraceEnd = 0x11,
  kVerticalEnd = 0x12,
  kOffset = 0x13,
  kUnderline = 0x14,
  kModeControl = 0x17,
  kLineCompare = 0x18,
  kLatch = 0x22,
};
inline constexpr uint8_t kCrtcRegisters = 0x19;
inline constexpr uint8_t kProtect = 1u << 7;                                   // kRetraceEnd
inline constexpr uint8_t kLineCompare8 = 1u << 4, kLineCompare9 = 1u << 6;     // kOverflow, kMaxScan
inline constexpr uint8_t kVerticalEnd8 = 1u << 1, kVerticalEnd9 = 1u << 6;     // kOverflow
inline constexpr uint8_t kDoubleScan = 1u << 7, kScanLines = 0x1f;             // kMaxScan
inline constexpr uint8_t kCursorOff = 1u << 5;                                 // kCursorStart
inline constexpr uint8_t kDoubleword = 1u << 6;                                // kUnderline
inline constexpr uint8_t kRow13 = 1u << 0, kRow14 = 1u << 1, kByte = 1u << 6;  // kModeControl: 0 takes the row's bit

enum Graphics : uint8_t {
  kSetReset = 0,
  kEnableSetReset = 1,
  kColorCompare = 2,
  kRotate = 3,
  kReadMap = 4,
  kMode = 5,
  kMisc = 6,
  kColorDontCare = 7,
  kBitMask = 8,
};
inline constexpr uint8_t kGraphicsRegisters = 9;
inline constexpr uint8_t kReadCompare = 1u << 3, kOddEvenRead = 1u << 4, kInterleave = 1u << 5,
                         k256Colors = 1u << 6;     // kMode
inline constexpr uint8_t kGraphicsMode = 1u << 0;  // kMisc

enum Attribute : uint8_t { kAttributeMode = 0x10, kOverscan = 0x11, kPlanes = 0x12, kPan = 0x13, kColorSelect = 0x14 };
inline constexpr uint8_t kAttributeRegisters = 0x15;
inline constexpr uint8_t kPaletteSource = 1u << 5;  // of the index: the screen shows, the palette is closed
inline constexpr uint8_t kMono = 1u << 1, kLineGraphics = 1u << 2, kBlink = 1u << 3, kPanSplit = 1u << 5,
                         kPalette54 = 1u << 7;  // kAttributeMode

// [DISPI] Ports: the index at 1CE, data at 1CF and 1D0, 16 bits each.
inline constexpr uint16_t kDispiPort = 0x1ce, kDispiPorts = 4;
enum Dispi : uint8_t {
  kId = 0,
  kXres = 1,
  kYres = 2,
  kBpp = 3,
  kDispiEnable = 4,
  kBank = 5,
  kVirtualWidth = 6,
  kVirtualHeight = 7,
  kXOffset = 8,
  kYOffset = 9,
  kVideoMemory = 0xa,  // r-  in 64 KiB
};
inline constexpr uint8_t kDispiRegisters = 0xb;
inline constexpr uint16_t kOldestId = 0xb0c0, kNewestId = 0xb0c5;
inline constexpr uint16_t kEnabled = 1u << 0, kGetCapabilities = 1u << 1, k8BitDac = 1u << 5, kLinear = 1u << 6,
                          kNoClear = 1u << 7;  // kDispiEnable
inline constexpr uint16_t kMostXres = 8192, kMostYres = 8192, kMostBpp = 32;
inline constexpr uint64_t kBankBytes = 0x10000;

// BAR 2, 4096 bytes.
inline constexpr uint64_t kMmioBytes = 0x1000;
inline constexpr uint64_t kMmioEdid = 0, kMmioVga = 0x400, kMmioVgaEnd = 0x420, kMmioDispi = 0x500,
                          kMmioDispiEnd = kMmioDispi + 2 * kDispiRegisters, kMmioExtension = 0x600,
                          kMmioByteOrder = 0x604, kMmioExtensionEnd = 0x608;
inline constexpr uint32_t kExtensionBytes = 8, kLittleEndian = 0x1e1e1e1e, kBigEndian = 0xbebebebe;

// The window at A0000.
inline constexpr uint64_t kWindow = 0xa0000, kWindowBytes = 0x20000;

}  // namespace kite::devices::vga_regs
