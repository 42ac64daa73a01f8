#include "bus/pci_msi.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include "support/bits.h"
#include "support/bytes.h"

namespace kite::bus {
namespace {

constexpr uint16_t kFieldMsiPending = 0xf002, kFieldMsixTable = 0xf003, kFieldMsixPending = 0xf004;

// Message control of MSI [PCI 3.0] 6.8.1.3, registers relative to the capability; all functions here have 64-bit
// addresses.
constexpr uint8_t kControl = 2, kAddress = 4, kData = 12, kMask = 16, kPending = 20;
constexpr uint16_t kMsiEnable = 1u << 0, kMsi64 = 1u << 7, kMsiMaskable = 1u << 8;
constexpr unsigned kCapableShift = 1, kGrantedShift = 4;

// Of MSI-X [PCI 3.0] 6.8.2.
constexpr uint8_t kTable = 4, kPendingArray = 8;
constexpr uint16_t kMsixMaskAll = 1u << 14, kMsixEnable = 1u << 15;
constexpr unsigned kEntryBytes = 16;

}  // namespace

MsiCapability::MsiCapability(PciDevice& owner, const Shape& shape) : shape_(shape), owner_(owner) {
  assert(std::has_single_bit(shape.vectors) && shape.vectors <= 32);
  PciConfigSpace& config = owner.config_;
  const uint8_t at = shape.offset;
  owner.add_capability(pci::kCapabilityMsi, at);
  const auto log2 = static_cast<unsigned>(std::countr_zero(shape.vectors));
  config.set16(at + kControl,
               static_cast<uint16_t>(kMsi64 | (shape.maskable ? kMsiMaskable : 0u) | log2 << kCapableShift));
  config.let_write16(at + kControl, kMsiEnable | 7u << kGrantedShift);
  config.let_write32(at + kAddress, 0xfffffffc);
  config.let_write32(at + kAddress + 4u, 0xffffffff);
  config.let_write16(at + kData, 0xffff);
  if (shape.maskable) config.let_write32(at + kMask, static_cast<uint32_t>(low_mask(shape.vectors)));
  owner.capabilities_.push_back(this);
}

void MsiCapability::load() {
  const PciConfigSpace& config = owner_.config_;
  const uint8_t at = shape_.offset;
  const uint16_t control = config.get16(at + kControl);
  const std::lock_guard lock(lock_);
  enabled_ = (control & kMsiEnable) != 0;
  // Grants beyond what was asked for are reserved.
  granted_ = std::min<unsigned>(1u << ((control >> kGrantedShift) & 7), shape_.vectors);
  address_ = config.get32(at + kAddress) | uint64_t{config.get32(at + kAddress + 4u)} << 32;
  data_ = config.get16(at + kData);
  mask_ = shape_.maskable ? config.get32(at + kMask) : 0;
}

// lock_ held. [PCI 3.0] 6.8.1.6: the low bits of the data are the vector's.
void MsiCapability::send(unsigned vector) { owner_.send_msi(address_, (data_ & ~(granted_ - 1)) | vector); }

bool MsiCapability::enabled() {
  const std::lock_guard lock(lock_);
  return enabled_;
}

void MsiCapability::notify(unsigned vector) {
  const std::lock_guard lock(lock_);
  if (!enabled_) return;
  vector &= granted_ - 1;
  if ((mask_ >> vector & 1) != 0)
    pending_ |= 1u << vector;
  else
    send(vector);
}

void MsiCapability::config_written(uint16_t offset, unsigned size) {
  if (offset >= shape_.offset + bytes() || offset + size <= shape_.offset) return;
  load();
  // [PCI 3.0] 6.8.3.4: what became pending while it was masked is sent when it is unmasked.
  const std::lock_guard lock(lock_);
  for (unsigned vector = 0; enabled_ && vector < granted_; ++vector) {
    const uint32_t mask = 1u << vector;
    if ((pending_ & mask) == 0 || (mask_ & mask) != 0) continue;
    pending_ &= ~mask;
    send(vector);
  }
}

uint32_t MsiCapability::overlay(uint16_t offset, unsigned size) {
  const unsigned start = shape_.offset + kPending;
  if (!shape_.maskable || offset >= start + 4 || offset + size <= start) return 0;
  const std::lock_guard lock(lock_);
  const uint64_t shifted =
      offset >= start ? uint64_t{pending_} >> (8 * (offset - start)) : uint64_t{pending_} << (8 * (start - offset));
  return static_cast<uint32_t>(shifted & low_mask(8 * size));
}

void MsiCapability::reset() {
  PciConfigSpace& config = owner_.config_;
  for (unsigned i = shape_.offset; i < shape_.offset + unsigned{bytes()}; ++i)
    config.bytes[i] = static_cast<uint8_t>(config.bytes[i] & ~config.writable[i]);
  load();
  const std::lock_guard lock(lock_);
  pending_ = 0;
}

void MsiCapability::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  writer.field(kFieldMsiPending, pending_);
}

