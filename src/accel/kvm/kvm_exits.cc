// What a KvmVcpu does about each exit of KVM_RUN. [Linux Documentation/virt/kvm/api.rst, 5]
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "accel/kvm/kvm_report.h"
#include "accel/kvm/kvm_vcpu.h"
#include "accel/kvm/kvm_vm.h"
#include "memory/guest_memory.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite {

namespace {

namespace msr = x86::msr;

constexpr uint64_t kApicBaseEnable = 1u << 11, kApicBaseX2Apic = 1u << 10;
constexpr int64_t kKvmNoSuchCall = -1000;              // -KVM_ENOSYS
constexpr uint64_t kHypervInvalidCode = 2;             // HV_STATUS_INVALID_HYPERCALL_CODE [TLFS 3.12]
constexpr uint64_t kXenNoSuchCall = uint64_t{0} - 38;  // -ENOSYS

// The largest access that begins at `address` and has at most `bytes` bytes.
unsigned piece(Gpa address, unsigned bytes) {
  const unsigned aligned = address == 0 ? 8 : 1u << std::min(3, std::countr_zero(address));
  return std::min({8u, aligned, std::bit_floor(bytes)});
}

}  // namespace

KvmVcpu::Stop KvmVcpu::handle_exit() {
  const uint32_t reason = run_->exit_reason;
  std::atomic<uint64_t>& counter = counts_.by_reason[std::min<size_t>(reason, KvmExitCounts::kReasons - 1)];
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  switch (reason) {
    case KVM_EXIT_IO: return on_io();
    case KVM_EXIT_MMIO: return on_mmio();
    // An interrupt can be injected now (the loop does), a signal came, CR8 was written (after_kernel() has seen to it),
    // a task-priority register was accessed (with a reporting that nobody switched on), an NMI of the host's came.
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_TPR_ACCESS:
    case KVM_EXIT_NMI: return std::nullopt;
    case KVM_EXIT_HLT:
      activity_ = x86::Activity::kHalted;
      halted_with_if_ = run_->if_flag != 0;
      return wakes_up() ? Stop{} : HaltReason::kHalted;
    case KVM_EXIT_SHUTDOWN: return HaltReason::kShutdown;
    case KVM_EXIT_SYSTEM_EVENT: return on_system_event();
    case KVM_EXIT_INTERNAL_ERROR: return on_internal_error();
    case KVM_EXIT_DEBUG: return on_debug();
    case KVM_EXIT_IOAPIC_EOI:
      if (vm_.chip) vm_.chip->end_of_interrupt(run_->eoi.vector);
      return std::nullopt;
    case KVM_EXIT_X86_RDMSR: return on_msr(false);
    case KVM_EXIT_X86_WRMSR: return on_msr(true);
    case KVM_EXIT_HYPERCALL: return on_hypercall();
    case KVM_EXIT_HYPERV: return on_hyperv();
    case KVM_EXIT_XEN: return on_xen();
    case KVM_EXIT_DIRTY_RING_FULL: return on_dirty_ring_full();
    case KVM_EXIT_NOTIFY: return on_notify();
    case KVM_EXIT_X86_BUS_LOCK:
      log::guest_error("CPU {}: a locked access crossed a cache line", config_.index);
      return std::nullopt;
    // An application processor of an encrypted guest waits for its first start-up: the kernel does the waiting.
    case KVM_EXIT_AP_RESET_HOLD: incomplete_ = true; return std::nullopt;
    case KVM_EXIT_FAIL_ENTRY:
      return give_up(fmt::format("the processor would not enter the guest: reason {:#x} on host CPU {}; {}",
                                 uint64_t{run_->fail_entry.hardware_entry_failure_reason},
                                 uint32_t{run_->fail_entry.cpu},
                                 fail_entry_hint(run_->fail_entry.hardware_entry_failure_reason)));
    case KVM_EXIT_UNKNOWN:
      return give_up(fmt::format("the processor left the guest for a reason that KVM does not know: {:#x}",
                                 uint64_t{run_->hw.hardware_exit_reason}));
    case KVM_EXIT_EXCEPTION:
      return give_up(fmt::format("KVM met exception {} with error code {:#x}, which is not the guest's",
                                 uint32_t{run_->ex.exception}, uint32_t{run_->ex.error_code}));
    case KVM_EXIT_MEMORY_FAULT: return run_failed(EFAULT);
    default: return foreign_exit();
  }
}

