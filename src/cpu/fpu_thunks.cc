// Emission of thunks, the memory they live in, and the SIGFPE handler.
#include <sys/mman.h>
#include <ucontext.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <span>

#include "cpu/cpu.h"
#include "cpu/fpu.h"
#include "cpu/fpu_emit.h"
#include "support/bytes.h"
#include "support/fd.h"
#include "support/log.h"

namespace kite::cpu {
namespace {

using x86::Insn;
using x86::OperandKind;

// `slot` is 7 for [rdi] and 6 for [rsi], which is also the ModRM.rm code of that base.
void emit_load(Emitter& out, RegisterFile file, unsigned number, unsigned slot) {
  const unsigned modrm = number << 3 | slot;
  switch (file) {
    case RegisterFile::kXmm: out.code(0x0f, 0x10, modrm); break;  // movups
    case RegisterFile::kMmx: out.code(0x0f, 0x6f, modrm); break;  // movq
    case RegisterFile::kGpr: out.code(0x48, 0x8b, modrm); break;  // mov
    case RegisterFile::kNone:
    case RegisterFile::kMemory: break;
  }
}
void emit_store(Emitter& out, RegisterFile file, unsigned number, unsigned slot) {
  const unsigned modrm = number << 3 | slot;
  switch (file) {
    case RegisterFile::kXmm: out.code(0x0f, 0x11, modrm); break;
    case RegisterFile::kMmx: out.code(0x0f, 0x7f, modrm); break;
    case RegisterFile::kGpr: out.code(0x48, 0x89, modrm); break;
    case RegisterFile::kNone:
    case RegisterFile::kMemory: break;
  }
}

// Host register that carries an operand: 1 and 2 for vectors (0 is free for the implicit XMM0), rax for general ones.
unsigned host_register(RegisterFile file, unsigned vector_number) {
  return file == RegisterFile::kGpr ? 0 : vector_number;
}

constexpr unsigned kMemoryRm = 6;  // [rsi]

void emit_issue(Emitter& out, const Insn& insn, const UnitShape& shape) {
  if (insn.mandatory_prefix != 0) out.code(insn.mandatory_prefix);
  if (insn.rex_w) out.code(0x48);
  out.code(0x0f);
  if (insn.map == 2) out.code(0x38);
  if (insn.map == 3) out.code(0x3a);
  const unsigned reg = shape.reg == RegisterFile::kNone ? (insn.modrm >> 3) & 7u : host_register(shape.reg, 1);
  const unsigned modrm =
      shape.rm == RegisterFile::kMemory ? reg << 3 | kMemoryRm : 0xc0u | reg << 3 | host_register(shape.rm, 2);
  out.code(insn.opcode, modrm);
  if (has_imm8(insn)) out.code(insn.imm);
}

// PCMPESTRI and friends use rdx and rcx, which hold our pointers: they move to r8 and r9 for a while.
void emit_string_compare(Emitter& out, const Insn& insn, const UnitShape& shape) {
  emit_load(out, shape.reg, 1, 7);
  emit_load(out, shape.rm, 2, 6);
  out.code(0x49, 0x89, 0xd0, 0x49, 0x89, 0xc9);        // mov r8, rdx; mov r9, rcx
  out.code(0x49, 0x8b, 0x01, 0x49, 0x8b, 0x51, 0x10);  // mov rax, [r9]; mov rdx, [r9+16]
  emit_issue(out, insn, shape);
  out.code(0x9c, 0x58);  // pushfq; pop rax
  const bool answers_index = insn.opcode & 1;
  if (answers_index) {
    out.code(0x49, 0x89, 0x49, 0x08);  // mov [r9+8], rcx
  } else {
    out.code(0x41, 0x0f, 0x11, 0x80);  // movups [r8+160], xmm0
    out.code32(kXmm0Offset);
  }
  out.code(0xc3);
}

void emit_vector(Emitter& out, const Insn& insn, const UnitShape& shape) {
  if (shape.string_compare) return emit_string_compare(out, insn, shape);
  const unsigned reg = host_register(shape.reg, 1);
  const unsigned rm = host_register(shape.rm, 2);
  const bool uses_mmx = shape.reg == RegisterFile::kMmx || shape.rm == RegisterFile::kMmx;
  emit_load(out, shape.reg, reg, 7);
  emit_load(out, shape.rm, rm, 6);
  if (shape.implicit_xmm0) {
    out.code(0x0f, 0x10, 0x82);  // movups xmm0, [rdx+160]
    out.code32(kXmm0Offset);
  }
  if (shape.numeric) emit_enter_mxcsr(out);
  emit_issue(out, insn, shape);
  if (shape.flags) out.code(0x9c, 0x41, 0x59);  // pushfq; pop r9
  if (shape.rm_is_destination)
    emit_store(out, shape.rm, rm, 6);
  else if (!shape.flags)
    emit_store(out, shape.reg, reg, 7);
  if (uses_mmx) out.code(0x0f, 0x77);  // emms
  if (shape.numeric) {
    out.code(0x0f, 0xae, 0x5a, kMxcsrOffset);  // stmxcsr [rdx+24]
    emit_restore_mxcsr(out);
  }
  if (shape.flags)
    out.code(0x4c, 0x89, 0xc8);  // mov rax, r9
  else
    out.code(0x31, 0xc0);  // xor eax, eax
  out.code(0xc3);
}

// Around x87 code: the whole image goes in and out. EMMS is an eighth of FNINIT's cost and serves when the guest's
// control word is the host's own and no exception is pending (it would be delivered to us).
void emit_x87_enter(Emitter& out) { out.code(0x48, 0x0f, 0xae, 0x0a); }  // fxrstor64 [rdx]
void emit_x87_leave(Emitter& out) {
  out.code(0x48, 0x0f, 0xae, 0x02);        // fxsave64 [rdx]
  out.code(0xf6, 0x42, 0x02, 0x80);        // test byte [rdx+2], 0x80 (FSW.ES)
  out.code(0x75, 0x0b);                    // jne init
  out.code(0x66, 0x81, 0x3a, 0x7f, 0x03);  // cmp word [rdx], 0x37f
  out.code(0x75, 0x04);                    // jne init
  out.code(0x0f, 0x77, 0xeb, 0x02);        // emms; jmp done
  out.code(0xdb, 0xe3);                    // init: fninit
  emit_restore_mxcsr(out);                 // done:
}

// FCMOVcc reads EFLAGS; FCOMI and FUCOMI write them, unless an unmasked exception keeps them.
bool reads_flags(const Insn& insn) { return (insn.opcode == 0xda || insn.opcode == 0xdb) && insn.modrm < 0xe0; }
bool writes_flags(const Insn& insn) {
  return (insn.opcode == 0xdb || insn.opcode == 0xdf) && insn.modrm >= 0xe8 && insn.modrm < 0xf8;
}

void emit_x87(Emitter& out, const Insn& insn) {
  const bool in_registers = insn.modrm >= 0xc0;
  const bool captures = in_registers && writes_flags(insn);
  emit_x87_enter(out);
  if (captures || (in_registers && reads_flags(insn))) {
    out.code(0xff, 0xb1);  // push [rcx+cc]
    out.code32(static_cast<uint32_t>(kCcOffset));
    out.code(0x9d);  // popfq
  }
  out.code(insn.opcode, in_registers ? insn.modrm : (insn.modrm & 0x38u) | kMemoryRm);
  if (captures) out.code(0x9c, 0x41, 0x59);  // pushfq; pop r9
  emit_x87_leave(out);
  if (captures)
    out.code(0x4c, 0x89, 0xc8);  // mov rax, r9
  else
    out.code(0x31, 0xc0);  // xor eax, eax
  out.code(0xc3);
}

// The memory of all thunks of the process: a memfd mapped twice, once writable and once executable, so that no address
// is both. It never moves and thunks are never freed: their number is bounded (see fpu.h).
class ThunkMemory {
 public:
  static ThunkMemory& instance() {
    static ThunkMemory& memory = *new ThunkMemory;  // vCPU threads may outlive static destructors
    return memory;
  }

