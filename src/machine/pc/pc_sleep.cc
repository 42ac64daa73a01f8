// Suspend to RAM and the way back. [ACPI 6.4] 16. RAM keeps its contents and the host bridge its registers; everything
// else is reset when the machine wakes up. Firmware learns from CMOS that it is to jump to the vector in the FACS;
// without firmware the board does what it would have done.
#include "devices/acpi_pm/acpi_pm_regs.h"
#include "machine/pc/pc_chassis.h"
#include "support/log.h"

namespace kite::machine {

namespace {

namespace pm = devices::acpi_pm_regs;

// The shutdown status byte, and its value for a resume, by the convention of firmware for virtual machines.
constexpr uint8_t kShutdownStatus = 0x0f, kResume = 0xfe;

}  // namespace

void PcChassis::sleep(uint8_t type) {
  switch (type) {
    case pm::kSlpTypS3:
      rtc_->set_cmos(kShutdownStatus, kResume);
      asleep_.store(true);
      context_.requests.suspend();
      return;
    case pm::kSlpTypS4: context_.requests.hibernate(); return;
    case pm::kSlpTypS5: context_.requests.shutdown(); return;
    default:
      log::guest_error("sleep type {} is not offered; the machine wakes up at once", type);
      acpi_pm().raise_pm1(pm::kWak);  // [ACPI 6.4] 4.8.3.1.1: what the guest waits for after SLP_EN
  }
}

// [ACPI 6.4] 4.8.3.1.1: the power button wakes whether or not it is enabled.
void PcChassis::power_button() {
  acpi_pm().raise_pm1(pm::kPwrbtn);
  if (asleep_.load()) context_.requests.wake();
}

// An interrupt of the RTC; only an alarm comes from one that nobody programs.
void PcChassis::rtc_interrupt() {
  if (!asleep_.load()) return;
  acpi_pm().raise_pm1(pm::kRtc);
  if (acpi_pm().wake_pending()) context_.requests.wake();
}

void PcChassis::before_wake() { wake_status_ = acpi_pm().snapshot().pm1_status & (pm::kPwrbtn | pm::kRtc); }

Result<> PcChassis::wake(std::vector<std::unique_ptr<Vcpu>>& vcpus) {
  asleep_.store(false);
  if (!system_rom_->starts() && !context_.config.kernel_path.empty()) KITE_TRY(resume_kernel(vcpus));
  acpi_pm().raise_pm1(static_cast<uint16_t>(pm::kWak | wake_status_));
  return {};
}

// [ACPI 6.4] 16.3.2: the vector is a physical address below 1 MiB, entered in real mode with CS its upper 16 bits.
Result<> PcChassis::resume_kernel(std::vector<std::unique_ptr<Vcpu>>& vcpus) {
  constexpr uint64_t kWakingVector = 12, kRealModeEnd = 0x100000;
  auto vector = guest_memory_.load<uint32_t>(facs_address_ + kWakingVector);
  if (!vector || *vector == 0 || *vector >= kRealModeEnd) return start_kernel(vcpus);  // as firmware does: a cold start
  program_devices();
  commit_maps();
  set_firmware_mtrrs(vcpus);
  x86::ArchState state;
  vcpus[0]->get_state(state);
  x86::SegmentRegister& cs = state.seg[static_cast<size_t>(x86::Seg::kCs)];
  cs.selector = static_cast<uint16_t>(*vector >> 4);
  cs.base = uint64_t{cs.selector} << 4;
  state.rip = *vector & 0xf;
  vcpus[0]->set_state(state);
  return {};
}

}  // namespace kite::machine
