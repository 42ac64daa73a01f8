#include "cpu/segments.h"

#include "cpu/mmu.h"

namespace kite::cpu {

using x86::Seg;
using x86::SegmentRegister;
using x86::Vector;

SegmentRegister make_segment(uint16_t selector, const Descriptor& descriptor) {
  return {.selector = selector,
          .attributes = descriptor.attributes(),
          .limit = descriptor.limit(),
          .base = descriptor.base()};
}

SegmentRegister null_segment(uint16_t selector) { return {.selector = selector, .attributes = kUnusable}; }

SegmentRegister null_stack(uint8_t cpl) {
  return {.selector = cpl, .attributes = kUnusable | static_cast<uint32_t>(cpl) << 5};
}

SegmentRegister flat_code(uint16_t selector, uint8_t cpl, bool long_mode) {
  // Execute/read, accessed, present, 4 GiB; L or D.
  const uint32_t attributes = 0x809b | static_cast<uint32_t>(cpl) << 5 | (long_mode ? 0x2000u : 0x4000u);
  return {.selector = static_cast<uint16_t>((selector & 0xfffc) | cpl), .attributes = attributes, .limit = 0xffffffff};
}

SegmentRegister flat_stack(uint16_t selector, uint8_t cpl) {
  const uint32_t attributes = 0xc093 | static_cast<uint32_t>(cpl) << 5;
  return {.selector = static_cast<uint16_t>((selector & 0xfffc) | cpl), .attributes = attributes, .limit = 0xffffffff};
}

bool descriptor_address(const Cpu& cpu, uint16_t selector, unsigned bytes, uint64_t& address) {
  constexpr uint16_t kLocal = 4;
  const uint32_t offset = selector & 0xfff8u;
  if ((selector & kLocal) != 0) {
    const SegmentRegister& ldtr = cpu.arch.ldtr;
    if (ldtr.unusable() || offset + bytes - 1 > ldtr.limit) return false;
    address = ldtr.base + offset;
  } else {
    if (offset + bytes - 1 > cpu.arch.gdtr.limit) return false;
    address = cpu.arch.gdtr.base + offset;
  }
  return true;
}

bool read_descriptor(Cpu& cpu, uint16_t selector, Vector outside, Descriptor& out) {
  if (!descriptor_address(cpu, selector, 8, out.address)) return cpu.raise(outside, selector_error(selector));
  uint64_t raw = 0;
  if (!cpu.system_read(out.address, 8, raw)) return false;
  out.low = static_cast<uint32_t>(raw);
  out.high = static_cast<uint32_t>(raw >> 32);
  return true;
}

bool set_accessed(Cpu& cpu, Descriptor& descriptor) {
  if (descriptor.accessed()) return true;
  uint8_t before = 0;
  if (!Mmu(cpu).system_update(descriptor.address + 5, 1, 0, before)) return false;
  descriptor.high |= 0x100;
  return true;
}

bool within_limit(const SegmentRegister& segment, uint64_t ea, unsigned bytes) {
  const uint64_t last = ea + bytes - 1;
  const bool expand_down = (segment.attributes & 0x1c) == 0x14;
  // [SDM 3A 5.3] Beyond 4 GiB accesses wrap; whether they fault is the CPU's choice, and hosts do not.
  if (!expand_down) return last <= segment.limit || segment.limit == 0xffffffff;
  return ea > segment.limit && last <= (segment.big() ? 0xffffffffu : 0xffffu);
}

bool check_code_target(Cpu& cpu, uint16_t selector, const Descriptor& code, uint64_t offset) {
  if (cpu.long_mode() && code.long_mode()) {
    if (code.big()) return cpu.raise(Vector::kGp, selector_error(selector));
    return Mmu(cpu).canonical(offset) || cpu.raise(Vector::kGp, 0);
  }
  return offset <= code.limit() || cpu.raise(Vector::kGp, 0);
}

void set_code_segment(Cpu& cpu, uint16_t selector, const Descriptor& code, uint8_t cpl) {
  cpu.seg(Seg::kCs) = make_segment(static_cast<uint16_t>((selector & 0xfffc) | cpl), code);
  cpu.cpl = cpl;
}

// [SDM 2A, 2B: IRET, RET, CALL, INT; 3A 6.12.1] What all loads of a stack for a known privilege require.
bool read_stack_descriptor(Cpu& cpu, uint16_t selector, uint8_t cpl, Vector invalid, Descriptor& out) {
  if (null_selector(selector)) return cpu.raise(invalid, 0);
  if (!read_descriptor(cpu, selector, invalid, out)) return false;
  if ((selector & 3) != cpl || !out.writable_data() || out.dpl() != cpl)
    return cpu.raise(invalid, selector_error(selector));
  return out.present() || cpu.raise(Vector::kSs, selector_error(selector));
}

void set_stack_pointer(Cpu& cpu, unsigned width, uint64_t value) {
  constexpr uint8_t kRspOffset = x86::kRsp * 8;
  switch (width) {
    case 8: return cpu.set_reg<uint64_t>(kRspOffset, value);
    case 4: return cpu.set_reg<uint32_t>(kRspOffset, static_cast<uint32_t>(value));
    default: return cpu.set_reg<uint16_t>(kRspOffset, static_cast<uint16_t>(value));
  }
}

// --- StackCursor

StackCursor::StackCursor(Cpu& cpu)
    : cpu_(cpu), segment_(cpu.seg(Seg::kSs)), pointer_(0), width_(cpu.stack_width), cpl_(cpu.cpl) {
  pointer_ = wrap(cpu.state.gpr[x86::kRsp]);
}

StackCursor::StackCursor(Cpu& cpu, const SegmentRegister& segment, uint64_t pointer, unsigned width, uint8_t cpl,
                         uint32_t overflow_error)
    : cpu_(cpu), segment_(segment), pointer_(0), width_(width), cpl_(cpl), overflow_error_(overflow_error) {
  pointer_ = wrap(pointer);
}

bool StackCursor::locate(uint64_t pointer, unsigned bytes, uint64_t& linear) {
  if (width_ == 8) {
    linear = pointer;
    return true;
  }
  if (!within_limit(segment_, pointer, bytes)) return cpu_.raise(Vector::kSs, overflow_error_);
  linear = static_cast<uint32_t>(segment_.base + pointer);
  return true;
}

bool StackCursor::push(unsigned bytes, uint64_t value) {
  const uint64_t pointer = wrap(pointer_ - bytes);
  uint64_t linear = 0;
  Mmu mmu(cpu_);
  if (!locate(pointer, bytes, linear) || !mmu.write_value(mmu.kind_for(cpl_), linear, bytes, value, Seg::kSs))
    return false;
  pointer_ = pointer;
  return true;
}

bool StackCursor::pop(unsigned bytes, uint64_t& value) {
  uint64_t linear = 0;
  Mmu mmu(cpu_);
  if (!locate(pointer_, bytes, linear) || !mmu.read_value(mmu.kind_for(cpl_), linear, bytes, value, Seg::kSs))
    return false;
  pointer_ = wrap(pointer_ + bytes);
  return true;
}

// --- Cpu

bool Cpu::segment_linear(Seg segment, uint64_t ea, unsigned bytes, Access access, uint64_t& out) {
  const SegmentRegister& s = seg(segment);
  if (code64) {
    out = segment == Seg::kFs || segment == Seg::kGs ? s.base + ea : ea;
    return true;
  }
  bool allowed = within_limit(s, ea, bytes);
  if (!real_or_v86()) {
    const bool code = (s.attributes & 8) != 0;
    const bool bit1 = (s.attributes & 2) != 0;  // readable code, writable data
    const bool write = access == Access::kWrite || access == Access::kReadWrite;
    if (s.unusable() || (write && (code || !bit1)) || (access == Access::kRead && code && !bit1)) allowed = false;
  }
  if (!allowed) return raise(segment == Seg::kSs ? Vector::kSs : Vector::kGp, 0);
  out = static_cast<uint32_t>(s.base + ea);
  return true;
}

void Cpu::set_segment_real(Seg segment, uint16_t selector) {
  SegmentRegister& s = seg(segment);
  s.selector = selector;
  s.base = static_cast<uint64_t>(selector) << 4;
  if (v86()) {
    s.limit = 0xffff;  // [SDM 3A 21.2.1]
    s.attributes = 0xf3;
  } else if (s.unusable()) {
    s.limit = 0xffff;
    s.attributes = 0x93;
  }
}

bool Cpu::load_segment(Seg segment, uint16_t selector) {
  if (real_or_v86()) {
    set_segment_real(segment, selector);
    update_mode();
    return true;
  }
  const uint8_t rpl = selector & 3;
  const uint32_t error = selector_error(selector);
  if (null_selector(selector)) {
    // [SDM 2B, MOV] A null SS is for 64-bit mode below CPL 3, with RPL = CPL.
    if (segment == Seg::kSs && (!code64 || cpl == 3 || rpl != cpl)) return raise(Vector::kGp, 0);
    seg(segment) = null_segment(selector);
    if (segment == Seg::kSs) seg(segment).attributes |= static_cast<uint32_t>(cpl) << 5;
    update_mode();
    return true;
  }
  Descriptor descriptor;
  if (segment == Seg::kSs) {
    if (!read_stack_descriptor(*this, selector, cpl, Vector::kGp, descriptor)) return false;
  } else {
    if (!read_descriptor(*this, selector, Vector::kGp, descriptor)) return false;
    if (!descriptor.readable()) return raise(Vector::kGp, error);
    if (!descriptor.conforming() && (rpl > descriptor.dpl() || cpl > descriptor.dpl()))
      return raise(Vector::kGp, error);
    if (!descriptor.present()) return raise(Vector::kNp, error);
  }
  if (!set_accessed(*this, descriptor)) return false;
  seg(segment) = make_segment(selector, descriptor);
  update_mode();
  return true;
}

bool Cpu::push(unsigned bytes, uint64_t value, unsigned written_bytes) {
  uint64_t address = state.gpr[x86::kRsp] - bytes;
  if (stack_width != 8) {
    address = stack_width == 4 ? static_cast<uint32_t>(address) : static_cast<uint16_t>(address);
    if (!segment_linear(Seg::kSs, address, bytes, Access::kWrite, address)) return false;
  }
  if (written_bytes == 0) written_bytes = bytes;
  const bool written = written_bytes == 8   ? write<uint64_t>(address, value, Seg::kSs)
                       : written_bytes == 4 ? write<uint32_t>(address, static_cast<uint32_t>(value), Seg::kSs)
                                            : write<uint16_t>(address, static_cast<uint16_t>(value), Seg::kSs);
  if (written) set_stack_pointer(*this, stack_width, state.gpr[x86::kRsp] - bytes);
  return written;
}

bool Cpu::pop(unsigned bytes, uint64_t& value) {
  uint64_t address = state.gpr[x86::kRsp];
  if (stack_width != 8) {
    address = stack_width == 4 ? static_cast<uint32_t>(address) : static_cast<uint16_t>(address);
    if (!segment_linear(Seg::kSs, address, bytes, Access::kRead, address)) return false;
  }
  uint16_t value16 = 0;
  uint32_t value32 = 0;
  bool done = false;
  if (bytes == 8) {
    done = read<uint64_t>(address, value, Seg::kSs);
  } else if (bytes == 4) {
    done = read<uint32_t>(address, value32, Seg::kSs);
    value = value32;
  } else {
    done = read<uint16_t>(address, value16, Seg::kSs);
    value = value16;
  }
  if (done) set_stack_pointer(*this, stack_width, state.gpr[x86::kRsp] + bytes);
  return done;
}

}  // namespace kite::cpu
