#include "cpu/smm.h"

#include <gtest/gtest.h>

#include "cpu/test_machine.h"
#include "support/bits.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
using x86::Activity;
using x86::FeatureWord;
using x86::Seg;

constexpr Gpa kSmbase = 0x30000, kEntry = kSmbase + 0x8000, kSmram = 0xa0000;
constexpr Gpa kRip = kSmbase + 0xff78, kRax = kSmbase + 0xfff8, kSavedSmbase = kSmbase + 0xff00,
              kHaltRestart = kSmbase + 0xfec9, kSavedCr0 = kSmbase + 0xff58;

x86::CpuSpec without_long_mode() {
  x86::CpuSpec spec = TestMachine::everything();
  spec.features[static_cast<size_t>(FeatureWord::k80000001Edx)] &= ~(1u << 29);
  return spec;
}

// A machine whose CPU sees a block of its own at 0xa0000 in system-management mode. Its handler is HLT until a test
// puts something else there.
class SmmMachine : public TestMachine {
 public:
  explicit SmmMachine(Mode mode = Mode::k64, const x86::CpuSpec& spec = everything())
      : TestMachine(mode, spec), view_("smm", uint64_t{1} << 52), smram_(*RamBlock::create("smram", 0x20000)) {
    view_.root().add(0, Region::alias("all", memory.root().shared_from_this(), 0, uint64_t{1} << 32));
    view_.root().add(kSmram, Region::ram("smram", smram_), 1);
    view_.commit();
    cpu().config.smm_memory = &view_;
    handler({0xf4});
  }
  void handler(std::initializer_list<uint8_t> code) { load(kEntry, std::span(code.begin(), code.size())); }
  // Runs `code` with an SMI pending: it is taken first.
  void run_with_smi(std::initializer_list<uint8_t> code) {
    requests |= request::kSmi;
    run(code);
  }
  // Leaves the mode, in which the handler has halted.
  void leave() {
    load(kEntry + 1, std::array<uint8_t, 2>{0x0f, 0xaa});  // behind the handler's HLT
    resume();
  }
  [[nodiscard]] uint8_t* smram() { return smram_->host(); }

 private:
  AddressSpace view_;
  std::shared_ptr<RamBlock> smram_;
};

TEST(Smm, EntersWithTheStateSaved) {
  SmmMachine m;
  m.gpr(x86::kRax) = 0x1122334455667788;
  m.run_with_smi({0x90});
  EXPECT_TRUE(m.cpu().arch.smm);
  EXPECT_EQ(m.cpu().state.rip, 0x8001u);  // behind the handler's HLT
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, kSmbase);
  EXPECT_EQ(m.cpu().seg(Seg::kDs).limit, 0xffffffffu);
  EXPECT_EQ(m.cpu().arch.cr0 & (x86::cr0::kPe | x86::cr0::kPg), 0u);
  EXPECT_EQ(m.cpu().arch.cr4, 0u);
  EXPECT_EQ(m.cpu().arch.efer, 0u);
  EXPECT_EQ(m.peek<uint64_t>(kRip), TestMachine::kCode);
  EXPECT_EQ(m.peek<uint64_t>(kRax), 0x1122334455667788u);
  EXPECT_EQ(m.peek<uint32_t>(kSmbase + 0xfefc), 0x20064u);
  EXPECT_EQ(m.peek<uint16_t>(kSmbase + 0xfe10), TestMachine::kCode64);
}

TEST(Smm, RsmRestoresLongModeAndTheRegisters) {
  SmmMachine m;
  m.handler({0x66, 0x31, 0xdb, 0x0f, 0xaa});  // xor ebx, ebx; rsm
  m.gpr(x86::kRbx) = 0xffffffff00000001;
  m.gpr(x86::kR15) = 15;
  m.run_with_smi({0x48, 0xff, 0xc3});  // inc rbx
  EXPECT_FALSE(m.cpu().arch.smm);
  EXPECT_TRUE(m.cpu().code64);
  EXPECT_EQ(m.gpr(x86::kRbx), 0xffffffff00000002u);
  EXPECT_EQ(m.gpr(x86::kR15), 15u);
  EXPECT_EQ(m.cpu().state.rip, TestMachine::kCode + 4);
}

TEST(Smm, RsmTakesWhatTheHandlerHasWritten) {
  SmmMachine m;
  m.run_with_smi({0x90});
  m.poke<uint64_t>(kRax, 42);
  m.leave();
  EXPECT_EQ(m.gpr(x86::kRax), 42u);
}

TEST(Smm, RsmIsUndefinedOutsideOfTheMode) {
  SmmMachine m;
  m.run({0x0f, 0xaa});
  EXPECT_EQ(m.vector(), 6);
}

TEST(Smm, SmbaseMovesAtRsm) {
  SmmMachine m;
  m.run_with_smi({0x90});
  m.poke<uint32_t>(kSavedSmbase, kSmram);
  m.leave();
  m.smram()[0x8000] = 0xf4;
  m.run_with_smi({0x90});
  EXPECT_EQ(m.cpu().seg(Seg::kCs).base, kSmram);
  EXPECT_EQ(m.cpu().state.rip, 0x8001u);
  uint64_t saved = 0;
  std::memcpy(&saved, m.smram() + 0xff78, 8);
  EXPECT_EQ(saved, TestMachine::kCode);
}