KvmVcpu::Stop KvmVcpu::foreign_exit() {
  const uint32_t reason = run_->exit_reason;
  if (kvm_exit_is_foreign(reason))
    return give_up(fmt::format("KVM reports {}, an exit of another architecture", kvm_exit_name(reason)));
  return give_up(fmt::format("KVM reports exit {} ({}), which Kite has no answer to", reason, kvm_exit_name(reason)));
}

// --- ports and memory

KvmVcpu::Stop KvmVcpu::on_io() {
  const uint16_t port = run_->io.port;
  const unsigned size = run_->io.size;
  const uint64_t offset = run_->io.data_offset, count = run_->io.count;
  if ((size != 1 && size != 2 && size != 4) || offset > map_.size() || count * size > map_.size() - offset)
    return give_up(fmt::format("KVM reports an access of {} times {} bytes to port {:#06x}", count, size, port));
  uint8_t* data = map_.bytes() + offset;
  incomplete_ = true;
  const bool in = run_->io.direction == KVM_EXIT_IO_IN;
  // INS and OUTS come several at a time.
  const std::span<uint8_t> all(data, count * size);
  uint64_t done = 0;
  if (count > 1) done = (in ? io_->pio_read_many(port, size, all) : io_->pio_write_many(port, size, all)) / size;
  data += done * size;
  for (; done < count; ++done, data += size) {
    uint32_t value = 0;
    if (in) {
      value = io_->pio_read(port, size);
      std::memcpy(data, &value, size);
    } else {
      std::memcpy(&value, data, size);
      io_->pio_write(port, size, value);
    }
  }
  return std::nullopt;
}

bool KvmVcpu::in_apic_page(Gpa address) const {
  if (config_.apic == nullptr) return false;
  const uint64_t base = config_.apic->base();
  return (base & (kApicBaseEnable | kApicBaseX2Apic)) == kApicBaseEnable && address >> kPageShift == base >> kPageShift;
}

uint64_t KvmVcpu::mmio_read(Gpa address, unsigned size) {
  if (!in_apic_page(address)) return io_->mmio_read(address, size);
  // Narrower reads see their part of the register; wider ones behave as undefined [SDM 3A 11.4.1].
  const auto offset = static_cast<uint32_t>(address & (kPageSize - 1));
  if (size > 4) return 0;
  return config_.apic->mmio_read(offset & ~3u) >> (8 * (offset & 3));
}

void KvmVcpu::mmio_write(Gpa address, unsigned size, uint64_t value) {
  if (!in_apic_page(address)) return io_->mmio_write(address, size, value);
  if (size == 4)
    config_.apic->mmio_write(static_cast<uint32_t>(address & (kPageSize - 1)), static_cast<uint32_t>(value));
}

KvmVcpu::Stop KvmVcpu::on_mmio() {
  const Gpa address = run_->mmio.phys_addr;
  const unsigned bytes = run_->mmio.len;
  if (bytes > sizeof run_->mmio.data)
    return give_up(fmt::format("KVM reports an access of {} bytes at {:#x}", bytes, address));
  incomplete_ = true;
  const bool write = run_->mmio.is_write != 0;
  const bool whole = std::has_single_bit(bytes);  // else KVM cut an access at the end of a page
  for (unsigned done = 0; done < bytes;) {
    const unsigned size = whole ? bytes : piece(address + done, bytes - done);
    uint64_t value = 0;
    if (write) {
      std::memcpy(&value, run_->mmio.data + done, size);
      mmio_write(address + done, size, value);
    } else {
      value = mmio_read(address + done, size);
      std::memcpy(run_->mmio.data + done, &value, size);
    }
    done += size;
  }
  return std::nullopt;
}

// --- MSRs that KVM leaves to us: those of a local APIC of ours

KvmVcpu::Stop KvmVcpu::on_msr(bool write) {
  const uint32_t index = run_->msr.index;
  incomplete_ = true;
  bool done = false;
  LocalApic* const apic = config_.apic;
  if (apic != nullptr && index >= msr::kX2ApicBase && index <= msr::kX2ApicEnd) {
    uint64_t value = 0;
    done = write ? apic->msr_write(index, run_->msr.data) : apic->msr_read(index, value);
    if (!write) run_->msr.data = value;
  } else if (apic != nullptr && index == msr::kTscDeadline && config_.cpu->has(x86::FeatureWord::k1Ecx, 24)) {
    done = true;
    if (write)
      apic->set_tsc_deadline(run_->msr.data);
    else
      run_->msr.data = apic->tsc_deadline();
  }
  if (!done)
    log::guest_error("CPU {}: {} of MSR {:#x}, which is not there", config_.index, write ? "write" : "read", index);
  run_->msr.error = done ? 0 : 1;  // #GP
  return std::nullopt;
}

