#include <gtest/gtest.h>

#include <random>

#include "boot/test_image.h"
#include "support/bits.h"

namespace kite::boot {
namespace {

using namespace linux_params;
using namespace testing;
using x86::Seg;

constexpr uint64_t kMib = uint64_t{1} << 20;

const x86::SegmentRegister& segment(const x86::ArchState& state, Seg which) {
  return state.seg[static_cast<size_t>(which)];
}

TEST(LinuxLoader, EntersTheKernelInLongMode) {
  Guest guest(64);
  const auto loaded = guest.boot(make_bzimage());
  ASSERT_TRUE(loaded) << loaded.error().message;
  const x86::ArchState& cpu = loaded->entry;
  EXPECT_EQ(loaded->kind, KernelKind::kLinux);
  EXPECT_EQ(cpu.rip, 0x1000200U);
  EXPECT_EQ(guest.at<uint8_t>(cpu.rip), 0x90);
  EXPECT_EQ(cpu.efer, x86::efer::kLme | x86::efer::kLma);
  EXPECT_EQ(cpu.cr4, x86::cr4::kPae);
  EXPECT_EQ(cpu.cr0 & (x86::cr0::kPe | x86::cr0::kPg | x86::cr0::kCd | x86::cr0::kNw), x86::cr0::kPe | x86::cr0::kPg);
  EXPECT_EQ(cpu.rflags & x86::flag::kIf, 0U);
  EXPECT_EQ(segment(cpu, Seg::kCs).selector, 0x10);
  EXPECT_TRUE(segment(cpu, Seg::kCs).long_mode());
  EXPECT_EQ(segment(cpu, Seg::kSs).selector, 0x18);
  EXPECT_EQ(segment(cpu, Seg::kDs).limit, 0xffffffffU);
  EXPECT_TRUE(cpu.tr.present());
  EXPECT_EQ(cpu.dr7, x86::dr7::kReset);
  EXPECT_EQ(cpu.activity, x86::Activity::kActive);
}

TEST(LinuxLoader, TheDescriptorTableAgreesWithTheSegmentCaches) {
  Guest guest(64);
  const auto loaded = guest.boot(make_bzimage());
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->entry.gdtr.limit, 31);
  EXPECT_EQ(guest.at<uint64_t>(loaded->entry.gdtr.base + 0x10), 0x00af9b000000ffffU);
  EXPECT_EQ(guest.at<uint64_t>(loaded->entry.gdtr.base + 0x18), 0x00cf93000000ffffU);
}

TEST(LinuxLoader, TheFirst4GiBAreMappedOneToOne) {
  Guest guest(64);
  const auto loaded = guest.boot(make_bzimage());
  ASSERT_TRUE(loaded);
  for (uint64_t linear = 0; linear < uint64_t{1} << 32; linear += 0x12345678) {
    constexpr uint64_t kFrame = 0x000ffffffffff000;
    const uint64_t pml4e = guest.at<uint64_t>(loaded->entry.cr3);
    const uint64_t pdpte = guest.at<uint64_t>((pml4e & kFrame) + (linear >> 30) * 8);
    const uint64_t pde = guest.at<uint64_t>((pdpte & kFrame) + ((linear >> 21) & 511) * 8);
    EXPECT_EQ(pml4e & 3, 3U);
    EXPECT_EQ(pdpte & 3, 3U);
    EXPECT_EQ(pde, align_down(linear, 2 * kMib) | 0x83);
  }
}

TEST(LinuxLoader, TheZeroPageHoldsTheSetupHeaderAndTheLoadersAnswers) {
  Guest guest(64);
  guest.request.command_line = "console=ttyS0 panic=-1";
  Bytes image = make_bzimage();
  put<uint32_t>(image, 0x26c, 0xdeadbeef);  // behind the header's end
  const auto loaded = guest.boot(image);
  ASSERT_TRUE(loaded);
  const uint64_t page = loaded->entry.gpr[x86::kRsi];
  EXPECT_EQ(guest.at<uint32_t>(page + kMagic), kMagicValue);
  EXPECT_EQ(guest.at<uint32_t>(page + kInitSize), 0x800000U);
  EXPECT_EQ(guest.at<uint32_t>(page + 0x26c), 0U);
  EXPECT_EQ(guest.at<uint8_t>(page + kTypeOfLoader), 0xff);
  EXPECT_EQ(guest.at<uint32_t>(page + kCode32Start), 0x1000000U);
  EXPECT_EQ(guest.at<uint64_t>(page + kAcpiRsdp), 0xe0000U);
  EXPECT_EQ(guest.text(guest.at<uint32_t>(page + kCmdLinePtr)), "console=ttyS0 panic=-1");
  EXPECT_EQ(guest.at<uint32_t>(page + kRamdiskSize), 0U);
  EXPECT_EQ(guest.at<uint32_t>(page + kAltMemK), (63 * kMib - 0x20000) >> 10);
}

TEST(LinuxLoader, TheMemoryMapIsHandedOver) {
  Guest guest(64);
  guest.request.e820.push_back({uint64_t{1} << 32, kMib, E820Type::kRam});
  const auto loaded = guest.boot(make_bzimage());
  ASSERT_TRUE(loaded);
  const uint64_t page = loaded->entry.gpr[x86::kRsi];
  ASSERT_EQ(guest.at<uint8_t>(page + kE820Entries), 6);
  const uint64_t last = page + kE820Table + 5 * kE820EntryBytes;
  EXPECT_EQ(guest.at<uint64_t>(last), uint64_t{1} << 32);
  EXPECT_EQ(guest.at<uint64_t>(last + 8), kMib);
  EXPECT_EQ(guest.at<uint32_t>(last + 16), 1U);
}

TEST(LinuxLoader, ARandomSeedIsHandedOver) {
  Guest guest(64);
  const auto loaded = guest.boot(make_bzimage());
  ASSERT_TRUE(loaded);
  const uint64_t node = guest.at<uint64_t>(loaded->entry.gpr[x86::kRsi] + kSetupData);
  ASSERT_NE(node, 0U);
  EXPECT_EQ(guest.at<uint64_t>(node), 0U);
  EXPECT_EQ(guest.at<uint32_t>(node + 8), 9U);
  EXPECT_EQ(guest.at<uint32_t>(node + 12), 32U);
}

TEST(LinuxLoader, TheInitrdLiesHighAndWhole) {
  Guest guest(64);
  Bytes contents(0x12345);
  for (size_t i = 0; i < contents.size(); ++i) contents[i] = static_cast<uint8_t>(i * 7);
  const TempFile initrd(contents);
  guest.request.initrd_path = initrd.path();
  const auto loaded = guest.boot(make_bzimage());
  ASSERT_TRUE(loaded);
  const uint64_t page = loaded->entry.gpr[x86::kRsi];
  const uint64_t address = guest.at<uint32_t>(page + kRamdiskImage);
  EXPECT_EQ(address, align_down(64 * kMib - 0x20000 - contents.size(), 4096));
  ASSERT_EQ(guest.at<uint32_t>(page + kRamdiskSize), contents.size());
  Bytes seen(contents.size());
  ASSERT_TRUE(guest.memory.read(address, seen));
  EXPECT_EQ(seen, contents);
}

TEST(LinuxLoader, TheInitrdStaysBelowTheKernelsLimit) {
  Guest guest(64);
  const TempFile initrd(Bytes(0x1800, 1));
  guest.request.initrd_path = initrd.path();
  Bytes image = make_bzimage();
  put<uint32_t>(image, kInitrdAddrMax, 0x2ffffff);
  const auto loaded = guest.boot(image);
  ASSERT_TRUE(loaded);
  EXPECT_EQ(guest.at<uint32_t>(loaded->entry.gpr[x86::kRsi] + kRamdiskImage), 0x2ffe000U);
}

TEST(LinuxLoader, ARelocatableKernelMovesWhereItFits) {
  Guest guest(16);
  Bytes image = make_bzimage();
  const auto loaded = guest.boot(image);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->entry.rip, 0x200200U);
  EXPECT_EQ(guest.at<uint32_t>(loaded->entry.gpr[x86::kRsi] + kCode32Start), 0x200000U);
}

