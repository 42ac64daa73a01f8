// The DSDT of the Q35 board: a PCI Express host bridge with operating system control (_OSC), interrupt routing for the
// 8259 pair (links) and for the IOAPIC (fixed inputs 16 to 23), the LPC bridge.
#include <array>
#include <string>

#include "boot/aml.h"
#include "boot/dsdt.h"
#include "boot/dsdt_parts.h"

namespace kite::boot {
namespace {

using namespace aml;

constexpr std::array<std::string_view, 8> kLinks = {"LNKA", "LNKB", "LNKC", "LNKD", "LNKE", "LNKF", "LNKG", "LNKH"};
// PIRQ[n]_ROUT registers.
constexpr std::array<std::string_view, 8> kRoutes = {"PRQA", "PRQB", "PRQC", "PRQD", "PRQE", "PRQF", "PRQG", "PRQH"};
constexpr std::string_view kLpcBridge = "\\_SB.PCI0.ISA.";
constexpr uint32_t kFirstApicInput = 16;
constexpr uint32_t kRootComplexBase = 0xfed1c000, kRootComplexBytes = 0x4000;

// Which PIRQ pin 0..3 of a slot on bus 0 drives, with the root complex's route registers as a reset leaves them.
unsigned pirq_of(unsigned slot, unsigned pin) {
  constexpr unsigned kFirstIntegrated = 25;
  return slot < kFirstIntegrated ? 4 + (slot + pin) % 4 : pin;
}

template <class Row>
Term routing_table(Row row) {
  constexpr unsigned kSlots = 32, kPins = 4;
  std::vector<Term> rows;
  for (uint32_t slot = 0; slot < kSlots; ++slot)
    for (unsigned pin = 0; pin < kPins; ++pin) rows.push_back(row(slot, pin));
  return package(rows);
}

// [ACPI 6.4] 6.2.13, 5.8.1: which of the two holds depends on what the system said to _PIC.
Term routing() {
  const auto link = [](uint32_t slot, unsigned pin) {
    return package({slot << 16 | 0xffff, pin, path("\\_SB." + std::string(kLinks[pirq_of(slot, pin)])), 0});
  };
  const auto input = [](uint32_t slot, unsigned pin) {
    return package({slot << 16 | 0xffff, pin, 0, kFirstApicInput + pirq_of(slot, pin)});
  };
  return sequence(name("PRTP", routing_table(link)), name("PRTA", routing_table(input)),
                  method("_PRT", 0, if_of(path("\\PICF"), return_value(path("PRTA"))), return_value(path("PRTP"))));
}

// [PCI firmware 3.0] 4.5.1: what the system may do by itself.
Term operating_system_control() {
  constexpr uint8_t kHotplug = 1u << 0, kPowerManagementEvents = 1u << 2, kErrorReporting = 1u << 3,
                    kCapabilityStructure = 1u << 4;
  constexpr uint32_t kGranted = kHotplug | kPowerManagementEvents | kErrorReporting | kCapabilityStructure;
  constexpr uint8_t kUnknownUuid = 1u << 2, kUnknownRevision = 1u << 3, kMasked = 1u << 4;
  const Term status = path("CDW1"), control = path("CDW3");
  return method_of("_OSC", 4, true,
                   sequence(dword_field_in(argument(3), 0, "CDW1"),
                            if_of(equal(argument(0), uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
                                  sequence(dword_field_in(argument(3), 8, "CDW3"),  //
                                           if_of(less(1, argument(1)), bit_or(status, kUnknownRevision, status)),
                                           if_of(bit_and(control, ~kGranted), bit_or(status, kMasked, status)),
                                           store(bit_and(control, kGranted), control),  //
                                           return_value(argument(3)))),
                            bit_or(status, kUnknownUuid, status),  //
                            return_value(argument(3))));
}

// What the windows of the host bridge must not cover.
Term chipset_resources(const AcpiConfig& config) {
  Term reserved = fixed_memory(kRootComplexBase, kRootComplexBytes, true);
  if (config.ecam_bytes != 0)
    reserved += fixed_memory(static_cast<uint32_t>(config.ecam_base), static_cast<uint32_t>(config.ecam_bytes), true);
  return device("RES",                             //
                name("_HID", eisa_id("PNP0C02")),  //
                name("_CRS", resource_template(reserved)));
}

Term lpc_bridge(const AcpiConfig& config) {
  return device("ISA",                                                                  //
                name("_ADR", 0x001f0000),                                               //
                operation_region("PIRQ", Space::kPciConfig, 0x60, 4),                   //
                byte_fields("PIRQ", {kRoutes[0], kRoutes[1], kRoutes[2], kRoutes[3]}),  //
                operation_region("PIRH", Space::kPciConfig, 0x68, 4),                   //
                byte_fields("PIRH", {kRoutes[4], kRoutes[5], kRoutes[6], kRoutes[7]}),  //
                dsdt::isa_devices(config));
}

}  // namespace

std::vector<uint8_t> build_q35_dsdt_code(const AcpiConfig& config) {
  Term board = device("PCI0",                                             //
                      name("_HID", eisa_id("PNP0A08")),                   //
                      name("_CID", eisa_id("PNP0A03")),                   //
                      name("_UID", 0),                                    //
                      name("_CRS", dsdt::host_bridge_resources(config)),  //
                      operating_system_control(),                         //
                      routing(),                                          //
                      lpc_bridge(config));
  board += chipset_resources(config);
  board += dsdt::current_route_method();
  for (unsigned pirq = 0; pirq < kLinks.size(); ++pirq)
    board += dsdt::link_device(kLinks[pirq], pirq, path(std::string(kLpcBridge) + std::string(kRoutes[pirq])));
  board += dsdt::system_devices(config);
  // [ICH9] 13.8.3.3: sleep types 5 to 7 are S3 to S5.
  return sequence(name("\\PICF", 0), method("\\_PIC", 1, store(argument(0), path("\\PICF"))), scope_of("\\_SB", board),
                  dsdt::sleep_states(config))
      .bytes();
}

}  // namespace kite::boot
