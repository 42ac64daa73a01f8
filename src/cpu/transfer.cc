// Far JMP and CALL through code segments, call gates and task gates, and the fast system calls (SDM 2A, 2B; APM 3).
#include "cpu/events.h"
#include "cpu/mmu.h"
#include "cpu/segments.h"

namespace kite::cpu {

namespace {

namespace flag = x86::flag;
using x86::Seg;
using x86::Vector;

bool is_busy_or_free_tss(uint8_t type) { return type == systype::kTss16 || type == systype::kTss32; }

// One far JMP or CALL in protected mode.
class FarTransfer {
 public:
  FarTransfer(Cpu& cpu, bool call, unsigned operand_size, uint64_t next_rip)
      : cpu_(cpu), call_(call), operand_size_(operand_size), next_rip_(next_rip) {}

  bool run(uint16_t selector, uint64_t offset);

 private:
  struct CallGate {
    uint16_t code_selector = 0;
    uint64_t offset = 0;
    unsigned width = 8;       // of what is pushed
    unsigned parameters = 0;  // copied to an inner stack, in units of `width`
  };

  bool to_code(uint16_t selector, Descriptor& code, uint64_t offset);
  bool to_system(uint16_t selector, const Descriptor& descriptor);
  bool read_call_gate(uint16_t selector, const Descriptor& low, CallGate& gate);
  bool through_call_gate(const CallGate& gate);
  bool call_same(const CallGate& gate, Descriptor& code, uint8_t cpl);
  bool call_inner(const CallGate& gate, Descriptor& code);
  bool push_return(StackCursor& stack, unsigned width) {
    return stack.push(width, cpu_.seg(Seg::kCs).selector) && stack.push(width, next_rip_);
  }
  void enter(uint16_t selector, const Descriptor& code, uint8_t cpl, uint64_t rip) {
    set_code_segment(cpu_, selector, code, cpl);
    cpu_.state.rip = rip;
    cpu_.update_mode();
  }
  bool switch_to(uint16_t tss) {
    return switch_task(cpu_, tss, call_ ? TaskSwitch::kCall : TaskSwitch::kJump, next_rip_, nullptr);
  }

