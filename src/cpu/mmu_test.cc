#include "cpu/mmu.h"

#include <gtest/gtest.h>

#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using Mode = TestMachine::Mode;
using x86::Seg;
using x86::Vector;
namespace pf = x86::pf;

constexpr uint64_t kP = 1, kW = 2, kU = 4, kA = 0x20, kD = 0x40, kPs = 0x80, kG = 0x100, kNx = uint64_t{1} << 63;
constexpr uint64_t kPage = TestMachine::kData;  // a 4 KiB page of every paged mode
constexpr uint64_t kOther = TestMachine::kData + 0x1000;

uint64_t pte(TestMachine& m, uint64_t linear) { return m.peek<uint64_t>(TestMachine::kPt + (linear >> 12) * 8); }

// The exception that is waiting, taken away.
std::optional<Exception> take(Cpu& cpu) {
  const auto raised = cpu.exception;
  cpu.exception.reset();
  return raised;
}
// The error code of the #PF that reading or writing `address` raises; nothing when it does not.
std::optional<uint32_t> fault_of(Cpu& cpu, uint64_t address, bool write) {
  uint32_t value = 0;
  if (write ? cpu.write<uint32_t>(address, 1) : cpu.read(address, value)) return std::nullopt;
  const auto raised = take(cpu);
  EXPECT_EQ(raised->vector, Vector::kPf);
  EXPECT_EQ(cpu.arch.cr2, address);
  return raised->error_code;
}
std::optional<uint32_t> fetch_fault(Cpu& cpu, uint64_t address) {
  Gpa physical = 0;
  std::atomic<uint32_t>* generation = nullptr;
  cpu.fetch_pointer(address, physical, &generation);
  const auto raised = take(cpu);
  if (!raised) return std::nullopt;
  return raised->error_code;
}
void set_cr0(Cpu& cpu, uint64_t set, uint64_t clear = 0) {
  ASSERT_TRUE(cpu.write_control(0, (cpu.arch.cr0 & ~clear) | set));
}
void set_cr4(Cpu& cpu, uint64_t set, uint64_t clear = 0) {
  ASSERT_TRUE(cpu.write_control(4, (cpu.arch.cr4 & ~clear) | set));
}

TEST(Mmu, ReadsThroughFourLevels) {
  TestMachine m;
  m.set_pte(kPage, kOther | kP | kW);
  m.poke<uint32_t>(kOther + 8, 0xcafe);
  uint32_t value = 0;
  ASSERT_TRUE(m.cpu().read(kPage + 8, value));
  EXPECT_EQ(value, 0xcafeu);
}

TEST(Mmu, NotPresentFaultsWithoutP) {
  TestMachine m;
  m.set_pte(kPage, 0);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), 0u);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), pf::kWrite);
}

TEST(Mmu, UserFaultsCarryU) {
  TestMachine m;
  m.enter_user();
  m.set_pte(kPage, kPage | kP | kW);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), pf::kPresent | pf::kUser);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), pf::kPresent | pf::kUser | pf::kWrite);
}

TEST(Mmu, SupervisorWritesToReadOnlyPagesByWp) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP | kU);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), pf::kPresent | pf::kWrite);
  set_cr0(m.cpu(), 0, x86::cr0::kWp);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), std::nullopt);
}

TEST(Mmu, ReservedBitsFaultWithPresent) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP | kW | uint64_t{1} << kPhysicalBits);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), pf::kPresent | pf::kReserved);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), pf::kPresent | pf::kReserved | pf::kWrite);
}

TEST(Mmu, LargeBitOfTheTopLevelIsReserved) {
  TestMachine m;
  m.poke<uint64_t>(TestMachine::kPml4, TestMachine::kPdpt | kP | kW | kPs);
  m.cpu().flush_tlb(false);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), pf::kPresent | pf::kReserved);
}

TEST(Mmu, LowAddressBitsOfALargePageAreReserved) {
  TestMachine m;
  m.poke<uint64_t>(TestMachine::kPd + 8, 0x200000 | 0x2000 | kP | kW | kPs);
  m.cpu().flush_tlb(false);
  EXPECT_EQ(fault_of(m.cpu(), 0x200000, false), pf::kPresent | pf::kReserved);
}

TEST(Mmu, NoExecuteFaultsFetchesOnly) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP | kW | kNx);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), std::nullopt);
  EXPECT_EQ(fetch_fault(m.cpu(), kPage), pf::kPresent | pf::kFetch);
}

