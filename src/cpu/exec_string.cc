// String instructions with their repetitions, and IN and OUT.
//
// A repeated instruction works in pieces: as many elements as lie in one page on either side go through host pointers
// (Cpu::direct), everything else element by element. The registers are right after each piece, so it can fault, or make
// way for an interrupt, between any two.
#include <algorithm>
#include <array>
#include <span>

#include "cpu/exec.h"

namespace kite::cpu {
namespace {

constexpr uint8_t kAx = 8 * x86::kRax;

uint64_t address_mask(const Op* op) {
  if (op->address_size == 8) return ~uint64_t{0};
  return op->address_size == 4 ? 0xffffffff : 0xffff;
}
// rsi, rdi and rcx in the width of addresses.
uint64_t pointer(const Cpu& cpu, const Op* op, unsigned number) { return cpu.state.gpr[number] & address_mask(op); }
void set_pointer(Cpu& cpu, const Op* op, unsigned number, uint64_t value) {
  const auto at = static_cast<uint8_t>(8 * number);
  switch (op->address_size) {
    case 2: cpu.set_reg<uint16_t>(at, static_cast<uint16_t>(value)); break;
    case 4: cpu.set_reg<uint32_t>(at, static_cast<uint32_t>(value)); break;
    default: cpu.set_reg<uint64_t>(at, value); break;
  }
}
bool backward(const Cpu& cpu) { return (cpu.state.rflags & x86::flag::kDf) != 0; }
// Moves rsi or rdi over `count` elements in the direction of DF.
template <class T>
void advance(Cpu& cpu, const Op* op, unsigned number, uint64_t count) {
  const uint64_t bytes = count * sizeof(T);
  set_pointer(cpu, op, number, pointer(cpu, op, number) + (backward(cpu) ? uint64_t{0} - bytes : bytes));
}

// Linear address of the element at rsi (segment by prefix) or rdi (always ES).
bool source_address(Cpu& cpu, const Op* op, unsigned bytes, uint64_t& address) {
  return cpu.linear(op, pointer(cpu, op, x86::kRsi), bytes, Access::kRead, address);
}
bool destination_address(Cpu& cpu, const Op* op, unsigned bytes, Access access, uint64_t& address) {
  address = pointer(cpu, op, x86::kRdi);
  if (cpu.code64 || (cpu.mode_key & mode::kFlatEs) != 0) return true;
  return cpu.segment_linear(x86::Seg::kEs, address, bytes, access, address);
}

// A run of elements within one page, by host pointer to the lowest of them.
template <class T>
struct Run {
  uint8_t* host = nullptr;
  uint64_t linear = 0;  // of the lowest element
  uint64_t count = 0;
};

// The elements from `ea` on in the direction of DF that direct memory holds without a page or segment border; none when
// that cannot be told cheaply. Raises nothing.
template <class T>
Run<T> run_at(Cpu& cpu, uint64_t ea, uint64_t base, uint64_t limit, Access access, uint64_t count) {
  Run<T> run;
  const uint64_t address = ea + base;
  unsigned left = 0;
  uint8_t* host = cpu.direct(address, access, left, false);
  if (host == nullptr || left < sizeof(T)) return run;
  if (backward(cpu)) {
    run.count = std::min<uint64_t>(count, (address & (kPageSize - 1)) / sizeof(T) + 1);
    run.count = std::min(run.count, ea / sizeof(T) + 1);
    const uint64_t below = (run.count - 1) * sizeof(T);
    if (ea > limit || limit - ea < sizeof(T) - 1) return Run<T>{};
    run.host = host - below;
    run.linear = address - below;
  } else {
    run.count = std::min<uint64_t>(count, left / sizeof(T));
    if (limit - ea < run.count * sizeof(T) - 1) run.count = 0;
    run.host = host;
    run.linear = address;
  }
  return run;
}

// Whether the segment of rsi (rdi) has neither a limit to check nor surprises, and the offset's highest value.
template <class T>
Run<T> source_run(Cpu& cpu, const Op* op, uint64_t count) {
  const uint64_t ea = pointer(cpu, op, x86::kRsi);
  if (op->flat) return run_at<T>(cpu, ea, 0, address_mask(op), Access::kRead, count);
  if (cpu.code64) return run_at<T>(cpu, ea, cpu.state.seg[op->segment].base, address_mask(op), Access::kRead, count);
  return {};
}
template <class T>
Run<T> destination_run(Cpu& cpu, const Op* op, Access access, uint64_t count) {
  if (!cpu.code64 && (cpu.mode_key & mode::kFlatEs) == 0) return {};
  return run_at<T>(cpu, pointer(cpu, op, x86::kRdi), 0, address_mask(op), access, count);
}

template <class T>
void compare(Cpu& cpu, T a, T b) {
  uint32_t ax;
  asm("cmp %[b], %[a]" KITE_ASM_SAVE_FLAGS : "=&a"(ax) : [a] "r"(a), [b] "r"(b) : "cc");
  cpu.state.cc = flags_of_ax(ax);
}

template <class T>
const Unaligned<T>* elements(const uint8_t* host) {
  return reinterpret_cast<const Unaligned<T>*>(host);
}
template <class T>
Unaligned<T>* elements(uint8_t* host) {
  return reinterpret_cast<Unaligned<T>*>(host);
}

// Each instruction: one() does one element; many() up to `count` at once, or none, answering how many.
// kStops: REPE and REPNE look at ZF. kPointersCut: rDI, or rDI and rSI, for begin_repetition().
template <class T>
struct Movs {
  static constexpr bool kStops = false;
  static constexpr unsigned kPointersCut = 2;
  static bool one(Cpu& cpu, const Op* op) {
    uint64_t from;
    uint64_t to;
    T value;
    if (!source_address(cpu, op, sizeof(T), from) || !cpu.read<T>(from, value, segment_of(op))) return false;
    if (!destination_address(cpu, op, sizeof(T), Access::kWrite, to) || !cpu.write<T>(to, value, x86::Seg::kEs))
      return false;
    advance<T>(cpu, op, x86::kRsi, 1);
    advance<T>(cpu, op, x86::kRdi, 1);
    return true;
  }
  static uint64_t many(Cpu& cpu, const Op* op, uint64_t count) {
    // The source last: filling the destination's translation may displace the source's, never the host memory.
    const Run<T> to = destination_run<T>(cpu, op, Access::kWrite, count);
    if (to.count == 0) return 0;
    const Run<T> from = source_run<T>(cpu, op, to.count);
    const uint64_t n = std::min(from.count, to.count);
    if (n == 0) return 0;
    const uint64_t bytes = n * sizeof(T);
    const uint64_t skip_to = backward(cpu) ? (to.count - n) * sizeof(T) : 0;
    const uint64_t skip_from = backward(cpu) ? (from.count - n) * sizeof(T) : 0;
    copy(to.host + skip_to, from.host + skip_from, bytes, backward(cpu));
    cpu.direct_written(to.linear + skip_to, static_cast<unsigned>(bytes));
    advance<T>(cpu, op, x86::kRsi, n);
    advance<T>(cpu, op, x86::kRdi, n);
    return n;
  }
  // As if element by element: where the ranges overlap against the direction, what was written is read again.
  static void copy(uint8_t* to, const uint8_t* from, uint64_t bytes, bool down) {
    const bool repeats = down ? to < from && from < to + bytes : from < to && to < from + bytes;
    if (!repeats) {
      std::memmove(to, from, bytes);
      return;
    }
    const uint64_t n = bytes / sizeof(T);
    volatile Unaligned<T>* destination = elements<T>(to);
    const volatile Unaligned<T>* source = elements<T>(from);
    if (down)
      for (uint64_t i = n; i-- > 0;) destination[i] = source[i];
    else
      for (uint64_t i = 0; i < n; ++i) destination[i] = source[i];
  }
};

template <class T>
struct Stos {
  static constexpr bool kStops = false;
  static constexpr unsigned kPointersCut = 1;
  static bool one(Cpu& cpu, const Op* op) {
    uint64_t to;
    if (!destination_address(cpu, op, sizeof(T), Access::kWrite, to) ||
        !cpu.write<T>(to, cpu.reg<T>(kAx), x86::Seg::kEs))
      return false;
    advance<T>(cpu, op, x86::kRdi, 1);
    return true;
  }
  static uint64_t many(Cpu& cpu, const Op* op, uint64_t count) {
    const Run<T> to = destination_run<T>(cpu, op, Access::kWrite, count);
    if (to.count == 0) return 0;
    const T value = cpu.reg<T>(kAx);
    if (value == 0)
      std::memset(to.host, 0, to.count * sizeof(T));
    else
      for (uint64_t i = 0; i < to.count; ++i) elements<T>(to.host)[i] = value;
    cpu.direct_written(to.linear, static_cast<unsigned>(to.count * sizeof(T)));
    advance<T>(cpu, op, x86::kRdi, to.count);
    return to.count;
  }
};

template <class T>
struct Lods {
  static constexpr bool kStops = false;
  static constexpr unsigned kPointersCut = 0;
  static bool one(Cpu& cpu, const Op* op) {
    uint64_t from;
    T value;
    if (!source_address(cpu, op, sizeof(T), from) || !cpu.read<T>(from, value, segment_of(op))) return false;
    cpu.set_reg<T>(kAx, value);
    advance<T>(cpu, op, x86::kRsi, 1);
    return true;
  }
  static uint64_t many(Cpu&, const Op*, uint64_t) { return 0; }
};

// Whether a repetition of CMPS or SCAS ends after an element that compared so.
bool stops(const Op* op, bool equal) { return op->insn->repne ? equal : !equal; }

template <class T>
struct Cmps {
  static constexpr bool kStops = true;
  static constexpr unsigned kPointersCut = 0;
  static bool one(Cpu& cpu, const Op* op) {
    uint64_t from;
    uint64_t to;
    T a;
    T b;
    // The destination first, as hosts do: it shows in CR2 when both fault.
    if (!destination_address(cpu, op, sizeof(T), Access::kRead, to) || !cpu.read<T>(to, b, x86::Seg::kEs)) return false;
    if (!source_address(cpu, op, sizeof(T), from) || !cpu.read<T>(from, a, segment_of(op))) return false;
    compare(cpu, a, b);
    advance<T>(cpu, op, x86::kRsi, 1);
    advance<T>(cpu, op, x86::kRdi, 1);
    return true;
  }
  static uint64_t many(Cpu& cpu, const Op* op, uint64_t count) {
    if (backward(cpu)) return 0;
    const Run<T> second = destination_run<T>(cpu, op, Access::kRead, count);
    if (second.count == 0) return 0;
    const Run<T> first = source_run<T>(cpu, op, second.count);
    if (first.count == 0) return 0;
    const uint64_t limit = std::min(first.count, second.count);
    const auto* a = elements<T>(static_cast<const uint8_t*>(first.host));
    const auto* b = elements<T>(static_cast<const uint8_t*>(second.host));
    uint64_t n = 0;
    T left;
    T right;
    do {
      left = a[n];
      right = b[n];
      ++n;
    } while (n < limit && !stops(op, left == right));
    compare<T>(cpu, left, right);
    advance<T>(cpu, op, x86::kRsi, n);
    advance<T>(cpu, op, x86::kRdi, n);
    return n;
  }
};

template <class T>
struct Scas {
  static constexpr bool kStops = true;
  static constexpr unsigned kPointersCut = 0;
  static bool one(Cpu& cpu, const Op* op) {
    uint64_t at;
    T value;
    if (!destination_address(cpu, op, sizeof(T), Access::kRead, at) || !cpu.read<T>(at, value, x86::Seg::kEs))
      return false;
    compare(cpu, cpu.reg<T>(kAx), value);
    advance<T>(cpu, op, x86::kRdi, 1);
    return true;
  }
  static uint64_t many(Cpu& cpu, const Op* op, uint64_t count) {
    if (backward(cpu)) return 0;
    const Run<T> run = destination_run<T>(cpu, op, Access::kRead, count);
    if (run.count == 0) return 0;
    const auto* at = elements<T>(static_cast<const uint8_t*>(run.host));
    const T wanted = cpu.reg<T>(kAx);
    uint64_t n = 0;
    T value;
    do value = at[n++];
    while (n < run.count && !stops(op, wanted == value));
    compare<T>(cpu, wanted, value);
    advance<T>(cpu, op, x86::kRdi, n);
    return n;
  }
};

template <class T>
struct Ins {
  static constexpr bool kStops = false;
  static constexpr unsigned kPointersCut = 0;
  static bool one(Cpu& cpu, const Op* op) {
    const auto port = static_cast<uint16_t>(cpu.state.gpr[x86::kRdx]);
    uint64_t to;
    // The store must be possible before the port is read, which cannot be undone.
    if (!cpu.check_io(port, sizeof(T)) || !destination_address(cpu, op, sizeof(T), Access::kWrite, to) ||
        !cpu.probe(to, sizeof(T), Access::kWrite, x86::Seg::kEs))
      return false;
    const T value = static_cast<T>(cpu.io->pio_read(port, sizeof(T)));
    if (!cpu.write<T>(to, value, x86::Seg::kEs)) return false;
    advance<T>(cpu, op, x86::kRdi, 1);
    return true;
  }
  static uint64_t many(Cpu& cpu, const Op* op, uint64_t count) {
    const auto port = static_cast<uint16_t>(cpu.state.gpr[x86::kRdx]);
    if (backward(cpu) || !cpu.check_io(port, sizeof(T))) return 0;
    const Run<T> place = destination_run<T>(cpu, op, Access::kWrite, count);
    std::array<uint8_t, kPageSize> data;
    const size_t moved =
        place.count == 0 ? 0 : cpu.io->pio_read_many(port, sizeof(T), std::span(data).first(place.count * sizeof(T)));
    const uint64_t n = moved / sizeof(T);
    if (n == 0) return 0;
    // The device may have changed the map: the place is looked up again.
    const Run<T> to = destination_run<T>(cpu, op, Access::kWrite, n);
    if (to.count == n) {
      std::memcpy(to.host, data.data(), moved);
      cpu.direct_written(to.linear, static_cast<unsigned>(moved));
    } else {
      for (uint64_t i = 0; i < n; ++i)
        if (!cpu.write<T>(place.linear + i * sizeof(T), elements<T>(data.data())[i], x86::Seg::kEs)) break;
    }
    advance<T>(cpu, op, x86::kRdi, n);
    return n;
  }
};

template <class T>
struct Outs {
  static constexpr bool kStops = false;
  static constexpr unsigned kPointersCut = 0;
  static bool one(Cpu& cpu, const Op* op) {
    const auto port = static_cast<uint16_t>(cpu.state.gpr[x86::kRdx]);
    uint64_t from;
    T value;
    if (!cpu.check_io(port, sizeof(T)) || !source_address(cpu, op, sizeof(T), from) ||
        !cpu.read<T>(from, value, segment_of(op)))
      return false;
    advance<T>(cpu, op, x86::kRsi, 1);
    cpu.io->pio_write(port, sizeof(T), static_cast<uint32_t>(value));
    return true;
  }
  static uint64_t many(Cpu& cpu, const Op* op, uint64_t count) {
    const auto port = static_cast<uint16_t>(cpu.state.gpr[x86::kRdx]);
    if (backward(cpu) || !cpu.check_io(port, sizeof(T))) return 0;
    const Run<T> from = source_run<T>(cpu, op, count);
    if (from.count == 0) return 0;
    const uint64_t n =
        cpu.io->pio_write_many(port, sizeof(T), std::span<const uint8_t>(from.host, from.count * sizeof(T))) /
        sizeof(T);
    advance<T>(cpu, op, x86::kRsi, n);
    return n;
  }
};

// With 32-bit addresses Intel's processors clear the upper half of rCX before anything else, and those of the pointers
// of REP MOVS and REP STOS, even when nothing is to be done or the first element faults. AMD's change nothing then.
template <class S>
void begin_repetition(Cpu& cpu, const Op* op) {
  if (op->address_size != 4 || cpu.config.cpu->vendor != "GenuineIntel") return;
  set_pointer(cpu, op, x86::kRcx, pointer(cpu, op, x86::kRcx));
  if (S::kPointersCut >= 1) set_pointer(cpu, op, x86::kRdi, pointer(cpu, op, x86::kRdi));
  if (S::kPointersCut == 2) set_pointer(cpu, op, x86::kRsi, pointer(cpu, op, x86::kRsi));
}

template <class S>
void string_once(Cpu& cpu, const Op* op) {
  if (!S::one(cpu, op)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

template <class S>
void string_repeated(Cpu& cpu, const Op* op) {
  begin_repetition<S>(cpu, op);
  uint64_t count = pointer(cpu, op, x86::kRcx);
  if (count == 0) KITE_NEXT(cpu, op);
  const uint64_t cc = cpu.state.cc;
  for (;;) {
    // A breakpoint or a single step wants to see every element.
    const bool careful = cpu.debug.one_element || cpu.debug_hits != 0;
    uint64_t done = careful ? 0 : S::many(cpu, op, count);
    if (done == 0) {
      if (!S::one(cpu, op)) {
        cpu.state.cc = cc;  // [SDM 1, 7.3.9.2] a fault restores EFLAGS
        KITE_FAULT(cpu, op);
      }
      done = 1;
    }
    count -= done;
    set_pointer(cpu, op, x86::kRcx, count);
    if (count == 0) break;
    if constexpr (S::kStops) {
      if (stops(op, (cpu.state.cc & kZf) != 0)) break;
    }
    if (cpu.attention() || cpu.debug.one_element || cpu.debug_hits != 0) [[unlikely]] {
      cpu.state.rip = op->rip;
      return;
    }
  }
  KITE_NEXT(cpu, op);
}

// The low bit of the opcode tells bytes from words throughout this family.
template <template <class> class S>
Handler string_of(const x86::Insn& insn, unsigned widest) {
  const bool repeated = insn.rep || insn.repne;
  const auto pick = [&]<class T>() -> Handler { return repeated ? string_repeated<S<T>> : string_once<S<T>>; };
  return by_width((insn.opcode & 1) == 0 ? 1 : std::min<unsigned>(insn.operand_size, widest), pick);
}

template <bool kImmediate>
uint16_t port_of(const Cpu& cpu, const Op* op) {
  return kImmediate ? static_cast<uint8_t>(op->imm) : static_cast<uint16_t>(cpu.state.gpr[x86::kRdx]);
}

template <class T, bool kImmediate>
void port_in(Cpu& cpu, const Op* op) {
  const uint16_t port = port_of<kImmediate>(cpu, op);
  if (!cpu.check_io(port, sizeof(T))) KITE_FAULT(cpu, op);
  cpu.set_reg<T>(kAx, static_cast<T>(cpu.io->pio_read(port, sizeof(T))));
  KITE_NEXT(cpu, op);
}
template <class T, bool kImmediate>
void port_out(Cpu& cpu, const Op* op) {
  const uint16_t port = port_of<kImmediate>(cpu, op);
  if (!cpu.check_io(port, sizeof(T))) KITE_FAULT(cpu, op);
  cpu.io->pio_write(port, sizeof(T), cpu.reg<T>(kAx));
  // An SMI that the write has asked for comes before the next instruction (SDM 3C 32.12).
  if (cpu.attention()) [[unlikely]] {
    cpu.state.rip = op->next_rip();
    return;
  }
  KITE_NEXT(cpu, op);
}

template <bool kOut>
Handler port_access(const x86::Insn& insn) {
  // [SDM 2A IN] E4-E7 have the port in the instruction, EC-EF in DX.
  const bool immediate = (insn.opcode & 8) == 0;
  return by_width((insn.opcode & 1) == 0 ? 1 : std::min<unsigned>(insn.operand_size, 4), [&]<class T>() -> Handler {
    if constexpr (sizeof(T) == 8)
      return nullptr;
    else if constexpr (kOut)
      return immediate ? port_out<T, true> : port_out<T, false>;
    else
      return immediate ? port_in<T, true> : port_in<T, false>;
  });
}

}  // namespace

Handler string_handler(const x86::Insn& insn) {
  switch (insn.op) {
    case Code::kMovs: return string_of<Movs>(insn, 8);
    case Code::kStos: return string_of<Stos>(insn, 8);
    case Code::kLods: return string_of<Lods>(insn, 8);
    case Code::kCmps: return string_of<Cmps>(insn, 8);
    case Code::kScas: return string_of<Scas>(insn, 8);
    case Code::kIns: return string_of<Ins>(insn, 4);
    case Code::kOuts: return string_of<Outs>(insn, 4);
    case Code::kIn: return port_access<false>(insn);
    case Code::kOut: return port_access<true>(insn);
    default: return nullptr;
  }
}

}  // namespace kite::cpu
