// The PIIX3's IDE function with its disks, driven by port accesses.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>

#include "devices/ata/ata_disk.h"
#include "devices/ata/atapi_cdrom.h"
#include "devices/ata/test_ata.h"
#include "devices/ide/piix_ide.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace ata;

constexpr uint16_t kPorts = 0x1f0, kControl = 0x3f6, kMaster = 0xc000;
constexpr uint32_t kTable = 0x1000, kBuffer = 0x100000;

class IdeTest : public ::testing::Test {
 protected:
  IdeTest() {
    ide.reset();
    EXPECT_TRUE(bus.attach(ide, 1, 1));
    machine.ports.map(0x1f0, ide.command_ports(0));
    machine.ports.map(0x3f6, ide.control_port(0));
    machine.ports.map(0x170, ide.command_ports(1));
    machine.ports.map(0x376, ide.control_port(1));
    ide.config_write(0x20, 4, kMaster);
    ide.config_write(0x04, 2, 5);
  }
  ~IdeTest() override {
    machine.settle();
    for (unsigned channel = 0; channel < 2; ++channel)
      for (auto& device : devices) ide.bus(channel).detach(*device);
    devices.clear();
  }

  AtaDisk& add_disk(unsigned channel = 0, std::vector<std::pair<std::string, std::string>> values = {}) {
    block::Drive& drive = machine.add_drive("hd" + std::to_string(devices.size()), kDiskSectors * 512);
    auto made = machine.attach(ide.bus(channel), "ide-hd", &drive, std::move(values));
    EXPECT_TRUE(made) << made.error().message;
    devices.push_back(std::move(*made));
    return dynamic_cast<AtaDisk&>(*devices.back());
  }
  AtapiCdrom& add_cd(uint64_t sectors) {
    block::Drive& drive = sectors == 0 ? machine.add_empty_drive("cd") : machine.add_drive("cd", sectors * 2048, true);
    auto made = machine.attach(ide.bus(0), "ide-cd", &drive);
    EXPECT_TRUE(made) << made.error().message;
    devices.push_back(std::move(*made));
    return dynamic_cast<AtapiCdrom&>(*devices.back());
  }

  uint32_t in(uint16_t reg, unsigned size = 1) { return machine.ports.in(kPorts + reg, size); }
  void out(uint16_t reg, uint64_t value, unsigned size = 1) { machine.ports.out(kPorts + reg, value, size); }
  uint32_t alternate() { return machine.ports.in(kControl); }
  bool irq(unsigned channel = 0) { return lines.level(channel); }
  uint32_t master(uint16_t reg, unsigned size = 1) { return machine.ports.in(kMaster + reg, size); }
  void set_master(uint16_t reg, uint64_t value, unsigned size = 1) { machine.ports.out(kMaster + reg, value, size); }

  // LBA of 28 bits, to device 0.
  void begin(uint8_t opcode, uint32_t lba = 0, uint8_t count = 0, uint8_t features = 0) {
    out(6, 0xe0 | lba >> 24);
    out(1, features);
    out(2, count);
    for (unsigned i = 0; i < 3; ++i) out(static_cast<uint16_t>(3 + i), lba >> 8 * i);
    out(7, opcode);
  }
  uint32_t run(uint8_t opcode, uint32_t lba = 0, uint8_t count = 0, uint8_t features = 0) {
    begin(opcode, lba, count, features);
    machine.settle();
    return in(7);
  }
  std::vector<uint8_t> read_data(size_t bytes) {
    std::vector<uint8_t> data(bytes);
    for (size_t i = 0; i < bytes; i += 2) store_le(&data[i], 2, in(0, 2));
    return data;
  }
  void write_data(std::span<const uint8_t> data) {
    for (size_t i = 0; i < data.size(); i += 2) out(0, load_le(&data[i], 2), 2);
  }
  uint16_t identify_word(unsigned word, uint8_t opcode = op::kIdentify) {
    run(opcode);
    return load<uint16_t>(read_data(512).data() + 2 * word);
  }
  // One entry a pair of address and size; the last ends the table.
  void write_table(std::vector<std::pair<uint32_t, uint32_t>> entries) {
    for (size_t i = 0; i < entries.size(); ++i) {
      const uint32_t end = i + 1 == entries.size() ? bus_master::kLastEntry : 0;
      EXPECT_TRUE(machine.guest.store(kTable + 8 * i, entries[i].first));
      EXPECT_TRUE(machine.guest.store(kTable + 8 * i + 4, (entries[i].second & 0xffff) | end));
    }
    set_master(0, 0);
    set_master(2, 6);
    set_master(4, kTable, 4);
  }
  uint32_t run_dma(uint8_t opcode, uint32_t lba, uint8_t count) {
    begin(opcode, lba, count);
    set_master(0, bus_master::kStart | bus_master::kToMemory);
    machine.settle();
    return master(2) & 7;
  }
  // A packet to device 0; data-in by programmed I/O. Nothing when the drive refuses.
  std::optional<std::vector<uint8_t>> packet(std::vector<uint8_t> bytes, uint16_t limit = 0xfffe) {
    bytes.resize(12);
    out(6, 0xa0);
    out(1, 0);
    out(4, limit & 0xff);
    out(5, limit >> 8);
    out(7, op::kPacket);
    write_data(bytes);
    machine.settle();
    std::vector<uint8_t> data;
    while ((alternate() & kDrq) != 0) {
      const size_t length = in(4) | in(5) << 8;
      const std::vector<uint8_t> piece = read_data((length + 1) & ~size_t{1});
      data.insert(data.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(length));
      machine.settle();
    }
    if ((in(7) & kErr) != 0) return std::nullopt;
    return data;
  }
  std::pair<int, int> sense() {
    const auto data = packet({0x03, 0, 0, 0, 18});
    return data && data->size() == 18 ? std::pair<int, int>((*data)[2], (*data)[12]) : std::pair<int, int>(-1, -1);
  }
  std::vector<uint8_t> expected(uint64_t first, uint64_t count) { return machine.content(0, first, count); }

