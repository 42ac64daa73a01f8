#include "bus/pci_device.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "bus/pci_bus.h"
#include "support/bits.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::bus {
namespace {

constexpr uint16_t kFieldBytes = 0xf000;
constexpr uint16_t kFieldIntx = 0xf001;
// BARs above RAM of the same container; the board gives the container its place.
constexpr int kBarPriority = 1;
constexpr uint64_t kPortSpace = 0x10000;

bool overlaps(unsigned offset, unsigned size, unsigned start, unsigned end) {
  return offset < end && offset + size > start;
}

constexpr uint8_t bar_offset(unsigned index) { return static_cast<uint8_t>(pci::kBar0 + 4 * index); }

uint16_t space_size(PciGeneration generation) {
  return generation == PciGeneration::kExpress ? PciConfigSpace::kExpress : PciConfigSpace::kConventional;
}

}  // namespace

PciDevice::PciDevice(std::string path, const PciIds& ids, PciHeader header, PciGeneration generation)
    : Device(std::move(path)), config_(space_size(generation)) {
  config_.set16(pci::kVendorId, ids.vendor);
  config_.set16(pci::kDeviceId, ids.device);
  config_.set32(pci::kRevisionId, ids.revision | ids.class_code << 8);
  if (header == PciHeader::kDevice) {
    config_.set16(pci::kSubsystemVendorId, ids.subsystem_vendor);
    config_.set16(pci::kSubsystemId, ids.subsystem);
  } else {
    config_.bytes[pci::kHeaderType] = pci::kHeaderBridge;
  }

  constexpr uint16_t kCommandWritable = pci::kCommandIo | pci::kCommandMemory | pci::kCommandMaster |
                                        pci::kCommandParity | pci::kCommandSerr | pci::kCommandIntxDisable;
  config_.let_write16(pci::kCommand, kCommandWritable);
  config_.let_clear16(pci::kStatus, pci::kStatusErrors);
  config_.writable[pci::kCacheLineSize] = 0xff;
  config_.writable[pci::kLatencyTimer] = 0xff;
  config_.writable[pci::kInterruptLine] = 0xff;
}

PciDevice::~PciDevice() {
  if (bus_ == nullptr) return;
  unmap_bars();
  bus_->forget(*this);
}

uint32_t PciDevice::config_read(uint16_t offset, unsigned size) {
  bool interrupt = false;
  {
    const std::lock_guard lock(intx_mutex_);
    interrupt = intx_level_;
  }
  const std::lock_guard lock(config_lock_);
  uint32_t value = config_.read(offset, size);
  // [PCI 3.0] 6.2.3: the interrupt status bit shows the level whether or not interrupts are disabled.
  if (interrupt && offset <= pci::kStatus && offset + size > pci::kStatus)
    value |= uint32_t{pci::kStatusInterrupt} << ((pci::kStatus - offset) * 8);
  for (PciCapability* capability : capabilities_) value |= capability->overlay(offset, size);
  return value;
}

void PciDevice::config_write(uint16_t offset, unsigned size, uint32_t value) {
  if ((size != 1 && size != 2 && size != 4) || offset + size > config_.size()) return;
  log::print(log::Category::kPci, "pci: {} config write {:#04x} size {} = {:#x}", path(), offset, size, value);
  const std::lock_guard lock(config_lock_);
  config_.write(offset, size, value);
  const bool command = overlaps(offset, size, pci::kCommand, pci::kCommand + 2);
  if (command || overlaps(offset, size, pci::kBar0, bar_offset(kBars)) ||
      overlaps(offset, size, pci::kRomAddress, pci::kRomAddress + 4))
    update_bars();
  if (command) command_changed();
  for (PciCapability* capability : capabilities_) capability->config_written(offset, size);
  config_written(offset, size, value);
}

