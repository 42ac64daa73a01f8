// The NVMe controller driven by its registers and queues, over memory disks.
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "block/plain_nodes.h"
#include "devices/nvme/namespace_bus.h"
#include "devices/nvme/nvme_types.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"
#include "support/bits.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using namespace nvme;

constexpr uint64_t kBar = 0xfeb00000, kRam = 4 << 20;
// Where the test's driver keeps its things.
constexpr uint64_t kAdminSq = 0x10000, kAdminCq = 0x11000, kIoSq = 0x12000, kIoCq = 0x13000, kData = 0x100000,
                   kList = 0x20000, kShadow = 0x30000, kIndexes = 0x31000;
constexpr uint32_t kEntries = 8;
constexpr uint64_t kDiskBytes = 1 << 20;

class MessageSink final : public bus::MsiSink {
 public:
  bool send_msi(uint64_t, uint32_t data) override {
    messages.push_back(data);
    return true;
  }
  std::vector<uint32_t> messages;
};

DiskConfig disk_config(std::string id, block::Drive& drive, uint32_t block_bytes) {
  DiskConfig config;
  config.id = std::move(id);
  config.drive = &drive;
  config.logical_block_bytes = block_bytes;
  return config;
}

// One controller with its disk; `executor` is turned by hand, so that nothing happens by itself.
class NvmeMachine {
 public:
  explicit NvmeMachine(bool read_only = false, uint64_t cmb_bytes = 0, bool second = false) {
    auto block = RamBlock::create("ram", kRam);
    EXPECT_TRUE(block);
    ram = *block;
    space.map(0, Region::ram("ram", ram));
    auto made_executor = Executor::create("test");
    EXPECT_TRUE(made_executor);
    executor = std::move(*made_executor);
    disk = std::make_shared<block::MemoryNode>(*executor, block::NodeConfig{.name = "disk"}, kDiskBytes);
    auto made_drive = block::Drive::create(*executor, {.id = "d0", .read_only = read_only}, disk);
    EXPECT_TRUE(made_drive);
    drive = std::move(*made_drive);
    auto made = NvmeController::create(
        "nvme0", {.serial = "S1", .name = "nvme0.0", .queues = 4, .vectors = 5, .cmb_bytes = cmb_bytes}, memory);
    EXPECT_TRUE(made);
    nvme = std::move(*made);
    EXPECT_TRUE(nvme->add_own_namespace(disk_config("nvme0", *drive, 512), {.nsid = 1, .eui64 = 0x525400aabbccddee}));
    if (second) add_second();
    nvme->reset();
    EXPECT_TRUE(bus.attach(*nvme, 4, 0));
    nvme->config_write(0x10, 4, kBar);
    nvme->config_write(0x04, 2, 6);
    nvme->start();
    space.commit();
  }
  ~NvmeMachine() {
    settle();
    nvme.reset();
    settle();
    for (auto* one : {&drive, &drive2})
      if (*one != nullptr) EXPECT_TRUE(block::run_until_done(*executor, (*one)->close()));
  }

  void settle() {
    for (int i = 0; i < 50; ++i) executor->run_once(0);
  }
  uint32_t reg(uint64_t offset) { return space.in(kBar + offset, 4); }
  void set_reg(uint64_t offset, uint32_t value) { space.out(kBar + offset, value, 4); }

