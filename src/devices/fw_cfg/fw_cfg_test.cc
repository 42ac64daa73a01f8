#include "devices/fw_cfg/fw_cfg.h"

#include "devices/fw_cfg/fw_cfg_regs.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace fw_cfg_regs;

class FwCfgTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kRam = 0x10000;
  FwCfgTest() {
    auto block = RamBlock::create("ram", kRam);
    EXPECT_TRUE(block);
    ram_ = *block;
    space_.root().add(0, Region::ram("ram", ram_));
    space_.commit();
    plug(device_);
  }
  void plug(FwCfg& device) {
    ports_.map(kPort, device.port_region());
    ports_.map(kDmaPort, device.dma_region());
  }
  void select(uint16_t key) { ports_.out(kPort, key, 2); }
  uint64_t read(unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= uint64_t{ports_.in(kPort + 1)} << (8 * i);
    return value;
  }
  std::string read_text(unsigned bytes) {
    std::string text;
    for (unsigned i = 0; i < bytes; ++i) text += static_cast<char>(ports_.in(kPort + 1));
    return text;
  }
  // What the control word holds afterwards.
  uint32_t dma(uint32_t control, uint32_t length, uint64_t address) {
    constexpr uint64_t kStructure = 0x100;
    store_be32(ram_->host() + kStructure, control);
    store_be32(ram_->host() + kStructure + 4, length);
    store_be64(ram_->host() + kStructure + 8, address);
    ports_.out(kDmaPort, 0, 4);
    ports_.out(kDmaPort + 4, __builtin_bswap32(kStructure), 4);
    return load_be32(ram_->host() + kStructure);
  }
  static uint32_t selecting(uint16_t key) { return kDmaSelect | uint32_t{key} << 16; }

  std::shared_ptr<RamBlock> ram_;
  TestSpace space_{uint64_t{1} << 40};
  GuestMemory memory_{space_.space()};
  TestSpace ports_;
  FwCfg device_{"fw_cfg", memory_};
};

// --- ports ---

TEST_F(FwCfgTest, SignatureAndId) {
  select(kSignature);
  EXPECT_EQ(read_text(4), "QEMU");
  select(kId);
  EXPECT_EQ(read(4), 3U);
}

TEST_F(FwCfgTest, IntegersAreLittleEndian) {
  device_.add_u16(kCpuCount, 0x1234);
  device_.add_u64(kRamSize, 0x1122334455667788);
  select(kCpuCount);
  EXPECT_EQ(read(2), 0x1234U);
  select(kRamSize);
  EXPECT_EQ(read(8), 0x1122334455667788U);
}

TEST_F(FwCfgTest, StringHasItsZero) {
  device_.add_string(kKernelCommandLine, "quiet");
  select(kKernelCommandLine);
  EXPECT_EQ(read_text(6), std::string("quiet\0", 6));
}

TEST_F(FwCfgTest, PastTheEndReadsZeros) {
  device_.add_u16(kNographic, 0xffff);
  select(kNographic);
  EXPECT_EQ(read(4), 0xffffU);
}

TEST_F(FwCfgTest, SelectingStartsOver) {
  select(kSignature);
  read(2);
  select(kSignature);
  EXPECT_EQ(read_text(1), "Q");
}

TEST_F(FwCfgTest, UnknownKeysReadZeros) {
  for (const uint16_t key : std::initializer_list<uint16_t>{0x1f, 0x20, 0x4000, 0x8005, kNoKey}) {
    select(key);
    EXPECT_EQ(read(4), 0U) << key;
  }
}

TEST_F(FwCfgTest, DataWritesChangeNothing) {
  select(kSignature);
  ports_.out(kPort + 1, 'X');
  ports_.out(kPort, 0x19);
  EXPECT_EQ(read_text(4), "QEMU");
}

TEST_F(FwCfgTest, ArchitectureKeysAreApart) {
  device_.add_u32(kIrq0Override, 1);
  select(kIrq0Override);
  EXPECT_EQ(read(4), 1U);
}

// --- files ---

