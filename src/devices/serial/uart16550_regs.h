// 16550A UART registers. [16550D] National Semiconductor PC16550D, June 1995, section 8.
#pragma once

#include <cstdint>

namespace kite::devices::uart_regs {

enum Reg : uint8_t {
  kRbr = 0,  // r-  8.0 receiver buffer        (DLAB=0)
  kThr = 0,  // -w  8.0 transmitter holding    (DLAB=0)
  kDll = 0,  // rw  8.3 divisor latch, low     (DLAB=1)
  kIer = 1,  // rw  8.7 interrupt enable       (DLAB=0)
  kDlm = 1,  // rw  8.3 divisor latch, high    (DLAB=1)
  kIir = 2,  // r-  8.6 interrupt identification
  kFcr = 2,  // -w  8.5 FIFO control
  kLcr = 3,  // rw  8.1 line control
  kMcr = 4,  // rw  8.8 modem control
  kLsr = 5,  // r-  8.4 line status
  kMsr = 6,  // r-  8.9 modem status
  kScr = 7,  // rw  8.10 scratch
};

// IER.
inline constexpr uint8_t kErbfi = 1u << 0;  // received data
inline constexpr uint8_t kEtbei = 1u << 1;  // transmitter holding register empty
inline constexpr uint8_t kElsi = 1u << 2;   // receiver line status
inline constexpr uint8_t kEdssi = 1u << 3;  // modem status
inline constexpr uint8_t kIerBits = 0x0f;

// IIR: [16550D] table V, by falling priority.
inline constexpr uint8_t kIirNone = 0x01;
inline constexpr uint8_t kIirLineStatus = 0x06;
inline constexpr uint8_t kIirData = 0x04;
inline constexpr uint8_t kIirTimeout = 0x0c;
inline constexpr uint8_t kIirThrEmpty = 0x02;
inline constexpr uint8_t kIirModemStatus = 0x00;
inline constexpr uint8_t kIirFifos = 0xc0;  // FIFOs are on

// FCR.
inline constexpr uint8_t kFifoEnable = 1u << 0;
inline constexpr uint8_t kRxFifoReset = 1u << 1;
inline constexpr uint8_t kTxFifoReset = 1u << 2;
inline constexpr uint8_t kDmaMode = 1u << 3;
inline constexpr unsigned kTriggerShift = 6;  // 1, 4, 8, 14 bytes
inline constexpr uint8_t kFcrKept = 0xc9;     // trigger, DMA mode, enable

// LCR.
inline constexpr uint8_t kWordLength = 0x03;  // 5 + n bits
inline constexpr uint8_t kStopBits = 1u << 2;
inline constexpr uint8_t kParity = 1u << 3;
inline constexpr uint8_t kSetBreak = 1u << 6;
inline constexpr uint8_t kDlab = 1u << 7;

// MCR.
inline constexpr uint8_t kDtr = 1u << 0;
inline constexpr uint8_t kRts = 1u << 1;
inline constexpr uint8_t kOut1 = 1u << 2;
inline constexpr uint8_t kOut2 = 1u << 3;  // on a PC: connects the interrupt pin to the bus
inline constexpr uint8_t kLoop = 1u << 4;
inline constexpr uint8_t kMcrBits = 0x1f;

// LSR.
inline constexpr uint8_t kDr = 1u << 0;
inline constexpr uint8_t kOe = 1u << 1;
inline constexpr uint8_t kPe = 1u << 2;
inline constexpr uint8_t kFe = 1u << 3;
inline constexpr uint8_t kBi = 1u << 4;
inline constexpr uint8_t kThre = 1u << 5;
inline constexpr uint8_t kTemt = 1u << 6;
inline constexpr uint8_t kFifoError = 1u << 7;

// MSR: deltas in the low half, lines in the high half.
inline constexpr uint8_t kDcts = 1u << 0;
inline constexpr uint8_t kDdsr = 1u << 1;
inline constexpr uint8_t kTeri = 1u << 2;  // only the trailing edge of RI
inline constexpr uint8_t kDdcd = 1u << 3;
inline constexpr uint8_t kCts = 1u << 4;
inline constexpr uint8_t kDsr = 1u << 5;
inline constexpr uint8_t kRi = 1u << 6;
inline constexpr uint8_t kDcd = 1u << 7;

inline constexpr int64_t kBaudBase = 115'200;  // 1.8432 MHz / 16
inline constexpr unsigned kFifoSize = 16;

}  // namespace kite::devices::uart_regs