  void enable() {
    set_reg(AQA, (kEntries - 1) << 16 | (kEntries - 1));
    set_reg(ASQ, kAdminSq);
    set_reg(ACQ, kAdminCq);
    set_reg(CC, kCcEnable | kSqEntryShift << kCcIosqes | kCqEntryShift << kCcIocqes);
    admin = {};
    io = {};
  }
  struct Ring {
    uint32_t tail = 0, head = 0;
    bool phase = true;
  };
  void push(uint64_t base, Ring& ring, const Command& command) {
    EXPECT_TRUE(memory.store(base + ring.tail * sizeof command, command));
    ring.tail = (ring.tail + 1) % kEntries;
  }
  std::optional<Completion> pop(uint64_t base, Ring& ring, unsigned queue) {
    const auto entry = memory.load<Completion>(base + ring.head * sizeof(Completion));
    if (!entry || ((entry->status & 1) != 0) != ring.phase) return std::nullopt;
    ring.head = (ring.head + 1) % kEntries;
    if (ring.head == 0) ring.phase = !ring.phase;
    set_reg(kDoorbells + queue * 8 + 4, ring.head);
    return *entry;
  }
  void submit_admin(Command command) {
    push(kAdminSq, admin, command);
    set_reg(kDoorbells, admin.tail);
  }
  // The status field of an admin command, or ~0 when there was no answer.
  uint32_t run_admin(Command command) {
    submit_admin(command);
    settle();
    const auto entry = pop(kAdminCq, admin, 0);
    result = entry ? entry->result : 0;
    return entry ? entry->status >> 1 : ~0u;
  }
  void submit_io(Command command) {
    command.cid = next_cid++;
    push(kIoSq, io, command);
    set_reg(kDoorbells + 8, io.tail);
  }
  uint32_t run_io(Command command) {
    submit_io(command);
    settle();
    const auto entry = pop(kIoCq, io, 1);
    return entry ? entry->status >> 1 : ~0u;
  }
  void make_queues(uint32_t entries = kEntries) {
    EXPECT_EQ(run_admin({.opcode = kCreateCq, .prp1 = kIoCq, .cdw10 = (entries - 1) << 16 | 1, .cdw11 = 3}), 0u);
    EXPECT_EQ(run_admin({.opcode = kCreateSq, .prp1 = kIoSq, .cdw10 = (entries - 1) << 16 | 1, .cdw11 = 1 | 1 << 16}),
              0u);
  }
  static Command blocks(uint8_t opcode, uint64_t first, uint32_t count, uint64_t prp1 = kData, uint64_t prp2 = 0) {
    return {.opcode = opcode,
            .nsid = 1,
            .prp1 = prp1,
            .prp2 = prp2,
            .cdw10 = static_cast<uint32_t>(first),
            .cdw11 = static_cast<uint32_t>(first >> 32),
            .cdw12 = count - 1};
  }
  std::vector<uint8_t> on_disk(uint64_t offset, size_t bytes) {
    std::vector<uint8_t> data(bytes);
    disk->copy_out(offset, block::IoSlice(std::span(data)));
    return data;
  }
  void put_on_disk(uint64_t offset, std::vector<uint8_t> data) {
    disk->copy_in(offset, block::IoSlice(std::span(data)));
  }
  std::vector<uint8_t> in_memory(Gpa address, size_t bytes) {
    std::vector<uint8_t> data(bytes);
    EXPECT_TRUE(memory.read(address, data));
    return data;
  }
  void add_second() {
    auto node = std::make_shared<block::MemoryNode>(*executor, block::NodeConfig{.name = "disk2"}, kDiskBytes);
    auto made_drive = block::Drive::create(*executor, {.id = "d1"}, node);
    EXPECT_TRUE(made_drive);
    drive2 = std::move(*made_drive);
    TypeRegistry types;
    types.add({.name = "device", .parent = "", .description = "", .bus = "", .properties = {}});
    types.add({.name = "pci-device", .parent = "device", .description = "", .bus = "", .properties = {}});
    register_nvme_types(types);
    auto properties = types.resolve({.type = "nvme-ns", .id = "", .values = {{"nsid", "7"}}}, "-device");
    ASSERT_TRUE(properties);
    auto made = nvme->bus_of_namespaces().attach(
        {.type = "nvme-ns", .path = "ns7", .disk = disk_config("ns7", *drive2, 4096), .properties = *properties});
    ASSERT_TRUE(made) << made.error().message;
    extra = std::move(*made);
  }

  FakeLines lines;
  MessageSink messages;
  TestSpace space{uint64_t{1} << 40}, ports;
  bus::PciBus bus{space.root(), ports.root(), lines, {.msi = &messages}};
  GuestMemory memory{space.space()};
  std::shared_ptr<RamBlock> ram;
  std::unique_ptr<Executor> executor;
  std::shared_ptr<block::MemoryNode> disk;
  std::unique_ptr<block::Drive> drive, drive2;
  std::unique_ptr<bus::Device> extra;
  std::unique_ptr<NvmeController> nvme;
  Ring admin, io;
  uint16_t next_cid = 100;
  uint32_t result = 0;
};

constexpr uint32_t refused(Status status) { return static_cast<uint32_t>(status) | kDoNotRetry; }

std::vector<uint8_t> pattern(size_t bytes, uint8_t seed) {
  std::vector<uint8_t> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<uint8_t>(seed + i * 7 + i / 256);
  return data;
}

TEST(NvmeRegisters, CapabilitiesTellWhatIsThere) {
  NvmeMachine m;
  EXPECT_EQ(m.reg(CAP) & 0xffff, kMostEntries - 1);
  EXPECT_EQ(m.reg(VS), kVersion14);
  EXPECT_EQ(m.nvme->config_read(0x08, 4) >> 8, 0x010802u);
}

TEST(NvmeRegisters, EnablingMakesItReady) {
  NvmeMachine m;
  m.enable();
  EXPECT_EQ(m.reg(CSTS), kCstsReady);
}

TEST(NvmeRegisters, WrongPageSizeIsFatal) {
  NvmeMachine m;
  m.set_reg(AQA, 0x00070007);
  m.set_reg(CC, kCcEnable | 5u << kCcMps);
  EXPECT_EQ(m.reg(CSTS), kCstsFatal);
}

