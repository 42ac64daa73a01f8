#include "devices/pflash/pflash.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace pflash_regs;

constexpr uint64_t kBlocks = 4, kBytes = kBlocks * kBlockBytes;
constexpr uint64_t kBase = 0x8000;

class PflashTest : public ::testing::Test {
 protected:
  PflashTest() {
    path_ = ::testing::TempDir() + fmt::format("kite-flash-{}-{}", ::getpid(), ++counter_);
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    for (uint64_t at = 0; at < kBytes; ++at) std::fputc(static_cast<int>(at % 251), file);
    std::fclose(file);
    open(false);
  }
  ~PflashTest() override {
    chip_.reset();
    file_.reset();
    ::unlink(path_.c_str());
  }

  void open(bool read_only) {
    if (chip_) space_.root().remove(chip_->region());
    space_.commit();
    chip_.reset();
    file_.reset();
    auto file = FlashFile::open(path_, read_only, kBlockBytes, kBytes);
    ASSERT_TRUE(file) << file.error().message;
    file_ = std::move(*file);
    auto chip = Pflash::create("flash", *file_);
    ASSERT_TRUE(chip) << chip.error().message;
    chip_ = std::move(*chip);
    space_.map(kBase, chip_->region());
    chip_->reset();
  }
  void write(uint64_t offset, uint8_t value) { space_.out(kBase + offset, value); }
  uint8_t read(uint64_t offset) { return static_cast<uint8_t>(space_.in(kBase + offset)); }
  uint8_t status() {
    write(0, kReadStatus);
    return read(0);
  }
  // The array as a reader sees it.
  uint8_t array(uint64_t offset) {
    write(0, kReadArray);
    return read(offset);
  }
  void erase(uint64_t offset) {
    write(offset, kBlockErase);
    write(offset, kConfirm);
  }
  void program(uint64_t offset, uint8_t value) {
    write(offset, kProgram);
    write(offset, value);
  }
  uint8_t in_file(uint64_t offset) {
    uint8_t byte = 0;
    std::FILE* file = std::fopen(path_.c_str(), "rb");
    std::fseek(file, static_cast<long>(offset), SEEK_SET);
    EXPECT_EQ(std::fread(&byte, 1, 1, file), 1U);
    std::fclose(file);
    return byte;
  }

  static inline int counter_ = 0;
  std::string path_;
  std::unique_ptr<FlashFile> file_;
  TestSpace space_{0x20000};
  std::unique_ptr<Pflash> chip_;
};

TEST_F(PflashTest, TheArrayIsMemoryUntilACommandComes) {
  const EpochGuard guard;
  const FlatRange* range = space_.space().view(guard).find(kBase);
  ASSERT_NE(range, nullptr);
  EXPECT_EQ(range->kind, RegionKind::kRom);
  EXPECT_EQ(read(7), 7);
  write(0, kReadId);
  range = space_.space().view(guard).find(kBase);
  EXPECT_EQ(range->kind, RegionKind::kIo);
}

TEST_F(PflashTest, IdentifiesItself) {
  write(0, kReadId);
  EXPECT_EQ(read(0), kIntel);
  EXPECT_EQ(read(1), kDevice);
  EXPECT_EQ(read(kBlockBytes + 2), 0);
}

TEST_F(PflashTest, AnswersTheCommonFlashQuery) {
  write(0x55, kReadQuery);
  EXPECT_EQ(read(0x10), 'Q');
  EXPECT_EQ(read(0x11), 'R');
  EXPECT_EQ(read(0x12), 'Y');
  EXPECT_EQ(read(0x13), 1);             // Intel's command set
  EXPECT_EQ(1u << read(0x27), kBytes);  // size
  EXPECT_EQ(read(0x2d) + 1u, kBlocks);
  EXPECT_EQ(read(0x2f) * 256u, kBlockBytes);
  EXPECT_EQ(read(0x31), 'P');
  EXPECT_EQ(read(0x1000), 0);
}

// What OVMF does to tell flash from ROM and RAM.
TEST_F(PflashTest, ClearedStatusReadsZeroAndProbesLeaveNoTrace) {
  const uint8_t before = read(0);
  write(0, kClearStatus);
  EXPECT_EQ(read(0), before);
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(array(0), before);
}

