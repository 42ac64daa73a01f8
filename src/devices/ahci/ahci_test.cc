// The AHCI adapter with its disks, driven by its registers and lists in memory.
#include "devices/ahci/ahci.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "devices/ata/ata_disk.h"
#include "devices/ata/atapi_cdrom.h"
#include "devices/ata/test_ata.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace ahci;
using namespace ata;

constexpr uint32_t kAbar = 0xfeb00000, kPair = 0xc000;
constexpr uint32_t kList = 0x10000, kFises = 0x11000, kTables = 0x20000, kBuffer = 0x100000;

class AhciTest : public ::testing::Test {
 protected:
  AhciTest() {
    hba.reset();
    EXPECT_TRUE(bus.attach(hba, 31, 2));
    hba.config_write(0x20, 4, kPair);
    hba.config_write(0x24, 4, kAbar);
    hba.config_write(0x04, 2, 7);
  }
  ~AhciTest() override {
    machine.settle();
    for (unsigned port = 0; port < kPorts; ++port)
      for (auto& device : devices) hba.bus(port).detach(*device);
    devices.clear();
  }
  void add_disk(unsigned port = 0) {
    block::Drive& drive = machine.add_drive("hd" + std::to_string(devices.size()), kDiskSectors * 512);
    auto made = machine.attach(hba.bus(port), "ide-hd", &drive);
    EXPECT_TRUE(made) << made.error().message;
    devices.push_back(std::move(*made));
  }
  void add_cd(uint64_t sectors) {
    auto made = machine.attach(hba.bus(0), "ide-cd", &machine.add_drive("cd", sectors * 2048, true));
    EXPECT_TRUE(made) << made.error().message;
    devices.push_back(std::move(*made));
  }
  uint32_t in(uint32_t reg) { return machine.memory.in(kAbar + reg, 4); }
  void out(uint32_t reg, uint32_t value) { machine.memory.out(kAbar + reg, value, 4); }
  uint32_t port_in(uint32_t reg) { return in(kPortBase + reg); }
  void port_out(uint32_t reg, uint32_t value) { out(kPortBase + reg, value); }
  bool irq() { return pins.level(bus::PciBus::pirq_of(31, 1)); }

  void start() {
    out(kGhc, kGhcAe | kGhcIe);
    port_out(kPxClb, kList);
    port_out(kPxFb, kFises);
    port_out(kPxIe, 0xffffffff);
    port_out(kPxCmd, kFre);
    port_out(kPxIs, 0xffffffff);
    out(kIs, 1);
    port_out(kPxCmd, kFre | kSt);
  }
  struct Command {
    uint8_t opcode = 0;
    uint64_t lba = 0;
    uint16_t count = 0;
    uint16_t features = 0;
    uint8_t device = 0x40;
    std::vector<std::pair<uint64_t, uint32_t>> memory;  // PRDT
    std::vector<uint8_t> packet = {};
  };
  void put(unsigned slot, const Command& command) {
    std::array<uint8_t, 32> header{};
    store(header.data(), static_cast<uint16_t>(5));
    store(&header[2], static_cast<uint16_t>(command.memory.size()));
    store(&header[8], uint64_t{kTables + slot * 0x1000});
    EXPECT_TRUE(machine.guest.write(kList + slot * kHeaderBytes, header));
    std::array<uint8_t, 20> fis{};
    fis[0] = kFisH2d;
    fis[1] = kFisCommand;
    fis[2] = command.opcode;
    fis[3] = static_cast<uint8_t>(command.features);
    fis[11] = static_cast<uint8_t>(command.features >> 8);
    for (unsigned i = 0; i < 3; ++i) {
      fis[4 + i] = static_cast<uint8_t>(command.lba >> 8 * i);
      fis[8 + i] = static_cast<uint8_t>(command.lba >> 8 * (i + 3));
    }
    fis[7] = command.device;
    store(&fis[12], command.count);
    const uint64_t table = kTables + slot * 0x1000;
    EXPECT_TRUE(machine.guest.write(table, fis));
    if (!command.packet.empty()) EXPECT_TRUE(machine.guest.write(table + kTableAcmd, command.packet));
    for (size_t i = 0; i < command.memory.size(); ++i) {
      EXPECT_TRUE(machine.guest.store(table + kTablePrdt + 16 * i, command.memory[i].first));
      EXPECT_TRUE(machine.guest.store(table + kTablePrdt + 16 * i + 12, command.memory[i].second - 1));
    }
  }
  // Answers PxIS.
  uint32_t run(const Command& command, unsigned slot = 0) {
    put(slot, command);
    port_out(kPxIs, 0xffffffff);
    port_out(kPxCi, 1u << slot);
    machine.settle();
    return port_in(kPxIs);
  }
  void queue(unsigned tag, Command command) {
    command.features = command.count;
    command.count = static_cast<uint16_t>(tag << 3);
    put(tag, command);
    port_out(kPxSact, 1u << tag);
    port_out(kPxCi, 1u << tag);
  }
  void control(uint8_t value) {
    put(0, {.memory = {}});
    std::array<uint8_t, 20> fis{};
    fis[0] = kFisH2d;
    fis[15] = value;
    EXPECT_TRUE(machine.guest.write(kTables, fis));
    port_out(kPxCi, 1);
  }
  uint8_t* ram(uint64_t address) { return machine.ram->host() + address; }
  uint32_t moved(unsigned slot = 0) { return load<uint32_t>(ram(kList + slot * kHeaderBytes + 4)); }
  bool holds(uint64_t address, uint64_t sector, uint64_t count) {
    const auto data = machine.content(0, sector, count);
    return std::memcmp(ram(address), data.data(), data.size()) == 0;
  }