TEST(NvmeRegisters, DisablingResets) {
  NvmeMachine m;
  m.enable();
  m.make_queues();
  m.set_reg(CC, 0);
  EXPECT_EQ(m.reg(CSTS), 0u);
  EXPECT_EQ(m.reg(ASQ), kAdminSq);  // the admin queues' places stay
}

TEST(NvmeRegisters, ResetWaitsForRequests) {
  NvmeMachine m;
  m.enable();
  m.make_queues();
  m.drive->hold();
  m.submit_io(NvmeMachine::blocks(kRead, 0, 1));
  for (int i = 0; i < 5; ++i) m.executor->run_once(0);

  m.set_reg(CC, 0);
  EXPECT_EQ(m.reg(CSTS), kCstsReady);  // the request is still there
  m.settle();                          // cancelled
  EXPECT_EQ(m.reg(CSTS), 0u);
  m.drive->release();
}

TEST(NvmeRegisters, ShutdownFlushesAndSaysSo) {
  NvmeMachine m;
  m.enable();
  m.set_reg(CC, m.reg(CC) | 1u << kCcShn);
  EXPECT_EQ(m.reg(CSTS) >> kCstsShst & 3, kShutdownOccurring);
  m.settle();
  EXPECT_EQ(m.reg(CSTS) >> kCstsShst & 3, kShutdownComplete);
  EXPECT_EQ(m.drive->stats(block::DriveOperation::kFlush).operations.value(), 1u);
}

TEST(NvmeRegisters, NarrowWritesAreIgnored) {
  NvmeMachine m;
  m.space.out(kBar + CC, 1, 1);
  EXPECT_EQ(m.reg(CC), 0u);
}

TEST(NvmeAdmin, IdentifyTellsTheSerialNumber) {
  NvmeMachine m;
  m.enable();
  ASSERT_EQ(m.run_admin({.opcode = kIdentify, .prp1 = kData, .cdw10 = kCnsController}), 0u);
  const auto data = m.in_memory(kData, 4096);
  EXPECT_EQ(data[4], 'S');
  EXPECT_EQ(data[5], '1');
  EXPECT_EQ(data[6], ' ');
  EXPECT_EQ(data[77], 7);  // MDTS
}

TEST(NvmeAdmin, IdentifyTellsTheSizeOfANamespace) {
  NvmeMachine m;
  m.enable();
  ASSERT_EQ(m.run_admin({.opcode = kIdentify, .nsid = 1, .prp1 = kData, .cdw10 = kCnsNamespace}), 0u);
  EXPECT_EQ(*m.memory.load<uint64_t>(kData), kDiskBytes / 512);
  EXPECT_EQ(m.in_memory(kData + 130, 1)[0], 9);
}

TEST(NvmeAdmin, IdentifyOfAnInactiveNamespaceIsZeroes) {
  NvmeMachine m;
  m.enable();
  ASSERT_TRUE(m.memory.fill(kData, 4096, 0xff));
  ASSERT_EQ(m.run_admin({.opcode = kIdentify, .nsid = 2, .prp1 = kData, .cdw10 = kCnsNamespace}), 0u);
  EXPECT_EQ(m.in_memory(kData, 4096), std::vector<uint8_t>(4096));
}

TEST(NvmeAdmin, IdentifyOfANamespaceBeyondAllIsRefused) {
  NvmeMachine m;
  m.enable();
  EXPECT_EQ(m.run_admin({.opcode = kIdentify, .nsid = 9999, .prp1 = kData, .cdw10 = kCnsNamespace}),
            refused(kInvalidNamespace));
}

TEST(NvmeAdmin, ActiveNamespacesAreListed) {
  NvmeMachine m(false, 0, true);
  m.enable();
  ASSERT_EQ(m.run_admin({.opcode = kIdentify, .prp1 = kData, .cdw10 = kCnsActiveNamespaces}), 0u);
  EXPECT_EQ(*m.memory.load<uint32_t>(kData), 1u);
  EXPECT_EQ(*m.memory.load<uint32_t>(kData + 4), 7u);
  EXPECT_EQ(*m.memory.load<uint32_t>(kData + 8), 0u);
}

TEST(NvmeAdmin, NamespaceDescriptorsHoldTheEui) {
  NvmeMachine m;
  m.enable();
  ASSERT_EQ(m.run_admin({.opcode = kIdentify, .nsid = 1, .prp1 = kData, .cdw10 = kCnsDescriptors}), 0u);
  EXPECT_EQ(m.in_memory(kData, 6), (std::vector<uint8_t>{1, 8, 0, 0, 0x52, 0x54}));
}

