// The opcode maps of VEX (SDM 2C and 2D, tables ): AVX, AVX2, FMA, F16C, BMI and what of other extensions has
// VEX forms. Whether VEX.W and VEX.L are looked at is as processors do it.
#include "x86/opcode_row.h"

namespace kite::x86::opcodes {

namespace {

using enum Form;
using enum Need;

constexpr Entry at(uint8_t opcode, uint8_t columns, Row row) { return {opcode, opcode, columns, row}; }

// --- map 0F

// What memory and registers do differently; what VEX.L chooses.
constexpr Row kMovssLoad[2] = {avx(kAvx, "vmovss", V, Wd, None, None, lig), avx(kAvx, "vmovss", V, H, U, None, lig)};
constexpr Row kMovsdLoad[2] = {avx(kAvx, "vmovsd", V, Wq, None, None, lig), avx(kAvx, "vmovsd", V, H, U, None, lig)};
constexpr Row kMovssStore[2] = {avx(kAvx, "vmovss", Wd, V, None, None, lig | w),
                                avx(kAvx, "vmovss", U, H, V, None, lig)};
constexpr Row kMovsdStore[2] = {avx(kAvx, "vmovsd", Wq, V, None, None, lig | w),
                                avx(kAvx, "vmovsd", U, H, V, None, lig)};
constexpr Row kMovl[2] = {avx(kAvx, "vmovlps", V, H, Mq, None, l0), avx(kAvx, "vmovhlps", V, H, U, None, l0)};
constexpr Row kMovh[2] = {avx(kAvx, "vmovhps", V, H, Mq, None, l0), avx(kAvx, "vmovlhps", V, H, U, None, l0)};
constexpr Row kMovddup[2] = {avx(kAvx, "vmovddup", V, Wq), avx(kAvx, "vmovddup", Vl, Wl)};

// Groups 12, 13 and 14: shifts by an immediate, from ModRM.rm to VEX.vvvv.
constexpr Row shift(const char* name) { return avx(kAvx, name, Hl, Ul, Ub, None, avx2); }
constexpr Row kShiftW[8] = {kBad, kBad, shift("vpsrlw"), kBad, shift("vpsraw"), kBad, shift("vpsllw"), kBad};
constexpr Row kShiftD[8] = {kBad, kBad, shift("vpsrld"), kBad, shift("vpsrad"), kBad, shift("vpslld"), kBad};
constexpr Row kShiftQ[8] = {kBad, kBad, shift("vpsrlq"), shift("vpsrldq"),
                            kBad, kBad, shift("vpsllq"), shift("vpslldq")};
// Group 15
constexpr Row kStateGroup[16] = {kBad, kBad, op(Op::kLdmxcsr, kAvx, r | l0, Md), op(Op::kStmxcsr, kAvx, w | l0, Md)};

constexpr Entry k0fMoves[] = {
    at(0x10, np, avx(kAvx, "vmovups", Vl, Wl)),
    at(0x10, p66, avx(kAvx, "vmovupd", Vl, Wl)),
    at(0x10, pf3, group(Select::kMemReg, kMovssLoad)),
    at(0x10, pf2, group(Select::kMemReg, kMovsdLoad)),
    at(0x11, np, avx(kAvx, "vmovups", Wl, Vl, None, None, w)),
    at(0x11, p66, avx(kAvx, "vmovupd", Wl, Vl, None, None, w)),
    at(0x11, pf3, group(Select::kMemReg, kMovssStore)),
    at(0x11, pf2, group(Select::kMemReg, kMovsdStore)),
    at(0x12, np, group(Select::kMemReg, kMovl)),
    at(0x12, p66, avx(kAvx, "vmovlpd", V, H, Mq, None, l0)),
    at(0x12, pf3, avx(kAvx, "vmovsldup", Vl, Wl)),
    at(0x12, pf2, group(Select::kVexL, kMovddup)),
    at(0x13, np, avx(kAvx, "vmovlps", Mq, V, None, None, l0 | w)),
    at(0x13, p66, avx(kAvx, "vmovlpd", Mq, V, None, None, l0 | w)),
    at(0x14, np, avx(kAvx, "vunpcklps", Vl, Hl, Wl)),
    at(0x14, p66, avx(kAvx, "vunpcklpd", Vl, Hl, Wl)),
    at(0x15, np, avx(kAvx, "vunpckhps", Vl, Hl, Wl)),
    at(0x15, p66, avx(kAvx, "vunpckhpd", Vl, Hl, Wl)),
    at(0x16, np, group(Select::kMemReg, kMovh)),
    at(0x16, p66, avx(kAvx, "vmovhpd", V, H, Mq, None, l0)),
    at(0x16, pf3, avx(kAvx, "vmovshdup", Vl, Wl)),
    at(0x17, np, avx(kAvx, "vmovhps", Mq, V, None, None, l0 | w)),
    at(0x17, p66, avx(kAvx, "vmovhpd", Mq, V, None, None, l0 | w)),
    at(0x28, np, avx(kAvx, "vmovaps", Vl, Wla)),
    at(0x28, p66, avx(kAvx, "vmovapd", Vl, Wla)),
    at(0x29, np, avx(kAvx, "vmovaps", Wla, Vl, None, None, w)),
    at(0x29, p66, avx(kAvx, "vmovapd", Wla, Vl, None, None, w)),
    at(0x2a, pf3, avx(kAvx, "vcvtsi2ss", V, H, Ey, None, lig | wy)),
    at(0x2a, pf2, avx(kAvx, "vcvtsi2sd", V, H, Ey, None, lig | wy)),
    at(0x2b, np, avx(kAvx, "vmovntps", Mla, Vl, None, None, w)),
    at(0x2b, p66, avx(kAvx, "vmovntpd", Mla, Vl, None, None, w)),
    at(0x2c, pf3, avx(kAvx, "vcvttss2si", Gy, Wd, None, None, lig | wy)),
    at(0x2c, pf2, avx(kAvx, "vcvttsd2si", Gy, Wq, None, None, lig | wy)),
    at(0x2d, pf3, avx(kAvx, "vcvtss2si", Gy, Wd, None, None, lig | wy)),
    at(0x2d, pf2, avx(kAvx, "vcvtsd2si", Gy, Wq, None, None, lig | wy)),
    at(0x2e, np, avx(kAvx, "vucomiss", V, Wd, None, None, lig)),
    at(0x2e, p66, avx(kAvx, "vucomisd", V, Wq, None, None, lig)),
    at(0x2f, np, avx(kAvx, "vcomiss", V, Wd, None, None, lig)),
    at(0x2f, p66, avx(kAvx, "vcomisd", V, Wq, None, None, lig)),
    at(0x50, np, avx(kAvx, "vmovmskps", Gd, Ul)),
    at(0x50, p66, avx(kAvx, "vmovmskpd", Gd, Ul)),
    at(0x6e, p66, avx(kAvx, "vmovd", V, Ey, None, None, l0 | wy)),
    at(0x6f, p66, avx(kAvx, "vmovdqa", Vl, Wla)),
    at(0x6f, pf3, avx(kAvx, "vmovdqu", Vl, Wl)),
    at(0x70, p66, avx(kAvx, "vpshufd", Vl, Wl, Ub, None, avx2)),
    at(0x70, pf3, avx(kAvx, "vpshufhw", Vl, Wl, Ub, None, avx2)),
    at(0x70, pf2, avx(kAvx, "vpshuflw", Vl, Wl, Ub, None, avx2)),
    at(0x71, p66, group(Select::kReg, kShiftW)),
    at(0x72, p66, group(Select::kReg, kShiftD)),
    at(0x73, p66, group(Select::kReg, kShiftQ)),
    at(0x77, np, op(Op::kVzeroupper, kAvx)),  // VZEROALL with VEX.L
    at(0x7e, p66, avx(kAvx, "vmovd", Ey, V, None, None, l0 | wy | w)),
    at(0x7e, pf3, avx(kAvx, "vmovq", V, Wq, None, None, l0)),
    at(0x7f, p66, avx(kAvx, "vmovdqa", Wla, Vl, None, None, w)),
    at(0x7f, pf3, avx(kAvx, "vmovdqu", Wl, Vl, None, None, w)),
    at(0xae, np, group(Select::kModReg, kStateGroup)),
    at(0xc4, p66, avx(kAvx, "vpinsrw", V, H, RdMw, Ub, l0)),
    at(0xc5, p66, avx(kAvx, "vpextrw", Gd, U, Ub, None, l0)),
    at(0xd6, p66, avx(kAvx, "vmovq", Wq, V, None, None, l0 | w)),
    at(0xd7, p66, avx(kAvx, "vpmovmskb", Gd, Ul, None, None, avx2)),
    at(0xe7, p66, avx(kAvx, "vmovntdq", Mla, Vl, None, None, w)),
    at(0xf0, pf2, avx(kAvx, "vlddqu", Vl, Ml)),
    at(0xf7, p66, unit(Op::kMaskmov, kAvx, "vmaskmovdqu", w | l0, MemDi, V, U)),
};

constexpr Entry k0fArithmetic[] = {
    at(0x51, np, avx(kAvx, "vsqrtps", Vl, Wl)),
    at(0x51, p66, avx(kAvx, "vsqrtpd", Vl, Wl)),
    at(0x51, pf3, avx(kAvx, "vsqrtss", V, H, Wd, None, lig)),
    at(0x51, pf2, avx(kAvx, "vsqrtsd", V, H, Wq, None, lig)),
    at(0x52, np, avx(kAvx, "vrsqrtps", Vl, Wl)),
    at(0x52, pf3, avx(kAvx, "vrsqrtss", V, H, Wd, None, lig)),
    at(0x53, np, avx(kAvx, "vrcpps", Vl, Wl)),
    at(0x53, pf3, avx(kAvx, "vrcpss", V, H, Wd, None, lig)),
    at(0x54, np, avx(kAvx, "vandps", Vl, Hl, Wl)),
    at(0x54, p66, avx(kAvx, "vandpd", Vl, Hl, Wl)),
    at(0x55, np, avx(kAvx, "vandnps", Vl, Hl, Wl)),
    at(0x55, p66, avx(kAvx, "vandnpd", Vl, Hl, Wl)),
    at(0x56, np, avx(kAvx, "vorps", Vl, Hl, Wl)),
    at(0x56, p66, avx(kAvx, "vorpd", Vl, Hl, Wl)),
    at(0x57, np, avx(kAvx, "vxorps", Vl, Hl, Wl)),
    at(0x57, p66, avx(kAvx, "vxorpd", Vl, Hl, Wl)),
    at(0x5a, np, avx(kAvx, "vcvtps2pd", Vl, Wh)),
    at(0x5a, p66, avx(kAvx, "vcvtpd2ps", V, Wl)),
    at(0x5a, pf3, avx(kAvx, "vcvtss2sd", V, H, Wd, None, lig)),
    at(0x5a, pf2, avx(kAvx, "vcvtsd2ss", V, H, Wq, None, lig)),
    at(0x5b, np, avx(kAvx, "vcvtdq2ps", Vl, Wl)),
    at(0x5b, p66, avx(kAvx, "vcvtps2dq", Vl, Wl)),
    at(0x5b, pf3, avx(kAvx, "vcvttps2dq", Vl, Wl)),
    at(0x7c, p66, avx(kAvx, "vhaddpd", Vl, Hl, Wl)),
    at(0x7c, pf2, avx(kAvx, "vhaddps", Vl, Hl, Wl)),
    at(0x7d, p66, avx(kAvx, "vhsubpd", Vl, Hl, Wl)),
    at(0x7d, pf2, avx(kAvx, "vhsubps", Vl, Hl, Wl)),
    at(0xc2, np, avx(kAvx, "vcmpps", Vl, Hl, Wl, Ub)),
    at(0xc2, p66, avx(kAvx, "vcmppd", Vl, Hl, Wl, Ub)),
    at(0xc2, pf3, avx(kAvx, "vcmpss", V, H, Wd, Ub, lig)),
    at(0xc2, pf2, avx(kAvx, "vcmpsd", V, H, Wq, Ub, lig)),
    at(0xc6, np, avx(kAvx, "vshufps", Vl, Hl, Wl, Ub)),
    at(0xc6, p66, avx(kAvx, "vshufpd", Vl, Hl, Wl, Ub)),
    at(0xd0, p66, avx(kAvx, "vaddsubpd", Vl, Hl, Wl)),
    at(0xd0, pf2, avx(kAvx, "vaddsubps", Vl, Hl, Wl)),
    at(0xe6, p66, avx(kAvx, "vcvttpd2dq", V, Wl)),
    at(0xe6, pf3, avx(kAvx, "vcvtdq2pd", Vl, Wh)),
    at(0xe6, pf2, avx(kAvx, "vcvtpd2dq", V, Wl)),
};

// ps, pd, ss and sd of one opcode.
struct Fours {
  uint8_t opcode;
  const char *ps, *pd, *ss, *sd;
};
constexpr Fours k0fFours[] = {
    {0x58, "vaddps", "vaddpd", "vaddss", "vaddsd"}, {0x59, "vmulps", "vmulpd", "vmulss", "vmulsd"},
    {0x5c, "vsubps", "vsubpd", "vsubss", "vsubsd"}, {0x5d, "vminps", "vminpd", "vminss", "vminsd"},
    {0x5e, "vdivps", "vdivpd", "vdivss", "vdivsd"}, {0x5f, "vmaxps", "vmaxpd", "vmaxss", "vmaxsd"},
};

// Integer operations with 66, of two sources: AVX with XMM registers, AVX2 with YMM registers.
struct Integer {
  uint8_t opcode;
  const char* name;
};
constexpr Integer k0fIntegers[] = {
    {0x60, "vpunpcklbw"}, {0x61, "vpunpcklwd"}, {0x62, "vpunpckldq"},  {0x63, "vpacksswb"},   {0x64, "vpcmpgtb"},
    {0x65, "vpcmpgtw"},   {0x66, "vpcmpgtd"},   {0x67, "vpackuswb"},   {0x68, "vpunpckhbw"},  {0x69, "vpunpckhwd"},
    {0x6a, "vpunpckhdq"}, {0x6b, "vpackssdw"},  {0x6c, "vpunpcklqdq"}, {0x6d, "vpunpckhqdq"}, {0x74, "vpcmpeqb"},
    {0x75, "vpcmpeqw"},   {0x76, "vpcmpeqd"},   {0xd4, "vpaddq"},      {0xd5, "vpmullw"},     {0xd8, "vpsubusb"},
    {0xd9, "vpsubusw"},   {0xda, "vpminub"},    {0xdb, "vpand"},       {0xdc, "vpaddusb"},    {0xdd, "vpaddusw"},
    {0xde, "vpmaxub"},    {0xdf, "vpandn"},     {0xe0, "vpavgb"},      {0xe3, "vpavgw"},      {0xe4, "vpmulhuw"},
    {0xe5, "vpmulhw"},    {0xe8, "vpsubsb"},    {0xe9, "vpsubsw"},     {0xea, "vpminsw"},     {0xeb, "vpor"},
    {0xec, "vpaddsb"},    {0xed, "vpaddsw"},    {0xee, "vpmaxsw"},     {0xef, "vpxor"},       {0xf4, "vpmuludq"},
    {0xf5, "vpmaddwd"},   {0xf6, "vpsadbw"},    {0xf8, "vpsubb"},      {0xf9, "vpsubw"},      {0xfa, "vpsubd"},
    {0xfb, "vpsubq"},     {0xfc, "vpaddb"},     {0xfd, "vpaddw"},      {0xfe, "vpaddd"},
};
// Shifts by the count in an XMM register or 16 bytes of memory.
constexpr Integer k0fShifts[] = {{0xd1, "vpsrlw"}, {0xd2, "vpsrld"}, {0xd3, "vpsrlq"}, {0xe1, "vpsraw"},
                                 {0xe2, "vpsrad"}, {0xf1, "vpsllw"}, {0xf2, "vpslld"}, {0xf3, "vpsllq"}};

constexpr Map<4> build_0f() {
  Map<4> map{};
  fill<4>(map, k0fMoves);
  fill<4>(map, k0fArithmetic);
  for (const Fours& four : k0fFours) {
    const Entry rows[] = {at(four.opcode, np, avx(kAvx, four.ps, Vl, Hl, Wl)),
                          at(four.opcode, p66, avx(kAvx, four.pd, Vl, Hl, Wl)),
                          at(four.opcode, pf3, avx(kAvx, four.ss, V, H, Wd, None, lig)),
                          at(four.opcode, pf2, avx(kAvx, four.sd, V, H, Wq, None, lig))};
    fill<4>(map, rows);
  }
  for (const Integer& integer : k0fIntegers) {
    const Entry rows[] = {at(integer.opcode, p66, avx(kAvx, integer.name, Vl, Hl, Wl, None, avx2))};
    fill<4>(map, rows);
  }
  for (const Integer& integer : k0fShifts) {
    const Entry rows[] = {at(integer.opcode, p66, avx(kAvx, integer.name, Vl, Hl, Wu, None, avx2))};
    fill<4>(map, rows);
  }
  return map;
}

// --- map 0F38

constexpr Row kBroadcastss[2] = {avx(kAvx, "vbroadcastss", Vl, Wd, None, None, w0),
                                 avx(kAvx2, "vbroadcastss", Vl, U, None, None, w0)};
constexpr Row kBroadcastsd[2] = {avx(kAvx, "vbroadcastsd", Vl, Wq, None, None, w0 | l1),
                                 avx(kAvx2, "vbroadcastsd", Vl, U, None, None, w0 | l1)};
constexpr Row wide(const char* name, uint32_t flags) { return avx(kAvx2, name, Vl, Hl, Wl, None, flags); }
constexpr Row kShiftRight[2] = {wide("vpsrlvd", w0), wide("vpsrlvq", w1)};
constexpr Row kShiftLeft[2] = {wide("vpsllvd", w0), wide("vpsllvq", w1)};
constexpr Row masked(Need need, const char* name, bool store, uint32_t flags) {
  return store ? unit(Op::kVmaskmov, need, name, flags | w, Ml, Hl, Vl)
               : unit(Op::kVmaskmov, need, name, flags, Vl, Hl, Ml);
}
constexpr Row kMaskedLoad[2] = {masked(kAvx2, "vpmaskmovd", false, w0), masked(kAvx2, "vpmaskmovq", false, w1)};
constexpr Row kMaskedStore[2] = {masked(kAvx2, "vpmaskmovd", true, w0), masked(kAvx2, "vpmaskmovq", true, w1)};
constexpr Row gather(const char* name, Form to, Form index, Form mask, uint32_t flags) {
  return unit(Op::kGather, kAvx2, name, flags, to, index, mask);
}
constexpr Row kGatherD[2] = {gather("vpgatherdd", Vl, Mgl, Hl, w0), gather("vpgatherdq", Vl, Mgx, Hl, w1)};
constexpr Row kGatherQ[2] = {gather("vpgatherqd", V, Mgl, H, w0), gather("vpgatherqq", Vl, Mgl, Hl, w1)};
constexpr Row kGatherPd[2] = {gather("vgatherdps", Vl, Mgl, Hl, w0), gather("vgatherdpd", Vl, Mgx, Hl, w1)};
constexpr Row kGatherPq[2] = {gather("vgatherqps", V, Mgl, H, w0), gather("vgatherqpd", Vl, Mgl, Hl, w1)};
constexpr Row aes(Need need, const char* name, uint32_t flags) { return avx(need, name, Vl, Hl, Wl, None, flags); }
constexpr Row kAesenc[2] = {aes(kAes, "vaesenc", l0), aes(kVaes, "vaesenc", l1)};
constexpr Row kAesenclast[2] = {aes(kAes, "vaesenclast", l0), aes(kVaes, "vaesenclast", l1)};
constexpr Row kAesdec[2] = {aes(kAes, "vaesdec", l0), aes(kVaes, "vaesdec", l1)};
constexpr Row kAesdeclast[2] = {aes(kAes, "vaesdeclast", l0), aes(kVaes, "vaesdeclast", l1)};
// Group 17
constexpr Row kBlsGroup[8] = {kBad, op(Op::kBlsr, kBmi1, l0 | wy, By, Ey), op(Op::kBlsmsk, kBmi1, l0 | wy, By, Ey),
                              op(Op::kBlsi, kBmi1, l0 | wy, By, Ey)};

constexpr Entry k38[] = {
    at(0x0c, p66, avx(kAvx, "vpermilps", Vl, Hl, Wl, None, w0)),
    at(0x0d, p66, avx(kAvx, "vpermilpd", Vl, Hl, Wl, None, w0)),
    at(0x0e, p66, avx(kAvx, "vtestps", Vl, Wl, None, None, w0)),
    at(0x0f, p66, avx(kAvx, "vtestpd", Vl, Wl, None, None, w0)),
    at(0x13, p66, avx(kF16c, "vcvtph2ps", Vl, Wh, None, None, w0)),
    at(0x16, p66, wide("vpermps", l1 | w0)),
    at(0x17, p66, avx(kAvx, "vptest", Vl, Wl)),
    at(0x18, p66, group(Select::kMemReg, kBroadcastss)),
    at(0x19, p66, group(Select::kMemReg, kBroadcastsd)),
    at(0x1a, p66, avx(kAvx, "vbroadcastf128", Vl, Mu, None, None, l1 | w0)),
    at(0x1c, p66, avx(kAvx, "vpabsb", Vl, Wl, None, None, avx2)),
    at(0x1d, p66, avx(kAvx, "vpabsw", Vl, Wl, None, None, avx2)),
    at(0x1e, p66, avx(kAvx, "vpabsd", Vl, Wl, None, None, avx2)),
    at(0x20, p66, avx(kAvx, "vpmovsxbw", Vl, Wh, None, None, avx2)),
    at(0x21, p66, avx(kAvx, "vpmovsxbd", Vl, Wf, None, None, avx2)),
    at(0x22, p66, avx(kAvx, "vpmovsxbq", Vl, We, None, None, avx2)),
    at(0x23, p66, avx(kAvx, "vpmovsxwd", Vl, Wh, None, None, avx2)),
    at(0x24, p66, avx(kAvx, "vpmovsxwq", Vl, Wf, None, None, avx2)),
    at(0x25, p66, avx(kAvx, "vpmovsxdq", Vl, Wh, None, None, avx2)),
    at(0x2a, p66, avx(kAvx, "vmovntdqa", Vl, Mla, None, None, avx2)),
    at(0x2c, p66, masked(kAvx, "vmaskmovps", false, w0)),
    at(0x2d, p66, masked(kAvx, "vmaskmovpd", false, w0)),
    at(0x2e, p66, masked(kAvx, "vmaskmovps", true, w0)),
    at(0x2f, p66, masked(kAvx, "vmaskmovpd", true, w0)),
    at(0x30, p66, avx(kAvx, "vpmovzxbw", Vl, Wh, None, None, avx2)),
    at(0x31, p66, avx(kAvx, "vpmovzxbd", Vl, Wf, None, None, avx2)),
    at(0x32, p66, avx(kAvx, "vpmovzxbq", Vl, We, None, None, avx2)),
    at(0x33, p66, avx(kAvx, "vpmovzxwd", Vl, Wh, None, None, avx2)),
    at(0x34, p66, avx(kAvx, "vpmovzxwq", Vl, Wf, None, None, avx2)),
    at(0x35, p66, avx(kAvx, "vpmovzxdq", Vl, Wh, None, None, avx2)),
    at(0x36, p66, wide("vpermd", l1 | w0)),
    at(0x41, p66, avx(kAvx, "vphminposuw", V, Wu, None, None, l0)),
    at(0x45, p66, group(Select::kVexW, kShiftRight)),
    at(0x46, p66, wide("vpsravd", w0)),
    at(0x47, p66, group(Select::kVexW, kShiftLeft)),
    at(0x50, p66, avx(kAvxVnni, "vpdpbusd", Vl, Hl, Wl, None, w0)),
    at(0x51, p66, avx(kAvxVnni, "vpdpbusds", Vl, Hl, Wl, None, w0)),
    at(0x52, p66, avx(kAvxVnni, "vpdpwssd", Vl, Hl, Wl, None, w0)),
    at(0x53, p66, avx(kAvxVnni, "vpdpwssds", Vl, Hl, Wl, None, w0)),
    at(0x58, p66, avx(kAvx2, "vpbroadcastd", Vl, Wd, None, None, w0)),
    at(0x59, p66, avx(kAvx2, "vpbroadcastq", Vl, Wq, None, None, w0)),
    at(0x5a, p66, avx(kAvx2, "vbroadcasti128", Vl, Mu, None, None, l1 | w0)),
    at(0x78, p66, avx(kAvx2, "vpbroadcastb", Vl, Wb, None, None, w0)),
    at(0x79, p66, avx(kAvx2, "vpbroadcastw", Vl, Ww, None, None, w0)),
    at(0x8c, p66, group(Select::kVexW, kMaskedLoad)),
    at(0x8e, p66, group(Select::kVexW, kMaskedStore)),
    at(0x90, p66, group(Select::kVexW, kGatherD)),
    at(0x91, p66, group(Select::kVexW, kGatherQ)),
    at(0x92, p66, group(Select::kVexW, kGatherPd)),
    at(0x93, p66, group(Select::kVexW, kGatherPq)),
    at(0xcf, p66, avx(kGfni, "vgf2p8mulb", Vl, Hl, Wl, None, w0)),
    at(0xdb, p66, avx(kAes, "vaesimc", V, Wu, None, None, l0)),
    at(0xdc, p66, group(Select::kVexL, kAesenc)),
    at(0xdd, p66, group(Select::kVexL, kAesenclast)),
    at(0xde, p66, group(Select::kVexL, kAesdec)),
    at(0xdf, p66, group(Select::kVexL, kAesdeclast)),
    at(0xf2, np, op(Op::kAndn, kBmi1, l0 | wy, Gy, By, Ey)),
    at(0xf3, np, group(Select::kReg, kBlsGroup)),
    at(0xf5, np, op(Op::kBzhi, kBmi2, l0 | wy, Gy, Ey, By)),
    at(0xf5, pf3, op(Op::kPext, kBmi2, l0 | wy, Gy, By, Ey)),
    at(0xf5, pf2, op(Op::kPdep, kBmi2, l0 | wy, Gy, By, Ey)),
    at(0xf6, pf2, op(Op::kMulx, kBmi2, l0 | wy, Gy, By, Ey)),
    at(0xf7, np, op(Op::kBextr, kBmi1, l0 | wy, Gy, Ey, By)),
    at(0xf7, p66, op(Op::kShlx, kBmi2, l0 | wy, Gy, Ey, By)),
    at(0xf7, pf3, op(Op::kSarx, kBmi2, l0 | wy, Gy, Ey, By)),
    at(0xf7, pf2, op(Op::kShrx, kBmi2, l0 | wy, Gy, Ey, By)),
};

constexpr Integer k38Integers[] = {
    {0x00, "vpshufb"},  {0x01, "vphaddw"},   {0x02, "vphaddd"},  {0x03, "vphaddsw"}, {0x04, "vpmaddubsw"},
    {0x05, "vphsubw"},  {0x06, "vphsubd"},   {0x07, "vphsubsw"}, {0x08, "vpsignb"},  {0x09, "vpsignw"},
    {0x0a, "vpsignd"},  {0x0b, "vpmulhrsw"}, {0x28, "vpmuldq"},  {0x29, "vpcmpeqq"}, {0x2b, "vpackusdw"},
    {0x37, "vpcmpgtq"}, {0x38, "vpminsb"},   {0x39, "vpminsd"},  {0x3a, "vpminuw"},  {0x3b, "vpminud"},
    {0x3c, "vpmaxsb"},  {0x3d, "vpmaxsd"},   {0x3e, "vpmaxuw"},  {0x3f, "vpmaxud"},  {0x40, "vpmulld"},
};

// FMA by VEX.W; odd opcodes from 99H on are scalar.
struct Fused {
  uint8_t opcode;
  const char *single, *dual;
};
constexpr Fused kFused[] = {
    {0x96, "vfmaddsub132ps", "vfmaddsub132pd"}, {0x97, "vfmsubadd132ps", "vfmsubadd132pd"},
    {0x98, "vfmadd132ps", "vfmadd132pd"},       {0x99, "vfmadd132ss", "vfmadd132sd"},
    {0x9a, "vfmsub132ps", "vfmsub132pd"},       {0x9b, "vfmsub132ss", "vfmsub132sd"},
    {0x9c, "vfnmadd132ps", "vfnmadd132pd"},     {0x9d, "vfnmadd132ss", "vfnmadd132sd"},
    {0x9e, "vfnmsub132ps", "vfnmsub132pd"},     {0x9f, "vfnmsub132ss", "vfnmsub132sd"},
    {0xa6, "vfmaddsub213ps", "vfmaddsub213pd"}, {0xa7, "vfmsubadd213ps", "vfmsubadd213pd"},
    {0xa8, "vfmadd213ps", "vfmadd213pd"},       {0xa9, "vfmadd213ss", "vfmadd213sd"},
    {0xaa, "vfmsub213ps", "vfmsub213pd"},       {0xab, "vfmsub213ss", "vfmsub213sd"},
    {0xac, "vfnmadd213ps", "vfnmadd213pd"},     {0xad, "vfnmadd213ss", "vfnmadd213sd"},
    {0xae, "vfnmsub213ps", "vfnmsub213pd"},     {0xaf, "vfnmsub213ss", "vfnmsub213sd"},
    {0xb6, "vfmaddsub231ps", "vfmaddsub231pd"}, {0xb7, "vfmsubadd231ps", "vfmsubadd231pd"},
    {0xb8, "vfmadd231ps", "vfmadd231pd"},       {0xb9, "vfmadd231ss", "vfmadd231sd"},
    {0xba, "vfmsub231ps", "vfmsub231pd"},       {0xbb, "vfmsub231ss", "vfmsub231sd"},
    {0xbc, "vfnmadd231ps", "vfnmadd231pd"},     {0xbd, "vfnmadd231ss", "vfnmadd231sd"},
    {0xbe, "vfnmsub231ps", "vfnmsub231pd"},     {0xbf, "vfnmsub231ss", "vfnmsub231sd"},
};
using FusedRows = std::array<Row, 2>;
constexpr auto kFusedRows = [] {
  std::array<FusedRows, std::size(kFused)> rows{};
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool scalar = (kFused[i].opcode & 0xf) >= 9 && (kFused[i].opcode & 1) != 0;
    for (const bool dual : {false, true}) {
      const char* const name = dual ? kFused[i].dual : kFused[i].single;
      const uint32_t flags = dual ? w1 : w0;
      rows[i][dual] =
          scalar ? avx(kFma, name, V, H, dual ? Wq : Wd, None, flags | lig) : avx(kFma, name, Vl, Hl, Wl, None, flags);
    }
  }
  return rows;
}();

constexpr Map<4> build_38() {
  Map<4> map{};
  fill<4>(map, k38);
  for (const Integer& integer : k38Integers) {
    const Entry rows[] = {at(integer.opcode, p66, avx(kAvx, integer.name, Vl, Hl, Wl, None, avx2))};
    fill<4>(map, rows);
  }
  for (size_t i = 0; i < std::size(kFused); ++i) {
    const Entry rows[] = {at(kFused[i].opcode, p66, group(Select::kVexW, kFusedRows[i].data()))};
    fill<4>(map, rows);
  }
  return map;
}

// --- map 0F3A

constexpr Row kPclmulqdq[2] = {avx(kPclmul, "vpclmulqdq", Vl, Hl, Wl, Ub, l0),
                               avx(kVpclmul, "vpclmulqdq", Vl, Hl, Wl, Ub, l1)};

constexpr Entry k3a[] = {
    at(0x00, p66, avx(kAvx2, "vpermq", Vl, Wl, Ub, None, l1 | w1)),
    at(0x01, p66, avx(kAvx2, "vpermpd", Vl, Wl, Ub, None, l1 | w1)),
    at(0x02, p66, avx(kAvx2, "vpblendd", Vl, Hl, Wl, Ub, w0)),
    at(0x04, p66, avx(kAvx, "vpermilps", Vl, Wl, Ub, None, w0)),
    at(0x05, p66, avx(kAvx, "vpermilpd", Vl, Wl, Ub, None, w0)),
    at(0x06, p66, avx(kAvx, "vperm2f128", Vl, Hl, Wl, Ub, l1 | w0)),
    at(0x08, p66, avx(kAvx, "vroundps", Vl, Wl, Ub)),
    at(0x09, p66, avx(kAvx, "vroundpd", Vl, Wl, Ub)),
    at(0x0a, p66, avx(kAvx, "vroundss", V, H, Wd, Ub, lig)),
    at(0x0b, p66, avx(kAvx, "vroundsd", V, H, Wq, Ub, lig)),
    at(0x0c, p66, avx(kAvx, "vblendps", Vl, Hl, Wl, Ub)),
    at(0x0d, p66, avx(kAvx, "vblendpd", Vl, Hl, Wl, Ub)),
    at(0x0e, p66, avx(kAvx, "vpblendw", Vl, Hl, Wl, Ub, avx2)),
    at(0x0f, p66, avx(kAvx, "vpalignr", Vl, Hl, Wl, Ub, avx2)),
    at(0x14, p66, avx(kAvx, "vpextrb", RdMb, V, Ub, None, l0 | w)),
    at(0x15, p66, avx(kAvx, "vpextrw", RdMw, V, Ub, None, l0 | w)),
    at(0x16, p66, avx(kAvx, "vpextrd", Ey, V, Ub, None, l0 | wy | w)),
    at(0x17, p66, avx(kAvx, "vextractps", Ed, V, Ub, None, l0 | w)),
    at(0x18, p66, avx(kAvx, "vinsertf128", Vl, Hl, Wu, Ub, l1 | w0)),
    at(0x19, p66, avx(kAvx, "vextractf128", Wu, Vl, Ub, None, l1 | w0 | w)),
    at(0x1d, p66, avx(kF16c, "vcvtps2ph", Wh, Vl, Ub, None, w0 | w)),
    at(0x20, p66, avx(kAvx, "vpinsrb", V, H, RdMb, Ub, l0)),
    at(0x21, p66, avx(kAvx, "vinsertps", V, H, Wd, Ub, l0)),
    at(0x22, p66, avx(kAvx, "vpinsrd", V, H, Ey, Ub, l0 | wy)),
    at(0x38, p66, avx(kAvx2, "vinserti128", Vl, Hl, Wu, Ub, l1 | w0)),
    at(0x39, p66, avx(kAvx2, "vextracti128", Wu, Vl, Ub, None, l1 | w0 | w)),
    at(0x40, p66, avx(kAvx, "vdpps", Vl, Hl, Wl, Ub)),
    at(0x41, p66, avx(kAvx, "vdppd", V, H, Wu, Ub, l0)),
    at(0x42, p66, avx(kAvx, "vmpsadbw", Vl, Hl, Wl, Ub, avx2)),
    at(0x44, p66, group(Select::kVexL, kPclmulqdq)),
    at(0x46, p66, avx(kAvx2, "vperm2i128", Vl, Hl, Wl, Ub, l1 | w0)),
    at(0x4a, p66, avx(kAvx, "vblendvps", Vl, Hl, Wl, Ll, w0)),
    at(0x4b, p66, avx(kAvx, "vblendvpd", Vl, Hl, Wl, Ll, w0)),
    at(0x4c, p66, avx(kAvx, "vpblendvb", Vl, Hl, Wl, Ll, w0 | avx2)),
    at(0x60, p66, avx(kAvx, "vpcmpestrm", V, Wu, Ub, None, l0 | wy)),
    at(0x61, p66, avx(kAvx, "vpcmpestri", V, Wu, Ub, None, l0 | wy)),
    at(0x62, p66, avx(kAvx, "vpcmpistrm", V, Wu, Ub, None, l0)),
    at(0x63, p66, avx(kAvx, "vpcmpistri", V, Wu, Ub, None, l0)),
    at(0xce, p66, avx(kGfni, "vgf2p8affineqb", Vl, Hl, Wl, Ub, w1)),
    at(0xcf, p66, avx(kGfni, "vgf2p8affineinvqb", Vl, Hl, Wl, Ub, w1)),
    at(0xdf, p66, avx(kAes, "vaeskeygenassist", V, Wu, Ub, None, l0)),
    at(0xf0, pf2, op(Op::kRorx, kBmi2, l0 | wy, Gy, Ey, Ub)),
};

constexpr Map<4> build_3a() {
  Map<4> map{};
  fill<4>(map, k3a);
  return map;
}

}  // namespace

constinit const Map<4> kVex0f = build_0f();
constinit const Map<4> kVex0f38 = build_38();
constinit const Map<4> kVex0f3a = build_3a();

}  // namespace kite::x86::opcodes
