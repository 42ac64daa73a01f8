// D8H..DFH (SDM 2D, tables ). Register forms that the SDM leaves out but processors execute (aliases of
// documented instructions, and no-operations from the 8087 and 80287) are listed with those.
#include "x86/opcode_row.h"

namespace kite::x86::opcodes {

namespace {

using enum Form;

using Group = std::array<Row, kX87GroupSize>;
constexpr size_t kRegisters = 8;  // index of ModRM C0H in a Group

// Rows /`reg` of the register forms: ModRM.rm names ST(i).
constexpr void registers(Group& group, unsigned reg, const Row& row) {
  for (size_t i = 0; i < 8; ++i) group[kRegisters + reg * 8 + i] = row;
}
// The register form with this one ModRM byte.
constexpr void single(Group& group, uint8_t modrm, const Row& row) { group[kRegisters + (modrm & 63)] = row; }

constexpr const char* kArithmetic[8] = {"fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr"};
constexpr const char* kReversed[8] = {"fadd", "fmul", "fcom", "fcomp", "fsubr", "fsub", "fdivr", "fdiv"};
constexpr const char* kPopping[8] = {"faddp", "fmulp", "fcomp", "fcompp", "fsubrp", "fsubp", "fdivrp", "fdivp"};
constexpr const char* kInteger[8] = {"fiadd", "fimul", "ficom", "ficomp", "fisub", "fisubr", "fidiv", "fidivr"};

constexpr bool compares(unsigned reg) { return reg == 2 || reg == 3; }
constexpr Row memory_arithmetic(const char* const* names, unsigned reg, Form memory) {
  return x87(names[reg], memory, None, r);
}

constexpr Group build_d8() {
  Group group{};
  for (unsigned reg = 0; reg < 8; ++reg) {
    group[reg] = memory_arithmetic(kArithmetic, reg, Md);
    registers(group, reg, x87(kArithmetic[reg], St0, Sti));
  }
  return group;
}

constexpr Group build_d9() {
  Group group{};
  group[0] = x87("fld", Md, None, r);
  group[2] = x87("fst", Md, None, w);
  group[3] = x87("fstp", Md, None, w);
  group[4] = x87("fldenv", Menv, None, r);
  group[5] = x87("fldcw", Mw, None, r);
  group[6] = x87("fnstenv", Menv, None, w);
  group[7] = x87("fnstcw", Mw, None, w);
  registers(group, 0, x87("fld", Sti));
  registers(group, 1, x87("fxch", Sti));
  single(group, 0xd0, x87("fnop"));
  registers(group, 3, x87("fstp", Sti));  // as DD D8+i
  constexpr const char* kNames[32] = {
      "fchs",  "fabs",    nullptr,  nullptr,   "ftst",    "fxam",   nullptr,   nullptr,    // E0
      "fld1",  "fldl2t",  "fldl2e", "fldpi",   "fldlg2",  "fldln2", "fldz",    nullptr,    // E8
      "f2xm1", "fyl2x",   "fptan",  "fpatan",  "fxtract", "fprem1", "fdecstp", "fincstp",  // F0
      "fprem", "fyl2xp1", "fsqrt",  "fsincos", "frndint", "fscale", "fsin",    "fcos"};    // F8
  for (uint8_t i = 0; i < 32; ++i)
    if (kNames[i] != nullptr) single(group, static_cast<uint8_t>(0xe0 + i), x87(kNames[i]));
  return group;
}

constexpr Group build_da() {
  Group group{};
  for (unsigned reg = 0; reg < 8; ++reg) group[reg] = memory_arithmetic(kInteger, reg, Md);
  constexpr const char* kMoves[4] = {"fcmovb", "fcmove", "fcmovbe", "fcmovu"};
  for (unsigned reg = 0; reg < 4; ++reg) registers(group, reg, x87(kMoves[reg], St0, Sti, 0, Need::kCmov));
  single(group, 0xe9, x87("fucompp"));
  return group;
}

constexpr Group build_db() {
  Group group{};
  group[0] = x87("fild", Md, None, r);
  group[1] = x87("fisttp", Md, None, w, Need::kSse3);
  group[2] = x87("fist", Md, None, w);
  group[3] = x87("fistp", Md, None, w);
  group[5] = x87("fld", Mt, None, r);
  group[7] = x87("fstp", Mt, None, w);
  constexpr const char* kMoves[4] = {"fcmovnb", "fcmovne", "fcmovnbe", "fcmovnu"};
  for (unsigned reg = 0; reg < 4; ++reg) registers(group, reg, x87(kMoves[reg], St0, Sti, 0, Need::kCmov));
  single(group, 0xe0, x87("fneni"));   // of the 8087, does nothing
  single(group, 0xe1, x87("fndisi"));  // likewise
  single(group, 0xe2, x87("fnclex"));
  single(group, 0xe3, x87("fninit"));
  single(group, 0xe4, x87("fnsetpm"));  // of the 80287, does nothing
  registers(group, 5, x87("fucomi", St0, Sti, 0, Need::kCmov));
  registers(group, 6, x87("fcomi", St0, Sti, 0, Need::kCmov));
  return group;
}

constexpr Group build_dc() {
  Group group{};
  for (unsigned reg = 0; reg < 8; ++reg) {
    group[reg] = memory_arithmetic(kArithmetic, reg, Mq);
    registers(group, reg, compares(reg) ? x87(kReversed[reg], St0, Sti) : x87(kReversed[reg], Sti, St0));
  }
  return group;
}

constexpr Group build_dd() {
  Group group{};
  group[0] = x87("fld", Mq, None, r);
  group[1] = x87("fisttp", Mq, None, w, Need::kSse3);
  group[2] = x87("fst", Mq, None, w);
  group[3] = x87("fstp", Mq, None, w);
  group[4] = x87("frstor", Mstate, None, r);
  group[6] = x87("fnsave", Mstate, None, w);
  group[7] = x87("fnstsw", Mw, None, w);
  registers(group, 0, x87("ffree", Sti));
  registers(group, 1, x87("fxch", Sti));  // as D9 C8+i
  registers(group, 2, x87("fst", Sti));
  registers(group, 3, x87("fstp", Sti));
  registers(group, 4, x87("fucom", Sti));
  registers(group, 5, x87("fucomp", Sti));
  return group;
}

constexpr Group build_de() {
  Group group{};
  for (unsigned reg = 0; reg < 8; ++reg) {
    group[reg] = memory_arithmetic(kInteger, reg, Mw);
    if (!compares(reg)) registers(group, reg, x87(kPopping[reg], Sti, St0));
  }
  registers(group, 2, x87(kPopping[2], St0, Sti));  // as D8 D8+i
  single(group, 0xd9, x87(kPopping[3]));
  return group;
}

constexpr Group build_df() {
  Group group{};
  group[0] = x87("fild", Mw, None, r);
  group[1] = x87("fisttp", Mw, None, w, Need::kSse3);
  group[2] = x87("fist", Mw, None, w);
  group[3] = x87("fistp", Mw, None, w);
  group[4] = x87("fbld", Mt, None, r);
  group[5] = x87("fild", Mq, None, r);
  group[6] = x87("fbstp", Mt, None, w);
  group[7] = x87("fistp", Mq, None, w);
  registers(group, 0, x87("ffreep", Sti));
  registers(group, 1, x87("fxch", Sti));  // as D9 C8+i
  registers(group, 2, x87("fstp", Sti));  // as DD D8+i
  registers(group, 3, x87("fstp", Sti));  // likewise
  single(group, 0xe0, x87("fnstsw", Aw));
  registers(group, 5, x87("fucomip", St0, Sti, 0, Need::kCmov));
  registers(group, 6, x87("fcomip", St0, Sti, 0, Need::kCmov));
  return group;
}

}  // namespace

constinit const std::array<Group, 8> kX87Groups = {build_d8(), build_d9(), build_da(), build_db(),
                                                   build_dc(), build_dd(), build_de(), build_df()};

}  // namespace kite::x86::opcodes
