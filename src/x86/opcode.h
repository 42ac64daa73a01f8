// The operations that the decoder tells apart. Mnemonics are those of the SDM. Instructions that the host's x87, MMX,
// SSE or AVX unit executes on the guest's registers share kX87, kMmx, kSse and kAvx; their encoding says which they
// are.
#pragma once

#include <cstdint>

namespace kite::x86 {

// clang-format off
#define KITE_X86_OPS(X) \
  X(Invalid) \
  /* arithmetic and logic */ \
  X(Add) X(Or) X(Adc) X(Sbb) X(And) X(Sub) X(Xor) X(Cmp) X(Test) X(Inc) X(Dec) X(Neg) X(Not) \
  X(Mul) X(Imul1) X(Imul2) X(Imul3) X(Div) X(Idiv) \
  X(Rol) X(Ror) X(Rcl) X(Rcr) X(Shl) X(Shr) X(Sar) X(Shld) X(Shrd) \
  X(Bt) X(Bts) X(Btr) X(Btc) X(Bsf) X(Bsr) X(Popcnt) X(Lzcnt) X(Tzcnt) X(Bswap) \
  X(Daa) X(Das) X(Aaa) X(Aas) X(Aam) X(Aad) X(Cbw) X(Cwd) /* Cbw: CBW/CWDE/CDQE; Cwd: CWD/CDQ/CQO */ \
  X(Xadd) X(Cmpxchg) X(Cmpxchg8b) X(Cmpxchg16b) X(Xchg) \
  X(Adcx) X(Adox) X(Crc32) X(Movbe) \
  X(Andn) X(Bextr) X(Blsi) X(Blsmsk) X(Blsr) X(Bzhi) X(Mulx) X(Pdep) X(Pext) X(Rorx) X(Sarx) X(Shlx) X(Shrx) \
  /* moves */ \
  X(Mov) X(Movsx) X(Movzx) X(Movsxd) X(Lea) X(Cmov) X(Set) X(Xlat) X(Lahf) X(Sahf) X(Movnti) \
  X(MovFromSeg) X(MovToSeg) X(MovFromCr) X(MovToCr) X(MovFromDr) X(MovToDr) \
  X(Lds) X(Les) X(Lfs) X(Lgs) X(Lss) \
  /* stack */ \
  X(Push) X(Pop) X(PushSeg) X(PopSeg) X(Pusha) X(Popa) X(Pushf) X(Popf) X(Enter) X(Leave) \
  /* control flow */ \
  X(Jcc) X(Jmp) X(JmpFar) X(Call) X(CallFar) X(Ret) X(RetFar) X(Iret) X(Int) X(Int1) X(Int3) X(Into) X(Bound) \
  X(Loop) X(Loope) X(Loopne) X(Jcxz) \
  X(Syscall) X(Sysret) X(Sysenter) X(Sysexit) X(Ud0) X(Ud1) X(Ud2) \
  /* strings */ \
  X(Movs) X(Cmps) X(Stos) X(Lods) X(Scas) X(Ins) X(Outs) \
  /* I/O */ \
  X(In) X(Out) \
  /* flags */ \
  X(Clc) X(Stc) X(Cmc) X(Cld) X(Std) X(Cli) X(Sti) X(Clac) X(Stac) \
  /* system */ \
  X(Hlt) X(Nop) X(Pause) X(Endbr) X(Prefetch) X(Clflush) X(Clflushopt) X(Clwb) X(Lfence) X(Mfence) X(Sfence) \
  X(Cpuid) X(Rdtsc) X(Rdtscp) X(Rdpid) X(Rdpmc) X(Rdmsr) X(Wrmsr) X(Invd) X(Wbinvd) X(Invlpg) X(Invpcid) \
  X(Lgdt) X(Lidt) X(Sgdt) X(Sidt) X(Lldt) X(Ltr) X(Sldt) X(Str) X(Lmsw) X(Smsw) X(Clts) X(Swapgs) \
  X(Lar) X(Lsl) X(Verr) X(Verw) X(Arpl) X(Rsm) X(Monitor) X(Mwait) X(Vmcall) X(Vmmcall) \
  X(Rdfsbase) X(Rdgsbase) X(Wrfsbase) X(Wrgsbase) X(Rdrand) X(Rdseed) X(Salc) \
  X(Movdiri) X(Movdir64b) X(Serialize) \
  X(Rdpkru) X(Wrpkru) X(Rdpru) X(Wbnoinvd) X(Xgetbv) X(Xsetbv) X(Xsave) X(Xsaveopt) X(Xsavec) X(Xsaves) X(Xrstor) X(Xrstors) \
  /* state images, executed by hand because they carry the guest's own pointers */ \
  X(Fxsave) X(Fxrstor) X(Ldmxcsr) X(Stmxcsr) X(Emms) X(Fwait) X(Maskmov) \
  /* accesses some elements of a vector, and knows which of them are done */ \
  X(Vmaskmov) X(Gather) \
  X(Vzeroupper) X(Vzeroall) \
  /* host units */ \
  X(X87) X(Mmx) X(Sse) X(Avx)
// clang-format on

enum class Op : uint16_t {
#define KITE_X86_OP_ENUM(name) k##name,
  KITE_X86_OPS(KITE_X86_OP_ENUM)
#undef KITE_X86_OP_ENUM
      kCount
};

}  // namespace kite::x86
