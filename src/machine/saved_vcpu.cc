#include "machine/saved_vcpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "devices/section.h"

namespace kite::machine {

namespace {

using x86::ArchState;

// Every member by name: a new one does not build until it is saved.
template <class Codec>
void visit(Codec& codec, uint16_t first, x86::SegmentRegister& segment) {
  auto& [selector, attributes, limit, base] = segment;
  codec.field(first, selector);
  codec.field(static_cast<uint16_t>(first + 1), attributes);
  codec.field(static_cast<uint16_t>(first + 2), limit);
  codec.field(static_cast<uint16_t>(first + 3), base);
}

template <class Codec>
void visit(Codec& codec, uint16_t first, x86::DescriptorTable& table) {
  auto& [base, limit] = table;
  codec.field(first, base);
  codec.field(static_cast<uint16_t>(first + 1), limit);
}

template <class Codec>
void visit(Codec& codec, ArchState& state) {
  auto& [gpr, rip, rflags, seg, ldtr, tr, gdtr, idtr, cr0, cr2, cr3, cr4, cr8, xcr0, pdpte, efer, dr, dr6, dr7, fx,
         ymm_high, pkru, pkrs, xss, star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip,
         pat, tsc_aux, misc_enable, debugctl, tsc_offset, tsc_adjust, spec_ctrl, mcg_status, mcg_ctl, mc_bank, mtrr,
         activity, interrupt_shadow, nmi_blocked, smm, smm_inside_nmi, smi_pending, smbase, nmi_pending] = state;
  constexpr uint16_t kSegments = 100, kPerSegment = 4, kRest = 200;
  codec.field(1, gpr), codec.field(2, rip), codec.field(3, rflags);
  uint16_t at = kSegments;
  for (auto& segment : seg) visit(codec, std::exchange(at, static_cast<uint16_t>(at + kPerSegment)), segment);
  visit(codec, std::exchange(at, static_cast<uint16_t>(at + kPerSegment)), ldtr);
  visit(codec, std::exchange(at, static_cast<uint16_t>(at + kPerSegment)), tr);
  visit(codec, std::exchange(at, static_cast<uint16_t>(at + kPerSegment)), gdtr);
  visit(codec, at, idtr);
  at = kRest;
  const auto next = [&](auto& value) { codec.field(at++, value); };
  next(cr0), next(cr2), next(cr3), next(cr4), next(cr8), next(xcr0), next(pdpte), next(efer);
  next(dr), next(dr6), next(dr7);
  next(fx.bytes), next(ymm_high.reg), next(pkru), next(pkrs), next(xss);
  next(star), next(lstar), next(cstar), next(sfmask), next(kernel_gs_base);
  next(sysenter_cs), next(sysenter_esp), next(sysenter_eip);
  next(pat), next(tsc_aux), next(misc_enable), next(debugctl), next(tsc_offset), next(tsc_adjust), next(spec_ctrl);
  next(mcg_status), next(mcg_ctl), next(mc_bank);
  auto& [def_type, fixed, base, mask] = mtrr;
  next(def_type), next(fixed), next(base), next(mask);
  next(activity), next(interrupt_shadow), next(nmi_blocked);
  next(smm), next(smm_inside_nmi), next(smi_pending), next(smbase), next(nmi_pending);
}

struct VcpuV1 {
  static constexpr uint32_t kVersion = 1;
  ArchState arch;
  Vcpu::Asked asked;
  std::vector<uint8_t> own;
};

template <class Codec>
void visit(Codec& codec, VcpuV1& wire) {
  visit(codec, wire.arch);
  codec.field(300, wire.asked.requests);
  codec.field(301, wire.asked.sipi_vector);
  codec.field(302, wire.own);
}

bool canonical(uint64_t address) { return static_cast<uint64_t>(static_cast<int64_t>(address << 7) >> 7) == address; }

std::string section_name(size_t index) { return fmt::format("cpu/{}", index); }

}  // namespace

// SDM 3A 2.5, 4.1, 10.8.5
bool is_possible(const ArchState& state) {
  using namespace x86;
  const bool paging = (state.cr0 & cr0::kPg) != 0, long_mode = (state.efer & efer::kLma) != 0;
  if (paging && (state.cr0 & cr0::kPe) == 0) return false;
  if (long_mode != (paging && (state.efer & efer::kLme) != 0)) return false;
  if (long_mode && (state.cr4 & cr4::kPae) == 0) return false;
  if ((state.cr0 >> 32) != 0 || state.cr8 > 15 || (state.xcr0 & 1) == 0) return false;
  if ((state.dr6 >> 32) != 0 || (state.dr7 >> 32) != 0) return false;
  if (state.activity > Activity::kShutdown || state.nmi_pending > 2) return false;
  const auto has_base = [](const SegmentRegister& segment) { return canonical(segment.base); };
  return canonical(state.rip) && std::ranges::all_of(state.seg, has_base) && has_base(state.ldtr) && has_base(state.tr);
}

void save_vcpu(StateWriter& writer, size_t index, Vcpu& vcpu) {
  VcpuV1 wire;
  vcpu.get_state(wire.arch);
  wire.asked = vcpu.asked();
  wire.own = vcpu.save_own();
  devices::save_section(writer, section_name(index), std::move(wire));
}

void restore_vcpu(StateReader& reader, size_t index, Vcpu& vcpu) {
  VcpuV1 wire;
  if (!devices::restore_section(reader, section_name(index), wire, [&] {
        devices::require(reader, is_possible(wire.arch), "no processor can be in this state");
        devices::require(reader, (wire.asked.requests & ~Vcpu::kSavedRequests) == 0, "the requests are unknown");
      }))
    return;
  if (const auto done = vcpu.restore_own(wire.own); !done) return reader.reject(done.error().message);
  if (wire.own.empty()) vcpu.set_state(wire.arch);
  vcpu.ask_again(wire.asked);
}

}  // namespace kite::machine
