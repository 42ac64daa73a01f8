#include <gtest/gtest.h>

#include <random>

#include "boot/elf.h"
#include "boot/test_image.h"

namespace kite::boot {
namespace {

using namespace testing;

Bytes make_kernel() {
  return make_elf64(
      0xffffffff81000000,
      {{.physical = 0x1000000, .bytes = Bytes(64, 0xf4), .memory_size = 0x2000, .virtual_address = 0xffffffff81000000},
       {.physical = 0, .bytes = make_pvh_note(0x1000020), .memory_size = 0, .type = 4}});
}

TEST(PvhLoader, EntersAtTheNotesAddress) {
  Guest guest(64);
  const auto loaded = guest.boot(make_kernel());
  ASSERT_TRUE(loaded) << loaded.error().message;
  const x86::ArchState& cpu = loaded->entry;
  EXPECT_EQ(loaded->kind, KernelKind::kPvh);
  EXPECT_EQ(cpu.rip, 0x1000020U);
  EXPECT_EQ(guest.at<uint8_t>(cpu.rip), 0xf4);
  EXPECT_EQ(cpu.cr0, x86::cr0::kPe | x86::cr0::kEt);
  EXPECT_EQ(cpu.cr4, 0U);
  EXPECT_EQ(cpu.efer, 0U);
  EXPECT_EQ(cpu.tr.limit, 0x67U);
}

TEST(PvhLoader, TheStartInformationIsComplete) {
  Guest guest(64);
  guest.request.command_line = "root=/dev/vda";
  const TempFile initrd(Bytes(4097, 0x42));
  guest.request.initrd_path = initrd.path();
  const auto loaded = guest.boot(make_kernel());
  ASSERT_TRUE(loaded);
  const uint64_t info = loaded->entry.gpr[x86::kRbx];
  EXPECT_EQ(guest.at<uint32_t>(info), 0x336ec578U);
  EXPECT_EQ(guest.at<uint32_t>(info + 4), 1U);
  ASSERT_EQ(guest.at<uint32_t>(info + 12), 1U);
  const uint64_t module = guest.at<uint64_t>(info + 16);
  EXPECT_EQ(guest.at<uint64_t>(module + 8), 4097U);
  EXPECT_EQ(guest.at<uint8_t>(guest.at<uint64_t>(module) + 4096), 0x42);
  EXPECT_EQ(guest.text(guest.at<uint64_t>(info + 24)), "root=/dev/vda");
  EXPECT_EQ(guest.at<uint64_t>(info + 32), 0xe0000U);
  const uint64_t map = guest.at<uint64_t>(info + 40);
  ASSERT_EQ(guest.at<uint32_t>(info + 48), 5U);
  EXPECT_EQ(guest.at<uint64_t>(map + 3 * 24), 0x100000U);
  EXPECT_EQ(guest.at<uint32_t>(map + 4 * 24 + 16), 3U);
}

TEST(PvhLoader, AnElfWithoutTheNoteIsRefusedWithAHint) {
  Guest guest(64);
  const auto loaded = guest.boot(make_elf64(0x1000000, {{.physical = 0x1000000, .bytes = Bytes(4), .memory_size = 4}}));
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("CONFIG_PVH"), std::string::npos);
}

TEST(PvhLoader, OtherProcessorsAndFormatsAreRefused) {
  Guest guest(64);
  Bytes arm = make_kernel();
  put<uint16_t>(arm, 18, 183);
  EXPECT_NE(guest.boot(arm).error().message.find("183"), std::string::npos);
  EXPECT_FALSE(guest.boot(Bytes(100, 0)));
  EXPECT_FALSE(guest.boot({}));
}

TEST(PvhLoader, FilesOfThousandsOfSegmentsAreRefused) {
  Guest guest(24);
  const std::vector<Segment> many(257, {.physical = 0x200000, .bytes = {}, .memory_size = 0});
  const auto loaded = guest.boot(make_elf64(0x200000, many));
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("257"), std::string::npos) << loaded.error().message;
}

TEST(ElfNotes, AreFoundBehindOthers) {
  Bytes notes;
  put<uint32_t>(notes, 0, 4);
  put<uint32_t>(notes, 4, 5);
  put<uint32_t>(notes, 8, 18);
  put<uint32_t>(notes, 12, 0x00554e47);  // "GNU"
  put<uint64_t>(notes, 16, 0x1111);      // 5 bytes and padding
  const Bytes wanted = make_pvh_note(0x77);
  notes.insert(notes.end(), wanted.begin(), wanted.end());
  ElfImage elf;
  elf.notes.emplace_back(notes);
  EXPECT_EQ(find_note(elf, "Xen", 18), 0x77U);
  EXPECT_FALSE(find_note(elf, "Xen", 17));
  EXPECT_FALSE(find_note(elf, "Xe", 18));
}

TEST(ElfNotes, DamagedNotesEndTheSearch) {
  for (size_t length = 0; length < 20; ++length) {
    Bytes note = make_pvh_note(1);
    note.resize(length);
    ElfImage elf;
    elf.notes.emplace_back(note);
    EXPECT_FALSE(find_note(elf, "Xen", 18)) << length;
  }
  Bytes note = make_pvh_note(1);
  put<uint32_t>(note, 0, 0xffffffff);
  ElfImage elf;
  elf.notes.emplace_back(note);
  EXPECT_FALSE(find_note(elf, "Xen", 18));
}

TEST(PvhLoader, MutatedImagesNeverHarm) {
  Guest guest(24);
  std::mt19937 random(3);
  const Bytes good = make_kernel();
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    Bytes image = good;
    for (int change = 0; change < 3; ++change)
      image[random() % image.size()] = static_cast<uint8_t>(random() % 4 != 0 ? random() : 255);
    if (random() % 4 == 0) image.resize(random() % image.size());
    if (guest.boot(image)) ++accepted;
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace kite::boot