void PciDevice::command_changed() {
  const uint16_t command = config_.get16(pci::kCommand);
  bus_master_.store((command & pci::kCommandMaster) != 0, std::memory_order_relaxed);
  const std::lock_guard lock(intx_mutex_);
  drive_intx(intx_level_, (command & pci::kCommandIntxDisable) != 0);
}

PciDevice::BarInfo PciDevice::bar(unsigned index) const { return index < kBars ? bars_[index].info : BarInfo{}; }

uint64_t PciDevice::bar_value(unsigned index) const {
  uint64_t address = config_.get32(bars_[index].register_offset);
  if (bars_[index].info.is_64) address |= uint64_t{config_.get32(bar_offset(index + 1))} << 32;
  return address & ~(bars_[index].info.size - 1);
}

uint64_t PciDevice::bar_address(unsigned index) {
  if (index >= kBars || bars_[index].info.size == 0) return 0;
  const std::lock_guard lock(config_lock_);
  return bar_value(index);
}

uint8_t PciDevice::interrupt_pin() const { return config_.bytes[pci::kInterruptPin]; }

void PciDevice::declare_bar(unsigned index, std::shared_ptr<Region> region, BarInfo info) {
  if (info.size == 0) info.size = region->size();
  assert(index < kBars && std::has_single_bit(info.size) && info.size >= (info.io ? 4U : 16U));
  assert(!info.is_64 || (index + 1 < kBars && !info.io));
  assert(info.is_64 || info.size <= uint64_t{1} << 31);
  const uint32_t flags =
      info.io ? pci::kBarIo : (info.is_64 ? pci::kBar64 : 0) | (info.prefetchable ? pci::kBarPrefetchable : 0);
  const uint64_t mask = ~(info.size - 1);
  config_.set32(bar_offset(index), flags);
  store(&config_.writable[bar_offset(index)], static_cast<uint32_t>(mask));
  if (info.is_64) store(&config_.writable[bar_offset(index + 1)], static_cast<uint32_t>(mask >> 32));
  bars_[index] = {.info = info, .region = std::move(region), .register_offset = bar_offset(index)};
}

void PciDevice::declare_rom(std::shared_ptr<Region> region) {
  const uint64_t size = region->size();
  assert(std::has_single_bit(size) && size > pci::kRomEnable && size >= 2048 && size <= uint64_t{1} << 24);
  config_.let_write32(pci::kRomAddress, static_cast<uint32_t>(~(size - 1)) | pci::kRomEnable);
  bars_[kRomBar] = {.info = {.size = size}, .region = std::move(region), .register_offset = pci::kRomAddress};
}

void PciDevice::add_capability(uint8_t id, uint8_t offset) {
  assert(offset >= pci::kHeaderEnd && offset % 4 == 0);
  unsigned link = pci::kCapabilities;  // the byte that will point here
  while (config_.bytes[link] != 0) link = config_.bytes[link] + 1u;
  config_.bytes[link] = offset;
  config_.bytes[offset] = id;
  config_.bytes[offset + 1u] = 0;
  config_.set16(pci::kStatus, config_.get16(pci::kStatus) | pci::kStatusCapabilities);
}

void PciDevice::add_extended_capability(uint16_t id, uint8_t version, uint16_t offset) {
  // [PCIe 3.0] 7.9: the list starts at 0x100; bits 31:20 of each header point to the next.
  assert(offset >= pci::kExtendedStart && offset % 4 == 0 && offset < config_.size());
  if (offset != pci::kExtendedStart) {
    uint16_t last = pci::kExtendedStart;
    while (config_.get32(last) >> 20 != 0) last = static_cast<uint16_t>(config_.get32(last) >> 20);
    config_.set32(last, (config_.get32(last) & 0xfffff) | uint32_t{offset} << 20);
  }
  config_.set32(offset, id | uint32_t{version} << 16);
}