void MsiCapability::restore(StateReader& reader) {
  reader.field(kFieldMsiPending, restored_pending_);
  if (reader.ok() && (restored_pending_ & ~low_mask(shape_.vectors)) != 0)
    reader.reject("an MSI vector is pending that this function does not have");
}

void MsiCapability::apply() {
  load();
  const std::lock_guard lock(lock_);
  pending_ = restored_pending_;
}

// --- MSI-X

class MsixCapability::PendingBits final : public IoHandler {
 public:
  explicit PendingBits(MsixCapability& owner) : owner_(owner) {}
  uint64_t io_read(uint64_t offset, unsigned size) override {
    const std::lock_guard lock(owner_.lock_);
    uint64_t value = 0;
    for (unsigned i = 0; i < 8 * size; ++i)
      if (const uint64_t vector = 8 * offset + i; vector < owner_.pending_.size() && owner_.pending_[vector] != 0)
        value |= bit(i);
    return value;
  }
  void io_write(uint64_t, unsigned, uint64_t) override {}  // [PCI 3.0] 6.8.2.10: software should not write it

 private:
  MsixCapability& owner_;
};

MsixCapability::MsixCapability(PciDevice& owner, const Shape& shape)
    : shape_(shape),
      owner_(owner),
      pending_bits_(std::make_unique<PendingBits>(*this)),
      entries_(shape.vectors),
      pending_(shape.vectors) {
  assert(shape.vectors >= 1 && shape.vectors <= 2048 && shape.table % 8 == 0 && shape.pending % 8 == 0);
  const AccessRule rule{.min_size = 4, .max_size = 8};
  table_region_ = Region::io("msix-table", uint64_t{kEntryBytes} * shape.vectors, *this, rule);
  pending_region_ = Region::io("msix-pending", align_up(shape.vectors, 64) / 8, *pending_bits_, rule);
  PciConfigSpace& config = owner.config_;
  const uint8_t at = shape.offset;
  owner.add_capability(pci::kCapabilityMsix, at);
  config.set16(at + kControl, static_cast<uint16_t>(shape.vectors - 1));
  config.let_write16(at + kControl, kMsixEnable | kMsixMaskAll);
  config.set32(at + kTable, shape.table | shape.bar);
  config.set32(at + kPendingArray, shape.pending | shape.bar);
  owner.capabilities_.push_back(this);
}

MsixCapability::~MsixCapability() = default;

void MsixCapability::load() {
  const uint16_t control = owner_.config_.get16(shape_.offset + kControl);
  const std::lock_guard lock(lock_);
  enabled_ = (control & kMsixEnable) != 0;
  function_masked_ = (control & kMsixMaskAll) != 0;
}

void MsixCapability::config_written(uint16_t offset, unsigned size) {
  if (offset >= shape_.offset + 4 || offset + size <= shape_.offset + kControl) return;
  load();
  const std::lock_guard lock(lock_);
  for (unsigned vector = 0; vector < shape_.vectors; ++vector) fire_unmasked(vector);
}

