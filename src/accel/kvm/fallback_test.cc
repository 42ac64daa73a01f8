// The fall-back on a KVM that exists only here: what it reads of a vCPU, executes, and writes back.
#include "accel/kvm/fallback.h"

#include <gtest/gtest.h>

#include <cstring>

#include "accel/kvm/kvm_vcpu.h"
#include "accel/kvm/test_kvm.h"
#include "cpu/test_machine.h"

namespace kite {
namespace {

using cpu::TestMachine;
using Mode = TestMachine::Mode;
using Outcome = EmulationFallback::Outcome;
using x86::kRax;
using x86::kRbx;
using x86::kRcx;
using x86::kRdx;

class FallbackTest : public ::testing::Test {
 protected:
  // The machine's tables and modes in a vCPU of the test KVM.
  void enter(Mode mode, const x86::CpuSpec& spec = TestMachine::everything()) {
    machine_ = std::make_unique<TestMachine>(mode, spec);
    spec_ = spec;
    auto system = KvmSystem::open(kvm_);
    ASSERT_TRUE(system) << system.error().message;
    auto made = KvmAccelerator::create(*system, KvmOptions{});
    ASSERT_TRUE(made) << made.error().message;
    accelerator_ = std::move(*made);
    ASSERT_TRUE(accelerator_->attach_memory(machine_->memory));
    const VcpuConfig config{.index = 0, .apic_id = 0, .cpu_count = 2, .cpu = &spec_, .clock = &machine_->clock};
    auto vcpu = accelerator_->create_vcpu(config);
    ASSERT_TRUE(vcpu) << vcpu.error().message;
    vcpu_ = std::move(*vcpu);
    fallback_ = make_emulation_fallback(config, machine_->memory);
    state_ = machine_->initial_state();
  }
  [[nodiscard]] KvmVcpu& vcpu() { return static_cast<KvmVcpu&>(*vcpu_); }

  // The vCPU has failed at `code`; state_ is what it had then, and what it has afterwards.
  Outcome emulate(std::initializer_list<uint8_t> code) {
    machine_->load(TestMachine::kCode, std::span(code.begin(), code.size()));
    state_.rip = TestMachine::kCode - state_.seg[static_cast<size_t>(x86::Seg::kCs)].base;
    vcpu_->set_state(state_);
    if (events_) kvm_.set_part(KVM_SET_VCPU_EVENTS, *events_);
    kvm_.calls.clear();
    const Outcome outcome = fallback_->emulate(vcpu(), exit_, *machine_, report_);
    const auto made = kvm_.calls;
    vcpu_->get_state(state_);
    kvm_.calls = made;
    return outcome;
  }
  [[nodiscard]] std::optional<uint8_t> vector() const {
    const uint64_t place = state_.rip - TestMachine::kHandlers;
    if (place >= 0x1000 || place % 16 != 0) return std::nullopt;
    return static_cast<uint8_t>(place / 16);
  }
  // An exception that KVM has queued.
  static kvm_vcpu_events exception(uint8_t number, std::optional<uint32_t> error = std::nullopt) {
    kvm_vcpu_events events{};
    events.exception.injected = 1;
    events.exception.nr = number;
    events.exception.has_error_code = error.has_value();
    events.exception.error_code = error.value_or(0);
    return events;
  }

