#include "accel/jit/runtime.h"

#include <cstddef>

#include "accel/jit/ranges.h"
#include "accel/jit/translator.h"

namespace kite::jit {
namespace {

constexpr uint32_t kStoreAligned = 0x0f29, kLoadAligned = 0x0f28;                                    // MOVAPS
constexpr Assembler::Vex kVexLoad{.map = 1, .opcode = 0x28},                                         // VMOVAPS
    kVexLoadWide{.map = 1, .opcode = 0x28, .l = true}, kVexOr{.map = 1, .opcode = 0x56, .l = true},  // VORPS
    kVexTest{.map = 2, .prefix = 0x66, .opcode = 0x17, .l = true},                                   // VPTEST
    kExtractHigh{.map = 3, .prefix = 0x66, .opcode = 0x19, .l = true},                               // VEXTRACTF128
    kInsertHigh{.map = 3, .prefix = 0x66, .opcode = 0x18, .l = true};                                // VINSERTF128
// Fields of the FXSAVE image (SDM 1, table 10-2).
constexpr int32_t kFop = 6, kFip = 8, kFdp = 16;
constexpr uint32_t kX87Masks = 0x3f;
constexpr uint16_t kHostFcw = 0x37f;  // as the ABI has it

// Predicted returns: where the host goes on, and the guest's address with the salt of its mode.
constexpr int32_t kReturnBytes = 16, kMostReturns = 1024;

constexpr Reg kCalleeSaved[] = {kRbx, kRbp, kR12, kR13, kR14, kR15};

// The site's, bound the first time.
const cpu::Op* ops_of(cpu::Cpu& cpu, Site* site) {
  if (site->ops == nullptr) static_cast<Translator*>(cpu.translator)->bind_ops(*site);
  return site->ops;
}

// Emits the routines; each begins with the guest in registers, or ends so.
class Writer {
 public:
  Writer(Assembler& a, cpu::Cpu& cpu, const Layout& layout, bool profile)
      : a_(a), cpu_(cpu), layout_(layout), profile_(profile) {}

