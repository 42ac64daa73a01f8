// Assembler: x86-64 instructions as bytes, written through one mapping of memory that is executed through another.
//
// Instructions are given by opcode, since most of what is emitted is the guest's own instruction with other registers.
// An opcode is written as it is read: 0x01, 0x0faf, 0x0f38f6; a mandatory prefix is given apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kite::jit {

enum Reg : uint8_t { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR9, kR10, kR11, kR12, kR13, kR14, kR15 };
inline constexpr uint8_t kNone = 0xff;

// Conditions by the low four bits of Jcc's opcode.
enum class Condition : uint8_t { kO, kNo, kB, kAe, kE, kNe, kBe, kA, kS, kNs, kP, kNp, kL, kGe, kLe, kG };

// A memory operand: [base + index << scale + disp], or so far from the Cpu's start, or [rip + ...], near the code.
struct Mem {
  uint8_t base = kNone;
  uint8_t index = kNone;
  uint8_t scale = 0;
  int32_t disp = 0;
  bool in_cpu = false;
  const void* near = nullptr;
  uint8_t behind = 0;  // bytes of the instruction that follow the address, where that is relative to RIP
};
inline Mem at(Reg base, int32_t disp = 0) { return {.base = base, .disp = disp}; }
inline Mem at(Reg base, Reg index, uint8_t scale = 0, int32_t disp = 0) {
  return {.base = base, .index = index, .scale = scale, .disp = disp};
}
inline Mem in_cpu(int32_t disp) { return {.disp = disp, .in_cpu = true}; }
inline Mem in_cpu(Reg index, int32_t disp) { return {.base = index, .disp = disp, .in_cpu = true}; }
inline Mem near_code(const void* place) { return {.near = place}; }
inline Mem before(unsigned bytes, Mem mem) {
  mem.behind = static_cast<uint8_t>(bytes);
  return mem;
}

class Assembler {
 public:
  // Writes at `write`, for execution at `run`.
  void start(uint8_t* write, const uint8_t* run) {
    at_ = write;
    delta_ = run - write;
  }
  // Where the Cpu is. GS leads to it too, but an address that fits takes a byte less and the host a cycle less. Where
  // it is near the code, too, addresses are relative to RIP: of those, the host knows without waiting for the store
  // what a load gets that was stored just before.
  void set_cpu(const void* cpu, size_t bytes) {
    const auto address = reinterpret_cast<uintptr_t>(cpu);
    cpu_ = address + bytes <= INT32_MAX ? static_cast<int32_t>(address) : 0;
  }
  [[nodiscard]] uint8_t* cursor() const { return at_; }
  [[nodiscard]] const uint8_t* here() const { return at_ + delta_; }

  void byte(uint8_t value) { *at_++ = value; }
  void word(uint16_t value) { put(value); }
  void dword(uint32_t value) { put(value); }
  void qword(uint64_t value) { put(value); }

  // --- instructions with ModRM. `size`: 1, 2, 4 or 8 bytes of operand. `reg` is a register or an opcode extension. ---
  void rr(unsigned size, uint32_t opcode, unsigned reg, unsigned rm, uint8_t prefix = 0, bool reg_is_byte = false,
          bool rm_is_byte = false) {
    if (prefix != 0) byte(prefix);
    if (size == 2) byte(0x66);
    uint8_t rex = static_cast<uint8_t>((size == 8 ? 8 : 0) | (reg >> 3) << 2 | rm >> 3);
    const bool low_bytes = (reg_is_byte && reg >= 4) || (rm_is_byte && rm >= 4);
    if (rex != 0 || low_bytes) byte(rex | 0x40);
    put_opcode(opcode);
    byte(static_cast<uint8_t>(0xc0 | (reg & 7) << 3 | (rm & 7)));
  }
  void rm(unsigned size, uint32_t opcode, unsigned reg, const Mem& mem, uint8_t prefix = 0, bool reg_is_byte = false) {
    if (mem.in_cpu && cpu_ == 0) byte(0x65);  // GS
    if (prefix != 0) byte(prefix);
    if (size == 2) byte(0x66);
    const unsigned base = mem.base == kNone ? 0 : mem.base, index = mem.index == kNone ? 0 : mem.index;
    const uint8_t rex = static_cast<uint8_t>((size == 8 ? 8 : 0) | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3);
    if (rex != 0 || (reg_is_byte && reg >= 4)) byte(rex | 0x40);
    put_opcode(opcode);
    put_address(reg & 7, mem);
  }