  AtaMachine machine;
  FakeLines pins;
  bus::PciBus bus{machine.memory.root(), machine.ports.root(), pins};
  Ahci hba{"ahci", {.memory = machine.guest}};
  std::vector<std::unique_ptr<bus::Device>> devices;
};

TEST_F(AhciTest, HasItsIdentityAndCapabilities) {
  EXPECT_EQ(hba.config_read(0, 4), 0x29228086U);
  EXPECT_EQ(in(kCap), kCapValue);
  EXPECT_EQ(in(kPi), 0x3fU);
  EXPECT_EQ(in(kVs), kVersion);
}

TEST_F(AhciTest, TheIndexPairReachesTheSameRegisters) {
  machine.ports.out(kPair + kPairIndex, kPi, 4);
  EXPECT_EQ(machine.ports.in(kPair + kPairData, 4), 0x3fU);
  machine.ports.out(kPair + kPairIndex, uint32_t{kPortBase} + kPxClb, 4);
  machine.ports.out(kPair + kPairData, 0x12345678, 4);
  EXPECT_EQ(port_in(kPxClb), 0x12345400U);
}

TEST_F(AhciTest, APortWithoutADeviceIsSilent) {
  start();
  EXPECT_EQ(port_in(kPxSsts), 0U);
  EXPECT_EQ(port_in(kPxTfd), kTfdReset);
  port_out(kPxCi, 1);
  EXPECT_EQ(port_in(kPxIs), 0U);
}

TEST_F(AhciTest, TheSignatureComesWhenItCanBeReceived) {
  add_disk();
  EXPECT_EQ(port_in(kPxTfd), kTfdReset);
  EXPECT_EQ(port_in(kPxSsts), kLinkUp);
  start();
  EXPECT_EQ(port_in(kPxTfd), 0x150U);
  EXPECT_EQ(port_in(kPxSig), 0x101U);
  EXPECT_EQ(*ram(kFises + kRxD2h), kFisD2h);
}

TEST_F(AhciTest, DmaReadsIntoScatteredMemory) {
  add_disk();
  machine.fill(0, 50, 8);
  start();
  EXPECT_EQ(
      run({.opcode = op::kReadDmaExt, .lba = 50, .count = 8, .memory = {{kBuffer, 1024}, {kBuffer + 0x4000, 3072}}}),
      kDhrs);
  EXPECT_TRUE(irq());
  EXPECT_EQ(port_in(kPxCi), 0U);
  EXPECT_EQ(moved(), 4096U);
  EXPECT_TRUE(holds(kBuffer, 50, 2));
  EXPECT_TRUE(holds(kBuffer + 0x4000, 52, 6));
  port_out(kPxIs, 0xffffffff);
  EXPECT_TRUE(irq());  // [AHCI] 10.7.1: until IS is cleared, too
  out(kIs, 1);
  EXPECT_FALSE(irq());
}

