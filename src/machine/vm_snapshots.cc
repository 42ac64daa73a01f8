#include "machine/vm_snapshots.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include "block/image.h"
#include "machine/drive_store.h"
#include "machine/guest_ram.h"
#include "snapshot/ram_copy.h"
#include "snapshot/stream.h"
#include "support/log.h"

namespace kite::machine {

namespace {

using block::FormatNode;
using block::IoResult;
using block::IoSlice;
using block::SnapshotInfo;

constexpr size_t kPieceBytes = 1u << 20;

// --- on the block thread

Task<IoResult<>> write_piece(FormatNode& node, uint64_t offset, std::span<uint8_t> bytes) {
  co_return co_await node.write_vm_state(offset, IoSlice(bytes.data(), bytes.size()), {});
}
Task<IoResult<>> read_piece(FormatNode& node, uint64_t offset, std::span<uint8_t> to) {
  co_return co_await node.read_vm_state(offset, IoSlice(to.data(), to.size()));
}
Task<Result<>> create_snapshot(FormatNode& node, SnapshotInfo info) {
  co_return co_await node.snapshot_create(std::move(info));
}
Task<Result<>> apply_snapshot(FormatNode& node, std::string id) { co_return co_await node.snapshot_apply(id); }
Task<Result<>> drop_snapshot(FormatNode& node, std::string id) { co_return co_await node.snapshot_delete(id); }
// Bitmaps would not know what has changed by going back.
Task<Result<>> may_go_back(FormatNode& node) {
  if (node.bitmaps().empty()) co_return Result<>{};
  co_return fail("it has the dirty bitmap '{}'; block-dirty-bitmap-remove takes it away",
                 node.bitmaps().all().front()->name());
}
Task<std::vector<SnapshotInfo>> snapshots_of(FormatNode& node) { co_return node.image_info().snapshots; }

struct Disk {
  std::string name;  // of the drive or its device, for messages
  FormatNode* format;
  block::Drive* drive;
};
// Every disk that the guest may have written; `format` is null where it holds no snapshots.
Task<std::vector<Disk>> written_disks(DriveStore& store) {
  std::vector<Disk> disks;
  for (const auto& entry : store.entries()) {
    const block::NodePtr& node = entry->drive->node();
    if (node == nullptr || node->read_only()) continue;
    auto* const format = dynamic_cast<FormatNode*>(node.get());
    disks.push_back({.name = entry->spec.id.empty() ? entry->qdev : entry->spec.id,
                     .format = format != nullptr && format->holds_snapshots() ? format : nullptr,
                     .drive = entry->drive.get()});
  }
  co_return disks;
}
Task<void> take_new_lengths(std::vector<Disk> disks) {
  for (const Disk& disk : disks) disk.drive->refresh();
  co_return;
}

// --- the state in an image

// Writes in pieces; flush() the last.
class ImageSink final : public snapshot::ByteSink {
 public:
  ImageSink(DriveStore& store, FormatNode& node) : store_(store), node_(node) { piece_.reserve(kPieceBytes); }
  Result<> write(std::span<const uint8_t> bytes) override {
    while (!bytes.empty()) {
      const size_t taken = std::min(bytes.size(), kPieceBytes - piece_.size());
      piece_.insert(piece_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
      bytes = bytes.subspan(taken);
      if (piece_.size() == kPieceBytes) KITE_TRY(flush());
    }
    return {};
  }
  Result<> flush() {
    if (piece_.empty()) return {};
    const auto done = store_.run(write_piece(node_, offset_, piece_));
    if (!done) return fail("writing the machine's state: {}", errno_text(done.error().code));
    offset_ += piece_.size();
    piece_.clear();
    return {};
  }
  [[nodiscard]] uint64_t bytes() const { return offset_; }

 private:
  DriveStore& store_;
  FormatNode& node_;
  std::vector<uint8_t> piece_;
  uint64_t offset_ = 0;
};

class ImageSource final : public snapshot::ByteSource {
 public:
  ImageSource(DriveStore& store, FormatNode& node, uint64_t bytes) : store_(store), node_(node), left_(bytes) {}
  Result<> read(std::span<uint8_t> to) override {
    while (!to.empty()) {
      if (at_ == piece_.size()) KITE_TRY(fetch());
      const size_t taken = std::min(to.size(), piece_.size() - at_);
      std::copy_n(piece_.begin() + static_cast<std::ptrdiff_t>(at_), taken, to.begin());
      at_ += taken;
      to = to.subspan(taken);
    }
    return {};
  }

