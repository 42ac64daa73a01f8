// The answers to exits that no guest here can provoke, with a KVM that only reports them.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>

#include "accel/kvm/kvm_vcpu.h"
#include "accel/kvm/test_kvm.h"
#include "x86/cpuid.h"

namespace kite {
namespace {

class RecordingCpuIo final : public CpuIo {
 public:
  uint32_t pio_read(uint16_t port, unsigned size) override {
    log.push_back(fmt::format("in{} {:x}", size, port));
    return next_value++;
  }
  void pio_write(uint16_t port, unsigned size, uint32_t value) override {
    log.push_back(fmt::format("out{} {:x}={:x}", size, port, value));
  }
  uint64_t mmio_read(Gpa address, unsigned size) override {
    log.push_back(fmt::format("read{} {:x}", size, address));
    return 0x1122334455667788 & ((size == 8 ? 0 : uint64_t{1} << (8 * size)) - 1);
  }
  void mmio_write(Gpa address, unsigned size, uint64_t value) override {
    log.push_back(fmt::format("write{} {:x}={:x}", size, address, value));
  }
  void exclusive(const std::function<void()>& work) override { work(); }
  void fpu_error() override {}

  std::vector<std::string> log;
  uint32_t next_value = 1;
};

class KvmExitsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto system = KvmSystem::open(kvm_);
    ASSERT_TRUE(system) << system.error().message;
    auto made = KvmAccelerator::create(*std::move(system), {.irqchip = KernelIrqchip::kOn});
    ASSERT_TRUE(made) << made.error().message;
    accelerator_ = *std::move(made);
    ASSERT_TRUE(accelerator_->attach_memory(memory_));
    cpu_ = *x86::parse_cpu("qemu64", accelerator_->offered_features());
    auto vcpu = accelerator_->create_vcpu({.cpu = &cpu_, .clock = &clock_});
    ASSERT_TRUE(vcpu) << vcpu.error().message;
    vcpu_ = *std::move(vcpu);
    kvm_.on_run = [this](kvm_run& run) {
      if (exits_.empty()) {
        vcpu_->kick();
        return -EINTR;
      }
      auto exit = std::move(exits_.front());
      exits_.pop_front();
      return exit(run);
    };
  }
  void TearDown() override {
    vcpu_.reset();
    accelerator_.reset();
  }
  // The exit that the next KVM_RUN comes back with.
  void then(uint32_t reason, std::function<void(kvm_run&)> fill = {}) {
    exits_.push_back([reason, fill = std::move(fill)](kvm_run& run) {
      run.exit_reason = reason;
      if (fill) fill(run);
      return 0;
    });
  }
  HaltReason run() { return vcpu_->run(io_); }
  [[nodiscard]] bool error_says(const std::string& words) const {
    return vcpu_->internal_error().find(words) != std::string::npos;
  }

  TestKvm kvm_;
  AddressSpace memory_{"memory", uint64_t{1} << 52};
  ManualClock clock_;
  x86::CpuSpec cpu_;
  std::unique_ptr<KvmAccelerator> accelerator_;
  std::unique_ptr<Vcpu> vcpu_;
  RecordingCpuIo io_;
  std::deque<std::function<int(kvm_run&)>> exits_;
};

TEST_F(KvmExitsTest, AStringOfPortReadsIsOneExit) {
  uint8_t* data = nullptr;
  then(KVM_EXIT_IO, [&](kvm_run& run) {
    run.io = {.direction = KVM_EXIT_IO_IN, .size = 2, .port = 0x1f0, .count = 3, .data_offset = 4096};
    data = reinterpret_cast<uint8_t*>(&run) + 4096;
  });
  EXPECT_EQ(run(), HaltReason::kKicked);
  EXPECT_EQ(io_.log, (std::vector<std::string>{"in2 1f0", "in2 1f0", "in2 1f0"}));
  EXPECT_EQ(std::vector<uint8_t>(data, data + 6), (std::vector<uint8_t>{1, 0, 2, 0, 3, 0}));
}

