#include "streams/generator.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <initializer_list>
#include <span>

#include "streams/opcodes.h"
#include "streams/opcodes_host.h"

namespace kite::streams {
namespace {

constexpr unsigned kAx = 0, kCx = 1, kDx = 2, kBx = 3, kSp = 4, kSi = 6, kDi = 7;
constexpr unsigned kNoRegister = 0xff;

// Encoded ModRM, SIB and displacement of a memory operand.
struct Address {
  unsigned mod = 0, rm = 0;
  bool sib = false;
  unsigned scale = 0, index = 4, base = 5;  // of the SIB byte, four bits
  unsigned disp_bytes = 0;
  uint32_t disp = 0;
  uint64_t rip_target = 0;  // non-zero: RIP-relative
};

class Generator {
 public:
  Generator(Random& random, Stream& stream) : random_(random), stream_(stream) {}

  void registers();
  void memory();
  void instructions(unsigned count);

 private:
  [[nodiscard]] bool wide() const { return stream_.wide; }
  [[nodiscard]] bool has(uint32_t rules) const { return (opcode_->rules & rules) != 0; }
  uint64_t value();
  uint64_t floating();
  uint32_t mxcsr();
  void extended(uint8_t* slot);
  void x87();
  void vectors();

  const Opcode& choose();
  [[nodiscard]] bool usable(const Opcode& opcode);
  void instruction(const Opcode& opcode);
  void choose_prefixes();
  void prepare_implicit();
  void encode();
  void encode_modrm(Instruction& out);
  void encode_immediate(Instruction& out);
  unsigned any_register();
  [[nodiscard]] bool is(uint16_t bits) const { return (opcode_->vex & bits) != 0; }
  [[nodiscard]] unsigned alignment() const;
  [[nodiscard]] unsigned operand_bytes() const;
  [[nodiscard]] bool saves_pointers() const;
  uint64_t target(unsigned bytes, unsigned alignment);
  [[nodiscard]] uint64_t anywhere(unsigned bytes) { return target(bytes, 1); }
  Address address(unsigned bytes);
  Address based_address(uint64_t target);
  Address narrow_address();
  void load_register(unsigned number, uint64_t value);
  void load_code_address(unsigned number);
  void raw(std::initializer_list<unsigned> bytes, uint64_t address = 0, std::initializer_list<unsigned> rest = {});
  void choose_vex();
  void load_index();
  void prepare_state();
  void encode_vex(Instruction& out);
  void store_behind(Instruction& out, uint64_t address, unsigned bytes = 4);
  void overwrite_pointers(Instruction& out, uint64_t image);
  void define_flags(Instruction& out);
  void store_word(uint64_t address, uint32_t value);