  AtaMachine machine;
  FakeLines lines, pins;
  bus::PciBus bus{machine.memory.root(), machine.ports.root(), pins};
  PiixIde ide{"ide", PiixIde::Model::kPiix3, {.memory = machine.guest, .irqs = {lines.line(0), lines.line(1)}}};
  std::vector<std::unique_ptr<bus::Device>> devices;
};

TEST_F(IdeTest, HasItsIdentity) {
  EXPECT_EQ(ide.config_read(0, 4), 0x70108086U);
  EXPECT_EQ(ide.config_read(8, 4), 0x01018000U);
}

TEST_F(IdeTest, AnEmptyChannelReadsZeroAndIgnoresCommands) {
  run(op::kIdentify);
  EXPECT_EQ(in(7), 0U);
  EXPECT_EQ(in(2), 0U);
  EXPECT_FALSE(irq());
}

TEST_F(IdeTest, DecodingCanBeSwitchedOff) {
  add_disk();
  ide.config_write(0x40, 2, 0);
  EXPECT_EQ(in(7), 0xffU);
  ide.config_write(0x40, 2, 0x8000);
  EXPECT_EQ(in(7), 0x50U);
}

TEST_F(IdeTest, AResetDiskShowsItsSignature) {
  add_disk();
  machine.ports.out(kControl, kSrst);
  EXPECT_EQ(in(7), 0x80U);
  machine.ports.out(kControl, 0);
  EXPECT_EQ(in(7), 0x50U);
  EXPECT_EQ(in(1), 1U);
  EXPECT_EQ(in(2), 1U);
  EXPECT_EQ(in(3), 1U);
  EXPECT_EQ(in(4), 0U);
  EXPECT_EQ(in(5), 0U);
  EXPECT_FALSE(irq());
}

TEST_F(IdeTest, IdentifyTellsTheDisk) {
  add_disk(0, {{"serial", "abc"}, {"ver", "v1"}});
  begin(op::kIdentify);
  EXPECT_TRUE(irq());
  EXPECT_EQ(in(7), 0x58U);
  EXPECT_FALSE(irq());
  const auto data = read_data(512);
  EXPECT_EQ(in(7), 0x50U);
  EXPECT_EQ(load<uint16_t>(&data[2]), 65U);
  EXPECT_EQ(data[20], 'b');
  EXPECT_EQ(data[21], 'a');
  EXPECT_EQ(load<uint32_t>(&data[120]), kDiskSectors);
  EXPECT_EQ(load<uint64_t>(&data[200]), kDiskSectors);
  EXPECT_EQ(std::accumulate(data.begin(), data.end(), 0u) & 0xff, 0U);
}

TEST_F(IdeTest, DeviceOneAnswersForItself) {
  add_disk();
  add_disk();
  machine.fill(1, 0, 1);
  out(6, 0xf0);
  out(2, 1);
  out(3, 0);
  out(7, op::kReadSectors);
  machine.settle();
  EXPECT_EQ(read_data(512), machine.content(1, 0, 1));
}

TEST_F(IdeTest, AnAbsentDeviceOneHasNoStatus) {
  add_disk();
  out(6, 0xf0);
  EXPECT_EQ(in(7), 0U);
  out(7, op::kIdentify);
  EXPECT_FALSE(irq());
}

TEST_F(IdeTest, ReadsSectorsOneInterruptEach) {
  add_disk();
  machine.fill(0, 10, 3);
  begin(op::kReadSectors, 10, 3);
  EXPECT_EQ(alternate() & (kBsy | kDrq), kBsy);
  machine.settle();
  for (unsigned i = 0; i < 3; ++i) {
    EXPECT_TRUE(irq()) << i;
    EXPECT_EQ(in(7), 0x58U);
    EXPECT_EQ(read_data(512), expected(10 + i, 1));
  }
  EXPECT_FALSE(irq());
  EXPECT_EQ(in(7), 0x50U);
}

