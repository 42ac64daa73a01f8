#include "boot/dsdt_parts.h"

#include <algorithm>
#include <array>
#include <string>

namespace kite::boot::dsdt {

using namespace aml;

namespace {

constexpr unsigned kInterruptNumber = 5;  // offset of the first number in an extended interrupt descriptor

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

Term link_device(std::string_view link, unsigned uid, const Term& route) {
  return device(link,                                                                     //
                name("_HID", eisa_id("PNP0C0F")),                                         //
                name("_UID", uid),                                                        //
                name("_PRS", resource_template(level_interrupts({5, 10, 11}))),           //
                method("_STA", 0,                                                         //
                       if_of(bit_and(route, kRouteDisabled), return_value(0x09)),         // present, not enabled
                       return_value(0x0b)),                                               //
                method("_DIS", 0, bit_or(route, kRouteDisabled, route)),                  //
                method("_CRS", 0, return_value(call("IQCR", route))),                     //
                method("_SRS", 1, dword_field_in(argument(0), kInterruptNumber, "PRRI"),  //
                       store(path("PRRI"), route)));
}

Term current_route_method() {
  return serialized_method("IQCR", 1,                                                                   //
                           name("PRR0", resource_template(level_interrupts({0}))),                      //
                           dword_field_in(path("PRR0"), kInterruptNumber, "PRRI"),                      //
                           if_of(less(argument(0), kRouteDisabled), store(argument(0), path("PRRI"))),  //
                           return_value(path("PRR0")));
}

Term host_bridge_resources(const AcpiConfig& config) {
  Term windows = sequence(bus_window(0, 0xff),         //
                          io_ports(0xcf8, 8),          // configuration mechanism 1, the bridge's own
                          port_window(0, 0xcf7),       //
                          port_window(0xd00, 0xffff),  //
                          memory_window(0xa0000, 0xbffff, true));
  const auto add = [&windows](uint64_t start, uint64_t end) {
    if (start < end) windows += memory_window(start, end - 1, false);
  };
  if (config.ecam_bytes == 0) {
    add(config.pci_hole_start, config.pci_hole_end);
  } else {
    add(config.pci_hole_start, config.ecam_base);
    add(std::max(config.pci_hole_start, config.ecam_base + config.ecam_bytes), config.pci_hole_end);
  }
  add(config.pci_hole64_start, config.pci_hole64_end);
  return resource_template_of(windows);
}

Term isa_devices(const AcpiConfig& config) {
  Term body = sequence(device("RTC",                                                                           //
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
  return body;
}

Term system_devices(const AcpiConfig& config) {
  Term devices;
  for (uint32_t index = 0; index < config.cpu_count; ++index) devices += processor(index);
  if (config.hpet) devices += hpet();
  return devices;
}

Term sleep_states(const AcpiConfig& config) {
  constexpr uint8_t s3 = 1, s4 = 2, s5 = 0;  // on every board
  Term states = name("\\_S5", package({s5, s5, 0, 0}));
  if (config.suspend_to_ram) states += name("\\_S3", package({s3, s3, 0, 0}));
  if (config.suspend_to_disk) states += name("\\_S4", package({s4, s4, 0, 0}));
  return states;
}

}  // namespace kite::boot::dsdt
