// The kernel's KVM interface: <linux/kvm.h> with what newer kernels than the build host's headers define. Numbers are
// the kernel's ABI and never change.
#pragma once

#include <linux/stddef.h>

// In C++ the kernel's macro for flexible arrays makes a struct larger than the kernel's, and the size is part of a
// request's number: KVM_GET_SUPPORTED_CPUID and others would be unknown requests.
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(type, name) type name[]

#include <linux/kvm.h>

#include <cstdint>

static_assert(sizeof(kvm_cpuid2) == 8 && sizeof(kvm_msrs) == 8 && sizeof(kvm_msr_list) == 4);
static_assert(sizeof(kvm_irq_routing) == 8 && sizeof(kvm_xsave) == 4096 && sizeof(kvm_coalesced_mmio_ring) == 8);

#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif
#ifndef KVM_EXIT_LOONGARCH_IOCSR
#define KVM_EXIT_LOONGARCH_IOCSR 38
#endif
#ifndef KVM_EXIT_TDX
#define KVM_EXIT_TDX 40
#endif
#ifndef KVM_EXIT_ARM_SEA
#define KVM_EXIT_ARM_SEA 41
#endif
#ifndef KVM_EXIT_SNP_REQ_CERTS
#define KVM_EXIT_SNP_REQ_CERTS 43
#endif
#ifndef KVM_SYSTEM_EVENT_TDX_FATAL
#define KVM_SYSTEM_EVENT_TDX_FATAL 7
#endif
#ifndef KVM_CAP_MEMORY_FAULT_INFO
#define KVM_CAP_MEMORY_FAULT_INFO 232
#endif
#ifndef KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP
#define KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP 225
#endif
#ifndef KVM_CAP_DIRTY_LOG_RING_ACQ_REL
#define KVM_CAP_DIRTY_LOG_RING_ACQ_REL 223
#endif

namespace kite {

// The member of kvm_run's union for KVM_EXIT_MEMORY_FAULT [Linux Documentation/virt/kvm/api.rst, 5].
struct KvmMemoryFault {
  uint64_t flags;  // bit 3: the access was to private memory
  uint64_t gpa;
  uint64_t size;
};

}  // namespace kite
