#include "boot/loader.h"

#include "boot/protocols.h"

namespace kite::boot {
namespace {

Result<LoadedKernel> load_by_protocol(const ImageBytes& image, LoadContext& context) {
  if (is_linux(image)) return load_linux(image, context);
  if (is_multiboot(image)) return load_multiboot(image, context);
  if (!is_elf(image))
    return fail("it is neither a Linux bzImage, nor an ELF file with a PVH entry, nor a multiboot image");
  KITE_ASSIGN(const ElfImage elf, parse_elf(image));
  if (!is_pvh(elf))
    return fail(
        "it is an ELF file without a PVH entry note or a multiboot header; give the bzImage, or build it with "
        "CONFIG_PVH=y");
  return load_pvh(elf, context);
}

}  // namespace

Result<LoadedKernel> load_kernel(const KernelRequest& request, GuestMemory& memory) {
  KITE_ASSIGN(const FileBytes file, read_image(request.kernel_path, "kernel", kLargestFile));
  BootMap map(request.e820, request.ram_below_4g);
  LoadContext context{.request = request, .memory = memory, .map = map};
  auto loaded = load_by_protocol(ImageBytes(file), context);
  if (!loaded) return fail("cannot boot the kernel '{}': {}", request.kernel_path, loaded.error().message);
  loaded->ranges = map.claims();
  return loaded;
}

}  // namespace kite::boot
