// The XSAVE feature set (SDM 1, chapter 13): x87, SSE, AVX and PKRU state in standard and compacted areas, XCR0.
#include <algorithm>
#include <array>
#include <cstring>

#include "cpu/fpu_ops.h"
#include "cpu/handlers.h"
#include "cpu/mmu.h"

namespace kite::cpu::fpu {
namespace {

namespace xcr0 = x86::xcr0;
using x86::FeatureWord;

constexpr unsigned kHeader = 512, kHeaderBytes = 64, kExtended = kHeader + kHeaderBytes;
constexpr unsigned kXstateBv = kHeader, kXcompBv = kHeader + 8;
constexpr uint64_t kCompacted = uint64_t{1} << 63;
constexpr uint32_t kInitialMxcsr = 0x1f80;

// The components behind the header.
constexpr uint64_t kComponents[] = {xcr0::kAvx, xcr0::kPkru};
constexpr unsigned size_of(uint64_t component) { return component == xcr0::kAvx ? 256 : 8; }
constexpr unsigned standard_offset(uint64_t component) { return component == xcr0::kAvx ? 576 : 2688; }
constexpr unsigned kAreaEnd = 2696;

unsigned offset_in(uint64_t component, uint64_t xcomp_bv) {
  if ((xcomp_bv & kCompacted) == 0) return standard_offset(component);
  unsigned offset = kExtended;
  for (const uint64_t before : kComponents)
    if (before < component && (xcomp_bv & before) != 0) offset += size_of(before);
  return offset;
}

// Bytes to the end of the last of `components`.
unsigned extent(uint64_t components, uint64_t xcomp_bv) {
  unsigned end = kExtended;
  for (const uint64_t component : kComponents)
    if (components & component) end = std::max(end, offset_in(component, xcomp_bv) + size_of(component));
  return end;
}

uint64_t supported(const Cpu& cpu) {
  constexpr uint64_t kHere = xcr0::kX87 | xcr0::kSse | xcr0::kAvx | xcr0::kPkru;
  return x86::supported_xcr0(*cpu.config.cpu) & kHere;
}

bool all_zero(const uint8_t* bytes, size_t count) {
  return *bytes == 0 && std::memcmp(bytes, bytes + 1, count - 1) == 0;  // each is the one before
}

// Registers 8 to 15 do not take part outside 64-bit mode.
unsigned register_bytes(const Cpu& cpu) { return cpu.code64 ? 256 : 128; }

// [SDM 1, 13.6] XINUSE, as a processor that looks would have it.
uint64_t in_use(Cpu& cpu) {
  uint64_t bits = 0;
  const uint8_t* const fx = image(cpu);
  const bool x87_initial = get<uint16_t>(cpu, kFcw) == 0x37f && all_zero(fx + kFsw, kMxcsr - kFsw) &&
                           get<uint32_t>(cpu, kFcs) == 0 && all_zero(fx + kSt0, kXmm0 - kSt0);
  if (!x87_initial) bits |= xcr0::kX87;
  if (!all_zero(fx + kXmm0, register_bytes(cpu))) bits |= xcr0::kSse;
  if (!all_zero(cpu.arch.ymm_high.reg.front().data(), register_bytes(cpu))) bits |= xcr0::kAvx;
  if (cpu.arch.pkru != 0) bits |= xcr0::kPkru;
  return bits;
}

bool state_available(Cpu& cpu) {
  if ((cpu.arch.cr4 & x86::cr4::kOsxsave) == 0) return cpu.raise(Vector::kUd);
  return true;
}
bool area_allowed(Cpu& cpu) {
  if (!state_available(cpu)) return false;
  return (cpu.arch.cr0 & x86::cr0::kTs) == 0 || cpu.raise(Vector::kNm);
}
bool area_address(Cpu& cpu, const Op* op, Access access, uint64_t& address) {
  constexpr unsigned kAlignment = 64;
  if (!area_allowed(cpu) || !address_of(cpu, op, kExtended, access, address)) return false;
  if (address % kAlignment == 0) return true;
  const bool stack = segment_of(op) == Seg::kSs && !Mmu(cpu).canonical(address);
  return cpu.check_alignment(address, 4) && cpu.raise(stack ? Vector::kSs : Vector::kGp, 0);
}

// Hosts look at the last byte of an area first: CR2 shows it.
bool probe_end(Cpu& cpu, const Op* op, unsigned bytes, Access access) {
  uint64_t last = 0;
  return address_of_last(cpu, op, bytes, access, last) && cpu.probe(last, 1, access, segment_of(op));
}

uint64_t pair(const Cpu& cpu) { return (cpu.state.gpr[x86::kRax] & 0xffffffff) | cpu.state.gpr[x86::kRdx] << 32; }
void set_pair(Cpu& cpu, uint64_t value) {
  cpu.state.gpr[x86::kRax] = static_cast<uint32_t>(value);
  cpu.state.gpr[x86::kRdx] = value >> 32;
}

// --- XCR0

void xgetbv(Cpu& cpu, const Op* op) {
  if (!state_available(cpu)) KITE_FAULT(cpu, op);
  const auto index = static_cast<uint32_t>(cpu.state.gpr[x86::kRcx]);
  const bool has_in_use = cpu.has_feature(FeatureWord::kD1Eax, 2);
  if (index > 1 || (index == 1 && !has_in_use)) {
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  set_pair(cpu, index == 0 ? cpu.arch.xcr0 : cpu.arch.xcr0 & in_use(cpu));
  KITE_NEXT(cpu, op);
}

// [SDM 2C XSETBV] x87 state cannot be turned off, AVX needs SSE.
bool valid_xcr0(const Cpu& cpu, uint64_t value) {
  if ((value & xcr0::kX87) == 0 || (value & ~supported(cpu)) != 0) return false;
  return (value & xcr0::kAvx) == 0 || (value & xcr0::kSse) != 0;
}

void xsetbv(Cpu& cpu, const Op* op) {
  if (!state_available(cpu)) KITE_FAULT(cpu, op);
  const uint64_t value = pair(cpu);
  if (cpu.cpl != 0 || static_cast<uint32_t>(cpu.state.gpr[x86::kRcx]) != 0 || !valid_xcr0(cpu, value)) {
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  cpu.arch.xcr0 = value;
  cpu.update_mode();
  KITE_NEXT(cpu, op);
}

// --- saving

// A part of the area that is written.
struct Piece {
  unsigned offset;
  unsigned bytes;
  const void* from;
};
class Pieces {
 public:
  Pieces() = default;
  Pieces(const Pieces&) = delete;
  Pieces& operator=(const Pieces&) = delete;
  void add(unsigned offset, unsigned bytes, const void* from) {
    if (bytes != 0) pieces_[count_++] = {offset, bytes, from};
  }
  void add_pkru(unsigned offset, uint32_t value) {
    pkru_ = value;
    add(offset, sizeof pkru_, &pkru_);
  }
  // All of them or, as far as faults go, none.
  bool write(Cpu& cpu, const Op* op, uint64_t address) const {
    const Seg segment = segment_of(op);
    for (size_t i = 0; i < count_; ++i) {
      const uint64_t at = offset_linear(cpu, op, address, pieces_[i].offset);
      if (!cpu.probe(at, pieces_[i].bytes, Access::kWrite, segment)) return false;
    }
    for (size_t i = 0; i < count_; ++i) {
      const uint64_t at = offset_linear(cpu, op, address, pieces_[i].offset);
      if (!cpu.write_bytes(at, pieces_[i].from, pieces_[i].bytes, segment)) return false;
    }
    return true;
  }

 private:
  std::array<Piece, 8> pieces_{};
  uint64_t pkru_ = 0;  // with the zeroes that fill its component up
  size_t count_ = 0;
};

// `saved`: the components that are written. `xcomp_bv` gives the layout. MXCSR is for the caller.
void add_components(Cpu& cpu, const LegacyImage& legacy, uint64_t saved, uint64_t xcomp_bv, Pieces& out) {
  if (saved & xcr0::kX87) {
    out.add(kFcw, kMxcsr, legacy.data());
    out.add(kSt0, kXmm0 - kSt0, legacy.data() + kSt0);
  }
  if (saved & xcr0::kSse) out.add(kXmm0, register_bytes(cpu), legacy.data() + kXmm0);
  if (saved & xcr0::kAvx)
    out.add(offset_in(xcr0::kAvx, xcomp_bv), register_bytes(cpu), cpu.arch.ymm_high.reg.front().data());
  if (saved & xcr0::kPkru) out.add_pkru(offset_in(xcr0::kPkru, xcomp_bv), cpu.arch.pkru);
}

constexpr unsigned kMxcsrAndMask = 8;

// XSAVE, and with kOptimised XSAVEOPT, which leaves out what is in its initial state.
template <bool kOptimised>
void xsave(Cpu& cpu, const Op* op) {
  uint64_t address = 0, header = 0;
  if (!area_address(cpu, op, Access::kWrite, address)) KITE_FAULT(cpu, op);
  const uint64_t wanted = pair(cpu) & cpu.arch.xcr0, used = in_use(cpu);
  const uint64_t header_at = offset_linear(cpu, op, address, kXstateBv);
  if (!probe_end(cpu, op, extent(wanted, 0), Access::kWrite) ||
      !cpu.probe(header_at, 8, Access::kWrite, segment_of(op)) ||
      !cpu.read_bytes(header_at, &header, 8, segment_of(op)))
    KITE_FAULT(cpu, op);
  const LegacyImage legacy = legacy_image(cpu, wide_pointers(cpu, op));
  Pieces pieces;
  add_components(cpu, legacy, kOptimised ? wanted & used : wanted, 0, pieces);
  if ((wanted & (xcr0::kSse | xcr0::kAvx)) != 0) pieces.add(kMxcsr, kMxcsrAndMask, legacy.data() + kMxcsr);
  header = (header & ~wanted) | (used & wanted);
  pieces.add(kXstateBv, sizeof header, &header);
  if (!pieces.write(cpu, op, address)) KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// XSAVEC, and with kSupervisor XSAVES.
template <bool kSupervisor>
void xsavec(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  if (!area_allowed(cpu)) KITE_FAULT(cpu, op);
  if (kSupervisor && cpu.cpl != 0) {
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  if (!area_address(cpu, op, Access::kWrite, address)) KITE_FAULT(cpu, op);
  const uint64_t wanted = pair(cpu) & (cpu.arch.xcr0 | (kSupervisor ? cpu.arch.xss : 0));
  uint64_t saved = wanted & in_use(cpu);
  if (get<uint32_t>(cpu, kMxcsr) != kInitialMxcsr) saved |= wanted & xcr0::kSse;
  const std::array<uint64_t, 2> header = {saved, wanted | kCompacted};
  const LegacyImage legacy = legacy_image(cpu, wide_pointers(cpu, op));
  Pieces pieces;
  add_components(cpu, legacy, saved, header[1], pieces);
  if (saved & xcr0::kSse) pieces.add(kMxcsr, kMxcsrAndMask, legacy.data() + kMxcsr);
  pieces.add(kXstateBv, sizeof header, header.data());
  if (!probe_end(cpu, op, extent(wanted, header[1]), Access::kWrite) || !pieces.write(cpu, op, address))
    KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

// --- restoring

struct Area {
  std::array<uint8_t, kAreaEnd> bytes;  // what has been read of them
  uint64_t xstate_bv = 0, xcomp_bv = 0;
  bool has_mxcsr = false;  // it is loaded from here
};

// [SDM 1, 13.8 and 13.12] What makes #GP.
bool valid_header(const Cpu& cpu, const Area& area, bool supervisor) {
  const uint8_t* const header = area.bytes.data() + kHeader;
  const uint64_t allowed = cpu.arch.xcr0 | (supervisor ? cpu.arch.xss : 0);
  if ((area.xcomp_bv & kCompacted) == 0)
    return !supervisor && (area.xstate_bv & ~allowed) == 0 && all_zero(header + 8, 16);
  if (!supervisor && !cpu.has_feature(FeatureWord::kD1Eax, 1)) return false;
  return (area.xcomp_bv & ~kCompacted & ~allowed) == 0 && (area.xstate_bv & ~area.xcomp_bv) == 0 &&
         all_zero(header + 16, kHeaderBytes - 16) && (area.xstate_bv & kCompacted) == 0;
}

bool read_part(Cpu& cpu, const Op* op, uint64_t address, Area& area, unsigned offset, unsigned bytes) {
  return cpu.read_bytes(offset_linear(cpu, op, address, offset), &area.bytes[offset], bytes, segment_of(op));
}

bool valid_mxcsr(const Area& area) { return (load<uint32_t>(&area.bytes[kMxcsr]) & ~FpuThunks::mxcsr_mask()) == 0; }

// Everything that will be loaded comes in before anything changes.
bool read_area(Cpu& cpu, const Op* op, uint64_t address, uint64_t wanted, bool supervisor, Area& area) {
  // Hosts begin with XCOMP_BV: CR2 shows it.
  if (!read_part(cpu, op, address, area, kXcompBv, 8) || !read_part(cpu, op, address, area, kHeader, kHeaderBytes))
    return false;
  area.xstate_bv = load<uint64_t>(&area.bytes[kXstateBv]);
  area.xcomp_bv = load<uint64_t>(&area.bytes[kXcompBv]);
  const bool compacted = (area.xcomp_bv & kCompacted) != 0;
  if (!probe_end(cpu, op, extent(compacted ? area.xcomp_bv : wanted, area.xcomp_bv), Access::kRead)) return false;
  if (!valid_header(cpu, area, supervisor)) return cpu.raise(Vector::kGp, 0);
  const uint64_t loaded = wanted & area.xstate_bv;
  const bool standard_mxcsr = (area.xcomp_bv & kCompacted) == 0 && (wanted & (xcr0::kSse | xcr0::kAvx)) != 0;
  if ((loaded & (xcr0::kX87 | xcr0::kSse)) != 0 || standard_mxcsr)
    if (!read_part(cpu, op, address, area, 0, kImageEnd)) return false;
  for (const uint64_t component : kComponents)
    if (loaded & component)
      if (!read_part(cpu, op, address, area, offset_in(component, area.xcomp_bv), size_of(component))) return false;
  area.has_mxcsr = standard_mxcsr || (loaded & xcr0::kSse) != 0;
  return compacted || !area.has_mxcsr || valid_mxcsr(area) || cpu.raise(Vector::kGp, 0);
}

void initialise_x87(Cpu& cpu) {
  std::memset(image(cpu), 0, kMxcsr);
  std::memset(image(cpu) + kSt0, 0, kXmm0 - kSt0);
  set<uint16_t>(cpu, kFcw, 0x37f);
  set<uint32_t>(cpu, kFcs, 0);
}

void initialise(Cpu& cpu, uint64_t components) {
  if (components & xcr0::kX87) initialise_x87(cpu);
  if (components & xcr0::kSse) std::memset(image(cpu) + kXmm0, 0, register_bytes(cpu));
  if (components & xcr0::kAvx) std::memset(cpu.arch.ymm_high.reg.data(), 0, register_bytes(cpu));
  if (components & xcr0::kPkru) cpu.set_pkru(0);
}

// False: #GP was raised for the MXCSR of a compacted area. The order is that of hosts, so that the same is done by
// then.
bool restore(Cpu& cpu, const Op* op, const Area& area, uint64_t wanted) {
  const uint64_t loaded = wanted & area.xstate_bv;
  const auto part = [&](uint64_t component) { return &area.bytes[offset_in(component, area.xcomp_bv)]; };
  initialise(cpu, wanted & ~loaded);
  if (loaded & xcr0::kX87) load_x87(cpu, area.bytes.data(), wide_pointers(cpu, op));
  if (area.has_mxcsr) {
    if (!valid_mxcsr(area)) return cpu.raise(Vector::kGp, 0);
    set(cpu, kMxcsr, load<uint32_t>(&area.bytes[kMxcsr]));
  } else if (wanted & xcr0::kSse) {  // a compacted area without SSE
    set(cpu, kMxcsr, kInitialMxcsr);
  }
  if (loaded & xcr0::kSse) std::memcpy(image(cpu) + kXmm0, &area.bytes[kXmm0], register_bytes(cpu));
  if (loaded & xcr0::kAvx) std::memcpy(cpu.arch.ymm_high.reg.data(), part(xcr0::kAvx), register_bytes(cpu));
  if (loaded & xcr0::kPkru) cpu.set_pkru(load<uint32_t>(part(xcr0::kPkru)));
  return true;
}

// XRSTOR, and with kSupervisor XRSTORS.
template <bool kSupervisor>
void xrstor(Cpu& cpu, const Op* op) {
  uint64_t address = 0;
  if (!area_allowed(cpu)) KITE_FAULT(cpu, op);
  if (kSupervisor && cpu.cpl != 0) {
    cpu.raise(Vector::kGp, 0);
    KITE_FAULT(cpu, op);
  }
  const uint64_t wanted = pair(cpu) & (cpu.arch.xcr0 | (kSupervisor ? cpu.arch.xss : 0));
  Area area;
  if (!area_address(cpu, op, Access::kRead, address) || !read_area(cpu, op, address, wanted, kSupervisor, area) ||
      !restore(cpu, op, area, wanted))
    KITE_FAULT(cpu, op);
  KITE_NEXT(cpu, op);
}

}  // namespace

Handler xsave_handler(const Op& op) {
  switch (op.insn->op) {
    case x86::Op::kXgetbv: return xgetbv;
    case x86::Op::kXsetbv: return xsetbv;
    case x86::Op::kXsave: return xsave<false>;
    case x86::Op::kXsaveopt: return xsave<true>;
    case x86::Op::kXsavec: return xsavec<false>;
    case x86::Op::kXsaves: return xsavec<true>;
    case x86::Op::kXrstor: return xrstor<false>;
    case x86::Op::kXrstors: return xrstor<true>;
    default: return invalid_opcode;
  }
}

}  // namespace kite::cpu::fpu