void PciDevice::add_express_capability(const PcieShape& shape) {
  using namespace pcie;
  const uint16_t at = shape.offset;
  add_capability(pci::kCapabilityExpress, shape.offset);
  constexpr uint16_t kVersion2 = 2;
  config_.set16(at + kFlags, static_cast<uint16_t>(kVersion2 | static_cast<unsigned>(shape.type) << kTypeShift |
                                                   (shape.slot ? kSlotImplemented : 0u)));
  config_.set32(at + kDeviceCapabilities, kRoleBasedErrors);
  config_.let_write16(at + kDeviceControl, kDeviceControlBits);
  config_.let_clear16(at + kDeviceStatus, kDeviceStatusErrors);
  if (shape.type != PcieType::kIntegratedEndpoint) {  // which has no link
    const uint32_t one_lane = kSpeed2500 | 1u << kWidthShift;
    config_.set32(at + kLinkCapabilities, one_lane | uint32_t{shape.port} << kPortShift);
    config_.let_write16(at + kLinkControl, kLinkControlBits);
    config_.set16(at + kLinkStatus, static_cast<uint16_t>(one_lane));
    config_.set16(at + kLinkControl2, kSpeed2500);
    config_.set32(at + kLinkCapabilities2, 1u << 1);  // 2.5 GT/s alone
  }
  if (shape.type == PcieType::kRootPort) {
    config_.let_write16(at + kRootControl, kRootControlBits);
    config_.let_clear16(at + kRootStatus + 2u, 1);  // PME status
  }
}

void PciDevice::mark_multifunction() {
  const std::lock_guard lock(config_lock_);
  config_.bytes[pci::kHeaderType] |= pci::kMultifunction;
}

uint8_t PciDevice::find_capability(uint8_t id) {
  const std::lock_guard lock(config_lock_);
  uint8_t at = config_.bytes[pci::kCapabilities];
  while (at != 0 && config_.bytes[at] != id) at = config_.bytes[at + 1u];
  return at;
}

bool PciDevice::may_master() const {
  return bus_master_.load(std::memory_order_relaxed) && (bus_ == nullptr || bus_->may_master());
}

bool PciDevice::send_msi(uint64_t address, uint32_t data) const {
  // [PCI 3.0] 6.8.2: a message is a memory write that the function masters.
  return bus_ != nullptr && may_master() && bus_->send_msi(address, data);
}

void PciDevice::set_interrupt_pin(uint8_t pin) {
  assert(pin <= 4);
  config_.bytes[pci::kInterruptPin] = pin;
}

// Where the BAR wants to be decoded; false: nowhere.
bool PciDevice::bar_target(unsigned index, uint64_t& address) const {
  const BarInfo& info = bars_[index].info;
  const uint16_t command = config_.get16(pci::kCommand);
  if ((command & (info.io ? pci::kCommandIo : pci::kCommandMemory)) == 0) return false;
  // [PCI 3.0] 6.2.5.2: the ROM has an enable bit of its own besides.
  if (index == kRomBar && (config_.get32(pci::kRomAddress) & pci::kRomEnable) == 0) return false;
  address = bar_value(index);
  if (address == 0) return false;  // [PCI 3.0] 6.2.5.1: 0 is not a valid address: not assigned yet
  const uint64_t last = address + (info.size - 1);
  if (info.io) return last < kPortSpace;
  // All ones are a sizing probe made while decoding is on: it must not cover the firmware and the interrupt
  // controllers.
  return last != (info.is_64 ? UINT64_MAX : UINT32_MAX);
}

void PciDevice::unmap_bars() {
  for (Bar& bar : bars_) {
    if (bar.mapped) (bar.info.io ? bus_->ports_ : bus_->memory_).remove(bar.region);
    bar.mapped = false;
  }
}