TEST(Mmu, NoExecuteIsReservedWithoutNxe) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP | kW | kNx);
  ASSERT_TRUE(m.cpu().write_msr(x86::msr::kEfer, m.cpu().arch.efer & ~x86::efer::kNxe));
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), pf::kPresent | pf::kReserved);
  EXPECT_EQ(fetch_fault(m.cpu(), kPage), pf::kPresent | pf::kReserved);  // no I bit: nothing can forbid execution
}

TEST(Mmu, AccessedAndDirtyBits) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP | kW);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), std::nullopt);
  EXPECT_EQ(pte(m, kPage) & (kA | kD), kA);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), std::nullopt);
  EXPECT_EQ(pte(m, kPage) & (kA | kD), kA | kD);
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kPml4) & kA, kA);
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kPd) & (kA | kD), kA);
}

TEST(Mmu, RefusedWritesLeaveThePageClean) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), pf::kPresent | pf::kWrite);
  EXPECT_EQ(pte(m, kPage) & (kA | kD), 0u);
}

TEST(Mmu, SmepForbidsFetchingFromUserPages) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP | kU);
  EXPECT_EQ(fetch_fault(m.cpu(), kPage), std::nullopt);
  m.set_pte(TestMachine::kCode, TestMachine::kCode | kP);
  set_cr4(m.cpu(), x86::cr4::kSmep);
  EXPECT_EQ(fetch_fault(m.cpu(), kPage), pf::kPresent | pf::kFetch);
}

TEST(Mmu, SmapHoldsTheSupervisorFromUserPagesUnlessAc) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP | kW | kU);
  set_cr4(m.cpu(), x86::cr4::kSmap);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), pf::kPresent);
  m.cpu().set_flags(m.cpu().flags() | x86::flag::kAc);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), std::nullopt);
  m.cpu().set_flags(m.cpu().flags() & ~x86::flag::kAc);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), pf::kPresent | pf::kWrite);
}

TEST(Mmu, SmapHoldsImplicitAccessesEvenWithAc) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP | kW | kU);
  set_cr4(m.cpu(), x86::cr4::kSmap);
  m.cpu().set_flags(m.cpu().flags() | x86::flag::kAc);
  uint64_t value = 0;
  EXPECT_FALSE(m.cpu().system_read(kPage, 8, value));
  EXPECT_EQ(take(m.cpu())->error_code, pf::kPresent);
}

TEST(Mmu, GlobalPagesSurviveCr3Writes) {
  TestMachine m;
  set_cr4(m.cpu(), x86::cr4::kPge);
  m.set_pte(kPage, kPage | kP | kW | kG);
  m.set_pte(kOther, kOther | kP | kW);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), std::nullopt);
  EXPECT_EQ(fault_of(m.cpu(), kOther, false), std::nullopt);
  m.poke<uint64_t>(TestMachine::kPt + (kPage >> 12) * 8, 0);
  m.poke<uint64_t>(TestMachine::kPt + (kOther >> 12) * 8, 0);
  ASSERT_TRUE(m.cpu().write_control(3, TestMachine::kPml4));
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), std::nullopt);
  EXPECT_EQ(fault_of(m.cpu(), kOther, false), 0u);
  set_cr4(m.cpu(), 0, x86::cr4::kPge);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), 0u);
}

TEST(Mmu, InvlpgDropsEverySliceOfALargePage) {
  TestMachine m;
  EXPECT_EQ(fault_of(m.cpu(), 0x201000, false), std::nullopt);
  EXPECT_EQ(fault_of(m.cpu(), 0x3ff000, false), std::nullopt);
  m.poke<uint64_t>(TestMachine::kPd + 8, 0);
  m.cpu().flush_page(0x200000);
  EXPECT_EQ(fault_of(m.cpu(), 0x201000, false), 0u);
  EXPECT_EQ(fault_of(m.cpu(), 0x3ff000, false), 0u);
}

TEST(Mmu, StaleTranslationsStayUntilTheyAreFlushed) {
  TestMachine m;
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), std::nullopt);
  m.poke<uint64_t>(TestMachine::kPt + (kPage >> 12) * 8, 0);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), std::nullopt);
  m.cpu().flush_page(kPage);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), 0u);
}

