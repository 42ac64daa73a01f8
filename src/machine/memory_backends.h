// Memory that -object describes, made: RAM of its own, or a file that is mapped (huge pages, memory that others see).
#pragma once

#include <memory>
#include <string_view>

#include "machine/machine_config.h"
#include "memory/ram_block.h"

namespace kite::machine {

// What the backend of this id is; `who` asks for it, for the message.
Result<const MemoryBackend*> find_memory_backend(const MachineConfig& config, std::string_view who,
                                                 std::string_view id);
// Its size is rounded up to whole pages. A second call makes other memory, unless it is a file that is shared.
Result<std::shared_ptr<RamBlock>> make_memory(const MemoryBackend& backend);

}  // namespace kite::machine