TEST(NvmeAdmin, UnknownOpcodeIsRefusedAndLogged) {
  NvmeMachine m;
  m.enable();
  EXPECT_EQ(m.run_admin({.opcode = 0x7f, .cid = 5}), refused(kInvalidOpcode));
  ASSERT_EQ(m.run_admin({.opcode = kGetLogPage, .prp1 = kData, .cdw10 = kLogError | 15 << 16}), 0u);
  EXPECT_EQ(*m.memory.load<uint64_t>(kData), 1u);       // the first error
  EXPECT_EQ(*m.memory.load<uint16_t>(kData + 10), 5u);  // its command
}

TEST(NvmeAdmin, NumberOfQueuesIsWhatWasConfigured) {
  NvmeMachine m;
  m.enable();
  EXPECT_EQ(m.run_admin({.opcode = kSetFeatures, .cdw10 = kNumberOfQueues, .cdw11 = 63 | 63 << 16}), 0u);
  EXPECT_EQ(m.result, 3u | 3u << 16);
}

TEST(NvmeAdmin, WriteCacheSwitchReachesTheDrive) {
  NvmeMachine m;
  m.enable();
  EXPECT_EQ(m.run_admin({.opcode = kSetFeatures, .cdw10 = kVolatileWriteCache, .cdw11 = 0}), 0u);
  EXPECT_FALSE(m.drive->write_cache());
  EXPECT_EQ(m.run_admin({.opcode = kGetFeatures, .cdw10 = kVolatileWriteCache}), 0u);
  EXPECT_EQ(m.result, 0u);
  m.set_reg(CC, 0);
  EXPECT_TRUE(m.drive->write_cache());
}

TEST(NvmeAdmin, QueueWithoutACompletionQueueIsRefused) {
  NvmeMachine m;
  m.enable();
  EXPECT_EQ(m.run_admin({.opcode = kCreateSq, .prp1 = kIoSq, .cdw10 = 7 << 16 | 1, .cdw11 = 1 | 2 << 16}),
            refused(kCqInvalid));
}

TEST(NvmeAdmin, ScatteredQueueIsRefused) {
  NvmeMachine m;
  m.enable();
  EXPECT_EQ(m.run_admin({.opcode = kCreateCq, .prp1 = kIoCq, .cdw10 = 7 << 16 | 1, .cdw11 = 0}),
            refused(kInvalidField));
}

TEST(NvmeAdmin, CompletionQueueInUseStays) {
  NvmeMachine m;
  m.enable();
  m.make_queues();
  EXPECT_EQ(m.run_admin({.opcode = kDeleteCq, .cdw10 = 1}), refused(kInvalidQueueDeletion));
  EXPECT_EQ(m.run_admin({.opcode = kDeleteSq, .cdw10 = 1}), 0u);
  EXPECT_EQ(m.run_admin({.opcode = kDeleteCq, .cdw10 = 1}), 0u);
}

TEST(NvmeAdmin, DeletionWaitsForTheQueuesRequests) {
  NvmeMachine m;
  m.enable();
  m.make_queues();
  m.drive->hold();
  m.submit_io(NvmeMachine::blocks(kRead, 0, 1));
  m.settle();
  EXPECT_EQ(m.run_admin({.opcode = kDeleteSq, .cdw10 = 1}), ~0u);
  m.drive->release();
  m.settle();
  EXPECT_TRUE(m.pop(kAdminCq, m.admin, 0));
  EXPECT_TRUE(m.pop(kIoCq, m.io, 1));
}

TEST(NvmeAdmin, WrongDoorbellIsAnEvent) {
  NvmeMachine m;
  m.enable();
  m.submit_admin({.opcode = kAsyncEventRequest, .cid = 77});
  m.set_reg(kDoorbells + 3 * 8, 1);
  const auto entry = m.pop(kAdminCq, m.admin, 0);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->cid, 77);
  EXPECT_EQ(entry->result, uint32_t{kEventError} | kInvalidDoorbell << 8 | kLogError << 16);
}

TEST(NvmeAdmin, TailBeyondTheQueueIsAnEvent) {
  NvmeMachine m;
  m.enable();
  m.submit_admin({.opcode = kAsyncEventRequest});
  m.set_reg(kDoorbells, kEntries);
  const auto entry = m.pop(kAdminCq, m.admin, 0);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->result >> 8 & 0xff, uint32_t{kInvalidDoorbellValue});
}

