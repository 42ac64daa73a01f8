#include "accel/kvm/kvm_report.h"

#include <fmt/format.h>

namespace kite {

namespace {

struct ExitName {
  std::string_view name;
  bool foreign = false;
};

constexpr ExitName kExitNames[] = {
    {"UNKNOWN"},
    {"EXCEPTION"},
    {"IO"},
    {"HYPERCALL"},
    {"DEBUG"},
    {"HLT"},
    {"MMIO"},
    {"IRQ_WINDOW_OPEN"},
    {"SHUTDOWN"},
    {"FAIL_ENTRY"},
    {"INTR"},
    {"SET_TPR"},
    {"TPR_ACCESS"},
    {"S390_SIEIC", true},
    {"S390_RESET", true},
    {"DCR", true},
    {"NMI"},
    {"INTERNAL_ERROR"},
    {"OSI", true},
    {"PAPR_HCALL", true},
    {"S390_UCONTROL", true},
    {"WATCHDOG", true},
    {"S390_TSCH", true},
    {"EPR", true},
    {"SYSTEM_EVENT"},
    {"S390_STSI", true},
    {"IOAPIC_EOI"},
    {"HYPERV"},
    {"ARM_NISV", true},
    {"X86_RDMSR"},
    {"X86_WRMSR"},
    {"DIRTY_RING_FULL"},
    {"AP_RESET_HOLD"},
    {"X86_BUS_LOCK"},
    {"XEN"},
    {"RISCV_SBI", true},
    {"RISCV_CSR", true},
    {"NOTIFY"},
    {"LOONGARCH_IOCSR", true},
    {"MEMORY_FAULT"},
    {"TDX"},
    {"ARM_SEA", true},
    {"ARM_LDST64B", true},
    {"SNP_REQ_CERTS"},
};
static_assert(std::size(kExitNames) == KVM_EXIT_SNP_REQ_CERTS + 1);

}  // namespace

std::string_view kvm_exit_name(uint32_t reason) {
  return reason < std::size(kExitNames) ? kExitNames[reason].name : "unknown";
}

bool kvm_exit_is_foreign(uint32_t reason) { return reason < std::size(kExitNames) && kExitNames[reason].foreign; }

std::string_view internal_error_name(uint32_t suberror) {
  switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION: return "it cannot emulate an instruction";
    case KVM_INTERNAL_ERROR_SIMUL_EX: return "exceptions came together that it cannot deliver";
    case KVM_INTERNAL_ERROR_DELIVERY_EV: return "an event met an exit while it was being delivered";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: return "the processor left the guest for a reason unknown to it";
    default: return "unknown";
  }
}

std::string_view fail_entry_hint(uint64_t reason) {
  // [SDM 3C 24.8, appendix C] bit 31: the entry itself failed; the low half says at what.
  constexpr uint64_t kVmxFailed = 0x80000000, kInvalidState = 33, kMsrLoading = 34;
  if (reason == ~uint64_t{0} || reason == 0xffffffff)  // [APM 2 15.5.1] VMEXIT_INVALID
    return "the processor refuses the guest's state (SVM VMEXIT_INVALID); reset the machine, and report the registers "
           "above";
  if (reason == (kVmxFailed | kInvalidState))
    return "the processor refuses the guest's state; on an Intel processor without unrestricted guests, real mode "
           "needs kvm_intel's emulate_invalid_guest_state=1, and unrestricted_guest=1 where the processor has it";
  if (reason == (kVmxFailed | kMsrLoading)) return "the processor could not load the guest's MSRs; try another -cpu";
  return "see the host kernel's log (dmesg)";
}

std::string describe_registers(const x86::ArchState& state) {
  static constexpr std::string_view kNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
  static constexpr std::string_view kSegments[] = {"es", "cs", "ss", "ds", "fs", "gs"};
  std::string text;
  for (size_t i = 0; i < std::size(kNames); ++i)
    text += fmt::format("{} {:016x}{}", kNames[i], state.gpr[i], i % 4 == 3 ? "\n" : "  ");
  text += fmt::format("rip {:016x}  rflags {:08x}\n", state.rip, state.rflags);
  const auto segment = [&text](std::string_view name, const x86::SegmentRegister& reg) {
    text += fmt::format("{:<4} {:04x} base {:016x} limit {:08x} attributes {:05x}\n", name, reg.selector, reg.base,
                        reg.limit, reg.attributes);
  };
  for (size_t i = 0; i < std::size(kSegments); ++i) segment(kSegments[i], state.seg[i]);
  segment("ldtr", state.ldtr);
  segment("tr", state.tr);
  text += fmt::format("gdtr base {:016x} limit {:04x}  idtr base {:016x} limit {:04x}\n", state.gdtr.base,
                      state.gdtr.limit, state.idtr.base, state.idtr.limit);
  text += fmt::format("cr0 {:08x}  cr2 {:016x}  cr3 {:016x}  cr4 {:08x}  cr8 {:x}  efer {:x}\n", state.cr0, state.cr2,
                      state.cr3, state.cr4, state.cr8, state.efer);
  return text;
}

std::string describe_code(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("{}{:02x}", text.empty() ? "" : " ", byte);
  return text;
}

}  // namespace kite
