// The instruction decoder (SDM 2A, chapter 2): prefixes, opcode, a row of the opcode maps, operands.
#include <algorithm>
#include <cstring>

#include "x86/insn.h"
#include "x86/opcode_row.h"

namespace kite::x86 {

namespace opcodes {
namespace {

// What a row is chosen by besides the opcode.
struct Choice {
  uint8_t modrm = 0;
  uint8_t nop = 0;  // of Select::kNop
  bool vex_w = false;
  bool vex_l = false;
};

const Row* resolve(const Row* row, const Choice& choice) {
  const uint8_t modrm = choice.modrm;
  const size_t reg = (modrm >> 3) & 7;
  const bool memory = modrm < 0xc0;
  for (;;) {
    switch (row->select) {
      case Select::kNone: return row;
      case Select::kReg: row = row->group + reg; break;
      case Select::kModReg: row = row->group + reg + (memory ? 0 : 8); break;
      case Select::kRm: row = row->group + (modrm & 7); break;
      case Select::kX87: row = row->group + (memory ? reg : 8 + (modrm & size_t{63})); break;
      case Select::kNop: row = row->group + choice.nop; break;
      case Select::kMemReg: row = row->group + (memory ? 0 : 1); break;
      case Select::kVexW: row = row->group + (choice.vex_w ? 1 : 0); break;
      case Select::kVexL: row = row->group + (choice.vex_l ? 1 : 0); break;
    }
  }
}

const Row* row_at(unsigned map, size_t opcode, size_t column) {
  switch (map) {
    case 0: return &kPrimary[opcode][column];
    case 1: return &k0f[opcode][column];
    case 2: return &k0f38[opcode][column];
    default: return &k0f3a[opcode][column];
  }
}

// `map` is 1 to 3.
const Row* vex_row_at(unsigned map, size_t opcode, size_t column) {
  switch (map) {
    case 1: return &kVex0f[opcode][column];
    case 2: return &kVex0f38[opcode][column];
    default: return &kVex0f3a[opcode][column];
  }
}

}  // namespace

const Row* row_of(const Insn& insn) {
  if (insn.op == Op::kInvalid) return nullptr;
  const auto* const prefix = std::ranges::find(kPrefixOfColumn, insn.mandatory_prefix);
  const auto column = insn.map == 0 ? size_t{0} : static_cast<size_t>(prefix - kPrefixOfColumn.begin());
  const Row* const row = insn.vex ? vex_row_at(insn.map, insn.opcode, column) : row_at(insn.map, insn.opcode, column);
  return resolve(row, {.modrm = insn.modrm, .vex_w = insn.rex_w, .vex_l = insn.vector_bytes == 32});
}

}  // namespace opcodes

namespace {

using opcodes::Form;
using opcodes::Row;
using opcodes::Select;

constexpr size_t kMaxLength = 15;
constexpr uint8_t kRexB = 1, kRexX = 2, kRexR = 4, kRexW = 8;

// 1 for the legacy prefixes.
constexpr std::array<bool, 256> kIsPrefix = [] {
  std::array<bool, 256> set{};
  for (const int byte : {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3})
    set[static_cast<size_t>(byte)] = true;
  return set;
}();

class Decoder {
 public:
  Decoder(std::span<const uint8_t> bytes, CodeWidth width, Insn& insn)
      : begin_(bytes.data()),
        at_(bytes.data()),
        end_(bytes.data() + std::min(bytes.size(), kMaxLength)),
        long_(width == CodeWidth::k64),
        wide_(width != CodeWidth::k16),
        insn_(insn) {}

  DecodeStatus run();

