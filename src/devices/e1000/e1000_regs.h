// Registers and descriptors of the 82540EM. [8254x] PCI/PCI-X Family of Gigabit Ethernet Controllers Software
// Developer's Manual, revision 4.0: chapter 13 has the registers, chapter 3 the descriptors, 5.6 the EEPROM.
#pragma once

#include <cstdint>

namespace kite::devices::e1000 {

inline constexpr uint16_t kVendorId = 0x8086, kDeviceId = 0x100e;
inline constexpr uint64_t kMemoryBytes = 128 << 10, kPortBytes = 64;
// I/O ports. 13.2.2: the number of a register, and what it holds.
inline constexpr uint64_t IOADDR = 0, IODATA = 4;

// Byte offsets in BAR 0. Table 13-2.
enum Reg : uint32_t {
  CTRL = 0x0000,
  STATUS = 0x0008,
  EECD = 0x0010,
  EERD = 0x0014,
  CTRL_EXT = 0x0018,
  MDIC = 0x0020,
  FCAL = 0x0028,
  FCAH = 0x002c,
  FCT = 0x0030,
  VET = 0x0038,
  ICR = 0x00c0,
  ITR = 0x00c4,
  ICS = 0x00c8,
  IMS = 0x00d0,
  IMC = 0x00d8,
  RCTL = 0x0100,
  FCTTV = 0x0170,
  TXCW = 0x0178,
  TCTL = 0x0400,
  TIPG = 0x0410,
  AIFS = 0x0458,
  LEDCTL = 0x0e00,
  PBA = 0x1000,
  FCRTL = 0x2160,
  FCRTH = 0x2168,
  RDBAL = 0x2800,
  RDBAH = 0x2804,
  RDLEN = 0x2808,
  RDH = 0x2810,
  RDT = 0x2818,
  RDTR = 0x2820,
  RXDCTL = 0x2828,
  RADV = 0x282c,
  RSRPD = 0x2c00,
  TXDMAC = 0x3000,
  TDBAL = 0x3800,
  TDBAH = 0x3804,
  TDLEN = 0x3808,
  TDH = 0x3810,
  TDT = 0x3818,
  TIDV = 0x3820,
  TXDCTL = 0x3828,
  TADV = 0x382c,
  TSPMT = 0x3830,
  kStatistics = 0x4000,
  MPC = 0x4010,
  PRC64 = 0x405c,  // and five more classes of lengths behind it
  GPRC = 0x4074,
  BPRC = 0x4078,
  MPRC = 0x407c,
  GPTC = 0x4080,
  GORCL = 0x4088,
  GOTCL = 0x4090,
  RNBC = 0x40a0,
  ROC = 0x40ac,
  TORL = 0x40c0,
  TOTL = 0x40c8,
  TPR = 0x40d0,
  TPT = 0x40d4,
  PTC64 = 0x40d8,  // as PRC64
  MPTC = 0x40f0,
  BPTC = 0x40f4,
  TSCTC = 0x40f8,
  kStatisticsEnd = 0x4100,
  RXCSUM = 0x5000,
  MTA = 0x5200,  // 128
  RAL = 0x5400,  // 16 pairs of RAL and RAH
  RAH = 0x5404,
  VFTA = 0x5600,  // 128
  WUC = 0x5800,
  WUFC = 0x5808,
  MANC = 0x5820,
  IPAV = 0x5838,
  IP4AT = 0x5840,
  IP6AT = 0x5880,
  kRegisterEnd = 0x6000,
};
inline constexpr uint32_t kAddresses = 16, kTableWords = 128;

// CTRL. 13.4.1.
inline constexpr uint32_t kReset = 1u << 26, kVlanMode = 1u << 30, kPhyReset = 1u << 31;
// STATUS. 13.4.2: full duplex, link up, speed and what automatic detection made of it.
inline constexpr uint32_t kFullDuplex = 1u << 0, kLinkUp = 1u << 1, kSpeed = 3u << 6, kDetectedSpeed = 3u << 8;
inline constexpr unsigned kSpeedShift = 6, kDetectedShift = 8;
// EECD. 13.4.3.
inline constexpr uint32_t kEepromClock = 1u << 0, kEepromSelect = 1u << 1, kEepromIn = 1u << 2, kEepromOut = 1u << 3,
                          kFlashWrite = 3u << 4, kFlashWriteOff = 1u << 4, kEepromRequest = 1u << 6,
                          kEepromGrant = 1u << 7, kEepromPresent = 1u << 8;
// EERD. 13.4.4.
inline constexpr uint32_t kReadStart = 1u << 0, kReadDone = 1u << 4;
// CTRL_EXT. 13.4.6: reads the EEPROM anew.
inline constexpr uint32_t kEepromReset = 1u << 13;
// MDIC. 13.4.7.
inline constexpr uint32_t kMdiWrite = 1, kMdiRead = 2, kMdiReady = 1u << 28, kMdiInterrupt = 1u << 29,
                          kMdiError = 1u << 30;
inline constexpr uint32_t kPhyAddress = 1;
// ICR, ICS, IMS, IMC. 13.4.17.
inline constexpr uint32_t kTxWritten = 1u << 0, kTxQueueEmpty = 1u << 1, kLinkChange = 1u << 2, kRxLow = 1u << 4,
                          kRxOverrun = 1u << 6, kRxTimer = 1u << 7, kMdiDone = 1u << 9, kTxLow = 1u << 15,
                          kSmallPacket = 1u << 16;
inline constexpr uint32_t kCauses = 0x0001fedf;
// RCTL. 13.4.22.
inline constexpr uint32_t kRxEnable = 1u << 1, kAllUnicast = 1u << 3, kAllMulticast = 1u << 4, kLongPackets = 1u << 5,
                          kLoopback = 3u << 6, kBroadcast = 1u << 15, kVlanFilter = 1u << 18, kCfiFilter = 1u << 19,
                          kCfi = 1u << 20, kMacControl = 1u << 23, kBigBuffers = 1u << 25, kStripCrc = 1u << 26;
inline constexpr unsigned kThresholdShift = 8, kHashShift = 12, kSizeShift = 16;
// TCTL. 13.4.33.
inline constexpr uint32_t kTxEnable = 1u << 1, kPadShort = 1u << 3;
// RDTR. 13.4.30: the timer expires now.
inline constexpr uint32_t kFlush = 1u << 31;
// RXCSUM. 13.4.47.
inline constexpr uint32_t kChecksumStart = 0xff, kCheckIp = 1u << 8, kCheckTcpUdp = 1u << 9;
// RAH. 13.5.3.
inline constexpr uint32_t kAddressValid = 1u << 31, kAddressSelect = 3u << 16, kSourceAddress = 1u << 16;

// Both kinds of descriptors have the address first.
struct Descriptor {
  uint64_t address, rest;
};
static_assert(sizeof(Descriptor) == 16);
inline constexpr uint64_t kRestAt = 8, kStatusAt = 12;

// Receive descriptors. 3.2.3; within `rest`.
inline constexpr uint8_t kDone = 1u << 0, kEndOfPacket = 1u << 1, kIgnoreChecksum = 1u << 2, kIsVlan = 1u << 3,
                         kTcpChecked = 1u << 5, kIpChecked = 1u << 6, kInexact = 1u << 7;
inline constexpr uint8_t kTcpError = 1u << 5, kIpError = 1u << 6;

// Transmit descriptors. 3.3.3, 3.3.5, 3.3.6, 3.3.7; the command is in bits 31:24 of `rest`.
inline constexpr uint8_t kEnd = 1u << 0, kInsertChecksum = 1u << 2, kReport = 1u << 3, kExtended = 1u << 5,
                         kInsertVlan = 1u << 6, kDelay = 1u << 7;
inline constexpr uint8_t kSegment = 1u << 2;                   // extended ones, instead of kInsertChecksum
inline constexpr uint8_t kIsTcp = 1u << 0, kIsIpv4 = 1u << 1;  // context descriptors
inline constexpr uint64_t kContextType = 0, kDataType = 1;
inline constexpr uint8_t kInsertIp = 1u << 0, kInsertTcpUdp = 1u << 1;  // POPTS

}  // namespace kite::devices::e1000
