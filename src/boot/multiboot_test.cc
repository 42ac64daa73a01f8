#include <gtest/gtest.h>

#include <random>

#include "boot/test_image.h"
#include "support/bits.h"

namespace kite::boot {
namespace {

using namespace testing;
using x86::Seg;

constexpr uint64_t kMib = uint64_t{1} << 20;

// Like a kvm-unit-test: 4 MiB, header first, a bss behind.
Bytes make_kernel(uint64_t bss = 0x8000) {
  Bytes code = make_multiboot_header(0);
  code.resize(0x100, 0xcc);
  return make_elf32(0x400010, {{.physical = 0x400000, .bytes = code, .memory_size = code.size() + bss}});
}

// The flat format: header at file offset 0x20, loaded from offset 0x10 on.
Bytes make_flat(uint32_t load_end, uint32_t bss_end) {
  Bytes image(0x200, 0x11);
  const Bytes header = make_multiboot_header(1u << 16);
  std::ranges::copy(header, image.begin() + 0x20);
  put<uint32_t>(image, 0x2c, 0x200010);  // header
  put<uint32_t>(image, 0x30, 0x200000);  // load
  put(image, 0x34, load_end);
  put(image, 0x38, bss_end);
  put<uint32_t>(image, 0x3c, 0x200040);  // entry
  return image;
}

TEST(MultibootLoader, EntersInFlatProtectedMode) {
  Guest guest(64);
  const auto loaded = guest.boot(make_kernel());
  ASSERT_TRUE(loaded) << loaded.error().message;
  const x86::ArchState& cpu = loaded->entry;
  EXPECT_EQ(loaded->kind, KernelKind::kMultiboot);
  EXPECT_EQ(cpu.gpr[x86::kRax], 0x2badb002U);
  EXPECT_EQ(cpu.rip, 0x400010U);
  EXPECT_EQ(guest.at<uint8_t>(cpu.rip), 0xcc);
  EXPECT_EQ(cpu.cr0 & (x86::cr0::kPe | x86::cr0::kPg), x86::cr0::kPe);
  EXPECT_EQ(cpu.rflags & (x86::flag::kIf | x86::flag::kVm), 0U);
  for (const x86::SegmentRegister& segment : cpu.seg) {
    EXPECT_EQ(segment.limit, 0xffffffffU);
    EXPECT_EQ(segment.base, 0U);
    EXPECT_TRUE(segment.big());
  }
}

TEST(MultibootLoader, TheBssIsCleared) {
  Guest guest(64);
  ASSERT_TRUE(guest.memory.fill(0x400000, 0x10000, 0xee));
  ASSERT_TRUE(guest.boot(make_kernel(0x8000)));
  EXPECT_EQ(guest.at<uint8_t>(0x400100), 0);
  EXPECT_EQ(guest.at<uint8_t>(0x4080ff), 0);
  EXPECT_EQ(guest.at<uint8_t>(0x408100), 0xee);
}

TEST(MultibootLoader, TheInformationDescribesTheMachine) {
  Guest guest(64);
  guest.request.e820.push_back({uint64_t{1} << 32, kMib, E820Type::kRam});
  guest.request.command_line = "arg1 arg2";
  const auto loaded = guest.boot(make_kernel());
  ASSERT_TRUE(loaded);
  const uint64_t info = loaded->entry.gpr[x86::kRbx];
  EXPECT_EQ(guest.at<uint32_t>(info), 0x24dU);
  EXPECT_EQ(guest.at<uint32_t>(info + 4), 639U);
  EXPECT_EQ(guest.at<uint32_t>(info + 8), 63 * 1024U - 128);
  EXPECT_EQ(guest.text(guest.at<uint32_t>(info + 16)), guest.request.kernel_path + " arg1 arg2");
  EXPECT_EQ(guest.at<uint32_t>(info + 20), 0U);
  EXPECT_EQ(guest.text(guest.at<uint32_t>(info + 64)), "kite");
  const uint64_t map = guest.at<uint32_t>(info + 48);
  ASSERT_EQ(guest.at<uint32_t>(info + 44), 6 * 24U);
  EXPECT_EQ(guest.at<uint32_t>(map + 5 * 24), 20U);
  EXPECT_EQ(guest.at<uint64_t>(map + 5 * 24 + 4), uint64_t{1} << 32);
  EXPECT_EQ(guest.at<uint64_t>(map + 5 * 24 + 12), kMib);
  EXPECT_EQ(guest.at<uint32_t>(map + 5 * 24 + 20), 1U);
}

TEST(MultibootLoader, NothingTheLoaderLeavesLiesWhereImagesTraditionallyDo) {
  Guest guest(64);
  const auto loaded = guest.boot(make_kernel());
  ASSERT_TRUE(loaded);
  for (const uint64_t address : {loaded->entry.gpr[x86::kRbx], loaded->entry.gdtr.base}) {
    EXPECT_GE(address, 0x10000U);
    EXPECT_LT(address, 0xa0000U);
  }
}

TEST(MultibootLoader, AnImageInConventionalMemoryIsLeftAlone) {
  Guest guest(64);
  Bytes code = make_multiboot_header(0);
  code.resize(0x9fc00 - 0x8000, 0x5a);
  const auto loaded =
      guest.boot(make_elf32(0x8010, {{.physical = 0x8000, .bytes = code, .memory_size = code.size() - 0x1000}}));
  ASSERT_FALSE(loaded) << "the file part is larger than the memory part";
  const auto fits = guest.boot(make_elf32(0x8010, {{.physical = 0x8000, .bytes = code, .memory_size = code.size()}}));
  ASSERT_FALSE(fits) << "no conventional memory is left for the descriptor table";
  code.resize(0x90000 - 0x8000);
  const auto loaded2 =
      guest.boot(make_elf32(0x8010, {{.physical = 0x8000, .bytes = code, .memory_size = code.size()}}));
  ASSERT_TRUE(loaded2) << loaded2.error().message;
  EXPECT_GE(loaded2->entry.gpr[x86::kRbx], 0x90000U);
}

TEST(MultibootLoader, ModulesComeWithTheirArguments) {
  Guest guest(64);
  const TempFile first(Bytes(5000, 'a')), second(Bytes{'b', 'c'});
  guest.request.initrd_path = first.path() + " x=1,,2, " + second.path();
  const auto loaded = guest.boot(make_kernel());
  ASSERT_TRUE(loaded) << loaded.error().message;
  const uint64_t info = loaded->entry.gpr[x86::kRbx];
  ASSERT_EQ(guest.at<uint32_t>(info + 20), 2U);
  const uint64_t list = guest.at<uint32_t>(info + 24);
  const uint64_t start = guest.at<uint32_t>(list);
  EXPECT_TRUE(is_aligned(start, 4096));
  EXPECT_EQ(guest.at<uint32_t>(list + 4), start + 5000);
  EXPECT_EQ(guest.at<uint8_t>(start + 4999), 'a');
  EXPECT_EQ(guest.text(guest.at<uint32_t>(list + 8)), first.path() + " x=1,2");
  EXPECT_EQ(guest.at<uint16_t>(guest.at<uint32_t>(list + 16)), 0x6362);
  EXPECT_EQ(guest.text(guest.at<uint32_t>(list + 24)), second.path());
}

TEST(MultibootLoader, FlatImagesFollowTheirAddressFields) {
  Guest guest(64);
  ASSERT_TRUE(guest.memory.fill(0x200000, 0x1000, 0xee));
  const auto loaded = guest.boot(make_flat(0x200100, 0x200180));
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->entry.rip, 0x200040U);
  EXPECT_EQ(guest.at<uint32_t>(0x200010), 0x1badb002U);
  EXPECT_EQ(guest.at<uint8_t>(0x2000ff), 0x11);
  EXPECT_EQ(guest.at<uint8_t>(0x200100), 0);
  EXPECT_EQ(guest.at<uint8_t>(0x200180), 0xee);
}

TEST(MultibootLoader, AnEndOfZeroMeansTheWholeFile) {
  Guest guest(64);
  ASSERT_TRUE(guest.boot(make_flat(0, 0)));
  EXPECT_EQ(guest.at<uint8_t>(0x200000 + 0x200 - 0x10 - 1), 0x11);
}

TEST(MultibootLoader, ImpossibleAddressFieldsAreRefused) {
  Guest guest(64);
  EXPECT_FALSE(guest.boot(make_flat(0x1fffff, 0))) << "ends before it begins";
  EXPECT_FALSE(guest.boot(make_flat(0x200400, 0))) << "more than the file has";
  EXPECT_FALSE(guest.boot(make_flat(0, 0xf0000000))) << "more than the machine has";
  Bytes image = make_flat(0, 0);
  put<uint32_t>(image, 0x30, 0x100000);  // begins before the file
  EXPECT_FALSE(guest.boot(image));
  put<uint32_t>(image, 0x30, 0x200020);  // begins after the header
  EXPECT_FALSE(guest.boot(image));
}

TEST(MultibootLoader, UnknownDemandsAreRefused) {
  Guest guest(64);
  Bytes code = make_multiboot_header(1u << 7);
  const auto loaded = guest.boot(make_elf32(0x400000, {{.physical = 0x400000, .bytes = code, .memory_size = 12}}));
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("0x80"), std::string::npos);
}