  TestKvm kvm_;
  x86::CpuSpec spec_;
  std::unique_ptr<TestMachine> machine_;
  std::unique_ptr<KvmAccelerator> accelerator_;
  std::unique_ptr<Vcpu> vcpu_;
  std::unique_ptr<EmulationFallback> fallback_;
  std::optional<kvm_vcpu_events> events_;
  kvm_run exit_{};
  x86::ArchState state_;
  std::string report_;
};

// --- instructions, in every mode

TEST_F(FallbackTest, ExecutesALockedCompareOf16Bytes) {
  enter(Mode::k64);
  state_.gpr[x86::kRdi] = TestMachine::kData;
  state_.gpr[kRbx] = 0x1111;
  state_.gpr[kRcx] = 0x2222;
  EXPECT_EQ(emulate({0xf0, 0x48, 0x0f, 0xc7, 0x0f}), Outcome::kGoOn);  // lock cmpxchg16b [rdi]
  EXPECT_EQ(machine_->peek<uint64_t>(TestMachine::kData), 0x1111u);
  EXPECT_EQ(machine_->peek<uint64_t>(TestMachine::kData + 8), 0x2222u);
  EXPECT_EQ(state_.rip, TestMachine::kCode + 5);
  EXPECT_NE(state_.rflags & x86::flag::kZf, 0u);
  EXPECT_EQ(fallback_->executed(), 1u);
}

TEST_F(FallbackTest, IntegerInstructionsMoveNoVectorRegistersAndNoMsrs) {
  enter(Mode::k64);
  emulate({0xf3, 0x0f, 0xb8, 0xc1});  // popcnt eax, ecx
  for (const unsigned long request : std::initializer_list<unsigned long>{
           KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_MSRS, KVM_SET_MSRS, KVM_GET_LAPIC, KVM_SET_LAPIC, KVM_SET_SREGS2})
    EXPECT_EQ(kvm_.calls[request], 0u) << request;
}

TEST_F(FallbackTest, RealMode) {
  enter(Mode::kReal);
  state_.gpr[kRcx] = 0xff;
  EXPECT_EQ(emulate({0xf3, 0x0f, 0xb8, 0xc1}), Outcome::kGoOn);  // popcnt ax, cx
  EXPECT_EQ(state_.gpr[kRax], 8u);
}

TEST_F(FallbackTest, SoftwareInterruptsOfProtectedMode) {
  enter(Mode::k32);
  EXPECT_EQ(emulate({0xcd, 0x40}), Outcome::kGoOn);  // int 0x40
  EXPECT_EQ(vector(), 0x40);
  EXPECT_EQ(machine_->peek<uint32_t>(state_.gpr[x86::kRsp]), TestMachine::kCode + 2);
}

TEST_F(FallbackTest, BreakpointsOfLongMode) {
  enter(Mode::k64);
  EXPECT_EQ(emulate({0xcc}), Outcome::kGoOn);  // int3
  EXPECT_EQ(vector(), 3);
}

TEST_F(FallbackTest, ClacChangesTheFlag) {
  enter(Mode::k64);
  state_.cr4 |= x86::cr4::kSmap;
  state_.rflags |= x86::flag::kAc;
  EXPECT_EQ(emulate({0x0f, 0x01, 0xca}), Outcome::kGoOn);
  EXPECT_EQ(state_.rflags & x86::flag::kAc, 0u);
}

TEST_F(FallbackTest, SystemInstructionsSeeTheirRegisters) {
  enter(Mode::k64);
  state_.cr4 |= x86::cr4::kOsxsave;
  state_.xcr0 = 7;
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = 7;
  kvm_.set_part(KVM_SET_XCRS, xcrs);
  EXPECT_EQ(emulate({0x0f, 0x01, 0xd0}), Outcome::kGoOn);  // xgetbv
  EXPECT_EQ(state_.gpr[kRax], 7u);
  EXPECT_EQ(state_.gpr[kRdx], 0u);
}

TEST_F(FallbackTest, VectorRegistersGoBack) {
  enter(Mode::k64);
  state_.gpr[kRax] = 0x1234;
  EXPECT_EQ(emulate({0x66, 0x48, 0x0f, 0x6e, 0xc8}), Outcome::kGoOn);  // movq xmm1, rax
  uint64_t low = 0;
  std::memcpy(&low, state_.fx.bytes.data() + 160 + 16, sizeof low);
  EXPECT_EQ(low, 0x1234u);
  EXPECT_EQ(kvm_.calls[KVM_SET_XSAVE], 1u);
}

TEST_F(FallbackTest, VectorInstructionsThatFollowRunAlong) {
  enter(Mode::k64);
  state_.gpr[kRcx] = 3;
  // here: movq xmm1, rcx; paddq xmm0, xmm1; dec rcx; jnz here; mov [rdi], rcx
  EXPECT_EQ(
      emulate({0x66, 0x48, 0x0f, 0x6e, 0xc9, 0x66, 0x0f, 0xd4, 0xc1, 0x48, 0xff, 0xc9, 0x75, 0xf2, 0x48, 0x89, 0x0f}),
      Outcome::kGoOn);
  uint64_t low = 0;
  std::memcpy(&low, state_.fx.bytes.data() + 160, sizeof low);
  EXPECT_EQ(low, 6u);
  EXPECT_EQ(state_.rip, TestMachine::kCode + 14);  // stores are left to KVM, which watches memory
  EXPECT_EQ(fallback_->executed(), 12u);
  EXPECT_EQ(kvm_.calls[KVM_SET_XSAVE], 1u);
}

TEST_F(FallbackTest, WhatRunsAlongEnds) {
  enter(Mode::k64);
  EXPECT_EQ(emulate({0x0f, 0x57, 0xc0, 0xeb, 0xfb}), Outcome::kGoOn);  // xorps xmm0, xmm0; jmp back
  EXPECT_EQ(fallback_->executed(), 257u);
}

TEST_F(FallbackTest, SystemInstructionsDoNotRunAlong) {
  enter(Mode::k64);
  emulate({0x0f, 0x57, 0xc0, 0x0f, 0x01, 0x38});  // xorps xmm0, xmm0; invlpg [rax]
  EXPECT_EQ(state_.rip, TestMachine::kCode + 3);
  EXPECT_EQ(kvm_.calls[KVM_SET_SREGS2], 0u);
}

TEST_F(FallbackTest, ARepeatedInstructionComesBackAfterAPart) {
  enter(Mode::k64);
  state_.gpr[kRcx] = 0x100000;
  state_.gpr[x86::kRdi] = TestMachine::kData;
  EXPECT_EQ(emulate({0xf3, 0xaa}), Outcome::kGoOn);  // rep stosb
  EXPECT_EQ(state_.rip, TestMachine::kCode);
  EXPECT_LT(state_.gpr[kRcx], 0x100000u);
  EXPECT_GT(state_.gpr[kRcx], 0u);
}

TEST_F(FallbackTest, TheKernelIsToldToLookAtPageTablesAnew) {
  enter(Mode::k64);
  state_.gpr[kRax] = TestMachine::kData;
  emulate({0x0f, 0x01, 0x38});  // invlpg [rax]
  EXPECT_EQ(kvm_.calls[KVM_SET_SREGS2], 2u);
  EXPECT_EQ(state_.cr4 & x86::cr4::kPge, machine_->initial_state().cr4 & x86::cr4::kPge);
}

TEST_F(FallbackTest, HaltEndsInTheKernelsHands) {
  enter(Mode::k64);
  EXPECT_EQ(emulate({0xf4}), Outcome::kHalted);
  EXPECT_EQ(kvm_.part<kvm_mp_state>(KVM_SET_MP_STATE).mp_state, uint32_t{KVM_MP_STATE_HALTED});
}

// --- faults, events, shadows

TEST_F(FallbackTest, FaultsReachTheGuest) {
  enter(Mode::k64);
  state_.gpr[kRax] = uint64_t{1} << 63;                          // not canonical
  EXPECT_EQ(emulate({0x0f, 0x38, 0xf0, 0x08}), Outcome::kGoOn);  // movbe ecx, [rax]
  EXPECT_EQ(vector(), 13);
}

TEST_F(FallbackTest, PageFaultsSetCr2) {
  enter(Mode::k64);
  machine_->poke<uint64_t>(TestMachine::kPt + (TestMachine::kData >> 12) * 8, 0);
  state_.gpr[kRax] = TestMachine::kData;
  EXPECT_EQ(emulate({0x0f, 0x38, 0xf0, 0x08}), Outcome::kGoOn);
  EXPECT_EQ(vector(), 14);
  EXPECT_EQ(state_.cr2, TestMachine::kData);
}

TEST_F(FallbackTest, WhatTheGuestsCpuidLacksIsUndefined) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.features[static_cast<size_t>(x86::FeatureWord::k1Ecx)] &= ~(1u << 22);  // movbe
  enter(Mode::k64, spec);
  EXPECT_EQ(emulate({0x0f, 0x38, 0xf0, 0x08}), Outcome::kGoOn);
  EXPECT_EQ(vector(), 6);
}

TEST_F(FallbackTest, KvmsOwnUndefinedOpcodeIsDropped) {
  enter(Mode::k64);
  events_ = exception(6);
  EXPECT_EQ(emulate({0xf3, 0x0f, 0xb8, 0xc1}), Outcome::kGoOn);  // popcnt eax, ecx
  EXPECT_EQ(vector(), std::nullopt);
  EXPECT_EQ(kvm_.part<kvm_vcpu_events>(KVM_SET_VCPU_EVENTS).exception.injected, 0);
}

TEST_F(FallbackTest, AnExceptionOnItsWayComesFirst) {
  enter(Mode::k64);
  events_ = exception(14, 2);
  events_->exception_has_payload = 1;
  events_->exception_payload = 0x5000;
  EXPECT_EQ(emulate({0xf3, 0x0f, 0xb8, 0xc1}), Outcome::kGoOn);
  EXPECT_EQ(vector(), 14);
  EXPECT_EQ(state_.cr2, 0x5000u);
  EXPECT_EQ(machine_->peek<uint64_t>(state_.gpr[x86::kRsp]), 2u);
  EXPECT_EQ(machine_->peek<uint64_t>(state_.gpr[x86::kRsp] + 8), TestMachine::kCode);
}

TEST_F(FallbackTest, AnInterruptOnItsWayComesFirst) {
  enter(Mode::k64);
  events_.emplace();
  events_->interrupt.injected = 1;
  events_->interrupt.nr = 0x51;
  EXPECT_EQ(emulate({0xf3, 0x0f, 0xb8, 0xc1}), Outcome::kGoOn);
  EXPECT_EQ(vector(), 0x51);
  EXPECT_EQ(kvm_.part<kvm_vcpu_events>(KVM_SET_VCPU_EVENTS).interrupt.injected, 0);
}

TEST_F(FallbackTest, NmisThatCameMeanwhileAreNotUndone) {
  enter(Mode::k64);
  emulate({0xf3, 0x0f, 0xb8, 0xc1});
  EXPECT_EQ(kvm_.part<kvm_vcpu_events>(KVM_SET_VCPU_EVENTS).flags & KVM_VCPUEVENT_VALID_NMI_PENDING, 0u);
}

// [SDM 3A 6.7.1] From an NMI's delivery to the next IRET, KVM has to hold back further ones.
TEST_F(FallbackTest, AnNmiOnItsWayComesFirstAndBlocksTheNext) {
  enter(Mode::k64);
  events_.emplace();
  events_->nmi.injected = 1;
  events_->nmi.pending = 1;
  EXPECT_EQ(emulate({0xf3, 0x0f, 0xb8, 0xc1}), Outcome::kGoOn);
  EXPECT_EQ(vector(), 2);
  const auto after = kvm_.part<kvm_vcpu_events>(KVM_SET_VCPU_EVENTS);
  EXPECT_EQ(after.nmi.injected, 0);
  EXPECT_EQ(after.nmi.masked, 1);
  EXPECT_EQ(after.flags & KVM_VCPUEVENT_VALID_NMI_PENDING, 0u);
}

TEST_F(FallbackTest, InstructionsOfAnNmisHandlerLeaveTheNextBlocked) {
  enter(Mode::k64);
  events_.emplace();
  events_->nmi.masked = 1;
  events_->nmi.pending = 1;
  EXPECT_EQ(emulate({0xcc}), Outcome::kGoOn);  // int3
  EXPECT_EQ(vector(), 3);
  const auto after = kvm_.part<kvm_vcpu_events>(KVM_SET_VCPU_EVENTS);
  EXPECT_EQ(after.nmi.masked, 1);
  EXPECT_EQ(after.flags & KVM_VCPUEVENT_VALID_NMI_PENDING, 0u);
}

TEST_F(FallbackTest, InterruptReturnsLetTheNextNmiCome) {
  enter(Mode::k32);
  const auto stack = static_cast<uint32_t>(state_.gpr[x86::kRsp] - 12);
  state_.gpr[x86::kRsp] = stack;
  const uint32_t frame[] = {TestMachine::kCode + 0x20, state_.seg[static_cast<size_t>(x86::Seg::kCs)].selector, 2};
  machine_->load(stack, std::span(reinterpret_cast<const uint8_t*>(frame), sizeof frame));
  events_.emplace();
  events_->nmi.masked = 1;
  events_->nmi.pending = 1;
  EXPECT_EQ(emulate({0xcf}), Outcome::kGoOn);  // iret
  EXPECT_EQ(state_.rip, TestMachine::kCode + 0x20);
  const auto after = kvm_.part<kvm_vcpu_events>(KVM_SET_VCPU_EVENTS);
  EXPECT_EQ(after.nmi.masked, 0);
  EXPECT_EQ(after.flags & KVM_VCPUEVENT_VALID_NMI_PENDING, 0u);  // the pending one stays KVM's
}

TEST_F(FallbackTest, TheInterruptShadowEndsWithTheInstruction) {
  enter(Mode::k64);
  state_.interrupt_shadow = true;
  emulate({0xf3, 0x0f, 0xb8, 0xc1});
  EXPECT_FALSE(state_.interrupt_shadow);
}

TEST_F(FallbackTest, AStackLoadBeginsTheInterruptShadow) {
  enter(Mode::k32);
  state_.gpr[kRax] = TestMachine::kData32;
  emulate({0x8e, 0xd0});  // mov ss, ax
  EXPECT_TRUE(state_.interrupt_shadow);
}

TEST_F(FallbackTest, TripleFaultShutsDown) {
  enter(Mode::k64);
  state_.idtr.limit = 0;
  EXPECT_EQ(emulate({0xcc}), Outcome::kShutdown);
}

// --- registers in kvm_run

class FallbackSyncTest : public FallbackTest {
 protected:
  void SetUp() override {
    kvm_.synced_registers = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    enter(Mode::k64);
  }
  // As KVM_RUN leaves them.
  void fill_run() {
    exit_.s.regs.regs = kvm_.part<kvm_regs>(KVM_SET_REGS);
    const auto sregs = kvm_.part<kvm_sregs2>(KVM_SET_SREGS2);
    std::memcpy(&exit_.s.regs.sregs, &sregs, offsetof(kvm_sregs, interrupt_bitmap));
    exit_.s.regs.events = kvm_.part<kvm_vcpu_events>(KVM_SET_VCPU_EVENTS);
  }
};

TEST_F(FallbackSyncTest, TheFirstAsksForThem) {
  emulate({0xf3, 0x0f, 0xb8, 0xc1});  // popcnt eax, ecx
  EXPECT_EQ(exit_.kvm_valid_regs, static_cast<uint64_t>(kvm_.synced_registers));
  EXPECT_EQ(kvm_.calls[KVM_GET_REGS], 1u);
}

TEST_F(FallbackSyncTest, TheNextFindsAndLeavesThemThere) {
  emulate({0xf3, 0x0f, 0xb8, 0xc1});
  state_ = machine_->initial_state();
  state_.gpr[kRcx] = 7;
  vcpu_->set_state(state_);
  fill_run();
  exit_.kvm_dirty_regs = 0;
  kvm_.calls.clear();
  EXPECT_EQ(fallback_->emulate(vcpu(), exit_, *machine_, report_), Outcome::kGoOn);
  EXPECT_EQ(exit_.s.regs.regs.rax, 3u);
  EXPECT_EQ(exit_.s.regs.regs.rip, TestMachine::kCode + 4);
  EXPECT_EQ(exit_.kvm_dirty_regs, uint64_t{KVM_SYNC_X86_REGS | KVM_SYNC_X86_EVENTS});
  EXPECT_EQ(kvm_.calls.size(), 1u);
  EXPECT_EQ(kvm_.calls[KVM_GET_DEBUGREGS], 1u);
}

TEST_F(FallbackSyncTest, SystemRegistersGoBackWhenTheyChange) {
  static constexpr uint8_t kMovDs[] = {0x8e, 0xd8};  // mov ds, eax
  machine_->load(TestMachine::kCode, kMovDs);
  vcpu_->set_state(state_);
  fill_run();
  exit_.kvm_valid_regs = static_cast<uint64_t>(kvm_.synced_registers);
  EXPECT_EQ(fallback_->emulate(vcpu(), exit_, *machine_, report_), Outcome::kGoOn);
  EXPECT_NE(exit_.kvm_dirty_regs & KVM_SYNC_X86_SREGS, 0u);
  EXPECT_EQ(exit_.s.regs.sregs.ds.selector, 0);
}

// --- devices

TEST_F(FallbackTest, DeviceMemoryIsReached) {
  enter(Mode::k64);
  state_.gpr[kRax] = TestMachine::kNothing;
  EXPECT_EQ(emulate({0x0f, 0x38, 0xf0, 0x08}), Outcome::kGoOn);  // movbe ecx, [rax]
  ASSERT_EQ(machine_->mmio_reads.size(), 1u);
  EXPECT_EQ(machine_->mmio_reads[0].address, TestMachine::kNothing);
  EXPECT_EQ(state_.gpr[kRcx], 0x88776655u);
}

class FallbackApicTest : public FallbackTest {
 protected:
  static constexpr uint64_t kPage = 0xfee00000;
  void SetUp() override {
    enter(Mode::k64);
    auto sregs = kvm_.part<kvm_sregs2>(KVM_SET_SREGS2);
    sregs.apic_base = kPage | 0x900;
    kvm_.set_part(KVM_SET_SREGS2, sregs);
  }
  void set_register(uint32_t offset, uint32_t value) {
    auto page = kvm_.part<kvm_lapic_state>(KVM_SET_LAPIC);
    std::memcpy(page.regs + offset, &value, sizeof value);
    kvm_.set_part(KVM_SET_LAPIC, page);
  }
  [[nodiscard]] uint32_t get_register(uint32_t offset) const {
    const auto page = kvm_.part<kvm_lapic_state>(KVM_SET_LAPIC);
    uint32_t value;
    std::memcpy(&value, page.regs + offset, sizeof value);
    return value;
  }
  void write(uint32_t offset, uint32_t value) {  // movbe [rax], ecx
    state_.gpr[kRax] = kPage + offset;
    state_.gpr[kRcx] = __builtin_bswap32(value);
    EXPECT_EQ(emulate({0x0f, 0x38, 0xf1, 0x08}), Outcome::kGoOn);
  }
};

TEST_F(FallbackApicTest, RegistersAreRead) {
  set_register(0x30, 0x00050014);
  state_.gpr[kRax] = kPage + 0x30;
  EXPECT_EQ(emulate({0x0f, 0x38, 0xf0, 0x08}), Outcome::kGoOn);
  EXPECT_EQ(state_.gpr[kRcx], 0x14000500u);
  EXPECT_TRUE(machine_->mmio_reads.empty());
}

TEST_F(FallbackApicTest, TheTaskPriorityIsCr8AsWell) {
  write(0x80, 0x40);
  EXPECT_EQ(get_register(0x80), 0x40u);
  EXPECT_EQ(kvm_.part<kvm_sregs2>(KVM_SET_SREGS2).cr8, 4u);
}

TEST_F(FallbackApicTest, AnEndOfInterruptEndsTheHighest) {
  set_register(0x100 + 2 * 16, 1u << 3);  // 0x43
  set_register(0x100 + 3 * 16, 1u << 1);  // 0x61
  write(0xb0, 0);
  EXPECT_EQ(get_register(0x100 + 3 * 16), 0u);
  EXPECT_EQ(get_register(0x100 + 2 * 16), 1u << 3);
  EXPECT_EQ(kvm_.calls[KVM_SET_IRQCHIP], 0u);
}

TEST_F(FallbackApicTest, TheEndOfALevelReachesTheIoApic) {
  set_register(0x100 + 2 * 16, 1u << 3);
  set_register(0x180 + 2 * 16, 1u << 3);
  write(0xb0, 0);
  EXPECT_EQ(kvm_.calls[KVM_SET_IRQCHIP], 1u);
}

TEST_F(FallbackApicTest, CommandsAreMessages) {
  set_register(0x310, 1u << 24);
  write(0x300, 0x4051);  // fixed, assert, vector 0x51, to APIC 1
  ASSERT_EQ(kvm_.messages.size(), 1u);
  EXPECT_EQ(kvm_.messages[0].address_lo, 0xfee01000u);
  EXPECT_EQ(kvm_.messages[0].data, 0x4051u);
}

TEST_F(FallbackApicTest, AllButSelfIsEveryOther) {
  write(0x300, 3u << 18 | 0x4051);
  ASSERT_EQ(kvm_.messages.size(), 1u);
  EXPECT_EQ(kvm_.messages[0].address_lo, 0xfee01000u);
}

// --- what it gives up on

TEST_F(FallbackTest, AnUnknownVectorInstructionIsReported) {
  enter(Mode::k64);
  const x86::ArchState before = state_;
  EXPECT_EQ(emulate({0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1}), Outcome::kGaveUp);  // vaddps zmm0, zmm0, zmm1
  EXPECT_NE(report_.find("62 f1 7c 48 58 c1"), std::string::npos) << report_;
  EXPECT_EQ(state_.rip, TestMachine::kCode);
  EXPECT_EQ(state_.gpr, before.gpr);
}

TEST_F(FallbackTest, AKvmThatShowsNoRegistersIsReported) {
  enter(Mode::k64);
  kvm_.refused = {{KVM_GET_DEBUGREGS, EINVAL}};
  EXPECT_EQ(fallback_->emulate(vcpu(), exit_, *machine_, report_), Outcome::kGaveUp);
  EXPECT_NE(report_.find("KVM_GET_DEBUGREGS"), std::string::npos) << report_;
}

}  // namespace
}  // namespace kite
