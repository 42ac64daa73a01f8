// What the architecture leaves open and processors other than Intel's do otherwise than Kite, which follows those.
#pragma once

#include "streams/snapshot.h"
#include "x86/insn.h"

namespace kite::streams {

// The instruction of a stream at a linear address; an invalid one outside of it.
x86::Insn instruction_at(const World& world, uint64_t rip);

// #AC, #GP, #SS, #PF
bool is_memory_fault(uint64_t vector);

// Makes that the same in both. False when even which fault an instruction raises is open: there is nothing to compare.
bool tolerate(Outcome& host, Outcome& guest, const World& world);

}  // namespace kite::streams