TEST(Mmu, OneGibPages) {
  TestMachine m;
  m.poke<uint64_t>(TestMachine::kPdpt + 3 * 8, kP | kW | kPs);  // 3 GiB..4 GiB show the first GiB
  m.cpu().flush_tlb(false);
  m.poke<uint32_t>(kPage, 0x1234);
  uint32_t value = 0;
  ASSERT_TRUE(m.cpu().read(0xc0000000 + kPage, value));
  EXPECT_EQ(value, 0x1234u);
  m.poke<uint64_t>(TestMachine::kPdpt + 3 * 8, 0);
  m.cpu().flush_page(0xfffff000);
  EXPECT_EQ(fault_of(m.cpu(), 0xc0000000 + kPage, false), 0u);
}

TEST(Mmu, FourMibPagesAndPse36) {
  TestMachine m(Mode::k32Paged);
  m.poke<uint32_t>(kOther, 0x5678);
  m.poke<uint32_t>(TestMachine::kPd32 + 0x100 * 4, kP | kW | kPs);  // 0x40000000
  m.cpu().flush_tlb(false);
  uint32_t value = 0;
  ASSERT_TRUE(m.cpu().read(0x40000000 + kOther, value));
  EXPECT_EQ(value, 0x5678u);
  // Bits 20:13 are address bits 39:32, bit 21 is reserved (SDM table 4-4).
  m.poke<uint32_t>(TestMachine::kPd32 + 0x101 * 4, kP | kW | kPs | 1u << 13);
  m.poke<uint32_t>(TestMachine::kPd32 + 0x102 * 4, kP | kW | kPs | 1u << 21);
  m.cpu().io = &m;
  ASSERT_TRUE(m.cpu().read(0x40400000, value));
  ASSERT_EQ(m.mmio_reads.size(), 1u);
  EXPECT_EQ(m.mmio_reads[0].address, uint64_t{1} << 32);
  EXPECT_EQ(fault_of(m.cpu(), 0x40800000, false), pf::kPresent | pf::kReserved);
}

// 32-bit code over PAE paging: PDPTEs at 0x6000, identity through the PDs and PT of the long-mode tables.
void enter_pae(TestMachine& m) {
  TestMachine tables(Mode::k64);
  m.load(TestMachine::kPd, std::span(tables.ram->host() + TestMachine::kPd, 0x5000));
  for (uint64_t i = 0; i < 4; ++i) m.poke<uint64_t>(0x2000 + i * 8, (TestMachine::kPd + i * 0x1000) | kP);
  set_cr4(m.cpu(), x86::cr4::kPae);
  ASSERT_TRUE(m.cpu().write_control(3, 0x2000));
  set_cr0(m.cpu(), x86::cr0::kPg);
}

TEST(Mmu, PaeUsesThePdptesLoadedWithCr3) {
  TestMachine m(Mode::k32);
  enter_pae(m);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), std::nullopt);
  m.poke<uint64_t>(0x2000, 0);
  m.cpu().flush_tlb(false);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), std::nullopt);
  ASSERT_TRUE(m.cpu().write_control(3, 0x2000));
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), pf::kWrite);
}

TEST(Mmu, PaeRefusesReservedPdpteBits) {
  TestMachine m(Mode::k32);
  enter_pae(m);
  m.poke<uint64_t>(0x2008, 0x4000 | kP | kW);  // bit 1 is reserved
  EXPECT_FALSE(m.cpu().write_control(3, 0x2000));
  EXPECT_EQ(take(m.cpu())->vector, Vector::kGp);
}

TEST(Mmu, PaeEntriesReserveTheBitsThatLongModeIgnores) {
  TestMachine m(Mode::k32);
  enter_pae(m);
  m.poke<uint64_t>(TestMachine::kPt + (kPage >> 12) * 8, kPage | kP | kW | uint64_t{1} << 55);
  m.cpu().flush_tlb(false);
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), pf::kPresent | pf::kReserved);
  TestMachine wide;
  wide.set_pte(kPage, kPage | kP | kW | uint64_t{1} << 55);
  EXPECT_EQ(fault_of(wide.cpu(), kPage, false), std::nullopt);
}

TEST(Mmu, CrossingWriteChecksBothPagesFirst) {
  TestMachine m;
  m.set_pte(kOther, 0);
  m.poke<uint32_t>(kOther - 4, 0x11111111);
  EXPECT_FALSE(m.cpu().write<uint64_t>(kOther - 4, 0));
  EXPECT_EQ(take(m.cpu())->error_code, pf::kWrite);
  EXPECT_EQ(m.cpu().arch.cr2, kOther);
  EXPECT_EQ(m.peek<uint32_t>(kOther - 4), 0x11111111u);
}

