// AHCI host bus adapter. [AHCI] Serial ATA AHCI 1.3.1; [SATA] Serial ATA revision 3.0, 10.3 for frame information
// structures; [ICH9] 316972-004, chapter 14 for the configuration space.
#pragma once

#include <cstdint>

namespace kite::devices::ahci {

inline constexpr unsigned kPorts = 6;
inline constexpr unsigned kSlots = 32;

// Generic host control. [AHCI] 3.1
inline constexpr uint64_t kAbarSize = 0x1000;
enum HostReg : uint16_t {
  kCap = 0x00,   // r-
  kGhc = 0x04,   // rw
  kIs = 0x08,    // rwc a bit a port
  kPi = 0x0c,    // r-  ports there are
  kVs = 0x10,    // r-
  kCap2 = 0x24,  // r-
  kPortBase = 0x100,
};
inline constexpr uint64_t kPortSize = 0x80;
// 64-bit addresses, queued commands, command list override, generation 3, AHCI only, 32 slots.
inline constexpr uint32_t kCapValue = 1u << 31 | 1u << 30 | 1u << 24 | 3u << 20 | 1u << 18 | 31u << 8 | (kPorts - 1);
inline constexpr uint32_t kVersion = 0x00010300;
inline constexpr uint32_t kGhcAe = 1u << 31, kGhcIe = 1u << 1, kGhcHr = 1u << 0;

// Ports. [AHCI] 3.3
enum PortReg : uint8_t {
  kPxClb = 0x00,   // rw  command list, 1 KiB aligned
  kPxClbu = 0x04,  // rw
  kPxFb = 0x08,    // rw  received FISes, 256 bytes aligned
  kPxFbu = 0x0c,   // rw
  kPxIs = 0x10,    // rwc interrupt status
  kPxIe = 0x14,    // rw  interrupt enable
  kPxCmd = 0x18,   // rw  command and status
  kPxTfd = 0x20,   // r-  task file: [15:8] error, [7:0] status
  kPxSig = 0x24,   // r-  signature
  kPxSsts = 0x28,  // r-  SStatus
  kPxSctl = 0x2c,  // rw  SControl
  kPxSerr = 0x30,  // rwc SError
  kPxSact = 0x34,  // rws queued commands under way, a bit a tag
  kPxCi = 0x38,    // rws commands issued, a bit a slot
};
// PxIS and PxIE.
inline constexpr uint32_t kDhrs = 1u << 0, kPss = 1u << 1, kSdbs = 1u << 3, kPcs = 1u << 6, kPrcs = 1u << 22,
                          kOfs = 1u << 24, kHbfs = 1u << 29, kTfes = 1u << 30;
inline constexpr uint32_t kInterruptBits = 0xfdc000ff;
inline constexpr uint32_t kFollowsSerr = kPcs | kPrcs | 1u << 4;  // cleared through PxSERR, or not at all
// PxCMD.
inline constexpr uint32_t kSt = 1u << 0, kSud = 1u << 1, kPod = 1u << 2, kClo = 1u << 3, kFre = 1u << 4, kFr = 1u << 14,
                          kCr = 1u << 15, kAtapi = 1u << 24, kDlae = 1u << 25;
inline constexpr uint32_t kCmdWritable = kSt | kFre | kAtapi | kDlae;
inline constexpr unsigned kCcsShift = 8;
// PxTFD before the device has said anything. [AHCI] 3.3.8
inline constexpr uint32_t kTfdReset = 0x7f;
// PxSSTS: a device, at generation 3, active. PxSCTL.DET: 1 keeps COMRESET up, 4 switches the link off.
inline constexpr uint32_t kLinkUp = 0x133;
inline constexpr uint32_t kSctlBits = 0xfff, kDetMask = 0xf, kDetReset = 1, kDetOff = 4;
inline constexpr uint32_t kSerrExchanged = 1u << 26;  // DIAG.X

// Command list and tables. [AHCI] 4.2.2, 4.2.3
inline constexpr uint64_t kHeaderBytes = 32;
inline constexpr uint16_t kHeaderAtapi = 1u << 5, kHeaderReset = 1u << 8, kHeaderClearBusy = 1u << 10;
inline constexpr uint64_t kTableAcmd = 0x40, kTablePrdt = 0x80, kPrdBytes = 16;

// FIS types, and where received ones go. [SATA] 10.3; [AHCI] 4.2.1
inline constexpr uint8_t kFisH2d = 0x27, kFisD2h = 0x34, kFisDmaSetup = 0x41, kFisPioSetup = 0x5f,
                         kFisDeviceBits = 0xa1;
inline constexpr uint64_t kRxDmaSetup = 0x00, kRxPioSetup = 0x20, kRxD2h = 0x40, kRxDeviceBits = 0x58;
inline constexpr uint8_t kFisCommand = 0x80, kFisInterrupt = 0x40, kFisToHost = 0x20;

// Configuration space. [ICH9] 14.1
inline constexpr uint8_t kMsiOffset = 0x80, kMap = 0x90, kPcs92 = 0x92, kSataCap = 0xa8;
inline constexpr uint8_t kMapAhci = 0x40;
// The index-data pair lies in BAR 4 at 10h. [AHCI] 2.4; [ICH9] 14.2
inline constexpr uint64_t kPairSize = 32, kPairIndex = 0x10, kPairData = 0x14;
inline constexpr uint32_t kSataCapRevision = 0x0010, kSataCapLocation = 0x48;

}  // namespace kite::devices::ahci
