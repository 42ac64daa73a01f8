// Segment descriptors and the checks that loads of segment registers share. Internal to cpu/.
#pragma once

#include <cstdint>

#include "cpu/cpu.h"

namespace kite::cpu {

// System-segment and gate types (SDM table 3-2). In IA-32e mode the 32-bit ones mean their 64-bit counterparts.
namespace systype {
inline constexpr uint8_t kTss16 = 1, kLdt = 2, kTss16Busy = 3, kCallGate16 = 4, kTaskGate = 5, kInterruptGate16 = 6,
                         kTrapGate16 = 7, kTss32 = 9, kTss32Busy = 11, kCallGate32 = 12, kInterruptGate32 = 14,
                         kTrapGate32 = 15;
inline constexpr uint8_t kBusyBit = 2;
}  // namespace systype

// The eight bytes of a segment descriptor (SDM figure 3-8).
struct Descriptor {
  uint32_t low = 0;
  uint32_t high = 0;
  uint64_t address = 0;  // linear, of the descriptor itself

  [[nodiscard]] uint8_t type() const { return (high >> 8) & 15; }
  [[nodiscard]] bool system() const { return (high & 0x1000) == 0; }
  [[nodiscard]] uint8_t dpl() const { return (high >> 13) & 3; }
  [[nodiscard]] bool present() const { return (high & 0x8000) != 0; }
  [[nodiscard]] bool long_mode() const { return (high & 0x200000) != 0; }
  [[nodiscard]] bool big() const { return (high & 0x400000) != 0; }
  [[nodiscard]] bool code() const { return (high & 0x1800) == 0x1800; }
  [[nodiscard]] bool conforming() const { return (high & 0x1c00) == 0x1c00; }
  [[nodiscard]] bool writable_data() const { return (high & 0x1a00) == 0x1200; }
  // A data segment, or a code segment that may be read.
  [[nodiscard]] bool readable() const { return !system() && (!code() || (high & 0x200) != 0); }
  [[nodiscard]] bool accessed() const { return (high & 0x100) != 0; }
  [[nodiscard]] uint32_t base() const { return low >> 16 | (high & 0xff) << 16 | (high & 0xff000000); }
  [[nodiscard]] uint32_t limit() const {
    const uint32_t raw = (low & 0xffff) | (high & 0xf0000);
    return (high & 0x800000) != 0 ? raw << 12 | 0xfff : raw;
  }
  [[nodiscard]] uint32_t attributes() const { return (high >> 8) & 0xf0ff; }
};

inline constexpr uint32_t kUnusable = 0x10000;

inline bool null_selector(uint16_t selector) { return (selector & 0xfffc) == 0; }
inline uint32_t selector_error(uint16_t selector) { return selector & 0xfffcu; }

// The hidden part that a load of `selector` with `descriptor` gives.
x86::SegmentRegister make_segment(uint16_t selector, const Descriptor& descriptor);
x86::SegmentRegister null_segment(uint16_t selector);
// A stack segment that 64-bit mode uses with a null selector: only its DPL means something.
x86::SegmentRegister null_stack(uint8_t cpl);
// Flat code and stack segments, as SYSCALL and SYSENTER load them without looking at descriptors.
x86::SegmentRegister flat_code(uint16_t selector, uint8_t cpl, bool long_mode);
x86::SegmentRegister flat_stack(uint16_t selector, uint8_t cpl);

// Finds the linear address of a descriptor of `bytes` (8 or 16). False: outside of its table; nothing is raised.
bool descriptor_address(const Cpu& cpu, uint16_t selector, unsigned bytes, uint64_t& address);
// Reads it; raises `outside` with the selector as error code when it is not in its table.
bool read_descriptor(Cpu& cpu, uint16_t selector, x86::Vector outside, Descriptor& out);
// Sets the accessed bit in memory unless it is set. False: raised.
bool set_accessed(Cpu& cpu, Descriptor& descriptor);

// Whether [ea, ea + bytes) lies within the segment's limit, expand-down segments included.
bool within_limit(const x86::SegmentRegister& segment, uint64_t ea, unsigned bytes);

// Raises #GP(selector) for a code descriptor with both L and D in IA-32e mode, #GP(0) for an offset that is outside of
// the segment or not canonical.
bool check_code_target(Cpu& cpu, uint16_t selector, const Descriptor& code, uint64_t offset);
// Enters the code segment at `cpl`; the caller updates rip and the mode.
void set_code_segment(Cpu& cpu, uint16_t selector, const Descriptor& code, uint8_t cpl);

// Checks a stack segment for privilege `cpl` and reads its descriptor. `invalid` is #TS or #GP. A null selector is
// refused here.
bool read_stack_descriptor(Cpu& cpu, uint16_t selector, uint8_t cpl, x86::Vector invalid, Descriptor& out);

// Sets (E/R)SP as a stack of `width` bytes does: narrower ones leave the upper part alone.
void set_stack_pointer(Cpu& cpu, unsigned width, uint64_t value);

// A stack that is pushed to or popped from without being switched to yet: nothing of the CPU's state changes, so that a
// fault in the middle leaves no trace.
class StackCursor {
 public:
  // The current stack.
  explicit StackCursor(Cpu& cpu);
  // Another one; `width` is that of its pointer, `overflow_error` the error code of #SS when it has no room.
  StackCursor(Cpu& cpu, const x86::SegmentRegister& segment, uint64_t pointer, unsigned width, uint8_t cpl,
              uint32_t overflow_error);

  bool push(unsigned bytes, uint64_t value);
  bool pop(unsigned bytes, uint64_t& value);
  void skip(uint64_t bytes) { pointer_ = wrap(pointer_ + bytes); }
  [[nodiscard]] uint64_t pointer() const { return pointer_; }
  [[nodiscard]] unsigned width() const { return width_; }

 private:
  [[nodiscard]] uint64_t wrap(uint64_t pointer) const {
    return width_ == 8 ? pointer : width_ == 4 ? static_cast<uint32_t>(pointer) : static_cast<uint16_t>(pointer);
  }
  bool locate(uint64_t pointer, unsigned bytes, uint64_t& linear);

  Cpu& cpu_;
  x86::SegmentRegister segment_;
  uint64_t pointer_;
  unsigned width_;
  uint8_t cpl_;
  uint32_t overflow_error_ = 0;
};

// SS and (E)SP for the inner privilege `cpl` out of the current 16- or 32-bit TSS; an 8-byte field of a 64-bit one.
// #TS with the selector of TR when the TSS is too short.
bool read_tss_stack(Cpu& cpu, uint8_t cpl, uint16_t& selector, uint64_t& pointer);
bool read_tss64(Cpu& cpu, uint32_t offset, uint64_t& value);

// Why a task is switched to (SDM 3A 8.3).
enum class TaskSwitch : uint8_t { kJump, kCall, kReturn, kEvent };
// Switches to the task of the TSS `selector`; the caller has checked privileges. The old task goes on at `return_rip`.
// For events with an error code, `error_code` is pushed on the new stack. False: raised before the switch. True with
// cpu.exception set: raised after it, in the context of the new task.
bool switch_task(Cpu& cpu, uint16_t selector, TaskSwitch reason, uint64_t return_rip, const uint32_t* error_code);

}  // namespace kite::cpu
