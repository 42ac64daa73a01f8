// Registers of the high precision event timer. [HPET] 2.3
#pragma once

#include <cstdint>

namespace kite::devices::hpet {

enum Reg : uint64_t {
  CAPABILITIES = 0x000,  // r-
  CONFIG = 0x010,        // rw
  STATUS = 0x020,        // rw1c
  COUNTER = 0x0f0,       // rw while halted
  TIMERS = 0x100,        // kTimerStride bytes each
};

// Within a timer.
enum TimerReg : uint64_t {
  TIMER_CONFIG = 0x00,      // rw
  TIMER_COMPARATOR = 0x08,  // rw
  TIMER_FSB = 0x10,         // rw  63:32 address, 31:0 data
};
inline constexpr uint64_t kTimerStride = 0x20;

inline constexpr uint64_t kEnable = 1u << 0;
inline constexpr uint64_t kLegacy = 1u << 1;

inline constexpr uint64_t kLevel = 1u << 1;
inline constexpr uint64_t kInterrupt = 1u << 2;
inline constexpr uint64_t kPeriodic = 1u << 3;
inline constexpr uint64_t kPeriodicCapable = 1u << 4;  // r-
inline constexpr uint64_t k64BitCapable = 1u << 5;     // r-
inline constexpr uint64_t kSetValue = 1u << 6;         // -w
inline constexpr uint64_t k32Bit = 1u << 8;
inline constexpr unsigned kRouteShift = 9;  // 13:9
inline constexpr uint64_t kRouteMask = 0x1fu << kRouteShift;
inline constexpr uint64_t kFsb = 1u << 14;
inline constexpr uint64_t kFsbCapable = 1u << 15;  // r-
inline constexpr uint64_t kTimerWritable = kLevel | kInterrupt | kPeriodic | k32Bit | kRouteMask | kFsb;

}  // namespace kite::devices::hpet
