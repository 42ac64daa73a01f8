#include <gtest/gtest.h>

#include <numeric>

#include "cpu/test_machine.h"

namespace kite::cpu {
namespace {

using x86::kRax;
using x86::kRcx;
using x86::kRdi;
using x86::kRdx;
using x86::kRsi;
using Mode = TestMachine::Mode;
namespace flag = x86::flag;

constexpr Gpa kFrom = 0x30000;
constexpr Gpa kTo = 0x40000;

void fill_source(TestMachine& m, Gpa at, size_t bytes) {
  std::vector<uint8_t> data(bytes);
  std::iota(data.begin(), data.end(), uint8_t{1});
  m.load(at, data);
}
void point(TestMachine& m, uint64_t from, uint64_t to, uint64_t count) {
  m.gpr(kRsi) = from;
  m.gpr(kRdi) = to;
  m.gpr(kRcx) = count;
}
bool same(TestMachine& m, Gpa a, Gpa b, size_t bytes) {
  return std::memcmp(m.ram->host() + a, m.ram->host() + b, bytes) == 0;
}

TEST(Movs, CopiesAcrossPages) {
  TestMachine m;
  fill_source(m, kFrom + 0x123, 0x3000);
  point(m, kFrom + 0x123, kTo + 0x456, 0x3000);
  m.run({0xf3, 0xa4});  // rep movsb
  EXPECT_TRUE(same(m, kFrom + 0x123, kTo + 0x456, 0x3000));
  EXPECT_EQ(m.gpr(kRcx), 0u);
  EXPECT_EQ(m.gpr(kRsi), kFrom + 0x3123);
  EXPECT_EQ(m.gpr(kRdi), kTo + 0x3456);
}

TEST(Movs, ElementsThatCrossPages) {
  TestMachine m;
  fill_source(m, kFrom + 0xffd, 0x2000);
  point(m, kFrom + 0xffd, kTo + 0xfff, 0x400);
  m.run({0xf3, 0x48, 0xa5});  // rep movsq
  EXPECT_TRUE(same(m, kFrom + 0xffd, kTo + 0xfff, 0x2000));
}

TEST(Movs, BackwardCopiesAcrossPages) {
  TestMachine m;
  fill_source(m, kFrom + 2, 0x2000);
  point(m, kFrom + 2 + 0x2000 - 4, kTo + 0x2000 - 4, 0x800);
  m.run({0xfd, 0xf3, 0xa5});  // std; rep movsd
  EXPECT_TRUE(same(m, kFrom + 2, kTo, 0x2000));
  EXPECT_EQ(m.gpr(kRsi), kFrom + 2 - 4);
  EXPECT_EQ(m.gpr(kRdi), kTo - 4);
}

TEST(Movs, ForwardOverlapRepeatsThePattern) {
  TestMachine m;
  m.poke<uint16_t>(kFrom, 0xbbaa);
  point(m, kFrom, kFrom + 2, 100);
  m.run({0xf3, 0xa4});  // rep movsb
  for (Gpa i = 0; i < 102; ++i) ASSERT_EQ(m.peek<uint8_t>(kFrom + i), i % 2 == 0 ? 0xaa : 0xbb) << i;
}

TEST(Movs, OverlapTowardsLowerAddressesMoves) {
  TestMachine m;
  fill_source(m, kFrom + 3, 64);
  fill_source(m, kTo, 64);
  point(m, kFrom + 3, kFrom, 64);
  m.run({0xf3, 0xa4});  // rep movsb
  EXPECT_TRUE(same(m, kFrom, kTo, 64));
}

TEST(Movs, FaultInTheMiddleLeavesTheRegistersThere) {
  TestMachine m;
  fill_source(m, kFrom, 0x3000);
  m.set_pte(kTo + 0x2000, 0);
  point(m, kFrom, kTo, 0x3000);
  m.run({0xf3, 0xa4});  // rep movsb
  EXPECT_EQ(m.vector(), 14);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode);
  EXPECT_EQ(m.cpu().arch.cr2, kTo + 0x2000);
  EXPECT_EQ(m.gpr(kRcx), 0x1000u);
  EXPECT_EQ(m.gpr(kRsi), kFrom + 0x2000);
  EXPECT_EQ(m.gpr(kRdi), kTo + 0x2000);
  EXPECT_TRUE(same(m, kFrom, kTo, 0x2000));
}

TEST(Movs, SourceSegmentOverride) {
  TestMachine m;
  m.cpu().seg(x86::Seg::kFs).base = kFrom;
  fill_source(m, kFrom + 16, 32);
  point(m, 16, kTo, 32);
  m.run({0x64, 0xf3, 0xa4});  // rep movs byte es:[rdi], fs:[rsi]
  EXPECT_TRUE(same(m, kFrom + 16, kTo, 32));
}

TEST(Movs, SixteenBitAddressesWrap) {
  TestMachine m(Mode::kReal);
  m.load(0xfffe, std::vector<uint8_t>{1, 2});
  m.poke<uint8_t>(0, 3);
  point(m, 0xfffe, 0x2000, 3);
  m.step({0xf3, 0xa4});  // rep movsb
  EXPECT_EQ(m.peek<uint8_t>(0x2000), 1);
  EXPECT_EQ(m.peek<uint8_t>(0x2001), 2);
  EXPECT_EQ(m.peek<uint8_t>(0x2002), 3);
  EXPECT_EQ(m.gpr(kRsi), 1u);
}

TEST(Movs, CountOfZeroDoesNothing) {
  TestMachine m;
  point(m, 0, uint64_t{1} << 62, 0);
  m.run({0xf3, 0xa4});
  EXPECT_EQ(m.vector(), std::nullopt);
}

TEST(Movs, DeviceMemoryIsReachedElementByElement) {
  TestMachine m;
  point(m, TestMachine::kNothing, kTo, 3);
  m.run({0xf3, 0xa5});  // rep movsd
  EXPECT_EQ(m.mmio_reads.size(), 3u);
  EXPECT_EQ(m.mmio_reads[2].address, TestMachine::kNothing + 8);
}

TEST(Stos, FillsWithEveryWidth) {
  TestMachine m;
  m.gpr(kRax) = 0x1122334455667788;
  point(m, 0, kTo + 0xff9, 300);
  m.run({0xf3, 0x48, 0xab});  // rep stosq
  EXPECT_EQ(m.peek<uint64_t>(kTo + 0xff9), 0x1122334455667788u);
  EXPECT_EQ(m.peek<uint64_t>(kTo + 0xff9 + 299 * 8), 0x1122334455667788u);
  EXPECT_EQ(m.peek<uint8_t>(kTo + 0xff9 + 2400), 0u);
}

TEST(Scas, StopsBehindTheMatch) {
  TestMachine m;
  m.poke<uint8_t>(kTo + 0x1234, 0x5a);
  m.gpr(kRax) = 0x5a;
  point(m, 0, kTo, 0x10000);
  m.run({0xf2, 0xae});  // repne scasb
  EXPECT_EQ(m.gpr(kRdi), kTo + 0x1235);
  EXPECT_EQ(m.gpr(kRcx), 0x10000u - 0x1235);
  EXPECT_NE(m.cpu().state.cc & flag::kZf, 0u);
}

TEST(Cmps, StopsBehindTheDifference) {
  TestMachine m;
  fill_source(m, kFrom, 256);
  fill_source(m, kTo, 256);
  m.poke<uint8_t>(kTo + 100, 0);
  point(m, kFrom, kTo, 256);
  m.run({0xf3, 0xa6});  // repe cmpsb
  EXPECT_EQ(m.gpr(kRsi), kFrom + 101);
  EXPECT_EQ(m.gpr(kRcx), 155u);
  EXPECT_EQ(m.cpu().state.cc & flag::kZf, 0u);
}

TEST(Lods, LoadsTheAccumulator) {
  TestMachine m;
  m.poke<uint16_t>(kFrom, 0xbeef);
  m.gpr(kRsi) = kFrom;
  m.run({0x66, 0xad});  // lodsw
  EXPECT_EQ(m.gpr(kRax), 0xbeefu);
  EXPECT_EQ(m.gpr(kRsi), kFrom + 2);
}

TEST(Ports, InAndOut) {
  TestMachine m;
  m.gpr(kRdx) = 0x1f7;
  m.gpr(kRax) = 0xffffffffffffffff;
  m.port_values = {0x50};
  m.run({0xec, 0xe7, 0x80});  // in al, dx; out 0x80, eax
  EXPECT_EQ(m.port_reads, (std::vector<TestMachine::PortAccess>{{0x1f7, 1, 0x50}}));
  EXPECT_EQ(m.port_writes, (std::vector<TestMachine::PortAccess>{{0x80, 4, 0xffffff50}}));
}

TEST(Ports, UserAccessWithoutPermissionFaults) {
  TestMachine m;
  m.enter_user();
  m.run({0xec});  // in al, dx
  EXPECT_EQ(m.vector(), 13);
  EXPECT_TRUE(m.port_reads.empty());
}

TEST(Ports, RepeatedInputStoresWords) {
  TestMachine m;
  m.port_values = {0x1111, 0x2222, 0x3333};
  m.gpr(kRdx) = 0x1f0;
  point(m, 0, kTo, 3);
  m.run({0xf3, 0x66, 0x6d});  // rep insw
  EXPECT_EQ(m.peek<uint16_t>(kTo + 4), 0x3333u);
  EXPECT_EQ(m.gpr(kRdi), kTo + 6);
}

TEST(Ports, InputToAnUnwritablePageDoesNotTouchThePort) {
  TestMachine m;
  m.set_pte(kTo, 0);
  point(m, 0, kTo, 1);
  m.run({0x6c});  // insb
  EXPECT_EQ(m.vector(), 14);
  EXPECT_TRUE(m.port_reads.empty());
}

TEST(Ports, RepeatedInputTakesWhatADeviceGivesAtOnce) {
  TestMachine m;
  fill_source(m, kFrom, 0x1800);
  m.bulk.assign(m.ram->host() + kFrom, m.ram->host() + kFrom + 0x1800);
  m.bulk_most = 512;
  m.gpr(kRdx) = 0x1f0;
  point(m, 0, kTo + 0x120, 0xc00);
  m.run({0xf3, 0x66, 0x6d});  // rep insw, over a page's end
  EXPECT_TRUE(same(m, kFrom, kTo + 0x120, 0x1800));
  EXPECT_EQ(m.gpr(kRcx), 0u);
  EXPECT_EQ(m.gpr(kRdi), kTo + 0x1920);
  EXPECT_TRUE(m.port_reads.empty());
}

TEST(Ports, RepeatedInputGoesOnOneByOneWhenADeviceHasNoMore) {
  TestMachine m;
  m.bulk = {1, 2, 3, 4};
  m.bulk_most = 512;
  m.port_values = {0x66667777};
  point(m, 0, kTo, 2);
  m.run({0xf3, 0x6d});  // rep insd
  EXPECT_EQ(m.peek<uint64_t>(kTo), 0x66667777'04030201u);
  EXPECT_EQ(m.port_reads.size(), 1u);
}

TEST(Ports, RepeatedInputOfManyWantsThePermission) {
  TestMachine m;
  m.enter_user();
  m.bulk.assign(16, 1);
  m.bulk_most = 16;
  point(m, 0, kTo, 4);
  m.run({0xf3, 0x6d});  // rep insd
  EXPECT_EQ(m.vector(), 13);
  EXPECT_EQ(m.bulk.size(), 16u);
}

TEST(Ports, RepeatedOutputGivesADeviceSeveralAtOnce) {
  TestMachine m;
  fill_source(m, kFrom, 0x1800);
  m.bulk_most = 512;
  m.gpr(kRdx) = 0x1f0;
  point(m, kFrom + 0x20, 0, 0x5e0);
  m.run({0xf3, 0x6f});  // rep outsd
  EXPECT_EQ(m.bulk.size(), 0x1780u);
  EXPECT_TRUE(std::equal(m.bulk.begin(), m.bulk.end(), m.ram->host() + kFrom + 0x20));
  EXPECT_EQ(m.gpr(kRsi), kFrom + 0x17a0);
  EXPECT_TRUE(m.port_writes.empty());
}

TEST(Ports, RepeatedOutputFromMemory) {
  TestMachine m;
  fill_source(m, kFrom, 4);
  m.gpr(kRdx) = 0x3f8;
  point(m, kFrom, 0, 4);
  m.run({0xf3, 0x6e});  // rep outsb
  ASSERT_EQ(m.port_writes.size(), 4u);
  EXPECT_EQ(m.port_writes[3], (TestMachine::PortAccess{0x3f8, 1, 4}));
}

TEST(Repeat, ProcessorsDifferWhereNothingIsToBeDoneWith32BitAddresses) {
  constexpr uint64_t kHigh = 0x1234567800000000;
  for (const bool intel : {true, false}) {
    x86::CpuSpec spec = TestMachine::everything();
    spec.vendor = intel ? "GenuineIntel" : "AuthenticAMD";
    TestMachine m(Mode::k64, spec);
    point(m, kHigh | kFrom, kHigh | kTo, kHigh);
    m.run({0x67, 0xf3, 0xa4});  // rep movsb, ECX is 0
    EXPECT_EQ(m.gpr(kRcx), intel ? 0 : kHigh);
    EXPECT_EQ(m.gpr(kRsi), intel ? kFrom : kHigh | kFrom);
    EXPECT_EQ(m.gpr(kRdi), intel ? kTo : kHigh | kTo);
  }
}

TEST(Repeat, AnInterruptComesBetweenIterationsAndTheRestFollows) {
  TestMachine m;
  m.cpu().state.rflags |= flag::kIf;
  m.gpr(kRdx) = 0x3f8;
  point(m, kFrom, 0, 10);
  m.apic.pending = {0x40};
  m.on_port_write = [&](uint16_t) {
    if (m.port_writes.size() == 3) m.requests.fetch_or(request::kInterrupt);
  };
  m.run({0xf3, 0x6e});  // rep outsb
  EXPECT_EQ(m.vector(), 0x40);
  EXPECT_EQ(m.faulting_rip(), TestMachine::kCode);
  EXPECT_EQ(m.gpr(kRcx), 7u);
}

}  // namespace
}  // namespace kite::cpu
