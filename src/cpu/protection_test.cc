// Protection keys, linear-address masking, 57-bit addresses, 1 GiB pages.
#include <gtest/gtest.h>

#include "cpu/mmu.h"
#include "cpu/test_machine.h"
#include "support/bits.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
namespace cr4 = x86::cr4;
namespace pf = x86::pf;
using x86::FeatureWord;
using x86::Vector;

constexpr uint64_t kData = TestMachine::kData;
constexpr unsigned kKey = 5;
constexpr uint64_t kKeyBits = uint64_t{kKey} << 59;
constexpr uint32_t kAccessDisabled = 1u << 2 * kKey, kWriteDisabled = 2u << 2 * kKey;
constexpr uint64_t kUserPage = 7, kSupervisorPage = 3;  // present, writable

x86::CpuSpec without(FeatureWord word, unsigned bit) {
  x86::CpuSpec spec = TestMachine::everything();
  spec.features[static_cast<size_t>(word)] &= ~(1u << bit);
  return spec;
}

// kData is a page with protection key kKey.
class KeyMachine : public TestMachine {
 public:
  explicit KeyMachine(uint64_t page) {
    cpu().arch.cr4 |= cr4::kPke | cr4::kPks;
    set_pte(kData, kData | page | kKeyBits);
    gpr(x86::kRbx) = kData;
  }
  void load() { run({0x8b, 0x03}); }   // mov eax, [rbx]
  void store() { run({0x89, 0x03}); }  // mov [rbx], eax
};

TEST(ProtectionKeys, AccessDisableStopsUserReads) {
  KeyMachine m(kUserPage);
  m.cpu().set_pkru(kAccessDisabled);
  m.enter_user();
  m.load();
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.error_code(), pf::kPresent | pf::kUser | pf::kProtectionKey);
}

TEST(ProtectionKeys, WriteDisableLeavesReads) {
  KeyMachine m(kUserPage);
  m.cpu().set_pkru(kWriteDisabled);
  m.load();
  EXPECT_EQ(m.vector(), std::nullopt);
  m.store();
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.error_code(), pf::kPresent | pf::kWrite | pf::kProtectionKey);
}

TEST(ProtectionKeys, SupervisorWritesPassWriteDisableWithoutWp) {
  KeyMachine m(kUserPage);
  m.cpu().set_pkru(kWriteDisabled);
  m.cpu().arch.cr0 &= ~x86::cr0::kWp;
  m.store();
  EXPECT_EQ(m.vector(), std::nullopt);
}

TEST(ProtectionKeys, PkruIsForUserPagesAndPkrsForSupervisorPages) {
  KeyMachine user(kUserPage), supervisor(kSupervisorPage);
  user.cpu().set_pkrs(kAccessDisabled);
  supervisor.cpu().set_pkru(kAccessDisabled);
  user.load();
  supervisor.load();
  EXPECT_EQ(user.vector(), std::nullopt);
  EXPECT_EQ(supervisor.vector(), std::nullopt);
}

TEST(ProtectionKeys, PkrsStopsSupervisorAccesses) {
  KeyMachine m(kSupervisorPage);
  ASSERT_TRUE(m.cpu().write_msr(x86::msr::kPkrs, kAccessDisabled));
  m.load();
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.error_code(), pf::kPresent | pf::kProtectionKey);
}

TEST(ProtectionKeys, FetchesKnowNoKeys) {
  KeyMachine m(kSupervisorPage);
  m.cpu().set_pkrs(kAccessDisabled);
  m.poke<uint8_t>(kData, 0xf4);
  m.run({0xff, 0xe3});  // jmp rbx
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.cpu().state.rip, kData + 1);
}

TEST(ProtectionKeys, WrpkruTakesAwayWhatTheTlbHas) {
  KeyMachine m(kUserPage);
  m.gpr(x86::kRsi) = kData;
  m.gpr(x86::kRax) = kAccessDisabled;
  m.run({0x8b, 0x3e, 0x0f, 0x01, 0xef, 0x8b, 0x3e});  // mov edi, [rsi]; wrpkru; mov edi, [rsi]
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode + 5);
}

TEST(ProtectionKeys, RdpkruReadsWhatWrpkruWrote) {
  KeyMachine m(kUserPage);
  m.gpr(x86::kRax) = 0x55555550;
  m.run({0x0f, 0x01, 0xef, 0x31, 0xc0, 0xf7, 0xd2, 0x0f, 0x01, 0xee});  // wrpkru; xor eax, eax; not edx; rdpkru
  EXPECT_EQ(m.gpr(x86::kRax), 0x55555550u);
  EXPECT_EQ(m.gpr(x86::kRdx), 0u);
}

TEST(ProtectionKeys, PkruInstructionsWantZeroesAndPke) {
  KeyMachine ecx(kUserPage), edx(kUserPage), off(kUserPage);
  ecx.gpr(x86::kRcx) = 1;
  ecx.run({0x0f, 0x01, 0xee});
  EXPECT_EQ(ecx.vector(), 13);
  edx.gpr(x86::kRdx) = 1;
  edx.run({0x0f, 0x01, 0xef});
  EXPECT_EQ(edx.vector(), 13);
  off.cpu().arch.cr4 &= ~cr4::kPke;
  off.run({0x0f, 0x01, 0xee});
  EXPECT_EQ(off.vector(), 6);
}

