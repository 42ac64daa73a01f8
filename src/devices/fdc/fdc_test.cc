// The floppy controller driven by its registers, over memory disks, with the DMA controller beside it.
#include "devices/fdc/fdc.h"

#include <gtest/gtest.h>

#include "block/plain_nodes.h"
#include "devices/fdc/fdc_types.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace fdc_regs;

constexpr uint16_t kBase = 0x3f0;
constexpr uint32_t kIrq = 6;
constexpr uint64_t k1440 = 1440 * 1024, kBuffer = 0x8000;

class FdcTest : public ::testing::Test {
 protected:
  FdcTest() {
    auto block = RamBlock::create("ram", 1 << 20);
    EXPECT_TRUE(block);
    space.map(0, Region::ram("ram", *block));
    space.commit();
    auto made = Executor::create("test");
    EXPECT_TRUE(made);
    executor = std::move(*made);
    ports.map(kBase, fdc.region());
    ports.map(kBase + 7, fdc.input_region());
    ports.map(0x00, dma.byte_ports());
    ports.map(0x80, dma.page_ports());
    types.add({.name = "device", .parent = "", .description = "", .bus = "", .properties = {}});
    types.add({.name = "isa-device", .parent = "device", .description = "", .bus = "", .properties = {}});
    register_floppy_types(types);
    dma.reset();
    fdc.reset();
  }
  ~FdcTest() override {
    settle();
    for (auto& device : floppies) fdc.drive_bus().detach(*device);
    floppies.clear();
    for (auto& drive : drives) EXPECT_TRUE(block::run_until_done(*executor, drive->close()));
  }

  // A drive of that unit; 0 bytes: without a disk.
  Removable& add_drive(int unit, uint64_t bytes, bool read_only = false, const char* type = "auto") {
    auto made =
        block::Drive::create(*executor, {.id = "f", .read_only = read_only}, bytes == 0 ? nullptr : disk(bytes));
    EXPECT_TRUE(made);
    drives.push_back(std::move(*made));
    auto properties = types.resolve(
        {.type = "floppy", .id = "", .values = {{"unit", std::to_string(unit)}, {"drive-type", type}}}, "-device");
    EXPECT_TRUE(properties);
    DiskConfig config;
    config.drive = drives.back().get();
    auto device = fdc.drive_bus().attach(
        {.type = "floppy", .path = "f" + std::to_string(unit), .disk = config, .properties = *properties});
    EXPECT_TRUE(device);
    floppies.push_back(std::move(*device));
    return dynamic_cast<Removable&>(*floppies.back());
  }
  std::shared_ptr<block::MemoryNode> disk(uint64_t bytes) {
    node =
        std::make_shared<block::MemoryNode>(*executor, block::NodeConfig{.name = "n" + std::to_string(++nodes)}, bytes);
    return node;
  }
  void change_disk(Removable& drive, uint64_t bytes) {
    EXPECT_TRUE(block::run_until_done(*executor, drives[0]->change_medium(bytes == 0 ? nullptr : disk(bytes), false)));
    drive.medium_changed();
  }
  void settle() {
    for (int i = 0; i < 20; ++i) executor->run_once(0);
  }
  uint8_t in(uint16_t reg) { return static_cast<uint8_t>(ports.in(kBase + reg)); }
  void out(uint16_t reg, uint8_t value) { ports.out(kBase + reg, value); }
  void send(std::initializer_list<uint8_t> bytes) {
    for (const uint8_t byte : bytes) {
      EXPECT_EQ(in(MSR) & 0xc0, kMsrReady);
      out(FIFO, byte);
    }
  }
  std::vector<uint8_t> result() {
    std::vector<uint8_t> bytes;
    while ((in(MSR) & 0xd0) == 0xd0 && bytes.size() < 20) bytes.push_back(in(FIFO));
    return bytes;
  }
  std::vector<uint8_t> run(std::initializer_list<uint8_t> bytes) {
    send(bytes);
    settle();
    return result();
  }
  // ST0 and cylinder.
  std::vector<uint8_t> seek(uint8_t track) {
    send({kSeek, 0, track});
    return run({kSenseInterrupt});
  }
  void program_dma(uint8_t mode, uint16_t count) {
    ports.out(0x0a, 6);
    ports.out(0x0c, 0);
    ports.out(0x0b, mode | 2);
    ports.out(0x04, kBuffer & 0xff);
    ports.out(0x04, kBuffer >> 8);
    ports.out(0x81, 0);
    ports.out(0x05, (count - 1) & 0xff);
    ports.out(0x05, (count - 1) >> 8);
    ports.out(0x0a, 2);
  }
  void put(uint64_t offset, std::vector<uint8_t> data) { node->copy_in(offset, block::IoSlice(std::span(data))); }
  std::vector<uint8_t> on_disk(uint64_t offset, size_t bytes) {
    std::vector<uint8_t> data(bytes);
    node->copy_out(offset, block::IoSlice(std::span(data)));
    return data;
  }
  std::vector<uint8_t> in_memory(size_t bytes) {
    std::vector<uint8_t> data(bytes);
    EXPECT_TRUE(memory.read(kBuffer, data));
    return data;
  }
  static std::vector<uint8_t> pattern(size_t bytes) {
    std::vector<uint8_t> data(bytes);
    for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<uint8_t>(i * 3 + i / 512);
    return data;
  }

