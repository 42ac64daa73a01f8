// Decoded instructions as text, in Intel syntax.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "x86/insn.h"
#include "x86/opcode_row.h"

namespace kite::x86 {

namespace {

struct Name {
  std::array<char, 15> text{};
  uint8_t length = 0;
  constexpr operator std::string_view() const { return {text.data(), length}; }
};

constexpr Name lower(std::string_view word) {
  Name name;
  for (const char c : word) name.text[name.length++] = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return name;
}

constexpr Name kOpNames[] = {
#define KITE_X86_OP_NAME(name) lower(#name),
    KITE_X86_OPS(KITE_X86_OP_NAME)
#undef KITE_X86_OP_NAME
};

constexpr std::array<Name, 16> with_conditions(std::string_view stem) {
  constexpr std::string_view kConditions[16] = {"o", "no", "b", "nb", "z", "nz", "be", "nbe",
                                                "s", "ns", "p", "np", "l", "nl", "le", "nle"};
  std::array<Name, 16> names{};
  for (size_t i = 0; i < names.size(); ++i) {
    for (const std::string_view part : {stem, kConditions[i]})
      for (const char c : part) names[i].text[names[i].length++] = c;
  }
  return names;
}
constexpr auto kJumps = with_conditions("j"), kMoves = with_conditions("cmov"), kSets = with_conditions("set");

// Mnemonics that depend on a width: for 1, 2, 4 and 8 bytes.
struct Widths {
  Op op;
  std::string_view names[4];
};
constexpr Widths kByOperandSize[] = {
    {Op::kCbw, {"", "cbw", "cwde", "cdqe"}},         {Op::kCwd, {"", "cwd", "cdq", "cqo"}},
    {Op::kPusha, {"", "pusha", "pushad", ""}},       {Op::kPopa, {"", "popa", "popad", ""}},
    {Op::kPushf, {"", "pushf", "pushfd", "pushfq"}}, {Op::kPopf, {"", "popf", "popfd", "popfq"}},
    {Op::kIret, {"", "iret", "iretd", "iretq"}},
};
constexpr Widths kByElement[] = {
    {Op::kMovs, {"movsb", "movsw", "movsd", "movsq"}}, {Op::kCmps, {"cmpsb", "cmpsw", "cmpsd", "cmpsq"}},
    {Op::kStos, {"stosb", "stosw", "stosd", "stosq"}}, {Op::kLods, {"lodsb", "lodsw", "lodsd", "lodsq"}},
    {Op::kScas, {"scasb", "scasw", "scasd", "scasq"}}, {Op::kIns, {"insb", "insw", "insd", ""}},
    {Op::kOuts, {"outsb", "outsw", "outsd", ""}},
};
constexpr Widths kByAddressSize[] = {{Op::kJcxz, {"", "jcxz", "jecxz", "jrcxz"}}};

struct Plain {
  Op op;
  std::string_view name;
};
constexpr Plain kPlain[] = {
    {Op::kImul1, "imul"},   {Op::kImul2, "imul"},    {Op::kImul3, "imul"},  {Op::kMovFromSeg, "mov"},
    {Op::kMovToSeg, "mov"}, {Op::kMovFromCr, "mov"}, {Op::kMovToCr, "mov"}, {Op::kMovFromDr, "mov"},
    {Op::kMovToDr, "mov"},  {Op::kPushSeg, "push"},  {Op::kPopSeg, "pop"},  {Op::kJmpFar, "jmp"},
    {Op::kCallFar, "call"}, {Op::kRetFar, "retf"},
};
// With REX.W.
constexpr Plain kWide[] = {
    {Op::kFxsave, "fxsave64"},     {Op::kFxrstor, "fxrstor64"}, {Op::kXsave, "xsave64"},   {Op::kXrstor, "xrstor64"},
    {Op::kXsaveopt, "xsaveopt64"}, {Op::kXsavec, "xsavec64"},   {Op::kXsaves, "xsaves64"}, {Op::kXrstors, "xrstors64"},
};

std::string_view by_width(std::span<const Widths> rows, Op op, unsigned bytes) {
  const auto row = std::ranges::find(rows, op, &Widths::op);
  if (row == rows.end()) return {};
  return row->names[bytes == 8 ? 3 : bytes / 2];
}

std::string_view plain(std::span<const Plain> rows, Op op) {
  const auto row = std::ranges::find(rows, op, &Plain::op);
  return row == rows.end() ? std::string_view{} : row->name;
}

// The width of a string instruction's elements.
unsigned element(const Insn& insn) {
  for (const Operand& operand : insn.operand)
    if (operand.kind == OperandKind::kMem) return operand.size;
  return insn.operand_size;
}

std::string_view unit_mnemonic(const Insn& insn) {
  const opcodes::Row* const row = opcodes::row_of(insn);
  const std::string_view name = row == nullptr || row->name == nullptr ? op_name(insn.op) : row->name;
  if (!insn.rex_w) return name;
  if (name == "movd") return "movq";
  if (name == "pextrd") return "pextrq";
  if (name == "pinsrd") return "pinsrq";
  if (name == "vmovd") return "vmovq";
  if (name == "vpextrd") return "vpextrq";
  if (name == "vpinsrd") return "vpinsrq";
  return name;
}

std::string_view prefetch_mnemonic(const Insn& insn) {
  constexpr std::string_view kHints[4] = {"prefetchnta", "prefetcht0", "prefetcht1", "prefetcht2"};
  const unsigned reg = (insn.modrm >> 3) & 7;
  if (insn.opcode == 0x18) return kHints[reg & 3];
  return reg == 1 ? "prefetchw" : reg == 2 ? "prefetchwt1" : "prefetch";
}

}  // namespace

std::string_view op_name(Op op) {
  const auto index = static_cast<size_t>(op);
  return index < std::size(kOpNames) ? std::string_view(kOpNames[index]) : std::string_view("?");
}

std::string_view mnemonic(const Insn& insn) {
  switch (insn.op) {
    case Op::kJcc: return kJumps[insn.condition];
    case Op::kCmov: return kMoves[insn.condition];
    case Op::kSet: return kSets[insn.condition];
    case Op::kPrefetch: return prefetch_mnemonic(insn);
    case Op::kEndbr: return insn.modrm == 0xfa ? "endbr64" : "endbr32";
    case Op::kX87:
    case Op::kMmx:
    case Op::kSse:
    case Op::kAvx:
    case Op::kVmaskmov:
    case Op::kGather:
    case Op::kMaskmov: return unit_mnemonic(insn);
    case Op::kLdmxcsr: return insn.vex ? "vldmxcsr" : "ldmxcsr";
    case Op::kStmxcsr: return insn.vex ? "vstmxcsr" : "stmxcsr";
    default: break;
  }
  if (const auto name = by_width(kByOperandSize, insn.op, insn.operand_size); !name.empty()) return name;
  if (const auto name = by_width(kByElement, insn.op, element(insn)); !name.empty()) return name;
  if (const auto name = by_width(kByAddressSize, insn.op, insn.address_size); !name.empty()) return name;
  if (const auto name = plain(kPlain, insn.op); !name.empty()) return name;
  if (insn.rex_w)
    if (const auto name = plain(kWide, insn.op); !name.empty()) return name;
  return op_name(insn.op);
}

namespace {

std::string gpr_text(unsigned number, unsigned size, bool high) {
  constexpr std::string_view kBytes[16] = {"al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"};
  constexpr std::string_view kHigh[4] = {"ah", "ch", "dh", "bh"};
  constexpr std::string_view kWords[8] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
  if (high) return std::string(kHigh[number & 3]);
  if (number >= 8) return fmt::format("r{}{}", number, size == 1 ? "b" : size == 2 ? "w" : size == 4 ? "d" : "");
  if (size == 1) return std::string(kBytes[number]);
  return fmt::format("{}{}", size == 8 ? "r" : size == 4 ? "e" : "", kWords[number]);
}

std::string_view seg_text(uint8_t seg) {
  constexpr std::string_view kNames[kSegCount] = {"es", "cs", "ss", "ds", "fs", "gs"};
  return seg < kSegCount ? kNames[seg] : "?";
}

std::string_view size_text(unsigned bytes) {
  switch (bytes) {
    case 1: return "byte ptr ";
    case 2: return "word ptr ";
    case 4: return "dword ptr ";
    case 6: return "fword ptr ";
    case 8: return "qword ptr ";
    case 10: return "tbyte ptr ";
    case 16: return "xmmword ptr ";
    case 32: return "ymmword ptr ";
    case 64: return "zmmword ptr ";
    default: return "";
  }
}

std::string signed_text(int64_t value) {
  if (value < 0) return fmt::format("-{:#x}", uint64_t{0} - static_cast<uint64_t>(value));
  return fmt::format("+{:#x}", value);
}

std::string mem_text(const Insn& insn, unsigned size, uint64_t next) {
  const MemOperand& mem = insn.mem;
  std::string text(size_text(size));
  const bool stack = mem.base == kRsp || mem.base == kRbp;
  if (mem.segment != (stack ? Seg::kSs : Seg::kDs))
    text += fmt::format("{}:", seg_text(static_cast<uint8_t>(mem.segment)));
  text += '[';
  if (mem.base == kRipReg) {
    const uint64_t target = next + static_cast<uint64_t>(mem.disp);
    return text + fmt::format("{:#x}]", insn.address_size == 4 ? target & 0xffffffff : target);
  }
  std::string parts;
  if (mem.base != kNoReg) parts = gpr_text(mem.base, insn.address_size, false);
  if (mem.index != kNoReg) {
    if (!parts.empty()) parts += '+';
    if (mem.vector_index != 0)
      parts += fmt::format("{}mm{}", mem.vector_index == 32 ? 'y' : 'x', mem.index);
    else
      parts += gpr_text(mem.index, insn.address_size, false);
    if (mem.scale != 0) parts += fmt::format("*{}", 1u << mem.scale);
  }
  if (parts.empty()) {
    const auto address = static_cast<uint64_t>(mem.disp);
    parts = fmt::format("{:#x}", insn.address_size == 2   ? address & 0xffff
                                 : insn.address_size == 4 ? address & 0xffffffff
                                                          : address);
  } else if (mem.disp != 0) {
    parts += signed_text(mem.disp);
  }
  return text + parts + ']';
}

// Immediates are cut to the width of what they meet: "cmp al, 0xff", not sixteen digits.
uint64_t shown_immediate(const Insn& insn, const Operand& immediate) {
  unsigned bytes = immediate.size;
  if (insn.operand[0].kind != OperandKind::kImm && insn.operand[0].size > bytes && static_cast<int64_t>(insn.imm) < 0)
    bytes = insn.operand[0].size;
  return bytes >= 8 ? insn.imm : insn.imm & ((uint64_t{1} << (8 * bytes)) - 1);
}

std::string operand_text(const Insn& insn, const Operand& operand, uint64_t next) {
  switch (operand.kind) {
    case OperandKind::kNone: return {};
    case OperandKind::kGpr: return gpr_text(operand.reg, operand.size, operand.high_byte);
    case OperandKind::kMem: return mem_text(insn, operand.size, next);
    case OperandKind::kImm: return fmt::format("{:#x}", shown_immediate(insn, operand));
    case OperandKind::kImm2: return fmt::format("{:#x}", insn.imm2);
    case OperandKind::kRel: {
      const uint64_t target = next + insn.imm;
      return fmt::format("{:#x}", insn.operand_size == 2   ? target & 0xffff
                                  : insn.operand_size == 4 ? target & 0xffffffff
                                                           : target);
    }
    case OperandKind::kSegReg: return std::string(seg_text(operand.reg));
    case OperandKind::kControl: return fmt::format("cr{}", operand.reg);
    case OperandKind::kDebug: return fmt::format("dr{}", operand.reg);
    case OperandKind::kMmx: return fmt::format("mm{}", operand.reg);
    case OperandKind::kXmm: return fmt::format("xmm{}", operand.reg);
    case OperandKind::kYmm: return fmt::format("ymm{}", operand.reg);
    case OperandKind::kX87: return fmt::format("st({})", operand.reg);
  }
  return {};
}

// String operands are implied by the mnemonic, except for the segment of the source.
bool has_implied_operands(Op op) {
  switch (op) {
    case Op::kMovs:
    case Op::kCmps:
    case Op::kStos:
    case Op::kLods:
    case Op::kScas:
    case Op::kIns:
    case Op::kOuts:
    case Op::kXlat:
    case Op::kMonitor: return true;
    default: return false;
  }
}

}  // namespace

std::string to_text(const Insn& insn, uint64_t rip) {
  if (insn.op == Op::kInvalid) return "(bad)";
  std::string text;
  if (insn.lock) text += "lock ";
  if (has_implied_operands(insn.op) && (insn.rep || insn.repne)) {
    const bool compares = insn.op == Op::kCmps || insn.op == Op::kScas;
    text += insn.repne ? "repne " : compares ? "repe " : "rep ";
  }
  text += mnemonic(insn);
  if (has_implied_operands(insn.op)) {
    const bool overridden = insn.mem.segment != Seg::kDs && insn.mem.segment != Seg::kEs;
    return overridden ? fmt::format("{} {}", seg_text(static_cast<uint8_t>(insn.mem.segment)), text) : text;
  }
  if (insn.op == Op::kJmpFar || insn.op == Op::kCallFar) {
    text += " far";
    if (insn.operand[0].kind == OperandKind::kImm) return text + fmt::format(" {:#x}:{:#x}", insn.imm2, insn.imm);
  }
  const char* separator = " ";
  for (const Operand& operand : insn.operand) {
    if (operand.kind == OperandKind::kNone) break;
    text += separator;
    text += operand_text(insn, operand, rip + insn.length);
    separator = ", ";
  }
  return text;
}

}  // namespace kite::x86