TEST_F(FwCfgTest, DirectoryIsSortedByName) {
  ASSERT_TRUE(device_.add_file("etc/zebra", {1, 2, 3}));
  ASSERT_TRUE(device_.add_file("etc/ape", {4}));
  select(kFileDirectory);
  EXPECT_EQ(read(4), __builtin_bswap32(2));
  EXPECT_EQ(read(4), __builtin_bswap32(1));
  EXPECT_EQ(read(2), __builtin_bswap16(kFirstFile));
  EXPECT_EQ(read(2), 0U);
  EXPECT_EQ(read_text(56), "etc/ape" + std::string(49, '\0'));
  EXPECT_EQ(read(4), __builtin_bswap32(3));
  EXPECT_EQ(read(2), __builtin_bswap16(kFirstFile + 1));
}

TEST_F(FwCfgTest, FileIsReadByItsKey) {
  ASSERT_TRUE(device_.add_file("etc/zebra", {'z'}));
  ASSERT_TRUE(device_.add_file("etc/ape", {'a'}));
  select(kFirstFile + 1);
  EXPECT_EQ(read_text(1), "z");
}

TEST_F(FwCfgTest, RefusesBadFiles) {
  ASSERT_TRUE(device_.add_file("etc/x", {}));
  EXPECT_FALSE(device_.add_file("etc/x", {}));
  EXPECT_FALSE(device_.add_file("", {}));
  EXPECT_FALSE(device_.add_file(std::string(56, 'n'), {}));
  EXPECT_FALSE(device_.add_file(std::string("a\0b", 3), {}));
  EXPECT_TRUE(device_.add_file(std::string(55, 'n'), {}));
}

TEST_F(FwCfgTest, SetFileReplacesAndCreates) {
  ASSERT_TRUE(device_.set_file("bootorder", {'a'}));
  ASSERT_TRUE(device_.set_file("bootorder", {'b', 'c'}));
  EXPECT_EQ(device_.file("bootorder"), (std::vector<uint8_t>{'b', 'c'}));
  EXPECT_TRUE(device_.file("none").empty());
}

TEST_F(FwCfgTest, ShrunkFileUnderAReaderReadsZeros) {
  ASSERT_TRUE(device_.set_file("f", {1, 2, 3, 4}));
  select(kFirstFile);
  read(3);
  ASSERT_TRUE(device_.set_file("f", {9}));
  EXPECT_EQ(read(2), 0U);
  EXPECT_EQ(dma(kDmaRead, 4, 0x200), 0U);
}

// --- DMA ---

TEST_F(FwCfgTest, DmaPortShowsItsSignature) {
  EXPECT_EQ(ports_.in(kDmaPort, 4), __builtin_bswap32(0x51454d55));
  EXPECT_EQ(ports_.in(kDmaPort + 4, 4), __builtin_bswap32(0x20434647));
}

TEST_F(FwCfgTest, DmaReadsASelectedBlob) {
  EXPECT_EQ(dma(selecting(kSignature) | kDmaRead, 4, 0x200), 0U);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(ram_->host() + 0x200), 4), "QEMU");
}

TEST_F(FwCfgTest, DmaReadPadsWithZeros) {
  ram_->host()[0x207] = 0xff;
  EXPECT_EQ(dma(selecting(kSignature) | kDmaRead, 8, 0x200), 0U);
  EXPECT_EQ(load<uint32_t>(ram_->host() + 0x204), 0U);
}

TEST_F(FwCfgTest, DmaReadsOnWhereItStopped) {
  dma(selecting(kSignature) | kDmaRead, 1, 0x200);
  dma(kDmaRead, 3, 0x201);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(ram_->host() + 0x200), 4), "QEMU");
}

TEST_F(FwCfgTest, DmaSkips) {
  EXPECT_EQ(dma(selecting(kSignature) | kDmaSkip, 3, 0), 0U);
  EXPECT_EQ(read_text(1), "U");
}

TEST_F(FwCfgTest, DmaSkipStopsAtTheEnd) {
  EXPECT_EQ(dma(selecting(kSignature) | kDmaSkip, 0xffffffff, 0), 0U);
  EXPECT_EQ(read(1), 0U);
}

