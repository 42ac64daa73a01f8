// The routines that translated code enters and leaves through. They are emitted once at the start of the code memory.
#pragma once

#include "accel/jit/assembler.h"
#include "accel/jit/plan.h"

namespace kite::jit {

struct Runtime {
  // Loads the guest's registers and jumps to TranslationArea::code; comes back when the code has left.
  cpu::BlockTranslator::Entry enter = nullptr;
  // Jumped to with R10 = Exit: back to the run loop with rip = its target.
  const uint8_t* leave = nullptr;
  // Jumped to with R10 = rip and flags saved: back to the run loop.
  const uint8_t* leave_to = nullptr;
  // Called with R10 = Site and flags saved: the interpreter executes the instruction. Returns with flags both saved
  // and in EFLAGS, or leaves.
  const uint8_t* interpret = nullptr;
  // Jumped to with R10 = Site and flags saved: the interpreter executes the instruction and goes on from it.
  const uint8_t* hand_over = nullptr;
  // Jumped to with R10 = Site and flags saved: the interpreter executes the instruction, and code is entered where it
  // leads to if it can be.
  const uint8_t* execute = nullptr;
  // Called with R10 = host address, R11 = Site, EAX = bytes, flags saved: a store met a watched page.
  const uint8_t* notice = nullptr;

  // Called with R10 = linear address, RAX = RangeRecord, for each kind of rights, to read and to write; EFLAGS are
  // lost. ZF: the TLB has the page; R10 is the distance to the host's address, R11 that of the state byte, the range is
  // filled unless it moves, and the linear address is at kLinearSpare.
  using LookUps = std::array<std::array<const uint8_t*, 2>, static_cast<size_t>(cpu::TlbKind::kCount)>;
  LookUps look_up{};

  // Called with flags saved; RAX, R10, R11 and EFLAGS are lost. The vector registers become the guest's; with
  // load_x87 the x87 registers too, and ZF says whether they could: not while an exception is unmasked.
  const uint8_t* load_vectors = nullptr;
  const uint8_t* load_x87 = nullptr;

  // `profile`: TranslationArea::cycles is kept.
  void emit(Assembler& a, cpu::Cpu& cpu, const Layout& layout, bool profile);
};

// The exceptions of the SSE unit; translated code runs only while all are masked.
inline constexpr uint32_t kMxcsrMasks = 0x1f80;

// The handler of Site::end.
void resume(cpu::Cpu& cpu, const cpu::Op* op);

}  // namespace kite::jit
