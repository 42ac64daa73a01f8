// 82077AA/82078 floppy disk controller. [82077AA] Intel 290166-007, [82078] Intel 290475-002.
#pragma once

#include <cstdint>

namespace kite::devices::fdc_regs {

// Offsets from the base port. 6 belongs to the hard disk controller.
enum Reg : uint8_t {
  SRA = 0,   // r-  status A (PS/2)
  SRB = 1,   // r-  status B (PS/2)
  DOR = 2,   // rw  digital output: below
  TDR = 3,   // rw  tape drive
  MSR = 4,   // r-  main status: below
  DSR = 4,   // -w  data rate select: [7] reset, [6] power down, [1:0] rate
  FIFO = 5,  // rw
  DIR = 7,   // r-  [7] disk changed
  CCR = 7,   // -w  [1:0] rate
};
inline constexpr uint8_t kDorSelect = 0x03, kDorNotReset = 0x04, kDorDma = 0x08;
inline constexpr uint8_t kMsrBusy = 0x10, kMsrNonDma = 0x20, kMsrToHost = 0x40, kMsrReady = 0x80;
inline constexpr uint8_t kDsrReset = 0x80, kDsrPowerDown = 0x40, kRate = 0x03;
inline constexpr uint8_t kDirChanged = 0x80;
inline constexpr uint8_t kSraPending = 0x80, kSraNoSecond = 0x40, kSraNotTrack0 = 0x10, kSraHead = 0x08,
                         kSraNotProtected = 0x02;

// Commands, by the bits that name them; the others are MT, MFM, SK and the like. [82077AA] 5.1
enum Opcode : uint8_t {
  kReadTrack = 0x02,
  kSpecify = 0x03,
  kSenseDriveStatus = 0x04,
  kWriteData = 0x05,
  kReadData = 0x06,
  kRecalibrate = 0x07,
  kSenseInterrupt = 0x08,
  kWriteDeleted = 0x09,
  kReadId = 0x0a,
  kReadDeleted = 0x0c,
  kFormatTrack = 0x0d,
  kDumpReg = 0x0e,
  kSeek = 0x0f,
  kVersion = 0x10,
  kPerpendicular = 0x12,
  kConfigure = 0x13,
  kLock = 0x14,
  kVerify = 0x16,
  kPowerDown = 0x17,
  kPartId = 0x18,
  kSave = 0x2e,
  kOption = 0x33,
  kRestore = 0x4e,
  kDriveSpecification = 0x8e,
  kRelativeSeek = 0x8f,
};
inline constexpr uint8_t kMultiTrack = 0x80, kSeekInwards = 0x40, kLockBit = 0x80, kVerifyCount = 0x80;

// ST0. Interrupt code in [7:6].
inline constexpr uint8_t kSt0Abnormal = 0x40, kSt0Invalid = 0x80, kSt0Polling = 0xc0, kSt0SeekEnd = 0x20,
                         kSt0EquipmentCheck = 0x10;
// ST1
inline constexpr uint8_t kSt1EndOfCylinder = 0x80, kSt1DataError = 0x20, kSt1NoData = 0x04, kSt1NotWritable = 0x02,
                         kSt1MissingMark = 0x01;
// ST2
inline constexpr uint8_t kSt2ControlMark = 0x40, kSt2DataError = 0x20, kSt2WrongCylinder = 0x10;
// ST3
inline constexpr uint8_t kSt3Protected = 0x40, kSt3Ready = 0x20, kSt3Track0 = 0x10, kSt3TwoSides = 0x08;

// CONFIGURE's second byte.
inline constexpr uint8_t kImpliedSeek = 0x40, kFifoOff = 0x20, kConfigureBits = 0x7f;
inline constexpr uint8_t kNonDma = 0x01;       // of SPECIFY's second byte
inline constexpr uint8_t kVersionByte = 0x90;  // 82077 and later
inline constexpr uint8_t kPartIdByte = 0x41;   // 82078
inline constexpr uint32_t kSectorBytes = 512;
inline constexpr uint8_t kSectorCode = 2;  // 128 << 2

}  // namespace kite::devices::fdc_regs