TEST(ProtectionKeys, PkrsHas32Bits) {
  TestMachine m;
  EXPECT_FALSE(m.cpu().write_msr(x86::msr::kPkrs, uint64_t{1} << 32));
  TestMachine lacking(Mode::k64, without(FeatureWord::k7Ecx, 31));
  EXPECT_FALSE(lacking.cpu().write_msr(x86::msr::kPkrs, 0));
}

// --- linear-address masking

constexpr uint64_t kTag48 = uint64_t{0x1234} << 48 & ~bit(63), kTag57 = uint64_t{0x2a} << 57;

TEST(LinearAddressMasking, UserTagsAreIgnored) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_control(3, TestMachine::kPml4 | x86::cr3::kLamU48));
  m.poke<uint32_t>(kData, 0xabcdef01);
  m.gpr(x86::kRbx) = kData | kTag48;
  m.run({0x8b, 0x03});
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x86::kRax), 0xabcdef01u);
}

TEST(LinearAddressMasking, U57LeavesBit47ToBeCanonical) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_control(3, TestMachine::kPml4 | x86::cr3::kLamU57));
  m.gpr(x86::kRbx) = kData | kTag57;
  m.run({0x8b, 0x03});
  EXPECT_EQ(m.vector(), std::nullopt);
  m.gpr(x86::kRbx) = kData | bit(50);
  m.run({0x8b, 0x03});
  EXPECT_EQ(m.vector(), 13);
}

TEST(LinearAddressMasking, Cr2HasNoMetadata) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_control(3, TestMachine::kPml4 | x86::cr3::kLamU48));
  m.set_pte(kData, 0);
  m.gpr(x86::kRbx) = kData | kTag48;
  m.run({0x8b, 0x03});
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.cpu().arch.cr2, kData);
}

TEST(LinearAddressMasking, FetchesAreNotMasked) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_control(3, TestMachine::kPml4 | x86::cr3::kLamU48));
  m.gpr(x86::kRbx) = kData | kTag48;
  m.run({0x8b, 0x03, 0xff, 0xe3});  // mov eax, [rbx]; jmp rbx
  EXPECT_EQ(m.vector(), 13);
}

TEST(LinearAddressMasking, InvlpgDropsThePageUnderEveryTag) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_control(3, TestMachine::kPml4 | x86::cr3::kLamU48));
  m.gpr(x86::kRbx) = kData | kTag48;
  m.run({0x8b, 0x03});
  m.set_pte(kData, 0);  // flushes the untagged address
  m.run({0x8b, 0x03});
  EXPECT_EQ(m.vector(), 14);
}

TEST(LinearAddressMasking, BitsOfCr3NeedTheFeature) {
  TestMachine m(Mode::k64, without(FeatureWord::k71Eax, 26));
  EXPECT_FALSE(m.cpu().write_control(3, TestMachine::kPml4 | x86::cr3::kLamU48));
}

// --- 57-bit addresses

TEST(La57, BasesAreAsWideAsTheCpuCanUse) {
  constexpr uint64_t kWide = uint64_t{0x0aaaaa} << 36, kTooWide = uint64_t{1} << 60;
  TestMachine wide, narrow(Mode::k64, without(FeatureWord::k7Ecx, 16));
  for (const uint32_t index : {x86::msr::kLstar, x86::msr::kFsBase, x86::msr::kKernelGsBase, x86::msr::kSysenterEip}) {
    EXPECT_TRUE(wide.cpu().write_msr(index, kWide)) << index;
    EXPECT_FALSE(wide.cpu().write_msr(index, kTooWide)) << index;
    EXPECT_FALSE(narrow.cpu().write_msr(index, kWide)) << index;
  }
}

TEST(La57, AccessesAreAsWideAsThePagingMode) {
  TestMachine m;
  m.gpr(x86::kRbx) = bit(50);
  m.run({0x8b, 0x03});
  EXPECT_EQ(m.vector(), 13);
}

TEST(La57, FiveLevelsAreWalked) {
  constexpr Gpa kPml5 = 0xf000;
  constexpr uint64_t kHigh = uint64_t{1} << 48;
  TestMachine m;
  m.poke<uint64_t>(kPml5, TestMachine::kPml4 | 7);
  m.poke<uint64_t>(kPml5 + 8, TestMachine::kPml4 | 7);
  x86::ArchState state = m.initial_state();
  state.cr3 = kPml5;
  state.cr4 |= cr4::kLa57;
  m.cpu().set_state(state);
  m.poke<uint32_t>(kData, 77);
  m.gpr(x86::kRbx) = kHigh | kData;
  m.run({0x8b, 0x03});
  EXPECT_EQ(m.vector(), std::nullopt);
  EXPECT_EQ(m.gpr(x86::kRax), 77u);
}

TEST(GibPages, MapWhenTheyAreOfferedAndAreReservedOtherwise) {
  TestMachine with, lacking(Mode::k64, without(FeatureWord::k80000001Edx, 26));
  for (TestMachine* m : {&with, &lacking}) {
    m->poke<uint64_t>(TestMachine::kPdpt + 8, 0x83);  // the second GiB shows the first
    m->poke<uint32_t>(kData, 99);
    m->cpu().flush_tlb(false);
    m->gpr(x86::kRbx) = bit(30) | kData;
    m->run({0x8b, 0x03});
  }
  EXPECT_EQ(with.gpr(x86::kRax), 99u);
  EXPECT_EQ(lacking.vector(), 14);
  EXPECT_EQ(lacking.error_code(), pf::kPresent | pf::kReserved);
}

}  // namespace
}  // namespace kite::cpu
