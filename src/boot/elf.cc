#include "boot/elf.h"

#include <algorithm>

#include "support/bits.h"

namespace kite::boot {
namespace {

constexpr uint32_t kMagic = 0x464c457f;
constexpr uint8_t kClass32 = 1, kClass64 = 2, kLittleEndian = 1;
constexpr uint16_t kMachineI386 = 3, kMachineX8664 = 62;
constexpr uint32_t kLoad = 1, kNote = 4;
// More than any kernel has; they bound the work that a damaged file can cause.
constexpr unsigned kMostPrograms = 256;
constexpr uint64_t kMostNoteBytes = 1 << 16;

struct Header32 {
  uint8_t ident[16];
  uint16_t type, machine;
  uint32_t version, entry, phoff, shoff, flags;
  uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct Program32 {
  uint32_t type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
struct Header64 {
  uint8_t ident[16];
  uint16_t type, machine;
  uint32_t version;
  uint64_t entry, phoff, shoff;
  uint32_t flags;
  uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct Program64 {
  uint32_t type, flags;
  uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

template <class Program>
Result<> add_program(const ImageBytes& image, const Program& program, ElfImage& elf) {
  if (program.type != kLoad && program.type != kNote) return {};
  const auto bytes = image.slice(program.offset, program.filesz);
  if (!bytes)
    return fail("it is truncated: a segment of {} bytes at {:#x} reaches over the end of the file",
                uint64_t{program.filesz}, uint64_t{program.offset});
  if (program.type == kNote) {
    if (bytes->size() <= kMostNoteBytes) elf.notes.push_back(*bytes);
    return {};
  }
  if (program.memsz < program.filesz)
    return fail("its ELF header is damaged: a segment of {} bytes has {} in the file", uint64_t{program.memsz},
                uint64_t{program.filesz});
  if (program.memsz != 0)
    elf.segments.push_back(
        {.bytes = *bytes, .physical = program.paddr, .virtual_address = program.vaddr, .memory_size = program.memsz});
  return {};
}

template <class Header, class Program>
Result<ElfImage> parse(const ImageBytes& image, uint16_t other_machine) {
  const auto header = image.get<Header>(0);
  if (!header) return fail("it is truncated: the ELF header is not whole");
  if (header->machine != kMachineX8664 && header->machine != other_machine)
    return fail("it is made for another processor (ELF machine {}); Kite runs i386 and x86-64",
                uint16_t{header->machine});
  if (header->phentsize < sizeof(Program))
    return fail("its ELF header is damaged: program headers of {} bytes", uint16_t{header->phentsize});
  if (header->phnum > kMostPrograms)
    return fail("its ELF header names {} segments; Kite loads up to {}", uint16_t{header->phnum}, kMostPrograms);
  ElfImage elf;
  elf.is_64 = sizeof(Header) == sizeof(Header64);
  elf.entry = header->entry;
  for (uint64_t i = 0; i < header->phnum; ++i) {
    const uint64_t offset = i * header->phentsize;
    const auto program =
        header->phoff > UINT64_MAX - offset ? std::nullopt : image.get<Program>(header->phoff + offset);
    if (!program) return fail("it is truncated: program header {} lies beyond the end of the file", i);
    KITE_TRY(add_program(image, *program, elf));
  }
  if (elf.segments.empty()) return fail("its ELF header names nothing to load");
  return elf;
}

}  // namespace

bool is_elf(const ImageBytes& image) { return image.get<uint32_t>(0) == kMagic; }

Result<ElfImage> parse_elf(const ImageBytes& image) {
  const auto elf_class = image.value<uint8_t>(4);
  if (image.value<uint8_t>(5) != kLittleEndian || (elf_class != kClass32 && elf_class != kClass64))
    return fail("its ELF header is damaged or made for another processor");
  auto elf = elf_class == kClass64 ? parse<Header64, Program64>(image, kMachineX8664)
                                   : parse<Header32, Program32>(image, kMachineI386);
  if (!elf) return elf;
  for (const ElfSegment& segment : elf->segments) {
    if (elf->entry < segment.virtual_address || elf->entry - segment.virtual_address >= segment.memory_size) continue;
    elf->entry = elf->entry - segment.virtual_address + segment.physical;
    break;
  }
  return elf;
}

std::optional<uint64_t> find_note(const ElfImage& elf, std::string_view owner, uint32_t type) {
  struct NoteHeader {
    uint32_t name_size, descriptor_size, type;
  };
  for (const std::span<const uint8_t> segment : elf.notes) {
    const ImageBytes notes(segment);
    for (uint64_t at = 0; at < notes.size();) {
      const auto header = notes.get<NoteHeader>(at);
      if (!header) break;
      const uint64_t name_at = at + sizeof(NoteHeader);
      const uint64_t descriptor_at = name_at + align_up(header->name_size, 4);
      const auto name = notes.slice(name_at, header->name_size);
      const auto descriptor = notes.slice(descriptor_at, header->descriptor_size);
      if (!name || !descriptor) break;
      const bool named = name->size() == owner.size() + 1 && name->back() == 0 &&
                         std::equal(owner.begin(), owner.end(), name->begin());
      if (named && header->type == type && (descriptor->size() == 4 || descriptor->size() == 8))
        return load_le(descriptor->data(), descriptor->size());
      at = descriptor_at + align_up(header->descriptor_size, 4);
    }
  }
  return std::nullopt;
}

Result<> load_segments(const ElfImage& elf, BootMap& map, GuestMemory& memory) {
  for (const ElfSegment& segment : elf.segments)
    KITE_TRY(map.claim(segment.physical, segment.memory_size, "the kernel"));
  for (const ElfSegment& segment : elf.segments) {
    KITE_TRY(memory.write(segment.physical, segment.bytes));
    KITE_TRY(memory.fill(segment.physical + segment.bytes.size(), segment.memory_size - segment.bytes.size(), 0));
  }
  return {};
}

}  // namespace kite::boot
