// The firmware configuration device's ports, keys and DMA structure. [FW_CFG] QEMU's docs/specs/fw_cfg.txt.
#pragma once

#include <cstdint>

namespace kite::devices::fw_cfg_regs {

inline constexpr uint16_t kPort = 0x510;     // rw  2 bytes: 16-bit selector at +0, 8-bit data at +1
inline constexpr uint16_t kDmaPort = 0x514;  // rw  8 bytes, big-endian: address of a DMA structure

// Keys.
inline constexpr uint16_t kSignature = 0x00;  // "QEMU"
inline constexpr uint16_t kId = 0x01;         // 32 bits: features
inline constexpr uint16_t kUuid = 0x02;       // 16 bytes
inline constexpr uint16_t kRamSize = 0x03;    // 64 bits, bytes
inline constexpr uint16_t kNographic = 0x04;  // 16 bits
inline constexpr uint16_t kCpuCount = 0x05;   // 16 bits
inline constexpr uint16_t kMachineId = 0x06;  // 16 bits
inline constexpr uint16_t kKernelAddress = 0x07;
inline constexpr uint16_t kKernelSize = 0x08;
inline constexpr uint16_t kKernelCommandLine = 0x09;
inline constexpr uint16_t kInitrdAddress = 0x0a;
inline constexpr uint16_t kInitrdSize = 0x0b;
inline constexpr uint16_t kBootDevice = 0x0c;
inline constexpr uint16_t kNuma = 0x0d;
inline constexpr uint16_t kBootMenu = 0x0e;  // 16 bits
inline constexpr uint16_t kMaxCpus = 0x0f;   // 16 bits
inline constexpr uint16_t kKernelEntry = 0x10;
inline constexpr uint16_t kKernelData = 0x11;
inline constexpr uint16_t kInitrdData = 0x12;
inline constexpr uint16_t kCommandLineAddress = 0x13;
inline constexpr uint16_t kCommandLineSize = 0x14;
inline constexpr uint16_t kCommandLineData = 0x15;
inline constexpr uint16_t kSetupAddress = 0x16;
inline constexpr uint16_t kSetupSize = 0x17;
inline constexpr uint16_t kSetupData = 0x18;
inline constexpr uint16_t kFileDirectory = 0x19;
inline constexpr uint16_t kFirstFile = 0x20;
inline constexpr uint16_t kWriteChannel = 0x4000;  // selector bit: reserved, its keys hold nothing
inline constexpr uint16_t kArchLocal = 0x8000;     // selector bit: keys of the architecture
inline constexpr uint16_t kNoKey = 0xffff;         // selects nothing

// Keys of the x86 PC.
inline constexpr uint16_t kAcpiTables = kArchLocal + 0;
inline constexpr uint16_t kSmbiosEntries = kArchLocal + 1;
inline constexpr uint16_t kIrq0Override = kArchLocal + 2;  // 32 bits
inline constexpr uint16_t kE820Table = kArchLocal + 3;
inline constexpr uint16_t kHpet = kArchLocal + 4;

// kId's bits.
inline constexpr uint32_t kIdTraditional = 1u << 0;
inline constexpr uint32_t kIdDma = 1u << 1;

// File directory: big-endian count, then entries of size(4), select(2), reserved(2), name(56, zero-terminated).
inline constexpr uint64_t kDirectoryEntrySize = 64;
inline constexpr uint64_t kFileNameSize = 56;

// DMA structure, big-endian: control(4), length(4), address(8).
inline constexpr uint32_t kDmaError = 1u << 0;
inline constexpr uint32_t kDmaRead = 1u << 1;
inline constexpr uint32_t kDmaSkip = 1u << 2;
inline constexpr uint32_t kDmaSelect = 1u << 3;  // the key is in bits 31:16
inline constexpr uint32_t kDmaWrite = 1u << 4;
inline constexpr uint64_t kDmaSignature = 0x51454d5520434647;  // "QEMU CFG": what a read of the port answers

}  // namespace kite::devices::fw_cfg_regs
