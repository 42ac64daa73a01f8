// Images of the unit's state in guest memory: FXSAVE and FXRSTOR, the environment and FNSAVE formats, MXCSR. They are
// laid out by hand because they carry the guest's own pointers.
#include <algorithm>
#include <array>
#include <cstring>

#include "cpu/fpu_ops.h"
#include "cpu/handlers.h"
#include "cpu/mmu.h"

namespace kite::cpu::fpu {
namespace {

constexpr unsigned kFxBytes = 512;

// --- MXCSR

bool mxcsr_allowed(Cpu& cpu, const Op* op) { return op->insn->vex ? avx_allowed(cpu) : sse_allowed(cpu); }

void ldmxcsr(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  uint32_t value = 0;
  if (!mxcsr_allowed(cpu, op) || !address_of(cpu, op, 4, Access::kRead, address) ||
      !cpu.read<uint32_t>(address, value, segment_of(op)))
    KITE_FAULT(cpu, op);
  if ((value & ~FpuThunks::mxcsr_mask()) != 0) {  // [SDM 2A LDMXCSR] reserved bits: #GP
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  set<uint32_t>(cpu, kMxcsr, value);
  KITE_NEXT(cpu, op);
}

void stmxcsr(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  if (!mxcsr_allowed(cpu, op) || !address_of(cpu, op, 4, Access::kWrite, address) ||
      !cpu.write<uint32_t>(address, get<uint32_t>(cpu, kMxcsr), segment_of(op)))
    KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// --- FXSAVE, FXRSTOR

// EFER.FFXSR leaves the XMM registers out in 64-bit mode at CPL 0 (APM 2, 11.4.4).
bool fast_fx(const Cpu& cpu) { return (cpu.arch.efer & x86::efer::kFfxsr) != 0 && cpu.cpl == 0 && cpu.code64; }

// XMM and MXCSR take part only with CR4.OSFXSR (SDM 3A, 2.5).
unsigned xmm_bytes(const Cpu& cpu) {
  if ((cpu.arch.cr4 & x86::cr4::kOsfxsr) == 0 || fast_fx(cpu)) return 0;
  return cpu.code64 ? 256 : 128;
}

bool fx_address(Cpu& cpu, const Op* op, Access access, uint64_t& address) {
  if (!x87_allowed(cpu) || !address_of(cpu, op, kFxBytes, access, address)) return false;
  if ((address & 15) == 0) return true;
  const bool stack = segment_of(op) == Seg::kSs && !Mmu(cpu).canonical(address);
  return cpu.check_alignment(address, 4) && cpu.raise(stack ? Vector::kSs : Vector::kGp, 0);
}
// Hosts look at the last byte first: CR2 shows it.
bool probe_fx(Cpu& cpu, const Op* op, uint64_t address, Access access) {
  const Seg segment = segment_of(op);
  uint64_t last = 0;
  return address_of_last(cpu, op, kFxBytes, access, last) && cpu.probe(last, 1, access, segment) &&
         cpu.probe(address, kFxBytes, access, segment);
}

void fxsave(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  if (!fx_address(cpu, op, Access::kWrite, address) || !probe_fx(cpu, op, address, Access::kWrite)) KITE_FAULT(cpu, op);
  const LegacyImage out = legacy_image(cpu, wide_pointers(cpu, op));
  const Seg segment = segment_of(op);
  const unsigned vectors = xmm_bytes(cpu);
  const bool has_mxcsr = (cpu.arch.cr4 & x86::cr4::kOsfxsr) != 0;
  bool ok = cpu.write_bytes(address, out.data(), has_mxcsr ? kSt0 : kMxcsr, segment);
  ok = ok && cpu.write_bytes(address + kSt0, out.data() + kSt0, kXmm0 - kSt0 + vectors, segment);
  if (!ok) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

void fxrstor(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  std::array<uint8_t, kFxBytes> in;
  if (!fx_address(cpu, op, Access::kRead, address) || !probe_fx(cpu, op, address, Access::kRead) ||
      !cpu.read_bytes(address, in.data(), kFxBytes, segment_of(op)))
    KITE_FAULT(cpu, op);
  const bool has_mxcsr = (cpu.arch.cr4 & x86::cr4::kOsfxsr) != 0;
  const auto mxcsr = load<uint32_t>(in.data() + kMxcsr);
  if (has_mxcsr && (mxcsr & ~FpuThunks::mxcsr_mask()) != 0) {  // [SDM 2A FXRSTOR]
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  if (has_mxcsr) set<uint32_t>(cpu, kMxcsr, mxcsr);
  std::memcpy(image(cpu) + kXmm0, in.data() + kXmm0, xmm_bytes(cpu));
  load_x87(cpu, in.data(), wide_pointers(cpu, op));
  KITE_NEXT(cpu, op);
}

// --- environment (SDM 1, figures 8-9 to 8-12)

struct Environment {
  uint16_t control = 0, status = 0, tags = 0, opcode = 0;
  uint32_t instruction = 0, data = 0;
  uint16_t code_segment = 0, data_segment = 0;
};

// The full two-bit tags; the image has one bit a register (SDM 1, 8.1.7).
unsigned tag_of(const uint8_t* slot) {
  constexpr unsigned kValid = 0, kZero = 1, kSpecial = 2;
  const auto mantissa = load<uint64_t>(slot);
  const unsigned exponent = load<uint16_t>(slot + 8) & 0x7fffu;
  if (exponent == 0x7fff) return kSpecial;
  if (exponent == 0) return mantissa == 0 ? kZero : kSpecial;
  return mantissa >> 63 ? kValid : kSpecial;
}
uint16_t full_tags(Cpu& cpu) {
  const auto abridged = get<uint8_t>(cpu, kFtw);
  const unsigned top = top_of_stack(cpu);
  unsigned tags = 0;
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned tag = (abridged >> i) & 1u ? tag_of(image(cpu) + kSt0 + 16 * ((i - top) & 7u)) : 3u;
    tags |= tag << (2 * i);
  }
  return static_cast<uint16_t>(tags);
}
uint8_t abridged_tags(uint16_t tags) {
  unsigned bits = 0;
  for (unsigned i = 0; i < 8; ++i)
    if (((tags >> (2 * i)) & 3) != 3) bits |= 1u << i;
  return static_cast<uint8_t>(bits);
}

Environment environment(Cpu& cpu) {
  const bool segments = has_segment_pointers(cpu);
  return {.control = get<uint16_t>(cpu, kFcw),
          .status = get<uint16_t>(cpu, kFsw),
          .tags = full_tags(cpu),
          .opcode = get<uint16_t>(cpu, kFop),
          .instruction = get<uint32_t>(cpu, kFip),
          .data = get<uint32_t>(cpu, kFdp),
          .code_segment = segments ? get<uint16_t>(cpu, kFcs) : uint16_t{0},
          .data_segment = segments ? get<uint16_t>(cpu, kFds) : uint16_t{0}};
}

// Which of the four formats: the operand size chooses 16 or 32 bits, the mode what stands for the pointers.
struct Format {
  bool wide;
  bool real;
  [[nodiscard]] unsigned bytes() const { return wide ? 28 : 14; }
  [[nodiscard]] unsigned alignment() const { return wide ? 4 : 2; }
};
Format format_of(const Cpu& cpu, const Op* op) {
  return {.wide = op->insn->operand_size != 2, .real = cpu.real_or_v86()};
}

using EnvironmentImage = std::array<uint8_t, 28>;

EnvironmentImage encode(const Environment& env, Format format) {
  EnvironmentImage out{};
  const uint32_t linear_instruction = (uint32_t{env.code_segment} << 4) + env.instruction;
  const uint32_t linear_data = (uint32_t{env.data_segment} << 4) + env.data;
  const unsigned step = format.wide ? 4 : 2;
  std::array<uint32_t, 7> words{0xffff0000u | env.control, 0xffff0000u | env.status, 0xffff0000u | env.tags};
  if (format.real) {
    words[3] = 0xffff0000u | (linear_instruction & 0xffff);
    words[4] = ((linear_instruction >> 4) & 0x0ffff000u) | env.opcode;
    words[5] = 0xffff0000u | (linear_data & 0xffff);
    words[6] = (linear_data >> 4) & 0x0ffff000u;
  } else {
    words[3] = env.instruction;
    words[4] = (format.wide ? uint32_t{env.opcode} << 16 : 0u) | env.code_segment;
    words[5] = env.data;
    words[6] = 0xffff0000u | env.data_segment;
  }
  for (unsigned i = 0; i < words.size(); ++i) store_le(out.data() + i * step, step, words[i]);
  return out;
}

Environment decode(const EnvironmentImage& in, Format format) {
  const unsigned step = format.wide ? 4 : 2;
  const auto word = [&](unsigned i) { return static_cast<uint32_t>(load_le(in.data() + i * step, step)); };
  Environment env;
  env.control = static_cast<uint16_t>(word(0));
  env.status = static_cast<uint16_t>(word(1));
  env.tags = static_cast<uint16_t>(word(2));
  if (format.real) {
    env.instruction = (word(3) & 0xffff) | (word(4) & 0x0ffff000u) << 4;
    env.opcode = word(4) & 0x7ff;
    env.data = (word(5) & 0xffff) | (word(6) & 0x0ffff000u) << 4;
  } else {
    env.instruction = word(3);
    env.code_segment = static_cast<uint16_t>(word(4));
    env.opcode = format.wide ? (word(4) >> 16) & 0x7ff : 0;
    env.data = word(5);
    env.data_segment = static_cast<uint16_t>(word(6));
  }
  return env;
}

// Takes the environment over; the physical registers stay, so the image turns with TOP.
void apply(Cpu& cpu, const Environment& env) {
  const unsigned from = top_of_stack(cpu);
  set(cpu, kFcw, env.control);
  set(cpu, kFsw, env.status);
  set(cpu, kFtw, abridged_tags(env.tags));
  set(cpu, kFop, env.opcode);
  set<uint64_t>(cpu, kFip, env.instruction);
  set<uint64_t>(cpu, kFdp, env.data);
  set<uint16_t>(cpu, kFcs, env.code_segment);
  set<uint16_t>(cpu, kFds, env.data_segment);
  turn_registers(cpu, from, top_of_stack(cpu));
}

// [APM 2, 11.4.4.3] AMD's processors have the pointers only while an unmasked exception is pending: FXRSTOR and FXSAVE
// make zeroes of others.
bool host_keeps_pointers(Cpu& cpu) {
  static const bool keeps = [&cpu] {
    x86::FxState probe{};
    uint8_t* const fx = probe.bytes.data();
    constexpr uint64_t kPointer = 0x1000;
    store(fx + kFip, kPointer);
    cpu.fpu().normalise()(nullptr, nullptr, fx, cpu.state.gpr);
    return load<uint64_t>(fx + kFip) == kPointer;
  }();
  return keeps;
}

// Drops what the hardware has no bits for and recomputes FSW.ES and B.
void normalise(Cpu& cpu) {
  const auto opcode = static_cast<uint16_t>(get<uint16_t>(cpu, kFop) & 0x7ff);
  const auto instruction = get<uint64_t>(cpu, kFip), data = get<uint64_t>(cpu, kFdp);
  run_on_image(cpu, cpu.fpu().normalise());
  if (x87_pending(cpu) || host_keeps_pointers(cpu)) return;
  set(cpu, kFop, opcode);
  set(cpu, kFip, instruction);
  set(cpu, kFdp, data);
}

bool waits_ok(Cpu& cpu) { return x87_allowed(cpu) && (!x87_pending(cpu) || report_x87(cpu)); }

constexpr unsigned kRegisterBytes = 80;

}  // namespace

void reset_x87(Cpu& cpu) {
  run_on_image(cpu, cpu.fpu().fninit());
  set<uint16_t>(cpu, kFop, 0);
  set<uint64_t>(cpu, kFip, 0);
  set<uint64_t>(cpu, kFdp, 0);
  set<uint32_t>(cpu, kFcs, 0);  // and FDS
}

bool wide_pointers(const Cpu& cpu, const Op* op) { return cpu.code64 && op->insn->rex_w; }

LegacyImage legacy_image(Cpu& cpu, bool wide) {
  LegacyImage out;
  std::memcpy(out.data(), image(cpu), out.size());
  store(out.data() + kMxcsrMask, FpuThunks::mxcsr_mask());
  if (!wide) {
    const bool segments = has_segment_pointers(cpu);
    store<uint32_t>(out.data() + kFip + 4, segments ? get<uint16_t>(cpu, kFcs) : 0u);
    store<uint32_t>(out.data() + kFdp + 4, segments ? get<uint16_t>(cpu, kFds) : 0u);
  }
  return out;
}

void load_x87(Cpu& cpu, const uint8_t* in, bool wide) {
  const bool segments = !wide && has_segment_pointers(cpu);
  set<uint16_t>(cpu, kFcs, segments ? load<uint16_t>(in + kFip + 4) : uint16_t{0});
  set<uint16_t>(cpu, kFds, segments ? load<uint16_t>(in + kFdp + 4) : uint16_t{0});
  std::memcpy(image(cpu), in, kMxcsr);
  if (!wide) {
    set<uint32_t>(cpu, kFip + 4, 0);
    set<uint32_t>(cpu, kFdp + 4, 0);
  }
  std::memcpy(image(cpu) + kSt0, in + kSt0, kXmm0 - kSt0);
  normalise(cpu);
}

void fnstenv(Cpu& cpu, const Op* op) {
  const Format format = format_of(cpu, op);
  uint64_t address = 0;
  if (!x87_allowed(cpu) || !address_of(cpu, op, format.bytes(), Access::kWrite, address)) KITE_FAULT(cpu, op);
  const EnvironmentImage out = encode(environment(cpu), format);
  if (!probe_image(cpu, op, address, format.bytes(), Access::kWrite, format.alignment()) ||
      !store_operand(cpu, op, address, out.data(), format.bytes()))
    KITE_FAULT(cpu, op);
  set<uint16_t>(cpu, kFcw, get<uint16_t>(cpu, kFcw) | kExceptionBits);  // [SDM 2A FSTENV] masks all
  normalise(cpu);
  KITE_NEXT(cpu, op);
}

void fnsave(Cpu& cpu, const Op* op) {
  const Format format = format_of(cpu, op);
  const unsigned bytes = format.bytes() + kRegisterBytes;
  uint64_t address = 0;
  if (!x87_allowed(cpu) || !address_of(cpu, op, bytes, Access::kWrite, address)) KITE_FAULT(cpu, op);
  std::array<uint8_t, sizeof(EnvironmentImage) + kRegisterBytes> out{};
  const EnvironmentImage env = encode(environment(cpu), format);
  std::memcpy(out.data(), env.data(), format.bytes());
  for (unsigned i = 0; i < 8; ++i) std::memcpy(out.data() + format.bytes() + 10 * i, image(cpu) + kSt0 + 16 * i, 10);
  if (!probe_image(cpu, op, address, bytes, Access::kWrite, format.alignment()) ||
      !store_operand(cpu, op, address, out.data(), bytes))
    KITE_FAULT(cpu, op);
  reset_x87(cpu);
  KITE_NEXT(cpu, op);
}

void fldenv(Cpu& cpu, const Op* op) {
  const Format format = format_of(cpu, op);
  uint64_t address = 0;
  EnvironmentImage in;
  if (!waits_ok(cpu) || !address_of(cpu, op, format.bytes(), Access::kRead, address) ||
      !probe_image(cpu, op, address, format.bytes(), Access::kRead, format.alignment()) ||
      !cpu.read_bytes(address, in.data(), format.bytes(), segment_of(op)))
    KITE_FAULT(cpu, op);
  apply(cpu, decode(in, format));
  normalise(cpu);
  KITE_NEXT(cpu, op);
}

void frstor(Cpu& cpu, const Op* op) {
  const Format format = format_of(cpu, op);
  const unsigned bytes = format.bytes() + kRegisterBytes;
  uint64_t address = 0;
  std::array<uint8_t, sizeof(EnvironmentImage) + kRegisterBytes> in;
  if (!waits_ok(cpu) || !address_of(cpu, op, bytes, Access::kRead, address) ||
      !probe_image(cpu, op, address, bytes, Access::kRead, format.alignment()) ||
      !cpu.read_bytes(address, in.data(), bytes, segment_of(op)))
    KITE_FAULT(cpu, op);
  EnvironmentImage env{};
  std::memcpy(env.data(), in.data(), format.bytes());
  apply(cpu, decode(env, format));
  for (unsigned i = 0; i < 8; ++i) std::memcpy(image(cpu) + kSt0 + 16 * i, in.data() + format.bytes() + 10 * i, 10);
  normalise(cpu);
  KITE_NEXT(cpu, op);
}

Handler state_handler(const Op& op) {
  switch (op.insn->op) {
    case x86::Op::kFxsave: return fxsave;
    case x86::Op::kFxrstor: return fxrstor;
    case x86::Op::kLdmxcsr: return ldmxcsr;
    case x86::Op::kStmxcsr: return stmxcsr;
    default: return invalid_opcode;
  }
}

}  // namespace kite::cpu::fpu
