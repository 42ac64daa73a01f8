#include "accel/kvm/kvm_vcpu.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <mutex>

#include "accel/kvm/kvm_cpuid.h"
#include "accel/kvm/kvm_vm.h"
#include "support/log.h"

namespace kite {

namespace {

using x86::Activity;

int kick_signal() { return SIGRTMIN; }

// The signal only has to interrupt KVM_RUN: its handler does nothing, and is set once for the process.
void install_kick_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    sigemptyset(&action.sa_mask);
    sigaction(kick_signal(), &action, nullptr);
  });
}

void count(std::atomic<uint64_t>& counter) {  // one writer: no locked instruction
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

KvmVcpu::KvmVcpu(KvmAccelerator& owner, const VcpuConfig& config)
    : owner_(owner), vm_(*owner.vm_), config_(config), kernel_apic_(owner.kernel_local_apics()) {}

KvmVcpu::~KvmVcpu() {
  owner_.forget(*this);
  if (vm_.rings) vm_.rings->remove(config_.index);
}

Result<> KvmVcpu::open() {
  install_kick_handler();
  const int fd = vm_.fd.ioctl(KVM_CREATE_VCPU, config_.apic_id);
  if (fd < 0) return fail("KVM makes no CPU {}: {}", config_.index, errno_text(-fd));
  fd_ = KvmFd(vm_.fd.calls(), fd);
  int error = 0;
  const size_t bytes = owner_.system().vcpu_map_bytes();
  void* const address = fd_.calls().map(fd_.get(), bytes, 0, error);
  if (address == nullptr) return fail("cannot map the state of CPU {}: {}", config_.index, errno_text(error));
  map_ = KvmMapping(fd_.calls(), address, bytes);
  run_ = reinterpret_cast<kvm_run*>(map_.bytes());
  const size_t ring_at = static_cast<size_t>(vm_.settings.coalesced_page) * kPageSize;
  if (ring_at != 0 && ring_at + kPageSize <= bytes && config_.index == 0)
    vm_.coalesced.attach(reinterpret_cast<kvm_coalesced_mmio_ring*>(map_.bytes() + ring_at));
  if (vm_.rings) KITE_TRY(vm_.rings->add(config_.index, fd_));
  KITE_TRY(set_up_cpu());
  fallback_ = make_emulation_fallback(config_, *owner_.memory_);
  if (owner_.system().check(KVM_CAP_BINARY_STATS_FD) != 0)
    statistics_ = std::make_unique<KvmStatistics>(fd_, metrics::Subject::of_vcpu(config_.index));
  exit_metrics_ = std::make_unique<KvmExitMetrics>(*this);
  reset();
  return {};
}

Result<> KvmVcpu::set_up_cpu() {
  const std::vector<kvm_cpuid_entry2> leaves = guest_cpuid(owner_.system(), config_, vm_.settings.tsc_hz, kernel_apic_);
  std::vector<uint64_t> buffer((sizeof(kvm_cpuid2) + leaves.size() * sizeof(kvm_cpuid_entry2) + 7) / 8);
  auto* const table = reinterpret_cast<kvm_cpuid2*>(buffer.data());
  table->nent = static_cast<uint32_t>(leaves.size());
  std::memcpy(reinterpret_cast<uint8_t*>(buffer.data()) + sizeof(kvm_cpuid2), leaves.data(),
              leaves.size() * sizeof(kvm_cpuid_entry2));
  if (const int answer = fd_.ioctl(KVM_SET_CPUID2, table); answer < 0)
    return fail("-cpu {}: KVM refuses this processor's CPUID: {}; try -cpu max or qemu64", config_.cpu->model_name,
                errno_text(-answer));
  const x86::CpuSpec& cpu = *config_.cpu;
  constexpr unsigned kMce = 7, kMca = 14;
  if (vm_.settings.machine_checks && cpu.has(x86::FeatureWord::k1Edx, kMce) && cpu.has(x86::FeatureWord::k1Edx, kMca)) {
    uint64_t banks = 10 | 1u << 8;  // IA32_MCG_CAP: ten banks, IA32_MCG_CTL is there [SDM 3B 16.3.1.1]
    if (const int answer = fd_.ioctl(KVM_X86_SETUP_MCE, &banks); answer < 0)
      log::warn("KVM gives CPU {} no machine check banks: {}", config_.index, errno_text(-answer));
  }
  msr_list_ = state_msr_list(owner_.system().state_msrs(), cpu, kvm_guest_features(owner_.system(), kernel_apic_),
                             kernel_apic_);
  return {};
}

// --- from other threads

// The request word is set before immediate_exit, and the vCPU clears immediate_exit before it reads the word: either it
// sees the request, or KVM_RUN comes back at once.
void KvmVcpu::interrupt_running() {
  if (run_ == nullptr) return;
  std::atomic_ref(run_->immediate_exit).store(1, std::memory_order_seq_cst);
  if (!in_kernel_.load(std::memory_order_seq_cst)) return;
  const int thread = thread_id_.load(std::memory_order_acquire);
  if (thread != gettid()) syscall(SYS_tgkill, getpid(), thread, kick_signal());
}

void KvmVcpu::exit_once() {
  const uint64_t before = counts_.runs.load(std::memory_order_acquire);
  while (in_kernel_.load(std::memory_order_seq_cst) && counts_.runs.load(std::memory_order_acquire) == before) {
    interrupt_running();
    sched_yield();
  }
}

// --- the loop

void KvmVcpu::enter_thread() {
  const int thread = gettid();
  if (thread_id_.load(std::memory_order_relaxed) == thread) return;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, kick_signal());
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  thread_id_.store(thread, std::memory_order_release);
}

