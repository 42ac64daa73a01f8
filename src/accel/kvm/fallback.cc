// The emulation fall-back over cpu::Cpu.
//
// What an instruction can touch decides how much of the vCPU's state is carried over: integer instructions need the
// general, segment, control and debug registers, and what is pending; only the rest moves vector registers and MSRs.
// What did not change is not written back, so that what others do to the vCPU meanwhile (an interrupt that reaches its
// local APIC, an NMI) is not undone.
#include "accel/kvm/fallback.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <optional>
#include <vector>

#include "accel/kvm/kernel_apic.h"
#include "accel/kvm/kvm_irq_chip.h"
#include "accel/kvm/kvm_state.h"
#include "accel/kvm/kvm_vcpu.h"
#include "cpu/block.h"
#include "cpu/cpu.h"
#include "cpu/events.h"
#include "cpu/mmu.h"
#include "support/bytes.h"

namespace kite {

namespace {

using x86::Op;

// CpuIo with the vCPU's translations dropped after each call out: the memory map may have changed in it.
class FallbackIo final : public CpuIo {
 public:
  FallbackIo(CpuIo& io, cpu::Cpu& cpu) : io_(io), cpu_(cpu) {}

  uint32_t pio_read(uint16_t port, unsigned size) override {
    const uint32_t value = io_.pio_read(port, size);
    cpu_.map_changed(false);
    return value;
  }
  void pio_write(uint16_t port, unsigned size, uint32_t value) override {
    io_.pio_write(port, size, value);
    cpu_.map_changed(false);
  }
  uint64_t mmio_read(Gpa address, unsigned size) override {
    const uint64_t value = io_.mmio_read(address, size);
    cpu_.map_changed(false);
    return value;
  }
  void mmio_write(Gpa address, unsigned size, uint64_t value) override {
    io_.mmio_write(address, size, value);
    cpu_.map_changed(false);
  }
  void exclusive(const std::function<void()>& work) override { io_.exclusive(work); }
  void fpu_error() override { io_.fpu_error(); }

 private:
  CpuIo& io_;
  cpu::Cpu& cpu_;
};

// While it lives, what the CPU does outside of its step() can reach devices as well.
class Calling {
 public:
  Calling(cpu::Cpu& cpu, CpuIo& io) : cpu_(cpu) { cpu_.io = &io; }
  ~Calling() { cpu_.io = nullptr; }
  Calling(const Calling&) = delete;
  Calling& operator=(const Calling&) = delete;