void PciDevice::update_bars() {
  if (bus_ == nullptr) return;
  for (unsigned i = 0; i < bars_.size(); ++i) {
    Bar& bar = bars_[i];
    if (bar.region == nullptr) continue;
    uint64_t address = 0;
    const bool wanted = bar_target(i, address);
    if (wanted == bar.mapped && (!wanted || address == bar.address)) continue;
    Region& space = bar.info.io ? bus_->ports_ : bus_->memory_;
    if (bar.mapped && wanted)
      bar.region->set_offset(address);
    else if (bar.mapped)
      space.remove(bar.region);
    else
      space.add(address, bar.region, kBarPriority);
    bar.mapped = wanted;
    bar.address = address;
    log::print(log::Category::kPci, "pci: {} BAR {} {} {:#x}", path(), i, wanted ? "at" : "unmapped, was to be at",
               address);
  }
}

void PciDevice::set_intx(bool level) {
  const std::lock_guard lock(intx_mutex_);
  drive_intx(level, intx_disabled_);
}

// Needs intx_mutex_, which is held until the change has reached the sink: changes arrive in order.
void PciDevice::drive_intx(bool level, bool disabled) {
  const bool before = intx_level_ && !intx_disabled_;
  intx_level_ = level;
  intx_disabled_ = disabled;
  const bool after = level && !disabled;
  const uint8_t pin = interrupt_pin();
  if (before != after && bus_ != nullptr && pin != 0) bus_->set_intx(devfn_, pin, after, false);
}

void PciDevice::reset_config() {
  const std::lock_guard lock(config_lock_);
  for (unsigned i = 0; i < pci::kHeaderEnd; ++i)
    config_.bytes[i] = static_cast<uint8_t>(config_.bytes[i] & ~(config_.writable[i] | config_.clear_on_one[i]));
  update_bars();
  for (PciCapability* capability : capabilities_) capability->reset();
  {
    const std::lock_guard intx_lock(intx_mutex_);
    intx_level_ = false;
    if (bus_ != nullptr && interrupt_pin() != 0) bus_->set_intx(devfn_, interrupt_pin(), false, false);
  }
  command_changed();
}

void PciDevice::save_config(StateWriter& writer) {
  const std::lock_guard lock(config_lock_);
  writer.field(kFieldBytes, config_.bytes);
  {
    const std::lock_guard intx_lock(intx_mutex_);
    writer.field(kFieldIntx, intx_level_);
  }
  for (PciCapability* capability : capabilities_) capability->save(writer);
}

void PciDevice::restore_config(StateReader& reader) {
  std::vector<uint8_t> bytes;
  uint8_t level = 0;  // not bool: a damaged state may hold any byte
  reader.field(kFieldBytes, bytes);
  reader.field(kFieldIntx, level);
  if (!reader.ok()) return;
  if (level > 1) return reader.reject(fmt::format("INTx level {} is neither 0 nor 1", level));

  const std::lock_guard lock(config_lock_);
  if (bytes.size() != config_.bytes.size())
    return reader.reject(fmt::format("the configuration space has {} bytes, where this device has {}", bytes.size(),
                                     config_.bytes.size()));
  for (unsigned i = 0; i < bytes.size(); ++i) {
    const unsigned fixed = ~(config_.writable[i] | config_.clear_on_one[i] | config_.own[i]) & 0xffu;
    if (((bytes[i] ^ config_.bytes[i]) & fixed) != 0)
      return reader.reject(fmt::format("configuration register {:#04x} holds {:#04x}, where this device has {:#04x}", i,
                                       bytes[i], config_.bytes[i]));
  }
  for (PciCapability* capability : capabilities_) capability->restore(reader);
  if (!reader.ok()) return;
  if (reader.more_fields()) return reader.reject("unknown fields after the configuration space");
  config_.bytes = std::move(bytes);
  update_bars();
  for (PciCapability* capability : capabilities_) capability->apply();
  {
    // At once with the command register's disable bit: a pulse in between would be an edge to whoever latches edges.
    const bool disabled = (config_.get16(pci::kCommand) & pci::kCommandIntxDisable) != 0;
    const std::lock_guard intx_lock(intx_mutex_);
    drive_intx(level != 0, disabled);
  }
  command_changed();
  config_loaded();
}

}  // namespace kite::bus
