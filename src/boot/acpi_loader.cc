#include "boot/acpi_loader.h"

#include <cstring>
#include <string_view>

#include "support/bytes.h"

namespace kite::boot {

namespace {

// A command: its number, then its arguments; file names take 56 bytes. All little-endian.
constexpr size_t kCommandBytes = 128, kNameBytes = 56;
enum Command : uint32_t { kAllocate = 1, kAddPointer = 2, kAddChecksum = 3 };
enum Zone : uint8_t { kHighMemory = 1, kFirstMib = 2 };

class Script {
 public:
  void allocate(std::string_view file, uint32_t alignment, Zone zone) {
    uint8_t* command = begin(kAllocate);
    name(command + 4, file);
    store(command + 60, alignment);
    command[64] = zone;
  }
  // Adds the address of `target` to the `size` bytes at `offset` of `file`.
  void add_pointer(std::string_view file, std::string_view target, uint32_t offset, uint8_t size) {
    uint8_t* command = begin(kAddPointer);
    name(command + 4, file);
    name(command + 60, target);
    store(command + 116, offset);
    command[120] = size;
  }
  void add_checksum(std::string_view file, const AcpiTables::Sum& sum) {
    uint8_t* command = begin(kAddChecksum);
    name(command + 4, file);
    store(command + 60, sum.offset);
    store(command + 64, sum.start);
    store(command + 68, sum.length);
  }
  std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  uint8_t* begin(Command command) {
    bytes_.resize(bytes_.size() + kCommandBytes);
    uint8_t* at = bytes_.data() + bytes_.size() - kCommandBytes;
    store(at, static_cast<uint32_t>(command));
    return at;
  }
  static void name(uint8_t* at, std::string_view file) {
    std::memcpy(at, file.data(), std::min(file.size(), kNameBytes - 1));
  }

  std::vector<uint8_t> bytes_;
};

}  // namespace

// Checksums come after the pointers that they cover.
std::vector<uint8_t> acpi_loader_script(const AcpiTables& tables) {
  Script script;
  script.allocate(kAcpiTablesFile, 64, kHighMemory);  // the FACS wants 64
  script.allocate(kAcpiRsdpFile, 16, kFirstMib);
  for (const auto& link : tables.links) script.add_pointer(kAcpiTablesFile, kAcpiTablesFile, link.offset, link.size);
  for (const auto& sum : tables.sums) script.add_checksum(kAcpiTablesFile, sum);
  for (const auto& link : tables.rsdp_links) script.add_pointer(kAcpiRsdpFile, kAcpiTablesFile, link.offset, link.size);
  for (const auto& sum : tables.rsdp_sums) script.add_checksum(kAcpiRsdpFile, sum);
  return script.take();
}

}  // namespace kite::boot
