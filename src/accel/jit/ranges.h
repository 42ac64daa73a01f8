// What translated code remembers of the places it accesses (docs/jit.md, memory).
#pragma once

#include "cpu/tlb.h"
#include "cpu/translation.h"

namespace kite::jit {

// Makes the range of `record` what is around an access that `entry`, of a TlbTable, allows. Translated code calls it
// with the guest's vector registers in the host's: it uses none, and calls nothing that might.
void fill_range(const cpu::TlbEntry* entry, cpu::RangeRecord* record, cpu::TranslationArea* area);

}  // namespace kite::jit
