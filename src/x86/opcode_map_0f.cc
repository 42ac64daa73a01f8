// The 0F opcode map (SDM 2D, tables ). Its MMX and SSE rows are in opcode_map_sse.h.
#include "x86/opcode_map_sse.h"
#include "x86/opcode_row.h"

namespace kite::x86::opcodes {

namespace {

using enum Form;
using enum Op;

// Group 6
constexpr Row kDescriptorGroup[8] = {op(kSldt, w, RvMw), op(kStr, w, RvMw), op(kLldt, r, Ew),
                                     op(kLtr, r, Ew),    op(kVerr, r, Ew),  op(kVerw, r, Ew)};
// Group 7: memory, then registers.
constexpr Row kVmGroup[8] = {kBad, op(kVmcall)};
constexpr Row kMonitorGroup[8] = {op(kMonitor, Need::kMonitor, 0, MemAx), op(kMwait, Need::kMonitor),
                                  op(kClac, Need::kSmap), op(kStac, Need::kSmap)};
constexpr Row kXcrGroup[8] = {op(kXgetbv, Need::kXsave), op(kXsetbv, Need::kXsave)};
constexpr Row kSvmGroup[8] = {kBad, op(kVmmcall)};
constexpr Row kSwapgsGroup[8] = {
    op(kSwapgs, Need::kLongMode, long_only), op(kRdtscp, Need::kRdtscp), kBad, kBad, kBad, op(kRdpru, Need::kRdpru)};
constexpr Row kPkruGroup[8] = {op(kSerialize, Need::kSerialize), kBad, kBad, kBad, kBad, kBad, op(kRdpkru, Need::kPku),
                               op(kWrpkru, Need::kPku)};
constexpr Row kTableGroup[16] = {op(kSgdt, w | force64, Ms),
                                 op(kSidt, w | force64, Ms),
                                 op(kLgdt, r | force64, Ms),
                                 op(kLidt, r | force64, Ms),
                                 op(kSmsw, w, RvMw),
                                 kBad,
                                 op(kLmsw, r, Ew),
                                 op(kInvlpg, 0, M),
                                 group(Select::kRm, kVmGroup),
                                 group(Select::kRm, kMonitorGroup),
                                 group(Select::kRm, kXcrGroup),
                                 group(Select::kRm, kSvmGroup),
                                 op(kSmsw, w, RvMw),
                                 group(Select::kRm, kPkruGroup),
                                 op(kLmsw, r, Ew),
                                 group(Select::kRm, kSwapgsGroup)};
// The same behind 66, F3 or F2: only what the SDM does not mark NP.
constexpr Row kTableGroupPrefixed[16] = {op(kSgdt, w | force64, Ms),
                                         op(kSidt, w | force64, Ms),
                                         op(kLgdt, r | force64, Ms),
                                         op(kLidt, r | force64, Ms),
                                         op(kSmsw, w, RvMw),
                                         kBad,
                                         op(kLmsw, r, Ew),
                                         op(kInvlpg, 0, M),
                                         kBad,
                                         kBad,
                                         kBad,
                                         group(Select::kRm, kSvmGroup),
                                         op(kSmsw, w, RvMw),
                                         kBad,
                                         op(kLmsw, r, Ew),
                                         group(Select::kRm, kSwapgsGroup)};
// Group 8
constexpr Row kBitGroup[8] = {kBad,
                              kBad,
                              kBad,
                              kBad,
                              op(kBt, r, Ev, Ub),
                              op(kBts, rw | lock, Ev, Ub),
                              op(kBtr, rw | lock, Ev, Ub),
                              op(kBtc, rw | lock, Ev, Ub)};
// Group 9
constexpr Row kWideGroup[16] = {kBad,
                                op(kCmpxchg8b, Need::kCx8, rw | lock, Mx),
                                kBad,
                                op(kXrstors, Need::kXsaves, r, M),
                                op(kXsavec, Need::kXsavec, w, M),
                                op(kXsaves, Need::kXsaves, w, M),
                                kBad,
                                kBad,
                                kBad,
                                kBad,
                                kBad,
                                kBad,
                                kBad,
                                kBad,
                                op(kRdrand, Need::kRdrand, 0, Rv),
                                op(kRdseed, Need::kRdseed, 0, Rv)};
constexpr Row kWideGroup66[16] = {kBad,
                                  op(kCmpxchg8b, Need::kCx8, rw | lock, Mx),
                                  kBad,
                                  kBad,
                                  kBad,
                                  kBad,
                                  kBad,
                                  kBad,
                                  kBad,
                                  kBad,
                                  kBad,
                                  kBad,
                                  kBad,
                                  kBad,
                                  op(kRdrand, Need::kRdrand, 0, Rv),
                                  op(kRdseed, Need::kRdseed, 0, Rv)};
constexpr Row kWideGroupF3[16] = {kBad, op(kCmpxchg8b, Need::kCx8, rw | lock, Mx),
                                  kBad, kBad,
                                  kBad, kBad,
                                  kBad, kBad,
                                  kBad, kBad,
                                  kBad, kBad,
                                  kBad, kBad,
                                  kBad, op(kRdpid, Need::kRdpid, 0, Rm)};
constexpr Row kWideGroupF2[16] = {kBad, op(kCmpxchg8b, Need::kCx8, rw | lock, Mx)};
// Group 15
constexpr Row kStateGroup[16] = {op(kFxsave, Need::kFxsr, w, M),
                                 op(kFxrstor, Need::kFxsr, r, M),
                                 op(kLdmxcsr, Need::kSse, r, Md),
                                 op(kStmxcsr, Need::kSse, w, Md),
                                 op(kXsave, Need::kXsave, rw, M),
                                 op(kXrstor, Need::kXsave, r, M),
                                 op(kXsaveopt, Need::kXsaveopt, rw, M),
                                 op(kClflush, Need::kClflush, 0, Mb),
                                 kBad,
                                 kBad,
                                 kBad,
                                 kBad,
                                 kBad,
                                 op(kLfence, Need::kSse2),
                                 op(kMfence, Need::kSse2),
                                 op(kSfence, Need::kSse)};
constexpr Row kStateGroup66[16] = {
    kBad, kBad, kBad, kBad, kBad, kBad, op(kClwb, Need::kClwb, 0, Mb), op(kClflushopt, Need::kClflushopt, 0, Mb)};
constexpr Row kStateGroupF3[16] = {kBad,
                                   kBad,
                                   kBad,
                                   kBad,
                                   kBad,
                                   kBad,
                                   kBad,
                                   kBad,
                                   op(kRdfsbase, Need::kFsgsbase, long_only, Ry),
                                   op(kRdgsbase, Need::kFsgsbase, long_only, Ry),
                                   op(kWrfsbase, Need::kFsgsbase, long_only, Ry),
                                   op(kWrgsbase, Need::kFsgsbase, long_only, Ry)};
// Groups 16 and P: memory prefetches, everything else a NOP.
constexpr Row kHint = op(Op::kNop, 0, Ev);
constexpr Row kPrefetchRow = op(kPrefetch, 0, Mb);
constexpr Row kPrefetchGroup[16] = {kPrefetchRow, kPrefetchRow, kPrefetchRow, kPrefetchRow, kHint, kHint, kHint, kHint,
                                    kHint,        kHint,        kHint,        kHint,        kHint, kHint, kHint, kHint};
constexpr Row kPrefetchwGroup[16] = {kPrefetchRow, kPrefetchRow, kPrefetchRow, kPrefetchRow, kPrefetchRow, kPrefetchRow,
                                     kPrefetchRow, kPrefetchRow, kHint,        kHint,        kHint,        kHint,
                                     kHint,        kHint,        kHint,        kHint};
// F3 0F 1E FA and FB, register forms of /7.
constexpr Row kEndbrRm[8] = {kHint, kHint, op(kEndbr), op(kEndbr), kHint, kHint, kHint, kHint};
constexpr Row kEndbrGroup[16] = {kHint, kHint, kHint, kHint, kHint, kHint, kHint, kHint,
                                 kHint, kHint, kHint, kHint, kHint, kHint, kHint, group(Select::kRm, kEndbrRm)};

constexpr Entry kEntries[] = {
    {0x00, 0x00, any, group(Select::kReg, kDescriptorGroup)},
    {0x01, 0x01, np, group(Select::kModReg, kTableGroup)},
    {0x01, 0x01, p66 | pf3 | pf2, group(Select::kModReg, kTableGroupPrefixed)},
    {0x02, 0x02, any, op(kLar, 0, Gv, Ew)},
    {0x03, 0x03, any, op(kLsl, 0, Gv, Ew)},
    {0x05, 0x05, any, op(kSyscall, Need::kSyscall)},
    {0x06, 0x06, any, op(kClts)},
    {0x07, 0x07, any, op(kSysret, Need::kSyscall)},
    {0x08, 0x08, any, op(kInvd)},
    {0x09, 0x09, np | p66 | pf2, op(kWbinvd)},
    {0x09, 0x09, pf3, op(kWbnoinvd, Need::kWbnoinvd)},
    {0x0b, 0x0b, any, op(kUd2)},
    {0x0d, 0x0d, any, group(Select::kModReg, kPrefetchwGroup)},
    {0x18, 0x18, any, group(Select::kModReg, kPrefetchGroup)},
    {0x19, 0x1d, any, kHint},
    {0x1e, 0x1e, np | p66 | pf2, kHint},
    {0x1e, 0x1e, pf3, group(Select::kModReg, kEndbrGroup)},
    {0x1f, 0x1f, any, kHint},
    {0x20, 0x20, any, op(kMovFromCr, any_mod | force64, Rm, Cd)},
    {0x21, 0x21, any, op(kMovFromDr, any_mod | force64, Rm, Dd)},
    {0x22, 0x22, any, op(kMovToCr, any_mod | force64, Cd, Rm)},
    {0x23, 0x23, any, op(kMovToDr, any_mod | force64, Dd, Rm)},
    {0x30, 0x30, any, op(kWrmsr)},
    {0x31, 0x31, any, op(kRdtsc)},
    {0x32, 0x32, any, op(kRdmsr)},
    {0x33, 0x33, any, op(kRdpmc)},
    {0x34, 0x34, any, op(kSysenter, Need::kSep)},
    {0x35, 0x35, any, op(kSysexit, Need::kSep)},
    {0x40, 0x4f, any, op(kCmov, Need::kCmov, 0, Gv, Ev)},
    {0x80, 0x8f, any, op(kJcc, force64, Jz)},
    {0x90, 0x9f, any, op(kSet, w, Eb)},
    {0xa0, 0xa0, any, op(kPushSeg, def64, Fs)},
    {0xa1, 0xa1, any, op(kPopSeg, def64, Fs)},
    {0xa2, 0xa2, any, op(kCpuid)},
    {0xa3, 0xa3, any, op(kBt, r, Ev, Gv)},
    {0xa4, 0xa4, any, op(kShld, rw, Ev, Gv, Ub)},
    {0xa5, 0xa5, any, op(kShld, rw, Ev, Gv, Cl)},
    {0xa8, 0xa8, any, op(kPushSeg, def64, Gs)},
    {0xa9, 0xa9, any, op(kPopSeg, def64, Gs)},
    {0xaa, 0xaa, any, op(kRsm)},
    {0xab, 0xab, any, op(kBts, rw | lock, Ev, Gv)},
    {0xac, 0xac, any, op(kShrd, rw, Ev, Gv, Ub)},
    {0xad, 0xad, any, op(kShrd, rw, Ev, Gv, Cl)},
    {0xae, 0xae, np, group(Select::kModReg, kStateGroup)},
    {0xae, 0xae, p66, group(Select::kModReg, kStateGroup66)},
    {0xae, 0xae, pf3, group(Select::kModReg, kStateGroupF3)},
    {0xaf, 0xaf, any, op(kImul2, 0, Gv, Ev)},
    {0xb0, 0xb0, any, op(kCmpxchg, rw | lock, Eb, Gb)},
    {0xb1, 0xb1, any, op(kCmpxchg, rw | lock, Ev, Gv)},
    {0xb2, 0xb2, any, op(kLss, 0, Gv, Mp)},
    {0xb3, 0xb3, any, op(kBtr, rw | lock, Ev, Gv)},
    {0xb4, 0xb4, any, op(kLfs, 0, Gv, Mp)},
    {0xb5, 0xb5, any, op(kLgs, 0, Gv, Mp)},
    {0xb6, 0xb6, any, op(kMovzx, 0, Gv, Eb)},
    {0xb7, 0xb7, any, op(kMovzx, 0, Gv, Ew)},
    {0xb8, 0xb8, pf3, op(kPopcnt, Need::kPopcnt, 0, Gv, Ev)},
    {0xb9, 0xb9, any, op(kUd1, 0, Gv, Ev)},
    {0xba, 0xba, any, group(Select::kReg, kBitGroup)},
    {0xbb, 0xbb, any, op(kBtc, rw | lock, Ev, Gv)},
    {0xbc, 0xbc, any, op(kBsf, 0, Gv, Ev)},
    {0xbc, 0xbc, pf3, op(kTzcnt, Need::kBmi1, 0, Gv, Ev)},
    {0xbd, 0xbd, any, op(kBsr, 0, Gv, Ev)},
    {0xbd, 0xbd, pf3, op(kLzcnt, Need::kLzcnt, 0, Gv, Ev)},
    {0xbe, 0xbe, any, op(kMovsx, 0, Gv, Eb)},
    {0xbf, 0xbf, any, op(kMovsx, 0, Gv, Ew)},
    {0xc0, 0xc0, any, op(kXadd, rw | lock, Eb, Gb)},
    {0xc1, 0xc1, any, op(kXadd, rw | lock, Ev, Gv)},
    {0xc3, 0xc3, np, op(kMovnti, Need::kSse2, w, My, Gy)},
    {0xc7, 0xc7, np, group(Select::kModReg, kWideGroup)},
    {0xc7, 0xc7, p66, group(Select::kModReg, kWideGroup66)},
    {0xc7, 0xc7, pf3, group(Select::kModReg, kWideGroupF3)},
    {0xc7, 0xc7, pf2, group(Select::kModReg, kWideGroupF2)},
    {0xc8, 0xcf, any, op(kBswap, 0, Zv)},
    {0xff, 0xff, any, op(kUd0, 0, Gv, Ev)},
};

constexpr Map<4> build() {
  Map<4> map{};
  fill<4>(map, kEntries);
  fill_sse(map);
  return map;
}

}  // namespace

constinit const Map<4> k0f = build();

}  // namespace kite::x86::opcodes