  // --- VEX-encoded: `map` 1 to 3, `prefix` 0, 0x66, 0xf3 or 0xf2; `vvvv` 0 when there is none ---
  struct Vex {
    uint8_t map = 1, prefix = 0, opcode = 0;
    bool w = false, l = false;
  };
  void vex_rr(const Vex& vex, unsigned reg, unsigned vvvv, unsigned rm) {
    put_vex(vex, reg, vvvv, 0, rm);
    byte(static_cast<uint8_t>(0xc0 | (reg & 7) << 3 | (rm & 7)));
  }
  void vex_rm(const Vex& vex, unsigned reg, unsigned vvvv, const Mem& mem) {
    if (mem.in_cpu && cpu_ == 0) byte(0x65);  // GS
    put_vex(vex, reg, vvvv, mem.index == kNone ? 0 : mem.index, mem.base == kNone ? 0 : mem.base);
    put_address(reg & 7, mem);
  }

  // --- moves ---
  void mov(unsigned size, Reg to, Reg from) { rr(size, 0x89, from, to); }
  void load(unsigned size, Reg to, const Mem& from) { rm(size, size == 1 ? 0x8a : 0x8b, to, from, 0, size == 1); }
  void store(unsigned size, const Mem& to, Reg from) { rm(size, size == 1 ? 0x88 : 0x89, from, to, 0, size == 1); }
  // The shortest form; flags are kept.
  void mov_imm(Reg to, uint64_t value) {
    if (value <= 0xffffffff) {
      if (to >= 8) byte(0x41);
      byte(static_cast<uint8_t>(0xb8 | (to & 7)));
      dword(static_cast<uint32_t>(value));
    } else if (fits_signed(value)) {
      rr(8, 0xc7, 0, to);
      dword(static_cast<uint32_t>(value));
    } else {
      byte(static_cast<uint8_t>(0x48 | to >> 3));
      byte(static_cast<uint8_t>(0xb8 | (to & 7)));
      qword(value);
    }
  }
  // 8 bytes: the immediate is sign-extended.
  void store_imm(unsigned size, const Mem& to, uint32_t value) {
    rm(size, size == 1 ? 0xc6 : 0xc7, 0, before(std::min(size, 4u), to));
    immediate(size, value);
  }
  void lea(unsigned size, Reg to, const Mem& address) { rm(size, 0x8d, to, address); }

  // --- arithmetic with immediates: 0 add, 1 or, 4 and, 5 sub, 6 xor, 7 cmp ---
  void alu_imm(unsigned size, unsigned operation, Reg to, uint32_t value) {
    const bool small = fits_byte(value) && size != 1;
    if (to == kRax && size >= 4 && !small) {  // a form of its own
      if (size == 8) byte(0x48);
      byte(static_cast<uint8_t>(operation << 3 | 5));
      return dword(value);
    }
    rr(size, size == 1 ? 0x80 : small ? 0x83 : 0x81, operation, to, 0, false, size == 1);
    immediate(small ? 1 : size, value);
  }
  void alu_imm(unsigned size, unsigned operation, const Mem& to, uint32_t value, uint8_t prefix = 0) {
    const bool small = fits_byte(value) && size != 1;
    rm(size, size == 1 ? 0x80 : small ? 0x83 : 0x81, operation, before(small ? 1 : std::min(size, 4u), to), prefix);
    immediate(small ? 1 : size, value);
  }
  void shift_imm(unsigned size, unsigned operation, Reg to, uint8_t count) {  // 4 shl, 5 shr, 7 sar
    rr(size, 0xc1, operation, to);
    byte(count);
  }
  void immediate(unsigned size, uint32_t value) {
    if (size == 1)
      byte(static_cast<uint8_t>(value));
    else if (size == 2)
      word(static_cast<uint16_t>(value));
    else
      dword(value);
  }

  // --- control flow. The displacement is written by bind(); jumps answer where it is. ---
  uint8_t* jcc(Condition condition) {
    byte(0x0f);
    byte(static_cast<uint8_t>(0x80 | static_cast<unsigned>(condition)));
    dword(0);
    return at_ - 4;
  }
  uint8_t* jmp() {
    byte(0xe9);
    dword(0);
    return at_ - 4;
  }
  uint8_t* call() {
    byte(0xe8);
    dword(0);
    return at_ - 4;
  }
  void jcc(Condition condition, const uint8_t* target) { bind(jcc(condition), target); }
  void jmp(const uint8_t* target) { bind(jmp(), target); }
  void call(const uint8_t* target) { bind(call(), target); }
  void jmp(const Mem& place) { rm(4, 0xff, 4, place); }
  void call(const Mem& place) { rm(4, 0xff, 2, place); }
  void ret() { byte(0xc3); }
  void ret(uint16_t drops) {
    byte(0xc2);
    word(drops);
  }
  // The address of a place that bind() gives: `lea to, [rip + ...]`.
  uint8_t* lea_here(Reg to) {
    byte(static_cast<uint8_t>(0x48 | (to >> 3) << 2));
    byte(0x8d);
    byte(static_cast<uint8_t>((to & 7) << 3 | 5));
    dword(0);
    return at_ - 4;
  }
  // `site` as jmp() and jcc() answered it, `target` as here() answers it.
  void bind(uint8_t* site, const uint8_t* target) const { patch(site, delta_, target); }
  static void patch(uint8_t* site, ptrdiff_t delta, const uint8_t* target) {
    const auto displacement = static_cast<int32_t>(target - (site + delta + 4));
    std::memcpy(site, &displacement, 4);
  }
  // Makes what has been emitted between two places do nothing. The longest NOPs, as one takes up a place in the
  // pipeline whatever its length (SDM 2B, NOP).
  void erase(const uint8_t* from, const uint8_t* to) const {
    static constexpr uint8_t kNops[][8] = {{0x90},
                                           {0x66, 0x90},
                                           {0x0f, 0x1f, 0x00},
                                           {0x0f, 0x1f, 0x40, 0},
                                           {0x0f, 0x1f, 0x44, 0, 0},
                                           {0x66, 0x0f, 0x1f, 0x44, 0, 0},
                                           {0x0f, 0x1f, 0x80, 0, 0, 0, 0},
                                           {0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0}};
    for (uint8_t* at = const_cast<uint8_t*>(from) - delta_; from < to;) {
      const size_t bytes = std::min<size_t>(static_cast<size_t>(to - from), std::size(kNops));
      std::memcpy(at, kNops[bytes - 1], bytes);
      at += bytes;
      from += bytes;
    }
  }
  void bind_here(uint8_t* site) const { bind(site, here()); }