TEST(LinuxLoader, AFixedKernelDoesNotMove) {
  Guest guest(16);
  Bytes image = make_bzimage();
  image[kRelocatable] = 0;
  const auto loaded = guest.boot(image);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("needs 8 MiB at 0x1000000; the machine has 16 MiB"), std::string::npos)
      << loaded.error().message;
}

TEST(LinuxLoader, TooLittleMemoryIsExplained) {
  Guest guest(16);
  Bytes image = make_bzimage();
  put<uint32_t>(image, kInitSize, 0x4000000);
  const auto loaded = guest.boot(image);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("give more with -m"), std::string::npos) << loaded.error().message;
}

TEST(LinuxLoader, AnInitrdThatDoesNotFitBesideTheKernelIsRefused) {
  Guest guest(32);
  const TempFile initrd(Bytes(20 * kMib, 1));
  guest.request.initrd_path = initrd.path();
  const auto loaded = guest.boot(make_bzimage());
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("the initrd needs 20 MiB"), std::string::npos) << loaded.error().message;
}

TEST(LinuxLoader, AKernelWithout64BitEntryStartsInProtectedMode) {
  Guest guest(64);
  Bytes image = make_bzimage();
  put<uint16_t>(image, kXloadFlags, 0);
  const auto loaded = guest.boot(image);
  ASSERT_TRUE(loaded);
  const x86::ArchState& cpu = loaded->entry;
  EXPECT_EQ(cpu.rip, 0x1000000U);
  EXPECT_EQ(cpu.cr0 & (x86::cr0::kPe | x86::cr0::kPg), x86::cr0::kPe);
  EXPECT_EQ(cpu.efer, 0U);
  EXPECT_TRUE(segment(cpu, Seg::kCs).big());
  EXPECT_FALSE(segment(cpu, Seg::kCs).long_mode());
  EXPECT_EQ(cpu.gpr[x86::kRbp] | cpu.gpr[x86::kRdi] | cpu.gpr[x86::kRbx], 0U);
  EXPECT_EQ(guest.at<uint32_t>(cpu.gpr[x86::kRsi] + kMagic), kMagicValue);
}