TEST_F(AhciTest, PioCommandsHaveTheirSetupFises) {
  add_disk();
  machine.fill(0, 5, 3);
  start();
  EXPECT_EQ(run({.opcode = op::kReadSectors, .lba = 5, .count = 3, .memory = {{kBuffer, 1536}}}), kDhrs | kPss);
  EXPECT_EQ(*ram(kFises + kRxPioSetup), kFisPioSetup);
  EXPECT_EQ(load<uint16_t>(ram(kFises + kRxPioSetup + 16)), 512U);
  EXPECT_TRUE(holds(kBuffer, 5, 3));
  EXPECT_EQ(run({.opcode = op::kWriteSectors, .lba = 100, .count = 1, .memory = {{kBuffer, 512}}}), kDhrs);
  EXPECT_TRUE(holds(kBuffer, 100, 1));
  EXPECT_EQ(port_in(kPxTfd), 0x50U);
}

TEST_F(AhciTest, AFailedCommandHaltsThePort) {
  add_disk();
  start();
  EXPECT_EQ(run({.opcode = op::kReadDmaExt, .lba = kDiskSectors, .count = 1, .memory = {{kBuffer, 512}}}),
            kDhrs | kTfes);
  EXPECT_EQ(port_in(kPxTfd), uint32_t{kIdnf} << 8 | 0x51);
  EXPECT_EQ(port_in(kPxCi), 1U);
  EXPECT_EQ(run({.opcode = op::kIdentify, .memory = {{kBuffer, 512}}}, 3), 0U);  // not fetched
  port_out(kPxCmd, kFre);
  EXPECT_EQ(port_in(kPxCmd) & kCr, 0U);
  EXPECT_EQ(port_in(kPxCi), 0U);
  port_out(kPxCmd, kFre | kSt);
  EXPECT_EQ(run({.opcode = op::kIdentify, .memory = {{kBuffer, 512}}}), kDhrs | kPss);
}

TEST_F(AhciTest, ATableThatIsTooShortOverflows) {
  add_disk();
  machine.fill(0, 0, 1);
  start();
  EXPECT_EQ(run({.opcode = op::kReadDmaExt, .lba = 0, .count = 2, .memory = {{kBuffer, 512}}}), kDhrs | kOfs);
  EXPECT_EQ(moved(), 512U);
  EXPECT_TRUE(holds(kBuffer, 0, 1));
}

TEST_F(AhciTest, MemoryThatIsNoneIsAFatalError) {
  add_disk();
  start();
  EXPECT_EQ(run({.opcode = op::kReadDmaExt, .lba = 0, .count = 1, .memory = {{0xf0000000, 512}}}), kHbfs);
  EXPECT_EQ(port_in(kPxCi), 1U);
}

TEST_F(AhciTest, QueuedCommandsEndInAnyOrder) {
  add_disk();
  machine.fill(0, 0, 16);
  start();
  queue(0, {.opcode = op::kReadFpdmaQueued, .lba = 4, .count = 4, .memory = {{kBuffer, 2048}}});
  queue(5, {.opcode = op::kReadFpdmaQueued, .lba = 12, .count = 1, .memory = {{kBuffer + 0x2000, 512}}});
  EXPECT_EQ(port_in(kPxCi), 0U);  // accepted
  EXPECT_EQ(port_in(kPxSact), 0x21U);
  machine.settle();
  EXPECT_EQ(port_in(kPxSact), 0U);
  EXPECT_EQ(port_in(kPxIs), kSdbs);
  EXPECT_TRUE(holds(kBuffer, 4, 4));
  EXPECT_TRUE(holds(kBuffer + 0x2000, 12, 1));
}

TEST_F(AhciTest, AQueuedFailureIsInTheLog) {
  add_disk();
  start();
  machine.nodes[0]->fail_with = EIO;
  queue(7, {.opcode = op::kReadFpdmaQueued, .lba = 0x123, .count = 1, .memory = {{kBuffer, 512}}});
  machine.settle();
  EXPECT_EQ(port_in(kPxIs), kSdbs | kTfes);
  EXPECT_EQ(port_in(kPxSact), 0x80U);
  machine.nodes[0]->fail_with = 0;
  port_out(kPxCmd, kFre);
  port_out(kPxCmd, kFre | kSt);
  EXPECT_EQ(run({.opcode = op::kReadLogExt, .lba = log_page::kQueuedError, .count = 1, .memory = {{kBuffer, 512}}}),
            kDhrs | kPss);
  EXPECT_EQ(*ram(kBuffer), 7);
  EXPECT_EQ(*ram(kBuffer + 3), kUnc);
  EXPECT_EQ(load<uint16_t>(ram(kBuffer + 4)), 0x123);
  port_out(kPxIs, 0xffffffff);
  queue(7, {.opcode = op::kReadFpdmaQueued, .lba = 1, .count = 1, .memory = {{kBuffer, 512}}});
  machine.settle();
  EXPECT_EQ(port_in(kPxIs), kSdbs);
}

