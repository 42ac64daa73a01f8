// ELF executables as boot loaders see them: program headers, checked. [ELF] System V ABI, chapter 5.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "boot/boot_map.h"
#include "boot/image_bytes.h"
#include "memory/guest_memory.h"

namespace kite::boot {

struct ElfSegment {
  std::span<const uint8_t> bytes;  // from the file; the rest up to `memory_size` is zero
  uint64_t physical = 0;
  uint64_t virtual_address = 0;
  uint64_t memory_size = 0;
};

struct ElfImage {
  bool is_64 = false;
  uint64_t entry = 0;                           // physical: translated where it lies in a segment
  std::vector<ElfSegment> segments;             // PT_LOAD that take memory
  std::vector<std::span<const uint8_t>> notes;  // PT_NOTE
};

[[nodiscard]] bool is_elf(const ImageBytes& image);

// Little-endian ELF32 or ELF64 executables for i386 or x86-64. The image outlives what is answered.
Result<ElfImage> parse_elf(const ImageBytes& image);

// The descriptor of the first note of this owner and type: 4 or 8 bytes as a number.
std::optional<uint64_t> find_note(const ElfImage& elf, std::string_view owner, uint32_t type);

// Claims and writes every segment.
Result<> load_segments(const ElfImage& elf, BootMap& map, GuestMemory& memory);

}  // namespace kite::boot
