// Delivery of exceptions and interrupts through the real-mode vector table and the IDT (SDM 3A chapter 6, 21.1.4).
#include "cpu/events.h"

#include "cpu/mmu.h"
#include "cpu/segments.h"
#include "support/log.h"

namespace kite::cpu {

namespace {

namespace flag = x86::flag;
using x86::Seg;
using x86::Vector;

enum class Source : uint8_t {
  kException,   // faults, traps and aborts of the CPU's own
  kInterrupt,   // external, NMI
  kSoftware,    // INT n, INT3, INTO: the gate's DPL is checked
  kSoftwareDb,  // INT1: as an exception, without the check
};

// One event on its way through the vector table. Changes nothing of the CPU's state until every check and stack write
// has passed.
class Delivery {
 public:
  Delivery(Cpu& cpu, uint8_t vector, Source source, uint64_t return_rip, const uint32_t* error_code)
      : cpu_(cpu), vector_(vector), source_(source), return_rip_(return_rip), error_code_(error_code) {}

  // False: nothing was changed, and cpu.exception says why. True with cpu.exception set: a task switch came to a bad
  // end in the context of the new task.
  bool run();
  // Whether the pushed RFLAGS has RF set: faults restart their instruction without its breakpoint (SDM 3B 18.3.1.1).
  void set_resume() { resume_ = true; }

 private:
  struct Gate {
    uint16_t selector = 0;
    uint64_t offset = 0;
    uint8_t type = 0;
    uint8_t dpl = 0;
    uint8_t ist = 0;
    bool present = false;

    [[nodiscard]] unsigned width() const { return (type & 8) != 0 ? 4 : 2; }
    [[nodiscard]] bool clears_if() const { return (type & 1) == 0; }
  };
  struct NewStack {
    x86::SegmentRegister segment;
    uint64_t pointer = 0;
    unsigned width = 0;
    bool switched = false;  // to an inner privilege: the old stack pointer is saved on it
    uint32_t overflow_error = 0;
  };

  void log_event() const;
  bool real_mode();
  bool protected_mode();
  bool read_gate(Gate& gate);
  bool check_gate(const Gate& gate);
  bool find_code(const Gate& gate, Descriptor& code, uint8_t& new_cpl);
  bool choose_stack(const Gate& gate, uint8_t new_cpl, NewStack& stack);
  bool legacy_inner_stack(uint8_t new_cpl, NewStack& stack);
  bool push_frame(StackCursor& stack, const NewStack& choice, unsigned width);
  void enter(const Gate& gate, const Descriptor& code, uint8_t new_cpl, const NewStack& choice, uint64_t pointer);
  [[nodiscard]] uint32_t gate_error() const { return vector_ * 8u + 2; }
  [[nodiscard]] uint64_t pushed_flags() const { return cpu_.flags() | (resume_ ? flag::kRf : 0); }

