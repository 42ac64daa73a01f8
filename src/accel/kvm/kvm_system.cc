#include "accel/kvm/kvm_system.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "x86/host_features.h"

namespace kite {

namespace {

using x86::FeatureWord;

constexpr KvmCapability kRequired[] = {
    {KVM_CAP_USER_MEMORY, "USER_MEMORY", "give the guest its RAM"},
    {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "DESTROY_MEMORY_REGION_WORKS", "move device memory while the guest runs"},
    {KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, "JOIN_MEMORY_REGIONS_WORKS", "join memory that became contiguous"},
    {KVM_CAP_READONLY_MEM, "READONLY_MEM", "show firmware and option ROMs"},
    {KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR", "run real mode on processors that cannot do it by themselves"},
    {KVM_CAP_EXT_CPUID, "EXT_CPUID", "show the guest its processor"},
    {KVM_CAP_MP_STATE, "MP_STATE", "start and halt processors"},
    {KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS", "read and write pending interrupts and exceptions"},
    {KVM_CAP_DEBUGREGS, "DEBUGREGS", "read and write the debug registers"},
    {KVM_CAP_USER_NMI, "USER_NMI", "inject non-maskable interrupts"},
    {KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT", "stop a processor without a race"},
    {KVM_CAP_ADJUST_CLOCK, "ADJUST_CLOCK", "stop the guest's clock with the machine"},
};

constexpr KvmCapability kOptional[] = {
    {KVM_CAP_IRQCHIP, "IRQCHIP", "keep interrupt controllers in the kernel (kernel-irqchip=on)"},
    {KVM_CAP_SPLIT_IRQCHIP, "SPLIT_IRQCHIP", "keep only local APICs in the kernel (kernel-irqchip=split)"},
    {KVM_CAP_PIT2, "PIT2", "keep the 8254 in the kernel"},
    {KVM_CAP_PIT_STATE2, "PIT_STATE2", "let the HPET take the 8254's place"},
    {KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING", "route interrupt lines and messages in the kernel"},
    {KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI", "send message-signalled interrupts without a route"},
    {KVM_CAP_IRQFD, "IRQFD", "raise interrupts by eventfd"},
    {KVM_CAP_IRQFD_RESAMPLE, "IRQFD_RESAMPLE", "raise level-triggered interrupts by eventfd"},
    {KVM_CAP_IOEVENTFD, "IOEVENTFD", "ring doorbells by eventfd"},
    {KVM_CAP_IOEVENTFD_ANY_LENGTH, "IOEVENTFD_ANY_LENGTH", "ring doorbells by writes of any length"},
    {KVM_CAP_COALESCED_MMIO, "COALESCED_MMIO", "queue writes to device memory"},
    {KVM_CAP_COALESCED_PIO, "COALESCED_PIO", "queue writes to ports"},
    {KVM_CAP_SYNC_REGS, "SYNC_REGS", "read registers without a system call"},
    {KVM_CAP_XSAVE, "XSAVE", "keep vector registers"},
    {KVM_CAP_XSAVE2, "XSAVE2", "keep vector registers beyond 4096 bytes"},
    {KVM_CAP_XCRS, "XCRS", "keep XCR0"},
    {KVM_CAP_SREGS2, "SREGS2", "keep the page-directory-pointer registers"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "TSC_DEADLINE_TIMER", "offer the deadline timer with a kernel local APIC"},
    {KVM_CAP_GET_TSC_KHZ, "GET_TSC_KHZ", "know the rate of the time-stamp counter"},
    {KVM_CAP_TSC_CONTROL, "TSC_CONTROL", "set the rate of the time-stamp counter"},
    {KVM_CAP_VCPU_ATTRIBUTES, "VCPU_ATTRIBUTES", "stop time-stamp counters exactly"},
    {KVM_CAP_KVMCLOCK_CTRL, "KVMCLOCK_CTRL", "tell the guest's watchdogs of a pause"},
    {KVM_CAP_X86_USER_SPACE_MSR, "X86_USER_SPACE_MSR", "answer model-specific registers that KVM does not know"},
    {KVM_CAP_X86_MSR_FILTER, "X86_MSR_FILTER", "serve the deadline timer with kernel-irqchip=off"},
    {KVM_CAP_SET_GUEST_DEBUG, "SET_GUEST_DEBUG", "set breakpoints from outside"},
    {KVM_CAP_EXCEPTION_PAYLOAD, "EXCEPTION_PAYLOAD", "keep pending page faults and debug traps whole"},
    {KVM_CAP_EXIT_ON_EMULATION_FAILURE, "EXIT_ON_EMULATION_FAILURE",
     "execute what the kernel cannot, at any privilege"},
    {KVM_CAP_X86_TRIPLE_FAULT_EVENT, "X86_TRIPLE_FAULT_EVENT", "keep a pending triple fault"},
    {KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, "MANUAL_DIRTY_LOG_PROTECT2", "write-protect logged memory in pieces"},
    {KVM_CAP_DIRTY_LOG_RING, "DIRTY_LOG_RING", "log dirty pages in rings (dirty-ring-size=)"},
    {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, "DIRTY_LOG_RING_ACQ_REL", "log dirty pages in rings (dirty-ring-size=)"},
    {KVM_CAP_MEMORY_FAULT_INFO, "MEMORY_FAULT_INFO", "say which address a failed access had"},
    {KVM_CAP_BINARY_STATS_FD, "BINARY_STATS_FD", "read KVM's statistics"},
    {KVM_CAP_X86_SMM, "X86_SMM", "offer system management mode"},
};

constexpr unsigned kX2ApicBit = 21, kTscDeadlineBit = 24, kHypervisorBit = 31;  // CPUID.1:ECX

// Reads a list whose length only the kernel knows: `fetch` answers -E2BIG until the room suffices.
template <class Entry, class Header>
Result<std::vector<Entry>> read_list(const KvmFd& fd, unsigned long request, const char* request_name,
                                     uint32_t Header::* count, uint32_t room) {
  constexpr uint32_t kMost = 1u << 16;
  for (; room <= kMost; room *= 2) {
    std::vector<uint8_t> buffer(sizeof(Header) + room * sizeof(Entry));
    auto* const header = reinterpret_cast<Header*>(buffer.data());
    header->*count = room;
    const int answer = fd.ioctl(request, header);
    if (answer == -E2BIG) continue;
    if (answer < 0)
      return fail("KVM refuses {} ({}); this kernel's KVM cannot be used", request_name, errno_text(-answer));
    std::vector<Entry> list(std::min(header->*count, room));
    if (!list.empty()) std::memcpy(list.data(), buffer.data() + sizeof(Header), list.size() * sizeof(Entry));
    return list;
  }
  return fail("KVM's answer to {} does not end; this kernel's KVM cannot be used", request_name);
}

Failure open_failure(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return fail(
          "{}: {}; load the module (modprobe kvm_intel or kvm_amd), switch virtualization (VT-x, AMD-V) on in the "
          "firmware setup, or allow nested virtualization where this host is itself a guest",
          path, error == ENOENT ? "there is no such device" : "the device has no driver behind it");
    case EACCES:
    case EPERM:
      return fail("{}: no permission; add yourself to the group that owns it (usermod -aG kvm $USER) and log in again",
                  path);
    case EBUSY: return fail("{}: another hypervisor on this host holds the processor's virtualization; stop it", path);
    default: return fail("{}: cannot open it: {}", path, errno_text(error));
  }
}

}  // namespace

std::span<const KvmCapability> KvmSystem::required() { return kRequired; }
std::span<const KvmCapability> KvmSystem::optional() { return kOptional; }

Result<std::shared_ptr<KvmSystem>> KvmSystem::open(KvmCalls& calls, const std::string& path) {
  const int fd = calls.open_device(path);
  if (fd < 0) return open_failure(path, -fd);
  std::shared_ptr<KvmSystem> system(new KvmSystem(KvmFd(calls, fd)));
  KITE_TRY(system->check_version(path));
  KITE_TRY(system->check_required());
  const int map_bytes = system->fd_.ioctl(KVM_GET_VCPU_MMAP_SIZE);
  if (map_bytes < static_cast<int>(sizeof(kvm_run)))
    return fail("KVM maps {} bytes a processor where {} are needed; this kernel's KVM cannot be used", map_bytes,
                sizeof(kvm_run));
  system->vcpu_map_bytes_ = static_cast<size_t>(map_bytes);
  KITE_TRY(system->read_cpuid());
  KITE_TRY(system->read_msr_lists());
  return system;
}

Result<> KvmSystem::check_version(const std::string& path) const {
  const int version = fd_.ioctl(KVM_GET_API_VERSION);
  if (version == KVM_API_VERSION) return {};
  if (version < 0) return fail("{}: not a KVM device: {}", path, errno_text(-version));
  return fail("{}: its API has version {}, and Kite speaks {}; use a kernel of 2.6.22 or later", path, version,
              KVM_API_VERSION);
}

int KvmSystem::check(uint32_t capability) const { return std::max(0, fd_.ioctl(KVM_CHECK_EXTENSION, capability)); }

Result<> KvmSystem::check_required() const {
  std::string missing;
  for (const KvmCapability& capability : kRequired)
    if (check(capability.number) == 0)
      missing +=
          fmt::format("{}KVM_CAP_{}, needed to {}", missing.empty() ? "" : "; ", capability.name, capability.why);
  if (missing.empty()) return {};
  return fail("this kernel's KVM lacks {}: use a newer kernel", missing);
}

std::string KvmSystem::report() const {
  std::string text = fmt::format("KVM API {}\n", KVM_API_VERSION);
  for (const KvmCapability& capability : kRequired)
    text += fmt::format("  {:<28} {:<6} needed to {}\n", capability.name, check(capability.number), capability.why);
  for (const KvmCapability& capability : kOptional)
    text += fmt::format("  {:<28} {:<6} used to {}\n", capability.name, check(capability.number), capability.why);
  return text;
}

Result<> KvmSystem::read_cpuid() {
  auto entries =
      read_list<kvm_cpuid_entry2>(fd_, KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID", &kvm_cpuid2::nent, 128);
  if (!entries) return Failure(std::move(entries).error());
  cpuid_ = std::move(*entries);
  return {};
}

Result<> KvmSystem::read_msr_lists() {
  auto state = read_list<uint32_t>(fd_, KVM_GET_MSR_INDEX_LIST, "KVM_GET_MSR_INDEX_LIST", &kvm_msr_list::nmsrs, 256);
  if (!state) return Failure(std::move(state).error());
  state_msrs_ = std::move(*state);
  if (check(KVM_CAP_GET_MSR_FEATURES) == 0) return {};
  auto feature = read_list<uint32_t>(fd_, KVM_GET_MSR_FEATURE_INDEX_LIST, "KVM_GET_MSR_FEATURE_INDEX_LIST",
                                     &kvm_msr_list::nmsrs, 64);
  if (!feature) return Failure(std::move(feature).error());
  feature_msrs_ = std::move(*feature);
  return {};
}

bool KvmSystem::has_state_msr(uint32_t index) const {
  return std::ranges::find(state_msrs_, index) != state_msrs_.end();
}

const kvm_cpuid_entry2* KvmSystem::find_cpuid(uint32_t function, uint32_t index) const {
  const auto found = std::ranges::find_if(cpuid_, [&](const kvm_cpuid_entry2& entry) {
    return entry.function == function && ((entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) == 0 || entry.index == index);
  });
  return found == cpuid_.end() ? nullptr : &*found;
}

std::span<const KvmFeaturePlace> kvm_feature_places() {
  using Entry = kvm_cpuid_entry2;
  static constexpr KvmFeaturePlace kPlaces[] = {
      {FeatureWord::k1Edx, 1, 0, &Entry::edx},
      {FeatureWord::k1Ecx, 1, 0, &Entry::ecx},
      {FeatureWord::k7Ebx, 7, 0, &Entry::ebx},
      {FeatureWord::k7Ecx, 7, 0, &Entry::ecx},
      {FeatureWord::k7Edx, 7, 0, &Entry::edx},
      {FeatureWord::k71Eax, 7, 1, &Entry::eax},
      {FeatureWord::k80000001Edx, 0x80000001, 0, &Entry::edx},
      {FeatureWord::k80000001Ecx, 0x80000001, 0, &Entry::ecx},
      {FeatureWord::k80000007Edx, 0x80000007, 0, &Entry::edx},
      {FeatureWord::k80000008Ebx, 0x80000008, 0, &Entry::ebx},
      {FeatureWord::kD1Eax, 0xd, 1, &Entry::eax},
      {FeatureWord::k6Eax, 6, 0, &Entry::eax},
  };
  return kPlaces;
}

x86::FeatureSet KvmSystem::features(bool kernel_local_apic) const {
  x86::FeatureSet set{};
  for (const KvmFeaturePlace& place : kvm_feature_places())
    if (const kvm_cpuid_entry2* entry = find_cpuid(place.function, place.index); entry != nullptr)
      set[static_cast<size_t>(place.word)] = entry->*place.part;

  uint32_t& basic = set[static_cast<size_t>(FeatureWord::k1Ecx)];
  basic |= 1u << kHypervisorBit;
  // With local APICs of ours, x2APIC and the deadline timer are reached through exits of their MSRs.
  const bool x2apic = kernel_local_apic || check(KVM_CAP_X86_USER_SPACE_MSR) != 0;
  const bool deadline = kernel_local_apic
                            ? check(KVM_CAP_TSC_DEADLINE_TIMER) != 0
                            : check(KVM_CAP_X86_USER_SPACE_MSR) != 0 && check(KVM_CAP_X86_MSR_FILTER) != 0;
  if (!x2apic) basic &= ~(1u << kX2ApicBit);
  basic = deadline ? basic | 1u << kTscDeadlineBit : basic & ~(1u << kTscDeadlineBit);
  // ARAT: the APIC timer of a virtual machine runs in every power state. KVM leaves leaf 6 to user space.
  set[static_cast<size_t>(FeatureWord::k6Eax)] |= 1u << 2;
  return set;
}

}  // namespace kite