  static bool fits_signed(uint64_t value) {
    return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(value))) == value;
  }

 private:
  static bool fits_byte(uint32_t value) {
    return static_cast<uint32_t>(static_cast<int32_t>(static_cast<int8_t>(value))) == value;
  }
  template <class T>
  void put(T value) {
    std::memcpy(at_, &value, sizeof value);
    at_ += sizeof value;
  }
  void put_opcode(uint32_t opcode) {
    if (opcode > 0xffff) byte(static_cast<uint8_t>(opcode >> 16));
    if (opcode > 0xff) byte(static_cast<uint8_t>(opcode >> 8));
    byte(static_cast<uint8_t>(opcode));
  }
  void put_vex(const Vex& vex, unsigned reg, unsigned vvvv, unsigned index, unsigned base) {
    const unsigned prefix = vex.prefix == 0x66 ? 1 : vex.prefix == 0xf3 ? 2 : vex.prefix == 0xf2 ? 3 : 0;
    byte(0xc4);
    byte(static_cast<uint8_t>((reg < 8 ? 0x80 : 0) | (index < 8 ? 0x40 : 0) | (base < 8 ? 0x20 : 0) | vex.map));
    byte(static_cast<uint8_t>((vex.w ? 0x80 : 0) | (~vvvv & 15) << 3 | (vex.l ? 4 : 0) | prefix));
    byte(vex.opcode);
  }
  void put_address(unsigned reg, const Mem& mem) {
    const auto modrm = [&](unsigned mod, unsigned rm) { byte(static_cast<uint8_t>(mod << 6 | reg << 3 | rm)); };
    const auto sib = [&](unsigned index, unsigned base) {
      byte(static_cast<uint8_t>(unsigned{mem.scale} << 6 | (index & 7) << 3 | (base & 7)));
    };
    const bool has_index = mem.index != kNone;
    const bool is_field = mem.in_cpu && cpu_ != 0 && mem.base == kNone && !has_index;
    if (mem.near != nullptr || is_field) {
      const auto place = is_field ? static_cast<intptr_t>(cpu_) + mem.disp : reinterpret_cast<intptr_t>(mem.near);
      const intptr_t distance = place - (reinterpret_cast<intptr_t>(here()) + 1 + 4 + mem.behind);
      if (mem.near != nullptr || distance == static_cast<int32_t>(distance)) {
        modrm(0, 5);
        return dword(static_cast<uint32_t>(distance));
      }
    }
    const int32_t disp = mem.in_cpu ? mem.disp + cpu_ : mem.disp;
    if (mem.base == kNone) {
      modrm(0, 4);
      sib(has_index ? unsigned{mem.index} : 4u, 5);
      dword(static_cast<uint32_t>(disp));
      return;
    }
    const bool small = disp == static_cast<int8_t>(disp);
    const unsigned mod = disp == 0 && (mem.base & 7) != 5 ? 0 : small ? 1 : 2;
    if (has_index || (mem.base & 7) == 4) {
      modrm(mod, 4);
      sib(has_index ? unsigned{mem.index} : 4u, mem.base);
    } else {
      modrm(mod, mem.base & 7);
    }
    if (mod == 1) byte(static_cast<uint8_t>(disp));
    if (mod == 2) dword(static_cast<uint32_t>(disp));
  }

  uint8_t* at_ = nullptr;
  ptrdiff_t delta_ = 0;
  int32_t cpu_ = 0;  // 0: by GS
};

}  // namespace kite::jit