  FakeLines lines;
  TestSpace space{uint64_t{1} << 32}, ports;
  GuestMemory memory{space.space()};
  std::unique_ptr<Executor> executor;
  std::shared_ptr<block::MemoryNode> node;
  int nodes = 0;
  I8237 dma{"dma", memory};
  TypeRegistry types;
  Fdc fdc{"fdc", {}, {.irq = lines.line(kIrq), .dma = &dma}};
  std::vector<std::unique_ptr<block::Drive>> drives;
  std::vector<std::unique_ptr<bus::Device>> floppies;
};

constexpr uint8_t kDmaToMemory = 0x44, kDmaFromMemory = 0x48;
using Bytes = std::vector<uint8_t>;

TEST_F(FdcTest, ReadGoesToMemory) {
  add_drive(0, k1440);
  put(512, pattern(1024));
  program_dma(kDmaToMemory, 1024);
  // Cylinder 0, head 0, from sector 2 to the end of the track; the count ends it.
  EXPECT_EQ(run({0xe6, 0, 0, 0, 2, 2, 18, 0x1b, 0xff}), (Bytes{0, 0, 0, 0, 0, 4, 2}));
  EXPECT_EQ(in_memory(1024), pattern(1024));
  EXPECT_FALSE(lines.level(kIrq));
}

TEST_F(FdcTest, WriteComesFromMemory) {
  add_drive(0, k1440);
  ASSERT_TRUE(memory.write(kBuffer, pattern(1024)));
  const Bytes first_half = in_memory(512);
  program_dma(kDmaFromMemory, 1024);
  seek(1);
  EXPECT_EQ(run({0xc5, 4, 1, 1, 18, 2, 18, 0x1b, 0xff})[0] & 0xc0, kSt0Abnormal);  // the track ends before the count
  EXPECT_EQ(on_disk((1 * 2 + 1) * 18 * 512 + 17 * 512, 512), first_half);
}

TEST_F(FdcTest, MultiTrackGoesOnAtTheOtherSide) {
  add_drive(0, k1440);
  put(17 * 512, pattern(1024));
  program_dma(kDmaToMemory, 1024);
  EXPECT_EQ(run({0xe6, 0, 0, 0, 18, 2, 18, 0x1b, 0xff}), (Bytes{4, 0, 0, 0, 1, 2, 2}));
  EXPECT_EQ(in_memory(1024), pattern(1024));
}

TEST_F(FdcTest, LastSectorOfTheCylinderTellsTheNext) {
  add_drive(0, k1440);
  program_dma(kDmaToMemory, 512);
  EXPECT_EQ(run({0xe6, 4, 0, 1, 18, 2, 18, 0x1b, 0xff}), (Bytes{4, 0, 0, 1, 0, 1, 2}));
}

TEST_F(FdcTest, TransferWaitsForTheDmaController) {
  add_drive(0, k1440);
  put(0, pattern(512));
  send({0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff});
  settle();
  EXPECT_EQ(in(MSR), kMsrBusy);
  program_dma(kDmaToMemory, 512);
  EXPECT_EQ(result()[0], 0);
  EXPECT_EQ(in_memory(512), pattern(512));
}

TEST_F(FdcTest, WithoutDmaTheProcessorReads) {
  add_drive(0, k1440);
  put(0, pattern(512));
  out(DOR, kDorNotReset);
  send({0x46, 0, 0, 0, 1, 2, 1, 0x1b, 0xff});
  settle();
  Bytes data;
  for (int i = 0; i < 512; ++i) {
    ASSERT_EQ(in(MSR), kMsrBusy | kMsrNonDma | kMsrToHost | kMsrReady);
    data.push_back(in(FIFO));
  }
  EXPECT_EQ(data, pattern(512));
  EXPECT_EQ(result().size(), 7u);
}

