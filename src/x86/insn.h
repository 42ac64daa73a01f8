// A decoded instruction. The decoder is table-driven: opcode maps give the operation, operand encodings and legality;
// see decoder.cc. It knows nothing of CPU state beyond DecodeMode.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "x86/opcode.h"
#include "x86/registers.h"

namespace kite::x86 {

enum class CodeWidth : uint8_t { k16, k32, k64 };  // by CS.L and CS.D

struct DecodeMode {
  CodeWidth width = CodeWidth::k64;
  // Features that change what bytes mean are checked by the executor through Insn::feature, not here.
};

enum class OperandKind : uint8_t {
  kNone,
  kGpr,      // general register `reg` of `size` bytes; size 1 with `high_byte`: AH CH DH BH for 0..3
  kMem,      // Insn::mem, `size` bytes (0: no access size, as LEA, INVLPG, FXSAVE)
  kImm,      // Insn::imm, sign- or zero-extended already as the instruction defines
  kImm2,     // second immediate (ENTER's level, far pointer's selector)
  kRel,      // branch target: Insn::imm is the displacement, sign-extended
  kSegReg,   // reg is a Seg
  kControl,  // CRn
  kDebug,    // DRn
  kMmx,      // mmN
  kXmm,      // xmmN
  kYmm,      // ymmN
  kX87,      // st(N)
};

// The part of the encoding that an operand comes from, as far as that tells the executor something.
enum class Field : uint8_t {
  kOther,
  kReg /* ModRM.reg */,
  kRm /* ModRM.rm */,
  kVvvv /* VEX.vvvv */,
  kIs4 /* imm8[7:4] */
};

struct Operand {
  OperandKind kind = OperandKind::kNone;
  uint8_t size = 0;  // bytes
  uint8_t reg = 0;
  bool high_byte = false;
  Field field = Field::kOther;
};

inline constexpr uint8_t kNoReg = 0xff;
inline constexpr uint8_t kRipReg = 0xfe;

struct MemOperand {
  uint8_t base = kNoReg;     // Gpr number, kRipReg, or kNoReg
  uint8_t index = kNoReg;    // Gpr number or kNoReg; XMM or YMM number with vector_index
  uint8_t scale = 0;         // shift, 0..3
  uint8_t vector_index = 0;  // VSIB: 16 or 32, the bytes of the index register
  Seg segment = Seg::kDs;    // with overrides and the SS default of rsp/rbp bases applied
  int64_t disp = 0;          // sign-extended; for moffs the full address
};

// What executes it, for instructions that the host's own vector and x87 units run.
enum class Unit : uint8_t { kInteger, kX87, kMmx, kSse, kAvx };

// CPUID feature that must be offered for the opcode to exist; checked by the executor.
enum class Need : uint8_t {
  kNone,
  kMmx,
  kSse,
  kSse2,
  kSse3,
  kSsse3,
  kSse41,
  kSse42,
  kPopcnt,
  kLzcnt,
  kBmi1,
  kMovbe,
  kCx16,
  kRdtscp,
  kFxsr,
  kSyscall,
  kSep,
  kCmov,
  kX87,
  kClflush,
  kClflushopt,
  kAes,
  kPclmul,
  kSha,
  kRdrand,
  kRdseed,
  kAdx,
  kFsgsbase,
  kXsave,
  kSmap,
  kRdpid,
  kInvpcid,
  kMonitor,
  kCx8,
  kPrefetchw,
  kLongMode,
  kClwb,
  kXsaveopt,
  kXsavec,
  kXsaves,
  kPku,
  kRdpru,
  kWbnoinvd,
  kAvx,  // from here to kVaes, and in VEX forms of the others: AVX as well
  kAvx2,
  kFma,
  kF16c,
  kAvxVnni,
  kVpclmul,
  kVaes,
  kGfni,
  kBmi2,
  kMovdiri,
  kMovdir64b,
  kSerialize
};

struct Insn {
  Op op = Op::kInvalid;      // kInvalid: #UD (the length covers what was read)
  uint8_t length = 0;        // bytes, 1..15
  uint8_t operand_size = 4;  // effective: 2, 4 or 8
  uint8_t address_size = 8;  // effective: 2, 4 or 8
  bool lock = false;         // LOCK prefix present (illegal uses are decoded as kInvalid)
  bool rep = false;          // F3, when it is not a mandatory prefix
  bool repne = false;        // F2, likewise
  bool has_mem = false;
  uint8_t condition = 0;  // low four opcode bits of Jcc, SETcc, CMOVcc
  std::array<Operand, 4> operand{};
  MemOperand mem{};
  uint64_t imm = 0;
  uint64_t imm2 = 0;
  Unit unit = Unit::kInteger;
  Need need = Need::kNone;

  // For Unit != kInteger (and for logs): the encoding, so that the same operation can be issued on the host.
  uint8_t map = 0;  // 0 one-byte, 1 0F, 2 0F38, 3 0F3A
  uint8_t opcode = 0;
  uint8_t mandatory_prefix = 0;  // 0, 0x66, 0xf2, 0xf3
  uint8_t modrm = 0;
  bool rex_w = false;        // REX.W; VEX.W where it means something
  bool vex = false;          // `map` and `mandatory_prefix` are those of the VEX prefix
  uint8_t vector_bytes = 0;  // VEX: 16 or 32, by VEX.L; 16 where that is ignored
  bool mem_read = false;     // the memory operand is read
  bool mem_write = false;    // the memory operand is written
  uint8_t mem_align = 0;     // 16 or 32: #GP when the memory operand is not aligned to that
};

enum class DecodeStatus : uint8_t {
  kOk,         // including Op::kInvalid
  kTruncated,  // more bytes are needed than were given
  kTooLong,    // more than 15 bytes: #GP(0) (SDM 2.3.11)
};

// `bytes` starts at the instruction and holds up to 15 bytes.
DecodeStatus decode(std::span<const uint8_t> bytes, DecodeMode mode, Insn& insn);

// The SDM's mnemonic, with the width where it is part of it ("movsq", "cdqe", "cmovnz").
std::string_view mnemonic(const Insn& insn);
// Intel-syntax text for logs ("add rax, qword ptr [rbx+8]"); `rip` is the instruction's address.
std::string to_text(const Insn& insn, uint64_t rip);
std::string_view op_name(Op op);

}  // namespace kite::x86
