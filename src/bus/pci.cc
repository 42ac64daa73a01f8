#include "bus/pci.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

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

uint32_t all_ones(unsigned size) { return static_cast<uint32_t>(low_mask(size * 8)); }

bool fits(uint8_t offset, unsigned size) { return (size == 1 || size == 2 || size == 4) && offset + size <= 256; }

bool overlaps(unsigned offset, unsigned size, unsigned start, unsigned end) {
  return offset < end && offset + size > start;
}

constexpr uint8_t bar_offset(unsigned index) { return static_cast<uint8_t>(pci::kBar0 + 4 * index); }

}  // namespace

// --- PciConfigSpace ---

uint32_t PciConfigSpace::read(uint8_t offset, unsigned size) const {
  if (!fits(offset, size)) return all_ones(size);
  return static_cast<uint32_t>(load_le(&bytes[offset], size));
}

void PciConfigSpace::write(uint8_t offset, unsigned size, uint32_t value) {
  if (!fits(offset, size)) return;
  for (unsigned i = 0; i < size; ++i) {
    const auto byte = static_cast<uint8_t>(value >> (i * 8));
    const unsigned at = offset + i;
    const auto kept = static_cast<uint8_t>(bytes[at] & ~writable[at]);
    bytes[at] = static_cast<uint8_t>((kept | (byte & writable[at])) & ~(byte & clear_on_one[at]));
  }
}

void PciConfigSpace::set16(uint8_t offset, uint16_t value) {
  if (fits(offset, sizeof value)) store(&bytes[offset], value);
}
void PciConfigSpace::set32(uint8_t offset, uint32_t value) {
  if (fits(offset, sizeof value)) store(&bytes[offset], value);
}
uint16_t PciConfigSpace::get16(uint8_t offset) const { return static_cast<uint16_t>(read(offset, 2)); }
uint32_t PciConfigSpace::get32(uint8_t offset) const { return read(offset, 4); }

// --- PciDevice ---

PciDevice::PciDevice(std::string path, const PciIds& ids) : Device(std::move(path)) {
  config_.set16(pci::kVendorId, ids.vendor);
  config_.set16(pci::kDeviceId, ids.device);
  config_.set32(pci::kRevisionId, ids.revision | ids.class_code << 8);
  config_.set16(pci::kSubsystemVendorId, ids.subsystem_vendor);
  config_.set16(pci::kSubsystemId, ids.subsystem);

  constexpr uint16_t kCommandWritable = pci::kCommandIo | pci::kCommandMemory | pci::kCommandMaster |
                                        pci::kCommandParity | pci::kCommandSerr | pci::kCommandIntxDisable;
  store(&config_.writable[pci::kCommand], kCommandWritable);
  store(&config_.clear_on_one[pci::kStatus], pci::kStatusErrors);
  config_.writable[pci::kCacheLineSize] = 0xff;
  config_.writable[pci::kLatencyTimer] = 0xff;
  config_.writable[pci::kInterruptLine] = 0xff;
}

uint32_t PciDevice::config_read(uint8_t offset, unsigned size) {
  bool interrupt = false;
  {
    const std::lock_guard lock(intx_mutex_);
    interrupt = intx_level_;
  }
  const std::lock_guard lock(config_lock_);
  uint32_t value = config_.read(offset, size);
  // [PCI 3.0] 6.2.3: the interrupt status bit shows the level whether or not interrupts are disabled.
  if (interrupt && fits(offset, size) && overlaps(offset, size, pci::kStatus, pci::kStatus + 1))
    value |= uint32_t{pci::kStatusInterrupt} << ((pci::kStatus - offset) * 8);
  return value;
}

