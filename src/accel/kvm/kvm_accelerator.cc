#include "accel/kvm/kvm_accelerator.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "accel/kvm/kvm_vcpu.h"
#include "accel/kvm/kvm_vm.h"
#include "support/log.h"

namespace kite {

namespace {

// Where KVM keeps the page tables and the task state with which processors that cannot run real mode run it; below the
// firmware and in no memory map [Linux Documentation/virt/kvm/api.rst, 4.36, 4.67].
constexpr uint64_t kIdentityMap = 0xfeffc000, kTss = 0xfeffd000;

}  // namespace

// KVM's ring of queued writes, as the machine drains it.
class KvmAccelerator::CoalescedWrites final : public QueuedWrites {
 public:
  explicit CoalescedWrites(KvmCoalescedRing& ring) : ring_(ring) {}
  [[nodiscard]] bool in_use() const override { return ring_.zones.load(std::memory_order_relaxed) != 0; }
  [[nodiscard]] bool empty() const override { return ring_.empty(); }
  void drain() override { ring_.drain(); }

 private:
  KvmCoalescedRing& ring_;
};

KvmAccelerator::KvmAccelerator(std::shared_ptr<KvmSystem> system, const KvmOptions& options)
    : system_(std::move(system)), options_(options), vm_(std::make_unique<KvmVm>()) {}

KvmAccelerator::~KvmAccelerator() {
  if (memory_ != nullptr) {
    memory_->remove_observer(*vm_->slots);
    if (vm_->memory_doorbells) memory_->remove_observer(*vm_->memory_doorbells);
    if (vm_->memory_zones) memory_->remove_observer(*vm_->memory_zones);
  }
  if (ports_ != nullptr) {
    if (vm_->port_doorbells) ports_->remove_observer(*vm_->port_doorbells);
    if (vm_->port_zones) ports_->remove_observer(*vm_->port_zones);
  }
}

Result<std::unique_ptr<KvmAccelerator>> KvmAccelerator::create(std::shared_ptr<KvmSystem> system,
                                                               const KvmOptions& options) {
  std::unique_ptr<KvmAccelerator> accelerator(new KvmAccelerator(std::move(system), options));
  KITE_TRY(accelerator->build());
  return accelerator;
}

const KvmFd& KvmAccelerator::vm_fd() const { return vm_->fd; }
uint64_t KvmAccelerator::tsc_hz() const { return vm_->settings.tsc_hz; }
IrqChip* KvmAccelerator::irq_chip() { return vm_->chip.get(); }
QueuedWrites* KvmAccelerator::queued_writes() { return coalesced_.get(); }

x86::FeatureSet KvmAccelerator::offered_features() const { return system_->features(kernel_local_apics()); }

// --- the VM

Result<> KvmAccelerator::build() {
  KITE_TRY(create_vm());
  KITE_TRY(create_dirty_rings());
  enable_options();
  KITE_TRY(create_interrupt_chips());
  vm_->slots = std::make_unique<KvmMemorySlots>(
      vm_->fd,
      KvmMemorySlots::Config{.slots = static_cast<uint32_t>(std::clamp(system_->check(KVM_CAP_NR_MEMSLOTS), 32, 32767)),
                             .clears_by_hand = !vm_->rings && enable(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                                                     KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE),
                             .rings = vm_->rings != nullptr});
  if (vm_->rings)
    vm_->slots->set_ring_reader([this] {
      exit_all_vcpus();  // processors log into buffers of their own while they run
      vm_->rings->collect();
    });
  if (system_->check(KVM_CAP_BINARY_STATS_FD) != 0)
    statistics_ = std::make_unique<KvmStatistics>(vm_->fd, metrics::Subject{});
  if (vm_->settings.coalesced_page != 0) coalesced_ = std::make_unique<CoalescedWrites>(vm_->coalesced);
  return {};
}

Result<> KvmAccelerator::create_vm() {
  int fd = -EINTR;
  while (fd == -EINTR) fd = system_->fd().ioctl(KVM_CREATE_VM);
  if (fd < 0)
    return fail("KVM makes no virtual machine: {}{}", errno_text(-fd),
                fd == -EBUSY    ? "; another hypervisor on this host holds the processor's virtualization"
                : fd == -ENOMEM ? "; the host is short of memory"
                                : "");
  vm_->fd = KvmFd(system_->calls(), fd);
  uint64_t identity_map = kIdentityMap;
  if (system_->check(KVM_CAP_SET_IDENTITY_MAP_ADDR) != 0)
    if (const int answer = vm_->fd.ioctl(KVM_SET_IDENTITY_MAP_ADDR, &identity_map); answer < 0)
      return fail("KVM refuses a place for its identity map: {}", errno_text(-answer));
  if (const int answer = vm_->fd.ioctl(KVM_SET_TSS_ADDR, kTss); answer < 0)
    return fail("KVM refuses a place for its task state segment: {}", errno_text(-answer));
  return {};
}

bool KvmAccelerator::enable(uint32_t capability, uint64_t argument) {
  if (system_->check(capability) == 0) return false;
  kvm_enable_cap request{};
  request.cap = capability;
  request.args[0] = argument;
  return vm_->fd.ioctl(KVM_ENABLE_CAP, &request) >= 0;
}

Result<> KvmAccelerator::create_dirty_rings() {
  const uint32_t entries = options_.dirty_ring_entries;
  if (entries == 0) return {};
  if (!std::has_single_bit(entries)) return fail("dirty-ring-size={}: it must be a power of two", entries);
  const int most = std::max(system_->check(KVM_CAP_DIRTY_LOG_RING_ACQ_REL), system_->check(KVM_CAP_DIRTY_LOG_RING));
  const uint64_t bytes = entries * sizeof(kvm_dirty_gfn);
  if (most == 0)
    return fail("dirty-ring-size={}: this kernel's KVM has no dirty rings (KVM_CAP_DIRTY_LOG_RING); leave it out",
                entries);
  if (bytes > static_cast<uint64_t>(most))
    return fail("dirty-ring-size={}: KVM takes {} entries at most", entries,
                static_cast<uint64_t>(most) / sizeof(kvm_dirty_gfn));
  if (!enable(KVM_CAP_DIRTY_LOG_RING_ACQ_REL, bytes) && !enable(KVM_CAP_DIRTY_LOG_RING, bytes))
    return fail("dirty-ring-size={}: KVM refuses rings of this size; 1024 or more is usual", entries);
  vm_->rings = std::make_unique<KvmDirtyRings>(
      vm_->fd, entries, [this](uint32_t slot, uint64_t page) { vm_->slots->page_written(slot, page); });
  return {};
}

void KvmAccelerator::enable_options() {
  KvmVmSettings& settings = vm_->settings;
  const int khz = system_->check(KVM_CAP_GET_TSC_KHZ) != 0 ? vm_->fd.ioctl(KVM_GET_TSC_KHZ) : 0;
  if (khz > 0) settings.tsc_hz = static_cast<uint64_t>(khz) * 1000;
  constexpr int kOldXsave = 4096;
  // KVM_CAP_XSAVE2 is asked of the VM: its size follows what this process may use.
  if (system_->check(KVM_CAP_XSAVE) != 0)
    settings.xsave_bytes =
        static_cast<size_t>(std::max(kOldXsave, vm_->fd.ioctl(KVM_CHECK_EXTENSION, uintptr_t{KVM_CAP_XSAVE2})));
  settings.xcrs = system_->check(KVM_CAP_XCRS) != 0;
  settings.sregs2 = system_->check(KVM_CAP_SREGS2) != 0;
  settings.payloads = enable(KVM_CAP_EXCEPTION_PAYLOAD, 1);
  settings.triple_faults = enable(KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1);
  settings.debug = system_->check(KVM_CAP_SET_GUEST_DEBUG) != 0;
  settings.debug_flags = static_cast<uint64_t>(std::max(0, system_->check(KVM_CAP_SET_GUEST_DEBUG2)));
  settings.machine_checks = system_->check(KVM_CAP_MCE) != 0;
  settings.tsc_attribute = system_->check(KVM_CAP_VCPU_ATTRIBUTES) != 0;
  settings.coalesced_page = system_->check(KVM_CAP_COALESCED_MMIO);
  // What the kernel's emulator cannot do comes to the fall-back at any privilege, and not as #UD to the guest.
  (void)enable(KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
  if (!kernel_local_apics()) {
    settings.user_msrs = enable(KVM_CAP_X86_USER_SPACE_MSR,
                                KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER);
    if (settings.user_msrs && system_->check(KVM_CAP_X86_MSR_FILTER) != 0) filter_msrs();
  }
}

// Without a local APIC, KVM would take writes of the deadline and forget them.
void KvmAccelerator::filter_msrs() {
  uint8_t allowed = 0;
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  filter.ranges[0].flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
  filter.ranges[0].base = x86::msr::kTscDeadline;
  filter.ranges[0].nmsrs = 1;
  filter.ranges[0].bitmap = &allowed;
  vm_->settings.filters_msrs = vm_->fd.ioctl(KVM_X86_SET_MSR_FILTER, &filter) >= 0;
}

Result<> KvmAccelerator::create_interrupt_chips() {
  using Parts = KvmIrqChip::Parts;
  if (!options_.irqchip && (system_->check(KVM_CAP_IRQCHIP) == 0 || system_->check(KVM_CAP_IRQ_ROUTING) == 0))
    options_.irqchip = KernelIrqchip::kOff;
  if (irqchip() == KernelIrqchip::kOff) return {};
  const bool timer =
      options_.kernel_pit && system_->check(KVM_CAP_PIT2) != 0 && system_->check(KVM_CAP_PIT_STATE2) != 0;
  const Parts parts = irqchip() == KernelIrqchip::kSplit ? Parts::kLocalApics
                      : timer                            ? Parts::kControllersAndTimer
                                                         : Parts::kControllers;
  auto chip = KvmIrqChip::create(*system_, vm_->fd, parts);
  if (!chip)
    return fail("kernel-irqchip={}: {}", irqchip() == KernelIrqchip::kSplit ? "split" : "on", chip.error().message);
  vm_->chip = std::move(*chip);
  vm_->chip->set_wire_mode_handler([this] {
    for (KvmVcpu* vcpu : vcpus()) vcpu->enter_virtual_wire_mode();
  });
  return {};
}

// --- address spaces

Result<> KvmAccelerator::attach_memory(AddressSpace& memory) {
  if (memory_ != nullptr) return fail("the kvm accelerator has an address space already");
  memory_ = &memory;
  vm_->coalesced.set_spaces(memory_, ports_);
  memory.add_observer(*vm_->slots);
  if (const auto error = vm_->slots->take_error(); error)
    return fail("{}; give the guest less memory, or see the host's limits", error->message);
  if (system_->check(KVM_CAP_IOEVENTFD) != 0) {
    vm_->memory_doorbells = std::make_unique<KvmDoorbells>(vm_->fd, KvmDoorbells::Bus::kMemory,
                                                           system_->check(KVM_CAP_IOEVENTFD_ANY_LENGTH) != 0);
    memory.add_observer(*vm_->memory_doorbells);
  }
  if (vm_->settings.coalesced_page != 0) {
    vm_->memory_zones = std::make_unique<KvmCoalescedZones>(vm_->fd, false, vm_->coalesced.zones);
    memory.add_observer(*vm_->memory_zones);
  }
  return {};
}

Result<> KvmAccelerator::attach_ports(AddressSpace& ports) {
  if (ports_ != nullptr) return fail("the kvm accelerator has its ports already");
  ports_ = &ports;
  vm_->coalesced.set_spaces(memory_, ports_);
  if (system_->check(KVM_CAP_IOEVENTFD) != 0) {
    vm_->port_doorbells = std::make_unique<KvmDoorbells>(vm_->fd, KvmDoorbells::Bus::kPorts,
                                                         system_->check(KVM_CAP_IOEVENTFD_ANY_LENGTH) != 0);
    ports.add_observer(*vm_->port_doorbells);
  }
  if (vm_->settings.coalesced_page != 0 && system_->check(KVM_CAP_COALESCED_PIO) != 0) {
    vm_->port_zones = std::make_unique<KvmCoalescedZones>(vm_->fd, true, vm_->coalesced.zones);
    ports.add_observer(*vm_->port_zones);
  }
  return {};
}

// --- vCPUs

Result<std::unique_ptr<Vcpu>> KvmAccelerator::create_vcpu(const VcpuConfig& config) {
  if (memory_ == nullptr) return fail("the kvm accelerator needs an address space before its vCPUs");
  if (config.cpu == nullptr || config.clock == nullptr) return fail("a vCPU needs a CPU model and a clock");
  if ((config.apic != nullptr) == kernel_local_apics())
    return fail("a vCPU needs its local APIC where KVM has none, and only there");
  const int most = std::max({system_->check(KVM_CAP_MAX_VCPUS), system_->check(KVM_CAP_NR_VCPUS), 4});
  if (config.cpu_count > static_cast<uint32_t>(most))
    return fail("-smp {}: this kernel's KVM runs {} CPUs in a machine at most", config.cpu_count, most);
  std::unique_ptr<KvmVcpu> vcpu(new KvmVcpu(*this, config));
  KITE_TRY(vcpu->open());
  attach(*vcpu);
  return vcpu;
}

std::vector<KvmVcpu*> KvmAccelerator::vcpus() const {
  const std::lock_guard lock(vcpus_mutex_);
  return vcpus_;
}

void KvmAccelerator::attach(KvmVcpu& vcpu) {
  const std::lock_guard lock(vcpus_mutex_);
  vcpus_.push_back(&vcpu);
}

void KvmAccelerator::forget(KvmVcpu& vcpu) {
  const std::lock_guard lock(vcpus_mutex_);
  std::erase(vcpus_, &vcpu);
}

void KvmAccelerator::exit_all_vcpus() {
  for (KvmVcpu* vcpu : vcpus()) vcpu->exit_once();
}

// --- time

void KvmAccelerator::time_stopped() {
  if (stopped_clock_) return;
  kvm_clock_data clock{};
  if (vm_->fd.ioctl(KVM_GET_CLOCK, &clock) < 0) return;
  clock.flags = 0;  // so that KVM_SET_CLOCK takes the value as it is, and adds nothing for the time since
  stopped_clock_ = clock;
  if (vm_->chip) vm_->chip->time_stopped();
  for (KvmVcpu* vcpu : vcpus()) vcpu->time_stopped();
}

void KvmAccelerator::time_resumed() {
  if (!stopped_clock_) return;
  kvm_clock_data clock = *std::exchange(stopped_clock_, std::nullopt);
  if (const int answer = vm_->fd.ioctl(KVM_SET_CLOCK, &clock); answer < 0)
    log::warn("KVM does not set the guest's clock back: {}; it has run on while the machine stood still",
              errno_text(-answer));
  for (KvmVcpu* vcpu : vcpus()) vcpu->time_resumed();
  if (vm_->chip) vm_->chip->time_resumed();
}

}  // namespace kite