bool MsixCapability::enabled() {
  const std::lock_guard lock(lock_);
  return enabled_;
}

void MsixCapability::notify(unsigned vector) {
  if (vector >= shape_.vectors) return;
  const std::lock_guard lock(lock_);
  if (!enabled_) return;
  pending_[vector] = 1;
  fire_unmasked(vector);
}

void MsixCapability::fire_unmasked(unsigned vector) {
  if (pending_[vector] == 0 || !deliverable(vector)) return;
  pending_[vector] = 0;
  owner_.send_msi(entries_[vector].address, entries_[vector].data);
}

uint64_t MsixCapability::io_read(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  const Entry& entry = entries_[offset / kEntryBytes];
  const uint64_t low = entry.address, high = entry.data | (entry.masked ? uint64_t{1} << 32 : 0);
  const uint64_t half = (offset & 8) != 0 ? high : low;
  return (half >> (8 * (offset & 4))) & low_mask(8 * size);
}

void MsixCapability::io_write(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  const auto vector = static_cast<unsigned>(offset / kEntryBytes);
  Entry& entry = entries_[vector];
  for (unsigned done = 0; done < size; done += 4) {
    const auto dword = static_cast<uint32_t>(value >> (8 * done));
    switch ((offset + done) % kEntryBytes) {
      case 0: entry.address = (entry.address & ~uint64_t{0xffffffff}) | (dword & ~3u); break;
      case 4: entry.address = (entry.address & 0xffffffff) | uint64_t{dword} << 32; break;
      case 8: entry.data = dword; break;
      default: entry.masked = (dword & 1) != 0;  // [PCI 3.0] 6.8.2.9: the other bits are reserved
    }
  }
  fire_unmasked(vector);
}

void MsixCapability::reset() {
  PciConfigSpace& config = owner_.config_;
  config.set16(shape_.offset + kControl, static_cast<uint16_t>(shape_.vectors - 1));
  load();
  const std::lock_guard lock(lock_);
  entries_.assign(shape_.vectors, {});
  pending_.assign(shape_.vectors, 0);
}

void MsixCapability::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  std::vector<uint8_t> table(size_t{kEntryBytes} * shape_.vectors);
  for (size_t vector = 0; vector < entries_.size(); ++vector) {
    store(&table[vector * kEntryBytes], entries_[vector].address);
    store(&table[vector * kEntryBytes + 8], entries_[vector].data);
    store(&table[vector * kEntryBytes + 12], static_cast<uint32_t>(entries_[vector].masked ? 1 : 0));
  }
  writer.field(kFieldMsixTable, table);
  writer.field(kFieldMsixPending, pending_);
}

void MsixCapability::restore(StateReader& reader) {
  std::vector<uint8_t> table;
  reader.field(kFieldMsixTable, table);
  reader.field(kFieldMsixPending, restored_pending_);
  if (!reader.ok()) return;
  if (table.size() != size_t{kEntryBytes} * shape_.vectors || restored_pending_.size() != shape_.vectors)
    return reader.reject("the MSI-X table has another size here");
  restored_entries_.assign(shape_.vectors, {});
  for (size_t vector = 0; vector < shape_.vectors; ++vector) {
    const uint8_t* const at = &table[vector * kEntryBytes];
    const auto control = kite::load<uint32_t>(at + 12);
    if (control > 1 || restored_pending_[vector] > 1) return reader.reject("the MSI-X table has reserved bits");
    restored_entries_[vector] = {
        .address = kite::load<uint64_t>(at), .data = kite::load<uint32_t>(at + 8), .masked = control == 1};
  }
}

void MsixCapability::apply() {
  load();
  const std::lock_guard lock(lock_);
  entries_ = std::move(restored_entries_);
  pending_ = std::move(restored_pending_);
}

}  // namespace kite::bus