TEST(Mmu, CrossingAccessesJoinTheirHalves) {
  TestMachine m;
  m.set_pte(kOther, (kOther + 0x5000) | kP | kW);
  ASSERT_TRUE(m.cpu().write<uint64_t>(kOther - 3, 0x8877665544332211));
  EXPECT_EQ(m.peek<uint32_t>(kOther - 4) >> 8, 0x332211u);
  EXPECT_EQ(m.peek<uint32_t>(kOther + 0x5000), 0x77665544u);
  uint64_t value = 0;
  ASSERT_TRUE(m.cpu().read(kOther - 3, value));
  EXPECT_EQ(value, 0x8877665544332211u);
}

TEST(Mmu, BytesCrossPagesAllOrNothing) {
  TestMachine m;
  std::array<uint8_t, 512> out{}, in{};
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint8_t>(i * 7);
  ASSERT_TRUE(m.cpu().write_bytes(kOther - 100, in.data(), in.size()));
  ASSERT_TRUE(m.cpu().read_bytes(kOther - 100, out.data(), out.size()));
  EXPECT_EQ(in, out);
  m.set_pte(kOther, 0);
  const uint8_t before = m.peek<uint8_t>(kOther - 100);
  out.fill(0xee);
  EXPECT_FALSE(m.cpu().write_bytes(kOther - 100, out.data(), out.size()));
  take(m.cpu());
  EXPECT_EQ(m.peek<uint8_t>(kOther - 100), before);
}

TEST(Mmu, DeviceMemoryGoesToTheMachine) {
  TestMachine m;
  m.cpu().io = &m;
  uint32_t value = 0;
  ASSERT_TRUE(m.cpu().read(TestMachine::kNothing + 4, value));
  ASSERT_TRUE(m.cpu().write<uint16_t>(TestMachine::kNothing + 6, 0xbeef));
  EXPECT_EQ(value, 0x55667788u);
  EXPECT_EQ(m.mmio_reads[0], (TestMachine::MmioAccess{TestMachine::kNothing + 4, 4, m.mmio_value}));
  EXPECT_EQ(m.mmio_writes[0], (TestMachine::MmioAccess{TestMachine::kNothing + 6, 2, 0xbeef}));
}

TEST(Mmu, DeviceAccessesNeverCrossAPage) {
  TestMachine m;
  m.cpu().io = &m;
  ASSERT_TRUE(m.cpu().write<uint64_t>(TestMachine::kNothing + 0xffd, 0x8877665544332211));
  for (const auto& access : m.mmio_writes) EXPECT_EQ(access.address >> 12, (access.address + access.size - 1) >> 12);
  uint64_t joined = 0;
  for (const auto& access : m.mmio_writes)
    joined |= access.value << (access.address - (TestMachine::kNothing + 0xffd)) * 8;
  EXPECT_EQ(joined, 0x8877665544332211u);
}

TEST(Mmu, DeviceMemoryHasNoHostPointer) {
  TestMachine m;
  unsigned left = 0;
  EXPECT_EQ(m.cpu().rmw<uint32_t>(TestMachine::kNothing), nullptr);
  EXPECT_EQ(m.cpu().direct(TestMachine::kNothing, Access::kRead, left, true), nullptr);
  EXPECT_FALSE(m.cpu().exception);
}

TEST(Mmu, ApicPageAnswersDwords) {
  TestMachine m;
  uint32_t value = 0;
  ASSERT_TRUE(m.cpu().read<uint32_t>(0xfee00020, value));
  EXPECT_EQ(value, 0xa0000020u);
  ASSERT_TRUE(m.cpu().write<uint32_t>(0xfee000b0, 7));
  ASSERT_TRUE(m.cpu().write<uint8_t>(0xfee000b0, 9));  // not a register access
  ASSERT_EQ(m.apic.mmio_writes.size(), 1u);
  EXPECT_EQ(m.apic.mmio_writes[0], (std::pair<uint32_t, uint32_t>{0xb0, 7}));
}

TEST(Mmu, ApicPageMovesWithItsBase) {
  TestMachine m;
  m.cpu().io = &m;
  uint32_t value = 0;
  ASSERT_TRUE(m.cpu().read<uint32_t>(0xfee00020, value));
  ASSERT_TRUE(m.cpu().write_msr(x86::msr::kApicBase, 0xd0000800));
  ASSERT_TRUE(m.cpu().read<uint32_t>(0xd0000030, value));
  EXPECT_EQ(value, 0xa0000030u);
  ASSERT_TRUE(m.cpu().read<uint32_t>(0xfee00020, value));
  EXPECT_EQ(m.mmio_reads.size(), 1u);
}

