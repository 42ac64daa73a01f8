#include "boot/dsdt.h"

#include <array>
#include <string>

#include "boot/aml.h"

namespace kite::boot {
namespace {

using namespace aml;

constexpr std::array<std::string_view, 4> kLinks = {"LNKA", "LNKB", "LNKC", "LNKD"};
constexpr std::array<std::string_view, 4> kRoutes = {"PRQA", "PRQB", "PRQC", "PRQD"};  // PIRQRC registers
constexpr std::string_view kIsaBridge = "\\_SB.PCI0.ISA.";
constexpr uint8_t kRouteDisabled = 0x80;  // [PIIX3] 2.2.12
constexpr unsigned kInterruptNumber = 5;  // offset of the first number in an extended interrupt descriptor
constexpr unsigned kPowerSlot = 1;        // its INTA is the power management function's, wired to the SCI

Term route_of(unsigned pirq) { return path(std::string(kIsaBridge) + std::string(kRoutes[pirq])); }

// A PIRQ: an interrupt link device that steers through the bridge's route register.
Term link_device(unsigned pirq) {
  const Term route = route_of(pirq);
  return device(kLinks[pirq],                                                             //
                name("_HID", eisa_id("PNP0C0F")),                                         //
                name("_UID", pirq),                                                       //
                name("_PRS", resource_template(level_interrupts({5, 10, 11}))),           //
                method("_STA", 0,                                                         //
                       if_of(bit_and(route, kRouteDisabled), return_value(0x09)),         // present, not enabled
                       return_value(0x0b)),                                               //
                method("_DIS", 0, bit_or(route, kRouteDisabled, route)),                  //
                method("_CRS", 0, return_value(call("IQCR", route))),                     //
                method("_SRS", 1, dword_field_in(argument(0), kInterruptNumber, "PRRI"),  //
                       store(path("PRRI"), route)));
}

// The SCI as a link that cannot be moved.
Term sci_link(uint32_t irq) {
  const Term fixed = resource_template(level_interrupts({irq}));
  return device("LNKS",                            //
                name("_HID", eisa_id("PNP0C0F")),  //
                name("_UID", kLinks.size()),       //
                name("_PRS", fixed),               //
                name("_CRS", fixed),               //
                name("_STA", 0x0b),                //
                method("_DIS", 0),                 //
                method("_SRS", 1));
}

// What a route register says, as a resource: number 0 while it is disabled.
Term current_route_method() {
  return serialized_method("IQCR", 1,                                                                   //
                           name("PRR0", resource_template(level_interrupts({0}))),                      //
                           dword_field_in(path("PRR0"), kInterruptNumber, "PRRI"),                      //
                           if_of(less(argument(0), kRouteDisabled), store(argument(0), path("PRRI"))),  //
                           return_value(path("PRR0")));
}

// _PRT: which link each pin of each slot drives; the pins rotate from slot to slot as the board is wired.
Term routing_table() {
  constexpr unsigned kSlots = 32, kPins = 4;
  std::vector<Term> rows;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    for (unsigned pin = 0; pin < kPins; ++pin) {
      const bool power = slot == kPowerSlot && pin == 0;
      const std::string_view link = power ? "LNKS" : kLinks[(slot + pin + 3) % kLinks.size()];
      rows.push_back(package({slot << 16 | 0xffff, pin, path("\\_SB." + std::string(link)), 0}));
    }
  }
  return package(rows);
}

Term host_bridge_resources(const AcpiConfig& config) {
  Term windows = sequence(bus_window(0, 0xff),         //
                          io_ports(0xcf8, 8),          // configuration mechanism 1, the bridge's own
                          port_window(0, 0xcf7),       //
                          port_window(0xd00, 0xffff),  //
                          memory_window(0xa0000, 0xbffff, true));
  if (config.pci_hole_start < config.pci_hole_end)
    windows += memory_window(config.pci_hole_start, config.pci_hole_end - 1, false);
  if (config.pci_hole64_start < config.pci_hole64_end)
    windows += memory_window(config.pci_hole64_start, config.pci_hole64_end - 1, false);
  return resource_template_of(windows);
}

Term serial_port(unsigned index) {
  struct Place {
    uint16_t port;
    uint8_t irq;
  };
  constexpr std::array<Place, 4> kPlaces = {{{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}}};
  return device("COM" + std::to_string(index + 1),  //
                name("_HID", eisa_id("PNP0501")),   //
                name("_UID", index + 1),            //
                name("_CRS", resource_template(io_ports(kPlaces[index].port, 8), irq(kPlaces[index].irq))));
}

Term isa_bridge(const AcpiConfig& config) {
  Term body = sequence(name("_ADR", 0x00010000),                                                               //
                       operation_region("PIRQ", Space::kPciConfig, 0x60, 4),                                   //
                       byte_fields("PIRQ", {kRoutes[0], kRoutes[1], kRoutes[2], kRoutes[3]}),                  //
                       device("RTC",                                                                           //
                              name("_HID", eisa_id("PNP0B00")),                                                //
                              name("_CRS", resource_template(io_ports(0x70, 2), irq(8)))),                     //
                       device("KBD",                                                                           //
                              name("_HID", eisa_id("PNP0303")),                                                //
                              name("_CRS", resource_template(io_ports(0x60, 1), io_ports(0x64, 1), irq(1)))),  //
                       device("MOU",                                                                           //
                              name("_HID", eisa_id("PNP0F13")),                                                //
                              name("_CRS", resource_template(irq(12)))));
  for (unsigned index = 0; index < 4; ++index)
    if ((config.serial_ports >> index & 1) != 0) body += serial_port(index);
  return device_of("ISA", body);
}

Term processor(uint32_t index) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const std::string object = {'C', kDigits[index >> 8 & 15], kDigits[index >> 4 & 15], kDigits[index & 15]};
  return device(object, name("_HID", text("ACPI0007")), name("_UID", index));
}

Term hpet() {
  return device("HPET",                            //
                name("_HID", eisa_id("PNP0103")),  //
                name("_CRS", resource_template(fixed_memory(kHpetBase, 0x400, false))));
}

}  // namespace

std::vector<uint8_t> build_dsdt_code(const AcpiConfig& config) {
  Term board = device("PCI0",                                       //
                      name("_HID", eisa_id("PNP0A03")),             //
                      name("_UID", 0),                              //
                      name("_CRS", host_bridge_resources(config)),  //
                      name("_PRT", routing_table()),                //
                      isa_bridge(config));
  board += current_route_method();
  for (unsigned pirq = 0; pirq < kLinks.size(); ++pirq) board += link_device(pirq);
  board += sci_link(config.sci_irq);
  for (uint32_t index = 0; index < config.cpu_count; ++index) board += processor(index);
  if (config.hpet) board += hpet();
  // [PIIX4] 7.2.3: sleep type 0 is soft off, 1 suspend to RAM, 2 (as the machine's makers chose) suspend to disk.
  Term block = sequence(scope_of("\\_SB", board), name("\\_S5", package({0, 0, 0, 0})));
  if (config.suspend_to_ram) block += name("\\_S3", package({1, 1, 0, 0}));
  if (config.suspend_to_disk) block += name("\\_S4", package({2, 2, 0, 0}));
  return block.bytes();
}

}  // namespace kite::boot
