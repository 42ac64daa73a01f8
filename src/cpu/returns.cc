// RET far and IRET (SDM 2A, 2B). Everything is read and checked before anything changes.
#include "cpu/mmu.h"
#include "cpu/segments.h"
#include "cpu/virtual_8086.h"

namespace kite::cpu {

namespace {

namespace flag = x86::flag;
using x86::Seg;
using x86::Vector;

// RFLAGS as an IRET of `bytes` at this privilege loads it.
uint64_t returned_flags(const Cpu& cpu, uint64_t popped, unsigned bytes) {
  uint64_t mask = flag::kArithmetic | flag::kTf | flag::kDf | flag::kNt;
  if (bytes > 2) mask |= flag::kRf | flag::kAc | flag::kId;
  if (cpu.cpl <= cpu.iopl()) mask |= flag::kIf;
  if (cpu.cpl == 0) mask |= flag::kIopl | (bytes > 2 ? flag::kVif | flag::kVip : 0);
  return (cpu.flags() & ~mask) | (popped & mask);
}

// A protected-mode far return in the making.
class Return {
 public:
  Return(Cpu& cpu, unsigned bytes, bool interrupt) : cpu_(cpu), stack_(cpu), bytes_(bytes), interrupt_(interrupt) {}
  bool run(uint16_t release_bytes);

 private:
  bool pop(uint64_t& value) { return stack_.pop(bytes_, value); }
  bool check_code();
  bool pop_outer_stack(uint16_t release_bytes);
  bool to_virtual_8086();
  void commit(uint16_t release_bytes);
  [[nodiscard]] uint8_t new_cpl() const { return selector_ & 3; }
  [[nodiscard]] bool to_64bit() const { return cpu_.long_mode() && code_.long_mode(); }

