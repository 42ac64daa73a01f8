#include "boot/dsdt.h"

#include <array>
#include <string>

#include "boot/aml.h"
#include "boot/dsdt_parts.h"

namespace kite::boot {
namespace {

using namespace aml;

constexpr std::array<std::string_view, 4> kLinks = {"LNKA", "LNKB", "LNKC", "LNKD"};
constexpr std::array<std::string_view, 4> kRoutes = {"PRQA", "PRQB", "PRQC", "PRQD"};  // PIRQRC registers
constexpr std::string_view kIsaBridge = "\\_SB.PCI0.ISA.";
constexpr unsigned kPowerSlot = 1;  // its INTA is the power management function's, wired to the SCI

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

Term isa_bridge(const AcpiConfig& config) {
  return device("ISA",                                                                  //
                name("_ADR", 0x00010000),                                               //
                operation_region("PIRQ", Space::kPciConfig, 0x60, 4),                   //
                byte_fields("PIRQ", {kRoutes[0], kRoutes[1], kRoutes[2], kRoutes[3]}),  //
                dsdt::isa_devices(config));
}

std::vector<uint8_t> piix_code(const AcpiConfig& config) {
  Term board = device("PCI0",                                             //
                      name("_HID", eisa_id("PNP0A03")),                   //
                      name("_UID", 0),                                    //
                      name("_CRS", dsdt::host_bridge_resources(config)),  //
                      name("_PRT", routing_table()),                      //
                      isa_bridge(config),                                 //
                      config.hotplug ? dsdt::hotplug_slots(*config.hotplug) : Term{});
  board += dsdt::current_route_method();
  for (unsigned pirq = 0; pirq < kLinks.size(); ++pirq)
    board += dsdt::link_device(kLinks[pirq], pirq, path(std::string(kIsaBridge) + std::string(kRoutes[pirq])));
  board += sci_link(config.sci_irq);
  board += dsdt::system_devices(config);
  // [PIIX4] 7.2.3: sleep type 0 is soft off, 1 suspend to RAM, 2 (as the machine's makers chose) suspend to disk.
  Term code = sequence(scope_of("\\_SB", board), dsdt::sleep_states(config));
  if (config.hotplug) code += dsdt::hotplug_event();
  return code.bytes();
}

}  // namespace

std::vector<uint8_t> build_dsdt_code(const AcpiConfig& config) {
  return config.chipset == AcpiChipset::kIch9 ? build_q35_dsdt_code(config) : piix_code(config);
}

}  // namespace kite::boot
