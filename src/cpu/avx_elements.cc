// Instructions that touch only some elements of a vector: VMASKMOVPS and its kin, and the gathers. An element whose
// mask is clear is not looked at, so it cannot fault; a gather that faults shows how far it came.
#include <algorithm>
#include <array>
#include <cstring>

#include "cpu/avx.h"
#include "cpu/fpu_ops.h"

namespace kite::cpu::fpu {
namespace {

using x86::Operand;
using x86::OperandKind;

uint8_t* low_half(Cpu& cpu, unsigned number) { return image(cpu) + kXmm0 + 16 * number; }
uint8_t* high_half(Cpu& cpu, unsigned number) { return cpu.arch.ymm_high.reg[number].data(); }

using Vector32 = std::array<uint8_t, 32>;

Vector32 read_register(Cpu& cpu, unsigned number) {
  Vector32 value;
  std::memcpy(value.data(), low_half(cpu, number), 16);
  std::memcpy(value.data() + 16, high_half(cpu, number), 16);
  return value;
}
// The bytes of `value` from `bytes` on are written as zeroes.
void write_register(Cpu& cpu, unsigned number, const Vector32& value, unsigned bytes) {
  Vector32 out{};
  std::memcpy(out.data(), value.data(), bytes);
  std::memcpy(low_half(cpu, number), out.data(), 16);
  std::memcpy(high_half(cpu, number), out.data() + 16, 16);
}

// The sign of element `i` of `size` bytes.
bool selected(const Vector32& mask, unsigned i, unsigned size) { return (mask[(i + 1) * size - 1] & 0x80) != 0; }

// --- masked moves

// VMASKMOVPS and VPMASKMOVD work on 4 bytes, the others on 8.
unsigned masked_element(const x86::Insn& insn) {
  if (insn.opcode == 0x2c || insn.opcode == 0x2e) return 4;
  return insn.opcode == 0x2d || insn.opcode == 0x2f || insn.rex_w ? 8 : 4;
}

// The linear address of an element of the operand at `ea`; only what begins the operand wraps in the address size.
bool element_address(Cpu& cpu, const Op* op, uint64_t ea, unsigned size, Access access, uint64_t& address) {
  return cpu.linear(op, cpu.code64 ? ea : static_cast<uint32_t>(ea), size, access, address);
}

// [SDM 2C VMASKMOV] No #AC for any mask.
void masked_load(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  const x86::Insn& insn = *op->insn;
  const unsigned bytes = insn.vector_bytes, size = masked_element(insn);
  const Vector32 mask = read_register(cpu, insn.operand[1].reg);
  const uint64_t ea = cpu.effective_address(op);
  Vector32 value{};
  for (unsigned at = 0; at < bytes; at += size) {
    if (!selected(mask, at / size, size)) continue;
    uint64_t address = 0;
    if (!element_address(cpu, op, ea + at, size, Access::kRead, address)) KITE_FAULT(cpu, op);
    const uint8_t* const hit = cpu.read_hit(address, size);
    if (hit != nullptr) [[likely]]
      std::memcpy(&value[at], hit, size);
    else if (!cpu.read_bytes(address, &value[at], size, segment_of(op)))
      KITE_FAULT(cpu, op);
  }
  write_register(cpu, insn.operand[0].reg, value, bytes);
  KITE_NEXT(cpu, op);
}

// All of it is known to be writable before any is written. In CR2 hosts show the first byte that is selected, or the
// last one when the second page is missing.
void masked_store(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  const x86::Insn& insn = *op->insn;
  const unsigned bytes = insn.vector_bytes, size = masked_element(insn);
  const Vector32 mask = read_register(cpu, insn.operand[1].reg);
  const Vector32 value = read_register(cpu, insn.operand[2].reg);
  const uint64_t ea = cpu.effective_address(op);
  std::array<uint64_t, 8> addresses{};
  uint64_t first = 0, last = 0;
  unsigned count = 0;
  for (unsigned at = 0; at < bytes; at += size) {
    if (!selected(mask, at / size, size)) continue;
    uint64_t& address = addresses[at / size];
    if (!element_address(cpu, op, ea + at, size, Access::kWrite, address)) KITE_FAULT(cpu, op);
    if (count++ == 0) first = address;
    last = offset_linear(cpu, address, size - 1);
  }
  if (count != 0 &&
      (!cpu.probe(first, 1, Access::kWrite, segment_of(op)) || !cpu.probe(last, 1, Access::kWrite, segment_of(op))))
    KITE_FAULT(cpu, op);
  for (unsigned at = 0; at < bytes; at += size) {
    if (!selected(mask, at / size, size)) continue;
    if (!cpu.write_bytes(addresses[at / size], &value[at], size, segment_of(op))) KITE_FAULT(cpu, op);
  }
  KITE_NEXT(cpu, op);
}

// --- gathers

struct Gather {
  unsigned count = 0;         // of elements
  unsigned size = 0;          // of one, bytes
  unsigned index_size = 0;    // of one index, bytes
  unsigned vector_bytes = 0;  // of destination and mask
};
Gather shape_of(const x86::Insn& insn) {
  Gather gather;
  gather.size = insn.rex_w ? 8 : 4;
  gather.index_size = (insn.opcode & 1) != 0 ? 8 : 4;
  gather.count = insn.vector_bytes / std::max(gather.size, gather.index_size);
  gather.vector_bytes = gather.count * gather.size;
  return gather;
}

uint64_t index_at(const Vector32& indices, unsigned i, unsigned size) {
  const uint8_t* const at = &indices[i * size];
  return size == 8 ? load<uint64_t>(at) : static_cast<uint64_t>(int64_t{load<int32_t>(at)});
}

// [SDM 2C VPGATHERDD] Elements are loaded from the lowest to the highest; the mask of each is cleared when it is done,
// so that an instruction begun anew after a fault goes on where it was. What hosts leave behind after a fault is done
// here as well: masks not yet used become all ones or all zeroes. No #AC.
void gather(Cpu& cpu, const Op* op) {
  if (!avx_allowed(cpu)) KITE_FAULT(cpu, op);
  const x86::Insn& insn = *op->insn;
  const Gather shape = shape_of(insn);
  const unsigned to = insn.operand[0].reg, mask_register = insn.operand[2].reg;
  const Vector32 indices = read_register(cpu, insn.mem.index);
  Vector32 value = read_register(cpu, to), mask = read_register(cpu, mask_register);
  for (unsigned at = 0; at < insn.vector_bytes; at += shape.size)
    std::memset(&mask[at], selected(mask, at / shape.size, shape.size) ? 0xff : 0, shape.size);
  const uint64_t base = cpu.state.gpr[op->base] + static_cast<uint64_t>(op->disp);
  bool loaded = false;
  for (unsigned i = 0; i < shape.count; ++i) {
    const unsigned at = i * shape.size;
    if (selected(mask, i, shape.size)) {
      uint64_t ea = base + (index_at(indices, i, shape.index_size) << insn.mem.scale);
      if (op->address_size == 4) ea = static_cast<uint32_t>(ea);
      uint64_t address = 0;
      if (!element_address(cpu, op, ea, shape.size, Access::kRead, address) ||
          !cpu.read_bytes(address, &value[at], shape.size, segment_of(op))) {
        if (loaded) write_register(cpu, to, value, insn.vector_bytes);
        write_register(cpu, mask_register, mask, insn.vector_bytes);
        KITE_FAULT(cpu, op);
      }
      loaded = true;
    }
    std::memset(&mask[at], 0, shape.size);
  }
  write_register(cpu, to, value, shape.vector_bytes);
  write_register(cpu, mask_register, mask, 0);
  KITE_NEXT(cpu, op);
}

}  // namespace

Handler element_handler(Cpu&, Op& op) {
  const x86::Insn& insn = *op.insn;
  if (insn.op == x86::Op::kGather) return gather;
  return insn.mem_write ? masked_store : masked_load;
}

}  // namespace kite::cpu::fpu
