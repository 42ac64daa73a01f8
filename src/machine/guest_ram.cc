#include "machine/guest_ram.h"

#include <algorithm>

namespace kite::machine {

std::vector<std::shared_ptr<RamBlock>> guest_ram(AddressSpace& memory) {
  std::vector<std::shared_ptr<RamBlock>> blocks;
  const EpochGuard guard;
  for (const FlatRange& range : memory.view(guard).ranges()) {
    if (range.kind != RegionKind::kRam) continue;
    if (std::ranges::find(blocks, range.region->block()) == blocks.end()) blocks.push_back(range.region->block());
  }
  return blocks;
}

}  // namespace kite::machine
