// What the tests of IDE and AHCI share: drives over memory nodes, an executor turned by hand, disks on a bus.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "block/drive.h"
#include "devices/ata/ata_bus.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"
#include "devices/types.h"

namespace kite::testing {

inline constexpr uint64_t kDiskSectors = 4096;  // of 512 bytes

// Bytes in memory; fails requests on demand.
class FaultyNode final : public block::BlockNode {
 public:
  FaultyNode(Executor& executor, block::NodeConfig config, uint64_t size)
      : BlockNode(executor, "faulty", std::move(config)), bytes(size) {}
  [[nodiscard]] uint64_t length() const override { return bytes.size(); }
  std::vector<uint8_t> bytes;
  int fail_with = 0;  // an errno for every request
  int writes = 0, fua_writes = 0, flushes = 0, discards = 0;

 protected:
  Task<block::IoResult<>> do_read(uint64_t offset, block::IoSlice to, block::IoHow) override {
    if (fail_with == 0) to.copy_from(&bytes[offset]);
    return answer();
  }
  Task<block::IoResult<>> do_write(uint64_t offset, block::IoSlice from, block::IoHow how) override {
    ++writes;
    fua_writes += how.has(block::IoHow::kFua);
    if (fail_with == 0) from.copy_to(&bytes[offset]);
    return answer();
  }
  Task<block::IoResult<>> do_flush(block::IoHow) override {
    ++flushes;
    return answer();
  }
  Task<block::IoResult<>> do_discard(uint64_t offset, uint64_t size, block::IoHow) override {
    ++discards;
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), size, uint8_t{0});
    return answer();
  }

 private:
  [[nodiscard]] Task<block::IoResult<>> answer() const {
    return block::ready(fail_with == 0 ? block::IoResult<>{} : block::IoResult<>(block::io_fail(fail_with)));
  }
};

// A made-up machine's memory and drives; the deriving fixture adds a controller.
class AtaMachine {
 public:
  static constexpr uint64_t kRamSize = 4 << 20;

  AtaMachine() {
    auto block = RamBlock::create("ram", kRamSize);
    EXPECT_TRUE(block);
    ram = *block;
    memory.map(0, Region::ram("ram", ram));
    memory.commit();
    auto made = Executor::create("test");
    EXPECT_TRUE(made);
    executor = std::move(*made);
    devices::register_device_types(types);
  }
  ~AtaMachine() {
    for (auto& drive : drives) EXPECT_TRUE(block::run_until_done(*executor, drive->close()));
  }

  block::Drive& add_drive(const std::string& id, uint64_t bytes, bool read_only = false) {
    block::NodeConfig config;
    config.name = id + "-node";
    config.discard_unmap = true;
    auto node = std::make_shared<FaultyNode>(*executor, std::move(config), bytes);
    auto made = block::Drive::create(*executor, {.id = id, .read_only = read_only}, node);
    EXPECT_TRUE(made);
    nodes.push_back(node);
    drives.push_back(std::move(*made));
    return *drives.back();
  }
  block::Drive& add_empty_drive(const std::string& id) {
    auto made = block::Drive::create(*executor, {.id = id, .read_only = true}, nullptr);
    EXPECT_TRUE(made);
    nodes.push_back(nullptr);
    drives.push_back(std::move(*made));
    return *drives.back();
  }
  // With a geometry, so that nothing is read while it is attached.
  Result<std::unique_ptr<bus::Device>> attach(devices::DiskBus& bus, const std::string& type, block::Drive* drive,
                                              std::vector<std::pair<std::string, std::string>> values = {}) {
    if (type == "ide-hd") {
      values.emplace_back("cyls", "65");
      values.emplace_back("heads", "16");
      values.emplace_back("secs", "63");
    }
    KITE_ASSIGN(const PropertyMap properties, types.resolve({.type = type, .id = "", .values = values}, "-device"));
    KITE_ASSIGN(devices::DiskConfig disk, devices::make_disk_config(type, "", properties, drive));
    const std::string path = type + std::to_string(attached++);
    return bus.attach({.type = type, .path = path, .disk = std::move(disk), .properties = properties});
  }

  // Fills sectors of a drive's node with bytes that tell them apart.
  void fill(size_t drive, uint64_t first, uint64_t count) {
    for (size_t i = 0; i < count * 512; ++i) nodes[drive]->bytes[first * 512 + i] = pattern(first + i / 512, i % 512);
  }
  static uint8_t pattern(uint64_t sector, size_t at) { return static_cast<uint8_t>(sector * 37 + at * 11 + at / 256); }
  std::vector<uint8_t> content(size_t drive, uint64_t first, uint64_t count) {
    const auto at = nodes[drive]->bytes.begin() + static_cast<std::ptrdiff_t>(first * 512);
    return {at, at + static_cast<std::ptrdiff_t>(count * 512)};
  }
  // Requests of the devices come to their end.
  void settle() {
    for (int i = 0; i < 40; ++i) executor->run_once(0);
  }

  TestSpace ports, memory{uint64_t{1} << 32};
  std::shared_ptr<RamBlock> ram;
  GuestMemory guest{memory.space()};
  std::unique_ptr<Executor> executor;
  TypeRegistry types;
  std::vector<std::shared_ptr<FaultyNode>> nodes;
  std::vector<std::unique_ptr<block::Drive>> drives;
  unsigned attached = 0;
};

}  // namespace kite::testing
