// Devices that the DSDTs of all PC boards describe alike.
#pragma once

#include <cstdint>

#include "boot/acpi.h"
#include "boot/aml.h"

namespace kite::boot::dsdt {

inline constexpr uint8_t kRouteDisabled = 0x80;  // of a PIRQ route register: [PIIX3] 2.2.12, [ICH9] 13.1.17

// An interrupt link device that steers a PIRQ through the ISA bridge's route register at `route`; it uses the method of
// current_route_method().
aml::Term link_device(std::string_view link, unsigned uid, const aml::Term& route);
// The method that answers what a route register says, as a resource: number 0 while it is disabled.
aml::Term current_route_method();
// _CRS of the host bridge: buses, ports, memory windows around the ECAM.
aml::Term host_bridge_resources(const AcpiConfig& config);
// RTC, keyboard, mouse and the serial ports that there are, for the ISA bridge's device.
aml::Term isa_devices(const AcpiConfig& config);
// One device for each CPU, and the HPET where there is one, for \_SB.
aml::Term system_devices(const AcpiConfig& config);
// Slots that come and go while the machine runs: for the scope of the host bridge \_SB.PCI0, and the event's method.
aml::Term hotplug_slots(const HotplugBus& root);
aml::Term hotplug_event();
// \_S5 and what else is offered; `s3` to `s5` are SLP_TYP values.
aml::Term sleep_states(const AcpiConfig& config);

}  // namespace kite::boot::dsdt
