// What translated code remembers of the places it accesses (docs/jit.md, memory).
#pragma once

#include "cpu/tlb.h"
#include "cpu/translation.h"

namespace kite::jit {

// Makes the range of `record` what is around an access at `linear` that `table` allows. Translated code calls it
// with the guest's vector registers in the host's: it uses none, and calls nothing that might.
void fill_range(const cpu::TlbTable* table, cpu::RangeRecord* record, cpu::TranslationArea* area, uint64_t linear);

}  // namespace kite::jit