TEST_F(PflashTest, ErasingFillsOneBlockWithOnes) {
  erase(kBlockBytes + 5);
  EXPECT_EQ(status(), kReady);
  EXPECT_EQ(array(kBlockBytes), 0xff);
  EXPECT_EQ(array(2 * kBlockBytes - 1), 0xff);
  EXPECT_EQ(array(2 * kBlockBytes), 2 * kBlockBytes % 251);
  EXPECT_EQ(array(kBlockBytes - 1), (kBlockBytes - 1) % 251);
}

TEST_F(PflashTest, ProgrammingOnlyClearsBits) {
  erase(0);
  program(3, 0xa5);
  EXPECT_EQ(array(3), 0xa5);
  program(3, 0x5f);
  EXPECT_EQ(array(3), 0x05);
}

TEST_F(PflashTest, WhatIsDoneIsInTheFile) {
  erase(0);
  EXPECT_EQ(in_file(0), 0xff);
  program(1, 0x12);
  EXPECT_EQ(in_file(1), 0x12);
}

TEST_F(PflashTest, WithoutConfirmationNothingIsErased) {
  write(0, kBlockErase);
  write(0, 0x00);
  EXPECT_EQ(status(), kReady | kEraseError | kProgramError);
  EXPECT_EQ(array(9), 9);
}

TEST_F(PflashTest, TheBufferIsProgrammedAtOnce) {
  erase(0);
  write(0x10, kWriteBuffer);
  EXPECT_EQ(read(0), kReady);
  write(0x10, 2);  // three bytes
  write(0x10, 1);
  write(0x11, 2);
  write(0x12, 3);
  EXPECT_EQ(in_file(0x10), 0xff);
  write(0x10, kConfirm);
  EXPECT_EQ(status(), kReady);
  EXPECT_EQ(array(0x12), 3);
  EXPECT_EQ(in_file(0x10), 1);
}

TEST_F(PflashTest, ABufferDoesNotLeaveItsBlock) {
  write(0x10, kWriteBuffer);
  write(0x10, 1);
  write(0x10, 0);
  write(kBlockBytes, 0);
  EXPECT_EQ(status() & (kEraseError | kProgramError), kEraseError | kProgramError);
  EXPECT_EQ(array(0x10), 0x10);
  EXPECT_EQ(array(kBlockBytes), kBlockBytes % 251);
}

TEST_F(PflashTest, ALockedBlockKeepsItsContents) {
  write(0, kLockSetup);
  write(0, kLockConfirm);
  erase(0);
  EXPECT_EQ(status(), kReady | kEraseError | kLockError);
  program(0, 0);
  EXPECT_NE(status() & kProgramError, 0);
  EXPECT_EQ(array(5), 5);
  write(0, kReadId);
  EXPECT_EQ(read(2), kLocked);
  write(0, kReadArray);
  write(0, kLockSetup);
  write(0, kConfirm);
  program(5, 0);
  EXPECT_EQ(array(5), 0);
}

TEST_F(PflashTest, ALockedDownBlockStaysLockedUntilReset) {
  write(0, kLockSetup);
  write(0, kLockDownConfirm);
  write(0, kLockSetup);
  write(0, kConfirm);
  program(5, 0);
  EXPECT_EQ(array(5), 5);
  chip_->reset();
  program(5, 0);
  EXPECT_EQ(array(5), 0);
}

TEST_F(PflashTest, AReadOnlyFileIsNeverWritten) {
  open(true);
  program(5, 0);
  EXPECT_EQ(status(), kReady | kProgramError | kLockError);
  erase(0);
  EXPECT_EQ(array(5), 5);
  EXPECT_EQ(in_file(5), 5);
}

TEST_F(PflashTest, WideWritesAreBytesInTheirOrder) {
  erase(0);
  write(0, kReadArray);
  space_.out(kBase, kProgram | 0x33u << 8, 2);  // the command, then the byte at offset 1
  EXPECT_EQ(array(1), 0x33);
}

TEST_F(PflashTest, StateTravelsInTheMiddleOfABuffer) {
  erase(0);
  write(0x20, kWriteBuffer);
  write(0x20, 1);
  write(0x20, 7);
  const std::vector<uint8_t> state = saved_state(*chip_);
  chip_->reset();
  ASSERT_TRUE(restore_state(*chip_, state));
  write(0x21, 8);
  write(0x20, kConfirm);
  EXPECT_EQ(array(0x20), 7);
  EXPECT_EQ(array(0x21), 8);
}