TEST_F(FwCfgTest, DmaToNowhereIsAnError) {
  EXPECT_EQ(dma(selecting(kSignature) | kDmaRead, 4, kRam), kDmaError);
  EXPECT_EQ(dma(selecting(kSignature) | kDmaRead, 4, ~uint64_t{1}), kDmaError);
  EXPECT_EQ(dma(selecting(kSignature) | kDmaRead, 0xffffffff, 0x200), kDmaError);
}

TEST_F(FwCfgTest, DmaStructureNowhereIsIgnored) {
  ports_.out(kDmaPort, 0xffffffff, 4);
  ports_.out(kDmaPort + 4, 0xffffffff, 4);
  EXPECT_EQ(dma(kDmaSkip, 0, 0), 0U);
}

TEST_F(FwCfgTest, DmaWriteToReadOnlyIsAnError) {
  ASSERT_TRUE(device_.add_file("f", {1, 2}));
  EXPECT_EQ(dma(selecting(kFirstFile) | kDmaWrite, 2, 0x200), kDmaError);
  EXPECT_EQ(device_.file("f"), (std::vector<uint8_t>{1, 2}));
}

TEST_F(FwCfgTest, DmaWritesAWritableFile) {
  ASSERT_TRUE(device_.add_file("f", {1, 2, 3}, FwCfg::FileAccess::kWritable));
  ram_->host()[0x200] = 0x77;
  dma(selecting(kFirstFile) | kDmaSkip, 1, 0);
  EXPECT_EQ(dma(kDmaWrite, 1, 0x200), 0U);
  EXPECT_EQ(device_.file("f"), (std::vector<uint8_t>{1, 0x77, 3}));
}

TEST_F(FwCfgTest, DmaWritePastTheEndIsAnErrorAndWritesNothing) {
  ASSERT_TRUE(device_.add_file("f", {1, 2}, FwCfg::FileAccess::kWritable));
  EXPECT_EQ(dma(selecting(kFirstFile) | kDmaWrite, 3, 0x200), kDmaError);
  EXPECT_EQ(device_.file("f"), (std::vector<uint8_t>{1, 2}));
}

TEST_F(FwCfgTest, DmaOfNothingSucceeds) { EXPECT_EQ(dma(0, 100, 0), 0U); }

// --- state ---

TEST_F(FwCfgTest, ResetSelectsTheSignature) {
  select(kId);
  device_.reset();
  EXPECT_EQ(read_text(4), "QEMU");
}

TEST_F(FwCfgTest, StateTravelsInTheMiddleOfARead) {
  ASSERT_TRUE(device_.add_file("f", {1, 2, 3}, FwCfg::FileAccess::kWritable));
  ram_->host()[0x200] = 0x66;
  dma(selecting(kFirstFile) | kDmaWrite, 1, 0x200);
  ports_.out(kDmaPort, 0x12345678, 4);
  FwCfg other("fw_cfg", memory_);
  ASSERT_TRUE(other.add_file("f", {0, 2, 3}, FwCfg::FileAccess::kWritable));
  ASSERT_TRUE(restore_state(other, saved_state(device_)));
  EXPECT_EQ(read_reg(other.port_region(), 1), 2U);
  EXPECT_EQ(other.file("f"), (std::vector<uint8_t>{0x66, 2, 3}));
}

TEST_F(FwCfgTest, RefusesWritableFilesOfOtherSizes) {
  ASSERT_TRUE(device_.add_file("f", {1, 2, 3}, FwCfg::FileAccess::kWritable));
  const auto saved = saved_state(device_);
  FwCfg other("fw_cfg", memory_);
  ASSERT_TRUE(other.add_file("f", {1, 2}, FwCfg::FileAccess::kWritable));
  EXPECT_FALSE(restore_state(other, saved));
  EXPECT_EQ(other.file("f"), (std::vector<uint8_t>{1, 2}));
}

TEST_F(FwCfgTest, HugeRestoredOffsetReadsZeros) {
  ASSERT_TRUE(restore_state(device_, with_patched_field(saved_state(device_), 2, 0, 0x7fffffff, 4)));
  EXPECT_EQ(read(4), 0U);
  EXPECT_FALSE(restore_state(device_, with_patched_field(saved_state(device_), 2, 0, 0xffffffff, 4)));
}

}  // namespace
}  // namespace kite::devices
