// Direct kernel boot: places a kernel, its initrd and command line in guest memory and says how the first CPU enters
// it. No firmware is involved: the loader also leaves E820, ACPI tables and page tables as the protocols want them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "memory/guest_memory.h"
#include "support/result.h"
#include "x86/arch_state.h"

namespace kite::boot {

enum class E820Type : uint32_t { kRam = 1, kReserved = 2, kAcpi = 3, kNvs = 4 };
struct E820Entry {
  uint64_t base = 0, size = 0;
  E820Type type = E820Type::kRam;
};

struct KernelRequest {
  std::string kernel_path;
  std::string initrd_path;  // "" for none; multiboot: "path args,path args"
  std::string command_line;
  uint64_t ram_below_4g = 0;  // bytes from 0
  uint64_t ram_above_4g = 0;  // bytes from 4 GiB
  std::vector<E820Entry> e820;
  uint64_t acpi_rsdp = 0;  // 0: none
};

enum class KernelKind : uint8_t { kLinux, kPvh, kMultiboot };

struct LoadedRange {
  uint64_t address = 0, bytes = 0;
};

// What was placed where, and how the bootstrap processor starts.
struct LoadedKernel {
  KernelKind kind = KernelKind::kLinux;
  x86::ArchState entry;
  std::vector<LoadedRange> ranges = {};
};

Result<LoadedKernel> load_kernel(const KernelRequest& request, GuestMemory& memory);

}  // namespace kite::boot
