// ICH9 TCO: registers at PMBASE + 0x60. [ICH9] Intel 316972-004, 13.9.
#pragma once

#include <cstdint>

namespace kite::devices::tco_regs {

inline constexpr uint64_t kTcoSize = 0x20;
enum Reg : uint8_t {
  kRld = 0x00,       // rw  13.9.1 timer reload and current value, 16 bits
  kDatIn = 0x02,     // rw  13.9.2 a write is a message to the SMI handler
  kDatOut = 0x03,    // rw  13.9.3 a write is a message from it
  kTco1Sts = 0x04,   // rwc 13.9.4 status 1, 16 bits
  kTco2Sts = 0x06,   // rwc 13.9.5 status 2, 16 bits
  kTco1Cnt = 0x08,   // rw  13.9.6 control 1, 16 bits
  kTco2Cnt = 0x0a,   // rw  13.9.7 control 2, 16 bits
  kMessage1 = 0x0c,  // rw  13.9.8
  kMessage2 = 0x0d,  // rw
  kWdcnt = 0x0e,     // rw  13.9.9 watchdog status for the BIOS
  kSwIrqGen = 0x10,  // rw  13.9.10
  kTmr = 0x12,       // rw  13.9.11 initial value, 16 bits
};

// TCO1_STS.
inline constexpr uint16_t kSwTcoSmi = 1u << 1, kTcoIntSts = 1u << 2, kTimeout = 1u << 3;
inline constexpr uint16_t kTco1StsBits = kSwTcoSmi | kTcoIntSts | kTimeout;
// TCO2_STS.
inline constexpr uint16_t kSecondToSts = 1u << 1;
inline constexpr uint16_t kTco2StsBits = kSecondToSts;
// TCO1_CNT.
inline constexpr uint16_t kTmrHlt = 1u << 11;
inline constexpr uint16_t kLock = 1u << 12;  // SMI_EN.TCO_EN cannot change any more; stays until the next reset
inline constexpr uint16_t kTco1CntBits = 0x0200 | kTmrHlt | kLock;
inline constexpr uint16_t kTco2CntBits = 0x003e;
inline constexpr uint16_t kTco2CntReset = 0x0008;
inline constexpr uint8_t kSwIrqGenReset = 0x03;
inline constexpr uint16_t kTmrReset = 0x0004;
inline constexpr uint16_t kCountMask = 0x03ff;

inline constexpr int64_t kTickNs = 600'000'000;

}  // namespace kite::devices::tco_regs
