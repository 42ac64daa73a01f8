#include "devices/virtio/virtio_scsi.h"

#include "devices/scsi/test_scsi.h"
#include "devices/virtio/test_virtio.h"

namespace kite::devices {
namespace {

using namespace virtio_scsi;
using testing::restore_state;
using testing::saved_state;
using testing::TestBuffer;
using testing::TestDriver;
using testing::TestRing;
using testing::VirtioMachine;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint64_t kRings = 0x10000, kHeaders = 0x100000, kData = 0x200000;
constexpr uint16_t kRingSize = 16;
constexpr uint32_t kResponseBytes = kSenseAt + kDefaultSenseSize, kRequestBytes = kCdbAt + kDefaultCdbSize;

// A machine with a virtio-scsi function that a driver has set up: one ring for each of its three queues.
struct ScsiMachine : VirtioMachine {
  explicit ScsiMachine(bool packed = false) {
    register_scsi_types(types);
    types.add({.name = "device", .parent = "", .description = "", .bus = "", .properties = {}});
    auto device = std::make_unique<VirtioScsi>(*executor, "virtio-scsi", VirtioScsi::Config{.bus_name = "scsi0.0"},
                                               guest_memory, VirtioDevice::Options{.packed = true});
    bus = &device->bus();
    VirtioPci::Config transport;
    transport.vectors = 4;
    transport.legacy_device_id = kLegacyDeviceId;
    transport.class_code = kClass;
    function = std::make_unique<VirtioPci>("virtio-scsi", transport, std::move(device));
    attach(*function);
    EXPECT_TRUE(driver.negotiate(virtio::kVersion1 | kHotplug | kChange | (packed ? virtio::kRingPacked : 0)));
    for (uint16_t i = 0; i < 3; ++i) {
      rings.push_back(std::make_unique<TestRing>(*this, kRings + i * 0x8000u, kRingSize, packed));
      driver.set_queue(i, *rings[i], i);
    }
    driver.ready();
    for (uint16_t i = 0; i < 3; ++i) driver.kick(i);
    settle();
  }
  ~ScsiMachine() {
    function->stop();
    for (auto& drive : drives) drive->cancel();
    settle();
    for (auto& unit : units) bus->detach(*unit);
    settle();
    units.clear();
    function.reset();
    for (auto& drive : drives) EXPECT_TRUE(block::run_until_done(*executor, drive->close()));
  }

  block::Drive& add_drive() {
    block::NodeConfig config;
    auto node = std::make_shared<block::MemoryNode>(*executor, std::move(config), kDiskBytes);
    auto made = block::Drive::create(*executor, {.id = "d" + std::to_string(drives.size())}, std::move(node));
    EXPECT_TRUE(made);
    drives.push_back(std::move(*made));
    return *drives.back();
  }
  ScsiDevice& add_unit(const std::string& id, const std::string& lun = "0") {
    auto properties =
        types.resolve({.type = "scsi-hd", .id = "", .values = {{"scsi-id", id}, {"lun", lun}}}, "-device");
    EXPECT_TRUE(properties);
    const std::string path = "unit" + std::to_string(units.size());
    auto disk = make_disk_config("scsi-hd", path, *properties, &add_drive());
    EXPECT_TRUE(disk);
    auto unit = bus->attach({.type = "scsi-hd", .path = path, .disk = *disk, .properties = *properties});
    EXPECT_TRUE(unit);
    units.push_back(std::move(*unit));
    return static_cast<ScsiDevice&>(*units.back());
  }
  // Writes a request at slot `slot`; the response follows it.
  uint64_t put_request(unsigned slot, uint8_t target, uint16_t lun, uint64_t tag, const Bytes& cdb) const {
    const uint64_t at = kHeaders + slot * 0x400;
    std::memset(host(at), 0, 0x200);
    std::memset(host(at + 0x200), 0xee, 0x200);
    put<uint8_t>(at, 1);
    put<uint8_t>(at + 1, target);
    put<uint8_t>(at + 2, static_cast<uint8_t>(lun >> 8));
    put<uint8_t>(at + 3, static_cast<uint8_t>(lun));
    put(at + kIdAt, tag);
    std::copy(cdb.begin(), cdb.end(), host(at + kCdbAt));
    return at;
  }
  void submit(unsigned slot, uint8_t target, uint16_t lun, const Bytes& cdb, uint32_t in = 0, uint32_t out = 0,
              uint64_t tag = 0) {
    const uint64_t at = put_request(slot, target, lun, tag, cdb);
    std::vector<TestBuffer> buffers{{.address = at, .bytes = kRequestBytes}};
    if (out != 0) buffers.push_back({.address = kData, .bytes = out});
    buffers.push_back({.address = at + 0x200, .bytes = kResponseBytes, .write = true});
    if (in != 0) buffers.push_back({.address = kData, .bytes = in, .write = true});
    rings[2]->add(buffers);
    driver.kick(2);
    settle();
  }
  [[nodiscard]] uint8_t response(unsigned slot = 0) const {
    return get<uint8_t>(kHeaders + slot * 0x400 + 0x200 + kResponseAt);
  }
  [[nodiscard]] uint8_t status(unsigned slot = 0) const {
    return get<uint8_t>(kHeaders + slot * 0x400 + 0x200 + kStatusAt);
  }
  [[nodiscard]] uint32_t residual() const { return get<uint32_t>(kHeaders + 0x200 + kResidualAt); }
  [[nodiscard]] uint8_t sense(unsigned at) const { return get<uint8_t>(kHeaders + 0x200 + kSenseAt + at); }