  Cpu& cpu_;
  StackCursor stack_;
  unsigned bytes_;
  bool interrupt_;
  uint64_t rip_ = 0, flags_ = 0, new_rsp_ = 0;
  uint16_t selector_ = 0;
  Descriptor code_;
  x86::SegmentRegister new_stack_;
  bool switches_stack_ = false;
};

bool Return::check_code() {
  const uint32_t error = selector_error(selector_);
  if (null_selector(selector_)) return cpu_.raise(Vector::kGp, 0);
  if (!read_descriptor(cpu_, selector_, Vector::kGp, code_)) return false;
  const uint8_t rpl = new_cpl();
  const bool privilege_fits = code_.conforming() ? code_.dpl() <= rpl : code_.dpl() == rpl;
  if (!code_.code() || rpl < cpu_.cpl || !privilege_fits) return cpu_.raise(Vector::kGp, error);
  return code_.present() || cpu_.raise(Vector::kNp, error);
}

bool Return::pop_outer_stack(uint16_t release_bytes) {
  stack_.skip(release_bytes);
  uint64_t raw = 0;
  if (!pop(new_rsp_) || !pop(raw)) return false;
  switches_stack_ = true;
  const auto selector = static_cast<uint16_t>(raw);
  if (null_selector(selector)) {
    // [SDM 2A, IRET] A null SS is for 64-bit code below privilege 3, and its RPL still counts.
    if (!to_64bit() || new_cpl() == 3 || (selector & 3) != new_cpl()) return cpu_.raise(Vector::kGp, 0);
    new_stack_ = null_stack(new_cpl());
    return true;
  }
  Descriptor descriptor;
  if (!read_stack_descriptor(cpu_, selector, new_cpl(), Vector::kGp, descriptor) || !set_accessed(cpu_, descriptor))
    return false;
  new_stack_ = make_segment(selector, descriptor);
  return true;
}

// [SDM 3A 21.2.1] Six more words follow; the segments are those of real mode.
bool Return::to_virtual_8086() {
  constexpr Seg kOrder[] = {Seg::kSs, Seg::kEs, Seg::kDs, Seg::kFs, Seg::kGs};
  uint64_t esp = 0, selectors[5] = {};
  if (!pop(esp)) return false;
  for (uint64_t& selector : selectors)
    if (!pop(selector)) return false;
  if (rip_ > 0xffff) return cpu_.raise(Vector::kGp, 0);
  constexpr uint64_t kLoaded = flag::kArithmetic | flag::kTf | flag::kIf | flag::kDf | flag::kIopl | flag::kNt |
                               flag::kRf | flag::kVm | flag::kAc | flag::kVif | flag::kVip | flag::kId;
  cpu_.set_flags((flags_ & kLoaded) | flag::kFixed1);
  cpu_.cpl = 3;
  cpu_.set_segment_real(Seg::kCs, selector_);
  for (unsigned i = 0; i < 5; ++i) cpu_.set_segment_real(kOrder[i], static_cast<uint16_t>(selectors[i]));
  cpu_.state.gpr[x86::kRsp] = static_cast<uint32_t>(esp);
  cpu_.state.rip = rip_;
  cpu_.debug.keep_rf = true;
  cpu_.update_mode();
  return true;
}

void Return::commit(uint16_t release_bytes) {
  const uint8_t old_cpl = cpu_.cpl;
  if (interrupt_) {
    cpu_.set_flags(returned_flags(cpu_, flags_, bytes_));
    cpu_.debug.keep_rf = true;
  }
  set_code_segment(cpu_, selector_, code_, new_cpl());
  cpu_.state.rip = rip_;
  if (switches_stack_) {
    cpu_.seg(Seg::kSs) = new_stack_;
    const unsigned width = to_64bit() ? 8 : new_stack_.big() ? 4 : 2;
    set_stack_pointer(cpu_, width, new_rsp_ + release_bytes);
  } else {
    set_stack_pointer(cpu_, stack_.width(), stack_.pointer());
  }
  if (new_cpl() > old_cpl) {
    // [SDM 2B, RET] Data segments of the inner privilege are not left to the outer one.
    for (const Seg s : {Seg::kEs, Seg::kFs, Seg::kGs, Seg::kDs}) {
      x86::SegmentRegister& segment = cpu_.seg(s);
      const bool conforming_code = (segment.attributes & 0xc) == 0xc;
      if (segment.unusable() || conforming_code || segment.dpl() >= new_cpl()) continue;
      segment.selector = 0;
      segment.attributes |= kUnusable;
    }
  }
  cpu_.update_mode();
}

bool Return::run(uint16_t release_bytes) {
  uint64_t raw_selector = 0;
  if (!pop(rip_) || !pop(raw_selector) || (interrupt_ && !pop(flags_))) return false;
  selector_ = static_cast<uint16_t>(raw_selector);
  if (interrupt_ && !cpu_.long_mode() && bytes_ == 4 && cpu_.cpl == 0 && (flags_ & flag::kVm) != 0)
    return to_virtual_8086();
  if (!check_code()) return false;
  // [SDM 2A, IRET] From 64-bit mode SS:RSP are always there.
  const bool outer = new_cpl() > cpu_.cpl || (interrupt_ && cpu_.code64);
  if (outer && !pop_outer_stack(release_bytes)) return false;
  if (!check_code_target(cpu_, selector_, code_, rip_) || !set_accessed(cpu_, code_)) return false;
  if (!outer) stack_.skip(release_bytes);
  commit(release_bytes);
  return true;
}

// Real mode and virtual-8086 mode.
bool return_real(Cpu& cpu, unsigned bytes, bool interrupt, uint16_t release_bytes) {
  StackCursor stack(cpu);
  uint64_t rip = 0, selector = 0, popped = 0;
  if (!stack.pop(bytes, rip) || !stack.pop(bytes, selector) || (interrupt && !stack.pop(bytes, popped))) return false;
  if (rip > cpu.seg(Seg::kCs).limit) return cpu.raise(Vector::kGp, 0);
  stack.skip(release_bytes);
  if (interrupt) {
    uint64_t mask = flag::kArithmetic | flag::kTf | flag::kIf | flag::kDf | flag::kNt;
    if (bytes > 2) mask |= flag::kRf | flag::kAc | flag::kId;
    if (!cpu.v86()) mask |= flag::kIopl;  // [SDM 2A, IRET] IOPL stays in virtual-8086 mode
    cpu.set_flags((cpu.flags() & ~mask) | (popped & mask));
    cpu.debug.keep_rf = true;
  }
  set_stack_pointer(cpu, stack.width(), stack.pointer());
  cpu.set_segment_real(Seg::kCs, static_cast<uint16_t>(selector));
  cpu.state.rip = rip;
  cpu.update_mode();
  return true;
}

// [SDM 2A, IRET] A 16-bit IRET of a virtual-8086 program below IOPL 3, with VME.
bool return_virtual(Cpu& cpu) {
  StackCursor stack(cpu);
  uint64_t ip = 0, selector = 0, popped = 0;
  if (!stack.pop(2, ip) || !stack.pop(2, selector) || !stack.pop(2, popped)) return false;
  if (!load_virtual_flags(cpu, static_cast<uint16_t>(popped))) return false;
  cpu.debug.keep_rf = true;
  set_stack_pointer(cpu, stack.width(), stack.pointer());
  cpu.set_segment_real(Seg::kCs, static_cast<uint16_t>(selector));
  cpu.state.rip = ip;
  cpu.update_mode();
  return true;
}

}  // namespace

bool Cpu::far_return(unsigned operand_size, uint16_t release_bytes) {
  if (real_or_v86()) return return_real(*this, operand_size, false, release_bytes);
  return Return(*this, operand_size, false).run(release_bytes);
}

bool Cpu::interrupt_return(unsigned operand_size) {
  arch.nmi_blocked = false;  // [SDM 3A 6.7.1] even if the IRET faults
  if (!protected_mode()) return return_real(*this, operand_size, true, 0);
  if (v86()) {
    if (iopl() == 3) return return_real(*this, operand_size, true, 0);
    return has_virtual_flags(*this, operand_size) ? return_virtual(*this) : raise(Vector::kGp, 0);
  }
  if ((state.rflags & flag::kNt) == 0) return Return(*this, operand_size, true).run(0);
  if (long_mode()) return raise(Vector::kGp, 0);  // [SDM 2A, IRET] no hardware tasks in IA-32e mode
  uint64_t link = 0;
  if (!system_read(arch.tr.base, 2, link)) return false;
  const auto selector = static_cast<uint16_t>(link);
  if ((selector & 4) != 0) return raise(Vector::kTs, selector_error(selector));
  return switch_task(*this, selector, TaskSwitch::kReturn, state.rip, nullptr);
}

}  // namespace kite::cpu
