// MMX and SSE of the 0F map (SDM 2D, tables, groups 12 to 14).
#pragma once

#include "x86/opcode_row.h"

namespace kite::x86::opcodes {

namespace sse_rows {

using enum Form;
using enum Need;

// Groups 12, 13 and 14: shifts by an immediate.
inline constexpr Row kShiftW[8] = {
    kBad, kBad, mmx(kMmx, "psrlw", Nq, Ub), kBad, mmx(kMmx, "psraw", Nq, Ub), kBad, mmx(kMmx, "psllw", Nq, Ub)};
inline constexpr Row kShiftW66[8] = {
    kBad, kBad, sse(kSse2, "psrlw", U, Ub), kBad, sse(kSse2, "psraw", U, Ub), kBad, sse(kSse2, "psllw", U, Ub)};
inline constexpr Row kShiftD[8] = {
    kBad, kBad, mmx(kMmx, "psrld", Nq, Ub), kBad, mmx(kMmx, "psrad", Nq, Ub), kBad, mmx(kMmx, "pslld", Nq, Ub)};
inline constexpr Row kShiftD66[8] = {
    kBad, kBad, sse(kSse2, "psrld", U, Ub), kBad, sse(kSse2, "psrad", U, Ub), kBad, sse(kSse2, "pslld", U, Ub)};
inline constexpr Row kShiftQ[8] = {kBad, kBad, mmx(kMmx, "psrlq", Nq, Ub), kBad,
                                   kBad, kBad, mmx(kMmx, "psllq", Nq, Ub)};
inline constexpr Row kShiftQ66[8] = {kBad, kBad, sse(kSse2, "psrlq", U, Ub), sse(kSse2, "psrldq", U, Ub),
                                     kBad, kBad, sse(kSse2, "psllq", U, Ub), sse(kSse2, "pslldq", U, Ub)};
// What memory and registers do differently.
inline constexpr Row kMovlLoad = sse(kSse, "movlps", V, Mq), kMovhlps = sse(kSse, "movhlps", V, U);
inline constexpr Row kMovl[16] = {kMovlLoad, kMovlLoad, kMovlLoad, kMovlLoad, kMovlLoad, kMovlLoad,
                                  kMovlLoad, kMovlLoad, kMovhlps,  kMovhlps,  kMovhlps,  kMovhlps,
                                  kMovhlps,  kMovhlps,  kMovhlps,  kMovhlps};
inline constexpr Row kMovhLoad = sse(kSse, "movhps", V, Mq), kMovlhps = sse(kSse, "movlhps", V, U);
inline constexpr Row kMovh[16] = {kMovhLoad, kMovhLoad, kMovhLoad, kMovhLoad, kMovhLoad, kMovhLoad,
                                  kMovhLoad, kMovhLoad, kMovlhps,  kMovlhps,  kMovlhps,  kMovlhps,
                                  kMovlhps,  kMovlhps,  kMovlhps,  kMovlhps};

constexpr Entry at(uint8_t opcode, uint8_t columns, Row row) { return {opcode, opcode, columns, row}; }

inline constexpr Entry kMoves[] = {
    at(0x10, np, sse(kSse, "movups", V, Wu)),
    at(0x10, p66, sse(kSse2, "movupd", V, Wu)),
    at(0x10, pf3, sse(kSse, "movss", V, Wd)),
    at(0x10, pf2, sse(kSse2, "movsd", V, Wq)),
    at(0x11, np, sse(kSse, "movups", Wu, V, None, w)),
    at(0x11, p66, sse(kSse2, "movupd", Wu, V, None, w)),
    at(0x11, pf3, sse(kSse, "movss", Wd, V, None, w)),
    at(0x11, pf2, sse(kSse2, "movsd", Wq, V, None, w)),
    at(0x12, np, group(Select::kModReg, kMovl)),
    at(0x12, p66, sse(kSse2, "movlpd", V, Mq)),
    at(0x12, pf3, sse(kSse3, "movsldup", V, W)),
    at(0x12, pf2, sse(kSse3, "movddup", V, Wq)),
    at(0x13, np, sse(kSse, "movlps", Mq, V, None, w)),
    at(0x13, p66, sse(kSse2, "movlpd", Mq, V, None, w)),
    at(0x14, np, sse(kSse, "unpcklps", V, W)),
    at(0x14, p66, sse(kSse2, "unpcklpd", V, W)),
    at(0x15, np, sse(kSse, "unpckhps", V, W)),
    at(0x15, p66, sse(kSse2, "unpckhpd", V, W)),
    at(0x16, np, group(Select::kModReg, kMovh)),
    at(0x16, p66, sse(kSse2, "movhpd", V, Mq)),
    at(0x16, pf3, sse(kSse3, "movshdup", V, W)),
    at(0x17, np, sse(kSse, "movhps", Mq, V, None, w)),
    at(0x17, p66, sse(kSse2, "movhpd", Mq, V, None, w)),
    at(0x28, np, sse(kSse, "movaps", V, W)),
    at(0x28, p66, sse(kSse2, "movapd", V, W)),
    at(0x29, np, sse(kSse, "movaps", W, V, None, w)),
    at(0x29, p66, sse(kSse2, "movapd", W, V, None, w)),
    at(0x2a, np, mmx(kSse, "cvtpi2ps", V, Qq)),
    at(0x2a, p66, mmx(kSse2, "cvtpi2pd", V, Qq)),
    at(0x2a, pf3, sse(kSse, "cvtsi2ss", V, Ey)),
    at(0x2a, pf2, sse(kSse2, "cvtsi2sd", V, Ey)),
    at(0x2b, np, sse(kSse, "movntps", Mdq, V, None, w)),
    at(0x2b, p66, sse(kSse2, "movntpd", Mdq, V, None, w)),
    at(0x2c, np, mmx(kSse, "cvttps2pi", Pq, Wq)),
    at(0x2c, p66, mmx(kSse2, "cvttpd2pi", Pq, W)),
    at(0x2c, pf3, sse(kSse, "cvttss2si", Gy, Wd)),
    at(0x2c, pf2, sse(kSse2, "cvttsd2si", Gy, Wq)),
    at(0x2d, np, mmx(kSse, "cvtps2pi", Pq, Wq)),
    at(0x2d, p66, mmx(kSse2, "cvtpd2pi", Pq, W)),
    at(0x2d, pf3, sse(kSse, "cvtss2si", Gy, Wd)),
    at(0x2d, pf2, sse(kSse2, "cvtsd2si", Gy, Wq)),
    at(0x2e, np, sse(kSse, "ucomiss", V, Wd)),
    at(0x2e, p66, sse(kSse2, "ucomisd", V, Wq)),
    at(0x2f, np, sse(kSse, "comiss", V, Wd)),
    at(0x2f, p66, sse(kSse2, "comisd", V, Wq)),
};

inline constexpr Entry kArithmetic[] = {
    at(0x50, np, sse(kSse, "movmskps", Gd, U)),    at(0x50, p66, sse(kSse2, "movmskpd", Gd, U)),
    at(0x51, np, sse(kSse, "sqrtps", V, W)),       at(0x51, p66, sse(kSse2, "sqrtpd", V, W)),
    at(0x51, pf3, sse(kSse, "sqrtss", V, Wd)),     at(0x51, pf2, sse(kSse2, "sqrtsd", V, Wq)),
    at(0x52, np, sse(kSse, "rsqrtps", V, W)),      at(0x52, pf3, sse(kSse, "rsqrtss", V, Wd)),
    at(0x53, np, sse(kSse, "rcpps", V, W)),        at(0x53, pf3, sse(kSse, "rcpss", V, Wd)),
    at(0x54, np, sse(kSse, "andps", V, W)),        at(0x54, p66, sse(kSse2, "andpd", V, W)),
    at(0x55, np, sse(kSse, "andnps", V, W)),       at(0x55, p66, sse(kSse2, "andnpd", V, W)),
    at(0x56, np, sse(kSse, "orps", V, W)),         at(0x56, p66, sse(kSse2, "orpd", V, W)),
    at(0x57, np, sse(kSse, "xorps", V, W)),        at(0x57, p66, sse(kSse2, "xorpd", V, W)),
    at(0x58, np, sse(kSse, "addps", V, W)),        at(0x58, p66, sse(kSse2, "addpd", V, W)),
    at(0x58, pf3, sse(kSse, "addss", V, Wd)),      at(0x58, pf2, sse(kSse2, "addsd", V, Wq)),
    at(0x59, np, sse(kSse, "mulps", V, W)),        at(0x59, p66, sse(kSse2, "mulpd", V, W)),
    at(0x59, pf3, sse(kSse, "mulss", V, Wd)),      at(0x59, pf2, sse(kSse2, "mulsd", V, Wq)),
    at(0x5a, np, sse(kSse2, "cvtps2pd", V, Wq)),   at(0x5a, p66, sse(kSse2, "cvtpd2ps", V, W)),
    at(0x5a, pf3, sse(kSse2, "cvtss2sd", V, Wd)),  at(0x5a, pf2, sse(kSse2, "cvtsd2ss", V, Wq)),
    at(0x5b, np, sse(kSse2, "cvtdq2ps", V, W)),    at(0x5b, p66, sse(kSse2, "cvtps2dq", V, W)),
    at(0x5b, pf3, sse(kSse2, "cvttps2dq", V, W)),  at(0x5c, np, sse(kSse, "subps", V, W)),
    at(0x5c, p66, sse(kSse2, "subpd", V, W)),      at(0x5c, pf3, sse(kSse, "subss", V, Wd)),
    at(0x5c, pf2, sse(kSse2, "subsd", V, Wq)),     at(0x5d, np, sse(kSse, "minps", V, W)),
    at(0x5d, p66, sse(kSse2, "minpd", V, W)),      at(0x5d, pf3, sse(kSse, "minss", V, Wd)),
    at(0x5d, pf2, sse(kSse2, "minsd", V, Wq)),     at(0x5e, np, sse(kSse, "divps", V, W)),
    at(0x5e, p66, sse(kSse2, "divpd", V, W)),      at(0x5e, pf3, sse(kSse, "divss", V, Wd)),
    at(0x5e, pf2, sse(kSse2, "divsd", V, Wq)),     at(0x5f, np, sse(kSse, "maxps", V, W)),
    at(0x5f, p66, sse(kSse2, "maxpd", V, W)),      at(0x5f, pf3, sse(kSse, "maxss", V, Wd)),
    at(0x5f, pf2, sse(kSse2, "maxsd", V, Wq)),     at(0x7c, p66, sse(kSse3, "haddpd", V, W)),
    at(0x7c, pf2, sse(kSse3, "haddps", V, W)),     at(0x7d, p66, sse(kSse3, "hsubpd", V, W)),
    at(0x7d, pf2, sse(kSse3, "hsubps", V, W)),     at(0xc2, np, sse(kSse, "cmpps", V, W, Ub)),
    at(0xc2, p66, sse(kSse2, "cmppd", V, W, Ub)),  at(0xc2, pf3, sse(kSse, "cmpss", V, Wd, Ub)),
    at(0xc2, pf2, sse(kSse2, "cmpsd", V, Wq, Ub)), at(0xc6, np, sse(kSse, "shufps", V, W, Ub)),
    at(0xc6, p66, sse(kSse2, "shufpd", V, W, Ub)), at(0xd0, p66, sse(kSse3, "addsubpd", V, W)),
    at(0xd0, pf2, sse(kSse3, "addsubps", V, W)),   at(0xe6, p66, sse(kSse2, "cvttpd2dq", V, W)),
    at(0xe6, pf3, sse(kSse2, "cvtdq2pd", V, Wq)),  at(0xe6, pf2, sse(kSse2, "cvtpd2dq", V, W)),
};

inline constexpr Entry kIntegers[] = {
    at(0x6c, p66, sse(kSse2, "punpcklqdq", V, W)),
    at(0x6d, p66, sse(kSse2, "punpckhqdq", V, W)),
    at(0x6e, np, mmx(kMmx, "movd", Pq, Ey)),
    at(0x6e, p66, sse(kSse2, "movd", V, Ey)),
    at(0x6f, np, mmx(kMmx, "movq", Pq, Qq)),
    at(0x6f, p66, sse(kSse2, "movdqa", V, W)),
    at(0x6f, pf3, sse(kSse2, "movdqu", V, Wu)),
    at(0x70, np, mmx(kSse, "pshufw", Pq, Qq, Ub)),
    at(0x70, p66, sse(kSse2, "pshufd", V, W, Ub)),
    at(0x70, pf3, sse(kSse2, "pshufhw", V, W, Ub)),
    at(0x70, pf2, sse(kSse2, "pshuflw", V, W, Ub)),
    at(0x71, np, group(Select::kReg, kShiftW)),
    at(0x71, p66, group(Select::kReg, kShiftW66)),
    at(0x72, np, group(Select::kReg, kShiftD)),
    at(0x72, p66, group(Select::kReg, kShiftD66)),
    at(0x73, np, group(Select::kReg, kShiftQ)),
    at(0x73, p66, group(Select::kReg, kShiftQ66)),
    at(0x77, np, unit(Op::kEmms, kMmx, nullptr, 0, None, None, None)),
    at(0x7e, np, mmx(kMmx, "movd", Ey, Pq, None, w)),
    at(0x7e, p66, sse(kSse2, "movd", Ey, V, None, w)),
    at(0x7e, pf3, sse(kSse2, "movq", V, Wq)),
    at(0x7f, np, mmx(kMmx, "movq", Qq, Pq, None, w)),
    at(0x7f, p66, sse(kSse2, "movdqa", W, V, None, w)),
    at(0x7f, pf3, sse(kSse2, "movdqu", Wu, V, None, w)),
    at(0xc4, np, mmx(kSse, "pinsrw", Pq, RdMw, Ub)),
    at(0xc4, p66, sse(kSse2, "pinsrw", V, RdMw, Ub)),
    at(0xc5, np, mmx(kSse, "pextrw", Gd, Nq, Ub)),
    at(0xc5, p66, sse(kSse2, "pextrw", Gd, U, Ub)),
    at(0xd6, p66, sse(kSse2, "movq", Wq, V, None, w)),
    at(0xd6, pf3, mmx(kSse2, "movq2dq", V, Nq)),
    at(0xd6, pf2, mmx(kSse2, "movdq2q", Pq, U)),
    at(0xd7, np, mmx(kSse, "pmovmskb", Gd, Nq)),
    at(0xd7, p66, sse(kSse2, "pmovmskb", Gd, U)),
    at(0xe7, np, mmx(kSse, "movntq", Mq, Pq, None, w)),
    at(0xe7, p66, sse(kSse2, "movntdq", Mdq, V, None, w)),
    at(0xf0, pf2, sse(kSse3, "lddqu", V, Mu)),
    at(0xf7, np, unit(Op::kMaskmov, kSse, "maskmovq", w, MemDi, Pq, Nq)),
    at(0xf7, p66, unit(Op::kMaskmov, kSse2, "maskmovdqu", w, MemDi, V, U)),
};

// Operations that MMX registers and XMM registers share: P,Q without prefix and V,W with 66.
struct Pair {
  uint8_t opcode;
  const char* name;
  Need mmx_need = kMmx;
  Form mmx_source = Qq;
};
inline constexpr Pair kPairs[] = {
    {0x60, "punpcklbw", kMmx, Qd},
    {0x61, "punpcklwd", kMmx, Qd},
    {0x62, "punpckldq", kMmx, Qd},
    {0x63, "packsswb"},
    {0x64, "pcmpgtb"},
    {0x65, "pcmpgtw"},
    {0x66, "pcmpgtd"},
    {0x67, "packuswb"},
    {0x68, "punpckhbw"},
    {0x69, "punpckhwd"},
    {0x6a, "punpckhdq"},
    {0x6b, "packssdw"},
    {0x74, "pcmpeqb"},
    {0x75, "pcmpeqw"},
    {0x76, "pcmpeqd"},
    {0xd1, "psrlw"},
    {0xd2, "psrld"},
    {0xd3, "psrlq"},
    {0xd4, "paddq", kSse2},
    {0xd5, "pmullw"},
    {0xd8, "psubusb"},
    {0xd9, "psubusw"},
    {0xda, "pminub", kSse},
    {0xdb, "pand"},
    {0xdc, "paddusb"},
    {0xdd, "paddusw"},
    {0xde, "pmaxub", kSse},
    {0xdf, "pandn"},
    {0xe0, "pavgb", kSse},
    {0xe1, "psraw"},
    {0xe2, "psrad"},
    {0xe3, "pavgw", kSse},
    {0xe4, "pmulhuw", kSse},
    {0xe5, "pmulhw"},
    {0xe8, "psubsb"},
    {0xe9, "psubsw"},
    {0xea, "pminsw", kSse},
    {0xeb, "por"},
    {0xec, "paddsb"},
    {0xed, "paddsw"},
    {0xee, "pmaxsw", kSse},
    {0xef, "pxor"},
    {0xf1, "psllw"},
    {0xf2, "pslld"},
    {0xf3, "psllq"},
    {0xf4, "pmuludq", kSse2},
    {0xf5, "pmaddwd"},
    {0xf6, "psadbw", kSse},
    {0xf8, "psubb"},
    {0xf9, "psubw"},
    {0xfa, "psubd"},
    {0xfb, "psubq", kSse2},
    {0xfc, "paddb"},
    {0xfd, "paddw"},
    {0xfe, "paddd"},
};

}  // namespace sse_rows

constexpr void fill_sse(Map<4>& map) {
  fill<4>(map, sse_rows::kMoves);
  fill<4>(map, sse_rows::kArithmetic);
  fill<4>(map, sse_rows::kIntegers);
  for (const sse_rows::Pair& pair : sse_rows::kPairs) {
    const Entry rows[] = {
        sse_rows::at(pair.opcode, np, mmx(pair.mmx_need, pair.name, Form::Pq, pair.mmx_source)),
        sse_rows::at(pair.opcode, p66, sse(Need::kSse2, pair.name, Form::V, Form::W)),
    };
    fill<4>(map, rows);
  }
}

}  // namespace kite::x86::opcodes