  // A control request in slot 8; answers the response byte at `answer`.
  void submit_tmf(uint32_t subtype, uint8_t target, uint16_t lun, uint64_t tag) {
    const uint64_t at = kHeaders + 8 * 0x400;
    std::memset(host(at), 0, 0x200);
    put<uint8_t>(at + 0x200, 0xee);
    put<uint32_t>(at + kTmfSubtypeAt, subtype);
    put<uint8_t>(at + kTmfLunAt, 1);
    put<uint8_t>(at + kTmfLunAt + 1, target);
    put<uint8_t>(at + kTmfLunAt + 3, static_cast<uint8_t>(lun));
    put(at + kTmfIdAt, tag);
    rings[0]->add({{.address = at, .bytes = kTmfBytes}, {.address = at + 0x200, .bytes = 1, .write = true}});
    driver.kick(0);
    settle();
  }
  [[nodiscard]] uint8_t tmf_response() const { return get<uint8_t>(kHeaders + 8 * 0x400 + 0x200); }
  [[nodiscard]] bool broken() { return (driver.status() & virtio::kNeedsReset) != 0; }

  TypeRegistry types;
  std::vector<std::unique_ptr<block::Drive>> drives;
  std::unique_ptr<VirtioPci> function;
  ScsiBus* bus;
  std::vector<std::unique_ptr<bus::Device>> units;
  TestDriver driver{*this};
  std::vector<std::unique_ptr<TestRing>> rings;
};

class VirtioScsiTest : public ::testing::TestWithParam<bool> {
 protected:
  ScsiMachine machine_{GetParam()};
  void SetUp() override {
    machine_.add_unit("1");
    machine_.settle();
    machine_.submit(0, 1, 0, {0x00});  // takes the power-on attention
    ASSERT_TRUE(machine_.rings[2]->take());
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, VirtioScsiTest, ::testing::Bool(),
                         [](const auto& with) { return with.param ? "packed" : "split"; });

TEST_P(VirtioScsiTest, TheConfigurationTellsTheLimits) {
  EXPECT_EQ(machine_.driver.config(kNumQueues, 4), 1u);
  EXPECT_EQ(machine_.driver.config(kSegMax, 4), 254u);
  EXPECT_EQ(machine_.driver.config(kSenseSize, 4), 96u);
  EXPECT_EQ(machine_.driver.config(kMaxTarget, 2), 255u);
  EXPECT_EQ(machine_.driver.config(kMaxLun, 4), 16383u);
}

TEST_P(VirtioScsiTest, ACommandRuns) {
  machine_.submit(0, 1, 0, {0x00});

  const auto used = machine_.rings[2]->take();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, kResponseBytes);
  EXPECT_EQ(machine_.response(), kOk);
  EXPECT_EQ(machine_.status(), 0);
}

TEST_P(VirtioScsiTest, DataIsWrittenAndRead) {
  std::memset(machine_.host(kData), 0x5a, 1024);
  machine_.submit(0, 1, 0, {0x2a, 0, 0, 0, 0, 3, 0, 0, 2, 0}, 0, 1024);
  ASSERT_TRUE(machine_.rings[2]->take());
  std::memset(machine_.host(kData), 0, 2048);

  machine_.submit(0, 1, 0, {0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0}, 2048);

  const auto used = machine_.rings[2]->take();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, kResponseBytes + 1024);
  EXPECT_EQ(machine_.residual(), 1024u);
  EXPECT_EQ(*machine_.host(kData + 1023), 0x5a);
  EXPECT_EQ(*machine_.host(kData + 1024), 0);
}

TEST_P(VirtioScsiTest, SenseDataComesWithTheStatus) {
  machine_.submit(0, 1, 0, {0xc1});

  ASSERT_TRUE(machine_.rings[2]->take());
  EXPECT_EQ(machine_.status(), 2);
  EXPECT_EQ(machine_.get<uint32_t>(kHeaders + 0x200), 18u);
  EXPECT_EQ(machine_.sense(0), 0x70);
  EXPECT_EQ(machine_.sense(2), 5);
  EXPECT_EQ(machine_.sense(12), 0x20);
}

TEST_P(VirtioScsiTest, ACommandThatAsksForMoreThanTheBufferIsAnOverrun) {
  machine_.submit(0, 1, 0, {0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0}, 512);

  EXPECT_EQ(machine_.response(), kOverrun);
}

TEST_P(VirtioScsiTest, ATargetThatIsNotThereIsBad) {
  machine_.submit(0, 2, 0, {0x00});

  EXPECT_EQ(machine_.response(), kBadTarget);
}

TEST_P(VirtioScsiTest, AUnitThatIsNotThereAnswersInquiry) {
  machine_.submit(0, 1, 5, {0x12, 0, 0, 0, 36}, 36);
  EXPECT_EQ(machine_.response(), kOk);
  EXPECT_EQ(*machine_.host(kData), 0x7f);

  machine_.submit(1, 1, 5, {0x00});
  EXPECT_EQ(machine_.status(1), 2);
}

TEST_P(VirtioScsiTest, FlatAddressingIsUnderstood) {
  machine_.submit(0, 1, 0x4000, {0x00});

  EXPECT_EQ(machine_.response(), kOk);
  machine_.submit(1, 1, 0x8000, {0x00});
  EXPECT_EQ(machine_.response(1), kBadTarget);
}

TEST_P(VirtioScsiTest, ARequestWithoutRoomForItsResponseBreaksTheDevice) {
  const uint64_t at = machine_.put_request(0, 1, 0, 0, {0x00});
  machine_.rings[2]->add(
      {{.address = at, .bytes = kRequestBytes}, {.address = at + 0x200, .bytes = kResponseBytes - 1, .write = true}});

  machine_.driver.kick(2);
  machine_.settle();

  EXPECT_TRUE(machine_.broken());
}

TEST_P(VirtioScsiTest, DataOutsideOfMemoryBreaksTheDevice) {
  const uint64_t at = machine_.put_request(0, 1, 0, 0, {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0});
  machine_.rings[2]->add({{.address = at, .bytes = kRequestBytes},
                          {.address = at + 0x200, .bytes = kResponseBytes, .write = true},
                          {.address = uint64_t{1} << 39, .bytes = 512, .write = true}});

  machine_.driver.kick(2);
  machine_.settle();

  EXPECT_TRUE(machine_.broken());
}

TEST_P(VirtioScsiTest, AbortedTasksEndBeforeTheFunction) {
  machine_.drives[0]->hold();
  machine_.submit(0, 1, 0, {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 512, 0, 77);
  EXPECT_FALSE(machine_.rings[2]->take());
  machine_.submit_tmf(kQueryTask, 1, 0, 77);
  EXPECT_EQ(machine_.tmf_response(), kFunctionSucceeded);

  machine_.submit_tmf(kAbortTask, 1, 0, 77);

  EXPECT_EQ(machine_.tmf_response(), kOk);
  EXPECT_TRUE(machine_.rings[2]->take());
  EXPECT_EQ(machine_.response(), Response::kAborted);
  machine_.drives[0]->release();
}

TEST_P(VirtioScsiTest, AUnitsResetEndsItsTasksAndIsTold) {
  machine_.drives[0]->hold();
  machine_.submit(0, 1, 0, {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 512, 0, 77);

  machine_.submit_tmf(kLogicalUnitReset, 1, 0, 0);

  EXPECT_EQ(machine_.tmf_response(), kOk);
  EXPECT_EQ(machine_.response(), kReset);
  machine_.drives[0]->release();
  machine_.submit(0, 1, 0, {0x00});
  EXPECT_EQ(machine_.sense(12), 0x29);
  EXPECT_EQ(machine_.sense(13), 0x03);
}

TEST_P(VirtioScsiTest, FunctionsForNobodySaySo) {
  machine_.submit_tmf(kAbortTask, 2, 0, 0);
  EXPECT_EQ(machine_.tmf_response(), kBadTarget);
  machine_.submit_tmf(kAbortTask, 1, 3, 0);
  EXPECT_EQ(machine_.tmf_response(), kIncorrectLun);
  machine_.submit_tmf(kClearAca, 1, 0, 0);
  EXPECT_EQ(machine_.tmf_response(), kFunctionRejected);
}

TEST_P(VirtioScsiTest, ANewUnitIsAnnouncedOnceTheDriverHasRoom) {
  ASSERT_FALSE(machine_.rings[1]->take());
  machine_.rings[1]->add({{.address = kData, .bytes = kEventBytes, .write = true}});
  machine_.driver.kick(1);
  machine_.settle();

  // Unit 1 came before there was room.
  ASSERT_TRUE(machine_.rings[1]->take());
  EXPECT_EQ(machine_.get<uint32_t>(kData), kTransportReset);
  EXPECT_EQ(machine_.get<uint32_t>(kData + kEventReasonAt), kRescan);
  EXPECT_EQ(machine_.get<uint8_t>(kData + kEventLunAt + 1), 1);
}

TEST_P(VirtioScsiTest, AUnitThatGoesIsAnnounced) {
  for (int i = 0; i < 2; ++i)
    machine_.rings[1]->add({{.address = kData + static_cast<unsigned>(i) * 64, .bytes = kEventBytes, .write = true}});
  machine_.driver.kick(1);
  machine_.settle();

  machine_.bus->detach(*machine_.units[0]);
  machine_.settle();

  EXPECT_EQ(machine_.get<uint32_t>(kData + 64 + kEventReasonAt), kRemoved);
  machine_.submit(0, 1, 0, {0x00});
  EXPECT_EQ(machine_.response(), kBadTarget);
}

TEST_P(VirtioScsiTest, ALongerDiskIsAChangedParameter) {
  for (int i = 0; i < 2; ++i)
    machine_.rings[1]->add({{.address = kData + static_cast<unsigned>(i) * 64, .bytes = kEventBytes, .write = true}});
  machine_.driver.kick(1);

  machine_.drives[0]->resized();
  machine_.settle();

  EXPECT_EQ(machine_.get<uint32_t>(kData + 64), kParameterChange);
  EXPECT_EQ(machine_.get<uint32_t>(kData + 64 + kEventReasonAt), 0x092au);
}

TEST_P(VirtioScsiTest, AResetEndsWhatWaits) {
  machine_.drives[0]->hold();
  machine_.submit(0, 1, 0, {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 512);

  machine_.driver.set_status(0);
  machine_.settle();

  EXPECT_EQ(machine_.driver.status(), 0);
  EXPECT_EQ(machine_.response(), 0xee);
  machine_.drives[0]->release();
}

TEST_P(VirtioScsiTest, RequestsUnderWayTravelWithTheState) {
  machine_.drives[0]->hold();
  machine_.submit(0, 1, 0, {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 512);
  ScsiMachine copy(GetParam());
  copy.add_unit("1");
  ASSERT_TRUE(restore_state(*copy.units[0], saved_state(*machine_.units[0])));

  move_state(machine_, copy);

  EXPECT_EQ(copy.response(), kOk);
  EXPECT_EQ(copy.status(), 0);
  machine_.drives[0]->release();
}

TEST_P(VirtioScsiTest, AShorterCdbSizeMovesTheData) {
  machine_.store(VirtioMachine::kModern + 0x2000 + kCdbSize, 16, 4);
  const uint64_t at = machine_.put_request(0, 1, 0, 0, {0x00});
  machine_.rings[2]->add(
      {{.address = at, .bytes = kCdbAt + 16u}, {.address = at + 0x200, .bytes = kResponseBytes, .write = true}});
  machine_.driver.kick(2);
  machine_.settle();

  EXPECT_EQ(machine_.response(), kOk);
}

TEST_P(VirtioScsiTest, ACdbSizeBeyondReasonBreaksTheDevice) {
  machine_.store(VirtioMachine::kModern + 0x2000 + kCdbSize, 0xffffffff, 4);

  machine_.submit(0, 1, 0, {0x00});

  EXPECT_TRUE(machine_.broken());
}

}  // namespace
}  // namespace kite::devices
