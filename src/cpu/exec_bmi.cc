// BMI1 and BMI2, all but TZCNT: the host's own instructions, which also say what the flags become.
#include "cpu/exec.h"

namespace kite::cpu {
namespace {

// d: destination, v: what VEX.vvvv names, e: what ModRM.rm names.
#define KITE_BMI_FLAGS(Name, text)                                                             \
  struct Name {                                                                                \
    template <class T>                                                                         \
    [[gnu::always_inline]] static T run(Cpu& cpu, T v, T e) {                                  \
      T d;                                                                                     \
      uint32_t ax = 0;                                                                         \
      asm(text KITE_ASM_SAVE_FLAGS : [d] "=&r"(d), "+&a"(ax) : [v] "r"(v), [e] "r"(e) : "cc"); \
      cpu.state.cc = flags_of_ax(ax);                                                          \
      return d;                                                                                \
    }                                                                                          \
  }
#define KITE_BMI_PLAIN(Name, text)                        \
  struct Name {                                           \
    template <class T>                                    \
    [[gnu::always_inline]] static T run(Cpu&, T v, T e) { \
      T d;                                                \
      asm(text : [d] "=r"(d) : [v] "r"(v), [e] "r"(e));   \
      return d;                                           \
    }                                                     \
  }
KITE_BMI_FLAGS(Andn, "andn %[e], %[v], %[d]");
KITE_BMI_FLAGS(Bextr, "bextr %[v], %[e], %[d]");
KITE_BMI_FLAGS(Bzhi, "bzhi %[v], %[e], %[d]");
KITE_BMI_FLAGS(Blsi, "blsi %[e], %[d]");
KITE_BMI_FLAGS(Blsmsk, "blsmsk %[e], %[d]");
KITE_BMI_FLAGS(Blsr, "blsr %[e], %[d]");
KITE_BMI_PLAIN(Pdep, "pdep %[e], %[v], %[d]");
KITE_BMI_PLAIN(Pext, "pext %[e], %[v], %[d]");
#undef KITE_BMI_FLAGS
#undef KITE_BMI_PLAIN

template <class T>
constexpr unsigned kCountMask = 8 * sizeof(T) - 1;

struct Shlx {
  template <class T>
  static T run(Cpu&, T v, T e) {
    return static_cast<T>(e << (v & kCountMask<T>));
  }
};
struct Shrx {
  template <class T>
  static T run(Cpu&, T v, T e) {
    return static_cast<T>(e >> (v & kCountMask<T>));
  }
};
struct Sarx {
  template <class T>
  static T run(Cpu&, T v, T e) {
    return static_cast<T>(static_cast<std::make_signed_t<T>>(e) >> (v & kCountMask<T>));
  }
};

// [SDM 2A 2.5.1, table 2-34] VEX is undefined in real and virtual-8086 mode.
inline bool vex_allowed(Cpu& cpu) {
  if (!cpu.real_or_v86()) [[likely]]
    return true;
  return cpu.raise(x86::Vector::kUd);
}

template <class T, bool kMemory>
[[gnu::always_inline]] inline bool source(Cpu& cpu, const Op* op, T& e) {
  if (!vex_allowed(cpu)) return false;
  if constexpr (kMemory) return load_operand<T, Place::kGeneral>(cpu, op, e);
  e = cpu.reg<T>(op->src);
  return true;
}

// Op::condition has the place of the register that VEX.vvvv names (bind.cc).
template <class Operation, class T, bool kMemory>
void two_sources(Cpu& cpu, const Op* op) {
  T e = 0;
  if (!source<T, kMemory>(cpu, op, e)) KITE_FAULT(cpu, op);
  const T v = cpu.reg<T>(op->condition);
  cpu.set_reg<T>(op->dst, Operation::template run<T>(cpu, v, e));
  KITE_NEXT(cpu, op);
}

template <class T, bool kMemory>
void rotate(Cpu& cpu, const Op* op) {
  T e = 0;
  if (!source<T, kMemory>(cpu, op, e)) KITE_FAULT(cpu, op);
  const unsigned count = op->imm & kCountMask<T>;
  cpu.set_reg<T>(op->dst, static_cast<T>(e >> count | e << (-count & kCountMask<T>)));
  KITE_NEXT(cpu, op);
}

// [SDM 2B MULX] The high half wins when both destinations are one register.
template <class T, bool kMemory>
void multiply(Cpu& cpu, const Op* op) {
  T e = 0;
  if (!source<T, kMemory>(cpu, op, e)) KITE_FAULT(cpu, op);
  using Wide = std::conditional_t<sizeof(T) == 8, unsigned __int128, uint64_t>;
  const Wide product = Wide{e} * static_cast<T>(cpu.state.gpr[x86::kRdx]);
  cpu.set_reg<T>(op->condition, static_cast<T>(product));
  cpu.set_reg<T>(op->dst, static_cast<T>(product >> (8 * sizeof(T))));
  KITE_NEXT(cpu, op);
}

template <class Pick>
Handler by_form(const Binding& b, Pick pick) {
  const bool memory = b.insn.has_mem;
  if (b.insn.operand_size == 8)
    return memory ? pick.template operator()<uint64_t, true>() : pick.template operator()<uint64_t, false>();
  return memory ? pick.template operator()<uint32_t, true>() : pick.template operator()<uint32_t, false>();
}
template <class Operation>
Handler two_sources_of(const Binding& b) {
  return by_form(b, []<class T, bool kMemory>() -> Handler { return two_sources<Operation, T, kMemory>; });
}

}  // namespace

Handler bmi_handler(const Binding& b) {
  switch (b.insn.op) {
    case Code::kAndn: return two_sources_of<Andn>(b);
    case Code::kBextr: return two_sources_of<Bextr>(b);
    case Code::kBlsi: return two_sources_of<Blsi>(b);
    case Code::kBlsmsk: return two_sources_of<Blsmsk>(b);
    case Code::kBlsr: return two_sources_of<Blsr>(b);
    case Code::kBzhi: return two_sources_of<Bzhi>(b);
    case Code::kPdep: return two_sources_of<Pdep>(b);
    case Code::kPext: return two_sources_of<Pext>(b);
    case Code::kSarx: return two_sources_of<Sarx>(b);
    case Code::kShlx: return two_sources_of<Shlx>(b);
    case Code::kShrx: return two_sources_of<Shrx>(b);
    case Code::kMulx: return by_form(b, []<class T, bool kMemory>() -> Handler { return multiply<T, kMemory>; });
    case Code::kRorx: return by_form(b, []<class T, bool kMemory>() -> Handler { return rotate<T, kMemory>; });
    default: return nullptr;
  }
}

}  // namespace kite::cpu
