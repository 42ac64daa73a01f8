// Cpu: the x86-64 CPU in software. Used by accel/jit to run a machine, and by accel/kvm for what the kernel cannot
// emulate. One Cpu belongs to one thread at a time; other threads reach it only through the request word.
//
// Parts: state (here), mmu.cc (page walks, TLB fills, slow memory paths), segments.cc (descriptor loads), events.cc
// (exceptions, interrupts, gates, IRET), control.cc (control and debug registers, MSRs, CPUID), block.cc (decode and
// cache), exec_*.cc (instruction handlers), fpu.cc (host units), cpu.cc (the run loop).
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>

#include "accel/cpu_io.h"
#include "accel/local_apic.h"
#include "accel/vcpu.h"
#include "cpu/op.h"
#include "cpu/tlb.h"
#include "memory/address_space.h"
#include "x86/arch_state.h"
#include "x86/cpuid.h"
#include "x86/insn.h"

namespace kite::cpu {

class BlockCache;
class FpuThunks;

// The hot part of the state. `arch` holds the rest; gpr, rip and the arithmetic flags live here while the CPU runs and
// are folded back by Cpu::get_state().
struct CpuState {
  uint64_t gpr[17] = {};  // [16] is always zero (kZeroReg)
  uint64_t rip = 0;
  uint64_t cc = 0;        // CF PF AF ZF SF OF at their RFLAGS positions, all other bits zero
  uint64_t rflags = x86::flag::kFixed1;  // the rest of RFLAGS, arithmetic bits zero
  x86::SegmentRegister seg[x86::kSegCount] = {};
};

enum class Access : uint8_t { kRead, kWrite, kReadWrite, kFetch };

// An event waiting to be delivered.
struct Exception {
  x86::Vector vector = x86::Vector::kUd;
  uint32_t error_code = 0;
  bool has_error = false;
};

// How run_slice() ended.
enum class Exit : uint8_t { kHalted, kShutdown, kKicked, kInternalError };

class Cpu {
 public:
  Cpu(const VcpuConfig& config, AddressSpace& memory);
  ~Cpu();
  Cpu(const Cpu&) = delete;
  Cpu& operator=(const Cpu&) = delete;

  // --- running -----------------------------------------------------------------------------------------------------
  // Until halted, shut down, kicked; `requests` is the vCPU's request word.
  Exit run(CpuIo& machine, std::atomic<uint32_t>& requests, std::atomic<uint8_t>& sipi_vector);
  // Exactly one instruction (or one event delivery); for the KVM fall-back, single-stepping and tests.
  Exit step(CpuIo& machine);
  [[nodiscard]] bool has_work(uint32_t requests) const;
  void reset(bool power_on);
  void get_state(x86::ArchState& out) const;
  void set_state(const x86::ArchState& in);
  [[nodiscard]] std::string internal_error() const { return internal_error_; }
  [[nodiscard]] std::string dump() const;  // registers, for logs

  // --- state: handlers work on it directly -------------------------------------------------------------------------------
  CpuState state;
  x86::ArchState arch;        // everything not in `state`
  CpuIo* io = nullptr;        // valid inside run() and step()
  VcpuConfig config;
  uint8_t cpl = 0;            // kept in step with SS.DPL / CS.RPL by segment loads
  bool code64 = false;        // CS.L in long mode
  uint8_t code_width = 2;     // 2, 4, 8: default operand width of CS
  uint8_t stack_width = 2;    // 2, 4, 8: width of the stack pointer

  [[nodiscard]] bool protected_mode() const { return arch.cr0 & x86::cr0::kPe; }
  [[nodiscard]] bool v86() const { return state.rflags & x86::flag::kVm; }
  [[nodiscard]] bool real_or_v86() const { return !protected_mode() || v86(); }
  [[nodiscard]] bool long_mode() const { return arch.efer & x86::efer::kLma; }
  [[nodiscard]] unsigned iopl() const { return (state.rflags >> 12) & 3; }
  [[nodiscard]] uint64_t flags() const { return state.rflags | state.cc; }  // full RFLAGS
  void set_flags(uint64_t value);  // all bits, no privilege rules; updates what hangs on AC, TF, IF, VM
  [[nodiscard]] x86::SegmentRegister& seg(x86::Seg s) { return state.seg[static_cast<size_t>(s)]; }
  // Re-derives cpl-dependent and mode-dependent fields (code64, widths, TLB table, block key) after CR0, CR4, EFER,
  // segment, CPL or RFLAGS.AC/TF/VM changes.
  void update_mode();