TEST_F(IdeTest, ReadsMoreThanTheBufferHolds) {
  add_disk();
  machine.fill(0, 0, 256);
  begin(op::kReadSectors, 0, 0);
  std::vector<uint8_t> all;
  for (unsigned i = 0; i < 256; ++i) {
    machine.settle();
    const auto sector = read_data(512);
    all.insert(all.end(), sector.begin(), sector.end());
  }
  EXPECT_EQ(all, expected(0, 256));
  EXPECT_EQ(in(7), 0x50U);
}

TEST_F(IdeTest, SeveralWordsAtOnceMoveAsOneByOne) {
  add_disk();
  machine.fill(0, 10, 2);
  std::vector<uint8_t> data(1024);
  AddressSpace& ports = machine.ports.space();
  begin(op::kReadSectors, 10, 2);
  EXPECT_EQ(ports.read_many(kPorts, 2, data), 0U) << "not yet";
  machine.settle();
  EXPECT_EQ(ports.read_many(kPorts + 7, 1, data), 0U) << "only the data register";
  EXPECT_EQ(ports.read_many(kPorts, 4, std::span(data).first(511)), 508U) << "whole accesses";
  EXPECT_EQ(ports.read_many(kPorts, 2, std::span(data).subspan(508)), 4U) << "to the end of the block";
  EXPECT_EQ(in(7), 0x58U);
  EXPECT_EQ(ports.read_many(kPorts, 2, std::span(data).subspan(512)), 512U);
  EXPECT_EQ(data, expected(10, 2));

  begin(op::kWriteSectors, 20, 2);
  EXPECT_EQ(ports.write_many(kPorts, 2, data), 512U);
  EXPECT_TRUE(irq());
  EXPECT_EQ(in(7), 0x58U);
  EXPECT_EQ(ports.write_many(kPorts, 4, std::span(data).subspan(512)), 512U);
  machine.settle();
  EXPECT_EQ(in(7), 0x50U);
  EXPECT_EQ(machine.content(0, 20, 2), data);
}

TEST_F(IdeTest, MultipleModeMovesBlocks) {
  add_disk();
  machine.fill(0, 0, 5);
  EXPECT_NE(run(op::kReadMultiple, 0, 5) & kErr, 0U);  // not before it is set
  EXPECT_EQ(run(op::kSetMultiple, 0, 4), 0x50U);
  begin(op::kReadMultiple, 0, 5);
  machine.settle();
  EXPECT_TRUE(irq());
  in(7);
  EXPECT_EQ(read_data(4 * 512), expected(0, 4));
  EXPECT_TRUE(irq());
  in(7);
  EXPECT_EQ(read_data(512), expected(4, 1));
  EXPECT_FALSE(irq());
  EXPECT_NE(run(op::kSetMultiple, 0, 3) & kErr, 0U);
}

TEST_F(IdeTest, WritesSectors) {
  add_disk();
  std::vector<uint8_t> data(1024);
  for (size_t i = 0; i < data.size(); ++i) data[i] = AtaMachine::pattern(7, i);
  begin(op::kWriteSectors, 7, 2);
  EXPECT_FALSE(irq());  // [ATA8-ACS] 11.6: not before the first block
  EXPECT_EQ(in(7), 0x58U);
  write_data(std::span(data).first(512));
  EXPECT_TRUE(irq());
  EXPECT_EQ(in(7), 0x58U);
  write_data(std::span(data).subspan(512));
  EXPECT_EQ(alternate() & kBsy, kBsy);
  machine.settle();
  EXPECT_TRUE(irq());
  EXPECT_EQ(in(7), 0x50U);
  EXPECT_EQ(machine.content(0, 7, 2), data);
}

TEST_F(IdeTest, TakesCylinderHeadSectorAddresses) {
  add_disk();
  machine.fill(0, 0, 2048);
  out(2, 1);
  out(3, 5);  // sector 5
  out(4, 1);  // cylinder 1
  out(5, 0);
  out(6, 0xa2);  // head 2
  out(7, op::kReadSectors);
  machine.settle();
  EXPECT_EQ(read_data(512), expected((16 + 2) * 63 + 4, 1));
}

