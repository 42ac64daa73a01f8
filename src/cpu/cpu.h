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
#include <new>
#include <optional>
#include <type_traits>

#include "accel/cpu_io.h"
#include "accel/local_apic.h"
#include "accel/vcpu.h"
#include "cpu/op.h"
#include "cpu/tlb.h"
#include "cpu/translation.h"
#include "memory/address_space.h"
#include "metrics/metrics.h"
#include "support/huge_pages.h"
#include "support/low_memory.h"
#include "x86/arch_state.h"
#include "x86/cpuid.h"
#include "x86/insn.h"

namespace kite::cpu {

class BlockCache;
struct Debugger;
class MachineCheckQueue;
class Monitor;
struct Block;
class FpuThunks;

// Slow paths that handlers call out of line: everything is preserved by the callee, so that the fast path needs no
// stack frame.
#define KITE_COLD_CALL __attribute__((preserve_most))

// A pending external interrupt sits where IF does, so that one AND tells whether it counts (Cpu::attention).
static_assert(request::kInterrupt == x86::flag::kIf);

// The hot part of the state. `arch` holds the rest; gpr, rip and the arithmetic flags live here while the CPU runs and
// are folded back by Cpu::get_state().
struct CpuState {
  uint64_t gpr[17] = {};  // [16] is always zero (kZeroReg)
  uint64_t rip = 0;
  uint64_t cc = 0;                       // CF PF AF ZF SF OF at their RFLAGS positions, all other bits zero
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

// In DebugUnit::data_armed and Cpu::debug_hits, beside the guest's breakpoints 0 to 3.
inline constexpr unsigned kDebuggersBit = 4;

// Breakpoints and single step. events.h says how the run loop and this work together.
struct DebugUnit {
  // Bit n: breakpoint n is enabled in DR7, by what it watches (derived, update_debug()).
  // kDebuggersBit of data_armed: the debugger watches data.
  uint8_t code_armed = 0, data_armed = 0, io_armed = 0;
  bool single_step = false;  // RFLAGS.TF when the running instruction began
  bool one_element = false;  // a repeated string instruction ends after one: a step of the guest's or of the debugger's
  bool keep_rf = false;      // the running instruction loaded RFLAGS.RF
  bool branched = false;     // it was a branch that was taken, as far as IA32_DEBUGCTL.BTF asks
  bool inhibited = false;    // MOV SS, POP SS: traps wait for the end of the next instruction
};

// MWAIT: what ends it. Meaningful while halted.
struct MwaitState {
  bool waiting = false;           // MWAIT, not HLT
  bool interrupts_break = false;  // those that IF masks, too (ECX bit 0)
};

// What a Cpu counts, on its thread; any may read.
struct Counters {
  metrics::Counter blocks;                                   // decoded
  metrics::Counter read_misses, write_misses, fetch_misses;  // of the TLB, page walks or not
  metrics::Counter flushes, local_flushes, page_flushes;     // of all, of all but global pages, of one page
};

// How run_slice() ended.
enum class Exit : uint8_t {
  kHalted,         // HLT or wait-for-SIPI, and nothing to do
  kShutdown,       // triple fault
  kKicked,         // request::kKick
  kInternalError,  // internal_error() says why
  kStepped,        // step() did its instruction
  kDebug,          // something that the debugger asked for; Debugger::stop says what
};

class Cpu {
 public:
  Cpu(const VcpuConfig& config, AddressSpace& memory);
  ~Cpu();
  Cpu(const Cpu&) = delete;
  Cpu& operator=(const Cpu&) = delete;
#if __has_feature(address_sanitizer)  // which looks for pointers in memory of its own alone
  static void* operator new(size_t bytes, std::align_val_t) { return allocate_in_huge_pages(bytes); }
  static void operator delete(void* memory, size_t, std::align_val_t) { std::free(memory); }
#else
  // Where translated code can name the fields by their addresses.
  static void* operator new(size_t bytes, std::align_val_t) { return allocate_low(bytes); }
  static void operator delete(void* memory, size_t bytes, std::align_val_t) { free_low(memory, bytes); }
#endif

  // --- running ---
  // Until halted, shut down, kicked; `requests` is the vCPU's request word.
  Exit run(CpuIo& machine, std::atomic<uint32_t>& requests, const std::atomic<uint8_t>& sipi_vector);
  // Exactly one instruction (or one event delivery); for the KVM fall-back, single-stepping and tests.
  Exit step(CpuIo& machine);
  // As above; a repeated string instruction comes back after a part of its work, with rip at itself, when
  // `request_word` has something.
  Exit step(CpuIo& machine, const std::atomic<uint32_t>& request_word);
  [[nodiscard]] bool has_work(uint32_t requests) const;
  void reset(bool power_on);
  void get_state(x86::ArchState& out) const;
  void set_state(const x86::ArchState& in);
  // The same where the page tables and what rights they give are as they were: the TLB stays.
  void set_state_keep_tlb(const x86::ArchState& in);
  [[nodiscard]] std::string internal_error() const { return internal_error_; }
  [[nodiscard]] std::string dump() const;  // registers, for logs
  // What a debugger outside of the machine asks, instead of what it asked before. While it is not in run().
  void set_debugger(const GuestDebug& asked);
  [[nodiscard]] DebugStop debug_stop() const;

