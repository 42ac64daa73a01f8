// What one VM consists of; the parts see each other through KvmAccelerator.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "accel/kvm/kvm_bus_watch.h"
#include "accel/kvm/kvm_dirty_rings.h"
#include "accel/kvm/kvm_irq_chip.h"
#include "accel/kvm/kvm_memory_slots.h"
#include "accel/kvm/kvm_system.h"

namespace kite {

// What this VM has switched on of the kernel's options.
struct KvmVmSettings {
  uint64_t tsc_hz = 1'000'000'000;
  size_t xsave_bytes = 0;  // 0: KVM_GET_XSAVE is absent
  bool xcrs = false;
  bool sregs2 = false;
  bool payloads = false;       // exceptions keep what they bring (KVM_CAP_EXCEPTION_PAYLOAD)
  bool triple_faults = false;  // pending ones are part of the events
  bool user_msrs = false;      // accesses to unknown MSRs exit
  bool filters_msrs = false;
  bool debug = false;          // KVM_SET_GUEST_DEBUG
  uint64_t debug_flags = 0;    // its flags, as far as the kernel says
  bool tsc_attribute = false;  // KVM_VCPU_TSC_OFFSET
  bool machine_checks = false;
  int coalesced_page = 0;  // of a vCPU's mapping; 0: none
};

struct KvmVm {
  KvmFd fd;
  KvmVmSettings settings;
  std::unique_ptr<KvmMemorySlots> slots;
  std::unique_ptr<KvmDirtyRings> rings;  // null: bitmaps
  std::unique_ptr<KvmIrqChip> chip;      // null: irqchip=off
  std::unique_ptr<KvmDoorbells> memory_doorbells, port_doorbells;
  std::unique_ptr<KvmCoalescedZones> memory_zones, port_zones;
  KvmCoalescedRing coalesced;
};

}  // namespace kite
