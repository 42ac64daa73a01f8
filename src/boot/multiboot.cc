#include <algorithm>
#include <array>
#include <string>

#include "boot/entry_state.h"
#include "boot/protocols.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::boot {
namespace {

constexpr uint32_t kHeaderMagic = 0x1badb002, kLoaderMagic = 0x2badb002;
constexpr uint64_t kSearchBytes = 8192;
constexpr uint64_t kMib = uint64_t{1} << 20;

// Header flags [Multiboot] 3.1.2. Bits 0-15 are demands that a loader must know.
constexpr uint32_t kPageAlign = 1u << 0, kMemoryInfo = 1u << 1, kVideoMode = 1u << 2, kAddressFields = 1u << 16;
constexpr uint32_t kDemands = 0xffff;
// Information flags [Multiboot] 3.3.
constexpr uint32_t kHasMemory = 1u << 0, kHasCommandLine = 1u << 2, kHasModules = 1u << 3, kHasMemoryMap = 1u << 6,
                   kHasLoaderName = 1u << 9;
// The block lies in conventional memory above what boot sectors and real-mode images traditionally use.
constexpr uint64_t kInfoLowest = 0x10000, kConventionalEnd = 0xa0000;

struct Header {
  uint32_t magic, flags, checksum;
  uint32_t header_address, load_address, load_end, bss_end, entry;  // with kAddressFields
};

struct FoundHeader {
  uint64_t offset;
  Header header;
};

std::optional<FoundHeader> find_header(const ImageBytes& image) {
  const uint64_t end = std::min(image.size(), kSearchBytes);
  for (uint64_t at = 0; at + 12 <= end; at += 4) {
    const auto word = [&](uint64_t offset) { return image.value<uint32_t>(at + offset); };
    if (word(0) != kHeaderMagic || word(0) + word(4) + word(8) != 0) continue;
    return FoundHeader{.offset = at,
                       .header = {.magic = word(0),
                                  .flags = word(4),
                                  .checksum = word(8),
                                  .header_address = word(12),
                                  .load_address = word(16),
                                  .load_end = word(20),
                                  .bss_end = word(24),
                                  .entry = word(28)}};
  }
  return std::nullopt;
}

// An image that tells its addresses in the header, whatever format the rest has [Multiboot] 3.1.3.
Result<uint32_t> load_flat(const ImageBytes& image, const FoundHeader& found, LoadContext& context) {
  const Header& header = found.header;
  const uint64_t before = uint64_t{header.header_address} - header.load_address;
  if (header.load_address > header.header_address || before > found.offset)
    return fail("its multiboot header is damaged: it loads at {:#x} with the header at {:#x}", header.load_address,
                header.header_address);
  const uint64_t start = found.offset - before;
  if (header.load_end != 0 && header.load_end < header.load_address)
    return fail("its multiboot header is damaged: it ends at {:#x} before it begins at {:#x}", header.load_end,
                header.load_address);
  const uint64_t bytes = header.load_end == 0 ? image.size() - start : uint64_t{header.load_end} - header.load_address;
  const auto content = image.slice(start, bytes);
  if (!content)
    return fail("it is truncated: its header tells of {} bytes, the file has {}", start + bytes, image.size());
  const uint64_t end = std::max<uint64_t>(header.load_address + bytes, header.bss_end);
  KITE_TRY(context.map.claim(header.load_address, end - header.load_address, "the kernel"));
  KITE_TRY(context.memory.write(header.load_address, *content));
  KITE_TRY(context.memory.fill(header.load_address + bytes, end - header.load_address - bytes, 0));
  return header.entry;
}

Result<uint32_t> load_image(const ImageBytes& image, const FoundHeader& found, LoadContext& context) {
  if ((found.header.flags & kAddressFields) != 0) return load_flat(image, found, context);
  if (!is_elf(image)) return fail("its multiboot header gives no addresses and it is not an ELF file");
  KITE_ASSIGN(const ElfImage elf, parse_elf(image));
  if (elf.entry > UINT32_MAX) return fail("its entry point {:#x} lies above 4 GiB", elf.entry);
  KITE_TRY(load_segments(elf, context.map, context.memory));
  return static_cast<uint32_t>(elf.entry);
}

struct Module {
  uint32_t start = 0, end = 0;
  std::string text;  // path and arguments
};

// "file args,file2 args"; two commas stand for one.
std::vector<std::string> split_modules(const std::string& list) {
  std::vector<std::string> items(1);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] != ',') {
      items.back() += list[i];
    } else if (i + 1 < list.size() && list[i + 1] == ',') {
      items.back() += ',';
      ++i;
    } else {
      items.emplace_back();
    }
  }
  for (std::string& item : items) item.erase(0, item.find_first_not_of(' '));
  std::erase(items, std::string());
  return items;
}

Result<std::vector<Module>> load_modules(LoadContext& context) {
  std::vector<Module> modules;
  for (std::string& text : split_modules(context.request.initrd_path)) {
    KITE_ASSIGN(const FileBytes bytes, read_image(text.substr(0, text.find(' ')), "module", kLargestFile));
    KITE_ASSIGN(const uint64_t address,
                context.map.claim_high({.size = bytes.size(), .alignment = kPageSize, .lowest = kMib}, "a module"));
    KITE_TRY(context.memory.write(address, bytes));
    modules.push_back({.start = static_cast<uint32_t>(address),
                       .end = static_cast<uint32_t>(address + bytes.size()),
                       .text = std::move(text)});
  }
  return modules;
}

