// ACPI tables under construction: one table, bytes appended in the order of the specification, and a set of them in one
// blob that remembers where its pointers and checksums are, so that it can be placed anywhere.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "boot/acpi.h"
#include "support/bytes.h"

namespace kite::boot {

class AcpiTable {
 public:
  // [ACPI 6.4] 5.2.6: the header all tables share.
  AcpiTable(std::string_view signature, uint8_t revision);

  template <class T>
  AcpiTable& value(std::type_identity_t<T> value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    store<T>(&bytes_[at], value);
    return *this;
  }
  AcpiTable& text(std::string_view text, size_t width);  // padded with spaces
  AcpiTable& zeros(size_t count);
  AcpiTable& append(std::span<const uint8_t> bytes);
  // The address of another table of the set, by its offset there; 4 or 8 bytes.
  template <class T>
  AcpiTable& pointer(uint32_t target) {
    links_.push_back({.offset = static_cast<uint32_t>(bytes_.size()), .size = sizeof(T)});
    return value<T>(target);
  }
  // [ACPI 6.4] 5.2.3.2: Generic Address Structure in I/O space. `access`: 1 byte, 2 word, 3 dword.
  AcpiTable& port(uint64_t address, uint8_t bits, uint8_t access);
  AcpiTable& no_address() { return zeros(12); }

 private:
  friend class AcpiSet;
  std::vector<uint8_t> bytes_;
  std::vector<AcpiTables::Link> links_;
};

class AcpiSet {
 public:
  // Each answers the table's offset in the blob.
  uint32_t add(AcpiTable table);
  uint32_t add_facs();                                 // no header of the common kind, no checksum
  uint32_t add_whole(std::span<const uint8_t> table);  // of the user's: its length and checksum are right
  // Adds the root tables over `tables` and the RSDP.
  AcpiTables finish(std::span<const uint32_t> tables);

 private:
  uint32_t place(std::span<const uint8_t> bytes, uint64_t alignment);
  template <class Pointer>
  uint32_t add_root(std::string_view signature, std::span<const uint32_t> tables);

  AcpiTables result_;
};

}  // namespace kite::boot