TEST(Mmu, RomIsReadAndExecutedButNotWritten) {
  TestMachine m;
  auto block = *RamBlock::create("rom", 0x1000);
  block->host()[0] = 0x42;
  m.memory.root().add(0xe0000000, Region::rom("rom", block));
  m.memory.commit();
  m.cpu().map_changed();
  uint8_t value = 0;
  ASSERT_TRUE(m.cpu().read(0xe0000000, value));
  EXPECT_EQ(value, 0x42);
  ASSERT_TRUE(m.cpu().write<uint8_t>(0xe0000000, 0x99));
  EXPECT_EQ(block->host()[0], 0x42);
  EXPECT_EQ(m.cpu().rmw<uint8_t>(0xe0000000), nullptr);
  EXPECT_EQ(fetch_fault(m.cpu(), 0xe0000000), std::nullopt);
}

TEST(Mmu, MapChangesAreSeen) {
  TestMachine m;
  m.cpu().io = &m;
  uint32_t value = 0;
  ASSERT_TRUE(m.cpu().read(0xe0000000, value));
  EXPECT_EQ(m.mmio_reads.size(), 1u);
  auto block = *RamBlock::create("more", 0x1000);
  m.memory.root().add(0xe0000000, Region::ram("more", block));
  m.memory.commit();
  m.cpu().map_changed();
  ASSERT_TRUE(m.cpu().write<uint32_t>(0xe0000000, 0x77));
  EXPECT_EQ(block->host()[0], 0x77);
}

// A page that has been used, as far as its entry says, may be remembered with one that is; one that has not, may not.
TEST(Mmu, NeighboursAreRememberedAsTheirEntriesHaveThem) {
  constexpr uint64_t kUsed = 0x23, kWritten = 0x63, kFresh = 0x03, kReadOnly = 0x61, kUser = 0x67, kElsewhere = 0x70000;
  TestMachine m;
  const auto page = [](unsigned n) { return TestMachine::kData + n * kPageSize; };
  m.set_pte(page(0), page(0) | kFresh);
  m.set_pte(page(1), page(1) | kWritten);
  m.set_pte(page(2), page(2) | kUsed);
  m.set_pte(page(3), page(3) | kFresh);
  m.set_pte(page(4), page(4) | kReadOnly);
  m.set_pte(page(5), page(5) | kUser);
  m.set_pte(page(6), 0);
  m.set_pte(page(7), kElsewhere | kWritten);
  m.cpu().flush_tlb(false);
  ASSERT_TRUE(m.cpu().write<uint32_t>(page(0), 1));
  const TlbTable& tlb = m.cpu().tlb();
  const auto known = [&](unsigned n) { return tlb.access_at(page(n)).read_tag == page(n); };
  const auto writable = [&](unsigned n) { return tlb.access_at(page(n)).write_tag == page(n); };
  EXPECT_TRUE(known(0) && writable(0));
  EXPECT_TRUE(known(1) && writable(1));
  EXPECT_TRUE(known(2) && !writable(2));  // a store must set its dirty bit
  EXPECT_FALSE(known(3));
  EXPECT_FALSE(known(4) || known(5) || known(6));
  EXPECT_TRUE(known(7));
  EXPECT_EQ(m.peek<uint64_t>(TestMachine::kPt + (page(3) >> kPageShift) * 8), page(3) | kFresh);
  m.poke<uint32_t>(kElsewhere, 77);
  uint32_t value = 0;
  ASSERT_TRUE(m.cpu().read(page(7), value));
  EXPECT_EQ(value, 77u);
  m.cpu().flush_page(page(7));
  EXPECT_FALSE(known(7));
}

TEST(Mmu, NonCanonicalIsAGeneralOrStackFault) {
  TestMachine m;
  uint32_t value = 0;
  EXPECT_FALSE(m.cpu().read(uint64_t{1} << 47, value));
  EXPECT_EQ(take(m.cpu())->vector, Vector::kGp);
  EXPECT_FALSE(m.cpu().read(uint64_t{1} << 47, value, Seg::kSs));
  EXPECT_EQ(take(m.cpu())->vector, Vector::kSs);
}