// The information structure and what it points to, as one run of bytes that knows its address from the start.
class InfoBlock {
 public:
  static constexpr uint64_t kStructureBytes = 116;

  explicit InfoBlock(uint64_t address) : address_(address), bytes_(align_up(kStructureBytes, 16)) {}

  void set(uint64_t offset, uint32_t value) { store(&bytes_[offset], value); }
  void flag(uint32_t bit) { store(bytes_.data(), load<uint32_t>(bytes_.data()) | bit); }
  // Appends and answers the guest's address of it.
  uint32_t append(std::span<const uint8_t> bytes) {
    const uint64_t at = align_up(bytes_.size(), 4);
    bytes_.resize(at);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return static_cast<uint32_t>(address_ + at);
  }
  uint32_t append_text(const std::string& text) {
    return append({reinterpret_cast<const uint8_t*>(text.c_str()), text.size() + 1});
  }
  [[nodiscard]] const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  uint64_t address_;
  std::vector<uint8_t> bytes_;
};

// KiB of RAM from `start` on without a hole.
uint32_t ram_kib(const std::vector<E820Entry>& map, uint64_t start) {
  for (const E820Entry& entry : map)
    if (entry.type == E820Type::kRam && entry.base <= start && start < entry.base + entry.size)
      return static_cast<uint32_t>(std::min<uint64_t>((entry.base + entry.size - start) >> 10, UINT32_MAX));
  return 0;
}

void add_memory(const std::vector<E820Entry>& map, InfoBlock& info) {
  constexpr size_t kEntry = 24;
  std::vector<uint8_t> table;
  for (const E820Entry& range : map) {
    std::array<uint8_t, kEntry> entry{};
    store(&entry[0], uint32_t{kEntry - 4});  // the size does not count itself
    store(&entry[4], range.base);
    store(&entry[12], range.size);
    store(&entry[20], static_cast<uint32_t>(range.type));
    table.insert(table.end(), entry.begin(), entry.end());
  }
  info.set(4, ram_kib(map, 0));
  info.set(8, ram_kib(map, kMib));
  info.set(44, static_cast<uint32_t>(table.size()));
  info.set(48, info.append(table));
  info.flag(kHasMemory | kHasMemoryMap);
}

void add_modules(const std::vector<Module>& modules, InfoBlock& info) {
  std::vector<uint8_t> table;
  for (const Module& module : modules) {
    const std::array<uint32_t, 4> entry = {module.start, module.end, info.append_text(module.text), 0};
    const auto* const raw = reinterpret_cast<const uint8_t*>(entry.data());
    table.insert(table.end(), raw, raw + sizeof entry);
  }
  info.set(20, static_cast<uint32_t>(modules.size()));
  info.set(24, info.append(table));
  info.flag(kHasModules);
}

InfoBlock make_info(uint64_t address, const KernelRequest& request, const std::vector<Module>& modules) {
  InfoBlock info(address);
  add_memory(request.e820, info);
  info.set(16,
           info.append_text(request.kernel_path + (request.command_line.empty() ? "" : " ") + request.command_line));
  info.flag(kHasCommandLine);
  add_modules(modules, info);
  info.set(64, info.append_text("kite"));
  info.flag(kHasLoaderName);
  return info;
}

Result<uint64_t> place_info(LoadContext& context, const std::vector<Module>& modules) {
  const uint64_t bytes = make_info(0, context.request, modules).bytes().size();
  const BootMap::Want low{.size = bytes, .lowest = kInfoLowest, .limit = kConventionalEnd};
  auto address = context.map.claim_high(low, "the multiboot information");
  if (!address) {
    KITE_ASSIGN(address, context.map.claim_high({.size = bytes, .lowest = kInfoLowest}, "the multiboot information"));
  }
  KITE_TRY(context.memory.write(*address, make_info(*address, context.request, modules).bytes()));
  return *address;
}

}  // namespace

bool is_multiboot(const ImageBytes& image) { return find_header(image).has_value(); }

Result<LoadedKernel> load_multiboot(const ImageBytes& image, LoadContext& context) {
  const auto found = find_header(image);
  if (!found) return fail("it has no multiboot header");
  const uint32_t unknown = found->header.flags & kDemands & ~(kPageAlign | kMemoryInfo | kVideoMode);
  if (unknown != 0) return fail("its multiboot header demands features {:#x}, which Kite does not know", unknown);
  if ((found->header.flags & kVideoMode) != 0) log::warn("the multiboot kernel asks for a video mode; there is none");

  KITE_ASSIGN(const uint32_t entry, load_image(image, *found, context));
  KITE_ASSIGN(const std::vector<Module> modules, load_modules(context));
  KITE_ASSIGN(const uint64_t info, place_info(context, modules));
  KITE_ASSIGN(const uint64_t gdt,
              context.map.claim_high({.size = kGdtBytes, .lowest = kInfoLowest, .limit = kConventionalEnd}, "the GDT"));
  KITE_TRY(write_flat_gdt(context.memory, gdt, EntryMode::kProtected32));
  x86::ArchState state = protected_mode_entry(gdt, entry);
  state.gpr[x86::kRax] = kLoaderMagic;
  state.gpr[x86::kRbx] = info;
  return LoadedKernel{.kind = KernelKind::kMultiboot, .entry = state};
}

}  // namespace kite::boot
