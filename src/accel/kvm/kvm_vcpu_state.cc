// A KvmVcpu's state: in and out of the kernel, reset, time, debugging.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "accel/kvm/kvm_vcpu.h"
#include "accel/kvm/kvm_vm.h"
#include "support/log.h"

namespace kite {

namespace {

using x86::Activity;
namespace msr = x86::msr;

constexpr uint64_t kApicBase = 0xfee00000, kApicEnable = 1u << 11, kApicBootstrap = 1u << 8;

Result<> did(int answer, uint32_t cpu, const char* what) {
  if (answer >= 0) return {};
  return fail("CPU {}: KVM refuses {}: {}", cpu, what, errno_text(-answer));
}

template <class T>
bool same(const T& a, const T* b) {
  return b != nullptr && std::memcmp(&a, b, sizeof a) == 0;
}

// KVM_GET_MSRS and KVM_SET_MSRS take a header and its entries in one piece.
class MsrBlock {
 public:
  explicit MsrBlock(std::span<const kvm_msr_entry> entries)
      : words_((sizeof(kvm_msrs) + entries.size_bytes() + 7) / 8), count_(entries.size()) {
    header()->nmsrs = static_cast<uint32_t>(entries.size());
    if (!entries.empty()) std::memcpy(data(), entries.data(), entries.size_bytes());
  }
  [[nodiscard]] kvm_msrs* header() { return reinterpret_cast<kvm_msrs*>(words_.data()); }
  [[nodiscard]] std::span<kvm_msr_entry> entries() { return {reinterpret_cast<kvm_msr_entry*>(data()), count_}; }

