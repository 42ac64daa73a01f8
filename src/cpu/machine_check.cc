#include "cpu/machine_check.h"

#include "support/log.h"

namespace kite::cpu {

namespace {

enum BankRegister : size_t { kCtl, kStatus, kAddr, kMisc };

// [SDM 3B 16.3.2.2.2, table 16-8] The error that is there stays, unless the new one is worse.
void log_error(std::array<uint64_t, 4>& bank, const MachineCheck& error) {
  constexpr uint64_t kWorth = mc_status::kUncorrected;
  const bool occupied = (bank[kStatus] & mc_status::kValid) != 0;
  if (occupied && (error.status & kWorth) <= (bank[kStatus] & kWorth)) {
    bank[kStatus] |= mc_status::kOverflow;
    return;
  }
  bank[kStatus] = error.status | (occupied ? mc_status::kOverflow : 0);
  bank[kAddr] = error.address;
  bank[kMisc] = error.misc;
}

}  // namespace

void report_machine_check(Cpu& cpu, const MachineCheck& error) {
  if (error.bank >= cpu.arch.mc_bank.size()) return;
  auto& bank = cpu.arch.mc_bank[error.bank];
  const bool uncorrected = (error.status & mc_status::kUncorrected) != 0;
  // [SDM 3B 16.3.1.3, 16.3.2.1] Reporting is switched on by all ones in both control registers.
  const bool enabled = cpu.arch.mcg_ctl == ~uint64_t{0} && bank[kCtl] == ~uint64_t{0};
  log_error(bank, error);
  if (!uncorrected || !enabled) return;
  const bool already = (cpu.arch.mcg_status & mcg_status::kInProgress) != 0;
  // [SDM 3A 6.15, #MC]
  if (already || (cpu.arch.cr4 & x86::cr4::kMce) == 0) {
    log::guest_error("cpu {}: a machine check in bank {}, which the guest does not take: shutdown", cpu.config.index,
                     error.bank);
    cpu.arch.activity = x86::Activity::kShutdown;
    return;
  }
  cpu.arch.mcg_status = error.mcg_status | mcg_status::kInProgress;
  cpu.raise(x86::Vector::kMc);
}

}  // namespace kite::cpu