 private:
  Result<> fetch() {
    if (left_ == 0) return fail("the machine's state ends in the middle");
    piece_.resize(std::min<uint64_t>(left_, kPieceBytes));
    const auto done = store_.run(read_piece(node_, offset_, piece_));
    if (!done) return fail("reading the machine's state: {}", errno_text(done.error().code));
    offset_ += piece_.size();
    left_ -= piece_.size();
    at_ = 0;
    return {};
  }

  DriveStore& store_;
  FormatNode& node_;
  std::vector<uint8_t> piece_;
  size_t at_ = 0;
  uint64_t offset_ = 0, left_;
};

// --- what there is

Result<std::vector<Disk>> disks_of(Machine& machine) {
  if (machine.drives() == nullptr) return fail("this machine has no disks to keep a snapshot in");
  std::vector<Disk> disks = machine.drives()->run(written_disks(*machine.drives()));
  for (const Disk& disk : disks)
    if (disk.format == nullptr)
      return fail("Device '{}' is writable but does not support snapshots: its image must be a qcow2", disk.name);
  if (disks.empty()) return fail("No block device can accept snapshots: the machine has no disk that can be written");
  return disks;
}

// By name, or by id where no name fits.
const SnapshotInfo* find(const std::vector<SnapshotInfo>& all, std::string_view name) {
  const auto named = std::ranges::find(all, name, &SnapshotInfo::name);
  if (named != all.end()) return &*named;
  const auto numbered = std::ranges::find(all, name, &SnapshotInfo::id);
  return numbered == all.end() ? nullptr : &*numbered;
}

// What a disk has of a snapshot.
struct Part {
  Disk disk;
  SnapshotInfo info;
};
Result<std::vector<Part>> parts_of(Machine& machine, std::string_view name) {
  KITE_ASSIGN(const std::vector<Disk> disks, disks_of(machine));
  std::vector<Part> parts;
  for (const Disk& disk : disks) {
    const std::vector<SnapshotInfo> all = machine.drives()->run(snapshots_of(*disk.format));
    const SnapshotInfo* const found = find(all, name);
    if (found == nullptr) return fail("Device '{}' does not have the requested snapshot '{}'", disk.name, name);
    parts.push_back({.disk = disk, .info = *found});
  }
  return parts;
}

Result<> may_be_held(Machine& machine) {
  const bool here = machine.state() != RunState::kSuspended && machine.state() != RunState::kPostMigrate;
  if (!machine.held() && here) return machine.drives() == nullptr ? Result<>{} : machine.drives()->no_job();
  return fail("a machine in state '{}' has no snapshots made or gone back to", run_state_name(machine.state()));
}

// --- saving

Result<uint64_t> write_state(Machine& machine, FormatNode& node) {
  ImageSink sink(*machine.drives(), node);
  snapshot::StreamWriter writer(sink);
  snapshot::RamSender ram(guest_ram(machine.memory()));
  KITE_TRY(writer.begin(0));
  KITE_TRY(ram.send_blocks(writer));
  KITE_TRY(ram.send_pass(writer));
  KITE_TRY(writer.end(machine.save_state()));
  KITE_TRY(sink.flush());
  return sink.bytes();
}

Result<> write_snapshot(Machine& machine, const std::vector<Disk>& disks, std::string_view name) {
  DriveStore& store = *machine.drives();
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  SnapshotInfo info{.name = std::string(name),
                    .date_seconds = static_cast<uint32_t>(nanoseconds / 1'000'000'000),
                    .date_nanoseconds = static_cast<uint32_t>(nanoseconds % 1'000'000'000),
                    .vm_clock_ns = static_cast<uint64_t>(std::max<int64_t>(machine.clock().now(), 0))};
  KITE_ASSIGN(info.vm_state_bytes, write_state(machine, *disks.front().format));
  for (const Disk& disk : disks) {
    for (const SnapshotInfo& old : store.run(snapshots_of(*disk.format)))
      if (old.name == name) KITE_TRY(store.run(drop_snapshot(*disk.format, old.id)));
    if (auto done = store.run(create_snapshot(*disk.format, info)); !done)
      return fail("Error while creating snapshot on '{}': {}", disk.name, done.error().message);
    info.vm_state_bytes = 0;
  }
  return {};
}

// --- going back

Result<> read_state(Machine& machine, const Part& part) {
  ImageSource source(*machine.drives(), *part.disk.format, part.info.vm_state_bytes);
  snapshot::StreamReader reader(source);
  KITE_TRY(reader.begin());
  KITE_TRY(snapshot::receive_ram(reader, guest_ram(machine.memory())));
  return machine.restore_state(reader.state());
}

Result<> go_back(Machine& machine, const std::vector<Part>& parts, const Part& with_state) {
  DriveStore& store = *machine.drives();
  std::vector<Disk> disks;
  store.cancel_waiting();
  for (const Part& part : parts) {
    if (auto done = store.run(apply_snapshot(*part.disk.format, part.info.id)); !done)
      return fail("'{}': {}", part.disk.name, done.error().message);
    disks.push_back(part.disk);
  }
  store.run(take_new_lengths(std::move(disks)));
  return read_state(machine, with_state);
}

}  // namespace

Result<> save_vm(Machine& machine, std::string_view name) {
  KITE_TRY(may_be_held(machine));
  KITE_ASSIGN(const std::vector<Disk> disks, disks_of(machine));
  const RunState before = machine.state();
  machine.pause_as(RunState::kSaveVm);
  Result<> done = write_snapshot(machine, disks, name);
  const bool run = before == RunState::kRunning;
  const Result<> left = machine.leave_pause(run ? RunState::kPaused : before, run);
  return done ? left : done;
}

Result<> load_vm(Machine& machine, std::string_view name) {
  KITE_TRY(may_be_held(machine));
  KITE_ASSIGN(const std::vector<Part> parts, parts_of(machine, name));
  for (const Part& part : parts) {
    if (const auto may = machine.drives()->run(may_go_back(*part.disk.format)); !may)
      return fail("Device '{}' cannot go back: {}", part.disk.name, may.error().message);
  }
  const auto with_state = std::ranges::find_if(parts, [](const Part& part) { return part.info.vm_state_bytes != 0; });
  if (with_state == parts.end())
    return fail("This is a disk-only snapshot. Revert to it offline using kite img: '{}' holds no machine", name);
  const bool run = machine.state() == RunState::kRunning;
  machine.pause_as(RunState::kRestoreVm);
  const Result<> done = go_back(machine, parts, *with_state);
  const Result<> left = machine.leave_pause(RunState::kPaused, run && done.has_value());
  if (done) return left;
  machine.reset(Cause::kHostError);
  return fail("{}; the machine was reset and stands still", done.error().message);
}

Result<> delete_vm(Machine& machine, std::string_view name) {
  KITE_TRY(may_be_held(machine));
  KITE_ASSIGN(const std::vector<Disk> disks, disks_of(machine));
  bool found_any = false;
  for (const Disk& disk : disks) {
    const std::vector<SnapshotInfo> all = machine.drives()->run(snapshots_of(*disk.format));
    const SnapshotInfo* const found = find(all, name);
    if (found == nullptr) continue;
    found_any = true;
    KITE_TRY(machine.drives()->run(drop_snapshot(*disk.format, found->id)));
  }
  if (!found_any) return fail("there is no snapshot '{}'; 'info snapshots' lists them", name);
  return {};
}

Result<std::vector<VmSnapshot>> vm_snapshots(Machine& machine) {
  KITE_ASSIGN(const std::vector<Disk> disks, disks_of(machine));
  std::vector<VmSnapshot> list;
  for (const SnapshotInfo& info : machine.drives()->run(snapshots_of(*disks.front().format))) {
    const bool everywhere = std::ranges::all_of(disks, [&](const Disk& disk) {
      return find(machine.drives()->run(snapshots_of(*disk.format)), info.name) != nullptr;
    });
    if (!everywhere || info.vm_state_bytes == 0) continue;
    list.push_back({.id = info.id,
                    .name = info.name,
                    .state_bytes = info.vm_state_bytes,
                    .date_seconds = info.date_seconds,
                    .clock_ns = info.vm_clock_ns});
  }
  return list;
}

std::string unnamed_snapshot() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::localtime_r(&now, &parts);
  return fmt::format("vm-{:04}{:02}{:02}{:02}{:02}{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min, parts.tm_sec);
}

}  // namespace kite::machine
