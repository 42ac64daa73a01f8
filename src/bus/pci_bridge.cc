#include "bus/pci_bridge.h"

#include <algorithm>

#include "support/bits.h"
#include "support/log.h"

namespace kite::bus {
namespace {

constexpr uint64_t kMemorySpace = uint64_t{1} << 52, kPortSpace = 0x10000;
// As BARs: above RAM of the same container.
constexpr int kWindowPriority = 1;
constexpr uint16_t kPrefetchable64 = 1;

}  // namespace

PciBridge::PciBridge(std::string path, const PciIds& ids, PciGeneration generation, const Secondary& secondary)
    : PciDevice(std::move(path), ids, PciHeader::kBridge, generation),
      memory_(Region::container(secondary.name + "-memory", kMemorySpace)),
      ports_(Region::container(secondary.name + "-ports", kPortSpace)),
      secondary_(*memory_, *ports_, *this,
                 {.name = secondary.name,
                  .express = secondary.express,
                  .slots = secondary.slots,
                  .line_of = &PciBus::swizzled_pin},
                 this) {
  config_.let_write32(pci::kPrimaryBus, secondary.express ? 0x00ffffff : 0xffffffff);
  config_.let_write16(pci::kIoBase, 0xf0f0);
  config_.let_clear16(pci::kSecondaryStatus, pci::kStatusErrors);
  for (const uint8_t reg : {pci::kMemoryBase, pci::kMemoryLimit, pci::kPrefetchableBase, pci::kPrefetchableLimit})
    config_.let_write16(reg, 0xfff0);
  config_.set16(pci::kPrefetchableBase, kPrefetchable64);
  config_.set16(pci::kPrefetchableLimit, kPrefetchable64);
  config_.let_write32(pci::kPrefetchableBase32, 0xffffffff);
  config_.let_write32(pci::kPrefetchableLimit32, 0xffffffff);
  config_.let_write16(pci::kBridgeControl, pci::kBridgeParity | pci::kBridgeSerr | pci::kBridgeIsa | pci::kBridgeVga |
                                               pci::kBridgeVga16 | pci::kBridgeMasterAbort | pci::kBridgeReset);
}

PciBridge::~PciBridge() { close_windows(); }

void PciBridge::reset_bridge() {
  reset_config();
  const std::lock_guard lock(config_lock_);
  load_registers();
}

void PciBridge::config_loaded() { load_registers(); }

void PciBridge::load_registers() {
  secondary_number_.store(config_.bytes[pci::kSecondaryBus], std::memory_order_relaxed);
  subordinate_number_.store(config_.bytes[pci::kSubordinateBus], std::memory_order_relaxed);
  update_windows();
}

void PciBridge::config_written(uint16_t offset, unsigned size, uint32_t value) {
  const auto touches = [=](uint16_t first, unsigned count) { return offset < first + count && offset + size > first; };
  if (touches(pci::kCommand, 2) || touches(pci::kPrimaryBus, pci::kPrefetchableLimit32 + 4u - pci::kPrimaryBus) ||
      touches(pci::kBridgeControl, 2))
    load_registers();
  // [PCI bridge 1.2] 3.2.5.18: the reset line is held for as long as the bit is set; what is behind starts afresh once.
  if (touches(pci::kBridgeControl, 1) && offset + size > pci::kBridgeControl &&
      ((value >> (8 * (pci::kBridgeControl - std::min<unsigned>(offset, pci::kBridgeControl)))) & pci::kBridgeReset) !=
          0)
    reset_secondary();
}

void PciBridge::reset_secondary() {
  log::print(log::Category::kPci, "pci: {} resets its secondary bus", path());
  for (PciDevice* device : secondary_.devices()) {
    device->reset();
    if (PciBridge* const bridge = device->as_bridge(); bridge != nullptr) bridge->reset_secondary();
  }
}

bool PciBridge::forwards(uint8_t bus) const { return secondary_number() <= bus && bus <= subordinate_number(); }

// [PCI bridge 1.2] 9.1: for a device behind the bridge, on the bridge's own pin.
void PciBridge::set_irq(uint32_t pin, bool level) {
  if (bus() != nullptr) bus()->set_intx(devfn(), static_cast<uint8_t>(pin + 1), level, true);
}

// --- windows

// [PCI bridge 1.2] 3.2.5.6: 4 KiB pieces of the 16-bit space.
PciBridge::Window PciBridge::decode_io() const {
  Window window{.base = (config_.bytes[pci::kIoBase] & 0xf0u) << 8,
                .limit = (config_.bytes[pci::kIoLimit] & 0xf0u) << 8 | 0xfffu};
  window.enabled = (config_.get16(pci::kCommand) & pci::kCommandIo) != 0 && window.base <= window.limit;
  return window;
}

PciBridge::Window PciBridge::decode_memory() const {
  Window window{.base = (config_.get16(pci::kMemoryBase) & 0xfff0ull) << 16,
                .limit = (config_.get16(pci::kMemoryLimit) & 0xfff0ull) << 16 | 0xfffff};
  window.enabled = (config_.get16(pci::kCommand) & pci::kCommandMemory) != 0 && window.base <= window.limit;
  return window;
}

PciBridge::Window PciBridge::decode_prefetchable() const {
  Window window{.base = (config_.get16(pci::kPrefetchableBase) & 0xfff0ull) << 16 |
                        uint64_t{config_.get32(pci::kPrefetchableBase32)} << 32,
                .limit = (config_.get16(pci::kPrefetchableLimit) & 0xfff0ull) << 16 |
                         uint64_t{config_.get32(pci::kPrefetchableLimit32)} << 32 | 0xfffff};
  window.enabled = (config_.get16(pci::kCommand) & pci::kCommandMemory) != 0 && window.base <= window.limit;
  return window;
}

PciBridge::Window PciBridge::io_window() {
  const std::lock_guard lock(config_lock_);
  return decode_io();
}
PciBridge::Window PciBridge::memory_window() {
  const std::lock_guard lock(config_lock_);
  return decode_memory();
}
PciBridge::Window PciBridge::prefetchable_window() {
  const std::lock_guard lock(config_lock_);
  return decode_prefetchable();
}

std::vector<PciBridge::Piece> PciBridge::pieces() const {
  const uint16_t control = config_.get16(pci::kBridgeControl);
  std::vector<Piece> pieces;
  const auto add = [&pieces](bool io, uint64_t base, uint64_t end) {
    const uint64_t limit = io ? kPortSpace : kMemorySpace;
    end = std::min(end, limit);
    if (base < end) pieces.push_back({.io = io, .base = base, .size = end - base});
  };
  if (const Window io = decode_io(); io.enabled) {
    // [PCI bridge 1.2] 3.2.5.18: with ISA enable only the first 256 bytes of each KiB pass.
    if ((control & pci::kBridgeIsa) == 0) {
      add(true, io.base, io.limit + 1);
    } else {
      for (uint64_t at = io.base; at <= io.limit; at += 0x400) add(true, at, at + 0x100);
    }
  }
  for (const Window& memory : {decode_memory(), decode_prefetchable()})
    if (memory.enabled) add(false, memory.base, std::min(memory.limit, kMemorySpace - 1) + 1);
  if ((control & pci::kBridgeVga) == 0) return pieces;
  const uint16_t command = config_.get16(pci::kCommand);
  if ((command & pci::kCommandMemory) != 0) add(false, 0xa0000, 0xc0000);
  if ((command & pci::kCommandIo) != 0) {
    // With 10-bit decode the VGA ports appear again in every KiB.
    const uint64_t step = (control & pci::kBridgeVga16) != 0 ? kPortSpace : 0x400;
    for (uint64_t at = 0; at < kPortSpace; at += step) {
      add(true, at + 0x3b0, at + 0x3bc);
      add(true, at + 0x3c0, at + 0x3e0);
    }
  }
  return pieces;
}

void PciBridge::close_windows() {
  if (bus() != nullptr)
    for (size_t i = 0; i < shown_.size(); ++i) (shown_[i].io ? bus()->ports_ : bus()->memory_).remove(aliases_[i]);
  shown_.clear();
  aliases_.clear();
}

void PciBridge::update_windows() {
  if (bus() == nullptr) return;
  std::vector<Piece> wanted = pieces();
  if (wanted == shown_) return;
  close_windows();
  for (const Piece& piece : wanted) {
    aliases_.push_back(
        Region::alias(secondary_.name() + "-window", piece.io ? ports_ : memory_, piece.base, piece.size));
    (piece.io ? bus()->ports_ : bus()->memory_).add(piece.base, aliases_.back(), kWindowPriority);
    log::print(log::Category::kPci, "pci: {} passes {} {:#x}-{:#x}", path(), piece.io ? "ports" : "memory", piece.base,
               piece.base + piece.size - 1);
  }
  shown_ = std::move(wanted);
}

}  // namespace kite::bus