TEST_F(KvmExitsTest, PortDataOutsideOfTheMappingIsRefused) {
  then(KVM_EXIT_IO, [](kvm_run& run) {
    run.io = {.direction = KVM_EXIT_IO_OUT, .size = 4, .port = 0x80, .count = 0xffffffff, .data_offset = 4096};
  });
  EXPECT_EQ(run(), HaltReason::kInternalError);
  EXPECT_TRUE(io_.log.empty());
}

TEST_F(KvmExitsTest, MemoryAccessesThatWereCutAtAPageArePowersOfTwo) {
  then(KVM_EXIT_MMIO,
       [](kvm_run& run) { run.mmio = {.phys_addr = 0xd0ffd, .data = {1, 2, 3}, .len = 3, .is_write = 1}; });
  EXPECT_EQ(run(), HaltReason::kKicked);
  EXPECT_EQ(io_.log, (std::vector<std::string>{"write1 d0ffd=1", "write2 d0ffe=302"}));
}

TEST_F(KvmExitsTest, AnAccessIsFinishedBeforeAKickLeaves) {
  then(KVM_EXIT_IO, [&](kvm_run& run) {
    run.io = {.direction = KVM_EXIT_IO_OUT, .size = 1, .port = 0x80, .count = 1, .data_offset = 4096};
    vcpu_->kick();
  });
  uint8_t immediate = 0;
  exits_.push_back([&](kvm_run& run) {
    immediate = run.immediate_exit;
    return -EINTR;
  });
  EXPECT_EQ(run(), HaltReason::kKicked);
  EXPECT_EQ(immediate, 1);
}

TEST_F(KvmExitsTest, WhatNeedsNoAnswerGoesOn) {
  for (const int reason : {KVM_EXIT_INTR, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_SET_TPR, KVM_EXIT_TPR_ACCESS, KVM_EXIT_NMI,
                           KVM_EXIT_X86_BUS_LOCK, KVM_EXIT_AP_RESET_HOLD, KVM_EXIT_DIRTY_RING_FULL})
    then(static_cast<uint32_t>(reason));
  then(KVM_EXIT_NOTIFY, [](kvm_run& run) { run.notify.flags = 0; });
  EXPECT_EQ(run(), HaltReason::kKicked);
  EXPECT_TRUE(exits_.empty());
}

TEST_F(KvmExitsTest, CallsToTheHypervisorAreAnsweredThatThereIsNone) {
  kvm_run* seen = nullptr;
  then(KVM_EXIT_HYPERCALL, [&](kvm_run& run) { seen = &run; });
  EXPECT_EQ(run(), HaltReason::kKicked);
  EXPECT_EQ(static_cast<int64_t>(seen->hypercall.ret), -1000);  // -KVM_ENOSYS
}

TEST_F(KvmExitsTest, UnknownMsrsFault) {
  kvm_run* seen = nullptr;
  then(KVM_EXIT_X86_RDMSR, [&](kvm_run& run) {
    run.msr.index = 0x12345;
    seen = &run;
  });
  EXPECT_EQ(run(), HaltReason::kKicked);
  EXPECT_EQ(seen->msr.error, 1);
}

TEST_F(KvmExitsTest, SystemEventsEndOrResetTheMachine) {
  const std::pair<uint32_t, HaltReason> kEvents[] = {{KVM_SYSTEM_EVENT_SHUTDOWN, HaltReason::kPowerOff},
                                                     {KVM_SYSTEM_EVENT_RESET, HaltReason::kReset},
                                                     {KVM_SYSTEM_EVENT_CRASH, HaltReason::kPanicked},
                                                     {KVM_SYSTEM_EVENT_SEV_TERM, HaltReason::kInternalError},
                                                     {99, HaltReason::kInternalError}};
  for (const auto& [event, reason] : kEvents) {
    then(KVM_EXIT_SYSTEM_EVENT, [event](kvm_run& run) { run.system_event.type = event; });
    EXPECT_EQ(run(), reason) << event;
  }
}

