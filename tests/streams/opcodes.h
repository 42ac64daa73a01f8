// The instructions that streams are made of: how each is encoded and what its operands must be to make sense.
#pragma once

#include <cstdint>
#include <span>

namespace kite::streams {

enum class Form : uint8_t {
  kPlain,    // no ModRM
  kAny,      // ModRM: register or memory
  kMemory,   // ModRM: memory only
  kRegister  // ModRM: register only
};
enum class Imm : uint8_t { kNone, kByte, kWord, kWide /* 2 or 4 by operand size */, kFull /* up to 8 */, kAddress };

// Operand width by prefixes.
enum class Width : uint8_t { kFixed, kWord /* 16, 32, 64 */, kStack /* 16 and the default */, kNo16 /* 32, 64 */ };

namespace rule {
inline constexpr uint32_t kLock = 1;    // LOCK is legal with a memory destination
inline constexpr uint32_t kOnly32 = 2;  // not in 64-bit code
inline constexpr uint32_t kOnly64 = 4;
inline constexpr uint32_t kDivide = 8;          // rDX:rAX is made small
inline constexpr uint32_t kBitOffset = 16;      // the register operand is a bit offset: made small
inline constexpr uint32_t kString = 32;         // rSI, rDI and rCX are prepared; REP and REPNE are legal
inline constexpr uint32_t kAligned = 64;        // the memory operand wants 16-byte alignment
inline constexpr uint32_t kBranch = 128;        // forward; Imm says how wide
inline constexpr uint32_t kRepString = 256;     // of kString: only REP (F3) is defined
inline constexpr uint32_t kTable = 512;         // rBX is prepared for XLAT
inline constexpr uint32_t kControlWord = 1024;  // the memory operand is prepared as MXCSR
inline constexpr uint32_t kPointer = 2048;      // rDI is prepared (MASKMOV)
inline constexpr uint32_t kRare = 4096;
inline constexpr uint32_t kAlign16 = 8192;     // 512-byte image, 16-byte aligned
inline constexpr uint32_t kShort = 16384;      // the first register operand is r8: AH..BH without REX
inline constexpr uint32_t kReturn = 65536;     // an address is pushed for it
inline constexpr uint32_t kIndirect = 131072;  // its register operand is loaded with an address
inline constexpr uint32_t kSaves = 262144;  // rDX:rAX is prepared, and what the host says of its XINUSE is overwritten
inline constexpr uint32_t kRestores = 524288;  // an area is prepared for it
inline constexpr uint32_t kDirect = 1048576;   // its register operand is a 64-byte aligned address
// Flags that are undefined and that the interpreter need not match: a CMP behind it defines them.
inline constexpr uint32_t kFlagsUndefined = 32768;
// CF is defined, and what is the same. Where the host is no Intel's, a SETC keeps it and a CMP defines the rest.
inline constexpr uint32_t kCarryOnly = 2097152;
// OF alone is undefined: the same inside of a LAHF and a SAHF (32-bit code, which has them).
inline constexpr uint32_t kAllButOverflow = 8388608;
inline constexpr uint32_t kEnvironment = 4194304;  // stores an x87 environment
}  // namespace rule

// What the host must offer (builtin CPU names). kIntel: CPUs differ, the interpreter does as Intel's.
enum class Feature : uint8_t {
  kAlways,
  kIntel,
  kSse3,
  kSsse3,
  kSse41,
  kSse42,
  kPopcnt,
  kBmi1,
  kLzcnt,
  kMovbe,
  kAdx,
  kAes,
  kPclmul,
  kSha,
  kAvx,
  kAvx2,
  kFma,
  kF16c,
  kBmi2,
  kVaes,
  kVpclmul,
  kGfni,
  kAvxVnni,
  kClflushopt,
  kClwb,
  kMovdiri,
  kMovdir64b,
  kXsave,
  kXsaveopt,
  kXsavec
};

// VEX: what of it an instruction looks at.
namespace vex {
inline constexpr uint16_t kVex = 1;
inline constexpr uint16_t kV = 2;            // VEX.vvvv names an operand
inline constexpr uint16_t kL0 = 4;           // VEX.L must be 0
inline constexpr uint16_t kL1 = 8;           // VEX.L must be 1
inline constexpr uint16_t kW0 = 16;          // VEX.W must be 0
inline constexpr uint16_t kW1 = 32;          // VEX.W must be 1
inline constexpr uint16_t kScale = 64;       // the memory operand doubles with VEX.L
inline constexpr uint16_t kWy = 128;         // VEX.W doubles the memory operand in 64-bit code
inline constexpr uint16_t kIndex = 256;      // VSIB, 4-byte indices
inline constexpr uint16_t kIndexWide = 512;  // VSIB, 8-byte indices
inline constexpr uint16_t kMasked = 1024;    // the memory operand is masked: it may well lie partly outside
}  // namespace vex

struct Opcode {
  uint8_t map = 0;    // 0 one-byte, 1 0F, 2 0F38, 3 0F3A
  uint8_t first = 0;  // opcode byte, any of [first, last]
  uint8_t last = 0;
  uint8_t prefix = 0;  // mandatory: 0, 66, F2, F3
  Form form = Form::kPlain;
  int8_t digit = -1;  // ModRM.reg, or any
  Width width = Width::kFixed;
  Imm imm = Imm::kNone;
  uint8_t bytes = 0;  // of a memory operand; 0: the operand width
  uint32_t rules = 0;
  Feature feature = Feature::kAlways;
  uint16_t vex = 0;
};

// Rows of one kind; the generator chooses a kind first, then a row.
std::span<const Opcode> integer_opcodes();
std::span<const Opcode> x87_opcodes();
std::span<const Opcode> mmx_opcodes();
std::span<const Opcode> sse_opcodes();
std::span<const Opcode> avx_opcodes();    // everything with VEX; may be empty
std::span<const Opcode> state_opcodes();  // the XSAVE family; may be empty

}  // namespace kite::streams
