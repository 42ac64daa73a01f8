// A machine with a virtio-blk function, and a driver that sets it up and makes requests.
#pragma once

#include "devices/virtio/test_virtio.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_blk_regs.h"

namespace kite::testing {

inline constexpr uint64_t kDiskBytes = 1 << 20;
inline constexpr uint64_t kRing = 0x10000, kHeaders = 0x100000, kData = 0x200000, kTables = 0x300000;
inline constexpr uint16_t kRingSize = 8;

// Kind of rings.
struct Choice {
  bool packed, event_index;
};

// A machine with a virtio-blk function that a driver has set up.
struct BlkMachine : VirtioMachine {
  explicit BlkMachine(devices::VirtioBlk::Config config = {}, devices::VirtioPci::Config transport = {},
                      devices::VirtioDevice::Options options = {.packed = true}, block::DriveConfig drive_config = {}) {
    disk = std::make_shared<TestDisk>(*executor, kDiskBytes);
    auto made = block::Drive::create(*executor, std::move(drive_config), disk);
    EXPECT_TRUE(made);
    drive = std::move(*made);
    config.disk.drive = drive.get();
    config.disk.id = "disk";
    config.disk.serial = "serial-number";
    transport.vectors = 3;
    transport.legacy_device_id = devices::virtio_blk::kLegacyDeviceId;
    transport.class_code = devices::virtio_blk::kClass;
    function = std::make_unique<devices::VirtioPci>(
        "virtio-blk", transport,
        std::make_unique<devices::VirtioBlk>("virtio-blk", std::move(config), guest_memory, options));
    attach(*function);
  }
  ~BlkMachine() {
    function->stop();
    drive->cancel();
    settle();
    function.reset();
    executor->post([this] { scope.spawn(close()); });
    settle();
  }
  Task<void> close() { static_cast<void>(co_await drive->close()); }
  // Features of the ring, and the disk's own.
  void set_up(Choice choice, uint64_t more = devices::virtio_blk::kFlush | devices::virtio_blk::kDiscard |
                                             devices::virtio_blk::kWriteZeroes) {
    const uint64_t ring_bits =
        (choice.packed ? devices::virtio::kRingPacked : 0) | (choice.event_index ? devices::virtio::kEventIndex : 0);
    ASSERT_TRUE(driver.negotiate(devices::virtio::kVersion1 | devices::virtio::kIndirect | ring_bits | more));
    ring.emplace(*this, kRing, kRingSize, choice.packed);
    driver.set_queue(0, *ring, 1);
    driver.ready();
  }
  // Puts a header at slot `slot` of the headers' page.
  uint64_t header(unsigned slot, uint32_t type, uint64_t sector) const {
    const uint64_t at = kHeaders + slot * 32;
    put(at, type);
    put(at + 4, 0);
    put(at + 8, sector);
    put(at + 16, uint8_t{0xee});  // the status goes here
    return at;
  }
  [[nodiscard]] uint8_t request_status(unsigned slot = 0) const { return get<uint8_t>(kHeaders + slot * 32 + 16); }
  uint16_t add(unsigned slot, uint32_t type, uint64_t sector, std::vector<TestBuffer> data, uint64_t indirect = 0) {
    const uint64_t at = header(slot, type, sector);
    data.insert(data.begin(), {.address = at, .bytes = 16});
    data.push_back({.address = at + 16, .bytes = 1, .write = true});
    return ring->add(data, indirect);
  }
  // One request, from beginning to end.
  uint8_t request(uint32_t type, uint64_t sector, std::vector<TestBuffer> data, uint64_t indirect = 0) {
    add(0, type, sector, std::move(data), indirect);
    driver.kick();
    settle();
    EXPECT_TRUE(ring->take());
    return request_status();
  }
  void fill(uint64_t address, size_t bytes, uint8_t value) const { std::memset(host(address), value, bytes); }

  std::shared_ptr<TestDisk> disk;
  std::unique_ptr<block::Drive> drive;
  std::unique_ptr<devices::VirtioPci> function;
  TaskScope scope;
  TestDriver driver{*this};
  std::optional<TestRing> ring;
};

}  // namespace kite::testing