TEST_F(IdeTest, InitializeParametersChangesTheTranslation) {
  add_disk();
  machine.fill(0, 0, 200);
  out(2, 17);
  out(6, 0xa3);  // four heads of 17 sectors
  out(7, op::kInitializeParameters);
  EXPECT_EQ(in(7), 0x50U);
  out(2, 1);
  out(3, 17);
  out(4, 2);
  out(5, 0);
  out(6, 0xa3);
  out(7, op::kReadSectors);
  machine.settle();
  EXPECT_EQ(in(7) & kErr, 0U) << in(1);
  EXPECT_EQ(read_data(512), expected((2 * 4 + 3) * 17 + 16, 1));
  out(3, 18);
  out(7, op::kReadSectors);
  EXPECT_EQ(in(7) & kErr, kErr);
  EXPECT_EQ(in(1), kIdnf);
}

TEST_F(IdeTest, ExtendedCommandsUseThePreviousContents) {
  add_disk();
  machine.fill(0, 0x301, 1);
  out(6, 0xe0);
  for (const auto& [reg, high, low] : {std::tuple<uint16_t, int, int>{2, 0, 1}, {3, 0, 1}, {4, 0, 3}, {5, 0, 0}}) {
    out(reg, static_cast<uint64_t>(high));
    out(reg, static_cast<uint64_t>(low));
  }
  out(7, op::kReadSectorsExt);
  machine.settle();
  EXPECT_EQ(read_data(512), expected(0x301, 1));
  out(3, 0x11);
  out(3, 0x22);
  machine.ports.out(kControl, kHob);
  EXPECT_EQ(in(3), 0x11U);
  out(2, 0);  // a write shows the present contents again
  EXPECT_EQ(in(3), 0x22U);
}

TEST_F(IdeTest, ReadNativeMaxTellsTheLastSector) {
  add_disk();
  EXPECT_EQ(run(op::kReadNativeMaxExt), 0x50U);
  EXPECT_EQ(in(3) | in(4) << 8 | in(5) << 16, kDiskSectors - 1);
  EXPECT_EQ(run(op::kReadNativeMax), 0x50U);
  EXPECT_EQ(in(3) | in(4) << 8 | in(5) << 16 | (in(6) & 0xf) << 24, kDiskSectors - 1);
}

TEST_F(IdeTest, AddressesBeyondTheEndAreNotFound) {
  add_disk();
  EXPECT_EQ(run(op::kReadSectors, kDiskSectors - 1, 2), 0x51U);
  EXPECT_EQ(in(1), kIdnf);
  EXPECT_EQ(run(op::kWriteDma, kDiskSectors, 1), 0x51U);
  EXPECT_EQ(run(op::kVerify, kDiskSectors - 1, 1), 0x50U);
  EXPECT_EQ(run(op::kSeek, kDiskSectors), 0x51U);
}

TEST_F(IdeTest, UnknownCommandsAreAborted) {
  add_disk();
  for (const unsigned opcode : {0x00U, 0x60U, 0x80U, 0x92U, 0xa0U, 0xa1U, 0xf5U, 0xffU}) {
    EXPECT_EQ(run(static_cast<uint8_t>(opcode)), 0x51U) << opcode;
    EXPECT_EQ(in(1), kAbrt);
  }
}

TEST_F(IdeTest, MediaErrorsTellWhere) {
  add_disk();
  machine.nodes[0]->fail_with = EIO;
  EXPECT_EQ(run(op::kReadSectors, 0x55, 1), 0x51U);
  EXPECT_EQ(in(1), kUnc);
  EXPECT_EQ(in(3), 0x55U);
  begin(op::kWriteSectors, 0x66, 1);
  write_data(std::vector<uint8_t>(512));
  machine.settle();
  EXPECT_EQ(in(7), 0x51U);
  EXPECT_EQ(in(1), kAbrt);
  EXPECT_EQ(run(op::kFlushCache), 0x51U);
  machine.nodes[0]->fail_with = 0;
}

TEST_F(IdeTest, FlushesAndSwitchesTheCache) {
  add_disk();
  EXPECT_EQ(identify_word(85) & 0x20, 0x20);
  EXPECT_EQ(run(op::kFlushCache), 0x50U);
  EXPECT_EQ(machine.nodes[0]->flushes, 1);
  EXPECT_EQ(run(op::kSetFeatures, 0, 0, feature::kDisableWriteCache), 0x50U);
  EXPECT_FALSE(machine.drives[0]->write_cache());
  EXPECT_EQ(identify_word(85) & 0x20, 0);
  EXPECT_EQ(run(op::kSetFeatures, 0, 0, feature::kEnableWriteCache), 0x50U);
  EXPECT_TRUE(machine.drives[0]->write_cache());
  EXPECT_EQ(run(op::kSetFeatures, 0, 0, 0x77), 0x51U);
}

TEST_F(IdeTest, TransferModesAreRemembered) {
  add_disk();
  EXPECT_EQ(run(op::kSetFeatures, 0, 0x22, feature::kTransferMode), 0x50U);  // multiword DMA 2
  EXPECT_EQ(identify_word(63), 0x0407);
  EXPECT_EQ(identify_word(88), 0x003f);
  EXPECT_EQ(run(op::kSetFeatures, 0, 0x47, feature::kTransferMode), 0x51U);
}

