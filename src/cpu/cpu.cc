// The run loop, and the CPU's state as a whole.
#include "cpu/cpu.h"

#include "cpu/block.h"
#include "cpu/debugger.h"
#include "cpu/events.h"
#include "cpu/fpu.h"
#include "cpu/machine_check.h"
#include "cpu/monitor.h"
#include "cpu/smm.h"
#include "support/log.h"

namespace kite::cpu {
namespace {

using x86::Activity;

const std::atomic<uint32_t> kNoRequests{0};

// While the CPU runs: where it calls out to, and which word others ask through.
class Running {
 public:
  Running(Cpu& cpu, CpuIo& io, const std::atomic<uint32_t>& requests) : cpu_(cpu) {
    cpu_.io = &io;
    cpu_.requests = &requests;
  }
  ~Running() {
    cpu_.io = nullptr;
    cpu_.requests = &kNoRequests;
    cpu_.wake_word = nullptr;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  Cpu& cpu_;
};

}  // namespace

Cpu::Cpu(const VcpuConfig& vcpu, AddressSpace& memory)
    : config(vcpu),
      block(&no_block),
      requests(&kNoRequests),
      memory_(memory),
      blocks_(std::make_unique<BlockCache>()),
      fpu_(std::make_unique<FpuThunks>()),
      monitor_(std::make_unique<Monitor>()),
      machine_checks_(std::make_unique<MachineCheckQueue>()) {
  tlb_ = tlbs_.data();
  reset(true);
}

Cpu::~Cpu() = default;

// Serves what others have asked for and takes what is pending. Between instructions.
class RunLoop {
 public:
  RunLoop(Cpu& cpu, std::atomic<uint32_t>& requests, const std::atomic<uint8_t>& sipi_vector)
      : cpu_(cpu), requests_(requests), sipi_vector_(sipi_vector) {}

  Exit run();
  // One instruction, with single step, breakpoints and the interrupt shadow looked after.
  static void run_one(Cpu& cpu);
  static bool took_branch(const Cpu& cpu, const Op& op);
  static Exit shut_down(Cpu& cpu);
  // HLT was executed.
  static void halt(Cpu& cpu);

 private:
  // Whether run() ends, and why.
  std::optional<Exit> serve();
  bool take(uint32_t request) {
    if ((requests_.load(std::memory_order_relaxed) & request) == 0) return false;
    requests_.fetch_and(~request, std::memory_order_seq_cst);
    return true;
  }
  void init();
  void heed_alarm();
  void start();
  bool deliver_pending();
  bool interrupt();
  [[nodiscard]] bool nmi_due() const { return cpu_.arch.nmi_pending != 0 && !cpu_.arch.nmi_blocked; }
  void nmi_arrived();
  bool take_machine_checks();
  [[nodiscard]] bool mwait_over() const;