TEST(Mmu, AccessesThatRunIntoTheHoleAreNonCanonical) {
  TestMachine m;
  m.poke<uint64_t>(TestMachine::kPml4 + 255 * 8, TestMachine::kPdpt | 7);
  m.poke<uint64_t>(TestMachine::kPdpt + 511 * 8, TestMachine::kPd | 7);
  m.cpu().flush_tlb(false);
  uint64_t value = 0;
  EXPECT_FALSE(m.cpu().read(0x00007ffffffffffc, value));
  EXPECT_EQ(take(m.cpu())->vector, Vector::kGp);
}

TEST(Mmu, AlignmentCheckAtCpl3) {
  TestMachine m;
  m.enter_user();
  m.cpu().arch.cr0 |= x86::cr0::kAm;
  m.cpu().set_flags(m.cpu().flags() | x86::flag::kAc);
  m.cpu().update_mode();
  uint32_t value = 0;
  EXPECT_TRUE(m.cpu().read(kPage + 4, value));
  EXPECT_FALSE(m.cpu().read(kPage + 2, value));
  EXPECT_EQ(take(m.cpu())->vector, Vector::kAc);
  EXPECT_FALSE(m.cpu().write<uint16_t>(kPage + 1, 0));
  EXPECT_EQ(take(m.cpu())->vector, Vector::kAc);
  EXPECT_EQ(m.cpu().rmw<uint32_t>(kPage + 2), nullptr);
  EXPECT_EQ(take(m.cpu())->vector, Vector::kAc);
  EXPECT_NE(m.cpu().rmw<uint32_t>(kPage + 4), nullptr);
}

TEST(Mmu, StoresIntoCodePagesMoveTheirGeneration) {
  TestMachine m;
  Gpa physical = 0;
  std::atomic<uint32_t>* generation = nullptr;
  uint32_t seen = 0;
  ASSERT_NE(m.cpu().fetch_pointer(kPage, physical, &generation, &seen), nullptr);
  EXPECT_EQ(physical, kPage);
  EXPECT_EQ(generation->load(), seen);
  ASSERT_TRUE(m.cpu().write<uint8_t>(kPage + 5, 1));
  EXPECT_NE(generation->load(), seen);
}

TEST(Mmu, FetchWithoutMemoryRaisesNothing) {
  TestMachine m;
  Gpa physical = 0;
  std::atomic<uint32_t>* generation = nullptr;
  EXPECT_EQ(m.cpu().fetch_pointer(TestMachine::kNothing + 3, physical, &generation), nullptr);
  EXPECT_FALSE(m.cpu().exception);
  EXPECT_EQ(physical, TestMachine::kNothing + 3);
}

TEST(Mmu, ProbeTouchesNothingButTheBits) {
  TestMachine m;
  m.set_pte(kPage, kPage | kP | kW);
  m.poke<uint32_t>(kPage, 5);
  ASSERT_TRUE(m.cpu().probe(kPage, 4, Access::kWrite));
  EXPECT_EQ(pte(m, kPage) & (kA | kD), kA | kD);
  EXPECT_EQ(m.peek<uint32_t>(kPage), 5u);
}

TEST(Mmu, TablesOutsideOfMemoryReadAsOnes) {
  TestMachine m;
  ASSERT_TRUE(m.cpu().write_control(3, 0xd0000000));
  EXPECT_EQ(fault_of(m.cpu(), kPage, false), pf::kPresent | pf::kReserved);
}

TEST(Mmu, WithoutPagingAddressesArePhysical) {
  TestMachine m(Mode::k32);
  m.poke<uint32_t>(kPage, 0x31337);
  uint32_t value = 0;
  ASSERT_TRUE(m.cpu().read(kPage, value));
  EXPECT_EQ(value, 0x31337u);
}

TEST(Mmu, FiveLevelPaging) {
  TestMachine m;
  x86::ArchState state = m.initial_state();
  m.poke<uint64_t>(0xf000, TestMachine::kPml4 | kP | kW | kU);
  state.cr4 |= x86::cr4::kLa57;
  state.cr3 = 0xf000;
  m.cpu().set_state(state);
  EXPECT_EQ(fault_of(m.cpu(), kPage, true), std::nullopt);
  EXPECT_EQ(fault_of(m.cpu(), uint64_t{1} << 50, false), 0u);  // canonical with 57 bits, not mapped
}

}  // namespace
}  // namespace kite::cpu