  Random& random_;
  Stream& stream_;
  // The instruction in the making.
  const Opcode* opcode_ = nullptr;
  bool operand16_ = false, rex_w_ = false, address_prefix_ = false, lock_ = false, memory_ = false;
  uint8_t segment_prefix_ = 0, repeat_ = 0;
  unsigned byte_ = 0;  // opcode byte
  unsigned reg_ = 0;   // ModRM.reg, four bits
  unsigned rm_register_ = 0;
  unsigned vvvv_ = 0, index_register_ = 0;
  bool vex_l_ = false;
  bool restored_ = false;  // an XRSTOR was among the instructions
  uint32_t reserved_ = 0;  // registers that address setup must leave alone
  uint64_t fixed_target_ = 0;
  Address address_;
  Instruction head_;  // what goes before it
};

// --- values

uint64_t Generator::value() {
  static constexpr uint64_t kSpecial[] = {0,
                                          1,
                                          2,
                                          0x7f,
                                          0x80,
                                          0xff,
                                          0x7fff,
                                          0x8000,
                                          0xffff,
                                          0x7fffffff,
                                          0x80000000,
                                          0xffffffff,
                                          ~uint64_t{0},
                                          uint64_t{1} << 63,
                                          ~uint64_t{0} >> 1};
  switch (random_.below(8)) {
    case 0: return kSpecial[random_.below(std::size(kSpecial))];
    case 1: return random_.below(256);
    case 2: return kDataAddress + random_.below(kDataBytes);
    case 3: return random_.next() >> random_.below(64);
    case 4: return floating();
    default: return random_.next();
  }
}

uint64_t Generator::floating() {
  static constexpr double kDoubles[] = {0.0,  -0.0,  1.0,   -1.0,   0.5,    1.5,         3.0,
                                        1e10, -1e10, 1e300, 1e-300, 5e-324, 2147483648.0};
  static constexpr uint64_t kPatterns[] = {0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000,
                                           0x7ff0000000000001, 0x000fffffffffffff, 0x7f8000007f800000,
                                           0x7fc000003f800000, 0x0000000100000001, 0x3f800000bf800000,
                                           0x7f80000180000000, 0x7fefffffffffffff};
  if (random_.percent(50)) return std::bit_cast<uint64_t>(kDoubles[random_.below(std::size(kDoubles))]);
  return kPatterns[random_.below(std::size(kPatterns))];
}

// Mostly a wrong one. AMD's processors have MM in bit 17.
uint32_t Generator::mxcsr() {
  const auto any = static_cast<uint32_t>(value());
  return host_is_intel() ? any : any & ~(1u << 17);
}

// An 80-bit value: mostly normal numbers of a common size, and everything special.
void Generator::extended(uint8_t* slot) {
  uint64_t mantissa = random_.next() | uint64_t{1} << 63;
  uint16_t exponent = static_cast<uint16_t>(0x3fff - 20 + random_.below(40));
  switch (random_.below(10)) {
    case 0: mantissa = 0, exponent = 0; break;                       // zero
    case 1: exponent = 0x7fff, mantissa = uint64_t{1} << 63; break;  // infinity
    case 2: exponent = 0x7fff; break;                                // NaN
    case 3: exponent = 0, mantissa &= ~(uint64_t{1} << 63); break;   // denormal
    case 4: exponent = 0x3fff, mantissa = uint64_t{1} << 63; break;  // one
    case 5: exponent = static_cast<uint16_t>(random_.next() & 0x7fff); break;
    case 6: mantissa = random_.next(); break;  // pseudo and unnormal
    default: break;
  }
  exponent |= static_cast<uint16_t>(random_.next() & 0x8000);
  std::memcpy(slot, &mantissa, 8);
  std::memcpy(slot + 8, &exponent, 2);
}

void Generator::x87() {
  auto& fx = stream_.registers.fx;
  uint16_t control = 0x37f;
  if (random_.percent(30)) control = static_cast<uint16_t>((random_.next() & 0x0f00) | 0x7f);
  if (random_.percent(10)) control &= static_cast<uint16_t>(~random_.below(64));
  auto status = static_cast<uint16_t>(random_.next() & 0x7f7f);
  if (random_.percent(70)) status &= static_cast<uint16_t>(~(~control & 0x3f));  // nothing pending
  if ((status & ~control & 0x3f) != 0) status |= 0x8080;
  const auto tags = static_cast<uint8_t>(random_.percent(30) ? 0 : random_.percent(30) ? 0xff : random_.next());
  const auto opcode = static_cast<uint16_t>(random_.next() & 0x7ff);
  const uint64_t pointer_mask = wide() ? 0x7fffffffffff : 0xffffffff;
  const uint64_t instruction = random_.next() & pointer_mask, data = random_.next() & pointer_mask;
  std::memcpy(&fx[0], &control, 2);
  std::memcpy(&fx[2], &status, 2);
  fx[4] = tags;
  std::memcpy(&fx[6], &opcode, 2);
  std::memcpy(&fx[8], &instruction, 8);
  std::memcpy(&fx[16], &data, 8);
  for (unsigned i = 0; i < 8; ++i) extended(&fx[32 + 16 * i]);
}

void Generator::vectors() {
  auto& fx = stream_.registers.fx;
  uint32_t mxcsr = 0x1f80;
  if (random_.percent(30)) mxcsr |= static_cast<uint32_t>(random_.next() & 0xe07f);
  if (random_.percent(10)) mxcsr &= static_cast<uint32_t>(~(random_.below(64) << 7));
  std::memcpy(&fx[24], &mxcsr, 4);
  for (unsigned i = 0; i < 32; ++i) {
    const uint64_t word = random_.percent(50) ? floating() : value();
    std::memcpy(&fx[160 + 8 * i], &word, 8);
  }
  if (avx_opcodes().empty()) return;
  auto& high = stream_.registers.ymm_high;
  for (size_t i = 0; i < high.size(); i += 8) {
    const uint64_t word = random_.percent(50) ? floating() : value();
    std::memcpy(&high[i], &word, 8);
  }
}

void Generator::registers() {
  Registers& out = stream_.registers;
  for (uint64_t& gpr : out.gpr) gpr = value() & (wide() ? ~uint64_t{0} : 0xffffffff);
  if (!wide())
    for (size_t i = 8; i < 16; ++i) out.gpr[i] = 0;
  out.gpr[kSp] = kStackAddress + kStackBytes / 2;
  if (random_.percent(10)) out.gpr[kSp] += random_.below(16);
  out.rip = kCodeAddress;
  out.rflags = 0x202 | (random_.next() & 0x8d5);
  if (random_.percent(15)) out.rflags |= 0x400;   // DF
  if (random_.percent(2)) out.rflags |= 0x40000;  // AC
  x87();
  vectors();
}

void Generator::memory() {
  const auto fill = [this](std::span<uint8_t> bytes) {
    for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
      const uint64_t word = (at & 0x38) == 0 ? value() : (at & 0x38) == 8 ? floating() : random_.next();
      std::memcpy(&bytes[at], &word, 8);
    }
  };
  fill(stream_.memory.data);
  fill(stream_.memory.stack);
}

// --- operands

unsigned Generator::any_register() {
  const auto number = static_cast<unsigned>(random_.below(wide() ? 16 : 8));
  return number == kSp && !random_.percent(5) ? kAx : number;
}

void Generator::load_register(unsigned number, uint64_t value) {
  Instruction out;
  const bool full = value > 0xffffffff;
  const unsigned rex = 0x40u | (full ? 8u : 0u) | (number >> 3);
  if (rex != 0x40) out.bytes[out.size++] = static_cast<uint8_t>(rex);
  out.bytes[out.size++] = static_cast<uint8_t>(0xb8 | (number & 7));
  std::memcpy(&out.bytes[out.size], &value, full ? 8 : 4);
  out.size = static_cast<uint8_t>(out.size + (full ? 8 : 4));
  stream_.instructions.push_back(out);
}

// MOV register, or PUSH, of the address of an instruction further on; the branch that uses it follows at once, lest
// some other branch get between them.
void Generator::load_code_address(unsigned number) {
  head_ = {};
  if (number != kNoRegister && number >= 8) head_.bytes[head_.size++] = 0x41;
  head_.bytes[head_.size++] = static_cast<uint8_t>(number == kNoRegister ? 0x68 : 0xb8 | (number & 7));
  head_.branch_at = head_.size;
  head_.branch_bytes = 4;
  head_.branch_skips = static_cast<uint8_t>(random_.below(3));
  head_.branch_absolute = true;
  head_.size = static_cast<uint8_t>(head_.size + 4);
}

// MOV dword ptr [address], value
void Generator::store_word(uint64_t address, uint32_t value) {
  Instruction out;
  out.bytes = {0xc7, 0x04, 0x25};
  const auto place = static_cast<uint32_t>(address);
  std::memcpy(&out.bytes[3], &place, 4);
  std::memcpy(&out.bytes[7], &value, 4);
  out.size = 11;
  stream_.instructions.push_back(out);
}

unsigned Generator::alignment() const {
  if (has(rule::kAlign16)) return 16;
  if (has(rule::kAligned)) return vex_l_ ? 32 : 16;
  return has(rule::kSaves) ? 64 : 1;
}

unsigned Generator::operand_bytes() const {
  if (has(rule::kAlign16)) return 512;
  if (has(rule::kSaves | rule::kRestores)) return 832;
  if (has(rule::kBitOffset)) return 72;
  unsigned bytes = opcode_->bytes != 0 ? opcode_->bytes : rex_w_ ? 8 : operand16_ ? 2 : 4;
  if (is(vex::kScale) && vex_l_) bytes *= 2;
  if (is(vex::kWy) && rex_w_ && wide()) bytes *= 2;
  return bytes;
}

// Where an operand of `bytes` shall be: in the data pages, often across their border, rarely partly outside.
uint64_t Generator::target(unsigned bytes, unsigned alignment) {
  const uint64_t align = random_.percent(4) ? ~uint64_t{0} : ~uint64_t{alignment - 1};
  const uint64_t room = kDataBytes - bytes;
  uint64_t offset = random_.below(room + 1);
  if (random_.percent(15)) offset = kDataBytes / 2 - random_.below(bytes + 1);
  if (random_.percent(40)) offset &= ~uint64_t{7};
  if (random_.percent(1)) offset = kDataBytes - random_.below(bytes + 1);
  if (opcode_ != nullptr && is(vex::kMasked) && random_.percent(25))
    offset = random_.percent(50) ? kDataBytes - random_.below(bytes + 1) : uint64_t{0} - random_.below(bytes + 1);
  return kDataAddress + (offset & align);
}

Address Generator::based_address(uint64_t target) {
  Address out;
  const auto pick = [this](unsigned avoid) {
    unsigned number = kSp;
    while (number == kSp || number == avoid || (reserved_ >> number & 1) != 0)
      number = static_cast<unsigned>(random_.below(wide() ? 16 : 8));
    return number;
  };
  const unsigned base = pick(kNoRegister);
  const bool vector_index = is(vex::kIndex | vex::kIndexWide);
  const unsigned index = !vector_index && random_.percent(40) ? pick(base) : kNoRegister;
  const auto kind = random_.below(3);
  out.disp_bytes = kind == 0 && (base & 7) != 5 ? 0 : kind == 2 ? 4 : 1;
  int64_t disp = 0;
  if (out.disp_bytes == 1) disp = static_cast<int8_t>(random_.next());
  if (out.disp_bytes == 4) disp = static_cast<int64_t>(random_.below(0x20000)) - 0x10000;
  out.disp = static_cast<uint32_t>(disp);
  out.mod = out.disp_bytes == 0 ? 0 : out.disp_bytes == 1 ? 1 : 2;
  uint64_t start = target - static_cast<uint64_t>(disp);
  out.sib = index != kNoRegister || (base & 7) == 4;
  out.base = base;
  if (vector_index) {
    out.sib = true;
    out.index = index_register_;
    out.scale = static_cast<unsigned>(random_.below(4));
  }
  if (index != kNoRegister) {
    out.index = index;
    out.scale = static_cast<unsigned>(random_.below(4));
    const uint64_t count = random_.below(256);
    start -= count << out.scale;
    load_register(index, count);
  }
  out.rm = out.sib ? 4 : base;
  load_register(base, start);
  return out;
}

// 16-bit addressing: the low 64 KiB hold nothing, so all but LEA fault.
Address Generator::narrow_address() {
  Address out;
  out.rm = static_cast<unsigned>(random_.below(8));
  out.mod = static_cast<unsigned>(random_.below(3));
  out.disp_bytes = out.mod == 0 ? (out.rm == 6 ? 2 : 0) : out.mod;
  out.disp = static_cast<uint32_t>(random_.next());
  return out;
}

Address Generator::address(unsigned bytes) {
  if (address_prefix_ && !wide()) return narrow_address();
  uint64_t place = fixed_target_ != 0 ? fixed_target_ : target(bytes, alignment());
  if (segment_prefix_ == 0x65 && wide()) place -= kGsBase;
  Address out;
  if (is(vex::kIndex | vex::kIndexWide)) return based_address(place);
  // What overwrites an image must find it though a branch has led past the loading of a register.
  const auto kind = random_.below(saves_pointers() && !host_is_intel() ? 33 : 100);
  if (kind < 25) {
    out.rm = 5;
    out.disp_bytes = 4;
    out.disp = static_cast<uint32_t>(place);
    if (wide()) out.rip_target = place;
    return out;
  }
  if (kind < 33) {  // [disp32] by SIB
    out.rm = 4;
    out.sib = true;
    out.disp_bytes = 4;
    out.disp = static_cast<uint32_t>(place);
    return out;
  }
  const bool free = fixed_target_ == 0 && alignment() == 1;
  if (free && kind < 37) {  // [rsp + disp8]
    out.mod = 1;
    out.rm = 4;
    out.sib = true;
    out.base = kSp;
    out.disp_bytes = 1;
    out.disp = static_cast<uint32_t>(random_.below(128));
    return out;
  }
  if (free && kind < 38 && random_.percent(40)) {  // [whatever is in a register]
    out.mod = 1;
    out.rm = out.base = static_cast<unsigned>(random_.below(4));
    out.disp_bytes = 1;
    return out;
  }
  return based_address(place);
}

// --- instructions

bool Generator::usable(const Opcode& opcode) {
  if (wide() && (opcode.rules & rule::kOnly32) != 0) return false;
  if (!wide() && (opcode.rules & rule::kOnly64) != 0) return false;
  return (opcode.rules & rule::kRare) == 0 || random_.percent(15);
}

const Opcode& Generator::choose() {
  const auto kind = random_.below(100);
  std::span<const Opcode> rows = kind < 42   ? integer_opcodes()
                                 : kind < 54 ? x87_opcodes()
                                 : kind < 59 ? mmx_opcodes()
                                 : kind < 74 ? sse_opcodes()
                                 : kind < 98 ? avx_opcodes()
                                             : state_opcodes();
  if (rows.empty()) rows = sse_opcodes();
  for (;;) {
    const Opcode& opcode = rows[random_.below(rows.size())];
    if (usable(opcode)) return opcode;
  }
}

void Generator::choose_prefixes() {
  const Width width = opcode_->width;
  rex_w_ = operand16_ = false;
  if (width == Width::kWord) operand16_ = random_.percent(25);
  if (width == Width::kStack) operand16_ = random_.percent(15);
  if (wide() && (width == Width::kWord || width == Width::kNo16)) rex_w_ = random_.percent(45);
  const bool x87 = opcode_->map == 0 && opcode_->first >= 0xd8 && opcode_->first <= 0xdf;
  if (x87) operand16_ = random_.percent(10);  // the 16-bit environment formats; ignored elsewhere
  address_prefix_ = random_.percent(wide() ? 4 : opcode_->first == 0x8d && opcode_->map == 0 ? 15 : 1);
  segment_prefix_ = 0;
  if (random_.percent(5)) {
    static constexpr uint8_t kSegments[] = {0x26, 0x2e, 0x36, 0x3e, 0x65};
    segment_prefix_ = kSegments[random_.below(wide() ? 5 : 4)];
    if (segment_prefix_ == 0x2e && !wide() && !random_.percent(10)) segment_prefix_ = 0x3e;
  }
  if (has(rule::kBranch)) segment_prefix_ = 0;
  repeat_ = 0;
  if (has(rule::kString) && random_.percent(50)) repeat_ = has(rule::kRepString) || random_.percent(50) ? 0xf3 : 0xf2;
}

// Registers and memory that the instruction uses without naming them.
void Generator::prepare_implicit() {
  reserved_ = 0;
  fixed_target_ = 0;
  if (has(rule::kDivide) && random_.percent(90)) {
    reserved_ = 1u << kAx | 1u << kDx;
    load_register(kDx, random_.percent(80) ? 0 : value() & 0xffffffff);
    if (random_.percent(50)) load_register(kAx, random_.below(opcode_->bytes == 1 ? 0x800 : 0x80000000));
  }
  if (has(rule::kBitOffset) && random_.percent(95)) {
    reserved_ = 1u << reg_;
    load_register(reg_, random_.below(512));
  }
  if (has(rule::kString)) {
    const uint64_t gs = segment_prefix_ == 0x65 ? kGsBase : 0;
    if (random_.percent(95)) load_register(kSi, anywhere(128) - gs);
    if (random_.percent(95)) load_register(kDi, anywhere(128));
    if (repeat_ != 0) load_register(kCx, random_.below(40));
  }
  if (is(vex::kIndex | vex::kIndexWide)) load_index();
  if (has(rule::kSaves | rule::kRestores)) prepare_state();
  if (saves_pointers() && fixed_target_ == 0 && !host_is_intel()) fixed_target_ = target(operand_bytes(), alignment());
  if (has(rule::kDirect)) {
    reserved_ = 1u << reg_;
    load_register(reg_, target(64, 64));
  }
  if (has(rule::kReturn)) load_code_address(kNoRegister);
  if (has(rule::kIndirect)) load_code_address(rm_register_);
  if (has(rule::kTable)) load_register(kBx, anywhere(256));
  if (has(rule::kPointer)) load_register(kDi, anywhere(16));
  if (has(rule::kControlWord)) {
    fixed_target_ = anywhere(4);
    const auto controls = static_cast<uint32_t>(random_.next() & 0xe07f);
    if (opcode_->digit == 2) store_word(fixed_target_, random_.percent(95) ? 0x1f80 | controls : mxcsr());
  }
}

// An instruction with an absolute address in it, when that is not zero.
void Generator::raw(std::initializer_list<unsigned> bytes, uint64_t address, std::initializer_list<unsigned> rest) {
  Instruction out;
  const auto put = [&out](std::initializer_list<unsigned> more) {
    for (const unsigned byte : more) out.bytes[out.size++] = static_cast<uint8_t>(byte);
  };
  put(bytes);
  const auto place = static_cast<uint32_t>(address);
  if (address != 0) {
    std::memcpy(&out.bytes[out.size], &place, 4);
    out.size = static_cast<uint8_t>(out.size + 4);
  }
  put(rest);
  stream_.instructions.push_back(out);
}

// VEX.L, the registers, and the width of the memory operand by them.
void Generator::choose_vex() {
  const unsigned numbers = wide() ? 16 : 8;
  vex_l_ = is(vex::kL1) || (!is(vex::kL0) && random_.percent(60));
  rex_w_ = is(vex::kW1) || (!is(vex::kW0) && random_.percent(50));
  // [SDM 2A 2.3.5.1] Intel's processors ignore the W of general registers in 32-bit code, AMD's may not.
  if (is(vex::kWy) && !wide() && !host_is_intel()) rex_w_ = false;
  vvvv_ = static_cast<unsigned>(random_.below(numbers));
  index_register_ = static_cast<unsigned>(random_.below(numbers));
  if (!is(vex::kIndex | vex::kIndexWide) || random_.percent(3)) return;
  while (vvvv_ == reg_) vvvv_ = static_cast<unsigned>(random_.below(numbers));
  while (index_register_ == reg_ || index_register_ == vvvv_)
    index_register_ = static_cast<unsigned>(random_.below(numbers));
}

// VPMOVSXBD or VPMOVSXBQ of bytes in memory into the index register, which makes small indices; often a mask of ones.
void Generator::load_index() {
  const unsigned opcode = is(vex::kIndexWide) ? 0x22 : 0x21, reg = index_register_;
  raw({0xc4, reg >= 8 ? 0x62u : 0xe2u, 0x7d, opcode, (reg & 7) << 3 | 4, 0x25}, anywhere(8));
  if (random_.percent(40))  // vpcmpeqd mask, mask, mask
    raw({0xc4, vvvv_ >= 8 ? 0x41u : 0xe1u, (~vvvv_ & 15u) << 3 | 5, 0x76, 0xc0 | (vvvv_ & 7) << 3 | (vvvv_ & 7)});
}

// rDX:rAX for the XSAVE family, and for XRSTOR an area to load, sometimes a wrong one.
void Generator::prepare_state() {
  const auto components = [this] { return random_.percent(60) ? 7 : random_.below(8); };
  // In front of it and with it, lest a branch lead past: the host has components that streams must not ask for.
  const auto set_mask = [&] {
    head_ = {};
    auto mask = static_cast<uint8_t>(components());
    // Once x87 state may be the initial one, hosts differ in whether they hold it for in use.
    if (has(rule::kSaves) && restored_) mask &= 0xfe;
    // vpcmpeqd ymm0, ymm0, ymm0, so that SSE and AVX are in use for whoever looks; xor edx, edx; mov eax, mask
    for (const uint8_t byte : std::initializer_list<uint8_t>{0xc5, 0xfd, 0x76, 0xc0, 0x31, 0xd2, 0xb8, mask, 0, 0, 0})
      head_.bytes[head_.size++] = byte;
  };
  reserved_ = 1u << kAx | 1u << kDx;
  if (!has(rule::kRestores)) {
    fixed_target_ = target(832, 64);
    return set_mask();
  }
  const unsigned saved = static_cast<unsigned>(components()) & (restored_ ? 6u : 7u);
  restored_ = true;
  constexpr unsigned kArea = 832;
  const uint64_t area = kDataAddress + (random_.percent(50) ? 0xe00 : random_.below((kDataBytes - kArea) / 64) * 64);
  const uint64_t header = area + 512;
  raw({0xc5, 0xf9, 0xef, 0xc0});                     // vpxor xmm0, xmm0, xmm0
  raw({0xc5, 0xfe, 0x7f, 0x04, 0x25}, header);       // vmovdqu [header], ymm0
  raw({0xc5, 0xfe, 0x7f, 0x04, 0x25}, header + 32);  // vmovdqu [header + 32], ymm0
  const bool compacted = opcode_->feature == Feature::kXsavec;
  // vpcmpeqd ymm0, ymm0, ymm0; xor edx, edx; mov eax, mask; xsave or xsavec
  raw({0xc5, 0xfd, 0x76, 0xc0, 0x31, 0xd2, 0xb8, saved, 0, 0, 0, 0x0f, compacted ? 0xc7u : 0xaeu, 0x24, 0x25}, area);
  if (!host_is_intel()) overwrite_pointers(stream_.instructions.back(), area);
  if (!compacted || random_.percent(30)) store_word(header, static_cast<uint32_t>(components()));
  if (random_.percent(8)) {
    static constexpr uint32_t kWrong[] = {0x2000000, 0x80000000, 1, 0x100};
    const uint64_t word = random_.below(16);
    store_word(header + 4 * word, kWrong[word == 0 || word == 2 ? 0 : random_.below(4)]);
  }
  if (random_.percent(5)) store_word(area + 24, mxcsr());
  set_mask();
  fixed_target_ = random_.percent(97) ? area : area + random_.below(64);
}

void Generator::encode_modrm(Instruction& out) {
  const auto put = [&out](uint64_t byte) { out.bytes[out.size++] = static_cast<uint8_t>(byte); };
  if (!memory_) return put(0xc0 | (reg_ & 7) << 3 | (rm_register_ & 7));
  const Address& a = address_;
  put(a.mod << 6 | (reg_ & 7) << 3 | (a.rm & 7));
  if (a.sib) put(a.scale << 6 | (a.index & 7) << 3 | (a.base & 7));
  if (a.rip_target != 0) {
    out.rip_at = out.size;
    out.rip_target = a.rip_target;
  }
  std::memcpy(&out.bytes[out.size], &a.disp, a.disp_bytes);
  out.size = static_cast<uint8_t>(out.size + a.disp_bytes);
}

void Generator::encode_immediate(Instruction& out) {
  unsigned bytes = 0;
  uint64_t imm = value();
  switch (opcode_->imm) {
    case Imm::kNone: return;
    case Imm::kByte: bytes = 1; break;
    case Imm::kWord: bytes = 2; break;
    case Imm::kWide: bytes = operand16_ ? 2 : 4; break;
    case Imm::kFull: bytes = operand16_ && !rex_w_ ? 2 : rex_w_ ? 8 : 4; break;
    case Imm::kAddress:
      bytes = wide() ? (address_prefix_ ? 4 : 8) : (address_prefix_ ? 2 : 4);
      imm = anywhere(8) - (segment_prefix_ == 0x65 ? kGsBase : 0);
      break;
  }
  if (opcode_->imm == Imm::kWide && rex_w_) bytes = 4;
  if (has(rule::kBranch)) {
    out.branch_at = out.size;
    out.branch_bytes = static_cast<uint8_t>(bytes);
    out.branch_skips = static_cast<uint8_t>(random_.below(3));
  }
  std::memcpy(&out.bytes[out.size], &imm, bytes);
  out.size = static_cast<uint8_t>(out.size + bytes);
}

void Generator::encode_vex(Instruction& out) {
  const auto put = [&out](uint64_t byte) { out.bytes[out.size++] = static_cast<uint8_t>(byte); };
  const unsigned r = reg_ >> 3, x = memory_ && address_.sib ? address_.index >> 3 : 0;
  const unsigned b = memory_ ? (address_.sib ? address_.base >> 3 : address_.rm >> 3) : rm_register_ >> 3;
  const unsigned prefix = opcode_->prefix == 0 ? 0 : opcode_->prefix == 0x66 ? 1 : opcode_->prefix == 0xf3 ? 2 : 3;
  const unsigned vvvv = is(vex::kV) ? ~vvvv_ & 15u : 15;
  const unsigned payload = vvvv << 3 | (vex_l_ ? 4u : 0u) | prefix;
  if (opcode_->map == 1 && !rex_w_ && x == 0 && b == 0 && random_.percent(70)) {
    put(0xc5);
    put((r ^ 1) << 7 | payload);
  } else {
    put(0xc4);
    put((r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | opcode_->map);
    put((rex_w_ ? 0x80u : 0u) | payload);
  }
  put(byte_);
}

// MOV dword ptr [address], 0, or word ptr
void Generator::store_behind(Instruction& out, uint64_t address, unsigned bytes) {
  const auto place = static_cast<uint32_t>(address);
  const auto put = [&out](unsigned byte) { out.bytes[out.size++] = static_cast<uint8_t>(byte); };
  const uint8_t before = out.size;
  if (bytes == 2) put(0x66);
  for (const unsigned byte : {0xc7u, 0x04u, 0x25u}) put(byte);
  std::memcpy(&out.bytes[out.size], &place, 4);
  std::memset(&out.bytes[out.size + 4], 0, bytes);
  out.size = static_cast<uint8_t>(out.size + 4 + bytes);
  out.tail = static_cast<uint8_t>(out.tail + out.size - before);
}

bool Generator::saves_pointers() const {
  return has(rule::kEnvironment | rule::kSaves) || (has(rule::kAlign16) && opcode_->digit == 0);  // FXSAVE
}

// [APM 2, 11.4.4.3] AMD's processors keep and save the x87 pointers while an unmasked exception is pending, and FOP is
// not the same either: what of them is in an image is overwritten.
void Generator::overwrite_pointers(Instruction& out, uint64_t image) {
  if (!has(rule::kEnvironment)) store_behind(out, image + 6, 2);
  const unsigned begin = !has(rule::kEnvironment) ? 8 : operand16_ ? 6 : 12;
  const unsigned end = has(rule::kEnvironment) && operand16_ ? 14 : begin + 16;
  for (unsigned at = begin; at < end; at += 4) store_behind(out, image + at);
  if (!has(rule::kEnvironment)) store_behind(out, image + 28);  // MXCSR_MASK, of which AMD's have one bit more
}

// CMP al, imm8, with a SETC in front, or inside of a LAHF and a SAHF, which keep what is defined.
void Generator::define_flags(Instruction& out) {
  const auto put = [&out](uint64_t byte) { out.bytes[out.size++] = static_cast<uint8_t>(byte); };
  const uint8_t before = out.size;
  if (has(rule::kCarryOnly)) {  // setc [data]
    const auto place = static_cast<uint32_t>(kDataAddress + random_.below(kDataBytes));
    for (const unsigned byte : {0x0fu, 0x92u, 0x04u, 0x25u}) put(byte);
    std::memcpy(&out.bytes[out.size], &place, 4);
    out.size = static_cast<uint8_t>(out.size + 4);
  }
  if (has(rule::kAllButOverflow)) put(0x9f);
  put(0x3c);
  put(random_.next());
  if (has(rule::kAllButOverflow)) put(0x9e);
  out.tail = static_cast<uint8_t>(out.tail + out.size - before);
}

void Generator::encode() {
  Instruction out = head_;
  head_ = {};
  const auto put = [&out](uint64_t byte) { out.bytes[out.size++] = static_cast<uint8_t>(byte); };
  if (lock_) put(0xf0);
  if (segment_prefix_ != 0) put(segment_prefix_);
  if (address_prefix_) put(0x67);
  if (operand16_ && opcode_->prefix != 0x66) put(0x66);
  if (repeat_ != 0) put(repeat_);
  if (is(vex::kVex)) {
    encode_vex(out);
    if (opcode_->form != Form::kPlain) encode_modrm(out);
    encode_immediate(out);
    if (out.size <= out.bytes.size()) stream_.instructions.push_back(out);
    return;
  }
  if (opcode_->prefix != 0) put(opcode_->prefix);
  if (wide()) {
    unsigned rex = 0x40u | (rex_w_ ? 8u : 0u) | (reg_ >> 3) << 2;
    if (memory_)
      rex |= (address_.sib ? (address_.index >> 3) << 1 : 0u) | (address_.sib ? address_.base >> 3 : address_.rm >> 3);
    else
      rex |= rm_register_ >> 3;
    if (rex != 0x40 || random_.percent(10)) put(rex);
  }
  if (opcode_->map != 0) put(0x0f);
  if (opcode_->map == 2) put(0x38);
  if (opcode_->map == 3) put(0x3a);
  put(byte_);
  if (opcode_->form != Form::kPlain) encode_modrm(out);
  encode_immediate(out);
  // What a processor holds for in use is its own affair.
  if (has(rule::kSaves) && memory_) store_behind(out, fixed_target_ + 512);
  if (saves_pointers() && !host_is_intel()) overwrite_pointers(out, fixed_target_);
  if (has(rule::kFlagsUndefined) || (has(rule::kCarryOnly | rule::kAllButOverflow) && !host_is_intel()))
    define_flags(out);
  if (out.size <= out.bytes.size()) stream_.instructions.push_back(out);
}

void Generator::instruction(const Opcode& opcode) {
  opcode_ = &opcode;
  byte_ = opcode.first + static_cast<unsigned>(random_.below(opcode.last - opcode.first + 1u));
  choose_prefixes();
  reg_ = opcode.digit >= 0 ? static_cast<unsigned>(opcode.digit) : any_register();
  rm_register_ = any_register();
  const bool group = opcode.form != Form::kPlain && opcode.digit < 0 && opcode.map == 0 &&
                     ((byte_ >= 0x80 && byte_ <= 0x83) || (byte_ >= 0xc0 && byte_ <= 0xc1) || byte_ >= 0xd0);
  if (group) reg_ &= 7;
  if (opcode.form == Form::kPlain && !is(vex::kVex)) reg_ = wide() ? reg_ & 8 : 0, rm_register_ = any_register();
  vex_l_ = false;
  if (is(vex::kVex)) choose_vex();
  memory_ = opcode.form == Form::kMemory || (opcode.form == Form::kAny && random_.percent(50));
  const bool compares = group && byte_ <= 0x83 && (reg_ & 7) == 7;
  lock_ = memory_ && has(rule::kLock) && !compares && random_.percent(15);
  prepare_implicit();
  if (memory_) address_ = address(operand_bytes());
  encode();
}

void Generator::instructions(unsigned count) {
  constexpr unsigned kLongest = 256;  // of one instruction with all that belongs to it
  const auto fits = [this] {
    unsigned bytes = kLongest;
    for (const Instruction& made : stream_.instructions) bytes += made.size;
    return bytes < kCodeBytes;
  };
  while (stream_.instructions.size() < count && fits()) instruction(choose());
}

}  // namespace

Stream generate(uint64_t seed, bool wide, unsigned length) {
  Random random(seed * 2 + (wide ? 1 : 0));
  Stream stream;
  stream.seed = seed;
  stream.wide = wide;
  Generator generator(random, stream);
  generator.registers();
  generator.memory();
  generator.instructions(length);
  return stream;
}

World assemble(const Stream& stream, std::vector<uint32_t>& starts) {
  World world;
  world.wide = stream.wide;
  world.registers = stream.registers;
  world.memory = stream.memory;
  starts.clear();
  uint32_t at = 0;
  for (const Instruction& instruction : stream.instructions) {
    starts.push_back(at);
    at += instruction.size;
  }
  starts.push_back(at);
  for (size_t i = 0; i < stream.instructions.size(); ++i) {
    const Instruction& instruction = stream.instructions[i];
    uint8_t* const place = &world.code[starts[i]];
    const uint32_t next = starts[i] + instruction.size - instruction.tail;
    std::memcpy(place, instruction.bytes.data(), instruction.size);
    if (instruction.rip_at != 0) {
      const auto disp = static_cast<uint32_t>(instruction.rip_target - (kCodeAddress + next));
      std::memcpy(place + instruction.rip_at, &disp, 4);
    }
    if (instruction.branch_bytes != 0) {
      constexpr uint32_t kFarthest = 127;
      size_t to = std::min(i + 1 + instruction.branch_skips, stream.instructions.size());
      while (instruction.branch_bytes == 1 && starts[to] - next > kFarthest) --to;  // not past the long ones
      const auto base = static_cast<uint32_t>(kCodeAddress);
      const uint32_t disp = instruction.branch_absolute ? base + starts[to] : starts[to] - next;
      std::memcpy(place + instruction.branch_at, &disp, instruction.branch_bytes);
    }
  }
  world.code[at] = 0x0f;
  world.code[at + 1] = 0x0b;
  return world;
}

}  // namespace kite::streams