TEST_F(AhciTest, QueuedWritesCarryFua) {
  add_disk();
  start();
  std::memset(ram(kBuffer), 0x77, 512);
  queue(1, {.opcode = op::kWriteFpdmaQueued, .lba = 9, .count = 1, .device = 0xc0, .memory = {{kBuffer, 512}}});
  machine.settle();
  EXPECT_TRUE(holds(kBuffer, 9, 1));
  EXPECT_EQ(machine.nodes[0]->fua_writes, 1);
}

TEST_F(AhciTest, ASoftwareResetComesAsTwoFises) {
  add_disk();
  start();
  control(kSrst);
  EXPECT_EQ(port_in(kPxCi), 0U);
  EXPECT_EQ(port_in(kPxTfd) & kBsy, kBsy);
  control(0);
  EXPECT_EQ(port_in(kPxCi), 0U);
  EXPECT_EQ(port_in(kPxTfd), 0x150U);
}

TEST_F(AhciTest, ComresetWaitsForWhatIsUnderWay) {
  add_disk();
  machine.fill(0, 0, 1);
  start();
  put(0, {.opcode = op::kReadDmaExt, .lba = 0, .count = 1, .memory = {{kBuffer, 512}}});
  port_out(kPxCi, 1);
  port_out(kPxSctl, 1);
  port_out(kPxSctl, 0);
  EXPECT_EQ(port_in(kPxTfd) & kBsy, kBsy);
  machine.settle();
  EXPECT_EQ(port_in(kPxTfd), 0x150U);
  EXPECT_EQ(port_in(kPxSerr), kSerrExchanged);
  EXPECT_EQ(port_in(kPxIs) & kPcs, kPcs);
  port_out(kPxSerr, kSerrExchanged);
  EXPECT_EQ(port_in(kPxIs) & kPcs, 0U);
}

TEST_F(AhciTest, TheAdaptersResetReadsOneUntilItIsOver) {
  add_disk();
  start();
  put(0, {.opcode = op::kReadDmaExt, .lba = 0, .count = 1, .memory = {{kBuffer, 512}}});
  port_out(kPxCi, 1);
  out(kGhc, kGhcAe | kGhcHr);
  EXPECT_EQ(in(kGhc), kGhcAe | kGhcHr);
  machine.settle();
  EXPECT_EQ(in(kGhc), kGhcAe);
  EXPECT_EQ(port_in(kPxIs), 0U);
  EXPECT_EQ(port_in(kPxClb), 0U);
  EXPECT_EQ(port_in(kPxTfd), kTfdReset);
}

TEST_F(AhciTest, StoppingWaitsForWhatIsUnderWay) {
  add_disk();
  start();
  put(0, {.opcode = op::kReadDmaExt, .lba = 0, .count = 1, .memory = {{kBuffer, 512}}});
  port_out(kPxCi, 1);
  port_out(kPxCmd, kFre);
  EXPECT_EQ(port_in(kPxCmd) & (kCr | kSt), kCr);
  EXPECT_EQ(port_in(kPxCi), 0U);
  machine.settle();
  EXPECT_EQ(port_in(kPxCmd) & (kCr | kSt), 0U);
  EXPECT_EQ(port_in(kPxIs), 0U);
}

TEST_F(AhciTest, PacketCommands) {
  add_cd(16);
  machine.fill(0, 0, 64);
  start();
  EXPECT_EQ(port_in(kPxSig), 0xeb140101U);
  // Byte count limit in LBA mid and high.
  const std::vector<uint8_t> read{0x28, 0, 0, 0, 0, 1, 0, 0, 3, 0, 0, 0};
  EXPECT_EQ(run({.opcode = op::kPacket, .lba = 0x080000, .memory = {{kBuffer, 6144}}, .packet = read}), kDhrs | kPss);
  EXPECT_TRUE(holds(kBuffer, 4, 12));
  std::memset(ram(kBuffer), 0, 6144);
  EXPECT_EQ(run({.opcode = op::kPacket, .features = 1, .memory = {{kBuffer, 6144}}, .packet = read}), kDhrs);
  EXPECT_TRUE(holds(kBuffer, 4, 12));
  EXPECT_EQ(moved(), 6144U);
}

