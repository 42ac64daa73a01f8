// What the DSDT says of PCI slots that come and go: the registers of devices/acpi_pci_hotplug, a device with _EJ0 for
// each slot, and methods that tell the system which slots have changed. [ACPI 6.4] 5.6.6 (Notify), 6.3.3 (_EJ0).
#include <fmt/format.h>

#include <string>

#include "boot/aml.h"
#include "boot/dsdt_parts.h"

namespace kite::boot::dsdt {

using namespace aml;

namespace {

constexpr uint16_t kHotplugPorts = 0xae00, kHotplugBytes = 0x14;
constexpr uint8_t kDeviceCheck = 1, kEjectRequest = 3;
constexpr unsigned kSlots = 32;

std::string object_at(uint8_t devfn) { return fmt::format("S{:02X}", devfn); }
std::string object_of(uint32_t slot) { return object_at(static_cast<uint8_t>(slot << 3)); }

Term registers() {
  return sequence(operation_region("HPIO", Space::kIo, kHotplugPorts, kHotplugBytes),  //
                  dword_fields("HPIO", {"HPUP", "HPDN", "HPEJ", "HPRM", "HPBN"}),      //
                  mutex("HPMX"),                                                       //
                  method("HPGO", 2,                                                    // bus, slot: let go
                         acquire("HPMX"),                                              //
                         store(argument(0), path("HPBN")),                             //
                         store(shift_left(1, argument(1)), path("HPEJ")),              //
                         release("HPMX")));
}

Term slot_device(uint32_t bus, uint32_t slot) {
  return device(object_of(slot),               //
                name("_ADR", slot << 16),      //
                name("_SUN", uint64_t{slot}),  //
                method("_EJ0", 1, call("HPGO", bus, slot)));
}

// HPNT: tells of every slot that has changed on this bus and behind it.
Term notify_method(const HotplugBus& bus) {
  Term body;
  if (bus.number) {
    body += sequence(acquire("HPMX"),                   //
                     store(*bus.number, path("HPBN")),  //
                     store(path("HPUP"), local(0)),     //
                     store(path("HPDN"), local(1)),     //
                     release("HPMX"));
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      const uint32_t bit = uint32_t{1} << slot;
      if ((bus.slots & bit) == 0) continue;
      body += if_of(bit_and(local(0), bit), notify(object_of(slot), kDeviceCheck));
      body += if_of(bit_and(local(1), bit), notify(object_of(slot), kEjectRequest));
    }
  }
  for (const HotplugBus& behind : bus.behind) body += call("^" + object_at(behind.bridge) + ".HPNT");
  return method("HPNT", 0, body);
}

Term bus_content(const HotplugBus& bus) {
  Term content;
  for (uint32_t slot = 0; bus.number && slot < kSlots; ++slot)
    if ((bus.slots >> slot & 1) != 0) content += slot_device(*bus.number, slot);
  for (const HotplugBus& behind : bus.behind)
    content += device(object_at(behind.bridge),                                                 //
                      name("_ADR", uint32_t{behind.bridge} >> 3 << 16 | (behind.bridge & 7u)),  //
                      bus_content(behind));
  return content += notify_method(bus);
}

}  // namespace

Term hotplug_slots(const HotplugBus& root) { return sequence(registers(), bus_content(root)); }

// [ACPI 6.4] 5.6.4.1: general purpose event 1, edge-triggered: its status is cleared before the method runs, so that
// what comes meanwhile is an event again.
Term hotplug_event() { return scope("\\_GPE", method("_E01", 0, call("\\_SB.PCI0.HPNT"))); }

}  // namespace kite::boot::dsdt
