// A SCSI bus with units over disks in memory, for tests: commands in, replies and data out.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/plain_nodes.h"
#include "devices/scsi/scsi_bus.h"
#include "support/bytes.h"

namespace kite::testing {

using Texts = std::vector<std::pair<std::string, std::string>>;

class ScsiWorld {
 public:
  struct Answer {
    devices::ScsiReply reply;
    std::vector<uint8_t> data;  // what was moved to the guest
    [[nodiscard]] bool good() const { return reply.status == devices::ScsiStatus::kGood && !reply.aborted; }
    [[nodiscard]] devices::ScsiSense sense() const { return reply.sense; }
  };

  explicit ScsiWorld(devices::ScsiBus::Limits limits = {}, devices::ScsiBus::Listener* listener = nullptr)
      : bus("scsi0.0", limits, true, listener) {
    auto made = Executor::create("block");
    EXPECT_TRUE(made);
    executor = std::move(*made);
    devices::register_scsi_types(types);
    types.add({.name = "device", .parent = "", .description = "", .bus = "", .properties = {}});
  }
  ~ScsiWorld() {
    for (auto& unit : units) bus.detach(*unit);
    settle();
    units.clear();
    for (auto& drive : drives) EXPECT_TRUE(block::run_until_done(*executor, drive->close()));
  }

  // A drive over a disk of that many bytes; 0: without a medium.
  block::Drive& add_drive(uint64_t bytes, bool read_only = false) {
    block::NodePtr node;
    if (bytes != 0) node = make_node(bytes);
    block::DriveConfig config{.id = "drive" + std::to_string(drives.size()), .read_only = read_only};
    auto drive = block::Drive::create(*executor, std::move(config), std::move(node));
    EXPECT_TRUE(drive);
    drives.push_back(std::move(*drive));
    return *drives.back();
  }
  std::shared_ptr<block::MemoryNode> make_node(uint64_t bytes) {
    block::NodeConfig config;
    config.discard_unmap = true;
    return std::make_shared<block::MemoryNode>(*executor, std::move(config), bytes);
  }

  Result<devices::ScsiDevice*> try_add(const std::string& type, Texts values, block::Drive* drive) {
    KITE_ASSIGN(const PropertyMap properties, types.resolve({.type = type, .id = "", .values = values}, "-device"));
    const std::string path = "unit" + std::to_string(units.size());
    KITE_ASSIGN(devices::DiskConfig disk, devices::make_disk_config(type, path, properties, drive));
    KITE_ASSIGN(auto unit, bus.attach({.type = type, .path = path, .disk = std::move(disk), .properties = properties}));
    units.push_back(std::move(unit));
    return static_cast<devices::ScsiDevice*>(units.back().get());
  }
  // A unit past its power-on attention.
  devices::ScsiDevice& add(const std::string& type, Texts values, block::Drive* drive) {
    auto unit = try_add(type, std::move(values), drive);
    EXPECT_TRUE(unit) << unit.error().message;
    EXPECT_EQ(run(**unit, {0x00}).sense(), devices::sense::kPowerOn);
    return **unit;
  }

  Answer run(devices::ScsiDevice& unit, const std::vector<uint8_t>& cdb, std::vector<uint8_t> out = {}) {
    devices::ScsiCommand command = make(cdb);
    const devices::ScsiTransfer transfer = unit.transfer_of(command.cdb);
    std::vector<uint8_t> in(transfer.direction == devices::ScsiDirection::kToGuest ? transfer.bytes : 0);
    command.data_in = block::IoSlice(std::span(in));
    command.data_out = block::IoSlice(std::span(out));
    Answer answer{.reply = block::run_until_done(*executor, unit.execute(command)), .data = {}};
    in.resize(in.empty() ? 0 : answer.reply.moved);
    answer.data = std::move(in);
    return answer;
  }
  static devices::ScsiCommand make(const std::vector<uint8_t>& cdb, uint64_t tag = 0) {
    devices::ScsiCommand command{.cdb = {}, .tag = tag, .data_in = {}, .data_out = {}};
    std::copy(cdb.begin(), cdb.end(), command.cdb.begin());
    return command;
  }
  void settle() {
    for (int i = 0; i < 100; ++i) executor->run_once(0);
  }
  std::vector<uint8_t> content(block::Drive& drive, uint64_t offset, uint64_t bytes) {
    std::vector<uint8_t> data(bytes);
    EXPECT_TRUE(block::run_until_done(*executor, drive.read(offset, block::IoSlice(std::span(data)))));
    return data;
  }

  std::unique_ptr<Executor> executor;
  TypeRegistry types;
  std::vector<std::unique_ptr<block::Drive>> drives;
  devices::ScsiBus bus;
  std::vector<std::unique_ptr<bus::Device>> units;
};

}  // namespace kite::testing