TEST_F(IdeTest, PowerModes) {
  add_disk();
  run(op::kCheckPower);
  EXPECT_EQ(in(2), 0xffU);
  run(op::kStandbyImmediate);
  run(op::kCheckPower);
  EXPECT_EQ(in(2), 0U);
  run(op::kVerify, 0, 1);
  run(op::kCheckPower);
  EXPECT_EQ(in(2), 0xffU);
}

TEST_F(IdeTest, SmartBasics) {
  add_disk();
  constexpr uint32_t kKey = 0xc24f00;
  EXPECT_EQ(run(op::kSmart, 0, 0, smart::kReturnStatus), 0x51U);  // without the key
  EXPECT_EQ(run(op::kSmart, kKey, 0, smart::kReturnStatus), 0x50U);
  EXPECT_EQ(in(4) | in(5) << 8, smart::kKey);
  EXPECT_EQ(run(op::kSmart, kKey, 0, smart::kReadData), 0x58U);
  auto data = read_data(512);
  EXPECT_EQ(std::accumulate(data.begin(), data.end(), 0u) & 0xff, 0U);
  EXPECT_EQ(run(op::kSmart, kKey | 1, 0, smart::kExecuteOffline), 0x50U);
  EXPECT_EQ(run(op::kSmart, kKey | log_page::kSelfTest, 1, smart::kReadLog), 0x58U);
  data = read_data(512);
  EXPECT_EQ(data[2], 1);
  EXPECT_EQ(data[508], 1);
  EXPECT_EQ(run(op::kSmart, kKey, 0, smart::kDisable), 0x50U);
  EXPECT_EQ(run(op::kSmart, kKey, 0, smart::kReadData), 0x51U);
  EXPECT_EQ(run(op::kSmart, kKey, 0, smart::kEnable), 0x50U);
}

TEST_F(IdeTest, DiagnosticSelectsDeviceZero) {
  add_disk();
  add_disk();
  out(6, 0xf0);
  out(7, op::kDiagnostic);
  EXPECT_EQ(in(6) & kDev, 0U);
  EXPECT_EQ(in(1), 1U);
  EXPECT_TRUE(irq());
}

TEST_F(IdeTest, NienHoldsTheInterruptBack) {
  add_disk();
  machine.ports.out(kControl, kNien);
  run(op::kRecalibrate);
  out(7, op::kRecalibrate);
  EXPECT_FALSE(irq());
  machine.ports.out(kControl, 0);
  EXPECT_TRUE(irq());
  alternate();
  EXPECT_TRUE(irq());
  in(7);
  EXPECT_FALSE(irq());
}

TEST_F(IdeTest, TheSecondChannelHasItsOwnInterrupt) {
  add_disk(1);
  machine.ports.out(0x176, 0xe0);
  machine.ports.out(0x177, op::kRecalibrate);
  EXPECT_TRUE(irq(1));
  EXPECT_FALSE(irq(0));
}

// --- bus master

TEST_F(IdeTest, DmaReadsIntoScatteredMemory) {
  add_disk();
  machine.fill(0, 100, 4);
  write_table({{kBuffer, 512}, {kBuffer + 0x1000, 1024}, {kBuffer + 0x8000, 512}});
  EXPECT_EQ(run_dma(op::kReadDma, 100, 4), bus_master::kInterrupt);
  EXPECT_TRUE(irq());
  EXPECT_EQ(in(7), 0x50U);
  const auto data = expected(100, 4);
  EXPECT_EQ(std::memcmp(machine.ram->host() + kBuffer, &data[0], 512), 0);
  EXPECT_EQ(std::memcmp(machine.ram->host() + kBuffer + 0x1000, &data[512], 1024), 0);
  EXPECT_EQ(std::memcmp(machine.ram->host() + kBuffer + 0x8000, &data[1536], 512), 0);
}

TEST_F(IdeTest, DmaWrites) {
  add_disk();
  for (size_t i = 0; i < 1024; ++i) machine.ram->host()[kBuffer + i] = AtaMachine::pattern(3, i);
  write_table({{kBuffer, 1024}});
  set_master(0, bus_master::kStart);  // started before the command comes
  EXPECT_EQ(master(2) & 7, bus_master::kActive);
  begin(op::kWriteDma, 3, 2);
  machine.settle();
  EXPECT_EQ(master(2) & 7, bus_master::kInterrupt);
  EXPECT_EQ(std::memcmp(machine.content(0, 3, 2).data(), machine.ram->host() + kBuffer, 1024), 0);
}

