// PCI as firmware leaves it: bus numbers, BARs, bridge windows, interrupt lines. For machines that start a kernel
// without any. The machine stands still.
#pragma once

#include <cstdint>
#include <functional>

#include "bus/pci.h"

namespace kite::machine {

struct PciResources {
  uint64_t memory_start = 0, memory_end = 0;    // 32-bit window for BARs; end exclusive
  uint32_t port_start = 0, port_end = 0x10000;  // end exclusive
  // The ISA interrupt that pin 1..4 of a slot on the root bus drives.
  std::function<uint8_t(uint8_t slot, uint8_t pin)> irq_of;
};

// What finds no room is left unassigned, with a warning.
void set_up_pci(bus::PciBus& root, const PciResources& resources);

}  // namespace kite::machine