TEST(NvmeAdmin, EventsOfATypeWaitForTheirLog) {
  NvmeMachine m;
  m.enable();
  m.submit_admin({.opcode = kAsyncEventRequest});
  m.submit_admin({.opcode = kAsyncEventRequest});
  m.set_reg(kDoorbells, kEntries);
  EXPECT_TRUE(m.pop(kAdminCq, m.admin, 0));
  m.set_reg(kDoorbells + 3 * 8, 1);
  EXPECT_FALSE(m.pop(kAdminCq, m.admin, 0));
  m.submit_admin({.opcode = kGetLogPage, .prp1 = kData, .cdw10 = kLogError | 15 << 16});
  EXPECT_TRUE(m.pop(kAdminCq, m.admin, 0));
  EXPECT_TRUE(m.pop(kAdminCq, m.admin, 0));
}

TEST(NvmeAdmin, TooManyEventRequestsAreRefused) {
  NvmeMachine m;
  m.enable();
  for (int i = 0; i < 4; ++i) m.submit_admin({.opcode = kAsyncEventRequest});
  EXPECT_EQ(m.run_admin({.opcode = kAsyncEventRequest}), refused(kEventLimitExceeded));
}

TEST(NvmeAdmin, EventRequestCanBeAborted) {
  NvmeMachine m;
  m.enable();
  m.submit_admin({.opcode = kAsyncEventRequest, .cid = 3});
  m.submit_admin({.opcode = kAbort, .cid = 4, .cdw10 = 3u << 16});
  const auto first = m.pop(kAdminCq, m.admin, 0), second = m.pop(kAdminCq, m.admin, 0);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->cid, 3);
  EXPECT_EQ(first->status >> 1, kAbortRequested);
  EXPECT_EQ(second->result, 0u);
}

TEST(NvmeAdmin, FormatEmptiesAndChangesTheBlockSize) {
  NvmeMachine m;
  m.put_on_disk(0, pattern(4096, 1));
  m.enable();
  ASSERT_EQ(m.run_admin({.opcode = kFormatNvm, .nsid = 1, .cdw10 = 1}), 0u);
  EXPECT_EQ(m.on_disk(0, 4096), std::vector<uint8_t>(4096));
  ASSERT_EQ(m.run_admin({.opcode = kIdentify, .nsid = 1, .prp1 = kData, .cdw10 = kCnsNamespace}), 0u);
  EXPECT_EQ(*m.memory.load<uint64_t>(kData), kDiskBytes / 4096);
}

TEST(NvmeAdmin, SglsAreForIoOnly) {
  NvmeMachine m;
  m.enable();
  EXPECT_EQ(m.run_admin({.opcode = kIdentify, .flags = 1u << kFlagsPsdt, .prp1 = kData, .cdw10 = 1}),
            refused(kInvalidField));
}

// --- I/O

class NvmeIo : public ::testing::Test {
 protected:
  NvmeIo() {
    m.enable();
    m.make_queues();
  }
  NvmeMachine m{false, 0, true};
};

TEST_F(NvmeIo, WriteReachesTheDisk) {
  const auto data = pattern(1024, 3);
  ASSERT_TRUE(m.memory.write(kData, data));
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kWrite, 5, 2)), 0u);
  EXPECT_EQ(m.on_disk(5 * 512, 1024), data);
}

TEST_F(NvmeIo, ReadComesFromTheDisk) {
  const auto data = pattern(512, 9);
  m.put_on_disk(512, data);
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kRead, 1, 1)), 0u);
  EXPECT_EQ(m.in_memory(kData, 512), data);
}

TEST_F(NvmeIo, NamespaceHasItsOwnBlockSize) {
  Command command = NvmeMachine::blocks(kRead, kDiskBytes / 4096 - 1, 1);
  command.nsid = 7;
  EXPECT_EQ(m.run_io(command), 0u);
  command.cdw10 += 1;
  EXPECT_EQ(m.run_io(command), refused(kLbaOutOfRange));
}

TEST_F(NvmeIo, PrpListIsFollowed) {
  const auto data = pattern(4 * 4096, 4);
  m.put_on_disk(0, data);
  // The first page begins in its middle: five pages hold 16 KiB.
  for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(m.memory.store(kList + i * 8, kData + 0x10000 + i * 0x2000));
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kRead, 0, 32, kData + 2048, kList)), 0u);
  EXPECT_EQ(m.in_memory(kData + 2048, 2048), std::vector<uint8_t>(data.begin(), data.begin() + 2048));
  EXPECT_EQ(m.in_memory(kData + 0x10000, 4096), std::vector<uint8_t>(data.begin() + 2048, data.begin() + 6144));
  EXPECT_EQ(m.in_memory(kData + 0x16000, 2048), std::vector<uint8_t>(data.end() - 2048, data.end()));
}