TEST(Smm, SmramIsSeenInTheModeAlone) {
  SmmMachine m;
  m.smram()[0] = 0x5a;
  m.poke<uint8_t>(kSmram, 0x11);
  m.handler({0x67, 0x8a, 0x05, 0x00, 0x00, 0x0a, 0x00, 0xf4});  // mov al, [0xa0000]; hlt
  m.run_with_smi({0x90});
  EXPECT_EQ(m.gpr(x86::kRax) & 0xff, 0x5au);
  m.handler({0x0f, 0xaa});
  m.cpu().state.rip = 0x8000;
  m.resume();
  m.run({0x8a, 0x04, 0x25, 0x00, 0x00, 0x0a, 0x00});  // mov al, [0xa0000]
  EXPECT_EQ(m.gpr(x86::kRax) & 0xff, 0x11u);
}

TEST(Smm, HaltGoesOnUnlessTheHandlerSaysOtherwise) {
  for (const bool stay : {true, false}) {
    SmmMachine m;
    m.run({});  // just the HLT
    EXPECT_FALSE(m.cpu().has_work(0));
    m.load(TestMachine::kCode + 1, std::array<uint8_t, 4>{0x48, 0xff, 0xc3, 0xf4});  // inc rbx; hlt
    m.requests |= request::kSmi;
    EXPECT_TRUE(m.cpu().has_work(m.requests));
    m.cpu().run(m, m.requests, m.sipi_vector);
    EXPECT_EQ(m.peek<uint8_t>(kHaltRestart), 1);
    if (!stay) m.poke<uint8_t>(kHaltRestart, 0);
    m.leave();
    EXPECT_EQ(m.gpr(x86::kRbx), stay ? 0u : 1u);
    EXPECT_EQ(m.cpu().arch.activity, Activity::kHalted);
  }
}

TEST(Smm, NmiAndInitAndFurtherSmisWait) {
  SmmMachine m;
  m.run_with_smi({0x90});
  m.requests |= request::kNmi | request::kInit | request::kSmi;
  EXPECT_FALSE(m.cpu().has_work(m.requests));
  m.handler({0x90, 0x90, 0xf4});
  m.cpu().state.rip = 0x8000;
  m.resume();
  EXPECT_TRUE(m.cpu().arch.smm);
  EXPECT_EQ(m.cpu().state.rip, 0x8003u);
  m.requests &= ~request::kInit;
  m.cpu().arch.smi_pending = false;
  m.handler({0x0f, 0xaa});
  m.cpu().state.rip = 0x8000;
  m.resume();
  EXPECT_EQ(m.vector(), 2);
}

TEST(Smm, BlockedNmisStayBlocked) {
  SmmMachine m;
  m.cpu().arch.nmi_blocked = true;
  m.handler({0x0f, 0xaa});
  m.run_with_smi({0x90});
  EXPECT_TRUE(m.cpu().arch.nmi_blocked);
}

TEST(Smm, ImpossibleStateShutsDown) {
  SmmMachine m;
  m.run_with_smi({0x90});
  m.poke<uint64_t>(kSavedCr0, x86::cr0::kPg);
  m.load(kEntry + 1, std::array<uint8_t, 2>{0x0f, 0xaa});
  EXPECT_EQ(m.resume(), Exit::kShutdown);
}

TEST(Smm, ProcessorsWithoutLongModeHaveTheOldMap) {
  SmmMachine m(Mode::k32, without_long_mode());
  m.gpr(x86::kRsi) = 0x12345678;
  m.run_with_smi({0x90});
  EXPECT_EQ(m.peek<uint32_t>(kSmbase + 0xfefc), 0x20000u);
  EXPECT_EQ(m.peek<uint32_t>(kSmbase + 0xfff0), TestMachine::kCode);
  EXPECT_EQ(m.peek<uint32_t>(kSmbase + 0xffe8), 0x12345678u);
  m.poke<uint32_t>(kSmbase + 0xffe8, 7);
  m.leave();
  EXPECT_EQ(m.gpr(x86::kRsi), 7u);
  EXPECT_TRUE(m.cpu().protected_mode());
  EXPECT_EQ(m.cpu().seg(Seg::kCs).limit, 0xffffffffu);
}

TEST(Smm, WithoutAViewSmisAreDropped) {
  TestMachine m;
  m.requests |= request::kSmi;
  m.run({0x48, 0xff, 0xc3});
  EXPECT_FALSE(m.cpu().arch.smm);
  EXPECT_EQ(m.gpr(x86::kRbx), 1u);
}

TEST(Smm, OutThatAsksForASmiIsFollowedByIt) {
  SmmMachine m;
  m.on_port_write = [&m](uint16_t) { m.requests |= request::kSmi; };
  m.run({0xe6, 0xb2, 0x48, 0xff, 0xc3});  // out 0xb2, al; inc rbx
  EXPECT_TRUE(m.cpu().arch.smm);
  EXPECT_EQ(m.peek<uint64_t>(kRip), TestMachine::kCode + 2);
  EXPECT_EQ(m.gpr(x86::kRbx), 0u);
}

}  // namespace
}  // namespace kite::cpu