  Cpu& cpu_;
  bool call_;
  unsigned operand_size_;
  uint64_t next_rip_;
};

bool FarTransfer::run(uint16_t selector, uint64_t offset) {
  if (null_selector(selector)) return cpu_.raise(Vector::kGp, 0);
  Descriptor descriptor;
  if (!read_descriptor(cpu_, selector, Vector::kGp, descriptor)) return false;
  if (descriptor.code()) return to_code(selector, descriptor, offset);
  if (!descriptor.system()) return cpu_.raise(Vector::kGp, selector_error(selector));
  return to_system(selector, descriptor);
}

bool FarTransfer::to_code(uint16_t selector, Descriptor& code, uint64_t offset) {
  const uint32_t error = selector_error(selector);
  const bool fits = code.conforming() ? code.dpl() <= cpu_.cpl : (selector & 3) <= cpu_.cpl && code.dpl() == cpu_.cpl;
  if (!fits) return cpu_.raise(Vector::kGp, error);
  if (!code.present()) return cpu_.raise(Vector::kNp, error);
  StackCursor stack(cpu_);
  if (!check_code_target(cpu_, selector, code, offset) || !set_accessed(cpu_, code)) return false;
  if (call_) {
    if (!push_return(stack, operand_size_)) return false;
    set_stack_pointer(cpu_, stack.width(), stack.pointer());
  }
  enter(selector, code, cpu_.cpl, offset);
  return true;
}

bool FarTransfer::to_system(uint16_t selector, const Descriptor& descriptor) {
  using namespace systype;
  const uint32_t error = selector_error(selector);
  const uint8_t type = descriptor.type();
  const bool gate = type == kCallGate32 || (!cpu_.long_mode() && (type == kCallGate16 || type == kTaskGate));
  const bool tss = !cpu_.long_mode() && is_busy_or_free_tss(type);
  if (!gate && !tss) return cpu_.raise(Vector::kGp, error);
  if (descriptor.dpl() < cpu_.cpl || descriptor.dpl() < (selector & 3)) return cpu_.raise(Vector::kGp, error);
  if (tss) return switch_to(selector);
  if (type == kTaskGate) {
    if (!descriptor.present()) return cpu_.raise(Vector::kNp, error);
    return switch_to(static_cast<uint16_t>(descriptor.low >> 16));
  }
  CallGate call_gate;
  return read_call_gate(selector, descriptor, call_gate) && through_call_gate(call_gate);
}

bool FarTransfer::read_call_gate(uint16_t selector, const Descriptor& low, CallGate& gate) {
  const uint32_t error = selector_error(selector);
  gate.code_selector = static_cast<uint16_t>(low.low >> 16);
  gate.offset = (low.low & 0xffff) | (low.high & 0xffff0000);
  gate.parameters = low.high & 31;
  gate.width = low.type() == systype::kCallGate16 ? 2 : 4;
  if (gate.width == 2) gate.offset &= 0xffff;
  if (cpu_.long_mode()) {
    uint64_t address = 0, high = 0;
    if (!descriptor_address(cpu_, selector, 16, address)) return cpu_.raise(Vector::kGp, error);
    if (!cpu_.system_read(address + 8, 8, high)) return false;
    // [SDM 3A 5.8.3.1] The type field of the upper half must be zero.
    if ((high >> 40 & 31) != 0) return cpu_.raise(Vector::kGp, error);
    gate.offset |= high << 32;
    gate.parameters = 0;
    gate.width = 8;
  }
  return low.present() || cpu_.raise(Vector::kNp, error);
}

bool FarTransfer::through_call_gate(const CallGate& gate) {
  const uint32_t error = selector_error(gate.code_selector);
  Descriptor code;
  if (null_selector(gate.code_selector)) return cpu_.raise(Vector::kGp, 0);
  if (!read_descriptor(cpu_, gate.code_selector, Vector::kGp, code)) return false;
  if (!code.code() || code.dpl() > cpu_.cpl) return cpu_.raise(Vector::kGp, error);
  if (!call_ && !code.conforming() && code.dpl() != cpu_.cpl) return cpu_.raise(Vector::kGp, error);
  if (cpu_.long_mode() && (!code.long_mode() || code.big())) return cpu_.raise(Vector::kGp, error);
  if (!code.present()) return cpu_.raise(Vector::kNp, error);
  if (call_ && !code.conforming() && code.dpl() < cpu_.cpl) return call_inner(gate, code);
  return call_same(gate, code, cpu_.cpl);
}

bool FarTransfer::call_same(const CallGate& gate, Descriptor& code, uint8_t cpl) {
  if (!check_code_target(cpu_, gate.code_selector, code, gate.offset) || !set_accessed(cpu_, code)) return false;
  if (call_) {
    const unsigned width = cpu_.long_mode() ? 8 : cpu_.stack_width;
    StackCursor stack(cpu_, cpu_.seg(Seg::kSs), cpu_.state.gpr[x86::kRsp], width, cpl, 0);
    if (!push_return(stack, gate.width)) return false;
    set_stack_pointer(cpu_, stack.width(), stack.pointer());
  }
  enter(gate.code_selector, code, cpl, gate.offset);
  return true;
}

// [SDM 3A 5.8.5] To an inner privilege: the stack is switched, legacy parameters are copied.
bool FarTransfer::call_inner(const CallGate& gate, Descriptor& code) {
  const uint8_t cpl = code.dpl();
  x86::SegmentRegister segment = null_stack(cpl);
  uint64_t pointer = 0;
  unsigned width = 8;
  uint32_t overflow_error = 0;
  if (cpu_.long_mode()) {
    if (!read_tss64(cpu_, 4 + cpl * 8u, pointer)) return false;
  } else {
    uint16_t selector = 0;
    Descriptor descriptor;
    if (!read_tss_stack(cpu_, cpl, selector, pointer) ||
        !read_stack_descriptor(cpu_, selector, cpl, Vector::kTs, descriptor) || !set_accessed(cpu_, descriptor))
      return false;
    segment = make_segment(selector, descriptor);
    width = descriptor.big() ? 4 : 2;
    overflow_error = selector_error(selector);
  }
  if (!check_code_target(cpu_, gate.code_selector, code, gate.offset) || !set_accessed(cpu_, code)) return false;

  StackCursor inner(cpu_, segment, pointer, width, cpl, overflow_error);
  if (!inner.push(gate.width, cpu_.seg(Seg::kSs).selector) || !inner.push(gate.width, cpu_.state.gpr[x86::kRsp]))
    return false;
  uint64_t parameters[31] = {};
  StackCursor outer(cpu_);
  for (unsigned i = 0; i < gate.parameters; ++i)
    if (!outer.pop(gate.width, parameters[i])) return false;
  for (unsigned i = gate.parameters; i-- > 0;)
    if (!inner.push(gate.width, parameters[i])) return false;
  if (!push_return(inner, gate.width)) return false;

  cpu_.seg(Seg::kSs) = segment;
  set_stack_pointer(cpu_, width, inner.pointer());
  enter(gate.code_selector, code, cpl, gate.offset);
  return true;
}

bool real_transfer(Cpu& cpu, uint16_t selector, uint64_t offset) {
  if (offset > cpu.seg(Seg::kCs).limit) return cpu.raise(Vector::kGp, 0);
  cpu.set_segment_real(Seg::kCs, selector);
  cpu.state.rip = offset;
  cpu.update_mode();
  return true;
}

uint64_t truncate(uint64_t value, unsigned bytes) {
  return bytes == 8 ? value : bytes == 4 ? static_cast<uint32_t>(value) : static_cast<uint16_t>(value);
}

bool intel(const Cpu& cpu) { return cpu.config.cpu->vendor == "GenuineIntel"; }

// The common end of the fast system calls.
void enter_flat(Cpu& cpu, uint16_t code_selector, uint16_t stack_selector, uint8_t cpl, bool long_mode, uint64_t rip) {
  cpu.seg(Seg::kCs) = flat_code(code_selector, cpl, long_mode);
  cpu.seg(Seg::kSs) = flat_stack(stack_selector, cpl);
  cpu.cpl = cpl;
  cpu.state.rip = rip;
  cpu.update_mode();
}

}  // namespace

bool Cpu::far_jump(uint16_t selector, uint64_t offset, unsigned operand_size, uint64_t next_rip) {
  offset = truncate(offset, operand_size);
  if (real_or_v86()) return real_transfer(*this, selector, offset);
  return FarTransfer(*this, false, operand_size, next_rip).run(selector, offset);
}

bool Cpu::far_call(uint16_t selector, uint64_t offset, unsigned operand_size, uint64_t next_rip) {
  offset = truncate(offset, operand_size);
  if (!real_or_v86()) return FarTransfer(*this, true, operand_size, next_rip).run(selector, offset);
  if (offset > seg(Seg::kCs).limit) return raise(Vector::kGp, 0);
  StackCursor stack(*this);
  if (!stack.push(operand_size, seg(Seg::kCs).selector) || !stack.push(operand_size, next_rip)) return false;
  set_stack_pointer(*this, stack.width(), stack.pointer());
  return real_transfer(*this, selector, offset);
}

bool Cpu::branch_to(uint64_t target, unsigned operand_size) {
  target = truncate(target, operand_size);
  const bool inside = code64 ? Mmu(*this).canonical(target) : target <= seg(Seg::kCs).limit;
  if (!inside) return raise(Vector::kGp, 0);
  state.rip = target;
  return true;
}

// [SDM 2B, SYSCALL] and, outside of 64-bit mode, [APM 3, SYSCALL]: Intel's exists in 64-bit mode only.
bool Cpu::syscall(uint64_t next_rip) {
  if ((arch.efer & x86::efer::kSce) == 0 || !protected_mode() || (!code64 && intel(*this))) return raise(Vector::kUd);
  const auto selector = static_cast<uint16_t>(arch.star >> 32);
  state.gpr[x86::kRcx] = next_rip;
  uint64_t target = static_cast<uint32_t>(arch.star);
  if (long_mode()) {
    state.gpr[x86::kR11] = flags() & ~flag::kRf;
    target = code64 ? arch.lstar : arch.cstar;
    set_flags((flags() & ~arch.sfmask & ~flag::kRf) | flag::kFixed1);
  } else {
    set_flags(flags() & ~(flag::kIf | flag::kRf | flag::kVm));
  }
  // A step trap is due only if the mask has left TF set.
  debug.single_step = debug.single_step && (state.rflags & flag::kTf) != 0;
  enter_flat(*this, selector & 0xfffc, static_cast<uint16_t>(selector + 8), 0, long_mode(), target);
  return true;
}

bool Cpu::sysret(unsigned operand_size) {
  if ((arch.efer & x86::efer::kSce) == 0 || !protected_mode() || (!code64 && intel(*this))) return raise(Vector::kUd);
  if (cpl != 0) return raise(Vector::kGp, 0);
  const auto selector = static_cast<uint16_t>(arch.star >> 48);
  const uint64_t rcx = state.gpr[x86::kRcx];
  const bool to_64bit = code64 && operand_size == 8;
  // [SDM 2B, SYSRET] Checked before the privilege drops.
  if (to_64bit && !Mmu(*this).canonical(rcx)) return raise(Vector::kGp, 0);
  if (long_mode()) {
    constexpr uint64_t kLoaded = 0x3c7fd7;  // all but RF, VM and the reserved ones
    set_flags((state.gpr[x86::kR11] & kLoaded) | flag::kFixed1);
  } else {
    set_flags(flags() | flag::kIf);
  }
  enter_flat(*this, static_cast<uint16_t>(to_64bit ? selector + 16 : selector), static_cast<uint16_t>(selector + 8), 3,
             to_64bit, to_64bit ? rcx : static_cast<uint32_t>(rcx));
  // Unlike POPF and IRET, SYSRET traps by the TF that it has loaded, at its own end.
  debug.single_step = false;
  if ((state.rflags & flag::kTf) != 0) raise_debug(*this, x86::dr6::kBs);
  return true;
}

// [APM 3, SYSENTER] AMD has SYSENTER in legacy mode only.
bool Cpu::sysenter() {
  if (long_mode() && !intel(*this)) return raise(Vector::kUd);
  const auto selector = static_cast<uint16_t>(arch.sysenter_cs);
  if (!protected_mode() || null_selector(selector)) return raise(Vector::kGp, 0);
  set_flags(flags() & ~(flag::kVm | flag::kIf | flag::kRf));
  const bool wide = long_mode();
  state.gpr[x86::kRsp] = wide ? arch.sysenter_esp : static_cast<uint32_t>(arch.sysenter_esp);
  enter_flat(*this, selector & 0xfffc, static_cast<uint16_t>((selector & 0xfffc) + 8), 0, wide,
             wide ? arch.sysenter_eip : static_cast<uint32_t>(arch.sysenter_eip));
  return true;
}

bool Cpu::sysexit(unsigned operand_size) {
  if (long_mode() && !intel(*this)) return raise(Vector::kUd);
  const auto selector = static_cast<uint16_t>(arch.sysenter_cs & 0xfffc);
  if (real_or_v86() || selector == 0 || cpl != 0) return raise(Vector::kGp, 0);
  const uint64_t rcx = state.gpr[x86::kRcx], rdx = state.gpr[x86::kRdx];
  const bool to_64bit = code64 && operand_size == 8;
  const Mmu mmu(*this);
  if (to_64bit && (!mmu.canonical(rcx) || !mmu.canonical(rdx))) return raise(Vector::kGp, 0);
  state.gpr[x86::kRsp] = to_64bit ? rcx : static_cast<uint32_t>(rcx);
  enter_flat(*this, static_cast<uint16_t>(selector + (to_64bit ? 32 : 16)),
             static_cast<uint16_t>(selector + (to_64bit ? 40 : 24)), 3, to_64bit,
             to_64bit ? rdx : static_cast<uint32_t>(rdx));
  return true;
}

}  // namespace kite::cpu
