// Damaged kernel files to the loader: an error or a loaded kernel, nothing outside the buffers.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "boot/loader.h"
#include "fuzz/byte_source.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kite;  // NOLINT: a test program
  static AddressSpace memory("fuzz", uint64_t{1} << 52);
  static const bool made = [] {
    auto block = RamBlock::create("ram", 32 << 20);
    if (!block) std::abort();
    memory.root().add(0, Region::ram("ram", *block));
    memory.commit();
    return true;
  }();
  if (!made) return 0;
  static const int fd = memfd_create("kernel", MFD_CLOEXEC);
  if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  GuestMemory guest(memory);
  boot::KernelRequest request;
  request.kernel_path = fmt::format("/proc/self/fd/{}", fd);
  request.command_line = "console=ttyS0";
  request.ram_below_4g = 32 << 20;
  request.e820 = {{0, 0x9fc00, boot::E820Type::kRam}, {0x100000, 31 << 20, boot::E820Type::kRam}};
  (void)boot::load_kernel(request, guest);
  return 0;
}