TEST_F(IdeTest, ALengthOfZeroIs64KiB) {
  add_disk();
  machine.fill(0, 0, 128);
  write_table({{kBuffer, 0}});
  EXPECT_EQ(run_dma(op::kReadDma, 0, 128), bus_master::kInterrupt);
  EXPECT_EQ(std::memcmp(expected(0, 128).data(), machine.ram->host() + kBuffer, 0x10000), 0);
}

TEST_F(IdeTest, ATableThatIsTooLongStaysActive) {
  add_disk();
  write_table({{kBuffer, 1024}});
  EXPECT_EQ(run_dma(op::kReadDma, 0, 1), bus_master::kInterrupt | bus_master::kActive);
  set_master(0, 0);
  EXPECT_EQ(master(2) & 7, bus_master::kInterrupt);
}

TEST_F(IdeTest, ATableThatIsTooShortEndsWithoutInterrupt) {
  add_disk();
  machine.fill(0, 0, 1);
  write_table({{kBuffer, 256}});
  EXPECT_EQ(run_dma(op::kReadDma, 0, 1), 0U);
  EXPECT_EQ(in(7) & (kBsy | kDrq | kErr), 0U);
  EXPECT_EQ(std::memcmp(expected(0, 1).data(), machine.ram->host() + kBuffer, 256), 0);
}

TEST_F(IdeTest, MemoryThatIsNoneIsAnError) {
  add_disk();
  write_table({{0xf0000000, 512}});
  EXPECT_EQ(run_dma(op::kReadDma, 0, 1), bus_master::kInterrupt | bus_master::kError);
  EXPECT_EQ(in(7), 0x51U);
  set_master(4, 0xf0000000, 4);
  set_master(0, 0);
  set_master(2, 6);
  EXPECT_EQ(run_dma(op::kReadDma, 0, 1), bus_master::kInterrupt | bus_master::kError);
}

TEST_F(IdeTest, StoppingWaitsForWhatIsUnderWay) {
  add_disk();
  write_table({{kBuffer, 512}});
  begin(op::kReadDma, 0, 1);
  set_master(0, 9);
  set_master(0, 0);
  EXPECT_EQ(master(2) & 1, bus_master::kActive);
  machine.settle();
  EXPECT_EQ(master(2) & 7, bus_master::kInterrupt);
}

TEST_F(IdeTest, AResetDuringARequestIsBusyUntilItsEnd) {
  add_disk();
  begin(op::kReadSectors, 0, 1);
  machine.ports.out(kControl, kSrst);
  machine.ports.out(kControl, 0);
  EXPECT_EQ(alternate(), kBsy);
  machine.settle();
  EXPECT_EQ(alternate(), 0x50U);
  EXPECT_FALSE(irq());
  EXPECT_EQ(in(1), 1U);
}

TEST_F(IdeTest, TrimDiscardsGoodRangesOnly) {
  add_disk();
  machine.fill(0, 0, 32);
  store(machine.ram->host() + kBuffer, uint64_t{8} << 48 | 4);
  std::memset(machine.ram->host() + kBuffer + 8, 0, 504);
  write_table({{kBuffer, 512}});
  begin(op::kDataSetManagement, 0, 1, 1);
  set_master(0, 1);
  machine.settle();
  EXPECT_EQ(in(7), 0x50U);
  EXPECT_EQ(machine.content(0, 4, 8), std::vector<uint8_t>(8 * 512));
  store(machine.ram->host() + kBuffer, uint64_t{8} << 48 | (kDiskSectors - 4));
  set_master(0, 0);
  begin(op::kDataSetManagement, 0, 1, 1);
  set_master(0, 1);
  machine.settle();
  EXPECT_EQ(in(7), 0x51U);
  EXPECT_EQ(machine.nodes[0]->discards, 1);
}

// --- what cannot be attached

TEST_F(IdeTest, RefusesWhatCannotBe) {
  block::Drive& drive = machine.add_drive("a", 1 << 20);
  block::Drive& fixed = machine.add_drive("b", 1 << 20, true);
  EXPECT_FALSE(machine.attach(ide.bus(0), "ide-hd", nullptr));
  EXPECT_FALSE(machine.attach(ide.bus(0), "ide-hd", &fixed));
  EXPECT_FALSE(machine.attach(ide.bus(0), "ide-hd", &drive, {{"unit", "2"}}));
  EXPECT_FALSE(machine.attach(ide.bus(0), "ide-hd", &drive, {{"serial", "123456789012345678901"}}));
  EXPECT_FALSE(machine.attach(ide.bus(0), "ide-hd", &drive, {{"logical_block_size", "4096"}}));
  add_disk();
  EXPECT_FALSE(machine.attach(ide.bus(0), "ide-hd", &drive, {{"unit", "0"}}));
  EXPECT_TRUE(ide.bus(0).has_room());
  EXPECT_EQ(ide.bus(0).boot_path(*devices[0]), "drive@0/disk@0");
}

// --- CD-ROM