  // --- state: handlers work on it directly ---
  CpuState state;
  x86::ArchState arch;  // everything not in `state`
  CpuIo* io = nullptr;  // valid inside run() and step()
  VcpuConfig config;
  uint8_t cpl = 0;          // kept in step with SS.DPL / CS.RPL by segment loads
  bool code64 = false;      // CS.L in long mode
  uint8_t code_width = 2;   // 2, 4, 8: default operand width of CS
  uint8_t stack_width = 2;  // 2, 4, 8: width of the stack pointer

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
  // The part of it that hangs on CPL, RFLAGS.AC, CR0.AM and CR4.SMAP: which TLB table serves.
  void update_rights();

  // --- registers ---
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

  // --- exceptions ---
  // Records the exception; the run loop delivers it with rip at the faulting instruction. Always answers false, so that
  // `return cpu.raise(...)` reads well in functions that answer success.
  KITE_COLD_CALL bool raise(x86::Vector vector);                       // no error code
  KITE_COLD_CALL bool raise(x86::Vector vector, uint32_t error_code);  // with one
  std::optional<Exception> exception;
  // DR6 bits of the data breakpoints that this instruction has hit (memory slow paths and I/O set them): the run loop
  // delivers #DB after the instruction. kDebuggersBit: one of the debugger's.
  uint32_t debug_hits = 0;

