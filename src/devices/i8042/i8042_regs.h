// The keyboard controller of a PC/AT and the devices behind it. [8042] IBM PS/2 Hardware Interface Technical Reference,
// "Keyboard and Auxiliary Device Controller", 1988; [PS2KBD] and [PS2MOUSE] its keyboard and mouse sections;
// [INTELLIMOUSE] the wheel extension.
#pragma once

#include <cstdint>

namespace kite::devices::i8042_regs {

inline constexpr uint16_t kDataPort = 0x60;
inline constexpr uint16_t kCommandPort = 0x64;

// Status, read at 0x64.
inline constexpr uint8_t kObf = 1u << 0;  // output buffer full: 0x60 has a byte for the guest
inline constexpr uint8_t kIbf = 1u << 1;  // input buffer full; never seen set, the controller is quick
inline constexpr uint8_t kSysFlag = 1u << 2;
inline constexpr uint8_t kLastWasCommand = 1u << 3;
inline constexpr uint8_t kUnlocked = 1u << 4;
inline constexpr uint8_t kAuxObf = 1u << 5;  // the byte is from the auxiliary device

// Controller command byte (RAM location 0).
inline constexpr uint8_t kCcbKeyboardIrq = 1u << 0;
inline constexpr uint8_t kCcbAuxIrq = 1u << 1;
inline constexpr uint8_t kCcbSysFlag = 1u << 2;
inline constexpr uint8_t kCcbKeyboardOff = 1u << 4;
inline constexpr uint8_t kCcbAuxOff = 1u << 5;
inline constexpr uint8_t kCcbTranslate = 1u << 6;
inline constexpr uint8_t kCcbBits = 0x7f;

// Output port.
inline constexpr uint8_t kOutNotReset = 1u << 0;  // 0 pulls the processor's reset
inline constexpr uint8_t kOutA20 = 1u << 1;
inline constexpr uint8_t kOutKeyboardObf = 1u << 4;  // IRQ 1
inline constexpr uint8_t kOutAuxObf = 1u << 5;       // IRQ 12

// Commands, written at 0x64.
enum Command : uint8_t {
  kReadRam = 0x20,   // 0x20-0x3f
  kWriteRam = 0x60,  // 0x60-0x7f, one data byte
  kAuxDisable = 0xa7,
  kAuxEnable = 0xa8,
  kAuxTest = 0xa9,
  kSelfTest = 0xaa,
  kKeyboardTest = 0xab,
  kKeyboardDisable = 0xad,
  kKeyboardEnable = 0xae,
  kReadInputPort = 0xc0,
  kReadOutputPort = 0xd0,
  kWriteOutputPort = 0xd1,      // one data byte
  kWriteKeyboardBuffer = 0xd2,  // one data byte, comes back as if from the keyboard
  kWriteAuxBuffer = 0xd3,       // one data byte, comes back as if from the auxiliary device
  kWriteAux = 0xd4,             // one data byte, sent to the auxiliary device
  kDisableA20 = 0xdd,
  kEnableA20 = 0xdf,
  kReadTestInputs = 0xe0,
  kPulse = 0xf0,  // 0xf0-0xff: bits 3:0 that are 0 pulse the output port's bits 3:0
};
inline constexpr uint8_t kSelfTestPassed = 0x55;
inline constexpr uint8_t kPortTestPassed = 0x00;

// What both devices answer.
inline constexpr uint8_t kAck = 0xfa;
inline constexpr uint8_t kResend = 0xfe;
inline constexpr uint8_t kBatPassed = 0xaa;

}  // namespace kite::devices::i8042_regs