TEST(MultibootLoader, A64BitElfIsWelcome) {
  Guest guest(64);
  const auto loaded =
      guest.boot(make_elf64(0x400000, {{.physical = 0x400000, .bytes = make_multiboot_header(0), .memory_size = 12}}));
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->entry.rip, 0x400000U);
}

TEST(MultibootLoader, AVirtualEntryIsTranslated) {
  Guest guest(64);
  const auto loaded = guest.boot(make_elf32(
      0xc0000004,
      {{.physical = 0x400000, .bytes = make_multiboot_header(0), .memory_size = 12, .virtual_address = 0xc0000000}}));
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->entry.rip, 0x400004U);
}

TEST(MultibootLoader, AHeaderWithAWrongChecksumIsNone) {
  Guest guest(64);
  Bytes code = make_multiboot_header(0);
  code[8] ^= 1;
  EXPECT_FALSE(guest.boot(make_elf32(0x400000, {{.physical = 0x400000, .bytes = code, .memory_size = 12}})));
}

TEST(MultibootLoader, SegmentsOutsideRamAreRefused) {
  Guest guest(16);
  const auto loaded = guest.boot(
      make_elf32(0x2000000, {{.physical = 0x2000000, .bytes = make_multiboot_header(0), .memory_size = 0x100000}}));
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("needs 1 MiB at 0x2000000; the machine has 16 MiB"), std::string::npos)
      << loaded.error().message;
  EXPECT_FALSE(
      guest.boot(make_elf32(0xb8000, {{.physical = 0xb8000, .bytes = make_multiboot_header(0), .memory_size = 12}})));
}