TEST_F(NvmeIo, PrpListGoesOnInAnotherPage) {
  m.put_on_disk(0, pattern(4 * 4096, 4));
  // Two entries fit into the first page of the list; the second is the pointer onward.
  ASSERT_TRUE(m.memory.store(kList + 4080, kData + 0x10000));
  ASSERT_TRUE(m.memory.store(kList + 4088, kList + 0x1000));
  ASSERT_TRUE(m.memory.store(kList + 0x1000, kData + 0x20000));
  ASSERT_TRUE(m.memory.store(kList + 0x1008, kData + 0x30000));
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kRead, 0, 32, kData, kList + 4080)), 0u);
  EXPECT_EQ(m.in_memory(kData + 0x30000, 4096), m.on_disk(3 * 4096, 4096));
}

TEST_F(NvmeIo, MisalignedPrpIsRefused) {
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kRead, 0, 16, kData, kData + 0x1100)), refused(kPrpOffsetInvalid));
}

TEST_F(NvmeIo, DataOutsideOfMemoryIsATransferError) {
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kWrite, 0, 1, uint64_t{1} << 36)), uint32_t{kDataTransferError});
}

TEST_F(NvmeIo, MoreThanMdtsIsRefused) {
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kRead, 0, 1025)), refused(kInvalidField));
}

TEST_F(NvmeIo, UnknownNamespaceIsRefused) {
  Command command = NvmeMachine::blocks(kRead, 0, 1);
  command.nsid = 2;
  EXPECT_EQ(m.run_io(command), refused(kInvalidNamespace));
}

TEST_F(NvmeIo, FusedCommandIsRefused) {
  Command command = NvmeMachine::blocks(kCompare, 0, 1);
  command.flags = 1;
  EXPECT_EQ(m.run_io(command), refused(kInvalidField));
}

TEST_F(NvmeIo, CompareTellsEqualFromOther) {
  const auto data = pattern(512, 1);
  m.put_on_disk(0, data);
  ASSERT_TRUE(m.memory.write(kData, data));
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kCompare, 0, 1)), 0u);
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kCompare, 1, 1)), refused(kCompareFailure));
}

TEST_F(NvmeIo, WriteZeroesZeroes) {
  m.put_on_disk(0, pattern(2048, 1));
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kWriteZeroes, 1, 2)), 0u);
  EXPECT_EQ(m.on_disk(512, 1024), std::vector<uint8_t>(1024));
  EXPECT_NE(m.on_disk(1536, 512), std::vector<uint8_t>(512));
}

TEST_F(NvmeIo, VerifyReads) {
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kVerify, 0, 64)), 0u);
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kVerify, kDiskBytes / 512, 1)), refused(kLbaOutOfRange));
}

TEST_F(NvmeIo, DeallocateDiscards) {
  m.put_on_disk(0, pattern(65536 * 2, 1));
  const DsmRange ranges[2] = {{.attributes = 0, .blocks = 128, .first = 0}, {.attributes = 0, .blocks = 0, .first = 0}};
  ASSERT_TRUE(m.memory.write(kData, {reinterpret_cast<const uint8_t*>(ranges), sizeof ranges}));
  EXPECT_EQ(m.run_io({.opcode = kDatasetManagement, .nsid = 1, .prp1 = kData, .cdw10 = 1, .cdw11 = kDsmDeallocate}),
            0u);
  EXPECT_EQ(m.drive->stats(block::DriveOperation::kDiscard).bytes.value(), 65536u);
}

TEST_F(NvmeIo, RangeBeyondTheEndIsRefused) {
  const DsmRange range{.attributes = 0, .blocks = 0xffffffff, .first = 1};
  ASSERT_TRUE(m.memory.store(kData, range));
  EXPECT_EQ(m.run_io({.opcode = kDatasetManagement, .nsid = 1, .prp1 = kData, .cdw11 = kDsmDeallocate}),
            refused(kLbaOutOfRange));
}

TEST_F(NvmeIo, FlushOfAllReachesEveryDrive) {
  EXPECT_EQ(m.run_io({.opcode = kFlush, .nsid = kAllNamespaces}), 0u);
  EXPECT_EQ(m.drive->stats(block::DriveOperation::kFlush).operations.value(), 1u);
  EXPECT_EQ(m.drive2->stats(block::DriveOperation::kFlush).operations.value(), 1u);
}

// --- SGLs

SglDescriptor sgl(SglType type, uint64_t address, uint32_t bytes) {
  return {.address = address, .bytes = bytes, .reserved = {}, .type = static_cast<uint8_t>(type << 4)};
}

Command with_sgl(Command command, const SglDescriptor& descriptor) {
  command.flags = 1u << kFlagsPsdt;
  command.prp1 = descriptor.address;
  std::memcpy(&command.prp2, reinterpret_cast<const uint8_t*>(&descriptor) + 8, 8);
  return command;
}