  Cpu& cpu_;
  uint8_t vector_;
  Source source_;
  uint64_t return_rip_;
  const uint32_t* error_code_;
  bool resume_ = false;
};

void Delivery::log_event() const {
  log::print(log::Category::kInterrupts, "{} {:#04x}{} at {:04x}:{:x}, cpl {}, rsp {:x}, rflags {:x}, cr2 {:x}",
             source_ == Source::kException ? "exception" : "interrupt", vector_,
             error_code_ != nullptr ? fmt::format(", error code {:#x}", *error_code_) : std::string(),
             cpu_.seg(Seg::kCs).selector, return_rip_, cpu_.cpl, cpu_.state.gpr[x86::kRsp], cpu_.flags(),
             cpu_.arch.cr2);
}

bool Delivery::run() {
  if (log::enabled(log::Category::kInterrupts)) log_event();
  const bool delivered = cpu_.protected_mode() ? protected_mode() : real_mode();
  if (cpu_.exception.has_value() && source_ != Source::kSoftware) {
    // [SDM 3A 6.13] EXT: the fault came while an event from outside of the program was being delivered.
    const Vector raised = cpu_.exception->vector;
    if (raised == Vector::kTs || raised == Vector::kNp || raised == Vector::kSs || raised == Vector::kGp)
      cpu_.exception->error_code |= 1;
  }
  if (!delivered) return false;
  if (vector_ == static_cast<uint8_t>(Vector::kDb)) {
    cpu_.arch.dr7 &= ~x86::dr7::kGd;
    cpu_.arch.debugctl &= ~x86::debugctl::kBtf;  // [SDM 3B 18.4.3]
  }
  if (cpu_.arch.activity == x86::Activity::kHalted) cpu_.arch.activity = x86::Activity::kActive;  // a trap ends HLT
  cpu_.interrupt_shadow = false;
  cpu_.debug.inhibited = false;
  cpu_.debug.single_step = false;
  return true;
}

bool Delivery::real_mode() {
  const uint32_t offset = vector_ * 4u;
  if (offset + 3 > cpu_.arch.idtr.limit) return cpu_.raise(Vector::kGp, gate_error());
  uint64_t target = 0;
  if (!cpu_.system_read(cpu_.arch.idtr.base + offset, 4, target)) return false;
  StackCursor stack(cpu_);
  if (!stack.push(2, pushed_flags() & 0xffff) || !stack.push(2, cpu_.seg(Seg::kCs).selector) ||
      !stack.push(2, return_rip_ & 0xffff))
    return false;
  set_stack_pointer(cpu_, stack.width(), stack.pointer());
  cpu_.set_segment_real(Seg::kCs, static_cast<uint16_t>(target >> 16));
  cpu_.state.rip = target & 0xffff;
  cpu_.set_flags(cpu_.flags() & ~(flag::kIf | flag::kTf | flag::kAc | flag::kRf));
  cpu_.update_mode();
  return true;
}

bool Delivery::read_gate(Gate& gate) {
  const unsigned bytes = cpu_.long_mode() ? 16 : 8;
  const uint32_t offset = vector_ * bytes;
  if (offset + bytes - 1 > cpu_.arch.idtr.limit) return cpu_.raise(Vector::kGp, gate_error());
  uint64_t low = 0, high = 0;
  const uint64_t address = cpu_.arch.idtr.base + offset;
  if (!cpu_.system_read(address, 8, low) || (bytes == 16 && !cpu_.system_read(address + 8, 8, high))) return false;
  gate.selector = static_cast<uint16_t>(low >> 16);
  gate.offset = (low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32;
  gate.type = (low >> 40) & 15;
  gate.dpl = (low >> 45) & 3;
  gate.present = ((low >> 47) & 1) != 0;
  if (bytes == 16) gate.ist = (low >> 32) & 7;
  const bool system = ((low >> 44) & 1) == 0;
  using namespace systype;
  const bool wide = gate.type == kInterruptGate32 || gate.type == kTrapGate32;
  const bool legacy = gate.type == kTaskGate || gate.type == kInterruptGate16 || gate.type == kTrapGate16;
  if (!system || !(wide || (legacy && bytes == 8))) return cpu_.raise(Vector::kGp, gate_error());
  if (!wide) gate.offset &= 0xffff;
  return true;
}

bool Delivery::check_gate(const Gate& gate) {
  if (source_ == Source::kSoftware && gate.dpl < cpu_.cpl) return cpu_.raise(Vector::kGp, gate_error());
  return gate.present || cpu_.raise(Vector::kNp, gate_error());
}

bool Delivery::find_code(const Gate& gate, Descriptor& code, uint8_t& new_cpl) {
  const uint32_t error = selector_error(gate.selector);
  if (null_selector(gate.selector)) return cpu_.raise(Vector::kGp, 0);
  if (!read_descriptor(cpu_, gate.selector, Vector::kGp, code)) return false;
  if (!code.code() || code.dpl() > cpu_.cpl) return cpu_.raise(Vector::kGp, error);
  // [SDM 3A 6.14.1] Handlers in IA-32e mode are 64-bit code.
  if (cpu_.long_mode() && (!code.long_mode() || code.big())) return cpu_.raise(Vector::kGp, error);
  if (!code.present()) return cpu_.raise(Vector::kNp, error);
  new_cpl = code.conforming() ? cpu_.cpl : code.dpl();
  // [SDM 3A 21.3.1] Out of virtual-8086 mode only to privilege 0.
  if (cpu_.v86() && new_cpl != 0) return cpu_.raise(Vector::kGp, error);
  return true;
}

// SS:ESP of an inner privilege from a 16- or 32-bit TSS (SDM 3A 6.12.1).
bool Delivery::legacy_inner_stack(uint8_t new_cpl, NewStack& stack) {
  uint16_t selector = 0;
  if (!read_tss_stack(cpu_, new_cpl, selector, stack.pointer)) return false;
  Descriptor descriptor;
  if (!read_stack_descriptor(cpu_, selector, new_cpl, Vector::kTs, descriptor) || !set_accessed(cpu_, descriptor))
    return false;
  stack.segment = make_segment(selector, descriptor);
  stack.width = descriptor.big() ? 4 : 2;
  stack.overflow_error = selector_error(selector);
  stack.switched = true;
  return true;
}

bool Delivery::choose_stack(const Gate& gate, uint8_t new_cpl, NewStack& stack) {
  const bool inner = new_cpl < cpu_.cpl;
  if (!cpu_.long_mode() && inner) return legacy_inner_stack(new_cpl, stack);
  stack.segment = cpu_.seg(Seg::kSs);
  stack.pointer = cpu_.state.gpr[x86::kRsp];
  stack.width = cpu_.long_mode() ? 8 : cpu_.stack_width;
  if (!cpu_.long_mode()) return true;
  if (gate.ist != 0) {
    if (!read_tss64(cpu_, 0x1c + gate.ist * 8u, stack.pointer)) return false;
  } else if (inner) {
    if (!read_tss64(cpu_, 4 + new_cpl * 8u, stack.pointer)) return false;
  }
  if (inner) {
    stack.segment = null_stack(new_cpl);
    stack.switched = true;
  }
  stack.pointer &= ~uint64_t{15};  // [SDM 3A 6.14.2]
  return true;
}

bool Delivery::push_frame(StackCursor& stack, const NewStack& choice, unsigned width) {
  const auto selector = [&](Seg s) { return stack.push(width, cpu_.seg(s).selector); };
  if (cpu_.v86() && !(selector(Seg::kGs) && selector(Seg::kFs) && selector(Seg::kDs) && selector(Seg::kEs)))
    return false;
  const bool with_stack = choice.switched || cpu_.long_mode();  // [SDM 3A 6.14.2]
  if (with_stack && !(selector(Seg::kSs) && stack.push(width, cpu_.state.gpr[x86::kRsp]))) return false;
  if (!stack.push(width, pushed_flags()) || !selector(Seg::kCs) || !stack.push(width, return_rip_)) return false;
  return error_code_ == nullptr || stack.push(width, *error_code_);
}

void Delivery::enter(const Gate& gate, const Descriptor& code, uint8_t new_cpl, const NewStack& choice,
                     uint64_t pointer) {
  if (cpu_.v86())
    for (const Seg s : {Seg::kGs, Seg::kFs, Seg::kDs, Seg::kEs}) cpu_.seg(s) = null_segment(0);
  if (choice.switched) cpu_.seg(Seg::kSs) = choice.segment;
  set_stack_pointer(cpu_, choice.width, pointer);
  set_code_segment(cpu_, gate.selector, code, new_cpl);
  cpu_.state.rip = gate.offset;
  uint64_t cleared = flag::kTf | flag::kNt | flag::kRf | flag::kVm;
  if (gate.clears_if()) cleared |= flag::kIf;
  cpu_.set_flags(cpu_.flags() & ~cleared);
  cpu_.update_mode();
}

bool Delivery::protected_mode() {
  Gate gate;
  if (!read_gate(gate) || !check_gate(gate)) return false;
  if (gate.type == systype::kTaskGate) {
    if (resume_) cpu_.state.rflags |= flag::kRf;
    return switch_task(cpu_, gate.selector, TaskSwitch::kEvent, return_rip_, error_code_);
  }
  Descriptor code;
  uint8_t new_cpl = 0;
  NewStack choice;
  if (!find_code(gate, code, new_cpl) || !choose_stack(gate, new_cpl, choice)) return false;
  if (!check_code_target(cpu_, gate.selector, code, gate.offset) || !set_accessed(cpu_, code)) return false;
  const unsigned width = cpu_.long_mode() ? 8 : gate.width();
  StackCursor stack(cpu_, choice.segment, choice.pointer, choice.width, new_cpl, choice.overflow_error);
  if (!push_frame(stack, choice, width)) return false;
  enter(gate, code, new_cpl, choice, stack.pointer());
  return true;
}

// --- double faults

bool contributory(Vector vector) {
  switch (vector) {
    case Vector::kDe:
    case Vector::kTs:
    case Vector::kNp:
    case Vector::kSs:
    case Vector::kGp: return true;
    default: return false;
  }
}

// [SDM 3A 6.15, table 6-5] What the CPU delivers when `second` came up while it was delivering `first`.
Exception combine(Vector first, const Exception& second) {
  const bool second_counts = contributory(second.vector) || second.vector == Vector::kPf;
  const bool both = (contributory(first) && contributory(second.vector)) || (first == Vector::kPf && second_counts);
  if (both) return {.vector = Vector::kDf, .error_code = 0, .has_error = true};
  return second;
}

// Faults resume with RF set; traps, aborts and #DB do not. A data or single-step #DB is a trap, and the RF of an
// instruction breakpoint is left to the handler.
bool resumes(Vector vector) {
  switch (vector) {
    case Vector::kDb:
    case Vector::kNmi:
    case Vector::kBp:
    case Vector::kOf:
    case Vector::kDf:
    case Vector::kMc: return false;
    default: return true;
  }
}

}  // namespace

bool Cpu::raise(Vector vector) {
  exception = Exception{.vector = vector};
  return false;
}

bool Cpu::raise(Vector vector, uint32_t error_code) {
  exception = Exception{.vector = vector, .error_code = error_code, .has_error = true};
  return false;
}

bool deliver_exception(Cpu& cpu) {
  cpu.debug_hits &= ~15u;
  while (cpu.exception.has_value()) {
    const Exception current = *cpu.exception;
    cpu.exception.reset();
    // Real mode has no error codes.
    const uint32_t* error = current.has_error && cpu.protected_mode() ? &current.error_code : nullptr;
    Delivery delivery(cpu, static_cast<uint8_t>(current.vector), Source::kException, cpu.state.rip, error);
    if (resumes(current.vector)) delivery.set_resume();
    delivery.run();
    if (!cpu.exception.has_value()) return true;
    const Exception second = *cpu.exception;
    if (current.vector == Vector::kDf && (contributory(second.vector) || second.vector == Vector::kPf)) {
      log::print(log::Category::kInterrupts, "triple fault at {:04x}:{:x}", cpu.seg(Seg::kCs).selector, cpu.state.rip);
      cpu.exception.reset();
      return false;
    }
    cpu.exception = combine(current.vector, second);
  }
  return true;
}

bool deliver_interrupt(Cpu& cpu, uint8_t vector) {
  Delivery delivery(cpu, vector, Source::kInterrupt, cpu.state.rip, nullptr);
  delivery.run();
  return !cpu.exception.has_value() || deliver_exception(cpu);
}

bool deliver_nmi(Cpu& cpu) {
  cpu.arch.nmi_blocked = true;
  return deliver_interrupt(cpu, static_cast<uint8_t>(Vector::kNmi));
}

bool Cpu::software_interrupt(uint8_t vector, uint64_t next_rip, bool int1) {
  Delivery delivery(*this, vector, int1 ? Source::kSoftwareDb : Source::kSoftware, next_rip, nullptr);
  if (!delivery.run()) return false;
  if (int1 && (debug_hits & 15) != 0) {
    // Breakpoints that MOV SS has held back are reported together with INT1's own #DB.
    arch.dr6 = (arch.dr6 & ~uint64_t{15}) | (debug_hits & 15);
    debug_hits &= ~15u;
  }
  return true;
}

}  // namespace kite::cpu