TEST(LinuxLoader, AnOldKernelLoadsAt1MiB) {
  Guest guest(64);
  Bytes image = make_bzimage();
  put<uint16_t>(image, kVersion, 0x203);
  put<uint32_t>(image, kInitrdAddrMax, 0x37ffffff);
  const auto loaded = guest.boot(image);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->entry.rip, 0x100000U);
}

TEST(LinuxLoader, AncientAndSmallKernelsAreRefusedByName) {
  Guest guest(64);
  Bytes image = make_bzimage();
  put<uint16_t>(image, kVersion, 0x201);
  EXPECT_NE(guest.boot(image).error().message.find("2.01"), std::string::npos);
  put<uint16_t>(image, kVersion, 0x20f);
  image[kLoadFlags] = 0;
  EXPECT_NE(guest.boot(image).error().message.find("zImage"), std::string::npos);
}

TEST(LinuxLoader, ALongCommandLineIsRefused) {
  Guest guest(64);
  guest.request.command_line = std::string(2048, 'x');
  const auto loaded = guest.boot(make_bzimage());
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("2047"), std::string::npos);
  guest.request.command_line.pop_back();
  EXPECT_TRUE(guest.boot(make_bzimage()));
}

TEST(LinuxLoader, ATruncatedFileIsRefused) {
  Guest guest(64);
  Bytes image = make_bzimage();
  image.resize(image.size() - 16);
  const auto loaded = guest.boot(image);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("truncated"), std::string::npos);
}

TEST(LinuxLoader, MissingFilesAreNamed) {
  Guest guest(64);
  guest.request.kernel_path = "/nonexistent/vmlinuz";
  EXPECT_NE(load_kernel(guest.request, guest.memory).error().message.find("/nonexistent/vmlinuz"), std::string::npos);
  guest.request.initrd_path = "/nonexistent/initrd";
  EXPECT_NE(guest.boot(make_bzimage()).error().message.find("/nonexistent/initrd"), std::string::npos);
}

TEST(LinuxLoader, EveryTruncationIsRefused) {
  Guest guest(64);
  const Bytes image = make_bzimage(Bytes(64, 0x90));
  for (size_t length = 0; length + 16 <= image.size(); ++length)  // the header counts in 16-byte units
    EXPECT_FALSE(guest.boot(Bytes(image.begin(), image.begin() + static_cast<ptrdiff_t>(length)))) << length;
}

TEST(LinuxLoader, MutatedHeadersNeverHarm) {
  Guest guest(24);
  std::mt19937 random(7);
  const Bytes good = make_bzimage(Bytes(256, 0x90));
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    Bytes image = good;
    for (int change = 0; change < 3; ++change)
      image[kHeaderStart + random() % (0x270 - kHeaderStart)] =
          static_cast<uint8_t>(random() % 4 != 0 ? random() : 255);
    if (const auto loaded = guest.boot(image)) {
      ++accepted;
      EXPECT_LT(loaded->entry.rip, 24 * kMib);
      EXPECT_TRUE(guest.memory.load<uint8_t>(loaded->entry.rip));
    }
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace kite::boot