 private:
  cpu::Cpu& cpu_;
};

// Integer instructions that look at more than the general, segment, control and debug registers.
bool needs_everything(const x86::Insn& insn) {
  if (insn.unit != x86::Unit::kInteger) return true;
  switch (insn.op) {
    case Op::kSyscall:
    case Op::kSysret:
    case Op::kSysenter:
    case Op::kSysexit:
    case Op::kSwapgs:
    case Op::kCpuid:
    case Op::kRdtsc:
    case Op::kRdtscp:
    case Op::kRdpid:
    case Op::kRdpmc:
    case Op::kRdpru:
    case Op::kRdmsr:
    case Op::kWrmsr:
    case Op::kMovToCr:
    case Op::kLmsw:
    case Op::kRsm:
    case Op::kHlt:
    case Op::kMonitor:
    case Op::kMwait:
    case Op::kRdpkru:
    case Op::kWrpkru:
    case Op::kXgetbv:
    case Op::kXsetbv:
    case Op::kXsave:
    case Op::kXsaveopt:
    case Op::kXsavec:
    case Op::kXsaves:
    case Op::kXrstor:
    case Op::kXrstors:
    case Op::kFxsave:
    case Op::kFxrstor:
    case Op::kLdmxcsr:
    case Op::kStmxcsr:
    case Op::kEmms:
    case Op::kFwait:
    case Op::kMaskmov:
    case Op::kVmaskmov:
    case Op::kGather:
    case Op::kVzeroupper:
    case Op::kVzeroall: return true;
    default: return false;
  }
}

bool is_host_unit(Op op) { return op == Op::kX87 || op == Op::kMmx || op == Op::kSse || op == Op::kAvx; }

// How many instructions a fall-back executes at most: some tens of microseconds.
constexpr unsigned kMostAlong = 256;

// Vector instructions, and integer instructions between them that work on registers alone.
bool runs_along(const x86::Insn& insn) {
  if (is_host_unit(insn.op)) return true;
  if (insn.unit != x86::Unit::kInteger) return false;
  switch (insn.op) {
    case Op::kLea:
    case Op::kNop:
    case Op::kEndbr: return true;
    case Op::kAdd:
    case Op::kOr:
    case Op::kAdc:
    case Op::kSbb:
    case Op::kAnd:
    case Op::kSub:
    case Op::kXor:
    case Op::kCmp:
    case Op::kTest:
    case Op::kInc:
    case Op::kDec:
    case Op::kNeg:
    case Op::kNot:
    case Op::kRol:
    case Op::kRor:
    case Op::kShl:
    case Op::kShr:
    case Op::kSar:
    case Op::kBswap:
    case Op::kMov:
    case Op::kMovzx:
    case Op::kMovsx:
    case Op::kMovsxd:
    case Op::kJcc:
    case Op::kJmp: return !insn.has_mem;
    default: return false;
  }
}

bool is_state_image(Op op) {
  return op == Op::kXsave || op == Op::kXsaveopt || op == Op::kXsavec || op == Op::kXsaves || op == Op::kXrstor ||
         op == Op::kXrstors;
}

// What KVM must look at its page tables anew for.
bool drops_translations(Op op) { return op == Op::kInvlpg || op == Op::kInvpcid || op == Op::kMovToCr; }

bool is_legacy_prefix(uint8_t byte) {
  constexpr uint8_t kPrefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3};
  return std::ranges::find(kPrefixes, byte) != std::end(kPrefixes);
}

// kvm_sregs begins as kvm_sregs2 does; at its end it has a bitmap of interrupts, which is left empty: no change.
constexpr size_t kSharedSregs = offsetof(kvm_sregs, interrupt_bitmap);
static_assert(offsetof(kvm_sregs2, flags) == kSharedSregs);

// [82093AA 3.2.4] The kernel's IOAPIC takes a new level once the old one was acknowledged: KVM looks again when its
// state is set.
void end_at_kernel_io_apic(const KvmFd& vm, uint8_t vector) {
  kvm_irqchip chip{};
  chip.chip_id = KVM_IRQCHIP_IOAPIC;
  if (vm.ioctl(KVM_GET_IRQCHIP, &chip) < 0) return;
  for (auto& entry : chip.chip.ioapic.redirtbl)
    if (entry.fields.vector == vector && entry.fields.trig_mode != 0) entry.fields.remote_irr = 0;
  (void)vm.ioctl(KVM_SET_IRQCHIP, &chip);
}

KernelApic::Wiring apic_wiring(KvmAccelerator& owner, const VcpuConfig& config) {
  auto* const chip = static_cast<KvmIrqChip*>(owner.irq_chip());
  return {.send = [chip](uint64_t address, uint32_t data) { chip->send_msi({.address = address, .data = data}); },
          .end_of_interrupt =
              [chip, &owner](uint8_t vector) {
                if (chip->has_io_controllers())
                  end_at_kernel_io_apic(owner.vm_fd(), vector);
                else
                  chip->end_of_interrupt(vector);
              },
          .cpu_count = config.cpu_count,
          .topology = config.topology,
          .apic_id = config.apic_id};
}

// What the fall-back wants in kvm_run after each KVM_RUN, once it has been used: a call for each costs as much as an
// exit. [Linux Documentation/virt/kvm/api.rst, 5: kvm_valid_regs]
constexpr uint64_t kSynced = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

// [SDM 3A 4.4] PAE paging outside of IA-32e mode: the PDPTEs are state of their own, which kvm_sregs lacks.
bool legacy_pae(const kvm_sregs& sregs) {
  return (sregs.cr0 & x86::cr0::kPg) != 0 && (sregs.cr4 & x86::cr4::kPae) != 0 && (sregs.efer & x86::efer::kLma) == 0;
}

template <class T>
bool same(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

class CpuFallback final : public EmulationFallback {
 public:
  CpuFallback(const VcpuConfig& config, AddressSpace& memory) : config_(config), memory_(memory), spec_(*config.cpu) {}

  Outcome emulate(KvmVcpu& vcpu, kvm_run& run, CpuIo& io, std::string& report) override;
  [[nodiscard]] uint64_t executed() const override { return executed_.load(std::memory_order_relaxed); }

 private:
  void make_cpu(KvmVcpu& vcpu);
  void read_features(const KvmFd& fd);
  Result<> read_registers(const KvmFd& fd, kvm_run& run);
  Result<> read_everything(KvmVcpu& vcpu);
  void enter_state(const KvmVcpu& vcpu);
  void decode();
  [[nodiscard]] std::optional<std::string> refusal() const;
  // An event that KVM had not finished delivering: it comes before the instruction.
  [[nodiscard]] bool event_waits() const;
  bool take_event();
  bool execute(CpuIo& io, bool debugged);
  bool step(CpuIo& io);
  [[nodiscard]] bool quiet() const;
  Result<> write_back(KvmVcpu& vcpu, kvm_run& run);
  static void settle_events(kvm_vcpu_events& events);
  [[nodiscard]] bool may_wait_in_run(const KvmCpuState& after) const;
  void leave_in_run(kvm_run& run, const KvmCpuState& after) const;
  Result<> write_sregs(const KvmFd& fd, const kvm_sregs2& sregs) const;

  const VcpuConfig config_;
  AddressSpace& memory_;
  x86::CpuSpec spec_;
  std::atomic<uint64_t> executed_{0};

  // Made when the first instruction fails: most vCPUs never need them.
  std::unique_ptr<KernelApic> apic_;  // null where the local APICs are ours
  std::unique_ptr<cpu::Cpu> cpu_;
  bool has_sregs2_ = false;
  uint64_t synced_ = 0;  // kSynced where KVM_RUN brings these and takes them back; else 0

  // During emulate().
  KvmCpuState before_;
  x86::ArchState arch_;
  x86::Insn insn_;
  std::vector<uint8_t> code_;  // its bytes
  bool decoded_ = false;       // insn_ and code_ are those of the instruction at rip
  bool everything_ = false;    // vector registers and MSRs were read, too
};

void CpuFallback::make_cpu(KvmVcpu& vcpu) {
  if (cpu_ != nullptr) return;
  VcpuConfig config = config_;
  if (config.apic == nullptr) {
    apic_ = std::make_unique<KernelApic>(vcpu.fd(), apic_wiring(vcpu.accelerator(), config));
    config.apic = apic_.get();
  }
  read_features(vcpu.fd());
  config.cpu = &spec_;
  const KvmSystem& system = vcpu.accelerator().system();
  has_sregs2_ = system.check(KVM_CAP_SREGS2) != 0;
  synced_ = (static_cast<uint64_t>(system.check(KVM_CAP_SYNC_REGS)) & kSynced) == kSynced ? kSynced : 0;
  cpu_ = std::make_unique<cpu::Cpu>(config, memory_);
}

// The features that the vCPU's guest is shown. KVM may have added to those that it was told: where it has no hardware
// underneath, programs see much of the host's CPUID and use what they see.
void CpuFallback::read_features(const KvmFd& fd) {
  using x86::FeatureWord;
  constexpr uint32_t kMostEntries = 512;
  std::vector<uint64_t> buffer((sizeof(kvm_cpuid2) + kMostEntries * sizeof(kvm_cpuid_entry2)) / sizeof(uint64_t));
  auto* const table = reinterpret_cast<kvm_cpuid2*>(buffer.data());
  table->nent = kMostEntries;
  if (fd.ioctl(KVM_GET_CPUID2, table) < 0) return;
  const auto* const bytes = reinterpret_cast<const uint8_t*>(buffer.data()) + sizeof(kvm_cpuid2);
  for (uint32_t i = 0; i < std::min(table->nent, kMostEntries); ++i) {
    const auto entry = load<kvm_cpuid_entry2>(bytes + i * sizeof(kvm_cpuid_entry2));
    for (const KvmFeaturePlace& place : kvm_feature_places())
      if (entry.function == place.function && entry.index == place.index)
        spec_.features[static_cast<size_t>(place.word)] = entry.*place.part;
  }
}

Result<> CpuFallback::read_registers(const KvmFd& fd, kvm_run& run) {
  const auto read = [&fd](unsigned long request, auto& part, const char* name) -> Result<> {
    const int error = fd.ioctl(request, &part);
    return error < 0 ? fail("{}: {}", name, errno_text(-error)) : Result<>{};
  };
  before_.sregs = {};
  KITE_TRY(read(KVM_GET_DEBUGREGS, before_.debugregs, "KVM_GET_DEBUGREGS"));
  if (std::exchange(run.kvm_valid_regs, synced_) == kSynced && !legacy_pae(run.s.regs.sregs)) {
    before_.regs = run.s.regs.regs;
    before_.events = run.s.regs.events;
    std::memcpy(&before_.sregs, &run.s.regs.sregs, kSharedSregs);
    return {};
  }
  KITE_TRY(read(KVM_GET_REGS, before_.regs, "KVM_GET_REGS"));
  KITE_TRY(read(KVM_GET_VCPU_EVENTS, before_.events, "KVM_GET_VCPU_EVENTS"));
  if (has_sregs2_) return read(KVM_GET_SREGS2, before_.sregs, "KVM_GET_SREGS2");
  kvm_sregs old{};
  KITE_TRY(read(KVM_GET_SREGS, old, "KVM_GET_SREGS"));
  std::memcpy(&before_.sregs, &old, kSharedSregs);
  return {};
}

Result<> CpuFallback::read_everything(KvmVcpu& vcpu) {
  KITE_TRY(vcpu.save(before_));
  everything_ = true;
  return {};
}

void CpuFallback::enter_state(const KvmVcpu& vcpu) {
  before_.mp_state.mp_state = KVM_MP_STATE_RUNNABLE;  // it was running just now
  arch_ = x86::ArchState{};
  to_arch(before_, vcpu.time_base(), arch_);
  arch_.nmi_pending = 0;  // KVM delivers it
  if (apic_ != nullptr) apic_->begin(before_.sregs.apic_base, before_.sregs.cr8);
  cpu_->set_state(arch_);
  // [SDM 3A 4.4.1] An older KVM does not tell the PDPTEs: take them from memory, where nearly every system leaves them.
  const bool pae = (arch_.cr0 & x86::cr0::kPg) != 0 && (arch_.cr4 & x86::cr4::kPae) != 0 && !cpu_->long_mode();
  if (pae && (before_.sregs.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) == 0) (void)cpu::Mmu(*cpu_).load_pdptes(arch_.cr3);
}

bool CpuFallback::event_waits() const {
  const kvm_vcpu_events& events = before_.events;
  const bool exception = events.exception.injected != 0 || events.exception.pending != 0;
  // KVM queues #UD for the instruction that it could not emulate, and INT3 and INTO stand at rip: those are executed.
  constexpr uint8_t kBp = 3, kOf = 4, kUd = 6;
  const uint8_t number = events.exception.nr;
  if (exception && number != kUd && number != kBp && number != kOf) return true;
  return events.nmi.injected != 0 || (events.interrupt.injected != 0 && events.interrupt.soft == 0);
}

// False: the CPU shuts down.
bool CpuFallback::take_event() {
  const kvm_vcpu_events& events = before_.events;
  if (events.nmi.injected != 0) return cpu::deliver_nmi(*cpu_);
  if (events.exception.injected == 0 && events.exception.pending == 0)
    return cpu::deliver_interrupt(*cpu_, events.interrupt.nr);
  const auto vector = static_cast<x86::Vector>(events.exception.nr);
  if (events.exception_has_payload != 0 && vector == x86::Vector::kPf) cpu_->arch.cr2 = events.exception_payload;
  if (events.exception_has_payload != 0 && vector == x86::Vector::kDb) cpu_->arch.dr6 |= events.exception_payload;
  cpu_->exception = cpu::Exception{
      .vector = vector, .error_code = events.exception.error_code, .has_error = events.exception.has_error_code != 0};
  return cpu::deliver_exception(*cpu_);
}

// Decodes the instruction at rip, unless that faults: insn_ is then empty, and step() delivers the fault.
void CpuFallback::decode() {
  const cpu::Block* block = cpu_->blocks().single(*cpu_);
  if (block == nullptr || block->ops[0].insn == nullptr) return;
  insn_ = *block->ops[0].insn;
  decoded_ = true;
  // Of one that is unknown, what lies there is shown: how long it is cannot be told.
  constexpr uint64_t kLongest = 15;
  const uint64_t known = std::min(kLongest, kPageSize - (cpu_->code_linear() & (kPageSize - 1)));
  code_.assign(block->code, block->code + (insn_.op == Op::kInvalid ? known : insn_.length));
}

// Why this instruction must not be executed here: what the guest may have by its CPUID, and this CPU has not.
std::optional<std::string> CpuFallback::refusal() const {
  if (!decoded_) return std::nullopt;
  if (insn_.op == Op::kInvalid) {
    size_t at = 0;
    while (at < code_.size() && is_legacy_prefix(code_[at])) ++at;
    constexpr uint8_t kVex3 = 0xc4, kVex2 = 0xc5, kEvex = 0x62;
    if (at < code_.size() && (code_[at] == kVex3 || code_[at] == kVex2 || code_[at] == kEvex))
      return fmt::format("neither KVM nor Kite's own CPU knows the instruction at {:02x}", fmt::join(code_, " "));
  }
  constexpr uint64_t kKnownComponents = 0x207;  // x87, SSE, AVX, PKRU
  if (is_state_image(insn_.op) && (arch_.xcr0 & ~kKnownComponents) != 0)
    return fmt::format("KVM does not emulate {}, and Kite's own CPU lacks a component of XCR0 {:#x}",
                       x86::mnemonic(insn_), arch_.xcr0);
  return std::nullopt;
}

EmulationFallback::Outcome CpuFallback::emulate(KvmVcpu& vcpu, kvm_run& run, CpuIo& io, std::string& report) {
  make_cpu(vcpu);
  const auto give_up = [&report](const std::string& why) {
    report = why;
    return Outcome::kGaveUp;
  };
  everything_ = decoded_ = false;
  insn_ = x86::Insn{};
  before_ = KvmCpuState{};
  if (auto done = read_registers(vcpu.fd(), run); !done) return give_up(done.error().message);
  enter_state(vcpu);
  FallbackIo outside(io, *cpu_);
  const Calling calling(*cpu_, outside);
  if (!event_waits()) decode();
  constexpr uint64_t kProtectionKeys = x86::cr4::kPke | x86::cr4::kPks;
  if (needs_everything(insn_) || (arch_.cr4 & kProtectionKeys) != 0) {
    if (auto done = read_everything(vcpu); !done) return give_up(done.error().message);
    enter_state(vcpu);
  }
  if (auto why = refusal()) return give_up(*why);
  const bool alive = event_waits() ? take_event() : execute(outside, vcpu.debugged());
  if (!alive) return Outcome::kShutdown;
  if (auto done = write_back(vcpu, run); !done) return give_up(done.error().message);
  return arch_.activity == x86::Activity::kHalted ? Outcome::kHalted : Outcome::kGoOn;
}

// False: the CPU shuts down. A repeated string instruction comes back after each page or element. A debugger wants to
// see every instruction.
bool CpuFallback::execute(CpuIo& io, bool debugged) {
  const bool vector = is_host_unit(insn_.op) && !debugged;
  if (!step(io)) return false;
  // Where one vector instruction fails the next will, too, and the costly part is done: the vector registers are here.
  // What lies between them runs along, as far as it touches neither devices nor memory that KVM may watch.
  for (unsigned more = 0; vector && more < kMostAlong && quiet(); ++more) {
    decode();
    if (!decoded_ || !runs_along(insn_)) break;
    if (!step(io)) return false;
  }
  decoded_ = decoded_ && !vector;
  return cpu_->exception ? cpu::deliver_exception(*cpu_) : true;
}

bool CpuFallback::step(CpuIo& io) {
  static const std::atomic<uint32_t> kSomeoneWaits{request::kKick};
  executed_.fetch_add(1, std::memory_order_relaxed);
  const bool alive = cpu_->step(io, kSomeoneWaits) != cpu::Exit::kShutdown;
  cpu_->io = &io;
  return alive;
}

// Whether nothing but the next instruction is due.
bool CpuFallback::quiet() const {
  return !cpu_->exception && !cpu_->interrupt_shadow && cpu_->arch.activity == x86::Activity::kActive &&
         !cpu::must_step(*cpu_);
}

Result<> CpuFallback::write_back(KvmVcpu& vcpu, kvm_run& run) {
  cpu_->get_state(arch_);
  if (const LocalApic* apic = cpu_->config.apic; apic != nullptr) arch_.cr8 = apic->cr8();
  KvmCpuState after = before_;
  from_arch(arch_, vcpu.time_base(), after);
  if (apic_ != nullptr) after.sregs.apic_base = apic_->base();
  after.sregs.flags &= before_.sregs.flags;
  after.has_lapic = false;  // it has gone on meanwhile
  settle_events(after.events);
  if (decoded_ && drops_translations(insn_.op)) {
    // A change of CR4.PGE, there and (with the state) back: KVM looks at the guest's page tables anew.
    before_.sregs = after.sregs;
    before_.sregs.cr4 ^= x86::cr4::kPge;
    KITE_TRY(write_sregs(vcpu.fd(), before_.sregs));
  }
  if (may_wait_in_run(after)) {
    leave_in_run(run, after);
    vcpu.registers_wait_in_run();
    return {};
  }
  return vcpu.load(after, &before_);
}

// Whether kvm_run can carry what is new: nothing but general registers, events and, with a local APIC in the kernel,
// system registers other than the PDPTEs.
bool CpuFallback::may_wait_in_run(const KvmCpuState& after) const {
  if (synced_ != kSynced || everything_ || arch_.activity != x86::Activity::kActive) return false;
  if (!same(before_.debugregs, after.debugregs)) return false;
  if (same(before_.sregs, after.sregs)) return true;
  return apic_ != nullptr && before_.sregs.flags == 0 && after.sregs.flags == 0;
}

void CpuFallback::leave_in_run(kvm_run& run, const KvmCpuState& after) const {
  kvm_sync_regs& regs = run.s.regs;
  regs.regs = after.regs;
  regs.events = after.events;
  run.kvm_dirty_regs |= KVM_SYNC_X86_REGS | KVM_SYNC_X86_EVENTS;
  if (same(before_.sregs, after.sregs)) return;
  regs.sregs = {};
  std::memcpy(&regs.sregs, &after.sregs, kSharedSregs);
  run.kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

// Whatever was being delivered has been, or was KVM's #UD for this instruction. NMIs that came meanwhile stay.
void CpuFallback::settle_events(kvm_vcpu_events& events) {
  events.flags = KVM_VCPUEVENT_VALID_SHADOW;
  events.exception = {};
  events.exception_has_payload = 0;
  events.exception_payload = 0;
  events.nmi.injected = 0;
  events.interrupt.injected = 0;
}

Result<> CpuFallback::write_sregs(const KvmFd& fd, const kvm_sregs2& sregs) const {
  kvm_sregs old{};
  std::memcpy(&old, &sregs, kSharedSregs);
  kvm_sregs2 copy = sregs;
  const int error = has_sregs2_ ? fd.ioctl(KVM_SET_SREGS2, &copy) : fd.ioctl(KVM_SET_SREGS, &old);
  return error < 0 ? fail("KVM_SET_SREGS: {}", errno_text(-error)) : Result<>{};
}

}  // namespace

std::unique_ptr<EmulationFallback> make_emulation_fallback(const VcpuConfig& config, AddressSpace& memory) {
  return std::make_unique<CpuFallback>(config, memory);
}

}  // namespace kite