  void push(Reg reg) {
    if (reg >= 8) a_.byte(0x41);
    a_.byte(static_cast<uint8_t>(0x50 | (reg & 7)));
  }
  void pop(Reg reg) {
    if (reg >= 8) a_.byte(0x41);
    a_.byte(static_cast<uint8_t>(0x58 | (reg & 7)));
  }
  // The time-stamp in RAX; RDX is lost.
  void time_stamp() {
    a_.byte(0x0f);  // rdtsc
    a_.byte(0x31);
    a_.shift_imm(8, 4, kRdx, 32);
    a_.rr(8, 0x09, kRdx, kRax);  // or
  }
  // Around what is the translator's time; RAX, RDX and EFLAGS are lost.
  void code_begins() {
    if (!profile_) return;
    time_stamp();
    a_.store(8, in_cpu(layout_.cycles_at), kRax);
  }
  void code_ends() {
    if (!profile_) return;
    time_stamp();
    a_.rm(8, 0x2b, kRax, in_cpu(layout_.cycles_at));  // sub
    a_.rm(8, 0x01, kRax, in_cpu(layout_.cycles));     // add
  }
  // The stack of predicted returns begins with one that no guest address matches but a non-canonical one.
  void prologue(const uint8_t* unpredicted) {
    for (const Reg reg : kCalleeSaved) push(reg);
    a_.alu_imm(8, 5, kRsp, 24);  // 16-byte alignment
    a_.store_imm(8, at(kRsp, 8), 0);
    a_.mov_imm(kRax, reinterpret_cast<uintptr_t>(unpredicted));
    a_.store(8, at(kRsp), kRax);
    a_.store(8, in_cpu(layout_.returns), kRsp);
    a_.lea(8, kRax, at(kRsp, -kMostReturns * kReturnBytes));
    a_.store(8, in_cpu(layout_.returns_end), kRax);
  }
  // TranslationArea::runs; EFLAGS are lost.
  void next_run() { a_.alu_imm(4, 0, in_cpu(layout_.runs), 1); }
  void epilogue() {
    next_run();
    a_.load(8, kRsp, in_cpu(layout_.returns));
    a_.alu_imm(8, 0, kRsp, 24);
    for (size_t i = std::size(kCalleeSaved); i-- > 0;) pop(kCalleeSaved[i]);
  }
  // Everything of the guest to the Cpu; RCX, RDX, RSI and EFLAGS are lost.
  void spill() {
    for (unsigned n = 0; n < 16; ++n)
      if (kHost[n] != kNone) a_.store(8, layout_.slot(n), static_cast<Reg>(kHost[n]));
    a_.alu_imm(4, 7, in_cpu(layout_.units), 0);
    uint8_t* const none = a_.jcc(Condition::kE);
    a_.call(save_units_);
    a_.bind_here(none);
  }
  void fill() {
    for (unsigned n = 0; n < 16; ++n)
      if (kHost[n] != kNone) a_.load(8, static_cast<Reg>(kHost[n]), layout_.slot(n));
  }
  // From AX after LAHF; SETO AL to CpuState::cc, and back. EAX and ECX are lost.
  void saved_to_cc() {
    a_.rm(4, 0x0fb7, kRax, in_cpu(layout_.saved_flags));  // movzx
    a_.mov(4, kRcx, kRax);
    a_.shift_imm(4, 5, kRcx, 8);
    a_.alu_imm(4, 4, kRcx, 0xd5);
    a_.alu_imm(4, 4, kRax, 1);
    a_.shift_imm(4, 4, kRax, 11);
    a_.rr(4, 0x09, kRcx, kRax);
    a_.store(8, in_cpu(layout_.cc), kRax);
  }
  void cc_to_saved() {
    a_.load(4, kRax, in_cpu(layout_.cc));
    a_.rr(4, 0x0fb6, kRcx, kRax);  // movzx ecx, al
    a_.shift_imm(4, 4, kRcx, 8);
    a_.shift_imm(4, 5, kRax, 11);
    a_.alu_imm(4, 4, kRax, 1);
    a_.rr(4, 0x09, kRcx, kRax);
    a_.store(4, in_cpu(layout_.saved_flags), kRax);
  }
  void saved_to_eflags() {  // of what is in AX
    a_.byte(0x04);          // add al, 0x7f
    a_.byte(0x7f);
    a_.byte(0x9e);  // sahf
  }
  void load_mxcsr(int32_t from) { a_.rm(4, 0x0fae, 2, in_cpu(from)); }
  void store_mxcsr(int32_t to) { a_.rm(4, 0x0fae, 3, in_cpu(to)); }
  void zero_upper() {
    a_.byte(0xc5);
    a_.byte(0xf8);
    a_.byte(0x77);
  }
  // Jumps when the guest cannot use the high halves of YMM registers.
  uint8_t* unless_avx() {
    a_.rm(4, 0xf7, 0, before(4, in_cpu(layout_.mode_key)));  // test
    a_.dword(cpu::mode::kAvx);
    return a_.jcc(Condition::kE);
  }
  void store_low_halves() {
    for (unsigned n = 0; n < 16; ++n) a_.rm(4, kStoreAligned, n, layout_.vector(n));
  }
  void load_low_halves() {
    for (unsigned n = 0; n < 16; ++n) a_.rm(4, kLoadAligned, n, layout_.vector(n));
  }
  void cpu_to(Reg reg) { a_.mov_imm(reg, reinterpret_cast<uintptr_t>(&cpu_)); }
  // cpu.block = site->block, the site being in `site`.
  void set_block(Reg site) {
    a_.load(8, kRax, at(site, offsetof(Site, block)));
    a_.store(8, in_cpu(layout_.block), kRax);
  }

  // RSI = the Ops of the site in R10, which are bound if need be. Nothing of the guest is in registers.
  void take_ops(Reg site) {
    a_.load(8, kRsi, at(site, offsetof(Site, ops)));
    a_.rr(8, 0x85, kRsi, kRsi);  // test
    uint8_t* const bound = a_.jcc(Condition::kNe);
    a_.mov(8, kRbx, site);
    a_.mov(8, kRsi, site);
    cpu_to(kRdi);
    a_.mov_imm(kRax, reinterpret_cast<uintptr_t>(&ops_of));
    a_.rr(4, 0xff, 2, kRax);  // call
    a_.mov(8, kRsi, kRax);
    a_.mov(8, site, kRbx);
    a_.bind_here(bound);
  }
  void count(Reg site) { a_.alu_imm(8, 0, at(site, offsetof(Site, calls)), 1); }

