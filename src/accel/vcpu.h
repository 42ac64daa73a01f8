// Vcpu: one virtual CPU of any accelerator, run by one thread of the machine's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "accel/cpu_io.h"
#include "accel/local_apic.h"
#include "async/adaptive_poll.h"
#include "async/clock.h"
#include "memory/address_space.h"
#include "support/result.h"
#include "x86/arch_state.h"
#include "x86/cpuid.h"

namespace kite {

// Why run() came back. Everything else is handled inside, through CpuIo and LocalApic.
enum class HaltReason : uint8_t {
  kHalted,         // HLT or wait-for-SIPI, and nothing to do: block in wait_for_work(), then run() again
  kShutdown,       // triple fault
  kPowerOff,       // the guest switched itself off through its hypervisor
  kPanicked,       // the guest reported a crash through its hypervisor
  kReset,          // the guest asked for it in a way that only the CPU sees
  kDebug,          // a monitor's breakpoint or single step
  kKicked,         // kick() was called
  kInternalError,  // the accelerator cannot go on; internal_error() says why, with state
};

// What others can ask of a vCPU; an atomic OR, then a wake. No lock.
namespace request {
inline constexpr uint32_t kInterrupt = 1u << 9;  // the LocalApic has something; cleared by the CPU before it looks. At
                                                 // the place of RFLAGS.IF, which masks it
inline constexpr uint32_t kNmi = 1u << 1;
inline constexpr uint32_t kInit = 1u << 2;
inline constexpr uint32_t kSipi = 1u << 3;           // vector in sipi_vector
inline constexpr uint32_t kKick = 1u << 4;           // leave run()
inline constexpr uint32_t kFlush = 1u << 5;          // drop cached translations
inline constexpr uint32_t kSmi = 1u << 6;            // system-management interrupt
inline constexpr uint32_t kSecondNmi = 1u << 7;      // another NMI before kNmi was taken; made by post_nmi()
inline constexpr uint32_t kMachineCheck = 1u << 10;  // something is in the queue of post_machine_check()
inline constexpr uint32_t kStored = 1u << 8;         // a store to what MONITOR watches; made by the CPU itself
}  // namespace request

struct VcpuConfig {
  uint32_t index = 0;  // 0 is the bootstrap processor
  uint32_t apic_id = 0;
  uint32_t cpu_count = 1;
  x86::CpuTopology topology = {};     // how they are grouped
  const x86::CpuSpec* cpu = nullptr;  // outlives the vCPU
  Clock* clock = nullptr;             // guest time, drives the TSC
  uint64_t tsc_hz = 1'000'000'000;
  LocalApic* apic = nullptr;           // may be null where the accelerator has its own
  AddressSpace* smm_memory = nullptr;  // what the CPU sees in system-management mode; null: SMIs are dropped
  ExtInt* ext_int = nullptr;  // the board's 8259, where the local APICs are the accelerator's and the 8259 is not
};

// What a debugger asks of a vCPU. The default lets it run free.
struct GuestDebug {
  struct Watch {
    // As DR7 has them, but for kRead, which no processor has.
    enum class Kind : uint8_t { kExecute = 0, kWrite = 1, kRead = 2, kAccess = 3 } kind = Kind::kExecute;
    uint64_t address = 0;  // linear
    uint64_t bytes = 1;
    bool operator==(const Watch&) const = default;
  };
  bool single_step = false;      // one instruction, and then no more
  bool hold_interrupts = false;  // while it steps, it takes no interrupt
  // Linear addresses of instructions. With DebugLimits::int3 an INT3 is there, which stops instead of reaching the
  // guest.
  std::vector<uint64_t> breakpoints = {};
  std::vector<Watch> watches = {};
  bool operator==(const GuestDebug&) const = default;
};
// What of that an accelerator takes.
struct DebugLimits {
  size_t watches = SIZE_MAX;  // at once
  bool any_watch = true;      // of any length, and for reads alone; else of 1, 2, 4 or 8 bytes at a multiple of that
  bool int3 = false;          // for a breakpoint, the debugger puts an INT3 into the guest's code
};
// Where it stopped.
struct DebugStop {
  uint64_t rip = 0;                  // linear address of the instruction: at a breakpoint its own, otherwise the next
  uint64_t dr6 = 0;                  // B0-B3 and BS, for steps and watches
  bool breakpoint = false;           // one of GuestDebug::breakpoints
  std::optional<size_t> watch = {};  // the one of GuestDebug::watches
};

// IA32_MCi_STATUS and IA32_MCG_STATUS (SDM 3B 16.3)
namespace mc_status {
inline constexpr uint64_t kUncorrected = 1ull << 61, kOverflow = 1ull << 62, kValid = 1ull << 63;
}
namespace mcg_status {
inline constexpr uint64_t kRestartIpValid = 1, kErrorIpValid = 2, kInProgress = 4;
}

// An error for a bank of the machine-check architecture, in the form of its registers.
struct MachineCheck {
  uint32_t bank = 0;
  uint64_t status = 0;      // VAL must be set
  uint64_t mcg_status = 0;  // of an uncorrected error
  uint64_t address = 0, misc = 0;
};

class Vcpu {
 public:
  virtual ~Vcpu() = default;