  // --- registers ----------------------------------------------------------------------------------------------------
  template <class T>
  [[nodiscard]] T& reg(uint8_t byte_offset) {
    return *reinterpret_cast<T*>(reinterpret_cast<uint8_t*>(state.gpr) + byte_offset);
  }
  // Writes a register operand: 32-bit results clear the upper half.
  template <class T>
  void set_reg(uint8_t byte_offset, T value) {
    if constexpr (sizeof(T) == 4)
      reg<uint64_t>(byte_offset) = static_cast<uint32_t>(value);
    else
      reg<T>(byte_offset) = value;
  }

  // --- exceptions -----------------------------------------------------------------------------------------------------
  // Records the exception; the run loop delivers it with rip at the faulting instruction. Always answers false, so that
  // `return cpu.raise(...)` reads well in functions that answer success.
  bool raise(x86::Vector vector);                       // no error code
  bool raise(x86::Vector vector, uint32_t error_code);  // with one
  std::optional<Exception> exception;

  // --- addresses --------------------------------------------------------------------------------------------------------
  [[nodiscard]] uint64_t effective_address(const Op* op) const {
    uint64_t ea = state.gpr[op->base] + (state.gpr[op->index] << op->scale) + static_cast<uint64_t>(op->disp);
    if (op->address_size == 8) [[likely]] return ea;
    return op->address_size == 4 ? static_cast<uint32_t>(ea) : static_cast<uint16_t>(ea);
  }
  // Segmentation: effective address to linear, with limit, type and null checks (#GP or #SS). `bytes` >= 1.
  bool linear(const Op* op, uint64_t ea, unsigned bytes, Access access, uint64_t& out) {
    if (op->flat) [[likely]] {
      out = ea;
      return true;
    }
    return segment_linear(static_cast<x86::Seg>(op->segment), ea, bytes, access, out);
  }
  bool segment_linear(x86::Seg segment, uint64_t ea, unsigned bytes, Access access, uint64_t& out);

  // --- memory, by linear address. False: an exception was raised. `segment` chooses #SS or #GP for non-canonical
  // addresses. Aligned accesses up to 8 bytes are single host accesses, so x86 memory ordering holds between vCPUs. ---
  template <class T>
  bool read(uint64_t address, T& out, x86::Seg segment = x86::Seg::kDs) {
    const TlbEntry& entry = tlb_->at(address);
    if (entry.read_tag == page_of(address + sizeof(T) - 1)) [[likely]] {
      out = __atomic_load_n(reinterpret_cast<const Unaligned<T>*>(address + entry.addend), __ATOMIC_RELAXED);
      return true;
    }
    uint64_t value = 0;
    if (!read_slow(address, sizeof(T), value, segment)) return false;
    out = static_cast<T>(value);
    return true;
  }
  template <class T>
  bool write(uint64_t address, T value, x86::Seg segment = x86::Seg::kDs) {
    const TlbEntry& entry = tlb_->at(address);
    if (entry.write_tag == page_of(address + sizeof(T) - 1)) [[likely]] {
      __atomic_store_n(reinterpret_cast<Unaligned<T>*>(address + entry.addend), value, __ATOMIC_RELAXED);
      if (entry.page_state->load(std::memory_order_relaxed) != 0) [[unlikely]] store_noticed(address, sizeof(T));
      return true;
    }
    return write_slow(address, sizeof(T), value, segment);
  }
  // A host pointer for read-modify-write of T at `address`, or null: then either an exception was raised (exception has
  // a value) or the place needs the slow way (MMIO, page-crossing): use read_for_write() and write(). After the
  // modification call rmw_done().
  template <class T>
  T* rmw(uint64_t address, x86::Seg segment = x86::Seg::kDs) {
    const TlbEntry& entry = tlb_->at(address);
    if (entry.write_tag == page_of(address + sizeof(T) - 1)) [[likely]]
      return reinterpret_cast<T*>(address + entry.addend);
    return static_cast<T*>(rmw_slow(address, sizeof(T), segment));
  }
  void rmw_done(uint64_t address, unsigned bytes) {
    if (tlb_->at(address).page_state->load(std::memory_order_relaxed) != 0) [[unlikely]] store_noticed(address, bytes);
  }
  // Reads what will be written back: faults as a write does, before anything is read.
  bool read_for_write(uint64_t address, unsigned bytes, uint64_t& out, x86::Seg segment = x86::Seg::kDs);
  // Any length up to 4096, byte order kept; all or nothing as far as faults go. For FXSAVE, descriptors, vector operands.
  bool read_bytes(uint64_t address, void* to, unsigned bytes, x86::Seg segment = x86::Seg::kDs);
  bool write_bytes(uint64_t address, const void* from, unsigned bytes, x86::Seg segment = x86::Seg::kDs);
  // Checks that [address, address+bytes) can be accessed, touching A/D bits, without accessing it.
  bool probe(uint64_t address, unsigned bytes, Access access, x86::Seg segment = x86::Seg::kDs);
  // As CPL 0 whatever cpl is: descriptor tables, TSS, gates, shadow of the interrupt stack.
  bool system_read(uint64_t address, unsigned bytes, uint64_t& out);
  bool system_write(uint64_t address, unsigned bytes, uint64_t value);
  // Host pointer and bytes to the end of the page, when `address` hits (or can be filled) for `access` with direct
  // memory behind it; null otherwise, with an exception raised only if `fault` is set. For string instructions.
  uint8_t* direct(uint64_t address, Access access, unsigned& bytes_left, bool fault);
  void direct_written(uint64_t address, unsigned bytes);  // after writing through direct()