  template <class Emit>
  Thunk get(uint64_t key, Emit emit) {
    const std::lock_guard lock(mutex_);
    if (const auto found = thunks_.find(key); found != thunks_.end()) return found->second;
    if (executable_ == nullptr) return nullptr;
    Emitter out;
    emit(out);
    uint8_t* const place = append(out);
    const Thunk thunk = place == nullptr ? nullptr : reinterpret_cast<Thunk>(place);
    thunks_.emplace(key, thunk);
    return thunk;
  }

 private:
  // 70,000 different thunks, nearly all of them imm8 variants, of at most 192 bytes, most of them 112.
  static constexpr size_t kBytes = size_t{12} << 20;
  static constexpr size_t kAlignment = 16;

  ThunkMemory() {
    map();
    if (executable_ != nullptr) install_handler();
  }

  void map() {
    const Fd fd(memfd_create("kite-fpu", MFD_CLOEXEC));
    if (!fd.valid() || ftruncate(fd.get(), kBytes) != 0) return report();
    void* const writable = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (writable == MAP_FAILED) return report();
    void* const executable = mmap(nullptr, kBytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd.get(), 0);
    if (executable == MAP_FAILED) {
      const int error = errno;
      munmap(writable, kBytes);
      errno = error;
      return report();
    }
    writable_ = static_cast<uint8_t*>(writable);
    executable_ = static_cast<uint8_t*>(executable);
    store(writable_, kHostMxcsr);
    used_ = kAlignment;
    emit_fault_exit();
  }
  static void report() {
    log::error("cannot map executable memory for the guest's x87, MMX and SSE instructions: {}; they will raise #UD",
               errno_text(errno));
  }

