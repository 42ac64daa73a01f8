// Control registers and EFER (SDM 3A 2.5, 4.1, 10.8.5).
#include "cpu/control.h"

#include "cpu/cpu.h"
#include "cpu/mmu.h"
#include "support/bits.h"

namespace kite::cpu {

namespace {

namespace cr0 = x86::cr0;
namespace cr4 = x86::cr4;
namespace efer = x86::efer;
using x86::FeatureWord;
using x86::Seg;
using x86::Vector;

// A CR4 bit exists when one of these features is offered.
struct Cr4Bit {
  uint64_t bit;
  FeatureWord word;
  uint8_t feature;
};
constexpr Cr4Bit kCr4Bits[] = {
    {cr4::kTsd, FeatureWord::k1Edx, 4},      {cr4::kDe, FeatureWord::k1Edx, 2},
    {cr4::kPse, FeatureWord::k1Edx, 3},      {cr4::kPae, FeatureWord::k1Edx, 6},
    {cr4::kMce, FeatureWord::k1Edx, 7},      {cr4::kPge, FeatureWord::k1Edx, 13},
    {cr4::kOsfxsr, FeatureWord::k1Edx, 24},  {cr4::kOsxmmexcpt, FeatureWord::k1Edx, 25},
    {cr4::kUmip, FeatureWord::k7Ecx, 2},     {cr4::kLa57, FeatureWord::k7Ecx, 16},
    {cr4::kFsgsbase, FeatureWord::k7Ebx, 0}, {cr4::kPcide, FeatureWord::k1Ecx, 17},
    {cr4::kOsxsave, FeatureWord::k1Ecx, 26}, {cr4::kSmep, FeatureWord::k7Ebx, 7},
    {cr4::kSmap, FeatureWord::k7Ebx, 20},    {cr4::kVme, FeatureWord::k1Edx, 1},
    {cr4::kPvi, FeatureWord::k1Edx, 1},      {cr4::kPke, FeatureWord::k7Ecx, 3},
    {cr4::kPks, FeatureWord::k7Ecx, 31},     {cr4::kLamSup, FeatureWord::k71Eax, 26},
};

constexpr unsigned kLamFeature = 26;  // CPUID.7.1:EAX

bool pae_paging(uint64_t cr0_value, uint64_t cr4_value, uint64_t efer_value) {
  return (cr0_value & cr0::kPg) != 0 && (cr4_value & cr4::kPae) != 0 && (efer_value & efer::kLme) == 0;
}

bool write_cr0(Cpu& cpu, uint64_t value) {
  constexpr uint64_t kKnown = cr0::kPe | cr0::kMp | cr0::kEm | cr0::kTs | cr0::kEt | cr0::kNe | cr0::kWp | cr0::kAm |
                              cr0::kNw | cr0::kCd | cr0::kPg;
  auto& arch = cpu.arch;
  if (value >> 32 != 0) return cpu.raise(Vector::kGp, 0);
  value = (value & kKnown) | cr0::kEt;
  const uint64_t old = arch.cr0;
  const uint64_t changed = old ^ value;
  const bool paging = (value & cr0::kPg) != 0;
  if ((paging && (value & cr0::kPe) == 0) || ((value & cr0::kNw) != 0 && (value & cr0::kCd) == 0))
    return cpu.raise(Vector::kGp, 0);
  if ((changed & cr0::kPg) != 0 && paging && (arch.efer & efer::kLme) != 0) {
    // [SDM 3A 10.8.5] Activation of IA-32e mode.
    if ((arch.cr4 & cr4::kPae) == 0 || cpu.seg(Seg::kCs).long_mode()) return cpu.raise(Vector::kGp, 0);
  }
  if ((changed & cr0::kPg) != 0 && !paging && (cpu.code64 || (arch.cr4 & cr4::kPcide) != 0))
    return cpu.raise(Vector::kGp, 0);
  // [SDM 3A 4.4.1] The PDPTEs are loaded again when these change under PAE paging.
  if ((changed & (cr0::kPg | cr0::kCd | cr0::kNw)) != 0 && pae_paging(value, arch.cr4, arch.efer) &&
      !Mmu(cpu).load_pdptes(arch.cr3))
    return cpu.raise(Vector::kGp, 0);

  arch.cr0 = value;
  if ((changed & cr0::kPg) != 0)
    arch.efer = paging && (arch.efer & efer::kLme) != 0 ? arch.efer | efer::kLma : arch.efer & ~efer::kLma;
  if ((changed & (cr0::kPg | cr0::kWp | cr0::kPe)) != 0) cpu.flush_tlb(false);
  cpu.update_mode();
  return true;
}

bool write_cr3(Cpu& cpu, uint64_t value) {
  constexpr uint64_t kLam = x86::cr3::kLamU48 | x86::cr3::kLamU57;
  auto& arch = cpu.arch;
  if (!cpu.long_mode()) {
    value = static_cast<uint32_t>(value);
    if (pae_paging(arch.cr0, arch.cr4, arch.efer) && !Mmu(cpu).load_pdptes(value)) return cpu.raise(Vector::kGp, 0);
  } else {
    const uint64_t allowed = low_mask(kPhysicalBits) | (cpu.has_feature(FeatureWord::k71Eax, kLamFeature) ? kLam : 0);
    if ((arch.cr4 & cr4::kPcide) != 0) value &= ~x86::cr3::kNoFlush;  // without tags, not flushing cannot be had
    if ((value & ~allowed) != 0) return cpu.raise(Vector::kGp, 0);
  }
  // Global translations were made under the old way of reading addresses, too.
  const bool same_addresses = ((arch.cr3 ^ value) & kLam) == 0;
  arch.cr3 = value;
  cpu.flush_tlb(same_addresses && (arch.cr4 & cr4::kPge) != 0);
  return true;
}

bool write_cr4(Cpu& cpu, uint64_t value) {
  auto& arch = cpu.arch;
  const uint64_t changed = arch.cr4 ^ value;
  const uint64_t set = changed & value;
  if ((value & ~offered_cr4(cpu)) != 0) return cpu.raise(Vector::kGp, 0);
  if (cpu.long_mode() && ((value & cr4::kPae) == 0 || (changed & cr4::kLa57) != 0)) return cpu.raise(Vector::kGp, 0);
  if ((set & cr4::kPcide) != 0 && (!cpu.long_mode() || (arch.cr3 & 0xfff) != 0)) return cpu.raise(Vector::kGp, 0);
  if ((changed & (cr4::kPae | cr4::kPge | cr4::kPse | cr4::kSmep)) != 0 && pae_paging(arch.cr0, value, arch.efer) &&
      !Mmu(cpu).load_pdptes(arch.cr3))
    return cpu.raise(Vector::kGp, 0);
  arch.cr4 = value;
  constexpr uint64_t kTranslation = cr4::kPse | cr4::kPae | cr4::kPge | cr4::kPcide | cr4::kSmep | cr4::kSmap |
                                    cr4::kLa57 | cr4::kPke | cr4::kPks | cr4::kLamSup;
  if ((changed & kTranslation) != 0) cpu.flush_tlb(false);
  if ((changed & cr4::kDe) != 0) cpu.update_debug();
  cpu.update_mode();
  return true;
}

bool write_cr8(Cpu& cpu, uint64_t value) {
  if (value >> 4 != 0) return cpu.raise(Vector::kGp, 0);
  cpu.arch.cr8 = value;
  if (cpu.config.apic != nullptr) cpu.config.apic->set_cr8(static_cast<uint8_t>(value));
  return true;
}

}  // namespace

bool Cpu::read_control(unsigned number, uint64_t& value) {
  switch (number) {
    case 0: value = arch.cr0; break;
    case 2: value = arch.cr2; break;
    case 3: value = arch.cr3; break;
    case 4: value = arch.cr4; break;
    case 8: value = config.apic != nullptr ? config.apic->cr8() : arch.cr8; break;
    default: return raise(Vector::kUd);
  }
  return cpl == 0 || raise(Vector::kGp, 0);
}

bool Cpu::write_control(unsigned number, uint64_t value) {
  if (number > 8 || number == 1 || (number >= 5 && number <= 7)) return raise(Vector::kUd);
  if (cpl != 0) return raise(Vector::kGp, 0);
  switch (number) {
    case 0: return write_cr0(*this, value);
    case 3: return write_cr3(*this, value);
    case 4: return write_cr4(*this, value);
    case 8: return write_cr8(*this, value);
    default: arch.cr2 = value; return true;
  }
}

uint64_t offered_cr4(const Cpu& cpu) {
  uint64_t bits = cr4::kPce;  // RDPMC is there on every long-mode CPU, counters or not
  for (const Cr4Bit& row : kCr4Bits)
    if (cpu.has_feature(row.word, row.feature)) bits |= row.bit;
  return bits;
}

uint64_t offered_efer(const Cpu& cpu) {
  uint64_t allowed = 0;
  if (cpu.has_feature(FeatureWord::k80000001Edx, 11)) allowed |= efer::kSce;
  if (cpu.has_feature(FeatureWord::k80000001Edx, 29)) allowed |= efer::kLme;
  if (cpu.has_feature(FeatureWord::k80000001Edx, 20)) allowed |= efer::kNxe;
  if (cpu.has_feature(FeatureWord::k80000001Edx, 25)) allowed |= efer::kFfxsr;
  return allowed;
}

// IA32_EFER. False: #GP was raised.
bool write_efer(Cpu& cpu, uint64_t value) {
  const uint64_t old = cpu.arch.efer;
  if ((value & ~(offered_efer(cpu) | efer::kLma)) != 0) return cpu.raise(Vector::kGp, 0);
  if (((old ^ value) & efer::kLme) != 0 && (cpu.arch.cr0 & cr0::kPg) != 0) return cpu.raise(Vector::kGp, 0);
  cpu.arch.efer = (value & ~efer::kLma) | (old & efer::kLma);
  if (((old ^ value) & efer::kNxe) != 0) cpu.flush_tlb(false);
  cpu.update_mode();
  return true;
}

}  // namespace kite::cpu
