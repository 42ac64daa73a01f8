// Registers of the local APIC. [SDM 3A table 11-1, 11-6]
#pragma once

#include <cstdint>

namespace kite::devices::apic {

// The index of a register: its offset in the page divided by 16, and its MSR minus 0x800.
enum class Reg : uint8_t {
  ID = 0x02,             // rw xAPIC, r- x2APIC
  VERSION = 0x03,        // r-
  TPR = 0x08,            // rw
  APR = 0x09,            // r- xAPIC only
  PPR = 0x0a,            // r-
  EOI = 0x0b,            // -w
  RRD = 0x0c,            // r- xAPIC only
  LDR = 0x0d,            // rw xAPIC, r- x2APIC
  DFR = 0x0e,            // rw xAPIC only
  SVR = 0x0f,            // rw
  ISR = 0x10,            // r- eight of them
  TMR = 0x18,            // r- eight of them
  IRR = 0x20,            // r- eight of them
  ESR = 0x28,            // rw
  ICR = 0x30,            // rw 64 bits in x2APIC
  ICR_HIGH = 0x31,       // rw xAPIC only
  LVT_TIMER = 0x32,      // rw the six LVT entries
  LVT_THERMAL = 0x33,    // rw
  LVT_PERF = 0x34,       // rw
  LVT_LINT0 = 0x35,      // rw
  LVT_LINT1 = 0x36,      // rw
  LVT_ERROR = 0x37,      // rw
  TIMER_INITIAL = 0x38,  // rw
  TIMER_CURRENT = 0x39,  // r-
  TIMER_DIVIDE = 0x3e,   // rw
  SELF_IPI = 0x3f,       // -w x2APIC only
};

// Local vector table entries, in the order of their registers.
enum Lvt : unsigned { kLvtTimer, kLvtThermal, kLvtPerf, kLvtLint0, kLvtLint1, kLvtError, kLvtCount };

inline constexpr uint64_t kBaseDefault = 0xfee00000;
inline constexpr uint64_t kBaseBsp = 1u << 8;
inline constexpr uint64_t kBaseX2Apic = 1u << 10;
inline constexpr uint64_t kBaseEnable = 1u << 11;

// Bits 24: EOI-broadcast suppression, 23:16: number of LVT entries - 1, 7:0: version.
inline constexpr uint32_t kVersion = 0x14 | (kLvtCount - 1) << 16;
inline constexpr uint32_t kVersionDirectedEoi = 1u << 24;

inline constexpr uint32_t kSvrEnable = 1u << 8;
inline constexpr uint32_t kSvrFocus = 1u << 9;
inline constexpr uint32_t kSvrNoBroadcast = 1u << 12;
inline constexpr uint32_t kSvrReset = 0xff;

inline constexpr uint32_t kLvtModeShift = 8;
inline constexpr uint32_t kLvtRemoteIrr = 1u << 14;
inline constexpr uint32_t kLvtLevel = 1u << 15;
inline constexpr uint32_t kLvtMasked = 1u << 16;

inline constexpr uint32_t kDfrFlat = 0xf;  // bits 31:28
inline constexpr uint32_t kDfrCluster = 0x0;

inline constexpr uint32_t kEsrSendIllegal = 1u << 5;
inline constexpr uint32_t kEsrReceiveIllegal = 1u << 6;
inline constexpr uint32_t kEsrIllegalRegister = 1u << 7;

inline constexpr uint32_t kIcrLogical = 1u << 11;
inline constexpr uint32_t kIcrAssert = 1u << 14;
inline constexpr uint32_t kIcrLevel = 1u << 15;
inline constexpr uint32_t kIcrShorthandShift = 18;
inline constexpr uint32_t kIcrWritable = 0xc'cfff;  // without the delivery status, which is always idle

inline constexpr uint8_t kFirstLegalVector = 16;

}  // namespace kite::devices::apic