TEST_F(KvmExitsTest, AFailedEntryIsReportedWithItsReasonAndAHint) {
  then(KVM_EXIT_FAIL_ENTRY, [](kvm_run& run) { run.fail_entry.hardware_entry_failure_reason = 0x80000021; });
  EXPECT_EQ(run(), HaltReason::kInternalError);
  EXPECT_TRUE(error_says("0x80000021"));
  EXPECT_TRUE(error_says("unrestricted_guest"));
  EXPECT_TRUE(error_says("rip ")) << vcpu_->internal_error();
}

TEST_F(KvmExitsTest, InternalErrorsOtherThanEmulationAreReportedWithTheirData) {
  then(KVM_EXIT_INTERNAL_ERROR, [](kvm_run& run) {
    run.internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
    run.internal.ndata = 0xffff;  // more than there is
    run.internal.data[0] = 0xabcd;
  });
  EXPECT_EQ(run(), HaltReason::kInternalError);
  EXPECT_TRUE(error_says("0xabcd"));
}

TEST_F(KvmExitsTest, AMemoryFaultNamesTheAddress) {
  exits_.push_back([](kvm_run& run) {
    run.exit_reason = KVM_EXIT_MEMORY_FAULT;
    const KvmMemoryFault fault{.flags = 0, .gpa = 0xabc000, .size = 4096};
    std::memcpy(run.padding, &fault, sizeof fault);
    return -EFAULT;
  });
  EXPECT_EQ(run(), HaltReason::kInternalError);
  EXPECT_TRUE(error_says("0xabc000"));
}

TEST_F(KvmExitsTest, EveryOtherReasonIsNamed) {
  const std::pair<uint32_t, std::string> kReasons[] = {{KVM_EXIT_UNKNOWN, "does not know"},
                                                       {KVM_EXIT_EXCEPTION, "exception"},
                                                       {KVM_EXIT_S390_SIEIC, "S390_SIEIC"},
                                                       {KVM_EXIT_RISCV_SBI, "RISCV_SBI"},
                                                       {KVM_EXIT_TDX, "TDX"},
                                                       {77, "77"}};
  for (const auto& [reason, words] : kReasons) {
    then(reason);
    EXPECT_EQ(run(), HaltReason::kInternalError) << reason;
    EXPECT_TRUE(error_says(words)) << vcpu_->internal_error();
  }
}

TEST_F(KvmExitsTest, ATripleFaultShutsDown) {
  then(KVM_EXIT_SHUTDOWN);
  EXPECT_EQ(run(), HaltReason::kShutdown);
}

TEST_F(KvmExitsTest, AnExitIsCounted) {
  then(KVM_EXIT_INTR);
  then(KVM_EXIT_INTR);
  EXPECT_EQ(run(), HaltReason::kKicked);
  EXPECT_EQ(static_cast<KvmVcpu&>(*vcpu_).exit_counts().by_reason[KVM_EXIT_INTR].load(), 2u);
}

TEST_F(KvmExitsTest, ArchCapabilitiesAreNotWrittenUnlessCpuidAnnouncesThem) {
  x86::ArchState state;
  vcpu_->get_state(state);
  vcpu_->set_state(state);
  vcpu_->reset();
  EXPECT_FALSE(kvm_.msrs.contains(x86::msr::kArchCapabilities));
}

// --- debugging

using Watch = GuestDebug::Watch;

void debug_exit(kvm_run& run, uint32_t exception, uint64_t pc, uint64_t dr6 = 0) {
  run.debug.arch = {.exception = exception, .pad = 0, .pc = pc, .dr6 = dr6, .dr7 = 0};
}

TEST_F(KvmExitsTest, WhatTheDebuggerAsksForReachesTheKernel) {
  ASSERT_TRUE(vcpu_->set_debug({.single_step = true,
                                .hold_interrupts = true,
                                .breakpoints = {0x1000},
                                .watches = {{.kind = Watch::Kind::kWrite, .address = 0x2000, .bytes = 8},
                                            {.kind = Watch::Kind::kExecute, .address = 0x3000}}}));
  EXPECT_EQ(kvm_.guest_debug.control, uint32_t{KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ |
                                               KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP});
  EXPECT_EQ(kvm_.guest_debug.arch.debugreg[0], 0x2000u);
  EXPECT_EQ(kvm_.guest_debug.arch.debugreg[1], 0x3000u);
  EXPECT_EQ(kvm_.guest_debug.arch.debugreg[7], 0x0009060au);  // 8 bytes written, execution
  ASSERT_TRUE(vcpu_->set_debug({}));
  EXPECT_EQ(kvm_.guest_debug.control, 0u);
}