void PciDevice::config_write(uint8_t offset, unsigned size, uint32_t value) {
  if (!fits(offset, size)) return;
  log::print(log::Category::kPci, "pci: {} config write {:#04x} size {} = {:#x}", path(), offset, size, value);
  const std::lock_guard lock(config_lock_);
  config_.write(offset, size, value);
  const bool command = overlaps(offset, size, pci::kCommand, pci::kCommand + 2);
  if (command || overlaps(offset, size, pci::kBar0, bar_offset(6))) update_bars();
  if (command) {
    const std::lock_guard intx_lock(intx_mutex_);
    drive_intx(intx_level_, (config_.get16(pci::kCommand) & pci::kCommandIntxDisable) != 0);
  }
  config_written(offset, size, value);
}

PciDevice::BarInfo PciDevice::bar(unsigned index) const { return index < bars_.size() ? bars_[index].info : BarInfo{}; }

uint8_t PciDevice::interrupt_pin() const { return config_.bytes[pci::kInterruptPin]; }

void PciDevice::declare_bar(unsigned index, std::shared_ptr<Region> region, BarInfo info) {
  if (info.size == 0) info.size = region->size();
  assert(index < bars_.size() && std::has_single_bit(info.size) && info.size >= (info.io ? 4U : 16U));
  assert(!info.is_64 || (index + 1 < bars_.size() && !info.io));
  assert(info.is_64 || info.size <= uint64_t{1} << 31);
  const uint32_t flags =
      info.io ? pci::kBarIo : (info.is_64 ? pci::kBar64 : 0) | (info.prefetchable ? pci::kBarPrefetchable : 0);
  const uint64_t mask = ~(info.size - 1);
  config_.set32(bar_offset(index), flags);
  store(&config_.writable[bar_offset(index)], static_cast<uint32_t>(mask));
  if (info.is_64) store(&config_.writable[bar_offset(index + 1)], static_cast<uint32_t>(mask >> 32));
  bars_[index] = {.info = info, .region = std::move(region)};
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
  address = config_.get32(bar_offset(index));
  if (info.is_64) address |= uint64_t{config_.get32(bar_offset(index + 1))} << 32;
  address &= ~(info.size - 1);
  if (address == 0) return false;  // [PCI 3.0] 6.2.5.1: 0 is not a valid address: not assigned yet
  const uint64_t last = address + (info.size - 1);
  if (info.io) return last < kPortSpace;
  // All ones are a sizing probe made while decoding is on: it must not cover the firmware and the interrupt
  // controllers.
  return last != (info.is_64 ? UINT64_MAX : UINT32_MAX);
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
  if (before != after && bus_ != nullptr && pin != 0) bus_->set_intx(devfn_, pin, after);
}

void PciDevice::reset_config() {
  const std::lock_guard lock(config_lock_);
  for (unsigned i = 0; i < pci::kHeaderEnd; ++i)
    config_.bytes[i] = static_cast<uint8_t>(config_.bytes[i] & ~(config_.writable[i] | config_.clear_on_one[i]));
  update_bars();
  const std::lock_guard intx_lock(intx_mutex_);
  drive_intx(false, false);
}

void PciDevice::save_config(StateWriter& writer) {
  const std::lock_guard lock(config_lock_);
  writer.field(kFieldBytes, config_.bytes);
  const std::lock_guard intx_lock(intx_mutex_);
  writer.field(kFieldIntx, intx_level_);
}

void PciDevice::restore_config(StateReader& reader) {
  std::array<uint8_t, 256> bytes{};
  uint8_t level = 0;  // not bool: a damaged state may hold any byte
  reader.field(kFieldBytes, bytes);
  reader.field(kFieldIntx, level);
  if (!reader.ok()) return;
  if (reader.more_fields()) return reader.reject("unknown fields after the configuration space");
  if (level > 1) return reader.reject(fmt::format("INTx level {} is neither 0 nor 1", level));

  const std::lock_guard lock(config_lock_);
  for (unsigned i = 0; i < bytes.size(); ++i) {
    const unsigned fixed = ~(config_.writable[i] | config_.clear_on_one[i] | config_.own[i]) & 0xffu;
    if (((bytes[i] ^ config_.bytes[i]) & fixed) != 0)
      return reader.reject(fmt::format("configuration register {:#04x} holds {:#04x}, where this device has {:#04x}", i,
                                       bytes[i], config_.bytes[i]));
  }
  config_.bytes = bytes;
  update_bars();
  const std::lock_guard intx_lock(intx_mutex_);
  drive_intx(level != 0, (config_.get16(pci::kCommand) & pci::kCommandIntxDisable) != 0);
}