  void save_units();
  void load_vectors();
  void load_x87(const uint8_t* load_vectors);
  void interpret(const uint8_t* out);
  void execute(const uint8_t* out);
  void notice(const uint8_t* out);
  const uint8_t* look_up(cpu::TlbKind kind, bool write);

  Assembler& a_;
  cpu::Cpu& cpu_;
  const Layout& layout_;
  bool profile_;
  bool has_avx_ = __builtin_cpu_supports("avx") != 0;
  const uint8_t* save_units_ = nullptr;
};

// Executes an instruction that ends its block. Answers the code to go on with, or null: the run loop has something to
// do.
const void* execute_site(cpu::Cpu& cpu, Site* site) {
  const cpu::Op* const op = ops_of(cpu, site);
  cpu.block = site->block;
  cpu.translation.next_run();
  op->handler(cpu, op);
  cpu.translation.next_run();
  std::atomic_signal_fence(std::memory_order_seq_cst);  // before the look at the pages that are watched
  return static_cast<const Translator*>(cpu.translator)->code_at_rip(cpu);
}

// A store went to a page whose state is not 0. Answers whether that has ended the block.
bool note_store(cpu::Cpu& cpu, const uint8_t* host, unsigned bytes, const Site* site) {
  cpu.block = site->block;
  cpu.store_noticed_at(host, bytes);
  if (!site->block->removed) return false;
  cpu.state.rip = site->leave_rip == Site::kDynamic ? cpu.translation.spare[1] : site->leave_rip;
  return true;
}

// To the Cpu, and the host's own control words. RCX, RDX, RSI and EFLAGS are lost. The guest's pointers to the last x87
// instruction are in the image already, and FXSAVE would replace them by the host's.
void Writer::save_units() {
  save_units_ = a_.here();
  a_.alu_imm(4, 7, in_cpu(layout_.units), cpu::TranslationArea::kVectors);
  uint8_t* const vectors_only = a_.jcc(Condition::kE);
  a_.load(8, kRcx, layout_.image(kFip));
  a_.load(8, kRdx, layout_.image(kFdp));
  a_.rm(4, 0x0fb7, kRsi, layout_.image(kFop));  // movzx
  a_.rm(8, 0x0fae, 0, layout_.image(0));        // fxsave64
  a_.store(8, layout_.image(kFip), kRcx);
  a_.store(8, layout_.image(kFdp), kRdx);
  a_.store(2, layout_.image(kFop), kRsi);
  a_.byte(0x0f);  // emms
  a_.byte(0x77);
  a_.mov_imm(kRcx, reinterpret_cast<uintptr_t>(&kHostFcw));
  a_.rm(4, 0xd9, 5, at(kRcx));  // fldcw
  uint8_t* const high_halves = a_.jmp();
  a_.bind_here(vectors_only);
  store_mxcsr(layout_.mxcsr);
  store_low_halves();
  a_.bind_here(high_halves);
  if (has_avx_) {
    uint8_t* const no_avx = unless_avx();
    for (unsigned n = 0; n < 16; ++n) {
      a_.vex_rm(kExtractHigh, n, 0, before(1, layout_.high_half(n)));
      a_.byte(1);
    }
    a_.bind_here(no_avx);
    zero_upper();  // what follows has instructions without VEX
  }
  load_mxcsr(layout_.host_mxcsr);
  a_.store_imm(4, in_cpu(layout_.units), 0);
  a_.ret();
}

// High halves that are all zero are left to VZEROUPPER: instructions without VEX are slow behind others.
void Writer::load_vectors() {
  if (has_avx_) {
    uint8_t* const no_avx = unless_avx();
    const auto both_high = [&](unsigned n) { return layout_.high_half(n); };
    a_.vex_rm(kVexLoadWide, 0, 0, both_high(0));
    for (unsigned n = 2; n < 16; n += 2) a_.vex_rm(kVexOr, 0, 0, both_high(n));
    a_.vex_rr(kVexTest, 0, 0, 0);
    uint8_t* const zero = a_.jcc(Condition::kE);
    for (unsigned n = 0; n < 16; ++n) {
      a_.vex_rm(kVexLoad, n, 0, layout_.vector(n));
      a_.vex_rm(kInsertHigh, n, n, before(1, layout_.high_half(n)));
      a_.byte(1);
    }
    uint8_t* const loaded = a_.jmp();
    a_.bind_here(zero);
    zero_upper();
    a_.bind_here(no_avx);
    load_low_halves();
    a_.bind_here(loaded);
  } else {
    load_low_halves();
  }
  load_mxcsr(layout_.mxcsr);
  a_.store_imm(4, in_cpu(layout_.units), cpu::TranslationArea::kVectors);
  a_.ret();
}

void Writer::load_x87(const uint8_t* load_vectors) {
  a_.rm(4, 0x0fb7, kRax, layout_.image(0));  // movzx: FCW
  a_.rr(4, 0xf7, 2, kRax);                   // not
  a_.rr(4, 0xf7, 0, kRax);                   // test
  a_.dword(kX87Masks);
  uint8_t* const unmasked = a_.jcc(Condition::kNe);
  a_.alu_imm(4, 7, in_cpu(layout_.units), 0);
  uint8_t* const have_vectors = a_.jcc(Condition::kNe);
  a_.call(load_vectors);
  a_.bind_here(have_vectors);
  store_mxcsr(layout_.mxcsr);
  store_low_halves();
  a_.rm(8, 0x0fae, 1, layout_.image(0));  // fxrstor64
  a_.store_imm(4, in_cpu(layout_.units), cpu::TranslationArea::kVectors | cpu::TranslationArea::kX87);
  a_.rr(4, 0x31, kRax, kRax);  // xor: ZF
  a_.bind_here(unmasked);
  a_.ret();
}

void Writer::interpret(const uint8_t* out) {
  spill();
  saved_to_cc();
  code_ends();
  set_block(kR10);
  count(kR10);
  a_.store_imm(4, in_cpu(layout_.completed), 0);
  next_run();
  push(kR10);
  take_ops(kR10);
  cpu_to(kRdi);
  a_.rm(4, 0xff, 2, at(kRsi, offsetof(cpu::Op, handler)));
  pop(kR10);
  next_run();
  a_.alu_imm(4, 7, in_cpu(layout_.completed), 0);
  uint8_t* const not_completed = a_.jcc(Condition::kE);
  // The instruction may have ended the block, or changed what it was decoded under.
  a_.load(8, kRax, at(kR10, offsetof(Site, block)));
  a_.alu_imm(1, 7, at(kRax, offsetof(cpu::Block, removed)), 0);
  uint8_t* const removed = a_.jcc(Condition::kNe);
  a_.load(4, kRcx, at(kRax, offsetof(cpu::Block, mode_key)));
  a_.rm(4, 0x3b, kRcx, in_cpu(layout_.mode_key));
  uint8_t* const other_mode = a_.jcc(Condition::kNe);
  a_.alu_imm(4, 7, in_cpu(layout_.pages_watched), 0);
  uint8_t* const watched = a_.jcc(Condition::kNe);
  a_.load(4, kRcx, in_cpu(layout_.mxcsr));
  a_.rr(4, 0xf7, 2, kRcx);  // not
  a_.rr(4, 0xf7, 0, kRcx);  // test
  a_.dword(kMxcsrMasks);
  uint8_t* const unmasked = a_.jcc(Condition::kNe);
  code_begins();
  cc_to_saved();
  saved_to_eflags();
  fill();
  a_.ret();
  for (uint8_t* const site : {not_completed, removed, other_mode, watched, unmasked}) a_.bind_here(site);
  a_.alu_imm(8, 0, kRsp, 8);
  a_.jmp(out);
}

void Writer::execute(const uint8_t* out) {
  spill();
  saved_to_cc();
  code_ends();
  count(kR10);
  cpu_to(kRdi);
  a_.mov(8, kRsi, kR10);
  a_.mov_imm(kRax, reinterpret_cast<uintptr_t>(&execute_site));
  a_.rr(4, 0xff, 2, kRax);
  a_.rr(8, 0x85, kRax, kRax);  // test
  a_.jcc(Condition::kE, out);
  a_.store(8, in_cpu(layout_.code), kRax);
  a_.alu_imm(4, 7, in_cpu(layout_.returns_lost), 0);
  uint8_t* const known = a_.jcc(Condition::kE);
  a_.alu_imm(1, 7, in_cpu(layout_.cpl), 3);
  uint8_t* const kernel = a_.jcc(Condition::kNe);
  a_.store_imm(4, in_cpu(layout_.returns_lost), 0);
  a_.load(8, kRsp, in_cpu(layout_.returns));
  a_.bind_here(known);
  a_.bind_here(kernel);
  code_begins();
  cc_to_saved();
  fill();
  a_.jmp(in_cpu(layout_.code));
}

void Writer::notice(const uint8_t* out) {
  spill();
  a_.mov(8, kRsi, kR10);
  a_.mov(4, kRdx, kRax);
  saved_to_cc();
  a_.mov(8, kRcx, kR11);
  cpu_to(kRdi);
  push(kR11);
  a_.mov_imm(kRax, reinterpret_cast<uintptr_t>(&note_store));
  a_.rr(4, 0xff, 2, kRax);
  pop(kR11);
  a_.rr(1, 0x84, kRax, kRax);
  uint8_t* const ended = a_.jcc(Condition::kNe);
  fill();
  a_.ret();
  a_.bind_here(ended);
  code_ends();
  a_.alu_imm(8, 0, kRsp, 8);
  a_.jmp(out);
}

// The TLB, for a place that its range has missed.
const uint8_t* Writer::look_up(cpu::TlbKind kind, bool write) {
  using cpu::RangeRecord;
  static constexpr Reg kKept[] = {kRcx, kRdx, kRsi, kRdi, kR8, kR9, kR11};
  const int32_t table = layout_.tlb[static_cast<size_t>(kind)];
  const auto field = [&](int32_t offset) { return in_cpu(kR11, table + offset); };
  const uint8_t* const start = a_.here();
  a_.mov(4, kR11, kR10);
  a_.shift_imm(4, 5, kR11, kTlbShift);
  a_.alu_imm(4, 4, kR11, kTlbMask);
  a_.store(8, in_cpu(layout_.spare + kLinearSpare), kR10);
  a_.alu_imm(8, 4, kR10, ~static_cast<uint32_t>(kPageSize - 1));
  a_.rm(8, 0x3b, kR10, field(write ? kTlbWriteTag : kTlbReadTag));
  uint8_t* const unknown = a_.jcc(Condition::kNe);
  a_.load(4, kR10, in_cpu(layout_.spare + kLinearSpare));
  a_.alu_imm(4, 4, kR10, kPageSize - 1);
  a_.rm(2, 0x3b, kR10, at(kRax, offsetof(RangeRecord, last_in_page)));
  uint8_t* const crosses = a_.jcc(Condition::kA);
  a_.alu_imm(1, 7, at(kRax, offsetof(RangeRecord, moves)), 0);
  uint8_t* const moves = a_.jcc(Condition::kNe);
  for (const Reg reg : kKept) push(reg);
  a_.mov(8, kRsi, kRax);
  a_.mov_imm(kRdi, reinterpret_cast<uintptr_t>(&cpu_) + static_cast<uintptr_t>(table));
  a_.load(8, kRcx, in_cpu(layout_.spare + kLinearSpare));
  a_.mov_imm(kRdx, reinterpret_cast<uintptr_t>(&cpu_.translation));
  a_.mov_imm(kRax, reinterpret_cast<uintptr_t>(&fill_range));
  a_.rr(4, 0xff, 2, kRax);  // call
  for (size_t i = std::size(kKept); i-- > 0;) pop(kKept[i]);
  a_.bind_here(moves);
  a_.load(8, kR10, field(kTlbAddend));
  if (write) a_.load(8, kR11, field(kTlbPageState));
  a_.rr(4, 0x31, kRax, kRax);  // xor: ZF
  a_.bind_here(unknown);
  a_.ret();
  a_.bind_here(crosses);  // "above" is not ZF
  a_.ret();
  return start;
}

}  // namespace

void resume(cpu::Cpu& cpu, const cpu::Op* op) {
  cpu.translation.completed = 1;
  cpu.state.rip = op->rip;
}

Layout::Layout(cpu::Cpu& cpu) {
  const auto distance = [&](const void* place) {
    return static_cast<int32_t>(static_cast<const char*>(place) - reinterpret_cast<const char*>(&cpu));
  };
  gpr = distance(cpu.state.gpr);
  rip = distance(&cpu.state.rip);
  cc = distance(&cpu.state.cc);
  rflags = distance(&cpu.state.rflags);
  for (size_t i = 0; i < x86::kSegCount; ++i) {
    segment_base[i] = distance(&cpu.state.seg[i].base);
    selector[i] = distance(&cpu.state.seg[i].selector);
  }
  block = distance(&cpu.block);
  mode_key = distance(&cpu.mode_key);
  alarm = distance(&cpu.translation.alarm);
  completed = distance(&cpu.translation.completed);
  saved_flags = distance(&cpu.translation.saved_flags);
  spare = distance(&cpu.translation.spare);
  exit = distance(&cpu.translation.exit);
  code = distance(&cpu.translation.code);
  blocks_entered = distance(&cpu.translation.blocks_entered);
  cycles = distance(&cpu.translation.cycles);
  cycles_at = distance(&cpu.translation.cycles_at);
  returns = distance(&cpu.translation.returns);
  returns_end = distance(&cpu.translation.returns_end);
  jumps = distance(&cpu.translation.jumps);
  fx = distance(&cpu.arch.fx);
  constexpr int32_t kMxcsr = 24;  // in the FXSAVE image (SDM 1, table 10-2)
  mxcsr = fx + kMxcsr;
  host_mxcsr = distance(&cpu.translation.host_mxcsr);
  units = distance(&cpu.translation.units);
  cpl = distance(&cpu.cpl);
  returns_lost = distance(&cpu.translation.returns_lost);
  requests = distance(&cpu.requests);
  kernel_gs_base = distance(&cpu.arch.kernel_gs_base);
  pauses = distance(&cpu.pauses);
  cr4 = distance(&cpu.arch.cr4);
  tlb_place = distance(cpu.tlb_place());
  window_places = distance(&cpu.translation.window_places);
  window_states = distance(&cpu.translation.window_states);
  pages_watched = distance(&cpu.translation.pages_watched);
  runs = distance(&cpu.translation.runs);
  for (size_t i = 0; i < std::size(tlb); ++i) tlb[i] = distance(&cpu.tlb(static_cast<cpu::TlbKind>(i)));
}

void Runtime::emit(Assembler& a, cpu::Cpu& cpu, const Layout& layout, bool profile) {
  Writer w(a, cpu, layout, profile);
  w.save_units();
  load_vectors = a.here();
  w.load_vectors();
  load_x87 = a.here();
  w.load_x87(load_vectors);
  // A return to R10, which is not canonical, has found the end of the stack: fetching from there is what faults.
  const uint8_t* const unpredicted = leave_to = a.here();
  w.spill();
  w.saved_to_cc();
  w.code_ends();
  a.store(8, in_cpu(layout.rip), kR10);
  uint8_t* const leave_there = a.jmp();

  enter = reinterpret_cast<cpu::BlockTranslator::Entry>(reinterpret_cast<uintptr_t>(a.here()));
  w.prologue(unpredicted);
  w.code_begins();
  w.cc_to_saved();
  w.fill();
  a.jmp(in_cpu(layout.code));

  const uint8_t* const out = a.here();
  a.bind_here(leave_there);
  w.epilogue();
  a.ret();

  leave = a.here();
  w.spill();
  w.saved_to_cc();
  w.code_ends();
  a.load(8, kRax, at(kR10, offsetof(Exit, target)));
  a.store(8, in_cpu(layout.rip), kRax);
  a.store(8, in_cpu(layout.exit), kR10);
  a.jmp(out);

  hand_over = a.here();
  w.spill();
  w.saved_to_cc();
  w.code_ends();
  w.set_block(kR10);
  w.count(kR10);
  w.take_ops(kR10);
  w.cpu_to(kRdi);
  a.load(8, kRax, at(kRsi, offsetof(cpu::Op, handler)));
  w.epilogue();
  a.rr(4, 0xff, 4, kRax);  // jmp rax

  interpret = a.here();
  w.interpret(out);
  execute = a.here();
  w.execute(out);
  notice = a.here();
  w.notice(out);
  for (size_t kind = 0; kind < look_up.size(); ++kind)
    for (const bool write : {false, true})
      look_up[kind][write ? 1 : 0] = w.look_up(static_cast<cpu::TlbKind>(kind), write);
}

}  // namespace kite::jit