TEST_F(IdeTest, ACdRefusesDiskCommandsWithItsSignature) {
  add_cd(16);
  EXPECT_EQ(run(op::kIdentify) & kErr, kErr);
  EXPECT_EQ(in(4), 0x14U);
  EXPECT_EQ(in(5), 0xebU);
  EXPECT_EQ(identify_word(0, op::kIdentifyPacket), 0x85c0);
}

TEST_F(IdeTest, ReadsADiscInPieces) {
  add_cd(16);
  machine.fill(0, 0, 64);
  const auto data = packet({0x28, 0, 0, 0, 0, 2, 0, 0, 3}, 1500);
  ASSERT_TRUE(data);
  EXPECT_EQ(*data, expected(8, 12));
  EXPECT_FALSE(packet({0x28, 0, 0, 0, 0, 15, 0, 0, 2}));
  EXPECT_EQ(sense(), std::pair(5, 0x21));
}

TEST_F(IdeTest, ReadsADiscByDma) {
  add_cd(16);
  machine.fill(0, 0, 64);
  write_table({{kBuffer, 4096}});
  out(6, 0xa0);
  out(1, 1);
  out(7, op::kPacket);
  write_data(std::vector<uint8_t>{0x28, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0});
  set_master(0, 9);
  machine.settle();
  EXPECT_EQ(master(2) & 7, bus_master::kInterrupt);
  EXPECT_EQ(in(2) & 3, 3U);
  EXPECT_EQ(std::memcmp(expected(4, 8).data(), machine.ram->host() + kBuffer, 4096), 0);
}

TEST_F(IdeTest, ReadsRawSectors) {
  add_cd(64);
  machine.fill(0, 0, 256);
  const auto data = packet({0xbe, 0, 0, 0, 0, 1, 0, 0, 40, 0xf8});
  ASSERT_TRUE(data);
  ASSERT_EQ(data->size(), 40U * 2352);
  EXPECT_EQ(std::memcmp(&(*data)[39 * 2352 + 16], machine.content(0, 160, 4).data(), 2048), 0);
}

TEST_F(IdeTest, PacketsThatAreAlwaysAnswered) {
  add_cd(0);
  EXPECT_EQ(packet({0x12, 0, 0, 0, 36})->size(), 36U);
  EXPECT_EQ(packet({0x46, 0, 0, 0, 0, 0, 0, 2, 0})->at(7), 0U);
  EXPECT_FALSE(packet({0x00}));
  EXPECT_EQ(sense(), std::pair(2, 0x3a));
  EXPECT_FALSE(packet({0xff}));
  EXPECT_EQ(sense(), std::pair(5, 0x20));
}