// --- calls of the guest to its hypervisor

KvmVcpu::Stop KvmVcpu::on_hypercall() {
  incomplete_ = true;
  log::guest_error("CPU {}: hypercall {} is not served", config_.index, uint64_t{run_->hypercall.nr});
  run_->hypercall.ret = static_cast<uint64_t>(kKvmNoSuchCall);
  return std::nullopt;
}

KvmVcpu::Stop KvmVcpu::on_hyperv() {
  incomplete_ = true;
  if (run_->hyperv.type == KVM_EXIT_HYPERV_HCALL) run_->hyperv.u.hcall.result = kHypervInvalidCode;
  return std::nullopt;
}

KvmVcpu::Stop KvmVcpu::on_xen() {
  incomplete_ = true;
  if (run_->xen.type == KVM_EXIT_XEN_HCALL) run_->xen.u.hcall.result = kXenNoSuchCall;
  return std::nullopt;
}

KvmVcpu::Stop KvmVcpu::on_system_event() {
  switch (run_->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN: return HaltReason::kPowerOff;
    case KVM_SYSTEM_EVENT_RESET: return HaltReason::kReset;
    case KVM_SYSTEM_EVENT_CRASH:
      log::error("CPU {}: the guest reports that it crashed (system event, flags {:#x})", config_.index,
                 uint64_t{run_->system_event.flags});
      return HaltReason::kPanicked;
    case KVM_SYSTEM_EVENT_WAKEUP:
    case KVM_SYSTEM_EVENT_SUSPEND: return std::nullopt;
    case KVM_SYSTEM_EVENT_SEV_TERM:
      return give_up(fmt::format("the encrypted guest ended itself: reason set and code {:#x}",
                                 uint64_t{run_->system_event.data[0]}));
    case KVM_SYSTEM_EVENT_TDX_FATAL:
      return give_up(fmt::format("the trust domain reports a fatal error {:#x}", uint64_t{run_->system_event.data[0]}));
    default: return give_up(fmt::format("KVM reports system event {}", uint32_t{run_->system_event.type}));
  }
}

// --- the dirty log

KvmVcpu::Stop KvmVcpu::on_dirty_ring_full() {
  if (vm_.rings) vm_.rings->collect();
  return std::nullopt;
}

// --- debugging

// The kernel goes on stepping until it is told otherwise.
HaltReason KvmVcpu::end_step() {
  if (GuestDebug rest = debug_; std::exchange(rest.single_step, false)) (void)set_debug(rest);
  return HaltReason::kDebug;
}

// What the debugger did not ask for is the guest's: its own breakpoint, its own single step.
KvmVcpu::Stop KvmVcpu::on_debug() {
  const kvm_debug_exit_arch& arch = run_->debug.arch;
  constexpr uint32_t kDb = static_cast<uint32_t>(x86::Vector::kDb), kBp = static_cast<uint32_t>(x86::Vector::kBp);
  const auto hits = static_cast<unsigned>(arch.dr6 & low_mask(static_cast<unsigned>(debug_.watches.size())));
  const bool mine = arch.exception == kBp ? std::ranges::find(debug_.breakpoints, arch.pc) != debug_.breakpoints.end()
                                          : ((arch.dr6 & x86::dr6::kBs) != 0 && debug_.single_step) || hits != 0;
  debug_stop_ = {.rip = arch.pc, .dr6 = arch.dr6, .breakpoint = mine && arch.exception == kBp};
  if (hits != 0 && arch.exception != kBp) debug_stop_.watch = static_cast<size_t>(std::countr_zero(hits));
  if (mine) return end_step();
  kvm_vcpu_events events{};
  if (fd_.ioctl(KVM_GET_VCPU_EVENTS, &events) < 0) return HaltReason::kDebug;
  events.exception.injected = vm_.settings.payloads ? 0 : 1;
  events.exception.pending = vm_.settings.payloads ? 1 : 0;
  events.exception.nr = arch.exception == kBp ? kBp : kDb;
  events.exception.has_error_code = 0;
  if (vm_.settings.payloads) {
    events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
    events.exception_has_payload = arch.exception == kBp ? 0 : 1;
    events.exception_payload = arch.dr6 & ~uint64_t{x86::dr6::kReset};
  }
  fd_.ioctl(KVM_SET_VCPU_EVENTS, &events);
  return std::nullopt;
}

