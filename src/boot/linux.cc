#include <sys/random.h>

#include <algorithm>
#include <array>
#include <bit>

#include "boot/entry_state.h"
#include "boot/linux_params.h"
#include "boot/protocols.h"
#include "support/bits.h"

namespace kite::boot {
namespace {

using namespace linux_params;

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kConventionalEnd = 0xa0000;
constexpr size_t kSeedBytes = 32;

// What of the setup header steers the loader, with the defaults of the protocol versions that lack a field.
struct Setup {
  uint16_t version = 0;
  uint64_t payload_offset = 0;
  uint64_t payload_bytes = 0;
  bool entry_64 = false;
  bool relocatable = false;
  uint64_t alignment = 0;
  uint64_t preferred = 0;
  uint64_t memory_bytes = 0;  // from the load address, until the kernel knows the memory map
  uint64_t initrd_limit = 0;  // the initrd ends below
  uint64_t command_line_most = 0;
};

Result<Setup> parse_setup(const ImageBytes& image) {
  Setup setup;
  setup.version = image.value<uint16_t>(kVersion);
  const auto since = [&setup](uint16_t version) { return setup.version >= version; };
  if (!since(0x202))
    return fail("its boot protocol is {}.{:02}; Kite needs 2.02 or later", setup.version >> 8, setup.version & 0xff);
  // [boot.rst] "Details of Header Fields": setup_sects 0 means 4; loadflags bit 0 tells a bzImage from a zImage.
  if ((image.value<uint8_t>(kLoadFlags) & kLoadedHigh) == 0)
    return fail("it is a zImage, which loads below 640 KiB; Kite loads bzImages");
  const uint64_t sectors = image.value<uint8_t>(kSetupSects);
  setup.payload_offset = ((sectors == 0 ? 4 : sectors) + 1) * 512;
  setup.payload_bytes = uint64_t{image.value<uint32_t>(kSysSize)} * 16;
  if (!since(0x204) && setup.payload_offset < image.size())  // the field had 16 bits
    setup.payload_bytes = image.size() - setup.payload_offset;
  if (setup.payload_bytes == 0 || !image.slice(setup.payload_offset, setup.payload_bytes - 15))
    return fail("it is truncated: its header tells of {} bytes, the file has {}",
                setup.payload_offset + setup.payload_bytes, image.size());
  setup.payload_bytes = std::min(setup.payload_bytes, image.size() - setup.payload_offset);

  setup.entry_64 = since(0x20c) && (image.value<uint16_t>(kXloadFlags) & kXlfKernel64) != 0;
  setup.relocatable = since(0x205) && image.value<uint8_t>(kRelocatable) != 0;
  setup.alignment = since(0x205) ? image.value<uint32_t>(kKernelAlignment) : 0;
  setup.preferred = since(0x20a) ? image.value<uint64_t>(kPrefAddress) : kMib;
  setup.memory_bytes = std::max<uint64_t>(since(0x20a) ? image.value<uint32_t>(kInitSize) : 0, setup.payload_bytes);
  setup.initrd_limit = since(0x203) ? uint64_t{image.value<uint32_t>(kInitrdAddrMax)} + 1 : 0x38000000;
  setup.command_line_most = since(0x206) ? image.value<uint32_t>(kCmdlineSize) : 255;
  if (setup.relocatable && (!std::has_single_bit(setup.alignment) || setup.alignment < kPageSize))
    return fail("its header is damaged: a relocatable kernel aligned to {:#x}", setup.alignment);
  return setup;
}

Result<uint64_t> place_kernel(const Setup& setup, BootMap& map) {
  const std::string_view what = "the kernel";
  const bool preferred_fits = map.is_free(setup.preferred, setup.memory_bytes) &&
                              (!setup.relocatable || is_aligned(setup.preferred, setup.alignment));
  if (preferred_fits || !setup.relocatable) {
    KITE_TRY(map.claim(setup.preferred, setup.memory_bytes, what));
    return setup.preferred;
  }
  return map.claim_low({.size = setup.memory_bytes, .alignment = setup.alignment, .lowest = kMib}, what);
}

class ZeroPage {
 public:
  // [boot.rst] "32-bit BOOT PROTOCOL": zeroed, then the setup header is copied up to its end.
  explicit ZeroPage(const ImageBytes& image) {
    const uint64_t end = std::min<uint64_t>(kMagic + image.value<uint8_t>(kJump + 1), kHeaderLimit);
    if (const auto header = image.slice(kHeaderStart, end - kHeaderStart); header)
      std::ranges::copy(*header, bytes_.begin() + kHeaderStart);
  }

  template <class T>
  void set(uint64_t offset, T value) {
    store(&bytes_[offset], value);
  }

  Result<> set_e820(const std::vector<E820Entry>& map) {
    if (map.size() > kE820Most) return fail("the memory map has {} entries; Linux takes {}", map.size(), kE820Most);
    set(kE820Entries, static_cast<uint8_t>(map.size()));
    uint64_t at = kE820Table;
    for (const E820Entry& entry : map) {
      set(at, entry.base);
      set(at + 8, entry.size);
      set(at + 16, static_cast<uint32_t>(entry.type));
      at += kE820EntryBytes;
    }
    const auto above = std::ranges::find_if(map, [](const E820Entry& entry) {
      return entry.type == E820Type::kRam && entry.base <= kMib && entry.base + entry.size > kMib;
    });
    if (above != map.end()) {
      const uint64_t kib = std::min<uint64_t>((above->base + above->size - kMib) >> 10, UINT32_MAX);
      set(kAltMemK, static_cast<uint32_t>(kib));
      set(kExtMemK, static_cast<uint16_t>(std::min<uint64_t>(kib, 0xfc00)));
    }
    return {};
  }

