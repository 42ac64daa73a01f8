// The task-state segment: inner stacks, the I/O permission bitmap, and hardware task switches (SDM 3A chapter 8).
#include <array>

#include "cpu/events.h"
#include "cpu/mmu.h"
#include "cpu/segments.h"

namespace kite::cpu {

namespace {

namespace flag = x86::flag;
using x86::Seg;
using x86::Vector;

bool tss_is_32bit(uint8_t type) { return (type & 8) != 0; }

// Where things are in a TSS (SDM figures 8-2 and 8-10).
struct Layout {
  unsigned bytes;     // smallest legal size
  unsigned word;      // of eip, eflags and the general registers
  unsigned eip;       // eip, eflags, then eight general registers
  unsigned segments;  // ES CS SS DS [FS GS]
  unsigned segment_stride;
  unsigned segment_count;
  unsigned ldt;
};
constexpr Layout kLayout16{0x2c, 2, 0x0e, 0x22, 2, 4, 0x2a};
constexpr Layout kLayout32{0x68, 4, 0x20, 0x48, 4, 6, 0x60};
constexpr unsigned kCr3Offset = 0x1c, kTrapOffset = 0x64;

// The task state as it is in memory.
struct TaskImage {
  uint64_t cr3 = 0;
  uint64_t eip = 0;
  uint64_t eflags = 0;
  std::array<uint64_t, 8> gpr{};
  std::array<uint16_t, 6> selector{};
  uint16_t ldt = 0;
  bool trap = false;
};

class Switch {
 public:
  Switch(Cpu& cpu, uint16_t selector, TaskSwitch reason, uint64_t return_rip, const uint32_t* error_code)
      : cpu_(cpu), mmu_(cpu), selector_(selector), reason_(reason), return_rip_(return_rip), error_code_(error_code) {}
  bool run();

 private:
  bool find_tss();
  bool probe_both();
  bool save_old();
  bool load_new(TaskImage& image);
  bool link_and_mark();
  void take_over(const TaskImage& image);
  bool load_segments(const TaskImage& image);
  bool load_ldt(uint16_t selector);
  bool load_code(uint16_t selector, uint64_t eip);
  bool load_stack(uint16_t selector);
  bool load_data(Seg segment, uint16_t selector);
  bool finish(const TaskImage& image);