TEST_F(NvmeIo, SglDataBlockNeedsNoAlignment) {
  const auto data = pattern(512, 2);
  m.put_on_disk(0, data);
  EXPECT_EQ(m.run_io(with_sgl(NvmeMachine::blocks(kRead, 0, 1), sgl(kSglData, kData + 3, 512))), 0u);
  EXPECT_EQ(m.in_memory(kData + 3, 512), data);
}

TEST_F(NvmeIo, BitBucketSwallowsPartOfARead) {
  const auto data = pattern(1024, 2);
  m.put_on_disk(0, data);
  ASSERT_TRUE(m.memory.store(kList, sgl(kSglBitBucket, 0, 512)));
  ASSERT_TRUE(m.memory.store(kList + 16, sgl(kSglData, kData, 512)));
  EXPECT_EQ(m.run_io(with_sgl(NvmeMachine::blocks(kRead, 0, 2), sgl(kSglLastSegment, kList, 32))), 0u);
  EXPECT_EQ(m.in_memory(kData, 512), std::vector<uint8_t>(data.begin() + 512, data.end()));
}

TEST_F(NvmeIo, ShortSglIsRefused) {
  EXPECT_EQ(m.run_io(with_sgl(NvmeMachine::blocks(kRead, 0, 2), sgl(kSglData, kData, 512))),
            refused(kSglLengthInvalid));
}

TEST_F(NvmeIo, SglThatLeadsToItselfEnds) {
  ASSERT_TRUE(m.memory.store(kList, sgl(kSglSegment, kList, 16)));
  EXPECT_EQ(m.run_io(with_sgl(NvmeMachine::blocks(kRead, 0, 1), sgl(kSglSegment, kList, 16))),
            refused(kSglInvalidCount));
}

TEST_F(NvmeIo, UnknownDescriptorIsRefused) {
  EXPECT_EQ(m.run_io(with_sgl(NvmeMachine::blocks(kRead, 0, 1), sgl(static_cast<SglType>(9), kData, 512))),
            refused(kSglTypeInvalid));
}

// --- queues

TEST_F(NvmeIo, FullCompletionQueueHoldsFetchingBack) {
  for (uint32_t i = 0; i < kEntries - 1; ++i) m.submit_io(NvmeMachine::blocks(kRead, 0, 1));
  m.settle();
  for (int i = 0; i < 4; ++i) m.submit_io(NvmeMachine::blocks(kRead, 0, 1));
  m.settle();
  // Nothing has been taken out: seven completions lie in the queue, the others come as it empties.
  for (int i = 0; i < 11; ++i) {
    EXPECT_TRUE(m.pop(kIoCq, m.io, 1)) << i;
    m.settle();
  }
  EXPECT_FALSE(m.pop(kIoCq, m.io, 1));
}

TEST_F(NvmeIo, PinIsRaisedUntilTheHeadMoves) {
  m.submit_io(NvmeMachine::blocks(kRead, 0, 1));
  m.settle();
  EXPECT_TRUE(m.lines.level(bus::PciBus::pirq_of(4, 1)));
  m.pop(kIoCq, m.io, 1);
  EXPECT_FALSE(m.lines.level(bus::PciBus::pirq_of(4, 1)));
}

TEST_F(NvmeIo, MaskSilencesThePin) {
  m.set_reg(INTMS, 1);
  m.submit_io(NvmeMachine::blocks(kRead, 0, 1));
  m.settle();
  EXPECT_FALSE(m.lines.level(bus::PciBus::pirq_of(4, 1)));
  m.set_reg(INTMC, 1);
  EXPECT_TRUE(m.lines.level(bus::PciBus::pirq_of(4, 1)));
}

TEST_F(NvmeIo, MessagesCarryTheQueuesVector) {
  m.space.out(kBar + 0x2000, 0xfee00000, 4);
  m.space.out(kBar + 0x2008, 0x41, 4);
  m.space.out(kBar + 0x200c, 0, 4);
  m.nvme->config_write(0x42, 2, 0x8000);
  m.submit_io(NvmeMachine::blocks(kRead, 0, 1));
  m.settle();
  EXPECT_EQ(m.messages.messages, std::vector<uint32_t>{0x41});
}

TEST_F(NvmeIo, ShadowDoorbellIsSeenWithoutARing) {
  ASSERT_EQ(m.run_admin({.opcode = kDoorbellBufferConfig, .prp1 = kShadow, .prp2 = kIndexes}), 0u);
  m.submit_io(NvmeMachine::blocks(kRead, 0, 1));  // rings; the shadow must agree
  ASSERT_TRUE(m.memory.store<uint32_t>(kShadow + 8, m.io.tail));
  m.push(kIoSq, m.io, NvmeMachine::blocks(kRead, 1, 1));
  ASSERT_TRUE(m.memory.store<uint32_t>(kShadow + 8, m.io.tail));
  m.settle();
  EXPECT_TRUE(m.pop(kIoCq, m.io, 1));
  EXPECT_TRUE(m.pop(kIoCq, m.io, 1));
  EXPECT_EQ(*m.memory.load<uint32_t>(kIndexes + 8), m.io.tail);
}

