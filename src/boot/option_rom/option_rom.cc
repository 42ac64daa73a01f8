#include "boot/option_rom/option_rom.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <span>

#include "boot/image_bytes.h"
#include "boot/linux_params.h"
#include "boot/protocols.h"
#include "memory/address_space.h"
#include "support/bits.h"

extern "C" const uint8_t kite_kernel_rom_begin[];
extern "C" const uint8_t kite_kernel_rom_end[];

namespace kite::boot {

namespace {

namespace params = linux_params;

// Where real-mode Linux goes: the usual places of boot loaders [boot.rst] "Memory layout".
constexpr uint32_t kSetupAddress = 0x10000, kCommandLineAddress = 0x20000, kKernelAddress = 0x100000;
constexpr uint32_t kHeapEnd = kCommandLineAddress - kSetupAddress - 0x200;
constexpr uint64_t kHeapEndPtr = 0x224;
constexpr uint8_t kCanUseHeap = 0x80;
constexpr size_t kMostPlan = 0xe000;  // beside the option ROM's stack

void mend(std::span<uint8_t> bytes, size_t at) {
  bytes[at] = 0;
  bytes[at] = static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0));
}

// [boot.rst] "The kernel command line": the loader takes "vga=" to the header. A mode that is no number is "normal".
uint16_t video_mode(std::string_view command_line) {
  constexpr std::string_view kWord = "vga=";
  size_t at = command_line.find(kWord);
  while (at != std::string_view::npos && at != 0 && command_line[at - 1] != ' ') at = command_line.find(kWord, at + 1);
  if (at == std::string_view::npos) return params::kVideoNormal;
  std::string_view value = command_line.substr(at + kWord.size());
  value = value.substr(0, value.find(' '));
  if (value == "ext") return params::kVideoExtended;
  if (value == "ask") return params::kVideoAsk;
  const bool hex = value.starts_with("0x");
  if (hex) value.remove_prefix(2);
  uint16_t mode = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), mode, hex ? 16 : 10);
  return error == std::errc{} && end == value.data() + value.size() ? mode : params::kVideoNormal;
}

Result<FirmwareKernel> prepare_linux(const ImageBytes& image, const KernelRequest& request) {
  constexpr uint16_t kLeastVersion = 0x0202, kHasInitrdMax = 0x0203;
  constexpr uint32_t kOldInitrdMax = 0x37ffffff;
  const uint8_t sectors = image.value<uint8_t>(params::kSetupSects);
  const uint64_t setup_bytes = (sectors == 0 ? 4 + 1 : sectors + 1) * uint64_t{512};
  const auto version = image.value<uint16_t>(params::kVersion);
  if (version < kLeastVersion || (image.value<uint8_t>(params::kLoadFlags) & params::kLoadedHigh) == 0)
    return fail("it is a kernel of before Linux 2.4, which this loader does not start");
  const auto setup = image.slice(0, setup_bytes);
  if (!setup || image.size() == setup_bytes) return fail("it is truncated");
  FirmwareKernel result{.setup_address = kSetupAddress,
                        .command_line_address = kCommandLineAddress,
                        .kernel_address = kKernelAddress,
                        .setup = {setup->begin(), setup->end()},
                        .kernel = {},
                        .initrd = {},
                        .command_line = {request.command_line.begin(), request.command_line.end()}};
  const auto rest = *image.slice(setup_bytes, image.size() - setup_bytes);
  result.kernel.assign(rest.begin(), rest.end());
  result.command_line.push_back(0);
  if (!request.initrd_path.empty()) {
    KITE_ASSIGN(result.initrd, read_file(request.initrd_path, "initrd", kLargestFile));
  }

  result.setup.resize(std::max<size_t>(result.setup.size(), params::kHeaderLimit));
  uint8_t* const header = result.setup.data();
  header[params::kTypeOfLoader] = params::kUnregisteredLoader;
  header[params::kLoadFlags] |= kCanUseHeap;
  store(header + params::kVidMode, video_mode(request.command_line));
  store(header + kHeapEndPtr, static_cast<uint16_t>(kHeapEnd));
  store(header + params::kCmdLinePtr, kCommandLineAddress);
  store(header + params::kRamdiskSize, static_cast<uint32_t>(result.initrd.size()));
  if (version < kHasInitrdMax) store(header + params::kInitrdAddrMax, kOldInitrdMax);
  return result;
}

// PVH and multiboot kernels are loaded into memory of the machine's shape that nobody runs in. The plan: EAX, EBX, the
// number of ranges, address and length of each; `kernel` has their bytes one behind the other.
Result<FirmwareKernel> prepare_plan(const KernelRequest& request) {
  AddressSpace scratch("kernel-plan", uint64_t{1} << 32);
  KITE_ASSIGN(auto block, RamBlock::create("kernel-plan", align_up(request.ram_below_4g, kPageSize)));
  scratch.root().add(0, Region::ram("kernel-plan", block));
  scratch.commit();
  GuestMemory memory(scratch);
  KITE_ASSIGN(const LoadedKernel loaded, load_kernel(request, memory));

  FirmwareKernel result;
  result.entry = static_cast<uint32_t>(loaded.entry.rip);
  const auto word = [&result](uint64_t value) {
    result.setup.resize(result.setup.size() + 4);
    store(&result.setup[result.setup.size() - 4], static_cast<uint32_t>(value));
  };
  word(loaded.entry.gpr[x86::kRax]);
  word(loaded.entry.gpr[x86::kRbx]);
  word(static_cast<uint64_t>(std::ranges::count_if(loaded.ranges, [](const auto& range) { return range.bytes != 0; })));
  for (const LoadedRange& range : loaded.ranges) {
    if (range.bytes == 0) continue;
    word(range.address);
    word(range.bytes);
    const uint8_t* from = block->host() + range.address;
    result.kernel.insert(result.kernel.end(), from, from + range.bytes);
  }
  if (result.setup.size() > kMostPlan)
    return fail("cannot boot the kernel '{}' through firmware: it has {} pieces, too many", request.kernel_path,
                loaded.ranges.size());
  return result;
}

}  // namespace

Result<FirmwareKernel> kernel_for_firmware(const KernelRequest& request) {
  KITE_ASSIGN(const FileBytes file, read_image(request.kernel_path, "kernel", kLargestFile));
  const ImageBytes image(file);
  if (!is_linux(image)) return prepare_plan(request);
  auto prepared = prepare_linux(image, request);
  if (!prepared) return fail("cannot boot the kernel '{}': {}", request.kernel_path, prepared.error().message);
  return prepared;
}

std::vector<uint8_t> kernel_option_rom() {
  constexpr size_t kBlock = 512, kLengthOffset = 2, kPnpPointer = 0x1a, kPnpBytes = 32, kPnpChecksum = 9;
  std::vector<uint8_t> rom(kite_kernel_rom_begin, kite_kernel_rom_end);
  rom.resize(align_up(rom.size() + 1, kBlock));
  rom[kLengthOffset] = static_cast<uint8_t>(rom.size() / kBlock);
  mend(std::span(rom).subspan(load<uint16_t>(&rom[kPnpPointer]), kPnpBytes), kPnpChecksum);
  mend(rom, rom.size() - 1);
  return rom;
}

}  // namespace kite::boot
