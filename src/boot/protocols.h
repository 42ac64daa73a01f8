// The three boot protocols. Each is asked whether an image is its own and then loads it.
#pragma once

#include <cstdint>
#include <vector>

#include "boot/boot_map.h"
#include "boot/elf.h"
#include "boot/image_bytes.h"
#include "boot/loader.h"

namespace kite::boot {

inline constexpr uint64_t kLargestFile = uint64_t{3} << 30;

// What a protocol works with.
struct LoadContext {
  const KernelRequest& request;
  GuestMemory& memory;
  BootMap& map;
};

// Linux/x86 bzImage [boot.rst], protocol 2.02 and later.
[[nodiscard]] bool is_linux(const ImageBytes& image);
Result<LoadedKernel> load_linux(const ImageBytes& image, LoadContext& context);

// Xen's PVH [docs/misc/pvh.pandoc]: the physical entry point in an ELF note.
[[nodiscard]] bool is_pvh(const ElfImage& elf);
Result<LoadedKernel> load_pvh(const ElfImage& elf, LoadContext& context);

// Multiboot 1 [Multiboot 0.6.96].
[[nodiscard]] bool is_multiboot(const ImageBytes& image);
Result<LoadedKernel> load_multiboot(const ImageBytes& image, LoadContext& context);

}  // namespace kite::boot