  // Where the signal handler sends a thunk whose instruction faulted: as the thunk's end, without its results.
  void emit_fault_exit() {
    Emitter out;
    out.code(0x0f, 0xae, 0x5a, kMxcsrOffset);                       // stmxcsr [rdx+24]
    out.code(0xdb, 0xe3);                                           // fninit
    if (__builtin_cpu_supports("avx")) out.code(0xc5, 0xf8, 0x77);  // vzeroupper
    emit_load_host_mxcsr(out);
    out.code(0x48, 0xc7, 0xc0);  // mov rax, kThunkFault
    out.code32(static_cast<uint32_t>(kThunkFault));
    out.code(0xc3);
    fault_exit_ = reinterpret_cast<uintptr_t>(append(out));
  }

  // Copies the code and answers its executable address; null when the memory is full.
  uint8_t* append(const Emitter& out) {
    const std::span<const uint8_t> bytes = out.bytes();
    if (used_ + bytes.size() > kBytes) return nullptr;
    uint8_t* const place = writable_ + used_;
    std::memcpy(place, bytes.data(), bytes.size());
    for (size_t i = 0; i < out.fixups; ++i) {
      const size_t at = out.host_mxcsr_fixups[i];
      store(place + at, static_cast<uint32_t>(-static_cast<int64_t>(used_ + at + 4)));  // the value is at offset 0
    }
    uint8_t* const address = executable_ + used_;
    used_ = (used_ + bytes.size() + kAlignment - 1) & ~(kAlignment - 1);
    return address;
  }

  void install_handler();
  static void on_sigfpe(int signal, siginfo_t* info, void* context);

  std::mutex mutex_;
  std::unordered_map<uint64_t, Thunk> thunks_;
  uint8_t* writable_ = nullptr;
  uint8_t* executable_ = nullptr;
  size_t used_ = 0;
  uintptr_t fault_exit_ = 0;

  // For the signal handler: set before it is installed.
  static inline ThunkMemory* handler_memory_ = nullptr;
  static inline struct sigaction previous_{};
};

void ThunkMemory::install_handler() {
  handler_memory_ = this;
  struct sigaction action{};
  action.sa_sigaction = &ThunkMemory::on_sigfpe;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGFPE, &action, &previous_);
}

void ThunkMemory::on_sigfpe(int signal, siginfo_t* info, void* context) {
  auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
  const auto begin = reinterpret_cast<uintptr_t>(handler_memory_->executable_);
  const auto rip = static_cast<uintptr_t>(machine.gregs[REG_RIP]);
  if (rip - begin < kBytes) {
    machine.gregs[REG_RIP] = static_cast<greg_t>(handler_memory_->fault_exit_);
    return;
  }
  if (previous_.sa_flags & SA_SIGINFO) return previous_.sa_sigaction(signal, info, context);
  if (previous_.sa_handler != SIG_DFL && previous_.sa_handler != SIG_IGN) return previous_.sa_handler(signal);
  // Not ours and nobody else's: let the default action end the process when the instruction is executed again.
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGFPE, &standard, nullptr);
}