TEST_F(IdeTest, MoreThanNothingNeedsRoom) {
  add_cd(16);
  EXPECT_FALSE(packet({0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 0));
  EXPECT_TRUE(packet({0x28, 0, 0, 0, 0, 0, 0, 0, 0}, 0));
}

TEST_F(IdeTest, TheTrayMovesAndTheMediumChangeIsNoticed) {
  AtapiCdrom& cd = add_cd(16);
  std::vector<bool> moves;
  cd.set_tray_hook([&moves](bool open) { moves.push_back(open); });
  EXPECT_TRUE(packet({0x00}));
  EXPECT_TRUE(packet({0x1e, 0, 0, 0, 1}));  // locked
  EXPECT_TRUE(cd.locked());
  EXPECT_FALSE(packet({0x1b, 0, 0, 0, 2}));
  EXPECT_EQ(sense(), std::pair(5, 0x53));
  cd.request_eject();
  EXPECT_EQ(packet({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8})->at(4) & 0xf, 1U);
  EXPECT_TRUE(packet({0x1e}));
  EXPECT_TRUE(packet({0x1b, 0, 0, 0, 2}));
  EXPECT_TRUE(cd.tray_open());
  EXPECT_FALSE(packet({0x00}));
  EXPECT_TRUE(packet({0x1b, 0, 0, 0, 3}));
  EXPECT_EQ(moves, (std::vector<bool>{true, false}));
  EXPECT_FALSE(packet({0x00}));
  EXPECT_EQ(sense(), std::pair(2, 0x3a));
  EXPECT_FALSE(packet({0x00}));
  EXPECT_EQ(sense(), std::pair(6, 0x28));
  EXPECT_TRUE(packet({0x00}));
}

TEST_F(IdeTest, ModeSelectTakesWhatIsSoAlready) {
  add_cd(16);
  const auto page = packet({0x5a, 0, 0x01, 0, 0, 0, 0, 0, 255});
  ASSERT_TRUE(page);
  const auto send = [&](std::vector<uint8_t> list) {
    std::vector<uint8_t> command{0x55, 0x10, 0, 0, 0, 0, 0, 0, static_cast<uint8_t>(list.size()), 0, 0, 0};
    out(1, 0);
    out(4, 0xfe);
    out(5, 0xff);
    out(7, op::kPacket);
    write_data(command);
    write_data(list);
    return in(7);
  };
  EXPECT_EQ(send(*page) & kErr, 0U);
  auto changed = *page;
  changed.back() ^= 1;
  EXPECT_EQ(send(changed) & kErr, kErr);
  EXPECT_EQ(sense(), std::pair(5, 0x26));
}

// --- state

TEST_F(IdeTest, StateTravelsInTheMiddleOfATransfer) {
  add_disk();
  machine.fill(0, 0, 4);
  begin(op::kReadSectors, 0, 3);
  machine.settle();
  read_data(700);
  const auto controller = saved_state(ide), disk = saved_state(*devices[0]);
  read_data(600);
  ASSERT_TRUE(restore_state(ide, controller));
  ASSERT_TRUE(restore_state(*devices[0], disk));
  ide.start();
  devices[0]->start();
  EXPECT_EQ(saved_state(*devices[0]), disk);
  auto rest = read_data(1536 - 700);
  const auto all = expected(0, 3);
  EXPECT_TRUE(std::equal(rest.begin(), rest.end(), all.begin() + 700));
  EXPECT_EQ(in(7), 0x50U);
}

TEST_F(IdeTest, ARequestUnderWayIsMadeAgainAfterRestore) {
  add_disk();
  machine.fill(0, 20, 1);
  write_table({{kBuffer, 512}});
  machine.drives[0]->hold();
  begin(op::kReadDma, 20, 1);
  set_master(0, 9);
  machine.settle();
  const auto controller = saved_state(ide), disk = saved_state(*devices[0]);
  machine.drives[0]->cancel();
  machine.settle();
  ASSERT_TRUE(restore_state(ide, controller));
  ASSERT_TRUE(restore_state(*devices[0], disk));
  machine.drives[0]->release();
  ide.start();
  devices[0]->start();
  machine.settle();
  EXPECT_EQ(master(2) & 7, bus_master::kInterrupt);
  EXPECT_EQ(std::memcmp(expected(20, 1).data(), machine.ram->host() + kBuffer, 512), 0);
}

TEST_F(IdeTest, RefusesStateThatReachesBeyondTheBuffer) {
  add_disk();
  const auto state = saved_state(*devices[0]);
  EXPECT_FALSE(restore_state(*devices[0], with_patched_field(state, 4, 8, 0x20000, 4)));
  EXPECT_FALSE(restore_state(*devices[0], with_patched_field(state, 2, 3, 9, 1)));
  EXPECT_EQ(saved_state(*devices[0]), state);
}

// Random accesses to every register, random tables; states on the way are taken back.
TEST_F(IdeTest, SurvivesAStorm) {
  add_disk();
  add_cd(64);
  std::mt19937_64 random(1);
  constexpr uint8_t kLikely[] = {0x20, 0x30, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0x25, 0x35, 0x06, 0xec, 0xa0,
                                 0xa1, 0xb0, 0xe7, 0xef, 0x08, 0x90, 0x91, 0x40, 0x2f, 0xe4, 0xe8, 0x24};
  const auto below = [&random](uint64_t limit) { return random() % limit; };
  for (int step = 0; step < 40'000; ++step) {
    const uint64_t kind = below(100), value = below(4) == 0 ? random() : below(256);
    const unsigned size = 1u << below(3);
    if (kind < 40) {
      out(static_cast<uint16_t>(below(7)), value, size);
    } else if (kind < 50) {
      out(7, below(3) == 0 ? value & 0xff : kLikely[below(std::size(kLikely))]);
    } else if (kind < 70) {
      in(static_cast<uint16_t>(below(8)), size);
    } else if (kind < 73) {
      machine.ports.out(kControl, value & (below(4) == 0 ? 0xffU : 0x82U));
    } else if (kind < 88) {
      const uint64_t reg = below(16);
      machine.ports.out(kMaster + reg, reg == 4 ? kTable + below(4096) : value, size);
    } else if (kind < 92) {
      const uint64_t entry = below(AtaMachine::kRamSize + 0x1000) | (value & 0xffff) << 32 | below(2) << 63;
      EXPECT_TRUE(machine.guest.store(kTable + 8 * below(512), entry));
    } else if (kind < 98) {
      machine.executor->run_once(0);
    } else if (kind == 98) {
      machine.settle();
    } else if (below(20) == 0) {
      machine.settle();
      for (bus::Device* device : {static_cast<bus::Device*>(&ide), devices[0].get(), devices[1].get()}) {
        const auto state = saved_state(*device);
        EXPECT_TRUE(restore_state(*device, state));
        EXPECT_EQ(saved_state(*device), state);
      }
      ide.start();
    }
  }
  for (auto& device : devices) device->reset();
  ide.reset();
}

}  // namespace
}  // namespace kite::devices