  Cpu& cpu_;
  Mmu mmu_;
  uint16_t selector_;
  TaskSwitch reason_;
  uint64_t return_rip_;
  const uint32_t* error_code_;
  Descriptor tss_;
  Layout old_layout_ = kLayout32;
  Layout new_layout_ = kLayout32;
};

bool Switch::find_tss() {
  const uint32_t error = selector_error(selector_);
  const Vector bad = reason_ == TaskSwitch::kReturn ? Vector::kTs : Vector::kGp;
  if (null_selector(selector_) || (selector_ & 4) != 0) return cpu_.raise(bad, error);
  if (!read_descriptor(cpu_, selector_, bad, tss_)) return false;
  const uint8_t type = tss_.type();
  const bool busy = (type & systype::kBusyBit) != 0;
  const bool is_tss = tss_.system() && ((type & ~systype::kBusyBit & 15) == systype::kTss16 ||
                                        (type & ~systype::kBusyBit & 15) == systype::kTss32);
  if (!is_tss || busy != (reason_ == TaskSwitch::kReturn)) return cpu_.raise(bad, error);
  if (!tss_.present()) return cpu_.raise(Vector::kNp, error);
  old_layout_ = tss_is_32bit(cpu_.arch.tr.type()) ? kLayout32 : kLayout16;
  new_layout_ = tss_is_32bit(type) ? kLayout32 : kLayout16;
  if (tss_.limit() < new_layout_.bytes - 1) return cpu_.raise(Vector::kTs, error);
  if (cpu_.arch.tr.limit < old_layout_.bytes - 1) return cpu_.raise(Vector::kTs, selector_error(cpu_.arch.tr.selector));
  return true;
}

// [SDM 3A 8.3, step 6] Page faults come before anything is changed.
bool Switch::probe_both() {
  const TlbKind kind = mmu_.system_kind();
  return mmu_.probe(kind, static_cast<uint32_t>(cpu_.arch.tr.base), old_layout_.bytes, Access::kReadWrite) &&
         mmu_.probe(kind, tss_.base(), new_layout_.bytes, Access::kReadWrite);
}

bool Switch::save_old() {
  const uint64_t base = cpu_.arch.tr.base;
  const Layout& at = old_layout_;
  uint64_t eflags = cpu_.flags();
  if (reason_ == TaskSwitch::kReturn) eflags &= ~flag::kNt;
  bool done = cpu_.system_write(base + at.eip, at.word, return_rip_) &&
              cpu_.system_write(base + at.eip + at.word, at.word, eflags);
  for (unsigned i = 0; i < 8; ++i)
    done = done && cpu_.system_write(base + at.eip + (2 + i) * at.word, at.word, cpu_.state.gpr[i]);
  for (unsigned i = 0; i < at.segment_count; ++i)
    done = done && cpu_.system_write(base + at.segments + i * at.segment_stride, 2, cpu_.state.seg[i].selector);
  return done;
}

bool Switch::load_new(TaskImage& image) {
  const uint64_t base = tss_.base();
  const Layout& at = new_layout_;
  uint64_t value = 0;
  const auto read = [&](unsigned offset, unsigned bytes) { return cpu_.system_read(base + offset, bytes, value); };
  if (at.word == 4) {
    if (!read(kCr3Offset, 4)) return false;
    image.cr3 = value;
    if (!read(kTrapOffset, 2)) return false;
    image.trap = (value & 1) != 0;
  }
  if (!read(at.eip, at.word)) return false;
  image.eip = value;
  if (!read(at.eip + at.word, at.word)) return false;
  image.eflags = value;
  for (unsigned i = 0; i < 8; ++i) {
    if (!read(at.eip + (2 + i) * at.word, at.word)) return false;
    image.gpr[i] = at.word == 4 ? value : value | 0xffff0000;
  }
  for (unsigned i = 0; i < at.segment_count; ++i) {
    if (!read(at.segments + i * at.segment_stride, 2)) return false;
    image.selector[i] = static_cast<uint16_t>(value);
  }
  if (!read(at.ldt, 2)) return false;
  image.ldt = static_cast<uint16_t>(value);
  return true;
}

// Busy bits (SDM table 8-2).
bool Switch::link_and_mark() {
  uint8_t before = 0;
  if (reason_ == TaskSwitch::kJump || reason_ == TaskSwitch::kReturn) {
    uint64_t old_descriptor = 0;
    if (descriptor_address(cpu_, cpu_.arch.tr.selector, 8, old_descriptor) &&
        !mmu_.system_update(old_descriptor + 5, 0, systype::kBusyBit, before))
      return false;
  }
  if (reason_ == TaskSwitch::kReturn) return true;
  return mmu_.system_update(tss_.address + 5, systype::kBusyBit, 0, before);
}

// From here on faults belong to the new task. All segments hold the new selectors, not yet usable.
void Switch::take_over(const TaskImage& image) {
  const bool nested = reason_ == TaskSwitch::kCall || reason_ == TaskSwitch::kEvent;
  cpu_.arch.tr = make_segment(selector_, tss_);
  cpu_.arch.tr.attributes |= systype::kBusyBit;
  cpu_.arch.cr0 |= x86::cr0::kTs;
  if ((cpu_.arch.cr0 & x86::cr0::kPg) != 0 && new_layout_.word == 4 && image.cr3 != cpu_.arch.cr3) {
    cpu_.arch.cr3 = image.cr3;
    if ((cpu_.arch.cr4 & x86::cr4::kPae) != 0) mmu_.load_pdptes(image.cr3);
    cpu_.flush_tlb((cpu_.arch.cr4 & x86::cr4::kPge) != 0);
  }
  cpu_.arch.dr7 &= ~uint64_t{0x155};  // [SDM 3B 18.2.4] local breakpoints end with the task
  cpu_.update_debug();
  for (unsigned i = 0; i < 8; ++i) cpu_.state.gpr[i] = image.gpr[i];
  cpu_.state.rip = image.eip;
  constexpr uint64_t kLoaded = flag::kArithmetic | flag::kTf | flag::kIf | flag::kDf | flag::kIopl | flag::kNt |
                               flag::kRf | flag::kVm | flag::kAc | flag::kVif | flag::kVip | flag::kId;
  cpu_.set_flags((image.eflags & kLoaded) | flag::kFixed1 | (nested ? flag::kNt : 0));
  for (unsigned i = 0; i < x86::kSegCount; ++i) cpu_.state.seg[i] = null_segment(image.selector[i]);
  cpu_.arch.ldtr = null_segment(image.ldt);
  cpu_.cpl = cpu_.v86() ? 3 : image.selector[static_cast<size_t>(Seg::kCs)] & 3;
  cpu_.debug.keep_rf = true;
  cpu_.update_mode();
}

bool Switch::load_ldt(uint16_t selector) {
  if (null_selector(selector)) return true;
  const uint32_t error = selector_error(selector);
  Descriptor descriptor;
  if ((selector & 4) != 0) return cpu_.raise(Vector::kTs, error);
  if (!read_descriptor(cpu_, selector, Vector::kTs, descriptor)) return false;
  if (!descriptor.system() || descriptor.type() != systype::kLdt || !descriptor.present())
    return cpu_.raise(Vector::kTs, error);
  cpu_.arch.ldtr = make_segment(selector, descriptor);
  return true;
}

bool Switch::load_code(uint16_t selector, uint64_t eip) {
  const uint32_t error = selector_error(selector);
  Descriptor code;
  if (null_selector(selector)) return cpu_.raise(Vector::kTs, 0);
  if (!read_descriptor(cpu_, selector, Vector::kTs, code)) return false;
  const bool fits = code.conforming() ? code.dpl() <= cpu_.cpl : code.dpl() == cpu_.cpl;
  if (!code.code() || !fits) return cpu_.raise(Vector::kTs, error);
  if (!code.present()) return cpu_.raise(Vector::kNp, error);
  if (!set_accessed(cpu_, code)) return false;
  set_code_segment(cpu_, selector, code, cpu_.cpl);
  cpu_.update_mode();
  return eip <= code.limit() || cpu_.raise(Vector::kGp, 0);
}

bool Switch::load_stack(uint16_t selector) {
  Descriptor descriptor;
  if (!read_stack_descriptor(cpu_, selector, cpu_.cpl, Vector::kTs, descriptor) || !set_accessed(cpu_, descriptor))
    return false;
  cpu_.seg(Seg::kSs) = make_segment(selector, descriptor);
  return true;
}

bool Switch::load_data(Seg segment, uint16_t selector) {
  if (null_selector(selector)) return true;
  const uint32_t error = selector_error(selector);
  Descriptor descriptor;
  if (!read_descriptor(cpu_, selector, Vector::kTs, descriptor)) return false;
  const bool fits = descriptor.conforming() || (descriptor.dpl() >= cpu_.cpl && descriptor.dpl() >= (selector & 3));
  if (!descriptor.readable() || !fits) return cpu_.raise(Vector::kTs, error);
  if (!descriptor.present()) return cpu_.raise(Vector::kNp, error);
  if (!set_accessed(cpu_, descriptor)) return false;
  cpu_.seg(segment) = make_segment(selector, descriptor);
  return true;
}

bool Switch::load_segments(const TaskImage& image) {
  const auto selector = [&](Seg s) { return image.selector[static_cast<size_t>(s)]; };
  if (!load_ldt(image.ldt)) return false;
  if (cpu_.v86()) {
    for (const Seg s : {Seg::kEs, Seg::kCs, Seg::kSs, Seg::kDs, Seg::kFs, Seg::kGs})
      cpu_.set_segment_real(s, selector(s));
    return image.eip <= 0xffff || cpu_.raise(Vector::kGp, 0);
  }
  if (!load_stack(selector(Seg::kSs))) return false;
  for (const Seg s : {Seg::kEs, Seg::kDs, Seg::kFs, Seg::kGs})
    if (!load_data(s, selector(s))) return false;
  return load_code(selector(Seg::kCs), image.eip);
}

bool Switch::finish(const TaskImage& image) {
  if (!load_segments(image)) return false;
  cpu_.update_mode();
  if (error_code_ != nullptr) {
    StackCursor stack(cpu_);
    if (!stack.push(new_layout_.word, *error_code_)) return false;
    set_stack_pointer(cpu_, stack.width(), stack.pointer());
  }
  if (image.trap) {
    // [SDM 3B 18.3.1.5] The T flag: a trap before the first instruction of the task.
    cpu_.arch.dr6 |= x86::dr6::kBt;
    return cpu_.raise(Vector::kDb);
  }
  return true;
}

bool Switch::run() {
  TaskImage image;
  if (!find_tss() || !probe_both() || !link_and_mark()) return false;
  const bool nested = reason_ == TaskSwitch::kCall || reason_ == TaskSwitch::kEvent;
  if (nested && !cpu_.system_write(tss_.base(), 2, cpu_.arch.tr.selector)) return false;
  if (!save_old() || !load_new(image)) return false;
  take_over(image);
  finish(image);
  return true;
}

}  // namespace

bool switch_task(Cpu& cpu, uint16_t selector, TaskSwitch reason, uint64_t return_rip, const uint32_t* error_code) {
  return Switch(cpu, selector, reason, return_rip, error_code).run();
}

bool read_tss_stack(Cpu& cpu, uint8_t cpl, uint16_t& selector, uint64_t& pointer) {
  const bool wide = tss_is_32bit(cpu.arch.tr.type());
  const unsigned bytes = wide ? 4 : 2;
  const uint32_t offset = wide ? 4 + cpl * 8u : 2 + cpl * 4u;
  if (offset + bytes + 1 > cpu.arch.tr.limit) return cpu.raise(Vector::kTs, selector_error(cpu.arch.tr.selector));
  uint64_t raw = 0;
  if (!cpu.system_read(cpu.arch.tr.base + offset, bytes, pointer) ||
      !cpu.system_read(cpu.arch.tr.base + offset + bytes, 2, raw))
    return false;
  selector = static_cast<uint16_t>(raw);
  return true;
}

bool read_tss64(Cpu& cpu, uint32_t offset, uint64_t& value) {
  if (offset + 7 > cpu.arch.tr.limit) return cpu.raise(Vector::kTs, selector_error(cpu.arch.tr.selector));
  return cpu.system_read(cpu.arch.tr.base + offset, 8, value);
}

// [SDM 1, 19.5.2] Below IOPL, and in virtual-8086 mode, every port's bit in the TSS must be clear.
bool Cpu::check_io(uint16_t port, unsigned bytes) {
  if (protected_mode() && (cpl > iopl() || v86())) {
    constexpr uint32_t kMapBase = 0x66;
    if (!tss_is_32bit(arch.tr.type()) || arch.tr.unusable() || arch.tr.limit < kMapBase + 1)
      return raise(Vector::kGp, 0);
    uint64_t map = 0, bits = 0;
    if (!system_read(arch.tr.base + kMapBase, 2, map)) return false;
    const uint64_t offset = map + port / 8;
    if (offset + 1 > arch.tr.limit) return raise(Vector::kGp, 0);
    if (!system_read(arch.tr.base + offset, 2, bits)) return false;
    if (((bits >> (port & 7)) & ((1u << bytes) - 1)) != 0) return raise(Vector::kGp, 0);
  }
  if (debug.io_armed != 0) note_io_access(*this, port, bytes);
  return true;
}

}  // namespace kite::cpu