TEST(MultibootLoader, OverlappingSegmentsAreRefused) {
  Guest guest(64);
  EXPECT_FALSE(
      guest.boot(make_elf32(0x400000, {{.physical = 0x400000, .bytes = make_multiboot_header(0), .memory_size = 0x2000},
                                       {.physical = 0x401000, .bytes = Bytes(1), .memory_size = 1}})));
}

TEST(MultibootLoader, MutatedAndTruncatedImagesNeverHarm) {
  Guest guest(24);
  std::mt19937 random(11);
  const std::vector<Bytes> good = {
      make_kernel(), make_flat(0x200100, 0x200180),
      make_elf64(0x400000, {{.physical = 0x400000, .bytes = make_multiboot_header(0), .memory_size = 12}})};
  for (int round = 0; round < 3000; ++round) {
    Bytes image = good[random() % good.size()];
    for (int change = 0; change < 3; ++change)
      image[random() % std::min<size_t>(image.size(), 0x80)] = static_cast<uint8_t>(random() % 4 != 0 ? random() : 255);
    if (random() % 4 == 0) image.resize(random() % image.size());
    if (const auto loaded = guest.boot(image)) {
      EXPECT_EQ(loaded->entry.gpr[x86::kRax], 0x2badb002U);
      EXPECT_TRUE(guest.memory.load<uint32_t>(loaded->entry.gpr[x86::kRbx]));
    }
  }
}

}  // namespace
}  // namespace kite::boot