  // --- addresses ---
  [[nodiscard]] uint64_t effective_address(const Op* op) const {
    uint64_t ea = state.gpr[op->base] + (state.gpr[op->index] << op->scale) + static_cast<uint64_t>(op->disp);
    if (op->address_size == 8) [[likely]]
      return ea;
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
  KITE_COLD_CALL bool segment_linear(x86::Seg segment, uint64_t ea, unsigned bytes, Access access, uint64_t& out);

  // --- memory, by linear address. False: an exception was raised. `segment` chooses #SS or #GP for non-canonical
  // addresses. Accesses up to 8 bytes are single host accesses (volatile: one MOV; __atomic builtins would call a
  // library for what may be unaligned), so x86 memory ordering holds between vCPUs. ---
  template <class T>
  bool read(uint64_t address, T& out, x86::Seg segment = x86::Seg::kDs) {
    const TlbAccess& entry = tlb_->access_at(address);
    if (entry.read_tag == page_of(address + sizeof(T) - 1)) [[likely]] {
      out = *reinterpret_cast<const volatile Unaligned<T>*>(address + entry.addend);
      return true;
    }
    uint64_t value = 0;
    if (!read_slow(address, sizeof(T), value, segment)) return false;
    out = static_cast<T>(value);
    return true;
  }
  template <class T>
  bool write(uint64_t address, T value, x86::Seg segment = x86::Seg::kDs) {
    const TlbAccess& entry = tlb_->access_at(address);
    if (entry.write_tag == page_of(address + sizeof(T) - 1)) [[likely]] {
      *reinterpret_cast<volatile Unaligned<T>*>(address + entry.addend) = value;
      if (entry.page_state->load(std::memory_order_relaxed) != 0) [[unlikely]]
        store_noticed(address, sizeof(T));
      return true;
    }
    return write_slow(address, sizeof(T), value, segment);
  }
  // A host pointer for read-modify-write of T at `address`, or null: then either an exception was raised (exception has
  // a value) or the place needs the slow way (MMIO, page-crossing): use read_for_write() and write(). After the
  // modification call rmw_done().
  template <class T>
  T* rmw(uint64_t address, x86::Seg segment = x86::Seg::kDs) {
    const TlbAccess& entry = tlb_->access_at(address);
    if (entry.write_tag == page_of(address + sizeof(T) - 1)) [[likely]]
      return reinterpret_cast<T*>(address + entry.addend);
    return static_cast<T*>(rmw_slow(address, sizeof(T), segment));
  }
  void rmw_done(uint64_t address, unsigned bytes) {
    if (tlb_->access_at(address).page_state->load(std::memory_order_relaxed) != 0) [[unlikely]]
      store_noticed(address, bytes);
  }
  // Host pointers for operands of any size, when the TLB has their page; null: use read_bytes() and write_bytes().
  // After a store through write_hit() call rmw_done().
  [[nodiscard]] const uint8_t* read_hit(uint64_t address, unsigned bytes) const {
    const TlbAccess& entry = tlb_->access_at(address);
    if (entry.read_tag != page_of(address + bytes - 1)) [[unlikely]]
      return nullptr;
    return reinterpret_cast<const uint8_t*>(address + entry.addend);
  }
  [[nodiscard]] uint8_t* write_hit(uint64_t address, unsigned bytes) const {
    const TlbAccess& entry = tlb_->access_at(address);
    if (entry.write_tag != page_of(address + bytes - 1)) [[unlikely]]
      return nullptr;
    return reinterpret_cast<uint8_t*>(address + entry.addend);
  }
  // Reads what will be written back: faults as a write does, before anything is read.
  bool read_for_write(uint64_t address, unsigned bytes, uint64_t& out, x86::Seg segment = x86::Seg::kDs);
  // Any length up to 4096, byte order kept; all or nothing as far as faults go. For FXSAVE, descriptors, vector
  // operands.
  bool read_bytes(uint64_t address, void* to, unsigned bytes, x86::Seg segment = x86::Seg::kDs);
  bool write_bytes(uint64_t address, const void* from, unsigned bytes, x86::Seg segment = x86::Seg::kDs);
  // Checks that [address, address+bytes) can be accessed, touching A/D bits, without accessing it.
  bool probe(uint64_t address, unsigned bytes, Access access, x86::Seg segment = x86::Seg::kDs);
  // False after raising #AC: alignment is checked now and `address` is not a multiple of `bytes` (a power of two;
  // others are not checked). The typed accessors above do this themselves.
  bool check_alignment(uint64_t address, unsigned bytes);
  // As CPL 0 whatever cpl is: descriptor tables, TSS, gates, shadow of the interrupt stack.
  bool system_read(uint64_t address, unsigned bytes, uint64_t& out);
  bool system_write(uint64_t address, unsigned bytes, uint64_t value);
  // Host pointer and bytes to the end of the page, when `address` hits (or can be filled) for `access` with direct
  // memory behind it; null otherwise, with an exception raised only if `fault` is set. For string instructions.
  uint8_t* direct(uint64_t address, Access access, unsigned& bytes_left, bool fault);
  void direct_written(uint64_t address, unsigned bytes);  // after writing through direct()

  // --- stack ---
  // Push and pop of 2, 4 or 8 bytes by stack_width, with SS checks. rsp moves only on success.
  // `written_bytes`: fewer than `bytes`, where only the low part is stored (selectors); 0: all.
  bool push(unsigned bytes, uint64_t value, unsigned written_bytes = 0);
  bool pop(unsigned bytes, uint64_t& value);

  // --- segments, control transfer (segments.cc, events.cc, transfer.cc) ---
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

  // --- control (control.cc) ---
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

  // --- translation (mmu.cc) ---
  [[nodiscard]] TlbTable& tlb() { return *tlb_; }  // of the current rights
  [[nodiscard]] TlbTable& tlb(TlbKind kind) { return tlbs_[static_cast<size_t>(kind)]; }
  [[nodiscard]] TlbTable* const* tlb_place() const { return &tlb_; }  // where translated code changes the rights
  void flush_tlb(bool keep_global);
  void flush_page(uint64_t linear);
  // PKRU and IA32_PKRS are changed through these alone: translations that their old value went into are dropped.
  void set_pkru(uint32_t value);
  void set_pkrs(uint32_t value);
  // Code fetch: host pointer to the byte at `linear` and its physical page; null after raising #PF/#GP.
  // The page is marked as holding code (RamBlock::mark_code) before this returns, so bytes read after *generation are
  // those that the generation stands for. Null without an exception: no memory at `physical`; fetch by mmio_read().
  // `seen` gets the generation that marking answered: take that one, not *generation, which may have moved on (and
  // unmarked the page) since.
  // `bytes`: in, how many of code will be looked at, up to the end of the page; out, how many may be.
  const uint8_t* fetch_pointer(uint64_t linear, Gpa& physical, std::atomic<uint32_t>** generation,
                               uint32_t* seen = nullptr, uint64_t* bytes = nullptr);
  // There may have been stores to [host, host + bytes), all of one stretch of memory: for its dirty log.
  void maybe_stored_at(const uint8_t* host, uint64_t bytes);
  // After a store that found a non-zero page state: RamBlock::note_write, then code_written() when the page is one that
  // the running block was decoded from.
  KITE_COLD_CALL void store_noticed(uint64_t address, unsigned bytes);
  void store_noticed_at(const uint8_t* host, unsigned bytes);
  // What the CPU sees now: in system-management mode that is not what others see.
  AddressSpace& memory() { return has_own_view() ? *config.smm_memory : memory_; }
  // The accesses of that which no direct memory answers.
  uint64_t read_device(Gpa address, unsigned bytes) {
    return has_own_view() ? io->smm_read(address, bytes) : io->mmio_read(address, bytes);
  }
  void write_device(Gpa address, unsigned bytes, uint64_t value) {
    return has_own_view() ? io->smm_write(address, bytes, value) : io->mmio_write(address, bytes, value);
  }
  [[nodiscard]] bool has_own_view() const { return arch.smm && config.smm_memory != nullptr; }
  FpuThunks& fpu() { return *fpu_; }

  // --- between blocks (block.h, cpu.cc) ---
  // Handlers that return without KITE_NEXT end the block; the run loop then looks at these.
  DebugUnit debug;
  std::unique_ptr<Debugger> debugger;  // null: nobody asks for anything
  void update_debug();  // after changes of DR7, DR0-DR3 or CR4.DE; flushes the TLB when data breakpoints changed
  // Set by STI, MOV SS and POP SS, which then end the block: holds interrupts back for one instruction.
  bool interrupt_shadow = false;
  bool halt_requested = false;  // HLT or MWAIT executed
  MwaitState mwait;
  [[nodiscard]] Monitor& monitor() { return *monitor_; }
  [[nodiscard]] MachineCheckQueue& machine_checks() { return *machine_checks_; }
  std::atomic<uint32_t>* wake_word = nullptr;  // the request word inside run(), for those who wake this CPU
  uint32_t pauses = 0;                         // PAUSE instructions executed
  // Incremented by everything that invalidates "this linear address still is this code": TLB flushes, map changes.
  uint64_t translation_epoch = 1;
  uint32_t mode_key = 0;                  // what code is decoded under (block.h); made by update_mode()
  Block* block;                           // the running block, or the last one; never null
  const std::atomic<uint32_t>* requests;  // the vCPU's request word; never null
  // Whether the run loop must look at something before the next instruction; IF masks external interrupts. One relaxed
  // load: every block head asks, and so does everything that sets IF or iterates.
  [[nodiscard]] bool attention() const {
    return (requests->load(std::memory_order_relaxed) &
            (static_cast<uint32_t>(state.rflags) | ~static_cast<uint32_t>(x86::flag::kIf))) != 0;
  }
  // This CPU has stored to [physical, physical + bytes): if the running block was decoded from there, it ends after
  // this instruction.
  void code_written(Gpa physical, unsigned bytes);
  // The running block ends after this instruction, whatever its handlers intend.
  void end_block();
  // The memory map has changed (vCPU parked, or calling out through CpuIo on its own thread): no translation is used
  // again, and with `drop_code` (memory is gone from the map) no decoded code.
  void map_changed(bool drop_code = true);

  [[nodiscard]] BlockCache& blocks() { return *blocks_; }
  Counters counters;
  // Set once, before anything runs; outlives the Cpu's last run.
  BlockTranslator* translator = nullptr;
  TranslationArea translation;
  // Linear address of the byte `offset` behind rip.
  [[nodiscard]] uint64_t code_linear(uint64_t offset = 0) const {
    const uint64_t rip = state.rip + offset;
    return code64 ? rip : static_cast<uint32_t>(state.seg[static_cast<size_t>(x86::Seg::kCs)].base + rip);
  }

 private:
  KITE_COLD_CALL bool read_slow(uint64_t address, unsigned bytes, uint64_t& out, x86::Seg segment);
  KITE_COLD_CALL bool write_slow(uint64_t address, unsigned bytes, uint64_t value, x86::Seg segment);
  KITE_COLD_CALL void* rmw_slow(uint64_t address, unsigned bytes, x86::Seg segment);

  friend class Mmu;
  friend class Events;
  friend class RunLoop;
  friend class BlockCache;

  AddressSpace& memory_;
  TlbTable* tlb_ = nullptr;  // the table of the current rights
  std::array<TlbTable, static_cast<size_t>(TlbKind::kCount)> tlbs_;
  std::optional<PhysicalRange> range_with(const uint8_t* host);
  std::array<PhysicalRange, 4> ranges_{};  // most recently used first; dropped by flush_tlb(false)
  std::unique_ptr<BlockCache> blocks_;     // block.h
  std::unique_ptr<FpuThunks> fpu_;
  std::unique_ptr<Monitor> monitor_;
  std::unique_ptr<MachineCheckQueue> machine_checks_;
  std::string internal_error_;
  void keys_changed(uint32_t bits, uint16_t met);
  // The protection keys of the pages in the TLB, a bit each.
  uint16_t user_keys_met_ = 0, supervisor_keys_met_ = 0;
  // Of CS outside of 64-bit mode, when update_mode() last looked.
  uint64_t code_base_ = 0;
  uint32_t code_limit_ = 0;
};

}  // namespace kite::cpu
