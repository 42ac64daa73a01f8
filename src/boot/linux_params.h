// Offsets of the Linux zero page (struct boot_params) and of the setup header in it, which has the same offsets in a
// bzImage file. [zero-page.rst], [boot.rst] of the kernel's Documentation/arch/x86.
#pragma once

#include <cstdint>

namespace kite::boot::linux_params {

inline constexpr uint64_t kBytes = 4096;

// The zero page alone
inline constexpr uint64_t kExtMemK = 0x002;      // 16 bits: KiB above 1 MiB, at most 0xfc00
inline constexpr uint64_t kAcpiRsdp = 0x070;     // 64 bits
inline constexpr uint64_t kAltMemK = 0x1e0;      // 32 bits: KiB above 1 MiB
inline constexpr uint64_t kE820Entries = 0x1e8;  // 8 bits
inline constexpr uint64_t kE820Table = 0x2d0;    // 20 bytes each: base, size, type
inline constexpr uint64_t kE820Most = 128;
inline constexpr uint64_t kE820EntryBytes = 20;

// The setup header
inline constexpr uint64_t kHeaderStart = 0x1f1;
inline constexpr uint64_t kHeaderLimit = 0x290;      // what the zero page has room for
inline constexpr uint64_t kSetupSects = 0x1f1;       // 8 bits: 512-byte sectors of real-mode code after the first
inline constexpr uint64_t kSysSize = 0x1f4;          // 32 bits: protected-mode code in 16-byte units
inline constexpr uint64_t kVidMode = 0x1fa;          // 16 bits
inline constexpr uint64_t kBootFlag = 0x1fe;         // 0xaa55
inline constexpr uint64_t kJump = 0x200;             // the second byte tells the header's end: 0x202 + it
inline constexpr uint64_t kMagic = 0x202;            // "HdrS"
inline constexpr uint64_t kVersion = 0x206;          // 16 bits
inline constexpr uint64_t kTypeOfLoader = 0x210;     // 8 bits
inline constexpr uint64_t kLoadFlags = 0x211;        // 8 bits
inline constexpr uint64_t kCode32Start = 0x214;      // 32 bits
inline constexpr uint64_t kRamdiskImage = 0x218;     // 32 bits
inline constexpr uint64_t kRamdiskSize = 0x21c;      // 32 bits
inline constexpr uint64_t kCmdLinePtr = 0x228;       // 32 bits, 2.02+
inline constexpr uint64_t kInitrdAddrMax = 0x22c;    // 32 bits, 2.03+
inline constexpr uint64_t kKernelAlignment = 0x230;  // 32 bits, 2.05+
inline constexpr uint64_t kRelocatable = 0x234;      // 8 bits, 2.05+
inline constexpr uint64_t kXloadFlags = 0x236;       // 16 bits, 2.12+
inline constexpr uint64_t kCmdlineSize = 0x238;      // 32 bits, 2.06+
inline constexpr uint64_t kSetupData = 0x250;        // 64 bits, 2.09+
inline constexpr uint64_t kPrefAddress = 0x258;      // 64 bits, 2.10+
inline constexpr uint64_t kInitSize = 0x260;         // 32 bits, 2.10+

inline constexpr uint32_t kMagicValue = 0x53726448;
inline constexpr uint16_t kBootFlagValue = 0xaa55;
inline constexpr uint8_t kLoadedHigh = 1u << 0;
inline constexpr uint16_t kXlfKernel64 = 1u << 0;
inline constexpr uint16_t kVideoNormal = 0xffff, kVideoExtended = 0xfffe, kVideoAsk = 0xfffd;
inline constexpr uint8_t kUnregisteredLoader = 0xff;
inline constexpr uint64_t kEntry64 = 0x200;  // of the 64-bit entry point, from the load address

// A node of the setup_data list: next (64 bits), type, length of what follows (32 bits each).
inline constexpr uint64_t kSetupDataHeader = 16;
inline constexpr uint32_t kSetupRngSeed = 9;

}  // namespace kite::boot::linux_params
