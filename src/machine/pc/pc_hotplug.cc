// PCI functions that come and go without a slot of their own that could tell the guest: on the root bus and behind
// plain bridges. The board may have ACPI's hot-plug registers (pci_hotplug()); a guest then hears of a change and
// decides when a function goes. Without them a function goes with the next reset.
#include <algorithm>

#include "devices/pci_bridges/plain_bridge.h"
#include "machine/pc/pc_chassis.h"

namespace kite::machine {

namespace {

using devices::AcpiPciHotplug;

uint32_t slot_bit(const bus::PciDevice& function) { return uint32_t{1} << (function.devfn() >> 3); }

}  // namespace

bool PcChassis::stays(bus::PciDevice& function) { return function.as_bridge() != nullptr || is_display(function); }

bool PcChassis::takes_functions(const bus::PciBus& bus) const {
  if (&bus == pci_.get()) return pci_hotplug() != nullptr;
  const auto* const bridge = dynamic_cast<const devices::PlainBridge*>(bus.bridge());
  return bridge != nullptr && bridge->takes_functions();
}

// In the order of their numbers. Bridges do not come and go, so a number is a bus's for as long as the machine lives.
std::vector<bus::PciBus*> PcChassis::hotplug_buses() const {
  std::vector<bus::PciBus*> buses;
  const auto collect = [&](auto& self, bus::PciBus& from) -> void {
    if (takes_functions(from) && buses.size() < AcpiPciHotplug::kMostBuses) buses.push_back(&from);
    for (bus::PciDevice* const function : from.devices())
      if (function->as_bridge() != nullptr) self(self, function->as_bridge()->secondary());
  };
  if (pci_hotplug() != nullptr) collect(collect, *pci_);
  return buses;
}

std::optional<unsigned> PcChassis::hotplug_number(const bus::PciBus& bus) const {
  const std::vector<bus::PciBus*> buses = hotplug_buses();
  const auto found = std::ranges::find(buses, &bus);
  if (found == buses.end()) return {};
  return static_cast<unsigned>(found - buses.begin());
}

// Of these slots: what a user has put there and can go.
std::vector<bus::PciDevice*> PcChassis::removable_functions(const bus::PciBus& bus, uint32_t slots) const {
  std::vector<bus::PciDevice*> functions;
  for (bus::PciDevice* const function : bus.devices()) {
    const bool users = std::ranges::any_of(user_devices_, [&](const auto& device) { return device.get() == function; });
    if (users && !stays(*function) && (slots & slot_bit(*function)) != 0) functions.push_back(function);
  }
  return functions;
}

AcpiPciHotplug::Wiring PcChassis::hotplug_wiring(std::function<void()> notify) {
  return {.notify = std::move(notify),
          .removable =
              [this](unsigned number) {
                const std::vector<bus::PciBus*> buses = hotplug_buses();
                return number < buses.size() ? removable_slots(*buses[number]) : 0;
              },
          .eject =
              [this](unsigned number, uint32_t slots) {
                const std::vector<bus::PciBus*> buses = hotplug_buses();
                if (number >= buses.size()) return;
                for (const bus::PciDevice* const function : removable_functions(*buses[number], slots))
                  context_.requests.eject(function->path());
              }};
}

// Empty ones, too: something may come.
uint32_t PcChassis::removable_slots(const bus::PciBus& bus) const {
  uint32_t slots = ~uint32_t{0};
  const std::vector<bus::PciDevice*> removable = removable_functions(bus, slots);
  for (const bus::PciDevice* const function : bus.devices())
    if (std::ranges::find(removable, function) == removable.end()) slots &= ~slot_bit(*function);
  return slots;
}

std::optional<boot::HotplugBus> PcChassis::hotplug_tree() const {
  if (pci_hotplug() == nullptr) return {};
  const auto describe = [this](auto& self, bus::PciBus& bus) -> boot::HotplugBus {
    boot::HotplugBus node{.number = hotplug_number(bus)};
    if (node.number) node.slots = removable_slots(bus);
    for (bus::PciDevice* const function : bus.devices()) {
      if (function->as_bridge() == nullptr) continue;
      node.behind.push_back(self(self, function->as_bridge()->secondary()));
      node.behind.back().bridge = function->devfn();
    }
    return node;
  };
  return describe(describe, *pci_);
}

// [PCI 3.0] 6.2.1: without a function 0 there is nothing in the slot for the guest; it comes last.
void PcChassis::plugged(const bus::PciDevice& function) {
  const bus::PciBus& bus = *function.bus();
  const auto number = hotplug_number(bus);
  const auto slot = static_cast<uint8_t>(function.devfn() >> 3);
  if (number && bus.find(static_cast<uint8_t>(slot << 3)) != nullptr) pci_hotplug()->plugged(*number, slot);
}

Result<> PcChassis::request_function_unplug(bus::PciDevice& function) {
  if (const auto number = hotplug_number(*function.bus()); number) {
    pci_hotplug()->request_unplug(*number, static_cast<uint8_t>(function.devfn() >> 3));
    return {};
  }
  if (std::ranges::find(unplugging_, function.path()) != unplugging_.end())
    return fail("Device {} is already in the process of unplug", function.path());
  unplugging_.push_back(function.path());
  return {};
}

std::vector<std::string> PcChassis::unplugged_by_reset() {
  std::vector<std::string> paths = std::exchange(unplugging_, {});
  const std::vector<bus::PciBus*> buses = hotplug_buses();
  for (unsigned number = 0; number < buses.size(); ++number)
    for (const bus::PciDevice* const function :
         removable_functions(*buses[number], pci_hotplug()->unplug_requests(number)))
      paths.push_back(function->path());
  return paths;
}

}  // namespace kite::machine
