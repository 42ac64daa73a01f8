#include "boot/acpi_table.h"

#include <algorithm>
#include <numeric>

#include "support/bits.h"

namespace kite::boot {

namespace {

constexpr uint32_t kChecksumOffset = 9, kLengthOffset = 4;
constexpr uint32_t kRsdpFirstPart = 20, kRsdpFirstChecksum = 8, kRsdpSecondChecksum = 32, kRsdpBytes = 36;
constexpr uint32_t kRsdpRsdt = 16, kRsdpXsdt = 24;

uint8_t checksum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0));
}

void mend(std::span<uint8_t> bytes, const AcpiTables::Sum& sum) {
  bytes[sum.offset] = 0;
  bytes[sum.offset] = checksum(bytes.subspan(sum.start, sum.length));
}

void shift(std::span<uint8_t> bytes, const AcpiTables::Link& link, uint64_t address) {
  store_le(&bytes[link.offset], link.size, load_le(&bytes[link.offset], link.size) + address);
}

}  // namespace

AcpiTable::AcpiTable(std::string_view signature, uint8_t revision) {
  text(signature, 4).value<uint32_t>(0).value<uint8_t>(revision).value<uint8_t>(0);
  text("KITE", 6).text("KITEPC", 8).value<uint32_t>(1).text("KITE", 4).value<uint32_t>(1);
}

AcpiTable& AcpiTable::text(std::string_view text, size_t width) {
  for (size_t i = 0; i < width; ++i) bytes_.push_back(static_cast<uint8_t>(i < text.size() ? text[i] : ' '));
  return *this;
}

AcpiTable& AcpiTable::zeros(size_t count) {
  bytes_.resize(bytes_.size() + count);
  return *this;
}

AcpiTable& AcpiTable::append(std::span<const uint8_t> bytes) {
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  return *this;
}

AcpiTable& AcpiTable::port(uint64_t address, uint8_t bits, uint8_t access) {
  constexpr uint8_t kSystemIo = 1;
  return value<uint8_t>(kSystemIo).value<uint8_t>(bits).value<uint8_t>(0).value<uint8_t>(access).value<uint64_t>(
      address);
}

uint32_t AcpiSet::place(std::span<const uint8_t> bytes, uint64_t alignment) {
  const uint64_t at = align_up(result_.blob.size(), alignment);
  result_.blob.resize(at);
  result_.blob.insert(result_.blob.end(), bytes.begin(), bytes.end());
  return static_cast<uint32_t>(at);
}

uint32_t AcpiSet::add(AcpiTable table) {
  store(&table.bytes_[kLengthOffset], static_cast<uint32_t>(table.bytes_.size()));
  const uint32_t at = place(table.bytes_, 16);
  for (const AcpiTables::Link& link : table.links_)
    result_.links.push_back({.offset = at + link.offset, .size = link.size});
  result_.sums.push_back(
      {.offset = at + kChecksumOffset, .start = at, .length = static_cast<uint32_t>(table.bytes_.size())});
  return at;
}

// [ACPI 6.4] 5.2.10.
uint32_t AcpiSet::add_facs() {
  constexpr uint8_t kVersion = 2;
  std::vector<uint8_t> facs(64);
  std::ranges::copy(std::string_view("FACS"), facs.begin());
  store(&facs[4], static_cast<uint32_t>(facs.size()));
  facs[32] = kVersion;
  return result_.facs = place(facs, 64);
}

uint32_t AcpiSet::add_whole(std::span<const uint8_t> table) { return place(table, 16); }

template <class Pointer>
uint32_t AcpiSet::add_root(std::string_view signature, std::span<const uint32_t> tables) {
  AcpiTable root(signature, 1);
  for (const uint32_t table : tables) root.pointer<Pointer>(table);
  return add(std::move(root));
}

// [ACPI 6.4] 5.2.5.3.
AcpiTables AcpiSet::finish(std::span<const uint32_t> tables) {
  const uint32_t rsdt = add_root<uint32_t>("RSDT", tables);
  const uint32_t xsdt = add_root<uint64_t>("XSDT", tables);
  std::vector<uint8_t>& rsdp = result_.rsdp;
  rsdp.resize(kRsdpBytes);
  std::ranges::copy(std::string_view("RSD PTR "), rsdp.begin());
  std::ranges::copy(std::string_view("KITE  "), rsdp.begin() + 9);
  rsdp[15] = 2;  // revision
  store(&rsdp[kRsdpRsdt], rsdt);
  store(&rsdp[20], kRsdpBytes);
  store(&rsdp[kRsdpXsdt], uint64_t{xsdt});
  result_.rsdp_links = {{.offset = kRsdpRsdt, .size = 4}, {.offset = kRsdpXsdt, .size = 8}};
  result_.rsdp_sums = {{.offset = kRsdpFirstChecksum, .start = 0, .length = kRsdpFirstPart},
                       {.offset = kRsdpSecondChecksum, .start = 0, .length = kRsdpBytes}};
  return std::move(result_);
}

void place_acpi(AcpiTables& tables, uint64_t address) {
  for (const auto& link : tables.links) shift(tables.blob, link, address);
  for (const auto& sum : tables.sums) mend(tables.blob, sum);
  for (const auto& link : tables.rsdp_links) shift(tables.rsdp, link, address);
  for (const auto& sum : tables.rsdp_sums) mend(tables.rsdp, sum);
}

}  // namespace kite::boot