HaltReason KvmVcpu::run(CpuIo& io) {
  enter_thread();
  io_ = &io;
  for (;;) {
    if (requests_.load(std::memory_order_relaxed) != 0) [[unlikely]]
      if (const Stop stop = serve_requests(); stop) return *stop;
    if (activity_ != Activity::kActive && !wakes_up()) return HaltReason::kHalted;
    if (!vm_.chip || !vm_.chip->has_io_controllers()) prepare_injection();
    const int answer = enter_kernel();
    if (!vm_.coalesced.empty()) [[unlikely]]
      io.drain_coalesced();
    if (answer == -EINTR || answer == -EAGAIN) {
      count(counts_.interrupted);
      continue;
    }
    const Stop stop = answer < 0 ? run_failed(-answer) : handle_exit();
    if (stop) return *stop;
  }
}

int KvmVcpu::enter_kernel() {
  in_kernel_.store(true, std::memory_order_seq_cst);
  std::atomic_ref(run_->immediate_exit).store(0, std::memory_order_seq_cst);
  int answer = -EINTR;
  if (requests_.load(std::memory_order_seq_cst) == 0) {
    answer = fd_.ioctl(KVM_RUN);
    incomplete_ = false;
    ready_stale_ = false;
  }
  in_kernel_.store(false, std::memory_order_release);
  counts_.runs.store(counts_.runs.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  if (!kernel_apic_) after_kernel();
  return answer;
}

// Finishes an access that exited: its result is with the kernel already, the registers do not have it yet.
KvmVcpu::Stop KvmVcpu::complete_instruction() {
  while (incomplete_) {
    std::atomic_ref(run_->immediate_exit).store(1, std::memory_order_seq_cst);
    const int answer = fd_.ioctl(KVM_RUN);
    incomplete_ = false;
    ready_stale_ = false;
    if (!kernel_apic_) after_kernel();
    if (answer == -EINTR || answer == -EAGAIN) break;
    const Stop stop = answer < 0 ? run_failed(-answer) : handle_exit();
    if (stop) return stop;
  }
  return std::nullopt;
}

KvmVcpu::Stop KvmVcpu::serve_requests() {
  const uint32_t seen = requests_.exchange(0, std::memory_order_seq_cst);
  if ((seen & (request::kInit | request::kSipi | request::kKick)) != 0)
    if (const Stop stop = complete_instruction(); stop) {
      requests_.fetch_or(seen & ~request::kKick, std::memory_order_seq_cst);
      return stop;
    }
  if ((seen & request::kInit) != 0) take_init();
  if ((seen & request::kSipi) != 0) take_sipi();
  // [SDM 3A 9.4.4.1] A processor that waits for SIPI takes no NMI.
  if (activity_ != Activity::kWaitForSipi) {
    if ((seen & request::kNmi) != 0) fd_.ioctl(KVM_NMI);
    if ((seen & request::kSecondNmi) != 0) fd_.ioctl(KVM_NMI);
    if ((seen & request::kSmi) != 0) fd_.ioctl(KVM_SMI);  // refused, and dropped, where KVM has no such mode
    if ((seen & (request::kNmi | request::kSecondNmi)) != 0) activity_ = Activity::kActive;
  }
  if ((seen & request::kKick) != 0) return HaltReason::kKicked;
  return std::nullopt;
}

// Without a local APIC in the kernel, HLT comes here. Everything that wakes a CPU up but an interrupt has done so.
bool KvmVcpu::wakes_up() {
  if (activity_ != Activity::kHalted || !halted_with_if_ || config_.apic == nullptr || !config_.apic->has_interrupt())
    return false;
  activity_ = Activity::kActive;
  return true;
}

bool KvmVcpu::has_work(uint32_t requests) const {
  if (kernel_apic_) return true;  // the kernel does the waiting
  switch (activity_) {
    case Activity::kHalted: {
      constexpr uint32_t kAlways = request::kNmi | request::kSecondNmi | request::kInit | request::kKick;
      return (requests & kAlways) != 0 || ((requests & request::kInterrupt) != 0 && halted_with_if_);
    }
    case Activity::kWaitForSipi: return (requests & (request::kInit | request::kSipi | request::kKick)) != 0;
    default: return true;
  }
}

// --- interrupts, where the kernel has no 8259: from a local APIC of ours, or from the 8259 to one in the kernel

void KvmVcpu::prepare_injection() {
  LocalApic* const apic = config_.apic;
  if (apic != nullptr) run_->cr8 = seen_cr8_ = apic->cr8();
  const auto waiting = [&] {
    return apic != nullptr ? apic->has_interrupt() : config_.ext_int != nullptr && config_.ext_int->pending();
  };
  bool wants = waiting();
  if (wants && run_->ready_for_interrupt_injection != 0 && !ready_stale_) {
    const std::optional<uint8_t> vector =
        apic != nullptr ? apic->acknowledge() : std::optional<uint8_t>(config_.ext_int->acknowledge());
    if (vector) {
      kvm_interrupt interrupt{.irq = *vector};
      if (const int answer = fd_.ioctl(KVM_INTERRUPT, &interrupt); answer < 0)
        log::error("CPU {}: KVM refuses interrupt {:#04x}: {}", config_.index, *vector, errno_text(-answer));
      ready_stale_ = true;
    }
    wants = waiting();
  }
  run_->request_interrupt_window = wants ? 1 : 0;
}

// CR8 and IA32_APIC_BASE are the guest's to write without an exit.
void KvmVcpu::after_kernel() {
  if (run_->cr8 != seen_cr8_) {
    seen_cr8_ = run_->cr8;
    config_.apic->set_cr8(static_cast<uint8_t>(seen_cr8_));
  }
  if (run_->apic_base != seen_apic_base_) {
    seen_apic_base_ = run_->apic_base;
    if (seen_apic_base_ != config_.apic->base() && !config_.apic->set_base(seen_apic_base_))
      log::guest_error("CPU {}: {:#x} is no value for IA32_APIC_BASE", config_.index, seen_apic_base_);
  }
}

// --- INIT and start-up, where they come as requests

void KvmVcpu::take_init() {
  KvmCpuState state;
  if (auto saved = save(state); !saved) return log::error("{}", saved.error().message);
  x86::ArchState arch;
  to_arch(state, time_base(), arch);
  arch.reset(false, config_.index == 0, config_.cpu->signature());
  from_arch(arch, time_base(), state);
  state.events = {};
  state.events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  if (state.has_lapic) reset_kvm_lapic(state.lapic, config_.apic_id, false);
  if (config_.apic != nullptr) config_.apic->reset(false);
  if (auto loaded = load(state); !loaded) log::error("INIT of CPU {}: {}", config_.index, loaded.error().message);
}

// [SDM 3A 9.4.4.1] CS:IP = vector << 8 : 0.
void KvmVcpu::take_sipi() {
  x86::ArchState arch;
  get_state(arch);
  if (arch.activity != Activity::kWaitForSipi) return;
  const uint8_t vector = sipi_vector_.load(std::memory_order_acquire);
  x86::SegmentRegister& cs = arch.seg[static_cast<size_t>(x86::Seg::kCs)];
  cs.selector = static_cast<uint16_t>(vector << 8);
  cs.base = uint64_t{vector} << 12;
  arch.rip = 0;
  arch.activity = Activity::kActive;
  set_state(arch);
}

}  // namespace kite