TEST_F(KvmExitsTest, WatchesThatAProcessorLacksAreRefused) {
  EXPECT_FALSE(vcpu_->set_debug({.watches = {{.kind = Watch::Kind::kRead, .address = 0x2000, .bytes = 4}}}));
  EXPECT_FALSE(vcpu_->set_debug({.watches = {{.kind = Watch::Kind::kWrite, .address = 0x2000, .bytes = 16}}}));
  EXPECT_FALSE(vcpu_->set_debug({.watches = std::vector<Watch>(5)}));
  EXPECT_FALSE(accelerator_->debug_limits().any_watch);
  EXPECT_EQ(accelerator_->debug_limits().watches, 4u);
}

TEST_F(KvmExitsTest, TheDebuggersInt3Stops) {
  ASSERT_TRUE(vcpu_->set_debug({.breakpoints = {0x1000, 0x1008}}));
  then(KVM_EXIT_DEBUG, [](kvm_run& run) { debug_exit(run, 3, 0x1008); });
  EXPECT_EQ(run(), HaltReason::kDebug);
  EXPECT_TRUE(vcpu_->debug_stop().breakpoint);
  EXPECT_EQ(vcpu_->debug_stop().rip, 0x1008u);
  EXPECT_EQ(vcpu_->debug_stop().watch, std::nullopt);
}

TEST_F(KvmExitsTest, AnInt3ElsewhereIsTheGuests) {
  ASSERT_TRUE(vcpu_->set_debug({.breakpoints = {0x1000}}));
  then(KVM_EXIT_DEBUG, [](kvm_run& run) { debug_exit(run, 3, 0x1001); });
  EXPECT_EQ(run(), HaltReason::kKicked);
  const auto events = kvm_.part<kvm_vcpu_events>(KVM_SET_VCPU_EVENTS);
  EXPECT_EQ(events.exception.nr, 3);
  EXPECT_NE(events.exception.injected | events.exception.pending, 0);
}

TEST_F(KvmExitsTest, AWatchpointIsToldByItsNumber) {
  ASSERT_TRUE(vcpu_->set_debug({.watches = {{.kind = Watch::Kind::kWrite, .address = 0x2000},
                                            {.kind = Watch::Kind::kAccess, .address = 0x3000, .bytes = 4}}}));
  then(KVM_EXIT_DEBUG, [](kvm_run& run) { debug_exit(run, 1, 0x1005, x86::dr6::kReset | 2); });
  EXPECT_EQ(run(), HaltReason::kDebug);
  EXPECT_EQ(vcpu_->debug_stop().watch, 1u);
}

TEST_F(KvmExitsTest, AHitOfNoneOfTheDebuggersIsTheGuests) {
  ASSERT_TRUE(vcpu_->set_debug({.watches = {{.kind = Watch::Kind::kWrite, .address = 0x2000}}}));
  then(KVM_EXIT_DEBUG, [](kvm_run& run) { debug_exit(run, 1, 0x1005, x86::dr6::kReset | x86::dr6::kBs); });
  EXPECT_EQ(run(), HaltReason::kKicked);
  EXPECT_EQ(kvm_.part<kvm_vcpu_events>(KVM_SET_VCPU_EVENTS).exception.nr, 1);
}

TEST_F(KvmExitsTest, PagesAreLookedUpByTheKernel) {
  kvm_.pages[0x7000] = 0x4000;
  EXPECT_EQ(vcpu_->debug_translate(0x7123), 0x4123u);
  EXPECT_EQ(vcpu_->debug_translate(0x8000), std::nullopt);
}

}  // namespace
}  // namespace kite