 private:
  [[nodiscard]] uint8_t* data() { return reinterpret_cast<uint8_t*>(words_.data()) + sizeof(kvm_msrs); }
  std::vector<uint64_t> words_;
  size_t count_;
};

// KVM_SET_SREGS for a KVM without KVM_SET_SREGS2; interrupts under way are part of the events.
kvm_sregs old_sregs(const kvm_sregs2& from) {
  kvm_sregs to{};
  static_assert(offsetof(kvm_sregs, interrupt_bitmap) == offsetof(kvm_sregs2, flags));
  std::memcpy(&to, &from, offsetof(kvm_sregs, interrupt_bitmap));
  return to;
}

}  // namespace

// --- MSRs

std::optional<uint64_t> KvmVcpu::read_msr(uint32_t index) const {
  const kvm_msr_entry entry{.index = index, .reserved = 0, .data = 0};
  MsrBlock block({&entry, 1});
  if (fd_.ioctl(KVM_GET_MSRS, block.header()) != 1) return std::nullopt;
  return block.entries()[0].data;
}

bool KvmVcpu::write_msr(uint32_t index, uint64_t value) const {
  const kvm_msr_entry entry{.index = index, .reserved = 0, .data = value};
  MsrBlock block({&entry, 1});
  return fd_.ioctl(KVM_SET_MSRS, block.header()) == 1;
}

// --- whole states

Result<> KvmVcpu::save(KvmCpuState& state) const {
  const uint32_t cpu = config_.index;
  // First: KVM takes pending INITs and start-ups when it is asked for this.
  KITE_TRY(did(fd_.ioctl(KVM_GET_MP_STATE, &state.mp_state), cpu, "to show its activity"));
  KITE_TRY(did(fd_.ioctl(KVM_GET_REGS, &state.regs), cpu, "to show its registers"));
  if (vm_.settings.sregs2) {
    KITE_TRY(did(fd_.ioctl(KVM_GET_SREGS2, &state.sregs), cpu, "to show its system registers"));
  } else {
    kvm_sregs sregs{};
    KITE_TRY(did(fd_.ioctl(KVM_GET_SREGS, &sregs), cpu, "to show its system registers"));
    state.sregs = {};
    std::memcpy(&state.sregs, &sregs, offsetof(kvm_sregs, interrupt_bitmap));
  }
  state.xsave.resize(vm_.settings.xsave_bytes);
  if (!state.xsave.empty()) {
    const unsigned long request = state.xsave.size() > sizeof(kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
    KITE_TRY(did(fd_.ioctl(request, state.xsave.data()), cpu, "to show its vector registers"));
  } else {
    KITE_TRY(did(fd_.ioctl(KVM_GET_FPU, &state.fpu), cpu, "to show its vector registers"));
  }
  // A processor without XSAVE has no XCR0 to show.
  if (vm_.settings.xcrs && fd_.ioctl(KVM_GET_XCRS, &state.xcrs) < 0) state.xcrs = {};
  KITE_TRY(did(fd_.ioctl(KVM_GET_DEBUGREGS, &state.debugregs), cpu, "to show its debug registers"));
  KITE_TRY(did(fd_.ioctl(KVM_GET_VCPU_EVENTS, &state.events), cpu, "to show its pending events"));
  state.has_lapic = kernel_apic_;
  if (kernel_apic_) KITE_TRY(did(fd_.ioctl(KVM_GET_LAPIC, &state.lapic), cpu, "to show its local APIC"));

  std::vector<kvm_msr_entry> wanted;
  for (const uint32_t index : msr_list_) wanted.push_back({.index = index, .reserved = 0, .data = 0});
  MsrBlock block(wanted);
  const int got = fd_.ioctl(KVM_GET_MSRS, block.header());
  if (got < static_cast<int>(wanted.size()))
    return fail("CPU {}: KVM does not show MSR {:#x}", cpu, wanted[static_cast<size_t>(std::max(got, 0))].index);
  state.msrs.assign(block.entries().begin(), block.entries().end());
  state.writes_tsc = false;
  if (!kernel_apic_)
    state.mp_state.mp_state = activity_ == Activity::kHalted        ? KVM_MP_STATE_HALTED
                              : activity_ == Activity::kWaitForSipi ? KVM_MP_STATE_INIT_RECEIVED
                                                                    : KVM_MP_STATE_RUNNABLE;
  return {};
}

Result<> KvmVcpu::load(const KvmCpuState& state, const KvmCpuState* known) {
  const uint32_t cpu = config_.index;
  incomplete_ = false;
  ready_stale_ = true;
  if (!same(state.sregs, known ? &known->sregs : nullptr)) {
    if (vm_.settings.sregs2) {
      KITE_TRY(did(fd_.ioctl(KVM_SET_SREGS2, const_cast<kvm_sregs2*>(&state.sregs)), cpu, "these system registers"));
    } else {
      kvm_sregs sregs = old_sregs(state.sregs);
      KITE_TRY(did(fd_.ioctl(KVM_SET_SREGS, &sregs), cpu, "these system registers"));
    }
    seen_apic_base_ = state.sregs.apic_base;
  }
  run_->cr8 = seen_cr8_ = state.sregs.cr8;
  if (!kernel_apic_) config_.apic->set_cr8(static_cast<uint8_t>(seen_cr8_));
  KITE_TRY(did(fd_.ioctl(KVM_SET_REGS, const_cast<kvm_regs*>(&state.regs)), cpu, "these registers"));
  if (!state.xsave.empty()) {
    if (known == nullptr || known->xsave != state.xsave)
      KITE_TRY(did(fd_.ioctl(KVM_SET_XSAVE, const_cast<uint8_t*>(state.xsave.data())), cpu, "these vector registers"));
  } else if (!same(state.fpu, known ? &known->fpu : nullptr)) {
    KITE_TRY(did(fd_.ioctl(KVM_SET_FPU, const_cast<kvm_fpu*>(&state.fpu)), cpu, "these vector registers"));
  }
  if (state.xcrs.nr_xcrs != 0 && !same(state.xcrs, known ? &known->xcrs : nullptr))
    KITE_TRY(did(fd_.ioctl(KVM_SET_XCRS, const_cast<kvm_xcrs*>(&state.xcrs)), cpu, "this XCR0"));
  if (!same(state.debugregs, known ? &known->debugregs : nullptr))
    KITE_TRY(
        did(fd_.ioctl(KVM_SET_DEBUGREGS, const_cast<kvm_debugregs*>(&state.debugregs)), cpu, "these debug registers"));
  if (state.has_lapic && !same(state.lapic, known ? &known->lapic : nullptr))
    KITE_TRY(did(fd_.ioctl(KVM_SET_LAPIC, const_cast<kvm_lapic_state*>(&state.lapic)), cpu, "this local APIC"));
  load_msrs(state, known);  // after the local APIC: the deadline counts in the mode that it sets
  if (kernel_apic_ && !same(state.mp_state, known ? &known->mp_state : nullptr)) {
    KITE_TRY(did(fd_.ioctl(KVM_SET_MP_STATE, const_cast<kvm_mp_state*>(&state.mp_state)), cpu, "this activity"));
  } else if (!kernel_apic_) {
    x86::ArchState arch;
    KvmCpuState part;
    part.mp_state = state.mp_state;
    to_arch(part, {}, arch);
    activity_ = arch.activity;
    halted_with_if_ = (state.regs.rflags & x86::flag::kIf) != 0;
  }
  // Last: KVM_SET_REGS drops pending exceptions.
  kvm_vcpu_events events = state.events;
  if (!vm_.settings.payloads) events.flags &= ~uint32_t{KVM_VCPUEVENT_VALID_PAYLOAD};
  if (!vm_.settings.triple_faults) events.flags &= ~uint32_t{KVM_VCPUEVENT_VALID_TRIPLE_FAULT};
  return did(fd_.ioctl(KVM_SET_VCPU_EVENTS, &events), cpu, "these pending events");
}

// KVM sets them in order and stops at one that it refuses: that one is named and left out.
void KvmVcpu::load_msrs(const KvmCpuState& state, const KvmCpuState* known) {
  std::vector<kvm_msr_entry> wanted;
  for (const kvm_msr_entry& entry : state.msrs) {
    const bool tsc = entry.index == msr::kTsc || entry.index == msr::kTscAdjust;
    const bool unchanged = known != nullptr && known->msr(entry.index) == entry.data;
    if (tsc ? state.writes_tsc : !unchanged) wanted.push_back(entry);
  }
  for (size_t begin = 0; begin < wanted.size();) {
    MsrBlock block(std::span(wanted).subspan(begin));
    const int set = std::max(0, fd_.ioctl(KVM_SET_MSRS, block.header()));
    begin += static_cast<size_t>(set);
    if (begin == wanted.size()) break;
    log::print(log::Category::kUnimplemented, "CPU {}: KVM refuses {:#x} as the value of MSR {:#x}", config_.index,
               uint64_t{wanted[begin].data}, uint32_t{wanted[begin].index});
    ++begin;
  }
}

void KvmVcpu::get_state(x86::ArchState& arch) {
  KvmCpuState state;
  if (auto saved = save(state); !saved) log::error("{}", saved.error().message);
  to_arch(state, time_base(), arch);
}

void KvmVcpu::set_state(const x86::ArchState& arch) {
  KvmCpuState state;
  if (auto saved = save(state); !saved) log::error("{}", saved.error().message);
  const KvmCpuState known = state;
  x86::ArchState before;
  const KvmTimeBase time = time_base();
  to_arch(state, time, before);
  from_arch(arch, time, state);
  if (auto loaded = load(state, &known); !loaded) log::error("{}", loaded.error().message);
}

void KvmVcpu::reset() {
  const bool bootstrap = config_.index == 0;
  KvmCpuState state;
  if (auto saved = save(state); !saved) log::error("{}", saved.error().message);
  reset_kvm_state(state);
  x86::ArchState arch;
  arch.reset(true, bootstrap, config_.cpu->signature());
  from_arch(arch, time_base(), state);
  state.sregs.apic_base = config_.apic != nullptr
                              ? config_.apic->base()
                              : kApicBase | kApicEnable | (bootstrap ? kApicBootstrap : uint64_t{0});
  if (state.has_lapic) reset_kvm_lapic(state.lapic, config_.apic_id, true);
  if (auto loaded = load(state); !loaded) log::error("reset: {}", loaded.error().message);
  requests_.fetch_and(request::kKick, std::memory_order_seq_cst);
  internal_error_.clear();
}

void KvmVcpu::enter_virtual_wire_mode() {
  kvm_lapic_state lapic{};
  if (!kernel_apic_ || fd_.ioctl(KVM_GET_LAPIC, &lapic) < 0) return;
  set_virtual_wire_mode(lapic, config_.index == 0);
  if (const int answer = fd_.ioctl(KVM_SET_LAPIC, &lapic); answer < 0)
    log::error("CPU {}: KVM refuses virtual wire mode: {}", config_.index, errno_text(-answer));
}

// --- time

uint64_t KvmVcpu::clock_tsc() const {
  const auto now = static_cast<unsigned __int128>(std::max<int64_t>(0, config_.clock->now()));
  return static_cast<uint64_t>(now * vm_.settings.tsc_hz / 1'000'000'000);
}

KvmTimeBase KvmVcpu::time_base() const { return {.clock_tsc = clock_tsc()}; }

int64_t KvmVcpu::tsc_offset() const { return static_cast<int64_t>(read_msr(msr::kTsc).value_or(0) - clock_tsc()); }

void KvmVcpu::time_stopped() { stopped_tsc_ = read_msr(msr::kTsc); }

// The counter goes on where it stood. Moving the offset instead of writing the counter keeps the counters of all CPUs
// as far apart as they were.
void KvmVcpu::time_resumed() {
  if (!stopped_tsc_) return;
  const uint64_t stood = *std::exchange(stopped_tsc_, std::nullopt);
  if (vm_.settings.tsc_attribute && move_tsc(stood)) return;
  write_msr(msr::kTsc, stood);
}

bool KvmVcpu::move_tsc(uint64_t target) {
  uint64_t offset = 0;
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uintptr_t>(&offset);
  const std::optional<uint64_t> now = read_msr(msr::kTsc);
  if (!now || fd_.ioctl(KVM_GET_DEVICE_ATTR, &attribute) < 0) return false;
  offset -= *now - target;
  return fd_.ioctl(KVM_SET_DEVICE_ATTR, &attribute) >= 0;
}

// --- debugging

Result<> KvmVcpu::set_debug(const GuestDebug& debug) {
  constexpr size_t kRegisters = 4;
  if (!vm_.settings.debug) return fail("this kernel's KVM lacks KVM_CAP_SET_GUEST_DEBUG: it takes no breakpoints");
  if (debug.watches.size() > kRegisters)
    return fail("{} watchpoints: a processor has {}", debug.watches.size(), kRegisters);
  kvm_guest_debug request{};
  if (debug.single_step) request.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  const bool holds = debug.single_step && debug.hold_interrupts;
  if (holds && (vm_.settings.debug_flags & KVM_GUESTDBG_BLOCKIRQ) != 0) request.control |= KVM_GUESTDBG_BLOCKIRQ;
  if (!debug.breakpoints.empty()) request.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
  if (!debug.watches.empty()) {
    request.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    uint64_t dr7 = x86::dr7::kReset | 1u << 9;  // GE [SDM 3B 18.2.4]
    for (size_t i = 0; i < debug.watches.size(); ++i) {
      const GuestDebug::Watch& watch = debug.watches[i];
      static constexpr uint64_t kLengths[] = {0, 0, 1, 0, 3, 0, 0, 0, 2};
      const bool execute = watch.kind == GuestDebug::Watch::Kind::kExecute;
      if (watch.bytes != 1 && (execute || watch.bytes > 8 || kLengths[watch.bytes] == 0))
        return fail("a watchpoint of {} bytes: 1, 2, 4 or 8, and 1 for code", watch.bytes);
      if (watch.kind == GuestDebug::Watch::Kind::kRead)
        return fail("a watchpoint for reads alone: a processor has those for writes, and for both");
      request.arch.debugreg[i] = watch.address;
      dr7 |= uint64_t{2} << (2 * i);  // Gi
      dr7 |= (static_cast<uint64_t>(watch.kind) | kLengths[watch.bytes] << 2) << (16 + 4 * i);
    }
    request.arch.debugreg[7] = dr7;
  }
  KITE_TRY(did(fd_.ioctl(KVM_SET_GUEST_DEBUG, &request), config_.index, "these breakpoints"));
  debug_ = debug;
  return {};
}

std::optional<Gpa> KvmVcpu::debug_translate(uint64_t linear) {
  kvm_translation translation{};
  translation.linear_address = linear;
  if (fd_.ioctl(KVM_TRANSLATE, &translation) < 0 || translation.valid == 0) return std::nullopt;
  return translation.physical_address;
}

}  // namespace kite
