// The rows of the opcode maps, and how maps are put together from them. Used by the decoder only; the maps are in
// opcode_map_*.cc. Notation follows SDM volume 2, appendix A.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "x86/insn.h"

namespace kite::x86::opcodes {

// Where an operand is and how wide it is. The second letter: b, w, d, q bytes to 8 bytes; v operand size; z 2 or 4; y
// 4, or 8 with REX.W.
// clang-format off
enum class Form : uint8_t {
  None,
  // ModRM.rm: general register or memory
  Eb, Ew, Ed, Ev, Ey, Ez,
  RvMw, RdMb, RdMw,  // a register of operand size or 4 bytes, or a word or byte in memory
  // ModRM.rm: memory only
  M,  // no access, or one whose size the instruction tells otherwise
  Mb, Mw, Md, Mq, Mt /* 10 */, Mdq /* 16, aligned */, Mu /* 16 */, Mv, My, M64 /* 64 */,
  Mp,            // far pointer
  Ms,            // pseudo-descriptor
  Ma,            // BOUND's pair
  Mx,            // CMPXCHG8B, CMPXCHG16B
  Menv, Mstate,  // FLDENV, FRSTOR
  // ModRM.rm: register only
  Rv, Ry,
  Rm,  // 4 bytes, 8 in 64-bit mode
  Nq, U,
  // ModRM.rm: vector register or memory
  Qd, Qq, W /* 16, aligned */, Wu /* 16 */, Wq, Wd, Ww, Wb,
  // the same with VEX, where VEX.L chooses 16 or 32 bytes; a register of 16 and a half, quarter or eighth in memory
  Ul, Wl, Wla /* aligned */, Wh, Wf, We, Ml, Mla /* aligned */,
  Mgx, Mgl,  // VSIB, the index in an XMM register or one that VEX.L chooses; elements by VEX.W
  // ModRM.reg
  Gb, Gd, Gv, Gw, Gy, Gm /* 4, 8 in 64-bit mode */, Ga /* address size */, Pq, V, Vl /* by VEX.L */, Sw, Cd, Dd,
  // the low three bits of the opcode
  Zb, Zv,
  // fixed
  Al, Cl, Dx, Aw, Av, Az, One, Es, Cs, Ss, Ds, Fs, Gs, St0, Sti /* ModRM.rm */,
  // VEX.vvvv: an XMM register, one by VEX.L, a general register; imm8[7:4]: one by VEX.L
  H, Hl, By, Ll,
  // immediates: sign-extended, or (U) zero-extended
  Ib, Iz, Iv, Ub, Uw,
  Ub2,  // Insn::imm2
  Jb, Jz, Ap,
  // memory without ModRM: moffs; strings at rSI and rDI; XLAT, MASKMOV, MONITOR
  Ob, Ov, Xb, Xv, Xz, Yb, Yv, Yz, MemBx, MemDi, MemAx,
};
// clang-format on
inline constexpr Form kFirstModrm = Form::Eb, kLastRm = Form::Mgl, kLastModrm = Form::Dd;

// Row::flags
inline constexpr uint32_t r = 1, w = 2, rw = r | w;  // what is done to operand 0, when it is memory
inline constexpr uint32_t lock = 1 << 2;             // LOCK is allowed when operand 0 is memory
inline constexpr uint32_t def64 = 1 << 3;            // 64-bit operand size by default, in 64-bit mode
inline constexpr uint32_t force64 = 1 << 4;          // 64-bit operand size in any case, in 64-bit mode
inline constexpr uint32_t any_mod = 1 << 5;          // ModRM.mod is not looked at: ModRM.rm is a register
inline constexpr uint32_t long_only = 1 << 6;        // 64-bit mode only; columns say this in the one-byte map
inline constexpr uint32_t has_modrm = 1 << 7;        // set by op() and group()
inline constexpr uint32_t takes_prefix = 1 << 8;     // set by fill(): 66, F3 or F2, or none of them, chose this row
// VEX. Without lig, l0 or l1 both values of VEX.L are right, without w0, w1 or wy VEX.W is ignored.
inline constexpr uint32_t lig = 1 << 9;    // VEX.L is ignored
inline constexpr uint32_t l0 = 1 << 10;    // VEX.L must be 0
inline constexpr uint32_t l1 = 1 << 11;    // VEX.L must be 1
inline constexpr uint32_t w0 = 1 << 12;    // VEX.W must be 0
inline constexpr uint32_t w1 = 1 << 13;    // VEX.W must be 1
inline constexpr uint32_t wy = 1 << 14;    // VEX.W widens a general register in 64-bit mode
inline constexpr uint32_t avx2 = 1 << 15;  // with VEX.L = 1 this is of AVX2

// How a row that stands for several is resolved.
enum class Select : uint8_t {
  kNone,
  kReg,     // 8 rows by ModRM.reg
  kModReg,  // 16: memory by ModRM.reg, registers by ModRM.reg
  kRm,      // 8 by ModRM.rm
  kX87,     // 8 for memory by ModRM.reg, then 64 by the low six bits of ModRM
  kNop,     // 3: 90H, with REX.B, with F3
  kMemReg,  // 2: memory, register
  kVexW,    // 2 by VEX.W
  kVexL,    // 2 by VEX.L
};

struct Row {
  Op op = Op::kInvalid;
  std::array<Form, 4> form{};
  Need need = Need::kNone;
  uint32_t flags = 0;
  Select select = Select::kNone;
  union {
    const char* name = nullptr;  // mnemonic, when the Op does not tell
    const Row* group;            // when `select` is set
  };
};
static_assert(sizeof(Row) <= 24);

constexpr bool uses_modrm(const Row& row) {
  if (row.select != Select::kNone) return row.select != Select::kNop;
  for (const Form form : row.form)
    if (form == Form::Sti || (form >= kFirstModrm && form <= kLastModrm)) return true;
  return false;
}

// --- writing rows ---

constexpr Row op(Op op, uint32_t flags = 0, Form a = Form::None, Form b = Form::None, Form c = Form::None,
                 Form d = Form::None) {
  Row row;
  row.op = op;
  row.form = {a, b, c, d};
  row.flags = flags;
  if (uses_modrm(row)) row.flags |= has_modrm;
  return row;
}
constexpr Row op(Op o, Need need, uint32_t flags = 0, Form a = Form::None, Form b = Form::None, Form c = Form::None) {
  Row row = op(o, flags, a, b, c);
  row.need = need;
  return row;
}
constexpr Row unit(Op o, Need need, const char* name, uint32_t flags, Form a, Form b, Form c) {
  Row row = op(o, need, flags, a, b, c);
  row.name = name;
  return row;
}
constexpr Row sse(Need need, const char* name, Form a, Form b = Form::None, Form c = Form::None, uint32_t flags = 0) {
  return unit(Op::kSse, need, name, flags, a, b, c);
}
constexpr Row mmx(Need need, const char* name, Form a, Form b = Form::None, Form c = Form::None, uint32_t flags = 0) {
  return unit(Op::kMmx, need, name, flags, a, b, c);
}
constexpr Row x87(const char* name, Form a = Form::None, Form b = Form::None, uint32_t flags = 0,
                  Need need = Need::kX87) {
  return unit(Op::kX87, need, name, flags | has_modrm, a, b, Form::None);
}
constexpr Row group(Select select, const Row* rows) {
  Row row;
  row.select = select;
  row.group = rows;
  if (uses_modrm(row)) row.flags = has_modrm;
  return row;
}
constexpr Row avx(Need need, const char* name, Form a, Form b = Form::None, Form c = Form::None, Form d = Form::None,
                  uint32_t flags = 0) {
  Row row = op(Op::kAvx, flags, a, b, c, d);
  row.need = need;
  row.name = name;
  return row;
}
inline constexpr Row kBad{};

// --- maps ---

// Columns of the one-byte map.
inline constexpr uint8_t legacy = 1, only64 = 2, both = 3;
// Columns of the others: by mandatory prefix. F3 and F2, the later of them, stand above 66.
inline constexpr uint8_t np = 1, p66 = 2, pf3 = 4, pf2 = 8, any = 15;
inline constexpr std::array<uint8_t, 4> kPrefixOfColumn = {0, 0x66, 0xf3, 0xf2};

template <size_t kColumns>
using Map = std::array<std::array<Row, kColumns>, 256>;

struct Entry {
  uint8_t first, last;  // opcodes
  uint8_t columns;
  Row row;
};

template <size_t kColumns>
constexpr void fill(Map<kColumns>& map, std::span<const Entry> entries) {
  for (const Entry& entry : entries)
    for (size_t opcode = entry.first; opcode <= entry.last; ++opcode)
      for (size_t column = 0; column < kColumns; ++column) {
        if (((entry.columns >> column) & 1) == 0) continue;
        Row& row = map[opcode][column];
        row = entry.row;
        if (kColumns == 4 && entry.columns != any) row.flags |= takes_prefix;
      }
}

extern const Map<2> kPrimary;
extern const Map<4> k0f, k0f38, k0f3a;
// VEX (opcode_map_vex.cc): the columns are VEX.pp.
extern const Map<4> kVex0f, kVex0f38, kVex0f3a;
// D8H..DFH (opcode_map_x87.cc)
inline constexpr size_t kX87GroupSize = 8 + 64;
extern const std::array<std::array<Row, kX87GroupSize>, 8> kX87Groups;

// The row that `insn` was decoded by; null for kInvalid.
const Row* row_of(const Insn& insn);

}  // namespace kite::x86::opcodes
