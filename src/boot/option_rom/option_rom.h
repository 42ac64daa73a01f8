// A kernel given by -kernel when firmware runs first: what fw_cfg's kernel keys hold (OVMF starts a bzImage from these
// by itself), and the option ROM that starts it under a PC BIOS.
#pragma once

#include <cstdint>
#include <vector>

#include "boot/loader.h"
#include "support/result.h"

namespace kite::boot {

// The contents of the numbered keys 0x07 to 0x18, as far as the kernel has them.
struct FirmwareKernel {
  uint32_t setup_address = 0, command_line_address = 0, kernel_address = 0;
  uint32_t entry = 0;  // 0: a Linux bzImage; else `setup` is a plan for the option ROM
  std::vector<uint8_t> setup, kernel, initrd;
  std::vector<uint8_t> command_line;  // with its final zero
};

// Reads and checks the files. Linux as they are; PVH and multiboot kernels are loaded into memory of the request's
// shape, of which the used ranges become a plan. The request's e820 tells where such a kernel may lie: it leaves out
// what firmware keeps for itself.
Result<FirmwareKernel> kernel_for_firmware(const KernelRequest& request);

// The ROM's image: whole blocks of 512 bytes, checksums in place.
std::vector<uint8_t> kernel_option_rom();

}  // namespace kite::boot