 private:
  // Reads beyond the end answer zero and are told by short_.
  template <class T>
  T take() {
    if (static_cast<size_t>(end_ - at_) < sizeof(T)) [[unlikely]] {
      short_ = true;
      at_ = end_;
      return 0;
    }
    T value;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  void read_prefixes();
  void apply_prefix(uint8_t byte);
  [[nodiscard]] bool at_vex() const;
  const Row* read_opcode();
  const Row* read_vex();
  DecodeStatus finish_row(const Row& row);
  bool finish_vex(const Row& row);
  DecodeStatus invalid();
  DecodeStatus status() const;

  void set_sizes(const Row& row);
  void read_address();
  void read_address16();
  bool read_vector_address(unsigned index_bytes);
  int64_t read_displacement(unsigned mod, bool none_is_32);

  bool operand(const Row& row, size_t i);
  bool rm_operand(Form form, Operand& out);
  bool reg_operand(Form form, Operand& out);
  bool vex_rm_operand(Form form, Operand& out);
  bool vex_operand(Form form, Operand& out);
  bool fixed_operand(Form form, Operand& out);
  bool immediate_operand(Form form, Operand& out);
  bool implied_memory(Form form, Operand& out);

  bool memory(Operand& out, unsigned size);
  bool rm_general(Operand& out, unsigned register_size, unsigned memory_size);
  bool rm_vector(Operand& out, OperandKind kind, unsigned memory_size, bool aligned = false);
  [[nodiscard]] Operand vector(unsigned number, unsigned size) const;
  Operand general(unsigned number, unsigned size) const;
  void set_immediate(Operand& out, uint64_t value, unsigned size);
  void implied(uint8_t base, Seg segment);

  [[nodiscard]] bool is_memory() const { return modrm_ < 0xc0; }
  [[nodiscard]] unsigned reg_number() const { return ((modrm_ >> 3) & 7u) | (rex_ & kRexR ? 8u : 0u); }
  [[nodiscard]] unsigned rm_number() const { return (modrm_ & 7u) | (rex_ & kRexB ? 8u : 0u); }
  [[nodiscard]] unsigned size_v() const { return insn_.operand_size; }
  [[nodiscard]] unsigned size_z() const { return insn_.operand_size == 2 ? 2 : 4; }
  [[nodiscard]] unsigned size_y() const { return rex_ & kRexW ? 8 : 4; }
  [[nodiscard]] unsigned size_m() const { return long_ ? 8 : 4; }
  [[nodiscard]] Seg segment_or(Seg fallback) const { return override_ ? segment_ : fallback; }

  const uint8_t* const begin_;
  const uint8_t* at_;
  const uint8_t* const end_;
  const bool long_;  // 64-bit mode
  const bool wide_;  // not 16-bit code
  bool short_ = false;
  bool operand_override_ = false, address_override_ = false, override_ = false, lock_ = false;
  uint8_t rep_ = 0;  // F3 or F2, the last of them
  uint8_t rex_ = 0;
  uint8_t modrm_ = 0, sib_ = 0;
  uint8_t vvvv_ = 0;  // as the register number that it stands for
  bool vex_ = false, vex_w_ = false, vex_l_ = false, uses_vvvv_ = false;
  bool any_mod_ = false;
  Seg segment_ = Seg::kDs;
  Insn& insn_;
};

void Decoder::apply_prefix(uint8_t byte) {
  const auto set_segment = [this](Seg segment) {
    segment_ = segment;
    override_ = true;
  };
  switch (byte) {
    // [SDM 1 3.4.2.1] In 64-bit mode ES, CS, SS and DS overrides are ignored.
    case 0x26:
      if (!long_) set_segment(Seg::kEs);
      break;
    case 0x2e:
      if (!long_) set_segment(Seg::kCs);
      break;
    case 0x36:
      if (!long_) set_segment(Seg::kSs);
      break;
    case 0x3e:
      if (!long_) set_segment(Seg::kDs);
      break;
    case 0x64: set_segment(Seg::kFs); break;
    case 0x65: set_segment(Seg::kGs); break;
    case 0x66: operand_override_ = true; break;
    case 0x67: address_override_ = true; break;
    case 0xf0: lock_ = true; break;
    default: rep_ = byte; break;
  }
}

// Leaves at_ at the opcode.
void Decoder::read_prefixes() {
  for (; at_ != end_; ++at_) {
    const uint8_t byte = *at_;
    if (long_ && (byte & 0xf0) == 0x40) {
      rex_ = byte;
    } else if (kIsPrefix[byte]) {
      apply_prefix(byte);
      rex_ = 0;  // [SDM 2A 2.2.1] a REX prefix counts only directly before the opcode
    } else {
      return;
    }
  }
}

// [SDM 2A 2.3.5] Outside 64-bit mode C4 and C5 with a memory operand are LES and LDS.
bool Decoder::at_vex() const {
  if (at_ == end_ || (*at_ & 0xfe) != 0xc4) return false;
  return long_ || (end_ - at_ >= 2 && at_[1] >= 0xc0);
}

const Row* Decoder::read_vex() {
  const bool three = take<uint8_t>() == 0xc4;
  uint8_t first = take<uint8_t>(), second = first;
  insn_.map = 1;
  if (three) {
    insn_.map = first & 0x1f;
    second = take<uint8_t>();
  }
  const uint8_t opcode = take<uint8_t>();
  // [SDM 2A 2.3.2 to 2.3.4] LOCK, 66, F2, F3 and REX must not stand before it.
  if (short_ || lock_ || rep_ != 0 || operand_override_ || rex_ != 0 || insn_.map == 0 || insn_.map > 3) return nullptr;
  insn_.vex = vex_ = true;
  insn_.opcode = opcode;
  vex_w_ = three && (second & 0x80) != 0;
  vex_l_ = (second & 4) != 0;
  const auto inverted = static_cast<uint8_t>(~first);
  if (long_)
    rex_ = (inverted & 0x80 ? kRexR : 0) | (three && (inverted & 0x40) ? kRexX : 0) |
           (three && (inverted & 0x20) ? kRexB : 0);
  vvvv_ = static_cast<uint8_t>(~(second >> 3) & 15);
  const size_t column = second & 3;
  insn_.mandatory_prefix = opcodes::kPrefixOfColumn[column];
  const Row* row = opcodes::vex_row_at(insn_.map, opcode, column);
  if (row->flags & opcodes::has_modrm) {
    modrm_ = take<uint8_t>();
    insn_.modrm = modrm_;
  }
  row = opcodes::resolve(row, {.modrm = modrm_, .vex_w = vex_w_, .vex_l = vex_l_});
  const auto says = [row](uint32_t flag) { return (row->flags & flag) != 0; };
  if ((says(opcodes::l0) && vex_l_) || (says(opcodes::l1) && !vex_l_) || (says(opcodes::w0) && vex_w_) ||
      (says(opcodes::w1) && !vex_w_))
    return nullptr;
  if (says(opcodes::lig)) vex_l_ = false;
  if (says(opcodes::wy) && vex_w_ && long_) rex_ |= kRexW;
  insn_.vector_bytes = vex_l_ ? 32 : 16;
  return row;
}

const Row* Decoder::read_opcode() {
  if (at_vex()) return read_vex();
  uint8_t opcode = take<uint8_t>();
  if (opcode == 0x0f) {
    opcode = take<uint8_t>();
    insn_.map = 1;
    if (opcode == 0x38 || opcode == 0x3a) {
      insn_.map = opcode == 0x38 ? 2 : 3;
      opcode = take<uint8_t>();
    }
  }
  insn_.opcode = opcode;
  if (short_) return nullptr;

  size_t column = 0;
  if (insn_.map == 0)
    column = long_ ? 1 : 0;
  else if (rep_ != 0)
    column = rep_ == 0xf3 ? 2 : 3;
  else if (operand_override_)
    column = 1;
  const Row* row = opcodes::row_at(insn_.map, opcode, column);
  if (row->flags & opcodes::takes_prefix) {
    insn_.mandatory_prefix = opcodes::kPrefixOfColumn[column];
    if (column >= 2) rep_ = 0;
  }
  if (row->flags & opcodes::has_modrm) {
    modrm_ = take<uint8_t>();
    insn_.modrm = modrm_;
  }
  if (row->select != Select::kNone) {
    const uint8_t nop = rep_ == 0xf3 ? 2 : rex_ & kRexB ? 1 : 0;
    row = opcodes::resolve(row, {.modrm = modrm_, .nop = nop});
  }
  return row;
}

void Decoder::set_sizes(const Row& row) {
  if (vex_) {
    insn_.address_size = long_ ? (address_override_ ? 4 : 8) : address_override_ == wide_ ? 2 : 4;
    insn_.operand_size = static_cast<uint8_t>(size_y());
  } else if (long_) {
    insn_.address_size = address_override_ ? 4 : 8;
    const bool by_default = (row.flags & opcodes::def64) && !operand_override_;
    if ((rex_ & kRexW) || by_default || (row.flags & opcodes::force64))
      insn_.operand_size = 8;
    else
      insn_.operand_size = operand_override_ ? 2 : 4;
  } else {
    insn_.address_size = address_override_ == wide_ ? 2 : 4;
    insn_.operand_size = operand_override_ == wide_ ? 2 : 4;
  }
}

// --- addresses

int64_t Decoder::read_displacement(unsigned mod, bool none_is_32) {
  if (mod == 1) return static_cast<int8_t>(take<uint8_t>());
  if (mod == 2 || none_is_32) return static_cast<int32_t>(take<uint32_t>());
  return 0;
}

void Decoder::read_address16() {
  struct Pair {
    uint8_t base, index;
  };
  static constexpr Pair kPairs[8] = {{kRbx, kRsi},   {kRbx, kRdi},   {kRbp, kRsi},   {kRbp, kRdi},
                                     {kRsi, kNoReg}, {kRdi, kNoReg}, {kRbp, kNoReg}, {kRbx, kNoReg}};
  MemOperand& mem = insn_.mem;
  const unsigned mod = modrm_ >> 6, rm = modrm_ & 7;
  mem.base = kPairs[rm].base;
  mem.index = kPairs[rm].index;
  const bool absolute = mod == 0 && rm == 6;
  if (absolute) mem.base = kNoReg;
  if (mod == 1) mem.disp = static_cast<int8_t>(take<uint8_t>());
  if (mod == 2 || absolute) mem.disp = static_cast<int16_t>(take<uint16_t>());
  mem.segment = segment_or(mem.base == kRbp ? Seg::kSs : Seg::kDs);
}

void Decoder::read_address() {
  insn_.has_mem = true;
  if (insn_.address_size == 2) return read_address16();
  MemOperand& mem = insn_.mem;
  const unsigned mod = modrm_ >> 6, rm = modrm_ & 7;
  const uint8_t b = rex_ & kRexB ? 8 : 0;
  if (rm == 4) {
    const uint8_t sib = sib_ = take<uint8_t>();
    const auto index = static_cast<uint8_t>(((sib >> 3) & 7) | (rex_ & kRexX ? 8 : 0));
    if (index != kRsp) {
      mem.index = index;
      mem.scale = sib >> 6;
    }
    const bool no_base = (sib & 7) == 5 && mod == 0;
    if (!no_base) mem.base = static_cast<uint8_t>((sib & 7) | b);
    mem.disp = read_displacement(mod, no_base);
  } else {
    const bool no_base = rm == 5 && mod == 0;
    mem.base = !no_base ? static_cast<uint8_t>(rm | b) : long_ ? kRipReg : kNoReg;
    mem.disp = read_displacement(mod, no_base);
  }
  // [SDM 1 3.7.4] rSP and rBP as a base mean the stack.
  mem.segment = segment_or(mem.base == kRsp || mem.base == kRbp ? Seg::kSs : Seg::kDs);
}

// [SDM 2A 2.3.12] VSIB: the SIB byte must be there, and its index is a vector register without exception.
bool Decoder::read_vector_address(unsigned index_bytes) {
  if (!is_memory() || (modrm_ & 7) != 4 || insn_.address_size == 2) return false;
  MemOperand& mem = insn_.mem;
  const uint8_t sib = sib_;
  mem.index = static_cast<uint8_t>(((sib >> 3) & 7) | (rex_ & kRexX ? 8 : 0));
  mem.scale = sib >> 6;
  mem.vector_index = static_cast<uint8_t>(index_bytes);
  return true;
}

// --- operands

Operand Decoder::general(unsigned number, unsigned size) const {
  const bool high = size == 1 && rex_ == 0 && number >= 4;
  return {.kind = OperandKind::kGpr,
          .size = static_cast<uint8_t>(size),
          .reg = static_cast<uint8_t>(high ? number - 4 : number),
          .high_byte = high};
}

bool Decoder::memory(Operand& out, unsigned size) {
  out.kind = OperandKind::kMem;
  out.size = static_cast<uint8_t>(size);
  return is_memory();
}

bool Decoder::rm_general(Operand& out, unsigned register_size, unsigned memory_size) {
  if (is_memory()) return memory(out, memory_size);
  out = general(rm_number(), register_size);
  return true;
}

bool Decoder::rm_vector(Operand& out, OperandKind kind, unsigned memory_size, bool aligned) {
  if (is_memory()) {
    if (aligned) insn_.mem_align = 16;
    return memory(out, memory_size);
  }
  // [SDM 2A 2.2.1.2] REX does not reach MMX registers.
  const bool xmm = kind == OperandKind::kXmm;
  out = {.kind = kind,
         .size = static_cast<uint8_t>(xmm ? 16 : 8),
         .reg = static_cast<uint8_t>(xmm ? rm_number() : modrm_ & 7u)};
  return true;
}

Operand Decoder::vector(unsigned number, unsigned size) const {
  return {.kind = size == 32 ? OperandKind::kYmm : OperandKind::kXmm,
          .size = static_cast<uint8_t>(size),
          .reg = static_cast<uint8_t>(number)};
}

void Decoder::set_immediate(Operand& out, uint64_t value, unsigned size) {
  insn_.imm = value;
  out.kind = OperandKind::kImm;
  out.size = static_cast<uint8_t>(size);
}

// Operands that ModRM.rm names. False: the form does not exist.
bool Decoder::rm_operand(Form form, Operand& out) {
  using enum Form;
  switch (form) {
    case Eb: return rm_general(out, 1, 1);
    case Ew: return rm_general(out, 2, 2);
    case Ed: return rm_general(out, 4, 4);
    case Ev: return rm_general(out, size_v(), size_v());
    case Ey: return rm_general(out, size_y(), size_y());
    case Ez: return rm_general(out, size_z(), size_z());
    case RvMw: return rm_general(out, size_v(), 2);
    case RdMb: return rm_general(out, 4, 1);
    case RdMw: return rm_general(out, 4, 2);
    case M: return memory(out, 0);
    case Mb: return memory(out, 1);
    case Mw: return memory(out, 2);
    case Md: return memory(out, 4);
    case Mq: return memory(out, 8);
    case Mt: return memory(out, 10);
    case Mdq: insn_.mem_align = 16; return memory(out, 16);
    case Mu: return memory(out, 16);
    case Mv: return memory(out, size_v());
    case My: return memory(out, size_y());
    case M64: return memory(out, 64);
    case Mp: return memory(out, size_v() + 2);
    case Ms: return memory(out, size_m() + 2);
    case Ma: return memory(out, size_v() * 2);
    case Mx: return memory(out, size_y() * 2);
    case Menv: return memory(out, insn_.operand_size == 2 ? 14 : 28);
    case Mstate: return memory(out, insn_.operand_size == 2 ? 94 : 108);
    case Rv: out = general(rm_number(), size_v()); return !is_memory();
    case Ry: out = general(rm_number(), size_y()); return !is_memory();
    case Rm: out = general(rm_number(), size_m()); return !is_memory() || any_mod_;
    case Nq: return !is_memory() && rm_vector(out, OperandKind::kMmx, 8);
    case U: return !is_memory() && rm_vector(out, OperandKind::kXmm, 16);
    case Qd: return rm_vector(out, OperandKind::kMmx, 4);
    case Qq: return rm_vector(out, OperandKind::kMmx, 8);
    case W: return rm_vector(out, OperandKind::kXmm, 16, true);
    case Wu: return rm_vector(out, OperandKind::kXmm, 16);
    case Wq: return rm_vector(out, OperandKind::kXmm, 8);
    case Wd: return rm_vector(out, OperandKind::kXmm, 4);
    case Ww: return rm_vector(out, OperandKind::kXmm, 2);
    case Wb: return rm_vector(out, OperandKind::kXmm, 1);
    default: return vex_rm_operand(form, out);
  }
}

// Of these, those whose width hangs on VEX.L.
bool Decoder::vex_rm_operand(Form form, Operand& out) {
  using enum Form;
  const unsigned width = insn_.vector_bytes;
  if (form == Mgx || form == Mgl) return read_vector_address(form == Mgl ? width : 16) && memory(out, vex_w_ ? 8 : 4);
  const bool only_memory = form == Ml || form == Mla, only_register = form == Ul;
  if (is_memory() ? only_register : only_memory) return false;
  const bool narrow = form == Wh || form == Wf || form == We;
  if (is_memory()) {
    if (form == Wla || form == Mla) insn_.mem_align = static_cast<uint8_t>(width);
    return memory(out, form == Wh ? width / 2 : form == Wf ? width / 4 : form == We ? width / 8 : width);
  }
  out = vector(rm_number(), narrow ? 16 : width);
  return true;
}

// Operands that VEX.vvvv or an immediate name. Outside 64-bit mode there are eight registers, and the highest bit is
// not looked at.
bool Decoder::vex_operand(Form form, Operand& out) {
  const unsigned numbers = long_ ? 15 : 7;
  switch (form) {
    case Form::H: out = vector(vvvv_ & numbers, 16); break;
    case Form::Hl: out = vector(vvvv_ & numbers, insn_.vector_bytes); break;
    case Form::By: out = general(vvvv_ & numbers, size_y()); break;
    default:  // Ll
      insn_.imm = take<uint8_t>();
      out = vector((insn_.imm >> 4) & numbers, insn_.vector_bytes);
      out.field = Field::kIs4;
      return true;
  }
  out.field = Field::kVvvv;
  uses_vvvv_ = true;
  return true;
}

// Operands that ModRM.reg names.
bool Decoder::reg_operand(Form form, Operand& out) {
  const auto set = [&out](OperandKind kind, unsigned size, unsigned number) {
    out = {.kind = kind, .size = static_cast<uint8_t>(size), .reg = static_cast<uint8_t>(number)};
    return true;
  };
  const unsigned number = reg_number();
  switch (form) {
    case Form::Gb: out = general(number, 1); return true;
    case Form::Gw: out = general(number, 2); return true;
    case Form::Gd: out = general(number, 4); return true;
    case Form::Gv: out = general(number, size_v()); return true;
    case Form::Gy: out = general(number, size_y()); return true;
    case Form::Gm: out = general(number, size_m()); return true;
    case Form::Ga: out = general(number, insn_.address_size); return true;
    case Form::Pq: return set(OperandKind::kMmx, 8, number & 7);
    case Form::V: return set(OperandKind::kXmm, 16, number);
    case Form::Vl: out = vector(number, insn_.vector_bytes); return true;
    case Form::Sw: return set(OperandKind::kSegReg, 2, number & 7) && (number & 7) < kSegCount;
    case Form::Cd: {
      constexpr unsigned kKnown = 1u << 0 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8;
      return set(OperandKind::kControl, size_m(), number) && ((kKnown >> number) & 1);
    }
    default: return set(OperandKind::kDebug, size_m(), number) && number < 8;  // Dd
  }
}

bool Decoder::fixed_operand(Form form, Operand& out) {
  const auto set = [&out](OperandKind kind, unsigned size, unsigned number) {
    out = {.kind = kind, .size = static_cast<uint8_t>(size), .reg = static_cast<uint8_t>(number)};
  };
  const unsigned low = (insn_.opcode & 7u) | (rex_ & kRexB ? 8u : 0u);
  switch (form) {
    case Form::Zb: out = general(low, 1); break;
    case Form::Zv: out = general(low, size_v()); break;
    case Form::Al: set(OperandKind::kGpr, 1, kRax); break;
    case Form::Cl: set(OperandKind::kGpr, 1, kRcx); break;
    case Form::Dx: set(OperandKind::kGpr, 2, kRdx); break;
    case Form::Aw: set(OperandKind::kGpr, 2, kRax); break;
    case Form::Av: set(OperandKind::kGpr, size_v(), kRax); break;
    case Form::Az: set(OperandKind::kGpr, size_z(), kRax); break;
    case Form::One: set_immediate(out, 1, 1); break;
    case Form::St0: set(OperandKind::kX87, 10, 0); break;
    case Form::Sti: set(OperandKind::kX87, 10, modrm_ & 7u); break;
    default: set(OperandKind::kSegReg, 2, static_cast<unsigned>(form) - static_cast<unsigned>(Form::Es)); break;
  }
  return true;
}

bool Decoder::immediate_operand(Form form, Operand& out) {
  const auto take_z = [this]() -> int64_t {
    if (size_z() == 2) return static_cast<int16_t>(take<uint16_t>());
    return static_cast<int32_t>(take<uint32_t>());
  };
  switch (form) {
    case Form::Ib: set_immediate(out, static_cast<uint64_t>(int64_t{static_cast<int8_t>(take<uint8_t>())}), 1); break;
    case Form::Ub: set_immediate(out, take<uint8_t>(), 1); break;
    case Form::Uw: set_immediate(out, take<uint16_t>(), 2); break;
    case Form::Iz: set_immediate(out, static_cast<uint64_t>(take_z()), size_z()); break;
    case Form::Iv:
      set_immediate(out, size_v() == 8 ? take<uint64_t>() : static_cast<uint64_t>(take_z()), size_v());
      break;
    case Form::Ub2:
      insn_.imm2 = take<uint8_t>();
      out = {.kind = OperandKind::kImm2, .size = 1};
      break;
    case Form::Jb:
      set_immediate(out, static_cast<uint64_t>(int64_t{static_cast<int8_t>(take<uint8_t>())}), 1);
      out.kind = OperandKind::kRel;
      break;
    case Form::Jz:
      set_immediate(out, static_cast<uint64_t>(take_z()), size_z());
      out.kind = OperandKind::kRel;
      break;
    default:  // Ap: operand 0 is the offset, operand 1 the selector
      set_immediate(out, size_v() == 2 ? take<uint16_t>() : take<uint32_t>(), size_v());
      insn_.imm2 = take<uint16_t>();
      insn_.operand[1] = {.kind = OperandKind::kImm2, .size = 2};
      break;
  }
  return true;
}

void Decoder::implied(uint8_t base, Seg segment) {
  insn_.has_mem = true;
  insn_.mem = {};
  insn_.mem.base = base;
  insn_.mem.segment = segment;
}

bool Decoder::implied_memory(Form form, Operand& out) {
  using enum Form;
  out.kind = OperandKind::kMem;
  const bool z = form == Xz || form == Yz, b = form == Ob || form == Xb || form == Yb || form == MemBx;
  out.size = static_cast<uint8_t>(z ? size_z() : b ? 1 : size_v());
  switch (form) {
    case Ob:
    case Ov: {
      implied(kNoReg, segment_or(Seg::kDs));
      const uint64_t address = insn_.address_size == 8   ? take<uint64_t>()
                               : insn_.address_size == 4 ? take<uint32_t>()
                                                         : take<uint16_t>();
      insn_.mem.disp = static_cast<int64_t>(address);
      break;
    }
    case Xb:
    case Xv:
    case Xz: implied(kRsi, segment_or(Seg::kDs)); break;
    case Yb:
    case Yv:
    case Yz:
      // Of two strings Insn::mem is the source.
      if (!insn_.has_mem) implied(kRdi, Seg::kEs);
      break;
    case MemBx: implied(kRbx, segment_or(Seg::kDs)); break;
    case MemDi:
      implied(kRdi, segment_or(Seg::kDs));
      out.size = insn_.mandatory_prefix == 0x66 ? 16 : 8;
      break;
    default:  // MemAx
      implied(kRax, segment_or(Seg::kDs));
      out.size = 0;
      break;
  }
  return true;
}

bool Decoder::operand(const Row& row, size_t i) {
  const Form form = row.form[i];
  Operand& out = insn_.operand[i];
  bool exists;
  if (form <= opcodes::kLastRm) {
    exists = rm_operand(form, out);
    out.field = Field::kRm;
  } else if (form <= opcodes::kLastModrm) {
    exists = reg_operand(form, out);
    out.field = Field::kReg;
  } else if (form <= Form::Sti)
    exists = fixed_operand(form, out);
  else if (form <= Form::Ll)
    exists = vex_operand(form, out);
  else if (form <= Form::Ap)
    exists = immediate_operand(form, out);
  else
    exists = implied_memory(form, out);
  if (out.kind == OperandKind::kMem) {
    insn_.mem_read |= i == 0 ? (row.flags & opcodes::r) != 0 : form != Form::M;
    insn_.mem_write |= i == 0 && (row.flags & opcodes::w) != 0;
  }
  return exists;
}

// --- putting it together

DecodeStatus Decoder::status() const {
  if (!short_) return DecodeStatus::kOk;
  return end_ - begin_ == kMaxLength ? DecodeStatus::kTooLong : DecodeStatus::kTruncated;
}

DecodeStatus Decoder::invalid() {
  Insn none;
  none.length = static_cast<uint8_t>(at_ - begin_);
  none.map = insn_.map;
  none.opcode = insn_.opcode;
  none.modrm = insn_.modrm;
  none.mandatory_prefix = insn_.mandatory_prefix;
  none.vex = insn_.vex;
  insn_ = none;
  return status();
}

bool Decoder::finish_vex(const Row& row) {
  // [SDM 2A 2.3.5.6] VEX.vvvv that is not used must be 1111B.
  if (!uses_vvvv_ && vvvv_ != 0) return false;
  if ((row.flags & opcodes::avx2) != 0 && vex_l_) insn_.need = Need::kAvx2;
  if (row.op == Op::kVzeroupper && vex_l_) insn_.op = Op::kVzeroall;
  if (row.op == Op::kGather) {
    // [SDM 2C VPGATHERDD] Destination, index and mask must be three registers.
    const uint8_t to = insn_.operand[0].reg, mask = insn_.operand[2].reg, index = insn_.mem.index;
    return to != mask && to != index && mask != index;
  }
  return true;
}

DecodeStatus Decoder::finish_row(const Row& row) {
  insn_.op = row.op;
  insn_.need = row.need;
  any_mod_ = (row.flags & opcodes::any_mod) != 0;
  if ((row.flags & opcodes::has_modrm) && is_memory() && !any_mod_) read_address();
  for (size_t i = 0; i < row.form.size() && row.form[i] != Form::None; ++i)
    if (!operand(row, i)) return invalid();
  if (vex_ && !finish_vex(row)) return invalid();
  // [SDM 2A LOCK] Only with instructions that read, modify and write memory.
  if (lock_ && !((row.flags & opcodes::lock) && insn_.operand[0].kind == OperandKind::kMem)) return invalid();

  switch (row.op) {
    case Op::kX87: insn_.unit = Unit::kX87; break;
    case Op::kAvx: insn_.unit = Unit::kAvx; break;
    case Op::kMmx:
    case Op::kSse:
      insn_.unit = row.op == Op::kMmx ? Unit::kMmx : Unit::kSse;
      insn_.operand_size = static_cast<uint8_t>(size_y());  // 66 is part of the opcode
      break;
    case Op::kCmpxchg8b:
      if (rex_ & kRexW) {
        insn_.op = Op::kCmpxchg16b;
        insn_.need = Need::kCx16;
      }
      break;
    case Op::kMovToSeg:
      if (insn_.operand[0].reg == static_cast<uint8_t>(Seg::kCs)) return invalid();
      break;
    case Op::kPause: rep_ = 0; break;
    default: break;
  }
  insn_.condition = insn_.opcode & 15;
  insn_.lock = lock_;
  insn_.rep = rep_ == 0xf3;
  insn_.repne = rep_ == 0xf2;
  insn_.rex_w = (rex_ & kRexW) != 0 || (row.flags & opcodes::w1) != 0;
  insn_.length = static_cast<uint8_t>(at_ - begin_);
  return status();
}

DecodeStatus Decoder::run() {
  insn_ = Insn{};
  read_prefixes();
  const Row* const row = read_opcode();
  if (row == nullptr || row->op == Op::kInvalid || short_) return invalid();
  if ((row->flags & opcodes::long_only) && !long_) return invalid();
  set_sizes(*row);
  return finish_row(*row);
}

}  // namespace

DecodeStatus decode(std::span<const uint8_t> bytes, DecodeMode mode, Insn& insn) {
  return Decoder(bytes, mode.width, insn).run();
}

}  // namespace kite::x86
