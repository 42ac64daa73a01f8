#include "boot/smbios.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <string_view>
#include <type_traits>

#include "support/bytes.h"

namespace kite::boot {

namespace {

// Types [SMBIOS 3.6] 7, and the handles that this machine gives its structures.
enum Type : uint8_t {
  kBios = 0,
  kSystem = 1,
  kBoard = 2,
  kChassis = 3,
  kProcessor = 4,
  kOemStrings = 11,
  kMemoryArray = 16,
  kMemoryDevice = 17,
  kArrayAddress = 19,
  kBootInformation = 32,
  kEnd = 127,
};
enum Handle : uint16_t {
  kSystemHandle = 0x100,
  kBoardHandle = 0x200,
  kChassisHandle = 0x300,
  kArrayHandle = 0x1000,
};

constexpr uint8_t kUnknown = 2, kOther = 1;
constexpr uint16_t kNoHandle = 0xffff, kNoError = 0xfffe;
constexpr uint64_t kMib = uint64_t{1} << 20, kGib = uint64_t{1} << 30, kFourGib = kGib * 4;
constexpr uint64_t kDeviceBytes = 16 * kGib;  // the most that one memory device has

uint8_t checksum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0));
}

// One structure: the formatted part, then the strings that it numbers.
class Structure {
 public:
  Structure(Type type, uint16_t handle) { value<uint8_t>(type).value<uint8_t>(0).value<uint16_t>(handle); }
  template <class T>
  Structure& value(std::type_identity_t<T> value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    store<T>(&bytes_[at], value);
    return *this;
  }
  Structure& bytes(std::span<const uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Structure& zeros(size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  // A string's number; 0 for an empty one.
  Structure& text(std::string_view text) {
    if (text.empty()) return value<uint8_t>(0);
    add_string(text);
    return value<uint8_t>(strings_);
  }
  void add_string(std::string_view text) {
    text_.append(text).push_back('\0');
    ++strings_;
  }
  // Appends the whole: [SMBIOS 3.6] 6.1.3, a second zero ends the strings, two of them stand for none.
  void finish(std::vector<uint8_t>& all) {
    bytes_[1] = static_cast<uint8_t>(bytes_.size());
    all.insert(all.end(), bytes_.begin(), bytes_.end());
    all.insert(all.end(), text_.begin(), text_.end());
    if (text_.empty()) all.push_back(0);
    all.push_back(0);
  }

 private:
  std::vector<uint8_t> bytes_;
  std::string text_;
  uint8_t strings_ = 0;
};

std::string_view or_else(const std::string& text, std::string_view otherwise) {
  return text.empty() ? otherwise : std::string_view(text);
}

constexpr std::string_view kMaker = "Kite";

// [SMBIOS 3.6] 7.1
void add_bios(const SmbiosConfig& config, std::vector<uint8_t>& all) {
  constexpr uint64_t kCharacteristicsNotSupported = 1u << 3;
  constexpr uint8_t kTargetedContent = 1u << 2, kUefi = 1u << 3, kVirtualMachine = 1u << 4;
  const auto& bios = config.bios;
  Structure table(kBios, 0);
  table.text(bios.vendor).text(bios.version).value<uint16_t>(0xe800);  // segment: 96 KiB of run-time size
  table.text(bios.date).value<uint8_t>(0).value<uint64_t>(kCharacteristicsNotSupported);
  table.value<uint8_t>(0).value<uint8_t>(
      static_cast<uint8_t>(kTargetedContent | kVirtualMachine | (bios.uefi ? kUefi : 0)));
  const auto release = bios.release.value_or(std::array<uint8_t, 2>{0, 0});
  table.value<uint8_t>(release[0]).value<uint8_t>(release[1]);
  table.value<uint8_t>(0xff).value<uint8_t>(0xff);  // no embedded controller
  table.finish(all);
}

// [SMBIOS 3.6] 7.2.1: the first three fields of a UUID are little-endian.
std::array<uint8_t, 16> wire_uuid(std::array<uint8_t, 16> uuid) {
  std::reverse(uuid.begin(), uuid.begin() + 4);
  std::reverse(uuid.begin() + 4, uuid.begin() + 6);
  std::reverse(uuid.begin() + 6, uuid.begin() + 8);
  return uuid;
}

// [SMBIOS 3.6] 7.2
void add_system(const SmbiosConfig& config, const SmbiosMachine& machine, std::vector<uint8_t>& all) {
  constexpr uint8_t kPowerSwitch = 6;
  const auto& system = config.system;
  Structure table(kSystem, kSystemHandle);
  table.text(or_else(system.manufacturer, kMaker)).text(or_else(system.product, machine.product));
  table.text(or_else(system.version, "1")).text(system.serial);
  table.bytes(wire_uuid(system.uuid.value_or(machine.uuid))).value<uint8_t>(kPowerSwitch);
  table.text(system.sku).text(system.family);
  table.finish(all);
}

// [SMBIOS 3.6] 7.3
void add_board(const SmbiosConfig& config, std::vector<uint8_t>& all) {
  constexpr uint8_t kHosting = 1, kMotherboard = 0x0a;
  const auto& board = config.board;
  Structure table(kBoard, kBoardHandle);
  table.text(or_else(board.manufacturer, kMaker)).text(or_else(board.product, "Standard PC")).text(board.version);
  table.text(board.serial).text(board.asset).value<uint8_t>(kHosting).text(board.location);
  table.value<uint16_t>(kChassisHandle).value<uint8_t>(kMotherboard).value<uint8_t>(0);
  table.finish(all);
}

// [SMBIOS 3.6] 7.4
void add_chassis(const SmbiosConfig& config, const SmbiosMachine&, std::vector<uint8_t>& all) {
  constexpr uint8_t kOtherCase = 1, kSafe = 3;
  const auto& chassis = config.chassis;
  Structure table(kChassis, kChassisHandle);
  table.text(or_else(chassis.manufacturer, kMaker)).value<uint8_t>(kOtherCase);
  table.text(or_else(chassis.version, "1")).text(chassis.serial).text(chassis.asset);
  table.value<uint8_t>(kSafe).value<uint8_t>(kSafe).value<uint8_t>(kSafe);  // boot-up, power supply, thermal
  table.value<uint8_t>(kUnknown).value<uint32_t>(0);                        // security; OEM
  table.value<uint8_t>(0).value<uint8_t>(0);                                // height, power cords: unspecified
  table.value<uint8_t>(0).value<uint8_t>(0);                                // no contained elements
  table.text(chassis.sku);
  table.finish(all);
}

// [SMBIOS 3.6] 7.5
void add_processor(const SmbiosConfig& config, const SmbiosMachine& machine, uint32_t index,
                   std::vector<uint8_t>& all) {
  constexpr uint8_t kCentral = 3, kOtherFamily = 1, kPopulatedEnabled = 0x41, kOtherUpgrade = 1;
  constexpr uint16_t k64Bit = 1u << 2, kMultiCore = 1u << 3, kThread = 1u << 4, kNoExecute = 1u << 5;
  const auto& processor = config.processor;
  const uint64_t id = processor.processor_id.value_or(machine.cpuid_signature | uint64_t{machine.cpuid_features} << 32);
  const uint32_t cores = machine.cores, threads = machine.cores * machine.threads;
  const auto narrow = [](uint32_t count) { return static_cast<uint8_t>(count > 255 ? 255 : count); };
  const auto flags =
      static_cast<uint16_t>(k64Bit | kNoExecute | (cores > 1 ? kMultiCore : 0) | (machine.threads > 1 ? kThread : 0));

  Structure table(kProcessor, static_cast<uint16_t>(0x400 + index));
  table.text(fmt::format("{} {}", or_else(processor.socket_prefix, "CPU"), index));
  table.value<uint8_t>(kCentral).value<uint8_t>(kOtherFamily).text(or_else(processor.manufacturer, kMaker));
  table.value<uint64_t>(id).text(or_else(processor.version, "1"));
  table.value<uint8_t>(0).value<uint16_t>(0);  // voltage, external clock: unknown
  table.value<uint16_t>(processor.max_speed).value<uint16_t>(processor.current_speed);
  table.value<uint8_t>(kPopulatedEnabled).value<uint8_t>(kOtherUpgrade);
  for (int cache = 0; cache < 3; ++cache) table.value<uint16_t>(kNoHandle);
  table.text(processor.serial).text(processor.asset).text(processor.part);
  table.value<uint8_t>(narrow(cores)).value<uint8_t>(narrow(cores)).value<uint8_t>(narrow(threads));
  table.value<uint16_t>(flags).value<uint16_t>(kOtherFamily);
  if (config.entry_point == SmbiosEntryPoint::k64) {  // 3.0 on: the counts in words
    const auto wide = [](uint32_t count) { return static_cast<uint16_t>(count); };
    table.value<uint16_t>(wide(cores)).value<uint16_t>(wide(cores)).value<uint16_t>(wide(threads));
  }
  table.finish(all);
}

void add_oem_strings(const SmbiosConfig& config, std::vector<uint8_t>& all) {
  Structure table(kOemStrings, 0xb00);
  table.value<uint8_t>(static_cast<uint8_t>(config.oem_strings.size()));
  for (const std::string& text : config.oem_strings) table.add_string(text);
  table.finish(all);
}

// [SMBIOS 3.6] 7.17
void add_memory_array(uint64_t ram, size_t devices, std::vector<uint8_t>& all) {
  constexpr uint8_t kSystemMemory = 3, kMultiBitEcc = 6;
  constexpr uint32_t kInExtended = 0x80000000;
  const uint64_t kib = ram >> 10;
  Structure table(kMemoryArray, kArrayHandle);
  table.value<uint8_t>(kOther).value<uint8_t>(kSystemMemory).value<uint8_t>(kMultiBitEcc);
  table.value<uint32_t>(kib < kInExtended ? static_cast<uint32_t>(kib) : kInExtended).value<uint16_t>(kNoError);
  table.value<uint16_t>(static_cast<uint16_t>(devices)).value<uint64_t>(kib < kInExtended ? 0 : ram);
  table.finish(all);
}

// [SMBIOS 3.6] 7.18
void add_memory_device(const SmbiosConfig& config, uint16_t index, uint64_t bytes, std::vector<uint8_t>& all) {
  constexpr uint8_t kDimm = 9, kRam = 7;
  constexpr uint16_t kOtherDetail = 1u << 1, kInExtended = 0x7fff;
  const auto& memory = config.memory;
  const uint64_t mib = bytes / kMib;
  Structure table(kMemoryDevice, static_cast<uint16_t>(0x1100 + index));
  table.value<uint16_t>(kArrayHandle).value<uint16_t>(kNoError);
  table.value<uint16_t>(0xffff).value<uint16_t>(0xffff);  // widths: unknown
  table.value<uint16_t>(mib < kInExtended ? static_cast<uint16_t>(mib) : kInExtended);
  table.value<uint8_t>(kDimm).value<uint8_t>(0);
  table.text(fmt::format("{} {}", or_else(memory.locator_prefix, "DIMM"), index)).text(memory.bank);
  table.value<uint8_t>(kRam).value<uint16_t>(kOtherDetail).value<uint16_t>(memory.speed);
  table.text(or_else(memory.manufacturer, kMaker)).text(memory.serial).text(memory.asset).text(memory.part);
  table.value<uint8_t>(0).value<uint32_t>(mib < kInExtended ? 0 : static_cast<uint32_t>(mib));
  table.value<uint16_t>(memory.speed);
  table.value<uint16_t>(0).value<uint16_t>(0).value<uint16_t>(0);  // voltages: unknown
  table.finish(all);
}

// [SMBIOS 3.6] 7.20
void add_array_address(uint16_t index, uint64_t start, uint64_t bytes, std::vector<uint8_t>& all) {
  constexpr uint64_t kMostKib = UINT32_MAX;
  const uint64_t first = start >> 10, last = ((start + bytes) >> 10) - 1;
  const bool extended = last >= kMostKib;
  Structure table(kArrayAddress, static_cast<uint16_t>(0x1300 + index));
  table.value<uint32_t>(extended ? UINT32_MAX : static_cast<uint32_t>(first));
  table.value<uint32_t>(extended ? UINT32_MAX : static_cast<uint32_t>(last));
  table.value<uint16_t>(kArrayHandle).value<uint8_t>(1);
  table.value<uint64_t>(extended ? start : 0).value<uint64_t>(extended ? start + bytes - 1 : 0);
  table.finish(all);
}

void add_memory(const SmbiosConfig& config, const SmbiosMachine& machine, std::vector<uint8_t>& all) {
  const uint64_t ram = machine.ram_low + machine.ram_high;
  const uint64_t devices = (ram + kDeviceBytes - 1) / kDeviceBytes;
  add_memory_array(ram, devices, all);
  for (uint64_t index = 0; index < devices; ++index)
    add_memory_device(config, static_cast<uint16_t>(index), std::min(kDeviceBytes, ram - index * kDeviceBytes), all);
  add_array_address(0, 0, machine.ram_low, all);
  if (machine.ram_high != 0) add_array_address(1, kFourGib, machine.ram_high, all);
}

// Each structure is counted by walking it: header, formatted part, strings up to the double zero.
struct Extent {
  uint16_t count = 0, largest = 0;
};
Extent measure(std::span<const uint8_t> all) {
  Extent extent;
  for (size_t at = 0; at + 4 <= all.size();) {
    size_t end = at + all[at + 1];
    while (end + 1 < all.size() && (all[end] != 0 || all[end + 1] != 0)) ++end;
    end += 2;
    ++extent.count;
    extent.largest = std::max(extent.largest, static_cast<uint16_t>(end - at));
    at = end;
  }
  return extent;
}

// [SMBIOS 3.6] 5.2.1: version 2.8, the table's address to be filled in.
std::vector<uint8_t> anchor32(std::span<const uint8_t> all) {
  constexpr size_t kBytes = 0x1f, kIntermediate = 0x10;
  const Extent extent = measure(all);
  std::vector<uint8_t> anchor(kBytes);
  std::ranges::copy(std::string_view("_SM_"), anchor.begin());
  anchor[5] = kBytes;
  anchor[6] = 2;
  anchor[7] = 8;
  store(&anchor[8], extent.largest);
  std::ranges::copy(std::string_view("_DMI_"), anchor.begin() + kIntermediate);
  store(&anchor[0x16], static_cast<uint16_t>(all.size()));
  store(&anchor[0x1c], extent.count);
  anchor[0x1e] = 0x28;
  anchor[0x15] = checksum(std::span(anchor).subspan(kIntermediate));
  anchor[4] = checksum(anchor);
  return anchor;
}

// [SMBIOS 3.6] 5.2.2: version 3.0.
std::vector<uint8_t> anchor64(std::span<const uint8_t> all) {
  constexpr size_t kBytes = 0x18;
  std::vector<uint8_t> anchor(kBytes);
  std::ranges::copy(std::string_view("_SM3_"), anchor.begin());
  anchor[6] = kBytes;
  anchor[7] = 3;
  anchor[0x0a] = 1;  // entry point revision
  store(&anchor[0x0c], static_cast<uint32_t>(all.size()));
  anchor[5] = checksum(anchor);
  return anchor;
}

}  // namespace

SmbiosTables build_smbios(const SmbiosConfig& config, const SmbiosMachine& machine) {
  SmbiosTables tables;
  std::vector<uint8_t>& all = tables.structures;
  for (const auto& structure : config.structures) all.insert(all.end(), structure.begin(), structure.end());
  if (config.bios.given) add_bios(config, all);
  add_system(config, machine, all);
  if (config.board.given) add_board(config, all);
  add_chassis(config, machine, all);
  for (uint32_t socket = 0; socket < machine.sockets; ++socket) add_processor(config, machine, socket, all);
  if (!config.oem_strings.empty()) add_oem_strings(config, all);
  add_memory(config, machine, all);
  Structure boot(kBootInformation, 0x2000);
  boot.zeros(6).value<uint8_t>(0);  // no error
  boot.finish(all);
  Structure(kEnd, 0x7f00).finish(all);
  tables.anchor = config.entry_point == SmbiosEntryPoint::k64 ? anchor64(all) : anchor32(all);
  return tables;
}

Result<> check_smbios_structure(const std::vector<uint8_t>& bytes) {
  constexpr size_t kHeader = 4, kMost = 0xffff;
  if (bytes.size() < kHeader + 2 || bytes.size() > kMost)
    return fail("an SMBIOS structure has 6 to 65535 bytes, not {}", bytes.size());
  if (bytes[1] < kHeader || bytes[1] > bytes.size() - 2)
    return fail("the SMBIOS structure says that its formatted part has {} bytes of {}", bytes[1], bytes.size());
  for (size_t at = bytes[1]; at + 1 < bytes.size(); ++at) {
    if (bytes[at] != 0 || bytes[at + 1] != 0) continue;
    if (at + 2 == bytes.size()) return {};
    return fail("there are {} bytes behind the SMBIOS structure's strings; give one structure a file",
                bytes.size() - at - 2);
  }
  return fail("the SMBIOS structure's strings do not end with two zeros");
}

}  // namespace kite::boot
