// The 0F38 and 0F3A opcode maps (SDM 2D, tables ), encodings without VEX.
#include "x86/opcode_row.h"

namespace kite::x86::opcodes {

namespace {

using enum Form;
using enum Need;

constexpr Entry at(uint8_t opcode, uint8_t columns, Row row) { return {opcode, opcode, columns, row}; }

// SSSE3 operations that MMX and XMM registers share.
struct Pair {
  uint8_t opcode;
  const char* name;
};
constexpr Pair kPairs[] = {{0x00, "pshufb"},    {0x01, "phaddw"}, {0x02, "phaddd"}, {0x03, "phaddsw"},
                           {0x04, "pmaddubsw"}, {0x05, "phsubw"}, {0x06, "phsubd"}, {0x07, "phsubsw"},
                           {0x08, "psignb"},    {0x09, "psignw"}, {0x0a, "psignd"}, {0x0b, "pmulhrsw"},
                           {0x1c, "pabsb"},     {0x1d, "pabsw"},  {0x1e, "pabsd"}};

constexpr Entry k38[] = {
    at(0x10, p66, sse(kSse41, "pblendvb", V, W)),
    at(0x14, p66, sse(kSse41, "blendvps", V, W)),
    at(0x15, p66, sse(kSse41, "blendvpd", V, W)),
    at(0x17, p66, sse(kSse41, "ptest", V, W)),
    at(0x20, p66, sse(kSse41, "pmovsxbw", V, Wq)),
    at(0x21, p66, sse(kSse41, "pmovsxbd", V, Wd)),
    at(0x22, p66, sse(kSse41, "pmovsxbq", V, Ww)),
    at(0x23, p66, sse(kSse41, "pmovsxwd", V, Wq)),
    at(0x24, p66, sse(kSse41, "pmovsxwq", V, Wd)),
    at(0x25, p66, sse(kSse41, "pmovsxdq", V, Wq)),
    at(0x28, p66, sse(kSse41, "pmuldq", V, W)),
    at(0x29, p66, sse(kSse41, "pcmpeqq", V, W)),
    at(0x2a, p66, sse(kSse41, "movntdqa", V, Mdq)),
    at(0x2b, p66, sse(kSse41, "packusdw", V, W)),
    at(0x30, p66, sse(kSse41, "pmovzxbw", V, Wq)),
    at(0x31, p66, sse(kSse41, "pmovzxbd", V, Wd)),
    at(0x32, p66, sse(kSse41, "pmovzxbq", V, Ww)),
    at(0x33, p66, sse(kSse41, "pmovzxwd", V, Wq)),
    at(0x34, p66, sse(kSse41, "pmovzxwq", V, Wd)),
    at(0x35, p66, sse(kSse41, "pmovzxdq", V, Wq)),
    at(0x37, p66, sse(kSse42, "pcmpgtq", V, W)),
    at(0x38, p66, sse(kSse41, "pminsb", V, W)),
    at(0x39, p66, sse(kSse41, "pminsd", V, W)),
    at(0x3a, p66, sse(kSse41, "pminuw", V, W)),
    at(0x3b, p66, sse(kSse41, "pminud", V, W)),
    at(0x3c, p66, sse(kSse41, "pmaxsb", V, W)),
    at(0x3d, p66, sse(kSse41, "pmaxsd", V, W)),
    at(0x3e, p66, sse(kSse41, "pmaxuw", V, W)),
    at(0x3f, p66, sse(kSse41, "pmaxud", V, W)),
    at(0x40, p66, sse(kSse41, "pmulld", V, W)),
    at(0x41, p66, sse(kSse41, "phminposuw", V, W)),
    at(0x82, p66, op(Op::kInvpcid, kInvpcid, 0, Gm, Mu)),
    at(0xc8, np, sse(kSha, "sha1nexte", V, W)),
    at(0xc9, np, sse(kSha, "sha1msg1", V, W)),
    at(0xca, np, sse(kSha, "sha1msg2", V, W)),
    at(0xcb, np, sse(kSha, "sha256rnds2", V, W)),
    at(0xcc, np, sse(kSha, "sha256msg1", V, W)),
    at(0xcd, np, sse(kSha, "sha256msg2", V, W)),
    at(0xdb, p66, sse(kAes, "aesimc", V, W)),
    at(0xdc, p66, sse(kAes, "aesenc", V, W)),
    at(0xdd, p66, sse(kAes, "aesenclast", V, W)),
    at(0xde, p66, sse(kAes, "aesdec", V, W)),
    at(0xdf, p66, sse(kAes, "aesdeclast", V, W)),
    at(0xf0, np | p66, op(Op::kMovbe, kMovbe, 0, Gv, Mv)),
    at(0xf0, pf2, op(Op::kCrc32, kSse42, 0, Gy, Eb)),
    at(0xf1, np | p66, op(Op::kMovbe, kMovbe, w, Mv, Gv)),
    at(0xf1, pf2, op(Op::kCrc32, kSse42, 0, Gy, Ev)),
    at(0xf6, p66, op(Op::kAdcx, kAdx, 0, Gy, Ey)),
    at(0xf6, pf3, op(Op::kAdox, kAdx, 0, Gy, Ey)),
    at(0xcf, p66, sse(kGfni, "gf2p8mulb", V, W)),
    at(0xf8, p66, op(Op::kMovdir64b, kMovdir64b, 0, Ga, M64)),
    at(0xf9, np, op(Op::kMovdiri, kMovdiri, w, My, Gy)),
};

constexpr Map<4> build_38() {
  Map<4> map{};
  fill<4>(map, k38);
  for (const Pair& pair : kPairs) {
    const Entry rows[] = {at(pair.opcode, np, mmx(kSsse3, pair.name, Pq, Qq)),
                          at(pair.opcode, p66, sse(kSsse3, pair.name, V, W))};
    fill<4>(map, rows);
  }
  return map;
}

constexpr Entry k3a[] = {
    at(0x08, p66, sse(kSse41, "roundps", V, W, Ub)),       at(0x09, p66, sse(kSse41, "roundpd", V, W, Ub)),
    at(0x0a, p66, sse(kSse41, "roundss", V, Wd, Ub)),      at(0x0b, p66, sse(kSse41, "roundsd", V, Wq, Ub)),
    at(0x0c, p66, sse(kSse41, "blendps", V, W, Ub)),       at(0x0d, p66, sse(kSse41, "blendpd", V, W, Ub)),
    at(0x0e, p66, sse(kSse41, "pblendw", V, W, Ub)),       at(0x0f, np, mmx(kSsse3, "palignr", Pq, Qq, Ub)),
    at(0x0f, p66, sse(kSsse3, "palignr", V, W, Ub)),       at(0x14, p66, sse(kSse41, "pextrb", RdMb, V, Ub, w)),
    at(0x15, p66, sse(kSse41, "pextrw", RdMw, V, Ub, w)),  at(0x16, p66, sse(kSse41, "pextrd", Ey, V, Ub, w)),
    at(0x17, p66, sse(kSse41, "extractps", Ed, V, Ub, w)), at(0x20, p66, sse(kSse41, "pinsrb", V, RdMb, Ub)),
    at(0x21, p66, sse(kSse41, "insertps", V, Wd, Ub)),     at(0x22, p66, sse(kSse41, "pinsrd", V, Ey, Ub)),
    at(0x40, p66, sse(kSse41, "dpps", V, W, Ub)),          at(0x41, p66, sse(kSse41, "dppd", V, W, Ub)),
    at(0x42, p66, sse(kSse41, "mpsadbw", V, W, Ub)),       at(0x44, p66, sse(kPclmul, "pclmulqdq", V, W, Ub)),
    at(0x60, p66, sse(kSse42, "pcmpestrm", V, Wu, Ub)),    at(0x61, p66, sse(kSse42, "pcmpestri", V, Wu, Ub)),
    at(0x62, p66, sse(kSse42, "pcmpistrm", V, Wu, Ub)),    at(0x63, p66, sse(kSse42, "pcmpistri", V, Wu, Ub)),
    at(0xcc, np, sse(kSha, "sha1rnds4", V, W, Ub)),        at(0xdf, p66, sse(kAes, "aeskeygenassist", V, W, Ub)),
    at(0xce, p66, sse(kGfni, "gf2p8affineqb", V, W, Ub)),  at(0xcf, p66, sse(kGfni, "gf2p8affineinvqb", V, W, Ub)),
};

constexpr Map<4> build_3a() {
  Map<4> map{};
  fill<4>(map, k3a);
  return map;
}

}  // namespace

constinit const Map<4> k0f38 = build_38();
constinit const Map<4> k0f3a = build_3a();

}  // namespace kite::x86::opcodes
