// PCI: functions, buses, bridges. [PCI 3.0], [PCI bridge 1.2], [PCIe 3.0]; configuration mechanisms live in the host
// bridges (devices/i440fx, devices/mch), which call PciBus::config_read/write.
#pragma once

#include "bus/pci_bridge.h"
#include "bus/pci_bus.h"
#include "bus/pci_device.h"
