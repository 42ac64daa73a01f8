#include "devices/acpi_pci_hotplug/acpi_pci_hotplug.h"

#include <cassert>
#include <utility>

#include "devices/acpi_pci_hotplug/acpi_pci_hotplug_regs.h"
#include "devices/section.h"
#include "support/bits.h"

namespace kite::devices {

using namespace acpi_pci_hotplug_regs;

namespace {

struct AcpiPciHotplugV1 {
  static constexpr uint32_t kVersion = 1;
  std::array<uint32_t, AcpiPciHotplug::kMostBuses> up, down;
  uint32_t bus;
};
template <class Codec>
void visit(Codec& codec, AcpiPciHotplugV1& wire) {
  codec.field(1, wire.up);
  codec.field(2, wire.down);
  codec.field(3, wire.bus);
}

uint32_t slot_bit(uint8_t slot) {
  assert(slot < 32);
  return uint32_t{1} << slot;
}

}  // namespace

AcpiPciHotplug::AcpiPciHotplug(std::string path, Wiring wiring)
    : Device(std::move(path)),
      wiring_(std::move(wiring)),
      window_(*this, &AcpiPciHotplug::read, &AcpiPciHotplug::write),
      region_(Region::io("acpi-pci-hotplug", kSize, window_, {.min_size = 4, .max_size = 4})) {}

void AcpiPciHotplug::reset() {
  const std::lock_guard lock(lock_);
  state_ = State{};
}

void AcpiPciHotplug::plugged(unsigned bus, uint8_t slot) {
  {
    const std::lock_guard lock(lock_);
    state_.up.at(bus) |= slot_bit(slot);
  }
  wiring_.notify();
}

void AcpiPciHotplug::request_unplug(unsigned bus, uint8_t slot) {
  {
    const std::lock_guard lock(lock_);
    state_.down.at(bus) |= slot_bit(slot);
  }
  wiring_.notify();
}

uint32_t AcpiPciHotplug::unplug_requests(unsigned bus) {
  const std::lock_guard lock(lock_);
  return state_.down.at(bus);
}

uint64_t AcpiPciHotplug::read(uint64_t offset, unsigned) {
  unsigned bus = 0;
  {
    const std::lock_guard lock(lock_);
    bus = state_.bus;
    if (offset == kBus) return bus;
    if (bus >= kMostBuses) return 0;
    if (offset == kUp) return std::exchange(state_.up[bus], 0);
    if (offset == kDown) return state_.down[bus];
  }
  return offset == kRmv ? wiring_.removable(bus) : 0;
}

void AcpiPciHotplug::write(uint64_t offset, unsigned, uint64_t value) {
  const auto slots = static_cast<uint32_t>(value);
  unsigned bus = 0;
  {
    const std::lock_guard lock(lock_);
    if (offset == kBus) state_.bus = slots;
    bus = state_.bus;
    if (offset != kEject || bus >= kMostBuses) return;
    state_.up[bus] &= ~slots;
    state_.down[bus] &= ~slots;
  }
  wiring_.eject(bus, slots);
}

void AcpiPciHotplug::save(StateWriter& writer) {
  const State state = [this] {
    const std::lock_guard lock(lock_);
    return state_;
  }();
  const auto& [up, down, bus] = state;
  save_section(writer, path(), AcpiPciHotplugV1{.up = up, .down = down, .bus = bus});
}

void AcpiPciHotplug::restore(StateReader& reader) {
  AcpiPciHotplugV1 wire{};
  if (!restore_section(reader, path(), wire)) return;
  const std::lock_guard lock(lock_);
  state_ = State{.up = wire.up, .down = wire.down, .bus = wire.bus};
}

}  // namespace kite::devices
