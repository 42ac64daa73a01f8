// Instructions of system software: far transfers, interrupts, control and debug registers, MSRs, and the like. Segment
// registers and descriptor tables are in exec_segments.cc.
#include "cpu/exec_system.h"

#include <algorithm>

#include "cpu/block.h"
#include "cpu/control.h"
#include "cpu/handlers.h"
#include "cpu/mmu.h"
#include "cpu/monitor.h"
#include "cpu/smm.h"
#include "cpu/virtual_8086.h"
#include "support/bits.h"

namespace kite::cpu {

namespace {

namespace cr4 = x86::cr4;
namespace flag = x86::flag;
using x86::OperandKind;
using x86::Seg;
using x86::Vector;

// --- far transfers

template <bool kCall>
void far_transfer(Cpu& cpu, const Op* op) {
  const x86::Insn& insn = *op->insn;
  uint64_t offset = insn.imm, selector = insn.imm2;
  if (insn.has_mem && !load_far_pointer(cpu, op, offset, selector)) KITE_FAULT(cpu, op);
  const auto cs = static_cast<uint16_t>(selector);
  const bool done = kCall ? cpu.far_call(cs, offset, insn.operand_size, op->next_rip())
                          : cpu.far_jump(cs, offset, insn.operand_size, op->next_rip());
  if (!done) KITE_FAULT(cpu, op);
}

void far_return(Cpu& cpu, const Op* op) {
  const bool releases = find_operand(*op->insn, OperandKind::kImm) != nullptr;
  const auto bytes = static_cast<uint16_t>(releases ? op->insn->imm : 0);
  if (!cpu.far_return(op->insn->operand_size, bytes)) KITE_FAULT(cpu, op);
}

void interrupt_return(Cpu& cpu, const Op* op) {
  cpu.state.rip = op->next_rip();  // what a task return saves
  if (!cpu.interrupt_return(op->insn->operand_size)) KITE_FAULT(cpu, op);
}

void software_interrupt(Cpu& cpu, const Op* op, uint8_t vector, bool int1) {
  if (!cpu.software_interrupt(vector, op->next_rip(), int1)) KITE_FAULT(cpu, op);
}

void int_n(Cpu& cpu, const Op* op) {
  const auto vector = static_cast<uint8_t>(op->insn->imm);
  const IntRoute route = cpu.v86() ? route_software_interrupt(cpu, vector) : IntRoute::kIdt;
  if (route == IntRoute::kIdt) return software_interrupt(cpu, op, vector, false);
  if (route == IntRoute::kRaised || !enter_real_mode_handler(cpu, vector, op->next_rip())) KITE_FAULT(cpu, op);
}
void int1(Cpu& cpu, const Op* op) { software_interrupt(cpu, op, static_cast<uint8_t>(Vector::kDb), true); }
void int3(Cpu& cpu, const Op* op) { software_interrupt(cpu, op, static_cast<uint8_t>(Vector::kBp), false); }
void into(Cpu& cpu, const Op* op) {
  if ((cpu.state.cc & flag::kOf) == 0) KITE_NEXT(cpu, op);
  software_interrupt(cpu, op, static_cast<uint8_t>(Vector::kOf), false);
}

// [SDM 2A, BOUND] Signed index against the lower and upper bound at the operand. The upper one is looked at only when
// the lower one holds, as hosts do.
void bound(Cpu& cpu, const Op* op) {
  const unsigned bytes = op->insn->operand_size;
  const int64_t index = sign_extend(cpu.state.gpr[find_operand(*op->insn, OperandKind::kGpr)->reg], bytes * 8);
  uint64_t lower = 0, upper = 0;
  if (!load_at(cpu, op, 0, bytes, lower)) KITE_FAULT(cpu, op);
  bool inside = index >= sign_extend(lower, bytes * 8);
  if (inside) {
    if (!load_at(cpu, op, bytes, bytes, upper)) KITE_FAULT(cpu, op);
    inside = index <= sign_extend(upper, bytes * 8);
  }
  if (!inside) {
    cpu.raise(Vector::kBr);
    KITE_FAULT(cpu, op);
  }
  KITE_NEXT(cpu, op);
}

void syscall(Cpu& cpu, const Op* op) {
  if (!cpu.syscall(op->next_rip())) KITE_FAULT(cpu, op);
}
void sysret(Cpu& cpu, const Op* op) {
  if (!cpu.sysret(op->insn->operand_size)) KITE_FAULT(cpu, op);
}
void sysenter(Cpu& cpu, const Op* op) {
  if (!cpu.sysenter()) KITE_FAULT(cpu, op);
}
void sysexit(Cpu& cpu, const Op* op) {
  if (!cpu.sysexit(op->insn->operand_size)) KITE_FAULT(cpu, op);
}

// --- control and debug registers

using ReadRegister = bool (Cpu::*)(unsigned number, uint64_t& value);
using WriteRegister = bool (Cpu::*)(unsigned number, uint64_t value);

template <OperandKind kKind, ReadRegister kRead>
void read_register(Cpu& cpu, const Op* op) {
  uint64_t value = 0;
  if (!(cpu.*kRead)(find_operand(*op->insn, kKind)->reg, value)) KITE_FAULT(cpu, op);
  const uint8_t gpr = find_operand(*op->insn, OperandKind::kGpr)->reg;
  cpu.state.gpr[gpr] = cpu.code64 ? value : static_cast<uint32_t>(value);
  KITE_NEXT(cpu, op);
}

template <OperandKind kKind, WriteRegister kWrite>
void write_register(Cpu& cpu, const Op* op) {
  const uint64_t raw = cpu.state.gpr[find_operand(*op->insn, OperandKind::kGpr)->reg];
  const uint64_t value = cpu.code64 ? raw : static_cast<uint32_t>(raw);
  cpu.state.rip = op->next_rip();
  if (!(cpu.*kWrite)(find_operand(*op->insn, kKind)->reg, value)) KITE_FAULT(cpu, op);
}

void smsw(Cpu& cpu, const Op* op) {
  if (!allow_user_query(cpu)) KITE_FAULT(cpu, op);
  if (!store_result(cpu, op, cpu.arch.cr0, 2)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

void lmsw(Cpu& cpu, const Op* op) {
  constexpr uint64_t kWritable = 0xe;  // MP, EM, TS; PE can only be set
  uint64_t source = 0;
  if (!require_cpl0(cpu) || !load_selector(cpu, op, 0, source)) KITE_FAULT(cpu, op);
  cpu.state.rip = op->next_rip();
  if (!cpu.write_control(0, (cpu.arch.cr0 & ~kWritable) | (source & 0xf))) KITE_FAULT(cpu, op);
}

void clts(Cpu& cpu, const Op* op) {
  if (!require_cpl0(cpu)) KITE_FAULT(cpu, op);
  cpu.arch.cr0 &= ~x86::cr0::kTs;
  cpu.state.rip = op->next_rip();
  cpu.update_mode();
}

// --- MSRs, time, identification

void set_edx_eax(Cpu& cpu, uint64_t value) {
  cpu.state.gpr[x86::kRax] = static_cast<uint32_t>(value);
  cpu.state.gpr[x86::kRdx] = value >> 32;
}
uint64_t edx_eax(const Cpu& cpu) {
  return cpu.state.gpr[x86::kRdx] << 32 | static_cast<uint32_t>(cpu.state.gpr[x86::kRax]);
}
uint32_t ecx(const Cpu& cpu) { return static_cast<uint32_t>(cpu.state.gpr[x86::kRcx]); }

void rdmsr(Cpu& cpu, const Op* op) {
  uint64_t value = 0;
  if (!require_cpl0(cpu) || !cpu.read_msr(ecx(cpu), value)) KITE_FAULT(cpu, op);
  set_edx_eax(cpu, value);
  KITE_NEXT(cpu, op);
}

void wrmsr(Cpu& cpu, const Op* op) {
  if (!require_cpl0(cpu) || !cpu.write_msr(ecx(cpu), edx_eax(cpu))) KITE_FAULT(cpu, op);
  cpu.state.rip = op->next_rip();
}

void cpuid(Cpu& cpu, const Op* op) {
  cpu.cpuid();
  KITE_NEXT(cpu, op);
}

// [SDM 2B, RDTSC] CR4.TSD keeps it to privilege 0.
bool may_read_time(Cpu& cpu) { return (cpu.arch.cr4 & cr4::kTsd) == 0 || cpu.cpl == 0 || cpu.raise(Vector::kGp, 0); }
void rdtsc(Cpu& cpu, const Op* op) {
  if (!may_read_time(cpu)) KITE_FAULT(cpu, op);
  set_edx_eax(cpu, cpu.tsc());
  KITE_NEXT(cpu, op);
}
void rdtscp(Cpu& cpu, const Op* op) {
  if (!may_read_time(cpu)) KITE_FAULT(cpu, op);
  set_edx_eax(cpu, cpu.tsc());
  cpu.state.gpr[x86::kRcx] = static_cast<uint32_t>(cpu.arch.tsc_aux);
  KITE_NEXT(cpu, op);
}
void rdpid(Cpu& cpu, const Op* op) {
  cpu.state.gpr[find_operand(*op->insn, OperandKind::kGpr)->reg] = cpu.arch.tsc_aux;
  KITE_NEXT(cpu, op);
}
// [SDM 2B, RDPMC; APM 3, RDPMC] CR4.PCE keeps it to privilege 0. AMD processors have four counters without saying so;
// they count nothing (msr.cc). No value of ECX names one of Intel's.
void rdpmc(Cpu& cpu, const Op* op) {
  constexpr uint32_t kLegacyCounters = 4;
  const bool allowed = cpu.cpl == 0 || !cpu.protected_mode() || (cpu.arch.cr4 & cr4::kPce) != 0;
  if (!allowed || cpu.config.cpu->vendor != "AuthenticAMD" || ecx(cpu) >= kLegacyCounters) {
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  set_edx_eax(cpu, 0);
  KITE_NEXT(cpu, op);
}
// [APM 3, RDPRU] MPERF and APERF: the processor runs at the rate of its TSC. Other numbers read zero.
void rdpru(Cpu& cpu, const Op* op) {
  constexpr uint32_t kMperf = 0, kAperf = 1;
  if (!may_read_time(cpu)) KITE_FAULT(cpu, op);
  set_edx_eax(cpu, ecx(cpu) == kMperf || ecx(cpu) == kAperf ? cpu.tsc() : 0);
  KITE_NEXT(cpu, op);
}

// --- protection keys

// [SDM 2B, RDPKRU; 2D, WRPKRU]
bool pkru_usable(Cpu& cpu, bool write) {
  if ((cpu.arch.cr4 & cr4::kPke) == 0) return cpu.raise(Vector::kUd);
  const bool edx_wrong = write && static_cast<uint32_t>(cpu.state.gpr[x86::kRdx]) != 0;
  return (ecx(cpu) == 0 && !edx_wrong) || cpu.raise(Vector::kGp, 0);
}
void rdpkru(Cpu& cpu, const Op* op) {
  if (!pkru_usable(cpu, false)) KITE_FAULT(cpu, op);
  set_edx_eax(cpu, cpu.arch.pkru);
  KITE_NEXT(cpu, op);
}
void wrpkru(Cpu& cpu, const Op* op) {
  if (!pkru_usable(cpu, true)) KITE_FAULT(cpu, op);
  cpu.set_pkru(static_cast<uint32_t>(cpu.state.gpr[x86::kRax]));
  KITE_NEXT(cpu, op);
}

// --- caches and translation

void cache_flush(Cpu& cpu, const Op* op) {  // INVD, WBINVD, WBNOINVD: there is no cache to flush
  if (!require_cpl0(cpu)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

void invlpg(Cpu& cpu, const Op* op) {
  if (!require_cpl0(cpu)) KITE_FAULT(cpu, op);
  // [SDM 2A, INVLPG] The address is not accessed: no limit check, and a non-canonical one does nothing.
  const uint64_t linear = unchecked_linear(cpu, op);
  if (!cpu.long_mode() || Mmu(cpu).canonical(linear)) cpu.flush_page(linear);
  cpu.state.rip = op->next_rip();
}

// [SDM 2A, INVPCID] Without tagged translations each type flushes at least what it names.
bool invalidate(Cpu& cpu, const Op* op) {
  enum Type : uint64_t { kAddress, kContext, kAllWithGlobal, kAllButGlobal };
  const uint64_t raw = cpu.state.gpr[find_operand(*op->insn, OperandKind::kGpr)->reg];
  const uint64_t type = cpu.code64 ? raw : static_cast<uint32_t>(raw);
  uint64_t pcid = 0, address = 0;
  if (!require_cpl0(cpu) || !load_at(cpu, op, 0, 8, pcid) || !load_at(cpu, op, 8, 8, address)) return false;
  const bool pcide = (cpu.arch.cr4 & cr4::kPcide) != 0;
  const bool names_context = type == kAddress || type == kContext;
  if (type > kAllButGlobal || pcid >> 12 != 0 || (names_context && pcid != 0 && !pcide) ||
      (type == kAddress && !Mmu(cpu).canonical_base(address)))
    return cpu.raise(Vector::kGp, 0);
  if (type == kAddress)
    cpu.flush_page(address);
  else
    cpu.flush_tlb(type != kAllWithGlobal);
  return true;
}
void invpcid(Cpu& cpu, const Op* op) {
  if (!invalidate(cpu, op)) KITE_FAULT(cpu, op);
  cpu.state.rip = op->next_rip();
}

// --- idling, flags

void hlt(Cpu& cpu, const Op* op) {
  if (!require_cpl0(cpu)) KITE_FAULT(cpu, op);
  cpu.halt_requested = true;
  cpu.mwait = {};
  cpu.state.rip = op->next_rip();
}

// [SDM 2B, MONITOR] #UD above privilege 0, and when IA32_MISC_ENABLE has it off.
bool monitor_usable(Cpu& cpu) {
  constexpr uint64_t kMonitorEnabled = 1u << 18;
  return (cpu.cpl == 0 && (cpu.arch.misc_enable & kMonitorEnabled) != 0) || cpu.raise(Vector::kUd);
}

// Watches RAM; anything else is not watched, and MWAIT does not wait for it.
void arm_monitor(Cpu& cpu, uint64_t linear, Seg segment) {
  cpu.monitor().disarm();
  Mmu mmu(cpu);
  const TlbEntry* entry = mmu.entry(linear, mmu.current_kind(), Access::kRead, segment);
  if (entry == nullptr || entry->target != TlbEntry::Target::kMemory || cpu.wake_word == nullptr) return;
  const Gpa physical = entry->page;
  const EpochGuard guard;
  const FlatRange* range = cpu.memory().view(guard).find(physical);
  if (range != nullptr && range->is_memory())
    cpu.monitor().arm(range->region->block(), range->block_offset(physical), *cpu.wake_word);
}

void monitor(Cpu& cpu, const Op* op) {
  if (!monitor_usable(cpu)) KITE_FAULT(cpu, op);
  if (ecx(cpu) != 0) {
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  const unsigned width = op->insn->address_size;
  const uint64_t address = cpu.state.gpr[x86::kRax] & low_mask(width * 8);
  uint64_t linear = address;
  if (!cpu.segment_linear(op->insn->mem.segment, address, 1, Access::kRead, linear)) KITE_FAULT(cpu, op);
  uint8_t byte = 0;
  if (!cpu.read(linear, byte, op->insn->mem.segment)) KITE_FAULT(cpu, op);
  arm_monitor(cpu, linear, op->insn->mem.segment);
  KITE_NEXT(cpu, op);
}
// [SDM 2B, MWAIT] Without a watch, or when it is over, MWAIT is a NOP. ECX bit 0: masked interrupts end the wait.
void mwait(Cpu& cpu, const Op* op) {
  if (!monitor_usable(cpu)) KITE_FAULT(cpu, op);
  if ((ecx(cpu) & ~1u) != 0) {
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  if (cpu.monitor().armed()) {
    cpu.halt_requested = true;
    cpu.mwait = {.waiting = true, .interrupts_break = (ecx(cpu) & 1) != 0};
  }
  cpu.state.rip = op->next_rip();
}

template <bool kSet>
void change_ac(Cpu& cpu, const Op* op) {  // CLAC, STAC
  if (cpu.cpl != 0) {
    cpu.raise(Vector::kUd);
    KITE_FAULT(cpu, op);
  }
  cpu.set_flags(kSet ? cpu.flags() | flag::kAc : cpu.flags() & ~flag::kAc);
  // What follows is decoded under other rights.
  cpu.state.rip = op->next_rip();
  if (cpu.block->transient) return;
  KITE_JUMP(cpu, op);
}

// [SDM 2B, RSM]
void rsm(Cpu& cpu, const Op* op) {
  if (!cpu.arch.smm) return invalid_opcode(cpu, op);
  if (!leave_smm(cpu)) cpu.arch.activity = x86::Activity::kShutdown;
}

// --- bases, XCR0

void swapgs(Cpu& cpu, const Op* op) {
  if (!cpu.code64) return invalid_opcode(cpu, op);
  if (!require_cpl0(cpu)) KITE_FAULT(cpu, op);
  std::swap(cpu.seg(Seg::kGs).base, cpu.arch.kernel_gs_base);
  KITE_NEXT(cpu, op);
}

bool fsgsbase_enabled(const Cpu& cpu) { return cpu.code64 && (cpu.arch.cr4 & cr4::kFsgsbase) != 0; }

template <Seg kSegment>
void read_base(Cpu& cpu, const Op* op) {
  if (!fsgsbase_enabled(cpu)) return invalid_opcode(cpu, op);
  const uint64_t base = cpu.seg(kSegment).base;
  cpu.state.gpr[find_operand(*op->insn, OperandKind::kGpr)->reg] =
      op->insn->operand_size == 8 ? base : static_cast<uint32_t>(base);
  KITE_NEXT(cpu, op);
}
template <Seg kSegment>
void write_base(Cpu& cpu, const Op* op) {
  if (!fsgsbase_enabled(cpu)) return invalid_opcode(cpu, op);
  const uint64_t raw = cpu.state.gpr[find_operand(*op->insn, OperandKind::kGpr)->reg];
  const uint64_t base = op->insn->operand_size == 8 ? raw : static_cast<uint32_t>(raw);
  if (!Mmu(cpu).canonical_base(base)) {
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  cpu.seg(kSegment).base = base;
  KITE_NEXT(cpu, op);
}

struct Row {
  x86::Op op;
  Handler handler;
};
constexpr Row kRows[] = {
    {x86::Op::kJmpFar, far_transfer<false>},
    {x86::Op::kCallFar, far_transfer<true>},
    {x86::Op::kRetFar, far_return},
    {x86::Op::kIret, interrupt_return},
    {x86::Op::kInt, int_n},
    {x86::Op::kInt1, int1},
    {x86::Op::kInt3, int3},
    {x86::Op::kInto, into},
    {x86::Op::kBound, bound},
    {x86::Op::kSyscall, syscall},
    {x86::Op::kSysret, sysret},
    {x86::Op::kSysenter, sysenter},
    {x86::Op::kSysexit, sysexit},
    {x86::Op::kUd0, invalid_opcode},
    {x86::Op::kUd1, invalid_opcode},
    {x86::Op::kUd2, invalid_opcode},
    {x86::Op::kRsm, rsm},
    {x86::Op::kVmcall, invalid_opcode},
    {x86::Op::kVmmcall, invalid_opcode},
    {x86::Op::kMovFromCr, read_register<OperandKind::kControl, &Cpu::read_control>},
    {x86::Op::kMovToCr, write_register<OperandKind::kControl, &Cpu::write_control>},
    {x86::Op::kMovFromDr, read_register<OperandKind::kDebug, &Cpu::read_debug>},
    {x86::Op::kMovToDr, write_register<OperandKind::kDebug, &Cpu::write_debug>},
    {x86::Op::kSmsw, smsw},
    {x86::Op::kLmsw, lmsw},
    {x86::Op::kClts, clts},
    {x86::Op::kRdmsr, rdmsr},
    {x86::Op::kWrmsr, wrmsr},
    {x86::Op::kCpuid, cpuid},
    {x86::Op::kRdtsc, rdtsc},
    {x86::Op::kRdtscp, rdtscp},
    {x86::Op::kRdpid, rdpid},
    {x86::Op::kRdpmc, rdpmc},
    {x86::Op::kInvd, cache_flush},
    {x86::Op::kWbinvd, cache_flush},
    {x86::Op::kWbnoinvd, cache_flush},
    {x86::Op::kRdpru, rdpru},
    {x86::Op::kRdpkru, rdpkru},
    {x86::Op::kWrpkru, wrpkru},
    {x86::Op::kInvlpg, invlpg},
    {x86::Op::kInvpcid, invpcid},
    {x86::Op::kHlt, hlt},
    {x86::Op::kMonitor, monitor},
    {x86::Op::kMwait, mwait},
    {x86::Op::kClac, change_ac<false>},
    {x86::Op::kStac, change_ac<true>},
    {x86::Op::kSwapgs, swapgs},
    {x86::Op::kRdfsbase, read_base<Seg::kFs>},
    {x86::Op::kRdgsbase, read_base<Seg::kGs>},
    {x86::Op::kWrfsbase, write_base<Seg::kFs>},
    {x86::Op::kWrgsbase, write_base<Seg::kGs>},
};

}  // namespace

// --- shared helpers

const x86::Operand* find_operand(const x86::Insn& insn, OperandKind kind) {
  for (const x86::Operand& operand : insn.operand)
    if (operand.kind == kind) return &operand;
  return nullptr;
}

bool require_cpl0(Cpu& cpu) { return cpu.cpl == 0 || cpu.raise(Vector::kGp, 0); }

// [SDM 3A 2.5, UMIP]
bool allow_user_query(Cpu& cpu) {
  return cpu.cpl == 0 || (cpu.arch.cr4 & cr4::kUmip) == 0 || cpu.raise(Vector::kGp, 0);
}

uint64_t unchecked_linear(const Cpu& cpu, const Op* op) {
  const uint64_t ea = cpu.effective_address(op);
  if (op->flat) return ea;
  const auto segment = static_cast<Seg>(op->segment);
  if (cpu.code64) return segment == Seg::kFs || segment == Seg::kGs ? cpu.state.seg[op->segment].base + ea : ea;
  return static_cast<uint32_t>(cpu.state.seg[op->segment].base + ea);
}

namespace {

// Effective address of `offset` bytes into the operand, wrapped to the address size.
uint64_t displaced(const Cpu& cpu, const Op* op, unsigned offset) {
  const uint64_t ea = cpu.effective_address(op) + offset;
  return op->address_size == 8 ? ea : op->address_size == 4 ? static_cast<uint32_t>(ea) : static_cast<uint16_t>(ea);
}

}  // namespace

bool load_at(Cpu& cpu, const Op* op, unsigned offset, unsigned bytes, uint64_t& value) {
  uint64_t linear = 0;
  const auto segment = static_cast<Seg>(op->segment);
  if (!cpu.linear(op, displaced(cpu, op, offset), bytes, Access::kRead, linear)) return false;
  uint16_t value16 = 0;
  uint32_t value32 = 0;
  switch (bytes) {
    case 8: return cpu.read(linear, value, segment);
    case 4:
      if (!cpu.read(linear, value32, segment)) return false;
      value = value32;
      return true;
    default:
      if (!cpu.read(linear, value16, segment)) return false;
      value = value16;
      return true;
  }
}

bool store_at(Cpu& cpu, const Op* op, unsigned offset, unsigned bytes, uint64_t value) {
  uint64_t linear = 0;
  const auto segment = static_cast<Seg>(op->segment);
  if (!cpu.linear(op, displaced(cpu, op, offset), bytes, Access::kWrite, linear)) return false;
  switch (bytes) {
    case 8: return cpu.write(linear, value, segment);
    case 4: return cpu.write(linear, static_cast<uint32_t>(value), segment);
    default: return cpu.write(linear, static_cast<uint16_t>(value), segment);
  }
}

bool load_far_pointer(Cpu& cpu, const Op* op, uint64_t& offset, uint64_t& selector) {
  const unsigned bytes = op->insn->operand_size;
  return load_at(cpu, op, 0, bytes, offset) && load_at(cpu, op, bytes, 2, selector);
}

bool load_selector(Cpu& cpu, const Op* op, unsigned operand, uint64_t& value) {
  const x86::Operand& source = op->insn->operand[operand];
  if (source.kind == OperandKind::kMem) return load_at(cpu, op, 0, 2, value);
  value = cpu.state.gpr[source.reg] & 0xffff;
  return true;
}

void set_gpr(Cpu& cpu, uint8_t number, unsigned bytes, uint64_t value) {
  const auto offset = static_cast<uint8_t>(number * 8);
  switch (bytes) {
    case 8: return cpu.set_reg<uint64_t>(offset, value);
    case 4: return cpu.set_reg<uint32_t>(offset, static_cast<uint32_t>(value));
    default: return cpu.set_reg<uint16_t>(offset, static_cast<uint16_t>(value));
  }
}

bool store_result(Cpu& cpu, const Op* op, uint64_t value, unsigned memory_bytes) {
  const x86::Operand& target = op->insn->operand[0];
  if (target.kind == OperandKind::kMem) return store_at(cpu, op, 0, memory_bytes, value);
  set_gpr(cpu, target.reg, op->insn->operand_size, value);
  return true;
}

Handler system_handler(const x86::Insn& insn) {
  for (const Row& row : kRows)
    if (row.op == insn.op) return row.handler;
  return segment_handler(insn);
}

}  // namespace kite::cpu