KvmVcpu::Stop KvmVcpu::on_notify() {
  if ((run_->notify.flags & KVM_NOTIFY_CONTEXT_INVALID) != 0)
    return give_up("the processor was kept out of the guest too long, and its context is lost");
  log::guest_error("CPU {}: an instruction kept the processor in the guest for too long", config_.index);
  return std::nullopt;
}

// --- errors

// The step that the debugger asked for was not the kernel's.
KvmVcpu::Stop KvmVcpu::step_emulated() {
  if (const Stop stop = complete_instruction(); stop) return stop;
  x86::ArchState state;
  get_state(state);
  debug_stop_ = {.rip = state.rip, .dr6 = x86::dr6::kBs};
  return end_step();
}

KvmVcpu::Stop KvmVcpu::on_internal_error() {
  const uint32_t suberror = run_->internal.suberror;
  std::string report;
  if (suberror == KVM_INTERNAL_ERROR_EMULATION) {
    switch (fallback_->emulate(*this, *run_, *io_, report)) {
      case EmulationFallback::Outcome::kGoOn: return debug_.single_step ? step_emulated() : Stop{};
      case EmulationFallback::Outcome::kHalted:
        if (kernel_apic_) return std::nullopt;  // its activity says so, and the kernel waits
        return wakes_up() ? Stop{} : HaltReason::kHalted;
      case EmulationFallback::Outcome::kShutdown: return HaltReason::kShutdown;
      case EmulationFallback::Outcome::kGaveUp: break;
    }
  } else {
    const uint32_t count = std::min(run_->internal.ndata, static_cast<uint32_t>(std::size(run_->internal.data)));
    for (uint32_t i = 0; i < count; ++i) report += fmt::format(" {:#x}", uint64_t{run_->internal.data[i]});
    if (!report.empty()) report = "details:" + report;
  }
  return give_up(fmt::format("KVM's internal error {}: {}{}{}", suberror, internal_error_name(suberror),
                             report.empty() ? "" : "; ", report));
}

KvmVcpu::Stop KvmVcpu::run_failed(int error) {
  if (error == EFAULT && run_->exit_reason == KVM_EXIT_MEMORY_FAULT) {
    KvmMemoryFault fault;
    std::memcpy(&fault, run_->padding, sizeof fault);
    return give_up(fmt::format("KVM cannot give the guest {} bytes of {}memory at {:#x}", fault.size,
                               (fault.flags & 8) != 0 ? "private " : "", fault.gpa));
  }
  return give_up(fmt::format("KVM does not run it: {}{}", errno_text(error),
                             error == EFAULT   ? "; the memory that the guest uses cannot be had from the host"
                             : error == ENOMEM ? "; the host is short of memory"
                                               : ""));
}

KvmVcpu::Stop KvmVcpu::give_up(std::string what) {
  incomplete_ = false;
  internal_error_ = std::move(what);
  KvmCpuState state;
  if (const auto saved = save(state); !saved) {
    internal_error_ += "\nand its registers cannot be read: " + saved.error().message;
    return HaltReason::kInternalError;
  }
  x86::ArchState arch;
  to_arch(state, time_base(), arch);
  internal_error_ += "\n" + describe_registers(arch);
  const uint64_t linear =
      arch.rip + ((arch.efer & x86::efer::kLma) != 0 && arch.seg[static_cast<size_t>(x86::Seg::kCs)].long_mode()
                      ? 0
                      : arch.seg[static_cast<size_t>(x86::Seg::kCs)].base);
  kvm_translation translation{};
  translation.linear_address = linear;
  if (fd_.ioctl(KVM_TRANSLATE, &translation) < 0 || translation.valid == 0) {
    internal_error_ += fmt::format("code at {:#x}: not mapped", linear);
    return HaltReason::kInternalError;
  }
  std::array<uint8_t, 15> code{};
  const size_t bytes =
      std::min<size_t>(code.size(), kPageSize - (static_cast<uint64_t>(translation.physical_address) % kPageSize));
  if (GuestMemory(*owner_.memory_).read(translation.physical_address, std::span(code).first(bytes)))
    internal_error_ += fmt::format("code at {:#x}: {}", linear, describe_code(std::span(code).first(bytes)));
  else
    internal_error_ += fmt::format("code at {:#x}: no memory at {:#x}", linear, uint64_t{translation.physical_address});
  return HaltReason::kInternalError;
}

}  // namespace kite