// --- PciBus ---

PciBus::PciBus(Region& memory, Region& ports, IrqSink& intx) : memory_(memory), ports_(ports), intx_(intx) {}

Result<> PciBus::attach(PciDevice& device, uint8_t slot, uint8_t function) {
  if (slot > 31 || function > 7)
    return fail("PCI address {:02x}.{} of '{}' does not exist: slots are 0-1f, functions 0-7", slot, function,
                device.path());
  const auto devfn = static_cast<uint8_t>(slot << 3 | function);
  if (devices_[devfn] != nullptr)
    return fail("PCI address {:02x}.{} is taken by '{}'; '{}' needs another", slot, function, devices_[devfn]->path(),
                device.path());
  if (device.bus_ != nullptr) return fail("'{}' is on a PCI bus already", device.path());
  devices_[devfn] = &device;
  device.devfn_ = devfn;
  device.bus_ = this;
  mark_multifunction(slot);
  const std::lock_guard lock(device.config_lock_);
  device.update_bars();
  return {};
}

// [PCI 3.0] 6.2.1: software looks for functions 1-7 only where function 0 says that there are some.
void PciBus::mark_multifunction(uint8_t slot) {
  const auto first = devices_.begin() + slot * 8;
  if (*first == nullptr || std::all_of(first + 1, first + 8, [](const PciDevice* other) { return other == nullptr; }))
    return;
  const std::lock_guard lock((*first)->config_lock_);
  (*first)->config_.bytes[pci::kHeaderType] |= pci::kMultifunction;
}

PciDevice* PciBus::find(uint8_t devfn) const { return devices_[devfn]; }

std::vector<PciDevice*> PciBus::devices() const {
  std::vector<PciDevice*> present;
  std::ranges::copy_if(devices_, std::back_inserter(present),
                       [](const PciDevice* device) { return device != nullptr; });
  return present;
}

Result<uint8_t> PciBus::free_slot() const {
  for (unsigned slot = 0; slot < 32; ++slot) {
    const auto first = devices_.begin() + slot * 8;
    if (std::all_of(first, first + 8, [](const PciDevice* device) { return device == nullptr; }))
      return static_cast<uint8_t>(slot);
  }
  return fail("all 32 slots of the PCI bus are taken");
}

uint32_t PciBus::config_read(uint8_t bus, uint8_t devfn, uint8_t offset, unsigned size) {
  PciDevice* const device = bus == 0 ? devices_[devfn] : nullptr;
  return device == nullptr ? all_ones(size) : device->config_read(offset, size);
}

void PciBus::config_write(uint8_t bus, uint8_t devfn, uint8_t offset, unsigned size, uint32_t value) {
  if (PciDevice* const device = bus == 0 ? devices_[devfn] : nullptr; device != nullptr)
    device->config_write(offset, size, value);
}

void PciBus::set_intx(uint8_t devfn, uint8_t pin, bool level) {
  const unsigned pirq = pirq_of(static_cast<uint8_t>(devfn >> 3), pin);
  const auto any = [this, pirq] { return std::ranges::any_of(asserted_[pirq], std::identity{}); };
  const std::lock_guard lock(intx_lock_);
  const bool before = any();
  uint64_t& word = asserted_[pirq][devfn / 64];
  const uint64_t mask = bit(devfn % 64);
  word = level ? word | mask : word & ~mask;
  if (const bool after = any(); after != before) intx_.set_irq(pirq, after);
}

}  // namespace kite::bus