TEST_F(PflashTest, WhatItHoldsTravelsAndReachesTheFileWhenThatIsClaimed) {
  erase(0);
  program(5, 0x5a);
  const std::vector<uint8_t> state = saved_state(*chip_);
  program(5, 0x12);
  program(kBlockBytes + 7, 0);
  ASSERT_TRUE(restore_state(*chip_, state));
  EXPECT_EQ(array(5), 0x5a);
  EXPECT_EQ(array(kBlockBytes + 7), (kBlockBytes + 7) % 251);
  EXPECT_EQ(in_file(5), 0x12);
  chip_->release();
  {
    const auto other = FlashFile::open(path_, false, kBlockBytes, kBytes);
    ASSERT_TRUE(other) << other.error().message;
    EXPECT_FALSE(chip_->claim());
    EXPECT_EQ(in_file(5), 0x12);
  }
  ASSERT_TRUE(chip_->claim());
  EXPECT_EQ(in_file(5), 0x5a);
  EXPECT_EQ(in_file(kBlockBytes + 7), (kBlockBytes + 7) % 251);
}

TEST_F(PflashTest, ContentsOfAnotherChipAreRefused) {
  const std::vector<uint8_t> state = saved_state(*chip_);
  open(true);
  EXPECT_FALSE(restore_state(*chip_, state));
  const std::vector<uint8_t> read_only = saved_state(*chip_);
  EXPECT_LT(read_only.size(), state.size() - kBytes + 64);
  EXPECT_TRUE(restore_state(*chip_, read_only));
  open(false);
  EXPECT_FALSE(restore_state(*chip_, read_only));
}

TEST_F(PflashTest, ImpossibleStateIsRefused) {
  const std::vector<uint8_t> state = saved_state(*chip_);
  EXPECT_FALSE(restore_state(*chip_, with_patched_field(state, 1, 0, 99, 1)));        // mode
  EXPECT_FALSE(restore_state(*chip_, with_patched_field(state, 4, 0, kBytes, 8)));    // block
  EXPECT_FALSE(restore_state(*chip_, with_patched_field(state, 6, 0, 1u << 20, 8)));  // bounds
  EXPECT_EQ(read(3), 3);
}

// Commands, data and addresses in no sensible order: memory and file stay the same bytes, and every state that the chip
// gets into is one that it takes back.
TEST_F(PflashTest, AStormOfCommandsLeavesMemoryAndFileAlike) {
  constexpr uint8_t kCommands[] = {kProgram,   kBlockErase, kClearStatus, kLockSetup, kReadStatus,  kReadId,
                                   kReadQuery, kConfirm,    kWriteBuffer, kReadArray, kLockConfirm, kLockDownConfirm};
  std::minstd_rand random(20240501);
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t offset = random() % kBytes;
    const auto value = static_cast<uint8_t>(random() % 4 == 0 ? random() : kCommands[random() % std::size(kCommands)]);
    space_.out(kBase + offset, value | uint64_t{random()} << 8, 1u << random() % 3);
    read(random() % kBytes);
    if (step % 97 == 0) ASSERT_TRUE(restore_state(*chip_, saved_state(*chip_)));
    if (step % 1009 == 0) chip_->reset();
  }
  std::vector<uint8_t> in_file_now(kBytes);
  ASSERT_TRUE(file_->read(0, in_file_now));
  EXPECT_EQ(std::memcmp(in_file_now.data(), chip_->array()->host(), kBytes), 0);
}

TEST(FlashFileTest, RefusesWhatIsNoFlashChip) {
  const std::string path = ::testing::TempDir() + fmt::format("kite-noflash-{}", ::getpid());
  std::FILE* file = std::fopen(path.c_str(), "wb");
  std::fputs("short", file);
  std::fclose(file);
  EXPECT_FALSE(FlashFile::open(path, false, kBlockBytes, kBytes));
  EXPECT_FALSE(FlashFile::open("/dev/zero", false, kBlockBytes, kBytes));
  EXPECT_FALSE(FlashFile::open(path + ".absent", false, kBlockBytes, kBytes));
  ::unlink(path.c_str());
}

TEST(FlashFileTest, AWritableFileHasOneOwner) {
  const std::string path = ::testing::TempDir() + fmt::format("kite-oneflash-{}", ::getpid());
  std::FILE* file = std::fopen(path.c_str(), "wb");
  const std::vector<char> block(kBlockBytes);
  std::fwrite(block.data(), 1, block.size(), file);
  std::fclose(file);
  const auto first = FlashFile::open(path, false, kBlockBytes, kBytes);
  ASSERT_TRUE(first);
  const auto second = FlashFile::open(path, true, kBlockBytes, kBytes);
  EXPECT_FALSE(second);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos);
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace kite::devices
