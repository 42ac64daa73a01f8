#include "bus/pci_bus.h"

#include <algorithm>
#include <cassert>
#include <functional>

#include "bus/pci_bridge.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::bus {
namespace {

uint32_t all_ones(unsigned size) { return static_cast<uint32_t>(low_mask(size * 8)); }

}  // namespace

PciBus::PciBus(Region& memory, Region& ports, IrqSink& intx, Config config, PciBridge* bridge)
    : config_(std::move(config)), memory_(memory), ports_(ports), intx_(intx), bridge_(bridge), asserted_(kMostLines) {}

PciBus::~PciBus() {
  for (PciDevice* const device : devices_)
    if (device != nullptr) detach(*device);
}

void PciBus::forget(const PciDevice& device) {
  devices_[device.devfn_] = nullptr;
  std::erase_if(bridges_, [&device](const PciBridge* bridge) { return bridge->devfn_ == device.devfn_; });
}

Result<> PciBus::attach(PciDevice& device, uint8_t slot, uint8_t function) {
  if (slot > 31 || function > 7)
    return fail("PCI address {:02x}.{} of '{}' does not exist: slots are 0-1f, functions 0-7", slot, function,
                device.path());
  // It exists there for command lines that were written so, and a configuration cycle finds it; a guest does not look.
  if (slot >= config_.slots)
    log::warn("'{}' is at {:02x}.{}, but bus '{}' has slot{} only: guests will not find it", device.path(), slot,
              function, config_.name, config_.slots == 1 ? " 0" : fmt::format("s 0-{:x}", config_.slots - 1));
  const auto devfn = static_cast<uint8_t>(slot << 3 | function);
  if (devices_[devfn] != nullptr)
    return fail("PCI address {:02x}.{} is taken by '{}'; '{}' needs another", slot, function, devices_[devfn]->path(),
                device.path());
  if (device.bus_ != nullptr) return fail("'{}' is on a PCI bus already", device.path());
  devices_[devfn] = &device;
  device.devfn_ = devfn;
  device.bus_ = this;
  if (PciBridge* const bridge = device.as_bridge(); bridge != nullptr) {
    bridges_.push_back(bridge);
    std::ranges::sort(bridges_, {}, [](const PciBridge* other) { return other->devfn(); });
  }
  mark_multifunction(slot);
  const std::lock_guard lock(device.config_lock_);
  device.update_bars();
  device.config_loaded();
  return {};
}

void PciBus::detach(PciDevice& device) {
  if (device.bus_ != this) return;
  device.set_intx(false);
  {
    const std::lock_guard lock(device.config_lock_);
    device.unmap_bars();
    device.leaving();
  }
  forget(device);
  device.bus_ = nullptr;
}

// [PCI 3.0] 6.2.1: software looks for functions 1-7 only where function 0 says that there are some.
void PciBus::mark_multifunction(uint8_t slot) {
  const auto first = devices_.begin() + slot * 8;
  if (*first == nullptr || std::all_of(first + 1, first + 8, [](const PciDevice* other) { return other == nullptr; }))
    return;
  (*first)->mark_multifunction();
}

std::vector<PciDevice*> PciBus::devices() const {
  std::vector<PciDevice*> present;
  std::ranges::copy_if(devices_, std::back_inserter(present),
                       [](const PciDevice* device) { return device != nullptr; });
  return present;
}

Result<uint8_t> PciBus::free_slot() const {
  for (unsigned slot = 0; slot < config_.slots; ++slot) {
    const auto first = devices_.begin() + slot * 8;
    if (std::all_of(first, first + 8, [](const PciDevice* device) { return device == nullptr; }))
      return static_cast<uint8_t>(slot);
  }
  if (config_.slots == 1) return fail("the only slot of PCI bus '{}' is taken", config_.name);
  return fail("all {} slots of PCI bus '{}' are taken", config_.slots, config_.name);
}

uint8_t PciBus::number() const { return bridge_ == nullptr ? 0 : bridge_->secondary_number(); }

// [PCI bridge 1.2] 3.1.2.1: the bus that has the number takes the transaction for its own functions, a bridge whose
// range holds the number passes it on.
PciDevice* PciBus::route(uint8_t bus, uint8_t devfn) const {
  if (bridge_ != nullptr && !bridge_->link_up()) return nullptr;
  if (bus == number()) return devices_[devfn];
  for (const PciBridge* bridge : bridges_)
    if (bridge->forwards(bus)) return bridge->secondary_.route(bus, devfn);
  return nullptr;
}

uint32_t PciBus::config_read(uint8_t bus, uint8_t devfn, uint16_t offset, unsigned size) {
  PciDevice* const device = route(bus, devfn);
  return device == nullptr ? all_ones(size) : device->config_read(offset, size);
}

void PciBus::config_write(uint8_t bus, uint8_t devfn, uint16_t offset, unsigned size, uint32_t value) {
  if (PciDevice* const device = route(bus, devfn); device != nullptr) device->config_write(offset, size, value);
}

void PciBus::set_intx(uint8_t devfn, uint8_t pin, bool level, bool forwarded) {
  const unsigned line = config_.line_of(static_cast<uint8_t>(devfn >> 3), pin);
  assert(line < kMostLines);
  const auto any = [this, line] { return std::ranges::any_of(asserted_[line], std::identity{}); };
  const std::lock_guard lock(intx_lock_);
  const bool before = any();
  uint64_t& word = asserted_[line][devfn / 64 + (forwarded ? 4 : 0)];
  const uint64_t mask = bit(devfn % 64);
  word = level ? word | mask : word & ~mask;
  if (const bool after = any(); after != before) intx_.set_irq(line, after);
}

bool PciBus::may_master() const { return bridge_ == nullptr || bridge_->may_master(); }

bool PciBus::send_msi(uint64_t address, uint32_t data) const {
  const PciBus* root = this;
  while (root->bridge_ != nullptr) {
    root = root->bridge_->bus();
    if (root == nullptr) return false;  // a bridge that is on no bus
  }
  return root->config_.msi != nullptr && root->config_.msi->send_msi(address, data);
}

}  // namespace kite::bus
