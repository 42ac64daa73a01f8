#include <array>

#include "boot/entry_state.h"
#include "boot/protocols.h"
#include "support/bits.h"

namespace kite::boot {
namespace {

constexpr uint32_t kNotePhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY
constexpr uint32_t kStartMagic = 0x336ec578;

// [PVH] hvm_start_info, version 1.
struct StartInfo {
  uint32_t magic, version, flags, module_count;
  uint64_t modules, command_line, rsdp, memory_map;
  uint32_t memory_map_entries, reserved;
};
static_assert(sizeof(StartInfo) == 56);
struct Module {
  uint64_t address, size, command_line, reserved;
};
struct MemoryMapEntry {
  uint64_t address, size;
  uint32_t type, reserved;
};

// A structure somewhere in low memory.
Result<uint64_t> place(LoadContext& context, std::span<const uint8_t> bytes, std::string_view what) {
  KITE_ASSIGN(const uint64_t address, context.map.claim_low({.size = bytes.size()}, what));
  KITE_TRY(context.memory.write(address, bytes));
  return address;
}

template <class T>
std::span<const uint8_t> bytes_of(const std::vector<T>& items) {
  return {reinterpret_cast<const uint8_t*>(items.data()), items.size() * sizeof(T)};
}

Result<> add_initrd(LoadContext& context, StartInfo& info) {
  if (context.request.initrd_path.empty()) return {};
  KITE_ASSIGN(const FileBytes initrd, read_image(context.request.initrd_path, "initrd", kLargestFile));
  KITE_ASSIGN(
      const uint64_t address,
      context.map.claim_high({.size = align_up(initrd.size(), kPageSize), .alignment = kPageSize}, "the initrd"));
  KITE_TRY(context.memory.write(address, initrd));
  const std::vector<Module> modules = {{.address = address, .size = initrd.size(), .command_line = 0, .reserved = 0}};
  KITE_ASSIGN(info.modules, place(context, bytes_of(modules), "the module list"));
  info.module_count = 1;
  return {};
}

}  // namespace

bool is_pvh(const ElfImage& elf) { return find_note(elf, "Xen", kNotePhys32Entry).has_value(); }

Result<LoadedKernel> load_pvh(const ElfImage& elf, LoadContext& context) {
  const uint64_t entry = find_note(elf, "Xen", kNotePhys32Entry).value_or(0);
  if (entry > UINT32_MAX) return fail("its PVH entry point {:#x} lies above 4 GiB", entry);
  KITE_TRY(load_segments(elf, context.map, context.memory));

  StartInfo info{};
  info.magic = kStartMagic;
  info.version = 1;
  info.rsdp = context.request.acpi_rsdp;
  KITE_TRY(add_initrd(context, info));
  const std::string& text = context.request.command_line;
  KITE_ASSIGN(info.command_line,
              place(context, {reinterpret_cast<const uint8_t*>(text.c_str()), text.size() + 1}, "the command line"));
  std::vector<MemoryMapEntry> map;
  for (const E820Entry& range : context.request.e820)
    map.push_back(
        {.address = range.base, .size = range.size, .type = static_cast<uint32_t>(range.type), .reserved = 0});
  KITE_ASSIGN(info.memory_map, place(context, bytes_of(map), "the memory map"));
  info.memory_map_entries = static_cast<uint32_t>(map.size());
  KITE_ASSIGN(const uint64_t start,
              place(context, {reinterpret_cast<const uint8_t*>(&info), sizeof info}, "the start information"));

  KITE_ASSIGN(const uint64_t gdt, context.map.claim_low({.size = kGdtBytes}, "the GDT"));
  KITE_TRY(write_flat_gdt(context.memory, gdt, EntryMode::kProtected32));
  x86::ArchState state = protected_mode_entry(gdt, static_cast<uint32_t>(entry));
  state.gpr[x86::kRbx] = start;
  return LoadedKernel{.kind = KernelKind::kPvh, .entry = state};
}

}  // namespace kite::boot