TEST_F(AhciTest, WithoutBusMasteringNothingIsFetched) {
  add_disk();
  start();
  hba.config_write(0x04, 2, 3);
  EXPECT_EQ(run({.opcode = op::kIdentify, .memory = {{kBuffer, 512}}}), 0U);
}

TEST_F(AhciTest, RequestsUnderWayAreMadeAgainAfterRestore) {
  add_disk();
  machine.fill(0, 0, 16);
  start();
  machine.drives[0]->hold();
  queue(2, {.opcode = op::kReadFpdmaQueued, .lba = 3, .count = 1, .memory = {{kBuffer, 512}}});
  machine.settle();
  const auto adapter = saved_state(hba), disk = saved_state(*devices[0]);
  machine.drives[0]->cancel();
  machine.settle();
  ASSERT_TRUE(restore_state(*devices[0], disk));
  ASSERT_TRUE(restore_state(hba, adapter));
  machine.drives[0]->release();
  hba.start();
  devices[0]->start();
  machine.settle();
  EXPECT_EQ(port_in(kPxSact), 0U);
  EXPECT_TRUE(holds(kBuffer, 3, 1));
}

TEST_F(AhciTest, RefusesImpossibleState) {
  const auto state = saved_state(hba);
  EXPECT_FALSE(restore_state(hba, with_patched_field(state, 10, 0, 0x123, 8)));  // a list that is not aligned
  EXPECT_FALSE(restore_state(hba, with_patched_field(state, 13, 0, 32, 1)));     // a slot there is none of
  EXPECT_EQ(saved_state(hba), state);
}

// Random register writes over random lists and tables.
TEST_F(AhciTest, SurvivesAStorm) {
  add_disk();
  std::mt19937_64 random(1);
  const auto below = [&random](uint64_t limit) { return random() % limit; };
  constexpr uint8_t kLikely[] = {0x60, 0x61, 0x25, 0x35, 0x20, 0x30, 0xec, 0x2f, 0x06, 0xe7, 0xef, 0x47};
  start();
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t kind = below(100);
    const auto slot = static_cast<unsigned>(below(kSlots));
    if (kind < 40) {
      Command command{.opcode = below(8) == 0 ? static_cast<uint8_t>(random()) : kLikely[below(std::size(kLikely))],
                      .lba = below(10) == 0 ? random() & 0xffff'ffff'ffff : below(kDiskSectors),
                      .count = static_cast<uint16_t>(below(64)),
                      .features = static_cast<uint16_t>(below(64)),
                      .memory = {}};
      for (uint64_t i = below(6); i > 0; --i)
        command.memory.emplace_back(kBuffer + below(0x200000), 1 + below(below(10) == 0 ? 0x400000 : 0x8000));
      if (command.opcode == 0x60 || command.opcode == 0x61)
        command.count = static_cast<uint16_t>((below(10) == 0 ? below(32) : slot) << 3);
      put(slot, command);
    } else if (kind < 70) {
      if (below(2) == 0) port_out(kPxSact, 1u << slot);
      port_out(kPxCi, 1u << slot);
    } else if (kind < 80) {
      port_out(static_cast<uint32_t>(below(0x20)) * 4, static_cast<uint32_t>(random()));
    } else if (kind < 92) {
      machine.executor->run_once(0);
    } else if (kind < 97) {
      start();
    } else if (kind == 97) {
      control(static_cast<uint8_t>(below(8)));
    } else if (kind == 98) {
      port_out(kPxSctl, static_cast<uint32_t>(below(2)));
    } else {
      machine.settle();
      out(kGhc, below(2) == 0 ? kGhcAe | kGhcHr : kGhcAe);
      for (bus::Device* device : {static_cast<bus::Device*>(&hba), devices[0].get()}) {
        const auto state = saved_state(*device);
        EXPECT_TRUE(restore_state(*device, state));
        EXPECT_EQ(saved_state(*device), state);
      }
      hba.start();
    }
  }
}

}  // namespace
}  // namespace kite::devices