TEST_F(FdcTest, WithoutDmaTheProcessorWrites) {
  add_drive(0, k1440);
  out(DOR, kDorNotReset);
  send({0x45, 0, 0, 0, 3, 2, 3, 0x1b, 0xff});
  for (const uint8_t byte : pattern(512)) out(FIFO, byte);
  settle();
  EXPECT_EQ(result()[0], 0);
  EXPECT_EQ(on_disk(1024, 512), pattern(512));
}

TEST_F(FdcTest, DiskThatIsProtectedIsNotWritten) {
  add_drive(0, k1440, true);
  EXPECT_EQ(run({0xc5, 0, 0, 0, 1, 2, 1, 0x1b, 0xff})[1], kSt1NotWritable);
}

TEST_F(FdcTest, SectorBeyondTheTrackIsNotFound) {
  add_drive(0, k1440);
  const auto bytes = run({0xe6, 0, 0, 0, 19, 2, 19, 0x1b, 0xff});
  EXPECT_EQ(bytes[0], kSt0Abnormal);
  EXPECT_EQ(bytes[1], kSt1NoData);
}

TEST_F(FdcTest, WrongRateFindsNoMark) {
  add_drive(0, k1440);
  out(CCR, 2);
  EXPECT_EQ(run({kReadId, 0})[1], kSt1MissingMark);
  EXPECT_EQ(run({0xe6, 0, 0, 0, 1, 2, 1, 0x1b, 0xff})[1], kSt1MissingMark);
}

TEST_F(FdcTest, NoDiskIsAnAbnormalEnd) {
  add_drive(0, 0);
  EXPECT_EQ(run({0xe6, 0, 0, 0, 1, 2, 1, 0x1b, 0xff})[0], kSt0Abnormal);
}

TEST_F(FdcTest, ReadIdTellsTheCylinder) {
  add_drive(0, k1440);
  seek(8);
  EXPECT_EQ(run({kReadId, 4}), (Bytes{4, 0, 0, 8, 1, 1, 2}));
}

TEST_F(FdcTest, FormatWritesTheFiller) {
  add_drive(0, k1440);
  put(0, pattern(1024));
  Bytes ids;
  for (uint8_t sector = 1; sector <= 18; ++sector) ids.insert(ids.end(), {0, 0, sector, 2});
  ASSERT_TRUE(memory.write(kBuffer, ids));
  program_dma(kDmaFromMemory, static_cast<uint16_t>(ids.size()));
  EXPECT_EQ(run({0x4d, 0, 2, 18, 0x1b, 0xf6})[0], 0);
  EXPECT_EQ(on_disk(0, 18 * 512), Bytes(18 * 512, 0xf6));
}

TEST_F(FdcTest, VerifyMovesNothing) {
  add_drive(0, k1440);
  EXPECT_EQ(run({kVerify, 0, 0, 0, 1, 2, 18, 0x1b, 0xff})[0], 0);
}

TEST_F(FdcTest, SeekEndIsTold) {
  add_drive(0, k1440);
  send({kSeek, 0, 5});
  EXPECT_TRUE(lines.level(kIrq));
  EXPECT_EQ(run({kSenseInterrupt}), (Bytes{kSt0SeekEnd, 5}));
  EXPECT_FALSE(lines.level(kIrq));
  EXPECT_EQ(run({kSenseInterrupt}), Bytes{kSt0Invalid});
}

TEST_F(FdcTest, RelativeSeeksCountFromWhereTheHeadsAre) {
  add_drive(0, k1440);
  seek(10);
  send({0xcf, 0, 3});
  EXPECT_EQ(run({kSenseInterrupt})[1], 13);
  send({0x8f, 0, 20});
  EXPECT_EQ(run({kSenseInterrupt})[1], 0);
}

TEST_F(FdcTest, RecalibratingNothingFindsNoTrack0) {
  add_drive(0, k1440);
  send({kRecalibrate, 1});
  EXPECT_EQ(run({kSenseInterrupt})[0], kSt0Abnormal | kSt0SeekEnd | kSt0EquipmentCheck | 1);
}

TEST_F(FdcTest, ChangeLineFallsWithAStep) {
  Removable& drive = add_drive(0, 0);
  EXPECT_EQ(in(DIR), kDirChanged);
  change_disk(drive, k1440);
  seek(0);
  EXPECT_EQ(in(DIR), kDirChanged);  // no step
  seek(1);
  EXPECT_EQ(in(DIR), 0);
  change_disk(drive, 0);
  seek(0);
  EXPECT_EQ(in(DIR), kDirChanged);
}

TEST_F(FdcTest, AnotherDiskHasItsOwnFormat) {
  Removable& drive = add_drive(0, k1440);
  change_disk(drive, 720 * 1024);
  out(CCR, 2);
  EXPECT_EQ(run({0xe6, 0, 0, 0, 10, 2, 10, 0x1b, 0xff})[1], kSt1NoData);  // nine sectors
}