  [[nodiscard]] const std::array<uint8_t, kBytes>& bytes() const { return bytes_; }

 private:
  std::array<uint8_t, kBytes> bytes_{};
};

Result<> add_command_line(const Setup& setup, LoadContext& context, ZeroPage& page) {
  const std::string& text = context.request.command_line;
  if (text.size() > setup.command_line_most)
    return fail("the command line has {} bytes; this kernel takes {}", text.size(), setup.command_line_most);
  KITE_ASSIGN(const uint64_t address,
              context.map.claim_low({.size = text.size() + 1, .limit = kConventionalEnd}, "the command line"));
  KITE_TRY(context.memory.write(address, {reinterpret_cast<const uint8_t*>(text.c_str()), text.size() + 1}));
  page.set(kCmdLinePtr, static_cast<uint32_t>(address));
  return {};
}

Result<> add_initrd(const Setup& setup, LoadContext& context, ZeroPage& page) {
  page.set(kRamdiskImage, uint32_t{0});
  page.set(kRamdiskSize, uint32_t{0});
  if (context.request.initrd_path.empty()) return {};
  KITE_ASSIGN(const FileBytes initrd, read_image(context.request.initrd_path, "initrd", kLargestFile));
  KITE_ASSIGN(const uint64_t address, context.map.claim_high({.size = align_up(initrd.size(), kPageSize),
                                                              .alignment = kPageSize,
                                                              .lowest = kMib,
                                                              .limit = std::min(setup.initrd_limit, BootMap::kEnd)},
                                                             "the initrd"));
  KITE_TRY(context.memory.write(address, initrd));
  page.set(kRamdiskImage, static_cast<uint32_t>(address));
  page.set(kRamdiskSize, static_cast<uint32_t>(initrd.size()));
  return {};
}

// Entropy for the guest's first random numbers, as a hardware source would give it.
Result<> add_random_seed(const Setup& setup, LoadContext& context, ZeroPage& page) {
  std::array<uint8_t, kSetupDataHeader + kSeedBytes> node{};
  store(&node[8], kSetupRngSeed);
  store(&node[12], static_cast<uint32_t>(kSeedBytes));
  const bool drawn = ::getrandom(&node[kSetupDataHeader], kSeedBytes, GRND_NONBLOCK) == ssize_t{kSeedBytes};
  if (setup.version < 0x209 || !drawn) return {};
  KITE_ASSIGN(const uint64_t address,
              context.map.claim_low({.size = node.size(), .limit = kConventionalEnd}, "the random seed"));
  KITE_TRY(context.memory.store(address, node));
  page.set(kSetupData, address);
  return {};
}

Result<x86::ArchState> enter(const Setup& setup, uint64_t kernel, uint64_t zero_page, LoadContext& context) {
  const EntryMode mode = setup.entry_64 ? EntryMode::kLong : EntryMode::kProtected32;
  KITE_ASSIGN(const uint64_t gdt, context.map.claim_low({.size = kGdtBytes, .limit = kConventionalEnd}, "the GDT"));
  KITE_TRY(write_flat_gdt(context.memory, gdt, mode));
  x86::ArchState state;
  if (setup.entry_64) {
    KITE_ASSIGN(const uint64_t tables,
                context.map.claim_low({.size = kIdentityTableBytes, .alignment = kPageSize, .limit = kConventionalEnd},
                                      "the page tables"));
    KITE_TRY(write_identity_tables(context.memory, tables));
    state = long_mode_entry(gdt, tables, kernel + kEntry64);
  } else {
    state = protected_mode_entry(gdt, static_cast<uint32_t>(kernel));
  }
  // [boot.rst] both protocols: RSI holds the zero page; 32-bit: EBP, EDI and EBX are zero.
  state.gpr[x86::kRsi] = zero_page;
  return state;
}

}  // namespace

bool is_linux(const ImageBytes& image) {
  return image.get<uint16_t>(kBootFlag) == kBootFlagValue && image.get<uint32_t>(kMagic) == kMagicValue;
}

Result<LoadedKernel> load_linux(const ImageBytes& image, LoadContext& context) {
  KITE_ASSIGN(const Setup setup, parse_setup(image));
  KITE_ASSIGN(const uint64_t zero_page,
              context.map.claim_low({.size = kBytes, .alignment = kPageSize, .limit = kConventionalEnd},
                                    "the boot parameters"));
  KITE_ASSIGN(const uint64_t kernel, place_kernel(setup, context.map));
  KITE_TRY(context.memory.write(kernel, *image.slice(setup.payload_offset, setup.payload_bytes)));

  ZeroPage page(image);
  page.set(kTypeOfLoader, kUnregisteredLoader);
  page.set(kVidMode, kVideoNormal);
  page.set(kCode32Start, static_cast<uint32_t>(kernel));
  page.set(kSetupData, uint64_t{0});
  page.set(kAcpiRsdp, context.request.acpi_rsdp);
  KITE_TRY(page.set_e820(context.request.e820));
  KITE_TRY(add_command_line(setup, context, page));
  KITE_TRY(add_random_seed(setup, context, page));
  KITE_TRY(add_initrd(setup, context, page));
  KITE_TRY(context.memory.store(zero_page, page.bytes()));
  KITE_ASSIGN(x86::ArchState entry, enter(setup, kernel, zero_page, context));
  return LoadedKernel{.kind = KernelKind::kLinux, .entry = entry};
}

}  // namespace kite::boot