  // On the vCPU's thread. Returns only for the reasons above.
  virtual HaltReason run(CpuIo& io) = 0;
  // vCPU thread or while it is not in run().
  virtual void get_state(x86::ArchState& state) = 0;
  virtual void set_state(const x86::ArchState& state) = 0;
  // Power-on reset, while not in run(). The bootstrap processor starts at the reset vector, others wait for SIPI.
  virtual void reset() = 0;
  // Whether run() would make progress, given these request bits (a halted CPU with IF clear sleeps through interrupts).
  [[nodiscard]] virtual bool has_work(uint32_t requests) const = 0;
  // Guest TSC minus the clock's TSC; vCPU thread.
  [[nodiscard]] virtual int64_t tsc_offset() const { return 0; }
  // vCPU thread or while it is not in run(). What the debugger takes for itself the guest does not see; after kDebug,
  // debug_stop() says what it was. Refused, with the reason, where the accelerator cannot.
  virtual Result<> set_debug(const GuestDebug& debug) {
    (void)debug;
    return fail("this accelerator takes no breakpoints");
  }
  [[nodiscard]] virtual DebugStop debug_stop() const { return {}; }
  // While it is not in run(): the guest-physical address that its page tables give to a linear one, whatever the
  // rights, and nothing of the guest changed. Nothing: the page is not there.
  virtual std::optional<Gpa> debug_translate(uint64_t linear) { return (void)linear, std::nullopt; }
  // While it is not in run(): what save_own() answers holds more than ArchState does, in the accelerator's form; empty:
  // there is no more. restore_own() takes it instead of set_state(), of the same accelerator only.
  [[nodiscard]] virtual std::vector<uint8_t> save_own() { return {}; }
  virtual Result<> restore_own(const std::vector<uint8_t>& bytes) {
    if (bytes.empty()) return {};
    return fail("it was saved under another accelerator");
  }
  // After kInternalError.
  [[nodiscard]] virtual std::string internal_error() const { return {}; }

  // Any thread, no lock.
  void post(uint32_t request_bits) {
    requests_.fetch_or(request_bits, std::memory_order_seq_cst);
    requests_.notify_all();
    interrupt_running();
  }
  // Two NMIs count: one that is about to be taken and one that waits behind it (SDM 3A 6.7.1).
  void post_nmi() {
    const uint32_t before = requests_.fetch_or(request::kNmi, std::memory_order_seq_cst);
    if ((before & request::kNmi) != 0) requests_.fetch_or(request::kSecondNmi, std::memory_order_seq_cst);
    requests_.notify_all();
    interrupt_running();
  }
  void post_sipi(uint8_t vector) {
    sipi_vector_.store(vector, std::memory_order_release);
    post(request::kSipi);
  }
  void kick() { post(request::kKick); }
  // What was asked of it and has not begun, for a saved machine. While it is not in run().
  struct Asked {
    uint32_t requests = 0;  // of kSavedRequests
    uint8_t sipi_vector = 0;
  };
  static constexpr uint32_t kSavedRequests =
      request::kNmi | request::kSecondNmi | request::kInit | request::kSipi | request::kSmi;
  [[nodiscard]] Asked asked() const {
    return {.requests = requests_.load(std::memory_order_acquire) & kSavedRequests,
            .sipi_vector = sipi_vector_.load(std::memory_order_acquire)};
  }
  // Instead of what is asked of it now. The CPU also looks whether its local APIC has something.
  void ask_again(const Asked& asked) {
    sipi_vector_.store(asked.sipi_vector, std::memory_order_release);
    requests_.fetch_and(~kSavedRequests, std::memory_order_seq_cst);
    post(asked.requests | request::kInterrupt | request::kFlush);
  }
  // Any thread. False: the vCPU takes none, or has no such bank.
  virtual bool post_machine_check(const MachineCheck& error) { return (void)error, false; }
  // vCPU thread, after kHalted: blocks until has_work(), kicked included.
  void wait_for_work() {
    const AdaptivePoll::Wait wait(halt_poll_);
    for (uint32_t seen = requests_.load(std::memory_order_acquire); (seen & request::kKick) == 0 && !has_work(seen);
         seen = requests_.load(std::memory_order_acquire))
      if (!wait.look_again()) requests_.wait(seen, std::memory_order_acquire);
  }

 protected:
  // Makes run() notice the requests if it does not poll them (KVM).
  virtual void interrupt_running() {}

  std::atomic<uint32_t> requests_{0};
  std::atomic<uint8_t> sipi_vector_{0};

 private:
  static constexpr int64_t kMostHaltPollNs = 200'000;  // Linux's halt_poll_ns
  AdaptivePoll halt_poll_{kMostHaltPollNs};            // the vCPU thread's
};

}  // namespace kite
