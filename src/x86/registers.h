// Registers of the x86-64 architecture: numbers, bit names, segment caches. Facts only, no state machine.
// Source: Intel SDM volume 3A, chapters 2, 3, 6 and 25; AMD APM volume 2.
#pragma once

#include <cstdint>

namespace kite::x86 {

enum Gpr : uint8_t { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR9, kR10, kR11, kR12, kR13, kR14, kR15 };

enum class Seg : uint8_t { kEs, kCs, kSs, kDs, kFs, kGs };
inline constexpr unsigned kSegCount = 6;

// RFLAGS (SDM 3.4.3)
namespace flag {
inline constexpr uint64_t kCf = 1u << 0, kFixed1 = 1u << 1, kPf = 1u << 2, kAf = 1u << 4, kZf = 1u << 6, kSf = 1u << 7,
                          kTf = 1u << 8, kIf = 1u << 9, kDf = 1u << 10, kOf = 1u << 11, kIopl = 3u << 12,
                          kNt = 1u << 14, kRf = 1u << 16, kVm = 1u << 17, kAc = 1u << 18, kVif = 1u << 19,
                          kVip = 1u << 20, kId = 1u << 21;
inline constexpr uint64_t kArithmetic = kCf | kPf | kAf | kZf | kSf | kOf;
}  // namespace flag

namespace cr0 {
inline constexpr uint64_t kPe = 1u << 0, kMp = 1u << 1, kEm = 1u << 2, kTs = 1u << 3, kEt = 1u << 4, kNe = 1u << 5,
                          kWp = 1u << 16, kAm = 1u << 18, kNw = 1u << 29, kCd = 1u << 30, kPg = 1u << 31;
}
namespace cr4 {
inline constexpr uint64_t kVme = 1u << 0, kPvi = 1u << 1, kTsd = 1u << 2, kDe = 1u << 3, kPse = 1u << 4, kPae = 1u << 5,
                          kMce = 1u << 6, kPge = 1u << 7, kPce = 1u << 8, kOsfxsr = 1u << 9, kOsxmmexcpt = 1u << 10,
                          kUmip = 1u << 11, kLa57 = 1u << 12, kVmxe = 1u << 13, kFsgsbase = 1u << 16, kPcide = 1u << 17,
                          kOsxsave = 1u << 18, kSmep = 1u << 20, kSmap = 1u << 21, kPke = 1u << 22, kPks = 1u << 24,
                          kLamSup = 1u << 28;
}
// CR3, besides the address and the PCID (SDM 3A 4.5.1)
namespace cr3 {
inline constexpr uint64_t kLamU57 = 1ull << 61, kLamU48 = 1ull << 62, kNoFlush = 1ull << 63;
}
namespace efer {
inline constexpr uint64_t kSce = 1u << 0, kLme = 1u << 8, kLma = 1u << 10, kNxe = 1u << 11, kSvme = 1u << 12,
                          kFfxsr = 1u << 14;
}
// XCR0 and the headers of XSAVE areas (SDM 1, 13.1)
namespace xcr0 {
inline constexpr uint64_t kX87 = 1u << 0, kSse = 1u << 1, kAvx = 1u << 2, kBndRegs = 1u << 3, kBndCsr = 1u << 4,
                          kOpmask = 1u << 5, kZmmHigh256 = 1u << 6, kHigh16Zmm = 1u << 7, kPkru = 1u << 9;
}
namespace dr6 {
inline constexpr uint64_t kB0 = 1u << 0, kBd = 1u << 13, kBs = 1u << 14, kBt = 1u << 15, kReset = 0xffff0ff0;
}
namespace debugctl {
inline constexpr uint64_t kBtf = 1u << 1;  // single steps stop at branches
}
namespace dr7 {
inline constexpr uint64_t kGd = 1u << 13, kReset = 0x400;
}

// Exceptions (SDM table 6-1)
enum class Vector : uint8_t {
  kDe = 0,
  kDb = 1,
  kNmi = 2,
  kBp = 3,
  kOf = 4,
  kBr = 5,
  kUd = 6,
  kNm = 7,
  kDf = 8,
  kTs = 10,
  kNp = 11,
  kSs = 12,
  kGp = 13,
  kPf = 14,
  kMf = 16,
  kAc = 17,
  kMc = 18,
  kXm = 19,
  kVe = 20,
  kCp = 21,
};
// Page-fault error code (SDM 4.7)
namespace pf {
inline constexpr uint32_t kPresent = 1, kWrite = 2, kUser = 4, kReserved = 8, kFetch = 16, kProtectionKey = 32;
}

// A segment register with its hidden part. `attributes` holds descriptor bits 55:52 and 47:40 as VMX access rights do
// (SDM table 24-2): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16. `limit` is in bytes.
struct SegmentRegister {
  uint16_t selector = 0;
  uint32_t attributes = 0;
  uint32_t limit = 0;
  uint64_t base = 0;

  [[nodiscard]] uint8_t type() const { return attributes & 15; }
  [[nodiscard]] bool system() const { return !(attributes & 0x10); }
  [[nodiscard]] uint8_t dpl() const { return (attributes >> 5) & 3; }
  [[nodiscard]] bool present() const { return attributes & 0x80; }
  [[nodiscard]] bool long_mode() const { return attributes & 0x2000; }
  [[nodiscard]] bool big() const { return attributes & 0x4000; }
  [[nodiscard]] bool unusable() const { return attributes & 0x10000; }
  bool operator==(const SegmentRegister&) const = default;
};

struct DescriptorTable {
  uint64_t base = 0;
  uint16_t limit = 0;
  bool operator==(const DescriptorTable&) const = default;
};

// MSR numbers (SDM volume 4; APM volume 2 appendix A)
namespace msr {
inline constexpr uint32_t kTsc = 0x10, kPlatformId = 0x17, kApicBase = 0x1b, kFeatureControl = 0x3a, kTscAdjust = 0x3b,
                          kSpecCtrl = 0x48, kPredCmd = 0x49, kBiosSignId = 0x8b, kMtrrCap = 0xfe,
                          kArchCapabilities = 0x10a, kSysenterCs = 0x174, kSysenterEsp = 0x175, kSysenterEip = 0x176,
                          kMcgCap = 0x179, kMcgStatus = 0x17a, kMcgCtl = 0x17b, kMiscEnable = 0x1a0, kDebugCtl = 0x1d9,
                          kMtrrPhysBase0 = 0x200, kMtrrPhysMask7 = 0x20f, kMtrrFix64k = 0x250, kMtrrFix16k80000 = 0x258,
                          kMtrrFix16kA0000 = 0x259, kMtrrFix4kC0000 = 0x268, kMtrrFix4kF8000 = 0x26f, kPat = 0x277,
                          kMtrrDefType = 0x2ff, kMc0Ctl = 0x400, kPkrs = 0x6e1, kTscDeadline = 0x6e0,
                          kX2ApicBase = 0x800, kX2ApicEnd = 0x8ff, kXss = 0xda0, kEfer = 0xc0000080, kStar = 0xc0000081,
                          kLstar = 0xc0000082, kCstar = 0xc0000083, kSfMask = 0xc0000084, kFsBase = 0xc0000100,
                          kGsBase = 0xc0000101, kKernelGsBase = 0xc0000102, kTscAux = 0xc0000103,
                          kPerfEventSelect0 = 0xc0010000, kPerfCounter3 = 0xc0010007, kSyscfg = 0xc0010010,
                          kHwcr = 0xc0010015, kVmCr = 0xc0010114;
}

}  // namespace kite::x86