  // --- stack ------------------------------------------------------------------------------------------------------------
  // Push and pop of 2, 4 or 8 bytes by stack_width, with SS checks. rsp moves only on success.
  bool push(unsigned bytes, uint64_t value);
  bool pop(unsigned bytes, uint64_t& value);

  // --- segments, control transfer (segments.cc, events.cc, transfer.cc) ---------------------------------------------------
  bool load_segment(x86::Seg segment, uint16_t selector);  // MOV/POP/LxS semantics; not CS
  void set_segment_real(x86::Seg segment, uint16_t selector);
  bool far_jump(uint16_t selector, uint64_t offset, unsigned operand_size, uint64_t next_rip);
  bool far_call(uint16_t selector, uint64_t offset, unsigned operand_size, uint64_t next_rip);
  bool far_return(unsigned operand_size, uint16_t release_bytes);
  bool interrupt_return(unsigned operand_size);
  // INT n, INT3, INTO, INT1: with privilege check of the gate; rip is that of the next instruction.
  bool software_interrupt(uint8_t vector, uint64_t next_rip, bool int1 = false);
  bool syscall(uint64_t next_rip);
  bool sysret(unsigned operand_size);
  bool sysenter();
  bool sysexit(unsigned operand_size);
  bool check_io(uint16_t port, unsigned bytes);  // IOPL and the TSS bitmap: #GP
  // Near branch target: truncated to the operand size, canonical / CS limit check (#GP).
  bool branch_to(uint64_t target, unsigned operand_size);

  // --- control (control.cc) -----------------------------------------------------------------------------------------------
  bool read_control(unsigned number, uint64_t& value);
  bool write_control(unsigned number, uint64_t value);
  bool read_debug(unsigned number, uint64_t& value);
  bool write_debug(unsigned number, uint64_t value);
  bool read_msr(uint32_t index, uint64_t& value);
  bool write_msr(uint32_t index, uint64_t value);
  void cpuid();
  [[nodiscard]] uint64_t tsc() const;
  [[nodiscard]] bool has_feature(x86::FeatureWord word, unsigned bit) const { return config.cpu->has(word, bit); }
  // Data breakpoints and single step: exec handlers need not care, memory slow paths and the run loop do.

  // --- translation (mmu.cc) -------------------------------------------------------------------------------------------------
  void flush_tlb(bool keep_global);
  void flush_page(uint64_t linear);
  // Code fetch: host pointer to the byte at `linear` and its physical page; null after raising #PF/#GP.
  const uint8_t* fetch_pointer(uint64_t linear, Gpa& physical, std::atomic<uint32_t>** generation);
  void store_noticed(uint64_t address, unsigned bytes);
  AddressSpace& memory() { return memory_; }

  // Ends the current block after this instruction for a reason that the run loop looks at (interrupt shadow, pending
  // work, mode change). Handlers that return without KITE_NEXT end it anyway.
  bool interrupt_shadow = false;  // set by STI, MOV SS, POP SS; the run loop holds interrupts back for one instruction
  bool halt_requested = false;    // HLT executed
  // Incremented by everything that invalidates "this linear address still is this code": TLB flushes, map changes.
  uint32_t translation_epoch = 0;

 private:
  template <class T>
  struct UnalignedType {
    typedef T type __attribute__((aligned(1), may_alias));
  };
  template <class T>
  using Unaligned = typename UnalignedType<T>::type;

  bool read_slow(uint64_t address, unsigned bytes, uint64_t& out, x86::Seg segment);
  bool write_slow(uint64_t address, unsigned bytes, uint64_t value, x86::Seg segment);
  void* rmw_slow(uint64_t address, unsigned bytes, x86::Seg segment);

  friend class Mmu;
  friend class Events;
  friend class RunLoop;

  AddressSpace& memory_;
  TlbTable* tlb_ = nullptr;  // the table of the current rights
  std::unique_ptr<std::array<TlbTable, static_cast<size_t>(TlbKind::kCount)>> tlbs_;
  std::unique_ptr<BlockCache> blocks_;
  std::unique_ptr<FpuThunks> fpu_;
  std::string internal_error_;
};

}  // namespace kite::cpu