TEST_F(FdcTest, ResetTellsOfFourDrives) {
  add_drive(0, k1440);
  out(DOR, kDorDma);
  EXPECT_EQ(in(MSR), 0);
  out(DOR, kDorDma | kDorNotReset);
  EXPECT_TRUE(lines.level(kIrq));
  for (uint8_t unit = 0; unit < 4; ++unit) EXPECT_EQ(run({kSenseInterrupt})[0], kSt0Polling | unit);
  EXPECT_EQ(run({kSenseInterrupt}), Bytes{kSt0Invalid});
}

TEST_F(FdcTest, ResetWaitsForTheDisk) {
  add_drive(0, k1440);
  drives[0]->hold();
  send({0xe6, 0, 0, 0, 1, 2, 1, 0x1b, 0xff});
  for (int i = 0; i < 4; ++i) executor->run_once(0);
  out(DSR, kDsrReset);
  EXPECT_EQ(in(MSR), 0);
  settle();
  EXPECT_EQ(in(MSR), kMsrReady);
  EXPECT_TRUE(lines.level(kIrq));
  drives[0]->release();
}

TEST_F(FdcTest, UnknownCommandIsInvalid) { EXPECT_EQ(run({0x1f}), Bytes{kSt0Invalid}); }

TEST_F(FdcTest, IdentifiesItself) {
  EXPECT_EQ(run({kVersion}), Bytes{0x90});
  EXPECT_EQ(run({kPartId}), Bytes{0x41});
}

TEST_F(FdcTest, LockKeepsTheConfiguration) {
  send({kConfigure, 0, 0x17, 5});
  EXPECT_EQ(run({0x94}), Bytes{0x10});
  out(DSR, kDsrReset);
  for (int i = 0; i < 4; ++i) run({kSenseInterrupt});
  EXPECT_EQ(run({kDumpReg})[8], 0x17);
  EXPECT_EQ(run({kLock}), Bytes{0});
  out(DSR, kDsrReset);
  for (int i = 0; i < 4; ++i) run({kSenseInterrupt});
  EXPECT_NE(run({kDumpReg})[8], 0x17);
}

TEST_F(FdcTest, SavedRegistersComeBack) {
  send({kSpecify, 0xaf, 0x02});
  const auto saved = run({kSave});
  ASSERT_EQ(saved.size(), 16u);
  send({kSpecify, 0, 0});
  out(FIFO, kRestore);
  for (const uint8_t byte : saved) out(FIFO, byte);
  EXPECT_EQ(run({kDumpReg})[4], 0xaf);
}

TEST_F(FdcTest, CmosKnowsTheDrives) {
  EXPECT_EQ(fdc.cmos_types(), 0);
  add_drive(0, k1440);
  add_drive(1, 0, false, "120");
  EXPECT_EQ(fdc.cmos_types(), 0x42);
}

TEST_F(FdcTest, StateTravelsInTheMiddleOfATransfer) {
  add_drive(0, k1440);
  put(0, pattern(512));
  send({0xe6, 0, 0, 0, 1, 2, 1, 0x1b, 0xff});
  settle();  // it waits for the DMA controller
  const auto state = saved_state(fdc);
  out(DSR, kDsrReset);
  settle();
  ASSERT_TRUE(restore_state(fdc, state));
  program_dma(kDmaToMemory, 512);
  fdc.start();
  EXPECT_EQ(result()[0], 0);
  EXPECT_EQ(in_memory(512), pattern(512));
}

TEST_F(FdcTest, ImpossibleStateIsRefused) {
  const auto state = saved_state(fdc);
  EXPECT_FALSE(restore_state(fdc, with_patched_field(state, 4, 0, 2, 1)));  // data for the host, and none there
  EXPECT_EQ(saved_state(fdc), state);
}

TEST(FloppyFormats, SizesNameTheirDrives) {
  EXPECT_EQ(find_floppy_format(k1440, FloppyType::kNone)->drive, FloppyType::k144);
  EXPECT_EQ(find_floppy_format(2880 * 1024, FloppyType::kNone)->drive, FloppyType::k288);
  EXPECT_EQ(find_floppy_format(1200 * 1024, FloppyType::kNone)->drive, FloppyType::k120);
  EXPECT_EQ(find_floppy_format(720 * 1024, FloppyType::k144)->sectors, 9);
  EXPECT_EQ(find_floppy_format(360 * 1024, FloppyType::k120)->cylinders, 40);
  EXPECT_FALSE(find_floppy_format(12345, FloppyType::kNone));
}

}  // namespace
}  // namespace kite::devices