TEST(NvmeController, WriteProtectedDriveSaysSo) {
  NvmeMachine m(true);
  m.enable();
  m.make_queues();
  EXPECT_EQ(m.run_io(NvmeMachine::blocks(kWrite, 0, 1)), refused(kWriteProtected));
}

TEST(NvmeController, SerialNumberIsRequired) {
  TestSpace space{uint64_t{1} << 32};
  GuestMemory memory(space.space());
  EXPECT_FALSE(NvmeController::create("n", {.serial = "", .name = "n"}, memory));
}

TEST(NvmeController, MemoryBufferHoldsQueuesAndData) {
  constexpr uint64_t kCmb = 0xfe000000;
  NvmeMachine m(false, 1 << 20);
  m.nvme->config_write(0x18, 4, kCmb);
  m.space.out(kCmb, 0xccbbaa99, 4);
  EXPECT_EQ(m.space.in(kCmb, 2), 0xaa99u);
  m.set_reg(CMBMSC, kCmbCapabilities | kCmbMemorySpace | 0x40000000);
  EXPECT_EQ(m.reg(CMBLOC), 2u);
  m.enable();
  // In the controller's own addresses the buffer is at 1 GiB.
  ASSERT_EQ(m.run_admin({.opcode = kIdentify, .prp1 = 0x40001000, .cdw10 = kCnsController}), 0u);
  EXPECT_EQ(m.space.in(kCmb + 0x1004, 1), uint32_t{'S'});
}

TEST(NvmeController, PersistentRegionIsThereWhileItIsEnabled) {
  constexpr uint64_t kRegion = 0xfd000000;
  TestSpace space{uint64_t{1} << 32}, ports;
  FakeLines lines;
  bus::PciBus bus{space.root(), ports.root(), lines};
  GuestMemory memory(space.space());
  auto block = RamBlock::create("pmr", 4096);
  ASSERT_TRUE(block);
  auto made = NvmeController::create("n", {.serial = "S", .name = "n", .persistent = *block}, memory);
  ASSERT_TRUE(made);
  ASSERT_TRUE(bus.attach(**made, 4, 0));
  (*made)->config_write(0x10, 4, kBar);
  (*made)->config_write(0x20, 4, kRegion);
  (*made)->config_write(0x04, 2, 6);

  space.out(kRegion, 0x99, 1);
  EXPECT_EQ(space.in(kRegion, 1), 0xffu);
  EXPECT_EQ(space.in(kBar + PMRSTS, 4), kPmrNotReady);
  space.out(kBar + PMRCTL, kPmrEnable, 4);
  space.out(kRegion, 0x99, 1);
  EXPECT_EQ(space.in(kRegion, 1), 0x99u);
  EXPECT_EQ(space.in(kBar + PMRSTS, 4), 0u);
  (*made)->reset();
  EXPECT_EQ((*block)->host()[0], 0x99);
}

// --- state

TEST_F(NvmeIo, RequestsUnderWayTravel) {
  m.drive->hold();
  const auto data = pattern(512, 8);
  ASSERT_TRUE(m.memory.write(kData, data));
  m.submit_io(NvmeMachine::blocks(kWrite, 3, 1));
  m.settle();
  m.nvme->stop();
  const auto state = saved_state(*m.nvme);

  NvmeMachine other(false, 0, true);
  std::memcpy(other.ram->host(), m.ram->host(), kRam);
  other.nvme->stop();
  const auto restored = restore_state(*other.nvme, state);
  ASSERT_TRUE(restored) << restored.error().message;
  other.nvme->start();
  other.settle();
  EXPECT_EQ(other.on_disk(3 * 512, 512), data);
  const auto entry = other.pop(kIoCq, other.io, 1);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->status >> 1, 0);
  m.drive->cancel();
  m.drive->release();
}

TEST_F(NvmeIo, NothingHappensWhileStopped) {
  m.nvme->stop();
  m.submit_io(NvmeMachine::blocks(kRead, 0, 1));
  m.settle();
  EXPECT_FALSE(m.pop(kIoCq, m.io, 1));
}

TEST_F(NvmeIo, ImpossibleQueueIsRefused) {
  const auto state = saved_state(*m.nvme);
  // The head of submission queue 1 lies beyond its end.
  EXPECT_FALSE(restore_state(*m.nvme, with_patched_field(state, 4, 8 * 8 + 5 * 8, 500, 8)));
  EXPECT_EQ(saved_state(*m.nvme), state);
}

}  // namespace
}  // namespace kite::devices
