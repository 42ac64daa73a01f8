// REP MOVS and REP STOS within a page: the host's own instruction on the host's memory.
#include <algorithm>
#include <cstddef>

#include "accel/jit/emitter.h"

namespace kite::jit {

using Code = x86::Op;

namespace {

constexpr auto kAccumulator = static_cast<Reg>(kHost[x86::kRax]);
// The string instructions have their operands where the guest's are.
static_assert(kHost[x86::kRcx] == kRcx && kHost[x86::kRsi] == kRsi && kHost[x86::kRdi] == kRdi);

unsigned log_of(unsigned bytes) { return bytes == 8 ? 3 : bytes == 4 ? 2 : bytes == 2 ? 1 : 0; }

}  // namespace

BlockEmitter::Outcome BlockEmitter::strings() {
  switch (insn().op) {
    case Code::kMovs:
    case Code::kStos: return repeat_within_page();
    default: return Outcome::kInterpret;
  }
}

// The TLB has the page that holds all RCX elements from `first` on, or the interpreter takes over: R10 is the distance
// to the host's address, and for stores R11 the state byte's address.
void BlockEmitter::look_up_elements(Reg first, unsigned log, bool write) {
  const auto field = [&](int32_t offset) { return in_cpu(kR11, tlb_ + offset); };
  note_look_up(1u << log, write);
  a_.lea(8, kRax, at(first, kRcx, static_cast<uint8_t>(log), -1));  // of the last byte
  a_.mov(4, kR11, first);
  a_.shift_imm(4, 5, kR11, kTlbShift);
  a_.alu_imm(4, 4, kR11, kTlbMask);
  a_.alu_imm(8, 4, kRax, ~static_cast<uint32_t>(kPageSize - 1));
  a_.rm(8, 0x3b, kRax, field(write ? kTlbWriteTag : kTlbReadTag));  // cmp
  miss(a_.jcc(Condition::kNe));
  a_.load(8, kR10, field(kTlbAddend));
  if (write) a_.load(8, kR11, field(kTlbPageState));
}

// Forward, and no further than a page, so that it cannot fault on its way and is soon done. What is longer, the
// interpreter does page by page.
BlockEmitter::Outcome BlockEmitter::repeat_within_page() {
  const bool moves = insn().op == Code::kMovs;
  if (!wide_ || op().address_size != 8 || !(insn().rep || insn().repne) || (moves && !op().flat))
    return Outcome::kInterpret;
  const unsigned size = (insn().opcode & 1) == 0 ? 1 : std::min<unsigned>(op().operand_size, 8), log = log_of(size);
  save_flags();
  a_.rm(4, 0xf7, 0, before(4, in_cpu(layout_.rflags)));  // test
  a_.dword(static_cast<uint32_t>(x86::flag::kDf));
  miss(a_.jcc(Condition::kNe));
  a_.rr(8, 0x85, kRcx, kRcx);  // test
  uint8_t* const nothing = a_.jcc(Condition::kE);
  a_.alu_imm(8, 7, kRcx, static_cast<uint32_t>(kPageSize >> log));
  miss(a_.jcc(Condition::kA));
  const Mem count = in_cpu(layout_.spare), source = in_cpu(layout_.spare + 16);
  if (moves) {
    look_up_elements(kRsi, log, false);
    a_.store(8, source, kR10);
  }
  look_up_elements(kRdi, log, true);
  a_.store(8, count, kRcx);
  if (moves)
    a_.rm(8, 0x03, kRsi, source);  // add
  else
    a_.mov(8, kRax, kAccumulator);
  a_.rr(8, 0x01, kR10, kRdi);  // add
  a_.byte(0xf3);
  if (size == 2) a_.byte(0x66);
  if (size == 8) a_.byte(0x48);
  a_.byte(static_cast<uint8_t>((moves ? 0xa4 : 0xaa) | (size == 1 ? 0 : 1)));
  a_.rr(8, 0x29, kR10, kRdi);               // sub
  if (moves) a_.rm(8, 0x2b, kRsi, source);  // sub
  stored({.mem = {}, .bytes = size, .elements = true});
  a_.bind_here(nothing);
  return Outcome::kDone;
}

// Behind the store: where it began in the host's memory to R10, and its bytes to RAX.
void BlockEmitter::notice_elements(unsigned size) {
  cold_.load(8, kRax, in_cpu(layout_.spare));
  if (size != 1) cold_.shift_imm(8, 4, kRax, static_cast<uint8_t>(log_of(size)));
  cold_.lea(8, kR10, at(kR10, kRdi));
  cold_.rr(8, 0x29, kRax, kR10);  // sub
}

}  // namespace kite::jit
