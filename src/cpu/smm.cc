#include "cpu/smm.h"

#include <array>

#include "cpu/control.h"
#include "cpu/mmu.h"
#include "cpu/segments.h"
#include "support/bits.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::cpu {

namespace {

namespace cr0 = x86::cr0;
namespace cr4 = x86::cr4;
namespace efer = x86::efer;
using x86::Activity;
using x86::ArchState;
using x86::FeatureWord;
using x86::Seg;
using x86::SegmentRegister;

constexpr uint64_t kEntryPoint = 0x8000;
constexpr unsigned kMapStart = 0xfe00, kMapBytes = 0x200;  // from SMBASE
// SMM revision: bit 17 says that SMBASE can be moved, the low half which map it is.
constexpr uint32_t kRevision64 = 0x00020064, kRevision32 = 0x00020000;

// The save map, in the middle of being written or read: one description of it serves both ways.
class SaveMap {
 public:
  enum class Way : uint8_t { kSave, kLoad };
  explicit SaveMap(Way way) : way_(way) {}

  [[nodiscard]] std::array<uint8_t, kMapBytes>& bytes() { return bytes_; }
  [[nodiscard]] bool loading() const { return way_ == Way::kLoad; }
  // `width` bytes at `offset` from SMBASE.
  template <class T>
  void field(unsigned offset, T& value, unsigned width = sizeof(T)) {
    uint8_t* at = bytes_.data() + (offset - kMapStart);
    if (loading())
      value = static_cast<T>(load_le(at, width));
    else
      store_le(at, width, static_cast<uint64_t>(value));
  }
  // What is written but not believed when it is read.
  void constant(unsigned offset, uint64_t value, unsigned width) {
    uint64_t copy = value;
    if (!loading()) field(offset, copy, width);
  }
  // Descriptor attributes, as SegmentRegister has them; bit 8 is not the architecture's, and stands for "unusable".
  void attributes(unsigned offset, uint32_t& value, unsigned width) {
    constexpr uint32_t kMapUnusable = 0x100;
    uint32_t packed = (value & 0xf0ff) | ((value & kUnusable) != 0 ? kMapUnusable : 0);
    field(offset, packed, width);
    if (loading()) value = (packed & 0xf0ff) | ((packed & kMapUnusable) != 0 ? kUnusable : 0);
  }

 private:
  Way way_;
  std::array<uint8_t, kMapBytes> bytes_{};
};

// [APM 2 table 10-1]
void visit_segment64(SaveMap& map, unsigned offset, SegmentRegister& segment) {
  map.field(offset, segment.selector);
  map.attributes(offset + 2, segment.attributes, 2);
  map.field(offset + 4, segment.limit);
  map.field(offset + 8, segment.base);
}
void visit_table64(SaveMap& map, unsigned offset, x86::DescriptorTable& table) {
  map.field(offset + 4, table.limit);
  map.field(offset + 8, table.base);
}

// [APM 2 table 10-1]
void visit64(SaveMap& map, ArchState& state, bool& halted) {
  for (unsigned i = 0; i < x86::kSegCount; ++i) visit_segment64(map, 0xfe00 + i * 16, state.seg[i]);
  visit_table64(map, 0xfe60, state.gdtr);
  visit_segment64(map, 0xfe70, state.ldtr);
  visit_table64(map, 0xfe80, state.idtr);
  visit_segment64(map, 0xfe90, state.tr);
  map.field(0xfec9, halted, 1);
  map.field(0xfed0, state.efer);
  map.constant(0xfefc, kRevision64, 4);
  map.field(0xff00, state.smbase);
  map.field(0xff48, state.cr4);
  map.field(0xff50, state.cr3);
  map.field(0xff58, state.cr0);
  map.field(0xff60, state.dr7);
  map.field(0xff68, state.dr6);
  map.field(0xff70, state.rflags);
  map.field(0xff78, state.rip);
  for (unsigned i = 0; i < 8; ++i) map.field(0xff80 + i * 8, state.gpr[15 - i]);
  static constexpr unsigned kOrder[] = {x86::kRdi, x86::kRsi, x86::kRbp, x86::kRsp,
                                        x86::kRbx, x86::kRdx, x86::kRcx, x86::kRax};
  for (unsigned i = 0; i < 8; ++i) map.field(0xffc0 + i * 8, state.gpr[kOrder[i]]);
}

// The map of processors without long mode (SDM 3C table 32-1); hidden parts and CR4 lie where it has nothing to say.
void visit_hidden32(SaveMap& map, unsigned offset, SegmentRegister& segment) {
  map.attributes(offset, segment.attributes, 4);
  map.field(offset + 4, segment.limit);
  map.field(offset + 8, segment.base, 4);
}
void visit32(SaveMap& map, ArchState& state, bool& halted) {
  static constexpr unsigned kGprOrder[] = {x86::kRax, x86::kRcx, x86::kRdx, x86::kRbx,
                                           x86::kRsp, x86::kRbp, x86::kRsi, x86::kRdi};
  map.constant(0xfefc, kRevision32, 4);
  map.field(0xfef8, state.smbase);
  map.field(0xff02, halted, 1);
  map.field(0xff14, state.cr4, 4);
  for (unsigned i = 0; i < x86::kSegCount; ++i) {
    map.field(0xffa8 + i * 4, state.seg[i].selector);
    visit_hidden32(map, i < 3 ? 0xff84 + i * 12 : 0xff2c + (i - 3) * 12, state.seg[i]);
  }
  map.field(0xff54, state.idtr.limit);
  map.field(0xff58, state.idtr.base, 4);
  visit_hidden32(map, 0xff5c, state.tr);
  map.field(0xff70, state.gdtr.limit);
  map.field(0xff74, state.gdtr.base, 4);
  visit_hidden32(map, 0xff78, state.ldtr);
  map.field(0xffc0, state.ldtr.selector);
  map.field(0xffc4, state.tr.selector);
  map.field(0xffc8, state.dr7, 4);
  map.field(0xffcc, state.dr6, 4);
  for (unsigned i = 0; i < 8; ++i) map.field(0xffd0 + i * 4, state.gpr[kGprOrder[i]], 4);
  map.field(0xfff0, state.rip, 4);
  map.field(0xfff4, state.rflags, 4);
  map.field(0xfff8, state.cr3, 4);
  map.field(0xfffc, state.cr0, 4);
}

void visit(const Cpu& cpu, SaveMap& map, ArchState& state, bool& halted) {
  if (cpu.has_feature(FeatureWord::k80000001Edx, 29))
    visit64(map, state, halted);
  else
    visit32(map, state, halted);
}

// [APM 2 table 10-4; SDM 3C 32.5.1] The initial environment: like real mode, with 4 GiB segments.
void set_entry_state(ArchState& state) {
  constexpr uint32_t kData4Gib = 0x8093;
  state.cr0 &= ~(cr0::kPe | cr0::kEm | cr0::kTs | cr0::kPg);
  state.cr4 = 0;
  state.efer = 0;
  state.dr7 = x86::dr7::kReset;
  state.rflags = x86::flag::kFixed1;
  state.rip = kEntryPoint;
  state.seg.fill({.selector = 0, .attributes = kData4Gib, .limit = 0xffffffff, .base = 0});
  SegmentRegister& cs = state.seg[static_cast<size_t>(Seg::kCs)];
  cs.selector = static_cast<uint16_t>(state.smbase >> 4);
  cs.base = state.smbase;
  state.activity = Activity::kActive;
}

// What makes RSM shut the processor down (APM 2 10.3.5; SDM 3C 32.4.1).
bool possible(const Cpu& cpu, const ArchState& state) {
  const bool paging = (state.cr0 & cr0::kPg) != 0;
  if (state.cr0 >> 32 != 0 || (paging && (state.cr0 & cr0::kPe) == 0)) return false;
  if ((state.cr0 & (cr0::kNw | cr0::kCd)) == cr0::kNw) return false;
  if ((state.cr4 & ~offered_cr4(cpu)) != 0 || (state.efer & ~(offered_efer(cpu) | efer::kLma)) != 0) return false;
  const bool long_mode = paging && (state.efer & efer::kLme) != 0;
  if (((state.efer & efer::kLma) != 0) != long_mode || (long_mode && (state.cr4 & cr4::kPae) == 0)) return false;
  const SegmentRegister& cs = state.seg[static_cast<size_t>(Seg::kCs)];
  return !(long_mode && cs.long_mode() && cs.big()) && state.dr6 >> 32 == 0 && state.dr7 >> 32 == 0;
}

}  // namespace