  Cpu& cpu_;
  std::atomic<uint32_t>& requests_;
  const std::atomic<uint8_t>& sipi_vector_;
};

Exit RunLoop::run() {
  for (;;) {
    if (cpu_.exception && !deliver_exception(cpu_)) return shut_down(cpu_);
    if (cpu_.debugger != nullptr && stops_behind(cpu_)) [[unlikely]]
      return Exit::kDebug;
    if (cpu_.translation.alarm.load(std::memory_order_relaxed) != 0) heed_alarm();
    if (cpu_.attention() || nmi_due() || cpu_.arch.activity != Activity::kActive) {
      if (const auto exit = serve()) return *exit;
    }
    if (cpu_.debugger != nullptr) [[unlikely]] {
      if (stops_at_breakpoint(cpu_)) return Exit::kDebug;
      if (debugger_steps(cpu_)) {
        run_one(cpu_);
        halt(cpu_);
        end_debuggers_step(cpu_);
        continue;
      }
    }
    const bool trace = log::enabled(log::Category::kExec);
    if (cpu_.interrupt_shadow || must_step(cpu_) || trace) {
      // [SDM 3B 18.3.1.1] RF only matters to instruction breakpoints, and is gone after the next instruction.
      if (cpu_.debug.code_armed == 0) cpu_.state.rflags &= ~x86::flag::kRf;
      if (cpu_.interrupt_shadow || must_step(cpu_) || trace) {
        run_one(cpu_);
        halt(cpu_);
        continue;
      }
    }
    if (Block* block = cpu_.blocks().find(cpu_, true)) enter_block(cpu_, block);
    halt(cpu_);
  }
}

// Whether the instruction, which has been executed, was a branch that was taken (SDM 3B 18.4.3).
bool RunLoop::took_branch(const Cpu& cpu, const Op& op) {
  using Code = x86::Op;
  if (op.insn == nullptr) return false;
  switch (op.insn->op) {
    case Code::kJmp:
    case Code::kJmpFar:
    case Code::kCall:
    case Code::kCallFar:
    case Code::kRet:
    case Code::kRetFar:
    case Code::kIret:
    case Code::kInt:
    case Code::kInt1:
    case Code::kInt3:
    case Code::kSyscall:
    case Code::kSysret:
    case Code::kSysenter:
    case Code::kSysexit: return true;
    case Code::kInto:
    case Code::kJcc:
    case Code::kJcxz:
    case Code::kLoop:
    case Code::kLoope:
    case Code::kLoopne: return cpu.state.rip != op.next_rip();
    default: return false;
  }
}

void RunLoop::run_one(Cpu& cpu) {
  cpu.interrupt_shadow = false;
  if (!begin_step(cpu)) return;
  Block* block = cpu.blocks().single(cpu);
  if (block == nullptr) return;
  if (log::enabled(log::Category::kExec) && block->ops[0].insn != nullptr)
    log::print(log::Category::kExec, "cpu {}: {:04x}:{:x}: {}", cpu.config.index, cpu.seg(x86::Seg::kCs).selector,
               cpu.state.rip, x86::to_text(*block->ops[0].insn, cpu.state.rip));
  cpu.mode_key |= mode::kStepping;
  enter_block(cpu, block);
  cpu.mode_key &= ~mode::kStepping;
  cpu.debug.branched = (cpu.arch.debugctl & x86::debugctl::kBtf) != 0 && took_branch(cpu, block->ops[0]);
  if (!cpu.exception) end_step(cpu);
}

void RunLoop::halt(Cpu& cpu) {
  if (!cpu.halt_requested) [[likely]]
    return;
  cpu.halt_requested = false;
  cpu.arch.activity = Activity::kHalted;
}

Exit RunLoop::shut_down(Cpu& cpu) {
  cpu.arch.activity = Activity::kShutdown;
  return Exit::kShutdown;
}

// [SDM 3A table 6-2] in order of priority: INIT, NMI, external interrupts. Traps of the instruction before have become
// cpu.exception and are delivered already.
std::optional<Exit> RunLoop::serve() {
  if (take(request::kKick)) return Exit::kKicked;
  if (take(request::kFlush)) cpu_.map_changed();
  if (!cpu_.arch.smm && take(request::kInit)) init();  // [SDM 3C 32.3.1] INIT waits for the end of the mode
  if (take(request::kSipi)) start();
  if (take(request::kMachineCheck) && !take_machine_checks()) return shut_down(cpu_);
  if (take(request::kSmi)) cpu_.arch.smi_pending = cpu_.config.smm_memory != nullptr;
  if (take(request::kNmi)) nmi_arrived();
  if (take(request::kSecondNmi)) nmi_arrived();
  take(request::kStored);
  if (mwait_over()) cpu_.arch.activity = Activity::kActive;
  if (!deliver_pending()) return shut_down(cpu_);
  switch (cpu_.arch.activity) {
    case Activity::kActive: return std::nullopt;
    case Activity::kShutdown: return Exit::kShutdown;
    default: return Exit::kHalted;
  }
}

// Cleared before the look at what it stands for: what comes later raises it anew.
void RunLoop::heed_alarm() {
  const uint32_t alarm = cpu_.translation.alarm.exchange(0, std::memory_order_seq_cst);
  if ((alarm & TranslationArea::kCodeWritten) != 0 && cpu_.translator != nullptr)
    cpu_.translator->code_written_elsewhere(cpu_);
}

// False: the CPU shuts down.
bool RunLoop::take_machine_checks() {
  for (const MachineCheck& error : cpu_.machine_checks().take()) {
    report_machine_check(cpu_, error);
    if (cpu_.arch.activity == Activity::kShutdown || (cpu_.exception && !deliver_exception(cpu_))) return false;
  }
  return true;
}

// [SDM 3A 6.7.1] One waits while another is in service; before that, one waits behind the one that comes first.
void RunLoop::nmi_arrived() {
  const uint8_t most = cpu_.arch.nmi_blocked ? 1 : 2;
  if (cpu_.arch.nmi_pending < most) ++cpu_.arch.nmi_pending;
}

// What ends MWAIT without being delivered: a store, or an interrupt that IF masks.
bool RunLoop::mwait_over() const {
  if (cpu_.arch.activity != Activity::kHalted || !cpu_.mwait.waiting) return false;
  return !cpu_.monitor().armed() ||
         (cpu_.mwait.interrupts_break && (requests_.load(std::memory_order_relaxed) & request::kInterrupt) != 0);
}

void RunLoop::init() {
  cpu_.reset(false);
  if (cpu_.config.apic != nullptr) cpu_.config.apic->reset(false);
}

void RunLoop::start() {
  if (cpu_.arch.activity != Activity::kWaitForSipi) return;
  const uint8_t vector = sipi_vector_.load(std::memory_order_acquire);
  x86::SegmentRegister& cs = cpu_.seg(x86::Seg::kCs);
  cs.selector = static_cast<uint16_t>(vector << 8);
  cs.base = uint64_t{vector} << 12;
  cpu_.state.rip = 0;
  cpu_.arch.activity = Activity::kActive;
  cpu_.update_mode();
}

// False: the CPU shuts down.
bool RunLoop::deliver_pending() {
  if (cpu_.interrupt_shadow || cpu_.arch.activity == Activity::kWaitForSipi) return true;
  // A halted CPU has no next instruction: what wakes it comes first.
  if (cpu_.debugger != nullptr && cpu_.debugger->asked.hold_interrupts && cpu_.arch.activity == Activity::kActive)
    return true;
  if (cpu_.arch.smi_pending && !cpu_.arch.smm && cpu_.arch.activity != Activity::kShutdown) {
    cpu_.arch.smi_pending = false;
    enter_smm(cpu_);
    return true;
  }
  if (nmi_due()) {
    --cpu_.arch.nmi_pending;
    cpu_.arch.activity = Activity::kActive;
    return deliver_nmi(cpu_);
  }
  if (cpu_.arch.activity == Activity::kShutdown || (cpu_.state.rflags & x86::flag::kIf) == 0) return true;
  return !take(request::kInterrupt) || interrupt();
}

bool RunLoop::interrupt() {
  LocalApic* apic = cpu_.config.apic;
  if (apic == nullptr) return true;
  const auto vector = apic->acknowledge();
  // Another may wait behind this one: the request stands until has_interrupt() says no.
  if (apic->has_interrupt()) requests_.fetch_or(request::kInterrupt, std::memory_order_seq_cst);
  if (!vector) return true;
  cpu_.arch.activity = Activity::kActive;
  return deliver_interrupt(cpu_, *vector);
}

Exit Cpu::run(CpuIo& machine, std::atomic<uint32_t>& request_word, const std::atomic<uint8_t>& sipi_vector) {
  Running running(*this, machine, request_word);
  wake_word = &request_word;
  return RunLoop(*this, request_word, sipi_vector).run();
}

Exit Cpu::step(CpuIo& machine) { return step(machine, kNoRequests); }

Exit Cpu::step(CpuIo& machine, const std::atomic<uint32_t>& request_word) {
  Running running(*this, machine, request_word);
  if (arch.activity == Activity::kShutdown) return Exit::kShutdown;
  if (arch.activity != Activity::kActive) return Exit::kHalted;
  if (!exception) RunLoop::run_one(*this);
  if (exception && !deliver_exception(*this)) return RunLoop::shut_down(*this);
  RunLoop::halt(*this);
  return arch.activity == Activity::kActive ? Exit::kStepped : Exit::kHalted;
}

bool Cpu::has_work(uint32_t pending) const {
  if ((pending & (request::kKick | request::kFlush | request::kMachineCheck)) != 0) return true;
  if ((pending & request::kInit) != 0 && !arch.smm) return true;
  switch (arch.activity) {
    case Activity::kActive: return true;
    case Activity::kWaitForSipi: return (pending & request::kSipi) != 0;
    case Activity::kHalted:
      if ((pending & request::kInterrupt) != 0 && (mwait.interrupts_break || (state.rflags & x86::flag::kIf) != 0))
        return true;
      if (mwait.waiting && !monitor_->armed()) return true;
      if (((pending & request::kSmi) != 0 || arch.smi_pending) && !arch.smm) return true;
      [[fallthrough]];
    case Activity::kShutdown: return !arch.nmi_blocked && ((pending & request::kNmi) != 0 || arch.nmi_pending != 0);
  }
  return false;
}

void Cpu::reset(bool power_on) {
  if (log::enabled(log::Category::kCpuReset))
    log::print(log::Category::kCpuReset, "cpu {} before {}:\n{}", config.index, power_on ? "reset" : "INIT", dump());
  x86::ArchState next;
  get_state(next);
  next.reset(power_on, config.index == 0, config.cpu->signature());
  constexpr uint64_t kMonitorEnabled = 1u << 18;
  if (power_on && has_feature(x86::FeatureWord::k1Ecx, 3)) next.misc_enable |= kMonitorEnabled;
  set_state(next);
}

void Cpu::get_state(x86::ArchState& out) const {
  out = arch;
  for (size_t i = 0; i < out.gpr.size(); ++i) out.gpr[i] = state.gpr[i];
  for (size_t i = 0; i < out.seg.size(); ++i) out.seg[i] = state.seg[i];
  out.rip = state.rip;
  out.rflags = flags();
  out.interrupt_shadow = interrupt_shadow;
  // MWAIT may end at any time; what it waits for is not part of the state.
  if (mwait.waiting && arch.activity == Activity::kHalted) out.activity = Activity::kActive;
}

void Cpu::set_state(const x86::ArchState& in) {
  set_state_keep_tlb(in);
  flush_tlb(false);
}

void Cpu::set_state_keep_tlb(const x86::ArchState& in) {
  arch = in;
  for (size_t i = 0; i < in.gpr.size(); ++i) state.gpr[i] = in.gpr[i];
  for (size_t i = 0; i < in.seg.size(); ++i) state.seg[i] = in.seg[i];
  state.rip = in.rip;
  interrupt_shadow = in.interrupt_shadow;
  exception.reset();
  debug = DebugUnit{};
  debug_hits = 0;
  halt_requested = false;
  mwait = {};
  monitor_->disarm();
  state.cc = in.rflags & x86::flag::kArithmetic;
  state.rflags = (in.rflags & ~x86::flag::kArithmetic) | x86::flag::kFixed1;
  // [SDM 3A 5.5] The privilege level is the DPL of SS; virtual-8086 mode is at 3, real mode at 0.
  cpl = v86() ? 3 : protected_mode() ? seg(x86::Seg::kSs).dpl() : uint8_t{0};
  FpuThunks::sanitize(arch.fx);
  update_debug();
  update_mode();
}

std::string Cpu::dump() const {
  static constexpr const char* kNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                           "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
  static constexpr const char* kSegments[] = {"es", "cs", "ss", "ds", "fs", "gs"};
  std::string text = fmt::format("rip {:016x} rflags {:08x} cpl {} activity {}\n", state.rip, flags(), cpl,
                                 static_cast<unsigned>(arch.activity));
  for (size_t i = 0; i < 16; ++i) text += fmt::format("{} {:016x}{}", kNames[i], state.gpr[i], i % 4 == 3 ? '\n' : ' ');
  for (size_t i = 0; i < x86::kSegCount; ++i)
    text += fmt::format("{} {:04x} base {:016x} limit {:08x} attributes {:05x}\n", kSegments[i], state.seg[i].selector,
                        state.seg[i].base, state.seg[i].limit, state.seg[i].attributes);
  text +=
      fmt::format("gdt {:016x} {:04x} idt {:016x} {:04x} ldt {:04x} tr {:04x} base {:016x}\n", arch.gdtr.base,
                  arch.gdtr.limit, arch.idtr.base, arch.idtr.limit, arch.ldtr.selector, arch.tr.selector, arch.tr.base);
  text += fmt::format("cr0 {:08x} cr2 {:016x} cr3 {:016x} cr4 {:08x} efer {:x} dr6 {:x} dr7 {:x}\n", arch.cr0, arch.cr2,
                      arch.cr3, arch.cr4, arch.efer, arch.dr6, arch.dr7);
  return text;
}

}  // namespace kite::cpu
