// The decoder against Zydis: random byte strings, and enumerations of every opcode with its ModRM forms and prefixes.
#include <Zydis/Zydis.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "x86/insn.h"

namespace kite::x86 {
namespace {

using Bytes = std::array<uint8_t, 15>;

constexpr CodeWidth kWidths[] = {CodeWidth::k16, CodeWidth::k32, CodeWidth::k64};

// --- what is left out, and why

// Extensions that the decoder does not know: these must come out as kInvalid.
constexpr ZydisISASet kUnknownSets[] = {
    ZYDIS_ISA_SET_AMD,         ZYDIS_ISA_SET_AMD3DNOW,    ZYDIS_ISA_SET_AMD_INVLPGB, ZYDIS_ISA_SET_CLZERO,
    ZYDIS_ISA_SET_ENQCMD,      ZYDIS_ISA_SET_HRESET,      ZYDIS_ISA_SET_KEYLOCKER,   ZYDIS_ISA_SET_KEYLOCKER_WIDE,
    ZYDIS_ISA_SET_LWP,         ZYDIS_ISA_SET_MCOMMIT,     ZYDIS_ISA_SET_MONITORX,    ZYDIS_ISA_SET_MPX,
    ZYDIS_ISA_SET_PADLOCK_ACE, ZYDIS_ISA_SET_PADLOCK_PHE, ZYDIS_ISA_SET_PADLOCK_PMM, ZYDIS_ISA_SET_PADLOCK_RNG,
    ZYDIS_ISA_SET_PCONFIG,     ZYDIS_ISA_SET_PT,          ZYDIS_ISA_SET_RTM,         ZYDIS_ISA_SET_SGX,
    ZYDIS_ISA_SET_SGX_ENCLV,   ZYDIS_ISA_SET_SMX,         ZYDIS_ISA_SET_SNP,         ZYDIS_ISA_SET_SSE4A,
    ZYDIS_ISA_SET_TBM,         ZYDIS_ISA_SET_TDX,         ZYDIS_ISA_SET_TSX_LDTRK,   ZYDIS_ISA_SET_UINTR,
    ZYDIS_ISA_SET_VMFUNC,      ZYDIS_ISA_SET_SVM,         ZYDIS_ISA_SET_VTX,         ZYDIS_ISA_SET_WAITPKG,
    ZYDIS_ISA_SET_XOP,         ZYDIS_ISA_SET_CET};

// Of VEX: mask registers of AVX-512, AMX, FMA4, Knights Corner.
bool is_unknown_vex(const ZydisDecodedInstruction& z) {
  switch (z.meta.isa_set) {
    case ZYDIS_ISA_SET_AVX512F_KOP:
    case ZYDIS_ISA_SET_AVX512BW_KOP:
    case ZYDIS_ISA_SET_AVX512DQ_KOP:
    case ZYDIS_ISA_SET_AMX_BF16:
    case ZYDIS_ISA_SET_AMX_INT8:
    case ZYDIS_ISA_SET_AMX_TILE:
    case ZYDIS_ISA_SET_FMA4:
    case ZYDIS_ISA_SET_XOP:
    case ZYDIS_ISA_SET_KNCE:
    case ZYDIS_ISA_SET_KNCJKBR:
    case ZYDIS_ISA_SET_KNCSTREAM:
    case ZYDIS_ISA_SET_KNCV:
    case ZYDIS_ISA_SET_KNC_MISC:
    case ZYDIS_ISA_SET_KNC_PF_HINT: return true;
    default: return false;
  }
}

bool is_unknown(const ZydisDecodedInstruction& z) {
  if (z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) return is_unknown_vex(z);
  if (z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return true;  // EVEX, XOP, 3DNow!
  switch (z.mnemonic) {                                              // of those sets, but known
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHW: return false;
    default: return std::ranges::find(kUnknownSets, z.meta.isa_set) != std::end(kUnknownSets);
  }
}

// --- Zydis

struct Reference {
  ZyanStatus status = ZYAN_STATUS_SUCCESS;
  ZydisDecodedInstruction insn;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
};

class Zydis {
 public:
  explicit Zydis(CodeWidth width) {
    const bool w64 = width == CodeWidth::k64, w32 = width == CodeWidth::k32;
    ZydisDecoderInit(&decoder_,
                     w64   ? ZYDIS_MACHINE_MODE_LONG_64
                     : w32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                           : ZYDIS_MACHINE_MODE_LEGACY_16,
                     w64   ? ZYDIS_STACK_WIDTH_64
                     : w32 ? ZYDIS_STACK_WIDTH_32
                           : ZYDIS_STACK_WIDTH_16);
    for (const auto mode : {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_CLDEMOTE})
      ZydisDecoderEnableMode(&decoder_, mode, ZYAN_FALSE);
  }
  void decode(std::span<const uint8_t> bytes, Reference& out) const {
    out.status = ZydisDecoderDecodeFull(&decoder_, bytes.data(), bytes.size(), &out.insn, out.operands.data());
  }

 private:
  ZydisDecoder decoder_;
};

std::string zydis_mnemonic(const ZydisDecodedInstruction& z) { return ZydisMnemonicGetString(z.mnemonic); }

// Other names for the same instruction: Zydis', ours.
bool same_mnemonic(std::string_view theirs, std::string_view ours) {
  struct Alias {
    std::string_view theirs, ours;
  };
  static constexpr Alias kAliases[] = {
      {"ret", "retf"},                          // far returns
      {"nop", "endbr32"},  {"nop", "endbr64"},  // CET is off in Zydis, for the sake of its other instructions
      {"fstpnce", "fstp"}, {"fsetpm287_nop", "fnsetpm"}, {"feni8087_nop", "fneni"}, {"fdisi8087_nop", "fndisi"},
      {"movabs", "mov"},   {"wbinvd", "wbnoinvd"},  // not known to Zydis 4.0
  };
  if (theirs == ours) return true;
  return std::ranges::any_of(kAliases, [&](const Alias& a) { return a.theirs == theirs && a.ours == ours; });
}

// General registers whose upper part the instruction does not read or always clears: their width is a matter of taste.
bool width_is_free(const Insn& insn) {
  const auto named = [name = mnemonic(insn)](auto... names) { return ((name == names) || ...); };
  return named("lar", "lsl", "movmskps", "movmskpd", "pmovmskb", "pextrw", "pextrb", "extractps", "ud0", "ud1");
}

// UD0 and UD1 read nothing; CLFLUSH and its kin are checked as one byte (SDM 2A), Zydis says a line.
bool size_is_free(const Insn& insn) {
  switch (insn.op) {
    case Op::kMovsxd:  // [SDM 2A MOVSXD] r16, r/m16; Zydis says 32 bits
    case Op::kUd0:
    case Op::kUd1:
    case Op::kClflush:
    case Op::kClflushopt:
    case Op::kClwb:
    case Op::kPrefetch: return true;
    default: return false;
  }
}

// Zydis shows operands of hint NOPs.
bool operands_are_free(const Insn& insn) { return insn.op == Op::kNop || insn.op == Op::kEndbr; }

std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("{:02x} ", byte);
  return text;
}

// --- comparing

uint8_t gpr_number(ZydisRegister reg) {
  if (reg == ZYDIS_REGISTER_NONE) return kNoReg;
  if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP) return kRipReg;
  return static_cast<uint8_t>(ZydisRegisterGetId(reg));
}

Seg segment(ZydisRegister reg) { return static_cast<Seg>(ZydisRegisterGetId(reg)); }

std::string compare_memory(const Insn& insn, const ZydisDecodedOperand& z) {
  const MemOperand& mem = insn.mem;
  if (mem.base == kNoReg && z.mem.base == ZYDIS_REGISTER_R13D && (insn.modrm & 0xc7) == 4) {
    // Zydis 4.0 lets REX.B make R13D the base of [disp32] and [index*scale+disp32] when the address has 32 bits, and
    // then forgets the displacement. The manual (SDM 2A, table 2-5) and processors do not.
  } else {
    if (mem.base != gpr_number(z.mem.base)) return "base";
    const int64_t disp = z.mem.disp.has_displacement ? z.mem.disp.value : 0;
    const unsigned unused = 64 - 8u * insn.address_size;  // high bits do not reach the address
    if (((static_cast<uint64_t>(mem.disp) ^ static_cast<uint64_t>(disp)) << unused) != 0)
      return fmt::format("displacement {:#x} against {:#x}", mem.disp, disp);
  }
  if (mem.index != gpr_number(z.mem.index)) return "index";
  const ZydisRegisterClass index_class = ZydisRegisterGetClass(z.mem.index);
  const unsigned vector_index = index_class == ZYDIS_REGCLASS_XMM ? 16 : index_class == ZYDIS_REGCLASS_YMM ? 32 : 0;
  if (mem.vector_index != vector_index) return "vector index";
  if (mem.index != kNoReg && (1u << mem.scale) != z.mem.scale) return "scale";
  if (insn.op != Op::kLea && mem.segment != segment(z.mem.segment)) return "segment";
  return {};
}

std::string compare_immediate(const Insn& insn, const Operand& ours, const ZydisDecodedOperand& z) {
  const uint64_t imm = ours.kind == OperandKind::kImm2 ? insn.imm2 : insn.imm;
  unsigned bits = 64;
  if (ours.kind == OperandKind::kImm) {
    bits = insn.op == Op::kPush ? insn.operand_size * 8u : insn.operand[0].size * 8u;
    if (&ours == insn.operand.data() && insn.op != Op::kPush) bits = ours.size * 8u;
    if (bits == 0 || bits > 64) bits = 64;
  }
  const uint64_t mask = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  if (((imm ^ z.imm.value.u) & mask) != 0) return fmt::format("immediate {:#x} against {:#x}", imm, z.imm.value.u);
  return {};
}

bool same_register(const Operand& ours, ZydisRegister reg, bool free_width) {
  const ZydisRegisterClass kind = ZydisRegisterGetClass(reg);
  const auto id = static_cast<uint8_t>(ZydisRegisterGetId(reg));
  switch (ours.kind) {
    case OperandKind::kGpr: {
      if (ours.size == 1) {
        if (kind != ZYDIS_REGCLASS_GPR8) return false;
        const bool high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
        if (high != ours.high_byte) return false;
        return high ? ours.reg == reg - ZYDIS_REGISTER_AH
                    : ours.reg == ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
      }
      if (free_width) return id == ours.reg;
      const ZydisRegisterClass wanted = ours.size == 2   ? ZYDIS_REGCLASS_GPR16
                                        : ours.size == 4 ? ZYDIS_REGCLASS_GPR32
                                                         : ZYDIS_REGCLASS_GPR64;
      return kind == wanted && id == ours.reg;
    }
    case OperandKind::kSegReg: return kind == ZYDIS_REGCLASS_SEGMENT && id == ours.reg;
    case OperandKind::kControl: return kind == ZYDIS_REGCLASS_CONTROL && id == ours.reg;
    case OperandKind::kDebug: return kind == ZYDIS_REGCLASS_DEBUG && id == ours.reg;
    case OperandKind::kMmx: return kind == ZYDIS_REGCLASS_MMX && id == ours.reg;
    case OperandKind::kXmm: return kind == ZYDIS_REGCLASS_XMM && id == ours.reg;
    case OperandKind::kYmm: return kind == ZYDIS_REGCLASS_YMM && id == ours.reg;
    case OperandKind::kX87: return kind == ZYDIS_REGCLASS_X87 && id == ours.reg;
    default: return false;
  }
}

std::string compare_operand(const Insn& insn, const Operand& ours, const ZydisDecodedOperand& z) {
  switch (z.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
      return same_register(ours, z.reg.value, width_is_free(insn))
                 ? ""
                 : fmt::format("register {}", ZydisRegisterGetString(z.reg.value));
    case ZYDIS_OPERAND_TYPE_MEMORY:
      if (ours.kind != OperandKind::kMem) return "memory operand missing";
      if (ours.size != 0 && ours.size * 8u != z.size && !size_is_free(insn))
        return fmt::format("memory size {} bits", z.size);
      return compare_memory(insn, z);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: return compare_immediate(insn, ours, z);
    case ZYDIS_OPERAND_TYPE_POINTER: return insn.imm == z.ptr.offset && insn.imm2 == z.ptr.segment ? "" : "far pointer";
    default: return "operand type";
  }
}

// x87 register forms: Zydis is not consistent in showing ST(0), so only ST(i) is compared.
std::string compare_x87_registers(const Insn& insn, const Reference& z) {
  int ours = 0, theirs = 0;
  for (const Operand& operand : insn.operand)
    if (operand.kind == OperandKind::kX87) ours = std::max<int>(ours, operand.reg);
  for (size_t i = 0; i < z.insn.operand_count_visible; ++i)
    if (z.operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(z.operands[i].reg.value) == ZYDIS_REGCLASS_X87)
      theirs = std::max<int>(theirs, ZydisRegisterGetId(z.operands[i].reg.value));
  return ours == theirs ? "" : fmt::format("st({}) against st({})", ours, theirs);
}

std::string compare_operands(const Insn& insn, const Reference& z) {
  if (insn.unit == Unit::kX87 && !insn.has_mem) return compare_x87_registers(insn, z);
  if (operands_are_free(insn)) return {};
  size_t at = insn.op == Op::kMaskmov ? 1 : 0;  // Zydis hides its memory operand
  for (size_t i = 0; i < z.insn.operand_count_visible; ++i) {
    const ZydisDecodedOperand& theirs = z.operands[i];
    if (at >= insn.operand.size()) break;
    const std::string difference = compare_operand(insn, insn.operand[at], theirs);
    if (!difference.empty()) return fmt::format("operand {}: {}", i, difference);
    ++at;
    if (theirs.type == ZYDIS_OPERAND_TYPE_POINTER) ++at;
  }
  return {};
}

// Instructions whose width is fixed, so that 66 and REX.W change nothing.
bool operand_size_is_free(const Insn& insn) {
  switch (insn.op) {
    case Op::kNop:
    case Op::kIn:
    case Op::kOut:
    case Op::kMovFromCr:
    case Op::kMovToCr:
    case Op::kMovFromDr:
    case Op::kMovToDr:
    case Op::kSyscall:
    case Op::kSysret:
    case Op::kCmpxchg8b:
    case Op::kClwb:
    case Op::kClflushopt:
    case Op::kInvpcid:
    case Op::kMovdir64b:
    case Op::kMaskmov:
    case Op::kAdcx:
    case Op::kAdox: return true;
    default: return insn.unit != Unit::kInteger || insn.vex;
  }
}

// Zydis has these read the memory that they only name.
bool access_is_free(const Insn& insn) { return size_is_free(insn) || insn.op == Op::kNop || insn.op == Op::kInvlpg; }

// The CPUID feature of each set that has one.
struct SetNeed {
  ZydisISASet set;
  Need need;
};
constexpr SetNeed kNeeds[] = {{ZYDIS_ISA_SET_BMI1, Need::kBmi1},
                              {ZYDIS_ISA_SET_MOVBE, Need::kMovbe},
                              {ZYDIS_ISA_SET_CMPXCHG16B, Need::kCx16},
                              {ZYDIS_ISA_SET_RDTSCP, Need::kRdtscp},
                              {ZYDIS_ISA_SET_FXSAVE, Need::kFxsr},
                              {ZYDIS_ISA_SET_FXSAVE64, Need::kFxsr},
                              {ZYDIS_ISA_SET_CMOV, Need::kCmov},
                              {ZYDIS_ISA_SET_FCMOV, Need::kCmov},
                              {ZYDIS_ISA_SET_X87, Need::kX87},
                              {ZYDIS_ISA_SET_CLFSH, Need::kClflush},
                              {ZYDIS_ISA_SET_SSE, Need::kSse},
                              {ZYDIS_ISA_SET_SSEMXCSR, Need::kSse},
                              {ZYDIS_ISA_SET_CLFLUSHOPT, Need::kClflushopt},
                              {ZYDIS_ISA_SET_AES, Need::kAes},
                              {ZYDIS_ISA_SET_PCLMULQDQ, Need::kPclmul},
                              {ZYDIS_ISA_SET_SHA, Need::kSha},
                              {ZYDIS_ISA_SET_RDRAND, Need::kRdrand},
                              {ZYDIS_ISA_SET_RDSEED, Need::kRdseed},
                              {ZYDIS_ISA_SET_ADOX_ADCX, Need::kAdx},
                              {ZYDIS_ISA_SET_RDWRFSGS, Need::kFsgsbase},
                              {ZYDIS_ISA_SET_XSAVE, Need::kXsave},
                              {ZYDIS_ISA_SET_SMAP, Need::kSmap},
                              {ZYDIS_ISA_SET_SSE2, Need::kSse2},
                              {ZYDIS_ISA_SET_SSE2MMX, Need::kSse2},
                              {ZYDIS_ISA_SET_RDPID, Need::kRdpid},
                              {ZYDIS_ISA_SET_INVPCID, Need::kInvpcid},
                              {ZYDIS_ISA_SET_MONITOR, Need::kMonitor},
                              {ZYDIS_ISA_SET_CLWB, Need::kClwb},
                              {ZYDIS_ISA_SET_XSAVEOPT, Need::kXsaveopt},
                              {ZYDIS_ISA_SET_XSAVEC, Need::kXsavec},
                              {ZYDIS_ISA_SET_XSAVES, Need::kXsaves},
                              {ZYDIS_ISA_SET_SSE3, Need::kSse3},
                              {ZYDIS_ISA_SET_SSE3X87, Need::kSse3},
                              {ZYDIS_ISA_SET_SSSE3, Need::kSsse3},
                              {ZYDIS_ISA_SET_SSSE3MMX, Need::kSsse3},
                              {ZYDIS_ISA_SET_SSE4, Need::kSse41},
                              {ZYDIS_ISA_SET_SSE42, Need::kSse42},
                              {ZYDIS_ISA_SET_POPCNT, Need::kPopcnt},
                              {ZYDIS_ISA_SET_LZCNT, Need::kLzcnt},
                              {ZYDIS_ISA_SET_AVX, Need::kAvx},
                              {ZYDIS_ISA_SET_AVX2, Need::kAvx2},
                              {ZYDIS_ISA_SET_AVX2GATHER, Need::kAvx2},
                              {ZYDIS_ISA_SET_FMA, Need::kFma},
                              {ZYDIS_ISA_SET_F16C, Need::kF16c},
                              {ZYDIS_ISA_SET_AVXAES, Need::kAes},
                              {ZYDIS_ISA_SET_VAES, Need::kVaes},
                              {ZYDIS_ISA_SET_VPCLMULQDQ, Need::kVpclmul},
                              {ZYDIS_ISA_SET_AVX_GFNI, Need::kGfni},
                              {ZYDIS_ISA_SET_GFNI, Need::kGfni},
                              {ZYDIS_ISA_SET_AVX_VNNI, Need::kAvxVnni},
                              {ZYDIS_ISA_SET_BMI2, Need::kBmi2},
                              {ZYDIS_ISA_SET_SERIALIZE, Need::kSerialize}};

std::string compare_need(const Insn& insn, const ZydisDecodedInstruction& z) {
  // Zydis has the MMX instructions that came with SSE among those of the Pentium MMX.
  if (z.meta.isa_set == ZYDIS_ISA_SET_PENTIUMMMX)
    return insn.need == Need::kMmx || insn.need == Need::kSse ? "" : "need of MMX";
  // Zydis has the 128-bit form among those of AVX; the manual wants PCLMULQDQ as well (SDM 2B PCLMULQDQ).
  if (z.mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ && insn.vector_bytes == 16)
    return insn.need == Need::kPclmul ? "" : "need";
  const auto* const row = std::ranges::find(kNeeds, z.meta.isa_set, &SetNeed::set);
  return row == std::end(kNeeds) || row->need == insn.need ? "" : "need";
}

// 16-byte operands of exception classes 1, 2 and 4 must be aligned, with the exceptions that the SDM lists (2A, 2.4).
// With VEX only those that name it in their mnemonic, and the non-temporal ones, which Zydis has in class 1.
std::string compare_alignment(const Insn& insn, const ZydisDecodedInstruction& z) {
  if (insn.has_mem && insn.vex) {
    const bool aligned = z.meta.exception_class == ZYDIS_EXCEPTION_CLASS_AVX1;
    return insn.mem_align == (aligned ? insn.vector_bytes : 0) ? "" : "alignment";
  }
  if (!insn.has_mem || insn.unit != Unit::kSse) return {};
  const std::string_view name = mnemonic(insn);
  const bool listed = name == "movups" || name == "movupd" || name == "movdqu" || name == "lddqu" ||
                      name.starts_with("pcmpestr") || name.starts_with("pcmpistr");
  const auto kind = z.meta.exception_class;
  const bool aligned = kind == ZYDIS_EXCEPTION_CLASS_SSE1 || kind == ZYDIS_EXCEPTION_CLASS_SSE2 ||
                       (kind == ZYDIS_EXCEPTION_CLASS_SSE4 && !listed);
  return insn.mem_align == (aligned ? 16 : 0) ? "" : "alignment";
}

// What is done to memory, the address and operand sizes, LOCK and REP.
std::string compare_attributes(const Insn& insn, const Reference& z) {
  if (insn.address_size * 8u != z.insn.address_width) return "address size";
  if (insn.lock != ((z.insn.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0)) return "lock";
  if (z.insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
    if (!insn.rep) return "rep";
  if ((z.insn.attributes & ZYDIS_ATTRIB_HAS_REPNE) && !insn.repne) return "repne";
  if (!operand_size_is_free(insn) && z.insn.operand_width > 8 && insn.operand_size * 8u != z.insn.operand_width)
    return "operand size";
  for (size_t i = 0; i < z.insn.operand_count_visible; ++i) {
    const ZydisDecodedOperand& operand = z.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || access_is_free(insn))
      continue;
    const bool reads = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
    const bool writes = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
    if (insn.mem_read != reads) return "memory read";
    if (insn.mem_write != writes) return "memory written";
  }
  return {};
}

enum class Verdict : uint8_t { kSame, kBothInvalid, kLeftOut, kDifferent };

struct Comparison {
  Verdict verdict = Verdict::kSame;
  std::string difference;
};

Comparison different(std::string text) { return {Verdict::kDifferent, std::move(text)}; }

Comparison compare(std::span<const uint8_t> bytes, CodeWidth width, const Zydis& zydis, Reference& z) {
  Insn insn;
  const DecodeStatus status = decode(bytes, {width}, insn);
  const bool valid = status == DecodeStatus::kOk && insn.op != Op::kInvalid;
  zydis.decode(bytes, z);
  if (!ZYAN_SUCCESS(z.status)) {
    if (valid) return different("Zydis refuses " + to_text(insn, 0));
    return {Verdict::kBothInvalid, {}};
  }
  if (is_unknown(z.insn)) {
    if (valid) return different(fmt::format("unknown {} taken for {}", zydis_mnemonic(z.insn), to_text(insn, 0)));
    return {Verdict::kLeftOut, {}};
  }
  if (!valid) return different("refused " + zydis_mnemonic(z.insn));
  if (insn.length != z.insn.length)
    return different(fmt::format("{}: length {} against {}", mnemonic(insn), insn.length, z.insn.length));
  if (!same_mnemonic(zydis_mnemonic(z.insn), mnemonic(insn)))
    return different(fmt::format("{} against {}", mnemonic(insn), zydis_mnemonic(z.insn)));
  std::string difference = compare_operands(insn, z);
  if (difference.empty()) difference = compare_attributes(insn, z);
  if (difference.empty()) difference = compare_need(insn, z.insn);
  if (difference.empty()) difference = compare_alignment(insn, z.insn);
  if (!difference.empty()) return different(fmt::format("{}: {}", mnemonic(insn), difference));
  return {};
}

// Collects differences, one example of each kind.
class Report {
 public:
  void check(std::span<const uint8_t> bytes, CodeWidth width, const Zydis& zydis) {
    Comparison result = compare(bytes, width, zydis, reference_);
    ++counts_[static_cast<size_t>(result.verdict)];
    if (result.verdict != Verdict::kDifferent) return;
    const std::string key = fmt::format("{}-bit: {}", 16u << static_cast<unsigned>(width), result.difference);
    auto [at, added] = examples_.try_emplace(key, hex(bytes));
    (void)at, (void)added;
  }
  void expect_none() const {
    for (const auto& [key, example] : examples_) ADD_FAILURE() << key << "   at " << example;
  }
  [[nodiscard]] uint64_t count(Verdict verdict) const { return counts_[static_cast<size_t>(verdict)]; }

 private:
  Reference reference_{};
  std::array<uint64_t, 4> counts_{};
  std::map<std::string, std::string> examples_;
};

void check_random(CodeWidth width, uint64_t seed, unsigned count) {
  const Zydis zydis(width);
  Report report;
  std::mt19937_64 random(seed);
  Bytes bytes;
  for (unsigned i = 0; i < count; ++i) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    report.check(bytes, width, zydis);
  }
  report.expect_none();
  EXPECT_GT(report.count(Verdict::kSame), count / 3);
}

// Every opcode of a map with every ModRM byte, behind `prefixes`.
void check_map(CodeWidth width, std::vector<uint8_t> escape, std::vector<uint8_t> prefixes, Report& report) {
  const Zydis zydis(width);
  Bytes bytes{};
  std::mt19937_64 random(prefixes.size() * 31 + escape.size());
  for (unsigned opcode = 0; opcode < 256; ++opcode) {
    for (unsigned modrm = 0; modrm < 256; ++modrm) {
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
      auto out = std::ranges::copy(prefixes, bytes.begin()).out;
      out = std::ranges::copy(escape, out).out;
      *out++ = static_cast<uint8_t>(opcode);
      *out = static_cast<uint8_t>(modrm);
      report.check(bytes, width, zydis);
    }
  }
}

const std::vector<std::vector<uint8_t>> kPrefixSets = {
    {},           {0x66},       {0xf3},       {0xf2},       {0xf0},       {0x67},       {0x2e},      {0x65},
    {0x66, 0xf2}, {0xf3, 0x66}, {0xf2, 0xf3}, {0xf3, 0xf2}, {0x66, 0xf0}, {0x67, 0x66}, {0xf0, 0xf2}};
const std::vector<std::vector<uint8_t>> kRexSets = {
    {0x40},       {0x41},       {0x44},       {0x48},       {0x4f},       {0x66, 0x48}, {0xf3, 0x48}, {0xf2, 0x4a},
    {0x66, 0x41}, {0xf3, 0x41}, {0xf0, 0x48}, {0x48, 0x66}, {0x67, 0x47}, {0x64, 0x48}, {0x48, 0x44}};
const std::vector<std::vector<uint8_t>> kEscapes = {{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};

// Every opcode, ModRM byte and VEX.L, W and pp of a VEX map; `rxb` goes into the three high bits behind C4.
void check_vex_map(CodeWidth width, unsigned map, unsigned rxb, Report& report) {
  const Zydis zydis(width);
  Bytes bytes{};
  std::mt19937_64 random(map * 8 + rxb);
  for (unsigned payload = 0; payload < 0x400; ++payload) {
    const unsigned opcode = payload & 0xff, pp = payload >> 8;
    for (unsigned modrm = 0; modrm < 0x800; ++modrm) {
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
      const bool no_vvvv = (modrm & 0x400) != 0;
      const unsigned w = (modrm >> 8) & 1, l = (modrm >> 9) & 1;
      const unsigned vvvv = no_vvvv ? 15 : static_cast<unsigned>(random() & 15);
      bytes[0] = 0xc4;
      bytes[1] = static_cast<uint8_t>(rxb << 5 | map);
      bytes[2] = static_cast<uint8_t>(w << 7 | vvvv << 3 | l << 2 | pp);
      bytes[3] = static_cast<uint8_t>(opcode);
      bytes[4] = static_cast<uint8_t>(modrm);
      report.check(bytes, width, zydis);
    }
  }
}

class Width : public testing::TestWithParam<CodeWidth> {};

TEST_P(Width, EveryOpcodeAndModrm) {
  Report report;
  for (const auto& escape : kEscapes) {
    for (const auto& prefixes : kPrefixSets) check_map(GetParam(), escape, prefixes, report);
    if (GetParam() != CodeWidth::k64) continue;
    for (const auto& prefixes : kRexSets) check_map(GetParam(), escape, prefixes, report);
  }
  report.expect_none();
}

TEST_P(Width, EveryVexOpcode) {
  Report report;
  for (unsigned map = 0; map <= 4; ++map) {
    check_vex_map(GetParam(), map, 7, report);
    check_vex_map(GetParam(), map, GetParam() == CodeWidth::k64 ? 0 : 6, report);
  }
  report.expect_none();
}

// The short form, and what must not stand before either.
TEST_P(Width, PrefixesBeforeVex) {
  Report report;
  for (const uint8_t vex : {uint8_t{0xc4}, uint8_t{0xc5}})
    for (const auto& prefixes : kPrefixSets) check_map(GetParam(), {vex}, prefixes, report);
  if (GetParam() == CodeWidth::k64)
    for (const uint8_t vex : {uint8_t{0xc4}, uint8_t{0xc5}})
      for (const auto& prefixes : kRexSets) check_map(GetParam(), {vex}, prefixes, report);
  report.expect_none();
}

// Every ModRM and SIB byte, with every REX prefix and both address sizes.
TEST_P(Width, EveryAddressForm) {
  const Zydis zydis(GetParam());
  Report report;
  Bytes bytes{};
  std::mt19937_64 random(7);
  const unsigned rex_forms = GetParam() == CodeWidth::k64 ? 17 : 1;  // none, 40H..4FH
  for (unsigned form = 0; form < 2 * rex_forms; ++form) {
    for (unsigned pair = 0; pair < 0x10000; ++pair) {
      for (size_t i = 4; i < 9; ++i) bytes[i] = static_cast<uint8_t>(random());
      auto out = bytes.begin();
      if (form & 1) *out++ = 0x67;
      if (form / 2 != 0) *out++ = static_cast<uint8_t>(0x3f + form / 2);
      *out++ = 0x8b;
      *out++ = static_cast<uint8_t>(pair);
      *out = static_cast<uint8_t>(pair >> 8);
      report.check(bytes, GetParam(), zydis);
    }
  }
  report.expect_none();
  EXPECT_EQ(report.count(Verdict::kSame), 2 * rex_forms * 0x10000);
}

// Every valid instruction is truncated at each of its bytes, and complete at its length.
TEST_P(Width, TruncatedAtEachByte) {
  std::mt19937_64 random(3);
  Bytes bytes;
  for (unsigned i = 0; i < 50'000; ++i) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    Insn insn, again;
    if (decode(bytes, {GetParam()}, insn) != DecodeStatus::kOk || insn.op == Op::kInvalid) continue;
    for (size_t length = 0; length < insn.length; ++length)
      ASSERT_EQ(decode(std::span(bytes).first(length), {GetParam()}, again), DecodeStatus::kTruncated) << hex(bytes);
    ASSERT_EQ(decode(std::span(bytes).first(insn.length), {GetParam()}, again), DecodeStatus::kOk) << hex(bytes);
    ASSERT_EQ(again.length, insn.length);
  }
}

// Prefixes that push the end beyond 15 bytes.
TEST_P(Width, TooLongWhereZydisSaysSo) {
  const Zydis zydis(GetParam());
  std::mt19937_64 random(5);
  Reference z{};
  Bytes bytes;
  unsigned seen = 0;
  for (unsigned i = 0; i < 300'000; ++i) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    const auto prefixes = 5 + random() % 11;
    for (size_t n = 0; n < prefixes; ++n) bytes[n] = 0x2e;
    Insn insn;
    const DecodeStatus status = decode(bytes, {GetParam()}, insn);
    zydis.decode(bytes, z);
    if (z.status != ZYDIS_STATUS_INSTRUCTION_TOO_LONG && z.status != ZYDIS_STATUS_NO_MORE_DATA) continue;
    // Zydis looks at all bytes first; what is undefined by its opcode alone stays so.
    if (status == DecodeStatus::kOk && insn.op == Op::kInvalid) continue;
    ASSERT_EQ(status, DecodeStatus::kTooLong) << hex(bytes);
    ++seen;
  }
  EXPECT_GT(seen, 10'000u);
}

TEST_P(Width, RandomBytes) {
  const char* const scale = std::getenv("KITE_TEST_SCALE");  // for long runs
  const unsigned factor = scale == nullptr ? 1 : static_cast<unsigned>(std::max(1, std::atoi(scale)));
  check_random(GetParam(), 1, 1'000'000 * factor);
}

INSTANTIATE_TEST_SUITE_P(Decoder, Width, testing::ValuesIn(kWidths), [](const auto& test) {
  return fmt::format("Bits{}", 16u << static_cast<unsigned>(test.param));
});

}  // namespace
}  // namespace kite::x86