void enter_smm(Cpu& cpu) {
  ArchState state;
  cpu.get_state(state);
  bool halted = cpu.arch.activity == Activity::kHalted && !cpu.mwait.waiting;
  SaveMap map(SaveMap::Way::kSave);
  visit(cpu, map, state, halted);

  log::print(log::Category::kInterrupts, "SMI at {:04x}:{:x}, smbase {:#x}", cpu.seg(Seg::kCs).selector, cpu.state.rip,
             state.smbase);
  const bool nmi_was_blocked = state.nmi_blocked;
  state.smm = true;
  state.smm_inside_nmi = nmi_was_blocked;
  state.nmi_blocked = true;
  set_entry_state(state);
  cpu.set_state(state);  // what follows sees the other memory
  Mmu mmu(cpu);
  for (unsigned at = 0; at < kMapBytes; at += 8)
    mmu.physical_write(state.smbase + kMapStart + at, 8, load_le(map.bytes().data() + at, 8));
}

bool leave_smm(Cpu& cpu) {
  ArchState state;
  cpu.get_state(state);
  SaveMap map(SaveMap::Way::kLoad);
  Mmu mmu(cpu);
  for (unsigned at = 0; at < kMapBytes; at += 8)
    store_le(map.bytes().data() + at, 8, mmu.physical_read(state.smbase + kMapStart + at, 8));
  bool halted = false;
  visit(cpu, map, state, halted);
  if (!cpu.has_feature(FeatureWord::k80000001Edx, 29)) {
    for (uint64_t& gpr : state.gpr) gpr = static_cast<uint32_t>(gpr);
    state.efer = 0;
  }
  if (!possible(cpu, state)) {
    log::guest_error("cpu {}: RSM found an impossible state (cr0 {:#x}, cr4 {:#x}, efer {:#x})", cpu.config.index,
                     state.cr0, state.cr4, state.efer);
    return false;
  }
  state.smm = false;
  state.nmi_blocked = state.smm_inside_nmi;
  state.smm_inside_nmi = false;
  // [APM 2 10.3.3] The byte may have been cleared: then the program goes on behind its HLT.
  state.activity = halted ? Activity::kHalted : Activity::kActive;
  state.dr6 |= x86::dr6::kReset;
  state.dr7 |= x86::dr7::kReset;
  cpu.set_state(state);
  log::print(log::Category::kInterrupts, "RSM to {:04x}:{:x}, smbase {:#x}", cpu.seg(Seg::kCs).selector, cpu.state.rip,
             state.smbase);
  const bool pae = (state.cr0 & cr0::kPg) != 0 && (state.cr4 & cr4::kPae) != 0 && !cpu.long_mode();
  return !pae || Mmu(cpu).load_pdptes(state.cr3);
}

}  // namespace kite::cpu
