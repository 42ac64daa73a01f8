// MOVDIR64B and SERIALIZE. MOVDIRI is a plain store (exec_move.cc).
#include <array>

#include "cpu/exec.h"

namespace kite::cpu {
namespace {

using x86::Seg;

// [SDM 2B MOVDIR64B] The destination is in ES, at the register that ModRM.reg names; it must be aligned to its size.
void move_64_bytes(Cpu& cpu, const Op* op) {
  constexpr unsigned kBytes = 64;
  std::array<uint8_t, kBytes> line;
  uint64_t from = 0, to = 0;
  uint64_t ea = cpu.state.gpr[op->dst / 8];
  if (op->address_size != 8) ea = op->address_size == 4 ? static_cast<uint32_t>(ea) : static_cast<uint16_t>(ea);

  if (!cpu.linear(op, cpu.effective_address(op), kBytes, Access::kRead, from) ||
      !cpu.read_bytes(from, line.data(), kBytes, segment_of(op)))
    KITE_FAULT(cpu, op);
  if (cpu.code64)
    to = ea;
  else if (!cpu.segment_linear(Seg::kEs, ea, kBytes, Access::kWrite, to))
    KITE_FAULT(cpu, op);
  if (to % kBytes != 0) {
    cpu.raise(x86::Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  if (!cpu.write_bytes(to, line.data(), kBytes, Seg::kEs)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// [SDM 3A 9.3] Nothing of this CPU is ahead of the instruction that it executes.
void serialize(Cpu& cpu, const Op* op) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  KITE_NEXT(cpu, op);
}

}  // namespace

Handler direct_handler(const Binding& b) {
  if (b.insn.op == Code::kMovdir64b) return move_64_bytes;
  return b.insn.op == Code::kSerialize ? serialize : nullptr;
}

}  // namespace kite::cpu