// Identifies a thunk: everything that emission looks at.
uint64_t vector_key(const Insn& insn, const UnitShape& shape) {
  const uint64_t group = shape.reg == RegisterFile::kNone ? (insn.modrm >> 3) & 7u : 0u;
  const uint64_t imm = has_imm8(insn) ? insn.imm & 0xff : 0;
  return uint64_t{1} << 63 | uint64_t{insn.map} << 56 | uint64_t{insn.opcode} << 48 |
         uint64_t{insn.mandatory_prefix} << 40 | imm << 32 | group << 24 | uint64_t{insn.rex_w} << 16 |
         static_cast<uint64_t>(shape.reg) << 8 | static_cast<uint64_t>(shape.rm);
}
uint64_t x87_key(const Insn& insn) {
  const unsigned modrm = insn.modrm >= 0xc0 ? insn.modrm : insn.modrm & 0x38u;
  return uint64_t{insn.opcode} << 8 | modrm;
}
constexpr uint64_t kNormaliseKey = 1, kFninitKey = 2;

}  // namespace

FpuThunks::FpuThunks() { ThunkMemory::instance(); }

Thunk FpuThunks::vector(const Insn& insn) {
  const UnitShape shape = unit_shape(insn);
  const uint64_t key = vector_key(insn, shape);
  Thunk& known = known_[key];
  if (known == nullptr) known = ThunkMemory::instance().get(key, [&](Emitter& out) { emit_vector(out, insn, shape); });
  return known;
}

AvxThunk FpuThunks::avx(const Insn& insn) {
  const uint64_t key = avx_key(insn);
  Thunk& known = known_[key];
  if (known == nullptr) known = ThunkMemory::instance().get(key, [&](Emitter& out) { emit_avx(out, insn); });
  return reinterpret_cast<AvxThunk>(reinterpret_cast<void (*)()>(known));
}

Thunk FpuThunks::x87(const Insn& insn) {
  const uint64_t key = x87_key(insn);
  Thunk& known = known_[key];
  if (known == nullptr) known = ThunkMemory::instance().get(key, [&](Emitter& out) { emit_x87(out, insn); });
  return known;
}

Thunk FpuThunks::normalise() {
  Thunk& known = known_[kNormaliseKey];
  if (known == nullptr) {
    known = ThunkMemory::instance().get(kNormaliseKey, [](Emitter& out) {
      emit_x87_enter(out);
      emit_x87_leave(out);
      out.code(0x31, 0xc0, 0xc3);
    });
  }
  return known;
}

Thunk FpuThunks::fninit() {
  Thunk& known = known_[kFninitKey];
  if (known == nullptr) {
    known = ThunkMemory::instance().get(kFninitKey, [](Emitter& out) {
      emit_x87_enter(out);
      out.code(0xdb, 0xe3);
      emit_x87_leave(out);
      out.code(0x31, 0xc0, 0xc3);
    });
  }
  return known;
}

void FpuThunks::accept_faults() {
  thread_local bool done = false;
  if (done) return;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGFPE);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  done = true;
}

uint32_t FpuThunks::mxcsr_mask() {
  static const uint32_t mask = [] {
    alignas(16) uint8_t image[512] = {};
    asm volatile("fxsave64 %0" : "=m"(image));
    const auto value = load<uint32_t>(image + 28);
    constexpr uint32_t kMisaligned = 1 << 17;            // MM of AMD hosts, which no guest is offered (misalignsse)
    return value == 0 ? 0xffbfu : value & ~kMisaligned;  // [SDM 1, 11.6.6]
  }();
  return mask;
}

void FpuThunks::sanitize(x86::FxState& fx) {
  uint8_t* const mxcsr = fx.bytes.data() + kMxcsrOffset;
  store(mxcsr, load<uint32_t>(mxcsr) & mxcsr_mask());
}

}  // namespace kite::cpu
