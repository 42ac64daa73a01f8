// A hostile guest at the SCSI target layer: any command, with any data, at a disk, a removable disk and a CD drive on
// one bus; task management, resets, media that come and go and saved state between them. After every command the reply
// must be one that a transport can carry, and the state must survive a save.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "block/plain_nodes.h"
#include "devices/scsi/scsi_bus.h"
#include "devices/storage/removable.h"
#include "fuzz/byte_source.h"

namespace kite::devices {
namespace {

void require_that(bool holds) {
  if (!holds) std::abort();
}

class World {
 public:
  explicit World(Executor& executor) : executor_(executor) {
    register_scsi_types(types_);
    types_.add({.name = "device", .parent = "", .description = "", .bus = "", .properties = {}});
    add("scsi-hd", {{"lun", "0"}, {"serial", "S"}}, 300 * 512);
    add("scsi-hd", {{"lun", "1"}, {"removable", "on"}, {"logical_block_size", "4096"}}, 64 * 4096);
    add("scsi-cd", {{"lun", "2"}}, 50 * 2048);
  }
  ~World() {
    for (auto& unit : units_) bus_.detach(*unit);
    units_.clear();
    for (auto& drive : drives_) (void)block::run_until_done(executor_, drive->close());
  }

  void step(fuzz::ByteSource& source) {
    const auto kind = source.take<uint8_t>();
    ScsiDevice& unit = static_cast<ScsiDevice&>(*units_[kind % units_.size()]);
    switch (kind >> 5) {
      case 0: return manage(unit, source);
      case 1: return absent(source);
      case 2: return save_and_restore(unit, source);
      default: return command(unit, source);
    }
  }

 private:
  static constexpr uint64_t kMostBytes = 1 << 20;

  void add(const char* type, std::vector<std::pair<std::string, std::string>> values, uint64_t bytes) {
    values.emplace_back("scsi-id", "0");
    const auto properties = types_.resolve({.type = type, .id = "", .values = std::move(values)}, "-device");
    require_that(properties.has_value());
    block::NodeConfig config;
    config.discard_unmap = true;
    auto node = std::make_shared<block::MemoryNode>(executor_, std::move(config), bytes);
    auto drive = block::Drive::create(executor_, {.id = type}, std::move(node));
    require_that(drive.has_value());
    drives_.push_back(std::move(*drive));
    const std::string path = "unit" + std::to_string(units_.size());
    auto disk = make_disk_config(type, path, *properties, drives_.back().get());
    require_that(disk.has_value());
    auto unit = bus_.attach({.type = type, .path = path, .disk = std::move(*disk), .properties = *properties});
    require_that(unit.has_value());
    units_.push_back(std::move(*unit));
  }

  static Cdb take_cdb(fuzz::ByteSource& source) {
    Cdb cdb{};
    for (uint8_t& byte : cdb) byte = source.take<uint8_t>();
    return cdb;
  }

  void command(ScsiDevice& unit, fuzz::ByteSource& source) {
    ScsiCommand command{.cdb = take_cdb(source), .tag = source.take<uint8_t>(), .data_in = {}, .data_out = {}};
    const ScsiTransfer transfer = unit.transfer_of(command.cdb);
    if (transfer.bytes > kMostBytes) return;  // a transport has no such buffer
    std::vector<uint8_t> data(transfer.bytes);
    if (transfer.direction == ScsiDirection::kToGuest) command.data_in = block::IoSlice(std::span(data));
    if (transfer.direction == ScsiDirection::kFromGuest) {
      for (uint8_t& byte : std::span(data).first(std::min<size_t>(data.size(), 256))) byte = source.take<uint8_t>();
      command.data_out = block::IoSlice(std::span(data));
    }
    const ScsiReply reply = block::run_until_done(executor_, unit.execute(command));
    require_that(!reply.aborted && reply.moved <= transfer.bytes);
    require_that((reply.status == ScsiStatus::kCheckCondition) == (reply.sense != sense::kNone));
    require_that(!unit.has_tasks());
  }

  void manage(ScsiDevice& unit, fuzz::ByteSource& source) {
    auto* const tray = dynamic_cast<Removable*>(&unit);
    switch (source.take<uint8_t>() % 8) {
      case 0: return unit.reset();
      case 1: return unit.logical_reset(sense::kDeviceReset);
      case 2: return unit.hold_sense(sense::kOutOfRange);
      case 3: return unit.capacity_changed();
      case 4: return bus_.reset_units(sense::kBusReset);
      case 5: return tray == nullptr ? void() : tray->set_tray((source.take<uint8_t>() & 1) != 0);
      case 6: return tray == nullptr ? void() : tray->request_eject();
      default: return tray == nullptr ? void() : tray->medium_changed();
    }
  }

  void absent(fuzz::ByteSource& source) {
    ScsiCommand command{.cdb = take_cdb(source), .tag = 0, .data_in = {}, .data_out = {}};
    const uint64_t bytes = ScsiBus::absent_transfer(command.cdb).bytes;
    if (bytes > kMostBytes) return;
    std::vector<uint8_t> data(bytes);
    command.data_in = block::IoSlice(std::span(data));
    require_that(bus_.absent_unit({.channel = 0, .id = 0, .lun = 7}, command).moved <= bytes);
  }

  static std::vector<uint8_t> saved(ScsiDevice& unit) {
    StateWriter writer;
    unit.save(writer);
    return writer.take();
  }

  void save_and_restore(ScsiDevice& unit, fuzz::ByteSource& source) {
    const std::vector<uint8_t> before = saved(unit);
    std::vector<uint8_t> state = before;
    const bool damaged = (source.take<uint8_t>() & 1) != 0;
    if (damaged) state[source.below(static_cast<uint32_t>(state.size()))] ^= source.take<uint8_t>();
    StateReader reader(state);
    unit.restore(reader);
    if (!damaged) require_that(reader.finish().has_value());
    require_that(saved(unit) == (reader.finish() ? state : before));
  }

  Executor& executor_;
  TypeRegistry types_;
  ScsiBus bus_{"scsi.0", {}, true, nullptr};
  std::vector<std::unique_ptr<block::Drive>> drives_;
  std::vector<std::unique_ptr<bus::Device>> units_;
};

}  // namespace
}  // namespace kite::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<kite::Executor> executor = *kite::Executor::create("fuzz");
  kite::fuzz::ByteSource source(data, size);
  kite::devices::World world(*executor);
  for (int i = 0; i < 200 && !source.empty(); ++i) world.step(source);
  return 0;
}
